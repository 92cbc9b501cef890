package ui

import (
	"fmt"
	"strings"
	"testing"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// recorded is a run of two targets, an hour long; the second fails after half an hour.
func recorded(t testing.TB, more string) *engine.Replay {
	t.Helper()
	var b strings.Builder
	b.WriteString(`{"kind":"recording","format":1,"time":"2026-11-23T12:00:00Z","program":"1","project":"KubeVirt Machine Images","selection":{"only":["debian"]},"destination":"dir:images","targets":["debian:13/x86_64","debian:12/x86_64"],"flavors":[{"id":"debian","name":"Debian","level":"preview"}]}` + "\n")
	add := func(minute int, target, stage, kind, rest string) {
		fmt.Fprintf(&b, `{"time":"2026-11-23T%02d:%02d:00Z","target":"%s","stage":"%s","kind":"%s"%s}`+"\n", 12+minute/60, minute%60, target, stage, kind, rest)
	}
	add(0, "debian:13/x86_64", "", "started", "")
	add(0, "debian:12/x86_64", "", "started", "")
	add(0, "debian:13/x86_64", "resolve", "started", "")
	add(1, "debian:13/x86_64", "resolve", "finished", `,"seconds":60,"reason":"256 packages"`)
	add(1, "debian:13/x86_64", "fetch", "started", "")
	add(1, "debian:12/x86_64", "resolve", "started", "")
	for i := range 500 {
		add(2, "debian:13/x86_64", "fetch", "log", fmt.Sprintf(`,"line":"line %d"`, i))
	}
	add(10, "debian:13/x86_64", "fetch", "progress", `,"done":5,"total":10,"unit":"packages"`)
	add(30, "debian:12/x86_64", "resolve", "failed", `,"error":"it is gone","remedy":"name a mirror","seconds":1740`)
	add(30, "debian:12/x86_64", "", "failed", `,"error":"resolve: it is gone","remedy":"name a mirror","seconds":1800`)
	add(59, "debian:13/x86_64", "fetch", "finished", `,"seconds":3480`)
	add(60, "debian:13/x86_64", "", "finished", `,"seconds":3600,"reason":"published"`)
	b.WriteString(more)
	rec, err := engine.ReadRecording(strings.NewReader(b.String()), "x.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	return engine.NewReplay(rec)
}

const recordedEnd = `{"time":"2026-11-23T13:00:00Z","kind":"summary","seconds":3600,"results":[{"target":"debian:13/x86_64","state":"finished","reason":"published","seconds":3600,"stages":[{"stage":"resolve","state":"finished","seconds":60},{"stage":"fetch","state":"finished","seconds":3480}]},{"target":"debian:12/x86_64","state":"failed","error":"resolve: it is gone","remedy":"name a mirror","seconds":1800,"stages":[{"stage":"resolve","state":"failed","seconds":1740}]}]}` + "\n"

func TestReplay(t *testing.T) {
	x := open(t, recorded(t, recordedEnd), 100, 30)
	x.wait("run of 2 targets", "REPLAY ×1 · 0:0", "of 1:00:00", "P pause", "debian:13/x86_64")
	x.press("P")
	x.wait("REPLAY ×1 paused")
	x.press("+", "+", "-")
	x.wait("REPLAY ×2 paused")
	x.press("!")
	x.wait("REPLAY ×2 paused · 30:00 of 1:00:00 · 50 %", "it is gone", "resolve failed")
	x.press("b", "x")
	x.wait("cancel: this is a recording")
	x.press("esc")
	x.wait("release chart", "Debian", "REPLAY")
	x.press("b")
	x.wait("build: this is a recording")
	x.press("u")
	x.wait("look: this is a recording")
	x.press("space")
	x.wait("select: Debian: this is a recording")
	x.press("r", "E")
	x.wait("how the run ended", "REPLAY ×2 ended · 1:00:00 of 1:00:00 · 100 %", "what to do  name a mirror", "✓ published")
	x.press("esc")
	x.wait("release chart", "1 of 2 failed", "✓ published in 1h 00m")
	x.press("r")
	x.wait("how the run ended")
	x.press("!")
	x.wait("run of 2 targets", "REPLAY ×2 paused · 30:00", "● fetch")
	x.press(":", "to the end", "enter")
	x.wait("how the run ended")
	x.press("R")
	x.wait("run of 2 targets", "REPLAY ×2 · 0:0")
	x.press("q") // nothing is running: nothing is asked
	if err := x.end(); err != nil {
		t.Error(err)
	}
}

func TestReplayOfAKilledRun(t *testing.T) {
	r := recorded(t, `{"time":"2026`)
	r.SetSpeed(engine.Fastest)
	x := open(t, r, 80, 24)
	x.wait("how the run ended", "REPLAY max ended", "the recording ends here")
	x.press("m")
	x.wait("the recording: line 513: the last line is not whole")
}

// At the highest speed, what is seen at the end depends on the recording alone.
func TestReplayIsDeterministic(t *testing.T) {
	frame := func() string {
		r := recorded(t, recordedEnd)
		r.SetSpeed(engine.Fastest)
		x := open(t, r, 120, 40)
		x.wait("how the run ended", "100 %")
		x.press("enter")
		return x.wait("log of debian:12/x86_64", "name a mirror")
	}
	if a, b := frame(), frame(); a != b {
		t.Errorf("\n%s\n%s", a, b)
	}
}

// Everywhere else these keys are shown with the reason why they do nothing.
func TestReplayKeysWithoutARecording(t *testing.T) {
	x := open(t, newScript(), 80, 24)
	x.gone("pause")
	x.press("P")
	x.wait("pause: no recording is shown")
}

func TestReplayLineFits(t *testing.T) {
	m := modelOf(recorded(t, recordedEnd))
	for w := range 60 {
		if got := m.replayLine(w); width(got) > max(w, 6) || !strings.HasPrefix(got, "REPLAY") {
			t.Errorf("%d: %q", w, got)
		}
	}
}

// Every screen of a replay fits every size, whatever is pressed.
func TestReplayFits(t *testing.T) {
	m := modelOf(recorded(t, recordedEnd))
	for _, size := range [][2]int{{1, 1}, {20, 6}, {40, 12}, {80, 24}, {120, 40}} {
		for _, key := range []string{"!", "P", "+", "E", "-", "?", "esc", "enter", "esc", "esc", "b", "r", "R", "tab", "m", "esc", "!", "x"} {
			m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
			press(m, key)
			events, _ := m.replay.Poll()
			m.Update(eventsMsg(events))
			fits(t, m, "replay after "+key)
			if size[0] >= 40 && !strings.Contains(m.View(), "REPLAY") {
				t.Fatalf("%v after %s: it does not say that it is a replay:\n%s", size, key, m.View())
			}
		}
	}
}
