package ui

import (
	"fmt"
	"slices"
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
		group("", func(a *action) bool { return a.in&here != 0 && (m.replay != nil || !a.ofReplay()) })
		group("", func(a *action) bool { return a.in&here != 0 && m.replay == nil && a.ofReplay() }) // of no use here
		typed := strings.ToLower(strings.TrimSpace(m.help.filter))
		rank := func(i helpItem) int { // the one that is called so comes first
			switch {
			case i.action.name == typed:
				return 0
			case strings.HasPrefix(i.action.name, typed):
				return 1
			case strings.Contains(i.action.name, typed):
				return 2
			}
			return 3
		}
		if typed != "" {
			slices.SortStableFunc(items, func(a, b helpItem) int { return rank(a) - rank(b) })
		}
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
	foot := m.helpLine(w, h)
	from, to := l.window(len(m.help.items), h-len(foot))
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
		if len(a.keys) == 0 { // by the key of what it is one kind of
			line = mark + st.dim.of(pad(m.parent(a).keyNames()+" …", keys)) + "  "
		}
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
		out = append(out, m.mark(m.clickRow(l, i), pad(line, w)))
	}
	if len(m.help.items) == 0 {
		out = append(out, st.warn.of(fit(fmt.Sprintf("  no command matches “%s”", m.help.filter), w)))
	}
	if len(foot) > 0 {
		for len(out) < h-len(foot) {
			out = append(out, "")
		}
		out = append(out, foot...)
	}
	return out
}

// helpLine shows what does the same as the cursor's action on a command line, in always as many lines.
func (m *model) helpLine(w, h int) []string {
	n := 4
	switch {
	case h < 6:
		return nil
	case h < 12:
		n = 2
	}
	st, text := m.st, []string{}
	title := func(t string) string { // what was said is seen here while something is typed
		if m.input != nil && m.note != "" {
			return m.rule(m.note, w)
		}
		return m.rule(t, w)
	}
	if a := m.chosen(); a != nil {
		line, none := m.twinThere(a)
		key := "y"
		if m.input != nil {
			key = "ctrl+y"
		}
		if line != "" {
			text = append(wrap(line, w-4), "")
			if len(text) >= n {
				text = cut(text, n-1)
			}
			text[0] = st.accent.of("$ ") + text[0]
			for i := range text[1:] {
				text[i+1] = "  " + text[i+1]
			}
			head := title("the same as a command line: " + key + " copies it")
			return append([]string{head}, padTo(text, n-1, w)...)
		}
		return append([]string{title("no command line")}, padTo([]string{st.dim.of(a.name + ": " + none)}, n-1, w)...)
	}
	return append([]string{m.rule("", w)}, padTo(text, n-1, w)...)
}

// padTo makes a text as many lines, a little indented.
func padTo(text []string, n, w int) []string {
	out := make([]string, n)
	for i := range min(n, len(text)) {
		out[i] = fit("  "+text[i], w)
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
