package ui

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/creack/pty"
)

// silent makes this test binary a program that links the console and only prints its version.
const silent = "KMI_TEST_SILENT"

// opens makes it a program that opens the console.
const opens = "KMI_TEST_OPENS"

func TestMain(m *testing.M) {
	if os.Getenv(opens) != "" {
		s := weeks()
		err := Run(context.Background(), s, Options{In: os.Stdin, Out: os.Stdout, Now: func() time.Time { return noon }})
		fmt.Println(err)
		os.Exit(0)
	}
	if os.Getenv(silent) != "" {
		fmt.Println("version 1")
		os.Exit(0)
	}
	if os.Getenv(floodFolder) != "" {
		if err := flooded(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	time.Local = time.UTC // what the screens show of the time is compared
	os.Exit(m.Run())
}

// A program that links the console asks the terminal nothing before the console opens: not what its background is
// (bubbletea's init would, and wait five seconds for the answer), not anything else.
func TestStartAsksTheTerminalNothing(t *testing.T) {
	fastest := time.Hour
	for range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), silent+"=1", "TERM=xterm-256color", "CI=")
		began := time.Now()
		terminal, err := pty.Start(cmd) // its controlling terminal; nobody ever answers on it
		if err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(terminal) // ends with an error when the program does
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		_ = terminal.Close()
		fastest = min(fastest, time.Since(began))
		if string(out) != "version 1\r\n" {
			t.Fatalf("it wrote %q in %v: the package background has to be initialised before bubbletea", out, time.Since(began))
		}
	}
	t.Logf("started and ended in %v", fastest)
	if fastest > 4*time.Second { // nobody answers for five; a busy machine is slow, too
		t.Errorf("it took %v", fastest)
	}
}

// firstFrame is how long it takes from the start of the process until all of the first frame has been written to its
// terminal, and how much processor time from there to the end; then the console is left. With watch it has to become as
// silent for so long.
func firstFrame(t testing.TB, watch time.Duration) (took, cpu time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), opens+"=1", "TERM=xterm-256color")
	began := time.Now()
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	terminal = pollable(t, terminal)
	defer terminal.Close()
	var out []byte
	buf := make([]byte, 32<<10)
	for !bytes.Contains(out, []byte("VyOS")) || !bytes.Contains(out, []byte("licences undecided")) || !bytes.Contains(out, []byte("quit")) {
		n, err := terminal.Read(buf)
		if out = append(out, buf[:n]...); err != nil {
			t.Fatalf("%v after %q", err, out)
		}
	}
	took = time.Since(began)
	if watch > 0 {
		silence(t, terminal, watch)
	}
	if _, err := terminal.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, terminal)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// silence waits until nothing is drawn for a while. What was on its way may still come, on a busy machine late; what draws
// by a clock never stops.
func silence(t testing.TB, terminal *os.File, watch time.Duration) {
	t.Helper()
	buf := make([]byte, 32<<10)
	for deadline := time.Now().Add(patience); ; {
		if err := terminal.SetReadDeadline(time.Now().Add(watch)); err != nil {
			t.Fatal(err)
		}
		n, err := terminal.Read(buf)
		switch {
		case err == nil && time.Now().After(deadline):
			t.Fatalf("it still draws, though nothing has happened: %q", buf[:n])
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = terminal.SetReadDeadline(time.Time{})
			return
		default:
			t.Fatal(err)
		}
	}
}

// The first frame has every row and what is known from before, a tenth of a second after the process was started; then
// nothing is drawn while nothing happens.
func TestFirstFrameIsThereAtOnce(t *testing.T) {
	fastest, least := time.Hour, time.Hour
	for i := range 5 {
		watch := time.Duration(0)
		if i == 0 {
			watch = 1500 * time.Millisecond // the slowest clock ticks every second
		}
		took, cpu := firstFrame(t, watch)
		fastest, least = min(fastest, took), min(least, cpu)
	}
	t.Logf("the fastest first frame took %v; the console worked for %v", fastest, least)
	// The figure is in the log. How long it takes on a machine that does other things as well says little; how much there
	// is to do, and that nothing is waited for, a little more.
	if least > time.Second || fastest > 4*time.Second {
		t.Errorf("the fastest first frame took %v, and %v of a processor", fastest, least)
	}
}

// BenchmarkStart is the time from the start of the process to its first frame.
func BenchmarkStart(b *testing.B) {
	for range b.N {
		firstFrame(b, 0)
	}
}
