package ui

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// matrix is the view of targets and stages, with the runs of the last weeks.
type matrix struct {
	stage  int // the column under the cursor
	asked  bool
	past   []run // the newest first
	others int   // runs with another destination, which are left out
	err    string
}

// run is a recorded run, by target, made harmless.
type run struct {
	began   time.Time
	file    string
	results map[string]result
}

type result struct {
	state             state
	reason, err, todo string
	stages            map[string]ended
	logs              map[string]string
}

// historyWeeks is how far the history goes back.
const historyWeeks = 8

// historyMsg is what was recorded.
type historyMsg struct {
	past []engine.PastRun
	err  error
}

// openMatrix shows targets and stages.
func (m *model) openMatrix() tea.Cmd {
	l := &m.scrolled[matrixScreen]
	m.push(matrixScreen)
	if on, ok := m.chart.on(); ok { // where the chart's cursor is
		for i, t := range m.gridTargets() {
			if t == on.target || on.target == nil && slices.Contains(on.row.targets, t) {
				l.cursor = i
				break
			}
		}
	}
	return m.askHistory()
}

func (m *model) whyNoMatrix() string {
	if len(m.gridTargets()) == 0 {
		return "none of the shown rows has a target yet"
	}
	return ""
}

// askHistory reads the recorded runs.
func (m *model) askHistory() tea.Cmd {
	wait, _ := m.start(func(context.Context) tea.Msg {
		past, err := m.engine.History(historyWeeks)
		return historyMsg{past, err}
	}, func(err error) tea.Msg { return historyMsg{nil, err} })
	return wait
}

// remembers takes in the recorded runs.
func (m *model) remembers(msg historyMsg) {
	g := &m.grid
	*g = matrix{stage: g.stage, asked: true}
	if msg.err != nil {
		g.err = clean(msg.err.Error())
		m.say(bad, "recorded runs: "+g.err)
	}
	m.usually(msg.past)
	for _, p := range msg.past {
		if p.Destination != m.engine.Destination() {
			g.others++
			continue
		}
		r := run{began: p.Began, file: clean(p.File), results: map[string]result{}}
		for _, x := range p.Results {
			res := result{state: stateOf(x.State), reason: clean(x.Reason), err: clean(x.Error), todo: clean(x.Remedy), stages: map[string]ended{}, logs: map[string]string{}}
			at := p.Began
			for _, s := range x.Stages {
				at = at.Add(seconds(s.Seconds))
				e := ended{state: stateOf(s.State), reason: clean(s.Reason), at: at, took: seconds(s.Seconds)}
				if e.state == failed {
					e.err = strings.TrimPrefix(res.err, string(s.Stage)+": ")
				}
				res.stages[clean(string(s.Stage))] = e
				res.logs[clean(string(s.Stage))] = clean(s.Log)
			}
			r.results[clean(x.Target)] = res
		}
		g.past = append(g.past, r)
	}
}

// gridTargets are the matrix's rows: the targets of the chart's rows, as it sorts and filters them.
func (m *model) gridTargets() (list []*target) {
	for _, r := range m.chart.order {
		list = append(list, m.chart.listed(r)...)
	}
	return list
}

// gridTarget is the one under the cursor.
func (m *model) gridTarget() *target {
	list := m.gridTargets()
	if i := m.scrolled[matrixScreen].cursor; i < len(list) {
		return list[i]
	}
	return nil
}

// cell is how a stage of a target ended last, or how it is doing.
func (m *model) cell(t *target, stage string) (e ended, ok bool) {
	if m.board != nil {
		if p := m.board.byTarget[t.id]; p != nil {
			for i := range p.stages {
				if s := &p.stages[i]; s.name == stage && s.state != waiting && s.state != ready {
					e = ended{state: s.state, reason: s.reason, at: s.began.Add(s.took), took: s.took}
					if s.state == failed {
						e.err = strings.Join(p.fault, " ")
					}
					return e, true
				}
			}
		}
	}
	e, ok = t.stages[stage]
	for _, r := range m.grid.past {
		if x, there := r.results[t.id].stages[stage]; there {
			if !ok || x.at.After(e.at) && !(x.state == skipped && e.state == done) {
				return x, true
			}
			break
		}
	}
	return e, ok
}

