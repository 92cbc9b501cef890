package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Kinds of events that a Replay adds to those of the recording.
const (
	Rewound event.Kind = "rewound" // the replay begins anew: what came before is void
	Ended   event.Kind = "ended"   // everything was told
)

// Fastest is the speed at which a replay waits for nothing.
var Fastest = math.Inf(1)

// speeds are those that Faster and Slower go through.
var speeds = []float64{0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, Fastest}

// chunk is how many events come at once at most.
const chunk = 5000

// Replay is an engine that does nothing but show a recorded run again. Its events are taken with Next, which gives each
// when its time has come; the clock of a replay (Now) is that of the run. Its methods are safe for concurrent use.
type Replay struct {
	Desk

	rec     *Recording
	catalog *catalog.Catalog
	targets []Target
	bus     *event.Bus
	clock   func() time.Time // the real one

	mu     sync.Mutex
	wake   chan struct{} // closed and replaced when something has changed
	next   int           // index of the event that comes next
	at     time.Duration // position since the beginning when the speed was set
	since  time.Time     // when that was
	speed  float64
	paused bool
	jump   int  // events before this one come without waiting
	rewind bool // Rewound comes next
	ended  bool // Ended was told
	told   bool // what is wrong with the recording was told
}

// ReplayState is where a replay is.
type ReplayState struct {
	Speed      float64 // 1: as it was; Fastest
	Paused     bool
	At, Length time.Duration // since the beginning of the run
	Over       bool          // everything was told
	Jumping    bool          // on the way to where somebody wanted to go
}

// OpenReplay opens a recording to show it again; "-" is standard input.
func OpenReplay(path string) (*Replay, error) {
	var in io.Reader = os.Stdin
	name := "standard input"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, &NotStarted{event.WithRemedy(err, "name a recording: a file of runs/ in the cache, last for the newest, or - for standard input")}
		}
		defer f.Close()
		in, name = f, path
	}
	rec, err := ReadRecording(in, name)
	if err != nil {
		return nil, &NotStarted{err}
	}
	return NewReplay(rec), nil
}

// NewReplay shows a recording again, at the speed it had.
func NewReplay(rec *Recording) *Replay {
	r := &Replay{rec: rec, bus: event.NewBus(nil), clock: time.Now, wake: make(chan struct{}), speed: 1}
	r.since = r.clock()
	r.catalog, r.targets = describe(rec.Header)
	return r
}

// whyRecording is why nothing can be done in a replay.
const whyRecording = "this is a recording: nothing can be built from it"

var targetForm = regexp.MustCompile(`^([^:/\s]+):([^:/\s]+)/([^:/\s]+)$`)

func isTarget(s string) bool { return targetForm.MatchString(s) }

// describe makes a catalogue of what a recording is about.
func describe(h Header) (*catalog.Catalog, []Target) {
	c := &catalog.Catalog{Path: "the recording", Project: catalog.Project{Name: h.Project}}
	if c.Project.Name == "" {
		c.Project.Name = "kmi-tui"
	}
	place := map[string]int{}
	for _, t := range h.Targets {
		m := targetForm.FindStringSubmatch(t)
		if m == nil {
			continue
		}
		i, ok := place[m[1]]
		if !ok {
			f := catalog.Flavor{ID: m[1], Name: m[1]}
			if k := slices.IndexFunc(h.Flavors, func(f HeaderFlavor) bool { return f.ID == m[1] }); k >= 0 && h.Flavors[k].Name != "" {
				f.Name = h.Flavors[k].Name
				if slices.Contains(catalog.Levels, h.Flavors[k].Level) {
					f.Level = h.Flavors[k].Level
				}
			}
			i = len(c.Flavors)
			place[m[1]] = i
			c.Flavors = append(c.Flavors, f)
		}
		f := &c.Flavors[i]
		if !slices.ContainsFunc(f.Releases, func(r catalog.Release) bool { return r.Version == m[2] }) {
			f.Releases = append(f.Releases, catalog.Release{Version: m[2]})
		}
		if !slices.Contains(f.Arch, catalog.Arch(m[3])) {
			f.Arch = append(f.Arch, catalog.Arch(m[3]))
		}
	}
	var targets []Target
	for _, t := range h.Targets {
		m := targetForm.FindStringSubmatch(t)
		if m == nil {
			continue
		}
		f := &c.Flavors[place[m[1]]]
		r := slices.IndexFunc(f.Releases, func(r catalog.Release) bool { return r.Version == m[2] })
		targets = append(targets, Target{Flavor: f, Release: &f.Releases[r], Arch: catalog.Arch(m[3]), Unsupported: whyRecording})
	}
	return c, targets
}

