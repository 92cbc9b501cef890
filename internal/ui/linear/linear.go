// Package linear is the console for screen readers and terminals that can do nothing: no screen of its own, nothing drawn
// twice, one announcement a line, and commands that are typed as lines. It talks to the engine as the console does.
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
	"time"

	"golang.org/x/term"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/ui"
	"github.com/ContainerCraft/kmi-tui/internal/ui/headless"
)

// Options say how linear mode meets its user.
type Options struct {
	In     io.Reader // lines
	Out    io.Writer
	Now    func() time.Time // nil means time.Now
	Select engine.Selection // selected at the beginning; the zero value: nothing is
	Flags  []string         // what the --batch lines that are told need besides --only and --registry
}

const (
	every    = 30 * time.Second // the least time between two announcements of a stage's progress that has not come 10 % further
	keptLogs = 500              // log lines that are kept of a target
	longest  = 4096             // bytes of a command
)

// errLeft is the cause of what ends because its user has left.
var errLeft = errors.New("the console was left")

// session is one use of linear mode. Only its loop changes it.
type session struct {
	ctx    context.Context
	e      ui.Engine
	replay *engine.Replay // nil: none
	o      Options
	out    *bufio.Writer
	err    error // of writing

	rows     []row
	known    map[string]engine.Known
	selected map[string]bool
	messages []string

	run      *work // that is under way; nil: none
	asking   *work // the plan or look that is under way
	targets  map[string]*target
	order    []string // of the last run, as its targets began
	summary  *engine.Summary
	ran      engine.Selection // what the last run was about
	question *question
	done     chan func() // what work has come to
	closed   bool        // no more lines come
	leaving  bool
}

// work is something that goes on beside the session.
type work struct {
	cancel    context.CancelCauseFunc
	cancelled bool
}

// question is one that has to be answered before anything else.
type question struct {
	word string // that means yes
	yes  func()
	no   string // what is said otherwise
}

// target is one that is worked on, or was.
type target struct {
	stage  string // that is worked on; "" between two
	began  time.Time
	said   time.Time // when something was announced of the stage
	tenth  int64     // of its way that was announced
	amount string
	log    []string
}

// Run talks with its user until they leave, the input ends, or ctx is done; then its error is ctx's cause. Whatever it
// started has ended when it returns. When the input ends, a run that is under way comes to its end first.
func Run(ctx context.Context, e ui.Engine, o Options) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &session{ctx: ctx, e: e, o: o, out: bufio.NewWriter(o.Out), selected: map[string]bool{}, targets: map[string]*target{}, done: make(chan func(), 4)}
	s.replay, _ = e.(*engine.Replay)
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	events := s.listen(reading)
	lines := s.read(reading)
	s.greet()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	ended := ctx.Done()
	for {
		if err := s.out.Flush(); err != nil && s.err == nil {
			s.err = err
			s.end(err)
		}
		if (s.leaving || s.closed) && s.run == nil && s.asking == nil && (s.replay == nil || s.leaving || s.replay.State().Over) {
			break
		}
		select {
		case list := <-events:
			for _, e := range list {
				s.event(e)
			}
		case do := <-s.done:
			s.catchUp(events)
			do()
		case l, ok := <-lines:
			if !ok {
				lines = nil
				s.inputEnded()
				continue
			}
			if l.err != nil {
				s.say("The terminal is gone.")
				s.end(l.err)
				continue
			}
			s.line(l.text)
		case <-tick.C:
			s.beat()
		case <-ended:
			ended = nil
			s.sayf("Stopping: %v.", context.Cause(ctx))
			s.end(context.Cause(ctx))
		}
	}
	_ = s.out.Flush()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.err
}

