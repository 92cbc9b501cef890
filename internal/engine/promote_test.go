package engine

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/readme"
)

// desk is an engine whose catalogue and README are copies, which may be written.
func desk(t *testing.T) (w *week, catalogue, text string) {
	t.Helper()
	return deskAt(t, "dir:"+t.TempDir())
}

func deskAt(t *testing.T, registry string) (w *week, catalogue, text string) {
	t.Helper()
	w = newWeek(t, registry)
	dir := t.TempDir()
	for _, name := range []string{"distros.toml", "README.md"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(theCatalogue), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	c, err := catalog.Load(filepath.Join(dir, "distros.toml"))
	if err != nil {
		t.Fatal(err)
	}
	w.cfg.Catalog = c
	return w, c.Path, filepath.Join(dir, "README.md")
}

func readText(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// state is that of a criterion.
func (p *Promotion) state(id string) CriterionState {
	for _, c := range p.Criteria {
		if c.ID == id {
			return c.State
		}
	}
	return ""
}

// A promotion is judged by what is published, passed by words only where nothing can be seen, and written as a whole.
func TestPromotion(t *testing.T) {
	w, catalogue, text := desk(t)
	ctx := t.Context()
	up := Ask{Flavor: "debian", To: catalog.Proposed}
	p, err := w.Promotion(ctx, up)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]CriterionState{"described": Proven, "redistribution": Proven, "published": Against, "signature": Against, "tested": Against, "reliable": Unproven, "additions": Unproven, "kubevirt": ""} {
		if got := p.state(id); got != want {
			t.Errorf("nothing published: %s is %q, want %q", id, got, want)
		}
	}
	if err := p.Write(ctx); err == nil || !strings.Contains(err.Error(), "debian cannot be proposed yet: published is not met: ") {
		t.Error(err)
	}
	publication := newPublication(w.Engine)
	if errs := all(t, []*job{w.made(t, publication, catalog.Preview, catalog.X86_64, "a"), w.made(t, publication, catalog.Preview, catalog.ARM64, "a")}, Pack, Sign, Publish); strings.Join(errs, "") != "" {
		t.Fatal(errs)
	}
	up.Stated = map[string]string{"reliable": "four weeks by hand", "additions": "read in review", "signature": "trust me"}
	if p, err = w.Promotion(ctx, up); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]CriterionState{"published": Proven, "signature": Proven, "tested": Proven, "reliable": Stated, "additions": Stated} {
		if got := p.state(id); got != want {
			t.Errorf("%s is %q, want %q: %+v", id, got, want, p.Criteria)
		}
	}
	before, page := readText(t, catalogue), readText(t, text)
	if err := p.Ready(); err != nil {
		t.Fatal(err)
	}
	if readText(t, catalogue) != before || !strings.Contains(p.Diff, `+level          = "proposed"`) || !strings.Contains(p.Diff, "+++ b/README.md") || !strings.Contains(p.Diff, `+stated.reliable = "four weeks by hand"`) || strings.Contains(p.Diff, "trust me") {
		t.Errorf("%s", p.Diff)
	}
	// Somebody else writes first.
	if err := os.WriteFile(text, []byte(page+"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := p.Write(ctx); err == nil || !strings.Contains(err.Error(), "README.md has changed since it was read: nothing was written") || readText(t, catalogue) != before {
		t.Error(err)
	}
	if err := os.WriteFile(text, []byte(page), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := p.Write(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Load(catalogue)
	if err != nil {
		t.Fatal(err)
	}
	if err := readme.CheckChart(text, c); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(catalogue); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(catalogue), ".kmi-tui-*")); len(left) > 0 {
		t.Errorf("%v", left)
	}
	w.cfg.Catalog = c
	// On to stable: what is seen, what is not, and what may be waived.
	high := Ask{Flavor: "debian", To: catalog.Stable, Waived: map[string]string{"packages": "made up", "base": "made up"}}
	if p, err = w.Promotion(ctx, high); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]CriterionState{"source": Proven, "pulled": Proven, "checksums": Proven, "documentation": Proven, "licence": Proven, "entrypoint": Proven, "size": Proven, "qcow": Proven,
		"packages": Waived, "base": Against, "kubevirt": Unproven, "enhancements": Unproven, "cloud-init": Proven, "try-me": Against, "upstream": Unproven} {
		if got := p.state(id); got != want {
			t.Errorf("stable: %s is %q, want %q: %+v", id, got, want, p.Criteria)
		}
	}
	// And back, by symbolic links, which stay.
	real := filepath.Join(t.TempDir(), "real.toml")
	if err := errors.Join(os.Rename(catalogue, real), os.Symlink(real, catalogue)); err != nil {
		t.Fatal(err)
	}
	if p, err = w.Promotion(ctx, Ask{Flavor: "debian", To: catalog.Preview, Reason: "it broke"}); err != nil {
		t.Fatal(err)
	}
	if err := p.Write(ctx); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(catalogue); err != nil || info.Mode()&fs.ModeSymlink == 0 || !strings.Contains(readText(t, real), `reason = "it broke"`) || readText(t, text) != page {
		t.Errorf("%v", err)
	}
}

