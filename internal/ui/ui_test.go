package ui

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// down moves the chart's cursor to Debian.
var toDebian = []string{"/", "debian", "enter"}

func TestFirstFrameShowsEveryRow(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {120, 40}, {200, 60}} {
		x := open(t, newScript(), size[0], size[1])
		s := x.wait("KubeVirt Machine Images › release chart", "publishes to dir:images", "? help", "q quit")
		for _, f := range chart19().Flavors {
			if !strings.Contains(s, f.Name) {
				t.Errorf("%v: no %s:\n%s", size, f.Name, s)
			}
		}
		for _, text := range []string{"preview", "planned", "x86_64 arm64", "13, 12", "26.04, 24.04", "○ ready", "· not supported yet", "[ ] ▸ Debian",
			"AlmaLinux OS: not supported yet: its upstream is not described in distros.toml"} {
			if size[0] > 80 && strings.HasPrefix(text, "AlmaLinux OS:") {
				text = "· not supported yet"
			}
			if size[0] == 80 && text == "x86_64 arm64" {
				continue // no room
			}
			if !strings.Contains(s, text) {
				t.Errorf("%v: no %q:\n%s", size, text, s)
			}
		}
		if size[0] > 80 && !strings.Contains(s, "https://almalinux.example/licence") {
			t.Errorf("%v: the room is not used for details:\n%s", size, s)
		}
	}
}

func TestSmallTerminal(t *testing.T) {
	x := open(t, newScript(), 40, 12)
	x.wait("kmi-tui › release chart", "AlmaLinux OS", "13 below", "? help", "AlmaLinux OS: not supported yet: its", "upstream is not described in")
	x.press("G")
	x.wait("VyOS", "13 above")
	x.press("g", "j", "j", "j", "j", "j", "space")
	x.wait("[x] ▸ Debian", "○ ready", "2 targets selected")
	x.press("b")
	x.wait("Publish 2 targets to dir:images?", "debian:13/x86_64", "kmi-tui --batch --only", "y or enter: publish")
	x.answer("Publish ", "y")
	x.wait("how the run ended", "✓ published")
}

func TestResizeIsFollowed(t *testing.T) {
	x := open(t, newScript(), 80, 24)
	x.wait("release chart")
	x.size(120, 40)
	// The terminal is not this process's controlling one: the kernel's signal has to be made.
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	x.wait("── details ──", "https://almalinux.example")
}

func TestSelectUnfoldFilter(t *testing.T) {
	x := open(t, newScript(), 80, 24)
	x.wait("release chart")
	x.press("space") // AlmaLinux cannot be built
	x.wait("select: AlmaLinux OS: not supported yet")
	x.press("/")
	x.wait("filter:")
	x.press("deb")
	x.wait("filter: deb", "Debian")
	x.gone("Ubuntu")
	x.press("enter")
	x.wait("“deb”: 1 of 19 rows")
	x.press("enter") // unfolds
	x.wait("▾ Debian", "13 code13", "13/x86_64", "12/arm64", "· not supported yet")
	x.press("j", "j", "j", "space")
	x.wait("select: debian:13/arm64: not supported yet: building for arm64")
	x.press("j", "space") // a whole release: what of it can be built
	x.wait("[-] ▾ Debian", "[x]     12 code12", "[x]       12/x86_64", "1 target selected")
	x.press("esc")
	x.wait("Ubuntu", "5 above · 1 below") // the cursor stays where it is on the screen
	x.press("a")
	x.wait("4 targets selected", "[x] ▾ Debian")
	x.press("a")
	x.wait("nobody has looked yet", "[ ] ▾ Debian")
	x.press("left")
	x.wait("▸ Debian", "[ ] ▸ Ubuntu")
	x.press("/", "zzz")
	x.wait("no row matches “zzz”")
	x.press("esc")
	x.wait("AlmaLinux OS")
	if n := len(x.ended); n != 0 {
		t.Fatal("the console has ended")
	}
}

func TestKeysComeTogether(t *testing.T) {
	x := open(t, newScript(), 80, 24)
	x.wait("release chart")
	x.press("jjjjj aa ") // as fast as a machine types
	x.wait("[x] ▸ Debian", "2 targets selected")
}

