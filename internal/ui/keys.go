package ui

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// scope is where an action can be meant: screens, and what is in front of them.
type scope uint32

const (
	onChart scope = 1 << iota
	onDetails
	onPlan
	onRun
	onLog
	onSummary
	onMessages
	onMatrix
	onCell
	onHelp
	onForm
	inDialog
	inInput

	logs     = onRun | onLog | onMessages
	screens  = onChart | onDetails | onPlan | onRun | onLog | onSummary | onMessages | onMatrix | onCell | onHelp | onForm
	anything = screens &^ onHelp
)

// scopes names them in the order of the help.
var scopes = []struct {
	scope scope
	name  string
}{
	{onChart, "chart"}, {onDetails, "details"}, {onPlan, "plan"}, {onRun, "run"}, {onLog, "log"}, {onSummary, "summary"},
	{onMessages, "messages"}, {onMatrix, "matrix"}, {onCell, "stage"}, {onHelp, "help"}, {onForm, "forms"}, {inDialog, "questions"}, {inInput, "typing"},
}

// action is something that the console can do. The one table of them feeds dispatch, help, palette and footers.
type action struct {
	name  string
	keys  []string
	short string // in footers; "" keeps it out of them
	help  string
	in    scope
	shy   bool                // in footers only while it can be done
	why   func(*model) string // why it cannot be done now; "" or nil: it can
	do    func(*model) tea.Cmd
}

