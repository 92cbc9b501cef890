package headless

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; look at it and rewrite it with -update:\n%s", path, got)
	}
}

// script is a run in which one target is done, one has nothing to do and one fails.
func script(bus *event.Bus) {
	done := bus.Scope("debian:12/x86_64", "fetch", "")
	done.Start()
	done.Log("a file")
	done.Progress(10, 100, "bytes")
	done.End("256 packages", nil)
	none := bus.Scope("debian:13/x86_64", "fetch", "")
	none.Start()
	none.End("", event.Skipf("the newest packages are those of the published image"))
	bad := bus.Scope("debian:11/x86_64", "fetch", "")
	bad.Start()
	for i := range 20 {
		bad.Logf("line %d \x1b[31m::error::not for CI", i)
	}
	bad.End("", event.WithRemedy(errors.New("http://mirror.example.org/x: 50%, line 1\nline 2"), "name a mirror"))
	bus.Close()
}

// finds is where the catalogue's flavors stand.
func finds(string) int { return 77 }

func TestTextInCI(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"plain.txt", Options{}},
		{"verbose.txt", Options{Verbose: true}},
		{"actions.txt", Options{Actions: true, Catalog: "distros.toml", Line: finds}},
	} {
		bus := event.NewBus(clock)
		sub := bus.Subscribe()
		script(bus)
		var out bytes.Buffer
		c.o.Progress, c.o.Now = &out, clock
		if err := Text(context.Background(), sub, c.o); err != nil {
			t.Fatal(err)
		}
		golden(t, c.name, out.String())
		if strings.ContainsRune(out.String(), 0x1b) {
			t.Errorf("%s has escape sequences", c.name)
		}
		for _, line := range strings.Split(out.String(), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "::") && !c.o.Actions {
				t.Errorf("a workflow command got through: %q", line)
			}
		}
	}
}

// On a terminal, what is at work stands in lines at the end that are drawn again; they never wrap.
func TestTextOnATerminal(t *testing.T) {
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := &lines{seen: make(chan string, 1000)}
	ended := make(chan error, 1)
	go func() { ended <- Text(ctx, sub, Options{Progress: out, Live: true, Width: func() int { return 60 }}) }()
	s := bus.Scope("debian:12/x86_64", "customise", "")
	s.Start()
	s.Logf("a very long line %s", strings.Repeat("x", 200))
	s.Progress(5, 10, "steps")
	for text := range out.seen {
		if strings.Contains(text, "████████░░░░░░░░") {
			for _, l := range strings.Split(text, "\n") {
				if i := strings.LastIndex(l, "\x1b[J"); i >= 0 {
					l = l[i+3:]
				}
				if n := len([]rune(l)); n >= 60 {
					t.Errorf("%d columns: %q", n, l)
				}
			}
			break
		}
	}
	s.End("well", nil)
	bus.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if all := out.all.String(); !strings.Contains(all, "\x1b[1A\x1b[J") || !strings.HasSuffix(all, "well\n") {
		t.Errorf("it ends with %q", all[max(0, len(all)-80):])
	}
}

// lines tells what is written.
type lines struct {
	seen chan string
	all  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.all.Write(p)
	select {
	case l.seen <- string(p):
	default:
	}
	return len(p), nil
}

func TestJSON(t *testing.T) {
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	script(bus)
	var out bytes.Buffer
	if err := JSON(context.Background(), sub, &out); err != nil {
		t.Fatal(err)
	}
	ends := 0
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		var e engine.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e.Kind.Ends() {
			ends++
		}
	}
	if ends != 3 {
		t.Errorf("%d ends", ends)
	}
}

func summary() engine.Summary {
	st := func(s engine.Stage, k event.Kind, sec float64) engine.StageTime {
		return engine.StageTime{Stage: s, State: k, Seconds: sec, Log: "/logs/" + string(s) + ".log"}
	}
	return engine.Summary{Results: []engine.Result{
		{Target: "debian:12/x86_64", State: event.Finished, Reason: "published", Image: "dir:images/debian@sha256:abc", Tags: []string{"12-20261123", "12"}, Seconds: 157.2,
			Stages: []engine.StageTime{st(engine.Resolve, event.Finished, 1.2), st(engine.Fetch, event.Skipped, 0), st(engine.Customise, event.Finished, 68.5), st(engine.Pack, event.Finished, 2.1),
				st(engine.Test, event.Finished, 82.3), st(engine.Sign, event.Finished, 0.3), st(engine.Publish, event.Finished, 0.8)}},
		{Target: "debian:13/x86_64", State: event.Failed, Error: "fetch: it is gone", Remedy: "name a mirror", Seconds: 3.3, Stages: []engine.StageTime{st(engine.Resolve, event.Finished, 1.2), st(engine.Fetch, event.Failed, 2.1)}},
		{Target: "neutrino", State: event.Skipped, Reason: "not supported yet"},
	}}
}

func TestSummary(t *testing.T) {
	for _, width := range []int{0, 60} {
		var out bytes.Buffer
		SummaryText(&out, summary(), width)
		golden(t, fmt.Sprintf("summary-%d.txt", width), out.String())
	}
	var out bytes.Buffer
	if err := SummaryJSON(&out, summary(), time.Unix(0, 0).UTC()); err != nil || !json.Valid(out.Bytes()) || !strings.Contains(out.String(), `"kind":"summary"`) {
		t.Errorf("%v: %s", err, out.String())
	}
}
