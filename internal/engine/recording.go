package engine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
)

// Bounds of what is read of a recording: it may come from anywhere.
const (
	readMost     = 256 << 20 // bytes
	readEvents   = 1_000_000
	readTargets  = 2000
	readStages   = 32             // names of stages
	readLines    = 200            // lines of an error
	readProblems = 20             // that are told one by one
	readGap      = 48 * time.Hour // more than that between two events is no time span but a mistake
)

// Recording is what was read of a recording, made harmless.
type Recording struct {
	Header   Header // without one (the output of --batch --output json), made of the events
	Events   []Event
	Summary  *Summary  // nil: the run was killed, or is still under way
	Ended    time.Time // of the last line
	Problems []string  // what is wrong with the file, each with its line; what is told there was skipped
}

// reading is a recording while it is read.
type reading struct {
	*Recording
	targets, stages map[string]bool
	texts           map[string]string // cleaned names: there are few of them, and many lines
	skipped         int               // problems beyond those that are told
	headed          bool
	last            time.Time
	events          int
}

// ReadRecording reads a recording, or the output of --batch --output json. Lines that are broken or of an unknown kind are
// skipped and listed in Problems; times never go back. The error says that it is no recording at all.
func ReadRecording(from io.Reader, name string) (*Recording, error) {
	r := &reading{Recording: &Recording{}, targets: map[string]bool{}, stages: map[string]bool{}, texts: map[string]string{}}
	for _, s := range Stages {
		r.stages[string(s)] = true
	}
	in := bufio.NewReaderSize(from, 64<<10)
	total := 0
	for n := 1; ; n++ {
		line, size, whole, err := readLine(in)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if total += size; total > readMost {
			r.problem(n, "only the first %s are read", fetch.Size(readMost))
			break
		}
		switch {
		case size == 0 && err == io.EOF:
		case !whole:
			r.problem(n, "longer than %s", fetch.Size(lineMost))
		case err == io.EOF && !json.Valid(line):
			r.problem(n, "the last line is not whole: the run was killed, or is still under way")
		case len(line) > 0:
			if ferr := r.line(n, line); ferr != nil {
				return nil, fmt.Errorf("%s: %w", name, ferr)
			}
		}
		if err == io.EOF {
			break
		}
		if r.events >= readEvents {
			r.problem(n, "only the first %d events are read", readEvents)
			break
		}
	}
	if !r.headed && len(r.Events) == 0 && r.Summary == nil {
		return nil, event.WithRemedy(fmt.Errorf("%s is no recording: there is no event in it", name), "name the NDJSON of a run: of --batch --output json, or a file of runs/ in the cache")
	}
	if r.skipped > 0 {
		r.Problems = append(r.Problems, fmt.Sprintf("and %d more lines were skipped", r.skipped))
	}
	r.finish()
	return r.Recording, nil
}

// readLine reads one line of at most lineMost bytes; of a longer one, nothing, and whole is false. size is what it took.
func readLine(in *bufio.Reader) (line []byte, size int, whole bool, err error) {
	whole = true
	for {
		part, err := in.ReadSlice('\n')
		size += len(part)
		if whole = whole && size <= lineMost; whole {
			line = append(line, part...)
		} else {
			line = nil
		}
		switch {
		case err == bufio.ErrBufferFull && size <= readMost:
			continue
		case err == bufio.ErrBufferFull:
			return nil, size, false, nil
		case err != nil:
			return line, size, whole, err
		}
		return line[:max(0, len(line)-1)], size, whole, nil
	}
}

func (r *reading) problem(n int, format string, args ...any) {
	if len(r.Problems) >= readProblems {
		r.skipped++
		return
	}
	r.Problems = append(r.Problems, fmt.Sprintf("line %d: ", n)+event.Clean(fmt.Sprintf(format, args...)))
}

