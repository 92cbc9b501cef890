package linear

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/ui"
)

// script is an engine that does what a test tells it, with real events on a real bus.
type script struct {
	engine.Desk
	catalog     *catalog.Catalog
	bus         *event.Bus
	destination string
	run         func(ctx context.Context, s *script, targets []string) engine.Summary
	known       map[string]engine.Known

	cancelled []string
	mu        sync.Mutex
	ran       [][]string
}

func newScript() *script {
	both := []catalog.Arch{catalog.X86_64, catalog.ARM64}
	return &script{bus: event.NewBus(nil), destination: "dir:images", run: quick, known: map[string]engine.Known{}, catalog: &catalog.Catalog{Project: catalog.Project{Name: "KubeVirt Machine Images"}, Flavors: []catalog.Flavor{
		{ID: "debian", Name: "Debian", Level: catalog.Preview, Arch: both, Releases: []catalog.Release{{Version: "13"}, {Version: "12"}}, Home: "https://debian.example", Origin: &catalog.Origin{Kind: "packages"}},
		{ID: "neutrino", Name: "Neutrino", Level: catalog.Planned, Arch: both},
	}}}
}

func (s *script) Catalog() *catalog.Catalog               { return s.catalog }
func (s *script) Subscribe() *engine.Subscription         { return s.bus.Subscribe() }
func (s *script) Transcript(t string) *engine.Transcript  { return s.bus.Transcript(t) }
func (s *script) Destination() string                     { return s.destination }
func (s *script) Logs() string                            { return "/cache/logs/1" }
func (s *script) Known() (map[string]engine.Known, error) { return s.known, nil }
func (s *script) History(int) ([]engine.PastRun, error)   { return nil, nil }
func (s *script) Image(context.Context, string) (engine.Image, error) {
	return engine.Image{}, nil
}
func (s *script) runs() [][]string { s.mu.Lock(); defer s.mu.Unlock(); return slices.Clone(s.ran) }
func (s *script) Targets(engine.Selection) (list []engine.Target, err error) {
	f := &s.catalog.Flavors[0]
	for r := range f.Releases {
		for _, a := range f.Arch {
			t := engine.Target{Flavor: f, Release: &f.Releases[r], Arch: a}
			if a == catalog.ARM64 {
				t.Unsupported = "it is emulated on this machine"
			}
			list = append(list, t)
		}
	}
	return list, nil
}

func (s *script) Plan(_ context.Context, sel engine.Selection) (plans []engine.Plan, err error) {
	for i, t := range sel.Only {
		scope := s.bus.Scope(t, "resolve", "")
		scope.Start()
		p := engine.Plan{Target: t, Action: engine.Build, Reason: "the guest has changed"}
		if i > 0 {
			p.Action, p.Reason, p.Remedy = engine.Fail, "the archive cannot be reached", "check the network"
		}
		scope.End(p.Reason, nil)
		plans = append(plans, p)
	}
	return plans, nil
}

func (s *script) Cancel(target string, cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancelled = append(s.cancelled, target)
	return true
}

func (s *script) Promotion(_ context.Context, ask engine.Ask) (*engine.Promotion, error) {
	if ask.Flavor != "debian" {
		return nil, errors.New("nothing is known of it")
	}
	return &engine.Promotion{Flavor: ask.Flavor, To: ask.To, Criteria: []engine.Criterion{{ID: "published", Text: "it is published", State: engine.Proven, Evidence: "sha256:01"}, {ID: "reliable", Text: "runs went well", State: engine.Unproven, Evidence: "1 of four\x1b[2J"}}}, nil
}

func (s *script) TryMe(_ context.Context, selector string) (*engine.TryMe, error) {
	if selector != "debian" {
		return nil, errors.New("nothing is published")
	}
	return &engine.TryMe{Flavor: "debian", Name: "debian-13", Secret: "debian-13-key", User: "debian", Machines: []catalog.Arch{catalog.X86_64}, Create: []string{"virtctl create vm"}, Keep: []string{"virtctl create vm --keep"}}, nil
}

func (s *script) Look(ctx context.Context, each func(engine.Plan)) error {
	plans, err := s.Plan(ctx, engine.Selection{Only: []string{"debian:13/x86_64", "debian:12/x86_64"}})
	for _, p := range plans {
		each(p)
	}
	return err
}

