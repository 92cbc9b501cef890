package ui

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// planning is a plan: being made, or made.
type planning struct {
	names     []string
	batch     string
	began     time.Time
	ended     time.Time
	asked     map[string]state // how far each target is
	plans     []planned
	err       []string
	remedy    []string
	cancel    context.CancelCauseFunc
	cancelled bool
	then      func() // asks whether to start what was planned; nil: it was only to be seen

	from, to time.Time // between which its events are, by their own clock; zero: there are none
}

// fresh is how long a plan stands for a run that is about to start. The run itself looks again.
const fresh = 10 * time.Minute

// planned is an engine.Plan, made harmless.
type planned struct {
	target, reason string
	action         engine.Action
	size           int64 // of what upstream offers; 0: not known
	facts          [][2]string
	build          string
	date           time.Time // of upstream's build; zero: not known
	published      time.Time // zero: it is not, or nobody knows when
	isPublished    bool
	publishedBuild string // upstream's build that is published
	signed         string // what the published image's signature came to
	trust          string // what vouches for upstream's build
	signature      string // upstream's
}

func (p *planning) over() bool { return !p.ended.IsZero() }

// owns reports whether an event is of the plan, though it comes after it: events and what the engine returns take different
// ways. It is none of the run that was started meanwhile.
func (p *planning) owns(e event.Event) bool {
	return !p.from.IsZero() && !e.Time.Before(p.from) && !e.Time.After(p.to)
}

func (p *planning) apply(e event.Event) {
	if e.Stage != string(engine.Resolve) {
		return
	}
	if e.Kind == event.Started || e.Kind.Ends() {
		p.asked[e.Target] = stateOf(e.Kind)
	}
}

func (m *model) whyNotPlan() string {
	if m.planning() && !m.plan.cancelled {
		return "it is being made"
	}
	return m.whyNotBuild()
}

func (m *model) startPlan() tea.Cmd {
	sel, names := m.meant()
	return m.planOf(sel, names, nil)
}

// planOf asks the engine what a run would do.
func (m *model) planOf(sel engine.Selection, names []string, then func()) tea.Cmd {
	p := &planning{then: then, names: names, batch: m.batch(sel, "--plan"), began: m.clock, asked: map[string]state{}, from: time.Now()}
	wait, cancel := m.start(func(ctx context.Context) tea.Msg {
		plans, err := m.engine.Plan(ctx, sel)
		return planMsg{p, plans, err, time.Now()}
	}, func(err error) tea.Msg { return planMsg{p, nil, err, time.Now()} })
	p.cancel = cancel
	m.plan = p
	m.scrolled[planScreen] = list{}
	m.push(planScreen)
	return tea.Batch(wait, m.wind())
}

// planned takes in the plan that was asked for.
func (m *model) planned(msg planMsg) tea.Cmd {
	p := msg.plan
	p.cancel(nil)
	p.ended, p.to = m.clock, msg.at
	if !p.cancelled {
		m.note = "" // what was said while it was made is past
	}
	for _, plan := range msg.plans {
		p.plans = append(p.plans, harmless(plan))
		m.chart.seen(plan)
	}
	m.chart.list()
	if msg.err != nil && !p.cancelled {
		p.err = paragraphs(msg.err.Error())
		var remedied *event.Remedied
		if errors.As(msg.err, &remedied) {
			p.remedy = paragraphs(remedied.Remedy)
		}
		m.messages.buf.push(m.clock, bad, "plan: "+clean(msg.err.Error()))
	}
	if p.then != nil && !p.cancelled && msg.err == nil && !m.stopping {
		if m.top() == planScreen && m.dialog == nil && m.input == nil {
			p.then()
		} else {
			m.say(aside, "the plan is made: b shows it, and asks")
		}
	}
	return m.leaveIfIdle()
}

// propose shows what a run would do with each target, and why, before it asks whether to start it. What was planned or
// looked at a moment ago is not asked for again.
func (m *model) propose(sel engine.Selection, names []string, question func() *dialog) tea.Cmd {
	ask := func() {
		d := question()
		d.opened = m.clock.Add(deaf) // it may come while somebody types
		d.text, d.targets = m.plan.sum()+" "+d.text, m.plan.lines()
		m.dialog = d
	}
	if p := m.plan; p == nil || !p.over() || len(p.err) > 0 || m.clock.Sub(p.ended) > fresh || !slices.Equal(p.names, names) {
		p = m.lookedAt(sel, names)
		if p == nil {
			return m.planOf(sel, names, ask)
		}
		m.plan = p
		m.scrolled[planScreen] = list{}
	}
	m.push(planScreen)
	ask()
	return nil
}

