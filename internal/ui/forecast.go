package ui

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// How long something will take is said where there is ground for it: what is measured now, and how long the same stage
// of the same target took in earlier runs. It is always said as an estimate.

const (
	rateSpan   = 10 * time.Second // that a rate is of
	leftSpan   = 30 * time.Second // that remaining time is reckoned from
	stallAfter = 30 * time.Second // without progress there is no ground for a remaining time
	easing     = 8 * time.Second  // in which a new estimate takes the place of the old one, most of it
)

// forecast is what can be said of how long a stage takes.
type forecast struct {
	basis basis
	left  time.Duration
	usual engine.Usual // byRuns, and longer
	part  string       // byRate of a part of the stage: what happens in it
}

type basis int

const (
	noGround basis = iota
	byRate         // what is measured now
	byRuns         // earlier runs
	longer         // it takes longer than in earlier runs: nobody knows how long
	atMost         // it is ended then
)

// slack is how much later than usual something may end that takes as long as usual.
func slack(usual time.Duration) time.Duration { return max(5*time.Second, usual/5) }

// forecast is of the stage that a pane's target is in.
func (p *pane) forecast(usual map[engine.Stage]engine.Usual, now time.Time) forecast {
	s := p.working()
	if s == nil {
		return forecast{}
	}
	took := max(0, now.Sub(s.began))
	what, _ := event.Bytes(s.meter.unit)
	left, measured := s.meter.left(now)
	u, known := usual[engine.Stage(s.name)]
	switch {
	case measured && s.name == string(engine.Fetch): // all of the stage
		return forecast{basis: byRate, left: left}
	case known && took <= u.Time+slack(u.Time):
		return forecast{basis: byRuns, left: max(0, u.Time-took, left), usual: u}
	case known:
		return forecast{basis: longer, usual: u}
	case measured:
		return forecast{basis: byRate, left: left, part: cmp.Or(what, "done")}
	case !s.meter.deadline.IsZero():
		return forecast{basis: atMost, left: max(0, s.meter.deadline.Sub(now))}
	}
	return forecast{}
}

// rest is how long the stages after the current one usually take; it is known if that is known of all of them.
func (p *pane) rest(usual map[engine.Stage]engine.Usual, last int) (sum time.Duration, known bool) {
	for i := p.current + 1; i <= last && i < len(p.stages); i++ {
		u, ok := usual[engine.Stage(p.stages[i].name)]
		if !ok {
			return 0, false
		}
		sum += u.Time
	}
	return sum, true
}

// placed reports whether the target has one of the places in which so many are worked on at once as were asked for: from
// its download to its test.
func (p *pane) placed() bool {
	s := p.working()
	return s != nil && s.name != string(engine.Resolve) && s.name != string(engine.Sign) && s.name != string(engine.Publish)
}

// eased is an estimate that does not jump: between two looks it goes down with the clock, and nears what is reckoned
// anew.
type eased struct {
	at    time.Time
	left  time.Duration
	known bool
}

func (e *eased) toward(left time.Duration, known bool, now time.Time) {
	switch past := now.Sub(e.at); {
	case !known:
		*e = eased{}
	case !e.known || past < 0:
		*e = eased{now, max(0, left), true}
	default:
		expected := max(0, e.left-past)
		e.left = expected + time.Duration(float64(max(0, left)-expected)*(1-math.Exp(-past.Seconds()/easing.Seconds())))
		e.at = now
	}
}

