package ui

import (
	"fmt"
	"strings"
	"time"
)

// The least that a pane in a grid needs, and the width from which two stand side by side even if they need not.
const (
	leastW, leastH = 54, 8
	easyW          = 90
)

// grid arranges n panes on w×h cells: how many side by side and one above the other, and how many of them fit.
func grid(n, w, h int) (cols, rows, fit int) {
	if n <= 0 {
		return 1, 1, 0
	}
	maxCols, maxRows := max(1, w/leastW), max(1, h/leastH)
	cols = 1
	for cols < w/easyW && cols*cols < n {
		cols++
	}
	for cols < maxCols && cols*maxRows < n {
		cols++
	}
	rows = min(maxRows, (n+cols-1)/cols)
	return cols, rows, min(n, cols*rows)
}

// runBody draws the run: as many panes as fit, the one with the focus always among them.
func (m *model) runBody(w, h int) []string {
	b := m.board
	if len(b.panes) == 0 {
		return []string{m.st.dim.of(fit("  no targets", w))}
	}
	var strip []string
	cols, rows, fit := grid(len(b.panes), w, h)
	if fit < len(b.panes) {
		strip = m.strip(w)
		cols, rows, fit = grid(len(b.panes), w, h-len(strip))
	}
	out := append([]string{}, strip...)
	h -= len(strip)
	first := b.focus / fit * fit
	shown := b.panes[first:min(len(b.panes), first+fit)]
	if fit == 1 {
		return append(out, m.pane(b.panes[b.focus], true, w, h)...)
	}
	y := 0
	for r := 0; r < rows && r*cols < len(shown); r++ {
		line := shown[r*cols : min(len(shown), (r+1)*cols)]
		used := (len(shown) + cols - 1) / cols
		rowH := h/used + btoi(r < h%used)
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
		y += rowH
	}
	return out
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// strip is every target with how it is doing, in one line, the focus in its middle; it is there when not all panes are.
func (m *model) strip(w int) []string {
	b, st := m.board, m.st
	var parts []string
	for i, p := range b.panes {
		text := p.state.symbol() + " " + p.target
		if i == b.focus {
			text = st.accent.of("[") + st.state(p.state).of(text+" "+p.outcome()) + st.accent.of("]")
		} else {
			text = " " + st.state(p.state).of(text) + " "
		}
		parts = append(parts, text)
	}
	// Neighbours of the focus are added on either side as long as they fit.
	head := fmt.Sprintf("%d/%d", b.focus+1, len(b.panes))
	room := w - width(head) - 1 - 4
	from, to := b.focus, b.focus+1
	used := width(parts[b.focus])
	for {
		grown := false
		if to < len(parts) && used+width(parts[to])+1 <= room {
			used += width(parts[to]) + 1
			to++
			grown = true
		}
		if from > 0 && used+width(parts[from-1])+1 <= room {
			from--
			used += width(parts[from]) + 1
			grown = true
		}
		if !grown {
			break
		}
	}
	line := st.dim.of(head) + " "
	if from > 0 {
		line += st.dim.of("… ")
	}
	line += strings.Join(parts[from:to], " ")
	if to < len(parts) {
		line += st.dim.of(" …")
	}
	return []string{fit(line, w)}
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
		head := ends(st.title.of(p.target)+"  "+st.label(p.state, p.word()), st.dim.of(m.timing(p)), w)
		var out []string
		if h >= 4 {
			out = append(out, head)
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
			out[i] = margin + out[i]
		}
		return out[:min(len(out), h)]
	}
	frame, name := st.dim, st.text
	if focus {
		frame, name = st.accent, st.title
	}
	inner := w - 4
	title := name.of(p.target) + "  " + st.label(p.state, p.word())
	right := m.timing(p)
	out := []string{edge(frame, "╭", title, st.dim.of(right), "╮", w)}
	side := func(l string) string { return frame.of("│") + " " + pad(l, inner) + " " + frame.of("│") }
	out = append(out, side(m.chain(p, inner)), side(m.current(p, inner)))
	for _, l := range p.log.draw(st, inner, h-4) {
		out = append(out, side(l))
	}
	return append(out, edge(frame, "╰", "", st.dim.of(m.logFoot(p, inner-4)), "╯", w))
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

func (m *model) timing(p *pane) string {
	if p.state == waiting {
		return ""
	}
	return span(p.elapsed(m.clock))
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
	s := &p.stages[p.current]
	took := span(max(0, m.clock.Sub(s.began)))
	if s.state != running {
		return st.dim.of(fit(s.name+" "+s.word(), w))
	}
	if !s.meter.known() {
		return fit(st.active.of(s.name)+st.dim.of(" · "+took), w)
	}
	text := s.meter.amount()
	if r := s.meter.rate(); r != "" {
		text += " · " + r
	}
	text += " · " + took
	if s.meter.total <= 0 {
		return fit(st.active.of(s.name)+" "+text, w)
	}
	share := s.meter.share()
	text = fmt.Sprintf("%3.0f%%  %s", float64(int(share*100)), text)
	bar := min(30, w-width(s.name)-width(text)-2)
	if bar < 6 {
		return fit(st.active.of(s.name)+" "+strings.TrimSpace(text), w)
	}
	return st.active.of(s.name) + " " + st.bar(share, bar) + " " + text
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
