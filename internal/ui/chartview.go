package ui

import (
	"fmt"
	"strings"
)

// columns are the widths of the chart's columns; 0 leaves one out.
type columns struct {
	name, level, arches, upstream, published, signed, tested, state int
	long                                                            bool // published says the build, too
	every                                                           bool // tested has every architecture
}

// fixed is what stands in front of the name: cursor, selection mark, fold mark.
const fixed = 1 + 4 + 2

// columns shares out w cells. They depend on the catalogue and the width only: nothing moves when facts arrive. What is
// missed least is left out first.
func (c *chart) columns(w int) columns {
	col := columns{name: 8}
	level, arches := len("Level"), len("Architecture")
	for _, r := range c.rows {
		col.name = max(col.name, width(r.name))
		level = max(level, width(r.level))
		arches = max(arches, width(r.arches))
	}
	col.name = min(col.name, 28)
	left := w - fixed - col.name - 2 - 19 // of the state: "· not supported yet"
	take := func(field *int, n int) bool {
		if more := n - *field; *field > 0 && left >= more {
			*field, left = n, left-more
		} else if *field == 0 && left >= n+2 {
			*field, left = n, left-n-2
		} else {
			return false
		}
		return true
	}
	take(&col.upstream, 16)
	take(&col.published, 9)
	take(&col.level, min(level, 10))
	take(&col.tested, 14)
	take(&col.signed, 10)
	take(&col.arches, min(arches, 28))
	if left -= 17; left > 0 { // the state's, before others get more than they need
		col.long = take(&col.published, 20)
		take(&col.upstream, 22)
		col.every = take(&col.tested, 42)
	}
	if col.upstream == 0 {
		col.name = max(8, min(col.name, w-fixed-2-14))
	}
	col.state = max(0, w-col.used()-2)
	return col
}

// used is how many cells the columns before the state take.
func (col columns) used() int {
	n := fixed + col.name
	for _, f := range []int{col.level, col.arches, col.upstream, col.published, col.signed, col.tested} {
		if f > 0 {
			n += f + 2
		}
	}
	return n
}

// cells are the texts of a line's columns, painted.
type cells struct{ level, arches, upstream, published, signed, tested, state string }

// line draws one line with its cells in columns.
func (col columns) line(front, name string, c cells) string {
	var b strings.Builder
	b.WriteString(front)
	b.WriteString(name)
	for _, cell := range []struct {
		text string
		w    int
	}{{c.level, col.level}, {c.arches, col.arches}, {c.upstream, col.upstream}, {c.published, col.published}, {c.signed, col.signed}, {c.tested, col.tested}} {
		if cell.w > 0 {
			b.WriteString("  ")
			b.WriteString(pad(cell.text, cell.w))
		}
	}
	if col.state > 0 {
		b.WriteString("  ")
		b.WriteString(c.state)
	}
	return b.String()
}

// sideOf is the width of the details beside the chart; 0: they are below.
func sideOf(w int) int {
	if w < 160 {
		return 0
	}
	return max(50, w*3/10)
}

func (m *model) chartBody(w, h int) []string {
	c := m.chart
	var top []string
	if m.needsOwnLine(w, h) {
		top = []string{" " + m.needs()}
		h--
	}
	if side := sideOf(w); side > 0 {
		left := m.chartTable(w-side-3, h)
		right := m.details(side)
		for i := range left {
			r := ""
			if i < len(right) {
				r = right[i]
			}
			left[i] = pad(left[i], w-side-3) + m.st.dim.of(" │ ") + fit(r, side)
		}
		return append(top, left...)
	}
	need := 1 + max(len(c.lines), len(c.rows))
	if below := h - need; below >= 8 {
		out := append(m.chartTable(w, need), m.rule("details", w))
		return append(top, append(out, cut(m.details(w), below-1)...)...)
	}
	// The least: what the line under the cursor does not have the room to say. Its height depends on the chart's only, so
	// that nothing jumps when the cursor moves.
	if h < 6 {
		return append(top, m.chartTable(w, h)...)
	}
	room := max(1+btoi(w < 72), min(3, h-need))
	info := cut(m.line(w), room)
	for len(info) < room {
		info = append(info, "")
	}
	return append(append(top, m.chartTable(w, h-room)...), info...)
}