func TestPlan(t *testing.T) {
	s := newScript()
	hold := make(chan struct{})
	made := s.plan
	s.plan = func(ctx context.Context, s *script, targets []string) ([]engine.Plan, error) {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return made(ctx, s, targets)
	}
	x := open(t, s, 80, 24)
	x.wait("release chart")
	x.press(append(toDebian, "p")...)
	x.wait("Asking upstream and registry", "debian:13/x86_64", "◌ waiting", "● planning")
	x.press("b")
	x.wait("build: a plan is being made")
	x.press("esc")
	x.wait("the plan was cancelled")
	x.until("end of the plan", func(string) bool { x.press("p"); return strings.Contains(x.screen(), "Asking upstream") })
	close(hold)
	x.wait("● build", "the guest has changed", "– nothing to do", "verified 4D64FEC119C2029067D6E791F8D2585B8783D481", "2026-11-20 08:30 UTC", "312 MiB", "build: 1 · nothing to do: 1")
	x.press("j")
	x.wait("── debian:12/x86_64", "nothing to do: content 0123456789ab is published")
	x.press("y")
	x.wait("(OSC 52): kmi-tui --batch --plan --only deb…")
	x.press("esc")
	x.wait("release chart")
}

func TestPlanThatCannotBeMade(t *testing.T) {
	s := newScript()
	s.plan = func(context.Context, *script, []string) ([]engine.Plan, error) {
		return nil, event.WithRemedy(errors.New("gpgv is not installed"), "apt install gpgv")
	}
	x := open(t, s, 80, 24)
	x.wait("release chart")
	x.press(append(toDebian, "p")...)
	x.wait("The plan could not be made", "gpgv is not installed", "what to do: apt install gpgv")
}

func TestBuildIsConfirmed(t *testing.T) {
	s := newScript()
	x := open(t, s, 80, 24, func(o *Options) { o.Flags = []string{"--base", "built"} })
	x.wait("release chart")
	x.press(append(toDebian, "b", "y")...) // the y comes before the question can have been read
	x.wait("Publish 2 targets to dir:images?", "debian:13/x86_64", "debian:12/x86_64", "kmi-tui --batch --only debian/x86_64 --registry dir:images --base built")
	x.clock.advance(2 * deaf)
	x.press("z", "esc")
	x.gone("Publish 2")
	if len(s.runs()) != 0 {
		t.Fatal("a key that came too early has started a run")
	}
	x.press("b")
	x.answer("Publish 2 targets", "enter")
	x.wait("how the run ended", "debian:13/x86_64", "✓ published", "2 published")
	if runs := s.runs(); len(runs) != 1 || strings.Join(runs[0].Only, ",") != "debian/x86_64" {
		t.Fatalf("ran %v", runs)
	}
	x.press("esc")
	x.wait("release chart", "✓ published")
	x.press("r")
	x.wait("how the run ended")
}

func TestEnterOnSelectionBuilds(t *testing.T) {
	x := open(t, newScript(), 80, 24)
	x.wait("release chart")
	x.press(append(toDebian, "right", "j", "j", "enter")...)
	x.wait("[x]       13/x86_64")
	x.press("enter")
	x.wait("Publish 1 target to dir:images?", "--only debian:13/x86_64")
}

func TestRemotePublishIsTyped(t *testing.T) {
	s := newScript()
	s.destination = "registry.example/kmi"
	x := open(t, s, 80, 24)
	x.wait("release chart", "publishes to registry.example/kmi")
	x.press(append(toDebian, "b")...)
	x.wait("Publish 2 targets to registry.example/kmi?", "Others can pull", "type publish and press enter:")
	x.answer("type publish", "y", "enter")
	x.wait("enter: y", "not “publish”")
	x.press("ctrl+u", "\x1b[200~publish\x1b[201~", "enter") // pasted
	x.gone("enter: y")
	x.press("publis")
	x.wait("enter: publis")
	x.press("enter", "h")
	x.wait("enter does it")
	if len(s.runs()) != 0 {
		t.Fatal("it was started before the word was complete")
	}
	x.press("enter")
	x.wait("how the run ended", "2 published")
}