// cellWord is a state in a matrix: in seven cells with its symbol.
func cellWord(e ended, ok bool) (state, string) {
	switch {
	case !ok:
		return unsupported, "never"
	case e.state == skipped:
		return skipped, "none"
	case e.state == failed:
		return failed, "fail"
	case e.state == running:
		return running, "runs"
	}
	return e.state, e.state.word()
}

// columnsOf are the stages that w cells have the room for, around the one under the cursor.
func (m *model) stagesIn(w, each int) (from, to int) {
	n := max(1, min(len(engine.Stages), w/each))
	from = max(0, min(m.grid.stage-n/2, len(engine.Stages)-n))
	return from, from + n
}

func (m *model) matrixBody(w, h int) []string {
	st, l := m.st, &m.scrolled[matrixScreen]
	targets := m.gridTargets()
	name := 12
	for _, t := range targets {
		name = max(name, width(t.id))
	}
	each := max(8, min(11, (w-2-name)/len(engine.Stages)))
	name = min(name, max(12, w-2-2*each, min(28, w-2-len(engine.Stages)*each)))
	if all := w - 2 - len(engine.Stages)*each; all >= 16 {
		name = min(name, all)
	}
	from, to := m.stagesIn(w-2-name, each)
	strip := max(0, min(24, w-2-name-(to-from)*each-2))
	if strip < 6 {
		strip = 0
	}
	// Below the table: what the cell under the cursor says.
	below := 0
	if h >= 12 {
		below = 5
	} else if h >= 7 {
		below = 2
	}
	room := max(0, h-1-below)
	first, last := l.window(len(targets), room)
	head := spaces(2) + pad("Target", name)
	for i := from; i < to; i++ {
		text := " " + pad(string(engine.Stages[i]), each-1)
		if i == m.grid.stage {
			head = head + st.strong.of(text)
		} else {
			head = head + st.dim.of(text)
		}
	}
	if strip > 0 {
		head += st.dim.of("  " + fit("Last runs", strip))
	}
	out := []string{fit(head, w)}
	for i := first; i < last; i++ {
		t := targets[i]
		p := st.text
		if i == l.cursor {
			p = st.strong
		}
		var b strings.Builder
		b.WriteString(m.cursor(i == l.cursor) + p.of(pad(t.id, name)))
		for k := from; k < to; k++ {
			s, word := cellWord(m.cell(t, string(engine.Stages[k])))
			text := pad(s.symbol()+" "+word, each-1)
			if i == l.cursor && k == m.grid.stage {
				b.WriteString(m.mark(m.clickCell(i, k), st.accent.of("▌")+st.match.of(text)))
			} else {
				b.WriteString(m.mark(m.clickCell(i, k), " "+st.state(s).of(text)))
			}
		}
		if strip > 0 {
			b.WriteString("  " + m.pastStrip(t, strip))
		}
		out = append(out, m.mark(m.clickRow(l, i), pad(b.String(), w)))
	}
	for len(out) < 1+room {
		out = append(out, "")
	}
	if below > 0 {
		out = append(out, m.cellLines(w, below)...)
	}
	return out
}

// strip is how the last runs of a target ended, a symbol each, the newest first.
func (m *model) pastStrip(t *target, w int) string {
	var b strings.Builder
	n := 0
	for _, r := range m.grid.past {
		x, ok := r.results[t.id]
		if !ok {
			continue
		}
		if n++; n > w {
			break
		}
		b.WriteString(m.st.state(x.state).of(x.state.symbol()))
	}
	return b.String()
}

// cellLines say of the cell under the cursor what it has no room for.
func (m *model) cellLines(w, h int) []string {
	t := m.gridTarget()
	if t == nil {
		return nil
	}
	st, stage := m.st, string(engine.Stages[m.grid.stage])
	e, ok := m.cell(t, stage)
	s, word := cellWord(e, ok)
	text := t.id + " " + stage + ": " + s.symbol() + " " + word
	if ok {
		text = t.id + " " + stage + ": " + s.symbol() + " " + s.word()
		if !e.at.IsZero() {
			text += " " + age(m.clock.Sub(e.at)) + " ago"
		}
		if e.took > 0 && s != skipped {
			text += " in " + span(e.took)
		}
		if why := e.err + e.reason; why != "" {
			text += ": " + why
		}
	}
	var lines []string
	if h > 2 {
		lines = append(lines, m.rule("", w))
	}
	for _, x := range cut(wrap(text, w-2), h-len(lines)-btoi(h > 2)) {
		lines = append(lines, "  "+st.state(s).of(x))
	}
	if h > 2 {
		var past []string
		for _, r := range m.grid.past {
			if x, ok := r.results[t.id].stages[stage]; ok {
				state, word := cellWord(x, true)
				past = append(past, st.state(state).of(state.symbol()+" "+word)+st.dim.of(" "+since(r.began, m.clock)))
			}
		}
		switch {
		case len(past) > 0:
			lines = append(lines, fit("  "+st.dim.of("runs: ")+strings.Join(past, "  "), w))
		case m.grid.asked:
			lines = append(lines, st.dim.of(fit(fmt.Sprintf("  no run of it in the last %d weeks is recorded", historyWeeks), w)))
		}
	}
	for len(lines) < h {
		lines = append(lines, "")
	}
	return lines[:h]
}

