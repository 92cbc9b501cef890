package ui

import (
	"fmt"
	"math"
	"strconv"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// A console on an engine.Replay shows a recorded run again. It begins on the run's screen; the events come when their time
// has come, and the clock is that of the run.

// openReplay puts the recorded run on the screen.
func (m *model) openReplay(r *engine.Replay) {
	m.replay = r
	h := r.Recording().Header
	b := newBoard(h.Selection, h.Targets, h.Time)
	b.cancel = func(error) {}
	b.publishes = clean(r.Destination())
	b.batch = Batch(h.Selection, h.Destination, nil)
	m.board = b
	m.chart.show(b)
	m.scrolled[summaryScreen] = list{}
}

// replayed takes in an event that only replays have. It reports whether this was one.
func (m *model) replayed(e event.Event) bool {
	switch e.Kind {
	case engine.Rewound:
		focus, held := m.board.focus, m.board.held
		m.openReplay(m.replay)
		m.board.focus, m.board.held = min(focus, max(0, len(m.board.panes)-1)), held
		for i, s := range m.stack {
			if s == summaryScreen {
				m.stack[i] = runScreen
			}
		}
	case engine.Ended:
		summary, err := m.replay.Summary()
		m.ended(runMsg{m.board, summary, nil})
		if err != nil {
			m.say(bad, err.Error())
		}
	default:
		return false
	}
	return true
}

func (m *model) whyNoReplay() string {
	if m.replay == nil {
		return "no recording is shown: kmi-tui replay FILE does that"
	}
	return ""
}

func (m *model) whyNoFailure() string {
	if why := m.whyNoReplay(); why != "" {
		return why
	}
	return m.replay.WhyNoFailure()
}

// toFailure goes to the first failure, and to its pane.
func (m *model) toFailure() tea.Cmd {
	target := m.replay.ToFailure()
	for i, p := range m.board.panes {
		if p.target == target {
			m.board.focus, m.board.held = i, true
		}
	}
	return tea.Batch(m.showRun(), m.wind())
}

// whyRecorded is why something cannot be done: a recording is shown.
func (m *model) whyRecorded() string {
	if m.replay != nil {
		return "this is a recording: nothing can be done in it"
	}
	return ""
}

// replaying makes an action of something that a replay does.
func replaying(do func(*engine.Replay)) func(*model) tea.Cmd {
	return func(m *model) tea.Cmd {
		do(m.replay)
		return m.wind()
	}
}

// replayLine says that this is a replay, how fast it goes and where it is, in at most w columns if it can.
func (m *model) replayLine(w int) string {
	s := m.replay.State()
	speed := "×" + strconv.FormatFloat(s.Speed, 'g', -1, 64)
	if math.IsInf(s.Speed, 1) {
		speed = "max"
	}
	share := 100
	if s.Length > 0 {
		share = int(100 * s.At.Seconds() / s.Length.Seconds())
	}
	state := ""
	switch {
	case s.Over:
		state = " ended"
	case s.Paused:
		state = " paused"
	}
	for _, text := range []string{
		fmt.Sprintf("REPLAY %s%s · %s of %s · %d %%", speed, state, clockSpan(s.At), clockSpan(s.Length), share),
		fmt.Sprintf("REPLAY %s%s · %s of %s", speed, state, clockSpan(s.At), clockSpan(s.Length)),
		fmt.Sprintf("REPLAY %s%s %d %%", speed, state, share),
	} {
		if width(text) <= w {
			return text
		}
	}
	return "REPLAY"
}

// clockSpan is a time span as a clock shows it: 1:02:03.
func clockSpan(d time.Duration) string {
	s := int(d.Seconds())
	if s < 3600 {
		return fmt.Sprintf("%d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}
