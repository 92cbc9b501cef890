package ui

import (
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

func TestMain(m *testing.M) {
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
	if fastest > time.Second {
		t.Errorf("it took %v", fastest)
	}
}
