package ui

import (
	"fmt"
	"strings"
	"time"
)

// Bounds of one log in memory; what is older is on disk only.
const (
	maxLines = 100_000
	maxBytes = 12 << 20
	chunk    = 1024 // lines that are let go of at once
)

// tone says how a log line looks.
type tone uint8

const (
	said  tone = iota // output
	step              // a stage began
	good              // a stage ended well, or had nothing to do
	bad               // a stage failed
	aside             // said by the console itself
)

type logLine struct {
	at   int64 // Unix milliseconds
	tone tone
	text string
}

// logBuffer keeps the newest lines of a log. Lines are numbered from 0 by the order in which they came; numbers stay
// when older lines go.
type logBuffer struct {
	chunks [][]logLine // all but the last are full
	sizes  []int       // bytes of text in each
	base   int         // number of the first line that is kept
	count  int         // lines that are kept
	bytes  int
}

func (b *logBuffer) push(at time.Time, t tone, text string) {
	last := len(b.chunks) - 1
	if last < 0 || len(b.chunks[last]) == chunk {
		b.chunks = append(b.chunks, make([]logLine, 0, chunk))
		b.sizes = append(b.sizes, 0)
		last++
	}
	b.chunks[last] = append(b.chunks[last], logLine{at.UnixMilli(), t, text})
	b.sizes[last] += len(text)
	b.bytes += len(text)
	b.count++
	for len(b.chunks) > 1 && (b.count > maxLines || b.bytes > maxBytes) {
		b.base += chunk
		b.count -= chunk
		b.bytes -= b.sizes[0]
		b.chunks[0] = nil
		b.chunks, b.sizes = b.chunks[1:], b.sizes[1:]
	}
}

// end is the number after that of the last line.
func (b *logBuffer) end() int { return b.base + b.count }

func (b *logBuffer) at(n int) *logLine {
	n -= b.base
	return &b.chunks[n/chunk][n%chunk]
}

// logView is a window on a log: it knows its place and how lines are shown, and costs what is visible.
type logView struct {
	buf    *logBuffer
	top    int // number of the first visible line
	row    int // how many of its rows are above the window, when lines are wrapped
	left   int // cells that are scrolled away to the left, when they are not
	free   bool
	wrap   bool
	stamps bool
	query  string
	hit    int // line that the last search found; -1 for none
	w, h   int // as it was last drawn
}

func newLogView() *logView { return &logView{buf: &logBuffer{}, hit: -1} }

// prefix is what stands before a line.
func (v *logView) prefix(l *logLine) string {
	if !v.stamps || v.w < 30 {
		return ""
	}
	return time.UnixMilli(l.at).Format("15:04:05 ")
}

// rows is how many rows a line takes.
func (v *logView) rows(n int) int {
	if !v.wrap {
		return 1
	}
	l := v.buf.at(n)
	return len(breaks(l.text, v.w-len(v.prefix(l))))
}

// settle brings the window to lines that exist: to the newest, while it follows.
func (v *logView) settle() {
	if v.free {
		if v.top < v.buf.base {
			v.top, v.row = v.buf.base, 0
		}
		last, row := v.bottom()
		if v.top > last || v.top == last && v.row > row {
			v.top, v.row = last, row
		}
		if v.top < v.buf.end() && v.row > 0 {
			v.row = min(v.row, v.rows(v.top)-1)
		}
		return
	}
	v.top, v.row = v.bottom()
}

// bottom is the place of a window that shows the newest line last.
func (v *logView) bottom() (top, row int) {
	left := v.h
	for n := v.buf.end() - 1; n >= v.buf.base; n-- {
		rows := v.rows(n)
		if rows >= left {
			return n, rows - left
		}
		left -= rows
	}
	return v.buf.base, 0
}

// scroll moves the window by rows. Upwards it stops following; at the end it follows again.
func (v *logView) scroll(delta int) {
	v.settle()
	if v.buf.count == 0 {
		return
	}
	for ; delta < 0; delta++ {
		switch {
		case v.row > 0:
			v.row--
		case v.top > v.buf.base:
			v.top--
			v.row = v.rows(v.top) - 1
		default:
			delta = -1
		}
		v.free = true
	}
	if delta > 0 {
		last, row := v.bottom()
		for ; delta > 0 && (v.top < last || v.top == last && v.row < row); delta-- {
			if v.row+1 < v.rows(v.top) {
				v.row++
			} else {
				v.top, v.row = v.top+1, 0
			}
		}
		v.free = v.top < last || v.top == last && v.row < row
	}
}

func (v *logView) first()  { v.top, v.row, v.free = v.buf.base, 0, true }
func (v *logView) follow() { v.free = false }

// aside moves the window sideways.
func (v *logView) aside(delta int) { v.left = max(0, v.left+delta) }

