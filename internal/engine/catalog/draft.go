package catalog

import (
	"errors"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Draft is a catalogue that is being written: what of it fits every rule, and what is wrong with the rest.
type Draft struct {
	Catalog  *Catalog // the rows that fit, and only those; where the tables besides them do not, others stand in for them
	Broken   []Broken // the rows that do not, in the order of the file; of thousands, the first
	Problems Problems // every mistake; none: the whole file fits
}

// Broken is a row with mistakes, with as much of it as can be shown. Its texts are as they stand in the file, made
// harmless and short: they are for the eye only.
type Broken struct {
	Line     int // where its table begins
	ID, Name string
	Level    string
	Problems Problems // none: it cannot be checked before the mistakes elsewhere are mended
}

// Elsewhere are the mistakes that are in no row.
func (d *Draft) Elsewhere() (list Problems) {
	for _, p := range d.Problems {
		if !slices.ContainsFunc(d.Broken, func(b Broken) bool { return slices.Contains(b.Problems, p) }) {
			list = append(list, p)
		}
	}
	return list
}

// part is a piece of the file: from a line with the heading of a table to the next one that does not belong to it.
type part struct {
	from, to int    // lines, 1-based; to is the one after the last
	table    string // the first word of its heading
	row      bool   // a [[flavor]] with all that belongs to it
	out      bool   // it is left out
}

// What stands in for tables that have to be there and cannot be read. Nothing is published by them.
const (
	standInProject = "\n[project]\nname = \"kmi-tui\"\nsource = \"https://localhost/\"\nregistry = \"dir:images\"\npublic = \"localhost/kmi\"\ndisk_size = \"10GiB\"\n"
	standInBase    = "\n[base]\nimage = \"scratch\"\n"
	standInID      = "stands-in-for-rows-that-cannot-be-read"
	standInRow     = "\n[[flavor]]\nid = \"" + standInID + "\"\nname = \"x\"\nhome = \"https://localhost/\"\nlevel = \"planned\"\narch = [\"x86_64\"]\nredistribution = \"free\"\n"
)

// maxRounds bounds how often a draft is read again without what was wrong with it.
const maxRounds = 20

// ParseDraft reads a catalogue that may have mistakes; name stands for its file in messages. Rows with mistakes are left
// out of the catalogue that it returns, which fits every rule like one of Parse.
func ParseDraft(name string, data []byte) *Draft {
	d := &Draft{}
	c, err := Parse(name, data)
	if err == nil {
		d.Catalog = c
		return d
	}
	errors.As(err, &d.Problems)
	if len(data) > maxFile {
		data = nil
	}
	lines := strings.SplitAfter(string(data), "\n")
	parts := split(lines)
	holding := func(p Problem) int {
		return slices.IndexFunc(parts, func(q part) bool { return p.Line >= q.from && p.Line < q.to })
	}
	tables := false // something besides rows was left out: rows may be wrong only because of that
	problems := d.Problems
	for range maxRounds {
		if len(problems) >= maxProblems { // nobody mends that row by row
			break
		}
		out := false
		for _, p := range problems {
			i := holding(p)
			if i < 0 || parts[i].out {
				continue
			}
			out = true
			if !parts[i].row && !isSyntax(p) && p.Line > parts[i].from && lines[p.Line-1] != "\n" {
				lines[p.Line-1] = "\n" // the rest of the table may be good, and rows need it
				continue
			}
			parts[i].out = true
			tables = tables || !parts[i].row
		}
		if !out && !leave(parts) { // a mistake without a place
			break
		}
		if c, err = Parse(name, remains(lines, parts)); err == nil {
			break
		}
		problems = nil
		errors.As(err, &problems)
		for _, p := range problems {
			if i := holding(p); i >= 0 && (parts[i].row && !tables || isSyntax(p)) && !slices.Contains(d.Problems, p) {
				d.Problems = append(d.Problems, p)
			}
		}
	}
	if err != nil {
		for i := range parts {
			parts[i].out = true
		}
		if c, err = Parse(name, []byte(standInProject+standInBase+standInRow)); err != nil {
			c = &Catalog{Path: name, lines: map[string]int{}} // not reached: the stand-ins fit every rule
		}
	}
	c.Flavors = slices.DeleteFunc(c.Flavors, func(f Flavor) bool { return f.ID == standInID })
	d.Catalog = c
	sort.SliceStable(d.Problems, func(i, j int) bool { return d.Problems[i].Line < d.Problems[j].Line })
	for _, q := range parts {
		if q.row && q.out && len(d.Broken) < maxProblems {
			d.Broken = append(d.Broken, sketch(lines[q.from-1:min(q.to-1, len(lines))], q, d.Problems))
		}
	}
	return d
}

func isSyntax(p Problem) bool { return p.Key == "" && strings.HasPrefix(p.Message, "is not TOML") }

// leave leaves out the last part that is still there, rows after all others.
func leave(parts []part) bool {
	for _, row := range []bool{false, true} {
		for i := len(parts) - 1; i >= 0; i-- {
			if parts[i].row == row && !parts[i].out {
				parts[i].out = true
				return true
			}
		}
	}
	return false
}

var (
	heading = regexp.MustCompile(`^\[{1,2}[ \t]*"?([A-Za-z0-9_-]+)"?[ \t]*([.\]])`)       // begins a table
	rowHead = regexp.MustCompile(`^[ \t]*\[\[[ \t]*"?flavor"?[ \t]*\]\][ \t]*(#.*)?\s*$`) // begins a row
)

// split finds the parts of a file: each begins with a heading at the beginning of a line.
func split(lines []string) (parts []part) {
	inside := texts(lines)
	for i, line := range lines {
		row := rowHead.MatchString(line)
		m := heading.FindStringSubmatch(line)
		if !row && m == nil || inside[i+1] {
			continue
		}
		if !row && m[1] == "flavor" && len(parts) > 0 && parts[len(parts)-1].row {
			continue // a table of the row
		}
		if len(parts) > 0 {
			parts[len(parts)-1].to = i + 1
		}
		q := part{from: i + 1, to: len(lines) + 1, row: row}
		if m != nil {
			q.table = m[1]
		}
		parts = append(parts, q)
	}
	return parts
}

// texts are the lines (1-based) that begin inside of a text of several lines.
func texts(lines []string) map[int]bool {
	inside := map[int]bool{}
	open := "" // the quotes that end the text
	for i, line := range lines {
		inside[i+1] = open != ""
		for line != "" {
			switch {
			case open != "":
				if open == `"""` && line[0] == '\\' {
					line = line[min(2, len(line)):]
				} else if rest, ok := strings.CutPrefix(line, open); ok {
					line, open = rest, ""
				} else {
					line = line[1:]
				}
			case strings.HasPrefix(line, `"""`), strings.HasPrefix(line, "'''"):
				open, line = line[:3], line[3:]
			case line[0] == '#':
				line = ""
			case line[0] == '"' || line[0] == '\'':
				line = line[quoted(line):]
			default:
				line = line[1:]
			}
		}
	}
	return inside
}

// quoted is how long the text in quotes is with which a line begins; all of the line where it does not end.
func quoted(line string) int {
	for i := 1; i < len(line); i++ {
		switch {
		case line[i] == '\\' && line[0] == '"':
			i++
		case line[i] == line[0]:
			return i + 1
		}
	}
	return len(line)
}

// remains is the file without what is left out, each line where it was, and with what has to be there at its end.
func remains(lines []string, parts []part) []byte {
	var b strings.Builder
	there := map[string]bool{}
	at := 1
	copied := func(to int, kept bool) {
		for ; at < min(to, len(lines)+1); at++ {
			if kept {
				b.WriteString(lines[at-1])
			} else {
				b.WriteString("\n")
			}
		}
	}
	for _, q := range parts {
		copied(q.from, true)
		copied(q.to, !q.out)
		there[q.table] = there[q.table] || !q.out
	}
	copied(len(lines)+1, true)
	for _, t := range []struct{ name, text string }{{"project", standInProject}, {"base", standInBase}, {"flavor", standInRow}} {
		if !there[t.name] {
			b.WriteString(t.text)
		}
	}
	return []byte(b.String())
}

var pair = regexp.MustCompile(`^\s*(id|name|level)\s*=\s*(?:"([^"\\]*)"|'([^']*)')`)

// sketch reads of a row with mistakes what can be shown.
func sketch(lines []string, q part, problems Problems) Broken {
	b := Broken{Line: q.from}
	for i, line := range lines {
		if i > 0 && heading.MatchString(strings.TrimLeft(line, " \t")) {
			break
		}
		m := pair.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		text := event.Clean(m[2] + m[3])
		if r := []rune(text); len(r) > maxName {
			text = string(r[:maxName])
		}
		switch {
		case m[1] == "id" && b.ID == "":
			b.ID = text
		case m[1] == "name" && b.Name == "":
			b.Name = text
		case m[1] == "level" && b.Level == "":
			b.Level = text
		}
	}
	for _, p := range problems {
		if p.Line >= q.from && p.Line < q.to {
			b.Problems = append(b.Problems, p)
		}
	}
	return b
}
