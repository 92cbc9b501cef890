package ui

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// course is a run on a clock that a test moves: events have its time.
type course struct {
	*model
	now time.Time
}

// courseOf starts a run of n targets, of which earlier runs are known: a stage after the other took 10, 30, 50 s and so on.
func courseOf(w, h, n int) *course {
	c := &course{model: modelOf(newScript()), now: noon}
	c.model.now = func() time.Time { return c.now }
	c.Update(tea.WindowSizeMsg{Width: w, Height: h})
	var names []string
	past := engine.PastRun{Destination: c.engine.Destination()}
	for i := range n {
		names = append(names, fmt.Sprintf("flavor%d:%d/x86_64", i, i))
		r := engine.Result{Target: names[i], State: event.Finished}
		for k, s := range engine.Stages {
			r.Stages = append(r.Stages, engine.StageTime{Stage: s, State: event.Finished, Seconds: float64(10 + 20*k)})
		}
		past.Results = append(past.Results, r)
	}
	c.startRun(engine.Selection{Only: names}, names)
	c.Update(historyMsg{[]engine.PastRun{past, past, past}, nil})
	return c
}

// tell is events at this moment.
func (c *course) tell(events ...event.Event) {
	for i := range events {
		events[i].Time = c.now
	}
	c.Update(eventsMsg(events))
}

// pass moves the clock, second by second.
func (c *course) pass(seconds int) {
	for range seconds {
		c.now = c.now.Add(time.Second)
		c.Update(tickMsg{})
	}
}

func (c *course) frame() string { return ansi.Strip(c.View()) }

// begin takes the i-th target to a stage; those before it are done.
func (c *course) begin(i int, stage engine.Stage) {
	target := c.board.panes[i].target
	for _, s := range engine.Stages {
		st := &c.board.byTarget[target].stages[slices.Index(engine.Stages, s)]
		if s == stage {
			c.tell(event.Event{Target: target, Stage: string(s), Kind: event.Started})
			return
		}
		if st.state == waiting || st.state == running {
			c.tell(event.Event{Target: target, Stage: string(s), Kind: event.Started}, event.Event{Target: target, Stage: string(s), Kind: event.Finished, Seconds: 1})
		}
	}
}

func (c *course) progress(i int, stage engine.Stage, done, total int64, unit string) {
	c.tell(event.Event{Target: c.board.panes[i].target, Stage: string(stage), Kind: event.Progress, Done: done, Total: total, Unit: unit})
}

func (c *course) shows(t *testing.T, texts ...string) {
	t.Helper()
	frame := c.frame()
	for _, text := range texts {
		if !strings.Contains(frame, text) {
			t.Errorf("no %q at %s:\n%s", text, c.now.Sub(noon), frame)
		}
	}
}

// A download's remaining time is measured: it does not jump, is never negative, and is gone when nothing comes any more.
func TestDownloadSaysHowLong(t *testing.T) {
	c := courseOf(120, 40, 1)
	c.begin(0, engine.Fetch)
	const rate, total = 10 << 20, 1200 << 20
	var last time.Duration
	for s := 0; s <= 60; s++ {
		c.progress(0, engine.Fetch, int64(s)*rate, total, "bytes")
		c.pass(1)
		p := c.board.panes[0]
		if s > 2 && !p.stageLeft.known {
			t.Fatalf("second %d: nothing is said", s)
		}
		if p.stageLeft.left < 0 {
			t.Fatalf("second %d: %s", s, p.stageLeft.left)
		}
		if want := time.Duration(120-s) * time.Second; s > 30 && (p.stageLeft.left-want).Abs() > 5*time.Second {
			t.Errorf("second %d: %s, not %s", s, p.stageLeft.left, want)
		}
		if s > 3 && (p.stageLeft.left-last).Abs() > 10*time.Second {
			t.Errorf("second %d: %s after %s", s, p.stageLeft.left, last)
		}
		last = p.stageLeft.left
	}
	c.shows(t, "fetch 2/7", "600 MiB of 1.2 GiB", "10.0 MiB/s", "~1 min left", "~8 min to the end")
	// The mirror gets ten times slower: the estimate goes there, not at once.
	for s := range 60 {
		c.progress(0, engine.Fetch, 60*rate+int64(s)*rate/10, total, "bytes")
		c.pass(1)
		now := c.board.panes[0].stageLeft.left
		if now-last > 90*time.Second {
			t.Errorf("%s after %s", now, last)
		}
		last = now
	}
	if last < 5*time.Minute {
		t.Errorf("600 MiB at 1 MiB/s in %s", last)
	}
	c.pass(40)
	c.shows(t, "no progress for 0:4")
	if c.board.panes[0].cast.basis == byRate {
		t.Error("a download that stands still says how long it will take by its rate")
	}
}

