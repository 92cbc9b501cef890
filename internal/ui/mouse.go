package ui

import (
	"slices"
	"strconv"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"
)

// The mouse is the terminal's until somebody wants it here. Then whatever can be clicked is marked where it is drawn, with
// a sequence that takes no cells and no terminal sees: the marks are read from the finished frame and taken out of it. So
// what was cut, or has a question in front of it, cannot be clicked.

const (
	notches     = 3                      // lines that a turn of the wheel scrolls
	doubleClick = 400 * time.Millisecond // the most between two clicks that are one
	// clickDeaf is how long a new question ignores clicks: the second half of a double click is no answer.
	clickDeaf = 600 * time.Millisecond

	markBegin, markEnd = "\x1b[", 'z' // ECMA-48 leaves it to nobody: CSI number z
)

// target of a click: something in a frame.
type clickable struct {
	click  func(double bool) tea.Cmd
	wheel  func(delta int) // nil: the screen's list or log scrolls
	typing bool            // also while something is being typed
	answer bool            // of a question
}

// zone is a part of a line in which a click is meant for something.
type zone struct {
	from, to int // cells
	of       int // index in pointer.things
}

// pointer is what the mouse can do in the frame that was drawn last.
type pointer struct {
	on     bool
	things []clickable
	lines  [][]zone // the inner ones come after those around them

	last struct { // click
		at   time.Time
		x, y int
	}
}

// mark makes a part of a line something that can be clicked. Nothing is done while the mouse is the terminal's.
func (m *model) mark(c clickable, text string) string {
	if !m.pointer.on || text == "" {
		return text
	}
	m.pointer.things = append(m.pointer.things, c)
	return markBegin + strconv.Itoa(len(m.pointer.things)) + string(markEnd) + text + markBegin + "0" + string(markEnd)
}

// unmark notes where the marks of a finished frame are, and takes them out.
func (m *model) unmark(lines []string) {
	p := &m.pointer
	p.lines = p.lines[:0]
	if !p.on {
		return
	}
	for i, l := range lines {
		var zones []zone
		var open []int // indexes in zones
		var b strings.Builder
		at := 0 // cells
		for {
			mark := strings.Index(l, markBegin)
			for mark >= 0 { // other sequences stay
				end := mark + len(markBegin)
				for end < len(l) && l[end] >= '0' && l[end] <= '9' {
					end++
				}
				if end < len(l) && l[end] == markEnd {
					break
				}
				next := strings.Index(l[mark+1:], markBegin)
				if mark += 1 + next; next < 0 {
					mark = -1
				}
			}
			if mark < 0 {
				break
			}
			end := mark + strings.IndexByte(l[mark:], markEnd)
			n, _ := strconv.Atoi(l[mark+len(markBegin) : end])
			b.WriteString(l[:mark])
			at += width(l[:mark])
			l = l[end+1:]
			switch {
			case n > 0 && n <= len(p.things):
				open = append(open, len(zones))
				zones = append(zones, zone{at, -1, n - 1})
			case n == 0 && len(open) > 0:
				zones[open[len(open)-1]].to = at
				open = open[:len(open)-1]
			}
		}
		b.WriteString(l)
		at += width(l)
		for _, k := range open {
			zones[k].to = at
		}
		p.lines = append(p.lines, zones)
		lines[i] = b.String()
	}
}

// under is what is at a cell; nil: nothing.
func (p *pointer) under(x, y int) *clickable {
	if y < 0 || y >= len(p.lines) {
		return nil
	}
	for _, z := range slices.Backward(p.lines[y]) {
		if x >= z.from && x < z.to {
			return &p.things[z.of]
		}
	}
	return nil
}

func (m *model) toggleMouse() tea.Cmd {
	p := &m.pointer
	p.on = !p.on
	text := "the mouse is the terminal's again"
	if p.on {
		text = "clicks and the wheel work here; M gives the mouse back to the terminal"
	}
	m.say(aside, text)
	on := p.on
	return func() tea.Msg { m.setMouse(on); return nil }
}

