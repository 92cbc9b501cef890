// Package ui is the console. It talks to the engine through its exported types, never to files, registries or processes.
package ui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	osc52 "github.com/aymanbagabas/go-osc52/v2"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/x/ansi"
	"github.com/muesli/termenv"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/ui/headless"
	_ "github.com/ContainerCraft/kmi-tui/internal/ui/quiet"
)

// Engine is what the console needs of the engine; *engine.Engine is one.
type Engine interface {
	Catalog() *catalog.Catalog
	Targets(engine.Selection) ([]engine.Target, error)
	Plan(context.Context, engine.Selection) ([]engine.Plan, error)
	Run(context.Context, engine.Selection) (engine.Summary, error)
	Subscribe() *engine.Subscription
	Destination() string
	Logs() string
}

// Options say where the console is.
type Options struct {
	In      io.Reader
	Out     io.Writer
	NoColor bool
	Flags   []string         // besides --only and --registry: what the --batch line of a run needs, too
	Now     func() time.Time // nil: time.Now
}

// frames is how often the screen may change.
const frames = 33 * time.Millisecond

// Run shows the console until somebody quits or ctx ends. It returns when no work is left; the terminal is as it was.
func Run(ctx context.Context, e Engine, o Options) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	targets, err := e.Targets(engine.Selection{Levels: catalog.Levels})
	if err != nil {
		return err
	}
	renderer := lipgloss.NewRenderer(o.Out)
	renderer.SetHasDarkBackground(true)
	if o.NoColor {
		renderer.SetColorProfile(termenv.Ascii)
	}
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	m := newModel(e, newStyles(renderer), targets, o.Now)
	m.ctx, m.out, m.flags = work, o.Out, o.Flags
	p := tea.NewProgram(m, tea.WithAltScreen(), tea.WithoutSignalHandler(), tea.WithInput(o.In), tea.WithOutput(o.Out))
	m.send = p.Send
	stop := context.AfterFunc(ctx, func() { p.Send(interrupted{context.Cause(ctx)}) })
	defer stop()
	_, err = p.Run()
	// Whatever ended the screen, also a panic: no work goes on unseen.
	cancel(errors.New("the console was closed"))
	m.workers.Wait()
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		err = nil
	}
	return err
}

// What reaches the model besides keys.
type (
	happened struct{ events []event.Event }
	ended    struct {
		summary engine.Summary
		err     error
	}
	planned struct {
		plans []engine.Plan
		err   error
	}
	interrupted struct{ cause error }
	tick        struct{}
)

// model is the console's state. Update and View do no I/O.
type model struct {
	engine  Engine
	styles  styles
	now     func() time.Time
	ctx     context.Context //nolint:containedctx // of all work; cancelled when the screen is gone
	send    func(tea.Msg)
	out     io.Writer
	flags   []string
	workers sync.WaitGroup

	width, height int
	show          place
	chart         *chart
	work          *work
	text          []string // of plan and help
	textTop       int
	before        place // where esc leads from a text
	dialog        *dialog
	input         *input
	status        string
	planning      bool
	quitting      bool

	dirty bool
	frame string
}

// input is a line being typed.
type input struct {
	prompt, text string
	done         func(*model, string)
}

func newModel(e Engine, s styles, targets []engine.Target, now func() time.Time) *model {
	return &model{engine: e, styles: s, now: now, show: onChart, chart: newChart(e.Catalog(), targets), width: 80, height: 24, dirty: true, send: func(tea.Msg) {}}
}

// Init has nothing to wait for: the first frame comes from the catalogue.
func (m *model) Init() tea.Cmd { return nil }

// Update takes in a message.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	m.dirty = true
	switch x := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = x.Width, x.Height
	case tea.KeyMsg:
		return m, m.key(x)
	case happened:
		for _, e := range x.events {
			m.event(e)
		}
	case ended:
		return m, m.ended(x)
	case planned:
		m.planned(x)
	case interrupted:
		m.say(x.cause.Error())
		m.quitting = true
		if !m.working() {
			return m, tea.Quit
		}
		m.halt(x.cause)
	case tick:
		if m.working() {
			return m, ticking()
		}
	}
	return m, nil
}

// ticking lets clocks run while there is work; otherwise nothing moves.
func ticking() tea.Cmd {
	return tea.Tick(500*time.Millisecond, func(time.Time) tea.Msg { return tick{} })
}

func (m *model) working() bool { return m.work != nil && !m.work.done }

func (m *model) say(text string) { m.status = text }

// body is how many lines are between the head and the foot.
func (m *model) body() int { return max(0, m.height-3) }