// Recording is what is shown.
func (r *Replay) Recording() *Recording { return r.rec }

// Catalog holds the flavors of the recording.
func (r *Replay) Catalog() *catalog.Catalog { return r.catalog }

// Targets lists the targets of the recording, whatever is selected; none can be built.
func (r *Replay) Targets(Selection) ([]Target, error) { return r.targets, nil }

// Plan says that it cannot.
func (r *Replay) Plan(context.Context, Selection) ([]Plan, error) {
	return nil, notStarted("%s", whyRecording)
}

// Look says that it cannot.
func (r *Replay) Look(context.Context, func(Plan)) error { return notStarted("%s", whyRecording) }

// Run says that it cannot.
func (r *Replay) Run(context.Context, Selection) (Summary, error) {
	return Summary{}, notStarted("%s", whyRecording)
}

// Cancel ends nothing: nothing runs.
func (r *Replay) Cancel(string, error) bool { return false }

// Promotion and TryMe say why they cannot.
func (r *Replay) Promotion(context.Context, Ask) (*Promotion, error) {
	return nil, notStarted("%s", whyRecording)
}
func (r *Replay) TryMe(context.Context, string) (*TryMe, error) {
	return nil, notStarted("%s", whyRecording)
}

// Known is nothing: the recording tells what is known.
func (r *Replay) Known() (map[string]Known, error) { return map[string]Known{}, nil }

// History is nothing.
func (r *Replay) History(int) ([]PastRun, error) { return nil, nil }

// Subscribe returns a subscription to which nothing comes: a recording is taken with Next.
func (r *Replay) Subscribe() *Subscription { return r.bus.Subscribe() }

// Destination is where the recorded run published.
func (r *Replay) Destination() string {
	if r.rec.Header.Destination == "" {
		return "a place that the recording does not name"
	}
	return r.rec.Header.Destination
}

// Logs says where the raw logs of the recorded run are, where no stage has said it yet.
func (r *Replay) Logs() string { return "not in the recording" }

// Transcript is nil: a recording has its lines itself.
func (r *Replay) Transcript(string) *Transcript { return nil }

// Close ends the subscriptions.
func (r *Replay) Close() { r.bus.Close() }

// position is where the replay is; the caller holds mu.
func (r *Replay) position() time.Duration {
	p := r.at
	switch {
	case r.paused:
	case math.IsInf(r.speed, 1):
		p = r.length()
	default:
		if d := r.clock().Sub(r.since).Seconds() * r.speed; d > r.length().Seconds() {
			p = r.length()
		} else {
			p += time.Duration(d * float64(time.Second))
		}
	}
	return min(p, r.length())
}

// shown is the position that the clock tells: of the fastest speed and of a jump, that of the last event.
func (r *Replay) shown() time.Duration {
	if r.next < r.jump || math.IsInf(r.speed, 1) && !r.paused {
		if r.next == 0 {
			return 0
		}
		if r.next < len(r.rec.Events) {
			return r.offset(r.next - 1)
		}
		return r.length()
	}
	return r.position()
}

func (r *Replay) length() time.Duration { return r.rec.Ended.Sub(r.rec.Header.Time) }
func (r *Replay) offset(event int) time.Duration {
	return r.rec.Events[event].Time.Sub(r.rec.Header.Time)
}

// Now is the time of the run that the replay has come to.
func (r *Replay) Now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rec.Header.Time.Add(r.shown())
}

// State is where the replay is.
func (r *Replay) State() ReplayState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return ReplayState{Speed: r.speed, Paused: r.paused, At: r.shown(), Length: r.length(), Over: r.ended, Jumping: r.next < r.jump}
}

// change does something to the state and wakes who waits in Next.
func (r *Replay) change(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at, r.since = r.shown(), r.clock()
	do()
	close(r.wake)
	r.wake = make(chan struct{})
}

// SetSpeed sets the speed: 1 is that of the run, Fastest waits for nothing.
func (r *Replay) SetSpeed(speed float64) {
	if speed > 0 {
		r.change(func() { r.speed = speed })
	}
}

// Faster goes to the next higher speed.
func (r *Replay) Faster() {
	r.change(func() {
		if i := slices.IndexFunc(speeds, func(s float64) bool { return s > r.speed }); i >= 0 {
			r.speed = speeds[i]
		}
	})
}

