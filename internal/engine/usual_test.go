package engine

import (
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// What counts is what earlier runs of the same target did, of publishing those to the same place.
func TestUsualTimes(t *testing.T) {
	run := func(destination string, target string, stages ...StageTime) PastRun {
		return PastRun{Destination: destination, Results: []Result{{Target: target, Stages: stages}}}
	}
	done := func(s Stage, seconds float64) StageTime {
		return StageTime{Stage: s, State: event.Finished, Seconds: seconds}
	}
	usual := UsualTimes([]PastRun{
		run("dir:a", "debian:13/x86_64", done(Customise, 60), done(Publish, 5)),
		run("dir:b", "debian:13/x86_64", done(Customise, 90), done(Publish, 500)),
		run("dir:a", "debian:13/x86_64", StageTime{Stage: Customise, State: event.Skipped, Seconds: 0.1}, StageTime{Stage: Test, State: event.Failed, Seconds: 300}),
		{Destination: "dir:a"}, // killed
		run("dir:a", "debian:13/x86_64", done(Customise, 1000)),
		run("dir:a", "debian:13/arm64", done(Customise, 7)),
		run("dir:a", "debian:13/x86_64", done(Customise, 70)), run("dir:a", "debian:13/x86_64", done(Customise, 80)),
		run("dir:a", "debian:13/x86_64", done(Customise, 1)), // too long ago
	}, "dir:a")
	for stage, want := range map[Stage]Usual{Customise: {80 * time.Second, 5}, Publish: {5 * time.Second, 1}, Test: {}, Fetch: {}} {
		if got := usual["debian:13/x86_64"][stage]; got != want {
			t.Errorf("%s: %v, not %v", stage, got, want)
		}
	}
	if got := usual["debian:13/arm64"][Customise]; got != (Usual{7 * time.Second, 1}) {
		t.Errorf("%v", got)
	}
}
