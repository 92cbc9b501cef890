package ui

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"github.com/muesli/termenv"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// scripted is an engine whose runs do what the test says; its chart, selection and events are the real ones.
type scripted struct {
	*engine.Engine
	bus  *event.Bus
	run  func(ctx context.Context, sel engine.Selection, bus *event.Bus) (engine.Summary, error)
	dest string
}

func (s *scripted) Subscribe() *engine.Subscription { return s.bus.Subscribe() }
func (s *scripted) Destination() string {
	if s.dest != "" {
		return s.dest
	}
	return "dir:images"
}
func (s *scripted) Run(ctx context.Context, sel engine.Selection) (engine.Summary, error) {
	return s.run(ctx, sel, s.bus)
}
func (s *scripted) Plan(_ context.Context, sel engine.Selection) ([]engine.Plan, error) {
	return []engine.Plan{{Target: "debian:12/x86_64", Action: engine.Build, Reason: "not published yet, asked for " + strings.Join(sel.Only, " ")}}, nil
}

func newScripted(t testing.TB) *scripted {
	t.Helper()
	c, err := catalog.Load("../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(engine.Config{Catalog: c, Cache: t.TempDir(), Registry: "dir:images", KeyDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return &scripted{Engine: e, bus: event.NewBus(nil), run: func(context.Context, engine.Selection, *event.Bus) (engine.Summary, error) {
		return engine.Summary{}, nil
	}}
}

// screen is a console on a terminal that the test reads.
type screen struct {
	t       *testing.T
	tty     *os.File
	term    vt10x.Terminal
	mu      sync.Mutex
	raw     bytes.Buffer
	changed chan struct{}
	ended   chan error
	cancel  context.CancelCauseFunc
	clock   *clock
}

// clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func show(t *testing.T, e Engine, width, height int) *screen {
	t.Helper()
	tty, side, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(tty, &pty.Winsize{Cols: uint16(width), Rows: uint16(height)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &screen{t: t, tty: tty, term: vt10x.New(vt10x.WithSize(width, height)), changed: make(chan struct{}, 1), ended: make(chan error, 1), cancel: cancel,
		clock: &clock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}}
	go func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := tty.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			_, _ = s.term.Write(buf[:n])
			s.raw.Write(buf[:n])
			s.mu.Unlock()
			select {
			case s.changed <- struct{}{}:
			default:
			}
		}
	}()
	go func() { s.ended <- Run(ctx, e, Options{In: side, Out: side, Now: s.clock.Now}) }()
	t.Cleanup(func() {
		cancel(errors.New("the test is over"))
		select {
		case err := <-s.ended:
			s.ended <- err
		case <-time.After(10 * time.Second):
			t.Error("the console does not end")
		}
		_ = tty.Close()
		_ = side.Close()
	})
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.term.String()
}

// until waits for a screen that fits.
func (s *screen) until(what string, fits func(string) bool) string {
	s.t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		if text := s.text(); fits(text) {
			return text
		}
		select {
		case <-s.changed:
		case <-deadline:
			s.t.Fatalf("never saw %s; the screen:\n%s", what, s.text())
		}
	}
}

