package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// The flood: six targets that say 50,000 lines a second together, through the real bus and into real raw logs, in a
// program of its own: this test binary. KMI_TEST_FLOOD_SECONDS=30 is the long form, which is strict.
const (
	floodFolder  = "KMI_TEST_FLOOD"         // the folder of the raw logs: this process is the flood
	floodQuiet   = "KMI_TEST_FLOOD_QUIET"   // not empty: the same without a console
	floodSeconds = "KMI_TEST_FLOOD_SECONDS" // how long
	floodRate    = 50_000
	floodTargets = 6
)

// floodStats is what the flood tells of itself.
type floodStats struct {
	CPU   time.Duration // of the run
	Took  time.Duration
	RSS   int64 // the highest, in bytes
	Lines []int // of each target
}

func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// flooded is the program.
func flooded() error {
	dir := os.Getenv(floodFolder)
	seconds, err := strconv.ParseFloat(os.Getenv(floodSeconds), 64)
	if err != nil {
		return err
	}
	s := newScript()
	f := &s.catalog.Flavors[5]
	f.Arch = f.Arch[:1]
	f.Releases = nil
	for i := range floodTargets {
		f.Releases = append(f.Releases, catalog.Release{Version: fmt.Sprint(10 + i)})
	}
	var stats floodStats
	enough := make(chan os.Signal, 1)
	signal.Notify(enough, unix.SIGUSR1)
	s.run = func(ctx context.Context, s *script, targets []string) (engine.Summary, error) {
		began, cpu := time.Now(), cpuTime()
		var sum engine.Summary
		var wait sync.WaitGroup
		stats.Lines = make([]int, len(targets))
		for i, target := range targets {
			sum.Results = append(sum.Results, engine.Result{Target: target, State: event.Finished, Reason: "published"})
			wait.Add(1)
			go func() {
				defer wait.Done()
				scope := s.bus.Scope(target, "customise", filepath.Join(dir, strconv.Itoa(i)+".log"))
				scope.Start()
				w := scope.Lines(nil)
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				var piece []byte
				for n := 0; time.Since(began).Seconds() < seconds; {
					<-tick.C
					piece = piece[:0]
					for until := int(min(time.Since(began).Seconds(), seconds) * floodRate / floodTargets); n < until; n++ {
						piece = fmt.Appendf(piece, "%d of %s: unpacking a package of a usual name (1.2.3-4+deb13u1) over the old one\n", n, target)
						if len(piece) > 4000 { // as a pipe hands it on
							_, _ = w.Write(piece)
							piece = piece[:0]
						}
					}
					_, _ = w.Write(piece)
					stats.Lines[i] = n
				}
				scope.End("", nil)
			}()
		}
		wait.Wait()
		stats.CPU, stats.Took = cpuTime()-cpu, time.Since(began)
		select { // the run ends when whoever watches has seen enough of it
		case <-enough:
		case <-ctx.Done():
		}
		return sum, nil
	}
	if os.Getenv(floodQuiet) != "" {
		sub := s.Subscribe()
		stop := make(chan struct{})
		enough <- unix.SIGUSR1 // nobody watches
		go func() {
			for {
				select {
				case <-time.After(frameTime):
					sub.Poll()
				case <-stop:
					return
				}
			}
		}()
		_, _ = s.run(context.Background(), s, s.names(engine.Selection{Only: []string{"debian"}}))
		close(stop)
	} else if err := Run(context.Background(), s, Options{In: os.Stdin, Out: os.Stdout}); err != nil && !strings.Contains(err.Error(), "the console was left") {
		return err
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.SplitSeq(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			stats.RSS = kib << 10
		}
	}
	data, err := json.Marshal(stats)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "stats"), data, 0o600)
}

// flood6 starts the program; what its console writes goes to see.
func flood6(t *testing.T, seconds float64, quiet bool, see func([]byte)) (cmd *exec.Cmd, keys *os.File, dir string, end func() floodStats) {
	t.Helper()
	dir = t.TempDir()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), floodFolder+"="+dir, fmt.Sprintf("%s=%v", floodSeconds, seconds), "TERM=xterm-256color", "CI=")
	if quiet {
		cmd.Env = append(cmd.Env, floodQuiet+"=1")
	}
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 200, Rows: 60})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 64<<10)
		for {
			n, err := terminal.Read(buf)
			see(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	return cmd, terminal, dir, func() (stats floodStats) {
		t.Helper()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		_ = terminal.Close()
		data, err := os.ReadFile(filepath.Join(dir, "stats"))
		if err == nil {
			err = json.Unmarshal(data, &stats)
		}
		if err != nil {
			t.Fatal(err)
		}
		return stats
	}
}

// watcher waits for texts in what a console writes.
type watcher struct {
	mu    sync.Mutex
	text  []byte // awaited
	tail  []byte
	seen  chan time.Time
	wrote int
}

func (w *watcher) see(p []byte) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrote += len(p)
	w.tail = append(w.tail, p...)
	if w.text != nil && bytes.Contains(w.tail, w.text) {
		w.text = nil
		w.seen <- now
	}
	w.tail = append(w.tail[:0], w.tail[max(0, len(w.tail)-200):]...)
}

// expect has to be called before what makes the text come.
func (w *watcher) expect(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text, w.tail, w.seen = []byte(text), w.tail[:0], make(chan time.Time, 1)
}

func (w *watcher) bytes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrote
}

