// Package readme makes the texts that people read in the repository from the catalogue: the release chart.
package readme

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/containercraft/kmi-tui/internal/engine/catalog"
	"github.com/containercraft/kmi-tui/internal/engine/event"
)

// The lines between which README.md holds the chart.
const (
	Begin = "<!-- chart:begin (kmi-tui chart --output markdown) -->"
	End   = "<!-- chart:end -->"
)

// Chart is the release chart in Markdown: the table, an empty line, the links of its rows.
func Chart(c *catalog.Catalog) string {
	width := len("Flavor          ")
	for _, f := range c.Flavors {
		width = max(width, runewidth.StringWidth(f.Name)+2)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | Stable | Proposed | Preview | Planned  | | x86_64 | arm64 |\n", pad("Flavor", width))
	fmt.Fprintf(&b, "|:%s|:------:|:--------:|:-------:|:--------:|-|:------:|:-----:|\n", strings.Repeat("-", width+1))
	for _, f := range c.Flavors {
		level := func(l catalog.Level) string { return mark(f.Level == l) }
		arch := func(a catalog.Arch) string { return mark(slices.Contains(f.Arch, a)) }
		fmt.Fprintf(&b, "| %s |   %s    |    %s     |    %s    |    %s     | |    %s   |   %s   |\n", pad("["+f.Name+"]", width),
			level(catalog.Stable), level(catalog.Proposed), level(catalog.Preview), level(catalog.Planned), arch(catalog.X86_64), arch(catalog.ARM64))
	}
	b.WriteString("\n")
	for _, f := range c.Flavors {
		fmt.Fprintf(&b, "[%s]:%s\n", f.Name, f.Home)
	}
	return b.String()
}

func mark(yes bool) string {
	if yes {
		return "X"
	}
	return " "
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-runewidth.StringWidth(s)))
}

// Text is the chart for a terminal of 80 columns: each flavor with its level, architectures and releases.
func Text(c *catalog.Catalog) string {
	name, id := len("flavor"), len("name")
	for _, f := range c.Flavors {
		name, id = max(name, len(f.ID)), max(id, runewidth.StringWidth(f.Name))
	}
	var b strings.Builder
	line := func(a, b_, level, arch, releases string) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("%s  %s  %-8s  %-13s  %s", pad(a, name), pad(b_, id), level, arch, releases), " ") + "\n")
	}
	line("flavor", "name", "level", "architectures", "releases")
	for _, f := range c.Flavors {
		releases := "not supported yet"
		if f.Origin != nil {
			var versions []string
			for _, r := range f.Releases {
				versions = append(versions, r.Version)
			}
			releases = strings.Join(versions, ", ")
		}
		arches := make([]string, len(f.Arch))
		for i, a := range f.Arch {
			arches[i] = string(a)
		}
		line(f.ID, f.Name, string(f.Level), strings.Join(arches, " "), releases)
	}
	return b.String()
}

// JSON is the chart as an array of {id, name, home, level, arch, releases, supported}.
func JSON(c *catalog.Catalog) ([]byte, error) {
	type row struct {
		ID        string         `json:"id"`
		Name      string         `json:"name"`
		Home      string         `json:"home"`
		Level     catalog.Level  `json:"level"`
		Arch      []catalog.Arch `json:"arch"`
		Releases  []string       `json:"releases"`
		Supported bool           `json:"supported"`
	}
	rows := make([]row, 0, len(c.Flavors))
	for _, f := range c.Flavors {
		r := row{f.ID, f.Name, f.Home, f.Level, f.Arch, []string{}, f.Origin != nil}
		for _, release := range f.Releases {
			r.Releases = append(r.Releases, release.Version)
		}
		rows = append(rows, r)
	}
	data, err := json.MarshalIndent(rows, "", "  ")
	return append(data, '\n'), err
}

// find returns where in the README the chart's text begins and ends.
func find(readme []byte) (from, to int, err error) {
	if bytes.Count(readme, []byte(Begin)) != 1 || bytes.Count(readme, []byte(End)) != 1 {
		return 0, 0, fmt.Errorf("the chart's place is not marked: write each of these lines once: %s and %s", Begin, End)
	}
	from = bytes.Index(readme, []byte(Begin)) + len(Begin)
	to = bytes.Index(readme, []byte(End))
	if to < from || from >= len(readme) || readme[from] != '\n' {
		return 0, 0, fmt.Errorf("the chart's marks are out of order: write %s on a line before %s", Begin, End)
	}
	return from + 1, to, nil
}

// Replace returns the README with the catalogue's chart between the marks and every other byte as it was.
func Replace(readme []byte, c *catalog.Catalog) ([]byte, error) {
	from, to, err := find(readme)
	if err != nil {
		return nil, err
	}
	return slices.Concat(readme[:from], []byte(Chart(c)), readme[to:]), nil
}

// CheckChart says, with its line, where the chart in the README at path differs from the catalogue's.
func CheckChart(path string, c *catalog.Catalog) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return event.WithRemedy(err, "write a README.md beside %s with the chart between the lines %s and %s", c.Path, Begin, End)
	}
	if err != nil {
		return err
	}
	const remedy = "put the output of kmi-tui chart --output markdown between the marks"
	from, to, err := find(data)
	if err != nil {
		return event.WithRemedy(fmt.Errorf("%s: %w", path, err), remedy)
	}
	line := 1 + bytes.Count(data[:from], []byte("\n"))
	have, want := strings.SplitAfter(string(data[from:to]), "\n"), strings.SplitAfter(Chart(c), "\n")
	for i := range max(len(have), len(want)) {
		var h, w string
		if i < len(have) {
			h = have[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if h != w {
			return event.WithRemedy(fmt.Errorf("%s:%d: the chart differs from %s: found %q, expected %q", path, line+i, c.Path, strings.TrimRight(h, "\n"), strings.TrimRight(w, "\n")), remedy)
		}
	}
	return nil
}
