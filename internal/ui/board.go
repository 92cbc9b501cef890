package ui

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// board is one run: what was asked for and how far it is. It changes by events and by the run's summary only.
type board struct {
	sel       engine.Selection
	batch     string // the same on the command line
	publishes string // where to
	panes     []*pane
	byTarget  map[string]*pane
	began     time.Time
	ended     time.Time // zero while it runs
	cancel    context.CancelCauseFunc
	cancelled bool
	summary   engine.Summary
	err       error // why it did not start

	usual   map[string]map[engine.Stage]engine.Usual // how long stages took in earlier runs, by target
	most    int                                      // targets that were worked on at once, so far
	left    eased                                    // until the run ends
	atLeast bool                                     // left is without targets of which nobody knows
	places  places                                   // which panes are seen, and where

	focus int  // index of the pane that keys are for
	held  bool // the focus was chosen by hand: it does not go after the work any more
}

// pane is one target of a run.
type pane struct {
	target  string
	state   state
	note    string // what it came to: a reason
	fault   []string
	remedy  []string
	image   string
	tags    []string
	stages  []stage // of the way of an image, in its order
	idle    bool    // the run ended before its turn came
	current int     // index of the stage that is worked on, or was last; -1 before the first
	began   time.Time
	took    time.Duration // once it has ended
	logFile string        // of the stage that ended last, or failed
	log     *logView

	cast       forecast // of the stage it is in
	stageLeft  eased    // what remains of it
	easedStage int      // it is of this stage
	left       eased    // what remains of all stages
}

// stage is one step of a pane's target.
type stage struct {
	name   string
	state  state
	reason string
	began  time.Time
	took   time.Duration
	log    string
	meter  meter
}

func newBoard(sel engine.Selection, targets []string, now time.Time) *board {
	b := &board{sel: sel, byTarget: map[string]*pane{}, began: now}
	for _, t := range targets {
		b.pane(t)
	}
	return b
}

// pane finds the pane of a target, and makes it where the run has a target that was not expected.
func (b *board) pane(target string) *pane {
	if p := b.byTarget[target]; p != nil {
		return p
	}
	p := &pane{target: clean(target), state: waiting, current: -1, easedStage: -1, log: newLogView()}
	for _, s := range engine.Stages {
		p.stages = append(p.stages, stage{name: string(s), state: waiting})
	}
	p.log.buf.target = target
	b.byTarget[target] = p
	b.panes = append(b.panes, p)
	return p
}

func (b *board) over() bool { return !b.ended.IsZero() }

// apply takes in one event of the run. Events of the run as a whole are not for the board.
func (b *board) apply(e *event.Event) {
	if e.Target == "" {
		return
	}
	p := b.pane(e.Target)
	if b.over() && e.Kind != event.Log {
		// The summary came first and knows the end: only the log's lines are news.
		before := *p
		before.stages = slices.Clone(p.stages)
		defer func() { *p = before }()
	}
	if e.Stage == "" {
		p.whole(e)
	} else {
		p.stage(e)
	}
	if !b.over() && !b.held && (e.Kind == event.Started || e.Kind.Ends()) {
		b.follow()
	}
}

// follow moves the focus to a pane that is worked on, if the one that has it is not.
func (b *board) follow() {
	if len(b.panes) == 0 || b.panes[b.focus].state == running {
		return
	}
	for i, p := range b.panes {
		if p.state == running {
			b.focus = i
			return
		}
	}
}

// whole is an event of the target as a whole.
func (p *pane) whole(e *event.Event) {
	switch e.Kind {
	case event.Started:
		p.state, p.began = running, e.Time
	case event.Log:
		p.log.buf.line(e, clean(e.Line))
	case event.Progress:
	default:
		p.state, p.took = stateOf(e.Kind), seconds(e.Seconds)
		p.note, p.fault, p.remedy = clean(e.Reason), paragraphs(e.Error), paragraphs(e.Remedy)
		t := good
		if p.state == failed {
			t = bad
		}
		p.log.buf.mark(e, t, p.state.symbol()+" "+p.outcome()+" after "+span(p.took))
	}
}

// stage is an event of a stage.
func (p *pane) stage(e *event.Event) {
	i := slices.IndexFunc(p.stages, func(s stage) bool { return s.name == e.Stage })
	if i < 0 {
		i = len(p.stages)
		p.stages = append(p.stages, stage{name: clean(e.Stage), state: waiting})
	}
	s := &p.stages[i]
	switch e.Kind {
	case event.Started:
		if p.state == waiting {
			p.state, p.began = running, e.Time
		}
		p.current = i
		s.state, s.began, s.meter = running, e.Time, meter{}
		p.log.buf.mark(e, step, "▸ "+s.name)
	case event.Progress:
		s.meter.add(e)
	case event.Log:
		p.log.buf.line(e, clean(e.Line))
	default:
		s.state, s.reason, s.took = stateOf(e.Kind), clean(e.Reason), seconds(e.Seconds)
		s.log = clean(e.LogFile)
		if s.log != "" || s.state == failed { // a stage that failed without a word has none
			p.logFile = s.log
		}
		line := fmt.Sprintf("%s %s: %s", s.state.symbol(), s.name, s.state.word())
		if s.state != skipped {
			line += " in " + span(s.took)
		}
		if s.reason != "" {
			line += ", " + s.reason
		}
		if s.state != failed {
			p.log.buf.mark(e, good, line)
			return
		}
		p.log.buf.mark(e, bad, fmt.Sprintf("%s %s: failed after %s", s.state.symbol(), s.name, span(s.took)))
		for _, l := range paragraphs(e.Error) {
			p.log.buf.mark(e, bad, "  "+l)
		}
		for _, l := range paragraphs(e.Remedy) {
			p.log.buf.mark(e, bad, "  what to do: "+l)
		}
	}
}

