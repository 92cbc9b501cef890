package headless

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

const (
	tailLines = 15               // log lines shown of a stage that failed
	heartbeat = 20 * time.Second // how often plain output says that a stage is still at it
	frame     = 100 * time.Millisecond
)

// key names a stage of a target.
type key struct{ target, stage string }

// active is a stage under way.
type active struct {
	key
	since    time.Time
	progress string
	share    float64 // done/total, or -1
	line     string
	tail     []string
	said     time.Time
	told     bool // that it started
}

type text struct {
	Options
	active []*active
	drawn  int // status lines on the terminal
	buf    bytes.Buffer
}

// Text shows events as lines for people until the subscription ends.
func Text(ctx context.Context, sub *engine.Subscription, o Options) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	t := &text{Options: o}
	tick := time.NewTicker(frame)
	defer tick.Stop()
	batches := make(chan []event.Event)
	go func() {
		defer close(batches)
		for {
			events, ok := sub.Next(ctx)
			if !ok {
				return
			}
			batches <- events
		}
	}()
	for {
		select {
		case events, ok := <-batches:
			if !ok {
				t.erase()
				return t.flush()
			}
			t.erase()
			for _, e := range events {
				t.event(e)
			}
			t.draw()
		case <-tick.C:
			t.erase()
			t.beat()
			t.draw()
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
}

// Replay shows recorded events at once as Text did while they happened: the times are those of the run.
func Replay(events []event.Event, o Options) error {
	t := &text{Options: o}
	t.Live = false
	if len(events) == 0 {
		return nil
	}
	now := events[0].Time.Local()
	t.Now = func() time.Time { return now }
	next := now.Add(frame)
	for _, e := range events {
		at := e.Time.Local()
		for len(t.active) > 0 && next.Before(at) {
			now = next
			t.beat()
			next = t.nextBeat()
		}
		if at.After(now) {
			now = at
		}
		if len(t.active) == 0 || next.Before(now) {
			next = now.Add(frame)
		}
		t.event(e)
		if t.buf.Len() > 64<<10 {
			if err := t.flush(); err != nil {
				return err
			}
		}
	}
	return t.flush()
}

// nextBeat is when beat has something to say again at the earliest.
func (t *text) nextBeat() time.Time {
	next := t.Now().Add(heartbeat)
	for _, a := range t.active {
		if !a.told {
			return t.Now().Add(frame)
		}
		if at := a.said.Add(heartbeat); at.Before(next) {
			next = at
		}
	}
	return next
}

func (t *text) flush() error {
	_, err := t.Progress.Write(t.buf.Bytes())
	t.buf.Reset()
	return err
}

func (t *text) find(k key) *active {
	for _, a := range t.active {
		if a.key == k {
			return a
		}
	}
	return nil
}

func (t *text) event(e event.Event) {
	k := key{e.Target, e.Stage}
	a := t.find(k)
	switch {
	case e.Stage == "" && e.Kind == event.Log:
		t.printf("%s\n", strings.TrimPrefix(e.String(), ": "))
	case e.Stage == "":
		// A target or the run as a whole: the summary says it.
	case e.Kind == event.Started:
		t.active = append(t.active, &active{key: k, since: t.Now(), said: t.Now(), share: -1})
	case e.Kind == event.Progress && a != nil:
		a.progress = amount(e)
		a.share = -1
		if e.Total > 0 {
			a.share = float64(e.Done) / float64(e.Total)
		}
	case e.Kind == event.Log:
		if a != nil {
			a.line = e.Line
			if a.tail = append(a.tail, e.Line); len(a.tail) > tailLines {
				a.tail = a.tail[1:]
			}
		}
		if t.Verbose {
			t.printf("%s %s | %s\n", t.clock(), t.label(k), e.Line)
		}
	case e.Kind.Ends():
		t.end(e, a)
	}
}

func (t *text) end(e event.Event, a *active) {
	k := key{e.Target, e.Stage}
	mark, colour := "✓ done   ", "32"
	switch e.Kind {
	case event.Skipped:
		mark, colour = "- nothing", "36"
	case event.Failed:
		mark, colour = "✗ FAILED ", "31;1"
	}
	what := e.Reason
	if e.Kind == event.Failed {
		what = e.Error
	}
	t.printf("%s %s %s %6.1f s  %s\n", t.clock(), t.label(k), t.paint(colour, mark), e.Seconds, what)
	if e.Kind == event.Failed {
		if !t.Verbose && a != nil && !strings.HasPrefix(e.Error, "interrupted") { // who stopped it knows why
			for _, line := range a.tail {
				t.printf("%s %s | %s\n", t.clock(), t.label(k), line)
			}
		}
		if e.Remedy != "" {
			t.printf("%s %s %s\n", t.clock(), t.label(k), t.paint("1", "what to do: "+e.Remedy))
		}
		if e.LogFile != "" {
			t.printf("%s %s the whole log: %s\n", t.clock(), t.label(k), e.LogFile)
		}
		if t.Actions {
			where := "file=" + t.Catalog
			flavor, _, _ := strings.Cut(e.Target, ":")
			if t.Line != nil {
				if n := t.Line(flavor); n > 0 {
					where += fmt.Sprintf(",line=%d", n)
				}
			}
			t.printf("::error %s,title=%s::%s\n", where, property(e.Target+" "+e.Stage), data(e.Error+" "+e.Remedy))
		}
	}
	for i := range t.active {
		if t.active[i] == a {
			t.active = append(t.active[:i], t.active[i+1:]...)
			break
		}
	}
}

// data and property escape a value of a workflow command, as GitHub's runner reads it back.
func data(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func property(s string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(data(s))
}

// beat lets plain output say now and then that a stage is still at it.
func (t *text) beat() {
	if t.Live {
		return
	}
	now := t.Now()
	for _, a := range t.active {
		if !a.told { // what ends at once needs no line for its beginning
			a.told = true
			t.printf("%s %s … started\n", t.clock(), t.label(a.key))
			continue
		}
		if now.Sub(a.said) < heartbeat {
			continue
		}
		a.said = now
		words := []string{fmt.Sprintf("for %.0f s", now.Sub(a.since).Seconds())}
		if a.progress != "" {
			words = append(words, a.progress)
		}
		if a.line != "" {
			words = append(words, cut(a.line, 100))
		}
		t.printf("%s %s … %s\n", t.clock(), t.label(a.key), strings.Join(words, " · "))
	}
}

// draw puts one status line per active stage at the end of the terminal; erase takes them away again.
func (t *text) draw() {
	if !t.Live {
		return
	}
	width := 80
	if t.Width != nil {
		width = t.Width()
	}
	const most = 12
	for i, a := range t.active {
		if i == most {
			fmt.Fprintf(&t.buf, "  … and %d more\n", len(t.active)-most)
			t.drawn++
			break
		}
		bar := ""
		if a.share >= 0 {
			const cells = 16
			n := int(a.share * cells)
			bar = strings.Repeat("█", n) + strings.Repeat("░", cells-n) + " "
		}
		s := fmt.Sprintf("  %s %s%6.1f s", t.label(a.key), bar, t.Now().Sub(a.since).Seconds())
		if a.progress != "" {
			s += "  " + a.progress
		}
		if a.line != "" {
			s += "  " + a.line
		}
		fmt.Fprintf(&t.buf, "%s\n", cut(s, width-1))
		t.drawn++
	}
}

func (t *text) erase() {
	if t.drawn > 0 {
		fmt.Fprintf(&t.buf, "\x1b[%dA\x1b[J", t.drawn)
		t.drawn = 0
	}
}

func (t *text) printf(format string, args ...any) { fmt.Fprintf(&t.buf, format, args...) }

func (t *text) clock() string { return t.Now().Format("15:04:05") }

func (t *text) label(k key) string { return fmt.Sprintf("%-18s %-9s", k.target, k.stage) }

func (t *text) paint(code, s string) string {
	if !t.Colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
