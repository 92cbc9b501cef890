// Package readme makes the texts that people read in the repository from the catalogue: the release chart.
package readme

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
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
		width = max(width, columns.StringWidth(f.Name)+2)
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
	return s + strings.Repeat(" ", max(0, width-columns.StringWidth(s)))
}

// Text is the chart for a terminal of 80 columns: each flavor with its level, architectures and releases, or that it
// cannot be built yet. What is too long for its column is cut.
func Text(c *catalog.Catalog) string {
	const longest = 16 // of ids and names
	const last = 80 - 2*(longest+2) - len("proposed  ") - len("architectures  ")
	id, name := len("flavor"), len("name")
	for _, f := range c.Flavors {
		id, name = min(longest, max(id, len(f.ID))), min(longest, max(name, columns.StringWidth(f.Name)))
	}
	var b strings.Builder
	line := func(flavor, title, level, arch, releases string) {
		cells := []string{pad(cut(flavor, id), id), pad(cut(title, name), name), pad(level, len("proposed")), pad(arch, len("architectures")), cut(releases, last)}
		b.WriteString(strings.TrimRight(strings.Join(cells, "  "), " ") + "\n")
	}
	line("flavor", "name", "level", "architectures", "releases")
	for _, f := range c.Flavors {
		releases := NotSupported
		switch {
		case f.Origin == nil:
		case f.Origin.Kind == "none":
			releases = "nothing upstream"
		case f.Versions != nil:
			releases = strings.Join(append([]string{"found upstream"}, fixed(f)...), ", ")
		default:
			releases = strings.Join(fixed(f), ", ")
		}
		arches := make([]string, len(f.Arch))
		for i, a := range f.Arch {
			arches[i] = string(a)
		}
		line(f.ID, f.Name, string(f.Level), strings.Join(arches, " "), releases)
	}
	return b.String()
}

// NotSupported is what the chart says of a flavor whose upstream the catalogue does not describe.
const NotSupported = "not supported yet"

// columns measures texts the same way in every locale: what is checked in one was made in another.
var columns = &runewidth.Condition{StrictEmojiNeutral: true}

func cut(s string, width int) string { return columns.Truncate(s, width, "…") }

// fixed are the releases that count without asking upstream.
func fixed(f catalog.Flavor) []string {
	versions := []string{}
	for _, r := range f.Releases {
		if r.Skip == "" && (f.Versions == nil || r.Pin) {
			versions = append(versions, r.Version)
		}
	}
	return versions
}

// JSON is the chart as an array of {id, name, home, level, arch, releases, found, origin}: releases are those of the
// catalogue, found says that others are found upstream.
func JSON(c *catalog.Catalog) ([]byte, error) {
	type row struct {
		ID       string         `json:"id"`
		Name     string         `json:"name"`
		Home     string         `json:"home"`
		Level    catalog.Level  `json:"level"`
		Arch     []catalog.Arch `json:"arch"`
		Releases []string       `json:"releases"`
		Found    bool           `json:"found"`
		Origin   string         `json:"origin,omitempty"`
	}
	rows := make([]row, 0, len(c.Flavors))
	for _, f := range c.Flavors {
		r := row{f.ID, f.Name, f.Home, f.Level, f.Arch, fixed(f), f.Versions != nil, ""}
		if f.Origin != nil {
			r.Origin = f.Origin.Kind
		}
		rows = append(rows, r)
	}
	data, err := json.MarshalIndent(rows, "", "  ")
	return append(data, '\n'), err
}

// misplaced says what is wrong with the marks.
type misplaced struct {
	line int // 1-based; 0: the file as a whole
	what string
}

func (m *misplaced) Error() string {
	if m.line == 0 {
		return m.what
	}
	return fmt.Sprintf("line %d: %s", m.line, m.what)
}

// span is where a README holds the chart.
type span struct {
	from, to int    // bytes
	line     int    // 1-based, of the chart's first line
	end      string // how the README ends its lines
}

