package customise

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

// Memory of the appliance, in MiB. Package managers run in it.
const applianceMemory = "1280"

// fish is a libguestfs appliance with one disk, driven through guestfish's standard input: one launch for everything,
// where each of libguestfs' own tools needs one. Nothing in it asks the appliance what kind of guest this is, which would
// take longer than the launch.
type fish struct {
	process *command.Process
	in      io.WriteCloser
	out     *bufio.Reader
	mark    string // nobody in the guest can guess it
	words   *words
	n       int
}

// words keeps what guestfish says of errors, and takes the guest's marked lines out of the appliance's console.
type words struct {
	mu    sync.Mutex
	mark  string
	line  func(string)
	scope *event.Scope
	said  lastLines
	rest  []byte
}

// maxConsole is how long a line of the appliance's console may be, in bytes.
const maxConsole = 16 << 10

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range p {
		if c == '\n' || len(w.rest) >= maxConsole {
			w.tell(strings.TrimRight(string(w.rest), "\r"))
			w.rest = w.rest[:0]
		}
		if c != '\n' {
			w.rest = append(w.rest, c)
		}
	}
	return len(p), nil
}

func (w *words) tell(line string) {
	if _, said, ok := strings.Cut(line, w.mark+" "); ok {
		w.scope.Log(said)
		w.line(said)
		w.keep(said)
	} else if _, said, ok := strings.Cut(line, "libguestfs: error: "); ok {
		w.keep(said)
	}
}

func (w *words) keep(line string) {
	if strings.TrimSpace(line) != "" {
		w.said.add(line)
	}
}

// tail are the last words, on one line.
func (w *words) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.String()
}

// launch starts the appliance with the disk under work, in a network namespace if there is one.
func (r *run) launch(ctx context.Context, ns *os.File) (*fish, error) {
	tmp := filepath.Join(r.Dir, "tmp")
	cache := r.Cache
	if cache == "" {
		cache = tmp
	}
	for _, dir := range []string{tmp, cache} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fetch.Explain(err, dir)
		}
	}
	env := []string{"LIBGUESTFS_BACKEND=direct", "LIBGUESTFS_CACHEDIR=" + cache, "TMPDIR=" + tmp, "LIBGUESTFS_MEMSIZE=" + applianceMemory}
	if accel, _ := machine.Accelerate(machine.Host(), machine.Host()); accel != "kvm" {
		env = append(env, "LIBGUESTFS_BACKEND_SETTINGS=force_tcg") // by itself it takes a /dev/kvm that opens and does not work
	}
	in, stdin, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	stdout, out, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), stdin.Close())
	}
	f := &fish{in: stdin, out: bufio.NewReader(stdout), mark: "kmi" + rand.Text()}
	f.words = &words{mark: f.mark, line: r.line, scope: r.scope}
	f.process, err = command.Start(ctx, command.Command{Name: "guestfish", Args: []string{"--network", "--verbose"}, Env: env, Dir: r.Dir, Network: ns, Stdin: in, Stdout: out, Stderr: f.words, MaxTime: guestTime, MaxFile: disk.MaxVirtualSize}, r.scope)
	_, _ = in.Close(), out.Close()
	if err != nil {
		_, _ = stdin.Close(), stdout.Close()
		return nil, err
	}
	go func() { // whoever waits for an answer that cannot come any more stops
		<-f.process.Done()
		_ = stdout.SetReadDeadline(time.Now().Add(time.Second))
	}()
	for _, call := range [][]string{{"add-drive", r.raw, "format:raw", "discard:enable", "cachemode:unsafe"}, {"run"}} {
		if _, err := f.call(call...); err != nil {
			f.close()
			return nil, err
		}
	}
	return f, nil
}

// maxAnswer is how long an answer of guestfish may be, in bytes.
const maxAnswer = 1 << 20