// find searches for the query from the window on, in the direction of step (1 or -1), and around. It says what it came
// to.
func (v *logView) find(step int) string {
	if v.query == "" {
		return "nothing was searched for yet: / searches"
	}
	v.settle()
	total := v.buf.count
	start := v.top
	if v.hit >= v.buf.base {
		start = v.hit + step
	} else if step < 0 {
		start = v.top - 1
	}
	match := matcher(v.query)
	for i := range total {
		n := v.buf.base + mod(start-v.buf.base+step*i, total)
		if !match(v.buf.at(n).text) {
			continue
		}
		v.hit, v.free = n, true
		v.top, v.row = max(v.buf.base, n-v.h/3), 0 // with what led to it
		if at := strings.Index(strings.ToLower(v.buf.at(n).text), strings.ToLower(v.query)); !v.wrap && at >= 0 {
			if cells := width(v.buf.at(n).text[:min(at, len(v.buf.at(n).text))]); cells < v.left || cells+width(v.query) > v.left+v.w {
				v.left = max(0, cells-v.w/3)
			}
		}
		around := ""
		if (n-start)*step < 0 {
			around = ", around the end"
		}
		return fmt.Sprintf("“%s”: line %s of %s%s · n next, N previous", v.query, number(n+1), number(v.buf.end()), around)
	}
	v.hit = -1
	return fmt.Sprintf("“%s” is in none of the %s", v.query, plural(total, "line"))
}

func mod(a, n int) int {
	if a %= n; a < 0 {
		a += n
	}
	return a
}

// matcher finds a word in a line; letters' case counts only if the word has upper case.
func matcher(query string) func(string) bool {
	if query != strings.ToLower(query) {
		return func(s string) bool { return strings.Contains(s, query) }
	}
	if !plain(query) {
		return func(s string) bool { return strings.Contains(strings.ToLower(s), query) }
	}
	first, upper := query[0], strings.ToUpper(query[:1])[0]
	return func(s string) bool {
		for i := 0; i+len(query) <= len(s); i++ {
			if (s[i] == first || s[i] == upper) && strings.EqualFold(s[i:i+len(query)], query) {
				return true
			}
		}
		return false
	}
}

// draw returns h rows of at most w cells.
func (v *logView) draw(st *styles, w, h int) []string {
	v.w, v.h = max(w, 2), h
	v.settle()
	out := make([]string, 0, h)
	var match func(string) bool
	if v.query != "" {
		match = matcher(v.query)
	}
	if w < 2 { // not even one wide character
		return make([]string, h)
	}
	row := v.row
	for n := v.top; n < v.buf.end() && len(out) < h; n++ {
		l := v.buf.at(n)
		p, paint := v.prefix(l), st.tone(l.tone)
		room := max(2, w-len(p))
		found := match != nil && match(l.text)
		if !v.wrap {
			text := fit(from(l.text, v.left), room)
			if v.left > 0 && l.text != "" {
				text = fit("…"+from(l.text, v.left+1), room)
			}
			out = append(out, st.dim.of(p)+st.found(text, v.query, found, paint))
			continue
		}
		cuts := append(breaks(l.text, room), len(l.text))
		for ; row < len(cuts)-1 && len(out) < h; row++ {
			text := l.text[cuts[row]:cuts[row+1]]
			if row > 0 {
				p = spaces(len(p))
			}
			out = append(out, st.dim.of(p)+st.found(text, v.query, found, paint))
		}
		row = 0
	}
	for len(out) < h {
		out = append(out, "")
	}
	return out
}

// found paints a line and what of it was searched for.
func (st *styles) found(text, query string, found bool, p paint) string {
	if !found {
		return p.of(text)
	}
	lower := text
	if query == strings.ToLower(query) {
		if lower = strings.ToLower(text); len(lower) != len(text) {
			return p.of(text) // some letter is longer in the other case: the offsets would lie
		}
	}
	var b strings.Builder
	for {
		i := strings.Index(lower, query)
		if i < 0 {
			b.WriteString(p.of(text))
			return b.String()
		}
		b.WriteString(p.of(text[:i]))
		b.WriteString(st.match.of(text[i : i+len(query)]))
		text, lower = text[i+len(query):], lower[i+len(query):]
	}
}

func (st *styles) tone(t tone) paint {
	switch t {
	case step:
		return st.accent
	case good:
		return st.good
	case bad:
		return st.bad
	case aside:
		return st.dim
	}
	return st.text
}

// place says in a few words where the window is and what is not shown.
func (v *logView) place() string {
	b := v.buf
	if b.count == 0 {
		return "no lines yet"
	}
	if !v.free {
		return "newest of " + plural(b.end(), "line")
	}
	below := max(0, b.end()-v.top-v.h)
	if v.wrap {
		below = 0
		rows := -v.row
		for n := v.top; n < b.end(); n++ {
			if rows += v.rows(n); rows >= v.h {
				below = b.end() - n - 1
				break
			}
		}
	}
	return fmt.Sprintf("line %s of %s · %s below", number(v.top+1), number(b.end()), number(below))
}