// line takes in one line. Its error ends the reading.
func (r *reading) line(n int, data []byte) error {
	var kind struct {
		Kind event.Kind `json:"kind"`
	}
	var e Event
	if err := json.Unmarshal(data, &e); err == nil {
		kind.Kind = e.Kind
	} else if kerr := json.Unmarshal(data, &kind); kerr != nil || kind.Kind != recordingKind && kind.Kind != summaryKind {
		r.problem(n, "skipped: %v", err)
		return nil
	}
	switch kind.Kind {
	case recordingKind:
		var h Header
		if err := json.Unmarshal(data, &h); err != nil {
			r.problem(n, "skipped: the header is damaged: %v", err)
			return nil
		}
		return r.header(n, h)
	case summaryKind:
		var s summaryLine
		if err := json.Unmarshal(data, &s); err != nil {
			r.problem(n, "skipped: the summary is damaged: %v", err)
			return nil
		}
		if len(s.Results) > readTargets {
			r.problem(n, "only the first %d of %d results are read", readTargets, len(s.Results))
			s.Results = s.Results[:readTargets]
		}
		sum := cleanSummary(s.Summary)
		r.Summary = &sum
		r.time(n, s.Time)
	case event.Started, event.Progress, event.Log, event.Finished, event.Skipped, event.Failed:
		r.event(n, e)
	default:
		r.problem(n, "skipped: kind %q is not known", string(kind.Kind[:min(len(kind.Kind), 40)]))
	}
	return nil
}

func (r *reading) header(n int, h Header) error {
	if h.Format != recordingFormat {
		return event.WithRemedy(fmt.Errorf("line %d: a recording of format %d, this program reads %d", n, h.Format, recordingFormat), "use the kmi-tui that wrote it: %s", event.Clean(h.Program))
	}
	if r.headed || len(r.Events) > 0 {
		r.problem(n, "skipped: a second header")
		return nil
	}
	r.headed = true
	if len(h.Targets) > readTargets || len(h.Flavors) > readTargets {
		r.problem(n, "only the first %d targets are shown", readTargets)
		h.Targets, h.Flavors = h.Targets[:min(len(h.Targets), readTargets)], h.Flavors[:min(len(h.Flavors), readTargets)]
	}
	h.Program, h.Project, h.Destination = event.Clean(h.Program), event.Clean(h.Project), event.Clean(h.Destination)
	for i := range h.Targets {
		h.Targets[i] = event.Clean(h.Targets[i])
		r.targets[h.Targets[i]] = true
	}
	for i := range h.Flavors {
		f := &h.Flavors[i]
		f.ID, f.Name = event.Clean(f.ID), event.Clean(f.Name)
	}
	for i := range h.Selection.Only {
		h.Selection.Only[i] = event.Clean(h.Selection.Only[i])
	}
	r.Header = h
	return nil
}

// event takes in one event.
func (r *reading) event(n int, e Event) {
	e.Target, e.Stage, e.Unit = r.text(e.Target), r.text(e.Stage), r.text(e.Unit)
	if e.Target != "" && !r.targets[e.Target] {
		if len(r.targets) >= readTargets {
			r.problem(n, "skipped: more than %d targets", readTargets)
			return
		}
		r.targets[e.Target] = true
	}
	if e.Stage != "" && !r.stages[e.Stage] {
		if len(r.stages) >= readStages {
			r.problem(n, "skipped: more than %d stages", readStages)
			return
		}
		r.stages[e.Stage] = true
	}
	if lines := 0; len(e.Error) > event.MaxLine {
		for i := range len(e.Error) {
			if e.Error[i] == '\n' {
				lines++
			}
			if lines == readLines || i == 64<<10 {
				r.problem(n, "an error of more than %d lines is cut", readLines)
				e.Error = e.Error[:i]
				break
			}
		}
	}
	e = e.Clean()
	e.Done, e.Total, e.Seconds = max(0, e.Done), max(0, e.Total), sane(e.Seconds)
	e.Time = r.time(n, e.Time)
	if e.Deadline = e.Deadline.UTC(); e.Deadline.Sub(e.Time).Abs() > readGap {
		e.Deadline = time.Time{}
	}
	r.Events = append(r.Events, e)
	r.events++
}