func bindings() []action {
	move := func(delta int) func(*model) tea.Cmd {
		return func(m *model) tea.Cmd { m.move(delta); return nil }
	}
	pages := func(num, den int) func(*model) tea.Cmd {
		return func(m *model) tea.Cmd { m.move(num * max(1, m.page()/den)); return nil }
	}
	return slices.Concat([]action{
		// Footers show what comes first as long as there is room.
		{"pause", []string{"P"}, "pause", "of a replay: stop its clock, or let it go on", screens, true, (*model).whyNoReplay, replaying((*engine.Replay).Pause)},
		{"slower", []string{"-"}, "slower", "of a replay: half as fast", screens, true, (*model).whyNoReplay, replaying((*engine.Replay).Slower)},
		{"faster", []string{"+"}, "faster", "of a replay: twice as fast", screens, true, (*model).whyNoReplay, replaying((*engine.Replay).Faster)},
		{"to first failure", []string{"!"}, "failure", "of a replay: to the first failure, and pause there", screens, true, (*model).whyNoFailure, (*model).toFailure},
		{"to the end", []string{"E"}, "end", "of a replay: everything that is left, at once", screens, true, (*model).whyNoReplay, replaying((*engine.Replay).ToEnd)},
		{"restart", []string{"R"}, "restart", "of a replay: from its beginning", screens, true, (*model).whyNoReplay, replaying((*engine.Replay).Restart)},
		{"select", []string{" "}, "select", "select the row or target; again: unselect it", onChart, false, (*model).whyNotSelect, (*model).toggle},
		{"plan", []string{"p"}, "plan", "what a run would do, and why; changes nothing", onChart | onDetails | onPlan, false, (*model).whyNotPlan, (*model).startPlan},
		{"look", []string{"u"}, "upstreams", "what is newest upstream and what is published, of every row", onChart | onDetails, false, (*model).whyNotLook, (*model).startLook},
		{"build", []string{"b"}, "build", "build, test, sign and publish what is selected; asks first", onChart | onDetails | onPlan, false, (*model).whyNotBuild, (*model).askBuild},
		{"build up to", []string{"B"}, "", "run what is selected up to a stage only; asks which", onChart | onDetails | onPlan, false, (*model).whyNotBuild, (*model).askUntil},
		{"show run", []string{"r"}, "run", "the run that is under way, or how the last one ended", anything &^ onRun &^ onSummary, true, (*model).whyNoRun, (*model).showRun},
		{"next pane", []string{"tab"}, "next pane", "the next target's pane", onRun | onLog, true, (*model).whyOnePane, func(m *model) tea.Cmd { m.turn(1); return nil }},
		{"zoom", []string{"z", "enter"}, "zoom", "give the pane the whole screen; again: its place", onRun | onLog, false, (*model).whyNoPanes, (*model).zoom},
		{"previous pane", []string{"shift+tab"}, "", "the previous target's pane", onRun | onLog, false, (*model).whyOnePane, func(m *model) tea.Cmd { m.turn(-1); return nil }},
		{"search", []string{"/"}, "search", "search the log: a capital makes case count, // an expression", logs, false, nil, (*model).askSearch},
		{"cancel", []string{"x"}, "cancel", "cancel the run; asks first", anything, true, (*model).whyNotCancel, (*model).askCancel},
		{"cancel target", []string{"X"}, "cancel target", "cancel the pane's target only; asks first", onRun | onLog, true, (*model).whyNotCancelTarget, (*model).askCancelTarget},
		{"retry", []string{"A"}, "retry", "run what failed again, from where it failed; asks first", anything, true, (*model).whyNotRetry, (*model).askRetry},
		{"filter", []string{"/"}, "filter", "show only lines with these words", onChart | onHelp, false, nil, (*model).askFilter},
		{"unfold", []string{"right", "l"}, "unfold", "show the row's targets", onChart, false, (*model).whyNotUnfold, func(m *model) tea.Cmd { m.chart.fold(true); return nil }},
		{"select all", []string{"a"}, "all", "select every shown target that can be built; again: none", onChart, false, (*model).whyNotAll, (*model).toggleAll},
		{"fold", []string{"left", "h"}, "", "hide the row's targets", onChart, false, nil, func(m *model) tea.Cmd { m.chart.fold(false); return nil }},
		{"open", []string{"enter"}, "", "unfold a row, select a target; if it is selected: build", onChart, false, (*model).whyNotOpen, (*model).enter},
		{"details", []string{"i"}, "details", "everything that is known of the row and its image", onChart, false, nil, (*model).openDetails},
		{"matrix", []string{"v"}, "stages", "targets and stages: how each ended in the last weeks", onChart | onDetails | onSummary, false, (*model).whyNoMatrix, (*model).openMatrix},
		{"next trouble", []string{"n"}, "needs you", "to the next row that needs somebody", onChart, true, (*model).whyNoTrouble, func(m *model) tea.Cmd { return m.jumpTo(1, anyTrouble) }},
		{"previous trouble", []string{"N"}, "", "to the previous row that needs somebody", onChart, false, (*model).whyNoTrouble, func(m *model) tea.Cmd { return m.jumpTo(-1, anyTrouble) }},
		{"sort", []string{"s"}, "sort", "the next order: catalogue, trouble, level, name, age", onChart, false, nil, func(m *model) tea.Cmd { return m.sortBy(order(mod(int(m.chart.sort)+1, len(orders)))) }},
		{"sort again", []string{"S"}, "", "sort and filter by what is known now", onChart, false, (*model).whySorted, func(m *model) tea.Cmd { return m.sortBy(m.chart.sort) }},
		{"next target", []string{"tab"}, "next target", "the row's next target", onDetails, true, (*model).whyOneTarget, func(m *model) tea.Cmd { return m.turnTarget(1) }},
		{"previous target", []string{"shift+tab"}, "", "the row's previous target", onDetails, false, (*model).whyOneTarget, func(m *model) tea.Cmd { return m.turnTarget(-1) }},
		{"copy value", []string{"y"}, "copy", "copy the value under the cursor, to the clipboard", onDetails | onCell, false, (*model).whyNoField, (*model).copyField},
		{"stage left", []string{"left", "h"}, "", "the stage before", onMatrix, false, nil, func(m *model) tea.Cmd { m.moveStage(-1); return nil }},
		{"stage right", []string{"right", "l"}, "", "the stage after", onMatrix, false, nil, func(m *model) tea.Cmd { m.moveStage(1); return nil }},
		{"open stage", []string{"enter"}, "open", "error, remedy, log and past runs of the stage", onMatrix, false, (*model).whyNoCell, (*model).openCell},
		{"theme", []string{"ctrl+t"}, "", "other colours: the next theme", screens, false, (*model).whyNoColour, (*model).nextTheme},
		{"open log", []string{"enter", "z"}, "open log", "the log of the target", onSummary, true, (*model).whyNoPanes, (*model).zoomSummary},
		{"follow", []string{"f"}, "follow", "stay with the newest line", logs, false, nil, func(m *model) tea.Cmd { m.log().follow(); return nil }},
		{"to error", []string{"e"}, "error", "the first line that looks like an error; again: the next one", logs, false, (*model).whyNoLines, (*model).toError},
		{"only a stage", []string{"s"}, "stage", "show only the next stage's lines; after the last one: all", onRun | onLog, false, (*model).whyOneStage, func(m *model) tea.Cmd { m.turnStage(1); return nil }},
		{"only stage before", []string{"S"}, "", "show only the lines of the stage before", onRun | onLog, false, (*model).whyOneStage, func(m *model) tea.Cmd { m.turnStage(-1); return nil }},
		{"only lines with", []string{"&"}, "only", "show only lines with these words; nothing typed: all", logs, false, nil, (*model).askOnly},
		{"save log", []string{"W"}, "save", "save the whole log to a file; asks for its name", logs, false, (*model).whyNoLines, func(m *model) tea.Cmd { return m.askSave(true) }},
		{"save what is shown", []string{"O"}, "", "save the lines that the filters show to a file", logs, false, (*model).whyNotShown, func(m *model) tea.Cmd { return m.askSave(false) }},
		{"copy lines", []string{"c"}, "copy lines", "copy the lines in the window to the clipboard", logs, false, (*model).whyNotShown, func(m *model) tea.Cmd { return m.copyLines(true) }},
		{"copy log", []string{"C"}, "", "copy all lines that the filters show to the clipboard", logs, false, (*model).whyNotShown, func(m *model) tea.Cmd { return m.copyLines(false) }},
		{"next match", []string{"n"}, "", "the next line that the search finds", logs, false, (*model).whyNoQuery, func(m *model) tea.Cmd { m.find(1); return nil }},
		{"previous match", []string{"N"}, "", "the previous line that the search finds", logs, false, (*model).whyNoQuery, func(m *model) tea.Cmd { m.find(-1); return nil }},
		{"wrap", []string{"w"}, "wrap", "break long lines, or cut them", logs, false, nil, func(m *model) tea.Cmd { m.log().wrap = !m.log().wrap; return nil }},
		{"timestamps", []string{"t"}, "time", "show when each line came", logs, false, nil, func(m *model) tea.Cmd { m.log().stamps = !m.log().stamps; return nil }},
		{"scroll left", []string{"left", "h"}, "", "the beginning of long lines", logs, false, (*model).whyWrapped, func(m *model) tea.Cmd { m.log().aside(-16); return nil }},
		{"scroll right", []string{"right", "l"}, "", "the rest of long lines", logs, false, (*model).whyWrapped, func(m *model) tea.Cmd { m.log().aside(16); return nil }},
		{"copy its command", []string{"y"}, "copy command", "copy the line's action as a command line", onHelp, false, (*model).whyNoLine, (*model).copyLine},
		{"do it", []string{"enter"}, "do it", "what the line says, where it can be done", onHelp, false, (*model).whyNotHelp, (*model).doHelp},
		{"promote", []string{"L"}, "promote", "move the row one level up or down, by the image criteria", onChart | onDetails, false, (*model).whyNotForm, (*model).startPromotion},
		{"try me", []string{"T"}, "try me", "a VirtualMachine for the row's image, its keys and its login", onChart | onDetails, false, (*model).whyNotForm, (*model).startTryMe},
		{"answer", []string{"enter"}, "answer", "vouch for a criterion or waive it; Try Me: a disk that stays", onForm, false, (*model).whyNotAnswer, (*model).answer},
		{"write", []string{"w"}, "write", "write what is shown into the repository's files; asks first", onForm, false, (*model).whyNotWrite, (*model).writeForm},
		{"copy form", []string{"y"}, "copy", "copy what is shown: the difference, or the VirtualMachine", onForm, false, (*model).whyNotCopyForm, (*model).copyForm},
		{"copy form's command", []string{"Y"}, "", "copy the same as a command line", onForm, false, (*model).whyNotCopyForm, (*model).copyFormLine},
		{"copy command", []string{"y"}, "copy", "copy the same as a command line, to the clipboard", onChart | onPlan | onRun | onLog | onSummary, false, (*model).whyNotCopy, (*model).copyBatch},
		{"copy path", []string{"Y"}, "", "copy where the whole log is on disk", onRun | onLog | onSummary, false, (*model).whyNoPanes, (*model).copyPath},

		{"up", []string{"k", "up"}, "", "one line up", screens, false, nil, move(-1)},
		{"down", []string{"j", "down"}, "", "one line down", screens, false, nil, move(1)},
		{"page up", []string{"pgup", "ctrl+b"}, "", "one page up", screens, false, nil, pages(-1, 1)},
		{"page down", []string{"pgdown", "ctrl+f"}, "", "one page down", screens, false, nil, pages(1, 1)},
		{"half page up", []string{"ctrl+u"}, "", "half a page up", screens, false, nil, pages(-1, 2)},
		{"half page down", []string{"ctrl+d"}, "", "half a page down", screens, false, nil, pages(1, 2)},
		{"first", []string{"g", "home"}, "", "to the first line", screens, false, nil, func(m *model) tea.Cmd { m.jump(false); return nil }},
		{"last", []string{"G", "end"}, "", "to the last line; a log follows again", screens, false, nil, func(m *model) tea.Cmd { m.jump(true); return nil }},
		{"messages", []string{"m"}, "messages", "what was said here and about runs as a whole", anything &^ onMessages, false, nil, (*model).openMessages},
		{"commands", []string{":"}, "commands", "find what can be done here by its name", screens, false, nil, (*model).palette},
		{"back", []string{"esc"}, "back", "one step back: out of a search, a filter, a screen", screens, false, (*model).whyNotBack, (*model).back},
		{"help", []string{"?"}, "help", "all keys", anything, false, nil, func(m *model) tea.Cmd { m.openHelp(); return nil }},
		{"quit", []string{"q"}, "quit", "leave; asks if a run is under way", screens, false, nil, (*model).quit},
		{"mouse", []string{"M"}, "", "clicks and the wheel work here; again: the terminal's", screens, false, nil, (*model).toggleMouse},
		{"suspend", []string{"ctrl+z"}, "", "back to the shell; fg comes back", screens, false, nil, func(m *model) tea.Cmd { return m.suspend }},
		{"interrupt", []string{"ctrl+c"}, "", "cancel the run, asks first; without a run: leave", screens, false, nil, (*model).interrupt},

		{"yes", []string{"y", "enter"}, "yes", "do it; publishing to a registry wants a word typed instead", inDialog, false, nil, (*model).yes},
		{"no", []string{"esc", "n"}, "no", "do not", inDialog, false, nil, (*model).no},
		{"interrupt question", []string{"ctrl+c"}, "", "yes to cancelling and leaving, no to everything else", inDialog, false, nil, (*model).interruptDialog},

		{"accept", []string{"enter"}, "accept", "keep what is typed", inInput, false, nil, (*model).accept},
		{"leave typing", []string{"esc", "ctrl+c"}, "leave", "forget what is typed", inInput, false, nil, (*model).leaveInput},
		{"copy the command", []string{"ctrl+y"}, "copy command", "in the list of commands: copy the action as a command line", inInput, true, (*model).whyNoLine, (*model).copyLine},
		{"delete", []string{"backspace"}, "", "delete a character", inInput, false, nil, func(m *model) tea.Cmd { m.input.delete(); return m.typed() }},
		{"delete word", []string{"ctrl+w"}, "", "delete a word", inInput, false, nil, func(m *model) tea.Cmd { m.input.deleteWord(); return m.typed() }},
		{"delete all", []string{"ctrl+u"}, "", "delete everything typed", inInput, false, nil, func(m *model) tea.Cmd { m.input.text = ""; return m.typed() }},
		{"line up", []string{"up"}, "", "one line up in the list", inInput, false, nil, move(-1)},
		{"line down", []string{"down"}, "", "one line down in the list", inInput, false, nil, move(1)},
	}, selectActions(), sortActions(), troubleActions(), themeActions())
}