func (s *screen) has(words ...string) string {
	s.t.Helper()
	return s.until(strings.Join(words, " and "), func(text string) bool {
		for _, w := range words {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	})
}

func (s *screen) lacks(word string) {
	s.t.Helper()
	s.until("a screen without "+word, func(text string) bool { return !strings.Contains(text, word) })
}

func (s *screen) press(keys ...string) {
	s.t.Helper()
	for _, k := range keys {
		if _, err := s.tty.WriteString(k); err != nil {
			s.t.Fatal(err)
		}
	}
}

// ends waits for the console to be gone and the terminal to be as it was.
func (s *screen) ends() {
	s.t.Helper()
	select {
	case err := <-s.ended:
		s.ended <- err
		if err != nil {
			s.t.Errorf("the console ended with %v", err)
		}
	case <-time.After(15 * time.Second):
		s.t.Fatalf("the console does not end; the screen:\n%s", s.text())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if raw := s.raw.String(); strings.Count(raw, "\x1b[?1049h") != strings.Count(raw, "\x1b[?1049l") || strings.LastIndex(raw, "\x1b[?25h") < strings.LastIndex(raw, "\x1b[?25l") {
		s.t.Error("the terminal was not put back as it was")
	}
}

const (
	esc   = "\x1b"
	enter = "\r"
	down  = "\x1b[B"
	right = "\x1b[C"
)

func TestTheChartAtEverySize(t *testing.T) {
	for _, size := range []struct{ w, h int }{{80, 24}, {120, 40}, {200, 60}, {40, 12}} {
		t.Run(fmt.Sprintf("%dx%d", size.w, size.h), func(t *testing.T) {
			s := show(t, newScripted(t), size.w, size.h)
			text := s.has("Debian", "can be built", "quit")
			if size.h >= 24 {
				for _, name := range []string{"AlmaLinux OS", "Red Hat CoreOS", "VyOS", "preview", "planned", "not supported yet", "x86_64 arm64", "13 12", "into dir:images"} {
					if !strings.Contains(text, name) {
						t.Errorf("%q is not on the screen:\n%s", name, text)
					}
				}
			} else if !strings.Contains(text, "rows are not shown") {
				t.Errorf("what is hidden is not said:\n%s", text)
			}
			s.press("G")
			s.has("VyOS")
			s.press("q")
			s.ends()
		})
	}
}

func TestSelectFilterUnfoldPlan(t *testing.T) {
	s := show(t, newScripted(t), 140, 30)
	s.has("> [ ]  Debian"[2:])
	s.press(" ")
	s.has("[x]  Debian", "2 selected")
	s.press(right, down, down, down, " ") // 12/x86_64
	s.has("[-]  Debian", "[x]    13", "[ ]    12", "1 selected")
	s.press("k", " ") // arm64 of 13
	s.has("select: not supported yet: no boot loader is described for arm64")
	s.press("a")
	s.has("2 selected")
	s.press("/", "fed")
	s.has("Fedora CoreOS", "filter: fed")
	s.lacks("Debian")
	s.press(enter)
	s.has(`filtered by "fed"`)
	s.press(esc)
	s.has("Debian")
	s.press("p")
	s.has("debian:12/x86_64  build  not published yet, asked for debian:13 debian:12")
	s.press(esc)
	s.has("build: not published yet")
	s.press("y")
	s.has("kmi-tui --batch --only debian:13,debian:12 --registry dir:images")
	s.until("the clipboard's sequence", func(string) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(s.raw.String(), "\x1b]52;c;")
	})
	s.press("zzzz", "q") // z means nothing here
	s.ends()
}

func TestHelpListsEveryKey(t *testing.T) {
	e := newScripted(t)
	m := newModel(e, newStyles(lipgloss.NewRenderer(io.Discard)), must(e.Targets(engine.Selection{Levels: catalog.Levels})), time.Now)
	for _, place := range []place{onChart, onWork} {
		m.show = place
		if place == onWork {
			m.work = &work{panes: []*pane{{target: "debian:12/x86_64", stages: map[engine.Stage]event.Event{}}}}
		}
		text := strings.Join(m.helpText(), "\n")
		for _, a := range actions {
			if !strings.Contains(text, a.help) {
				t.Errorf("the help does not tell of %q", a.name)
			}
		}
	}
	s := show(t, e, 120, 70)
	s.has("can be built")
	s.press("?")
	s.has("Keys on the chart:", "Keys on a run:", "Symbols:")
	s.press(esc)
	s.has("can be built")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// play runs the stages of the targets with some log lines, until ctx ends or all is done.
func play(fail string, hold chan struct{}) func(context.Context, engine.Selection, *event.Bus) (engine.Summary, error) {
	return func(ctx context.Context, sel engine.Selection, bus *event.Bus) (engine.Summary, error) {
		var sum engine.Summary
		bus.Publish(event.Event{Kind: event.Log, Line: "A signing key pair was generated for you"})
		for _, target := range sel.Only {
			r := engine.Result{Target: target, State: event.Finished, Reason: "published", Image: "dir:images/x@sha256:1", Tags: []string{"12"}}
			for _, st := range engine.Stages {
				scope := bus.Scope(target, string(st), "")
				scope.Start()
				for i := range 30 {
					scope.Logf("%s line %d \x1b[31m::error::x", st, i)
				}
				scope.Progress(50, 100, "bytes")
				var err error
				if st == engine.Test && hold != nil {
					select {
					case <-hold:
					case <-ctx.Done():
						err = context.Cause(ctx)
					}
				}
				if string(st) == fail {
					err = event.WithRemedy(errors.New("the mirror is gone"), "name another with --mirror")
				}
				if st == engine.Fetch {
					err = errors.Join(err, nil)
				}
				e := scope.End("fine", err)
				r.Stages = append(r.Stages, engine.StageTime{Stage: st, State: e.Kind, Seconds: 1})
				if err != nil {
					r.State, r.Error, r.Remedy, r.Image, r.Tags = event.Failed, string(st)+": "+e.Error, e.Remedy, "", nil
					break
				}
			}
			bus.Publish(event.Event{Target: target, Kind: r.State, Error: r.Error, Reason: r.Reason})
			sum.Results = append(sum.Results, r)
		}
		return sum, nil
	}
}

func TestARun(t *testing.T) {
	e := newScripted(t)
	hold := make(chan struct{})
	e.run = play("", hold)
	s := show(t, e, 100, 30)
	s.has("can be built")
	s.press("b")
	s.has("Build, test, sign and publish?", "debian:13/x86_64, debian:12/x86_64", "same as  kmi-tui --batch --only debian:13,debian:12 --registry dir:images")
	s.clock.add(time.Second)
	s.press("y")
	s.has("✓ resolve", "▶ test", "test line 29 ::error::x", "debian:13/x86_64 · at work", "2 targets: 1 at work, 1 waiting")
	s.press("z")
	s.has("pane 1 of 2")
	s.press("k", "k", "k")
	s.has("3 below: G follows again")
	s.lacks("test line 29")
	s.press("/", "fetch line 7", enter)
	s.has("fetch line 7", "below: G follows again")
	s.press("G", "t")
	s.has(":", "test line 29")
	s.press(esc)
	s.has("▶ at work: test")
	s.press("r", "x")
	s.has("Stop the run?")
	s.clock.add(time.Second)
	s.press("n")
	s.lacks("Stop the run?")
	close(hold)
	s.has("done      debian:13/x86_64: published", "done      debian:12/x86_64: published", "tags   12", "ended: 2 targets: 2 done")
	s.press(esc)
	s.has("✓ done: published")
	s.press("q")
	s.ends()
}

func TestADialogIsDeafAtFirst(t *testing.T) {
	c := &clock{now: time.Now()}
	e := newScripted(t)
	m := newModel(e, newStyles(lipgloss.NewRenderer(io.Discard)), must(e.Targets(engine.Selection{Levels: catalog.Levels})), c.Now)
	y := tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("y")}
	m.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("b")})
	m.Update(y)
	if m.dialog == nil || m.work != nil {
		t.Fatal("a key meant for the chart answered the dialog")
	}
	c.add(deaf)
	m.ctx = context.Background()
	m.Update(y)
	if m.dialog != nil || m.work == nil {
		t.Fatal("the dialog does not listen")
	}
	m.workers.Wait()
}

