package customise

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// The tests' guest is a real system of busybox with a package manager of a few lines, whose packages are archives that it
// loads over HTTP.
const packageManager = `#!/bin/sh
set -eu
db=/var/lib/pm
mkdir -p $db
case $1 in
refresh) wget -q -O $db/index http://packages.example.org/index ;;
offers) grep -q "^$2 " $db/index ;;
install)
    shift
    for name in "$@"; do
        wget -q -O /tmp/package http://packages.example.org/$name.tar
        tar -C / -xf /tmp/package
        grep "^$name " $db/index >$db/$name.installed
    done ;;
list) cat $db/*.installed ;;
esac
`

var manager = catalog.Manager{
	Env:      map[string]string{"PM_QUIET": "it's quiet"},
	Refresh:  []string{"pm refresh"},
	Update:   []string{"pm install base"},
	Install:  "pm install {packages}",
	Offers:   "pm offers {package}",
	List:     "pm list",
	Clean:    []string{"rm -f /var/lib/pm/index"},
	Licences: []string{"/usr/share/doc/*/copyright"},
}

// archive serves the packages; stop, if there is one, is called before each answer.
type archive struct {
	*httptest.Server
	mu   sync.Mutex
	stop func(r *http.Request)
	seen []string
}

func newArchive(t *testing.T) *archive {
	a := &archive{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		stop := a.stop
		a.seen = append(a.seen, r.URL.Path)
		a.mu.Unlock()
		if stop != nil {
			stop(r)
		}
		name, ok := strings.CutSuffix(r.URL.Path, ".tar")
		if !ok {
			fmt.Fprint(w, "base 2.0 all 100\ngit 1:2.39-1 amd64 2000\nvim-small 9 amd64 3000\nfastfetch 1 amd64 4\nqemu-guest-agent 7.2 amd64 5000\n")
			return
		}
		name = strings.TrimPrefix(name, "/")
		t := tar.NewWriter(w)
		for path, text := range map[string]string{"usr/share/doc/" + name + "/copyright": "the licence of " + name + "\n", "usr/lib/" + name: name + "\n"} {
			_ = t.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(text))})
			_, _ = t.Write([]byte(text))
		}
		if name == "qemu-guest-agent" {
			const service = "#!/bin/sh\n: >/etc/agent-is-enabled\n"
			_ = t.WriteHeader(&tar.Header{Name: "etc/init.d/qemu-guest-agent", Mode: 0o755, Size: int64(len(service))})
			_, _ = t.Write([]byte(service))
		}
		_ = t.Close()
	}))
	t.Cleanup(a.Close)
	return a
}

// guest is a disk that the test makes.
type guest struct {
	fs     string            // "ext4", "xfs", "btrfs", "btrfs subvolume"
	bare   bool              // without a partition table
	files  map[string]string // in addition
	links  map[string]string
	manage func(root string) // last changes, as root of this host
}

func needsRoot(t *testing.T) {
	t.Helper()
	if err := canChroot(t.Context(), catalog.X86_64, true); err != nil {
		t.Skip(err)
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("busybox-static is not installed")
	}
}

