// Package command runs the programs of the field: every child in a process group of its own that is gone when the call
// returns, and dies with its caller; its output split in lines, its failure told with its last words.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Command is one call of a program.
type Command struct {
	Name   string   // looked up on PATH and in the system's sbin folders
	Args   []string // without the program's own name
	Env    []string // added to a small fixed environment (PATH, HOME, LC_ALL=C.UTF-8, TMPDIR, proxies)
	Dir    string
	Stdin  io.Reader
	Stdout io.Writer         // nil: reported as log lines
	Stderr io.Writer         // nil: reported as log lines
	Each   func(line string) // sees every line that is reported as log
	// Isolated runs the program as the first process of its own pid, mount, ipc and uts namespaces: whatever it starts
	// or mounts is gone the moment it or the caller dies, even by SIGKILL. A caller who is not root becomes root of a
	// user namespace with the subordinate ids of /etc/subuid.
	Isolated bool
	// Offline, with Isolated, leaves the program without any network.
	Offline bool
	// Network is a network namespace that the program is put into; nil: the caller's.
	Network *os.File
	// MaxMemory and MaxFile bound the address space of each process and the size of each file that is written, in bytes;
	// 0: no bound.
	MaxMemory, MaxFile int64
	// MaxTime bounds how long the program may run; 0: no bound.
	MaxTime time.Duration
	// Grace is how long a cancelled program may take to end by SIGTERM before SIGKILL; 0 means 3 s.
	Grace time.Duration
}

// Missing is the error of a program that is not installed.
type Missing struct{ Name string }

func (m *Missing) Error() string { return m.Name + " is not installed" }

// Packages tells, for a program, the Debian package that holds it; `doctor` and the remedies of errors read it.
var Packages = map[string]string{
	"apt-get": "apt", "apt-cache": "apt", "gpgv": "gpgv", "dpkg-deb": "dpkg", "mmdebstrap": "mmdebstrap", "unshare": "util-linux",
	"newuidmap": "uidmap", "mkfs.vfat": "dosfstools", "mmd": "mtools", "mcopy": "mtools",
	"mkfs.ext4": "e2fsprogs", "debugfs": "e2fsprogs", "dumpe2fs": "e2fsprogs", "qemu-img": "qemu-utils", "qemu-system-x86_64": "qemu-system-x86",
	"qemu-system-aarch64": "qemu-system-arm", "xorriso": "xorriso", "chroot": "coreutils", "xz": "xz-utils", "bzip2": "bzip2",
	"bwrap": "bubblewrap", "prlimit": "util-linux", "fstrim": "util-linux", "mount": "mount", "sfdisk": "fdisk", "e2fsck": "e2fsprogs", "resize2fs": "e2fsprogs",
	"xfs_growfs": "xfsprogs", "btrfs": "btrfs-progs", "setfiles": "policycoreutils", "guestfish": "libguestfs-tools", "supermin": "supermin", "arch-test": "arch-test",
}

// Remedy is what to do about the missing program.
func (m *Missing) Remedy() string {
	if p := Packages[m.Name]; p != "" {
		return "install it: apt-get install --no-install-recommends " + p
	}
	return "install it, or put it on PATH"
}

// Failed is the error of a program that ran and failed.
type Failed struct {
	Name string
	Err  error    // *exec.ExitError, with syscall.ENOSPC if the program said so; or the context's cause
	Tail []string // its last lines on standard error (and on standard output, where that is logged)
}

func (f *Failed) Unwrap() error { return f.Err }

func (f *Failed) Error() string {
	if len(f.Tail) == 0 {
		return fmt.Sprintf("%s: %v", f.Name, f.Err)
	}
	return fmt.Sprintf("%s: %v: %s", f.Name, f.Err, strings.Join(f.Tail, " | "))
}

// Look finds a program, in the folders of PATH and in sbin, which ordinary users often lack. The error is a *Missing
// inside an event.Remedied.
func Look(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	m := &Missing{name}
	return "", event.WithRemedy(m, "%s", m.Remedy())
}

// isolation returns the words that go before a program to run it as Command.Isolated says.
func isolation(offline bool) []string {
	words := []string{"--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--ipc", "--uts"}
	if offline {
		words = append(words, "--net")
	}
	if os.Geteuid() != 0 {
		words = append([]string{"--user", "--map-root-user", "--map-auto"}, words...)
	}
	return append(words, "--")
}

