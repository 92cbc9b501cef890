package ui

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// logView is a window on a log: it knows its place and how lines are shown, and costs what is visible.
type logView struct {
	buf    *logBuffer
	top    int // number of the first visible line
	row    int // how many of its rows are above the window, when lines are wrapped
	left   int // cells that are scrolled away to the left, when they are not
	free   bool
	wrap   bool
	stamps bool
	w, h   int // as it was last drawn

	filter *sift // only these lines are shown; nil: all
	search *sift // what was searched for; nil: nothing
	hit    int   // line that the search found last; -1 for none
	around bool  // it was found around the end
	seek   int   // 1, -1: the next hit is looked for in this direction; 0: none is
	from   int   // from this line on
	reveal bool  // what was found has to be brought into the window

	want    []int // lines that are to be read back
	reading bool
}

func newLogView() *logView { return &logView{buf: newLogBuffer(), hit: -1} }

// total is how many lines are shown, as long as one scrolls.
func (v *logView) total() int {
	if v.filter == nil {
		return v.buf.end() - v.buf.first()
	}
	return len(v.filter.list) - v.filter.ord(v.buf.first())
}

// nth is the number of the i-th line of those that are shown.
func (v *logView) nth(i int) int {
	if v.filter == nil {
		return v.buf.first() + i
	}
	return int(v.filter.list[v.filter.ord(v.buf.first())+i])
}

// ord is how many of those that are shown have numbers below n.
func (v *logView) ord(n int) int {
	first := v.buf.first()
	if v.filter == nil {
		return min(max(0, n-first), v.total())
	}
	return v.filter.ord(max(n, first)) - v.filter.ord(first)
}

// prefix is what stands before a line.
func (v *logView) prefix(l *logLine) string {
	if !v.stamps || v.w < 30 {
		return ""
	}
	return time.UnixMilli(l.at).Format("15:04:05 ")
}

// rows is how many rows a line takes; one if it is not in memory.
func (v *logView) rows(n int) int {
	if !v.wrap {
		return 1
	}
	l := v.buf.get(n)
	if l == nil {
		return 1
	}
	return len(breaks(l.text, v.w-len(v.prefix(l))))
}

// settle brings the window to lines that exist: to the newest, while it follows. It returns which of the shown lines is
// the first one.
func (v *logView) settle() int {
	total := v.total()
	if total == 0 {
		v.row = 0
		return 0
	}
	last, row := v.bottom()
	if !v.free {
		v.top, v.row = v.nth(last), row
		return last
	}
	i := v.ord(v.top)
	if i < total && v.nth(i) != v.top {
		v.row = 0
	}
	if i > last || i == last && v.row > row {
		i, v.row = last, row
	}
	v.top = v.nth(i)
	if v.row > 0 {
		v.row = min(v.row, v.rows(v.top)-1)
	}
	return i
}

// bottom is the place of a window that shows the newest line last.
func (v *logView) bottom() (first, row int) {
	if !v.wrap {
		return max(0, v.total()-max(1, v.h)), 0
	}
	left := max(1, v.h)
	for i := v.total() - 1; i >= 0; i-- {
		rows := v.rows(v.nth(i))
		if rows >= left {
			return i, rows - left
		}
		left -= rows
	}
	return 0, 0
}

// scroll moves the window by rows. Upwards it stops following; at the end it follows again. Where lines are wrapped it
// goes no further than is known.
func (v *logView) scroll(delta int) {
	i := v.settle()
	total := v.total()
	if total == 0 || delta == 0 {
		return
	}
	last, lastRow := v.bottom()
	if !v.wrap {
		i, v.row = min(max(0, i+min(max(delta, -total), total)), last), 0
	}
	for ; v.wrap && delta < 0; delta++ {
		if v.row > 0 {
			v.row--
			continue
		}
		if i == 0 {
			break
		}
		if n := v.nth(i - 1); v.buf.get(n) == nil {
			v.ask(i-1, v.h)
			break
		}
		i--
		v.row = v.rows(v.nth(i)) - 1
	}
	for ; v.wrap && delta > 0 && (i < last || i == last && v.row < lastRow); delta-- {
		if v.row+1 < v.rows(v.nth(i)) {
			v.row++
		} else {
			i, v.row = i+1, 0
		}
	}
	v.top = v.nth(i)
	v.free = i < last || i == last && v.row < lastRow
	v.reveal, v.seek = false, 0
}

