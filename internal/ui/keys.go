package ui

import (
	"fmt"
	"strings"

	tea "github.com/charmbracelet/bubbletea"
)

// place is where a key is pressed.
type place int

const (
	onChart place = 1 << iota
	onWork
	onText // plan, help, summary
)

// action is something that can be done. Help, hints and dispatch all come from the one table below.
type action struct {
	keys   []string // as bubbletea spells them; the first is the one that is shown
	name   string   // a word for the hints
	help   string
	places place
	hint   bool                // shown at the bottom
	cannot func(*model) string // why it cannot be done now; "" when it can
	do     func(*model) tea.Cmd
}

// actions is filled in init: its functions look at it themselves.
var actions []action

func init() {
	actions = []action{
		{[]string{"up", "k"}, "up", "up a line", onChart | onWork | onText, false, nil, func(m *model) tea.Cmd { return m.move(-1) }},
		{[]string{"down", "j"}, "down", "down a line", onChart | onWork | onText, false, nil, func(m *model) tea.Cmd { return m.move(1) }},
		{[]string{"pgup", "ctrl+b"}, "page up", "up a page", onChart | onWork | onText, false, nil, func(m *model) tea.Cmd { return m.move(-max(1, m.body()-2)) }},
		{[]string{"pgdown", "ctrl+f"}, "page down", "down a page", onChart | onWork | onText, false, nil, func(m *model) tea.Cmd { return m.move(max(1, m.body()-2)) }},
		{[]string{"g", "home"}, "top", "to the first line", onChart | onWork | onText, false, nil, func(m *model) tea.Cmd { return m.move(-1 << 30) }},
		{[]string{"G", "end"}, "end", "to the last line; a log follows again", onChart | onWork | onText, false, nil, func(m *model) tea.Cmd { return m.move(1 << 30) }},
		{[]string{" "}, "select", "select the row: all of it that can be built", onChart, true, (*model).cannotSelect, (*model).selectRow},
		{[]string{"right", "l", "left", "h"}, "unfold", "show the row's releases and architectures, or hide them", onChart, true, (*model).cannotUnfold, (*model).unfold},
		{[]string{"a"}, "all", "select everything that can be built, or nothing", onChart, false, nil, func(m *model) tea.Cmd { m.chart.toggleAll(); return nil }},
		{[]string{"p"}, "plan", "what a run would do with the selection, and why", onChart, true, (*model).cannotPlan, (*model).plan},
		{[]string{"b", "enter"}, "build", "build, test, sign and publish the selection, or the row under the cursor", onChart, true, (*model).cannotBuild, (*model).build},
		{[]string{"y"}, "copy", "copy the --batch line that does the same", onChart | onWork, false, (*model).cannotCopy, (*model).copy},
		{[]string{"/"}, "find", "filter the rows, or search the log (n and N: next and previous)", onChart | onWork, true, nil, (*model).ask},
		{[]string{"n"}, "next", "the next place above that has the searched text", onWork, false, (*model).cannotFind, func(m *model) tea.Cmd { return m.find(1) }},
		{[]string{"N"}, "previous", "the next place below", onWork, false, (*model).cannotFind, func(m *model) tea.Cmd { return m.find(-1) }},
		{[]string{"tab"}, "next pane", "the next pane", onWork, true, (*model).cannotSwitch, func(m *model) tea.Cmd { m.work.focus = (m.work.focus + 1) % len(m.work.panes); return nil }},
		{[]string{"shift+tab"}, "last pane", "the pane before", onWork, false, (*model).cannotSwitch, func(m *model) tea.Cmd {
			m.work.focus = (m.work.focus + len(m.work.panes) - 1) % len(m.work.panes)
			return nil
		}},
		{[]string{"z"}, "zoom", "one pane alone, or all", onWork, true, (*model).cannotSwitch, func(m *model) tea.Cmd { m.work.zoom = !m.work.zoom; return nil }},
		{[]string{"f"}, "follow", "follow the log's end again", onWork, false, nil, func(m *model) tea.Cmd { return m.move(1 << 30) }},
		{[]string{"w"}, "wrap", "wrap long log lines, or cut them", onWork, true, nil, (*model).wrap},
		{[]string{"t"}, "times", "show the time of each log line, or not", onWork, false, nil, (*model).times},
		{[]string{"s"}, "summary", "what came of the run, or its panes", onWork, true, (*model).cannotSum, func(m *model) tea.Cmd { m.work.result = !m.work.result; return nil }},
		{[]string{"r"}, "run", "look at the run again", onChart, false, (*model).cannotReturn, func(m *model) tea.Cmd { m.show = onWork; return nil }},
		{[]string{"x"}, "stop", "stop the run", onChart | onWork, true, (*model).cannotStop, (*model).stop},
		{[]string{"esc"}, "back", "back to where you were", onChart | onWork | onText, true, nil, (*model).back},
		{[]string{"?"}, "help", "this help", onChart | onWork | onText, true, nil, (*model).help},
		{[]string{"q", "ctrl+c"}, "quit", "quit; asks if work is running", onChart | onWork | onText, true, nil, (*model).quit},
	}
}

// shown is a key as people call it.
func shown(key string) string {
	if name, ok := map[string]string{" ": "space", "up": "↑", "down": "↓", "left": "←", "right": "→"}[key]; ok {
		return name
	}
	return key
}

// dispatch does what a key means here; what cannot be done is said with its reason.
func (m *model) dispatch(key string) tea.Cmd {
	for i := range actions {
		a := &actions[i]
		if a.places&m.show == 0 {
			continue
		}
		for _, k := range a.keys {
			if k != key {
				continue
			}
			if a.cannot != nil {
				if why := a.cannot(m); why != "" {
					m.say(a.name + ": " + why)
					return nil
				}
			}
			m.status = ""
			return a.do(m)
		}
	}
	return nil
}

// hints are the keys that matter here, as many as there is room for.
func (m *model) hints(width int) string {
	out, used := "", 0
	for i := len(actions) - 1; i >= 0; i-- { // quit and help come first
		a := &actions[i]
		if !a.hint || a.places&m.show == 0 || a.cannot != nil && a.cannot(m) != "" {
			continue
		}
		key := shown(a.keys[0])
		n := len([]rune(key)) + 1 + len(a.name) + 2
		if used+n > width {
			break
		}
		out = m.styles.key.Render(key) + " " + a.name + "  " + out
		used += n
	}
	return out
}

// helpText lists every key for the place it is asked for, and why something cannot be done now.
func (m *model) helpText() []string {
	names := map[place]string{onChart: "the chart", onWork: "a run", onText: "texts"}
	lines := []string{"Keys on " + names[m.show] + ":", ""}
	add := func(p place) {
		for i := range actions {
			a := &actions[i]
			if a.places&p == 0 {
				continue
			}
			keys := make([]string, len(a.keys))
			for k := range a.keys {
				keys[k] = shown(a.keys[k])
			}
			text := fmt.Sprintf("  %-14s %s", strings.Join(keys, " "), a.help)
			if a.cannot != nil && p == m.show {
				if why := a.cannot(m); why != "" {
					text += " — not now: " + why
				}
			}
			lines = append(lines, text)
		}
	}
	add(m.show)
	for _, p := range []place{onChart, onWork} {
		if p != m.show {
			lines = append(lines, "", "Keys on "+names[p]+":", "")
			add(p)
		}
	}
	return append(lines, "", "Symbols: ✓ done   - nothing to do   ✗ failed   ▶ at work   · waiting", "",
		"Every run is the same as its --batch line, which y copies. Logs: "+m.engine.Logs())
}
