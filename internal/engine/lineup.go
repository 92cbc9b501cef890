package engine

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/customise"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// lineup is a flavor with its releases: those that count, and those that might be expected and do not.
type lineup struct {
	flavor   *catalog.Flavor
	releases []catalog.Release
	left     []upstream.LeftOut
	why      string // why there are no releases; "" if there are
	err      error  // they could not be found
}

// found is what the cache remembers of a lineup.
type found struct {
	Releases []catalog.Release  `json:"releases"`
	Left     []upstream.LeftOut `json:"left"`
	Time     time.Time          `json:"time"`
}

// each finds the releases of flavors, all at once, and hands on the targets of each that selectors mean, and plans for
// what else they mean, as soon as they are known. i is the flavor's place in the list; calls come from several goroutines.
// Without asking, nobody is: releases are those of the last time. last is how far targets are to go. Selectors
// that mean nothing are a *NotStarted that lists what there is.
func (e *Engine) each(ctx context.Context, a *asking, flavors []*catalog.Flavor, selectors []selector, last Stage, hand func(i int, targets []Target, others []Plan)) error {
	used := make([]bool, len(selectors))
	names := make([][]string, len(flavors))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, f := range flavors {
		wg.Add(1)
		go func() {
			defer wg.Done()
			l := e.lineup(ctx, a, f, last)
			targets, others := e.targets(l, selectors)
			all, _ := e.targets(l, nil)
			mu.Lock()
			for k, s := range selectors {
				used[k] = used[k] || match(s.flavor, f.ID) && (s.release == "*" || len(l.releases) == 0) ||
					slices.ContainsFunc(targets, func(t Target) bool { return fits([]selector{s}, f.ID, t.Release.Version, t.Arch) }) ||
					slices.ContainsFunc(l.left, func(r upstream.LeftOut) bool { return fits([]selector{s}, f.ID, r.Version, "") })
			}
			for _, t := range all {
				names[i] = append(names[i], t.String())
			}
			if len(all) == 0 {
				names[i] = []string{f.ID}
			}
			mu.Unlock()
			hand(i, targets, others)
		}()
	}
	wg.Wait()
	for i, s := range selectors {
		if !used[i] && ctx.Err() == nil {
			return notStarted("selector %q fits nothing; there are: %s", s.text, strings.Join(slices.Concat(names...), ", "))
		}
	}
	return nil
}

func (e *Engine) lineup(ctx context.Context, a *asking, f *catalog.Flavor, last Stage) lineup {
	l := lineup{flavor: f}
	if l.why = e.bare(f); l.why != "" {
		return l
	}
	if f.Origin.Kind != "packages" && f.Origin.Customise == nil && slices.Index(Stages, last) > slices.Index(Stages, Fetch) {
		_, l.why = e.end(Target{Flavor: f})
		return l
	}
	if a == nil && f.Versions != nil {
		var known found
		if !e.cache.Load("releases", f.ID, &known) {
			l.why = "its releases have not been looked for yet"
		}
		l.releases, l.left = known.Releases, known.Left
		return l
	}
	var web *upstream.Session // without Versions nobody is asked
	log := func(string) {}
	if a != nil {
		web, log = a.web, func(text string) { a.bus.Scope(f.ID, string(Resolve), "").Log(text) }
	}
	l.releases, l.left, l.err = upstream.Releases(ctx, web, f, e.cfg.Now(), log)
	if l.err == nil && f.Versions != nil {
		if err := e.cache.Store("releases", f.ID, found{l.releases, l.left, e.cfg.Now().UTC()}); err != nil {
			log("its releases cannot be remembered: " + err.Error())
		}
	}
	return l
}

// bare says why a flavor has no releases to look for; "" if it has.
func (e *Engine) bare(f *catalog.Flavor) string {
	switch {
	case f.Origin == nil:
		return "not supported yet: its upstream is not described in " + path.Base(e.cfg.Catalog.Path)
	case f.Origin.Kind == "none":
		return "nothing upstream: " + f.Origin.Reason
	}
	return ""
}

// targets lists the targets of a lineup that selectors mean, the newest release first, and plans for what is in it and is
// no target.
func (e *Engine) targets(l lineup, selectors []selector) (targets []Target, others []Plan) {
	f := l.flavor
	other := func(name string, action Action, reason string) {
		others = append(others, Plan{Target: name, Action: action, Reason: reason, Licence: licence(f), Origin: origin(f)})
	}
	switch {
	case l.why != "":
		other(f.ID, None, l.why)
		return nil, others
	case l.err != nil:
		why, remedy := explain(l.err)
		other(f.ID, Fail, "its releases could not be found: "+why)
		others[0].Remedy = remedy
		return nil, others
	}
	for i := range l.releases {
		r := &l.releases[i]
		for _, arch := range f.Arch {
			t := Target{Flavor: f, Release: r, Arch: arch, Newest: i == 0}
			if !fits(selectors, f.ID, r.Version, arch) {
				continue
			}
			if f.Origin.ArchNames[arch] == "" {
				other(t.String(), None, "upstream offers nothing for "+string(arch))
				continue
			}
			t.Last, t.Unsupported = e.end(t)
			// Emulation takes half an hour and more: a machine of that architecture does it in the weekly release.
			if t.Unsupported == "" && arch != hostArch() && !named(selectors, t) {
				t.Last, t.Unsupported = Fetch, fmt.Sprintf("%s is emulated on this machine, which is slow: it is built when it is named, as in --only %s", arch, t)
			}
			targets = append(targets, t)
		}
	}
	for _, left := range l.left {
		if fits(selectors, f.ID, left.Version, "") {
			other(f.ID+":"+left.Version, None, "left out: "+left.Reason)
		}
	}
	return targets, others
}

