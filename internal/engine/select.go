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

// chosen are the flavors that a selection may mean, and its selectors. planned says whether those of that level count
// without being named. A selector that fits no flavor is a *NotStarted that lists those there are.
func (e *Engine) chosen(sel Selection, planned bool) (flavors []*catalog.Flavor, selectors []selector, err error) {
	for _, l := range sel.Levels {
		if !slices.Contains(catalog.Levels, l) {
			return nil, nil, notStarted("level %q: write one of planned, preview, proposed, stable", l)
		}
	}
	if sel.Until != "" && !slices.Contains(Stages, sel.Until) {
		return nil, nil, notStarted("stage %q: write one of %s", sel.Until, join(Stages))
	}
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
	var ids []string
	for i := range e.cfg.Catalog.Flavors {
		f := &e.cfg.Catalog.Flavors[i]
		ids = append(ids, f.ID)
		named := len(selectors) == 0
		for i, s := range selectors {
			if match(s.flavor, f.ID) && (s.arch == "*" || slices.ContainsFunc(f.Arch, func(a catalog.Arch) bool { return match(s.arch, string(a)) })) {
				named, used[i] = true, true
			}
		}
		level := planned || len(selectors) > 0 || f.Level != catalog.Planned
		if len(sel.Levels) > 0 {
			level = slices.Contains(sel.Levels, f.Level)
		}
		if named && level {
			flavors = append(flavors, f)
		}
	}
	for i, s := range selectors {
		if !used[i] {
			return nil, nil, notStarted("selector %q fits nothing in %s; its flavors are: %s", s.text, e.cfg.Catalog.Path, strings.Join(ids, ", "))
		}
	}
	if len(flavors) == 0 {
		return nil, nil, notStarted("nothing in %s has the level and the name that were asked for", e.cfg.Catalog.Path)
	}
	return flavors, selectors, nil
}

// fits says whether selectors mean a release for an architecture; "" stands for any.
func fits(selectors []selector, flavor, release string, arch catalog.Arch) bool {
	return len(selectors) == 0 || slices.ContainsFunc(selectors, func(s selector) bool {
		return match(s.flavor, flavor) && (release == "" && s.release == "*" || match(s.release, release)) && (arch == "" || match(s.arch, string(arch)))
	})
}

// named says whether a selector that means the target says its architecture.
func named(selectors []selector, t Target) bool {
	return slices.ContainsFunc(selectors, func(s selector) bool {
		return s.arch != "*" && fits([]selector{s}, t.Flavor.ID, t.Release.Version, t.Arch)
	})
}

func join[T ~string](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}
