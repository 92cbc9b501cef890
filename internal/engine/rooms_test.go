package engine

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// The engine knows nothing of terminals.
func TestNoTerminals(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, no := range []string{"github.com/charmbracelet/", "github.com/muesli/termenv", "kmi-tui/internal/ui"} {
			if strings.Contains(dep, no) {
				t.Errorf("the engine imports %s", dep)
			}
		}
	}
}

// No package imports one that comes later on the way of an image.
func TestRoomsAreInOrder(t *testing.T) {
	order := []string{"event", "command", "catalog", "integrity", "upstream", "fetch", "disk", "machine", "network", "install", "customise", "container", "boot", "trust", "publish", "readme"}

	for i, name := range order {
		out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, "./"+name).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, dep := range strings.Fields(string(out)) {
			for _, later := range order[i+1:] {
				if strings.HasSuffix(dep, "/internal/engine/"+later) {
					t.Errorf("%s imports %s, which comes later", name, later)
				}
			}
		}
	}
}

// Distributions are data: Go names none outside of tests.
func TestGoNamesNoDistribution(t *testing.T) {
	c, err := catalog.Load("../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	words := []string{}
	for _, f := range c.Flavors {
		words = append(words, regexp.QuoteMeta(f.ID))
		for _, r := range f.Releases {
			if r.Codename != "" {
				words = append(words, regexp.QuoteMeta(r.Codename))
			}
		}
	}
	named := regexp.MustCompile(`(?i)\b(` + strings.Join(words, "|") + `)\b`)
	comment := regexp.MustCompile(`(?m)(^|\s)//.*$`)
	err = filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." && d.Name() != "." {
			if d != nil && d.IsDir() {
				return filepath.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range bytes.Split(comment.ReplaceAll(data, nil), []byte("\n")) {
			if m := named.Find(line); m != nil {
				t.Errorf("%s:%d names %s", path, i+1, m)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
