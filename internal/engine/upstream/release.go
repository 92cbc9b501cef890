package upstream

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/maruel/natural"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// LeftOut is a release that does not count, and why.
type LeftOut struct {
	Version string
	Reason  string
}

// defaultKeep is how many releases count: N and N-1.
const defaultKeep = 2

var releaseForm = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)

// Releases finds the releases of a flavor that count, the newest first, and those that might be expected and do not.
// Whether a release has ended is asked of the document that the catalogue names; where it does not answer, log says so
// and the release counts.
func Releases(ctx context.Context, s *Session, f *catalog.Flavor, now time.Time, log func(string)) (count []catalog.Release, left []LeftOut, err error) {
	if f.Versions == nil {
		for _, r := range f.Releases {
			if why := ended(r, nil, now); why != "" {
				left = append(left, LeftOut{r.Version, why})
			} else {
				count = append(count, r)
			}
		}
		return count, left, nil
	}
	v := f.Versions
	ends := make(chan map[string]string, 1)
	go func() { ends <- endsOfLife(ctx, s, v, log) }()
	found, err := run(ctx, s, v.Step, nil)
	eol := <-ends
	if err != nil {
		return nil, nil, err
	}
	var prerelease *regexp.Regexp
	if v.Prerelease != "" {
		if prerelease, err = catalog.Pattern(v.Prerelease, nil); err != nil {
			return nil, nil, err
		}
	}
	facts := map[string]catalog.Release{}
	for _, r := range f.Releases {
		facts[r.Version] = r
	}
	var list []candidate
	seen := map[string]bool{}
	for _, m := range found {
		version, err := catalog.Expand(cmp.Or(v.Version, "{version}"), m.values)
		if err != nil {
			return nil, nil, err
		}
		if seen[version] {
			continue
		}
		seen[version] = true
		cycle, err := catalog.Expand(cmp.Or(v.Cycle, "{version}"), m.values.with(values{"version": version}))
		if err != nil {
			return nil, nil, err
		}
		c := candidate{Release: facts[version], cycle: cycle, group: m.values[v.Per]}
		c.Version, c.Known = version, m.values.with(values{"version": version})
		if code := m.values["codename"]; c.Codename == "" && releaseForm.MatchString(code) {
			c.Codename = code
		}
		switch {
		case prerelease != nil && prerelease.MatchString(version):
			c.pre = "a pre-release"
		case !releaseForm.MatchString(version) || len(version) > 60:
			return nil, nil, fmt.Errorf("upstream calls a release %q, which cannot be a tag: see match and version of its description", event.Clean(version))
		case eol != nil && eol[cycle] == "" && !c.Pin:
			c.pre = "not released: " + v.EOL + " does not know it"
		}
		list = append(list, c)
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return natural.Compare(b.Version, a.Version) })
	count, left = policy(v, list, eol, now)
	for _, r := range f.Releases { // those that a maintainer adds
		if r.Pin && !seen[r.Version] {
			count = append(count, r)
		} else if r.Skip != "" && !seen[r.Version] {
			left = append(left, LeftOut{r.Version, r.Skip})
		}
	}
	if len(count) == 0 {
		var why []string
		for _, l := range left {
			why = append(why, l.Version+": "+l.Reason)
		}
		return nil, left, fmt.Errorf("no release counts: %s", cmp.Or(strings.Join(why, "; "), "upstream has none"))
	}
	return count, left, nil
}

// candidate is a release that upstream has.
type candidate struct {
	catalog.Release
	cycle, group, pre string
}

// policy chooses among releases, the newest first: so many, one of each group, none that is not out yet or has ended.
// One that has ended takes its place: where N-1 is dead, there is N alone.
func policy(v *catalog.Versions, list []candidate, eol map[string]string, now time.Time) (count []catalog.Release, left []LeftOut) {
	places := cmp.Or(v.Keep, defaultKeep)
	groups := map[string]bool{}
	for _, c := range list {
		why := ended(c.Release, eol, now, c.cycle)
		switch {
		case c.Pin:
			count = append(count, c.Release)
			places--
		case c.pre != "":
			if len(groups) == 0 && len(count) == 0 { // an old one that nobody knows is not worth a word
				left = append(left, LeftOut{c.Version, c.pre})
			}
		case c.group != "" && groups[c.group]:
		case places <= 0:
		case why != "":
			left = append(left, LeftOut{c.Version, why})
			places--
			groups[c.group] = true
		default:
			count = append(count, c.Release)
			places--
			groups[c.group] = true
		}
	}
	return count, left
}

// ended says why a release does not count any more; "" if it does.
func ended(r catalog.Release, eol map[string]string, now time.Time, cycle ...string) string {
	switch {
	case r.Skip != "":
		return r.Skip
	case r.Pin:
		return ""
	}
	end := r.EOL
	if end == "" && len(cycle) > 0 {
		end = eol[cycle[0]]
	}
	if end == "true" {
		return "end of life"
	}
	if t, err := time.Parse(time.DateOnly, end); err == nil && now.After(t.AddDate(0, 0, 1)) {
		return "end of life since " + end
	}
	return ""
}

// endsOfLife reads when releases end: cycle → "YYYY-MM-DD", "true" or "false". nil where nobody tells.
func endsOfLife(ctx context.Context, s *Session, v *catalog.Versions, log func(string)) map[string]string {
	if v.EOL == "" {
		return nil
	}
	doc, err := s.Get(ctx, v.EOL)
	if err == nil {
		var found []match
		if found, err = answers(ctx, doc, cmp.Or(v.EOLQuery, ".[] | {cycle, eol}"), nil); err == nil {
			ends := map[string]string{}
			for _, m := range found {
				ends[m.values["cycle"]] = cmp.Or(m.values["eol"], "false")
			}
			return ends
		}
	}
	log(fmt.Sprintf("when its releases end is not known: %v", err))
	return nil
}
