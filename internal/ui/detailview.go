package ui

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// looked-up images, by target.
type picture struct {
	fields []field
	busy   bool
}

// imageMsg is what the engine knows of a target's image.
type imageMsg struct {
	target string
	image  engine.Image
	err    error
}

// openDetails shows everything that is known of the line under the cursor, and asks for what is not known yet.
func (m *model) openDetails() tea.Cmd {
	m.scrolled[detailsScreen] = list{}
	m.push(detailsScreen)
	m.detailed = ""
	return m.askImage()
}

// meantTarget is the target that the details are about: the one under the chart's cursor, or the row's newest.
func (m *model) meantTarget() *target {
	l, ok := m.chart.on()
	if !ok || len(l.targets()) == 0 {
		return nil
	}
	for _, t := range l.row.targets {
		if t.id == m.detailed {
			return t
		}
	}
	if l.target != nil {
		return l.target
	}
	if able := l.able(); len(able) > 0 {
		return able[0]
	}
	return l.targets()[0]
}

func (m *model) whyOneTarget() string {
	l, ok := m.chart.on()
	if !ok || len(l.row.targets) < 2 {
		return "the row has no other target"
	}
	return ""
}

// turnTarget goes to another target of the row.
func (m *model) turnTarget(step int) tea.Cmd {
	l, _ := m.chart.on()
	i := slices.Index(l.row.targets, m.meantTarget())
	m.detailed = l.row.targets[mod(i+step, len(l.row.targets))].id
	return m.askImage()
}

// askImage asks the engine for what it knows of the image that the details are about.
func (m *model) askImage() tea.Cmd {
	t := m.meantTarget()
	if t == nil || m.pictures[t.id].busy {
		return nil
	}
	if m.pictures == nil {
		m.pictures = map[string]picture{}
	}
	m.pictures[t.id] = picture{m.pictures[t.id].fields, true}
	id := t.id
	wait, _ := m.start(func(ctx context.Context) tea.Msg {
		image, err := m.engine.Image(ctx, id)
		return imageMsg{id, image, err}
	}, func(err error) tea.Msg { return imageMsg{target: id, err: err} })
	return wait
}

// pictured takes in what the engine knows of an image.
func (m *model) pictured(msg imageMsg) {
	if m.pictures == nil {
		m.pictures = map[string]picture{}
	}
	m.pictures[msg.target] = picture{fields: imageFields(msg.image, msg.err)}
	if msg.err != nil {
		m.say(bad, "image of "+msg.target+": "+msg.err.Error())
	}
}

// imageFields are what is known of an image, as fields.
func imageFields(img engine.Image, err error) (out []field) {
	head := func(text string) { out = append(out, field{}, field{heading: text}) }
	add := func(name, value string) {
		if value = clean(value); value != "" {
			out = append(out, field{name: name, value: value})
		}
	}
	head("image")
	if err != nil {
		out = append(out, field{name: "not read", value: clean(err.Error()), state: failed, coloured: true})
	}
	add("reference", img.Reference)
	add("index", img.Index)
	add("tags", strings.Join(img.Tags, ", "))
	if img.Reference == "" && err == nil {
		add("reference", "nothing is published")
	}
	var total int64
	for i, l := range img.Layers {
		total += l.Size
		what := l.What
		if what != "" {
			what = ", " + what
		}
		add(fmt.Sprintf("layer %d", i+1), fmt.Sprintf("%s %s%s, %s", l.Digest, size(float64(l.Size)), what, l.Type))
	}
	if total > 0 {
		add("to transfer", size(float64(total)))
	}
	if img.Disk != "" {
		head("disk")
		add("sha256", img.Disk)
		if img.Size > 0 {
			add("file", size(float64(img.Size)))
		}
		if img.Virtual > 0 {
			add("a guest sees", size(float64(img.Virtual)))
		}
		add("in the cache", img.Local)
	}
	if len(img.Boots) > 0 {
		head("boot test, passed on " + img.Tested.UTC().Format("2006-01-02 15:04 UTC"))
		for _, b := range img.Boots {
			add(b.Firmware, fmt.Sprintf("%s in %s, on %s", plural(len(b.Checks), "check"), span(seconds(b.Seconds)), b.Accel))
			for _, c := range b.Checks {
				s := done
				if !c.OK {
					s = failed
				}
				out = append(out, field{name: "  " + clean(c.Name), value: clean(c.Detail) + " (" + span(seconds(c.Seconds)) + ")", state: s, coloured: true})
			}
		}
	}
	if c := img.Changes; c != nil {
		head(fmt.Sprintf("packages, %s to %s: %d changed, %d added, %d removed", c.Old, c.New, len(c.Changed), len(c.Added), len(c.Removed)))
		for _, p := range c.Changed {
			add(clean(p.Name), p.From+" → "+p.To)
		}
		for _, p := range c.Added {
			add("+ "+clean(p.Name), p.To)
		}
		for _, p := range c.Removed {
			add("- "+clean(p.Name), p.From)
		}
	}
	if len(img.Labels) > 0 {
		head("labels")
		for _, k := range slices.Sorted(maps.Keys(img.Labels)) {
			add(clean(k), img.Labels[k])
		}
	}
	return out
}

