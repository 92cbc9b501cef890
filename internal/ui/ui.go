// Package ui is the console: the release chart, plans and runs, live, on a terminal. It talks to the engine through the
// interface Engine and sees what happens in its events; it does not know files, registries or processes.
package ui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aymanbagabas/go-osc52/v2"
	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	_ "github.com/ContainerCraft/kmi-tui/internal/ui/background" // before bubbletea
)

// Engine is what the console works with. *engine.Engine is one.
type Engine interface {
	Catalog() *catalog.Catalog
	// Targets lists what a selection means; it does not wait for anything. Its error lists the valid selectors.
	Targets(sel engine.Selection) ([]engine.Target, error)
	// Plan says what Run would do. It publishes the events of its resolve stages.
	Plan(ctx context.Context, sel engine.Selection) ([]engine.Plan, error)
	// Look plans everything and tells each plan as soon as it is made, one at a time. It publishes no events.
	Look(ctx context.Context, each func(engine.Plan)) error
	// Run blocks until everything has ended, also when ctx is done: then nothing it started is left.
	Run(ctx context.Context, sel engine.Selection) (engine.Summary, error)
	// Cancel ends the work on one target of the run; false if nobody works on it.
	Cancel(target string, cause error) bool
	// Promotion judges a change of a flavor's level; TryMe makes its snippet. Neither writes anything by itself.
	Promotion(ctx context.Context, ask engine.Ask) (*engine.Promotion, error)
	TryMe(ctx context.Context, selector string) (*engine.TryMe, error)
	Subscribe() *engine.Subscription
	// Destination is where Run publishes: "dir:PATH", or HOST/PATH.
	Destination() string
	// Logs is the folder of this process's raw logs.
	Logs() string
	// Transcript is the whole log of a target, also what memory does not keep; nil where there is none.
	Transcript(target string) *engine.Transcript
	// Save writes lines to a file; an error that is fs.ErrExist says that there is one, which overwrite replaces.
	Save(path string, overwrite bool, lines iter.Seq2[string, error]) (engine.Saved, error)
	// Clipboard gives a text to the desktop's clipboard, and says by which program; "" when there is none.
	Clipboard(ctx context.Context, text string) (program string, err error)
	// Known is what earlier plans and runs found out, by target. What cannot be read is missing, and the error says why.
	Known() (map[string]engine.Known, error)
	// History lists the recorded runs of the last weeks (0: all), the newest first. The list is good even with an error.
	History(weeks int) ([]engine.PastRun, error)
	// Image is what registry and cache know of a target's image. With an error, what could be found out is there.
	Image(ctx context.Context, target string) (engine.Image, error)
}

var (
	_ Engine = (*engine.Engine)(nil)
	_ Engine = (*engine.Replay)(nil)
)

// source is where events come from.
type source interface {
	Next(context.Context) ([]event.Event, bool)
	Poll() ([]event.Event, bool)
}

// Options say how the console meets its user.
type Options struct {
	In         io.Reader        // keys: a terminal, usually
	Out        io.Writer        // the terminal
	Now        func() time.Time // nil means time.Now
	Appearance Appearance
	Look       bool             // ask all upstreams at once, without being told to
	Select     engine.Selection // selected at the beginning; the zero value: nothing is
	Flags      []string         // what the --batch lines that the console shows need besides --only and --registry: "--base", "built"
}

// frameTime is the least time between two frames that events ask for.
const frameTime = time.Second / 30