func (v *logView) toFirst() {
	v.top, v.row, v.free, v.reveal, v.seek = v.buf.first(), 0, true, false, 0
}

func (v *logView) follow() { v.free, v.reveal, v.seek = false, false, 0 }

// aside moves the window sideways.
func (v *logView) aside(delta int) { v.left, v.reveal = max(0, v.left+delta), false }

// ask wants the lines around the i-th that are not in memory to be read back, if any within reach is not.
func (v *logView) ask(i, reach int) {
	total, missing := v.total(), false
	if total == 0 || v.nth(max(0, i-reach)) >= v.buf.base {
		return
	}
	for k := max(0, i-reach); k < min(total, i+2*reach) && !missing; k++ {
		missing = v.buf.get(v.nth(k)) == nil
	}
	if !missing {
		return
	}
	v.want = v.want[:0]
	for k := max(0, i-256); k < min(total, i+512); k++ {
		n := v.nth(k)
		if n >= v.buf.base {
			break
		}
		if v.buf.get(n) == nil {
			v.want = append(v.want, n)
		}
	}
}

// sifted makes the sifts anew after one of them has changed.
func (v *logView) sifted(stage string, filter, search *event.Query) {
	hit, same := v.hit, search != nil && search == v.query()
	v.filter, v.search, v.hit, v.seek = nil, nil, -1, 0
	if stage != "" || filter != nil {
		v.filter = &sift{Sift: event.Sift{Stage: stage}}
		if filter != nil {
			v.filter.Words = []*event.Query{filter}
		}
		v.filter.grow(v.buf)
	}
	if search != nil {
		v.search = &sift{Sift: event.Sift{Stage: stage, Words: []*event.Query{search}}}
		if filter != nil {
			v.search.Words = append(v.search.Words, filter)
		}
		v.search.grow(v.buf)
		if same && hit >= v.buf.first() && hit < v.buf.end() {
			if l := v.buf.get(hit); l != nil && v.search.Match(v.buf.stages[l.stage], l.text) {
				v.hit = hit
			}
		}
	}
}

// only is which stage and words the shown lines are bound to.
func (v *logView) only() (stage string, words *event.Query) {
	if v.filter == nil {
		return "", nil
	}
	if len(v.filter.Words) > 0 {
		words = v.filter.Words[0]
	}
	return v.filter.Stage, words
}

// query is what was searched for; nil: nothing.
func (v *logView) query() *event.Query {
	if v.search == nil {
		return nil
	}
	return v.search.Words[0]
}

// grow lets the sifts look at what has come.
func (v *logView) grow() {
	if v.filter != nil {
		v.filter.grow(v.buf)
	}
	if v.search != nil {
		v.search.grow(v.buf)
		v.found()
	}
}

// find looks for the next hit from the last one, or from the window on, in the direction of step (1 or -1), and around.
func (v *logView) find(step int) {
	if v.search == nil {
		return
	}
	v.settle()
	v.seek, v.from = step, v.top
	if v.hit >= 0 {
		v.from = v.hit
		if step > 0 {
			v.from++
		}
	}
	v.grow()
}

// found goes to the next hit if it is known by now.
func (v *logView) found() {
	s := v.search
	if v.seek == 0 {
		return
	}
	first, done := s.ord(v.buf.first()), s.done(v.buf)
	i := s.ord(v.from)
	if v.seek < 0 {
		if s.upto < v.from && !done {
			return
		}
		i--
	}
	v.around = false
	if i < first || i >= len(s.list) {
		if !done {
			return
		}
		v.around = true
		if i = first; v.seek < 0 {
			i = len(s.list) - 1
		}
	}
	v.seek = 0
	if first >= len(s.list) {
		v.hit = -1
		return
	}
	v.hit, v.free, v.reveal = int(s.list[i]), true, true
}