// A stage without bytes goes by earlier runs; past them it says that it takes longer, and nothing of an end.
func TestStageByEarlierRuns(t *testing.T) {
	c := courseOf(120, 40, 1)
	c.begin(0, engine.Customise)
	c.progress(0, engine.Customise, 2, 9, "parts: packages")
	c.pass(10)
	c.shows(t, "customise 3/7", "~20%", "2 of 9 parts: packages", "~40 s left by 3 runs", " min to the end", "~7 min left")
	c.pass(41)
	c.shows(t, "a few seconds left by 3 runs")
	c.pass(10)
	c.shows(t, "longer than usual (1:01, usually 0:50)")
	for _, text := range []string{"to the end", " left"} {
		if frame := c.frame(); strings.Contains(frame, text) {
			t.Errorf("%q without ground:\n%s", text, frame)
		}
	}
	// A part of it is measured: that says nothing of the stage.
	c.progress(0, engine.Customise, 1<<20, 1<<30, "bytes compressed")
	c.shows(t, "longer than usual", "1.0 MiB of 1.0 GiB compressed")
}

// Without earlier runs what can be measured is said, and of the test its limit; of the rest nothing.
func TestNoGroundNoEstimate(t *testing.T) {
	c := courseOf(120, 40, 1)
	c.board.usual = nil
	c.begin(0, engine.Customise)
	c.pass(5)
	c.shows(t, "customise 3/7 5.0 s")
	for s := range 10 {
		c.progress(0, engine.Customise, int64(s)<<20, 100<<20, "bytes compressed")
		c.pass(1)
	}
	c.shows(t, "~1m 30s until all is compressed")
	c.begin(0, engine.Test)
	p := c.board.panes[0]
	c.tell(event.Event{Target: p.target, Stage: "test", Kind: event.Progress, Done: 1, Total: 12, Unit: "checks", Deadline: c.now.Add(3 * time.Minute)})
	c.pass(30)
	c.shows(t, "1 of 12 checks", "at most 2:30 more")
	c.pass(300)
	c.shows(t, "at most 0:00 more")
	if p.left.known || c.board.left.known {
		t.Error("there is an end without ground")
	}
}

// What remains of a run follows from what its targets have taken before, and from how many are worked on at once.
func TestRunSaysHowLong(t *testing.T) {
	c := courseOf(200, 60, 6)
	for i := range 6 {
		c.begin(i, engine.Resolve)
	}
	c.pass(1)
	if c.board.left.known {
		t.Error("nobody knows yet what there is to do")
	}
	for i := range 2 {
		c.begin(i, engine.Fetch)
	}
	for i := 2; i < 6; i++ {
		c.tell(event.Event{Target: c.board.panes[i].target, Stage: "resolve", Kind: event.Finished})
	}
	c.pass(1)
	// Two at once, three after each other, 480 s each.
	if left := c.board.left.left; (left-24*time.Minute).Abs() > 5*time.Second || !c.board.left.known {
		t.Errorf("%s", left)
	}
	c.shows(t, "run: 0 of 6 targets done · 2 working · 4 waiting", "~24 min left", "waiting for its turn: resolve done")
	delete(c.board.usual, c.board.panes[5].target)
	c.pass(60)
	c.shows(t, "at least ~")
	c.tell(event.Event{Target: c.board.panes[0].target, Kind: event.Failed, Error: "no"})
	c.shows(t, "1 of 6 targets done · 1 failed · 1 working · 4 waiting")
}

func TestAbout(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Hour: "a few seconds", 4 * time.Second: "a few seconds", 7 * time.Second: "~5 s", 58 * time.Second: "~1 min", 88 * time.Second: "~1m 30s",
		118 * time.Second: "~2 min", 3*time.Minute + 20*time.Second: "~3 min", 59*time.Minute + 50*time.Second: "~1h 00m", 83 * time.Minute: "~1h 25m", 1000 * time.Hour: "~1000h 00m"} {
		if got := about(d); got != want {
			t.Errorf("%s: %s, not %s", d, got, want)
		}
	}
}

// names are the panes that are seen.
func (c *course) names() string {
	c.View()
	var list []string
	for _, p := range c.board.places.shown {
		list = append(list, strings.TrimPrefix(p.target[:strings.IndexByte(p.target, ':')], "flavor"))
	}
	return strings.Join(list, " ")
}

func (c *course) end(i int) {
	c.tell(event.Event{Target: c.board.panes[i].target, Stage: string(engine.Fetch), Kind: event.Finished}, event.Event{Target: c.board.panes[i].target, Kind: event.Finished, Reason: "published", Seconds: 30})
}