func (s *script) Run(ctx context.Context, sel engine.Selection) (engine.Summary, error) {
	s.mu.Lock()
	s.ran = append(s.ran, sel.Only)
	s.mu.Unlock()
	return s.run(ctx, s, sel.Only), nil
}

// quick fetches every target, with much progress, and fails the second.
func quick(_ context.Context, s *script, targets []string) (sum engine.Summary) {
	for i, t := range targets {
		scope := s.bus.Scope(t, "fetch", "")
		scope.Start()
		for n := range 100 {
			s.bus.Publish(event.Event{Target: t, Stage: "fetch", Kind: event.Progress, Done: int64(n + 1), Total: 100, Unit: "packages"})
			scope.Logf("package %d \x1b[31m", n)
		}
		var err error
		r := engine.Result{Target: t, State: event.Finished, Reason: "published", Tags: []string{"13"}}
		if i == 1 {
			err = event.WithRemedy(errors.New("it is gone\nfor good"), "name a mirror")
			r = engine.Result{Target: t, State: event.Failed, Error: "fetch: it is gone", Remedy: "name a mirror"}
		}
		e := scope.End("100 packages", err)
		r.Stages = []engine.StageTime{{Stage: engine.Fetch, State: e.Kind, Seconds: 2}}
		s.bus.Publish(event.Event{Target: t, Kind: r.State, Reason: r.Reason, Error: r.Error, Seconds: 3})
		sum.Results = append(sum.Results, r)
	}
	return sum
}

// talk is a session whose lines are read as they come.
type talk struct {
	t     *testing.T
	in    io.Writer
	lines chan string
	all   []string
	ended chan error
	stop  context.CancelCauseFunc
}

func start(t *testing.T, e ui.Engine, in io.Reader, to io.Writer, out io.Reader, w io.Writer) *talk {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	x := &talk{t: t, in: to, lines: make(chan string, 10000), ended: make(chan error, 1), stop: cancel}
	t.Cleanup(func() { cancel(errors.New("the test is over")) })
	go func() {
		x.ended <- Run(ctx, e, Options{In: in, Out: w})
		if c, ok := w.(io.Closer); ok {
			_ = c.Close()
		}
	}()
	go func() {
		defer close(x.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			x.lines <- strings.TrimRight(scan.Text(), "\r")
		}
	}()
	return x
}

// piped is a session over pipes.
func piped(t *testing.T, e ui.Engine) (*talk, io.Closer) {
	t.Helper()
	in, to := io.Pipe()
	out, w := io.Pipe()
	return start(t, e, in, to, out, w), to
}

// wait reads up to a line with a text, and returns what came before it.
func (x *talk) wait(text string) (before []string) {
	x.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case l, ok := <-x.lines:
			if !ok {
				x.t.Fatalf("no %q; it ended with %q", text, tail(x.all))
			}
			x.all = append(x.all, l)
			if strings.ContainsAny(l, "\x1b\r\b") {
				x.t.Errorf("%q is not one plain line", l)
			}
			if strings.Contains(l, text) {
				return before
			}
			before = append(before, l)
		case <-deadline:
			x.t.Fatalf("no %q; the last lines are %q", text, tail(x.all))
		}
	}
}

func tail(list []string) []string { return list[max(0, len(list)-12):] }

func (x *talk) type_(lines ...string) {
	x.t.Helper()
	for _, l := range lines {
		if _, err := io.WriteString(x.in, l+"\n"); err != nil {
			x.t.Fatal(err)
		}
	}
}

func (x *talk) end() error {
	x.t.Helper()
	for l := range x.lines {
		x.all = append(x.all, l)
	}
	return <-x.ended
}

