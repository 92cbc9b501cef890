package ui

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// script is an engine that does what a test tells it, with real events on a real bus.
type script struct {
	engine.Desk
	catalog     *catalog.Catalog
	bus         *event.Bus
	destination string
	run         func(ctx context.Context, s *script, targets []string) (engine.Summary, error)
	plan        func(ctx context.Context, s *script, targets []string) ([]engine.Plan, error)
	known       map[string]engine.Known
	past        []engine.PastRun
	images      map[string]engine.Image
	imageErr    error

	cancelled []string
	mu        sync.Mutex
	ran       []engine.Selection // what Run was called with
	ends      int                // how many calls of Run have returned
}

func newScript() *script {
	return &script{catalog: chart19(), bus: event.NewBus(nil), destination: "dir:images", run: quick, plan: planned2}
}

// chart19 is the project's chart; two of its rows can be built.
func chart19() *catalog.Catalog {
	c := &catalog.Catalog{Path: "/somewhere/distros.toml", Project: catalog.Project{Name: "KubeVirt Machine Images"}}
	both := []catalog.Arch{catalog.X86_64, catalog.ARM64}
	one := both[:1]
	for _, f := range []struct {
		id, name string
		level    catalog.Level
		arch     []catalog.Arch
		releases []string
	}{
		{"almalinux", "AlmaLinux OS", catalog.Preview, both, nil},
		{"alpine", "Alpine Linux", catalog.Preview, both, nil},
		{"amazonlinux", "Amazon Linux", catalog.Preview, one, nil},
		{"archlinux", "Arch Linux", catalog.Preview, one, nil},
		{"centos", "CentOS", catalog.Preview, both, []string{"9-stream"}},
		{"debian", "Debian", catalog.Preview, both, []string{"13", "12"}},
		{"fedora", "Fedora", catalog.Preview, both, nil},
		{"fedora-coreos", "Fedora CoreOS", catalog.Preview, one, nil},
		{"neutrino", "Neutrino", catalog.Planned, one, nil},
		{"nixos", "NixOS", catalog.Planned, one, nil},
		{"openbsd", "OpenBSD", catalog.Planned, one, nil},
		{"openwrt", "OpenWRT", catalog.Planned, both, nil},
		{"opnsense", "OPNsense", catalog.Planned, one, nil},
		{"opensuse", "openSUSE", catalog.Planned, one, nil},
		{"pfsense", "PFSense", catalog.Planned, one, nil},
		{"rhcos", "Red Hat CoreOS", catalog.Planned, both, nil},
		{"rocky", "Rocky Linux", catalog.Planned, one, nil},
		{"ubuntu", "Ubuntu", catalog.Preview, both, []string{"26.04", "24.04"}},
		{"vyos", "VyOS", catalog.Preview, one, nil},
	} {
		fl := catalog.Flavor{ID: f.id, Name: f.name, Level: f.level, Arch: f.arch, Home: "https://" + f.id + ".example", Docs: "https://" + f.id + ".example/docs",
			Download: "https://" + f.id + ".example/download", Licence: "https://" + f.id + ".example/licence", User: f.id}
		for _, r := range f.releases {
			fl.Releases = append(fl.Releases, catalog.Release{Version: r, Codename: "code" + r})
		}
		if f.id == "debian" || f.id == "ubuntu" {
			fl.Origin = &catalog.Origin{Kind: "packages", Format: "deb", ArchNames: map[catalog.Arch]string{catalog.X86_64: "amd64", catalog.ARM64: "arm64"}}
		}
		c.Flavors = append(c.Flavors, fl)
	}
	return c
}

func (s *script) Catalog() *catalog.Catalog               { return s.catalog }
func (s *script) Subscribe() *engine.Subscription         { return s.bus.Subscribe() }
func (s *script) Transcript(t string) *engine.Transcript  { return s.bus.Transcript(t) }
func (s *script) Destination() string                     { return s.destination }
func (s *script) Known() (map[string]engine.Known, error) { return s.known, nil }
func (s *script) History(int) ([]engine.PastRun, error)   { return s.past, nil }
func (s *script) Image(_ context.Context, target string) (engine.Image, error) {
	return s.images[target], s.imageErr
}
func (s *script) Logs() string { return "/cache/logs/20261123T100000-1" }

