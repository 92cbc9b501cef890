// Package headless shows a run without the console: live lines on a terminal, plain lines in CI, NDJSON for programs.
// It imports nothing that talks to a terminal by itself.
package headless

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Options say how a run is shown.
type Options struct {
	Results  io.Writer               // what was asked for: usually standard output
	Progress io.Writer               // how it goes: usually standard error
	Live     bool                    // Progress is a terminal that can redraw lines
	Colour   bool                    // and shows colours
	Width    func() int              // columns of that terminal
	Verbose  bool                    // every log line, not only those of a stage that failed
	Actions  bool                    // GitHub Actions reads along: groups and annotations
	Catalog  string                  // the file that annotations point at
	Line     func(flavor string) int // where in it a flavor stands; nil: unknown
	Now      func() time.Time        // nil: time.Now
}

// JSON writes every event as one line of JSON until the subscription ends.
func JSON(ctx context.Context, sub *engine.Subscription, w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for {
		events, ok := sub.Next(ctx)
		if !ok {
			return nil
		}
		for _, e := range events {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
	}
}

// SummaryJSON writes the last line of a run's NDJSON.
func SummaryJSON(w io.Writer, s engine.Summary, now time.Time) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(struct {
		Time time.Time `json:"time"`
		Kind string    `json:"kind"`
		engine.Summary
	}{now, "summary", s})
}

// ReplayJSON writes a recording as JSON and SummaryJSON did.
func ReplayJSON(w io.Writer, r *engine.Recording) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, e := range r.Events {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	s, err := r.Result()
	if err != nil {
		return nil // it ends where the run was killed
	}
	return SummaryJSON(w, s, r.Ended)
}

// PlanJSON writes one object a target.
func PlanJSON(w io.Writer, plans []engine.Plan) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, p := range plans {
		if err := enc.Encode(p); err != nil {
			return err
		}
	}
	return nil
}

// PlanText writes the plan as a table and a count.
func PlanText(w io.Writer, plans []engine.Plan) {
	width := 0
	for _, p := range plans {
		width = max(width, len(p.Target))
	}
	count := map[engine.Action]int{}
	for _, p := range plans {
		count[p.Action]++
		fmt.Fprintf(w, "%-*s  %-5s  %s\n", width, p.Target, p.Action, event.Clean(p.Reason))
		more := func(name, format string, args ...any) {
			fmt.Fprintf(w, "%-*s         %-10s  %s\n", width, "", name, event.Clean(fmt.Sprintf(format, args...)))
		}
		if p.Remedy != "" {
			more("what to do", "%s", p.Remedy)
		}
		if u := p.Upstream; u != nil {
			var words []string
			add := func(word string, told bool) {
				if told {
					words = append(words, word)
				}
			}
			add(u.Build, u.Build != "")
			add("of "+u.Date.UTC().Format(time.DateOnly), !u.Date.IsZero())
			add(Bytes(u.Size), u.Size > 0)
			add(u.Trust, u.Trust != "")
			told := u.Signature
			if told == "missing" || strings.HasPrefix(told, "bad") {
				told = "signature " + told
			}
			add(told, told != "not offered")
			more("upstream", "%s", strings.Join(words, ", "))
			more("file", "%s", u.URL)
			if u.Checksum != "" {
				more("checksum", "%s", u.Checksum)
			}
		}
		if p.Way != "" {
			more("customised", "by %s: %s", p.Way, p.WayReason)
		} else if p.WayReason != "" {
			more("customised", "not on this machine: %s", p.WayReason)
		}
		if l := p.Licence; l != nil && l.Redistribution != "free" && p.Upstream != nil {
			decided := ""
			if l.Decision != "" {
				decided = "; decided: " + l.Decision
			}
			more("licence", "%s: %s (%s)%s", l.Redistribution, l.Because, l.URL, decided)
		}
		if p.Published != nil {
			more("published", "%s as %s", p.Published.Digest, strings.Join(p.Published.Tags, ", "))
		}
	}
	fmt.Fprintf(w, "%d to build, %d with nothing to do, %d that cannot be decided\n", count[engine.Build], count[engine.None], count[engine.Fail])
}