// matrixInfo is the line above the keys.
func (m *model) matrixInfo() string {
	n := map[state]int{}
	for _, t := range m.gridTargets() {
		for _, s := range engine.Stages {
			e, ok := m.cell(t, string(s))
			if state, _ := cellWord(e, ok); ok {
				n[state]++
			}
		}
	}
	text := fmt.Sprintf("%s, %s", plural(len(m.gridTargets()), "target"), plural(len(m.grid.past), "run"))
	if !m.grid.asked {
		text = plural(len(m.gridTargets()), "target") + ", reading the recorded runs"
	}
	if m.grid.others > 0 {
		text += fmt.Sprintf(" (%d to other places left out)", m.grid.others)
	}
	if n[failed] > 0 {
		return m.st.bad.of(fmt.Sprintf("%s %d failed", failed.symbol(), n[failed])) + m.st.dim.of(" · "+text)
	}
	return m.st.dim.of(text)
}

// aside moves the cursor to another stage.
func (m *model) moveStage(step int) {
	m.grid.stage = max(0, min(m.grid.stage+step, len(engine.Stages)-1))
}

// openCell shows everything about the cell under the cursor.
func (m *model) openCell() tea.Cmd {
	m.scrolled[cellScreen] = list{}
	m.push(cellScreen)
	return nil
}

func (m *model) whyNoCell() string {
	if m.gridTarget() == nil {
		return "there is no target under the cursor"
	}
	return ""
}

// cellFields are everything that is known of a stage of a target.
func (m *model) cellFields() (out []field) {
	t := m.gridTarget()
	if t == nil {
		return nil
	}
	stage := string(engine.Stages[m.grid.stage])
	add := func(name, value string) {
		if value = clean(value); value != "" {
			out = append(out, field{name: name, value: value})
		}
	}
	when := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return at.UTC().Format("2006-01-02 15:04 UTC") + ", " + age(m.clock.Sub(at)) + " ago"
	}
	e, ok := m.cell(t, stage)
	s, word := cellWord(e, ok)
	if s == skipped || s == failed || s == running {
		word = s.word()
	}
	add("target", t.id)
	out = append(out, field{name: stage, value: word, state: s, coloured: true})
	add("when", when(e.at))
	if e.took > 0 {
		add("took", span(e.took))
	}
	add("why", e.reason)
	if e.err != "" {
		out = append(out, field{name: "error", value: e.err, state: failed, coloured: true})
	}
	if p := m.paneOf(t); p != nil {
		add(remedyFact, strings.Join(p.remedy, " "))
		for _, s := range p.stages {
			if s.name == stage {
				add("log", s.log)
			}
		}
	}
	shown := false
	for _, r := range m.grid.past {
		x, ok := r.results[t.id]
		if !ok {
			continue
		}
		e, ok := x.stages[stage]
		if !ok {
			continue
		}
		if !shown && m.paneOf(t) == nil { // the last run says what to do
			if e.state == failed {
				add(remedyFact, x.todo)
			}
			add("log", x.logs[stage])
		}
		shown = true
		s, word := e.state, ""
		if word = s.word(); s != skipped {
			word += " in " + span(e.took)
		}
		if why := e.err + e.reason; why != "" {
			word += ": " + why
		}
		out = append(out, field{}, field{heading: "run of " + when(r.began)}, field{name: stage, value: word, state: s, coloured: true})
		if e.state == failed {
			add(remedyFact, x.todo)
		}
		add("log", x.logs[stage])
		add("recording", r.file)
	}
	return out
}

// pane is the target's in the run of this process.
func (m *model) paneOf(t *target) *pane {
	if m.board == nil {
		return nil
	}
	return m.board.byTarget[t.id]
}