// lookedAt is what a look has found out of the targets, as a plan; nil: not everything, or not lately.
func (m *model) lookedAt(sel engine.Selection, names []string) *planning {
	if m.look == nil || m.look.ended.IsZero() || m.clock.Sub(m.look.ended) > fresh {
		return nil
	}
	p := &planning{names: names, batch: m.batch(sel, "--plan"), began: m.look.began, ended: m.look.ended, asked: map[string]state{}}
	for _, t := range m.chart.meant() {
		if t.plan == nil || !t.fresh {
			return nil
		}
		p.plans = append(p.plans, *t.plan)
	}
	return p
}

// sum says in a sentence what a run of the plan comes to.
func (p *planning) sum() string {
	n, bytes, unknown := map[engine.Action]int{}, int64(0), false
	for i := range p.plans {
		x := &p.plans[i]
		n[x.action]++
		if x.action == engine.Build {
			bytes += x.size
			unknown = unknown || x.size == 0
		}
	}
	var parts []string
	if n[engine.Build] > 0 {
		text := number(n[engine.Build]) + " to build"
		switch {
		case bytes > 0 && unknown:
			text += ", with more than " + size(float64(bytes)) + " from upstream"
		case bytes > 0:
			text += ", with " + size(float64(bytes)) + " from upstream"
		}
		parts = append(parts, text)
	}
	if n[engine.None] > 0 {
		parts = append(parts, number(n[engine.None])+" with nothing to do")
	}
	if n[engine.Fail] > 0 {
		parts = append(parts, number(n[engine.Fail])+" that cannot be decided and will fail")
	}
	if len(parts) == 0 {
		return "The plan is empty."
	}
	return strings.Join(parts, "; ") + "."
}

// lines are the plan's targets with what would be done with each, how much is to be fetched, and why.
func (p *planning) lines() (lines []string) {
	for i := range p.plans {
		x := &p.plans[i]
		_, word := x.verdict()
		line := x.target + " · " + word
		if x.action == engine.Build && x.size > 0 {
			line += " · " + size(float64(x.size))
		}
		if x.reason != "" {
			line += " · " + x.reason
		}
		lines = append(lines, line)
	}
	return lines
}

// remedyFact is what the fact is called that says what to do about what is wrong.
const remedyFact = "what to do"

// remedy is that fact of a plan; "" if it has none.
func (p *planned) remedy() string {
	if p == nil {
		return ""
	}
	for _, f := range p.facts {
		if f[0] == remedyFact {
			return f[1]
		}
	}
	return ""
}

// harmless makes a plan's texts fit for the screen.
func harmless(p engine.Plan) planned {
	out := planned{target: clean(p.Target), reason: clean(p.Reason), action: p.Action}
	add := func(name, value string) {
		if value != "" {
			out.facts = append(out.facts, [2]string{name, clean(value)})
		}
	}
	date := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format("2006-01-02 15:04 UTC")
	}
	add(remedyFact, p.Remedy)
	if u := p.Upstream; u != nil {
		out.build, out.date, out.trust, out.signature = clean(u.Build), u.Date, clean(u.Trust), clean(u.Signature)
		add("upstream", u.URL)
		add("build", u.Build)
		add("date", date(u.Date))
		out.size = max(0, u.Size)
		if u.Size > 0 {
			add("size", size(float64(u.Size)))
		}
		add("checksum", u.Checksum)
		add("signature", u.Signature)
		add("trust", u.Trust)
	}
	if p.WayReason != "" {
		add("customised", strings.TrimPrefix(p.Way+": ", ": ")+p.WayReason)
	}
	if l := p.Licence; l != nil {
		text := l.Redistribution
		if l.Because != "" {
			text += ": " + l.Because
		}
		if l.Decision != "" {
			text += "; decided: " + l.Decision
		}
		add("passing on", text)
		if l.Redistribution != "free" {
			add("its document", l.URL)
		}
	}
	if r := p.Published; r != nil {
		out.published, out.isPublished, out.publishedBuild, out.signed = r.Date, true, clean(r.Build), clean(r.Signature)
		add("published", date(r.Date))
		add("digest", r.Digest)
		add("tags", strings.Join(r.Tags, ", "))
		add("made from", r.Build)
		add("content", r.ContentKey)
		add("image signature", r.Signature)
	} else if p.Upstream != nil {
		add("published", "not yet")
	}
	return out
}