// Slower goes to the next lower speed.
func (r *Replay) Slower() {
	r.change(func() {
		for i := len(speeds) - 1; i >= 0; i-- {
			if speeds[i] < r.speed {
				r.speed = speeds[i]
				return
			}
		}
	})
}

// Pause stops the clock, or lets it go on.
func (r *Replay) Pause() { r.change(func() { r.paused = !r.paused }) }

// ToEnd tells everything that is left at once.
func (r *Replay) ToEnd() { r.change(func() { r.goTo(len(r.rec.Events)) }) }

// WhyNoFailure says why ToFailure has nowhere to go; "" if it has.
func (r *Replay) WhyNoFailure() string {
	if r.failure() < 0 {
		return "nothing failed in this run"
	}
	return ""
}

// failure is the index of the first event that tells of a failure.
func (r *Replay) failure() int {
	return slices.IndexFunc(r.rec.Events, func(e Event) bool { return e.Kind == event.Failed })
}

// ToFailure goes to the first failure, back if it is behind, and pauses there. It returns the target that failed.
func (r *Replay) ToFailure() (target string) {
	i := r.failure()
	if i < 0 {
		return ""
	}
	r.change(func() { r.goTo(i + 1); r.paused = true })
	return r.rec.Events[i].Target
}

// Restart begins anew.
func (r *Replay) Restart() { r.change(func() { r.goTo(0); r.paused = false }) }

// goTo goes to before an event; the caller holds mu.
func (r *Replay) goTo(i int) {
	if i < r.next || r.ended && i < len(r.rec.Events) {
		r.next, r.rewind, r.ended = 0, true, false
	}
	r.jump = i
	r.at = 0
	if i == len(r.rec.Events) {
		r.at = r.length()
	} else if i > 0 {
		r.at = r.offset(i - 1)
	}
}

// Next waits until something is to be told and returns it. Before everything it tells what is wrong with the recording;
// after everything it tells Ended, and waits for a jump back. It returns false when ctx is done.
func (r *Replay) Next(ctx context.Context) ([]Event, bool) {
	for {
		events, wait, wake := r.due()
		if len(events) > 0 {
			return events, true
		}
		if wait < 0 {
			wait = time.Hour
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-wake:
		case <-ctx.Done():
			timer.Stop()
			return nil, false
		}
		timer.Stop()
	}
}

// Poll returns what is to be told now, without waiting. There is always more to come: Restart.
func (r *Replay) Poll() ([]Event, bool) {
	events, _, _ := r.due()
	return events, true
}

// due takes what is to be told now, or says how long that takes (less than 0: until something changes).
func (r *Replay) due() (events []Event, wait time.Duration, wake chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rewind {
		r.rewind = false
		events = append(events, Event{Time: r.rec.Header.Time, Kind: Rewound})
	}
	if !r.told {
		r.told = true
		for _, p := range r.rec.Problems {
			events = append(events, Event{Time: r.rec.Header.Time, Kind: event.Log, Line: "the recording: " + p})
		}
	}
	all := r.rec.Events
	now := r.position()
	for r.next < len(all) && len(events) < chunk && (r.next < r.jump || r.offset(r.next) <= now && !r.paused) {
		events = append(events, all[r.next])
		r.next++
	}
	switch {
	case r.next == len(all) && !r.ended && len(events) < chunk && (r.jump == len(all) || !r.paused && now >= r.length()):
		r.ended = true
		r.at, r.jump = r.length(), 0
		events = append(events, Event{Time: r.rec.Ended, Kind: Ended})
	case len(events) > 0:
	case r.ended || r.paused:
		return nil, -1, r.wake
	default:
		to := r.length()
		if r.next < len(all) {
			to = r.offset(r.next)
		}
		wait = time.Duration(min(float64(to-now)/r.speed, float64(time.Hour))) + time.Millisecond
	}
	return events, wait, r.wake
}

// Summary is how the run ended; the error says that the recording does not tell.
func (r *Replay) Summary() (Summary, error) { return r.rec.Result() }

// ParseSpeed reads a speed: a number of at least 0.01, or "max".
func ParseSpeed(text string) (float64, error) {
	if text == "max" {
		return Fastest, nil
	}
	var speed float64
	if n, err := fmt.Sscanf(strings.TrimPrefix(text, "x")+"\n", "%g\n", &speed); err != nil || n != 1 || !(speed >= 0.01 && speed <= 1e6) {
		return 0, &NotStarted{Err: errors.New("speed " + text + ": write how many times as fast, from 0.01 to 1000000, or max")}
	}
	return speed, nil
}