func TestCommands(t *testing.T) {
	s := newScript()
	s.known["debian:12/x86_64"] = engine.Known{Plan: engine.Plan{Action: engine.Build}, Seen: time.Date(2026, 11, 20, 8, 30, 0, 0, time.UTC),
		Stages: map[engine.Stage]engine.StageKnown{engine.Test: {State: event.Failed, Error: "it did not boot", At: time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)}}}
	x, _ := piped(t, s)
	x.wait("1, Debian, preview: 2 targets can be built, 1 to build, 1 failed last time, looked at 2026-11-20 08:30 UTC.")
	x.wait("2, Neutrino, planned: not supported yet")
	x.wait("Ready. Type a command, or help.")
	for _, c := range []struct{ typed, says string }{
		{"plan", "Not done. plan: nothing is selected: select NUMBER does that."},
		{"select 2", "Not selected. 2, Neutrino, planned: not supported yet"},
		{"select debian/arm64", "Not selected. debian:13/arm64: it is emulated on this machine."},
		{"select 9", "Not selected. there is no row 9."},
		{"select zzz", `Not selected. "zzz" fits no target of the chart.`},
		{"s", `"s" may mean `},
		{"sel debian:12/*", "Selected: debian:12/x86_64. 1 target selected in all."},
		{"sel debian:12/*", "No longer selected"},
		{"select debian:12", "Selected: debian:12/x86_64. 1 target selected in all."},
		{"2 debian:12", "No longer selected: debian:12/x86_64. 0 targets selected in all."},
		{"select 1", "Selected: debian:13/x86_64, debian:12/x86_64. 2 targets selected in all."},
		{"chart debian", "1, Debian, preview: 2 targets can be built, 2 selected"},
		{"chart zzz", `No row has "zzz" in it.`},
		{"details 1", "debian:12/x86_64: test failed on 2026-11-20 09:00 UTC: it did not boot."},
		{"details 7", "Name a row by its number"},
		{"copy command", "kmi-tui --batch --only debian:13/x86_64,debian:12/x86_64 --registry dir:images"},
		{"cancel", "Not done. cancel: nothing is running."},
		{"pause", "Not done. pause: no recording is shown"},
		{"frobnicate", `Not done. "frobnicate" is no command: help lists them.`},
		{"99", "There is no command 99"},
		{strings.Repeat("x", 5000), "too long for a command"},
		{"help", "5, plan: what a run would do, and why; changes nothing."},
		{"look", "1 to build, 0 with nothing to do, 1 that cannot be decided."},
		{"plan", "debian:12/x86_64: cannot be decided: the archive cannot be reached."},
		{"promote debian", "published, proven: it is published. sha256:01."},
		{"", "reliable, unproven: runs went well. 1 of four."},
		{"", "Not yet: debian cannot be proposed yet: reliable is unproven"},
		{"", "What to do: if it holds all the same, say so: --state reliable=TEXT"},
		{"", "To see the difference and write it: kmi-tui promote debian --to proposed --registry dir:images"},
		{"promote 2", "The promotion: nothing is known of it"},
		{"promote 3", "as in promote 1."},
		{"try me 1", "virtctl ssh debian@vm/debian-13"},
		{"", "The same as a manifest: kmi-tui tryme debian --registry dir:images"},
		{"try me neutrino", "The Try Me: nothing is published"},
		{"try me", "as in try me 1."},
		{"messages", "There are no messages."},
	} {
		if c.typed == "" {
			x.wait(c.says)
			continue
		}
		x.type_(c.typed)
		x.wait(c.says)
	}
	x.type_("quit")
	if err := x.end(); err != nil {
		t.Error(err)
	}
	if len(s.runs()) != 0 {
		t.Error("something was built")
	}
}

// A run is announced line by line; progress at each tenth.
func TestBuild(t *testing.T) {
	s := newScript()
	x, _ := piped(t, s)
	x.type_("select all", "build")
	x.wait("debian:13/x86_64: to build: the guest has changed.")
	x.wait("1 to build; 1 that cannot be decided and will fail.")
	x.wait("Each is built, boot-tested and signed, and then published to dir:images.")
	x.wait("The same without the console: kmi-tui --batch")
	x.wait("Type yes to publish")
	x.type_("y")
	x.wait("Nothing is built.")
	x.build("yes")
	x.wait("debian:13/x86_64: fetch begins.")
	before := x.wait("debian:13/x86_64: fetch done after")
	if len(before) > 10 || len(before) < 1 || !strings.HasSuffix(before[len(before)-1], "fetch 100 percent, 100 packages of 100 packages.") {
		t.Errorf("announced %q", before)
	}
	x.wait("debian:12/x86_64: fetch FAILED after")
	x.wait("for good")
	x.wait("What to do: name a mirror")
	x.wait("The run has ended.")
	x.wait("FAILED    debian:12/x86_64: fetch: it is gone")
	x.wait("2 targets: 1 failed, 1 done, 0 with nothing to do")
	x.type_("log debian:12/x86_64 3")
	x.wait("The last 3 lines of debian:12/x86_64; the whole logs are in /cache/logs/1.")
	x.wait("package 97")
	x.wait("package 99")
	if got := s.runs(); len(got) != 1 || !slices.Equal(got[0], []string{"debian:13/x86_64", "debian:12/x86_64"}) {
		t.Errorf("ran %v", got)
	}
}