// show brings what was found into the window, with what led to it.
func (v *logView) show() {
	i := v.ord(v.hit)
	if i >= v.total() {
		return
	}
	above := max(0, v.h/3)
	for ; i > 0 && above > 0; i-- {
		if above -= v.rows(v.nth(i - 1)); above < 0 {
			break
		}
	}
	v.top, v.row = v.nth(i), 0
	l := v.buf.get(v.hit)
	if l == nil {
		return // again, when it is there
	}
	v.reveal = false
	if at := v.query().Find(l.text); !v.wrap && len(at) > 0 {
		room := v.w - len(v.prefix(l))
		from, to := width(l.text[:at[0][0]]), width(l.text[:at[0][1]])
		switch {
		case to < room:
			v.left = 0
		case from <= v.left || to >= v.left+room:
			v.left = max(0, from-room/3)
		}
	}
}

// told says what the search has come to.
func (v *logView) told() string {
	s := v.search
	if s == nil {
		return "nothing was searched for yet: / searches"
	}
	lines := plural(v.buf.end(), "line")
	if v.filter != nil {
		lines = plural(v.total(), "line") + " that are shown"
	}
	text := "“" + clean(v.query().String()) + "”"
	switch {
	case v.seek != 0:
		return fmt.Sprintf("%s: %s searched so far …", text, plural(s.upto, "line"))
	case v.hit < 0:
		text += " is in none of the " + lines
	default:
		text += fmt.Sprintf(": %s, line %s of %s", v.count(), number(v.hit+1), number(v.buf.end()))
		if v.around {
			text += ", around the end"
		}
		text += " · n next, N previous"
	}
	if s.err != nil {
		text += " · not all could be searched: " + clean(s.err.Error())
	}
	return text
}

// count is which of how many hits was found last: "3 of 41".
func (v *logView) count() string {
	s := v.search
	first := s.ord(v.buf.first())
	text := number(len(s.list) - first)
	if s.capped {
		text += " or more"
	} else if !s.done(v.buf) {
		text += " so far"
	}
	if v.hit < 0 {
		return text + " found"
	}
	return number(s.ord(v.hit)-first+1) + " of " + text
}

// draw returns h rows of at most w cells.
func (v *logView) draw(st *styles, w, h int) []string {
	if w < 2 { // not even one wide character
		return make([]string, h)
	}
	v.w, v.h = w, h
	v.grow()
	if v.reveal && v.hit >= 0 {
		v.show()
	}
	i := v.settle()
	total := v.total()
	v.ask(i, h)
	out := make([]string, 0, h)
	if v.filter != nil && total == 0 && v.buf.end() > 0 && v.filter.done(v.buf) && h > 0 {
		out = append(out, st.dim.of(fit("none of "+plural(v.buf.end(), "line")+" fits what is asked for: esc shows all of them", w)))
	}
	row := v.row
	for ; i < total && len(out) < h; i++ {
		l := v.buf.get(v.nth(i))
		if l == nil {
			out = append(out, st.dim.of("…"))
			row = 0
			continue
		}
		p, paint := v.prefix(l), st.tone(l.tone)
		room := max(2, w-len(p))
		var found [][]int
		if q := v.query(); q != nil {
			found = q.Find(l.text)
		}
		if !v.wrap {
			out = append(out, st.dim.of(p)+st.cut(l.text, v.left, room, found, paint))
			continue
		}
		cuts := append(breaks(l.text, room), len(l.text))
		for ; row < len(cuts)-1 && len(out) < h; row++ {
			if row > 0 {
				p = spaces(len(p))
			}
			out = append(out, st.dim.of(p)+st.found(l.text, cuts[row], cuts[row+1], found, paint))
		}
		row = 0
	}
	for len(out) < h {
		out = append(out, "")
	}
	return out
}

