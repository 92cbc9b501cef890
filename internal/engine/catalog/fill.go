package catalog

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/agext/levenshtein"
)

// place is one thing in the file that can be wrong.
type place struct {
	v    *validator
	spot *spot // nil: nothing is written there
	line int   // of the nearest thing around it that is written
	name string
	bad  bool // something around it cannot be read at all
}

// in is the place of a key.
func (p place) in(key string) place {
	sub := place{v: p.v, line: p.at(), name: show(key), bad: p.unread()}
	if p.name != "" {
		sub.name = p.name + ": " + sub.name
	}
	if p.spot != nil {
		sub.spot = p.spot.keys[key]
	}
	return sub
}

// item is the place of a list's entry, which messages call by name; "" keeps the list's name.
func (p place) item(i int, name string) place {
	sub := place{v: p.v, line: p.at(), name: p.name, bad: p.unread()}
	if p.spot != nil && i < len(p.spot.items) {
		sub.spot = p.spot.items[i]
	}
	if name != "" {
		around := ""
		if j := strings.LastIndex(p.name, ": "); j >= 0 {
			around = p.name[:j+2]
		}
		sub.name = around + name
	}
	return sub
}

func (p place) at() int {
	if p.spot != nil && p.spot.line > 0 {
		return p.spot.line
	}
	return p.line
}

func (p place) unread() bool { return p.bad || p.spot != nil && p.spot.bad }

// say reports a mistake, unless the place has been reported as one that cannot be read at all.
func (p place) say(format string, args ...any) {
	if p.unread() {
		return
	}
	p.v.report(Problem{File: p.v.file, Line: p.at(), Key: p.name, Message: fmt.Sprintf(format, args...)})
}

// unreadable reports a value that cannot be what its key is for.
func (p place) unreadable(format string, args ...any) {
	p.say(format, args...)
	if p.spot != nil {
		p.spot.bad = true
	}
}

// tag is the key of a field in the file; "" for none.
func tag(f reflect.StructField) string {
	if name := f.Tag.Get("toml"); name != "-" {
		return name
	}
	return ""
}

// fill puts the values of a decoded table into the struct that to points to, and reports every one that does not fit,
// and every key that no field has. heading is how the table is called in the file, "flavor.origin".
func (v *validator) fill(p place, heading string, to any, values map[string]any) {
	v.table(p, heading, reflect.ValueOf(to).Elem(), values)
}

func (v *validator) table(p place, heading string, to reflect.Value, values map[string]any) {
	fields := map[string][]int{}
	var known []string
	for _, f := range reflect.VisibleFields(to.Type()) {
		if name := tag(f); name != "" {
			fields[name] = f.Index
			known = append(known, name)
		}
	}
	for _, key := range sortedKeys(values) {
		if i, ok := fields[key]; ok {
			v.set(p.in(key), strings.TrimPrefix(heading+"."+key, "."), to.FieldByIndex(i), values[key])
			continue
		}
		sub := p.in(key)
		sub.name = p.name
		sub.say("unknown key %s: %s", quote(key), remedy(key, known))
	}
}

// set puts one value into one field.
func (v *validator) set(p place, heading string, to reflect.Value, value any) {
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		v.set(p, heading, to.Elem(), value)
	case reflect.String:
		s, ok := value.(string)
		if !ok {
			p.unreadable("is %s: write a text in quotes", kind(value))
			return
		}
		to.SetString(s)
	case reflect.Bool:
		b, ok := value.(bool)
		if !ok {
			p.unreadable("is %s: write true or false, without quotes", kind(value))
			return
		}
		to.SetBool(b)
	case reflect.Int:
		n, ok := value.(int64)
		if !ok || n > math.MaxInt32 || n < math.MinInt32 {
			p.unreadable("is %s: write a whole number without quotes, such as 1024", kind(value))
			return
		}
		to.SetInt(n)
	case reflect.Struct:
		m, ok := value.(map[string]any)
		if !ok {
			p.unreadable("is %s: write a table that begins with [%s]", kind(value), heading)
			return
		}
		v.table(p, heading, to, m)
	case reflect.Map:
		if s, ok := value.(string); ok && to.Type() == reflect.TypeFor[ByArch]() {
			to.Set(reflect.ValueOf(ByArch{"": s}))
			return
		}
		m, ok := value.(map[string]any)
		if !ok {
			p.unreadable("is %s: write a table, such as %s = { NAME = VALUE }", kind(value), heading[strings.LastIndexByte(heading, '.')+1:])
			return
		}
		to.Set(reflect.MakeMap(to.Type()))
		for _, key := range sortedKeys(m) {
			entry := reflect.New(to.Type().Elem()).Elem()
			v.set(p.in(key), heading+"."+key, entry, m[key])
			to.SetMapIndex(reflect.ValueOf(key).Convert(to.Type().Key()), entry)
		}
	case reflect.Slice:
		tables := to.Type().Elem().Kind() == reflect.Struct
		var list []any
		switch x := value.(type) {
		case []any:
			list = x
		case []map[string]any:
			for _, m := range x {
				list = append(list, m)
			}
		default:
			if tables {
				p.unreadable("is %s: write a table for each, beginning with [[%s]]", kind(value), heading)
			} else {
				p.unreadable("is %s: write a list of texts in square brackets", kind(value))
			}
			return
		}
		to.Set(reflect.MakeSlice(to.Type(), len(list), len(list)))
		for i, one := range list {
			name := ""
			if m, ok := one.(map[string]any); ok && tables {
				name = called(heading, i, m)
			}
			v.set(p.item(i, name), heading, to.Index(i), one)
		}
	}
}

