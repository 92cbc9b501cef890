package ui

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// screen is what fills the terminal.
type screen int

const (
	chartScreen screen = iota
	detailsScreen
	planScreen
	runScreen
	logScreen
	summaryScreen
	messagesScreen
	matrixScreen
	cellScreen
	helpScreen
	formScreen
)

// scope of a screen.
func (s screen) scope() scope { return 1 << s }

// Messages to the model besides bubbletea's own.
type (
	eventsMsg []event.Event // what happened since the last frame
	runMsg    struct {
		board   *board
		summary engine.Summary
		err     error
	}
	planMsg struct {
		plan  *planning
		plans []engine.Plan
		err   error
		at    time.Time // when it was made, by the clock of the events
	}
	copiedMsg struct {
		what string
		err  error
	}
	tickMsg struct{}
	stopMsg struct{ cause error } // somebody outside wants the console to end
)

// starter starts work beside the console. The work ends early when cancel is called or the console's context ends; the
// command waits for what it came to, which crashed makes of a panic.
type starter func(do func(context.Context) tea.Msg, crashed func(error) tea.Msg) (wait tea.Cmd, cancel context.CancelCauseFunc)

// model is the whole state of the console. Only Update changes it.
type model struct {
	engine  Engine
	start   starter
	listen  tea.Cmd // waits for the next events
	later   tea.Cmd // brings what is known from before, where that takes time; else nil
	copy    func(text string) error
	now     func() time.Time
	flags   []string
	looks   bool
	given   engine.Selection // to be selected as soon as there are targets of it
	st      *styles
	actions []action

	w, h    int
	clock   time.Time
	ticking bool
	dirty   bool
	frame   string
	show    func(frame string, all bool) // draws it

	setMouse func(on bool)
	suspend  tea.Cmd // gives the terminal to the shell

	stack    []screen
	chart    *chart
	board    *board         // the run that is under way, or the last one
	look     *looking       // the look at upstreams that is under way, or the last one
	replay   *engine.Replay // the recording that is shown; nil: none is
	plan     *planning      // the plan that is being made, or the last one
	help     help
	dialog   *dialog
	input    *input
	messages *logView
	note     string // said last; gone with the next key
	noteTone tone
	noteLog  *logView             // whose search the note is about
	unread   int                  // messages that came by themselves and were not looked at
	scrolled [formScreen + 1]list // of the screens that are lists
	form     *form                // a promotion or a Try Me; nil: none is open

	pointer      pointer
	touched      time.Time // when somebody did something last
	usual        map[string]map[engine.Stage]engine.Usual
	dressed      Appearance
	grid         matrix
	pictures     map[string]picture
	detailed     string // the target that the details are about; "": see meantTarget
	hiddenFields int    // lines of fields below what is seen

	stopping bool // the console ends as soon as nothing is running
	cause    error
	crash    error  // a panic: the console ends at once
	abort    func() // ends it
}

// list is a cursor in a list and the part of it that is on the screen.
type list struct{ cursor, top, n, h int }

func (l *list) move(delta int) { l.cursor = max(0, min(l.cursor+delta, l.n-1)) }

// window sets the list's length and height and returns which lines are visible.
func (l *list) window(n, h int) (from, to int) {
	l.n, l.h = n, max(0, h)
	l.move(0)
	l.top = scrolled(l.top, l.cursor, n, l.h)
	return l.top, min(n, l.top+l.h)
}

func newModel(e Engine, colour bool, now func() time.Time) *model {
	m := &model{engine: e, now: now, dressed: Appearance{NoColor: !colour}, st: newStyles(colour), actions: bindings(), stack: []screen{chartScreen}, messages: newLogView(), clock: now(), dirty: true, abort: func() {}, show: func(string, bool) {}, setMouse: func(bool) {}}
	m.messages.wrap, m.messages.stamps = true, true
	targets, err := e.Targets(engine.Selection{Only: []string{"*"}})
	d := m.draft()
	if err != nil && len(d.Catalog.Flavors) > 0 {
		m.say(bad, err.Error())
	}
	m.chart = &chart{}
	m.chart.fill(d, targets)
	if r, ok := e.(*engine.Replay); ok {
		m.openReplay(r)
		m.push(runScreen)
	}
	return m
}

