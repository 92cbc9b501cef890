package engine

import (
	"errors"
	"strings"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

func TestSelectors(t *testing.T) {
	c, err := catalog.Load("../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(Config{Catalog: c, Cache: t.TempDir(), Registry: "dir:" + t.TempDir(), KeyDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		only   string
		levels string
		want   string // targets, then flavors without releases; or a part of the error
	}{
		{"debian", "", "debian:13/x86_64 debian:13/arm64 debian:12/x86_64 debian:12/arm64"},
		{"debian:12", "", "debian:12/x86_64 debian:12/arm64"},
		{"debian:12/x86_64", "", "debian:12/x86_64"},
		{"*/arm64", "", "debian:13/arm64 debian:12/arm64 almalinux alpine centos fedora freebsd openwrt rhcos ubuntu"},
		{"deb*:1[23]/x86*", "", "debian:13/x86_64 debian:12/x86_64"},
		{"neutrino,fedora", "", "fedora neutrino"},
		{"", "planned", "freebsd neutrino nixos openbsd openwrt opnsense opensuse pfsense rhcos rocky"},
		{"fedora*", "planned", "error nothing in"},
		{"fedora:44", "", "fedora"},
		{"debian:11", "", "error selector \"debian:11\" fits nothing"},
		{"debian:12/riscv64", "", "error fits nothing"},
		{"[", "", "error write FLAVOR"},
		{"a/b/c", "", "error fits nothing"},
	} {
		sel := Selection{}
		if x.only != "" {
			sel.Only = strings.Split(x.only, ",")
		}
		if x.levels != "" {
			sel.Levels = []catalog.Level{catalog.Level(x.levels)}
		}
		targets, others, err := e.selected(t.Context(), nil, sel, Publish)
		if want, ok := strings.CutPrefix(x.want, "error "); ok {
			var not *NotStarted
			if !errors.As(err, &not) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: %v", x.only, x.levels, err)
			}
			continue
		}
		var got []string
		for _, t := range targets {
			got = append(got, t.String())
		}
		for _, p := range others {
			got = append(got, p.Target)
		}
		if err != nil || strings.Join(got, " ") != x.want {
			t.Errorf("%q %s: %v, %s", x.only, x.levels, err, strings.Join(got, " "))
		}
	}
	// Without a word, everything but what is planned.
	targets, others, err := e.selected(t.Context(), nil, Selection{}, Publish)
	if err != nil || len(targets) != 7 || len(others) != 7 {
		t.Errorf("%v: %d targets, %d others", err, len(targets), len(others))
	}
}
