package readme

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containercraft/kmi-tui/internal/engine/catalog"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func load(t *testing.T) *catalog.Catalog {
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
	golden(t, "chart.txt", Text(c))
	data, err := JSON(c)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "chart.json", string(data))
	for _, line := range strings.Split(Text(c), "\n") {
		if len(line) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

// The chart that the project published, apart from the case of its marks and the order of its links.
func TestChartIsThePublishedOne(t *testing.T) {
	published, err := os.ReadFile("../catalog/testdata/chart.md")
	if err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(Chart(load(t)), "\n\n")
	lines := strings.Split(table, "\n")
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
	path := filepath.Join(t.TempDir(), "README.md")
	write := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string) {
		t.Helper()
		err := CheckChart(path, c)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	check("no such file")
	write("# no marks\n")
	check("the chart's place is not marked")
	write(End + "\n" + Begin + "\n")
	check("out of order")
	before, after := "# T\r\nmine\t \n"+Begin+"\n", End+"\n\xff also mine"
	write(before + "old\n" + after)
	check(`README.md:4: the chart differs from ../../../distros.toml: found "old", expected "| Flavor`)
	fixed, err := Replace([]byte(before+"old\n"+after), c)
	if err != nil {
		t.Fatal(err)
	}
	if string(fixed) != before+Chart(c)+after {
		t.Error("other bytes than the chart's were changed")
	}
	write(string(fixed))
	check("")
	write(strings.Replace(string(fixed), "[Debian]:https://www.debian.org", "[Debian]:https://evil.example.org", 1))
	check(`expected "[Debian]:https://www.debian.org"`)
}