func (m *model) Init() tea.Cmd {
	if m.replay != nil {
		return tea.Batch(m.listen, m.wind())
	}
	if m.looks {
		return tea.Batch(m.listen, m.later, m.watch(), m.startLook())
	}
	return tea.Batch(m.listen, m.later, m.watch())
}

func (m *model) top() screen { return m.stack[len(m.stack)-1] }

// push goes to a screen; if it is one of those that esc leads back to, it goes back there.
func (m *model) push(s screen) {
	if i := slices.Index(m.stack, s); i >= 0 {
		m.stack = m.stack[:i+1]
		return
	}
	m.stack = append(m.stack, s)
}

// say puts a message where it is seen, and keeps it.
func (m *model) say(t tone, text string) {
	m.note, m.noteTone, m.noteLog = clean(text), t, nil
	m.messages.buf.push(m.clock, t, m.note)
}

func (m *model) working() bool  { return m.board != nil && !m.board.over() }
func (m *model) planning() bool { return m.plan != nil && !m.plan.over() }

// update takes in a message.
func (m *model) update(msg tea.Msg) (tea.Model, tea.Cmd) {
	defer m.rescue()
	if m.crash != nil {
		return m, tea.Quit
	}
	m.dirty = true
	m.clock = m.now()
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.w, m.h = msg.Width, msg.Height
		if m.form != nil {
			m.form.size(m.w, m.h)
		}
	case tea.KeyMsg:
		m.touched = m.clock
		return m, m.key(msg)
	case tea.MouseMsg:
		return m, m.pointed(msg)
	case resumedMsg:
		return m, m.resumed(msg)
	case eventsMsg:
		for i := range msg {
			m.apply(&msg[i])
		}
		if m.board != nil {
			m.board.forecast(m.clock)
			m.chart.show(m.board)
		}
		return m, m.listen
	case tickMsg:
		if m.board != nil {
			m.board.forecast(m.clock)
		}
		if !m.working() && !m.planning() && !m.looking() {
			m.ticking = false
			return m, nil
		}
		return m, tick()
	case planMsg:
		return m, m.planned(msg)
	case seenMsg:
		return m, m.seen(msg)
	case lookedMsg:
		return m, m.looked(msg)
	case knownMsg:
		m.knows(msg)
	case catalogMsg:
		return m, m.reread(msg)
	case imageMsg:
		m.pictured(msg)
	case historyMsg:
		m.remembers(msg)
	case runMsg:
		return m, m.ended(msg)
	case copiedMsg:
		if msg.err != nil {
			m.say(bad, "not copied: "+msg.err.Error())
		} else {
			m.say(good, "sent to the terminal's clipboard (OSC 52): "+msg.what)
		}
	case readMsg, siftedMsg:
		m.dirty = m.logMessage(msg)
	case toldMsg:
		m.say(msg.tone, msg.text)
	case savedMsg:
		m.saved(msg)
	case stopMsg:
		m.cause = msg.cause
		return m, m.stop(fmt.Errorf("stopped: %w", msg.cause))
	case formMsg:
		return m, m.worked(msg)
	default:
		if m.form != nil && m.form.asking != nil {
			return m, m.formMessage(msg)
		}
		m.dirty = false
	}
	return m, nil
}

// rescue makes a panic the console's orderly end: the terminal is restored, and what runs is ended and waited for.
func (m *model) rescue() {
	if r := recover(); r != nil {
		m.crash = fmt.Errorf("a mistake in this program: %v\n%s", r, debug.Stack())
		m.frame, m.dirty = "", false
		m.abort()
	}
}

// tick is the clock of what is shown as elapsed; it stands still when nothing is going on.
func tick() tea.Cmd { return tea.Tick(time.Second, func(time.Time) tea.Msg { return tickMsg{} }) }

func (m *model) wind() tea.Cmd {
	if m.ticking {
		return nil
	}
	m.ticking = true
	return tick()
}

