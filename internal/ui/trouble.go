package ui

import (
	"fmt"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// trouble is a reason why somebody is needed, the most urgent first.
type trouble int

const (
	mistaken    trouble = iota // the catalogue's row has a mistake
	broken                     // it could not be decided, or the last run of it failed
	badlySigned                // what is published has no good signature
	outdated                   // upstream has something newer than what is published
	missing                    // it could be published and is not
	openLicence                // a maintainer has to decide whether it may be passed on
	fine                       // nobody is needed
	beyond                     // nothing of it can be built
)

var troubles = [...]struct {
	state       state
	one, many   string // in the summary
	group, next string // heading of the rows; what the palette calls the way to the next one
}{
	mistaken:    {failed, "mistake", "mistakes", "mistakes in the catalogue", "next mistake"},
	broken:      {failed, "broken", "broken", "broken", "next broken"},
	badlySigned: {unsigned, "unsigned", "unsigned", "unsigned", "next unsigned"},
	outdated:    {stale, "stale", "stale", "stale", "next stale"},
	missing:     {ready, "unpublished", "unpublished", "not published yet", "next unpublished"},
	openLicence: {waiting, "licence undecided", "licences undecided", "licence undecided", "next undecided licence"},
	fine:        {done, "", "", "nothing to do", ""},
	beyond:      {unsupported, "", "", "cannot be built", ""},
}

func (t trouble) group() string { return troubles[t].group }

// unpublished reports whether the target could be published and is not.
func (t *target) unpublished() bool {
	return t.unsupported == "" && t.state == ready && t.plan != nil && t.plan.action == engine.Build && !t.plan.isPublished
}

// trouble is the one of a target; fine or beyond if it has none.
func (t *target) trouble() trouble {
	switch t.shown() {
	case failed:
		return broken
	case unsigned:
		return badlySigned
	case stale:
		return outdated
	case unsupported:
		return beyond
	}
	if t.unpublished() {
		return missing
	}
	return fine
}

// count adds the row's troubles to n: targets, or the row itself.
func (r *row) count(n map[trouble]int) {
	n[mistaken] += len(r.mistakes)
	if len(r.targets) == 0 && len(r.mistakes) == 0 {
		if s, _ := r.state(); s == failed {
			n[broken]++
		}
	}
	for _, t := range r.targets {
		n[t.trouble()]++
	}
	if r.undecided != "" {
		n[openLicence]++
	}
}

// worst is the row's most urgent trouble.
func (r *row) worst() trouble {
	n := map[trouble]int{}
	r.count(n)
	for t := range fine {
		if n[t] > 0 {
			return t
		}
	}
	if len(r.buildable()) == 0 {
		return beyond
	}
	return fine
}

// needy is the target of a line that needs somebody most; nil: none does, or not before it is published for the first time.
func (l line) needy() *target {
	list := l.row.targets
	if l.target != nil {
		list = []*target{l.target}
	}
	var found *target
	for _, t := range list {
		if t.trouble() < missing && (found == nil || t.trouble() < found.trouble()) {
			found = t
		}
	}
	return found
}

// needed counts the troubles of all rows.
func (c *chart) needed() map[trouble]int {
	n := map[trouble]int{}
	for _, r := range c.rows {
		r.count(n)
	}
	return n
}

// summary answers what needs somebody.
func (m *model) needs() string {
	st := m.st
	n := m.chart.needed()
	var parts []string
	for t := range fine {
		if n[t] == 0 {
			continue
		}
		word := troubles[t].many
		if n[t] == 1 {
			word = troubles[t].one
		}
		parts = append(parts, st.state(troubles[t].state).of(fmt.Sprintf("%s %s %s", troubles[t].state.symbol(), number(n[t]), word)))
	}
	switch {
	case len(parts) > 0:
		parts[len(parts)-1] += st.dim.of(": n")
	case m.chart.seenNone():
	default:
		parts = append(parts, st.good.of(done.symbol()+" nothing needs you"))
	}
	switch {
	case m.looking():
		parts = append(parts, st.active.of(running.symbol()+" asking upstreams"))
	case m.replay != nil:
		parts = append(parts, st.dim.of("a recording: nothing else is known here"))
	case len(parts) == 0:
		parts = append(parts, st.dim.of("nobody has looked yet: u asks upstreams and registry"))
	}
	return strings.Join(parts, st.dim.of(" · "))
}

// seenNone reports whether nothing is known of any target.
func (c *chart) seenNone() bool {
	for _, r := range c.rows {
		for _, t := range r.targets {
			if t.plan != nil {
				return false
			}
		}
	}
	return true
}

// has reports whether the line has a trouble, or any.
func (l line) has(want func(trouble) bool) bool {
	if l.row == nil {
		return false
	}
	if l.target != nil || l.release != "" {
		return l.target != nil && want(l.target.trouble())
	}
	n := map[trouble]int{}
	l.row.count(n)
	for t := range fine {
		own := t == mistaken || t == openLicence || len(l.row.targets) == 0 || !l.row.open
		if n[t] > 0 && own && want(t) {
			return true
		}
	}
	return false
}

// jumpTo moves the cursor to the next line that has a trouble, or back.
func (m *model) jumpTo(step int, want func(trouble) bool) tea.Cmd {
	c := m.chart
	found, place := -1, 0
	total := 0
	for i := range c.lines {
		if c.lines[i].has(want) {
			total++
		}
	}
	for k := 1; k <= len(c.lines); k++ {
		if i := mod(c.cursor+k*step, len(c.lines)); c.lines[i].has(want) {
			found = i
			break
		}
	}
	if found < 0 {
		m.note, m.noteTone = "none of the shown rows", aside
		if c.filter != "" {
			m.note += ": esc shows all"
		}
		return nil
	}
	for i := 0; i <= found; i++ {
		place += btoi(c.lines[i].has(want))
	}
	c.cursor = found
	m.note, m.noteTone = fmt.Sprintf("%d of %d", place, total), aside
	return nil
}

func anyTrouble(t trouble) bool { return t < fine }

func (m *model) whyNoTrouble() string {
	n := m.chart.needed()
	for t := range fine {
		if n[t] > 0 {
			return ""
		}
	}
	return "nothing is known that needs somebody"
}

// troubleActions lead to the next one of each kind.
func troubleActions() (list []action) {
	for t := range fine {
		list = append(list, action{troubles[t].next, nil, "", "to the next row: " + troubles[t].group, onChart, false, func(m *model) string {
			if m.chart.needed()[t] == 0 {
				return "there is none"
			}
			return ""
		}, func(m *model) tea.Cmd { return m.jumpTo(1, func(o trouble) bool { return o == t }) }})
	}
	return list
}

// sortActions sort by each order.
func sortActions() (list []action) {
	for o := range orders {
		name := "sort " + order(o).String()
		list = append(list, action{name, nil, "", "sort the chart " + order(o).String(), onChart, false, nil, func(m *model) tea.Cmd { return m.sortBy(order(o)) }})
	}
	return list
}

// newest is when the newest image of the row was published; zero: none is, as far as is known.
func (r *row) newest() (newest time.Time) {
	for _, t := range r.targets {
		if t.plan != nil && t.plan.published.After(newest) {
			newest = t.plan.published
		}
	}
	return newest
}