// Six panes at 50,000 lines a second: keys are answered at once, drawing leaves the processor to the builds, memory is
// bounded, every line is on disk; and when nothing happens, nothing is done.
func TestSixPanes(t *testing.T) {
	seconds, strict := 1.0, false
	if long, err := strconv.ParseFloat(os.Getenv(floodSeconds), 64); err == nil {
		seconds, strict = long, true
	} else if testing.Short() {
		seconds = 0.5
	}
	w := &watcher{}
	patient := func(what string) time.Time {
		t.Helper()
		select {
		case at := <-w.seen:
			return at
		case <-time.After(patience + time.Duration(seconds)*time.Second):
			t.Fatalf("no %s", what)
			return time.Time{}
		}
	}
	w.expect("release chart")
	cmd, terminal, dir, end := flood6(t, seconds, false, w.see)
	patient("chart")
	w.expect("Publish 6 targets")
	_, _ = io.WriteString(terminal, "/debian\rab")
	patient("question")
	w.expect("run of 6 targets")
	for len(w.seen) == 0 { // the question is deaf in its first moment
		_, _ = io.WriteString(terminal, "y")
		time.Sleep(20 * time.Millisecond)
	}
	began := <-w.seen
	// A key, whose effect is seen in the header; some tens of milliseconds to the next one.
	var took []time.Duration
	for i := 0; i < 2 || time.Since(began).Seconds() < seconds-0.3; i++ {
		text, pause := "log of", time.Duration(40+i*7%60) // most of the time all six are shown
		if i%2 == 1 {
			text, pause = "run of 6", 17
		}
		time.Sleep(pause * time.Millisecond)
		w.expect(text)
		pressed := time.Now()
		_, _ = io.WriteString(terminal, "z")
		took = append(took, patient(text).Sub(pressed))
	}
	w.expect("run ended")
	if len(took)%2 == 1 {
		_, _ = io.WriteString(terminal, "z")
	}
	drawn, drawnFor := w.bytes(), time.Since(began)
	_ = cmd.Process.Signal(unix.SIGUSR1)
	patient("end of the run")

	// Now nothing happens. What was on its way still comes, on a busy machine late; then nothing is drawn, and nothing done.
	latest, most, lazy, idleFor := 5*time.Second, 0.9, 0.05, 1500*time.Millisecond // on a busy machine, and with the race detector
	if strict {
		latest, most, lazy, idleFor = 16*time.Millisecond, 0.3, 0.005, 10*time.Second
	}
	idle := time.Hour
	for deadline := time.Now().Add(patience); idle.Seconds() > lazy*idleFor.Seconds(); {
		before, wrote := childTime(t, cmd.Process.Pid), w.bytes()
		time.Sleep(idleFor) // what does not happen cannot be waited for
		n := w.bytes() - wrote
		if idle = childTime(t, cmd.Process.Pid) - before; n == 0 && idle.Seconds() <= lazy*idleFor.Seconds() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes were drawn though nothing happened, and doing nothing takes %v in %v", n, idle, idleFor)
		}
		idle = time.Hour
	}
	_, _ = io.WriteString(terminal, "q")
	stats := end()
	_, _, _, endQuiet := flood6(t, seconds, true, func([]byte) {})
	quiet := endQuiet() // what the lines themselves take

	slices.Sort(took)
	at := func(p float64) time.Duration { return took[min(len(took)-1, int(p*float64(len(took))))] }
	drawing := stats.CPU.Seconds()/stats.Took.Seconds() - quiet.CPU.Seconds()/quiet.Took.Seconds()
	total := 0
	for i, n := range stats.Lines {
		total += n
		data, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(i)+".log"))
		if got := bytes.Count(data, []byte("\n")); err != nil || got != n || n == 0 {
			t.Errorf("target %d: %d of %d lines are on disk, %v", i, got, n, err)
		}
	}
	t.Logf("%d lines in %.1f s; keys: %d, 50 %% within %v, 99 %% within %v, slowest %v; console %.1f %% of a core (all %.1f %%, without it %.1f %%), %d MiB resident, %d KiB/s drawn; idle %.2f %%",
		total, stats.Took.Seconds(), len(took), at(0.5).Round(100*time.Microsecond), at(0.99).Round(100*time.Microsecond), took[len(took)-1].Round(100*time.Microsecond),
		100*drawing, 100*stats.CPU.Seconds()/stats.Took.Seconds(), 100*quiet.CPU.Seconds()/quiet.Took.Seconds(), stats.RSS>>20, int(float64(drawn>>10)/drawnFor.Seconds()), 100*idle.Seconds()/idleFor.Seconds())
	if strict && float64(total) < 0.9*floodRate*seconds {
		t.Errorf("only %d lines were said in %v s", total, seconds)
	}
	if at(0.99) > latest {
		t.Errorf("99 of 100 keys are on the screen within %v only", at(0.99))
	}
	if drawing > most {
		t.Errorf("drawing takes %.0f %% of a core", 100*drawing)
	}
	if stats.RSS > 150<<20 {
		t.Errorf("%d MiB are resident", stats.RSS>>20)
	}
}

// childTime is the processor time of another process.
func childTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	var sum time.Duration
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if len(tasks) == 0 {
		t.Skip("this kernel does not tell how long a process ran")
	}
	for _, f := range tasks {
		data, _ := os.ReadFile(f)
		if w := strings.Fields(string(data)); len(w) > 0 {
			ns, _ := strconv.ParseInt(w[0], 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}