// apply takes in one event.
func (m *model) apply(e *event.Event) {
	switch {
	case e.Missed > 0: // logs read it back
	case m.replay != nil && m.replayed(*e):
	case e.Target == "" && e.Kind == event.Log:
		m.messages.buf.push(e.Time, said, clean(e.Line))
		if m.top() != messagesScreen {
			m.unread++
		}
	case e.Target == "":
	case m.planning(), m.plan != nil && m.plan.owns(*e):
		m.plan.apply(*e)
	case m.board != nil:
		m.board.apply(e)
		if p := m.board.byTarget[e.Target]; p != nil && p.log.buf.disk == nil && p.log.buf.numbered {
			p.log.buf.disk = m.engine.Transcript(e.Target)
		}
	}
}

// key is a key press. Keys that were typed faster than they were read come in one message; each counts.
func (m *model) key(msg tea.KeyMsg) tea.Cmd {
	if msg.Alt {
		// No key here has Alt in it: an escape and a key after it came together, from a fast hand or a slow line.
		msg.Alt = false
		return tea.Batch(m.key(tea.KeyMsg{Type: tea.KeyEsc}), m.key(msg))
	}
	if msg.Type == tea.KeyRunes && len(msg.Runes) > 1 && !msg.Paste && m.input == nil {
		var cmds []tea.Cmd
		for _, r := range msg.Runes {
			one := tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune{r}}
			if r == ' ' {
				one.Type = tea.KeySpace
			}
			cmds = append(cmds, m.key(one))
		}
		return tea.Batch(cmds...)
	}
	if m.stopping {
		return nil // nothing but the end is left
	}
	if m.dialog != nil {
		return m.dialogKey(msg)
	}
	if m.form != nil && m.form.asking != nil && m.top() == formScreen {
		return m.formMessage(msg)
	}
	m.note, m.noteLog = "", nil
	s := m.top().scope()
	if m.input != nil {
		s = inInput
	}
	if msg.Paste {
		if m.input != nil {
			m.input.add(string(msg.Runes))
			return m.typed()
		}
		return nil // a pasted text is no command
	}
	if a := m.bound(msg.String(), s); a != nil {
		return m.run(a)
	}
	if m.input != nil {
		if msg.Type == tea.KeyRunes || msg.Type == tea.KeySpace {
			m.input.add(string(msg.Runes))
			return m.typed()
		}
		return nil
	}
	if name := msg.String(); msg.Type == tea.KeyRunes || len(name) > 0 {
		m.note, m.noteTone = fmt.Sprintf("%s means nothing here: ? shows all keys", clean(keyName(name))), aside
	}
	return nil
}

func (m *model) openMessages() tea.Cmd {
	m.unread = 0
	m.push(messagesScreen)
	return nil
}

// Moving.

// move moves the cursor of the screen, or scrolls its log.
func (m *model) move(delta int) {
	switch s := m.top(); s {
	case chartScreen:
		m.chart.move(delta)
	case runScreen, logScreen, messagesScreen:
		m.log().scroll(delta)
	case detailsScreen, cellScreen:
		m.moveField(delta)
	default:
		m.scrolled[s].move(delta)
	}
}

// jump goes to the first or last line.
func (m *model) jump(last bool) {
	if m.scope()&logs != 0 {
		if last {
			m.log().follow()
		} else {
			m.log().toFirst()
		}
		return
	}
	if last {
		m.move(1 << 30)
	} else {
		m.move(-1 << 30)
	}
}

// page is how many lines the screen's list or log shows.
func (m *model) page() int {
	switch s := m.top(); s {
	case chartScreen:
		return m.chart.h
	case runScreen, logScreen, messagesScreen:
		return m.log().h
	default:
		return m.scrolled[s].h
	}
}

func (m *model) scope() scope { return m.top().scope() }

// log is the log that keys are for.
func (m *model) log() *logView {
	if m.top() == messagesScreen || m.board == nil || len(m.board.panes) == 0 {
		return m.messages
	}
	return m.board.panes[m.board.focus].log
}

func (m *model) whyNotBack() string {
	if len(m.stack) < 2 && m.chart.filter == "" {
		return "this is the first screen; q leaves"
	}
	return ""
}