// SummaryText writes how a run ended: the seconds of every stage, as a table where width has room for one (0: it has),
// then what each target came to, failures first.
func SummaryText(w io.Writer, s engine.Summary, width int) {
	worked := false
	first := len("target")
	for _, r := range s.Results {
		if len(r.Stages) > 0 {
			worked = true
			first = max(first, len(r.Target))
		}
	}
	const cell = 11
	table := width == 0 || first+(len(engine.Stages)+1)*cell <= width
	if worked && table {
		fmt.Fprintf(w, "%-*s", first, "target")
		for _, st := range engine.Stages {
			fmt.Fprintf(w, "%*s", cell, st)
		}
		fmt.Fprintf(w, "%*s\n", cell, "seconds")
	}
	for _, r := range s.Results {
		switch {
		case len(r.Stages) == 0:
		case table:
			fmt.Fprintf(w, "%-*s", first, r.Target)
			for _, st := range engine.Stages {
				fmt.Fprintf(w, "%*s", cell, seconds(r, st))
			}
			fmt.Fprintf(w, "%*.1f\n", cell, r.Seconds)
		default:
			words := []string{}
			for _, st := range r.Stages {
				words = append(words, string(st.Stage)+" "+seconds(r, st.Stage))
			}
			fmt.Fprintf(w, "seconds   %s: %s; %.1f in all\n", r.Target, strings.Join(words, ", "), r.Seconds)
		}
	}
	if worked {
		fmt.Fprintln(w)
	}
	for _, failed := range []bool{true, false} {
		for _, r := range s.Results {
			if (r.State == event.Failed) != failed {
				continue
			}
			switch r.State {
			case event.Failed:
				fmt.Fprintf(w, "FAILED    %s: %s\n", r.Target, r.Error)
				if r.Remedy != "" {
					fmt.Fprintf(w, "          what to do: %s\n", r.Remedy)
				}
				for _, st := range r.Stages {
					if st.State == event.Failed && st.Log != "" {
						fmt.Fprintf(w, "          the whole log: %s\n", st.Log)
					}
				}
			case event.Skipped:
				fmt.Fprintf(w, "nothing   %s: %s\n", r.Target, r.Reason)
			default:
				fmt.Fprintf(w, "done      %s: %s\n", r.Target, r.Reason)
			}
			if r.Image != "" {
				fmt.Fprintf(w, "          image  %s\n", r.Image)
			}
			if len(r.Tags) > 0 {
				fmt.Fprintf(w, "          tags   %s\n", strings.Join(r.Tags, ", "))
			}
		}
	}
}

// seconds is what a stage took, or why it took none.
func seconds(r engine.Result, stage engine.Stage) string {
	for _, st := range r.Stages {
		if st.Stage != stage {
			continue
		}
		switch st.State {
		case event.Skipped:
			return "-"
		case event.Failed:
			return fmt.Sprintf("✗ %.1f", st.Seconds)
		}
		return fmt.Sprintf("%.1f", st.Seconds)
	}
	return ""
}

// Bytes spells a number of bytes for people.
func Bytes(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for ; v >= 1024 && i < 4; i++ {
		v /= 1024
	}
	return fmt.Sprintf("%.1f %s", v, []string{"KiB", "MiB", "GiB", "TiB", "PiB"}[i])
}

// amount spells progress.
func amount(e event.Event) string {
	what, bytes := event.Bytes(e.Unit)
	switch {
	case bytes && e.Total > 0:
		return strings.TrimSuffix(Bytes(e.Done)+" of "+Bytes(e.Total)+" "+what, " ")
	case bytes:
		return strings.TrimSuffix(Bytes(e.Done)+" "+what, " ")
	case e.Total > 0:
		return fmt.Sprintf("%d of %d %s", e.Done, e.Total, e.Unit)
	}
	return fmt.Sprintf("%d %s", e.Done, e.Unit)
}

// cut shortens a text to so many columns.
func cut(s string, width int) string {
	if width <= 0 {
		return ""
	}
	return runewidth.Truncate(s, width, "…")
}