func (m *model) key(k tea.KeyMsg) tea.Cmd {
	key := k.String()
	if m.dialog != nil {
		return m.dialog.key(m, k)
	}
	if m.input != nil {
		switch k.Type {
		case tea.KeyEsc, tea.KeyCtrlC:
			in := m.input
			m.input = nil
			in.done(m, "")
		case tea.KeyEnter:
			in := m.input
			m.input = nil
			in.done(m, in.text)
		case tea.KeyBackspace:
			if r := []rune(m.input.text); len(r) > 0 {
				m.input.text = string(r[:len(r)-1])
			}
		case tea.KeyRunes, tea.KeySpace:
			if len(m.input.text) < 200 {
				m.input.text += string(k.Runes)
			}
		}
		if m.input != nil && m.show == onChart {
			m.chart.narrow(m.input.text)
		}
		return nil
	}
	if k.Type == tea.KeyRunes && len(k.Runes) > 1 && !k.Paste { // keys pressed faster than they are read
		var cmds []tea.Cmd
		for _, r := range k.Runes {
			cmds = append(cmds, m.key(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune{r}, Alt: k.Alt}))
		}
		return tea.Batch(cmds...)
	}
	return m.dispatch(key)
}

func (m *model) move(n int) tea.Cmd {
	switch {
	case m.show == onChart:
		m.chart.move(n)
	case m.show == onText:
		m.textTop = max(0, min(m.textTop+n, len(m.text)-m.body()))
	case m.work != nil && m.work.result:
		m.work.scroll = max(0, m.work.scroll+min(n, 1<<20))
	case m.work != nil:
		if p := m.work.focused(); p != nil {
			p.log.scroll(-n)
		}
	}
	return nil
}

func (m *model) cannotSelect() string {
	if r := m.chart.current(); len(m.chart.buildable(r)) == 0 {
		return m.chart.why(r)
	}
	return ""
}

func (m *model) selectRow() tea.Cmd {
	m.chart.toggle(m.chart.current())
	return nil
}

func (m *model) cannotUnfold() string {
	if r := m.chart.current(); r.flavor == nil || len(m.chart.targets[r.flavor.ID]) == 0 {
		return "it has no releases yet"
	}
	return ""
}

func (m *model) unfold() tea.Cmd {
	r := m.chart.current()
	m.chart.open[r.flavor.ID] = !m.chart.open[r.flavor.ID]
	if r.target != nil { // the cursor stays with the flavor
		for i, x := range m.chart.rows() {
			if x.flavor == r.flavor {
				m.chart.cursor = i
			}
		}
	}
	return nil
}

func (m *model) cannotPlan() string {
	if m.planning {
		return "a plan is being made"
	}
	if len(m.chart.chosen()) == 0 {
		return m.chart.why(m.chart.current())
	}
	return ""
}

func (m *model) plan() tea.Cmd {
	sel := engine.Selection{Only: m.chart.selector(m.chart.chosen())}
	m.planning = true
	m.say("asking upstreams and the registry…")
	m.workers.Add(1)
	go func() {
		defer m.workers.Done()
		plans, err := m.engine.Plan(m.ctx, sel)
		m.send(planned{plans, err})
	}()
	return nil
}

func (m *model) planned(x planned) {
	m.planning = false
	m.status = ""
	var b strings.Builder
	if x.err != nil {
		fmt.Fprintln(&b, "There is no plan:", x.err)
		var r *event.Remedied
		if errors.As(x.err, &r) {
			fmt.Fprintln(&b, "what to do:", r.Remedy)
		}
	} else {
		headless.PlanText(&b, x.plans)
	}
	for _, p := range x.plans {
		if st := m.chart.said[p.Target]; st.kind == "" {
			m.chart.said[p.Target] = standing{text: string(p.Action) + ": " + p.Reason}
		}
	}
	m.read(strings.Split(strings.TrimRight(b.String(), "\n"), "\n"))
}

// read shows a text; esc leads back.
func (m *model) read(lines []string) {
	if m.show != onText {
		m.before = m.show
	}
	m.text, m.textTop, m.show = lines, 0, onText
}

func (m *model) cannotBuild() string {
	if m.working() {
		return "a run is at work: r looks at it"
	}
	if len(m.chart.chosen()) == 0 {
		return m.chart.why(m.chart.current())
	}
	return ""
}

