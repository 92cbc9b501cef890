package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

func recording(t testing.TB, text string) *Recording {
	t.Helper()
	r, err := ReadRecording(strings.NewReader(text), "x.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// everything takes everything that a replay tells, up to its end.
func everything(t testing.TB, r *Replay) (list []Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		events, ok := r.Next(ctx)
		if !ok {
			t.Fatal("the replay does not end")
		}
		list = append(list, events...)
		if list[len(list)-1].Kind == Ended {
			return list
		}
	}
}

// What a run left is shown again: the same events, in their order, and the same summary.
func TestReplayShowsTheRun(t *testing.T) {
	e := fetching(t)
	s, _ := fetchRun(t, e, "*")
	last := must(LastRecording(e.cache.Dir()))
	r, err := OpenReplay(last)
	if err != nil {
		t.Fatal(err)
	}
	r.SetSpeed(Fastest)
	var got []string
	for _, ev := range everything(t, r) {
		if ev.Kind != Ended {
			data, _ := json.Marshal(ev)
			got = append(got, string(data))
		}
	}
	var want []string
	text := lines(t, last)
	for _, l := range text[1 : len(text)-1] {
		var ev Event
		_ = json.Unmarshal([]byte(l), &ev)
		data, _ := json.Marshal(ev)
		want = append(want, string(data))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("shown:\n%s\nrecorded:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	sum, err := r.Summary()
	if err != nil || string(must(json.Marshal(sum))) != string(must(json.Marshal(s))) {
		t.Errorf("%v: %+v", err, sum)
	}
	if c := r.Catalog(); len(c.Flavors) != 2 || c.Flavors[1].Name != "B" || r.Destination() != e.Destination() {
		t.Errorf("%+v", c)
	}
	var not *NotStarted
	if _, err := r.Run(t.Context(), Selection{}); !errors.As(err, &not) || !strings.Contains(err.Error(), "this is a recording") {
		t.Error(err)
	}
	if _, err := r.Plan(t.Context(), Selection{}); !errors.As(err, &not) {
		t.Error(err)
	}
	if list, err := r.Targets(Selection{Only: []string{"*"}}); err != nil || len(list) != 2 || list[0].Unsupported == "" {
		t.Errorf("%v, %v", list, err)
	}
}

const hour = `{"kind":"recording","format":1,"time":"2026-10-15T12:00:00Z","destination":"dir:images","targets":["a:1/x86_64","b:1/x86_64"],"flavors":[{"id":"a","name":"A","level":"preview"}]}
{"time":"2026-10-15T12:00:00Z","target":"a:1/x86_64","stage":"fetch","kind":"started"}
{"time":"2026-10-15T12:00:10Z","target":"a:1/x86_64","stage":"fetch","kind":"log","line":"ten"}
{"time":"2026-10-15T12:30:00Z","target":"a:1/x86_64","stage":"fetch","kind":"failed","error":"gone","remedy":"try again"}
{"time":"2026-10-15T13:00:00Z","target":"b:1/x86_64","stage":"fetch","kind":"finished","seconds":3}
`

// The clock of a replay goes as fast as it is told to, stands still, and jumps.
func TestReplaySpeed(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	r := NewReplay(recording(t, hour))
	r.clock = func() time.Time { return now }
	r.since = now
	at := func(want string, events int) {
		t.Helper()
		if list, _ := r.Poll(); len(list) != events {
			t.Errorf("%d events, want %d: %+v", len(list), events, list)
		}
		if got := r.Now().Format("15:04:05"); got != want {
			t.Errorf("it is %s, want %s", got, want)
		}
	}
	at("12:00:00", 1)
	now = now.Add(9 * time.Second)
	at("12:00:09", 0)
	r.Faster()
	now = now.Add(time.Second)
	at("12:00:11", 1)
	r.Pause()
	now = now.Add(time.Hour)
	at("12:00:11", 0)
	r.Pause()
	r.Slower()
	now = now.Add(time.Minute)
	at("12:01:11", 0)
	r.ToFailure()
	at("12:30:00", 1)
	now = now.Add(time.Hour)
	at("12:30:00", 0) // it pauses there
	if s := r.State(); !s.Paused || s.At != 30*time.Minute || s.Length != time.Hour || s.Over {
		t.Errorf("%+v", s)
	}
	r.ToEnd()
	at("13:00:00", 2)
	if s := r.State(); !s.Over {
		t.Errorf("%+v", s)
	}
	r.ToFailure() // back
	at("12:30:00", 4)
	r.Pause()
	r.SetSpeed(Fastest)
	at("13:00:00", 2)
	r.Restart()
	at("13:00:00", 6)
	// Whoever waits is told of a change.
	told := make(chan []Event, 1)
	go func() {
		events, _ := r.Next(t.Context())
		told <- events
	}()
	r.Restart()
	if events := <-told; events[0].Kind != Rewound {
		t.Errorf("%+v", events)
	}
}

// A recording comes from anywhere: what is wrong with it is said, with its line, and nothing of it reaches a terminal.
func TestHostileRecordings(t *testing.T) {
	first := `{"time":"2026-10-15T12:00:00Z","target":"a:1/x86_64","kind":"started"}` + "\n"
	for _, c := range []struct {
		text, problem string
		events        int
	}{
		{first + "{broken\n" + first, "line 2: skipped: ", 2},
		{first + `{"kind":"strange"}` + "\n", `line 2: skipped: kind "strange" is not known`, 1},
		{first + `{"time":"2026-10-15T11:00:00Z","target":"a:1/x86_64","kind":"finished"}` + "\n", "line 2: its time (2026-10-15T11:00:00Z) cannot be", 2},
		{first + `{"time":"9999-10-15T11:00:00Z","target":"a:1/x86_64","kind":"finished"}` + "\n" + first, "line 2: its time (9999-10-15T11:00:00Z) cannot be", 3},
		{first + `{"time":"2026-10-15T12:00:00Z","target":"a:1/x86_64","kin`, "line 2: the last line is not whole", 1},
		{first + strings.Repeat("x", lineMost+10) + "\n" + first, "line 2: longer than 16.0 MiB", 2},
		{first + hour, "line 2: skipped: a second header", 5},
		{first + `{"kind":"summary","results":{}}` + "\n", "line 2: skipped: the summary is damaged", 1},
		{first + `{"kind":"log","target":7}` + "\n", "line 2: skipped: ", 1},
		{first + strings.Repeat("{\n", 100), "and 80 more lines were skipped", 1},
		{`{"kind":"log","time":"0001-01-01T00:00:00Z","line":"x"}` + "\n", "line 1: its time (0001-01-01T00:00:00Z) cannot be", 1},
	} {
		r := recording(t, c.text)
		if !strings.Contains(strings.Join(r.Problems, "\n"), c.problem) || len(r.Events) != c.events {
			t.Errorf("%.80q: %d events, %q", c.text, len(r.Events), r.Problems)
		}
	}
	for text, want := range map[string]string{"": "is no recording", "x\ny\n": "is no recording", `{"kind":"recording","format":7,"program":"9"}` + "\n": "a recording of format 7"} {
		if _, err := ReadRecording(strings.NewReader(text), "x.ndjson"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	var many strings.Builder
	for i := range readTargets + 5 {
		fmt.Fprintf(&many, `{"time":"2026-10-15T12:00:00Z","target":"a:%d/x86_64","stage":"s%d","kind":"started"}`+"\n", i, i%100)
	}
	if r := recording(t, many.String()); len(r.Header.Targets) > readTargets || len(r.Problems) != readProblems+1 {
		t.Errorf("%d targets, %d problems", len(r.Header.Targets), len(r.Problems))
	}
	evil := "\x1b[2J\u202e::error::\x07"
	data, _ := json.Marshal(Event{Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Target: evil, Stage: evil, Kind: event.Failed, Unit: evil, Line: evil, Reason: evil, Error: evil + "\n" + evil, Remedy: evil, LogFile: evil, Seconds: 1e300, Done: -5})
	h, _ := json.Marshal(Header{Kind: recordingKind, Format: 1, Program: evil, Project: evil, Destination: evil, Targets: []string{evil}, Flavors: []HeaderFlavor{{evil, evil, ""}}, Selection: Selection{Only: []string{evil}}})
	s, _ := json.Marshal(summaryLine{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), summaryKind, Summary{Results: []Result{{Target: evil, State: "x", Error: evil, Tags: []string{evil}, Stages: []StageTime{{Stage: Stage(evil), Log: evil, Reason: evil}}}}}})
	r := recording(t, string(h)+"\n"+string(data)+"\n"+string(s)+"\n")
	if text := fmt.Sprintf("%+v %+v %+v", r.Header, r.Events, *r.Summary); strings.ContainsAny(text, "\x1b\x07\u202e") || r.Events[0].Seconds > 1e9 || r.Events[0].Done != 0 || r.Summary.Results[0].State != event.Failed {
		t.Errorf("%q", text)
	}
}

// Of a run that was killed, the events tell how far it came.
func TestReplayOfAKilledRun(t *testing.T) {
	r := recording(t, hour+`{"time":"2026-10-15T13:00:00Z","target":"a:1/x86_64","kind":"failed","error":"fetch: gone","remedy":"try again","seconds":1800}`+"\n"+`{"time":"2026-`)
	s, err := r.Result()
	if err == nil || len(s.Results) != 2 || s.Results[0].Error != "fetch: gone" || s.Results[1].State != event.Failed || !strings.Contains(s.Results[1].Error, "the recording ends here") || s.Results[1].Seconds != 3600 || s.Seconds != 3600 {
		t.Errorf("%v, %+v", err, s)
	}
	path := filepath.Join(t.TempDir(), "none.ndjson")
	if _, err := OpenReplay(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReplay(path); err == nil {
		t.Error("a folder is no recording")
	}
}

func TestParseSpeed(t *testing.T) {
	for text, want := range map[string]float64{"1": 1, "0.5": 0.5, "x8": 8, "max": Fastest, "0": 0, "-1": 0, "NaN": 0, "1e9": 0, "fast": 0, "2x": 0, "": 0, "Inf": 0} {
		if got, err := ParseSpeed(text); want == 0 && err == nil || want != 0 && (err != nil || got != want) {
			t.Errorf("%q: %g, %v", text, got, err)
		}
	}
}

func FuzzReadRecording(f *testing.F) {
	f.Add([]byte(hour))
	f.Add([]byte(`{"kind":"summary","results":[{"target":"a","stages":[{"stage":"fetch"}]}]}`))
	f.Add([]byte(`{"kind":"log","time":"2026-10-15T12:00:00Z","line":"\u001b[31m"}` + "\n{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := ReadRecording(strings.NewReader(string(data)), "x")
		if err != nil {
			return
		}
		last := time.Time{}
		for _, e := range rec.Events {
			if e.Time.Before(last) {
				t.Fatalf("%s after %s", e.Time, last)
			}
			last = e.Time
			for _, s := range []string{e.Target, e.Stage, e.Line, e.Error, e.Remedy} {
				if strings.ContainsAny(s, "\x1b\x07\r\u202e\u009b") {
					t.Fatalf("%q", s)
				}
			}
		}
		_, _ = rec.Result()
		r := NewReplay(rec)
		r.SetSpeed(Fastest)
		if got := everything(t, r); len(got) != len(rec.Events)+len(rec.Problems)+1 {
			t.Fatalf("%d events of %d", len(got), len(rec.Events))
		}
	})
}