func TestAFailureComesFirst(t *testing.T) {
	e := newScripted(t)
	ok, bad := play("", nil), play("fetch", nil)
	e.run = func(ctx context.Context, sel engine.Selection, bus *event.Bus) (engine.Summary, error) {
		a, _ := ok(ctx, engine.Selection{Only: sel.Only[:1]}, bus)
		b, _ := bad(ctx, engine.Selection{Only: sel.Only[1:]}, bus)
		return engine.Summary{Results: append(a.Results, b.Results...)}, nil
	}
	s := show(t, e, 100, 30)
	s.has("can be built")
	s.press("b")
	s.has("Build")
	s.clock.add(time.Second)
	s.press(enter)
	text := s.has("FAILED    debian:12/x86_64: fetch: the mirror is gone", "what to do: name another with --mirror", "1 failed, 1 done")
	if strings.Index(text, "FAILED    ") > strings.Index(text, "done      ") {
		t.Errorf("the failure is not the first:\n%s", text)
	}
	s.press("s")
	s.has("✗ fetch: the mirror is gone")
	s.press(esc)
	s.has("✗ FAILED: fetch")
}

func TestPublishingInPublicNeedsTheWord(t *testing.T) {
	e := newScripted(t)
	started := make(chan struct{})
	e.dest = "quay.example.org/kmi"
	e.run = func(context.Context, engine.Selection, *event.Bus) (engine.Summary, error) {
		close(started)
		return engine.Summary{}, nil
	}
	s := show(t, e, 80, 24)
	s.has("can be built")
	s.press("b")
	s.has("type publish and enter")
	s.clock.add(time.Second)
	s.press("y", enter)
	s.has("type publish and enter: y")
	s.press("\x7f", "publish")
	s.has("type publish and enter: publish")
	select {
	case <-started:
		t.Fatal("it began without enter")
	default:
	}
	s.press(enter)
	<-started
}