// back goes one step back.
func (m *model) back() tea.Cmd {
	switch s := m.top(); {
	case m.scope()&logs != 0 && m.log().clear():
	case s == helpScreen && m.help.filter != "":
		m.help.filter = ""
	case s == chartScreen:
		m.chart.filter = ""
		m.chart.arrange()
	case s == formScreen:
		return m.closeForm()
	case s == planScreen && m.planning() && !m.plan.cancelled:
		m.plan.cancelled = true
		m.plan.cancel(errors.New("cancelled in the console"))
		m.stack = m.stack[:len(m.stack)-1]
		m.say(aside, "the plan was cancelled")
	default:
		m.stack = m.stack[:len(m.stack)-1]
	}
	return nil
}

// The chart.

func (m *model) whyNotSelect() string {
	l, ok := m.chart.on()
	if !ok {
		return "there is no row under the cursor"
	}
	if len(l.able()) == 0 {
		return l.reason()
	}
	return ""
}

func (m *model) toggle() tea.Cmd {
	l, _ := m.chart.on()
	set(l.able(), !l.selected())
	return nil
}

func (m *model) whyNotAll() string {
	if len(m.chart.shown()) == 0 {
		return "none of the shown rows can be built"
	}
	return ""
}

func (m *model) toggleAll() tea.Cmd {
	shown := m.chart.shown()
	set(shown, !all(shown))
	return nil
}

func (m *model) whyNotUnfold() string {
	l, ok := m.chart.on()
	if !ok {
		return "there is no row under the cursor"
	}
	if len(l.row.targets) == 0 {
		return l.reason()
	}
	return ""
}

func (m *model) whyNotOpen() string {
	l, ok := m.chart.on()
	switch {
	case ok && l.selected():
		return m.whyNotBuild()
	case ok && !l.flavor():
		return m.whyNotSelect()
	}
	return m.whyNotUnfold()
}

// enter does the next thing with what the cursor is on.
func (m *model) enter() tea.Cmd {
	l, _ := m.chart.on()
	switch {
	case l.selected():
		return m.askBuild()
	case !l.flavor():
		return m.toggle()
	}
	m.chart.fold(!l.row.open)
	return nil
}

func (m *model) askFilter() tea.Cmd {
	if m.top() == helpScreen {
		m.input = &input{prompt: "find", text: m.help.filter}
		return nil
	}
	m.input = &input{prompt: "filter", text: m.chart.filter}
	return nil
}

// Typing.

// input is a line of text that is being typed.
type input struct {
	prompt string
	text   string
	then   func(text string) tea.Cmd // what is done with it; nil: the screen knows
}

func (i *input) add(s string) {
	if s = clean(s); len(i.text)+len(s) <= 200 {
		i.text += s
	}
}

func (i *input) delete() {
	if r := []rune(i.text); len(r) > 0 {
		i.text = string(r[:len(r)-1])
	}
}

func (i *input) deleteWord() {
	i.text = strings.TrimRight(i.text, " ")
	i.text = i.text[:strings.LastIndexByte(i.text, ' ')+1]
}

// typed takes over what changes while it is typed: filters.
func (m *model) typed() tea.Cmd {
	if m.input.then != nil {
		return nil
	}
	switch m.top() {
	case chartScreen:
		m.chart.filter = m.input.text
		m.chart.arrange()
	case helpScreen:
		m.help.filter = m.input.text
		m.scrolled[helpScreen].cursor = 0
	}
	return nil
}

func (m *model) accept() tea.Cmd {
	text, then := m.input.text, m.input.then
	m.input = nil
	switch {
	case then != nil:
		return then(text)
	case m.top() == helpScreen && m.help.palette:
		return m.run(m.bound("enter", onHelp))
	}
	return nil
}

func (m *model) leaveInput() tea.Cmd {
	m.input.text = ""
	m.typed()
	m.input = nil
	if m.top() == helpScreen && m.help.palette {
		m.stack = m.stack[:len(m.stack)-1]
	}
	return nil
}

// Logs.