// text cleans a name.
func (r *reading) text(s string) string {
	if c, ok := r.texts[s]; ok {
		return c
	}
	c := event.Clean(s)
	if len(r.texts) < 2*readTargets {
		r.texts[s] = c
	}
	return c
}

// time is when a line is shown: never before the one before it, and not after a gap that cannot be.
func (r *reading) time(n int, at time.Time) time.Time {
	gap := at.Sub(r.last)
	switch {
	case r.last.IsZero() && (at.IsZero() || at.Year() < 2000 || at.Year() > 9000):
		r.problem(n, "its time (%s) cannot be", at.UTC().Format(time.RFC3339))
		r.last = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	case r.last.IsZero():
		r.last = at.UTC()
	case gap < -time.Second || gap > readGap:
		r.problem(n, "its time (%s) cannot be: the line before has %s", at.UTC().Format(time.RFC3339), r.last.Format(time.RFC3339))
	case gap > 0:
		r.last = at.UTC()
	}
	return r.last
}

// finish completes what the file does not tell.
func (r *reading) finish() {
	r.Ended = r.last
	h := &r.Header
	if !r.headed {
		h.Format, h.Kind = recordingFormat, recordingKind
		if len(r.Events) > 0 {
			h.Time = r.Events[0].Time
		}
	}
	h.Time = h.Time.UTC()
	if len(r.Events) > 0 && (h.Time.After(r.Events[0].Time) || r.Events[0].Time.Sub(h.Time) > readGap) {
		h.Time = r.Events[0].Time
	}
	// Targets that the header does not name come in their order.
	named := map[string]bool{}
	for _, t := range h.Targets {
		named[t] = true
	}
	for _, e := range r.Events {
		if e.Target != "" && !named[e.Target] && isTarget(e.Target) {
			named[e.Target] = true
			h.Targets = append(h.Targets, e.Target)
		}
	}
	h.Targets = slices.DeleteFunc(h.Targets, func(t string) bool { return !isTarget(t) })
}

// Result is how the run ended: what its summary says, or, without one, what its events say.
func (r *Recording) Result() (Summary, error) {
	if r.Summary != nil {
		return *r.Summary, nil
	}
	const cut = "the recording ends here: the run was killed, or is still under way"
	byTarget := map[string]*Result{}
	ended := map[string]bool{}
	began := map[[2]string]time.Time{}
	var order []string
	for _, e := range r.Events {
		if !isTarget(e.Target) {
			continue
		}
		t := byTarget[e.Target]
		if t == nil {
			t = &Result{Target: e.Target, Stages: []StageTime{}}
			byTarget[e.Target] = t
			order = append(order, e.Target)
		}
		switch {
		case e.Kind == event.Started:
			began[[2]string{e.Target, e.Stage}] = e.Time
		case e.Kind.Ends() && e.Stage == "":
			t.State, t.Reason, t.Error, t.Remedy, t.Seconds = e.Kind, e.Reason, e.Error, e.Remedy, e.Seconds
			ended[e.Target] = true
		case e.Kind.Ends():
			t.Stages = append(t.Stages, StageTime{Stage: Stage(e.Stage), State: e.Kind, Reason: e.Reason, Seconds: e.Seconds, Log: e.LogFile})
			delete(began, [2]string{e.Target, e.Stage})
		}
	}
	s := Summary{Results: []Result{}, Seconds: r.Ended.Sub(r.Header.Time).Seconds()}
	for _, name := range order {
		t := byTarget[name]
		if !ended[name] {
			t.State, t.Error = event.Failed, cut
			since := r.Header.Time
			if at, ok := began[[2]string{name, ""}]; ok {
				since = at
			}
			t.Seconds = r.Ended.Sub(since).Seconds()
		}
		s.Results = append(s.Results, *t)
	}
	return s, errors.New(cut)
}
