package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/boot"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
)

// What the registry and the cache know of an image is told, also where one of them knows nothing.
func TestImage(t *testing.T) {
	w := newWeek(t, "dir:"+t.TempDir())
	p := newPublication(w.Engine)
	j := w.made(t, p, catalog.Preview, catalog.X86_64, "a")
	name := j.target.String()
	if img, err := w.Image(t.Context(), name); err != nil || img.Reference != "" || img.Changes != nil || img.Boots != nil {
		t.Fatalf("nothing is published: %+v, %v", img, err)
	}
	boots := []boot.Result{{Firmware: "uefi", Accel: "kvm", Seconds: 12, Checks: []boot.Check{{Name: "guest agent", OK: true, Detail: "answers \x1b[31min 4 s"}}}}
	if err := w.cache.Store("tests", testKey(j.target, j.disk.SHA256), testRecord{w.now, boots}); err != nil {
		t.Fatal(err)
	}
	if errs := all(t, []*job{j}, Pack, Sign, Publish); errs[0] != "" {
		t.Fatal(errs)
	}
	img, err := w.Image(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(img.Reference, "@"+j.digest.String()) || !slices.Contains(img.Tags, j.target.Release.Version) || img.Labels["io.kmi.upstream"] != "1.2+a" {
		t.Errorf("%+v", img)
	}
	if img.Disk != j.disk.SHA256 || img.Size != 4096 || img.Virtual != 10<<30 {
		t.Errorf("the disk is %s, %d of %d", img.Disk, img.Size, img.Virtual)
	}
	if len(img.Layers) < 2 || img.Layers[0].What == "" || img.Layers[0].Size == 0 {
		t.Errorf("layers %+v", img.Layers)
	}
	if !img.Tested.Equal(w.now) || len(img.Boots) != 1 || !strings.HasPrefix(img.Boots[0].Checks[0].Detail, "answers ") || strings.Contains(img.Boots[0].Checks[0].Detail, "\x1b") {
		t.Errorf("tested %v: %+v", img.Tested, img.Boots)
	}
	if _, err := w.Image(t.Context(), "nothing:1/x86_64"); err == nil {
		t.Error("a target that is none has an image")
	}
}

// Two disks of a target in the cache differ by their packages.
func TestPackageChanges(t *testing.T) {
	w := newWeek(t, "dir:"+t.TempDir())
	j := w.made(t, newPublication(w.Engine), catalog.Preview, catalog.X86_64, "a")
	for i, list := range []string{"bash 5.2 amd64 10\nlinux 6.1 amd64 10\nlinux 6.0 amd64 9\nold 1 amd64\n", "bash 5.3 amd64 10\nlinux 6.1 amd64 10\nlinux 6.0 amd64 9\nnew 2 amd64\n"} {
		key := strings.Repeat(string(rune('a'+i)), 64)
		dir := w.cache.Path("disks", key)
		d := disk.Disk{File: "disk.qcow2", SHA256: strings.Repeat("0", 63) + string(rune('0'+i)), Size: 4, Packages: "packages.txt"}
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, d.File), []byte("disk"), 0o644), os.WriteFile(filepath.Join(dir, d.Packages), []byte(list), 0o644),
			w.cache.Store("disks", key, diskRecord{Disk: d, Made: w.now.AddDate(0, 0, 7*i)})); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.cache.Store("history", j.target.String(), []string{strings.Repeat("b", 64), strings.Repeat("a", 64)}); err != nil {
		t.Fatal(err)
	}
	img, err := w.Image(t.Context(), j.target.String())
	if err != nil || img.Changes == nil {
		t.Fatalf("%+v, %v", img, err)
	}
	c := img.Changes
	if c.New != w.now.AddDate(0, 0, 7).Format(time.DateOnly) || c.Old != w.now.Format(time.DateOnly) || img.Disk[63] != '1' {
		t.Errorf("%+v", c)
	}
	if !slices.Equal(c.Changed, []PackageChange{{"bash", "5.2", "5.3"}}) || !slices.Equal(c.Added, []PackageChange{{"new", "", "2"}}) || !slices.Equal(c.Removed, []PackageChange{{"old", "1", ""}}) {
		t.Errorf("%+v", c)
	}
}
