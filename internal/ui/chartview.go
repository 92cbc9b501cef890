package ui

import (
	"fmt"
	"strings"
	"time"
)

// columns are the widths of the chart's columns; 0 leaves one out.
type columns struct{ name, level, arches, upstream, published, state int }

// fixed is what stands in front of the name: cursor, selection mark, fold mark.
const fixed = 1 + 4 + 2

// columns shares out w cells. What does not fit is left out by what is missed least.
func (c *chart) columns(w int, now time.Time) columns {
	col := columns{name: 8}
	grow := func(field *int, s string) { *field = max(*field, width(s)) }
	for _, r := range c.rows {
		grow(&col.name, r.name)
		grow(&col.level, r.level)
		grow(&col.arches, r.arches)
		grow(&col.upstream, r.upstream(now))
		grow(&col.published, r.published(now))
	}
	col.name = min(col.name, 28)
	col.level = max(col.level, len("Level"))
	col.arches = min(max(col.arches, len("Architecture")), 28)
	longest := 28
	if w < 100 {
		longest = 18 // the state needs the room more
	}
	col.upstream = min(max(col.upstream, len("Upstream")), longest)
	col.published = min(max(col.published, len("Published")), 16)
	need := func() int {
		n := fixed + col.name
		for _, f := range []int{col.level, col.arches, col.upstream, col.published} {
			if f > 0 {
				n += f + 2
			}
		}
		return n
	}
	const least = 20 // of the state: "· not supported yet…"
	for _, drop := range []*int{&col.arches, &col.published, &col.level, &col.upstream} {
		if need()+2+least > w {
			*drop = 0
		}
	}
	if need()+2+least > w {
		col.name = max(8, min(col.name, w-fixed-2-14))
	}
	col.state = max(0, w-need()-2)
	return col
}

// natural is the width that shows every column in full.
func (c *chart) natural(now time.Time) int {
	state := 0
	for _, r := range c.rows {
		_, label := r.state()
		state = max(state, width(label)+2)
		for _, t := range r.targets {
			state = max(state, width(t.unsupported)+2)
		}
	}
	full := c.columns(1000, now)
	return 1000 - full.state + state
}

// line draws one line with its cells in columns.
func (col columns) line(front, name, level, arches, upstream, published, state string) string {
	var b strings.Builder
	b.WriteString(front)
	b.WriteString(name)
	for _, cell := range []struct {
		text string
		w    int
	}{{level, col.level}, {arches, col.arches}, {upstream, col.upstream}, {published, col.published}} {
		if cell.w > 0 {
			b.WriteString("  ")
			b.WriteString(pad(cell.text, cell.w))
		}
	}
	if col.state > 0 {
		b.WriteString("  ")
		b.WriteString(state)
	}
	return b.String()
}

func (m *model) chartBody(w, h int) []string {
	c := m.chart
	side := 0
	if n := c.natural(m.clock); w >= n+3+48 {
		side = w - n - 3
	}
	if side > 0 {
		left := m.chartTable(w-side-3, h)
		right := m.details(side)
		for i := range left {
			r := ""
			if i < len(right) {
				r = right[i]
			}
			left[i] = pad(left[i], w-side-3) + m.st.dim.of(" │ ") + fit(r, side)
		}
		return left
	}
	need := 1 + max(len(c.lines), len(c.rows))
	if below := h - need; below >= 8 {
		out := append(m.chartTable(w, need), m.rule("details", w))
		return append(out, cut(m.details(w), below-1)...)
	}
	// The least: what the line under the cursor does not have the room to say. Its height depends on the chart's only, so
	// that nothing jumps when the cursor moves.
	if h < 6 {
		return m.chartTable(w, h)
	}
	room := max(1+btoi(w < 72), min(3, h-need))
	info := cut(m.line(w), room)
	for len(info) < room {
		info = append(info, "")
	}
	return append(m.chartTable(w, h-room), info...)
}

// cut keeps n lines; the last one ends in "…" where there are more.
func cut(lines []string, n int) []string {
	if len(lines) <= n {
		return lines
	}
	lines = lines[:max(0, n):max(0, n)]
	if n > 0 {
		lines[n-1] += " …"
	}
	return lines
}

// rule is a line with a word in it.
func (m *model) rule(word string, w int) string {
	if word != "" {
		word = " " + word + " "
	}
	return m.st.dim.of(fit("──"+word+strings.Repeat("─", max(0, w-2-width(word))), w))
}

// chartTable draws the heading and the lines of the chart, h lines in all.
func (m *model) chartTable(w, h int) []string {
	c, st := m.chart, m.st
	col := c.columns(w, m.clock)
	out := make([]string, 0, h)
	head := col.line(spaces(fixed), pad("Flavor", col.name), "Level", "Architecture", "Upstream", "Published", "State")
	out = append(out, st.dim.of(fit(head, w)))
	from, to := c.window(h - 1)
	for i := from; i < to; i++ {
		out = append(out, fit(m.chartLine(c.lines[i], i == c.cursor, col), w))
	}
	if len(c.lines) == 0 && h > 1 {
		what := fmt.Sprintf("no row matches “%s”: esc shows all of them", c.filter)
		if len(c.rows) == 0 {
			what = "the catalogue has no rows"
		}
		out = append(out, st.warn.of(fit("  "+what, w)))
	}
	for len(out) < h {
		out = append(out, "")
	}
	return out[:max(0, h)]
}

