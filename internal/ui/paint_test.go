package ui

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"golang.org/x/sys/unix"
)

// What was drawn line by line is what a terminal shows of the whole frame.
func TestPainter(t *testing.T) {
	const w, h = 30, 8
	r := rand.New(rand.NewPCG(5, 9))
	vt := vt10x.New(vt10x.WithSize(w, h))
	st := newStyles(true)
	p := &painter{}
	for i := range 500 {
		var lines []string
		for range r.IntN(h + 1) {
			text := []string{"", "short", strings.Repeat("x", w), "日本語 wide", "▸ " + strings.Repeat("y", r.IntN(w-2))}[r.IntN(5)]
			lines = append(lines, []paint{st.text, st.bad, st.match}[r.IntN(3)].of(text))
		}
		_, _ = vt.Write([]byte(p.draw(strings.Join(lines, "\n"), r.IntN(10) == 0)))
		screen := strings.Split(vt.String(), "\n")
		whole := vt10x.New(vt10x.WithSize(w, h))
		for i, l := range lines {
			_, _ = fmt.Fprintf(whole, "\x1b[%d;1H%s", i+1, l)
		}
		for k, want := range strings.Split(whole.String(), "\n") {
			if strings.TrimRight(screen[k], " ") != strings.TrimRight(want, " ") {
				t.Fatalf("frame %d, line %d: %q, want %q", i, k, screen[k], want)
			}
		}
		if again := p.draw(strings.Join(lines, "\n"), false); again != "" {
			t.Fatalf("the same frame again is %q", again)
		}
	}
}

// A terminal that is lent is as it was before, and the console's again after that; the wheel's mode comes and goes with
// it.
func TestTerminalIsLent(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	var mu sync.Mutex
	var wrote strings.Builder
	changed := make(chan struct{}, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			mu.Lock()
			wrote.Write(buf[:n])
			mu.Unlock()
			select {
			case changed <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	wait := func(text string) {
		t.Helper()
		for {
			mu.Lock()
			i := strings.Index(wrote.String(), text)
			if i >= 0 {
				rest := wrote.String()[i+len(text):]
				wrote.Reset()
				wrote.WriteString(rest)
			}
			mu.Unlock()
			if i >= 0 {
				return
			}
			select {
			case <-changed:
			case <-time.After(patience):
				t.Fatalf("no %q in %q", text, wrote.String())
			}
		}
	}
	raw := func(want bool) {
		t.Helper()
		attr, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil || (attr.Lflag&unix.ICANON == 0) != want {
			t.Errorf("raw: %v, %v", !want, err)
		}
	}
	p, err := newPainter(slave, newOutput(slave))
	if err != nil {
		t.Fatal(err)
	}
	wait("\x1b[?1049h")
	raw(true)
	p.show("the frame", false)
	wait("the frame")
	p.setMouse(true)
	wait(mouseOn)
	if err := p.lend(func() {
		wait(mouseOff)
		wait("\x1b[?1049l")
		raw(false)
		p.show("a newer frame", false)
	}); err != nil {
		t.Fatal(err)
	}
	wait("\x1b[?1049h")
	wait(mouseOn)
	wait("a newer frame")
	raw(true)
	p.close()
	wait("\x1b[?1049l")
	raw(false)
	p.close()
	if err := p.lend(func() { t.Error("it is nobody's any more") }); err != nil {
		t.Error(err)
	}
	_ = slave.Close()
	_ = master.Close()
	<-read
}
