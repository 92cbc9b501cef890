package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
)

// A recording is a run's NDJSON in the cache: a Header, one event a line, and a line of kind "summary" as the last one.
// The output of `--batch --output json` is the same without the header. A run that was killed left one without its end.

const (
	recordingFormat = 1
	recordingKind   = event.Kind("recording") // of the first line
	summaryKind     = event.Kind("summary")   // of the last one

	recordEvery  = 250 * time.Millisecond // the least time between two writes: so much is lost of a run that is killed
	recordPace   = 300 * time.Millisecond // the least time between two lines of progress of a stage
	recordedLogs = 16 << 20               // bytes of log lines that are kept of a run

	keptRecordings     = 60
	keptRecordingBytes = 512 << 20
)

// Header is the first line of a recording.
type Header struct {
	Time        time.Time      `json:"time"`
	Kind        event.Kind     `json:"kind"`    // "recording"
	Format      int            `json:"format"`  // of the recording: 1
	Program     string         `json:"program"` // version of the program that wrote it
	Project     string         `json:"project,omitempty"`
	Selection   Selection      `json:"selection"`
	Destination string         `json:"destination"` // HOST/PATH or dir:PATH
	Targets     []string       `json:"targets"`     // those that go the way of an image
	Flavors     []HeaderFlavor `json:"flavors,omitempty"`
}

// HeaderFlavor is what a recording tells of a flavor of its targets.
type HeaderFlavor struct {
	ID    string        `json:"id"`
	Name  string        `json:"name"`
	Level catalog.Level `json:"level"`
}

// summaryLine is the last line of a recording.
type summaryLine struct {
	Time time.Time  `json:"time"`
	Kind event.Kind `json:"kind"`
	Summary
}

// recorder writes what a run tells into the cache. It has a subscription and a goroutine of its own: a build never waits
// for it before its end. What it cannot write is said once.
type recorder struct {
	e       *Engine
	sub     *event.Subscription
	file    *os.File
	ending  chan struct{} // closed: no more events come
	written chan struct{} // closed: all of them are written
	failed  bool
	buf     bytes.Buffer
	logs    int                       // bytes of log lines so far
	paced   map[[2]string]event.Event // the last progress that was written of a stage
}

// recorder begins to listen. Nothing is written before begin.
func (e *Engine) recorder() *recorder {
	return &recorder{e: e, sub: e.bus.Subscribe(), ending: make(chan struct{}), written: make(chan struct{}), paced: map[[2]string]event.Event{}}
}

// begin makes the file and writes what has come so far and comes from now on.
func (r *recorder) begin(sel Selection, targets []Target) {
	now := r.e.cfg.Now().UTC()
	h := Header{Time: now, Kind: recordingKind, Format: recordingFormat, Program: r.e.cfg.Version, Project: r.e.cfg.Catalog.Project.Name, Selection: sel, Destination: r.e.cfg.Registry, Targets: []string{}}
	last := sel.Until
	if last == "" {
		last = Publish
	}
	named := map[string]bool{}
	for _, t := range targets {
		if !t.able(last) {
			continue
		}
		h.Targets = append(h.Targets, t.String())
		if f := t.Flavor; !named[f.ID] {
			named[f.ID] = true
			h.Flavors = append(h.Flavors, HeaderFlavor{f.ID, f.Name, f.Level})
		}
	}
	var err error
	if r.file, err = r.create(now); err != nil {
		r.fail(err)
		return
	}
	r.e.pruneRecordings()
	r.line(h)
	r.flush()
	go r.run()
}

// create makes a file of a name that nobody has, and holds its lock: who has it is still writing.
func (r *recorder) create(now time.Time) (*os.File, error) {
	dir := r.e.cache.Path("runs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s-%d", now.Format("20060102T150405Z"), os.Getpid())
	for n := 1; ; n++ {
		path := r.e.cache.Path("runs", name+".ndjson")
		if n > 1 {
			path = r.e.cache.Path("runs", fmt.Sprintf("%s-%d.ndjson", name, n))
		}
		f, err := create(path)
		if errors.Is(err, fs.ErrExist) && n < 1000 {
			continue
		}
		if err == nil {
			_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) // where there are no locks, there is nothing to be done
		}
		return f, err
	}
}

// create makes the file of a recording; it is one of the things that tests replace.
var create = createFile

func createFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
}

// recordingName is the name of a recording that this program made.
var recordingName = regexp.MustCompile(`^\d{8}T\d{6}Z-\d+(-\d+)?\.ndjson$`)

// run writes until there is nothing more to come.
func (r *recorder) run() {
	defer close(r.written)
	for {
		events, ok := r.sub.Next(context.Background())
		if !ok {
			return
		}
		for _, e := range events {
			r.event(e)
		}
		r.flush()
		if r.failed {
			return
		}
		wait := time.NewTimer(recordEvery)
		select {
		case <-wait.C:
		case <-r.ending:
			wait.Stop()
		}
	}
}

// event adds one to what is to be written.
func (r *recorder) event(e event.Event) {
	key := [2]string{e.Target, e.Stage}
	switch {
	case e.Kind == event.Progress:
		last, ok := r.paced[key]
		if ok && e.Time.Sub(last.Time).Abs() < recordPace && (e.Done != e.Total || last.Done == last.Total) {
			return
		}
		r.paced[key] = e
	case e.Kind == event.Log:
		if r.logs > recordedLogs {
			return
		}
		if r.logs += r.line(e); r.logs > recordedLogs {
			r.line(event.Event{Time: e.Time, Kind: event.Log, Line: fmt.Sprintf("… the recording keeps no more log lines: it has %s of them; the log files have all", fetch.Size(recordedLogs))})
		}
		return
	case e.Kind.Ends():
		delete(r.paced, key)
	}
	r.line(e)
}

// line adds a line and returns how many bytes it has.
func (r *recorder) line(v any) int {
	before := r.buf.Len()
	enc := json.NewEncoder(&r.buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // a number that JSON has no word for
		r.fail(err)
	}
	n := r.buf.Len() - before
	if r.buf.Len() > 1<<20 {
		r.flush()
	}
	return n
}

func (r *recorder) flush() {
	if !r.failed && r.buf.Len() > 0 {
		if _, err := r.file.Write(r.buf.Bytes()); err != nil {
			r.fail(err)
		}
	}
	r.buf.Reset()
}

// fail ends the recording, not the run.
func (r *recorder) fail(err error) {
	if r.failed {
		return
	}
	r.failed = true
	r.sub.Close()
	text := "this run is not recorded: "
	if r.file != nil {
		text = "the rest of this run is not recorded: "
	}
	err = fetch.Explain(err, r.e.cache.Dir())
	var remedied *event.Remedied
	text += err.Error()
	if errors.As(err, &remedied) {
		text += ": " + remedied.Remedy
	}
	r.e.bus.Scope("", "", "").Log(text)
}

// end writes the rest and how the run ended.
func (r *recorder) end(s Summary) {
	r.drain()
	if r.file != nil {
		r.line(summaryLine{r.e.cfg.Now().UTC(), summaryKind, s})
		r.flush()
	}
}

// drain waits until everything that was told is written.
func (r *recorder) drain() {
	r.sub.Close()
	select {
	case <-r.ending:
		return
	default:
		close(r.ending)
	}
	if r.file != nil {
		<-r.written
	}
}

// close ends the recording, also of a run that did not start.
func (r *recorder) close() {
	r.drain()
	if r.file != nil {
		if err := r.file.Close(); err != nil {
			r.fail(err)
		}
		r.e.pruneRecordings()
	}
}