// cut paints the room cells of a line from the cell left on; "…" stands where something is cut.
func (st *styles) cut(s string, left, room int, found [][]int, p paint) string {
	a, b, before, after := 0, len(s), "", ""
	if plain(s) {
		if left > 0 && s != "" {
			a, before = min(left+1, len(s)), "…"
		}
		if len(before)/3+b-a > room {
			b, after = max(a, a+room-1-len(before)/3), "…"
		}
	} else {
		cells := 0
		if left > 0 {
			before = "…"
			for a < len(s) && cells < left+1 {
				n, w := cluster(s[a:])
				a, cells = a+n, cells+w
			}
			cells = cells - left // what is cut, and half of a wide character
			before += spaces(cells - 1)
		}
		if width(s[a:]) > room-cells {
			after = "…"
			for b = a; b < len(s); {
				n, w := cluster(s[b:])
				if cells += w; cells > room-1 {
					break
				}
				b += n
			}
		}
	}
	return p.of(before) + st.found(s, a, b, found, p) + p.of(after)
}

// cluster is how many bytes and cells the first character of s takes.
func cluster(s string) (n, cells int) {
	c, cells := ansi.FirstGraphemeCluster(s, ansi.GraphemeWidth)
	return max(1, len(c)), cells
}

// found paints a part of a line and what of it was found.
func (st *styles) found(s string, from, to int, found [][]int, p paint) string {
	if len(found) == 0 || from >= to {
		return p.of(s[from:max(from, to)])
	}
	var b strings.Builder
	for _, m := range found {
		x, y := max(from, m[0]), min(to, m[1])
		if x >= y {
			continue
		}
		b.WriteString(p.of(s[from:x]))
		b.WriteString(st.match.of(s[x:y]))
		from = y
	}
	b.WriteString(p.of(s[from:to]))
	return b.String()
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
	end, total := v.buf.end(), v.total()
	if end == 0 {
		return "no lines yet"
	}
	shown := plural(end, "line")
	if v.filter != nil {
		shown = v.filtered()
	}
	if !v.free || total == 0 {
		return "newest of " + shown
	}
	i := v.ord(v.top)
	below := max(0, total-i-v.h)
	if v.wrap {
		below = 0
		rows := -v.row
		for k := i; k < total; k++ {
			if rows += v.rows(v.nth(k)); rows >= v.h {
				below = total - k - 1
				break
			}
		}
	}
	if v.filter != nil {
		return fmt.Sprintf("line %s · %s below · %s", number(v.top+1), number(below), shown)
	}
	return fmt.Sprintf("line %s of %s · %s below", number(v.top+1), number(end), number(below))
}

// filtered says how much of the log the filters leave: "120 of 5,000 (only customise, “apt”)".
func (v *logView) filtered() string {
	stage, words := v.only()
	var parts []string
	if stage != "" {
		parts = append(parts, "only "+clean(stage))
	}
	if words != nil {
		parts = append(parts, "“"+clean(words.String())+"”")
	}
	text := number(v.total())
	if v.filter.capped {
		text += " or more"
	} else if !v.filter.done(v.buf) {
		text += " so far"
	}
	return fmt.Sprintf("%s of %s (%s)", text, number(v.buf.end()), strings.Join(parts, ", "))
}

// logFoot says what of a log is seen, what is not, and where all of it is.
func (m *model) logFoot(p *pane, w int) string {
	v := p.log
	text := v.place()
	if p.state == running && !v.free {
		text = "following · " + strings.TrimPrefix(text, "newest of ")
	}
	if v.search != nil {
		text += " · “" + clean(v.query().String()) + "” " + v.count()
	}
	if v.wrap {
		text += " · wrapped"
	}
	if v.buf.end() == 0 {
		return fit(text, w)
	}
	text += " · "
	if older := v.buf.base; older > 0 {
		if text += number(older) + " older "; v.buf.first() == 0 {
			text += "read from disk: "
		} else {
			text += "on disk only: "
		}
	} else {
		text += "on disk: "
	}
	path, room := m.logPath(p), w-width(text)
	if n := width(path); n > room && room >= 12 {
		path = "…" + from(path, n-room+1) // its end says more than its beginning
	}
	return fit(text+path, w)
}

func mod(a, n int) int {
	if a %= n; a < 0 {
		a += n
	}
	return a
}