// verdict is what would be done with a target, as a state and a word.
func (p *planned) verdict() (state, string) {
	switch p.action {
	case engine.Build:
		return running, "build"
	case engine.Fail:
		return failed, "cannot be decided"
	}
	return skipped, "nothing to do"
}

func (m *model) planBody(w, h int) []string {
	st, p, l := m.st, m.plan, &m.scrolled[planScreen]
	var out []string
	switch {
	case len(p.err) > 0:
		out = append(out, "", st.bad.of(fit("  The plan could not be made", w)))
		for _, e := range p.err {
			for _, s := range wrap(e, w-2) {
				out = append(out, "  "+s)
			}
		}
		for _, r := range p.remedy {
			for _, s := range wrap("what to do: "+r, w-2) {
				out = append(out, st.accent.of("  "+s))
			}
		}
		return cut(out, h)
	case !p.over():
		name := 0
		for _, n := range p.names {
			name = max(name, width(n))
		}
		from, to := l.window(len(p.names), h-1)
		out = append(out, st.dim.of(fit("  Asking upstream and registry …", w)))
		for i := from; i < to; i++ {
			s, word := waiting, "waiting"
			switch p.asked[p.names[i]] {
			case running:
				s, word = running, "asking"
			case done, skipped:
				s, word = done, "answered"
			case failed:
				s, word = failed, "failed"
			}
			out = append(out, m.cursor(i == l.cursor)+fit(pad(p.names[i], min(name, w/2))+"  "+st.label(s, word), w-2))
		}
		return cut(out, h)
	case len(p.plans) == 0:
		return []string{"", st.dim.of(fit("  The plan is empty.", w))}
	}
	name, word := len("Target"), len("Action")
	for i := range p.plans {
		_, v := p.plans[i].verdict()
		name, word = max(name, width(p.plans[i].target)), max(word, width(v)+2)
	}
	name = min(name, max(8, w/2))
	reason := w - 2 - name - 2 - word - 2
	if reason < 12 {
		reason = 0
	}
	// The list gets what it needs, the details of the line under the cursor the rest: at least half.
	detail := m.planDetails(&p.plans[max(0, min(l.cursor, len(p.plans)-1))], w)
	lines := min(len(p.plans), max(1, h-2-len(detail), (h-2)/2))
	from, to := l.window(len(p.plans), lines)
	head := "  " + pad("Target", name) + "  " + pad("Action", word)
	if reason > 0 {
		head += "  Reason"
	}
	out = append(out, st.dim.of(fit(head, w)))
	for i := from; i < to; i++ {
		x := &p.plans[i]
		s, v := x.verdict()
		paint := st.text
		if i == l.cursor {
			paint = st.strong
		}
		line := m.cursor(i == l.cursor) + paint.of(pad(x.target, name)) + "  " + pad(st.label(s, v), word)
		if reason > 0 {
			line += "  " + fit(x.reason, reason)
		}
		out = append(out, m.mark(m.clickRow(l, i), pad(line, w)))
	}
	if h-len(out) > 2 {
		out = append(out, m.rule(p.plans[l.cursor].target, w))
		out = append(out, cut(detail, h-len(out))...)
	}
	return out
}

// cursor is the mark of the line that the cursor is on.
func (m *model) cursor(on bool) string {
	if on {
		return m.st.accent.of("▌ ")
	}
	return "  "
}

func (m *model) planDetails(p *planned, w int) (out []string) {
	label := 13
	if w < 40 {
		label = 11
	}
	s, v := p.verdict()
	text := v
	if p.reason != "" {
		text += ": " + p.reason
	}
	for _, l := range wrap(text, w-2) {
		out = append(out, "  "+m.st.state(s).of(l))
	}
	for _, f := range p.facts {
		for _, l := range labelled(m.st.dim, f[0], label, m.st.text, f[1], w-2) {
			out = append(out, "  "+l)
		}
	}
	return out
}
