package readme

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func load(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load("../../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; look at it and rewrite it with -update:\n%s", path, got)
	}
}

func TestTexts(t *testing.T) {
	c := load(t)
	golden(t, "chart.md", Chart(c))
	golden(t, "chart.txt", Text(c))
	data, err := JSON(c)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "chart.json", string(data))
}

// The chart that the project published, apart from the case of its marks and the order of its links.
func TestChartIsThePublishedOne(t *testing.T) {
	published, err := os.ReadFile("../catalog/testdata/chart.md")
	if err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(Chart(load(t)), "\n\n")
	lines := slices.DeleteFunc(strings.Split(table, "\n"), func(l string) bool { return strings.Contains(l, "[FreeBSD]") }) // came later
	want := strings.Split(string(published), "\n")[:len(lines)]
	for i := range lines {
		if !strings.EqualFold(lines[i], want[i]) {
			t.Errorf("line %d:\n%s\n%s", i, lines[i], want[i])
		}
	}
	if lines[0] != want[0] || lines[1] != want[1] {
		t.Error("the head of the table differs")
	}
}

func TestTheREADMEHoldsTheChart(t *testing.T) {
	if err := CheckChart("../../../README.md", load(t)); err != nil {
		t.Error(err)
	}
}

func TestCheckChartAndReplace(t *testing.T) {
	c := load(t)
	chart := Chart(c)
	dos := strings.ReplaceAll(chart, "\n", "\r\n")
	for _, test := range []struct{ name, readme, want string }{
		{"right", "# T\n" + Begin + "\n" + chart + End + "\n", ""},
		{"right, by an editor that ends lines otherwise", "# T\r\n" + Begin + "\r\n" + dos + End + "\r\n", ""},
		{"a mark in a sentence", "Between `" + Begin + "` and `" + End + "`:\n" + Begin + "\n" + chart + End, ""},
		{"no marks", "# T\n", "README.md: the chart's place is not marked: write the lines " + Begin + " and " + End + ", and the chart between them"},
		{"no end", "# T\n" + Begin + "\n" + chart, "README.md: the chart's place is not marked: write the lines"},
		{"out of order", End + "\n" + Begin + "\n", "README.md:2: " + Begin + " comes after " + End + ": write it on a line before that"},
		{"begins twice", Begin + "\n\n" + Begin + "\n" + End + "\n", "README.md:3: " + Begin + " is there already, in line 1: leave one of the two out"},
		{"ends twice", Begin + "\n" + chart + End + "\n\n" + End + "\n", "README.md:47: " + End + " is there already, in line 45: leave one of the two out"},
		{"no line of its own", Begin + "\n" + strings.TrimSuffix(chart, "\n") + End + "\n", "README.md:44: " + End + " shares its line with other text: write it on a line of its own"},
		{"empty", "# T\n" + Begin + "\n" + End + "\n", `README.md:3: the chart differs from ../../../distros.toml: found the end of the chart, expected "| Flavor           |`},
		{"old", "# T\r\nmine\t \n" + Begin + "\nold\n" + End + "\n\xff also mine", `README.md:4: the chart differs from ../../../distros.toml: found "old", expected "| Flavor`},
		{"more", Begin + "\n" + chart + "more\n" + End + "\n", `README.md:45: the chart differs from ../../../distros.toml: found "more", expected the end of the chart`},
		{"another link", Begin + "\n" + strings.Replace(chart, "[Debian]:https://www.debian.org", "[Debian]:https://evil.example.org", 1) + End + "\n",
			`README.md:30: the chart differs from ../../../distros.toml: found "[Debian]:https://evil.example.org", expected "[Debian]:https://www.debian.org"`},
		{"lines that end otherwise", Begin + "\n" + dos + End + "\n", `README.md:2: the chart differs from ../../../distros.toml: found "| Flavor`},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "README.md")
			if err := os.WriteFile(path, []byte(test.readme), 0o644); err != nil {
				t.Fatal(err)
			}
			err := CheckChart(path, c)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else if err == nil || !strings.HasPrefix(strings.TrimPrefix(err.Error(), dir+"/"), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			} else if r, ok := err.(*event.Remedied); !ok || !strings.Contains(r.Remedy, "kmi-tui chart --output markdown") {
				t.Errorf("the remedy does not name the command that prints the chart: %#v", err)
			}
			fixed, err := Replace([]byte(test.readme), c)
			if _, bad := err.(*misplaced); bad {
				return // nothing to put it between
			} else if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, fixed, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := CheckChart(path, c); err != nil {
				t.Errorf("after Replace: %v", err)
			}
			// Every other byte is as it was.
			s, err := find([]byte(test.readme))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(fixed), test.readme[:s.from]) || !strings.HasSuffix(string(fixed), test.readme[s.to:]) || len(fixed) != s.from+len(s.chart(c))+len(test.readme)-s.to {
				t.Errorf("other bytes than the chart's were changed:\n%s", fixed)
			}
		})
	}
	if err := CheckChart(filepath.Join(t.TempDir(), "README.md"), c); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// A catalogue of other names than today's keeps its columns.