func (m *model) chartLine(l line, cursor bool, col columns) string {
	st, r := m.st, l.row
	front := " "
	if cursor {
		front = st.accent.of("▌")
	}
	able := l.able()
	mark := "    "
	if len(able) > 0 {
		n := 0
		for _, t := range able {
			if t.selected {
				n++
			}
		}
		switch n {
		case 0:
			mark = "[ ] "
		case len(able):
			mark = st.accent.of("[x] ")
		default:
			mark = st.accent.of("[-] ")
		}
	}
	fold := "  "
	if l.target == nil && len(r.targets) > 0 {
		fold = "▸ "
		if r.open {
			fold = "▾ "
		}
		fold = st.dim.of(fold)
	}
	paint := st.text
	switch {
	case cursor:
		paint = st.strong
	case len(able) == 0:
		paint = st.dim
	}
	var name, level, arches, label string
	var s state
	if l.target == nil {
		name, level, arches = r.name, r.level, r.arches
		s, label = r.state()
	} else {
		name, s, label = "  "+l.target.label, l.target.state, l.target.word()
	}
	if len(able) == 1 && (s == done || s == failed) {
		label += " · " + span(able[0].took)
	}
	text := s.symbol() + " " + label
	if width(text) > col.state && s == unsupported && strings.HasPrefix(label, s.word()) && col.state < 32 {
		text = s.symbol() + " " + s.word() + "…" // half a reason says nothing
	}
	text = st.state(s).of(fit(text, col.state))
	if l.target != nil {
		// The columns in between are the flavor's: a long name may use them.
		used := col.name
		for _, n := range []int{col.level, col.arches, col.upstream, col.published} {
			if n > 0 {
				used += n + 2
			}
		}
		if p := l.target.plan; p != nil && p.build != "" {
			name += "  " + p.newest(m.clock)
		}
		return front + mark + fold + paint.of(pad(name, used)) + "  " + text
	}
	return col.line(front+mark+fold, paint.of(pad(name, col.name)), paint.of(pad(level, col.level)), paint.of(pad(arches, col.arches)), paint.of(pad(r.upstream(m.clock), col.upstream)), paint.of(pad(r.published(m.clock), col.published)), text)
}

// line says in full what the chart's line under the cursor says in short.
func (m *model) line(w int) []string {
	l, ok := m.chart.on()
	if !ok {
		return nil
	}
	text := ""
	able := l.able()
	switch {
	case len(able) == 0:
		text = l.reason()
	case l.target != nil:
		text = l.target.id + ": " + l.target.word() + after(l.target)
	default:
		var parts []string
		for _, t := range able {
			parts = append(parts, t.label+" "+t.word()+after(t))
		}
		if n := len(l.row.targets) - len(able); n > 0 {
			parts = append(parts, fmt.Sprintf("%d not supported yet", n))
		}
		text = l.row.name + ": " + strings.Join(parts, " · ")
	}
	var out []string
	for _, s := range wrap(text, w-2) {
		out = append(out, m.st.dim.of("  "+s))
	}
	return out
}

// after says how a target failed, or how long it took.
func after(t *target) string {
	switch t.state {
	case failed:
		return ": " + t.note
	case done:
		return " in " + span(t.took)
	}
	return ""
}

// details is everything that is known of what the cursor is on.
func (m *model) details(w int) []string {
	l, ok := m.chart.on()
	if !ok {
		return nil
	}
	st, r := m.st, l.row
	out := []string{ends(st.title.of(r.name), st.dim.of(r.id+" · "+r.level), w)}
	if r.reason != "" {
		for _, s := range wrap(r.reason, w) {
			out = append(out, st.warn.of(s))
		}
	}
	label := 0
	for _, f := range r.facts {
		label = max(label, width(f[0])+2)
	}
	for _, t := range r.targets {
		label = max(label, width(t.label)+2)
	}
	label = min(label, w/2)
	for _, f := range r.facts {
		out = append(out, labelled(st.dim, f[0], label, st.text, f[1], w)...)
	}
	if len(r.targets) > 0 {
		out = append(out, "")
	}
	for _, t := range r.targets {
		p := st.text
		if t == l.target {
			p = st.strong
		}
		s, text := t.state, t.word()+after(t)
		if t.broken() {
			s = failed
		}
		if t.plan != nil && t.plan.build != "" {
			text = t.plan.newest(m.clock) + ": " + text
		}
		out = append(out, labelled(p, t.label, label, st.state(s), s.symbol()+" "+text, w)...)
	}
	for _, o := range r.others {
		out = append(out, labelled(st.dim, o[0], label, st.dim, o[1], w)...)
	}
	if t := l.target; t != nil && t.plan != nil {
		out = append(out, "")
		for _, f := range t.plan.facts {
			out = append(out, labelled(st.dim, f[0], label, st.text, f[1], w)...)
		}
	}
	return out
}

// labelled is a name and, in a column of its own, a text of one or more lines.
func labelled(p paint, name string, label int, q paint, text string, w int) (out []string) {
	for i, s := range wrap(text, max(1, w-label)) {
		s = q.of(s)
		if i == 0 {
			out = append(out, p.of(pad(name, label))+s)
		} else {
			out = append(out, spaces(label)+s)
		}
	}
	return out
}
