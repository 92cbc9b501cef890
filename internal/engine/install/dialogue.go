package install

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"syscall"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

const (
	settle     = 250 * time.Millisecond // of silence after which a prompt is taken to be complete
	writeLimit = 30 * time.Second       // for the guest's serial port to take what is typed
	shown      = 120                    // bytes of an expression, or of what is typed, in a line of the log
)

// turn is a step that is ready to be used.
type turn struct {
	expect   *regexp.Regexp
	typed    string
	shown    string // what is typed, for people, ": typing …"
	within   time.Duration
	optional bool
}

// dialogue is the talk of one power-on.
type dialogue struct {
	turns []turn
	text  *regexp.Regexp // of an end by text
	end   time.Duration  // the end's limit
	pause time.Duration  // see settle
	told  func(done, total int)
}

// prepare compiles a boot's dialogue, whose placeholders are filled. slow is the factor of the time limits.
func prepare(b Boot, slow float64, kept *transcript) (*dialogue, error) {
	limit := func(seconds int) time.Duration {
		if seconds == 0 {
			seconds = defaultWithin
		}
		return time.Duration(float64(seconds) * slow * float64(time.Second))
	}
	d := &dialogue{end: limit(b.End.Within), pause: settle, told: func(int, int) {}}
	for i, s := range b.Dialogue {
		re, err := regexp.Compile(s.Expect)
		if err != nil {
			return nil, fmt.Errorf("dialogue %d: expect: %w", i+1, err)
		}
		typed, texts, err := keystrokes(s.Send)
		if err != nil {
			return nil, fmt.Errorf("dialogue %d: send: %w", i+1, err)
		}
		t := turn{re, typed, "", limit(s.Within), s.Optional}
		if typed != "" {
			t.shown = fmt.Sprintf(": typing %.*q", shown, s.Send)
		}
		if s.Secret {
			t.shown = ": typing a secret"
			for _, text := range texts {
				if len(text) < minSecret {
					return nil, fmt.Errorf("dialogue %d: secret: one of less than %d characters cannot be kept out of a log: write a longer one", i+1, minSecret)
				}
			}
			kept.conceal(texts)
		}
		d.turns = append(d.turns, t)
	}
	if b.End.Kind == "text" {
		re, err := regexp.Compile(b.End.Text)
		if err != nil {
			return nil, fmt.Errorf("end: text: %w", err)
		}
		d.text = re
	}
	return d, nil
}

// machinesEnd is what is waited for in the end, unless it is a text.
const machinesEnd = "the machine's end"

// minSecret is how many bytes a secret has at least: every occurrence of it is blotted out.
const minSecret = 4

// waiting says which expressions are looked for, and which turn each belongs to (len(d.turns): the end), when so much
// time is gone since the last one: the optional turns whose time is not up, and the one that is needed, with its limit.
// timer is when that changes.
func (d *dialogue) waiting(next int, gone time.Duration) (list []*regexp.Regexp, who []int, limit, timer time.Duration) {
	limit, timer = d.end, maxWithin*time.Hour
	for i := next; i <= len(d.turns); i++ {
		if i == len(d.turns) {
			if d.text != nil {
				list, who = append(list, d.text), append(who, i)
			}
			break
		}
		t := d.turns[i]
		if t.optional && gone >= t.within {
			continue
		}
		list, who = append(list, t.expect), append(who, i)
		if !t.optional {
			limit = t.within
			break
		}
		timer = min(timer, t.within)
	}
	return list, who, limit, min(timer, limit)
}

// needed describes, for an error, what the dialogue cannot do without.
func (d *dialogue) needed(next int) string {
	for i := next; i < len(d.turns); i++ {
		if !d.turns[i].optional {
			return fmt.Sprintf("step %d of %d, /%s/,", i+1, len(d.turns), machine.Clip(d.turns[i].expect.String(), shown))
		}
	}
	if d.text != nil {
		return fmt.Sprintf("the end, /%s/,", machine.Clip(d.text.String(), shown))
	}
	return machinesEnd
}