func TestRunThatDoesNotStart(t *testing.T) {
	s := newScript()
	s.run = func(context.Context, *script, []string) (engine.Summary, error) {
		return engine.Summary{}, &engine.NotStarted{Err: event.WithRemedy(errors.New("mmdebstrap is not on PATH"), "apt install mmdebstrap")}
	}
	x := open(t, s, 80, 24)
	x.wait("release chart")
	x.press(append(toDebian, "b")...)
	x.answer("Publish ", "y")
	x.wait("✗ The run did not start", "mmdebstrap is not on PATH", "what to do: apt install mmdebstrap")
	x.press("esc")
	x.wait("release chart", "not started")
}

func TestFailuresComeFirst(t *testing.T) {
	s := newScript()
	s.run = func(_ context.Context, s *script, targets []string) (engine.Summary, error) {
		var sum engine.Summary
		for i, target := range targets {
			bad, why := "", error(nil)
			if i == 1 {
				bad, why = "test", event.WithRemedy(errors.New("the guest agent did not answer within 300 s"), "look at the guest's console")
			}
			sum.Results = append(sum.Results, s.target(target, bad, why))
		}
		return sum, nil
	}
	x := open(t, s, 120, 40)
	x.wait("release chart")
	x.press("a", "b")
	x.answer("Publish 4 targets", "y")
	screen := x.wait("how the run ended", "resolve  fetch  customise", "✗ failed", "test: the guest agent did not answer within 300 s", "what to do  look at the guest's console", "/cache/logs/test.log",
		"1 failed · 3 published", "dir:images/x@sha256:0123456789abcdef", "13, 13-20261123")
	if strings.Index(screen, "debian:12/x86_64") > strings.Index(screen, "debian:13/x86_64") {
		t.Errorf("the failure is not first:\n%s", screen)
	}
	x.press("enter")
	x.wait("log of debian:12/x86_64", "test works on debian:12/x86_64", "✗ test: failed after", "what to do: look at the guest's console")
	x.press("Y")
	x.wait("(OSC 52): /cache/logs/test.log")
	x.press("esc")
	x.wait("how the run ended")
	x.press("esc")
	x.wait("✗ 1 of 2 failed")
	x.press("i")
	x.gone("release chart")
}

// held is a run whose steps the test makes.
type held struct {
	step chan func(*script, []string)
	end  chan engine.Summary
}

func hold(s *script) *held {
	h := &held{step: make(chan func(*script, []string)), end: make(chan engine.Summary, 1)}
	s.run = func(ctx context.Context, s *script, targets []string) (engine.Summary, error) {
		for _, t := range targets {
			s.bus.Publish(event.Event{Target: t, Kind: event.Started})
		}
		var results []engine.Result
		for {
			select {
			case f := <-h.step:
				f(s, targets)
			case sum := <-h.end:
				return sum, nil
			case <-ctx.Done():
				for _, t := range targets {
					e := event.Event{Target: t, Kind: event.Failed, Error: context.Cause(ctx).Error()}
					s.bus.Publish(e)
					results = append(results, engine.Result{Target: t, State: event.Failed, Error: e.Error})
				}
				return engine.Summary{Results: results}, nil
			}
		}
	}
	return h
}

func start(t *testing.T, s *script, w, h int, keys ...string) *terminalTest {
	t.Helper()
	x := open(t, s, w, h)
	x.wait("release chart")
	x.press(append(keys, "b")...)
	x.answer("Publish ", "y")
	x.wait("● run: 0 of")
	return x
}

func TestPanes(t *testing.T) {
	s := newScript()
	h := hold(s)
	x := start(t, s, 120, 40, "a")
	h.step <- func(s *script, targets []string) {
		for i, target := range targets {
			scope := s.bus.Scope(target, "resolve", "")
			scope.Start()
			scope.End("", nil)
			scope = s.bus.Scope(target, "fetch", "")
			scope.Start()
			scope.Logf("line of %s", target)
			if i == 0 {
				scope.Progress(512<<20, 1<<30, "bytes")
			}
		}
	}
	screen := x.wait("✓ resolve  ● fetch  ○ customise  ○ pack  ○ test  ○ sign  ○ publish", "50%  512 MiB of 1.0 GiB", "line of ubuntu:24.04/x86_64", "4 targets", "following")
	if strings.Count(screen, "╭") != 4 {
		t.Errorf("not four panes:\n%s", screen)
	}
	x.press("z")
	x.wait("log of debian:13/x86_64")
	x.press("tab")
	x.wait("log of debian:12/x86_64", "line of debian:12/x86_64")
	x.press("shift+tab", "shift+tab")
	x.wait("log of ubuntu:24.04/x86_64")
	x.press("z")
	x.wait("run of 4 targets")
	// The chart lives on during the run.
	x.press("esc")
	x.wait("release chart", "● running fetch", "run: 0 of 4 targets done")
	x.press("p")
	x.wait("plan: a run is under way")
	x.press("r")
	x.wait("run of 4 targets")
}

