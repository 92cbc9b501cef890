package ui

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// order is what the chart's rows are sorted by.
type order int

const (
	byCatalogue order = iota
	byTrouble
	byLevel
	byName
	byAge
)

var orders = [...]string{byCatalogue: "as in the catalogue", byTrouble: "by trouble", byLevel: "by level", byName: "by name", byAge: "by age"}

func (o order) String() string { return orders[o] }

// arrange sorts and filters the rows.
func (c *chart) arrange() {
	c.terms, c.wrong = parseFilter(c.filter)
	c.order = c.arranged()
	c.groups = map[*row]string{}
	for _, r := range c.order {
		c.groups[r] = c.group(r)
	}
	c.list()
}

// arranged are the rows as they would be sorted and filtered now.
func (c *chart) arranged() []*row {
	var list []*row
	for _, r := range c.rows {
		if c.fits(r) {
			list = append(list, r)
		}
	}
	compare := map[order]func(a, b *row) int{
		byTrouble: func(a, b *row) int { return cmp.Compare(a.worst(), b.worst()) },
		byLevel:   func(a, b *row) int { return cmp.Compare(rank(b.level), rank(a.level)) },
		byName:    func(a, b *row) int { return strings.Compare(strings.ToLower(a.name), strings.ToLower(b.name)) },
		byAge: func(a, b *row) int { // the oldest first, what is not published last
			x, y := a.newest(), b.newest()
			if x.IsZero() || y.IsZero() {
				return cmp.Compare(btoi(x.IsZero()), btoi(y.IsZero()))
			}
			return x.Compare(y)
		},
	}[c.sort]
	if compare != nil {
		slices.SortStableFunc(list, compare)
	}
	return list
}

// rank is a level's place among them.
func rank(level string) int { return slices.Index(catalog.Levels, catalog.Level(level)) }

// group names the group of a row in the present order; "" where there are none.
func (c *chart) group(r *row) string {
	switch c.sort {
	case byLevel:
		if r.level == "" {
			return "no level"
		}
		return r.level
	case byTrouble:
		return r.worst().group()
	}
	return ""
}

// sortBy sorts anew.
func (m *model) sortBy(o order) tea.Cmd {
	m.chart.sort = o
	m.chart.arrange()
	m.note, m.noteTone = fmt.Sprintf("sorted %s", o), aside
	return nil
}

func (m *model) whySorted() string {
	if !m.chart.dated {
		return "nothing would change"
	}
	return ""
}
