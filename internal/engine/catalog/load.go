package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
	"github.com/creachadair/tomledit"
	"github.com/creachadair/tomledit/parser"
	"github.com/creachadair/tomledit/scanner"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Limits of a catalogue's file. What its types can hold is nested five levels deep; parsers need memory in proportion to
// the square of a key's parts.
const (
	maxFile     = 1 << 20 // bytes
	maxNesting  = 32      // brackets within brackets
	maxParts    = 32      // of a dotted key
	maxProblems = 1000    // after which nobody looks for more
	maxTold     = 100     // problems in the text of an error
)

// Problem is one mistake in a catalogue.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`          // 1-based; 0: the file as a whole
	Key     string `json:"key,omitempty"` // what is wrong, as people say it: `flavor "debian": level`
	Message string `json:"message"`       // what is wrong with it, and what to write instead
}

// String is the problem as one line: `distros.toml:12: flavor "debian": level: "beta" is not a level: write one of …`.
func (p Problem) String() string {
	s := p.File + ": "
	if p.Line > 0 {
		s = fmt.Sprintf("%s:%d: ", p.File, p.Line)
	}
	if p.Key != "" {
		s += p.Key + ": "
	}
	return s + p.Message
}

// Problems are all the mistakes of a catalogue, in the order of their lines. It is the error of Load and Parse.
type Problems []Problem

// Error has a line for each mistake, up to a hundred, and, where there are several, their number at the end.
func (p Problems) Error() string {
	var lines []string
	for i := range p {
		if i == maxTold {
			lines = append(lines, fmt.Sprintf("… and %d more", len(p)-i))
			break
		}
		lines = append(lines, p[i].String())
	}
	switch {
	case len(p) >= maxProblems:
		lines = append(lines, fmt.Sprintf("%d mistakes or more", len(p)))
	case len(p) > 1:
		lines = append(lines, fmt.Sprintf("%d mistakes", len(p)))
	}
	return strings.Join(lines, "\n")
}

// Load reads and checks a catalogue. The error is a Problems, or that of the file system.
func Load(path string) (*Catalog, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Parse reads and checks a catalogue; name stands for its file in messages. The error is a Problems. A catalogue that it
// returns fits every rule, whoever wrote it: its ids and releases can be parts of registry paths, tags and file names,
// its packages arguments of programs, its names cells of a table.
func Parse(name string, data []byte) (*Catalog, error) {
	v := &validator{Catalog: &Catalog{Path: name, lines: map[string]int{}}, file: name}
	top, values := v.read(data)
	if values != nil {
		root := place{v: v, spot: top}
		v.fill(root, "", v.Catalog, values)
		v.check(root)
	}
	if len(v.problems) > 0 {
		sort.SliceStable(v.problems, func(i, j int) bool { return v.problems[i].Line < v.problems[j].Line })
		return nil, v.problems
	}
	return v.Catalog, nil
}

// Line is the line of the file on which the flavor with this id begins; 0 if it is unknown.
func (c *Catalog) Line(flavor string) int { return c.lines[flavor] }

// Release finds a release by its flavor's id and its version.
func (c *Catalog) Release(id, version string) (*Flavor, *Release, error) {
	for i := range c.Flavors {
		if f := &c.Flavors[i]; f.ID == id {
			for j := range f.Releases {
				if f.Releases[j].Version == version {
					return f, &f.Releases[j], nil
				}
			}
		}
	}
	return nil, nil, fmt.Errorf("there is no release %s:%s: write a flavor and a release of this catalogue", show(id), show(version))
}

// read turns the file into values and the lines where they stand. values is nil if the file as such is wrong.
func (v *validator) read(data []byte) (top *spot, values map[string]any) {
	whole := func(line int, format string, args ...any) {
		v.report(Problem{File: v.file, Line: line, Message: fmt.Sprintf(format, args...)})
	}
	if len(data) > maxFile {
		whole(0, "is larger than %d bytes, which no catalogue needs: take out what does not belong", maxFile)
		return nil, nil
	}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		whole(1, "begins with a byte order mark: save the file as UTF-8 without one")
		data = data[len("\ufeff"):]
	}
	for i, line := range bytes.Split(data, []byte("\n")) {
		if !utf8.Valid(line) {
			whole(i+1, "is not UTF-8: save the file as UTF-8")
			return nil, nil
		}
		if j := bytes.IndexFunc(line, invisible); j >= 0 {
			r, _ := utf8.DecodeRune(line[j:])
			whole(i+1, "has the invisible character %U: leave it out", r)
		}
	}
	if line, what := excess(data); what != "" {
		whole(line, "%s", what)
		return nil, nil
	}
	doc, err := document(data)
	if err != nil {
		line, message := syntax(data, err)
		whole(line, "%s", message)
		return nil, nil
	}
	if _, err := toml.Decode(string(data), &values); err != nil {
		line, message := decodeError(err)
		whole(line, "%s", message)
		return nil, nil
	}
	return index(doc), values
}

// invisible tells of characters that show nothing or change how others are shown: what a reviewer sees has to be what is
// there. TOML itself refuses control characters.
func invisible(r rune) bool {
	return unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || r >= 0x80 && r < 0xa0
}

