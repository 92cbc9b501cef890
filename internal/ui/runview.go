package ui

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// btos is a text where something is so, else nothing.
func btos(b bool, text string) string {
	if b {
		return text
	}
	return ""
}

// runBody draws the run: as many panes as fit and are worked on, and a list of the others.
func (m *model) runBody(w, h int) []string {
	b := m.board
	if len(b.panes) == 0 {
		return []string{m.st.dim.of(fit("  no targets", w))}
	}
	cols, list := b.arrange(w, h, m.clock, m.readingSince())
	shown := b.places.shown
	rest := m.others(w, list)
	h -= len(rest)
	var out []string
	if len(shown) == 1 {
		out = m.pane(shown[0], true, w, h)
		for len(out) < h && len(rest) > 0 {
			out = append(out, "")
		}
		return append(out, rest...)
	}
	rows := (len(shown) + cols - 1) / cols
	for r := range rows {
		line := shown[r*cols : min(len(shown), (r+1)*cols)]
		rowH := h/rows + btoi(r < h%rows)
		blocks := make([][]string, len(line))
		widths := make([]int, len(line))
		for i, p := range line {
			widths[i] = w/len(line) + btoi(i < w%len(line))
			blocks[i] = m.pane(p, p == b.panes[b.focus], widths[i], rowH)
		}
		for j := range rowH {
			var s strings.Builder
			for i := range blocks {
				s.WriteString(pad(blocks[i][j], widths[i]))
			}
			out = append(out, s.String())
		}
	}
	return append(out, rest...)
}

// readingSince is when somebody did something on this screen last; now, while a log is where somebody put it.
func (m *model) readingSince() time.Time {
	for _, p := range m.board.places.shown {
		if p.log.read() {
			return m.clock
		}
	}
	return m.touched
}

// read reports whether a log is where somebody put it.
func (v *logView) read() bool { return v.free || v.search != nil || v.filter != nil }

// others lists the panes that have no room, in at most n lines: how each is doing, and of how many there is no room for
// even that.
func (m *model) others(w, n int) []string {
	b, st := m.board, m.st
	if n <= 0 {
		return nil
	}
	var rest []*pane
	for _, p := range b.panes {
		if !slices.Contains(b.places.shown, p) {
			rest = append(rest, p)
		}
	}
	each := entryWidth(w)
	per := max(1, (w-1)/each)
	room := per * n
	var more []*pane
	if len(rest) > room {
		rest, more = rest[:room-1], rest[room-1:]
	}
	var lines []string
	for i := 0; i < len(rest) || i == len(rest) && len(more) > 0; i++ {
		text := ""
		if i < len(rest) {
			text = m.mark(m.clickPane(rest[i]), m.entry(rest[i], each-2))
		} else {
			text = st.warn.of(fit(b.leftOut(more, each-2), each-2))
		}
		if i%per == 0 {
			lines = append(lines, " ")
		}
		lines[len(lines)-1] += pad(text, each)
	}
	for i := range lines {
		lines[i] = fit(lines[i], w)
	}
	for len(lines) < n {
		lines = append(lines, "")
	}
	return lines
}

// leftOut says of panes that they are not even listed, in at most w cells if it can.
func (b *board) leftOut(list []*pane, w int) string {
	var n [len(states)]int
	for _, p := range list {
		s := p.state
		if s == running && p.working() == nil {
			s = waiting
		}
		n[s]++
	}
	var words, symbols []string
	for _, s := range []state{failed, running, waiting, done, skipped} {
		if n[s] > 0 {
			words = append(words, fmt.Sprintf("%d %s", n[s], s.word()))
			symbols = append(symbols, fmt.Sprintf("%s %d", s.symbol(), n[s]))
		}
	}
	text := fmt.Sprintf("… %d more of %d: %s", len(list), len(b.panes), strings.Join(words, ", "))
	if width(text) > w {
		text = fmt.Sprintf("… %d more: %s", len(list), strings.Join(symbols, " "))
	}
	return text
}

// entry is a pane in a line of at most w cells.
func (m *model) entry(p *pane, w int) string {
	s := p.state
	text := p.state.word()
	switch {
	case p.working() != nil:
		text = fmt.Sprintf("%s %d/%d", p.stages[p.current].name, p.current+1, m.board.last()+1)
		if p.left.known {
			text += " " + about(p.left.left)
		}
	case s == running:
		s, text = waiting, waiting.word()
	case s == done || s == failed:
		text = p.result() + " " + span(p.took)
	case s == skipped:
		text = p.result()
	}
	name := p.target
	if room := w - width(text) - 3; width(name) > room {
		name = fit(name, max(8, room))
	}
	return m.st.state(s).of(fit(s.symbol()+" "+name+" "+text, w))
}

