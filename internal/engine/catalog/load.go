package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/agext/levenshtein"
	"github.com/creachadair/tomledit"
	"github.com/creachadair/tomledit/parser"
)

// maxFile is the size in bytes from which a catalogue is refused.
const maxFile = 1 << 20

// Problem is one mistake in a catalogue.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // 1-based; 0: the file as a whole
	Message string `json:"message"`
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
}

// Problems are all the mistakes of a catalogue, in the order of their lines. It is the error of Load and Parse.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	if len(p) > 1 {
		lines = append(lines, fmt.Sprintf("%d mistakes", len(p)))
	}
	return strings.Join(lines, "\n")
}

// Load reads and checks a catalogue. The error is a Problems, or that of the file system.
func Load(path string) (*Catalog, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, Problems{{File: path, Message: fmt.Sprintf("has %d bytes: a catalogue has at most %d", info.Size(), maxFile)}}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Parse reads and checks a catalogue; name stands for its file in messages. The error is a Problems.
func Parse(name string, data []byte) (*Catalog, error) {
	if len(data) > maxFile {
		return nil, Problems{{File: name, Message: fmt.Sprintf("has %d bytes: a catalogue has at most %d", len(data), maxFile)}}
	}
	c := &Catalog{Path: name, lines: map[string]int{}}
	v := &validator{Catalog: c, file: name}
	doc, err := tomledit.Parse(bytes.NewReader(data))
	if err == nil {
		c.index(doc, v)
	}
	if _, derr := toml.Decode(string(data), c); derr != nil {
		var parse toml.ParseError
		if errors.As(derr, &parse) {
			message := parse.Message
			if message == "" {
				message = strings.TrimPrefix(derr.Error(), "toml: ")
			}
			v.problems = append(v.problems, Problem{name, parse.Position.Line, message})
		} else {
			p := Problem{name, 0, strings.TrimPrefix(derr.Error(), "toml: ")}
			if m := typeError.FindStringSubmatch(p.Message); m != nil {
				p.Line, _ = strconv.Atoi(m[1])
				p.Message = m[2] + ": " + m[3]
			}
			v.problems = append(v.problems, p)
		}
		return nil, v.sorted()
	}
	if err != nil { // one of the two parsers is stricter: believe it, line numbers come from it
		return nil, Problems{{File: name, Message: err.Error()}}
	}
	v.check()
	if problems := v.sorted(); len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}

// typeError is how the decoder tells of a value of the wrong type.
var typeError = regexp.MustCompile(`^line (\d+) \(last key "([^"]*)"\): (.*)$`)

// unknown is a key that nobody knows, until its place can be spelled.
type unknown struct {
	parent  string
	line    int
	message string
}

// Line is the line of the file on which the flavor begins; 0 if it is unknown.
func (c *Catalog) Line(flavor string) int {
	for i := range c.Flavors {
		if c.Flavors[i].ID == flavor {
			return c.lines[fmt.Sprintf("flavor[%d]", i)]
		}
	}
	return 0
}

// index notes on which line every key stands, by its path ("flavor[3].origin.kind"), and reports keys that nobody knows.
func (c *Catalog) index(doc *tomledit.Document, v *validator) {
	count := map[string]int{}
	// resolve turns a heading's name into a path with the indexes of the arrays it is in.
	resolve := func(name parser.Key) string {
		path := ""
		for _, part := range name {
			path = child(path, part)
			if n, ok := count[path]; ok {
				path = fmt.Sprintf("%s[%d]", path, n-1)
			}
		}
		return path
	}
	if doc.Global != nil {
		c.items("", doc.Global.Items, v)
	}
	for _, s := range doc.Sections {
		var path string
		if s.IsArray {
			array := child(resolve(s.Name[:len(s.Name)-1]), s.Name[len(s.Name)-1])
			path = fmt.Sprintf("%s[%d]", array, count[array])
			count[array]++
		} else {
			path = resolve(s.Name)
		}
		c.note(path, s.Line, v)
		c.items(path, s.Items, v)
	}
}

func (c *Catalog) items(path string, items []parser.Item, v *validator) {
	for _, item := range items {
		if kv, ok := item.(*parser.KeyValue); ok {
			c.pair(path, kv, v)
		}
	}
}

func (c *Catalog) pair(path string, kv *parser.KeyValue, v *validator) {
	for _, part := range kv.Name {
		path = child(path, part)
	}
	c.note(path, kv.Line, v)
	if inline, ok := kv.Value.X.(parser.Inline); ok {
		for _, sub := range inline {
			if sub.Line == 0 {
				sub.Line = kv.Line
			}
			c.pair(path, sub, v)
		}
	}
}

// note remembers a key's line, once, and checks that the key is one of the catalogue's.
func (c *Catalog) note(path string, line int, v *validator) {
	if _, ok := c.lines[path]; ok {
		return
	}
	c.lines[path] = line
	parent, key := "", path
	if i := strings.LastIndexByte(path, '\x00'); i >= 0 {
		parent, key = path[:i], path[i+1:]
	}
	key, _, _ = strings.Cut(key, "[")
	t, ok := typeAt(reflect.TypeOf(Catalog{}), parent)
	if !ok || t.Kind() != reflect.Struct {
		return // its parent was reported, or holds free names
	}
	var known []string
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("toml"); name != "" && name != "-" {
			if name == key {
				return
			}
			known = append(known, name)
		}
	}
	v.unknown = append(v.unknown, unknown{parent, line, fmt.Sprintf("unknown key %q: %s", key, nearest(key, known))})
}

// Paths are held together by a character that no message shows.
func child(path, key string) string {
	if path == "" {
		return key
	}
	return path + "\x00" + key
}

// typeAt follows a path through the catalogue's types.
func typeAt(t reflect.Type, path string) (reflect.Type, bool) {
	if path == "" {
		return t, true
	}
	for _, part := range strings.Split(path, "\x00") {
		name, index, _ := strings.Cut(part, "[")
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Map:
			t = t.Elem()
		case reflect.Struct:
			found := false
			for i := range t.NumField() {
				if t.Field(i).Tag.Get("toml") == name {
					t, found = t.Field(i).Type, true
					break
				}
			}
			if !found {
				return nil, false
			}
		default:
			return nil, false
		}
		if index != "" {
			if t.Kind() != reflect.Slice {
				return nil, false
			}
			t = t.Elem()
		}
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t, true
}

// nearest says what may have been meant.
func nearest(word string, known []string) string {
	best, distance := "", 4
	for _, k := range known {
		if d := levenshtein.Distance(strings.ToLower(word), k, nil); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return "did you mean " + strconv.Quote(best) + "?"
	}
	return "write one of " + strings.Join(known, ", ")
}
