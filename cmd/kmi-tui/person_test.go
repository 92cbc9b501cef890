package main_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
)

// person sits at a shell in a real terminal, tmux's, types, and reads the screen.
type person struct {
	*user
	tmux    []string
	changed chan struct{}
	shell   string // its process
}

func newPerson(t *testing.T, w, h int) *person {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux is not installed")
	}
	p := &person{user: newUser(t), changed: make(chan struct{}, 1)}
	p.tmux = []string{"-S", filepath.Join(t.TempDir(), "tmux"), "-f", "/dev/null"}
	bin := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(bin, "kmi-tui")); err != nil {
		t.Fatal(err)
	}
	root := must(filepath.Abs("../.."))
	start := p.control("new-session", "-d", "-x", fmt.Sprint(w), "-y", fmt.Sprint(h), "-c", root, "bash", "--norc", "--noprofile", "-i")
	start.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+p.home, "XDG_CACHE_HOME=", "XDG_CONFIG_HOME=", "CI=", "PS1=here> ", "LC_ALL=C.UTF-8", "TERM=xterm-256color", "NO_COLOR=", "HISTFILE=")
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// tmux tells of whatever the terminal gets.
	fifo := filepath.Join(t.TempDir(), "changes")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	changes, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 64<<10)
		for {
			if _, err := changes.Read(buf); err != nil {
				return
			}
			select {
			case p.changed <- struct{}{}:
			default:
			}
		}
	}()
	p.tell("pipe-pane", "-O", "exec cat >"+fifo)
	p.shell = p.tell("display-message", "-p", "#{pane_pid}")
	t.Cleanup(func() {
		_ = p.control("kill-server").Run()
		_ = changes.Close()
		<-read
	})
	p.wait("here>")
	return p
}

func (p *person) control(args ...string) *exec.Cmd {
	return exec.Command("tmux", append(p.tmux, args...)...)
}

func (p *person) tell(args ...string) string {
	p.t.Helper()
	out, err := p.control(args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return strings.TrimRight(string(out), "\n")
}

func (p *person) screen() string { return p.tell("capture-pane", "-p") }

// until looks at the screen whenever it has changed, until it is as it should be.
func (p *person) until(what string, ok func(screen string) bool) string {
	p.t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		s := p.screen()
		if ok(s) {
			return s
		}
		select {
		case <-p.changed:
		case <-deadline:
			p.t.Fatalf("no %s on the screen:\n%s", what, s)
		}
	}
}

func (p *person) wait(texts ...string) string {
	p.t.Helper()
	return p.until(fmt.Sprintf("%q", texts), func(s string) bool {
		for _, text := range texts {
			if !strings.Contains(s, text) {
				return false
			}
		}
		return true
	})
}

func (p *person) without(text string) {
	p.t.Helper()
	p.until("screen without "+text, func(s string) bool { return !strings.Contains(s, text) })
}

// press presses keys, by tmux's names; what is no name is typed.
func (p *person) press(keys ...string) {
	p.t.Helper()
	p.tell(append([]string{"send-keys"}, keys...)...)
}

// run types a command.
func (p *person) typed(command string) {
	p.t.Helper()
	p.tell("send-keys", "-l", command)
	p.press("Enter")
}

// answer answers a question. It hears nothing for its first moment, so the key is pressed again, but not before the last
// one has had its time: heard twice it would mean something else to what comes after the question.
func (p *person) answer(question, key string) {
	p.t.Helper()
	p.wait(question)
	for deadline := time.Now().Add(2 * time.Minute); strings.Contains(p.screen(), question); {
		if time.Now().After(deadline) {
			p.t.Fatalf("the question stays:\n%s", p.screen())
		}
		p.press(key)
		for heard := time.After(3 * time.Second); heard != nil; {
			if !strings.Contains(p.screen(), question) {
				return
			}
			select {
			case <-p.changed:
			case <-heard: // a key that was not heard changes nothing
				heard = nil
			}
		}
	}
}