// keyName is a key as people write it.
func keyName(key string) string {
	switch key {
	case " ":
		return "space"
	case "left":
		return "←"
	case "right":
		return "→"
	case "up":
		return "↑"
	case "down":
		return "↓"
	case "pgdown":
		return "pgdn"
	}
	return key
}

// keyNames are all keys of the action.
func (a *action) keyNames() string {
	names := make([]string, len(a.keys))
	for i, k := range a.keys {
		names[i] = keyName(k)
	}
	return strings.Join(names, " ")
}

// where names the scopes of the action.
func (a *action) where() string {
	if a.everywhere() {
		return "everywhere"
	}
	var names []string
	for _, s := range scopes {
		if a.in&s.scope != 0 {
			names = append(names, s.name)
		}
	}
	return strings.Join(names, ", ")
}

// everywhere reports whether the action is meant on all screens but one or two.
func (a *action) everywhere() bool { return bits.OnesCount32(uint32(a.in&screens)) >= 6 }

// ofReplay reports whether the action is of use while a recording is shown only.
func (a *action) ofReplay() bool { return strings.HasPrefix(a.help, "of a replay: ") }

// bound finds what a key means in a scope.
func (m *model) bound(key string, s scope) *action {
	for i := range m.actions {
		if a := &m.actions[i]; a.in&s != 0 && slices.Contains(a.keys, key) {
			return a
		}
	}
	return nil
}