// What is worked on is seen; whoever begins takes the place of one that has ended, and nobody else moves.
func TestPlacesOfPanes(t *testing.T) {
	c := courseOf(120, 40, 12)
	for i := range 12 {
		c.begin(i, engine.Resolve)
	}
	if got := c.names(); got != "0 1 2 3 4 5 6 7" {
		t.Errorf("at the beginning: %s", got)
	}
	for i := range 12 {
		c.tell(event.Event{Target: c.board.panes[i].target, Stage: "resolve", Kind: event.Finished})
	}
	c.begin(0, engine.Fetch)
	c.begin(1, engine.Fetch)
	if got := c.names(); got != "0 1 2 3 4 5 6 7" {
		t.Errorf("nothing moves at once: %s", got)
	}
	c.pass(20)
	if got := c.names(); got != "0 1" {
		t.Errorf("two have the room after a while: %s", got)
	}
	c.shows(t, "◌ flavor2:2/x86_64 waiting")
	c.end(0)
	c.begin(5, engine.Fetch)
	if got := c.names(); got != "5 1" {
		t.Errorf("the next one takes the place of the one that has ended: %s", got)
	}
	c.shows(t, "✓ flavor0:0/x86_64 published 30 s")
	// Somebody reads 1: nothing moves, and whoever begins waits in the list.
	press(c.model, "tab", "tab", "tab")
	for c.board.panes[c.board.focus].target != "flavor1:1/x86_64" {
		press(c.model, "tab")
	}
	before := c.names()
	for i := range 40 {
		c.tell(event.Event{Target: "flavor1:1/x86_64", Stage: "fetch", Kind: event.Log, Line: fmt.Sprint("line ", i)})
	}
	press(c.model, "k", "k", "k")
	c.begin(7, engine.Fetch)
	c.pass(60)
	if got := c.names(); len(strings.Fields(got)) != len(strings.Fields(before)) || !strings.Contains(got, "1") {
		t.Errorf("%s became %s while somebody reads", before, got)
	}
	// The focus is seen, wherever it goes, and nothing is hidden without a word.
	for range 30 {
		press(c.model, "tab")
		if !slices.Contains(c.board.places.shown, c.board.panes[c.board.focus]) {
			t.Fatalf("the focus is not seen: %s", c.names())
		}
	}
	for _, size := range [][2]int{{200, 60}, {80, 24}, {60, 16}, {40, 12}, {120, 40}} {
		c.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		frame, seen := c.frame(), 0
		for _, p := range c.board.panes {
			seen += btoi(strings.Contains(frame, p.target))
		}
		if rest := fmt.Sprintf("… %d more", 12-seen); seen < 12 && !strings.Contains(frame, rest) {
			t.Errorf("%v: %d of 12 are named:\n%s", size, seen, frame)
		}
	}
}

// The run's screens at usual sizes; -update rewrites them.
func TestRunFrames(t *testing.T) {
	var frames [][2]string
	for _, x := range []struct{ w, h, n, jobs int }{{200, 60, 6, 6}, {200, 60, 12, 4}, {120, 40, 12, 3}, {80, 24, 1, 1}, {80, 24, 12, 2}, {40, 12, 5, 2}} {
		c := courseOf(x.w, x.h, x.n)
		for i := range x.n {
			c.begin(i, engine.Resolve)
			c.tell(event.Event{Target: c.board.panes[i].target, Stage: "resolve", Kind: event.Finished, Reason: "13.2, 2.4 GiB; build"})
		}
		stages := []engine.Stage{engine.Fetch, engine.Customise, engine.Test}
		for i := range x.jobs {
			c.begin(i, stages[i%3])
		}
		for s := range 40 {
			for i := range x.jobs {
				done, total, unit := int64(s)*10<<20, int64(1<<30), "bytes"
				switch stages[i%3] {
				case engine.Customise:
					unit = "bytes compressed"
				case engine.Test:
					done, total, unit = 3, 12, "checks, waiting for: guest agent answers"
				}
				c.progress(i, stages[i%3], done, total, unit)
				c.tell(event.Event{Target: c.board.panes[i].target, Stage: string(stages[i%3]), Kind: event.Log, Line: fmt.Sprintf("Unpacking libsomething-%d (1.2.%d-1+deb13u1) over (1.2.2-1+deb13u1) into the guest ...", s, i)})
			}
			c.pass(1)
		}
		name := fmt.Sprintf("%d×%d, %d targets, %d at once", x.w, x.h, x.n, x.jobs)
		fits(t, c.model, name)
		frames = append(frames, [2]string{name, shown(c.model, false)})
	}
	golden(t, "runs", frames...)
}