// What others could pull is published only after a word was typed.
func TestPublishingIsTyped(t *testing.T) {
	s := newScript()
	s.destination = "registry.example/kmi"
	x, _ := piped(t, s)
	x.type_("select all")
	for _, answer := range []string{"", "yes", "y", "Publish", "build"} {
		x.build(answer)
		x.wait("Nothing is built.")
	}
	x.build("publish")
	x.wait("The run has ended.")
	if len(s.runs()) != 1 {
		t.Errorf("ran %v", s.runs())
	}
}

// build asks for a build, and answers when the question is there.
func (x *talk) build(answer string) {
	x.t.Helper()
	x.type_("build")
	x.wait("The same without the console")
	x.wait("Type ")
	x.type_(answer)
}

// What failed is run again, one target is cancelled alone, and a run ends where it is told to.
func TestPartsOfARun(t *testing.T) {
	s := newScript()
	x, _ := piped(t, s)
	x.type_("retry")
	x.wait("Not done. retry: nothing has failed")
	x.type_("select all")
	x.build("yes")
	x.wait("2 targets: 1 failed, 1 done, 0 with nothing to do")
	free := held(s)
	x.type_("retry")
	x.wait("1 target failed: debian:12/x86_64. What was finished is kept")
	x.wait("Type yes")
	x.type_("yes")
	x.wait("customise begins")
	x.type_("cancel target debian:13/x86_64")
	x.wait("Name a target of the run: debian:12/x86_64.")
	x.type_("cancel target debian:12/x86_64", "yes")
	x.wait("Cancelling debian:12/x86_64")
	close(free)
	x.wait("The run has ended.")
	x.type_("build up to boot")
	x.wait("Name the last stage: resolve, fetch, customise, pack, test, sign, publish.")
	x.type_("build up to test")
	x.wait("Each is taken up to test. Nothing is published")
	x.wait("--until test")
	x.wait("Type yes")
	x.type_("no")
	x.wait("Nothing is built.")
	if got := s.runs(); len(got) != 2 || !slices.Equal(got[1], []string{"debian:12/x86_64"}) || !slices.Equal(s.cancelled, []string{"debian:12/x86_64"}) {
		t.Errorf("%v, %v", got, s.cancelled)
	}
}

// held is a run that goes on until it is let go or cancelled.
func held(s *script) (free chan struct{}) {
	free = make(chan struct{})
	s.run = func(ctx context.Context, s *script, targets []string) engine.Summary {
		scope := s.bus.Scope(targets[0], "customise", "")
		scope.Start()
		var err error
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-free:
		}
		scope.End("", err)
		return engine.Summary{Results: []engine.Result{{Target: targets[0], State: event.Finished, Reason: fmt.Sprint(err)}}}
	}
	return free
}

func TestCancelAndQuit(t *testing.T) {
	s := newScript()
	held(s)
	x, _ := piped(t, s)
	x.type_("select 1")
	x.build("yes")
	x.wait("customise begins")
	x.type_("show run")
	x.wait("debian:13/x86_64: customise, for 0.")
	x.type_("build")
	x.wait("Not done. build: a run is under way")
	x.type_("cancel", "no")
	x.wait("The run goes on.")
	x.type_("cancel", "yes")
	x.wait("customise FAILED after")
	x.wait("cancelled in the console")
	x.build("yes")
	x.wait("customise begins")
	x.type_("quit", "no")
	x.wait("The run goes on.")
	x.type_("quit", "yes")
	x.wait("the console was left")
	if err := x.end(); err != nil {
		t.Error(err)
	}
}