// What could not be looked at is open, and somebody may vouch for it; what was seen to be wrong is not.
func TestWhatCannotBeSeenIsUnproven(t *testing.T) {
	shut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer shut.Close()
	ask := Ask{Flavor: "debian", To: catalog.Proposed, Stated: map[string]string{"published": "seen by hand", "signature": "s", "tested": "t", "reliable": "r", "additions": "a"}}
	w, _, _ := deskAt(t, strings.TrimPrefix(shut.URL, "http://")+"/kmi")
	p, err := w.Promotion(t.Context(), Ask{Flavor: "debian", To: catalog.Proposed})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"published", "signature", "tested"} {
		if p.state(id) != Unproven {
			t.Errorf("a registry that lets nobody in: %s is %q: %+v", id, p.state(id), p.Criteria)
		}
	}
	if err := p.Ready(); err == nil || !strings.Contains(err.Error(), "published is unproven") {
		t.Error(err)
	}
	if p, err = w.Promotion(t.Context(), ask); err != nil || p.state("published") != Stated || p.Ready() != nil {
		t.Errorf("%v, %+v", err, p)
	}

	w, _, _ = desk(t)
	publication := newPublication(w.Engine)
	if errs := all(t, []*job{w.made(t, publication, catalog.Preview, catalog.X86_64, "a"), w.made(t, publication, catalog.Preview, catalog.ARM64, "a")}, Pack, Sign, Publish); strings.Join(errs, "") != "" {
		t.Fatal(errs)
	}
	public := filepath.Join(w.cfg.KeyDir, "cosign.pub")
	if err := os.Remove(public); err != nil {
		t.Fatal(err)
	}
	if p, err = w.Promotion(t.Context(), Ask{Flavor: "debian", To: catalog.Proposed}); err != nil || p.state("published") != Proven || p.state("signature") != Unproven || p.state("tested") != Unproven {
		t.Errorf("without a key: %v, %+v", err, p)
	}
	other := newWeek(t, "dir:"+t.TempDir())
	if _, err := other.key(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(public, []byte(readText(t, filepath.Join(other.cfg.KeyDir, "cosign.pub"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err = w.Promotion(t.Context(), ask); err != nil || p.state("published") != Proven || p.state("signature") != Against || p.state("tested") != Against {
		t.Errorf("by another key: %v, %+v", err, p)
	}
	if err := p.Ready(); err == nil || !strings.Contains(err.Error(), "signature is not met") {
		t.Error(err)
	}
}

func TestPromotionRefuses(t *testing.T) {
	w, catalogue, _ := desk(t)
	for what, c := range map[string]struct {
		ask  Ask
		says string
	}{
		"nobody":     {Ask{Flavor: "debain", To: catalog.Stable}, `selector "debain" fits nothing`},
		"pattern":    {Ask{Flavor: "deb*", To: catalog.Stable}, `"deb*" is a pattern`},
		"level":      {Ask{Flavor: "debian", To: "beta"}, `level "beta": write one of`},
		"same":       {Ask{Flavor: "debian", To: catalog.Preview}, "debian is preview already"},
		"two steps":  {Ask{Flavor: "debian", To: catalog.Stable}, "one step at a time, next is proposed"},
		"no reason":  {Ask{Flavor: "debian", To: catalog.Planned}, "a step down has a reason"},
		"criterion":  {Ask{Flavor: "debian", To: catalog.Proposed, Stated: map[string]string{"fast": "yes"}}, `"fast" is no criterion; they are: described,`},
		"two lines":  {Ask{Flavor: "debian", To: catalog.Planned, Reason: "a\nb"}, "write one line"},
		"no licence": {Ask{Flavor: "vyos", To: catalog.Proposed}, ""},
	} {
		p, err := w.Promotion(t.Context(), c.ask)
		if c.says == "" {
			if err != nil || p.state("redistribution") != Against || p.Ready() == nil {
				t.Errorf("%s: %v, %+v", what, err, p)
			}
			continue
		}
		var not *NotStarted
		if err == nil || !errors.As(err, &not) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A file that cannot be replaced leaves both as they were.
	p, err := w.Promotion(t.Context(), Ask{Flavor: "debian", To: catalog.Planned, Reason: "r"})
	if err != nil {
		t.Fatal(err)
	}
	before := readText(t, catalogue)
	kept := p.files[1]
	p.files[1].path = filepath.Join(t.TempDir(), "gone", "README.md")
	if err := p.Write(context.Background()); err == nil || readText(t, catalogue) != before {
		t.Error(err)
	}
	// Nor do files that an editor saves while others are waited for.
	p.files[1] = kept
	page := readText(t, kept.path)
	if err := writeEditsWith(context.Background(), func(ctx context.Context) (func(), error) {
		unlock, err := p.lock(ctx)
		return unlock, errors.Join(err, os.WriteFile(kept.path, []byte(page+"by an editor\n"), 0o640))
	}, p.files, os.Rename); err == nil || !strings.Contains(err.Error(), "has changed since it was read") || readText(t, catalogue) != before || readText(t, kept.path) != page+"by an editor\n" {
		t.Error(err)
	}
	if err := os.WriteFile(kept.path, []byte(page), 0o640); err != nil {
		t.Fatal(err)
	}
	// Nor does one whose name cannot be taken at the last moment: the first is put back.
	p.files[1] = kept
	if err := writeEditsWith(context.Background(), p.lock, p.files, func(from, to string) error {
		if to == kept.path {
			return errors.New("no")
		}
		return os.Rename(from, to)
	}); err == nil || readText(t, catalogue) != before {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(catalogue), ".kmi-tui-*")); len(left) > 0 {
		t.Errorf("%v", left)
	}
}

// The Try Me of what is published names it by digest, and goes between marks of the README.
func TestTryMe(t *testing.T) {
	w, _, text := desk(t)
	t0, err := w.TryMe(t.Context(), "debian")
	if err != nil || t0.Pinned || t0.Image != "quay.io/containercraft/kmi/debian:13" || len(t0.YAML) != 1 {
		t.Fatalf("%+v, %v", t0, err)
	}
	publication := newPublication(w.Engine)
	if errs := all(t, []*job{w.made(t, publication, catalog.Preview, catalog.X86_64, "a")}, Pack, Sign, Publish); errs[0] != "" {
		t.Fatal(errs)
	}
	me, err := w.TryMe(t.Context(), "debian:13")
	if err != nil {
		t.Fatal(err)
	}
	if !me.Pinned || !strings.HasPrefix(me.Image, "quay.io/containercraft/kmi/debian@sha256:") || !strings.Contains(me.YAML[0], "image: "+me.Image+"\n") || !strings.Contains(me.YAML[0], "masquerade: {}") {
		t.Errorf("%+v", me)
	}
	if want := "virtctl create vm --name=debian-13 --instancetype=u1.medium --preference=debian --volume-containerdisk=src:" + me.Image + " --user=debian --access-cred=src:debian-13-key | kubectl create -f -"; me.Create[0] != want {
		t.Errorf("%s", me.Create[0])
	}
	page := readText(t, text)
	d, err := me.Diff()
	if err != nil || !strings.Contains(d, "+<!-- kmi:tryme debian begin -->") || readText(t, text) != page {
		t.Fatalf("%v\n%s", err, d)
	}
	if err := me.Write(t.Context()); err != nil {
		t.Fatal(err)
	}
	from, to, ok := readme.Block([]byte(readText(t, text)), "debian")
	if !ok || readText(t, text)[from:to] != strings.TrimRight(me.Markdown, "\n")+"\n" {
		t.Errorf("%v", ok)
	}
	again, err := w.TryMe(t.Context(), "debian:13")
	if d, derr := again.Diff(); err != nil || derr != nil || d != "" {
		t.Errorf("%v, %v, %s", err, derr, d)
	}
	// Preferences that differ by architecture make a machine each; ignition has its own volume.
	w.cfg.Catalog.Flavors[5].Preference = map[catalog.Arch]string{catalog.X86_64: "fedora", catalog.ARM64: "fedora.arm64"}
	w.cfg.Catalog.Flavors[5].Provision = "ignition"
	w.cfg.Catalog.Flavors[5].User = ""
	two, err := w.TryMe(t.Context(), "debian")
	if err != nil || len(two.YAML) != 2 || !strings.Contains(two.YAML[1], "architecture: arm64") || !strings.Contains(two.YAML[0], "cloudInitConfigDrive:") || strings.Contains(two.YAML[0], "accessCredentials") {
		t.Errorf("%+v, %v", two, err)
	}
	for selector, says := range map[string]string{"debain": "fits nothing", "debian:99": "debian:99", "neutrino": "nothing upstream"} {
		if _, err := w.TryMe(t.Context(), selector); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", selector, err)
		}
	}
}