// pane draws one target in exactly w×h cells: in a frame where there is room for one.
func (m *model) pane(p *pane, focus bool, w, h int) []string {
	st := m.st
	framed := w >= 50 && h >= 8 && len(m.board.panes) > 1 && m.top() == runScreen
	if !framed {
		margin := ""
		if w >= 60 {
			margin, w = " ", w-2
		}
		head := ends(st.title.of(p.target)+"  "+m.label(p), st.dim.of(m.timing(p, w-width(p.target)-20)), w)
		var out []string
		if h >= 4 {
			out = append(out, m.mark(m.clickTitle(p), head))
		}
		if h >= 6 {
			out = append(out, m.chain(p, w))
		}
		if h >= 3 {
			out = append(out, m.current(p, w))
		}
		foot := 0
		if h >= 8 {
			foot = 1
		}
		out = append(out, p.log.draw(st, w, max(0, h-len(out)-foot))...)
		if foot > 0 {
			out = append(out, st.dim.of(m.logFoot(p, w)))
		}
		for i := range out {
			if out[i] = margin + out[i]; m.pointer.on {
				out[i] = m.mark(m.clickPane(p), pad(out[i], w))
			}
		}
		return out[:min(len(out), h)]
	}
	frame, name := st.dim, st.text
	if focus {
		frame, name = st.accent, st.title
	}
	inner := w - 4
	title := name.of(p.target) + "  " + m.label(p)
	right := m.timing(p, w-6-width(title)-6)
	out := []string{m.mark(m.clickTitle(p), edge(frame, "╭", title, st.dim.of(right), "╮", w))}
	side := func(l string) string { return frame.of("│") + " " + pad(l, inner) + " " + frame.of("│") }
	out = append(out, side(m.chain(p, inner)), side(m.current(p, inner)))
	for _, l := range p.log.draw(st, inner, h-4) {
		out = append(out, side(l))
	}
	out = append(out, edge(frame, "╰", "", st.dim.of(m.logFoot(p, inner-4)), "╯", w))
	for i := range out {
		out[i] = m.mark(m.clickPane(p), out[i])
	}
	return out
}

// label is how a pane is doing; between two stages it waits.
func (m *model) label(p *pane) string {
	if p.state == running && p.working() == nil {
		return m.st.label(waiting, "")
	}
	return m.st.label(p.state, p.word())
}

// edge is the upper or lower side of a frame with words in it.
func edge(frame paint, from, left, right, to string, w int) string {
	if left != "" {
		left = " " + fit(left, w-6) + " "
	}
	if right != "" {
		right = " " + right + " "
	}
	if width(left)+width(right)+6 > w {
		right = ""
	}
	fill := max(0, w-4-width(left)-width(right))
	return frame.of(from+"─") + left + frame.of(strings.Repeat("─", fill)) + right + frame.of("─"+to)
}

// word is how a pane is doing, in a word or two.
func (p *pane) word() string {
	switch p.state {
	case done:
		return doneWord(p.note)
	case skipped:
		if p.idle {
			return "not started"
		}
	}
	return ""
}

// timing is how long a target has been worked on and how long it will be, in at most w cells if it can.
func (m *model) timing(p *pane, w int) string {
	if p.state == waiting {
		if text := about(p.left.left) + " of work"; p.left.known && width(text) <= w {
			return text
		}
		return ""
	}
	text := span(p.elapsed(m.clock))
	if more := text + " · " + about(p.left.left) + " to the end"; p.state == running && p.left.known && width(more) <= w {
		return more
	}
	return text
}

// chain is the way of the image and how far this one is: with names where there is room.
func (m *model) chain(p *pane, w int) string {
	st := m.st
	parts := make([]string, len(p.stages))
	n := 0
	for i := range p.stages {
		s := &p.stages[i]
		parts[i] = st.state(s.state).of(s.symbol() + " " + s.name)
		n += width(parts[i]) + 2
	}
	if n-2 <= w {
		return strings.Join(parts, "  ")
	}
	var b strings.Builder
	for i := range p.stages {
		b.WriteString(st.state(p.stages[i].state).of(p.stages[i].symbol()))
	}
	text := ""
	if p.current >= 0 {
		s := &p.stages[p.current]
		text = fmt.Sprintf(" %s %s, %d of %d", s.name, s.word(), p.current+1, len(p.stages))
	}
	return fit(b.String()+text, w)
}