func TestQuitWhileWorking(t *testing.T) {
	for _, how := range []string{"q", "\x03", "signal"} {
		e := newScripted(t)
		var ended sync.WaitGroup
		ended.Add(1)
		inner := play("", make(chan struct{}))
		e.run = func(ctx context.Context, sel engine.Selection, bus *event.Bus) (engine.Summary, error) {
			defer ended.Done()
			return inner(ctx, sel, bus)
		}
		s := show(t, e, 80, 24)
		s.has("can be built")
		s.press("b")
		s.has("Build")
		s.clock.add(time.Second)
		s.press("y")
		s.has("▶ test")
		if how == "signal" {
			s.cancel(errors.New("interrupted (terminated)"))
		} else {
			s.press(how)
			s.has("Work is running. Stop it and quit?")
			s.clock.add(time.Second)
			s.press("y")
		}
		s.ends()
		ended.Wait() // Run of the engine has returned before the console did
	}
}

// 50,000 lines a second for two seconds: the end is seen at once, memory stays bounded.
func TestAFloodOfLines(t *testing.T) {
	e := newScripted(t)
	e.run = func(_ context.Context, sel engine.Selection, bus *event.Bus) (engine.Summary, error) {
		scope := bus.Scope(sel.Only[0], "customise", "")
		scope.Start()
		for i := range 100_000 {
			scope.Log(fmt.Sprintf("line %d of a flood that nobody can read", i))
		}
		scope.End("through", nil)
		bus.Publish(event.Event{Target: sel.Only[0], Kind: event.Finished, Reason: "published"})
		return engine.Summary{Results: []engine.Result{{Target: sel.Only[0], State: event.Finished, Reason: "published"}}}, nil
	}
	s := show(t, e, 120, 40)
	s.has("can be built")
	s.press("b")
	s.has("Build")
	s.clock.add(time.Second)
	began := time.Now()
	s.press("y")
	s.has("done      debian:13/x86_64: published")
	t.Logf("100,000 lines were through after %s", time.Since(began))
	s.press("s")
	s.has("✓ customise:", "line 99999 of a flood")
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	if mem.HeapAlloc > 150<<20 {
		t.Errorf("%d MiB on the heap", mem.HeapAlloc>>20)
	}
}

