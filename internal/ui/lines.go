package ui

import (
	"strings"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// Every action of the console as a command line, so that what was found here can be put into a script or a CI job.

// Why some actions have no command line.
const (
	moves   = "it only moves on the screen"
	changes = "it only changes what the screen shows"
	answers = "it only answers the console"
	manages = "it is about this terminal"
	outside = "ctrl+c does it where --batch runs"
)

// twin is what does the same as an action without the console: a command line, or the reason why there is none.
type twin struct {
	line func(*model) string
	none string
}

// twins are those of all actions, by name.
var twins = map[string]twin{
	"plan":         {line: func(m *model) string { return m.batch(m.meantOrAny(), "--plan") }},
	"look":         {line: func(m *model) string { return m.batch(engine.Selection{Only: []string{"*"}}, "--plan") }},
	"details":      {line: func(m *model) string { return m.batch(m.meantOrAny(), "--plan", "--output", "json") }},
	"build":        {line: func(m *model) string { return m.batch(m.meantOrAny()) }},
	"build up to":  {line: func(m *model) string { s := m.meantOrAny(); s.Until = engine.Test; return m.batch(s) }},
	"open":         {line: func(m *model) string { return m.batch(m.meantOrAny()) }},
	"copy command": {line: (*model).batchHere},
	"select":       {line: func(m *model) string { return m.batch(m.meantOrAny(), "--plan") }},
	"select all": {line: func(m *model) string {
		return m.batch(engine.Selection{Only: m.chart.selectors(m.chart.shown())}, "--plan")
	}},
	"select none": {none: changes},
	"retry": {line: func(m *model) string {
		if m.board == nil {
			return m.batch(m.meantOrAny())
		}
		return m.batch(engine.Selection{Only: m.failures(), Until: m.board.sel.Until, Force: m.board.sel.Force})
	}},
	"theme": {line: func(m *model) string { return "kmi-tui --theme " + m.dressed.theme().name }},
	"help":  {line: func(*model) string { return "kmi-tui --help" }},

	"promote": {line: func(m *model) string {
		flavor, level := m.rowMeant()
		return m.commandLine("promote", flavor, "--to", level, "--dry-run")
	}},
	"try me": {line: func(m *model) string { flavor, _ := m.rowMeant(); return m.commandLine("tryme", flavor) }},
	"write":  {line: (*model).formLine}, "answer": {line: (*model).formLine},
	"copy form": {line: (*model).formLine}, "copy form's command": {line: (*model).formLine},

	"show run":         {line: func(*model) string { return "kmi-tui replay last" }},
	"restart":          {line: func(*model) string { return "kmi-tui replay last" }},
	"faster":           {line: func(*model) string { return "kmi-tui replay last --speed 2" }},
	"slower":           {line: func(*model) string { return "kmi-tui replay last --speed 0.5" }},
	"to the end":       {line: func(*model) string { return "kmi-tui replay last --speed max" }},
	"to first failure": {line: func(*model) string { return "kmi-tui replay last --batch" }},
	"messages":         {line: func(*model) string { return "kmi-tui replay last --batch" }},
	"pause":            {none: changes},

	"save log": {line: (*model).logLine}, "open log": {line: (*model).logLine}, "zoom": {line: (*model).logLine}, "copy path": {line: (*model).logLine},
	"copy log": {line: (*model).logLine}, "open stage": {line: (*model).logLine},
	"save what is shown": {none: changes}, "copy lines": {none: changes}, "copy value": {none: changes},

	"cancel": {none: outside}, "cancel target": {none: outside}, "interrupt": {none: outside}, "quit": {none: outside},

	"filter": {none: changes}, "search": {none: changes}, "only a stage": {none: changes}, "only stage before": {none: changes}, "only lines with": {none: changes},
	"sort": {none: changes}, "sort again": {none: changes}, "fold": {none: changes}, "unfold": {none: changes}, "matrix": {none: changes},
	"follow": {none: changes}, "wrap": {none: changes}, "timestamps": {none: changes}, "commands": {none: changes}, "do it": {none: "it has that of the line's action"},
	"copy its command": {none: "it copies that of the line's action"}, "copy the command": {none: "it copies that of the line's action"},

	"next pane": {none: moves}, "previous pane": {none: moves}, "next trouble": {none: moves}, "previous trouble": {none: moves}, "next target": {none: moves}, "previous target": {none: moves},
	"stage left": {none: moves}, "stage right": {none: moves}, "to error": {none: moves}, "next match": {none: moves}, "previous match": {none: moves},
	"scroll left": {none: moves}, "scroll right": {none: moves}, "up": {none: moves}, "down": {none: moves}, "page up": {none: moves}, "page down": {none: moves},
	"half page up": {none: moves}, "half page down": {none: moves}, "first": {none: moves}, "last": {none: moves}, "back": {none: moves},
	"line up": {none: moves}, "line down": {none: moves},

	"mouse": {none: manages}, "suspend": {none: manages},
	"yes": {none: answers}, "no": {none: answers}, "interrupt question": {none: answers}, "accept": {none: answers}, "leave typing": {none: answers},
	"delete": {none: answers}, "delete word": {none: answers}, "delete all": {none: answers},
}

// parent is the action by whose key one without a key of its own is reached: it is one of the parent's kinds.
func (m *model) parent(a *action) *action {
	if len(a.keys) > 0 {
		return a
	}
	for i := range m.actions {
		if p := &m.actions[i]; len(p.keys) > 0 && p.in&a.in != 0 && (strings.HasPrefix(a.name, p.name+" ") || p.name == "next trouble" && strings.HasPrefix(a.name, "next ")) {
			return p
		}
	}
	return a
}

// twin is what does the same as the action without the console.
func (m *model) twin(a *action) (line, none string) {
	t, ok := twins[a.name]
	if !ok {
		if s, is := strings.CutPrefix(a.name, "theme "); is {
			return "kmi-tui --theme " + s, ""
		}
		if s, is := selectionOf(a.name); is {
			if len(s.levels) > 0 {
				return m.batch(engine.Selection{Levels: s.levels}, "--plan"), ""
			}
			if only := m.chart.selectors(s.of(m.chart)); len(only) > 0 {
				return m.batch(engine.Selection{Only: only}, "--plan"), ""
			}
			return "", "none of the shown rows has one"
		}
		t = twins[m.parent(a).name]
	}
	if t.line == nil {
		return "", t.none
	}
	if line = t.line(m); line == "" {
		return "", "there is nothing yet that it could be about"
	}
	return line, ""
}

// twinThere is the twin as if the help were not there.
func (m *model) twinThere(a *action) (line, none string) {
	stack := m.stack
	m.stack = stack[:len(stack)-1]
	defer func() { m.stack = stack }()
	return m.twin(a)
}

// meantOrAny is what an action is about, or where nothing can be, the row under the cursor.
func (m *model) meantOrAny() engine.Selection {
	sel, names := m.meant()
	if len(names) == 0 {
		flavor, _ := m.rowMeant()
		sel.Only = []string{flavor}
	}
	return sel
}

// batchHere is the command line of what the screen is about.
func (m *model) batchHere() string {
	switch {
	case m.scope()&(onRun|onLog|onSummary) != 0 && m.board != nil:
		return m.board.batch
	case m.top() == planScreen && m.plan != nil:
		return m.plan.batch
	}
	return m.batch(m.meantOrAny())
}

// rowMeant is the flavor under the cursor and the level that a promotion would give it.
func (m *model) rowMeant() (flavor, level string) {
	l, ok := m.chart.on()
	if !ok {
		return "FLAVOR", "LEVEL"
	}
	to := catalog.Levels[min(max(0, l.row.flavor.Level.Rank())+1, len(catalog.Levels)-1)]
	return l.row.id, string(to)
}

// formLine is the form's command line, as far as it is filled in.
func (m *model) formLine() string {
	if m.form == nil || len(m.form.texts) == 0 {
		return ""
	}
	return m.form.batch()
}

// logLine shows the log of the pane.
func (m *model) logLine() string {
	if m.board == nil || len(m.board.panes) == 0 || m.replay != nil {
		return ""
	}
	return "less -r " + quote(m.pathHere())
}

// batch spells a selection as a command line.
func (m *model) batch(sel engine.Selection, more ...string) string {
	return Batch(sel, m.engine.Destination(), m.flags, more...)
}

// commandLine spells words for a shell, after the program's name and with what this console was started with.
func (m *model) commandLine(words ...string) string {
	return Command(words, m.engine.Destination(), m.flags)
}

// Batch spells a selection as a line for a shell, with what else the program is to be told. A destination of "" is left
// out. It holds nothing that a terminal would take for a command.
func Batch(sel engine.Selection, destination string, flags []string, more ...string) string {
	words := append([]string{"--batch"}, more...)
	add := func(flag, value string) {
		if value != "" {
			words = append(words, flag, value)
		}
	}
	levels := make([]string, len(sel.Levels))
	for i, l := range sel.Levels {
		levels[i] = string(l)
	}
	add("--only", strings.Join(sel.Only, ","))
	add("--level", strings.Join(levels, ","))
	add("--until", string(sel.Until))
	if sel.Force {
		words = append(words, "--force")
	}
	return Command(words, destination, flags)
}

// Command spells words for the program as a line for a shell, with where it publishes ("": it is not said) and what else it is
// to be told.
func Command(words []string, destination string, flags []string) string {
	if destination != "" {
		words = append(words, "--registry", destination)
	}
	line := "kmi-tui"
	for _, w := range append(words, flags...) {
		line += " " + quote(clean(w))
	}
	return line
}

// Copying them.

func (m *model) whyNoLine() string {
	if m.top() != helpScreen {
		return "this is not the list of commands"
	}
	a := m.chosen()
	if a == nil {
		return "there is no action on this line"
	}
	if line, none := m.twinThere(a); line == "" {
		return a.name + " has no command line: " + none
	}
	return ""
}

func (m *model) copyLine() tea.Cmd {
	line, _ := m.twinThere(m.chosen())
	return m.copyText(line)
}
