package ui

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// looking is a look at what is newest upstream and what is published: under way, or over.
type looking struct {
	plans  chan engine.Plan // closed when there are no more
	err    error            // then
	began  time.Time
	ended  time.Time
	broken int
	cancel context.CancelCauseFunc
}

type (
	seenMsg struct { // what a look has found since the last one
		look  *looking
		plans []engine.Plan
	}
	lookedMsg struct { // it is over
		look *looking
		err  error
	}
)

func (m *model) looking() bool { return m.look != nil && m.look.ended.IsZero() }

func (m *model) whyNotLook() string {
	if m.replay != nil {
		return m.whyRecorded()
	}
	if m.looking() {
		return "they are being asked"
	}
	return ""
}

// startLook asks every upstream; answers come into the chart one by one.
func (m *model) startLook() tea.Cmd {
	l := &looking{plans: make(chan engine.Plan, 256), began: m.clock}
	wait, cancel := m.start(func(ctx context.Context) tea.Msg {
		defer close(l.plans)
		l.err = m.engine.Look(ctx, func(p engine.Plan) {
			select {
			case l.plans <- p:
			case <-ctx.Done():
			}
		})
		return nil // whoever takes the last answer tells
	}, func(err error) tea.Msg { return lookedMsg{l, err} })
	l.cancel = cancel
	m.look = l
	for _, r := range m.chart.rows {
		r.others = nil
	}
	m.chart.asking()
	return tea.Batch(wait, l.next(), m.wind())
}

// next waits for the next answers.
func (l *looking) next() tea.Cmd {
	return func() tea.Msg {
		p, ok := <-l.plans
		if !ok {
			return lookedMsg{l, l.err}
		}
		list := []engine.Plan{p}
		for {
			select {
			case p, ok := <-l.plans:
				if ok {
					list = append(list, p)
					continue
				}
			default:
			}
			return seenMsg{l, list}
		}
	}
}

// seen takes answers into the chart.
func (m *model) seen(msg seenMsg) tea.Cmd {
	for _, p := range msg.plans {
		if p.Action == engine.Fail {
			msg.look.broken++
		}
		if !m.chart.seen(p) { // its releases are new
			if targets, err := m.engine.Targets(engine.Selection{Only: []string{"*"}}); err == nil {
				m.chart.update(targets)
			}
			m.chart.seen(p)
		}
	}
	m.chart.list()
	return msg.look.next()
}

// looked ends a look.
func (m *model) looked(msg lookedMsg) tea.Cmd {
	msg.look.cancel(nil)
	msg.look.ended = m.clock
	m.choose(m.given)
	m.given = engine.Selection{}
	switch {
	case errors.Is(msg.err, context.Canceled):
	case msg.err != nil:
		m.say(bad, "upstreams: "+msg.err.Error())
	case msg.look.broken > 0:
		m.say(bad, fmt.Sprintf("upstreams asked in %s; %d cannot be decided: see the rows marked %s", span(msg.look.ended.Sub(msg.look.began)), msg.look.broken, failed.symbol()))
	}
	return m.leaveIfIdle()
}

// seen puts a plan into its row. It reports whether there is a place for it.
func (c *chart) seen(p engine.Plan) bool {
	h := harmless(p)
	h.reason = strings.TrimPrefix(h.reason, string(engine.Resolve)+": ") // a look does nothing else
	flavor, _, ofRelease := strings.Cut(h.target, ":")
	for _, r := range c.rows {
		if r.id != flavor {
			continue
		}
		for _, t := range r.targets {
			if t.id == h.target {
				t.look(&h)
				return true
			}
		}
		if p.Upstream != nil {
			return false
		}
		r.others = append(r.others, [2]string{strings.TrimPrefix(h.target, r.id+":"), h.reason})
		if !ofRelease && p.Action == engine.Fail && len(r.targets) == 0 {
			r.reason, r.sought = brief(h.reason), true
		}
		return true
	}
	return true // a row that the catalogue does not have
}

// addresses are what takes the room of a reason where there is little of it.
var addresses = regexp.MustCompile(`https?://\S+: `)

// brief is a reason without the addresses in it, for a line of the chart; the details have all of it.
func brief(reason string) string { return addresses.ReplaceAllString(reason, "") }

// look takes over what a look found of a target that no run has touched since.
func (t *target) look(p *planned) {
	t.plan, t.fresh, t.seen = p, true, time.Time{}
	t.judge()
}

// judge makes a state of what is known of a target that no run of this process has touched.
func (t *target) judge() {
	p := t.plan
	if t.unsupported != "" || t.state != ready && t.state != skipped && t.state != failed {
		return
	}
	switch {
	case p.action == engine.Fail:
		t.state, t.note = failed, brief(p.reason)
	case p.action != engine.Build:
		t.state, t.note = skipped, p.reason
	default:
		t.state, t.note = ready, p.reason
		if end, stage := t.lastFailure(); stage != "" {
			t.state, t.note = failed, stage+": "+brief(end.err)
		} else if strings.HasPrefix(p.signed, "bad") {
			t.note = "unsigned: " + strings.TrimPrefix(p.signed, "bad: ")
		} else if p.isPublished {
			t.note = "stale: " + p.reason
		}
	}
}

// broken reports whether the last look could not decide about a target that cannot be built anyway.
func (t *target) broken() bool {
	return t.unsupported != "" && !t.ran && t.plan != nil && t.plan.action == engine.Fail
}

// noReleases is what a row says whose releases could not be found, before the reason.
const noReleases = "no releases found"

// found is the state of a row of which nothing can be built.
func (r *row) found() (state, string) {
	n := 0
	var first *target
	for _, t := range r.targets {
		if t.broken() {
			if n++; first == nil {
				first = t
			}
		}
	}
	switch {
	case n > 0 && n == len(r.targets):
		return failed, brief(first.plan.reason)
	case n > 0:
		return failed, fmt.Sprintf("%d of %d: %s", n, len(r.targets), brief(first.plan.reason))
	case strings.HasPrefix(r.reason, "its releases could not be found"):
		return failed, noReleases + strings.TrimPrefix(r.reason, "its releases could not be found")
	}
	return unsupported, r.reason
}

// newest is upstream's build and its age.
func (p *planned) newest(now time.Time) string {
	if p.date.IsZero() || now.IsZero() {
		return p.build
	}
	return p.build + " " + age(now.Sub(p.date))
}

// upstream is the newest build of the row's newest release.
func (r *row) upstream(now time.Time) string {
	if t := r.lead(); t != nil && t.plan != nil && t.plan.build != "" {
		return t.plan.newest(now)
	}
	var words []string // before anybody was asked: the releases
	for _, t := range r.targets {
		release, _, _ := strings.Cut(t.label, "/")
		if len(words) == 0 || words[len(words)-1] != release {
			words = append(words, release)
		}
	}
	return strings.Join(words, ", ")
}

// age is a time span in its largest unit.
func age(d time.Duration) string {
	days := int(d.Hours() / 24)
	switch {
	case d < time.Hour:
		return fmt.Sprintf("%d min", max(0, int(d.Minutes())))
	case days < 1:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case days < 60:
		return fmt.Sprintf("%d d", days)
	case days < 730:
		return fmt.Sprintf("%d mo", days/30)
	}
	return fmt.Sprintf("%d y", days/365)
}
