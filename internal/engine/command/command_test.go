package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// The test binary is also the caller that gets killed: see TestKilledCallerTakesItsChildrenAlong.
func TestMain(m *testing.M) {
	if marker := os.Getenv("KMI_TEST_CALLER"); marker != "" {
		script := fmt.Sprintf("(sleep 300 & echo grandchild; echo $$ >%s; wait)", marker)
		_ = Run(context.Background(), Command{Name: "sh", Args: []string{"-c", script}, Isolated: os.Getenv("KMI_TEST_ISOLATED") != ""}, nil)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestOutputBecomesLines(t *testing.T) {
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	if err := Run(context.Background(), Command{Name: "sh", Args: []string{"-c", "echo one; printf two >&2"}}, bus.Scope("t", "s", "")); err != nil {
		t.Fatal(err)
	}
	var lines []string
	events, _ := sub.Poll()
	for _, e := range events {
		lines = append(lines, e.Line)
	}
	if got := strings.Join(lines, ","); got != "one,two" {
		t.Errorf("lines %q", got)
	}
}

func TestFailureTellsLastWords(t *testing.T) {
	err := Run(context.Background(), Command{Name: "sh", Args: []string{"-c", "for i in 1 2 3 4 5 6 7; do echo line $i; done; exit 3"}}, nil)
	var failed *Failed
	if !errors.As(err, &failed) || len(failed.Tail) != 5 || failed.Tail[4] != "line 7" || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
}

func TestMissingProgramNamesItsPackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Look("qemu-img-that-is-not-there")
	var missing *Missing
	if !errors.As(err, &missing) {
		t.Fatalf("%v", err)
	}
	Packages["kmi-test-program"] = "kmi-test-package"
	defer delete(Packages, "kmi-test-program")
	_, err = Look("kmi-test-program")
	var r *event.Remedied
	if !errors.As(err, &r) || r.Remedy != "install it: apt-get install --no-install-recommends kmi-test-package" {
		t.Errorf("%v", err)
	}
}

func TestCancelEndsTheWholeGroup(t *testing.T) {
	for _, isolated := range []bool{false, true} {
		ctx, cancel := context.WithCancel(context.Background())
		began := make(chan struct{})
		p, err := Start(ctx, Command{Name: "sh", Args: []string{"-c", "trap '' TERM; (trap '' TERM; sleep 300) & echo began; wait; sleep 300"},
			Isolated: isolated, Grace: 50 * time.Millisecond, Each: func(string) { close(began) }}, nil)
		if err != nil {
			t.Fatal(err)
		}
		<-began
		cancel()
		if err := p.Wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if err := syscall.Kill(-p.Pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("isolated %v: the process group is still there: %v", isolated, err)
		}
	}
}

func TestIsolatedSeesItselfOnlyAndNoNetwork(t *testing.T) {
	out, err := Output(context.Background(), Command{Name: "sh", Args: []string{"-c", "echo $$; id -u; ls /sys/class/net /proc/sys/net/ipv4/conf 2>/dev/null | grep -c eth; mount -t tmpfs none /mnt && echo mounted"},
		Isolated: true, Offline: true}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); len(got) != 4 || got[0] != "1" || got[1] != "0" || got[3] != "mounted" {
		t.Errorf("%q", out)
	}
	if err := exec.Command("mountpoint", "-q", "/mnt").Run(); err == nil {
		t.Error("the mount can be seen outside")
	}
}

// A caller that dies by SIGKILL cannot clean up; its children must be gone all the same.
func TestKilledCallerTakesItsChildrenAlong(t *testing.T) {
	for _, isolated := range []string{"", "1"} { // not isolated, only the program itself is sure to go
		marker := filepath.Join(t.TempDir(), "pid")
		if err := syscall.Mkfifo(marker, 0o600); err != nil {
			t.Fatal(err)
		}
		caller := exec.Command(os.Args[0])
		caller.Env = append(os.Environ(), "KMI_TEST_CALLER="+marker, "KMI_TEST_ISOLATED="+isolated)
		if err := caller.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadFile(marker); err != nil { // waits until the child writes
			t.Fatal(err)
		}
		group := children(t, caller.Process.Pid)
		if isolated == "" {
			group = group[:1]
		} else if len(group) < 3 {
			t.Fatalf("expected the wrapper, the program and its child, found %v", group)
		}
		if len(group) == 0 {
			t.Fatal("the caller has no children")
		}
		_ = caller.Process.Kill()
		_ = caller.Wait()
		deadline := time.Now().Add(10 * time.Second)
		for _, pid := range group {
			for alive(pid) {
				if time.Now().After(deadline) {
					t.Fatalf("isolated %q: process %d outlived its killed caller", isolated, pid)
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
	}
}

// children lists the direct children of a process (proc_pid_task_children(5)).
func children(t *testing.T, pid int) (list []int) {
	t.Helper()
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		data, _ := os.ReadFile(f)
		for _, w := range strings.Fields(string(data)) {
			var n int
			if _, err := fmt.Sscan(w, &n); err == nil {
				list = append(append(list, n), children(t, n)...)
			}
		}
	}
	return list
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := strings.LastIndexByte(string(data), ')')
	return i < 0 || !strings.HasPrefix(string(data[i:]), ") Z")
}

func TestOutputIsBounded(t *testing.T) {
	if _, err := Output(context.Background(), Command{Name: "sh", Args: []string{"-c", "yes | head -c 5000"}}, 1000, nil); err == nil || !strings.Contains(err.Error(), "more than 1000 bytes") {
		t.Errorf("%v", err)
	}
}
