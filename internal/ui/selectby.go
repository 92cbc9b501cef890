package ui

import (
	"slices"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// selection selects every shown target that something is true of, and nothing else.
type selection struct {
	name, key, help string
	levels          []catalog.Level // those of these levels; none: whatever fits is
	is              string          // a condition of the filter's
}

// selections are what can be selected at once. The order of levels is that of a promotion.
func selections() (list []selection) {
	keys := []string{"1", "2", "3", "4"}
	for i, l := range catalog.Levels {
		list = append(list, selection{"select " + string(l), keys[i], "select every shown target of the level " + string(l), []catalog.Level{l}, ""})
	}
	return append(list,
		selection{"select stale", "5", "select every shown target with something newer upstream", nil, "stale"},
		selection{"select unpublished", "6", "select every shown target that is not published", nil, "unpublished"},
		selection{"select failed", "7", "select every shown target that failed", nil, "failed"},
		selection{"select unsigned", "8", "select every shown target whose signature is bad", nil, "unsigned"},
	)
}

func selectionOf(name string) (selection, bool) {
	list := selections()
	i := slices.IndexFunc(list, func(s selection) bool { return s.name == name })
	if i < 0 {
		return selection{}, false
	}
	return list[i], true
}

// of are the shown targets that the selection is about and that can be built.
func (s selection) of(c *chart) (list []*target) {
	term := filterTerm{key: "is", value: s.is}
	for _, r := range c.order {
		if len(s.levels) > 0 && !slices.Contains(s.levels, r.flavor.Level) {
			continue
		}
		for _, t := range c.listed(r) {
			if t.unsupported == "" && (s.is == "" || term.fitsTarget(r, t)) {
				list = append(list, t)
			}
		}
	}
	return list
}

// selectActions select at once.
func selectActions() (list []action) {
	for _, s := range selections() {
		list = append(list, action{s.name, []string{s.key}, "", s.help, onChart, false, func(m *model) string {
			if len(s.of(m.chart)) == 0 {
				return "none of the shown rows has one"
			}
			return ""
		}, func(m *model) tea.Cmd {
			targets := s.of(m.chart)
			set(m.chart.selection(), false)
			set(targets, true)
			m.note, m.noteTone = plural(len(targets), "target")+" selected", aside
			return nil
		}})
	}
	return append(list, action{"select none", []string{"0"}, "", "unselect everything, also what a filter hides", onChart, false, func(m *model) string {
		if len(m.chart.selection()) == 0 {
			return "nothing is selected"
		}
		return ""
	}, func(m *model) tea.Cmd { set(m.chart.selection(), false); return nil }})
}

// choose selects what the console was started with. What a look has to find first is selected when it has.
func (m *model) choose(sel engine.Selection) {
	m.given = engine.Selection{}
	if len(sel.Only)+len(sel.Levels) == 0 {
		return
	}
	targets, err := m.engine.Targets(sel)
	if err != nil {
		m.say(bad, err.Error())
		return
	}
	n := 0
	for _, t := range targets {
		for _, r := range m.chart.rows {
			for _, own := range r.targets {
				if own.id == clean(t.String()) && own.unsupported == "" {
					own.selected = true
					n++
				}
			}
		}
	}
	if n == 0 {
		m.given = sel
	}
}