// undescribed says where the way of a target ends because the catalogue tells no more of it, and why; on any machine.
func undescribed(t Target) (last Stage, why string) {
	switch o := t.Flavor.Origin; {
	case o.Kind == "image" && o.Customise == nil:
		return Fetch, "not supported yet: how its disk is customised is not described"
	case o.Kind == "installer" && o.Install != "":
		return Fetch, "not supported yet: its unattended installation (" + o.Install + ") was never run against the real installer"
	case o.Kind == "installer":
		return Fetch, "not supported yet: no unattended installation from upstream's " + o.Format + " is described"
	case o.Kind == "packages" && o.Boot[t.Arch].Kernel == "":
		return Fetch, fmt.Sprintf("not supported yet: no boot loader is described for %s", t.Arch)
	case len(o.Boot[t.Arch].Firmware) == 0:
		return Pack, fmt.Sprintf("not supported yet: its boot test on %s is not described", t.Arch)
	}
	return "", ""
}

// end says where the way of a target ends before it is published, and why: by the catalogue, by what this machine can, or
// by its licence.
func (e *Engine) end(t Target) (last Stage, why string) {
	last, why = undescribed(t)
	if last == Fetch {
		return last, why
	}
	if o := t.Flavor.Origin; o.Kind == "image" {
		// Whether the signature holds shows when it is asked for; that there is one is known.
		if _, _, err := e.host.Choose(context.Background(), o, t.Release, t.Arch, o.Signature != nil, false); err != nil {
			return Fetch, "not possible on this machine: " + err.Error()
		}
	} else {
		err := customise.Runs(t.Arch)
		if err == nil && t.Arch != hostArch() {
			_, err = command.Look("arch-test") // mmdebstrap asks it
		}
		if err != nil {
			cause, remedy := explain(err)
			return Fetch, fmt.Sprintf("not possible on this machine: %s (%s)", cause, remedy)
		}
	}
	if why == "" {
		if why = e.refusal(t.Flavor); why != "" {
			last = Sign
		}
	}
	return last, why
}

// refusal says why a flavor's licence keeps it from where this engine publishes; "" if it does not.
func (e *Engine) refusal(f *catalog.Flavor) string {
	where := e.cfg.Registry
	private := strings.HasPrefix(where, "dir:") || slices.ContainsFunc(e.cfg.Catalog.Project.Private, func(p string) bool {
		return where == p || strings.HasPrefix(where, p+"/")
	})
	switch {
	case private, f.Redistribution == catalog.Free, f.Redistribution == catalog.Unclear && f.Decision != "":
		return ""
	case f.Redistribution == catalog.Unclear:
		return fmt.Sprintf("not published to %s: whether it may be passed on is unclear: %s (%s); a maintainer's decision is recorded as decision in %s",
			where, f.Because, f.Licence, path.Base(e.cfg.Catalog.Path))
	}
	return fmt.Sprintf("not published to %s: its licence restricts who may have it: %s (%s); registries named in private in %s, and dir:, may hold it",
		where, f.Because, f.Licence, path.Base(e.cfg.Catalog.Path))
}

func licence(f *catalog.Flavor) *Licence {
	return &Licence{Redistribution: string(f.Redistribution), URL: f.Licence, Because: f.Because, Decision: f.Decision}
}

func origin(f *catalog.Flavor) string {
	if f.Origin == nil {
		return ""
	}
	return f.Origin.Kind
}

// selected finds the targets of a selection that go as far as a stage, in the chart's order, and plans for what it means
// besides them. Without a session nobody is asked.
func (e *Engine) selected(ctx context.Context, a *asking, sel Selection, last Stage) (targets []Target, others []Plan, err error) {
	flavors, selectors, err := e.chosen(sel, false)
	if err != nil {
		return nil, nil, err
	}
	t, o := make([][]Target, len(flavors)), make([][]Plan, len(flavors))
	err = e.each(ctx, a, flavors, selectors, last, func(i int, targets []Target, others []Plan) { t[i], o[i] = targets, others })
	return slices.Concat(t...), slices.Concat(o...), err
}

// Targets lists the targets that a selection means, in the chart's order, those whose way ends before they are published
// among them. Nobody is asked: releases are those of the last Plan or Run. A selector that means nothing is a
// *NotStarted that lists what there is.
func (e *Engine) Targets(sel Selection) ([]Target, error) {
	targets, _, err := e.selected(context.Background(), nil, sel, Resolve)
	return targets, err
}

// asking is one look at upstreams, and where it is told of.
type asking struct {
	web *upstream.Session
	bus *event.Bus
}

func (e *Engine) ask(bus *event.Bus) *asking {
	web := &upstream.Web{Client: e.images.Client, Dir: e.cache.Path("upstream", "web"), Backoff: e.cfg.Backoff}
	return &asking{web.Session(), bus}
}

// mirrors are those of the configuration, which win over the catalogue's where both rewrite the same.
func (e *Engine) mirrors() []upstream.Mirror {
	list := slices.Clone(e.cfg.Mirrors)
	for _, m := range e.cfg.Catalog.Project.Mirrors {
		list = append(list, upstream.Mirror{From: m.From, To: m.To})
	}
	return list
}
