package engine

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// NotStarted is the error of a run that could not begin: wrong usage, catalogue or environment. Nothing was changed.
type NotStarted struct{ Err error }

func (n *NotStarted) Error() string { return n.Err.Error() }
func (n *NotStarted) Unwrap() error { return n.Err }

func notStarted(format string, args ...any) error { return &NotStarted{fmt.Errorf(format, args...)} }

// all lists every target of the catalogue in the chart's order.
func (e *Engine) all() []Target {
	var list []Target
	for i := range e.cfg.Catalog.Flavors {
		f := &e.cfg.Catalog.Flavors[i]
		for r := range f.Releases {
			for _, arch := range f.Arch {
				t := Target{Flavor: f, Release: &f.Releases[r], Arch: arch}
				t.Unsupported = e.unsupported(t)
				list = append(list, t)
			}
		}
	}
	return list
}

// unsupported says why this program cannot build a target yet.
func (e *Engine) unsupported(t Target) string {
	o := t.Flavor.Origin
	switch {
	case o == nil:
		return "not supported yet: its upstream is not described in " + path.Base(e.cfg.Catalog.Path)
	case o.Kind != "packages" || o.Format != "deb":
		return fmt.Sprintf("not supported yet: origin %s %s", o.Kind, o.Format)
	case o.Boot[t.Arch].Kernel == "":
		return fmt.Sprintf("not supported yet: no boot loader is described for %s", t.Arch)
	case t.Arch != hostArch():
		return fmt.Sprintf("not supported yet: building for %s on a machine that is %s", t.Arch, hostArch())
	}
	return ""
}

// selector is one of Selection.Only, in its parts.
type selector struct{ text, flavor, release, arch string }

func parseSelector(text string) (selector, error) {
	s := selector{text: text, flavor: text, release: "*", arch: "*"}
	if left, arch, ok := strings.Cut(s.flavor, "/"); ok {
		s.flavor, s.arch = left, arch
	}
	if left, release, ok := strings.Cut(s.flavor, ":"); ok {
		s.flavor, s.release = left, release
	}
	for _, part := range []string{s.flavor, s.release, s.arch} {
		if _, err := path.Match(part, ""); err != nil || part == "" {
			return s, fmt.Errorf("selector %q: write FLAVOR, FLAVOR:RELEASE or FLAVOR:RELEASE/ARCH; each part may be a glob such as *", text)
		}
	}
	return s, nil
}

func match(pattern, name string) bool {
	ok, _ := path.Match(pattern, name)
	return ok
}

// Targets lists the targets that a selection means, in the chart's order, those that cannot be built yet among them. A
// selector that means nothing is a *NotStarted that lists the valid ones.
func (e *Engine) Targets(sel Selection) ([]Target, error) {
	targets, _, err := e.selected(sel)
	return targets, err
}

// selected also returns the flavors that the selection means and that have no releases to build yet.
func (e *Engine) selected(sel Selection) (targets []Target, bare []*catalog.Flavor, err error) {
	for _, l := range sel.Levels {
		if !slices.Contains(catalog.Levels, l) {
			return nil, nil, notStarted("level %q: write one of planned, preview, proposed, stable", l)
		}
	}
	if sel.Until != "" && !slices.Contains(Stages, sel.Until) {
		return nil, nil, notStarted("stage %q: write one of %s", sel.Until, join(Stages))
	}
	level := func(f *catalog.Flavor) bool {
		if len(sel.Levels) > 0 {
			return slices.Contains(sel.Levels, f.Level)
		}
		return len(sel.Only) > 0 || f.Level != catalog.Planned
	}
	var selectors []selector
	for _, text := range sel.Only {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		s, err := parseSelector(text)
		if err != nil {
			return nil, nil, &NotStarted{err}
		}
		selectors = append(selectors, s)
	}
	used := make([]bool, len(selectors))
	all := e.all()
	for _, t := range all {
		chosen := len(selectors) == 0
		for i, s := range selectors {
			if match(s.flavor, t.Flavor.ID) && match(s.release, t.Release.Version) && match(s.arch, string(t.Arch)) {
				used[i], chosen = true, true
			}
		}
		if chosen && level(t.Flavor) {
			targets = append(targets, t)
		}
	}
	for i := range e.cfg.Catalog.Flavors {
		f := &e.cfg.Catalog.Flavors[i]
		if len(f.Releases) > 0 {
			continue
		}
		chosen := len(selectors) == 0
		for i, s := range selectors {
			if match(s.flavor, f.ID) && s.release == "*" && (s.arch == "*" || slices.ContainsFunc(f.Arch, func(a catalog.Arch) bool { return match(s.arch, string(a)) })) {
				used[i], chosen = true, true
			}
		}
		if chosen && level(f) {
			bare = append(bare, f)
		}
	}
	for i, s := range selectors {
		if !used[i] {
			return nil, nil, notStarted("selector %q fits nothing in %s; there are: %s", s.text, e.cfg.Catalog.Path, e.valid(all))
		}
	}
	if len(targets) == 0 && len(bare) == 0 {
		return nil, nil, notStarted("nothing in %s has the level and the name that were asked for", e.cfg.Catalog.Path)
	}
	return targets, bare, nil
}

// valid lists what selectors can name.
func (e *Engine) valid(all []Target) string {
	var names []string
	for i := range e.cfg.Catalog.Flavors {
		f := &e.cfg.Catalog.Flavors[i]
		if len(f.Releases) == 0 {
			names = append(names, f.ID)
		}
		for _, t := range all {
			if t.Flavor == f {
				names = append(names, t.String())
			}
		}
	}
	return strings.Join(names, ", ")
}

func join[T ~string](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}
