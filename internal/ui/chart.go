package ui

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// chart is the release chart with a cursor, a selection and a filter.
type chart struct {
	rows   []*row
	filter string
	lines  []line // what the filter and the folds leave
	cursor int    // index into lines
	top    int    // first line on the screen
	h      int    // lines on the screen, as last drawn
}

// row is a flavor. Its texts are the catalogue's, made harmless.
type row struct {
	id, name, level, arches string
	reason                  string // why none of it can be built; "" when some can
	targets                 []*target
	facts                   [][2]string // what else the catalogue says of it
	others                  [][2]string // what the last look found besides targets: releases that are left out
	open                    bool
}

// target is a release for one architecture.
type target struct {
	id, label   string // "debian:13/x86_64", "13/x86_64"
	unsupported string
	selected    bool
	state       state
	note        string
	took        time.Duration
	plan        *planned // of the last look; nil: it has not been looked at
}

// line is a line of the chart: a flavor, or one of its targets.
type line struct {
	row    *row
	target *target
}

// newChart makes the chart of every row of the catalogue.
func newChart(c *catalog.Catalog, targets []engine.Target) *chart {
	ch := &chart{}
	for i := range c.Flavors {
		f := &c.Flavors[i]
		r := &row{id: clean(f.ID), name: clean(f.Name), level: clean(string(f.Level))}
		var words []string
		for _, a := range f.Arch {
			words = append(words, clean(string(a)))
		}
		r.arches = strings.Join(words, " ")
		r.reason = "not supported yet"
		switch o := f.Origin; {
		case o == nil:
			r.reason += ": its upstream is not described in " + clean(path.Base(c.Path))
		case o.Kind == "none":
			r.reason = "nothing upstream: " + clean(o.Reason)
		}
		r.facts = facts(f)
		ch.rows = append(ch.rows, r)
	}
	ch.update(targets)
	return ch
}

// update takes over which targets there are now. Those that are still there keep what is known of them.
func (c *chart) update(targets []engine.Target) {
	for _, r := range c.rows {
		old := map[string]*target{}
		for _, t := range r.targets {
			old[t.id] = t
		}
		r.targets = nil
		for _, t := range targets {
			if clean(t.Flavor.ID) != r.id {
				continue
			}
			id := clean(t.String())
			tt := old[id]
			if tt == nil {
				tt = &target{id: id, label: strings.TrimPrefix(id, r.id+":")}
			}
			if tt.unsupported = clean(t.Unsupported); tt.unsupported != "" {
				tt.state = unsupported
			}
			r.targets = append(r.targets, tt)
		}
		if len(r.targets) > 0 {
			r.reason = ""
			if len(r.buildable()) == 0 {
				r.reason = r.targets[0].unsupported
			}
		}
	}
	c.list()
}

// facts are what the catalogue says of a flavor besides the chart's columns.
func facts(f *catalog.Flavor) [][2]string {
	var out [][2]string
	add := func(name, value string) {
		if value != "" {
			out = append(out, [2]string{name, clean(value)})
		}
	}
	add("home", f.Home)
	add("documentation", f.Docs)
	add("downloads", f.Download)
	add("licence", f.Licence)
	var names []string
	for i, r := range f.Releases {
		name := r.Version
		if r.Codename != "" {
			name += " (" + r.Codename + ")"
		}
		if i == 0 && len(f.Releases) > 1 {
			name += ", the newest"
		}
		names = append(names, name)
	}
	if v := f.Versions; v != nil {
		add("releases", "found at "+v.Listing+v.JSON+v.Redirect+v.Sums)
	} else {
		add("releases", strings.Join(names, "; "))
	}
	if f.Origin != nil {
		kind := f.Origin.Kind
		if f.Origin.Format != "" {
			kind += " (" + f.Origin.Format + ")"
		}
		add("made from", kind)
	}
	add("login", f.User)
	for _, a := range f.Arch {
		var kubevirt []string
		if v := f.Instancetype[a]; v != "" {
			kubevirt = append(kubevirt, "instance type "+v)
		}
		if v := f.Preference[a]; v != "" {
			kubevirt = append(kubevirt, "preference "+v)
		}
		if len(kubevirt) > 0 {
			add("on "+string(a), strings.Join(kubevirt, ", "))
		}
	}
	return out
}