// When the input ends, a run comes to its end; when somebody outside ends the session, it is cancelled.
func TestEnds(t *testing.T) {
	s := newScript()
	free := held(s)
	x, in := piped(t, s)
	x.type_("select 1")
	x.build("yes")
	x.wait("customise begins")
	_ = in.Close()
	x.wait("The input has ended")
	close(free)
	x.wait("customise done after")
	x.wait("1 target: 0 failed, 1 done")
	if err := x.end(); err != nil {
		t.Error(err)
	}
	s = newScript()
	held(s)
	x, _ = piped(t, s)
	x.type_("select 1")
	x.build("yes")
	x.wait("customise begins")
	x.stop(errors.New("interrupted (terminated)"))
	if err := x.end(); err == nil || err.Error() != "interrupted (terminated)" {
		t.Error(err)
	}
	for _, want := range []string{"Stopping: interrupted (terminated).", "customise FAILED"} {
		if !strings.Contains(strings.Join(x.all, "\n"), want) {
			t.Errorf("no %q in %q", want, tail(x.all))
		}
	}
}

// On a terminal, too, nothing is drawn: only lines come, and a terminal that goes away ends the run.
func TestOnATerminal(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(master.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_ = master.Close()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "pty")
	s := newScript()
	held(s)
	sub := s.bus.Subscribe()
	out, w := io.Pipe()
	both := io.MultiWriter(w, slave) // what the terminal gets, without the echo of what is typed
	x := start(t, s, slave, master, out, both)
	x.type_("select 1")
	x.build("yes")
	x.wait("customise begins")
	go func() { _, _ = io.Copy(io.Discard, master) }()
	_ = master.Close()
	if err := <-x.ended; err == nil {
		t.Error("a terminal that is gone is no error")
	}
	_ = w.Close()
	events, _ := sub.Poll()
	if last := events[len(events)-1]; last.Kind != event.Failed { // it was cancelled, and waited for
		t.Errorf("the run's last event is %+v", last)
	}
}

// A recording is shown in lines, too.
func TestReplay(t *testing.T) {
	rec, err := engine.ReadRecording(strings.NewReader(`{"kind":"recording","format":1,"time":"2026-11-23T12:00:00Z","destination":"dir:images","targets":["debian:13/x86_64"]}
{"time":"2026-11-23T12:00:00Z","target":"debian:13/x86_64","stage":"fetch","kind":"started"}
{"time":"2026-11-23T12:30:00Z","target":"debian:13/x86_64","stage":"fetch","kind":"failed","error":"gone","remedy":"try again","seconds":1800}
{"time":"2026-11-23T13:00:00Z","kind":"summary","results":[{"target":"debian:13/x86_64","state":"failed","error":"fetch: gone"}],"seconds":3600}
`), "x")
	if err != nil {
		t.Fatal(err)
	}
	x, _ := piped(t, engine.NewReplay(rec))
	x.wait("REPLAY of a run of 2026-11-23 12:00 UTC with 1 target")
	x.wait("fetch begins")
	x.type_("build")
	x.wait("Not done. build: this is a recording")
	x.type_("pause")
	x.wait("REPLAY 1 times as fast, paused, at ")
	x.type_("to first failure")
	x.wait("fetch FAILED after 30 minutes 0 seconds: gone")
	x.type_("to the end")
	x.wait("The replay has ended.")
	x.wait("1 target: 1 failed")
	x.type_("restart")
	x.wait("The replay begins anew.")
	x.wait("fetch begins")
	x.type_("quit")
	if err := x.end(); err != nil {
		t.Error(err)
	}
}

// Where the console can do the same, it is called the same.
func TestNamesAreThoseOfTheConsole(t *testing.T) {
	console := ui.Actions()
	for _, c := range commands() {
		if _, ok := console[c.name]; !ok && c.name != "chart" {
			t.Errorf("the console knows no %q", c.name)
		}
		if c.help == "" && console[c.name] == "" {
			t.Errorf("%q has no help", c.name)
		}
	}
}
