package event

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// Scope is what a stage of one target reports through. A nil Scope swallows everything, so that every part of the
// engine can be used alone. It is safe for concurrent use.
type Scope struct {
	bus           *Bus
	target, stage string
	began         time.Time

	mu     sync.Mutex
	file   *os.File // the raw log, opened with the first line
	path   string
	last   time.Time // of the last progress
	secret []string

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
	return &Scope{bus: b, target: target, stage: stage, path: logFile}
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
	s.mu.Lock()
	if s.file != nil {
		e.LogFile = s.path
		_ = s.file.Close()
		s.file = nil
	}
	s.mu.Unlock()
	s.bus.Publish(e)
	return e
}

// Log reports one line.
func (s *Scope) Log(line string) {
	if s == nil {
		return
	}
	if s.parent != nil {
		s.parent.Log(s.prefix + line)
		return
	}
	line = s.redact(line)
	s.raw([]byte(line + "\n"))
	s.bus.Publish(Event{Target: s.target, Stage: s.stage, Kind: Log, Line: line})
}

// Logf reports one formatted line.
func (s *Scope) Logf(format string, args ...any) { s.Log(fmt.Sprintf(format, args...)) }

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
	s.mu.Unlock()
	s.bus.Publish(Event{Target: s.target, Stage: s.stage, Kind: Progress, Done: done, Total: total, Unit: unit})
}

func (s *Scope) raw(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path == "" {
		return
	}
	if s.file == nil {
		f, err := os.OpenFile(s.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			s.path = "" // a log that cannot be written (a full disk, say) never stops a build
			return
		}
		s.file = f
	}
	_, _ = s.file.Write(p)
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

// LineWriter splits what is written into lines.
type LineWriter struct {
	scope *Scope
	each  func(string)
	mu    sync.Mutex
	buf   []byte
}

// Write never fails. A line longer than 64 KiB is reported in pieces, so that output without line ends cannot eat memory.
func (w *LineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			w.buf = append(w.buf, p...)
			if len(w.buf) > 64<<10 {
				w.flush()
			}
			break
		}
		w.buf = append(w.buf, p[:i]...)
		w.flush()
		p = p[i+1:]
	}
	return n, nil
}

func (w *LineWriter) flush() {
	line := strings.TrimRight(string(w.buf), "\r")
	w.buf = w.buf[:0]
	w.scope.Log(line)
	if w.each != nil {
		w.each(line)
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