// run does the action, or says why it cannot be done.
func (m *model) run(a *action) tea.Cmd {
	if a.why != nil {
		if why := a.why(m); why != "" {
			m.say(bad, fmt.Sprintf("%s: %s", a.name, why))
			return nil
		}
	}
	return a.do(m)
}

// footer is as many keys as fit, the way back and the help always among them.
func (m *model) footer(s scope, w int) string {
	st := m.st
	part := func(a *action) (string, int) {
		key := keyName(a.keys[0])
		if a.why != nil && a.why(m) != "" {
			return st.dim.of(key + " " + a.short), width(key) + 1 + width(a.short)
		}
		return m.mark(m.clickKey(a), st.accent.of(key)+" "+st.dim.of(a.short)), width(key) + 1 + width(a.short)
	}
	var last []string
	room := w + 2 // nothing comes after the last one
	for _, name := range []string{"back", "help", "quit"} {
		i := slices.IndexFunc(m.actions, func(a action) bool { return a.name == name })
		if a := &m.actions[i]; a.in&s != 0 && !(name == "back" && len(m.stack) < 2) {
			text, n := part(a)
			if n+2 <= room {
				last = append(last, text)
				room -= n + 2
			}
		}
	}
	var first []string
	for i := range m.actions {
		a := &m.actions[i]
		if a.in&s == 0 || a.short == "" || slices.Contains([]string{"back", "help", "quit"}, a.name) || a.shy && a.why(m) != "" {
			continue
		}
		text, n := part(a)
		if n+2 > room {
			continue
		}
		first = append(first, text)
		room -= n + 2
	}
	return strings.Join(append(first, last...), "  ")
}