// excess looks for what would cost a parser more than a catalogue is worth.
func excess(data []byte) (line int, what string) {
	depth, parts := 0, 0
	s := scanner.New(bytes.NewReader(data))
	for s.Next() == nil {
		switch s.Token() {
		case scanner.LBracket, scanner.LInline:
			depth, parts = depth+1, 0
		case scanner.RBracket, scanner.RInline:
			depth, parts = depth-1, 0
		case scanner.Dot:
			parts++
		case scanner.Float: // also how 1.2 reads in a key
			parts += bytes.Count(s.Text(), []byte("."))
		case scanner.Newline, scanner.Equal, scanner.Comma:
			parts = 0
		}
		if depth > maxNesting {
			return s.Location().First.Line, fmt.Sprintf("is nested deeper than %d levels: see the other rows for the form", maxNesting)
		}
		if parts >= maxParts {
			return s.Location().First.Line, fmt.Sprintf("has a key of more than %d parts: see the other rows for the form", maxParts)
		}
	}
	return 0, ""
}

// What the lexer did not get through must not be nested deeper than this many braces, or have keys of so many parts, for
// the decoder to be asked about it.
const maxBraces = 500

var (
	longKey  = regexp.MustCompile(`(?:(?:[^\s.="'\[\]{},#]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*\.[ \t]*){32}`)
	position = regexp.MustCompile(`^(?:at )?(\d+):\d+\S*:? ?`) // how tomledit's errors begin
)

// syntax says on which line the file stops being TOML, and why: in the words of the decoder, which explains better, if
// it is safe to ask it.
func syntax(data []byte, err error) (line int, message string) {
	if bytes.Count(data, []byte("{")) < maxBraces && !longKey.Match(data) {
		var values map[string]any
		if _, derr := toml.Decode(string(data), &values); derr != nil {
			return decodeError(derr)
		}
	}
	message = strings.TrimPrefix(err.Error(), "parse error: ")
	if m := position.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = message[len(m[0]):]
	}
	return line, "is not TOML 1.0 here: " + event.Clean(message) + ": write KEY = VALUE, with texts in quotes and an inline table on one line"
}

func decodeError(err error) (line int, message string) {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		return 0, event.Clean(err.Error())
	}
	message = parse.Message
	if message == "" {
		_, message, _ = strings.Cut(parse.Error(), "): ")
	}
	return parse.Position.Line, "is not TOML here: " + event.Clean(message)
}

// spot is where something stands in the file: its line, and the spots of what it holds.
type spot struct {
	line  int
	bad   bool // reported already; what follows from that is not
	keys  map[string]*spot
	items []*spot
}

// key finds or makes the spot of a key; a new one is on this line.
func (s *spot) key(name string, line int) *spot {
	if k, ok := s.keys[name]; ok {
		return k
	}
	if s.keys == nil {
		s.keys = map[string]*spot{}
	}
	k := &spot{line: line}
	s.keys[name] = k
	return k
}

// document parses a file and sets its lines right: the library does not count those within multi-line literal strings.
func document(data []byte) (*tomledit.Document, error) {
	doc, err := tomledit.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	missed := 0
	var pair func(kv *parser.KeyValue)
	var value func(v parser.Value) parser.Value
	value = func(v parser.Value) parser.Value {
		v.Line += missed
		switch x := v.X.(type) {
		case parser.Token:
			if x.Type == scanner.MLString {
				missed += strings.Count(x.String(), "\n")
			}
		case parser.Inline:
			for _, kv := range x {
				pair(kv)
			}
		case parser.Array:
			for i, item := range x {
				if one, ok := item.(parser.Value); ok {
					x[i] = value(one)
				}
			}
		}
		return v
	}
	pair = func(kv *parser.KeyValue) {
		kv.Line += missed
		kv.Value = value(kv.Value)
	}
	items := func(list []parser.Item) {
		for _, item := range list {
			if kv, ok := item.(*parser.KeyValue); ok {
				pair(kv)
			}
		}
	}
	if doc.Global != nil {
		items(doc.Global.Items)
	}
	for _, s := range doc.Sections {
		s.Line += missed
		items(s.Items)
	}
	return doc, nil
}

// index notes where everything stands in a document that the decoder has accepted.
func index(doc *tomledit.Document) *spot {
	top := &spot{}
	if doc.Global != nil {
		top.add(doc.Global.Items)
	}
	for _, section := range doc.Sections {
		s := top
		for i, part := range section.Name {
			s = s.key(part, section.Line)
			if i == len(section.Name)-1 {
				if section.IsArray {
					s.items = append(s.items, &spot{line: section.Line})
				} else {
					s.line = section.Line
				}
			}
			if n := len(s.items); n > 0 {
				s = s.items[n-1]
			}
		}
		s.add(section.Items)
	}
	return top
}

func (s *spot) add(items []parser.Item) {
	for _, item := range items {
		if kv, ok := item.(*parser.KeyValue); ok {
			s.pair(kv)
		}
	}
}

func (s *spot) pair(kv *parser.KeyValue) {
	for _, part := range kv.Name {
		s = s.key(part, kv.Line)
	}
	s.value(kv.Value)
}

func (s *spot) value(v parser.Value) {
	switch x := v.X.(type) {
	case parser.Inline:
		for _, kv := range x {
			s.pair(kv)
		}
	case parser.Array:
		for _, item := range x {
			if one, ok := item.(parser.Value); ok {
				sub := &spot{line: one.Line}
				sub.value(one)
				s.items = append(s.items, sub)
			}
		}
	}
}
