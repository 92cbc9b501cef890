package ui

import (
	"fmt"
	"strings"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// Update takes in a message, draws the frame and asks for what the logs in it lack.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	_, cmd := m.update(msg)
	if m.dirty {
		m.View()
		_, resized := msg.(tea.WindowSizeMsg)
		m.show(m.frame, resized)
	}
	if m.crash != nil {
		return m, tea.Quit
	}
	if more := m.logWork(); more != nil {
		cmd = tea.Batch(cmd, more)
	}
	return m, cmd
}

// View is the frame. It is worked out anew only after something has changed.
func (m *model) View() string {
	defer m.rescue()
	if m.dirty {
		m.frame = strings.Join(m.render(), "\n")
		if m.dressed.ASCII {
			m.frame = ascii(m.frame)
		}
		m.dirty = false
	}
	return m.frame
}

// render draws the whole screen: at most h lines of at most w cells.
func (m *model) render() []string {
	w, h := m.w, m.h
	if w <= 0 || h <= 0 {
		return nil
	}
	m.pointer.things = m.pointer.things[:0]
	head, status, foot := h >= 6, h >= 3, h >= 4
	body := h - btoi(head) - btoi(status) - btoi(foot)
	lines := make([]string, 0, h)
	if head {
		lines = append(lines, m.header(w))
	}
	content := m.body(w, body)
	if len(content) > body {
		content = content[:body]
	}
	lines = append(lines, content...)
	for len(lines) < body+btoi(head) {
		lines = append(lines, "")
	}
	if status {
		lines = append(lines, m.status(w))
	}
	if foot {
		s := m.scope()
		if m.input != nil {
			s = inInput
		}
		if m.form != nil && m.form.asking != nil && s == onForm {
			lines = append(lines, " "+m.st.accent.of("esc")+" leaves the questions")
		} else {
			lines = append(lines, " "+m.footer(s, w-1))
		}
	}
	lines = m.overlay(lines, w, h)
	for i := range lines {
		lines[i] = fit(lines[i], w)
	}
	lines = lines[:min(len(lines), h)]
	m.unmark(lines)
	return lines
}

func (m *model) body(w, h int) []string {
	switch m.top() {
	case detailsScreen:
		return m.fieldsBody(w, h)
	case matrixScreen:
		return m.matrixBody(w, h)
	case cellScreen:
		return m.fieldsBody(w, h)
	case planScreen:
		return m.planBody(w, h)
	case runScreen:
		return m.runBody(w, h)
	case logScreen:
		return m.logBody(w, h)
	case summaryScreen:
		return m.summaryBody(w, h)
	case messagesScreen:
		return m.messagesBody(w, h)
	case helpScreen:
		return m.helpBody(w, h)
	case formScreen:
		return m.formBody(w, h)
	}
	return m.chartBody(w, h)
}

// title says which screen this is.
func (m *model) title() string {
	switch m.top() {
	case detailsScreen:
		if t := m.meantTarget(); t != nil {
			return "details of " + t.id
		}
		return "details"
	case matrixScreen:
		return "targets and stages"
	case cellScreen:
		if t := m.gridTarget(); t != nil {
			return string(engine.Stages[m.grid.stage]) + " of " + t.id
		}
	case planScreen:
		return "plan of " + plural(len(m.plan.names), "target")
	case runScreen:
		return "run of " + plural(len(m.board.panes), "target")
	case logScreen:
		if len(m.board.panes) > 0 {
			return "log of " + m.board.panes[m.board.focus].target
		}
		return "log"
	case summaryScreen:
		return "how the run ended"
	case messagesScreen:
		return "messages"
	case helpScreen:
		if m.help.palette {
			return "commands"
		}
		return "keys"
	case formScreen:
		if m.form != nil {
			return m.form.title
		}
	}
	return "release chart"
}

func (m *model) header(w int) string {
	st := m.st
	title, where := m.title(), clean(m.engine.Destination())
	name := clean(m.engine.Catalog().Project.Name)
	if m.replay != nil {
		right := m.replayLine(w - width(title) - 14)
		if width(name)+width(title)+width(right)+7 > w {
			name = "kmi-tui"
		}
		return ends(" "+st.title.of(name)+st.dim.of(" › ")+title, st.warn.of(right)+" ", w)
	}
	right := "publishes to " + where
	for _, less := range []func(){func() { name = "kmi-tui" }, func() { right = where }, func() { right = "" }} {
		if name == "" || width(name)+width(title)+width(right)+7 > w {
			less()
		}
	}
	return ends(" "+st.title.of(name)+st.dim.of(" › ")+title, st.dim.of(right)+" ", w)
}