func (s *script) Targets(sel engine.Selection) (list []engine.Target, err error) {
	for i := range s.catalog.Flavors {
		f := &s.catalog.Flavors[i]
		for r := range f.Releases {
			for _, a := range f.Arch {
				t := engine.Target{Flavor: f, Release: &f.Releases[r], Arch: a}
				switch {
				case f.Origin == nil:
					t.Unsupported = "not supported yet: its upstream is not described in distros.toml"
				case a == catalog.ARM64:
					t.Unsupported = "not supported yet: building for arm64 on a machine that is x86_64"
				}
				if slices.ContainsFunc(sel.Only, func(o string) bool { return means(o, t.String()) }) {
					list = append(list, t)
				}
			}
		}
	}
	return list, nil
}

// means reports whether a selector means a target.
func means(selector, target string) bool {
	left, arch, ok := strings.Cut(selector, "/")
	if !ok {
		arch = "*"
	}
	flavor, release, ok := strings.Cut(left, ":")
	if !ok {
		release = "*"
	}
	match, _ := path.Match(flavor+":"+release+"/"+arch, target)
	return match
}

func (s *script) names(sel engine.Selection) (names []string) {
	targets, _ := s.Targets(sel)
	for _, t := range targets {
		names = append(names, t.String())
	}
	return names
}

func (s *script) Run(ctx context.Context, sel engine.Selection) (engine.Summary, error) {
	s.mu.Lock()
	s.ran = append(s.ran, sel)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.ends++
		s.mu.Unlock()
	}()
	return s.run(ctx, s, s.names(sel))
}

func (s *script) Cancel(target string, cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancelled = append(s.cancelled, target)
	return true
}

func (s *script) Promotion(context.Context, engine.Ask) (*engine.Promotion, error) {
	return nil, errors.New("nothing is known of it")
}

func (s *script) TryMe(context.Context, string) (*engine.TryMe, error) {
	return nil, errors.New("nothing is published")
}

func (s *script) Look(ctx context.Context, each func(engine.Plan)) error {
	plans, err := s.plan(ctx, s, s.names(engine.Selection{Only: []string{"*"}}))
	for _, p := range plans {
		each(p)
	}
	return err
}

func (s *script) Plan(ctx context.Context, sel engine.Selection) ([]engine.Plan, error) {
	return s.plan(ctx, s, s.names(sel))
}

// runs are the selections that Run was called with.
func (s *script) runs() []engine.Selection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ran)
}

// quick takes every target through every stage at once.
func quick(ctx context.Context, s *script, targets []string) (engine.Summary, error) {
	var sum engine.Summary
	for _, t := range targets {
		sum.Results = append(sum.Results, s.target(t, "", nil))
	}
	return sum, nil
}

// target takes one target through every stage; the stage bad fails with why.
func (s *script) target(target, bad string, why error) engine.Result {
	r := engine.Result{Target: target, State: event.Finished, Reason: "published", Image: "dir:images/x@sha256:0123456789abcdef", Tags: []string{"13", "13-20261123"}}
	s.bus.Publish(event.Event{Target: target, Kind: event.Started})
	for i, stage := range engine.Stages {
		scope := s.bus.Scope(target, string(stage), "")
		scope.Start()
		scope.Logf("%s works on %s", stage, target)
		var err error
		if string(stage) == bad {
			err = why
		}
		e := scope.End("", err)
		r.Stages = append(r.Stages, engine.StageTime{Stage: stage, State: e.Kind, Seconds: float64(i) + 0.5, Log: "/cache/logs/" + string(stage) + ".log"})
		r.Seconds += float64(i) + 0.5
		if err != nil {
			r.State, r.Error, r.Remedy, r.Reason, r.Image, r.Tags = event.Failed, string(stage)+": "+e.Error, e.Remedy, "", "", nil
			break
		}
	}
	s.bus.Publish(event.Event{Target: target, Kind: r.State, Reason: r.Reason, Error: r.Error, Remedy: r.Remedy, Seconds: r.Seconds})
	return r
}

