package ui

import (
	"context"
	"fmt"
	"strings"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// An Engine that is one of these works from a catalogue that is being edited.
type editable interface {
	// Draft is the catalogue with what is wrong with it.
	Draft() *catalog.Draft
	// Changed waits until the file was saved and read again; false: it never will. With an error, nothing has changed.
	Changed(ctx context.Context) (bool, error)
}

var _ editable = (*engine.Live)(nil)

// catalogMsg tells that the catalogue was saved.
type catalogMsg struct {
	again bool // there may be more
	err   error
}

// draft is the catalogue as it is now.
func (m *model) draft() *catalog.Draft {
	if e, ok := m.engine.(editable); ok {
		return e.Draft()
	}
	return &catalog.Draft{Catalog: m.engine.Catalog()}
}

// watch waits for the catalogue to be saved.
func (m *model) watch() tea.Cmd {
	e, ok := m.engine.(editable)
	if !ok || m.start == nil {
		return nil
	}
	wait, _ := m.start(func(ctx context.Context) tea.Msg {
		again, err := e.Changed(ctx)
		if ctx.Err() != nil {
			return nil
		}
		return catalogMsg{again, err}
	}, func(err error) tea.Msg { return catalogMsg{false, err} })
	return wait
}

// reread takes over the catalogue that was saved.
func (m *model) reread(msg catalogMsg) tea.Cmd {
	var next tea.Cmd
	if msg.again {
		next = m.watch()
	}
	if msg.err != nil {
		m.say(bad, m.chart.pathing+": "+msg.err.Error())
		return next
	}
	if !msg.again {
		return nil
	}
	d := m.draft()
	targets, err := m.engine.Targets(engine.Selection{Only: []string{"*"}})
	if err != nil && len(d.Catalog.Flavors) > 0 {
		m.say(bad, err.Error())
	}
	m.chart.fill(d, targets)
	if m.board != nil {
		m.chart.show(m.board)
	}
	var changed []string
	for _, r := range m.chart.rows {
		if r.edited && !r.file {
			changed = append(changed, r.name)
		}
	}
	text := m.chart.pathing + " was saved"
	switch {
	case len(changed) > 3:
		text += fmt.Sprintf(": %d rows are edited", len(changed))
	case len(changed) > 0:
		text += ": edited " + strings.Join(changed, ", ")
	}
	if n := len(d.Problems); n > 0 {
		m.say(bad, text+"; "+plural(n, "mistake"))
	} else {
		m.say(good, text+"; no mistakes")
	}
	return next
}

// mistaken adds the rows that have mistakes, and one for those besides rows.
func (c *chart) mistaken(d *catalog.Draft, old map[string]*row, first bool) {
	say := func(list catalog.Problems) (out []string) {
		for _, p := range list {
			text := p.Message
			if p.Key != "" {
				text = p.Key + ": " + text
			}
			if p.Line > 0 {
				text = fmt.Sprintf("line %d: %s", p.Line, text)
			}
			out = append(out, clean(text))
		}
		return out
	}
	taken := map[string]bool{}
	for _, r := range c.rows {
		taken[r.id] = true
	}
	for _, b := range d.Broken {
		r := &row{id: clean(b.ID), name: clean(b.Name), level: clean(b.Level), place: b.Line, mistakes: say(b.Problems)}
		if len(b.Problems) == 0 {
			r.reason = "cannot be checked before the mistakes elsewhere in " + c.pathing + " are mended"
		}
		if r.name == "" {
			r.name = r.id
		}
		if r.name == "" {
			r.name = fmt.Sprintf("row in line %d", b.Line)
		}
		if r.id == "" || taken[r.id] {
			r.id = fmt.Sprintf("%s (line %d)", r.id, b.Line)
		}
		taken[r.id] = true
		was := old[r.id]
		r.edited = !first && len(b.Problems) > 0 && (was == nil || len(was.mistakes) == 0 || was.edited)
		r.facts = [][2]string{{"in the file", fmt.Sprintf("%s:%d", c.pathing, b.Line)}}
		c.rows = append(c.rows, r)
	}
	if list := d.Elsewhere(); len(list) > 0 {
		c.rows = append(c.rows, &row{id: c.pathing, name: c.pathing, place: -1, mistakes: say(list), file: true})
	}
}

// whyMistaken is why nothing is built from a catalogue with mistakes.
func (m *model) whyMistaken() string {
	n := m.chart.needed()[mistaken]
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s has %s: n goes there", m.chart.pathing, plural(n, "mistake"))
}