// Run shows the console until its user leaves or ctx is done; then its error is ctx's cause. Whatever it started has
// ended when it returns, and the terminal is as it was.
func Run(ctx context.Context, e Engine, o Options) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	events, stopEvents := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEvents()
	sub := e.Subscribe()
	defer sub.Close()
	var from source = sub
	replay, ok := e.(*engine.Replay)
	if ok { // its events come at its own pace, and so does the time
		from, o.Now = replay, replay.Now
	}
	w := &work{}
	out := newOutput(o.Out)

	m := newModel(e, !o.Appearance.NoColor, o.Now)
	m.dress(o.Appearance)
	m.flags, m.looks = o.Flags, o.Look
	m.later = m.recall()
	m.choose(o.Select)
	m.start = func(do func(context.Context) tea.Msg, crashed func(error) tea.Msg) (tea.Cmd, context.CancelCauseFunc) {
		return w.start(ctx, do, crashed)
	}
	m.copy = out.copy
	m.listen = listen(events, from)

	screen, err := newPainter(o.In, out)
	if err != nil {
		return fmt.Errorf("the terminal cannot be used: %w", err)
	}
	defer screen.close()
	m.show, m.setMouse = screen.show, screen.setMouse
	m.suspend = func() tea.Msg { return resumedMsg{screen.lend(stopProcess)} }

	// Bubbletea's own handler of signals would end the console and leave its children behind.
	var p *tea.Program
	in := o.In
	if f, ok := in.(*os.File); ok {
		in = &keyboard{f, func() { p.Send(stopMsg{errors.New("the terminal is gone")}) }}
	}
	p = tea.NewProgram(m, tea.WithInput(in), tea.WithOutput(out), tea.WithoutRenderer(), tea.WithoutSignalHandler())
	m.abort = func() { go p.Quit() }
	defer context.AfterFunc(ctx, func() { p.Send(stopMsg{context.Cause(ctx)}) })()
	onTerminal.Store(screen)
	stopWatch := screen.watch(func(size tea.WindowSizeMsg) { p.Send(size) })
	_, err = p.Run()
	onTerminal.Store(nil)
	screen.close()
	stopWatch()
	stopEvents()
	// However the console came to its end (it may have lost its terminal), what it started ends now.
	w.end(errors.New("the console has ended"), func() { fmt.Fprintln(o.Out, "kmi-tui: stopping: waiting for the programs of the run to end") })
	switch {
	case m.crash != nil:
		return m.crash
	case err != nil:
		return err
	}
	return m.cause
}

// onTerminal is the console that has the terminal: a process has one.
var onTerminal atomic.Pointer[painter]

// Restore gives the terminal back at once, for a program that has to exit while Run is still waiting. Without a console
// it does nothing.
func Restore() {
	if p := onTerminal.Load(); p != nil {
		p.close()
	}
}

// listen returns the command that waits for events and delivers all there are, at most once a frame.
func listen(ctx context.Context, sub source) tea.Cmd {
	var last time.Time
	return func() tea.Msg {
		events, ok := sub.Next(ctx)
		if !ok {
			return nil
		}
		// Something has happened after a while of nothing: it is shown at once. Else what comes within the frame comes
		// together.
		if wait := frameTime - time.Since(last); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil
			}
			more, _ := sub.Poll()
			events = append(events, more...)
		}
		last = time.Now()
		return eventsMsg(events)
	}
}

// work is what runs beside the console.
type work struct {
	mu     sync.Mutex
	cancel []context.CancelCauseFunc
	wait   sync.WaitGroup
}

func (w *work) start(ctx context.Context, do func(context.Context) tea.Msg, crashed func(error) tea.Msg) (tea.Cmd, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w.mu.Lock()
	w.cancel = append(w.cancel, cancel)
	w.mu.Unlock()
	result := make(chan tea.Msg, 1)
	w.wait.Add(1)
	go func() {
		defer w.wait.Done()
		defer func() {
			if r := recover(); r != nil {
				result <- crashed(fmt.Errorf("a mistake in this program: %v\n%s", r, debug.Stack()))
			}
		}()
		result <- do(ctx)
	}()
	return func() tea.Msg { return <-result }, cancel
}

// end cancels everything and waits for it; if that takes a moment, it says so.
func (w *work) end(cause error, say func()) {
	w.mu.Lock()
	for _, cancel := range w.cancel {
		cancel(cause)
	}
	w.mu.Unlock()
	ended := make(chan struct{})
	go func() { w.wait.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(time.Second / 5):
		say()
		<-ended
	}
}

// keyboard is a terminal that tells when it has come to its end: bubbletea would stay without one.
type keyboard struct {
	*os.File
	gone func()
}

func (k *keyboard) Read(p []byte) (int, error) {
	n, err := k.File.Read(p)
	if err != nil && n == 0 {
		go k.gone()
	}
	return n, err
}

// output is the terminal. A write is never split by another one, so that the clipboard's sequence cannot end up inside
// of a frame.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

func newOutput(w io.Writer) *output { return &output{w: w} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(p)
}

// copy sends text to the clipboard of the terminal, which may be far away.
func (o *output) copy(text string) error {
	_, err := osc52.New(strings.TrimSpace(text)).WriteTo(o)
	return err
}