func (s *stage) word() string {
	if s.state == skipped {
		return "skipped"
	}
	return s.state.word()
}

// symbol of a stage that has not begun is an empty circle.
func (s *stage) symbol() string {
	if s.state == waiting {
		return "○"
	}
	return s.state.symbol()
}

// current is what is going on in a pane: the stage with its progress, or how it ended.
func (m *model) current(p *pane, w int) string {
	st := m.st
	switch {
	case p.state == failed && len(p.fault) > 0:
		return st.bad.of(fit(p.fault[0], w))
	case p.state == waiting:
		return st.dim.of(fit("waiting for its turn", w))
	case p.state != running:
		return st.dim.of(fit(p.note, w))
	case p.current < 0:
		return ""
	}
	s := p.working()
	if s == nil {
		s = &p.stages[p.current]
		text := "waiting for its turn: " + s.name + " " + s.word()
		if s.reason != "" {
			text += ", " + s.reason
		}
		return st.dim.of(fit(text, w))
	}
	name := fmt.Sprintf("%s %d/%d", s.name, p.current+1, m.board.last()+1)
	share, guessed, barred := s.meter.share(), false, s.meter.total > 0
	if f := p.cast; f.basis == byRuns { // of the whole stage, not of what it is at now
		took := m.clock.Sub(s.began)
		share, guessed, barred = took.Seconds()/max(1, (took+p.stageLeft.left).Seconds()), true, true
	} else if f.basis == longer && s.meter.total <= 0 {
		barred = false
	}
	// What is missed least gives way first.
	const (
		amount = iota
		rate
		took
		left
	)
	parts := [4][]string{amount: nil, took: {span(max(0, m.clock.Sub(s.began)))}, left: p.says(m.clock)}
	if s.meter.known() {
		parts[amount] = []string{s.meter.amount()}
	}
	if r := s.meter.rate(m.clock); r != "" {
		parts[rate] = []string{r}
	}
	percent := ""
	if barred {
		percent = fmt.Sprintf("%3.0f%%", math.Floor(100*min(1, max(0, share))))
		if guessed {
			percent = fmt.Sprintf("%4s", "~"+strings.TrimSpace(percent))
		}
	}
	text := func() string {
		var list []string
		for _, p := range parts {
			if len(p) > 0 && p[0] != "" {
				list = append(list, p[0])
			}
		}
		return strings.Join(list, " · ")
	}
	room := w - width(name) - 1
	if barred {
		room -= width(percent) + 2
	}
	for _, drop := range []int{left, took, rate, left, amount} {
		if width(text())+btoi(barred)*7 <= room {
			break
		}
		switch p := parts[drop]; {
		case drop == left && len(p) > 1:
			parts[drop] = p[1:]
		case drop == amount && len(p) > 0:
			parts[drop] = []string{fit(p[0], max(0, room-7-width(text())+width(p[0])))}
		case drop != left:
			parts[drop] = nil
		}
	}
	head := st.active.of(s.name) + st.dim.of(strings.TrimPrefix(name, s.name))
	if !barred {
		return fit(head+" "+text(), w)
	}
	bar := min(30, room-width(text())-1)
	if bar < 6 {
		return fit(head+" "+strings.TrimSpace(percent)+" "+text(), w)
	}
	return head + " " + st.bar(share, bar) + " " + percent + "  " + text()
}

// logBody is one pane on the whole screen.
func (m *model) logBody(w, h int) []string {
	b := m.board
	if len(b.panes) == 0 {
		return []string{m.st.dim.of(fit("  no targets", w))}
	}
	return m.pane(b.panes[b.focus], true, w, h)
}

func (m *model) messagesBody(w, h int) []string {
	if m.messages.buf.end() == 0 {
		return []string{m.st.dim.of(fit("  Nothing has been said yet.", w))}
	}
	out := m.messages.draw(m.st, w-2, h)
	for i := range out {
		out[i] = "  " + out[i]
	}
	return out
}

// stageSeconds is the time of a stage in a table: "12.3", "–" where nothing was done, "✗ 12.3" where it failed.
func stageSeconds(s *stage) string {
	text := fmt.Sprintf("%.1f", s.took.Seconds())
	if s.took >= 100*time.Second {
		text = fmt.Sprintf("%.0f", s.took.Seconds())
	}
	switch s.state {
	case waiting:
		return ""
	case skipped:
		return "–"
	case failed:
		return "✗ " + text
	}
	return text
}
