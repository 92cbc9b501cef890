package ui

import (
	"fmt"
	"strings"

	tea "github.com/charmbracelet/bubbletea"
)

// help is the list of every key, and the palette: the same list by name of what can be done on a screen.
type help struct {
	of      screen // where it was asked for
	palette bool
	filter  string
	items   []helpItem // as last drawn
}

// helpItem is a heading, or an action.
type helpItem struct {
	heading string
	action  *action
}

func (m *model) openHelp() {
	m.help = help{of: m.top()}
	m.scrolled[helpScreen] = list{}
	m.push(helpScreen)
}

func (m *model) palette() tea.Cmd {
	if m.top() != helpScreen {
		m.openHelp()
	}
	m.help.palette = true
	m.help.filter = ""
	m.scrolled[helpScreen] = list{}
	m.input = &input{prompt: "command"}
	return nil
}

// list is what the help lists: what is meant on the screen it was asked for first.
func (m *model) helpItems() (items []helpItem) {
	here := m.help.of.scope()
	fits := func(a *action) bool {
		text := strings.ToLower(a.name + " " + a.help + " " + a.keyNames())
		for _, w := range strings.Fields(strings.ToLower(m.help.filter)) {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	}
	group := func(heading string, in func(*action) bool) {
		first := true
		for i := range m.actions {
			a := &m.actions[i]
			if !in(a) || !fits(a) || len(a.keys) == 0 && !m.help.palette {
				continue
			}
			if first && heading != "" {
				items = append(items, helpItem{heading: heading})
				first = false
			}
			items = append(items, helpItem{action: a})
		}
	}
	if m.help.palette {
		group("", func(a *action) bool { return a.in&here != 0 })
		return items
	}
	name := ""
	for _, s := range scopes {
		if s.scope == here {
			name = s.name
		}
	}
	group("here: "+name, func(a *action) bool { return a.in&here != 0 && !a.everywhere() })
	group("everywhere", (*action).everywhere)
	told := map[string]bool{}
	for i := range m.actions {
		where := m.actions[i].where()
		if told[where] {
			continue
		}
		told[where] = true
		group(where, func(a *action) bool { return a.in&here == 0 && !a.everywhere() && a.where() == where })
	}
	return items
}

// chosen is the action under the help's cursor.
func (m *model) chosen() *action {
	i := m.scrolled[helpScreen].cursor
	if items := m.helpItems(); i < len(items) {
		return items[i].action
	}
	return nil
}

func (m *model) whyNotHelp() string {
	a := m.chosen()
	switch {
	case a == nil:
		return "there is no action on this line"
	case a.in&m.help.of.scope() == 0:
		return a.name + " is meant elsewhere: " + a.where()
	}
	return ""
}

// doHelp goes back and does what the line says.
func (m *model) doHelp() tea.Cmd {
	a := m.chosen()
	m.stack = m.stack[:len(m.stack)-1]
	return m.run(a)
}

func (m *model) helpBody(w, h int) []string {
	st, l := m.st, &m.scrolled[helpScreen]
	m.help.items = m.helpItems()
	from, to := l.window(len(m.help.items), h)
	keys, name := 4, 4
	for i := range m.actions {
		keys = max(keys, width(m.actions[i].keyNames()))
		name = max(name, width(m.actions[i].name))
	}
	names := m.help.palette && w >= 60 || w >= 100
	var out []string
	for i := from; i < to; i++ {
		item := m.help.items[i]
		mark := m.cursor(i == l.cursor)
		if item.action == nil {
			out = append(out, fit(mark+st.title.of(item.heading), w))
			continue
		}
		a := item.action
		line := mark + st.accent.of(pad(a.keyNames(), keys)) + "  "
		if names {
			line += pad(a.name, name) + "  "
		}
		text := a.help
		why := ""
		if a.why != nil && a.in&m.help.of.scope() != 0 {
			why = m.whyThere(a)
		}
		if why != "" {
			text = st.dim.of(text) + st.warn.of(" · not now: "+why)
		}
		line += text
		out = append(out, fit(line, w))
	}
	if len(m.help.items) == 0 {
		out = append(out, st.warn.of(fit(fmt.Sprintf("  no command matches “%s”", m.help.filter), w)))
	}
	return out
}

// whyThere asks an action for its reason as if the help were not there.
func (m *model) whyThere(a *action) string {
	stack := m.stack
	m.stack = stack[:len(stack)-1]
	defer func() { m.stack = stack }()
	return a.why(m)
}

// helpInfo says of the line under the cursor what does not fit there.
func (m *model) helpInfo() string {
	a := m.chosen()
	if a == nil {
		return ""
	}
	if a.why != nil && a.in&m.help.of.scope() != 0 {
		if why := m.whyThere(a); why != "" {
			return a.name + ": not now, " + why
		}
	}
	return a.name + ", on: " + a.where()
}
