package ui

import (
	"fmt"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// row is one line of the chart: a flavor, or one of its targets.
type row struct {
	flavor *catalog.Flavor
	target *engine.Target
}

// chart is the release chart with what is selected in it.
type chart struct {
	flavors  []*catalog.Flavor
	targets  map[string][]*engine.Target // by flavor
	open     map[string]bool             // flavors whose targets are shown
	selected map[string]bool             // targets
	said     map[string]standing         // what is known of targets since the start
	filter   string
	cursor   int
	top      int
}

// standing is how a target stands.
type standing struct {
	kind event.Kind
	text string
}

func newChart(c *catalog.Catalog, targets []engine.Target) *chart {
	ch := &chart{targets: map[string][]*engine.Target{}, open: map[string]bool{}, selected: map[string]bool{}, said: map[string]standing{}}
	for i := range c.Flavors {
		ch.flavors = append(ch.flavors, &c.Flavors[i])
	}
	for i := range targets {
		ch.targets[targets[i].Flavor.ID] = append(ch.targets[targets[i].Flavor.ID], &targets[i])
	}
	// The cursor begins where there is something to do.
	for i, f := range ch.flavors {
		if len(ch.buildable(row{flavor: f})) > 0 {
			ch.cursor = i
			break
		}
	}
	return ch
}

// rows are the lines that are shown now.
func (c *chart) rows() []row {
	var rows []row
	want := strings.ToLower(c.filter)
	for _, f := range c.flavors {
		if want != "" && !strings.Contains(strings.ToLower(f.ID+" "+f.Name+" "+string(f.Level)), want) {
			continue
		}
		rows = append(rows, row{flavor: f})
		if c.open[f.ID] {
			for _, t := range c.targets[f.ID] {
				rows = append(rows, row{f, t})
			}
		}
	}
	return rows
}

// current is the row under the cursor; its flavor is nil when no row is shown.
func (c *chart) current() row {
	rows := c.rows()
	if len(rows) == 0 {
		return row{}
	}
	c.cursor = max(0, min(c.cursor, len(rows)-1))
	return rows[c.cursor]
}

func (c *chart) move(n int) {
	c.cursor = max(0, min(c.cursor+n, len(c.rows())-1))
}

// narrow filters the rows; the cursor stays with its flavor where that is still shown.
func (c *chart) narrow(filter string) {
	before := c.current()
	c.filter = filter
	for i, r := range c.rows() {
		if r.flavor == before.flavor {
			c.cursor = i
			break
		}
	}
}

// buildable are the targets of a row that can be built.
func (c *chart) buildable(r row) (list []*engine.Target) {
	if r.flavor == nil {
		return nil
	}
	for _, t := range c.targets[r.flavor.ID] {
		if t.Unsupported == "" && (r.target == nil || r.target == t) {
			list = append(list, t)
		}
	}
	return list
}

// why says why nothing of a row can be built.
func (c *chart) why(r row) string {
	switch {
	case r.flavor == nil:
		return "no row is shown"
	case r.target != nil:
		return r.target.Unsupported
	}
	for _, t := range c.targets[r.flavor.ID] {
		return t.Unsupported
	}
	return "not supported yet: its upstream is not described in the catalogue"
}

// toggle selects a row, or takes it out again. It returns why that cannot be.
func (c *chart) toggle(r row) string {
	list := c.buildable(r)
	if len(list) == 0 {
		return c.why(r)
	}
	all := true
	for _, t := range list {
		all = all && c.selected[t.String()]
	}
	for _, t := range list {
		if all {
			delete(c.selected, t.String())
		} else {
			c.selected[t.String()] = true
		}
	}
	return ""
}

// toggleAll selects everything that can be built, or nothing if it is selected already.
func (c *chart) toggleAll() {
	before := len(c.selected)
	clear(c.selected)
	for _, f := range c.flavors {
		for _, t := range c.buildable(row{flavor: f}) {
			c.selected[t.String()] = true
		}
	}
	if len(c.selected) == before {
		clear(c.selected)
	}
}

// chosen lists what is selected in the chart's order, or the row under the cursor when nothing is.
func (c *chart) chosen() (list []*engine.Target) {
	for _, f := range c.flavors {
		for _, t := range c.targets[f.ID] {
			if c.selected[t.String()] {
				list = append(list, t)
			}
		}
	}
	if len(list) == 0 {
		list = c.buildable(c.current())
	}
	return list
}

// selector spells targets for --only, short where a whole release or flavor is meant.
func (c *chart) selector(list []*engine.Target) []string {
	in := map[string]bool{}
	for _, t := range list {
		in[t.String()] = true
	}
	var words []string
	done := map[string]bool{}
	for _, t := range list {
		name := t.Flavor.ID + ":" + t.Release.Version
		if done[name] {
			continue
		}
		whole := true
		for _, o := range c.targets[t.Flavor.ID] {
			if o.Release == t.Release && o.Unsupported == "" && !in[o.String()] {
				whole = false
			}
		}
		if whole {
			done[name] = true
			words = append(words, name)
		} else {
			words = append(words, t.String())
		}
	}
	return words
}

// mark is a row's box.
func (c *chart) mark(r row) string {
	list := c.buildable(r)
	n := 0
	for _, t := range list {
		if c.selected[t.String()] {
			n++
		}
	}
	switch {
	case len(list) == 0:
		return "   "
	case n == 0:
		return "[ ]"
	case n < len(list):
		return "[-]"
	}
	return "[x]"
}

// standing is how a row stands: of a flavor's targets the one that matters most.
func (c *chart) standing(r row) standing {
	list := c.buildable(r)
	if len(list) == 0 { // the whole reason is told when somebody tries
		short, _, _ := strings.Cut(c.why(r), ":")
		return standing{text: short}
	}
	rank := func(k event.Kind) int {
		switch k {
		case event.Failed:
			return 4
		case event.Started:
			return 3
		case event.Finished:
			return 2
		case event.Skipped:
			return 1
		}
		return 0
	}
	best := standing{text: "can be built"}
	for _, t := range list {
		if s, ok := c.said[t.String()]; ok && rank(s.kind) > rank(best.kind) {
			best = s
		} else if ok && best.kind == "" && s.kind == "" {
			best = s
		}
	}
	return best
}

// view draws the chart in exactly height lines.
func (c *chart) view(s styles, width, height int) []string {
	if height <= 0 || width <= 0 {
		return nil
	}
	rows := c.rows()
	name, level, arch, releases := 15, 9, 14, 8
	// What matters least goes first when there is no room.
	if width < 72 {
		arch = 0
	}
	if width < 56 {
		releases = 0
	}
	if width < 44 {
		level = 0
	}
	columns := func(mark, n, l, a, r string) string {
		text := mark + " " + fit(n, name)
		for _, x := range []struct {
			text  string
			width int
		}{{l, level}, {a, arch}, {r, releases}} {
			if x.width > 0 {
				text += " " + fit(x.text, x.width)
			}
		}
		return text + " "
	}
	head := columns("     ", "flavor", "level", "architectures", "releases")
	lines := []string{s.dim.Render(fit(head+"state", width))}
	if height == 1 {
		return lines
	}
	room := height - 1
	hidden := len(rows) > room
	if hidden {
		room = max(1, room-1)
	}
	c.cursor = max(0, min(c.cursor, len(rows)-1))
	c.top = max(0, min(c.top, len(rows)-room))
	if c.cursor < c.top {
		c.top = c.cursor
	}
	if c.cursor >= c.top+room {
		c.top = c.cursor - room + 1
	}
	for i := c.top; i < min(len(rows), c.top+room); i++ {
		r := rows[i]
		pointer := " "
		if i == c.cursor {
			pointer = ">"
		}
		var text string
		if r.target == nil {
			arches := make([]string, len(r.flavor.Arch))
			for k, a := range r.flavor.Arch {
				arches[k] = string(a)
			}
			versions := make([]string, len(r.flavor.Releases))
			for k, x := range r.flavor.Releases {
				versions[k] = x.Version
			}
			text = columns(pointer+c.mark(r)+" ", r.flavor.Name, string(r.flavor.Level), strings.Join(arches, " "), strings.Join(versions, " "))
		} else {
			text = columns(pointer+c.mark(r)+" ", "  "+r.target.Release.Version, "", string(r.target.Arch), "")
		}
		st := c.standing(r)
		symbol, word, style := s.state(st.kind)
		state := symbol + " " + word
		if st.kind == "" {
			state, style = st.text, s.dim
			if len(c.buildable(r)) > 0 {
				style = s.info
			}
		} else if st.text != "" {
			state += ": " + st.text
		}
		text = cut(text, width)
		state = fit(state, width-len([]rune(text)))
		if i == c.cursor {
			lines = append(lines, s.cursor.Render(text+state))
		} else {
			lines = append(lines, text+style.Render(state))
		}
	}
	if len(rows) == 0 {
		lines = append(lines, cut(fmt.Sprintf("  no row has %q in it: esc shows all", c.filter), width))
	}
	if hidden && len(lines) < height {
		lines = append(lines, s.dim.Render(cut(fmt.Sprintf("  %d of %d rows are not shown", len(rows)-min(len(rows), room), len(rows)), width)))
	}
	for len(lines) < height {
		lines = append(lines, "")
	}
	return lines[:height]
}
