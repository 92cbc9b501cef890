package main_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// nothing are the flags of a mirror that has nothing.
func nothing(t *testing.T) []string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return []string{"--mirror", "https://=" + server.URL + "/", "--mirror", "http://=" + server.URL + "/"}
}

// A run is recorded, and what replay prints of it is what the run printed.
func TestReplayPrintsWhatTheRunPrinted(t *testing.T) {
	u := newUser(t)
	u.want(2, "nothing is recorded", "replay", "last", "--cache", u.home)
	stdout, stderr, code := u.run(append([]string{"--batch", "--only", "archlinux,amazonlinux", "--until", "resolve"}, nothing(t)...)...)
	if code != 1 || !strings.Contains(stderr, "FAILED") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	runs, _ := filepath.Glob(filepath.Join(u.home, ".cache/kmi-tui/runs/*.ndjson"))
	if len(runs) != 1 {
		t.Fatalf("recorded: %q", runs)
	}
	again, errs, code := u.run("replay", "last", "--batch")
	if again != stdout || ends(errs) != ends(stderr) || code != 0 {
		t.Errorf("exit code %d, replayed:\n%s%s\nthe run printed:\n%s%s", code, again, errs, stdout, stderr)
	}
	asJSON, _, code := u.run("replay", runs[0], "--output", "json")
	lines := strings.Split(strings.TrimSpace(asJSON), "\n")
	var last struct{ Kind string }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Kind != "summary" || code != 0 || strings.Contains(asJSON, `"kind":"recording"`) {
		t.Errorf("exit code %d: %s", code, asJSON)
	}
	c := u.command("replay", "-", "--batch")
	c.Stdin = strings.NewReader(asJSON)
	if out, err := c.Output(); err != nil || string(out) != stdout {
		t.Errorf("%v: %s", err, out)
	}
	u.want(2, "the console needs a terminal", "replay", "last")
	u.want(2, "speed fast: write how many times as fast", "replay", "last", "--speed", "fast")
	u.want(2, "is no recording", "replay", "README.md")
	u.want(0, "recording 20", "cache")
}

// ends are the lines of a run's output that say how something ended; those that say that it is under way depend on the
// machine.
func ends(text string) string {
	var list []string
	for line := range strings.SplitSeq(text, "\n") {
		if !strings.Contains(line, " … ") {
			list = append(list, line)
		}
	}
	return strings.Join(list, "\n")
}

// A run that is killed leaves a recording that can be read up to its last moments.
func TestKilledRunIsRecorded(t *testing.T) {
	u := newUser(t)
	asked := make(chan struct{}, 100)
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(release)
	r := u.start("--batch", "--only", "archlinux", "--until", "resolve", "--mirror", "https://="+server.URL+"/")
	r.until("resolve", func(e engine.Event) bool { return e.Stage == "resolve" && e.Kind == "started" })
	<-asked
	deadline := time.Now().Add(time.Minute)
	for { // it is on disk within a fraction of a second
		runs, _ := filepath.Glob(filepath.Join(u.home, ".cache/kmi-tui/runs/*.ndjson"))
		if len(runs) == 1 {
			if data, _ := os.ReadFile(runs[0]); bytes.Contains(data, []byte(`"stage":"resolve","kind":"started"`)) {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the beginning of the run is not recorded")
		}
		time.Sleep(5 * time.Millisecond)
	}
	signal(t, r, syscall.SIGKILL)
	_ = r.Wait()
	out, errs := u.want(0, "the recording ends here", "replay", "last", "--batch")
	if !strings.Contains(out+errs, "archlinux:") {
		t.Errorf("%s%s", out, errs)
	}
}

// Where a run cannot be recorded it says so once, and goes on.
func TestRunThatCannotBeRecorded(t *testing.T) {
	u := newUser(t)
	cache := t.TempDir()
	if err := os.WriteFile(filepath.Join(cache, "runs"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, stderr := u.want(1, "FAILED", append([]string{"--batch", "--only", "archlinux", "--until", "resolve", "--cache", cache}, nothing(t)...)...)
	if strings.Count(stderr, "this run is not recorded") != 1 {
		t.Error(stderr)
	}
}

// The console in lines works over a pipe and on terminals that can do nothing.
func TestLinear(t *testing.T) {
	u := newUser(t)
	u.env = []string{"KMI_LINEAR=true"}
	c := u.command(nothing(t)...)
	c.Stdin = strings.NewReader("select archlinux\nplan\nquit\n")
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Arch Linux, preview: 1 target can be built.", "Selected: archlinux:", "Asking upstream and registry", "Good-bye."} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	u.run(append([]string{"--batch", "--only", "archlinux", "--until", "resolve"}, nothing(t)...)...)
	for _, args := range [][]string{{"--linear"}, {}, {"replay", "last", "--speed", "max"}} {
		u.env = []string{"TERM=dumb", "KMI_LINEAR="}
		c := u.command(args...)
		tty, err := pty.Start(c)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(tty, "help\nquit\n")
		said, _ := io.ReadAll(tty)
		_ = tty.Close()
		if err := c.Wait(); err != nil || bytes.ContainsRune(said, 0x1b) || !bytes.Contains(said, []byte("quit: leave; asks if a run is under way.")) || !bytes.Contains(said, []byte("Good-bye.")) {
			t.Errorf("%v: %v: %q", args, err, said)
		}
	}
}

// On a terminal a recording is shown in the console; q leaves it.
func TestReplayOnATerminal(t *testing.T) {
	u := newUser(t)
	u.run(append([]string{"--batch", "--only", "archlinux", "--until", "resolve"}, nothing(t)...)...)
	for _, from := range []string{"last", "-"} {
		u.env = []string{"TERM=xterm"}
		c := u.command("replay", "last", "--speed", "max")
		if from == "-" {
			if _, err := exec.LookPath("sh"); err != nil {
				t.Skip(err)
			}
			all := c
			c = exec.Command("sh", "-c", `"$0" replay last -o json | "$0" replay - --speed max`, binary)
			c.Dir, c.Env = all.Dir, all.Env
		}
		tty, err := pty.StartWithSize(c, &pty.Winsize{Rows: 24, Cols: 80})
		if err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		buf := make([]byte, 4096)
		left := false
		for {
			n, err := tty.Read(buf)
			said.Write(buf[:n])
			if !left && bytes.Contains(said.Bytes(), []byte("REPLAY max ended")) {
				left = true
				_, _ = io.WriteString(tty, "q")
			}
			if err != nil {
				break
			}
		}
		_ = tty.Close()
		if err := c.Wait(); err != nil || !left {
			t.Errorf("%s: %v: %q", from, err, said.String())
		}
	}
}
