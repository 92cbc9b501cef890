package ui

import (
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// ended is how a stage of a target ended last, before this process.
type ended struct {
	state       state
	reason, err string
	at          time.Time
	took        time.Duration
}

// knownMsg is what earlier processes found out.
type knownMsg struct {
	known map[string]engine.Known
	err   error
	later bool // the chart was seen without it: rows stay where they are
}

// knownPatience is how long the first frame waits for what is known: without it, rows would come twice.
const knownPatience = 40 * time.Millisecond

// recall takes over what is known, if it is there soon; else the command brings it later.
func (m *model) recall() tea.Cmd {
	came := make(chan knownMsg, 1)
	go func() {
		known, err := m.engine.Known()
		came <- knownMsg{known: known, err: err}
	}()
	soon := time.NewTimer(knownPatience)
	defer soon.Stop()
	select {
	case msg := <-came:
		m.knows(msg)
		return nil
	case <-soon.C:
		return func() tea.Msg {
			msg := <-came
			msg.later = true
			return msg
		}
	}
}

// refresh reads again what is known: a run has ended.
func (m *model) refresh() tea.Cmd {
	if m.replay != nil || m.stopping {
		return nil
	}
	known := func() tea.Msg {
		known, err := m.engine.Known()
		return knownMsg{known, err, true}
	}
	if m.grid.asked {
		return tea.Batch(known, m.askHistory())
	}
	return known
}

// knows takes what is known into the chart. What was looked at or run in this process is left alone.
func (m *model) knows(msg knownMsg) {
	if msg.err != nil {
		m.say(bad, "what is known from before: "+msg.err.Error())
	}
	if len(msg.known) == 0 {
		return
	}
	targets := map[string]engine.Known{}
	for name, k := range msg.known {
		targets[clean(name)] = k
	}
	for _, r := range m.chart.rows {
		for _, t := range r.targets {
			k, ok := targets[t.id]
			if !ok {
				continue
			}
			t.recall(k)
		}
		if k, ok := targets[r.id]; ok && len(r.targets) == 0 && k.Plan.Action == engine.Fail {
			r.reason = brief(clean(k.Plan.Reason))
		}
	}
	if msg.later {
		m.chart.list()
	} else {
		m.chart.arrange()
	}
}

// recall takes over what is known of a target.
func (t *target) recall(k engine.Known) {
	t.stages = map[string]ended{}
	for stage, s := range k.Stages {
		t.stages[clean(string(stage))] = ended{stateOf(s.State), clean(s.Reason), clean(s.Error), s.At, seconds(s.Seconds)}
	}
	if t.fresh {
		t.judge() // a failure may be news
		return
	}
	if k.Seen.IsZero() {
		return
	}
	h := harmless(k.Plan)
	h.reason = strings.TrimPrefix(h.reason, string(engine.Resolve)+": ")
	t.plan, t.seen = &h, k.Seen
	t.judge()
}

// lastFailure is the stage that failed last and how; resolving does not count, a look says how that is now.
func (t *target) lastFailure() (end ended, stage string) {
	for _, s := range engine.Stages[1:] {
		if e, ok := t.stages[string(s)]; ok && e.state == failed && (stage == "" || e.at.After(end.at)) {
			end, stage = e, string(s)
		}
	}
	return end, stage
}

// asking marks everything as known from before: it is being asked anew.
func (c *chart) asking() {
	for _, r := range c.rows {
		for _, t := range r.targets {
			t.fresh = false
		}
	}
}

// lead is the target whose build stands for the row: the newest release's.
func (r *row) lead() *target {
	for _, t := range r.targets {
		if t.plan != nil && t.plan.build != "" {
			return t
		}
	}
	if len(r.targets) > 0 {
		return r.targets[0]
	}
	return nil
}

// publication is what is published of a target, and how old it is: "12.8-20261116 7 d"; "not yet"; "" while nobody has
// asked. Short, it is the age alone.
func (t *target) publication(now time.Time, short bool) string {
	switch {
	case t == nil || t.plan == nil || t.plan.build == "" && !t.plan.isPublished:
		return ""
	case !t.plan.isPublished:
		return "not yet"
	}
	text := "yes"
	if !t.plan.published.IsZero() && !now.IsZero() {
		text = age(now.Sub(t.plan.published)) + " ago"
	}
	if b := t.plan.publishedBuild; b != "" && !short {
		text = b + " " + strings.TrimSuffix(text, " ago")
	}
	return text
}

// signing is what vouches for upstream's build and for the published image, as a state and words.
func (t *target) signing() (state, string) {
	if t == nil || t.plan == nil {
		return ready, ""
	}
	p := t.plan
	up := strings.HasPrefix(p.signature, "verified") || strings.HasPrefix(p.signature, "over the file by ")
	image := strings.HasPrefix(p.signed, "verified")
	switch {
	case strings.HasPrefix(p.signed, "bad"):
		return unsigned, "image"
	case strings.HasPrefix(p.signature, "bad") || p.signature == "missing":
		return failed, "upstream"
	case up && image:
		return done, "both"
	case image:
		return done, "image"
	case up:
		return done, "upstream"
	case p.signature == "not offered":
		return skipped, "TLS only"
	}
	return ready, ""
}

// testing is how the boot test ended last: a state, a word and when; no word if nobody knows.
func (t *target) testing() (state, string, time.Time) {
	if t == nil {
		return ready, "", time.Time{}
	}
	e, ok := t.stages[string(engine.Test)]
	switch {
	case !ok:
		return ready, "", time.Time{}
	case e.state == failed:
		return failed, "failed", e.at
	}
	return done, "passed", e.at
}

// tested is the row's last tests, one an architecture of the newest release; short, the worst of them.
func (r *row) tested(now time.Time, st *styles, short bool) string {
	lead := r.lead()
	if lead == nil {
		return ""
	}
	var parts []string
	worst := -1
	for _, t := range r.targets {
		if t.release() != lead.release() {
			continue
		}
		s, word, at := t.testing()
		if word == "" {
			continue
		}
		text := st.state(s).of(s.symbol() + " " + word + " " + since(at, now))
		switch {
		case !short:
			text = t.arch() + " " + text
		case s == failed || worst < 0:
			worst = len(parts)
		}
		parts = append(parts, text)
	}
	if short && worst >= 0 {
		return parts[worst]
	}
	return strings.Join(parts, "  ")
}

// since is how long ago something was, in as few characters as can be: "3d"; "" where nobody knows.
func since(at, now time.Time) string {
	if at.IsZero() || now.IsZero() {
		return ""
	}
	return strings.ReplaceAll(age(now.Sub(at)), " ", "")
}
