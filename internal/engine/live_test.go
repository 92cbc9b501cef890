package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// live is an engine for a copy of the project's catalogue, and what has to be done to edit it.
func live(t *testing.T, change func(string) string) (l *Live, path, text string) {
	t.Helper()
	data, err := os.ReadFile(theCatalogue)
	if err != nil {
		t.Fatal(err)
	}
	text = string(data)
	path = filepath.Join(t.TempDir(), "distros.toml")
	if err := os.WriteFile(path, []byte(change(text)), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err = OpenLive(Config{Cache: t.TempDir(), Registry: "dir:" + t.TempDir(), KeyDir: t.TempDir()}, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, path, text
}

// changed waits until the file was read again with so many rows that have mistakes. On a busy machine it may be read while
// it is half written, and then once more.
func changed(t *testing.T, l *Live, broken int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if ok, err := l.Changed(ctx); !ok || err != nil {
			t.Fatalf("%v, %v: %v", ok, err, l.Draft().Problems)
		}
		if d := l.Draft(); len(d.Broken) == broken && len(d.Problems) >= broken && len(d.Elsewhere()) == 0 && len(d.Catalog.Flavors) > 0 {
			return
		}
	}
}

// A catalogue with mistakes opens; what is saved is read, however an editor saves.
func TestLiveCatalogue(t *testing.T) {
	spoiled := func(text string) string {
		return strings.Replace(text, "\n[[flavor]]\n", "\n[[flavor]]\nlevle = 1\n", 1)
	}
	l, path, text := live(t, spoiled)
	n := len(l.Catalog().Flavors)
	if d := l.Draft(); len(d.Broken) != 1 || len(d.Problems) != 1 {
		t.Fatalf("%+v", d.Problems)
	}
	var not *NotStarted
	if _, err := l.Run(t.Context(), Selection{}); !errors.As(err, &not) || !strings.Contains(err.Error(), "levle") {
		t.Errorf("a catalogue with mistakes is built from: %v", err)
	}
	// Written over.
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	changed(t, l, 0)
	if d := l.Draft(); len(d.Problems) != 0 || len(l.Catalog().Flavors) != n+1 {
		t.Errorf("%d rows, %v", len(l.Catalog().Flavors), d.Problems)
	}
	// The old one is renamed, a new one written.
	if err := os.Rename(path, path+"~"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(spoiled(text)), 0o644); err != nil {
		t.Fatal(err)
	}
	changed(t, l, 1)
	if len(l.Draft().Broken) != 1 {
		t.Error("a file beside the old one is not read")
	}
	// A new one is renamed onto it.
	if err := os.WriteFile(path+".new", []byte(text+"\n# the end\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	changed(t, l, 0)
	if len(l.Draft().Broken) != 0 {
		t.Error("a file renamed onto the old one is not read")
	}
	if _, err := l.Targets(Selection{Only: []string{"*"}}); err != nil {
		t.Error(err)
	}
	// Saved without a change, and other files: nobody is told.
	for _, name := range []string{path, path + ".swp"} {
		if err := os.WriteFile(name, []byte(text+"\n# the end\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*quiet)
	defer cancel()
	if ok, err := l.Changed(ctx); ok || err != nil {
		t.Errorf("%v, %v, though nothing has changed", ok, err)
	}
}

// A row that cannot be read at all leaves the others; a file that is gone leaves everything as it was.
func TestLiveThroughALink(t *testing.T) {
	l, path, text := live(t, func(s string) string { return s })
	link := filepath.Join(t.TempDir(), "link.toml")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	m, err := OpenLive(Config{Cache: t.TempDir(), KeyDir: t.TempDir()}, link)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text+"\n[[flavor]]\nid = \"new\"\nname = \"New"), 0o644); err != nil {
		t.Fatal(err)
	}
	changed(t, m, 1)
	changed(t, l, 1)
	d := m.Draft()
	if len(d.Broken) != 1 || d.Broken[0].ID != "new" || len(d.Catalog.Flavors) == 0 {
		t.Errorf("%+v", d.Broken)
	}
	l.Close()
	if ok, err := l.Changed(t.Context()); ok || err != nil {
		t.Errorf("%v, %v, though it is closed", ok, err)
	}
	if _, err := OpenLive(Config{Cache: t.TempDir()}, path+"-"); err == nil {
		t.Error("a file that is not there opens")
	}
}
