package ui

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for something to appear on the screen: on a machine that does much else at once.
const patience = time.Minute

// clock is a clock that only tests move on: what has to come soon after something does, also on a busy machine.
type clock struct {
	began time.Time
	ahead atomic.Int64
}

func (c *clock) now() time.Time          { return c.began.Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// counted is a terminal that counts what is written to it: a frame counts as soon as somebody begins to write it.
type counted struct {
	*os.File
	bytes atomic.Int64
}

func (d *counted) Write(p []byte) (int, error) {
	d.bytes.Add(int64(len(p)))
	n, err := d.File.Write(p)
	d.bytes.Add(int64(n - len(p)))
	return n, err
}

// terminalTest is a console on an emulated terminal.
type terminalTest struct {
	t       *testing.T
	clock   *clock
	master  *os.File
	vt      vt10x.Terminal
	out     *counted
	seen    atomic.Int64  // bytes of it that are on the emulated screen
	changed chan struct{} // something was drawn
	cancel  context.CancelCauseFunc
	ended   chan error // how ui.Run ended
}

// open starts the console on a terminal of w×h cells.
func open(t *testing.T, e Engine, w, h int, options ...func(*Options)) *terminalTest {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	master = pollable(t, master)
	x := &terminalTest{t: t, clock: &clock{began: time.Now()}, master: master, vt: vt10x.New(vt10x.WithSize(w, h)), out: &counted{File: slave}, changed: make(chan struct{}, 1), ended: make(chan error, 1)}
	x.size(w, h)
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 64<<10)
		for {
			n, err := master.Read(buf)
			if n > 0 {
				_, _ = x.vt.Write(buf[:n])
				x.seen.Add(int64(n))
				x.wake()
			}
			if err != nil {
				return
			}
		}
	}()
	ctx, cancel := context.WithCancelCause(context.Background())
	x.cancel = cancel
	o := Options{In: slave, Out: x.out, Now: x.clock.now}
	for _, f := range options {
		f(&o)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := Run(ctx, e, o)
		x.ended <- err
		x.wake()
	}()
	t.Cleanup(func() {
		cancel(fmt.Errorf("the test is over"))
		select {
		case <-done:
		case <-time.After(patience):
			t.Errorf("the console did not end\n%s", x.screen())
		}
		_ = slave.Close()
		_ = master.Close()
		<-read
	})
	return x
}

// pollable makes of a pseudo-terminal one whose reader a Close or a deadline wakes up.
func pollable(t testing.TB, master *os.File) *os.File {
	t.Helper()
	if err := unix.SetNonblock(int(master.Fd()), true); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(master.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.SetNonblock(fd, true)
	_ = master.Close()
	return os.NewFile(uintptr(fd), "pty")
}

// size gives the terminal a size.
func (x *terminalTest) size(w, h int) {
	x.t.Helper()
	x.vt.Resize(w, h)
	x.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(w), Row: uint16(h)})
	})
}

func (x *terminalTest) control(f func(fd int) error) {
	x.t.Helper()
	c, err := x.master.SyscallConn()
	if err == nil {
		cerr := c.Control(func(fd uintptr) { err = f(int(fd)) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminalTest) wake() {
	select {
	case x.changed <- struct{}{}:
	default:
	}
}

// screen is what is on the screen, without spaces at the ends of lines.
func (x *terminalTest) screen() string {
	lines := strings.Split(x.vt.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// whole is the screen with whole frames on it; false: one is being drawn. On a busy machine a screen is seen with the
// title of one frame and the keys of the one before.
func (x *terminalTest) whole() (string, bool) {
	n := x.out.bytes.Load()
	if x.seen.Load() < n {
		return "", false
	}
	s := x.screen()
	return s, x.out.bytes.Load() == n
}

// until waits until ok says that the screen is as it should be.
func (x *terminalTest) until(what string, ok func(screen string) bool) string {
	x.t.Helper()
	deadline := time.After(patience)
	for {
		if s, whole := x.whole(); whole && ok(s) {
			return s
		}
		select {
		case <-x.changed:
		case <-deadline:
			x.t.Fatalf("no %s on the screen:\n%s", what, x.screen())
		}
	}
}

// wait waits until all of the texts are on the screen.
func (x *terminalTest) wait(texts ...string) string {
	x.t.Helper()
	return x.until(fmt.Sprintf("%q", texts), func(s string) bool {
		for _, text := range texts {
			if !strings.Contains(s, text) {
				return false
			}
		}
		return true
	})
}

// gone waits until the text is not on the screen.
func (x *terminalTest) gone(text string) string {
	x.t.Helper()
	return x.until("screen without "+text, func(s string) bool { return !strings.Contains(s, text) })
}

var keyCodes = map[string]string{"enter": "\r", "esc": "\x1b", "up": "\x1b[A", "down": "\x1b[B", "right": "\x1b[C", "left": "\x1b[D", "space": " ", "tab": "\t", "shift+tab": "\x1b[Z",
	"ctrl+c": "\x03", "pgdn": "\x1b[6~", "pgup": "\x1b[5~", "end": "\x1b[F", "home": "\x1b[H", "backspace": "\x7f", "ctrl+u": "\x15"}

// press presses keys, one write each; a text that is no key's name is typed.
func (x *terminalTest) press(keys ...string) {
	x.t.Helper()
	for _, k := range keys {
		code, ok := keyCodes[k]
		if !ok {
			code = k
		}
		if _, err := x.master.WriteString(code); err != nil {
			x.t.Fatal(err)
		}
	}
}

// answer answers the question that is open, after the moment in which it is deaf.
func (x *terminalTest) answer(question string, keys ...string) {
	x.t.Helper()
	x.wait(question)
	x.clock.advance(2 * deaf)
	x.press(keys...)
}

// end waits until the console has ended.
func (x *terminalTest) end() error {
	x.t.Helper()
	select {
	case err := <-x.ended:
		return err
	case <-time.After(patience):
		x.t.Fatalf("the console did not end:\n%s", x.screen())
		return nil
	}
}
