package main_test

import (
	"bytes"
	"io"
	"regexp"
	"testing"
	"time"

	"github.com/creack/pty"
)

// The console on terminals of all kinds, none of which answers anything: it asks nothing, opens, and is left.
func TestTerminalsOfAllKinds(t *testing.T) {
	questions := regexp.MustCompile("\x1b\\[[0-9;?>=]*[cn]|\x1b\\]1[0-9];\\?|\x1bP")
	colours := regexp.MustCompile("\x1b\\[[0-9;]*(3|4|9|10)[0-9][;m]")
	utf8 := []string{"LANG=C.UTF-8", "LC_ALL=C.UTF-8"}
	for _, x := range []struct {
		name           string
		env            []string
		w, h           uint16
		ascii, noColor bool
		dumb           bool
	}{
		{"xterm", append(utf8, "TERM=xterm-256color"), 120, 40, false, false, false},
		{"screen", append(utf8, "TERM=screen"), 80, 24, false, false, false},
		{"vt100", append(utf8, "TERM=vt100"), 80, 24, false, false, false},
		{"unset", append(utf8, "TERM="), 80, 24, false, false, false},
		{"the kernel's", append(utf8, "TERM=linux"), 80, 25, true, false, false},
		{"C", []string{"TERM=xterm", "LANG=C", "LC_ALL=C"}, 80, 24, true, false, false},
		{"NO_COLOR", append(utf8, "TERM=xterm", "NO_COLOR=1"), 80, 24, false, true, false},
		{"narrow", append(utf8, "TERM=xterm"), 40, 12, false, false, false},
		{"without a size", append(utf8, "TERM=xterm"), 0, 0, false, false, false},
		{"dumb", append(utf8, "TERM=dumb"), 80, 24, true, true, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			u := newUser(t)
			c := u.command(append([]string{"--registry", "dir:" + u.home + "/images", "--base", "scratch"}, nothing(t)...)...)
			c.Env = append(append(c.Env, "NO_COLOR=", "LC_CTYPE=", "COLORTERM="), x.env...)
			began := time.Now()
			tty, err := pty.StartWithSize(c, &pty.Winsize{Cols: x.w, Rows: x.h})
			if err != nil {
				t.Fatal(err)
			}
			defer tty.Close()
			defer time.AfterFunc(time.Minute, func() { _ = c.Process.Kill() }).Stop()
			first := []byte("AlmaLinux OS")
			if x.w == 0 {
				first = []byte("\x1b[?1049h")
			}
			var out []byte
			buf := make([]byte, 32<<10)
			for !bytes.Contains(out, first) {
				n, err := tty.Read(buf)
				if out = append(out, buf[:n]...); err != nil {
					t.Fatalf("%v after %q", err, out)
				}
			}
			t.Logf("the first row was there after %s", time.Since(began))
			leave := "q"
			if x.dumb {
				leave = "quit\n"
			}
			if _, err := tty.WriteString(leave); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(tty)
			out = append(out, rest...)
			if err := c.Wait(); err != nil {
				t.Errorf("%v: %q", err, out)
			}
			if q := questions.Find(out); q != nil {
				t.Errorf("it asked %q", q)
			}
			if x.noColor && colours.Match(out) {
				t.Errorf("it has colours: %q", colours.Find(out))
			} else if !x.noColor && x.w > 0 && !colours.Match(out) {
				t.Errorf("it has no colours: %q", out)
			}
			if i := bytes.IndexFunc(out, func(r rune) bool { return r > 0x7e }); x.ascii && i >= 0 {
				t.Errorf("it is not ASCII: %q", out[i:min(len(out), i+20)])
			}
			if x.dumb {
				if bytes.ContainsRune(out, 0x1b) {
					t.Errorf("a terminal that can do nothing got %q", out)
				}
				return
			}
			for _, want := range []string{"\x1b[?1049l", "\x1b[?25h", "\x1b[?2004l"} {
				if !bytes.Contains(out, []byte(want)) {
					t.Errorf("it does not end with %q", want)
				}
			}
		})
	}
	// Not on a terminal there is no console.
	u := newUser(t)
	c := u.command()
	if out, err := c.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("use --batch")) {
		t.Errorf("%v: %s", err, out)
	}
}
