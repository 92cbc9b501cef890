package event

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// Query is what is searched for in the lines of a log: words as they are, or a regular expression, whose time is linear
// in the text (package regexp). Case counts only if there is an upper-case letter in it.
type Query struct {
	text  string
	words []literal      // one of them is in every line that matches; none: not known
	re    *regexp.Regexp // has to match, too; nil: the word is all
}

// NewQuery reads what somebody typed: words, or a regular expression after "/". The error says what is wrong with the
// expression.
func NewQuery(text string) (*Query, error) {
	q := &Query{text: text}
	expr, ok := strings.CutPrefix(text, "/")
	if !ok {
		fold := text == strings.ToLower(text)
		if !fold || ascii(text) {
			q.words = []literal{newLiteral(text, fold)}
			return q, nil
		}
		expr = regexp.QuoteMeta(text) // letters that are longer in the other case
	}
	if !capital(expr) {
		expr = "(?i)" + expr
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, WithRemedy(fmt.Errorf("%q is no regular expression: %w", strings.TrimPrefix(text, "/"), err), "leave the first / out to search for the text as it is; github.com/google/re2/wiki/Syntax tells the rest")
	}
	q.re = re
	return q, nil
}

// capital reports whether there is an upper-case letter in a regular expression that is not part of an escape.
func capital(expr string) bool {
	escaped := false
	for _, r := range expr {
		if !escaped && unicode.IsUpper(r) {
			return true
		}
		escaped = r == '\\' && !escaped
	}
	return false
}

// errorWords are in lines that tell of an error, in lower case; errorForm is how they stand there.
var (
	errorWords = []string{"error", "fail", "fatal", "panic", "cannot", "could not", "unable to", "denied", "no such file", "not found", "traceback", "segfault", "e: "}
	errorForm  = regexp.MustCompile(`(?i)(?:^|[^\pL\pN_./+-])(?:(?:errors?|failed|failure|fatal|panic|cannot|could not|unable to|denied|no such file|not found|traceback|segfault)(?:$|[^\pL\pN_./+=-]|[.](?:$|\s)))|^E: `)
	noErrors   = regexp.MustCompile(`(?i)\b(?:0|no|without|ignoring|ignored) (?:\w+ )?(?:errors?|failures?|failed)\b|\b(?:errors?|failures?|failed)[:=] ?0\b`)
)

// Errors finds lines that look like errors, by the words that programs use for them.
func Errors() *Query {
	q := &Query{text: "errors", re: errorForm}
	for _, w := range errorWords {
		q.words = append(q.words, newLiteral(w, true))
	}
	return q
}

// String is what was typed.
func (q *Query) String() string { return q.text }

// Match reports whether a line that was made harmless matches.
func (q *Query) Match(line string) bool {
	if len(q.words) > 0 {
		ok := false
		for i := range q.words {
			if q.words[i].index(line) >= 0 {
				ok = true
				break
			}
		}
		if !ok || q.re == nil {
			return ok
		}
	}
	return q.re.MatchString(line) && (q.re != errorForm || !noErrors.MatchString(line))
}

// found is how many matches of a line Find tells at most.
const foundMost = 100

// Find returns where in a line it matches, as pairs of offsets, the first hundred.
func (q *Query) Find(line string) (at [][]int) {
	if q.re != nil {
		if q.re == errorForm && !q.Match(line) {
			return nil
		}
		for _, m := range q.re.FindAllStringIndex(line, foundMost) {
			if m[1] > m[0] {
				at = append(at, m)
			}
		}
		return at
	}
	w := &q.words[0]
	for from := 0; len(at) < foundMost && len(w.text) > 0; {
		i := w.index(line[from:])
		if i < 0 {
			break
		}
		at = append(at, []int{from + i, from + i + len(w.text)})
		from += i + len(w.text)
	}
	return at
}