func (r *row) buildable() (list []*target) {
	for _, t := range r.targets {
		if t.unsupported == "" {
			list = append(list, t)
		}
	}
	return list
}

// state is that of the row's target which needs a human most.
func (r *row) state() (worst state, label string) {
	var n [len(states)]int
	able := r.buildable()
	if len(able) == 0 {
		return r.found()
	}
	for _, t := range able {
		n[t.state]++
	}
	for _, s := range []state{failed, running, waiting, done, skipped, ready} {
		if stale := r.stale(); s == done && len(stale) > 0 && n[done] == 0 { // what is published already matters less
			if len(able) == 1 || len(stale) == len(able) {
				return ready, stale[0].word()
			}
			return ready, fmt.Sprintf("%d of %d %s", len(stale), len(able), stale[0].word())
		}
		if n[s] == 0 {
			continue
		}
		if len(able) == 1 || n[s] == len(able) && s != running {
			return s, able[0].word()
		}
		if s == running {
			for _, t := range able {
				if t.state == running {
					return s, t.word()
				}
			}
		}
		return s, fmt.Sprintf("%d of %d %s", n[s], len(able), s.word())
	}
	return ready, ready.word()
}

// word is how the target is doing.
func (t *target) word() string {
	switch {
	case t.broken():
		return t.plan.reason
	case t.unsupported != "":
		return t.unsupported
	case t.state == done:
		return doneWord(t.note)
	case (t.state == running || t.state == ready) && t.note != "":
		return t.note
	}
	return t.state.word()
}

// list works out which lines there are, and keeps the cursor on what it is on.
func (c *chart) list() {
	var on line
	if c.cursor < len(c.lines) {
		on = c.lines[c.cursor]
	}
	c.lines = c.lines[:0]
	words := strings.Fields(strings.ToLower(c.filter))
	for _, r := range c.rows {
		if !r.matches(words) {
			continue
		}
		c.lines = append(c.lines, line{row: r})
		if r.open {
			for _, t := range r.targets {
				c.lines = append(c.lines, line{r, t})
			}
		}
	}
	i := slices.Index(c.lines, on)
	if i < 0 && on.row != nil {
		i = slices.Index(c.lines, line{row: on.row})
	}
	if i >= 0 {
		c.cursor = i
	}
	c.move(0)
}