// status is the line above the keys: what was said last, and what is going on.
func (m *model) status(w int) string {
	st := m.st
	if m.input != nil {
		return fit(" "+st.accent.of(m.input.prompt+": ")+m.typing(w-width(m.input.prompt)-6)+st.match.of(" "), w)
	}
	onRunScreen := m.scope()&(onRun|onLog) != 0
	var rights []string
	if h := m.hidden(); h != "" {
		rights = append(rights, st.dim.of(h))
	}
	if m.top() == chartScreen && m.chart.dated {
		rights = append(rights, st.warn.of("sorted before: S"))
	}
	if m.unread > 0 {
		rights = append(rights, st.warn.of(plural(m.unread, "message")+": m"))
	}
	if m.working() && !onRunScreen {
		rights = append(rights, st.active.of(running.symbol()+" run: "+m.board.sentence(m.clock))+st.dim.of(": r"))
	}
	left := ""
	switch {
	case m.note != "":
		left = st.tone(m.noteTone).of(m.note)
		if onRunScreen {
			rights = append(rights, m.runLine(0))
		}
		// What was said just now comes first.
		for len(rights) > 0 && width(left)+width(strings.Join(rights, " · "))+4 > w {
			rights = rights[:len(rights)-1]
		}
	case onRunScreen:
		left = m.runLine(w - 4 - width(strings.Join(rights, " · ")))
	default:
		left = m.about()
	}
	return ends(" "+left, strings.Join(rights, st.dim.of(" · "))+" ", w)
}

// typing is the end of what is being typed.
func (m *model) typing(w int) string {
	text := m.input.text
	if n := width(text); n > w {
		text = "…" + from(text, n-max(0, w-1))
	}
	return text
}

// runLine is the progress of the whole run.
func (m *model) runLine(w int) string {
	st, b := m.st, m.board
	if b.over() {
		s := done
		if b.err != nil || b.tally()[failed] > 0 {
			s = failed
		}
		return st.state(s).of(s.symbol() + " run ended: " + b.sentence(m.clock))
	}
	text := "run: " + b.sentence(m.clock)
	if w > 0 && width(text)+2 > w {
		text = b.short(m.clock)
	}
	if b.cancelled {
		return st.warn.of("cancelling: waiting for programs to end") + st.dim.of(" · "+text)
	}
	n := b.tally()
	share := float64(n[done]+n[skipped]+n[failed]) / float64(max(1, len(b.panes)))
	line := st.active.of(running.symbol()+" ") + text
	if bar := min(24, w-width(line)-2); bar >= 8 && len(b.panes) > 1 {
		line += "  " + st.bar(share, bar)
	}
	return line
}

// about says what actions are about.
func (m *model) about() string {
	st := m.st
	switch m.top() {
	case chartScreen:
		var parts []string
		if n := len(m.chart.selection()); n > 0 {
			text := plural(n, "target") + " selected"
			if h := m.chart.hidden(); h > 0 {
				text += fmt.Sprintf(" (%d not shown)", h)
			}
			parts = append(parts, text)
		}
		if m.chart.filter != "" {
			n := len(m.chart.order)
			parts = append(parts, fmt.Sprintf("“%s”: %d of %s", m.chart.filter, n, plural(len(m.chart.rows), "row")))
		}
		if m.chart.wrong != "" {
			return st.bad.of(m.chart.wrong)
		}
		if m.needsOwnLine(m.w, m.h-3) {
			if len(parts) == 0 {
				return st.dim.of("nothing selected: actions are about the row under the cursor")
			}
		} else {
			parts = append(parts, m.needs())
		}
		return strings.Join(parts, st.dim.of(" · "))
	case planScreen:
		p := m.plan
		if !p.over() {
			if p.cancelled {
				return st.warn.of("cancelling …")
			}
			return st.active.of(running.symbol()+" planning ") + st.dim.of("· "+span(m.clock.Sub(p.began)))
		}
		n := map[string]int{}
		for i := range p.plans {
			_, word := p.plans[i].verdict()
			n[word]++
		}
		var parts []string
		for _, word := range []string{"cannot be decided", "build", "nothing to do"} {
			if n[word] > 0 {
				parts = append(parts, fmt.Sprintf("%s: %d", word, n[word]))
			}
		}
		return strings.Join(parts, st.dim.of(" · "))
	case summaryScreen:
		return m.runLine(m.w)
	case messagesScreen:
		return st.dim.of(m.messages.place())
	case matrixScreen:
		return m.matrixInfo()
	case detailsScreen, cellScreen:
		return st.dim.of("y copies what is under the cursor")
	case helpScreen:
		return st.dim.of(m.helpInfo())
	case formScreen:
		if m.form != nil && m.form.why != "" {
			return st.warn.of(clean(m.form.why))
		}
	}
	return ""
}

// hidden says how many lines of a list are above and below what is seen.
func (m *model) hidden() string {
	var above, below int
	switch s := m.top(); s {
	case chartScreen:
		above, below = m.chart.top, len(m.chart.lines)-m.chart.top-m.chart.h
	case planScreen, helpScreen, matrixScreen:
		l := m.scrolled[s]
		above, below = l.top, l.n-l.top-l.h
	case formScreen:
		l := m.scrolled[s]
		above, below = l.cursor, l.n-1-l.cursor
	case detailsScreen, cellScreen:
		above, below = m.scrolled[s].top, m.hiddenFields
	}
	var parts []string
	if above > 0 {
		parts = append(parts, fmt.Sprintf("%d above", above))
	}
	if below > 0 {
		parts = append(parts, fmt.Sprintf("%d below", below))
	}
	return strings.Join(parts, " · ")
}