// bulk looks at a piece of a raw log as a whole, which is printable ASCII. It reports whether that can be done: the query
// means the same in it as in lines that were made harmless. The function finds the next place from an offset on that has one of the words, -1 if
// there is none.
func (q *Query) bulk(raw string) (func(from int) int, bool) {
	if len(q.words) == 0 {
		return nil, false
	}
	for i := range q.words {
		if len(q.words[i].text) == 0 || strings.ContainsAny(q.words[i].text, ":#[") && q.re == nil {
			return nil, false // the meaning of commands is taken from lines where they stand
		}
	}
	words := make([]finder, len(q.words))
	for i := range q.words {
		words[i] = finder{l: &q.words[i], s: raw}
	}
	return func(from int) int {
		best := -1
		for i := range words {
			if at := words[i].next(from); at >= 0 && (best < 0 || at < best) {
				best = at
			}
		}
		return best
	}, true
}

// plainText reports whether every byte is printable ASCII or a line's end.
func plainText(b []byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		if (x|(x+ones))&tops != 0 { // a byte from 0x7f on
			return false
		}
		if (x-0x20*ones)&tops != 0 { // one below a space
			for _, c := range b[i : i+8] {
				if c < 0x20 && c != '\n' {
					return false
				}
			}
		}
	}
	for _, c := range b[i:] {
		if c < 0x20 && c != '\n' || c >= 0x7f {
			return false
		}
	}
	return true
}

func ascii(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// literal is a word to be found, in ASCII if case does not count.
type literal struct {
	text         string
	fold         bool
	rare         int // offset of its rarest character
	lower, upper byte
}

// common are characters of logs, the most frequent first.
const common = " etaoinsrl-.cdpmu/g0b1hf:v2kyw_,3x4568=97"

func newLiteral(text string, fold bool) literal {
	l := literal{text: text, fold: fold}
	rank := -1
	for i := 0; i < len(text) && fold; i++ {
		r := strings.IndexByte(common, text[i])
		if r < 0 {
			r = len(common)
		}
		if r > rank {
			rank, l.rare = r, i
		}
	}
	if len(text) > 0 {
		l.lower = text[l.rare]
		l.upper = l.lower
		if 'a' <= l.lower && l.lower <= 'z' {
			l.upper -= 'a' - 'A'
		}
	}
	return l
}

// index is the offset of the word in s, -1 if it is not there.
func (l *literal) index(s string) int {
	f := finder{l: l, s: s}
	return f.next(0)
}

// finder finds one place of a word after the other.
type finder struct {
	l       *literal
	s       string
	found   int // the place that was found last; -1: there is none any more
	low, up int // the rare character stands in either case not before these; -1: not any more
	begun   bool
}

// next is the offset of the first place from an offset on, which does not go back; -1 if there is none.
func (f *finder) next(from int) int {
	if f.begun && (f.found < 0 || f.found >= from) {
		return f.found
	}
	f.begun, f.found = true, -1
	l, s, n := f.l, f.s, len(f.l.text)
	if len(s)-from < n {
		return -1
	}
	if !l.fold || n == 0 {
		if f.found = strings.Index(s[from:], l.text); f.found >= 0 {
			f.found += from
		}
		return f.found
	}
	window := s[:len(s)-n+l.rare+1] // where the rare character can be
	at := from + l.rare
	seek := func(known int, c byte) int {
		if known < 0 || known >= at && known < len(window) && window[known] == c {
			return known
		}
		if i := strings.IndexByte(window[at:], c); i >= 0 {
			return at + i
		}
		return -1
	}
	for at < len(window) {
		if f.low = seek(f.low, l.lower); l.upper == l.lower {
			f.up = -1
		} else {
			f.up = seek(f.up, l.upper)
		}
		next := f.low
		if next < 0 || f.up >= 0 && f.up < next {
			next = f.up
		}
		if next < 0 {
			return -1
		}
		if same(s[next-l.rare:][:n], l.text) {
			f.found = next - l.rare
			return f.found
		}
		at = next + 1
	}
	return -1
}

// same reports whether s is the word, in whatever case.
func same(s, lower string) bool {
	for i := 0; i < len(lower); i++ {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