// pointed is what the mouse did.
func (m *model) pointed(msg tea.MouseMsg) tea.Cmd {
	p := &m.pointer
	wheel := msg.Button == tea.MouseButtonWheelUp || msg.Button == tea.MouseButtonWheelDown
	if !p.on || m.stopping || msg.Action != tea.MouseActionPress || !wheel && msg.Button != tea.MouseButtonLeft {
		m.dirty = false
		return nil
	}
	c := p.under(msg.X, msg.Y)
	if wheel {
		delta := notches
		if msg.Button == tea.MouseButtonWheelUp {
			delta = -notches
		}
		switch {
		case m.dialog != nil || m.input != nil || m.form != nil && m.form.asking != nil:
			m.dirty = false
		case c != nil && c.wheel != nil:
			m.touched = m.clock
			c.wheel(delta)
		default:
			m.touched = m.clock
			m.move(delta)
		}
		return nil
	}
	double := p.last.x == msg.X && p.last.y == msg.Y && m.clock.Sub(p.last.at) < doubleClick && !p.last.at.IsZero()
	p.last.at, p.last.x, p.last.y = m.clock, msg.X, msg.Y
	if double {
		p.last.at = time.Time{} // a third click begins anew
	}
	switch {
	case c == nil || c.click == nil,
		m.input != nil && !c.typing,
		m.dialog != nil && (!c.answer || m.clock.Sub(m.dialog.opened) < clickDeaf):
		m.dirty = false
		return nil
	}
	m.touched = m.clock
	m.note, m.noteLog = "", nil
	return c.click(double)
}

// What can be clicked.

// press is the key of the screen that does the same.
func (m *model) press(key string) tea.Cmd {
	if a := m.bound(key, m.scope()); a != nil {
		return m.run(a)
	}
	return nil
}

// clickRow is a row of the screen's list: a click goes there, a double click does what enter does.
func (m *model) clickRow(l *list, i int) clickable {
	return clickable{click: func(double bool) tea.Cmd {
		l.cursor = max(0, min(i, l.n-1))
		if double {
			return m.press("enter")
		}
		return nil
	}}
}

// clickLine is a line of the chart.
func (m *model) clickLine(i int) clickable {
	return clickable{click: func(double bool) tea.Cmd {
		m.chart.cursor = i
		m.chart.move(0)
		if double {
			return m.press("enter")
		}
		return nil
	}}
}

// clickBox is the box in front of a line of the chart, which selects it.
func (m *model) clickBox(i int) clickable {
	return clickable{click: func(bool) tea.Cmd {
		m.chart.cursor = i
		m.chart.move(0)
		return m.press(" ")
	}}
}

// clickCell is a stage of a target in the matrix.
func (m *model) clickCell(i, stage int) clickable {
	return clickable{click: func(double bool) tea.Cmd {
		m.scrolled[matrixScreen].cursor, m.grid.stage = i, stage
		if double {
			return m.press("enter")
		}
		return nil
	}}
}

// clickPane is a pane, or its line in the list of others: a click gives it the focus, a double click zooms. The wheel
// scrolls its log, whatever has the focus.
func (m *model) clickPane(p *pane) clickable {
	return clickable{wheel: p.log.scroll, click: func(double bool) tea.Cmd {
		m.focusOn(p)
		if double {
			return m.zoom()
		}
		return nil
	}}
}

// clickTitle is the title of a pane: of the one that has the focus it zooms.
func (m *model) clickTitle(p *pane) clickable {
	return clickable{wheel: p.log.scroll, click: func(double bool) tea.Cmd {
		if m.board.panes[m.board.focus] == p && (!double || m.top() == runScreen) {
			return m.zoom()
		}
		m.focusOn(p)
		return nil
	}}
}

func (m *model) focusOn(p *pane) {
	if i := slices.Index(m.board.panes, p); i >= 0 {
		m.board.focus, m.board.held = i, true
	}
}

// clickKey is a key in the line of keys.
func (m *model) clickKey(a *action) clickable {
	return clickable{typing: true, click: func(bool) tea.Cmd { return m.run(a) }}
}

// clickAnswer is an answer of a question. What has to be typed cannot be clicked.
func (m *model) clickAnswer(do func() tea.Cmd) clickable {
	return clickable{answer: true, typing: true, click: func(bool) tea.Cmd { return do() }}
}