// line is the command line that does the same as a run.
func (m *model) line(list []*engine.Target) string {
	words := append([]string{"kmi-tui", "--batch", "--only", strings.Join(m.chart.selector(list), ","), "--registry", m.engine.Destination()}, m.flags...)
	for i, w := range words {
		if strings.ContainsAny(w, " \t'\"$\\*?[]{}()<>|&;`~#!") {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

func (m *model) build() tea.Cmd {
	list := m.chart.chosen()
	names := make([]string, len(list))
	for i, t := range list {
		names[i] = t.String()
	}
	where := m.engine.Destination()
	d := &dialog{title: "Build, test, sign and publish?", lines: []string{"targets  " + strings.Join(names, ", "), "into     " + where, "same as  " + m.line(list)},
		since: m.now(), yes: func(m *model) tea.Cmd { return m.start(list) }}
	if !strings.HasPrefix(where, "dir:") { // the public can see it: not by a slip of a finger
		d.word = "publish"
	}
	m.dialog = d
	return nil
}

// start starts a run, whose events come in batches.
func (m *model) start(list []*engine.Target) tea.Cmd {
	ctx, cancel := context.WithCancelCause(m.ctx)
	w := &work{began: m.now(), cancel: cancel, command: m.line(list)}
	for _, t := range list {
		w.panes = append(w.panes, &pane{target: t.String(), stages: map[engine.Stage]event.Event{}})
		m.chart.said[t.String()] = standing{kind: event.Started}
	}
	m.work, m.show = w, onWork
	only := make([]string, len(list))
	for i, t := range list {
		only[i] = t.String()
	}
	sub := m.engine.Subscribe()
	result := make(chan ended, 1)
	m.workers.Add(2)
	go func() {
		defer m.workers.Done()
		s, err := m.engine.Run(ctx, engine.Selection{Only: only})
		cancel(nil)
		sub.Close()
		result <- ended{s, err}
	}()
	go func() {
		defer m.workers.Done()
		for {
			events, ok := sub.Next(context.Background())
			if !ok {
				break
			}
			m.send(happened{events})
			time.Sleep(frames) // what comes meanwhile comes as one
		}
		m.send(<-result)
	}()
	return ticking()
}

func (m *model) event(e event.Event) {
	if m.work == nil {
		return
	}
	m.work.event(e)
	if p := m.work.pane(e.Target); p != nil {
		m.chart.said[e.Target] = standing{p.kind(), p.short()}
	}
}

func (m *model) ended(x ended) tea.Cmd {
	w := m.work
	w.done, w.summary, w.err, w.result = true, x.summary, x.err, true
	for _, r := range x.summary.Results {
		if _, ok := m.chart.said[r.Target]; ok {
			text := r.Reason
			if r.State == event.Failed {
				text, _, _ = strings.Cut(r.Error, ":")
			}
			m.chart.said[r.Target] = standing{r.State, text}
		}
	}
	if x.err != nil {
		for _, p := range w.panes {
			m.chart.said[p.target] = standing{event.Failed, "not started"}
		}
	}
	if m.quitting {
		return tea.Quit
	}
	m.dialog = nil
	return nil
}

func (m *model) cannotCopy() string {
	if m.show == onChart && len(m.chart.chosen()) == 0 {
		return m.chart.why(m.chart.current())
	}
	return ""
}

func (m *model) copy() tea.Cmd {
	text := ""
	if m.show == onWork && m.work != nil {
		text = m.work.command
	} else {
		text = m.line(m.chart.chosen())
	}
	m.say("sent to the terminal's clipboard (OSC 52): " + text)
	out := m.out
	return func() tea.Msg {
		_, _ = osc52.New(text).WriteTo(out)
		return nil
	}
}

func (m *model) ask() tea.Cmd {
	if m.show == onChart {
		m.input = &input{prompt: "filter: ", text: m.chart.filter, done: func(m *model, text string) { m.chart.narrow(text) }}
		return nil
	}
	p := m.work.focused()
	if p == nil {
		return nil
	}
	m.input = &input{prompt: "search: ", done: func(m *model, text string) {
		p.log.search = text
		if text != "" && !p.log.find(1, true) {
			m.say(fmt.Sprintf("%q is not in what is kept of this log", text))
		}
	}}
	return nil
}

func (m *model) cannotFind() string {
	if p := m.work.focused(); p == nil || p.log.search == "" {
		return "/ searches first"
	}
	return ""
}

func (m *model) find(dir int) tea.Cmd {
	if !m.work.focused().log.find(dir, false) {
		m.say("no further place")
	}
	return nil
}

func (m *model) cannotSwitch() string {
	if m.work == nil || len(m.work.panes) < 2 {
		return "there is one pane"
	}
	return ""
}

func (m *model) wrap() tea.Cmd {
	for _, p := range m.work.panes {
		p.log.wrapped = !p.log.wrapped
	}
	return nil
}

func (m *model) times() tea.Cmd {
	for _, p := range m.work.panes {
		p.log.times = !p.log.times
	}
	return nil
}

func (m *model) cannotSum() string {
	if m.work == nil || !m.work.done {
		return "the run is still at work"
	}
	return ""
}

func (m *model) cannotReturn() string {
	if m.work == nil {
		return "there was no run yet"
	}
	return ""
}

func (m *model) cannotStop() string {
	switch {
	case !m.working():
		return "no run is at work"
	case m.work.stopped:
		return "it is stopping"
	}
	return ""
}

func (m *model) stop() tea.Cmd {
	m.dialog = &dialog{title: "Stop the run?", lines: []string{"What is done stays done; the next run goes on from there."}, since: m.now(),
		yes: func(m *model) tea.Cmd { m.halt(errors.New("stopped by you")); return nil }}
	return nil
}

// halt asks the run to stop; it ends when its children are gone.
func (m *model) halt(cause error) {
	if m.working() && !m.work.stopped {
		m.work.stopped = true
		m.work.cancel(cause)
	}
}

func (m *model) back() tea.Cmd {
	switch {
	case m.show == onText:
		m.show = m.before
	case m.show == onWork:
		m.show = onChart
	case m.chart.filter != "":
		m.chart.narrow("")
	default:
		clear(m.chart.selected)
	}
	return nil
}

func (m *model) help() tea.Cmd {
	if m.show == onText {
		m.show = m.before
	}
	m.read(m.helpText())
	return nil
}

func (m *model) quit() tea.Cmd {
	if !m.working() {
		return tea.Quit
	}
	m.dialog = &dialog{title: "Work is running. Stop it and quit?", lines: []string{"What is done stays done; the next run goes on from there."}, since: m.now(),
		yes: func(m *model) tea.Cmd {
			m.quitting = true
			m.say("stopping…")
			m.halt(errors.New("stopped by you"))
			if !m.working() {
				return tea.Quit
			}
			return nil
		}}
	return nil
}

// View is the screen. It is drawn once per change, however often it is asked for.
func (m *model) View() string {
	if m.dirty {
		m.dirty = false
		m.frame = m.draw()
	}
	return m.frame
}

func (m *model) draw() string {
	if m.width <= 0 || m.height <= 0 {
		return ""
	}
	lines := []string{m.head()}
	body := m.body()
	switch {
	case m.dialog != nil:
		lines = append(lines, m.dialog.view(m.styles, m.now(), m.width, body)...)
	case m.show == onText:
		lines = append(lines, m.page(body)...)
	case m.show == onWork:
		lines = append(lines, m.work.view(m.styles, m.now(), m.width, body)...)
	default:
		lines = append(lines, m.chart.view(m.styles, m.width, body)...)
	}
	lines = append(lines, m.foot(), m.hints(m.width))
	for i, l := range lines {
		lines[i] = ansi.Truncate(l, m.width, "…") // very narrow screens: nothing may wrap
	}
	return strings.Join(lines[:min(len(lines), m.height)], "\n")
}

func (m *model) head() string {
	left := "kmi-tui · " + m.engine.Catalog().Project.Name
	right := "into " + m.engine.Destination()
	if n := len(m.chart.selected); n > 0 {
		right = fmt.Sprintf("%d selected · %s", n, right)
	}
	room := m.width - len([]rune(right)) - 2
	if room < 12 {
		return m.styles.title.Render(cut(left, m.width))
	}
	return m.styles.title.Render(fit(left, room)) + "  " + m.styles.dim.Render(right)
}

// foot is the line of what is typed, of the run, or of the last message.
func (m *model) foot() string {
	switch {
	case m.input != nil:
		return cut(m.input.prompt+m.input.text+"▏", m.width)
	case m.working() && m.status == "":
		return m.styles.busy.Render(cut(m.work.progress(m.now()), m.width))
	case m.work != nil && m.status == "" && m.show == onWork:
		return m.styles.dim.Render(cut(m.work.progress(m.now()), m.width))
	case m.status == "" && m.chart.filter != "" && m.show == onChart:
		return m.styles.dim.Render(cut(fmt.Sprintf("filtered by %q: esc shows all rows", m.chart.filter), m.width))
	}
	return cut(m.status, m.width)
}

// page is a text, from where it was scrolled to.
func (m *model) page(height int) []string {
	var all []string
	for _, l := range m.text {
		all = append(all, wrap(l, m.width)...)
	}
	m.textTop = max(0, min(m.textTop, len(all)-height))
	lines := append([]string(nil), all[m.textTop:]...)
	for len(lines) < height {
		lines = append(lines, "")
	}
	lines = lines[:height]
	if below := len(all) - m.textTop - height; below > 0 && height > 0 {
		lines[height-1] = m.styles.dim.Render(cut(fmt.Sprintf("… %d more lines: ↓", below+1), m.width))
	}
	return lines
}