// make makes the disk, as a qcow2 file.
func (g guest) make(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"mkfs." + strings.Fields(g.fs)[0], "sfdisk", "qemu-img"} {
		if _, err := command.Look(name); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	raw := filepath.Join(dir, "made.raw")
	run := func(stdin, name string, args ...string) {
		t.Helper()
		path, err := command.Look(name)
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command(path, args...)
		c.Stdin = strings.NewReader(stdin)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	const size = 512 << 20 // xfs makes nothing smaller than 300 MiB
	if err := os.WriteFile(raw, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(raw, size); err != nil {
		t.Fatal(err)
	}
	root := disk.Volume{Size: size}
	if !g.bare {
		run("label: gpt\nstart=1MiB, size=8MiB, type=L, name=boot\nstart=9MiB, size=502MiB, type=L, name=root\n", "sfdisk", "-q", raw)
		root = disk.Volume{Number: 2, Start: 9 << 20, Size: 502 << 20}
	}
	l, err := attach(raw, root)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	kind, subvolume := strings.Fields(g.fs)[0], strings.HasSuffix(g.fs, "subvolume")
	run("", "mkfs."+kind, "-q", "-L", "guest", l.path)
	point := filepath.Join(dir, "root")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	run("", "mount", "-t", kind, l.path, point)
	mounted := true
	defer func() {
		if mounted {
			_ = exec.Command("umount", point).Run()
		}
	}()
	top := point
	if subvolume {
		run("", "btrfs", "-q", "subvolume", "create", filepath.Join(point, "system"))
		top = filepath.Join(point, "system")
	}
	for _, d := range []string{"bin", "dev", "proc", "sys", "run", "tmp", "etc/init.d", "usr/bin", "usr/lib", "usr/share/doc", "var/log/old", "root", "boot/grub", "etc/ssh"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	fstab := "LABEL=guest / " + kind + " defaults 0 1\nUUID=ABCD-EF01 /boot/efi vfat umask=0077 0 2\n/dev/sda9 /data ext4 rw 0 0\n"
	if subvolume {
		fstab = "LABEL=guest / btrfs rw,subvol=system 0 0\n"
	}
	files := map[string]string{"bin/busybox": string(busybox), "usr/bin/pm": packageManager, "etc/os-release": "ID=test\n", "etc/fstab": fstab,
		"etc/machine-id": "0123456789abcdef0123456789abcdef\n", "etc/ssh/ssh_host_rsa_key": "secret", "var/log/messages": "long ago\n", "var/log/old/one.1": "older",
		"boot/grub/grub.cfg": "menuentry x {\n\tlinux /vmlinuz root=LABEL=guest ro\n\tinitrd /initrd\n}\n"}
	for name, text := range g.files {
		files[name] = text
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(top, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(top, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range strings.Fields("sh cat tar wget grep mkdir rm sed chmod ls sync mount ping nc mknod dd head wc id echo test sleep umount touch ln ip hostname ps true") {
		if err := os.Symlink("busybox", filepath.Join(top, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range g.links {
		if err := errors.Join(os.RemoveAll(filepath.Join(top, name)), os.Symlink(to, filepath.Join(top, name))); err != nil {
			t.Fatal(err)
		}
	}
	if g.manage != nil {
		g.manage(top)
	}
	out := filepath.Join(dir, "upstream.qcow2")
	run("", "umount", point)
	mounted = false
	run("", "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, out)
	return out
}

// spec is a customisation of that guest with this archive.
func spec(t *testing.T, path string, a *archive) Spec {
	return Spec{Origin: &catalog.Origin{Kind: "image", Format: "qcow2", ArchNames: map[catalog.Arch]string{catalog.X86_64: "amd64"},
		Packages:  map[string]string{"vim": "vim-huge|vim-small", "screenfetch": "neofetch|", "tmux": ""},
		Files:     []catalog.File{{Path: "/etc/kmi/hello", Mode: "0640", Text: "{arch} {version}\n$HOME `id` 'quoted'\n"}},
		Run:       []string{"echo '{codename}' >/etc/kmi/codename"},
		Customise: &catalog.Customise{Manager: "pm", Ways: []string{"chroot"}}},
		Manager: manager, Release: &catalog.Release{Version: "7", Codename: "seven"}, Arch: catalog.X86_64, Packages: []string{"git", "vim", "tmux", "screenfetch", "qemu-guest-agent"},
		Disk: path, Size: 1 << 30, Way: catalog.Chroot, Mirrors: []upstream.Mirror{{From: "http://packages.example.org/", To: a.URL + "/"}}, Dir: t.TempDir()}
}

// logged is a scope whose lines the test can read.
type logged struct {
	*event.Scope
	mu    sync.Mutex
	lines []string
	each  func(line string)
	bus   *event.Bus
}

func newLog(t *testing.T) *logged {
	l := &logged{bus: event.NewBus(time.Now)}
	sub := l.bus.Subscribe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			list, ok := sub.Next(context.Background())
			for _, e := range list {
				if e.Kind == event.Log {
					l.mu.Lock()
					l.lines = append(l.lines, e.Line)
					each := l.each
					l.mu.Unlock()
					if each != nil {
						each(e.Line)
					}
				}
			}
			if !ok {
				return
			}
		}
	}()
	l.Scope = l.bus.Scope("test", "customise", "")
	t.Cleanup(func() { l.bus.Close(); <-done })
	return l
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// inside shows a finished disk's root file system to a function.
func inside(t *testing.T, path string, use func(root string)) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "look.raw")
	if err := disk.Unpack(t.Context(), path, "qcow2", raw, 0, nil); err != nil {
		t.Fatal(err)
	}
	volumes, err := disk.Layout(raw)
	if err != nil {
		t.Fatal(err)
	}
	root, err := disk.Root(volumes, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := attach(raw, root)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	point := t.TempDir()
	more := "ro"
	if out, err := exec.Command("mount", "-t", root.FS, "-o", more, l.path, point).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer func() { _ = exec.Command("umount", point).Run() }()
	top := point
	if _, err := os.Stat(filepath.Join(point, "system")); err == nil {
		top = filepath.Join(point, "system")
	}
	use(top)
}

// left lists what a customisation that is over has left on this machine: mounts, loop devices, processes.
func left(dir string) (list []string) {
	data, _ := os.ReadFile("/proc/mounts")
	for _, line := range strings.Split(string(data), "\n") {
		if strings.Contains(line, dir) {
			list = append(list, "mount "+line)
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range loops {
		if data, _ := os.ReadFile(name); strings.Contains(string(data), dir) {
			list = append(list, "loop "+string(data))
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		if cwd, _ := os.Readlink(filepath.Join(p, "cwd")); strings.HasPrefix(cwd, dir) {
			line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
			list = append(list, "process "+string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return list
}