func (m *model) whyWrapped() string {
	if m.log().wrap {
		return "lines are wrapped: w cuts them"
	}
	return ""
}

func (m *model) whyNoPanes() string {
	if m.board == nil || len(m.board.panes) == 0 {
		return "there is no log"
	}
	return ""
}

func (m *model) whyOnePane() string {
	if m.board == nil || len(m.board.panes) < 2 {
		return "there is one target only"
	}
	return ""
}

// turn moves the focus to another pane; from then on it stays where it was put.
func (m *model) turn(delta int) {
	m.board.focus = mod(m.board.focus+delta, len(m.board.panes))
	m.board.held = true
}

func (m *model) zoom() tea.Cmd {
	if m.top() == logScreen {
		return m.back()
	}
	m.board.held = true
	m.push(logScreen)
	return nil
}

func (m *model) zoomSummary() tea.Cmd {
	order := m.board.order()
	m.board.focus = order[min(m.scrolled[summaryScreen].cursor, len(order)-1)]
	m.board.held = true
	m.push(logScreen)
	return nil
}

// The run.

func (m *model) whyNotBuild() string {
	switch {
	case m.replay != nil:
		return m.whyRecorded()
	case m.working():
		return "a run is under way: r shows it"
	case m.planning():
		return "a plan is being made: wait for it, or esc on its screen"
	case m.whyMistaken() != "":
		return m.whyMistaken()
	case len(m.chart.meant()) == 0:
		if l, ok := m.chart.on(); ok {
			return l.reason()
		}
		return "nothing is selected"
	}
	return ""
}

// meant is what an action is about, as a selection, as names, and on the command line.
func (m *model) meant() (engine.Selection, []string) {
	targets := m.chart.meant()
	var names []string
	for _, t := range targets {
		names = append(names, t.id)
	}
	return engine.Selection{Only: m.chart.selectors(targets)}, names
}

// askBuild shows what a run would do, and asks whether to start it.
func (m *model) askBuild() tea.Cmd {
	sel, names := m.meant()
	where := clean(m.engine.Destination())
	return m.propose(sel, names, func() *dialog {
		d := &dialog{title: "Publish " + plural(len(names), "target") + " to " + where + "?", batch: m.batch(sel), doing: "publish", leaving: "back",
			yes: func() tea.Cmd { return m.startRun(sel, names) }}
		d.text = "Each is built, boot-tested, signed and published to " + where + "; what has not changed is left alone."
		if !strings.HasPrefix(where, "dir:") {
			d.word = "publish"
			d.text += " Others can pull it from there at once."
		}
		return d
	})
}

// startRun starts the run that was agreed to.
func (m *model) startRun(sel engine.Selection, names []string) tea.Cmd {
	b := newBoard(sel, names, m.clock)
	b.batch, b.publishes = m.batch(sel), clean(m.engine.Destination())
	wait, cancel := m.start(func(ctx context.Context) tea.Msg {
		s, err := m.engine.Run(ctx, sel)
		return runMsg{b, s, err}
	}, func(err error) tea.Msg { return runMsg{b, engine.Summary{}, err} })
	b.cancel = cancel
	m.board = b
	m.chart.show(b)
	m.scrolled[summaryScreen] = list{}
	m.stack = []screen{chartScreen, runScreen}
	m.messages.buf.push(m.clock, aside, "run started: "+b.batch)
	b.usual = m.usual
	return tea.Batch(wait, m.wind(), m.askHistory())
}

// ended takes in how a run ended.
func (m *model) ended(msg runMsg) tea.Cmd {
	b := msg.board
	b.cancel(nil)
	b.finish(msg.summary, msg.err, m.clock)
	m.chart.show(b)
	m.chart.list()
	for i, s := range m.stack {
		if s == runScreen {
			m.stack[i] = summaryScreen
		}
	}
	t := good
	if msg.err != nil || msg.summary.Failed() > 0 {
		t = bad
	}
	text := "run ended: " + b.sentence(m.clock)
	if msg.err != nil {
		text = "the run did not start: " + msg.err.Error()
	}
	m.say(t, text)
	if m.top() == summaryScreen {
		m.note = "" // the summary says it
	}
	if m.dialog != nil && m.dialog.running {
		m.dialog = nil // there is nothing to cancel any more
	}
	return tea.Batch(m.leaveIfIdle(), m.refresh())
}