func TestOnePaneAtATime(t *testing.T) {
	s := newScript()
	h := hold(s)
	x := start(t, s, 40, 12, "a")
	h.step <- func(s *script, targets []string) {
		for _, target := range targets {
			scope := s.bus.Scope(target, "resolve", "")
			scope.Start()
			scope.Logf("line of %s", target)
		}
	}
	x.wait("… 3 more of 4: 3 running", "line of debian:13/x86_64", "resolve running, 1 of 7")
	x.press("tab")
	x.wait("debian:12/x86_64  ●", "line of debian:12/x86_64")
}

func TestLogs(t *testing.T) {
	s := newScript()
	h := hold(s)
	x := start(t, s, 80, 24, append(toDebian, "right", "j", "j", "space")...)
	lines := func(from, to int, tail string) {
		h.step <- func(s *script, targets []string) {
			scope := s.bus.Scope(targets[0], "test", "")
			for i := from; i < to; i++ {
				scope.Logf("line %d of the guest%s", i, tail)
			}
		}
	}
	lines(0, 500, "")
	x.wait("line 499 of the guest", "following · 500 lines")
	x.press("k", "pgup")
	x.wait("below")
	x.gone("line 499")
	lines(500, 600, "")
	x.wait("of 600")
	if strings.Contains(x.screen(), "line 599") {
		t.Error("it did not stay where it was put")
	}
	x.press("G")
	x.wait("line 599 of the guest", "following · 600 lines")
	x.press("/", "line 77 ", "enter")
	x.wait("line 77 of the guest", "“line 77 ”: 1 of 1, line 78 of 600")
	x.press("/", "LINE 77", "enter")
	x.wait("“LINE 77” is in none of the 600 lines")
	x.press("/", "line 4", "enter")
	x.wait("“line 4”: 12 of 111, line 401 of 600")
	x.press("n")
	x.wait("“line 4”: 13 of 111, line 402 of 600")
	x.press("N", "N")
	x.wait("“line 4”: 11 of 111, line 50 of 600")
	x.press("esc") // forgets the search
	x.gone("line 50 of 600")
	x.press("f")
	x.wait("following")
	lines(600, 601, strings.Repeat(" and so on", 20)+" to its_END")
	x.wait("line 600 of the guest", "…")
	x.press("w")
	x.wait("its_END", "wrapped")
	x.press("t")
	x.until("timestamps", func(s string) bool { return strings.Contains(s, ":"+s[:0]) && strings.Count(s, ":") > 20 })
	x.press("w", "t")
	x.gone("its_END")
	x.press("right", "right", "right", "right", "right", "right", "right", "right", "right", "right")
	x.wait("its_END")
}

func TestCancel(t *testing.T) {
	s := newScript()
	hold(s)
	x := start(t, s, 80, 24, "a")
	x.press("x")
	x.answer("Cancel the run?", "esc")
	x.gone("Cancel the run?")
	x.press("ctrl+c")
	x.answer("Cancel the run?", "ctrl+c")
	x.wait("how the run ended", "cancelled in the console", "run ended: 4 failed")
	x.press("q")
	if err := x.end(); err != nil {
		t.Fatal(err)
	}
}

// A run can end early: nothing is published then, and the command line says so.
func TestRunUpToAStage(t *testing.T) {
	s := newScript()
	h := hold(s)
	x := open(t, s, 120, 40)
	x.wait("release chart")
	x.press("a", "B")
	x.wait("run up to (resolve, fetch,")
	x.press("b", "o", "o", "t", "enter")
	x.wait("“boot” is no stage")
	x.press("B", "t", "e", "s", "t", "enter")
	x.wait("up to test?", "-until test", "What is finished is kept")
	x.answer("up to test?", "y")
	x.wait("● run: 0 of")
	s.mu.Lock()
	ran := s.ran[0]
	s.mu.Unlock()
	if ran.Until != engine.Test {
		t.Errorf("%+v", ran)
	}
	h.end <- engine.Summary{}
	x.wait("how the run ended")
	x.press("q")
	if err := x.end(); err != nil {
		t.Fatal(err)
	}
}