// matches reports whether every word is somewhere in what the row shows.
func (r *row) matches(words []string) bool {
	if len(words) == 0 {
		return true
	}
	_, label := r.state()
	text := strings.ToLower(strings.Join([]string{r.id, r.name, r.level, r.arches, r.upstream(time.Time{}), label}, " "))
	for _, t := range r.targets {
		text += " " + strings.ToLower(t.id)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// on is the line that the cursor is on.
func (c *chart) on() (line, bool) {
	if c.cursor >= len(c.lines) {
		return line{}, false
	}
	return c.lines[c.cursor], true
}

func (c *chart) move(delta int) { c.cursor = max(0, min(c.cursor+delta, len(c.lines)-1)) }

// window brings the cursor into a window of h lines and returns which lines are in it.
func (c *chart) window(h int) (from, to int) {
	c.h = h
	c.top = scrolled(c.top, c.cursor, len(c.lines), h)
	return c.top, min(len(c.lines), c.top+h)
}

// scrolled is the first line of a window of h that shows the cursor and moves as little as possible.
func scrolled(top, cursor, n, h int) int {
	if cursor < top {
		top = cursor
	}
	if cursor >= top+h {
		top = cursor - h + 1
	}
	return max(0, min(top, n-h))
}

// fold opens or closes the row that the cursor is on.
func (c *chart) fold(open bool) {
	l, ok := c.on()
	if !ok {
		return
	}
	l.row.open = open
	if !open {
		c.cursor = slices.Index(c.lines, line{row: l.row})
	}
	c.list()
}

// able are the targets of the line that can be built.
func (l line) able() []*target {
	if l.target == nil {
		return l.row.buildable()
	}
	if l.target.unsupported == "" {
		return []*target{l.target}
	}
	return nil
}

// reason says why nothing of the line can be built.
func (l line) reason() string {
	if l.target != nil {
		return l.target.id + ": " + l.target.word()
	}
	_, label := l.row.found()
	return l.row.name + ": " + label
}

// selected reports whether all of the line that can be built is selected.
func (l line) selected() bool { return all(l.able()) }

func all(targets []*target) bool {
	return len(targets) > 0 && !slices.ContainsFunc(targets, func(t *target) bool { return !t.selected })
}

func set(targets []*target, selected bool) {
	for _, t := range targets {
		t.selected = selected
	}
}

// shown are the targets in the listed rows that can be built.
func (c *chart) shown() (list []*target) {
	for _, l := range c.lines {
		if l.target == nil {
			list = append(list, l.row.buildable()...)
		}
	}
	return list
}

// selection is every selected target, in the chart's order.
func (c *chart) selection() (list []*target) {
	for _, r := range c.rows {
		for _, t := range r.targets {
			if t.selected {
				list = append(list, t)
			}
		}
	}
	return list
}

// hidden counts the selected targets that the filter hides.
func (c *chart) hidden() (n int) {
	n = len(c.selection())
	for _, t := range c.shown() {
		if t.selected {
			n--
		}
	}
	return n
}

// meant is what an action is about: the selection, or without one what the cursor is on.
func (c *chart) meant() []*target {
	if list := c.selection(); len(list) > 0 {
		return list
	}
	if l, ok := c.on(); ok {
		return l.able()
	}
	return nil
}

// selectors spells targets as few selectors: FLAVOR where all of it is meant, FLAVOR:RELEASE or FLAVOR/ARCH where all
// of that is. They mean exactly the targets.
func (c *chart) selectors(meant []*target) (only []string) {
	in := map[*target]bool{}
	for _, t := range meant {
		in[t] = true
	}
	for _, r := range c.rows {
		left := map[*target]bool{}
		for _, t := range r.targets {
			if in[t] {
				left[t] = true
			}
		}
		take := func(selector string, part func(*target) bool) {
			n := 0
			for _, t := range r.targets {
				if part(t) {
					if !in[t] {
						return
					}
					if left[t] {
						n++
					}
				}
			}
			if n == 0 {
				return
			}
			only = append(only, selector)
			for _, t := range r.targets {
				if part(t) {
					delete(left, t)
				}
			}
		}
		take(r.id, func(*target) bool { return true })
		for _, t := range r.targets {
			_, arch, _ := strings.Cut(t.label, "/")
			take(r.id+"/"+arch, func(o *target) bool { return strings.HasSuffix(o.label, "/"+arch) })
		}
		for _, t := range r.targets {
			release, _, _ := strings.Cut(t.label, "/")
			take(r.id+":"+release, func(o *target) bool { return strings.HasPrefix(o.label, release+"/") })
		}
		for _, t := range r.targets {
			take(t.id, func(o *target) bool { return o == t })
		}
	}
	return only
}

// show takes over how the targets of a run are doing.
func (c *chart) show(b *board) {
	for _, r := range c.rows {
		for _, t := range r.targets {
			p := b.byTarget[t.id]
			if p == nil || t.unsupported != "" {
				continue
			}
			t.state, t.note, t.took = p.state, p.note, p.took
			if p.state == running {
				t.note = "running"
				if p.current >= 0 {
					t.note = "running " + p.stages[p.current].name
				}
			}
			if p.idle {
				t.state, t.note = ready, "not started"
			}
			if p.state == failed && len(p.fault) > 0 {
				t.note = p.fault[0]
			}
		}
	}
}
