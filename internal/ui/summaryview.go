package ui

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// summaryBody is how a run ended: a line per target with the seconds of its stages, failures first and with everything
// that is known of them.
func (m *model) summaryBody(w, h int) []string {
	b, st, l := m.board, m.st, &m.scrolled[summaryScreen]
	var out []string
	if b.err != nil {
		out = append(out, "", st.bad.of(fit("  ✗ The run did not start", w)))
		for _, p := range paragraphs(b.err.Error()) {
			for _, s := range wrap(p, w-4) {
				out = append(out, "    "+s)
			}
		}
		var remedied *event.Remedied
		if errors.As(b.err, &remedied) {
			for _, p := range paragraphs(remedied.Remedy) {
				for _, s := range wrap("what to do: "+p, w-4) {
					out = append(out, st.accent.of("    "+s))
				}
			}
		}
		l.window(0, h)
		return cut(out, h)
	}
	if len(b.panes) == 0 {
		return []string{st.dim.of(fit("  The run had no targets.", w))}
	}
	order := b.order()
	t := m.summaryColumns(w)
	head := "  " + pad("Target", t.target) + "  " + pad("Result", t.result)
	if t.stages {
		for i, s := range b.panes[order[0]].stages {
			head += "  " + padLeft(s.name, t.stage[i])
		}
	}
	head += "  " + padLeft("Seconds", 7)
	// Every target is a block of lines; the window moves so that the block under the cursor is seen.
	l.n, l.h = len(order), max(1, h-1)
	l.move(0)
	var lines []string
	var at []int // where each block begins
	for i, pi := range order {
		at = append(at, len(lines))
		for _, line := range m.summaryBlock(b.panes[pi], i == l.cursor, t, w) {
			lines = append(lines, m.mark(m.clickRow(&m.scrolled[summaryScreen], i), pad(line, w)))
		}
	}
	at = append(at, len(lines))
	room := max(0, h-1)
	if len(lines)+len(order)-1 <= room && len(lines) > len(order) {
		// There is room for an empty line between targets.
		var apart []string
		for i := range order {
			if i > 0 {
				apart = append(apart, "")
			}
			apart = append(apart, lines[at[i]:at[i+1]]...)
		}
		return append([]string{st.dim.of(fit(head, w))}, apart...)
	}
	first, last := at[min(l.cursor, len(order))], at[min(l.cursor+1, len(order))]
	if last > l.top+room {
		l.top = last - room
	}
	if first < l.top {
		l.top = first
	}
	l.top = max(0, min(l.top, len(lines)-room))
	out = append(out, st.dim.of(fit(head, w)))
	for i := l.top; i < min(len(lines), l.top+room); i++ {
		out = append(out, lines[i])
	}
	m.scrolled[summaryScreen] = *l
	return out
}

// table are the widths of the summary's columns.
type table struct {
	target, result int
	stages         bool  // they are columns; else a line of their own
	stage          []int // width of each
}

func (m *model) summaryColumns(w int) table {
	t := table{target: len("Target"), result: len("Result")}
	need := 0
	for i, p := range m.board.panes {
		t.target = max(t.target, width(p.target))
		t.result = max(t.result, width(p.result())+2)
		for j := range p.stages {
			if i == 0 || j >= len(t.stage) {
				t.stage = append(t.stage, width(p.stages[j].name))
			}
			t.stage[j] = max(t.stage[j], width(stageSeconds(&p.stages[j])))
		}
	}
	for _, s := range t.stage {
		need += s + 2
	}
	t.stages = 2+t.target+2+t.result+need+9 <= w
	if over := 2 + t.target + 2 + t.result + 9 - w; over > 0 {
		t.target = max(8, t.target-over)
	}
	return t
}

// result is how a target ended, in a word or two.
func (p *pane) result() string {
	if w := p.word(); w != "" {
		return w
	}
	return p.state.word()
}

func (m *model) summaryBlock(p *pane, cursor bool, t table, w int) []string {
	st := m.st
	paint := st.text
	if cursor {
		paint = st.strong
	}
	line := m.cursor(cursor) + paint.of(pad(p.target, t.target)) + "  " + pad(st.label(p.state, p.result()), t.result)
	if t.stages {
		for i := range p.stages {
			line += "  " + st.state(p.stages[i].state).of(padLeft(stageSeconds(&p.stages[i]), t.stage[i]))
		}
	}
	line += "  " + paint.of(padLeft(fmt.Sprintf("%.1f", p.took.Seconds()), 7))
	out := []string{fit(line, w)}
	add := func(q func(string) string, name, text string) {
		if text == "" {
			return
		}
		for i, s := range wrap(text, max(1, w-4-12)) {
			label := name
			if i > 0 {
				label = ""
			}
			out = append(out, fit("    "+st.dim.of(pad(label, 12))+q(s), w))
		}
	}
	if !t.stages {
		var parts []string
		for i := range p.stages {
			if s := stageSeconds(&p.stages[i]); s != "" {
				parts = append(parts, p.stages[i].name+" "+s)
			}
		}
		add(st.dim.of, "seconds", strings.Join(parts, " · "))
	}
	for i, f := range p.fault {
		name := ""
		if i == 0 {
			name = "error"
		}
		add(st.bad.of, name, f)
	}
	for i, r := range p.remedy {
		name := ""
		if i == 0 {
			name = remedyFact
		}
		add(st.accent.of, name, r)
	}
	if p.state == failed {
		add(st.text.of, "log", m.logPath(p))
	}
	if p.state == skipped && p.note != "" {
		add(st.dim.of, "reason", strings.TrimPrefix(p.note, "nothing to do: "))
	}
	if p.state == done && p.word() != p.note {
		add(st.dim.of, "result", p.note)
	}
	if p.image != "" {
		add(st.dim.of, "image", p.image)
	}
	if len(p.tags) > 0 {
		add(st.dim.of, "tags", strings.Join(p.tags, ", "))
	}
	if cursor && p.state != failed && p.logFile != "" {
		add(st.dim.of, "log", p.logFile)
	}
	return out
}