func TestLongAndWideNames(t *testing.T) {
	c := &catalog.Catalog{Flavors: []catalog.Flavor{
		{ID: strings.Repeat("long-", 12), Name: "A Distribution with a Long Name", Home: "https://a.example.org", Level: catalog.Stable, Arch: catalog.Arches,
			Origin: &catalog.Origin{}, Releases: []catalog.Release{{Version: "2026.11.23-0001"}, {Version: "2025.11.23-0001"}}},
		{ID: "wide", Name: "银河麒麟", Home: "https://b.example.org", Level: catalog.Proposed, Arch: []catalog.Arch{catalog.ARM64}},
	}}
	golden(t, "long.md", Chart(c))
	golden(t, "long.txt", Text(c))
	for _, line := range append(strings.Split(Text(c), "\n"), strings.Split(Text(load(t)), "\n")...) {
		if columns.StringWidth(line) > 80 {
			t.Errorf("%d columns: %s", columns.StringWidth(line), line)
		}
	}
	table, _, _ := strings.Cut(Chart(c), "\n\n")
	for _, line := range strings.Split(table, "\n") {
		if w := columns.StringWidth(table[:strings.IndexByte(table, '\n')]); columns.StringWidth(line) != w {
			t.Errorf("%d columns, not %d: %s", columns.StringWidth(line), w, line)
		}
	}
}

// One row is changed, and nothing else, also where other rows are not the catalogue's.
func TestSetRow(t *testing.T) {
	c := load(t)
	i := slices.IndexFunc(c.Flavors, func(f catalog.Flavor) bool { return f.ID == "debian" })
	old := Chart(c)
	c.Flavors[i].Level = catalog.Proposed
	row := func(chart string) string {
		_, rest, _ := strings.Cut(chart, "\n| [Debian] ")
		text, _, _ := strings.Cut(rest, "\n")
		return "| [Debian] " + text + "\n"
	}
	before, after := row(old), row(Chart(c))
	if before == after {
		t.Fatal("the level is not in the row")
	}
	mine := strings.Replace(strings.Replace(old, "[Fedora]   ", "[Fedora] mine", 1), "https://ubuntu.com", "https://ubuntu.example.org", 1)
	for name, page := range map[string]string{
		"as it is":        "# T\n" + Begin + "\n" + old + End + "\n\xff also mine",
		"other line ends": strings.ReplaceAll("# T\n"+Begin+"\n"+old+End+"\n", "\n", "\r\n"),
		"edited by hand":  "# T\n" + Begin + "\n" + mine + "\nwords\n" + End + "\n| [Debian] | not in the chart |\n",
	} {
		b, a := before, after
		if strings.Contains(page, "\r\n") {
			b, a = strings.ReplaceAll(b, "\n", "\r\n"), strings.ReplaceAll(a, "\n", "\r\n")
		}
		got, err := SetRow([]byte(page), c, "debian")
		if want := strings.Replace(page, b, a, 1); err != nil || string(got) != want || want == page {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
	// What is no chart with that row becomes one.
	for name, chart := range map[string]string{"nothing": "", "no such row": strings.Replace(old, before, "", 1), "the row twice": strings.Replace(old, before, before+before, 1), "another head": strings.Replace(old, "Flavor", "Name  ", 1)} {
		got, err := SetRow([]byte(Begin+"\n"+chart+End+"\n"), c, "debian")
		if err != nil || string(got) != Begin+"\n"+Chart(c)+End+"\n" {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
	if _, err := SetRow([]byte("# T\n"), c, "debian"); err == nil {
		t.Error("without marks there is nothing to change")
	}
}

// Whatever the README holds, Replace leaves what is outside of the marks alone, and what it returns passes.
func FuzzReplace(f *testing.F) {
	c := load(f)
	f.Add([]byte("a\n" + Begin + "\nb\n" + End + "\nc"))
	f.Add([]byte(Begin + "\r\n" + End))
	f.Add([]byte(Begin + End))
	f.Fuzz(func(t *testing.T, data []byte) {
		fixed, err := Replace(data, c)
		if err != nil {
			return
		}
		s, err := find(data)
		if err != nil {
			t.Fatal(err)
		}
		again, err := find(fixed)
		if err != nil || string(fixed[again.from:again.to]) != s.chart(c) || !bytes.Equal(fixed[:again.from], data[:s.from]) || !bytes.Equal(fixed[again.to:], data[s.to:]) {
			t.Fatalf("%q became %q", data, fixed)
		}
	})
}