// allDetails are the fields of the details' screen.
func (m *model) allDetails() []field {
	l, ok := m.chart.on()
	if !ok {
		return nil
	}
	t := m.meantTarget()
	out := m.detailFields(line{row: l.row, target: t})
	if t == nil {
		return out
	}
	p := m.pictures[t.id]
	if p.busy && p.fields == nil {
		return append(out, field{}, field{name: "image", value: "asking registry and cache …", quiet: true})
	}
	return append(out, p.fields...)
}

// detailFields are what is known of a line without asking anybody.
func (m *model) detailFields(l line) (out []field) {
	r := l.row
	add := func(name, value string) {
		if value != "" {
			out = append(out, field{name: name, value: value})
		}
	}
	for i, text := range r.mistakes {
		out = append(out, field{name: fmt.Sprintf("mistake %d", i+1), value: text, state: failed, coloured: true})
	}
	needy := l.needy()
	if needy != nil && len(r.mistakes) == 0 {
		reason := needy.word()
		if needy.plan != nil && needy.plan.action == engine.Fail && !needy.ran {
			reason = needy.plan.reason // with its addresses
		}
		out = append(out, field{name: "state", value: needy.id + ": " + reason, state: needy.shown(), coloured: true})
		add(remedyFact, needy.plan.remedy())
	}
	ran := slices.ContainsFunc(r.targets, func(t *target) bool { return t.ran })
	if r.reason != "" && len(r.mistakes) == 0 && !ran {
		name, s := "state", unsupported
		if needy != nil {
			name = "besides" // what is broken is said above
		} else {
			s, _ = r.found()
		}
		out = append(out, field{name: name, value: r.reason, state: s, coloured: true})
	}
	if r.undecided != "" {
		out = append(out, field{name: "licence", value: r.undecided, state: stale, coloured: true})
	}
	add("level", r.level)
	add("built for", r.arches)
	for _, f := range r.facts {
		if f[0] == "licence" && r.undecided != "" {
			f[0] = "its document"
		}
		add(f[0], f[1])
	}
	if len(r.targets) > 0 {
		out = append(out, field{}, field{heading: "targets"})
	}
	for _, t := range r.targets {
		text := t.word() + after(t)
		if t.plan != nil && t.plan.build != "" {
			text = t.plan.newest(m.clock) + ": " + text
		}
		out = append(out, field{name: t.label, value: text, state: t.shown(), coloured: true, strong: t == l.target})
	}
	for _, o := range r.others {
		out = append(out, field{name: o[0], value: o[1], quiet: true})
	}
	t := l.target
	if t == nil {
		return out
	}
	if t.plan != nil {
		when := "asked just now"
		if !t.fresh && !t.seen.IsZero() {
			when = "as of " + age(m.clock.Sub(t.seen)) + " ago"
		}
		out = append(out, field{}, field{heading: t.id + ", " + when})
		for _, f := range t.plan.facts {
			if f[0] != remedyFact || t != needy { // it is said above
				add(f[0], f[1])
			}
		}
	}
	head := false
	for _, stage := range engine.Stages {
		e, ok := t.stages[string(stage)]
		if !ok {
			continue
		}
		if !head {
			out = append(out, field{}, field{heading: "how its stages ended last"})
			head = true
		}
		text := e.state.word()
		if e.state == done {
			text = "done in " + span(e.took)
		}
		if why := e.err + e.reason; why != "" {
			text += ": " + why
		}
		if !e.at.IsZero() {
			text += " (" + e.at.UTC().Format("2006-01-02 15:04 UTC") + ")"
		}
		out = append(out, field{name: string(stage), value: text, state: e.state, coloured: true})
	}
	return out
}