// Environment is the environment every program starts with: what a build depends on is fixed, what reaches the network
// and temporary files is passed on.
func Environment(extra ...string) []string {
	env := []string{"PATH=" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin", "LC_ALL=C.UTF-8", "TZ=UTC0", "DEBIAN_FRONTEND=noninteractive"}
	for _, name := range []string{"HOME", "USER", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return append(env, extra...)
}

// Run runs the program to its end. Its lines go to the scope. When ctx ends, the whole process group is asked to end,
// then killed; Run returns only when it is gone. Errors: *Missing, *Failed.
func Run(ctx context.Context, c Command, scope *event.Scope) error {
	p, err := Start(ctx, c, scope)
	if err != nil {
		return err
	}
	return p.Wait()
}

// Process is a program that runs.
type Process struct {
	Pid  int
	done chan struct{}
	err  error
}

// Done is closed when the program and all its output are through.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends the program at once.
func (p *Process) Kill() { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

// Wait returns how the program ended.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// reaper makes this process the parent of what its children leave behind.
var reaper sync.Once

// Start starts the program; see Run.
func Start(ctx context.Context, c Command, scope *event.Scope) (*Process, error) {
	path, err := Look(c.Name)
	if err != nil {
		return nil, err
	}
	args := c.Args
	if c.Isolated {
		wrapper, err := Look("unshare")
		if err != nil {
			return nil, err
		}
		if os.Geteuid() != 0 {
			if err := Subordinate(); err != nil {
				return nil, err
			}
		}
		args = append(append(isolation(c.Offline), path), args...)
		path = wrapper
	}
	if c.MaxMemory > 0 || c.MaxFile > 0 {
		wrapper, err := Look("prlimit")
		if err != nil {
			return nil, err
		}
		words := []string{"--core=0"}
		if c.MaxMemory > 0 {
			words = append(words, fmt.Sprintf("--as=%d", c.MaxMemory))
		}
		if c.MaxFile > 0 {
			words = append(words, fmt.Sprintf("--fsize=%d", c.MaxFile))
		}
		args = append(append(words, path), args...)
		path = wrapper
	}
	cmd := exec.Command(path, args...)
	cmd.Env = Environment(c.Env...)
	cmd.Dir, cmd.Stdin = c.Dir, c.Stdin
	tail := &tail{}
	stderr := scope.Lines(func(line string) {
		tail.add(line)
		if c.Each != nil {
			c.Each(line)
		}
	})
	cmd.Stderr, cmd.Stdout = stderr, stderr
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	if c.Stderr != nil {
		cmd.Stderr = c.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second // a grandchild that kept the pipe open

	reaper.Do(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })
	stop := func() {}
	if c.MaxTime > 0 {
		ctx, stop = context.WithTimeoutCause(ctx, c.MaxTime, fmt.Errorf("it was given up after %s", c.MaxTime))
	}
	p := &Process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The death signal is bound to the thread that starts the child: it has to stay. It is not used for anything else
		// afterwards, wherever it has gone.
		runtime.LockOSThread()
		defer close(p.done)
		defer stop()
		if err := ctx.Err(); err != nil {
			started <- context.Cause(ctx)
			return
		}
		if c.Network != nil {
			if err := unix.Setns(int(c.Network.Fd()), unix.CLONE_NEWNET); err != nil {
				started <- fmt.Errorf("%s: entering its network: %w", c.Name, err)
				return
			}
		}
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("%s: %w", c.Name, err)
			return
		}
		p.Pid = cmd.Process.Pid
		started <- nil
		exited := make(chan struct{})
		var killer sync.WaitGroup
		killer.Add(1)
		go func() {
			defer killer.Done()
			select {
			case <-exited:
				return
			case <-ctx.Done():
			}
			grace := c.Grace
			if grace == 0 {
				grace = 3 * time.Second
			}
			if !c.Isolated { // the first process of a pid namespace does not hear SIGTERM
				_ = syscall.Kill(-p.Pid, syscall.SIGTERM)
				select {
				case <-exited:
				case <-time.After(grace):
				}
			}
			_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
		}()
		err := cmd.Wait()
		close(exited)
		killer.Wait()
		// Whatever of the group outlived its leader goes too; as the reaper of orphans this process can wait for it.
		_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
		for {
			if _, err := syscall.Wait4(-p.Pid, nil, 0, nil); err != nil && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		_ = stderr.Close()
		if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			if tail.full {
				err = fmt.Errorf("%w: %w", err, syscall.ENOSPC)
			}
			p.err = &Failed{Name: c.Name, Err: err, Tail: tail.lines()}
		}
		if ctx.Err() != nil {
			p.err = &Failed{Name: c.Name, Err: context.Cause(ctx)}
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Output runs the program and returns its standard output, of which at most limit bytes (0: 16 MiB) are accepted.
func Output(ctx context.Context, c Command, limit int, scope *event.Scope) ([]byte, error) {
	if limit == 0 {
		limit = 16 << 20
	}
	buf := &bounded{limit: limit}
	c.Stdout = buf
	if err := Run(ctx, c, scope); err != nil {
		return nil, err
	}
	if buf.over {
		return nil, fmt.Errorf("%s printed more than %d bytes", c.Name, limit)
	}
	return buf.data, nil
}

type bounded struct {
	data  []byte
	limit int
	over  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.data)+len(p) > b.limit {
		b.over = true
	} else {
		b.data = append(b.data, p...)
	}
	return len(p), nil
}

// tail keeps the last lines that say something.
type tail struct {
	mu   sync.Mutex
	last []string
	full bool // a line said that the disk is full
}

// tailLine is how much of a line an error repeats, in bytes.
const tailLine = 300

func (t *tail) add(line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.last) == 5 {
		t.last = append(t.last[:0], t.last[1:]...)
	}
	t.full = t.full || strings.Contains(line, "No space left on device")
	if len(line) > tailLine {
		line = line[:tailLine] + " …"
	}
	t.last = append(t.last, event.Clean(line))
}

func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.last...)
}

// Subordinate checks that the caller may map a range of users, which a file system with more than one owner needs.
func Subordinate() error {
	if _, err := Look("newuidmap"); err != nil {
		return err
	}
	u, err := user.Current()
	if err != nil {
		return err
	}
	data, _ := os.ReadFile("/etc/subuid")
	for _, line := range strings.Split(string(data), "\n") {
		if name, _, ok := strings.Cut(line, ":"); ok && (name == u.Username || name == u.Uid) {
			return nil
		}
	}
	return event.WithRemedy(fmt.Errorf("user %s has no subordinate user ids in /etc/subuid", u.Username),
		"run as root, or: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", u.Username)
}
