package ui

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// repository is a real engine on a copy of the repository's files.
func repository(t *testing.T) (e *engine.Engine, dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"distros.toml", "README.md"} {
		data, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := catalog.Load(filepath.Join(dir, "distros.toml"))
	if err != nil {
		t.Fatal(err)
	}
	e, err = engine.New(engine.Config{Catalog: c, Cache: t.TempDir(), Registry: "dir:" + filepath.Join(dir, "images"), KeyDir: t.TempDir(), Commit: "none"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e, dir
}

func file(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A promotion is asked about, shown with its evidence and its difference, and written when somebody says so.
func TestPromotionForm(t *testing.T) {
	e, dir := repository(t)
	before := file(t, dir, "distros.toml")
	x := open(t, e, 120, 40)
	x.wait("release chart")
	x.press("/")
	x.wait("filter")
	x.press("d", "e", "b", "i", "a", "n", "enter", "L")
	x.wait("Debian is preview. Where to?")
	x.press("enter") // up
	x.wait("failed")
	x.wait("not every criterion is passed")
	x.press("w") // it cannot be written, and says why
	x.wait("not every criterion is passed")
	x.press("enter") // what is open
	x.wait("1 of 2 · additions", "What vouches for it?")
	x.press("f", "i", "n", "e", "enter")
	x.wait("2 of 2 · reliable")
	x.press("enter")
	x.wait("stated")
	x.wait("published")
	x.press("esc")
	x.wait("release chart")
	if file(t, dir, "distros.toml") != before {
		t.Error("something was written")
	}
	x.press("L")
	x.wait("Where to?")
	x.press("down", "enter")
	x.wait("Why?")
	x.press("b", "r", "o", "k", "e", "enter")
	x.wait(`+level          = "planned"`)
	x.press("w")
	x.wait("Write it?")
	x.answer("Write it?", "y", "enter") // it has to be typed
	x.wait("not “planned”")
	x.press("backspace", "planned")
	x.wait("enter does it")
	x.press("enter")
	x.wait("debian is planned now")
	if got := file(t, dir, "distros.toml"); !strings.Contains(got, "reason = \"broke\"") {
		t.Error("it was not written")
	}
	if _, err := catalog.Load(filepath.Join(dir, "distros.toml")); err != nil && !strings.Contains(err.Error(), "deploy/installers") {
		t.Error(err)
	}
	// The Try Me of the row.
	x.press("T")
	x.wait("kind: VirtualMachine")
	x.press("enter") // the other kind of disk
	x.wait("dataVolumeTemplates:")
	x.press("enter")
	x.gone("dataVolumeTemplates:")
	x.press("w")
	x.wait("kmi-tui tryme debian")
	x.answer("Write it?", "y")
	x.wait("README.md has it now")
	if got := file(t, dir, "README.md"); !strings.Contains(got, "<!-- kmi:tryme debian begin -->") {
		t.Error("it was not written")
	}
	x.press("q")
	if err := <-x.ended; err != nil {
		t.Error(err)
	}
}

// Forms fit every terminal, and leave nothing behind.
func TestFormSizes(t *testing.T) {
	e, _ := repository(t)
	for _, size := range [][2]int{{80, 24}, {40, 12}, {200, 60}} {
		x := open(t, e, size[0], size[1])
		x.wait("Flavor")
		x.press("L")
		x.wait("Where to?")
		x.press("esc")
		x.wait("Flavor")
		// What is typed is seen, however long the evidence is, also after the terminal has become smaller.
		x.press("/", "debian", "enter", "L")
		x.wait("Where to?")
		x.press("enter")
		x.wait("not every criterion is pas") // cut where the evidence is long
		x.press("enter")
		x.wait("1 of 2 · additions", "leaves")
		x.press("seen by me")
		x.wait("> seen by me")
		x.size(40, 12)
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGWINCH); err != nil {
			t.Fatal(err)
		}
		x.wait("kmi-tui › promotion of debian", "1 of 2 · additions", "> seen by me", "What vouches for it?")
		x.press("esc")
		x.wait("enter answer")
		x.press("esc")
		x.wait("Flavor")
		x.press("q")
		if err := <-x.ended; err != nil {
			t.Error(err)
		}
	}
}