// planned2 plans: the first target is to be built, of the others nothing.
func planned2(ctx context.Context, s *script, targets []string) (plans []engine.Plan, err error) {
	for i, t := range targets {
		scope := s.bus.Scope(t, "resolve", "")
		scope.Start()
		p := engine.Plan{Target: t, Action: engine.None, Reason: "content 0123456789ab is published",
			Upstream: &engine.Upstream{URL: "https://deb.example/debian/dists/trixie/InRelease", Size: 312 << 20, Date: time.Date(2026, 11, 20, 8, 30, 0, 0, time.UTC), Build: "20261120",
				Checksum: "sha256:" + strings.Repeat("ab", 32), Signature: "verified 4D64FEC119C2029067D6E791F8D2585B8783D481"},
			Published: &engine.Published{Digest: "sha256:" + strings.Repeat("cd", 32), Tags: []string{"13", "13-20261116"}, Date: time.Date(2026, 11, 16, 3, 0, 0, 0, time.UTC), ContentKey: "sha256:0123456789ab"}}
		if i == 0 {
			p.Action, p.Reason = engine.Build, "the guest has changed: published is content 0123456789ab, newest is ba9876543210"
		}
		scope.End(p.Reason, nil)
		plans = append(plans, p)
	}
	return plans, nil
}

// slow is a run that takes its time, for looking at.
func slow(ctx context.Context, s *script, targets []string) (engine.Summary, error) {
	results := make([]engine.Result, len(targets))
	var wg sync.WaitGroup
	s.bus.Scope("", "", "").Logf("A signing key pair was generated for you, without a passphrase: /home/me/.config/kmi-tui/cosign.key signs")
	for i, t := range targets {
		wg.Add(1)
		go func() {
			defer wg.Done()
			results[i] = s.slowly(ctx, t, i)
		}()
	}
	wg.Wait()
	return engine.Summary{Results: results}, nil
}

func (s *script) slowly(ctx context.Context, target string, i int) engine.Result {
	r := engine.Result{Target: target, State: event.Finished, Reason: "published", Image: "dir:images/debian@sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945", Tags: []string{"13", "13-20261123"}}
	began := time.Now()
	s.bus.Publish(event.Event{Target: target, Kind: event.Started})
	for n, stage := range engine.Stages {
		scope := s.bus.Scope(target, string(stage), "")
		scope.Start()
		var err error
		steps := 20 + 10*n
		if stage == engine.Fetch && i == 1 {
			err = event.Skipf("a disk of this content (0123456789ab) is in the cache")
			steps = 0
		}
		for j := range steps {
			select {
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-time.After(time.Duration(60+40*i) * time.Millisecond):
				scope.Logf("[%d] %s: unpacking libsomething-%d (1.2.%d-1+deb13u%d) over the old one; this line is of some length to see how it is cut", j, stage, j, n, i)
				if stage == engine.Fetch {
					scope.Progress(int64(j+1)<<20*7, int64(steps)<<20*7, "bytes")
				} else if stage == engine.Customise {
					scope.Progress(int64(j+1), int64(steps), "packages")
				}
			}
			if err != nil {
				break
			}
		}
		if err == nil && stage == engine.Test && i == 0 {
			err = event.WithRemedy(fmt.Errorf("the guest agent did not answer within 300 s: expected guest-ping to return {}, got nothing; the guest's console ends with \"Kernel panic - not syncing: VFS: Unable to mount root fs\""),
				"look at the guest's console in the log; kmi-tui doctor says whether this machine has KVM")
		}
		e := scope.End("", err)
		r.Stages = append(r.Stages, engine.StageTime{Stage: stage, State: e.Kind, Reason: e.Reason, Seconds: e.Seconds, Log: s.Logs() + "/" + strings.NewReplacer(":", "-", "/", "-").Replace(target) + "/" + string(stage) + ".log"})
		if e.Kind == event.Failed {
			r.State, r.Error, r.Remedy, r.Reason, r.Image, r.Tags = event.Failed, string(stage)+": "+e.Error, e.Remedy, "", "", nil
			break
		}
	}
	r.Seconds = time.Since(began).Seconds()
	s.bus.Publish(event.Event{Target: target, Kind: r.State, Reason: r.Reason, Error: r.Error, Remedy: r.Remedy, Seconds: r.Seconds})
	return r
}