// called is how messages call one of several tables: by what it calls itself, or by its number.
func called(heading string, i int, table map[string]any) string {
	name := heading[strings.LastIndexByte(heading, '.')+1:]
	for _, key := range []string{"id", "version", "path", "host"} {
		if s, ok := table[key].(string); ok && s != "" {
			return name + " " + quote(s)
		}
	}
	return fmt.Sprintf("%s %d", name, i+1)
}

// kind says what a value is.
func kind(value any) string {
	switch x := value.(type) {
	case string:
		return "a text"
	case int64:
		return "the number " + strconv.FormatInt(x, 10)
	case float64:
		return "a number with a fraction"
	case bool:
		return strconv.FormatBool(x)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "several tables"
	default:
		return "a date or time"
	}
}

// headings tells in which tables each key of the catalogue stands.
var headings = func() map[string][]string {
	found := map[string][]string{}
	var walk func(t reflect.Type, path, shown string)
	walk = func(t reflect.Type, path, shown string) {
		for _, f := range reflect.VisibleFields(t) {
			name := tag(f)
			if name == "" {
				continue
			}
			found[name] = append(found[name], shown)
			below := strings.TrimPrefix(path+"."+name, ".")
			switch ft := f.Type; {
			case ft.Kind() == reflect.Struct:
				walk(ft, below, "["+below+"]")
			case ft.Kind() == reflect.Pointer:
				walk(ft.Elem(), below, "["+below+"]")
			case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct:
				walk(ft.Elem(), below, "[["+below+"]]")
			case ft.Kind() == reflect.Map && ft.Elem().Kind() == reflect.Struct:
				any := ".NAME"
				if ft.Key() == reflect.TypeFor[Arch]() {
					any = ".ARCH"
				}
				walk(ft.Elem(), below+any, "["+below+any+"]")
			}
		}
	}
	walk(reflect.TypeFor[Catalog](), "", "")
	return found
}()

// remedy says what to write instead of an unknown key.
func remedy(key string, known []string) string {
	if tables := slices.DeleteFunc(slices.Clone(headings[key]), func(s string) bool { return s == "" }); len(tables) > 0 {
		return "it belongs below " + strings.Join(tables, " or ")
	}
	if best := nearest(key, known); best != "" {
		return "did you mean " + strconv.Quote(best) + "?"
	}
	return "write one of " + strings.Join(known, ", ")
}

// nearest is the word among known that word was probably meant to be; "" if none is near.
func nearest(word string, known []string) string {
	if len(word) > maxName {
		return ""
	}
	best, distance := "", min(3, (len(word)+1)/2)+1
	for _, k := range known {
		if d := levenshtein.Distance(strings.ToLower(word), k, nil); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// quote is a text of the file as messages show it: harmless, and not too long.
func quote(s string) string {
	const longest = 80
	if len(s) <= longest {
		return strconv.Quote(s)
	}
	cut := longest
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%s… (%d bytes)", strconv.Quote(s[:cut]), len(s))
}

// show is a key of the file as messages show it: as it is, if it is plain.
func show(key string) string {
	if len(key) <= 80 && plain.MatchString(key) {
		return key
	}
	return quote(key)
}