// children are the processes of the shell.
func (p *person) children() (pids []int) {
	data, err := os.ReadFile("/proc/" + p.shell + "/task/" + p.shell + "/children")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range strings.Fields(string(data)) {
		var pid int
		if _, err := fmt.Sscan(f, &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// usable checks that the terminal is what a shell expects: its own screen, a cursor, no mouse, lines that are echoed.
func (p *person) usable(after string) {
	p.t.Helper()
	p.until("a shell's screen after "+after, func(string) bool {
		return p.tell("display-message", "-p", "#{alternate_on}#{cursor_flag}#{mouse_any_flag}") == "010"
	})
	p.lines()
}

// lines checks that what is typed is echoed, line by line.
func (p *person) lines() {
	p.t.Helper()
	p.typed("clear; echo \"$(stty -a | tr ' ;' '\\n\\n' | grep -cx 'icanon\\|isig\\|echo') modes, $((6*7))\"")
	p.wait("3 modes, 42", "here>")
}

// upstreams is a distribution's server: one file is broken until it is mended, two come slowly until they are let go.
type upstreams struct {
	*httptest.Server
	mu     sync.Mutex
	mended bool
	free   chan struct{}
}

func newUpstreams(t *testing.T, ids ...string) *upstreams {
	t.Helper()
	u := &upstreams{free: make(chan struct{})}
	dir, sums := t.TempDir(), map[string]string{}
	for _, id := range ids { // no two are the same
		raw, data := filepath.Join(dir, "raw"), make([]byte, 4<<20)
		_, _ = rand.Read(data)
		if err := os.WriteFile(raw, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, filepath.Join(dir, id)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		sum, _, err := disk.Sum(filepath.Join(dir, id))
		if err != nil {
			t.Fatal(err)
		}
		sums[id] = sum
	}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		if len(parts) != 2 || sums[parts[0]] == "" {
			http.NotFound(w, r)
			return
		}
		path := filepath.Join(dir, parts[0])
		u.mu.Lock()
		mended, free := u.mended, u.free
		u.mu.Unlock()
		switch {
		case parts[1] == "SHA256SUMS":
			fmt.Fprintf(w, "%s  %s-20261101-amd64.qcow2\n", sums[parts[0]], parts[0])
		case parts[0] == "broken" && !mended && r.Method == http.MethodGet:
			http.NotFound(w, r)
		case strings.HasPrefix(parts[0], "slow") && !mended && r.Method == http.MethodGet:
			data, err := os.ReadFile(path)
			if err != nil {
				http.Error(w, err.Error(), 500)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:len(data)/2])
			w.(http.Flusher).Flush()
			select {
			case <-free:
			case <-r.Context().Done():
			}
		default:
			http.ServeFile(w, r, path)
		}
	}))
	t.Cleanup(func() { u.mend(); u.Close() })
	return u
}

func (u *upstreams) mend() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.mended {
		u.mended = true
		close(u.free)
	}
}

// small is a row of a small disk in which nothing is changed.
func small(id string) string {
	name := strings.ToUpper(id[:1]) + id[1:] + " Linux"
	row := fmt.Sprintf(mine, "12", "bookworm", "x86_64", "amd64", "bios")
	row = strings.NewReplacer(`"mine"`, `"`+id+`"`, `"My Debian"`, `"`+name+`"`, "/{version}/", "/"+id+"/", "mine-(", id+"-(").Replace(row)
	file, find := strings.Index(row, "# As closed"), strings.Index(row, "[[flavor.origin.find]]")
	row = row[:file] + row[find:]
	begin := strings.Index(row, "[flavor.origin.customise]")
	end := strings.Index(row, "[flavor.origin.boot.x86_64]")
	return row[:begin] + `[flavor.origin.customise]
without = { update = "a test", packages = "a test", agent = "a test", selinux = "a test", console = "a test", clean = "a test" }

` + row[end:]
}

