package catalog

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// project is the file of the project, of which tests spoil a part.
func project(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("../../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func ids(c *Catalog) (list []string) {
	for _, f := range c.Flavors {
		list = append(list, f.ID)
	}
	return list
}

// Whatever is wrong with one row, the others are there, with every mistake where it stands.
func TestDrafts(t *testing.T) {
	good := project(t)
	whole, err := Parse("distros.toml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	lineOf := func(text, part string) int {
		before, _, ok := strings.Cut(text, part)
		if !ok {
			t.Fatalf("no %q", part)
		}
		return strings.Count(before, "\n") + 1
	}
	const alpine = "id = \"alpine\""
	spaced := alpine
	if !strings.Contains(good, alpine) {
		for _, l := range strings.Split(good, "\n") {
			if strings.HasPrefix(l, "id") && strings.Contains(l, `"alpine"`) {
				spaced = l
			}
		}
	}
	for _, c := range []struct {
		name, old, new string
		broken         []string // ids of rows
		at, message    string   // where a mistake is told, and what of it
		elsewhere      int
	}{
		{"a good file", "", "", nil, "", "", 0},
		{"a level that is none", spaced, spaced + "\nlevle = 1", []string{"alpine"}, "levle = 1", "unknown key", 0},
		{"no TOML in a row", spaced, spaced + "\nname =", []string{"alpine"}, "name =\n", "is not TOML", 0},
		{"two rows", "\n[[flavor]]\n", "\n[[flavor]]\nx = 1\n", nil, "x = 1", "unknown key", 0},
		{"an open text", spaced, spaced + "\nx = \"\"\"open", nil, "", "", 0},
		{"the project", "[project]", "[project]\ncolour = 1", nil, "colour = 1", "unknown key", 1},
		{"no TOML in the project", "[project]", "[project]\ncolour", nil, "colour\n", "is not TOML", 1},
		{"no project", "[project]", "[projekt]", nil, "[projekt]", "unknown key", 1},
		{"nothing", good, "", nil, "", "", 1},
		{"noise", good, strings.Repeat("[[[", 5000), nil, "", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := good
			if c.old != "" {
				text = strings.Replace(good, c.old, c.new, 1)
			}
			d := ParseDraft("distros.toml", []byte(text))
			if (len(d.Problems) == 0) != (text == good) {
				t.Fatalf("%d problems: %v", len(d.Problems), d.Problems)
			}
			_, err := Parse("distros.toml", []byte(text))
			if (err == nil) != (len(d.Problems) == 0) {
				t.Fatalf("a draft says %v, a catalogue %v", d.Problems, err)
			}
			var broken []string
			for _, b := range d.Broken {
				broken = append(broken, b.ID)
				if len(b.Problems) == 0 && len(d.Elsewhere()) == 0 {
					t.Errorf("%s is broken, and nothing says why", b.ID)
				}
			}
			if c.broken != nil && !slices.Equal(broken, c.broken) {
				t.Errorf("broken are %q, not %q: %v", broken, c.broken, d.Problems)
			}
			if c.broken != nil && len(d.Catalog.Flavors) != len(whole.Flavors)-len(c.broken) {
				t.Errorf("of the good rows there are %q", ids(d.Catalog))
			}
			if c.name == "the project" && (len(d.Broken) > 0 || d.Catalog.Project.Name != whole.Project.Name) {
				t.Errorf("one line costs the whole project: %v", d.Broken)
			}
			if c.elsewhere > 0 && len(d.Elsewhere()) == 0 {
				t.Errorf("nothing is wrong besides rows, but %v", d.Problems)
			}
			if c.at == "" {
				return
			}
			line := lineOf(text, c.at)
			if !slices.ContainsFunc(d.Problems, func(p Problem) bool { return p.Line == line && strings.Contains(p.Message, c.message) }) {
				t.Errorf("no %q at line %d: %v", c.message, line, d.Problems)
			}
		})
	}
	// Two mistakes of which the first hides the second from a parser.
	text := strings.Replace(good, spaced, spaced+"\nname =", 1)
	text = strings.Replace(text, "\n[[flavor]]\n", "\n[[flavor]]\nlevle = 1\n", 1)
	d := ParseDraft("distros.toml", []byte(text))
	if len(d.Broken) != 2 || len(d.Problems) != 2 || len(d.Catalog.Flavors) != len(whole.Flavors)-2 {
		t.Errorf("%d broken rows, %v", len(d.Broken), d.Problems)
	}
	if d.Catalog.Project.Name != whole.Project.Name {
		t.Errorf("the project is %q", d.Catalog.Project.Name)
	}
}

// A draft of anything is a catalogue that fits every rule, and a mistake is told exactly where there is one.
func FuzzParseDraft(f *testing.F) {
	good := strings.TrimLeft(standInProject+standInBase+strings.ReplaceAll(standInRow, standInID, "a")+strings.ReplaceAll(strings.ReplaceAll(standInRow, standInID, "b"), `"x"`, `"y"`), "\n")
	f.Add([]byte(good))
	f.Add([]byte(strings.Replace(good, "level", "levle", 1)))
	f.Add([]byte("[[flavor]]\nid = \"a\"\n[flavor.origin]\n[[flavor]]\nid='b"))
	f.Add([]byte("[project]\nx = [[\n[\"a\"]\n]]\n[[flavor]]\nid=\"\x1b[31m\"\nname='''\n[[flavor]]\n'''"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := ParseDraft("distros.toml", data)
		_, err := Parse("distros.toml", data)
		if (err == nil) != (len(d.Problems) == 0) {
			t.Fatalf("a draft says %v, a catalogue %v", d.Problems, err)
		}
		lines := strings.Count(string(data), "\n") + 1
		for _, b := range d.Broken {
			if b.Line < 1 || b.Line > lines || strings.ContainsAny(b.ID+b.Name+b.Level, "\x1b\n") {
				t.Fatalf("%+v", b)
			}
		}
		v := &validator{Catalog: &Catalog{lines: map[string]int{}}}
		for i := range d.Catalog.Flavors {
			v.flavor(place{v: v}, &d.Catalog.Flavors[i])
			if !idForm.MatchString(d.Catalog.Flavors[i].ID) {
				t.Fatalf("the row %q", d.Catalog.Flavors[i].ID)
			}
		}
	})
}

// A file that is nothing but mistakes is read in a moment, too.
func TestHostileDraftsAreCheap(t *testing.T) {
	size := maxFile
	if testing.Short() {
		size /= 8
	}
	for _, part := range []string{"[[flavor]]\nx =\n", "[[flavor]]\nx = 1\n", "[a]\n", "[[", "\"\"\"\n", "x = [\n"} {
		began := time.Now()
		d := ParseDraft("distros.toml", []byte(strings.Repeat(part, size/len(part))))
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%q: %v", part, took)
		}
		if len(d.Problems) == 0 || len(d.Catalog.Flavors) != 0 {
			t.Errorf("%q: %d problems, %d rows", part, len(d.Problems), len(d.Catalog.Flavors))
		}
	}
}