func (m *model) whyNoRun() string {
	if m.board == nil {
		return "nothing has run yet in this console"
	}
	return ""
}

func (m *model) showRun() tea.Cmd {
	s := runScreen
	if m.board.over() {
		s = summaryScreen
	}
	m.push(s)
	return nil
}

func (m *model) whyNotCancel() string {
	switch {
	case m.replay != nil:
		return m.whyRecorded()
	case !m.working():
		return "nothing is running"
	case m.board.cancelled:
		return "the run is being cancelled: its programs are ending"
	}
	return ""
}

func (m *model) askCancel() tea.Cmd {
	n := m.board.tally()
	text := plural(n[running], "target") + " under way"
	if n[waiting] > 0 {
		text += ", " + number(n[waiting]) + " waiting"
	}
	text += ". Programs that run for them are ended. Finished stages and downloads are kept: the next run goes on where this one stopped. Nothing is half-published."
	m.dialog = &dialog{title: "Cancel the run?", text: text, doing: "cancel it", leaving: "let it go on", running: true, opened: m.clock,
		yes: func() tea.Cmd { m.cancel(); return nil }}
	return nil
}

func (m *model) cancel() {
	if m.working() && !m.board.cancelled {
		m.board.cancelled = true
		m.board.cancel(errors.New("cancelled in the console"))
		m.say(aside, "cancelling: waiting for programs to end")
	}
}

// Leaving.

func (m *model) quit() tea.Cmd {
	if !m.working() || m.replay != nil {
		return m.stop(errors.New("the console was left"))
	}
	text := "The run is cancelled first, and the console closes when its programs have ended. Finished stages and downloads are kept."
	m.dialog = &dialog{title: "A run is under way: leave?", text: text, doing: "cancel and leave", leaving: "stay", running: true, opened: m.clock,
		yes: func() tea.Cmd { return m.stop(errors.New("the console was left")) }}
	return nil
}

func (m *model) interrupt() tea.Cmd {
	if m.working() && !m.board.cancelled && m.replay == nil {
		return m.askCancel()
	}
	return m.quit()
}

// stop ends everything that runs, and then the console.
func (m *model) stop(cause error) tea.Cmd {
	m.stopping, m.dialog, m.input = true, nil, nil
	if m.planning() {
		m.plan.cancel(cause)
	}
	if m.working() {
		m.board.cancelled = true
		m.board.cancel(cause)
	}
	return m.leaveIfIdle()
}

func (m *model) leaveIfIdle() tea.Cmd {
	if m.stopping && (!m.working() || m.replay != nil) && !m.planning() {
		return tea.Quit
	}
	return nil
}

// Copying.

func (m *model) whyNotCopy() string {
	if m.scope()&(onRun|onLog|onSummary) != 0 && m.board != nil || m.top() == planScreen {
		return ""
	}
	if len(m.chart.meant()) == 0 {
		if l, ok := m.chart.on(); ok {
			return l.reason()
		}
		return "nothing is selected"
	}
	return ""
}

func (m *model) copyBatch() tea.Cmd { return m.copyText(m.batchHere()) }

func (m *model) copyPath() tea.Cmd { return m.copyText(m.pathHere()) }

// pathHere is where the whole log is that the screen is about.
func (m *model) pathHere() string {
	p := m.board.panes[m.board.focus]
	if m.top() == summaryScreen {
		order := m.board.order()
		p = m.board.panes[order[min(m.scrolled[summaryScreen].cursor, len(order)-1)]]
	}
	return m.logPath(p)
}

// logPath is where the whole log of a target is: that of the stage that ended last, or the folder of all of them.
func (m *model) logPath(p *pane) string {
	if p.logFile != "" {
		return p.logFile
	}
	return clean(m.engine.Logs())
}

func (m *model) copyText(text string) tea.Cmd {
	return func() tea.Msg { return copiedMsg{text, m.copy(text)} }
}