// One target is cancelled alone; what failed is run again, and nothing else.
func TestCancelOneAndRetry(t *testing.T) {
	s := newScript()
	h := hold(s)
	x := start(t, s, 120, 40, "a")
	x.press("X")
	x.answer("Cancel ", "y")
	x.wait("waiting for its programs to end")
	s.mu.Lock()
	cancelled := slices.Clone(s.cancelled)
	s.mu.Unlock()
	if len(cancelled) != 1 {
		t.Fatalf("%v", cancelled)
	}
	var sum engine.Summary
	for _, name := range s.names(s.ran[0]) {
		r := engine.Result{Target: name, State: event.Finished, Reason: "published"}
		if name == cancelled[0] {
			r.State, r.Reason, r.Error = event.Failed, "", "cancelled in the console"
		}
		sum.Results = append(sum.Results, r)
	}
	h.end <- sum
	x.wait("how the run ended", "1 failed")
	x.press("A")
	x.answer("Run 1 failed target again?", "y")
	x.wait("● run: 0 of")
	s.mu.Lock()
	again := s.ran[len(s.ran)-1]
	s.mu.Unlock()
	if !slices.Equal(again.Only, cancelled) {
		t.Errorf("%v", again)
	}
	h.end <- engine.Summary{Results: []engine.Result{{Target: cancelled[0], State: event.Finished}}}
	x.wait("how the run ended")
	x.press("M")
	x.wait("clicks and the wheel work here")
	x.press("q")
	if err := x.end(); err != nil {
		t.Fatal(err)
	}
}

func TestQuit(t *testing.T) {
	s := newScript()
	x := open(t, s, 80, 24)
	x.wait("release chart")
	x.press("q")
	if err := x.end(); err != nil {
		t.Fatal(err)
	}
	restored(t, x)

	x = open(t, s, 80, 24)
	x.wait("release chart")
	x.press("ctrl+c")
	if err := x.end(); err != nil {
		t.Fatal(err)
	}
}

// restored checks that the terminal is as it was: cooked, on its main screen, with its cursor.
func restored(t *testing.T, x *terminalTest) {
	t.Helper()
	x.until("main screen", func(s string) bool {
		x.vt.Lock()
		defer x.vt.Unlock()
		return x.vt.CursorVisible() && !strings.Contains(s, "release chart")
	})
	var attr *unix.Termios
	x.control(func(fd int) (err error) { attr, err = unix.IoctlGetTermios(fd, unix.TCGETS); return err })
	if attr.Lflag&unix.ECHO == 0 || attr.Lflag&unix.ICANON == 0 {
		t.Error("the terminal was left raw")
	}
}

// stubborn is a run that takes its time to end after it was cancelled.
func stubborn(s *script) (cancelled, release chan struct{}) {
	cancelled, release = make(chan struct{}), make(chan struct{})
	s.run = func(ctx context.Context, s *script, targets []string) (engine.Summary, error) {
		s.bus.Publish(event.Event{Target: targets[0], Kind: event.Started})
		<-ctx.Done()
		close(cancelled)
		<-release
		return engine.Summary{Results: []engine.Result{{Target: targets[0], State: event.Failed, Error: context.Cause(ctx).Error()}}}, nil
	}
	return cancelled, release
}

func TestQuitWaitsForTheRun(t *testing.T) {
	s := newScript()
	cancelled, release := stubborn(s)
	x := start(t, s, 80, 24, toDebian...)
	x.press("q")
	x.answer("A run is under way: leave?", "n")
	x.gone("leave?")
	x.press("q")
	x.answer("A run is under way: leave?", "y")
	<-cancelled
	x.wait("Stopping …")
	x.press("ctrl+c", "ctrl+c", "q", "y")
	select {
	case err := <-x.ended:
		t.Fatalf("the console ended before its run: %v", err)
	default:
	}
	close(release)
	if err := x.end(); err != nil {
		t.Fatal(err)
	}
	if s.ends != 1 {
		t.Error("the run has not ended")
	}
	restored(t, x)
}

