package ui

import (
	"strings"

	tea "github.com/charmbracelet/bubbletea"
)

// field is a name and a value that can be copied, or a heading.
type field struct {
	heading     string
	name, value string
	state       state
	coloured    bool // the value has its state's colour
	strong      bool
	quiet       bool
}

// drawn are fields as lines.
type drawn struct {
	lines []string
	from  []int // of each field, its first line
}

// drawFields draws fields; the one under the cursor is marked, -1 for none.
func (m *model) drawFields(fields []field, w, cursor int) drawn {
	st := m.st
	label := 0
	for _, f := range fields {
		label = max(label, width(f.name)+2)
	}
	label = min(label, max(8, w*2/5))
	mark, room := "", w
	if cursor >= 0 {
		room = w - 2
	}
	var d drawn
	for i, f := range fields {
		d.from = append(d.from, len(d.lines))
		if cursor >= 0 {
			mark = m.cursor(i == cursor)
		}
		if f.name == "" {
			if f.heading != "" {
				d.lines = append(d.lines, mark+st.title.of(fit(f.heading, room)))
			} else {
				d.lines = append(d.lines, "")
			}
			continue
		}
		p, q := st.dim, st.text
		if f.strong {
			p = st.strong
		}
		if f.quiet {
			q = st.dim
		}
		value := f.value
		if f.coloured {
			q = st.state(f.state)
			value = f.state.symbol() + " " + value
		}
		if i == cursor {
			p = st.strong
		}
		for k, s := range labelled(p, f.name, label, q, value, room) {
			if k == 0 {
				s = mark + s
			} else {
				s = spaces(width(mark)) + s
			}
			if cursor >= 0 {
				s = m.mark(m.clickRow(&m.scrolled[m.top()], i), pad(s, w))
			}
			d.lines = append(d.lines, s)
		}
	}
	return d
}

// fields are those of the screen that has a cursor on them.
func (m *model) fields() []field {
	switch m.top() {
	case detailsScreen:
		return m.allDetails()
	case cellScreen:
		return m.cellFields()
	}
	return nil
}

// fieldsBody draws the screen's fields, with the one under the cursor visible.
func (m *model) fieldsBody(w, h int) []string {
	l := &m.scrolled[m.top()]
	fields := m.fields()
	l.n, l.h = len(fields), max(0, h)
	m.moveField(0)
	d := m.drawFields(fields, w-2, l.cursor)
	first, last := 0, 1
	if l.cursor < len(d.from) {
		first, last = d.from[l.cursor], len(d.lines)
		if l.cursor+1 < len(d.from) {
			last = d.from[l.cursor+1]
		}
		if i := l.cursor; i > 0 && fields[i-1].name == "" { // its heading, too
			first = d.from[i-1]
		}
	}
	if last-first > h {
		last = first + h
	}
	if l.top > first {
		l.top = first
	}
	if last > l.top+h {
		l.top = last - h
	}
	l.top = max(0, min(l.top, len(d.lines)-h))
	m.hiddenFields = max(0, len(d.lines)-l.top-h)
	out := d.lines[min(l.top, len(d.lines)):]
	return out[:min(len(out), max(0, h))]
}

// moveField moves the cursor to a field that is no heading.
func (m *model) moveField(delta int) {
	l, fields := &m.scrolled[m.top()], m.fields()
	l.cursor = max(0, min(l.cursor+delta, len(fields)-1))
	step := 1
	if delta < 0 {
		step = -1
	}
	for range 2 {
		i := l.cursor
		for i >= 0 && i < len(fields) && fields[i].name == "" {
			i += step
		}
		if i >= 0 && i < len(fields) {
			l.cursor = i
			return
		}
		step = -step
	}
}

func (m *model) field() (field, bool) {
	fields, i := m.fields(), m.scrolled[m.top()].cursor
	if i >= len(fields) || fields[i].name == "" {
		return field{}, false
	}
	return fields[i], true
}

func (m *model) whyNoField() string {
	if _, ok := m.field(); !ok {
		return "there is nothing under the cursor"
	}
	return ""
}

// copyField copies the value under the cursor.
func (m *model) copyField() tea.Cmd {
	f, _ := m.field()
	return m.copyText(strings.TrimSpace(f.value))
}