// Whatever the size, no line is wider than the screen and there are not too many, and nothing panics.
func TestAnySize(t *testing.T) {
	r := lipgloss.NewRenderer(io.Discard)
	r.SetColorProfile(termenv.ANSI)
	e := newScripted(t)
	m := newModel(e, newStyles(r), must(e.Targets(engine.Selection{Levels: catalog.Levels})), time.Now)
	m.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("a")})
	rnd := rand.New(rand.NewSource(1))
	w := &work{began: time.Now(), cancel: func(error) {}}
	for i := range 5 {
		w.panes = append(w.panes, &pane{target: fmt.Sprintf("debian:%d/x86_64", i), stages: map[engine.Stage]event.Event{}})
	}
	m.work = w
	keys := []string{"b", "p", "?", "esc", "z", "w", "t", "tab", "k", "j", "g", "G", "s", "r", "x", "/", "n", "q", " ", "right", "enter"}
	for i := range 6000 {
		m.Update(tea.WindowSizeMsg{Width: rnd.Intn(300), Height: rnd.Intn(100)})
		target := w.panes[rnd.Intn(5)].target
		stage := engine.Stages[rnd.Intn(len(engine.Stages))]
		kinds := []event.Kind{event.Started, event.Progress, event.Log, event.Finished, event.Skipped, event.Failed}
		m.Update(happened{[]event.Event{{Time: time.Now(), Target: target, Stage: string(stage), Kind: kinds[rnd.Intn(len(kinds))], Done: rnd.Int63n(100), Total: 100, Unit: "bytes",
			Line: strings.Repeat("日本 wide ✓ ", rnd.Intn(20)), Error: strings.Repeat("long error ", rnd.Intn(20)), Reason: "so"}}})
		switch rnd.Intn(12) {
		case 0:
			m.show = onChart
		case 1:
			m.show = onWork
		case 2:
			w.done = !w.done
			w.result = w.done
			w.summary = engine.Summary{Results: []engine.Result{{Target: target, State: event.Failed, Error: strings.Repeat("x", 300)}}}
		}
		if k := keys[rnd.Intn(len(keys))]; m.dialog == nil && m.input == nil || rnd.Intn(3) == 0 {
			msg := tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)}
			switch k {
			case "esc":
				msg = tea.KeyMsg{Type: tea.KeyEsc}
			case "tab":
				msg = tea.KeyMsg{Type: tea.KeyTab}
			case "right":
				msg = tea.KeyMsg{Type: tea.KeyRight}
			case "enter":
				msg = tea.KeyMsg{Type: tea.KeyEnter}
			}
			if m.dialog != nil && (k == "enter" || k == "b") {
				m.dialog = nil // a run is not started here
			} else {
				m.Update(msg)
			}
		}
		view := m.View()
		lines := strings.Split(view, "\n")
		if m.height > 0 && len(lines) > m.height {
			t.Fatalf("step %d: %d lines on %dx%d", i, len(lines), m.width, m.height)
		}
		for _, l := range lines {
			if width := lipgloss.Width(l); width > m.width {
				t.Fatalf("step %d: a line of %d columns on %dx%d: %q", i, width, m.width, m.height, l)
			}
		}
	}
	m.workers.Wait()
}

func BenchmarkFrame(b *testing.B) {
	e := newScripted(b)
	m := newModel(e, newStyles(lipgloss.NewRenderer(io.Discard)), must(e.Targets(engine.Selection{Levels: catalog.Levels})), time.Now)
	m.Update(tea.WindowSizeMsg{Width: 200, Height: 60})
	p := &pane{target: "debian:12/x86_64", stages: map[engine.Stage]event.Event{}}
	m.work, m.show = &work{panes: []*pane{p}, began: time.Now()}, onWork
	for i := range maxLines {
		p.log.add(line{time.Now(), "customise", fmt.Sprintf("line %d of a long log with some text in it", i)})
	}
	b.ResetTimer()
	for range b.N {
		m.Update(happened{[]event.Event{{Time: time.Now(), Target: p.target, Stage: "customise", Kind: event.Log, Line: "one more"}}})
		_ = m.View()
	}
}