func TestSignalEndsTheConsole(t *testing.T) {
	s := newScript()
	cancelled, release := stubborn(s)
	x := start(t, s, 80, 24, toDebian...)
	why := errors.New("interrupted (terminated)")
	x.cancel(why)
	<-cancelled
	x.wait("Stopping …")
	close(release)
	if err := x.end(); !errors.Is(err, why) {
		t.Fatalf("ended with %v", err)
	}
	restored(t, x)
}

func TestRestoreGivesTheTerminalBackAtOnce(t *testing.T) {
	Restore() // nothing to do
	s := newScript()
	_, release := stubborn(s)
	x := start(t, s, 80, 24, toDebian...)
	x.cancel(errors.New("interrupted"))
	x.wait("Stopping …")
	Restore() // the second signal
	restored(t, x)
	close(release)
	if err := x.end(); err == nil {
		t.Error("no error")
	}
}

func TestPanicOfTheEngineIsAnError(t *testing.T) {
	s := newScript()
	s.run = func(context.Context, *script, []string) (engine.Summary, error) { panic("a bug") }
	x := open(t, s, 80, 24)
	x.wait("release chart")
	x.press(append(toDebian, "b")...)
	x.answer("Publish ", "y")
	x.wait("The run did not start", "a mistake in this program: a bug")
	x.press("q")
	if err := x.end(); err != nil {
		t.Fatal(err)
	}
}

// badCatalogue panics when the console draws its title, after the first frames.
type badCatalogue struct {
	*script
	bad chan struct{}
}

func (b *badCatalogue) Destination() string {
	select {
	case <-b.bad:
		panic("a bug in the view")
	default:
		return b.script.Destination()
	}
}

func TestPanicRestoresTheTerminal(t *testing.T) {
	s := newScript()
	hold(s)
	b := &badCatalogue{s, make(chan struct{})}
	x := open(t, b, 80, 24)
	x.wait("release chart")
	x.press(append(toDebian, "b")...)
	x.answer("Publish ", "y")
	x.wait("run: 0 of")
	close(b.bad)
	x.press("j")
	if err := x.end(); err == nil || !strings.Contains(err.Error(), "a bug in the view") {
		t.Fatalf("ended with %v", err)
	}
	if s.ends != 1 {
		t.Error("the run goes on")
	}
	restored(t, x)
}

func TestHelpListsEveryBinding(t *testing.T) {
	x := open(t, newScript(), 130, 130)
	x.wait("release chart")
	x.press("?")
	s := x.wait("here: chart", "everywhere", "interrupt question")
	for _, a := range bindings() {
		found := len(a.keys) == 0 // by its name only
		for line := range strings.SplitSeq(s, "\n") {
			if strings.Contains(line, a.keyNames()) && strings.Contains(line, a.help) {
				found = true
			}
		}
		if !found {
			t.Errorf("no %q with %q in the help:\n%s", a.name, a.keyNames(), s)
		}
	}
	if !strings.Contains(s, "not now: nothing is running") {
		t.Errorf("the help does not say why something cannot be done:\n%s", s)
	}
	x.press("/", "timestamps", "enter")
	x.gone("unfold")
	x.wait("show when each line came")
	x.press("esc", "esc") // together, they come as one key with Alt
	x.wait("release chart")
}

func TestPalette(t *testing.T) {
	x := open(t, newScript(), 80, 24)
	x.wait("release chart")
	x.press(":")
	x.wait("command:", "select all")
	x.press("select all")
	x.gone("half page")
	x.press("enter")
	x.wait("4 targets selected")
	x.press(":", "cancel", "enter")
	x.wait("cancel: nothing is running")
	x.press(":", "esc")
	x.wait("release chart")
}

func TestEveryKeyMeansOneThing(t *testing.T) {
	for _, s := range scopes {
		seen := map[string]string{}
		for _, a := range bindings() {
			if a.in&s.scope == 0 {
				continue
			}
			for _, k := range a.keys {
				if seen[k] != "" {
					t.Errorf("%s: %q means %q and %q", s.name, k, seen[k], a.name)
				}
				seen[k] = a.name
			}
			if a.shy && a.why == nil {
				t.Errorf("%q is shy without a reason", a.name)
			}
			if width(a.help) > 62 {
				t.Errorf("%q: its help is too long for 80 columns", a.name)
			}
		}
	}
}