// find finds the two marks, each alone on its line and there once. Its error is a *misplaced.
func find(readme []byte) (span, error) {
	s := span{from: -1, to: -1, end: "\n"}
	seen, near := map[string]int{}, map[string]int{} // lines of the marks, and of text that holds one
	offset, number := 0, 0
	for _, text := range bytes.SplitAfter(readme, []byte("\n")) {
		number++
		bare := strings.TrimRight(string(text), " \t\r\n")
		for _, mark := range []string{Begin, End} {
			switch {
			case bare != mark:
				if near[mark] == 0 && strings.Contains(bare, mark) {
					near[mark] = number
				}
			case seen[mark] > 0:
				return s, &misplaced{number, fmt.Sprintf("%s is there already, in line %d: leave one of the two out", mark, seen[mark])}
			case mark == Begin && seen[End] > 0:
				return s, &misplaced{number, fmt.Sprintf("%s comes after %s: write it on a line before that", mark, End)}
			default:
				seen[mark] = number
				if mark == Begin {
					s.from, s.line = offset+len(text), number+1
					if bytes.HasSuffix(text, []byte("\r\n")) {
						s.end = "\r\n"
					}
				} else {
					s.to = offset
				}
			}
		}
		offset += len(text)
	}
	for _, mark := range []string{Begin, End} {
		if seen[mark] == 0 && near[mark] > 0 {
			return s, &misplaced{near[mark], fmt.Sprintf("%s shares its line with other text: write it on a line of its own", mark)}
		}
		if seen[mark] == 0 {
			return s, &misplaced{0, fmt.Sprintf("the chart's place is not marked: write the lines %s and %s, and the chart between them", Begin, End)}
		}
	}
	return s, nil
}

// chart is the catalogue's chart with the README's line ends.
func (s span) chart(c *catalog.Catalog) string { return strings.ReplaceAll(Chart(c), "\n", s.end) }

// Replace returns the README with the catalogue's chart between the marks and every other byte as it was. The chart's
// lines end as the line of the first mark does. It fails if the marks are not there, or not once each and in order.
func Replace(readme []byte, c *catalog.Catalog) ([]byte, error) {
	s, err := find(readme)
	if err != nil {
		return nil, err
	}
	return slices.Concat(readme[:s.from], []byte(s.chart(c)), readme[s.to:]), nil
}

// SetRow returns the README with a flavor's row of the chart as the catalogue has it, and every other byte as it was, also
// where the chart has rows that the catalogue has otherwise. Where it does not have the flavor's row once, or has another
// head, the whole chart is put there, as by Replace. Errors are those of Replace.
func SetRow(readme []byte, c *catalog.Catalog, flavor string) ([]byte, error) {
	s, err := find(readme)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(c.Flavors, func(f catalog.Flavor) bool { return f.ID == flavor })
	if i < 0 {
		return nil, fmt.Errorf("the catalogue has no flavor %q", flavor)
	}
	want := strings.SplitAfter(s.chart(c), "\n")
	begin := "| [" + c.Flavors[i].Name + "]"
	from, to, offset := -1, -1, s.from
	for n, line := range strings.SplitAfter(string(readme[s.from:s.to]), "\n") {
		rest, ok := strings.CutPrefix(line, begin)
		switch {
		case n < 2 && line != want[n], ok && from >= 0:
			return Replace(readme, c)
		case ok && strings.HasPrefix(strings.TrimLeft(rest, " "), "|"):
			from, to = offset, offset+len(line)
		}
		offset += len(line)
	}
	if from < 0 {
		return Replace(readme, c)
	}
	return slices.Concat(readme[:from], []byte(want[2+i]), readme[to:]), nil
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
	const remedy = "put what this prints between the marks: kmi-tui chart --output markdown"
	s, err := find(data)
	if err != nil {
		where := path
		if m := err.(*misplaced); m.line > 0 {
			where, err = fmt.Sprintf("%s:%d", path, m.line), errors.New(m.what)
		}
		return event.WithRemedy(fmt.Errorf("%s: %w", where, err), remedy)
	}
	have, want := lines(string(data[s.from:s.to])), lines(s.chart(c))
	for i := range max(len(have), len(want)) {
		found, expected := "the end of the chart", "the end of the chart"
		if i < len(have) {
			found = strconv.Quote(strings.TrimSuffix(have[i], s.end))
		}
		if i < len(want) {
			expected = strconv.Quote(strings.TrimSuffix(want[i], s.end))
		}
		if found != expected {
			return event.WithRemedy(fmt.Errorf("%s:%d: the chart differs from %s: found %s, expected %s", path, s.line+i, c.Path, found, expected), remedy)
		}
	}
	return nil
}

// lines splits a text after its line ends.
func lines(text string) []string {
	list := strings.SplitAfter(text, "\n")
	return list[:len(list)-1]
}