// hold talks until the last step is through and the end has come: nil where its text was printed, *ended where the
// machine has gone. Other errors: the step that did not come; a line that ends everything; the context's cause. It
// closes the connection.
func (d *dialogue) hold(ctx context.Context, con net.Conn, s *screen) error {
	defer con.Close()
	defer s.close()
	chunks, over := make(chan []byte), make(chan struct{})
	defer close(over)
	go func() {
		defer close(chunks)
		for {
			b := make([]byte, 16<<10)
			n, err := con.Read(b)
			if n > 0 {
				select {
				case chunks <- b[:n]:
				case <-over:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	next, last, printed := 0, time.Now(), time.Now()
	for {
		d.told(next, len(d.turns))
		list, who, limit, wake := d.waiting(next, time.Since(last))
		timeUp := time.Since(last) >= limit
		silent := timeUp || time.Since(printed) >= d.pause
		// A line that ends everything is waited for to its end: it says more.
		line, why := s.look()
		if why != nil && silent {
			return d.failed(line, why, next)
		}
		which, tentative := -1, true
		if why == nil {
			which, tentative = s.met(list, silent)
		}
		if which >= 0 {
			if who[which] == len(d.turns) {
				s.kept.note("the end: the console says what was waited for")
				return nil
			}
			next = who[which] + 1
			t := d.turns[next-1]
			if len(s.window) == 0 && t.typed != "" {
				s.close() // the prompt stands before what is typed in the transcript, too
			}
			s.kept.note("step %d of %d came after %.1f s%s", next, len(d.turns), time.Since(last).Seconds(), t.shown)
			if err := send(ctx, con, t.typed); err != nil {
				return fmt.Errorf("step %d of %d: %w", next, len(d.turns), err)
			}
			last = time.Now()
			continue
		}
		if timeUp {
			return fmt.Errorf("%s did not come within %s", d.needed(next), limit.Round(time.Millisecond))
		}
		until := last.Add(wake)
		if quiet := printed.Add(d.pause); tentative && quiet.Before(until) {
			until = quiet
		}
		timer := time.NewTimer(time.Until(until))
		select {
		case b, ok := <-chunks:
			if !ok {
				timer.Stop()
				return d.over(ctx, s, next)
			}
			printed = time.Now()
			if line, why := s.feed(b); why != nil {
				timer.Stop()
				return d.failed(line, why, next)
			}
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

// failed is the error of a line that ends everything.
func (d *dialogue) failed(line string, why *regexp.Regexp, next int) error {
	return fmt.Errorf("while waiting for %s the console said %q, which /%s/ in fail stands for", d.needed(next), line, why)
}

// ended says that the machine has gone, and what it should have said before ("" for nothing).
type ended struct{ missing string }

func (e *ended) Error() string { return "the machine ended before " + e.missing + " came" }

// over judges the end of the console. What was printed last may still be what steps wait for, though nobody is there to
// answer.
func (d *dialogue) over(ctx context.Context, s *screen, next int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if line, why := s.look(); why != nil {
		return d.failed(line, why, next)
	}
	for {
		list, who, _, _ := d.waiting(next, 0)
		which, _ := s.met(list, true)
		if which < 0 {
			break
		}
		if who[which] == len(d.turns) {
			return nil
		}
		next = who[which] + 1
		s.kept.note("step %d of %d came with the machine's end", next, len(d.turns))
	}
	missing := d.needed(next)
	if missing == machinesEnd {
		missing = ""
	}
	return &ended{missing}
}

// send types.
func send(ctx context.Context, con net.Conn, typed string) error {
	if typed == "" {
		return nil
	}
	_ = con.SetWriteDeadline(time.Now().Add(writeLimit))
	defer context.AfterFunc(ctx, func() { _ = con.SetWriteDeadline(time.Unix(1, 0)) })()
	_, err := con.Write([]byte(typed))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the guest does not read its serial port")
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) {
		return nil // the machine has ended: what is read next says so
	}
	return err
}