func TestCopyIsASequenceOfItsOwn(t *testing.T) {
	var got strings.Builder
	o := newOutput(&got)
	if err := o.copy("kmi-tui --batch"); err != nil {
		t.Fatal(err)
	}
	if got.String() != "\x1b]52;c;a21pLXR1aSAtLWJhdGNo\x07" {
		t.Errorf("%q", got.String())
	}
}

func TestMessagesOfTheRun(t *testing.T) {
	s := newScript()
	h := hold(s)
	x := start(t, s, 80, 24, toDebian...)
	h.step <- func(s *script, _ []string) {
		s.bus.Scope("", "", "").Log("A signing key pair was generated for you")
	}
	x.wait("1 message: m", "● run: 0 of 2 targets done")
	x.press("m")
	x.wait("A signing key pair was generated for you", "run started: kmi-tui --batch")
	x.press("esc")
	x.gone("1 message")
	h.end <- engine.Summary{Results: []engine.Result{{Target: "debian:13/x86_64", State: event.Skipped, Reason: "nothing to do: content 01 is published"}, {Target: "debian:12/x86_64", State: event.Finished, Reason: "published"}}}
	x.wait("how the run ended", "– nothing to do", "content 01 is published", "1 published · 1 with nothing to do")
}

func TestRunEndsWhileALogIsRead(t *testing.T) {
	s := newScript()
	h := hold(s)
	x := start(t, s, 80, 24, toDebian...)
	x.press("z")
	x.wait("log of debian")
	h.end <- engine.Summary{Results: []engine.Result{{Target: "debian:13/x86_64", State: event.Finished, Reason: "published"}, {Target: "debian:12/x86_64", State: event.Finished, Reason: "published"}}}
	x.wait("log of debian", "run ended: 2 published")
	x.press("esc")
	x.wait("how the run ended")
}

func TestLostTerminalEndsTheRun(t *testing.T) {
	s := newScript()
	hold(s)
	x := start(t, s, 80, 24, toDebian...)
	_ = x.master.Close()
	err := x.end()
	if s.ends != 1 {
		t.Errorf("the run goes on; the console ended with %v", err)
	}
	if err == nil {
		t.Error("no error")
	}
}

// A build that talks as fast as it can neither loses how it ended nor eats memory, and its keys still work.
func TestFlood(t *testing.T) {
	const rate, pieces = 50_000, 100 // lines a second, batches a second
	duration := 3 * time.Second
	if testing.Short() {
		duration = time.Second
	}
	s := newScript()
	paused, resume, end := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s.run = func(ctx context.Context, s *script, targets []string) (engine.Summary, error) {
		var sum engine.Summary
		scope := s.bus.Scope(targets[0], "customise", "")
		s.bus.Publish(event.Event{Target: targets[0], Kind: event.Started})
		scope.Start()
		tick := time.NewTicker(time.Second / pieces)
		defer tick.Stop()
		for n := range int(duration.Seconds() * pieces) {
			<-tick.C
			for i := range rate / pieces {
				scope.Logf("%d.%d unpacking a package with a name of a usual length (1.2.3-4+deb13u1) over the old one", n, i)
			}
			scope.Progress(int64(n), int64(duration.Seconds()*pieces), "packages")
			if n == pieces/2 {
				close(paused)
				<-resume
			}
		}
		<-end
		scope.End("", errors.New("the very end"))
		for _, t := range targets {
			sum.Results = append(sum.Results, engine.Result{Target: t, State: event.Failed, Error: "customise: the very end of " + t})
		}
		return sum, nil
	}
	x := open(t, s, 120, 40)
	x.wait("release chart")
	x.press(append(toDebian, "b")...)
	x.answer("Publish ", "y")
	<-paused
	x.wait(fmt.Sprintf("%d.%d unpacking", pieces/2, rate/pieces-1))
	x.press("z", "k")
	x.wait("log of debian:13/x86_64", "below")
	close(resume)
	x.press("G")
	x.wait("following")
	close(end)
	x.press("z")
	x.wait("how the run ended", "the very end of debian:13/x86_64", "the very end of debian:12/x86_64", "2 failed")
	x.press("enter")
	x.wait("✗ customise: failed after", "the very end")
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	t.Logf("%d MiB of heap", mem.HeapAlloc>>20)
	if mem.HeapAlloc > 128<<20 {
		t.Errorf("%d MiB of heap", mem.HeapAlloc>>20)
	}
}
