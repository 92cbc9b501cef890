package ui

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// What is newest upstream and what is published comes into the chart row by row; what is stale says why, what is broken
// stands out, and what is left out is in the details.
func TestLook(t *testing.T) {
	s := newScript()
	found := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	plans := []engine.Plan{
		{Target: "debian:13/x86_64", Action: engine.Build, Reason: "the guest has changed", Upstream: &engine.Upstream{Build: "13.8-20261120", Date: found, Trust: "indexes signed (openpgp)"},
			Published: &engine.Published{Date: noon.AddDate(0, 0, -33)}, Licence: &engine.Licence{Redistribution: "free"}},
		{Target: "debian:12/x86_64", Action: engine.None, Reason: "content abc is published", Upstream: &engine.Upstream{Build: "12.15-20261120", Date: found}, Published: &engine.Published{Date: found}},
		{Target: "ubuntu:26.04/x86_64", Action: engine.Fail, Reason: "resolve: the signature was not accepted", Upstream: &engine.Upstream{Build: "20261101", Date: found, Signature: "bad: x"}},
		{Target: "openwrt:24.10", Action: engine.None, Reason: "left out: end of life since 2026-09-05"},
		{Target: "nixos", Action: engine.Fail, Reason: "its releases could not be found: no such host"},
	}
	more := make(chan struct{})
	s.plan = func(ctx context.Context, _ *script, _ []string) ([]engine.Plan, error) {
		select {
		case <-more:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		return plans, nil
	}
	x := open(t, s, 120, 40, atNoon, func(o *Options) { o.Look = true })
	x.wait("release chart", "13, 12") // the chart is there before anybody has answered
	close(more)
	screen := x.wait("13.8-20261120 3d", "33 d ago", "1 of 2 stale: the guest has", "✗ 2 broken · ↑ 1 stale: n", "✗ no releases found…", "2 cannot be decided")
	for _, line := range strings.Split(screen, "\n") {
		if strings.Contains(line, "Ubuntu") && !strings.Contains(line, "✗") {
			t.Errorf("a broken upstream does not stand out: %q", line)
		}
	}
	x.press("/", "openwrt", "enter")
	x.wait("24.10", "left out: end of life since 2026-09-05")
	// Asked again, with an error.
	s.plan = func(context.Context, *script, []string) ([]engine.Plan, error) {
		return nil, errors.New("the cache is gone")
	}
	x.press("u")
	x.wait("upstreams: the cache is gone")
	if len(s.runs()) != 0 {
		t.Error("a look has started a run")
	}
}

// Leaving does not wait for upstreams that do not answer.
func TestLeavingALook(t *testing.T) {
	s := newScript()
	asked := make(chan struct{})
	s.plan = func(ctx context.Context, _ *script, _ []string) ([]engine.Plan, error) {
		close(asked)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	x := open(t, s, 80, 24, func(o *Options) { o.Look = true })
	x.wait("release chart")
	<-asked
	x.press("q")
	if err := x.end(); err != nil {
		t.Error(err)
	}
}

// What is broken comes first in the details, once; that nothing of the row can be built comes after it.
func TestBrokenBesidesNotSupported(t *testing.T) {
	m := modelOf(newScript())
	m.chart.seen(engine.Plan{Target: "centos:9-stream/x86_64", Action: engine.Fail, Reason: "the signature is missing: https://centos.example/SUMS.asc", Remedy: "look there"})
	m.chart.list()
	for i, l := range m.chart.lines {
		if l.row != nil && l.row.id == "centos" {
			m.chart.cursor = i
		}
	}
	l, _ := m.chart.on()
	said := map[string][]string{}
	for _, f := range m.detailFields(l) {
		said[f.name] = append(said[f.name], f.value)
	}
	if got := said["state"]; len(got) != 1 || got[0] != "centos:9-stream/x86_64: the signature is missing: https://centos.example/SUMS.asc" {
		t.Errorf("state: %q", got)
	}
	if got := said[remedyFact]; len(got) != 1 || got[0] != "look there" {
		t.Errorf("%s: %q", remedyFact, got)
	}
	if got := said["besides"]; len(got) != 1 || !strings.Contains(got[0], "not supported yet") {
		t.Errorf("besides: %q", got)
	}
}