// call makes one call, and returns its answer. After an error guestfish is gone.
func (f *fish) call(words ...string) (string, error) {
	for i, w := range words {
		if strings.ContainsFunc(w, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return "", fmt.Errorf("%q cannot be said to guestfish", w)
		}
		if i > 0 {
			words[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
		}
	}
	f.n++
	end := fmt.Sprintf("%s-%d", f.mark, f.n)
	_, err := fmt.Fprintf(f.in, "%s\necho %s\n", strings.Join(words, " "), end)
	var answer strings.Builder
	for err == nil {
		var line string
		line, err = f.out.ReadString('\n')
		if strings.TrimSuffix(line, "\n") == end {
			return answer.String(), nil
		}
		if answer.Len()+len(line) <= maxAnswer {
			answer.WriteString(line)
		}
	}
	<-f.process.Done() // it has said why
	if said := f.words.tail(); said != "" {
		return "", fmt.Errorf("%s: %s", strings.TrimPrefix(words[0], "-"), said)
	}
	if perr := f.process.Wait(); perr != nil {
		return "", fmt.Errorf("%s: %w", words[0], perr)
	}
	return "", fmt.Errorf("%s: guestfish ended", words[0])
}

// close ends the appliance at once.
func (f *fish) close() {
	f.process.Kill()
	<-f.process.Done()
	_ = f.in.Close()
}

// guestfs runs the script inside of libguestfs' appliance.
func (r *run) guestfs(ctx context.Context) error {
	// The appliance reaches whatever its QEMU reaches, this host's loopback among it. Root can leave it nothing but the proxy.
	var ns *os.File
	var listener net.Listener
	var err error
	if privileged() {
		if ns, listener, err = namespace(); err == nil {
			defer ns.Close()
		}
	} else {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return err
	}
	p := newProxy(listener, r.Mirrors, r.scope)
	defer p.close()
	r.proxy = fmt.Sprintf("http://169.254.2.2:%d", listener.Addr().(*net.TCPAddr).Port) // this host's loopback, as the appliance sees it

	began := time.Now()
	f, err := r.launch(ctx, ns)
	if err != nil {
		return err
	}
	defer f.close()
	r.scope.Logf("the appliance is up after %.1f s", time.Since(began).Seconds())
	device := func(m mount) string {
		if m.Volume.Number == 0 {
			return "/dev/sda"
		}
		return fmt.Sprintf("/dev/sda%d", m.Volume.Number)
	}
	root := mount{Volume: r.root, Point: "/"}
	if r.grow && r.root.FS == "ext4" {
		for _, name := range [][]string{{"e2fsck-f", device(root)}, {"resize2fs", device(root)}} {
			if _, err := f.call(name...); err != nil {
				return err
			}
		}
	}
	look := func(name string) string {
		text, err := f.call("-sh", "cat "+name+" 2>/dev/null || :")
		if err != nil {
			return ""
		}
		return text
	}
	enter := func(m mount) error {
		_, err := f.call("mount-options", m.Options, device(m), m.Point)
		return err
	}
	if err := enter(root); err != nil {
		return err
	}
	if r.root.FS == "btrfs" { // the root can be one of its subvolumes
		names, err := f.call("ls", "/")
		if err != nil {
			return err
		}
		if list := strings.Fields(names); !contains(list, "etc") {
			for _, name := range list {
				if there, err := f.call("is-dir", "/"+name+"/etc"); err != nil {
					return err
				} else if option := "subvol=" + name; strings.TrimSpace(there) == "true" && subvolForm.MatchString(option) {
					root.Options = option
					break
				}
			}
			if _, err := f.call("umount", "/"); err != nil {
				return err
			}
			if err := enter(root); err != nil {
				return err
			}
		}
	}
	grow := map[string][]string{"xfs": {"sh", "xfs_growfs /"}, "btrfs": {"btrfs-filesystem-resize", "/"}}[r.root.FS] // xfs' program is the guest's: not every appliance has it
	if r.grow && grow != nil {
		if _, err := f.call(grow...); err != nil {
			return err
		}
	}
	if look("/etc/os-release")+look("/usr/lib/os-release") == "" && r.Origin.Customise.Manager != "" {
		return r.noGuest()
	}
	list := mounts(look("/etc/fstab"), r.volumes, r.root)
	for _, m := range list[1:] {
		if m.Point == "/" {
			continue
		}
		if _, err := f.call("mkdir-p", m.Point); err != nil {
			return err
		}
		if err := enter(m); err != nil {
			return err
		}
	}
	if err := r.note("script", r.script()); err != nil {
		return err
	}
	const at, out, code = "/var/tmp/.kmi-script", "/var/tmp/.kmi-out.tar", "/var/tmp/.kmi-code"
	if _, err := f.call("mkdir-p", "/var/tmp"); err != nil {
		return err
	}
	if _, err := f.call("upload", filepath.Join(r.Dir, "script"), at); err != nil {
		return err
	}
	// guestfish tells what a command said when it is over; the appliance's console tells it at once.
	if _, err := f.call("sh", fmt.Sprintf(`{ code=0; /bin/sh %s %s </dev/null || code=$?; echo $code >%s; } 2>&1 | while IFS= read -r line || [ -n "$line" ]; do printf '%%s %%s\n' %s "$line"; done >/dev/console; exit $(cat %s)`,
		at, out, code, f.mark, code)); err != nil {
		return err
	}
	if _, err := f.call("download", out, r.out); err != nil {
		return err
	}
	for _, name := range []string{at, out, code} {
		if _, err := f.call("rm", name); err != nil {
			return err
		}
	}
	if _, without := r.Origin.Customise.Without[catalog.PartSELinux]; !without {
		if kind := selinux(look("/etc/selinux/config")); kind != "" {
			r.line(mark + "label the files")
			// By the guest's own program: not every libguestfs has one.
			if _, err := f.call("sh", "setfiles -m -F -e /dev -e /proc -e /sys /etc/selinux/"+kind+"/contexts/files/file_contexts / >/dev/null"); err != nil {
				return err
			}
		}
	}
	r.line(mark + "discard free space")
	if _, err := f.call("fstrim", "/"); err != nil {
		return err
	}
	for _, m := range list[1:] {
		if _, err := f.call("-fstrim", m.Point); err != nil { // not every file system can
			return err
		}
	}
	for _, call := range []string{"umount-all", "sync", "shutdown"} {
		if _, err := f.call(call); err != nil {
			return err
		}
	}
	r.line(mark + "done")
	r.scope.Logf("%s came from package archives", fetch.Size(p.bytes.Load()))
	return nil
}

func contains(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}

// guestfsPrograms are what the way needs of the host.
var guestfsPrograms = []string{"guestfish", "supermin", "qemu-img", "sfdisk", "prlimit"}

// canGuestfs looks for what the way needs of the host.
func canGuestfs(arch catalog.Arch) error {
	if arch != machine.Host() {
		return fmt.Errorf("libguestfs runs no programs of %s on %s", arch, machine.Host())
	}
	for _, name := range append(guestfsPrograms, machine.Program(arch)) {
		if _, err := command.Look(name); err != nil {
			return err
		}
	}
	kernels, _ := filepath.Glob("/boot/vmlinuz*")
	for _, name := range kernels {
		if f, err := os.Open(name); err == nil {
			return f.Close()
		}
	}
	return event.WithRemedy(errors.New("/boot has no kernel that can be read, of which the appliance is made"), "apt-get install --no-install-recommends linux-image-cloud-%s", arch.OCI())
}
