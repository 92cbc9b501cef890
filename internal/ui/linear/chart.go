package linear

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// row is a flavor of the chart with its targets.
type row struct {
	flavor  *catalog.Flavor
	targets []engine.Target
}

// load takes the rows from the engine.
func (s *session) load() {
	targets, err := s.e.Targets(engine.Selection{Only: []string{"*"}})
	if err != nil {
		s.explain("The chart is not complete", err)
	}
	s.rows = nil
	flavors := s.e.Catalog().Flavors
	for i := range flavors {
		r := row{flavor: &flavors[i]}
		for _, t := range targets {
			if t.Flavor.ID == r.flavor.ID {
				r.targets = append(r.targets, t)
			}
		}
		s.rows = append(s.rows, r)
	}
}

// learn keeps a plan.
func (s *session) learn(p engine.Plan) {
	if s.known == nil {
		s.known = map[string]engine.Known{}
	}
	k := s.known[p.Target]
	k.Plan, k.Seen = p, s.o.Now()
	s.known[p.Target] = k
}

// able are the targets that can be built.
func (r row) able() (list []string) {
	for _, t := range r.targets {
		if t.Unsupported == "" {
			list = append(list, t.String())
		}
	}
	return list
}

// names are the selected targets, in the chart's order.
func (s *session) names() (list []string) {
	for _, r := range s.rows {
		for _, name := range r.able() {
			if s.selected[name] {
				list = append(list, name)
			}
		}
	}
	return list
}

// chart reads the rows, or those with words in them.
func (s *session) chart(words string) {
	n := 0
	for i, r := range s.rows {
		line := s.sentence(i, r)
		if strings.Contains(strings.ToLower(line), strings.ToLower(words)) {
			s.say(line)
			n++
		}
	}
	if n == 0 {
		s.sayf("No row has %q in it.", words)
	}
}

// sentence is a row as one line.
func (s *session) sentence(i int, r row) string {
	f := r.flavor
	text := fmt.Sprintf("%d, %s, %s", i+1, f.Name, f.Level)
	able := r.able()
	switch {
	case len(able) > 0:
		text += fmt.Sprintf(": %s can be built", count(len(able), "target"))
		n := 0
		for _, t := range able {
			n += map[bool]int{true: 1}[s.selected[t]]
		}
		if n > 0 {
			text += fmt.Sprintf(", %d selected", n)
		}
	case len(r.targets) > 0:
		text += ": " + r.targets[0].Unsupported
	case s.known[f.ID].Plan.Reason != "":
		text += ": " + s.known[f.ID].Plan.Reason
	case f.Origin == nil:
		text += ": not supported yet: its upstream is not described"
	default:
		text += ": its releases have not been looked for yet"
	}
	build, broken, failed := 0, 0, 0
	var seen time.Time
	for _, t := range r.targets {
		k, ok := s.known[t.String()]
		if !ok {
			continue
		}
		if k.Seen.After(seen) {
			seen = k.Seen
		}
		switch k.Plan.Action {
		case engine.Build:
			build++
		case engine.Fail:
			broken++
		}
		for _, stage := range engine.Stages[1:] {
			if k.Stages[stage].State == event.Failed {
				failed++
				break
			}
		}
	}
	for _, part := range []struct {
		n    int
		what string
	}{{build, "to build"}, {broken, "that cannot be decided"}, {failed, "failed last time"}} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	if !seen.IsZero() {
		text += ", looked at " + seen.UTC().Format("2006-01-02 15:04 UTC")
	}
	return strings.ReplaceAll(text, "\n", "; ") + "."
}

// meant are the targets that a number of a row or a selector means, and why there are none.
func (s *session) meant(what string) (list []string, why string) {
	if n, err := strconv.Atoi(what); err == nil {
		if n < 1 || n > len(s.rows) {
			return nil, fmt.Sprintf("there is no row %d", n)
		}
		r := s.rows[n-1]
		if list = r.able(); len(list) == 0 {
			why = s.sentence(n-1, r)
		}
		return list, why
	}
	left, arch, ok := strings.Cut(what, "/")
	if !ok {
		arch = "*"
	}
	flavor, release, ok := strings.Cut(left, ":")
	if !ok {
		release = "*"
	}
	fits := func(pattern, name string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	}
	for _, r := range s.rows {
		for _, t := range r.targets {
			if !fits(flavor, t.Flavor.ID) || !fits(release, t.Release.Version) || !fits(arch, string(t.Arch)) {
				continue
			}
			if t.Unsupported == "" {
				list = append(list, t.String())
			} else if why == "" {
				why = t.String() + ": " + t.Unsupported
			}
		}
		if why == "" && len(r.targets) == 0 && fits(flavor, r.flavor.ID) {
			why = s.sentence(slices.IndexFunc(s.rows, func(o row) bool { return o.flavor == r.flavor }), r)
		}
	}
	if len(list) > 0 {
		return list, ""
	}
	if why == "" {
		why = fmt.Sprintf("%q fits no target of the chart", what)
	}
	return nil, why
}

// choose selects, or unselects what was selected.
func (s *session) choose(what string) {
	if what == "" {
		names := s.names()
		s.sayf("%s selected: %s.", count(len(names), "target"), strings.Join(names, ", "))
		return
	}
	list, why := s.meant(what)
	if why != "" {
		s.sayf("Not selected. %s", strings.TrimSuffix(why, ".")+".")
		return
	}
	s.toggle(list)
}

func (s *session) chooseAll() {
	var list []string
	for _, r := range s.rows {
		list = append(list, r.able()...)
	}
	s.toggle(list)
}

func (s *session) toggle(list []string) {
	on := slices.ContainsFunc(list, func(t string) bool { return !s.selected[t] })
	for _, t := range list {
		s.selected[t] = on
	}
	word := "Selected"
	if !on {
		word = "No longer selected"
	}
	s.sayf("%s: %s. %s selected in all.", word, strings.Join(list, ", "), count(len(s.names()), "target"))
}

// details reads everything that is known of a row.
func (s *session) details(what string) {
	i := s.rowOf(what, "details")
	if i < 0 {
		return
	}
	r := s.rows[i]
	s.say(s.sentence(i, r))
	f := r.flavor
	for _, fact := range [][2]string{{"Home", f.Home}, {"Documentation", f.Docs}, {"Download", f.Download}, {"Licence", f.Licence}, {"User", f.User}} {
		if fact[1] != "" {
			s.say(fact[0] + ": " + fact[1])
		}
	}
	for _, t := range r.targets {
		k, ok := s.known[t.String()]
		switch {
		case ok:
			s.tell(k.Plan)
		case t.Unsupported != "":
			s.sayf("%s: %s.", t, t.Unsupported)
		default:
			s.sayf("%s: can be built; nothing is known of it yet: plan and look ask.", t)
		}
		if u := k.Plan.Upstream; u != nil {
			s.sayf("%s: upstream has %s, %s.", t, u.Build, u.URL)
		}
		for _, stage := range engine.Stages {
			end, ok := k.Stages[stage]
			if !ok {
				continue
			}
			text := end.Reason
			if end.State == event.Failed {
				text, _, _ = strings.Cut(end.Error, "\n")
			}
			s.sayf("%s: %s %s on %s: %s.", t, stage, end.State, end.At.UTC().Format("2006-01-02 15:04 UTC"), text)
		}
	}
}
