package engine

import (
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// built is a job whose disk of that size is in the cache, on its way to a registry that takes layers of 1 MiB. It also
// returns what the registry was asked to change.
func built(t *testing.T, size int64, packages string, to func(host string) string) (j *job, changes func() []string) {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	next := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			mu.Lock()
			seen = append(seen, r.Method+" "+r.URL.Path)
			mu.Unlock()
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	c, err := catalog.Load("../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	c.Registries = append(c.Registries, catalog.Registry{Host: "127.0.0.1:*", Layer: "1MiB", Source: "the test"})
	e, err := New(Config{Catalog: c, Cache: t.TempDir(), Registry: to(strings.TrimPrefix(s.URL, "http://")), Base: "scratch", KeyDir: t.TempDir(), Commit: "none",
		Now: func() time.Time { return time.Date(2026, 10, 15, 12, 0, 0, 0, time.UTC) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	f := &c.Flavors[slices.IndexFunc(c.Flavors, func(f catalog.Flavor) bool { return f.Origin != nil && f.Origin.Kind == "packages" })]
	j = e.job(Target{Flavor: f, Release: &f.Releases[0], Arch: catalog.X86_64}, Selection{}, e.ask(e.bus))
	if j.repo, err = e.registry.Repository(f.ID); err != nil {
		t.Fatal(err)
	}
	j.publication = newPublication(e)
	j.publication.join()
	j.snapshot, j.key, j.pulled = &upstream.Snapshot{Build: "1"}, strings.Repeat("a", 64), e.Now()
	j.folder = e.cache.Path("disks", j.key)
	qcow2 := emptyDisk(size)
	file := filepath.Join(j.folder, "disk.qcow2")
	if err := errors.Join(os.MkdirAll(filepath.Join(j.folder, "licenses"), 0o755), os.WriteFile(file, qcow2, 0o644),
		os.WriteFile(filepath.Join(j.folder, "packages.txt"), []byte(packages), 0o644)); err != nil {
		t.Fatal(err)
	}
	sum, _, err := disk.Sum(file)
	if err != nil {
		t.Fatal(err)
	}
	j.disk = &disk.Disk{File: "disk.qcow2", Format: "qcow2", SHA256: sum, Size: size, VirtualSize: 10 << 30, Packages: "packages.txt", Licences: "licenses"}
	return j, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

// emptyDisk is a qcow2 of that size in bytes: its header, and nothing; see QEMU, docs/interop/qcow2.rst.
func emptyDisk(size int64) []byte {
	qcow2 := make([]byte, size)
	copy(qcow2, "QFI\xfb\x00\x00\x00\x03")
	binary.BigEndian.PutUint64(qcow2[24:], 10<<30)
	return qcow2
}

// through takes a job through some stages, and returns the error of the last one and its remedy.
func (j *job) through(t *testing.T, stages ...Stage) (text, remedy string) {
	t.Helper()
	for _, s := range stages {
		i := slices.Index(Stages, s)
		if !j.step(t.Context(), i) {
			if s != stages[len(stages)-1] {
				t.Fatalf("%s: %s", s, j.result.Error)
			}
			break
		}
	}
	if j.result.State != event.Failed {
		return "", ""
	}
	return j.result.Error, j.result.Remedy
}

const packageList = "small 1 amd64 1024\nlarge 1 amd64 104857600\nold 1 all\n"

// A disk that the registry does not take is not even packed.
func TestADiskThatIsTooLargeIsNotPacked(t *testing.T) {
	j, changes := built(t, 1<<20+1, packageList, func(host string) string { return host + "/kmi" })
	text, remedy := j.through(t, Pack)
	if !strings.HasPrefix(text, "pack: the disk has 1048577 bytes (1.0 MiB), and 127.0.0.1:") || !strings.HasSuffix(text, " takes layers of at most 1048576 bytes (1.0 MiB, see the test)") {
		t.Error(text)
	}
	if !strings.HasSuffix(remedy, "(--registry); the largest packages by their installed size: large (100.0 MiB), small (1.0 KiB)") {
		t.Error(remedy)
	}
	if j.image != nil || len(changes()) > 0 {
		t.Errorf("%v", changes())
	}
}

// One that fits without its tar headers is refused when the whole is known, before anything is sent.
func TestALayerThatIsTooLargeIsNotSent(t *testing.T) {
	j, changes := built(t, 1<<20, packageList, func(host string) string { return host + "/kmi" })
	text, remedy := j.through(t, Pack, Sign, Publish)
	if !strings.HasPrefix(text, "publish: the disk's layer for linux/amd64 (application/vnd.oci.image.layer.v1.tar) has 1050624 bytes (1.0 MiB), and 127.0.0.1:") ||
		!strings.HasSuffix(text, " takes layers of at most 1048576 bytes (1.0 MiB, see the test)") {
		t.Error(text)
	}
	if !strings.HasSuffix(remedy, "; the largest packages by their installed size: large (100.0 MiB), small (1.0 KiB)") {
		t.Error(remedy)
	}
	if c := changes(); len(c) > 0 {
		t.Errorf("%v", c)
	}
}

// What fits is published, also what is just at the limit; a folder takes everything.
func TestWhatFitsIsPublished(t *testing.T) {
	j, changes := built(t, 1<<20-2048, packageList, func(host string) string { return host + "/kmi" })
	if text, remedy := j.through(t, Pack, Sign, Publish); text != "" || len(changes()) == 0 {
		t.Errorf("%s (%s), %v", text, remedy, changes())
	}
	images := t.TempDir()
	j, changes = built(t, 2<<20, "old 1 all\n", func(string) string { return "dir:" + images })
	if text, remedy := j.through(t, Pack, Sign, Publish); text != "" || len(changes()) > 0 {
		t.Errorf("%s (%s), %v", text, remedy, changes())
	}
}

// A list of packages that nobody should read means that the disk is built again.
func TestADamagedListIsNotPacked(t *testing.T) {
	j, _ := built(t, 4096, "a\x1b[2J 1 all\n", func(host string) string { return host + "/kmi" })
	text, remedy := j.through(t, Pack)
	if text != "pack: the cache is damaged: list of packages, line 1: it has the character U+001B" || remedy != "run again: the disk will be built anew" {
		t.Errorf("%s (%s)", text, remedy)
	}
	if _, err := os.Stat(j.folder); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A layer that is compressed may fit where its disk does not, and its file goes when it was published.
func TestACompressedLayerIsPublished(t *testing.T) {
	for _, form := range []container.Form{container.Gzip, container.Zstd} {
		j, _ := built(t, 2<<20, packageList, func(host string) string { return host + "/kmi" })
		j.e.form = form
		if text, remedy := j.through(t, Pack, Sign, Publish); text != "" {
			t.Fatalf("%s: %s (%s)", form, text, remedy)
		}
		m, err := j.image.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if d := m.Layers[len(m.Layers)-1]; !strings.HasSuffix(string(d.MediaType), map[container.Form]string{container.Gzip: "tar+gzip", container.Zstd: "tar+zstd"}[form]) || d.Size >= 1<<20 {
			t.Errorf("%s: %+v", form, d)
		}
		if left, err := filepath.Glob(j.e.cache.Path("work", "*")); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", form, left, err)
		}
	}
	c, err := catalog.Load("../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(Config{Catalog: c, Cache: t.TempDir(), Registry: "dir:" + t.TempDir(), Layer: "xz"})
	var r *event.Remedied
	if err == nil || !errors.As(err, &r) || !strings.Contains(r.Remedy, "none, gzip or zstd") {
		t.Errorf("%v", err)
	}
}