// needsOwnLine reports whether what needs somebody has a line of its own above the chart. Where the rows take all of the
// screen it stands in the line above the keys.
func (m *model) needsOwnLine(w, h int) bool { return h >= len(m.chart.rows)+3 }

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
	col := c.columns(w)
	out := make([]string, 0, max(0, h))
	head := col.line(spaces(fixed), pad("Flavor", col.name), cells{"Level", "Architecture", "Upstream", "Published", "Signed", "Tested", "State"})
	out = append(out, st.dim.of(fit(head, w)))
	from, to := c.window(h - 1)
	for i := from; i < to; i++ {
		out = append(out, m.mark(m.clickLine(i), pad(m.chartLine(c.lines[i], i, col), w)))
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

func (m *model) chartLine(l line, i int, col columns) string {
	st, r, cursor := m.st, l.row, i == m.chart.cursor
	if r == nil {
		return st.dim.of("── " + l.heading + " " + strings.Repeat("─", max(0, col.used()-width(l.heading)-4)))
	}
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
		mark = m.mark(m.clickBox(i), mark)
	}
	fold := "  "
	if l.flavor() && len(r.targets) > 0 {
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
	case len(able) == 0 && len(r.mistakes) == 0:
		paint = st.dim
	}
	var s state
	label := ""
	var c cells
	t := l.target
	switch {
	case t != nil:
		s, label = t.shown(), t.word()
		sign, by := t.signing()
		c.signed = signCell(st, sign, by)
		if s, word, at := t.testing(); word != "" {
			c.tested = st.state(s).of(s.symbol() + " " + word + " " + since(at, m.clock))
		}
		if t.plan != nil && t.plan.build != "" {
			c.upstream = known(st, paint, t).of(m.build(t, col.upstream))
		}
		c.published = known(st, paint, t).of(t.publication(m.clock, !col.long))
	case l.release != "":
		s, label = ready, ""
		if len(able) > 0 {
			s, label = worstOf(able)
		}
	default:
		c.level, c.arches = paint.of(r.level), paint.of(r.arches)
		s, label = r.state()
		lead := r.lead()
		sign, by := lead.signing()
		c.signed = signCell(st, sign, by)
		c.tested = r.tested(m.clock, st, !col.every)
		if lead != nil && lead.plan != nil && lead.plan.build != "" {
			c.upstream = known(st, paint, lead).of(m.build(lead, col.upstream))
		} else {
			c.upstream = paint.of(r.upstream(m.clock))
		}
		c.published = known(st, paint, lead).of(lead.publication(m.clock, !col.long))
	}
	if len(able) == 1 && (s == done || s == failed) && able[0].took > 0 {
		label += " · " + span(able[0].took)
	}
	if label != "" {
		text := s.symbol() + " " + label
		if word, _, more := strings.Cut(label, ":"); more && width(text) > col.state && col.state < 32 && (s == unsupported || word == noReleases) {
			if text = s.symbol() + " " + word + "…"; width(text) > col.state { // half a reason says nothing
				text = s.symbol() + " " + word
			}
		}
		c.state = st.state(s).of(fit(text, col.state))
	}
	if l.flavor() {
		name := r.name
		if r.edited {
			name += " ✎"
		}
		return col.line(front+mark+fold, paint.of(pad(name, col.name)), c)
	}
	// The flavor's own columns may be used by a long name.
	name := "  " + l.release
	if t != nil {
		name = "  " + t.label
		if l.under {
			name = "  " + name
		}
	} else if code := r.codename(l.release); code != "" {
		name += " " + code
	}
	wide := col
	for _, f := range []*int{&wide.level, &wide.arches} {
		if *f > 0 {
			wide.name += *f + 2
			*f = 0
		}
	}
	return wide.line(front+mark+fold, paint.of(pad(name, wide.name)), c)
}

// build is upstream's build with its age, which stays where there is little room.
func (m *model) build(t *target, w int) string {
	p := t.plan
	if p.date.IsZero() {
		return fit(p.build, w)
	}
	old := since(p.date, m.clock)
	return fit(p.build, max(1, w-width(old)-1)) + " " + old
}

// known paints what is known from before less than what was asked for just now.
func known(st *styles, p paint, t *target) paint {
	if t != nil && t.plan != nil && !t.fresh {
		return st.dim
	}
	return p
}

func signCell(st *styles, s state, by string) string {
	if by == "" {
		return ""
	}
	return st.state(s).of(s.symbol() + " " + by)
}

// codename is how the catalogue calls a release besides its version.
func (r *row) codename(release string) string {
	for _, x := range r.flavor.Releases {
		if clean(x.Version) == release {
			return clean(x.Codename)
		}
	}
	return ""
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
	case len(l.row.mistakes) > 0:
		text = l.row.name + ": " + strings.Join(l.row.mistakes, " · ")
	case len(able) == 0:
		text = l.reason()
	case l.target != nil:
		text = l.target.id + ": " + l.target.word() + after(l.target)
	default:
		var parts []string
		for _, t := range able {
			parts = append(parts, t.label+" "+t.word()+after(t))
		}
		if n := len(l.targets()) - len(able); n > 0 {
			parts = append(parts, fmt.Sprintf("%d not supported yet", n))
		}
		if l.row.undecided != "" {
			parts = append(parts, "licence undecided")
		}
		text = l.row.name + ": " + strings.Join(parts, " · ")
	}
	var out []string
	for _, s := range wrap(text, w-2) {
		out = append(out, m.st.dim.of("  "+s))
	}
	return out
}

// after says how long a target took.
func after(t *target) string {
	if t.state == done {
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
	what := r.id
	if r.level != "" {
		what += " · " + r.level
	}
	out := []string{ends(st.title.of(r.name), st.dim.of(what), w)}
	return append(out, m.drawFields(m.detailFields(l), w, -1).lines...)
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