// A Monday: look, select, build, cancel what hangs, read why something failed, have it mended, run it again, leave.
func TestAPersonsMonday(t *testing.T) {
	p := newPerson(t, 120, 40)
	dir := t.TempDir()
	ids := []string{"broken", "good", "slow", "slower"}
	up := newUpstreams(t, ids...)
	catalogue := read(t, "../../distros.toml")
	catalogue = catalogue[:strings.Index(catalogue, "\n[[flavor]]\n")]
	built := strings.Index(catalogue, "[base.built]")
	catalogue = catalogue[:built] + catalogue[built+strings.Index(catalogue[built:], "\n\n"):]
	for _, id := range ids {
		catalogue += small(id)
	}
	path := filepath.Join(dir, "distros.toml")
	if err := os.WriteFile(path, []byte(catalogue), 0o600); err != nil {
		t.Fatal(err)
	}

	start := "kmi-tui --catalog " + path + " --jobs 4 --base scratch --registry dir:" + dir + "/images --mirror https://upstream.example.org/=" + up.URL + "/"
	p.typed(start)
	p.wait("release chart", "Broken Linux", "Good Linux", "Slow Linux", "Slower Linux", "20261101")
	p.until("cursor on the first row", func(s string) bool { return strings.Contains(s, "▌[ ] ▸ Broken") })
	p.press("j", "j", "k")
	p.until("cursor on the second row", func(s string) bool { return strings.Contains(s, "▌[ ] ▸ Good") })
	p.press("/")
	p.wait("filter:")
	p.press("s", "l", "o", "w", "e", "r", "Enter")
	p.without("Good Linux")
	p.press("Escape")
	p.wait("Good Linux", "▌")
	p.press("2")
	p.wait("4 targets selected")

	// The plan, the question, and no.
	p.press("b")
	p.answer("Publish 4 targets to", "Escape")
	p.press("Escape")
	p.wait("release chart")
	p.press("B", "p", "a", "c", "k", "Enter")
	p.wait("Run 4 targets up to pack?", "4 to build", "--until pack")
	p.answer("Run 4 targets up to pack?", "y")

	// One is done, one has failed, two hang.
	p.wait("run of 4 targets")
	p.until("one done, one failed, two at work", func(s string) bool {
		return strings.Contains(s, "● run: 2 of 4") || strings.Contains(s, "2 of 4 targets")
	})
	p.press("z")
	p.wait("log of ")
	for !strings.Contains(p.screen(), "log of slow:12/x86_64") {
		before := p.screen()
		p.press("Tab")
		p.until("another log", func(s string) bool { return s != before })
	}
	p.press("X")
	p.answer("Cancel slow:12/x86_64?", "y")
	p.until("three of four", func(s string) bool { return strings.Contains(s, "3 of 4") })
	p.press("x")
	p.answer("Cancel the run?", "y")
	p.wait("run ended: 3 failed · 1 done")
	p.press("Escape")
	p.wait("how the run ended", "broken:12/x86_64", "404")
	p.press("g", "Enter")
	p.wait("log of")
	p.press("e")
	p.wait("404 Not Found")
	p.press("Escape", "Escape") // out of the search for errors, out of the log
	p.wait("how the run ended")

	// Mended: what failed goes on, what was done stays.
	up.mend()
	p.press("A")
	p.wait("Run 3 failed targets again?", "broken:12/x86_64", "slow:12/x86_64", "slower:12/x86_64")
	p.answer("failed targets again?", "y")
	p.wait("how the run ended")
	p.until("three done", func(s string) bool { return strings.Contains(s, "3 done") || strings.Contains(s, "done: 3") })
	p.press("v")
	p.wait("targets and stages", "good:12/x86_64")
	p.press("Escape")

	// To the shell and back; then the end.
	p.press("C-z")
	p.wait("Stopped", "here>")
	for _, pid := range p.children() {
		if stat := read(t, fmt.Sprintf("/proc/%d/stat", pid)); !strings.Contains(stat, ") T ") {
			t.Errorf("it is not stopped: %s", stat)
		}
	}
	p.usable("ctrl+z")
	p.typed("fg")
	p.wait("KubeVirt Machine Images")
	p.press("q")
	p.wait("here>")
	p.usable("q")
	p.user.gone()

	// Told to end by somebody else, the terminal is usable, too.
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		p.typed("clear; " + start + "; echo code $?")
		p.wait("release chart")
		p.press("M")
		p.wait("clicks and the wheel work here")
		for _, pid := range p.children() {
			_ = syscall.Kill(pid, s)
		}
		p.wait("here>", "code ")
		p.usable(s.String())
	}
	// Killed, it cannot put anything right itself.
	p.typed("clear; " + start)
	p.wait("release chart")
	for _, pid := range p.children() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	p.wait("kmi-tui was killed", "goes on from there")
	p.usable("SIGKILL")
	p.typed(start)
	p.wait("release chart", "Good Linux")
	p.press("q")
	p.wait("here>")
	p.usable("the next one")
}
