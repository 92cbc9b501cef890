package engine

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// What a plan finds is known to the next engine on the same cache, for the same destination.
func TestPlansAreKnown(t *testing.T) {
	e, _ := planner(t, nil)
	if known, err := e.Known(); err != nil || len(known) != 0 || known == nil {
		t.Fatalf("%v, %v", known, err)
	}
	plans := plan(t, e)
	known, err := e.Known()
	if err != nil {
		t.Fatal(err)
	}
	if len(known) != len(plans) {
		t.Errorf("%d are known of %d plans", len(known), len(plans))
	}
	for name, p := range plans {
		k := known[name]
		if k.Plan.Reason != p.Reason || k.Plan.Action != p.Action || !k.Seen.Equal(e.Now()) {
			t.Errorf("%s: %+v, planned %+v", name, k, p)
		}
		if u := p.Upstream; u != nil {
			if k.Plan.Upstream == nil || *k.Plan.Upstream != *u {
				t.Errorf("%s: upstream %+v, planned %+v", name, k.Plan.Upstream, u)
			}
			if end := k.Stages[Resolve]; end.State != event.Finished || !end.At.Equal(e.Now()) {
				t.Errorf("%s: resolve %+v", name, end)
			}
		}
	}
	cfg := e.cfg
	cfg.Registry = "dir:" + t.TempDir()
	other, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if known, err := other.Known(); err != nil || len(known) != 0 {
		t.Errorf("another destination knows %d targets: %v", len(known), err)
	}
}

// A file that is damaged is said and replaced; one of a newer program is left alone.
func TestDamagedKnowledge(t *testing.T) {
	e, _ := planner(t, nil)
	only := "freebsd"
	plan(t, e, only)
	path := filepath.Join(e.cache.Dir(), "records", "known.json")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text, says string
		left       bool
	}{
		{string(whole[:len(whole)/2]), "is damaged", false},
		{"", "is damaged", false},
		{"[]", "is damaged", false},
		{`{"version":1}`, "is damaged", false},
		{`{"version":2,"destinations":{}}`, "newer kmi-tui", true},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if known, err := e.Known(); err == nil || !strings.Contains(err.Error(), c.says) || len(known) != 0 {
			t.Errorf("%.20q: %v, %v", c.text, known, err)
		}
		sub := e.Subscribe()
		plan(t, e, only)
		sub.Close()
		said := ""
		for events, ok := sub.Next(t.Context()); ok; events, ok = sub.Next(t.Context()) {
			for _, ev := range events {
				if ev.Target == "" {
					said += ev.Line
				}
			}
		}
		if !strings.Contains(said, c.says) {
			t.Errorf("%.20q: said %q", c.text, said)
		}
		known, err := e.Known()
		if got, _ := os.ReadFile(path); c.left && string(got) != c.text {
			t.Errorf("%.20q has become %.60q", c.text, got)
		}
		if !c.left && (err != nil || len(known) == 0) {
			t.Errorf("%.20q: known again: %v, %v", c.text, known, err)
		}
	}
}

// A stage that had nothing to do does not hide the success that it refers to.
func TestStagesAreKnown(t *testing.T) {
	var k Known
	for _, c := range []struct{ comes, stays event.Kind }{
		{event.Skipped, event.Skipped}, {event.Failed, event.Failed}, {event.Skipped, event.Skipped}, {event.Finished, event.Finished},
		{event.Skipped, event.Finished}, {event.Failed, event.Failed}, {event.Finished, event.Finished},
	} {
		k.add(map[Stage]StageKnown{Test: {State: c.comes}})
		if got := k.Stages[Test].State; got != c.stays {
			t.Errorf("after %s it is %s, want %s", c.comes, got, c.stays)
		}
	}
}

// After a run that published, what is known is what the next plan will find.
func TestWhatIsPublishedIsKnown(t *testing.T) {
	w := newWeek(t, "dir:"+t.TempDir())
	j := w.made(t, newPublication(w.Engine), catalog.Preview, catalog.X86_64, "a")
	if errs := all(t, []*job{j}, Pack, Sign, Publish); errs[0] != "" {
		t.Fatal(errs)
	}
	j.plan.Action, j.plan.Reason = Build, "not published yet"
	j.ends[Resolve] = StageKnown{State: event.Finished, At: w.now}
	j.learned()
	known, err := w.Known()
	k := known[j.target.String()]
	if err != nil || k.Plan.Action != None || k.Plan.Published == nil || k.Stages[Publish].State != event.Finished || !k.Seen.Equal(w.now) {
		t.Fatalf("%+v, %v", k, err)
	}
	next := w.again(t, j)
	p := k.Plan.Published
	if p.Digest != next.published.Entry.Digest.String() || p.ContentKey != next.published.Labels()[container.LabelContentKey] || !p.Date.Equal(next.published.Created()) ||
		!slices.Equal(slices.Sorted(slices.Values(p.Tags)), slices.Sorted(slices.Values(append([]string{j.target.Release.Version}, next.others...)))) || k.Plan.Reason != next.plan.Reason {
		t.Errorf("known %+v %q, published %+v %v %q", p, k.Plan.Reason, next.published.Entry, next.others, next.plan.Reason)
	}
}

// What a look about everything does not meet is forgotten, unless its flavor's releases could not be found.
func TestWhatIsGoneIsForgotten(t *testing.T) {
	e, _ := planner(t, nil)
	look := func(sel Selection, whole bool, plans ...Plan) []string {
		t.Helper()
		n := e.notes(sel)
		for _, p := range plans {
			n.plan(p, nil)
		}
		n.keep(whole)
		known, err := e.Known()
		if err != nil {
			t.Fatal(err)
		}
		return slices.Sorted(maps.Keys(known))
	}
	a, b := Plan{Target: "a:1/x86_64", Action: Build}, Plan{Target: "b:1/x86_64", Action: None}
	for _, c := range []struct {
		got  []string
		want string
	}{
		{look(Selection{}, true, a, b), "a:1/x86_64 b:1/x86_64"},
		{look(Selection{}, true, a, Plan{Target: "b", Action: Fail}), "a:1/x86_64 b b:1/x86_64"},
		{look(Selection{Only: []string{"a"}}, true, a), "a:1/x86_64 b b:1/x86_64"},
		{look(Selection{}, false, a), "a:1/x86_64 b b:1/x86_64"},
		{look(Selection{Force: true}, true, Plan{Target: "c:1/x86_64"}), "a:1/x86_64 b b:1/x86_64"},
		{look(Selection{}, true, b), "b:1/x86_64"},
	} {
		if got := strings.Join(c.got, " "); got != c.want {
			t.Errorf("known are %s, want %s", got, c.want)
		}
	}
}