func stateOf(k event.Kind) state {
	switch k {
	case event.Skipped:
		return skipped
	case event.Failed:
		return failed
	case event.Started, event.Progress, event.Log:
		return running
	}
	return done
}

// outcome is how a pane's target is doing, as a word or two.
func (p *pane) outcome() string {
	if p.state == done {
		return doneWord(p.note)
	}
	if p.state == running && p.current >= 0 {
		return p.stages[p.current].name
	}
	return p.state.word()
}

// doneWord is the engine's own word for what was done where it is a short one ("published").
func doneWord(reason string) string {
	if reason != "" && width(reason) <= 12 {
		return reason
	}
	return "done"
}

// finish takes in how the run ended.
func (b *board) finish(s engine.Summary, err error, now time.Time) {
	b.summary, b.err, b.ended = s, err, now
	for _, r := range s.Results {
		p := b.pane(r.Target)
		p.state, p.took = stateOf(r.State), seconds(r.Seconds)
		p.note, p.fault, p.remedy = clean(r.Reason), paragraphs(r.Error), paragraphs(r.Remedy)
		p.image, p.tags = clean(r.Image), nil
		for _, t := range r.Tags {
			p.tags = append(p.tags, clean(t))
		}
		for _, t := range r.Stages {
			i := slices.IndexFunc(p.stages, func(s stage) bool { return s.name == string(t.Stage) })
			if i < 0 {
				continue
			}
			st := &p.stages[i]
			st.state, st.reason, st.took, st.log = stateOf(t.State), clean(t.Reason), seconds(t.Seconds), clean(t.Log)
			if st.log != "" || st.state == failed {
				p.logFile = st.log
			}
		}
	}
	for _, p := range b.panes {
		if p.state == waiting || p.state == running {
			p.state, p.idle, p.note = skipped, true, "the run ended before its turn"
			if err != nil {
				p.note = "the run did not start"
			}
		}
		for i := range p.stages {
			if p.stages[i].state == running {
				p.stages[i].state = failed
			}
		}
	}
}

// tally counts the panes by how they are doing.
func (b *board) tally() (n [len(states)]int) {
	for _, p := range b.panes {
		n[p.state]++
	}
	return n
}

// sentence says how the run is going or how it ended.
func (b *board) sentence(now time.Time) string {
	n := b.tally()
	if !b.over() {
		working := 0
		for _, p := range b.panes {
			working += btoi(p.working() != nil)
		}
		s := fmt.Sprintf("%d of %s done", n[done]+n[skipped]+n[failed], plural(len(b.panes), "target"))
		for _, part := range []struct {
			n    int
			word string
		}{{n[failed], "failed"}, {working, "working"}, {n[waiting] + n[running] - working, "waiting"}} {
			if part.n > 0 {
				s += fmt.Sprintf(" · %d %s", part.n, part.word)
			}
		}
		s += " · " + span(now.Sub(b.began))
		if b.left.known {
			s += " · " + btos(b.atLeast, "at least ") + about(b.left.left) + " left"
		}
		return s
	}
	if b.err != nil {
		return "the run did not start"
	}
	s := ""
	add := func(n int, what string) {
		if n > 0 {
			if s != "" {
				s += " · "
			}
			s += fmt.Sprintf("%d %s", n, what)
		}
	}
	add(n[failed], "failed")
	add(n[done], b.verb())
	add(n[skipped], "with nothing to do")
	if s == "" {
		s = "no targets"
	}
	return s + " · " + span(b.ended.Sub(b.began))
}

// short is the sentence in symbols.
func (b *board) short(now time.Time) string {
	n := b.tally()
	working := 0
	for _, p := range b.panes {
		working += btoi(p.working() != nil)
	}
	s := fmt.Sprintf("run: %d of %d", n[done]+n[skipped]+n[failed], len(b.panes))
	for _, part := range []struct {
		n int
		s state
	}{{n[failed], failed}, {working, running}, {n[waiting] + n[running] - working, waiting}} {
		if part.n > 0 {
			s += fmt.Sprintf(" %s%d", part.s.symbol(), part.n)
		}
	}
	s += " · " + span(now.Sub(b.began))
	if b.left.known {
		s += " · " + about(b.left.left)
	}
	return s
}

// verb is what was done with the targets that ended well.
func (b *board) verb() string {
	word := ""
	for _, p := range b.panes {
		if p.state == done {
			if word != "" && word != doneWord(p.note) {
				return "done"
			}
			word = doneWord(p.note)
		}
	}
	return word
}

// order lists the panes for the summary: failures first, then as they were asked for.
func (b *board) order() []int {
	idx := make([]int, len(b.panes))
	for i := range idx {
		idx[i] = i
	}
	slices.SortStableFunc(idx, func(x, y int) int {
		rank := func(i int) int {
			if b.panes[i].state == failed {
				return 0
			}
			return 1
		}
		return rank(x) - rank(y)
	})
	return idx
}

// working is the stage that is being worked on; nil: none is, the target waits for its turn or has ended.
func (p *pane) working() *stage {
	if p.state != running || p.current < 0 || p.stages[p.current].state != running {
		return nil
	}
	return &p.stages[p.current]
}

// last is the index of the last stage that the run goes to.
func (b *board) last() int {
	if i := slices.Index(engine.Stages, b.sel.Until); i >= 0 {
		return i
	}
	return len(engine.Stages) - 1
}

// elapsed is how long a target has been worked on.
func (p *pane) elapsed(now time.Time) time.Duration {
	switch {
	case p.state == running && !p.began.IsZero():
		return max(0, now.Sub(p.began))
	case p.state == waiting || p.state == running:
		return 0
	}
	return p.took
}