// forecast reckons anew what can be said of the run. It is called when something has happened, and every second.
func (b *board) forecast(now time.Time) {
	if b.over() {
		b.left.toward(0, false, now)
		return
	}
	last := b.last()
	working, unknown, held, open := 0, 0, 0, 0
	var beside time.Duration
	resolved := true // only then it is known what there is to do
	var busy, queue []time.Duration
	for _, p := range b.panes {
		if p.state != running && p.state != waiting {
			p.stageLeft, p.left = eased{}, eased{}
			continue
		}
		usual := b.usual[p.target]
		f := p.forecast(usual, now)
		if p.easedStage != p.current {
			p.easedStage, p.stageLeft = p.current, eased{}
		}
		p.stageLeft.toward(f.left, f.basis == byRate || f.basis == byRuns, now)
		p.cast = f
		rest, known := p.rest(usual, last)
		if p.working() != nil {
			known = known && (f.basis == byRate && f.part == "" || f.basis == byRuns)
			rest += f.left
			working += btoi(p.placed())
		}
		p.left.toward(rest, known, now)
		open++
		resolved = resolved && p.current >= 0 && (p.current > 0 || p.working() == nil)
		switch {
		case !known:
			unknown++
			held += btoi(p.placed())
		case p.placed():
			busy = append(busy, rest)
		case p.working() != nil:
			beside = max(beside, rest)
		default:
			queue = append(queue, rest)
		}
	}
	b.most = max(b.most, working)
	// Whoever waits begins where a place gets free first.
	places := append(make([]time.Duration, max(0, b.most-len(busy)-held)), busy...)
	if len(places) == 0 {
		places = []time.Duration{0}
	}
	for _, d := range queue {
		i := slices.Index(places, slices.Min(places))
		places[i] += d
	}
	b.atLeast = unknown > 0
	b.left.toward(max(beside, slices.Max(places)), open > 0 && resolved && 2*unknown <= open && unknown < open, now)
}

// about is a remaining time as an estimate is said.
func about(d time.Duration) string {
	round := func(to time.Duration) time.Duration { return max(to, d.Round(to)) }
	switch {
	case d < 5*time.Second:
		return "a few seconds"
	case d < 57*time.Second:
		return fmt.Sprintf("~%d s", int(round(5*time.Second).Seconds()))
	case d < 115*time.Second:
		if r := round(15 * time.Second); r%time.Minute != 0 {
			return fmt.Sprintf("~%dm %02ds", int(r.Minutes()), int(r.Seconds())%60)
		}
		fallthrough
	case d < time.Hour-30*time.Second:
		return fmt.Sprintf("~%d min", int(round(time.Minute).Minutes()))
	}
	r := round(5 * time.Minute)
	return fmt.Sprintf("~%dh %02dm", int(r.Hours()), int(r.Minutes())%60)
}

// says is a stage's remaining time in words, the longest first; none where there is no ground.
func (p *pane) says(now time.Time) []string {
	f, s := p.cast, p.working()
	if s == nil {
		return nil
	}
	switch f.basis {
	case byRate:
		if f.part != "" {
			return []string{about(p.stageLeft.left) + " until all is " + f.part, about(p.stageLeft.left)}
		}
		return []string{about(p.stageLeft.left) + " left"}
	case byRuns:
		runs := "by the last run"
		if f.usual.Runs > 1 {
			runs = fmt.Sprintf("by %d runs", f.usual.Runs)
		}
		return []string{about(p.stageLeft.left) + " left " + runs, about(p.stageLeft.left) + " left", about(p.stageLeft.left)}
	case longer:
		took, usual := clockSpan(max(0, now.Sub(s.began))), clockSpan(f.usual.Time)
		return []string{"longer than usual (" + took + ", usually " + usual + ")", "usually " + usual, "long"}
	case atMost:
		return []string{"at most " + clockSpan(f.left) + " more"}
	}
	return nil
}

// usually takes over how long stages took in earlier runs.
func (m *model) usually(past []engine.PastRun) {
	usual := map[string]map[engine.Stage]engine.Usual{}
	for target, stages := range engine.UsualTimes(past, m.engine.Destination()) {
		usual[clean(target)] = stages
	}
	m.usual = usual
	if m.working() && m.replay == nil {
		m.board.usual = usual
		m.board.forecast(m.clock)
	}
}
