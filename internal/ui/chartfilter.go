package ui

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// filterTerm is one word of the chart's filter: KEY:VALUE, or a text that is somewhere in what a row shows. A value may be
// incomplete while it is typed.
type filterTerm struct {
	key, value string
	not        bool
}

// conditions are what is:VALUE tells of a target, or of a row without one.
var conditions = []struct {
	name string
	of   func(*row, *target) bool
}{
	{"stale", func(_ *row, t *target) bool { return t != nil && t.shown() == stale }},
	{"broken", isBroken},
	{"failed", isBroken},
	{"unsigned", func(_ *row, t *target) bool { return t != nil && t.shown() == unsigned }},
	{"unpublished", func(_ *row, t *target) bool { return t != nil && t.unpublished() }},
	{"published", func(_ *row, t *target) bool { return t != nil && t.plan != nil && t.plan.isPublished }},
	{"undecided", func(r *row, _ *target) bool { return r.undecided != "" }},
	{"mistaken", func(r *row, _ *target) bool { return len(r.mistakes) > 0 }},
	{"edited", func(r *row, _ *target) bool { return r.edited }},
	{"ready", func(_ *row, t *target) bool { return t != nil && t.shown() == ready }},
	{"running", func(_ *row, t *target) bool { return t != nil && t.state == running }},
	{"done", func(_ *row, t *target) bool { return t != nil && (t.state == done || t.state == skipped) }},
	{"selected", func(_ *row, t *target) bool { return t != nil && t.selected }},
	{"unsupported", func(r *row, t *target) bool { return t == nil && !r.file || t != nil && t.shown() == unsupported }},
}

func isBroken(r *row, t *target) bool {
	if t == nil {
		s, _ := r.state()
		return s == failed
	}
	return t.shown() == failed
}

// parseFilter takes a filter apart. wrong says what of it nothing can fit, and what to write instead.
func parseFilter(text string) (terms []filterTerm, wrong string) {
	values := map[string][]string{"level": nil, "is": nil, "arch": nil, "release": nil}
	for _, l := range catalog.Levels {
		values["level"] = append(values["level"], string(l))
	}
	for _, a := range catalog.Arches {
		values["arch"] = append(values["arch"], string(a))
	}
	for _, c := range conditions {
		values["is"] = append(values["is"], c.name)
	}
	for _, word := range strings.Fields(strings.ToLower(text)) {
		t := filterTerm{value: word}
		if rest, ok := strings.CutPrefix(word, "-"); ok && rest != "" {
			t.value, t.not = rest, true
		}
		key, value, ok := strings.Cut(t.value, ":")
		if list, known := values[key]; ok && known {
			t.key, t.value = key, value
			if list != nil && !slices.ContainsFunc(list, func(v string) bool { return strings.HasPrefix(v, value) }) {
				wrong = fmt.Sprintf("%s:%s fits nothing: write %s:%s", key, value, key, strings.Join(list, ", "))
			}
		}
		terms = append(terms, t)
	}
	return terms, wrong
}

// ofTarget reports whether a term is about targets, each for itself.
func (t filterTerm) ofTarget() bool { return t.key == "is" || t.key == "arch" || t.key == "release" }

// fits reports whether the filter leaves the row: every word about rows fits it, and every one about targets the same
// one of its targets.
func (c *chart) fits(r *row) bool {
	if len(c.terms) == 0 {
		return true
	}
	ofTargets := false
	for _, t := range c.terms {
		ofTargets = ofTargets || t.ofTarget()
		if !t.ofTarget() && t.fitsRow(r) == t.not {
			return false
		}
	}
	if !ofTargets {
		return true
	}
	if len(r.targets) == 0 {
		return c.fitsTarget(r, nil)
	}
	return slices.ContainsFunc(r.targets, func(t *target) bool { return c.fitsTarget(r, t) })
}

func (c *chart) fitsTarget(r *row, t *target) bool {
	for _, x := range c.terms {
		if x.ofTarget() && x.fitsTarget(r, t) == x.not {
			return false
		}
	}
	return true
}

// listed are the row's targets that the filter leaves.
func (c *chart) listed(r *row) []*target {
	if !slices.ContainsFunc(c.terms, filterTerm.ofTarget) {
		return r.targets
	}
	return slices.DeleteFunc(slices.Clone(r.targets), func(t *target) bool { return !c.fitsTarget(r, t) })
}

func (t filterTerm) fitsRow(r *row) bool {
	if t.key == "level" {
		return strings.HasPrefix(r.level, t.value)
	}
	_, label := r.state()
	texts := []string{r.id, r.name, r.level, r.arches, r.upstream(time.Time{}), label}
	for _, o := range r.targets {
		texts = append(texts, o.id)
	}
	return strings.Contains(strings.ToLower(strings.Join(texts, " ")), t.value)
}

func (t filterTerm) fitsTarget(r *row, o *target) bool {
	switch t.key {
	case "arch":
		if o == nil {
			return slices.ContainsFunc(strings.Fields(r.arches), func(a string) bool { return strings.HasPrefix(a, t.value) })
		}
		return strings.HasPrefix(o.arch(), t.value)
	case "release":
		return o != nil && strings.HasPrefix(o.release(), t.value)
	}
	for _, c := range conditions {
		if strings.HasPrefix(c.name, t.value) && c.of(r, o) {
			return true
		}
	}
	return false
}