// listen delivers what happens.
func (s *session) listen(ctx context.Context) <-chan []event.Event {
	var next func(context.Context) ([]event.Event, bool)
	if s.replay != nil {
		next = s.replay.Next
	} else {
		sub := s.e.Subscribe()
		context.AfterFunc(ctx, sub.Close)
		next = sub.Next
	}
	out := make(chan []event.Event)
	go func() {
		for {
			list, ok := next(ctx)
			if !ok {
				return
			}
			select {
			case out <- list:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// catchUp takes in what happened before work ended, as far as it is there, so that the end is announced after it.
func (s *session) catchUp(events <-chan []event.Event) {
	for {
		select {
		case list := <-events:
			for _, e := range list {
				s.event(e)
			}
		case <-time.After(50 * time.Millisecond):
			return
		}
	}
}

// typed is a line, or why there are no more.
type typed struct {
	text string
	err  error
}

// read delivers lines; the channel is closed at their end. A terminal that is gone is an error.
func (s *session) read(ctx context.Context) <-chan typed {
	lines := make(chan typed)
	send := func(t typed) bool {
		select {
		case lines <- t:
			return true
		case <-ctx.Done():
			return false
		}
	}
	file, ok := s.o.In.(*os.File)
	terminal := ok && term.IsTerminal(int(file.Fd()))
	go func() {
		defer close(lines)
		in := bufio.NewScanner(s.o.In)
		in.Buffer(nil, 64<<10)
		for in.Scan() {
			if !send(typed{text: in.Text()}) {
				return
			}
		}
		if err := in.Err(); err != nil {
			send(typed{err: err})
		} else if terminal && !term.IsTerminal(int(file.Fd())) { // it hung up: that is an end of the input, too
			send(typed{err: errors.New("the terminal is gone")})
		}
	}()
	return lines
}

func (s *session) inputEnded() {
	s.closed = true
	if s.question != nil {
		s.say(s.question.no)
		s.question = nil
	}
	switch {
	case s.run != nil:
		s.say("The input has ended; the run goes on to its end.")
	case s.replay != nil && s.replay.State().Paused: // nobody is left who could let it go on
		s.leaving = true
	}
}

// end cancels everything and leaves as soon as it has ended.
func (s *session) end(cause error) {
	s.leaving, s.question = true, nil
	for _, w := range []*work{s.run, s.asking} {
		if w != nil && !w.cancelled {
			w.cancelled = true
			w.cancel(cause)
		}
	}
}

// start begins work beside the session; do returns what the session has to do about what it came to.
func (s *session) start(do func(context.Context) func()) *work {
	ctx, cancel := context.WithCancelCause(s.ctx)
	go func() {
		after := do(ctx)
		s.done <- after
		cancel(nil)
	}()
	return &work{cancel: cancel}
}

// say writes one line, made harmless.
func (s *session) say(text string) { _, _ = s.out.WriteString(event.CleanLong(text) + "\n") }

func (s *session) sayf(format string, args ...any) { s.say(fmt.Sprintf(format, args...)) }

// ready says that a command can be typed.
func (s *session) ready() {
	if s.question == nil && !s.leaving && !s.closed {
		s.say("Ready. Type a command, or help.")
	}
}

func (s *session) greet() {
	s.sayf("kmi-tui, %s, in lines.", s.e.Catalog().Project.Name)
	if r := s.replay; r != nil {
		h := r.Recording().Header
		s.sayf("REPLAY of a run of %s with %s, which published to %s. Nothing is built.", h.Time.Format("2006-01-02 15:04 UTC"), count(len(h.Targets), "target"), r.Destination())
		s.ready()
		return
	}
	s.sayf("Images are published to %s.", s.e.Destination())
	var err error
	if s.known, err = s.e.Known(); err != nil {
		s.explain("What is known of earlier runs is not complete", err)
	}
	s.load()
	s.chart("")
	if len(s.o.Select.Only)+len(s.o.Select.Levels) > 0 {
		s.given()
	}
	s.ready()
}

// given selects what the session was started with.
func (s *session) given() {
	targets, err := s.e.Targets(s.o.Select)
	if err != nil {
		s.explain("Nothing is selected", err)
		return
	}
	var list []string
	for _, t := range targets {
		if t.Unsupported == "" {
			list = append(list, t.String())
		}
	}
	if len(list) == 0 {
		s.say("Nothing is selected: what was given has no target that can be built.")
		return
	}
	s.toggle(list)
}

// explain says an error and what to do about it.
func (s *session) explain(what string, err error) {
	for i, l := range strings.Split(err.Error(), "\n") {
		if i == 0 {
			l = what + ": " + l
		}
		s.say(l)
	}
	var remedied *event.Remedied
	if errors.As(err, &remedied) {
		s.say("What to do: " + remedied.Remedy)
	}
}

// event announces one thing that happened.
func (s *session) event(e event.Event) {
	switch {
	case e.Kind == engine.Rewound:
		s.targets, s.order, s.summary = map[string]*target{}, nil, nil
		s.say("The replay begins anew.")
		return
	case e.Kind == engine.Ended:
		sum, err := s.replay.Summary()
		s.summary = &sum
		s.say("The replay has ended.")
		s.results()
		if err != nil {
			s.say(err.Error())
		}
		s.ready()
		return
	case e.Target == "" && e.Kind == event.Log:
		s.messages = append(s.messages, e.Line)
		s.say("Note: " + e.Line)
		return
	case e.Target == "":
		return
	}
	t := s.targets[e.Target]
	if t == nil {
		t = &target{}
		s.targets[e.Target] = t
		s.order = append(s.order, e.Target)
	}
	now := s.o.Now()
	switch {
	case e.Kind == event.Log:
		if t.log = append(t.log, e.Line); len(t.log) > 2*keptLogs {
			t.log = slices.Clone(t.log[len(t.log)-keptLogs:])
		}
	case s.run == nil && s.replay == nil: // of a plan, what it comes to is told
	case e.Stage == "" && e.Kind.Ends():
		t.stage = ""
		if e.Kind != event.Failed {
			s.sayf("%s: %s.", e.Target, outcome(e))
		} else {
			s.sayf("%s: FAILED after %s.", e.Target, span(e.Seconds))
		}
	case e.Stage == "":
	case e.Kind == event.Started:
		t.stage, t.began, t.said, t.tenth, t.amount = e.Stage, now, now, 0, ""
		s.sayf("%s: %s begins.", e.Target, e.Stage)
	case e.Kind == event.Progress:
		s.progress(t, e, now)
	default:
		t.stage = ""
		s.stageEnded(e)
	}
}

// outcome is how a target or stage ended that did not fail.
func outcome(e event.Event) string {
	word := "done after " + span(e.Seconds)
	if e.Kind == event.Skipped {
		word = "nothing to do"
	}
	if e.Reason != "" {
		word += ": " + strings.TrimPrefix(e.Reason, "nothing to do: ")
	}
	return strings.TrimSuffix(word, ".")
}

func (s *session) stageEnded(e event.Event) {
	if e.Kind != event.Failed {
		s.sayf("%s: %s %s.", e.Target, e.Stage, outcome(e))
		return
	}
	for i, l := range strings.Split(e.Error, "\n") {
		if i == 0 {
			l = fmt.Sprintf("%s: %s FAILED after %s: %s", e.Target, e.Stage, span(e.Seconds), l)
		}
		s.say(l)
	}
	if e.Remedy != "" {
		s.say("What to do: " + e.Remedy)
	}
	if e.LogFile != "" {
		s.say("The whole log: " + e.LogFile)
	}
}

// progress announces each tenth of the way, or what has come after a while.
func (s *session) progress(t *target, e event.Event, now time.Time) {
	if e.Total <= 0 {
		t.amount = amount(e.Done, e.Unit)
		return // beat says it now and then
	}
	share := min(100, int64(100*float64(e.Done)/float64(e.Total)))
	unit := e.Unit
	if _, ok := event.Bytes(unit); ok {
		unit = "bytes" // what happens to them is said once
	}
	t.amount = fmt.Sprintf("%d percent, %s of %s", share, amount(e.Done, unit), amount(e.Total, e.Unit))
	switch tenth := share / 10; {
	case tenth < t.tenth: // another part of the stage begins
		t.tenth = tenth
	case tenth > t.tenth:
		t.tenth, t.said = tenth, now
		s.sayf("%s: %s %s.", e.Target, e.Stage, t.amount)
	}
}

// beat says now and then of a stage that is under way that it is.
func (s *session) beat() {
	now := s.o.Now()
	for _, name := range s.order {
		t := s.targets[name]
		if t.stage == "" || now.Sub(t.said) < every || s.run == nil {
			continue
		}
		t.said = now
		text := fmt.Sprintf("%s: %s is at work for %s", name, t.stage, span(now.Sub(t.began).Seconds()))
		if t.amount != "" {
			text += ", " + t.amount
		}
		s.say(text + ".")
	}
}

// results says how the last run ended.
func (s *session) results() {
	n := map[event.Kind]int{}
	for _, r := range s.summary.Results {
		n[r.State]++
	}
	headless.SummaryText(s.out, *s.summary, 1)
	s.sayf("%s: %d failed, %d done, %d with nothing to do, in %s.", count(len(s.summary.Results), "target"), n[event.Failed], n[event.Finished], n[event.Skipped], span(s.summary.Seconds))
}

func amount(n int64, unit string) string {
	if what, ok := event.Bytes(unit); ok {
		return strings.TrimSuffix(headless.Bytes(n)+" "+what, " ")
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", n, unit))
}

// span is a time span as it is read aloud.
func span(seconds float64) string {
	d := time.Duration(max(0, seconds) * float64(time.Second))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f seconds", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%s %s", count(int(d.Minutes()), "minute"), count(int(d.Seconds())%60, "second"))
	}
	return fmt.Sprintf("%s %s", count(int(d.Hours()), "hour"), count(int(d.Minutes())%60, "minute"))
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
