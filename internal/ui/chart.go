package ui

import (
	"cmp"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// chart is the release chart with a cursor, a selection and a filter.
type chart struct {
	rows    []*row // in the order of the catalogue
	filter  string
	sort    order
	groups  map[*row]string // of order
	order   []*row          // as it was sorted and filtered last: facts that come later change nothing of it
	wrong   string          // what is wrong with the filter
	dated   bool            // sorted and filtered anew, the rows would be others
	lines   []line          // what the folds leave of order
	cursor  int             // index into lines
	top     int             // first line on the screen
	h       int             // lines on the screen, as last drawn
	terms   []filterTerm    // of the filter
	pathing string          // the catalogue's file name
}

// row is a flavor. Its texts are the catalogue's, made harmless.
type row struct {
	id, name, level, arches string
	place                   int    // line of the file
	reason                  string // why none of it can be built; "" when some can
	undecided               string // why a maintainer has to decide about its licence; "": nobody has to
	mistakes                []string
	targets                 []*target
	facts                   [][2]string // what else the catalogue says of it
	others                  [][2]string // what the last look found besides targets: releases that are left out
	open                    bool
	file                    bool // it stands for what is wrong with the file besides its rows
	edited                  bool // it was changed while the console was open
	sought                  bool // reason is why its releases could not be found
	flavor                  catalog.Flavor
}

// target is a release for one architecture.
type target struct {
	id, label   string // "debian:13/x86_64", "13/x86_64"
	unsupported string
	ran         bool // in the run that is shown, whatever can be built now
	selected    bool
	state       state
	note        string
	took        time.Duration
	plan        *planned // of the last look; nil: it has not been looked at
	fresh       bool     // the plan was made in this process
	seen        time.Time
	stages      map[string]ended // how its stages ended last, before this process
}

// release is the target's release.
func (t *target) release() string {
	release, _, _ := strings.Cut(t.label, "/")
	return release
}

// arch is the target's architecture.
func (t *target) arch() string {
	_, arch, _ := strings.Cut(t.label, "/")
	return arch
}

// line is a line of the chart: a flavor, one of its releases, one of its targets, or a heading of a group of flavors.
type line struct {
	row     *row
	release string // of a release that has several targets
	target  *target
	under   bool // the line of its release is above
	heading string
}

// flavor reports whether the line is a flavor's.
func (l line) flavor() bool { return l.row != nil && l.release == "" && l.target == nil }

// targets are those that the line is about.
func (l line) targets() []*target {
	switch {
	case l.row == nil:
		return nil
	case l.target != nil:
		return []*target{l.target}
	case l.release != "":
		return slices.DeleteFunc(slices.Clone(l.row.targets), func(t *target) bool { return t.release() != l.release })
	}
	return l.row.targets
}

// newChart makes the chart of every row of the catalogue.
func newChart(c *catalog.Catalog, targets []engine.Target) *chart {
	ch := &chart{}
	ch.fill(&catalog.Draft{Catalog: c}, targets)
	return ch
}

// fill takes over which rows there are. Those that are still there keep what is known of them, unless they have changed.
func (c *chart) fill(d *catalog.Draft, targets []engine.Target) {
	old := map[string]*row{}
	for _, r := range c.rows {
		old[r.id] = r
	}
	first := len(c.rows) == 0
	c.rows = nil
	c.pathing = clean(path.Base(d.Catalog.Path))
	for i := range d.Catalog.Flavors {
		f := &d.Catalog.Flavors[i]
		r := &row{id: clean(f.ID), name: clean(f.Name), level: clean(string(f.Level)), place: d.Catalog.Line(f.ID), flavor: *f}
		if was := old[r.id]; was != nil {
			r.open = was.open
			if r.edited = len(was.mistakes) > 0 || !reflect.DeepEqual(was.flavor, r.flavor); !r.edited {
				r.targets, r.others, r.edited = was.targets, was.others, was.edited
			}
		} else {
			r.edited = !first
		}
		var words []string
		for _, a := range f.Arch {
			words = append(words, clean(string(a)))
		}
		r.arches = strings.Join(words, " ")
		r.reason = "not supported yet"
		switch o := f.Origin; {
		case o == nil:
			r.reason += ": its upstream is not described in " + c.pathing
		case o.Kind == "none":
			r.reason = "nothing upstream: " + clean(o.Reason)
		case f.Versions != nil && o.Customise != nil:
			r.reason = "not looked at yet: u asks upstream"
		}
		if was := old[r.id]; was != nil && !r.edited && was.sought { // what upstream answered for the same row stands
			r.reason, r.sought = was.reason, true
		}
		if f.Redistribution == catalog.Unclear && f.Decision == "" {
			r.undecided = clean("whether it may be passed on is unclear: " + f.Because)
		}
		r.facts = facts(f)
		c.rows = append(c.rows, r)
	}
	c.mistaken(d, old, first)
	slices.SortStableFunc(c.rows, func(a, b *row) int { return cmp.Compare(a.place, b.place) })
	c.update(targets)
	c.arrange()
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
			if tt.unsupported = clean(t.Unsupported); tt.unsupported != "" && !tt.ran {
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

// urgent are states in the order in which they need somebody.
var urgent = []state{failed, unsigned, running, waiting, done, stale, skipped, ready}

// state is that of the row's target which needs a human most.
func (r *row) state() (worst state, label string) {
	if len(r.mistakes) > 0 {
		return failed, r.mistakes[0]
	}
	var known []*target
	for _, t := range r.targets {
		if t.unsupported == "" || t.ran {
			known = append(known, t)
		}
	}
	if len(known) == 0 {
		return r.found()
	}
	return worstOf(known)
}

// worstOf is the state of several targets that can be built, or were.
func worstOf(able []*target) (worst state, label string) {
	n := map[state]int{}
	first := map[state]*target{}
	for _, t := range able {
		s := t.shown()
		if n[s]++; n[s] == 1 {
			first[s] = t
		}
	}
	for _, s := range urgent {
		switch {
		case n[s] == 0:
		case s == running || n[s] == len(able):
			return s, first[s].word()
		default:
			return s, fmt.Sprintf("%d of %d %s", n[s], len(able), first[s].word())
		}
	}
	return ready, ready.word()
}

// shown is the state as it is shown: what is ready may be stale.
func (t *target) shown() state {
	if t.unsupported != "" && !t.ran {
		if t.broken() {
			return failed
		}
		return unsupported
	}
	if t.state == ready && t.plan != nil && t.plan.action == engine.Build {
		switch {
		case strings.HasPrefix(t.plan.signed, "bad"):
			return unsigned
		case t.plan.isPublished:
			return stale
		}
	}
	return t.state
}

// word is how the target is doing.
func (t *target) word() string {
	switch {
	case t.broken():
		return t.plan.reason
	case t.unsupported != "" && !t.ran:
		return t.unsupported
	case t.state == done:
		return doneWord(t.note)
	case t.state == failed && t.note != "":
		return "failed: " + t.note
	case (t.state == running || t.state == ready) && t.note != "":
		return t.note
	}
	return t.state.word()
}

// list works out which lines there are, and keeps the cursor on what it is on and where that is on the screen.
func (c *chart) list() {
	var on line
	if c.cursor < len(c.lines) {
		on = c.lines[c.cursor]
	}
	at := c.cursor - c.top
	c.lines = c.lines[:0]
	group := ""
	for _, r := range c.order {
		if g := c.groups[r]; g != group {
			group = g
			c.lines = append(c.lines, line{heading: g})
		}
		c.lines = append(c.lines, line{row: r})
		if !r.open {
			continue
		}
		release := ""
		listed := c.listed(r)
		for i, t := range listed {
			if t.release() != release && i+1 < len(listed) && listed[i+1].release() == t.release() {
				c.lines = append(c.lines, line{row: r, release: t.release()})
				release = t.release()
			}
			c.lines = append(c.lines, line{row: r, target: t, under: t.release() == release})
		}
	}
	i := slices.IndexFunc(c.lines, func(l line) bool {
		return on.row != nil && l.row != nil && l.row.id == on.row.id && l.release == on.release && (l.target == nil) == (on.target == nil) && (l.target == nil || l.target.id == on.target.id)
	})
	if i < 0 && on.row != nil {
		i = slices.IndexFunc(c.lines, func(l line) bool { return l.row != nil && l.row.id == on.row.id && l.flavor() })
	}
	if i >= 0 {
		c.cursor = i
		c.top = i - at
	}
	c.move(0)
	c.dated = !slices.Equal(c.order, c.arranged())
}

// on is the line that the cursor is on.
func (c *chart) on() (line, bool) {
	if c.cursor >= len(c.lines) || c.lines[c.cursor].row == nil {
		return line{}, false
	}
	return c.lines[c.cursor], true
}

// move moves the cursor; it steps over headings.
func (c *chart) move(delta int) {
	c.cursor = max(0, min(c.cursor+delta, len(c.lines)-1))
	step := 1
	if delta < 0 {
		step = -1
	}
	for range 2 {
		i := c.cursor
		for i >= 0 && i < len(c.lines) && c.lines[i].row == nil {
			i += step
		}
		if i >= 0 && i < len(c.lines) {
			c.cursor = i
			return
		}
		step = -step
	}
}

// window brings the cursor into a window of h lines and returns which lines are in it.
func (c *chart) window(h int) (from, to int) {
	c.h = h
	c.top = scrolled(c.top, c.cursor, len(c.lines), h)
	if c.top > 0 && c.top == c.cursor && c.lines[c.top-1].heading != "" && h > 1 { // the heading of its group, too
		c.top--
	}
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
		at := slices.Index(c.lines, line{row: l.row})
		c.top -= max(0, c.top-at)
		c.cursor = at
	}
	c.list()
}

// able are the targets of the line that can be built.
func (l line) able() (list []*target) {
	for _, t := range l.targets() {
		if t.unsupported == "" {
			list = append(list, t)
		}
	}
	return list
}

// reason says why nothing of the line can be built.
func (l line) reason() string {
	cannot := func(t *target) string {
		if t.ran && t.unsupported != "" {
			return t.unsupported
		}
		return t.word()
	}
	if l.target != nil {
		return l.target.id + ": " + cannot(l.target)
	}
	if l.release != "" {
		return l.row.id + ":" + l.release + ": " + cannot(l.targets()[0])
	}
	_, label := l.row.state()
	if len(l.row.mistakes) == 0 && len(l.row.buildable()) == 0 {
		_, label = l.row.found()
	}
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
	for _, r := range c.order {
		for _, t := range c.listed(r) {
			if t.unsupported == "" {
				list = append(list, t)
			}
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
			t.ran = p != nil && !p.idle
			if p == nil || t.unsupported != "" && !t.ran {
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
