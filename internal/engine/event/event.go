// Package event is the one stream in which the engine tells what happens. Every consumer — the console's panes, the
// batch output, NDJSON — reads only this.
package event

import (
	"fmt"
	"strings"
	"time"
)

// Kind says what an event reports.
type Kind string

const (
	Started  Kind = "started"  // a stage, a target or the run began
	Progress Kind = "progress" // Done of Total units are behind it
	Log      Kind = "log"      // one line of output, made harmless
	Finished Kind = "finished" // it ended well; Reason may say with what result
	Skipped  Kind = "skipped"  // nothing was to be done; Reason says why
	Failed   Kind = "failed"   // it ended badly; Error and Remedy say how and what to do
)

// Ends reports whether an event of this kind ends what Started began.
func (k Kind) Ends() bool { return k == Finished || k == Skipped || k == Failed }

// Event is one thing that happened. Its JSON form, one object a line, is the program's `--output json`.
type Event struct {
	Time   time.Time `json:"time"`
	Target string    `json:"target,omitempty"` // "debian:12/x86_64"; empty: the run as a whole
	Stage  string    `json:"stage,omitempty"`  // "fetch"; empty: the target as a whole
	Kind   Kind      `json:"kind"`

	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"` // 0: not known
	Unit  string `json:"unit,omitempty"`  // "bytes", "bytes compressed" (see Bytes), "packages", "seconds"
	// Deadline is when what is going on is ended even if it has not come further; zero: nobody does that.
	Deadline time.Time `json:"deadline,omitzero"`

	Line   string `json:"line,omitempty"`   // Log
	Reason string `json:"reason,omitempty"` // Finished, Skipped
	Error  string `json:"error,omitempty"`  // Failed
	Remedy string `json:"remedy,omitempty"` // Failed: what to do about it

	Seconds float64 `json:"seconds,omitempty"` // how long it took, on events that end something
	// Row is the number of a line in the target's Transcript, from 1; of other events that of the line that comes next. 0:
	// there is no transcript, or the line is not in it.
	Row int `json:"-"`
	// Missed, of a line without a target: so many lines were left out, and transcripts have all of them.
	Missed int `json:"-"`

	LogFile string `json:"log,omitempty"` // where the whole, raw log of the stage is kept, on events that end it
}

// String is the event as one line of plain text.
func (e Event) String() string {
	s := e.Target
	if e.Stage != "" {
		if s != "" {
			s += " "
		}
		s += e.Stage
	}
	if s != "" {
		s += ": "
	}
	switch e.Kind {
	case Log:
		return s + e.Line
	case Progress:
		if e.Total > 0 {
			return fmt.Sprintf("%s%d of %d %s", s, e.Done, e.Total, e.Unit)
		}
		return fmt.Sprintf("%s%d %s", s, e.Done, e.Unit)
	case Failed:
		if e.Remedy != "" {
			return s + "failed: " + e.Error + " — " + e.Remedy
		}
		return s + "failed: " + e.Error
	default:
		if e.Reason != "" {
			return s + string(e.Kind) + ": " + e.Reason
		}
		return s + string(e.Kind)
	}
}

// Bytes reports whether a unit of progress is bytes, and what happens to them: "bytes" are transferred, and what is "",
// "bytes compressed" are "compressed".
func Bytes(unit string) (what string, ok bool) {
	what, ok = strings.CutPrefix(unit, "bytes")
	if !ok || what != "" && what[0] != ' ' {
		return "", false
	}
	return strings.TrimSpace(what), true
}

// Remedied is an error that knows what its reader can do about it.
type Remedied struct {
	Err    error
	Remedy string
}

func (r *Remedied) Error() string { return r.Err.Error() }
func (r *Remedied) Unwrap() error { return r.Err }

// WithRemedy adds to err what its reader can do about it; a nil err stays nil.
func WithRemedy(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Remedied{err, fmt.Sprintf(format, args...)}
}
