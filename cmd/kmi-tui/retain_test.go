package main_test

import (
	"context"
	endian "encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
)

// Old publications are told of first and removed then, not without being asked to, and never those that are needed.
func TestRetainCommand(t *testing.T) {
	u := newUser(t)
	where := "dir:" + filepath.Join(u.home, "images")
	u.want(0, "nothing to remove", "retain", "--registry", where)
	u.want(2, "write --keep N, or keep = N in [project] of", "retain", "--keep", "0", "--registry", where)
	u.want(2, `selector "debain" fits nothing`, "retain", "debain", "--registry", where)

	pair, err := trust.GenerateKey(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.LoadSigner(context.Background(), pair.Private, nil)
	if err != nil {
		t.Fatal(err)
	}
	registry, err := publish.Open(where, publish.Options{})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := registry.Repository("debian")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		disk := make([]byte, 4096) // a qcow2's header, QEMU's docs/interop/qcow2.rst
		copy(disk, "QFI\xfb\x00\x00\x00\x03")
		endian.BigEndian.PutUint64(disk[24:], 10<<30)
		disk[4000] = byte(i)
		file := filepath.Join(t.TempDir(), "disk.qcow2")
		if err := os.WriteFile(file, disk, 0o644); err != nil {
			t.Fatal(err)
		}
		day := time.Date(2026, 1, 1+7*i, 0, 0, 0, 0, time.UTC)
		img, err := container.Build(container.Spec{Arch: catalog.X86_64, DiskPath: file, Metadata: container.Metadata{Title: "x", UpstreamBuild: fmt.Sprint(i)}, Created: day})
		if err != nil {
			t.Fatal(err)
		}
		index, err := container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: img}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		sigs := map[v1.Hash]v1.Image{}
		for _, d := range []v1.Hash{must(index.Digest()), must(img.Digest())} {
			sigs[d] = must(trust.Sign(context.Background(), key, "x", d, "x:12", nil))
		}
		if _, err := publish.Publish(context.Background(), repo, publish.Release{Index: index, Signatures: sigs, Key: &key.Key, Moving: []string{"12"},
			Fixed: []string{publish.DatedTag("12", day), publish.BuildTag("12", fmt.Sprint(i))}, Shrink: true}, nil); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := u.want(0, "nothing was removed: --dry-run", "retain", "--dry-run", "--keep", "2", "--registry", where)
	for _, want := range []string{"/images/debian: 8 of 17 tags go, with ", "removes  12-20260101 ", "removes  12-0 ", "older than the newest 2 of 12", "keeps    12 ", "it moves", "keeps    12-20260115 ", "number 2 of the newest 2 of 12"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	u.want(2, "look with --dry-run, then say --yes", "retain", "--keep", "2", "--registry", where)
	u.want(0, "8 tags", "retain", "--keep", "2", "--registry", where, "--yes")
	out, _ = u.want(0, "", "retain", "--dry-run", "--keep", "2", "--registry", where, "--output", "json")
	var all []publish.Retained
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, r := range all {
		if len(r.Removed()) > 0 || strings.HasSuffix(r.Repository, "/debian") && len(r.Fates) != 9 {
			t.Errorf("%+v", r)
		}
	}
}
