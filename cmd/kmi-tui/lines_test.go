package main_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// The palette's command lines are command lines: the shell takes them apart, and the program knows every word.
func TestThePaletteCopiesCommandLines(t *testing.T) {
	u := newUser(t)
	bin := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(bin, "kmi-tui")); err != nil {
		t.Fatal(err)
	}
	c := u.command(append([]string{"--registry", "dir:" + u.home + "/it's here", "--base", "scratch"}, nothing(t)...)...)
	c.Env = append(c.Env, "TERM=xterm-256color")
	tty, err := pty.StartWithSize(c, &pty.Winsize{Rows: 50, Cols: 200})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	out := make(chan []byte, 64)
	go func() {
		defer close(out)
		for {
			buf := make([]byte, 32<<10)
			n, err := tty.Read(buf)
			if err != nil {
				return
			}
			out <- buf[:n]
		}
	}()
	var seen []byte
	deadline := time.After(time.Minute)
	until := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			select {
			case data, open := <-out:
				if !open {
					t.Fatalf("the console has ended before %s: %q", what, seen)
				}
				seen = append(seen, data...)
			case <-deadline:
				t.Fatalf("no %s in %q", what, seen)
			}
		}
	}
	until("chart", func() bool { return bytes.Contains(seen, []byte("AlmaLinux OS")) })
	copied := regexp.MustCompile("\x1b]52;c;([A-Za-z0-9+/=]*)\x07")
	for name, want := range map[string]string{
		"plan": " --batch --plan --only ", "look": " --only '*'", "build": " --batch --only ", "build up to": " --until test ", "details": " --output json ",
		"select": " --plan --only ", "select stable": " --level stable ", "select all": " --plan --", "retry": " --batch --only ", "theme light": " --theme light",
		"promote": " promote ", "try me": " tryme ", "help": " --help", "copy command": " --batch --only ", "show run": " replay last",
	} {
		seen = nil
		// An escape and what comes after it may come together.
		if _, err := tty.WriteString(":" + name + "\x19\x1b"); err != nil {
			t.Fatal(err)
		}
		until("line of "+name, func() bool { return copied.Match(seen) })
		data, err := base64.StdEncoding.DecodeString(string(copied.FindSubmatch(seen)[1]))
		line := string(data)
		if err != nil || !strings.HasPrefix(line, "kmi-tui") || !strings.Contains(line, want) {
			t.Errorf("%s: %v, %q, want %q in it", name, err, line, want)
			continue
		}
		sh := exec.Command("sh", "-c", line+" --help")
		sh.Dir, sh.Env = c.Dir, append(c.Env, "PATH="+bin+":"+os.Getenv("PATH"))
		if said, err := sh.CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v: %s", name, line, err, said)
		}
	}
	if _, err := tty.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	until("end", func() bool {
		return bytes.Contains(seen, []byte("\x1b[?1049l"))
	})
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}
