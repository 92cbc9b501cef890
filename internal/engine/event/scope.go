package event

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Scope is what a stage of one target reports through. A nil Scope swallows everything, so that every part of the
// engine can be used alone. It is safe for concurrent use.
type Scope struct {
	bus           *Bus
	target, stage string
	began         time.Time

	log     *Transcript // of the target; nil: no raw log is kept
	raw     int         // number of the raw log in it
	path    string      // of the raw log
	written atomic.Bool // there are lines in it

	mu     sync.Mutex
	last   time.Time // of the last progress
	secret []string
	end    time.Time // the deadline of what is going on; zero: there is none

	parent *Scope // of a part of a stage: everything goes there
	prefix string
}

// With returns a scope for a part of this stage: its lines begin with prefix. Start and End belong to the whole.
func (s *Scope) With(prefix string) *Scope {
	if s == nil {
		return nil
	}
	return &Scope{parent: s, prefix: prefix}
}

// Scope returns a reporter for a stage of a target. The raw log of the stage goes to logFile, which is made with its
// first line; "" keeps none.
func (b *Bus) Scope(target, stage, logFile string) *Scope {
	s := &Scope{bus: b, target: target, stage: stage, path: logFile}
	if logFile != "" {
		s.log = b.transcript(target, filepath.Dir(logFile))
		s.raw = s.log.stage(stage, logFile)
	}
	return s
}

// Redact keeps a secret out of the events and the log file from now on.
func (s *Scope) Redact(secret string) {
	if s == nil || secret == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret = append(s.secret, secret)
}

// Start says that the stage begins.
func (s *Scope) Start() {
	if s == nil {
		return
	}
	s.began = s.bus.now()
	s.bus.Publish(Event{Target: s.target, Stage: s.stage, Kind: Started})
}

// End says how the stage ended: failed with err, skipped when err is a *Skip, or finished with a reason.
func (s *Scope) End(reason string, err error) Event {
	if s == nil {
		return Event{}
	}
	e := Event{Target: s.target, Stage: s.stage, Kind: Finished, Reason: reason}
	if !s.began.IsZero() {
		e.Seconds = s.bus.now().Sub(s.began).Seconds()
	}
	var skip *Skip
	var remedied *Remedied
	switch {
	case errors.As(err, &skip):
		e.Kind, e.Reason = Skipped, skip.Reason
	case err != nil:
		e.Kind, e.Error = Failed, s.redact(err.Error())
		if errors.As(err, &remedied) {
			e.Remedy = s.redact(remedied.Remedy)
		}
	}
	if s.written.Load() {
		e.LogFile = s.path
		s.log.closeStage(s.raw)
	}
	s.bus.Publish(e)
	return e
}

// Log reports one line; a text of several is as many.
func (s *Scope) Log(line string) {
	if s == nil {
		return
	}
	s.lines(line)
}

// lines reports the lines of a text.
func (s *Scope) lines(text string) {
	if s.parent != nil {
		s.parent.lines(s.prefix + strings.ReplaceAll(text, "\n", "\n"+s.prefix))
		return
	}
	text = s.redact(text)
	now := s.bus.now()
	if s.log == nil {
		s.bus.lines(Event{Time: now, Target: s.target, Stage: s.stage, Kind: Log}, text)
		return
	}
	raw := make([]byte, 0, len(text)+1)
	raw = append(append(raw, text...), '\n')
	var few [64]int
	sizes := few[:0]
	for rest := raw; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		sizes, rest = append(sizes, i), rest[i+1:]
	}
	written, err := s.log.add(s.raw, now, raw, sizes, func(first int) {
		s.bus.lines(Event{Time: now, Target: s.target, Stage: s.stage, Kind: Log, Row: first + 1}, text)
	})
	if err != nil {
		s.bus.lines(Event{Time: now, Target: s.target, Stage: s.stage, Kind: Log}, "… the raw log cannot be written, lines from here on are nowhere else: "+s.redact(err.Error()))
	}
	if written {
		s.written.Store(true)
	}
}

// Logf reports one formatted line.
func (s *Scope) Logf(format string, args ...any) { s.Log(fmt.Sprintf(format, args...)) }

// Deadline says when what is going on is ended even if it has not come further; progress tells it from now on. The zero
// time takes it back.
func (s *Scope) Deadline(at time.Time) {
	if s == nil {
		return
	}
	if s.parent != nil {
		s.parent.Deadline(at)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = at
}

// Progress reports that done of total units are behind; total 0 means that nobody knows. It may be called as often as
// is convenient: all but the last of what comes within 50 ms is left out.
func (s *Scope) Progress(done, total int64, unit string) {
	if s == nil {
		return
	}
	if s.parent != nil {
		s.parent.Progress(done, total, unit)
		return
	}
	now := s.bus.now()
	s.mu.Lock()
	if now.Sub(s.last) < 50*time.Millisecond && done != total {
		s.mu.Unlock()
		return
	}
	s.last = now
	end := s.end
	s.mu.Unlock()
	s.bus.Publish(Event{Target: s.target, Stage: s.stage, Kind: Progress, Done: done, Total: total, Unit: unit, Deadline: end})
}

func (s *Scope) redact(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range s.secret {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	return text
}

// Lines returns a writer whose lines are reported as they are completed; Close reports an unfinished last one. Each
// line is also given to each, where that is not nil.
func (s *Scope) Lines(each func(line string)) *LineWriter { return &LineWriter{scope: s, each: each} }

// longest is the length from which a line is reported in pieces.
const longest = 64 << 10

// LineWriter splits what is written into lines.
type LineWriter struct {
	scope *Scope
	each  func(string)
	mu    sync.Mutex
	buf   []byte // a line that is not complete
}

// Write never fails. A line longer than 64 KiB is reported in pieces, so that output without line ends cannot eat memory.
func (w *LineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(p)
	if i := bytes.LastIndexByte(p, '\n'); i >= 0 {
		w.buf = append(w.buf, p[:i]...)
		w.flush()
		p = p[i+1:]
	}
	if w.buf = append(w.buf, p...); len(w.buf) > longest {
		w.flush()
	}
	return n, nil
}

// flush reports what is there, which does not end with a line's end: all of its lines together.
func (w *LineWriter) flush() {
	text := string(w.buf)
	w.buf = w.buf[:0]
	if cap(w.buf) > 4*longest {
		w.buf = nil
	}
	if i := strings.IndexByte(text, '\r'); i >= 0 || len(text) > longest {
		var b strings.Builder
		for line := range strings.SplitSeq(text, "\n") {
			line = strings.TrimRight(line, "\r")
			for len(line) > longest {
				b.WriteString(line[:longest] + "\n")
				line = line[longest:]
			}
			b.WriteString(line + "\n")
		}
		text = strings.TrimSuffix(b.String(), "\n")
	}
	if w.scope != nil {
		w.scope.lines(text)
	}
	if w.each != nil {
		for line := range strings.SplitSeq(text, "\n") {
			w.each(line)
		}
	}
}

// Close reports what came after the last line end.
func (w *LineWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buf) > 0 {
		w.flush()
	}
	return nil
}

// Skip is the error of a stage that had nothing to do.
type Skip struct{ Reason string }

func (s *Skip) Error() string { return "skipped: " + s.Reason }

// Skipf makes a Skip.
func Skipf(format string, args ...any) error { return &Skip{fmt.Sprintf(format, args...)} }

// clean cleans a text of several lines.
func clean(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = Clean(lines[i])
	}
	return strings.Join(lines, "\n")
}
