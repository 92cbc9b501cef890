package customise

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
)

// A guest of every file system gets everything that the catalogue says, and upstream's file stays as it was.
func TestChroot(t *testing.T) {
	needsRoot(t)
	for _, g := range []guest{
		{fs: "ext4", files: map[string]string{"etc/sysconfig/qemu-ga": "# a comment --allow-rpcs=x\nFILTER_RPC_ARGS=\"--allow-rpcs=guest-sync-delimited,guest-ping,guest-exec-status\"\nOTHER=1"}},
		{fs: "ext4", bare: true, files: map[string]string{"etc/sysconfig/qemu-ga": "BLACKLIST_RPC=guest-file-open,guest-ssh-add-authorized-keys,guest-exec,guest-get-users\n"}},
		{fs: "xfs", files: map[string]string{"etc/sysconfig/qemu-ga": "FILTER_RPC_ARGS=--block-rpcs=guest-ssh-get-authorized-keys,guest-exec -v\n"}},
		{fs: "btrfs"},
		{fs: "btrfs subvolume"},
	} {
		name := g.fs
		if g.bare {
			name += ", whole disk"
		}
		t.Run(name, func(t *testing.T) {
			upstreams := g.make(t)
			before, _, err := disk.Sum(upstreams)
			if err != nil {
				t.Fatal(err)
			}
			a, log := newArchive(t), newLog(t)
			s := spec(t, upstreams, a)
			d, err := Run(t.Context(), s, log.Scope)
			if err != nil {
				t.Fatalf("%v\n%s", err, log.text())
			}
			if after, _, _ := disk.Sum(upstreams); after != before {
				t.Error("upstream's file has changed")
			}
			if l := left(s.Dir); l != nil {
				t.Error(l)
			}
			read := func(path string) string {
				data, err := os.ReadFile(filepath.Join(s.Dir, "result", path))
				if err != nil {
					t.Error(err)
				}
				return string(data)
			}
			if got := read("packages.txt"); got != "base 2.0 all 100\ngit 1:2.39-1 amd64 2000\nqemu-guest-agent 7.2 amd64 5000\nvim-small 9 amd64 3000\n" {
				t.Errorf("packages:\n%s", got)
			}
			if got := read("licenses/usr/share/doc/git/copyright"); got != "the licence of git\n" {
				t.Errorf("licence: %q", got)
			}
			for _, want := range []string{"vim: vim-small", "tmux: left out", "screenfetch: left out", "screenfetch: the archive offers no neofetch", "SELinux is not on"} {
				if !strings.Contains(log.text(), want) {
					t.Errorf("the log does not say %q:\n%s", want, log.text())
				}
			}
			if d.VirtualSize != 1<<30 || d.SHA256 == "" || len(d.Steps) < 10 {
				t.Errorf("%+v", d)
			}
			if facts, err := disk.Inspect(filepath.Join(s.Dir, "result", d.File), "qcow2"); err != nil || facts.VirtualSize != 1<<30 {
				t.Errorf("%+v, %v", facts, err)
			}
			inside(t, filepath.Join(s.Dir, "result", d.File), func(root string) {
				for path, want := range map[string]string{
					"usr/lib/git": "git\n", "etc/kmi/hello": "amd64 7\n$HOME `id` 'quoted'\n", "etc/kmi/codename": "seven\n", "etc/machine-id": "uninitialized\n", "var/log/messages": "",
					"boot/grub/grub.cfg": "menuentry x {\n\tlinux /vmlinuz root=LABEL=guest ro console=tty0 console=ttyS0,115200n8\n\tinitrd /initrd\n}\n", "etc/agent-is-enabled": "",
				} {
					if data, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(data) != want {
						t.Errorf("%s: %q, %v", path, data, err)
					}
				}
				for _, gone := range []string{"etc/ssh/ssh_host_rsa_key", "var/lib/pm/index", "var/log/old/one.1", "tmp/.kmi", "run/kmi"} {
					if _, err := os.Lstat(filepath.Join(root, gone)); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s is still there", gone)
					}
				}
				if info, err := os.Stat(filepath.Join(root, "etc/kmi/hello")); err != nil || info.Mode().Perm() != 0o640 {
					t.Errorf("%v, %v", info, err)
				}
				if _, there := g.files["etc/sysconfig/qemu-ga"]; there {
					data, _ := os.ReadFile(filepath.Join(root, "etc/sysconfig/qemu-ga"))
					want := map[string]string{
						"ext4": "# a comment --allow-rpcs=x\nFILTER_RPC_ARGS=\"--allow-rpcs=guest-sync-delimited,guest-ping,guest-exec-status,guest-sync,guest-info,guest-get-time,guest-shutdown,guest-network-get-interfaces,guest-get-fsinfo,guest-get-host-name,guest-get-users,guest-get-timezone,guest-get-osinfo,guest-fsfreeze-status,guest-fsfreeze-freeze,guest-fsfreeze-thaw,guest-set-user-password,guest-ssh-get-authorized-keys,guest-ssh-add-authorized-keys,guest-ssh-remove-authorized-keys\"\nOTHER=1\n",
						"xfs":  "FILTER_RPC_ARGS=--block-rpcs=guest-exec -v\n",
					}[g.fs]
					if g.bare {
						want = "BLACKLIST_RPC=guest-file-open,guest-exec\n"
					}
					if string(data) != want {
						t.Errorf("the agent's configuration:\n%s\nwant\n%s", data, want)
					}
				}
				size := statfs(t, root)
				if size < 900<<20 {
					t.Errorf("the file system has %d bytes", size)
				}
			})
		})
	}
}

// libguestfs' appliance comes to the same: on a plain root that grows, and on one that is a subvolume.
func TestGuestfs(t *testing.T) {
	if testing.Short() {
		t.Skip("launches an appliance for each guest")
	}
	needsRoot(t) // to make and look at the disks
	if err := canGuestfs(catalog.X86_64); err != nil {
		t.Skip(err)
	}
	cache := t.TempDir()
	secret, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	go func() {
		for {
			conn, err := secret.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(secret.Addr().String())
	for _, g := range []guest{{fs: "ext4"}, {fs: "btrfs subvolume"}} {
		t.Run(g.fs, func(t *testing.T) {
			a, log := newArchive(t), newLog(t)
			s := spec(t, g.make(t), a)
			s.Way, s.Cache = catalog.Guestfs, cache
			// Where the appliance sees this host's loopback.
			s.Origin.Customise.Prepare = []string{"! nc -w 5 169.254.2.2 " + port + " </dev/null || echo REACHED: this host"}
			d, err := Run(t.Context(), s, log.Scope)
			if err != nil {
				t.Fatalf("%v\n%s", err, log.text())
			}
			if strings.Contains(log.text(), "REACHED") {
				t.Error("a service of this host can be reached")
			}
			if data, err := os.ReadFile(filepath.Join(s.Dir, "result/packages.txt")); err != nil || !strings.Contains(string(data), "git 1:2.39-1 amd64 2000\n") {
				t.Errorf("%s, %v", data, err)
			}
			if l := left(s.Dir); l != nil {
				t.Error(l)
			}
			inside(t, filepath.Join(s.Dir, "result", d.File), func(root string) {
				for path, want := range map[string]string{"usr/lib/git": "git\n", "etc/kmi/codename": "seven\n", "etc/machine-id": "uninitialized\n", "etc/agent-is-enabled": ""} {
					if data, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(data) != want {
						t.Errorf("%s: %q, %v", path, data, err)
					}
				}
				if list, err := os.ReadDir(filepath.Join(root, "var/tmp")); err != nil || len(list) > 0 {
					t.Errorf("left in /var/tmp: %v, %v", list, err)
				}
				if size := statfs(t, root); size < 900<<20 {
					t.Errorf("the file system has %d bytes", size)
				}
			})
		})
	}
}

// What runs in a guest's disk reaches neither this host's files nor its network nor its devices.
func TestConfinement(t *testing.T) {
	needsRoot(t)
	secret, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	attack := filepath.Join(t.TempDir(), "attack")
	build := exec.Command("go", "build", "-o", attack, ".")
	build.Dir, build.Env = "testdata/attack", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(attack)
	if err != nil {
		t.Fatal(err)
	}
	const name = "kmi-test-secret"
	if key, err := unix.AddKey("user", name, []byte("secret"), unix.KEY_SPEC_USER_KEYRING); err != nil {
		t.Logf("no key for the guest to find: %v", err)
	} else {
		defer func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, key, unix.KEY_SPEC_USER_KEYRING, 0, 0) }()
	}
	a, log := newArchive(t), newLog(t)
	s := spec(t, guest{fs: "ext4", files: map[string]string{"bin/attack": string(program)}}.make(t), a)
	_, port, _ := net.SplitHostPort(secret.Addr().String())
	mark := filepath.Join(t.TempDir(), "host")
	s.Origin.Customise.Prepare = []string{
		"tried() { if \"$@\" >/dev/null 2>&1; then echo \"REACHED: $*\"; fi; }",
		"tried nc -w 1 127.0.0.1 " + port,
		"tried wget -q -O- http://127.0.0.1:" + port + "/",
		"export http_proxy=$http_proxy; tried wget -q -O- http://127.0.0.1:" + port + "/",
		"tried wget -q -O- http://169.254.169.254/latest/", "tried wget -q -O- http://10.1.2.3/", "tried wget -q -O- http://localhost:" + port + "/",
		"tried mount -t tmpfs none /tmp", "tried mount -o remount,rw /sys", "tried hostname changed", "tried ls " + mark, "tried ls /proc/1/root" + mark,
		"tried sh -c 'cat /proc/sys/kernel/panic >/proc/sys/kernel/panic'", "tried sh -c 'echo h >/proc/sysrq-trigger'", "tried sh -c 'echo x >/sys/kernel/uevent_helper'",
		"mknod /etc/memory c 1 1 2>/dev/null || :; tried head -c 1 /etc/memory", "mknod /etc/disk b 254 0 2>/dev/null || :; tried head -c 1 /etc/disk",
		"SECRET=" + name + " attack /run/kmi/out.tar /run/kmi/script /dev/null /proc/sys /sys",
		"[ \"$(ps | wc -l)\" -lt 12 ] || echo 'REACHED: the processes of the host'", "[ \"$(ls /sys/class/net | wc -l)\" -ge 0 ]",
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), s, log.Scope); err != nil {
		t.Fatalf("%v\n%s", err, log.text())
	}
	if strings.Contains(log.text(), "REACHED") {
		t.Error(log.text())
	}
	for _, want := range []string{"127.0.0.1 is this host, which a guest may not reach", "169.254.169.254 is a link-local address", "10.1.2.3 is an address of a private network"} {
		if !strings.Contains(log.text(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log.text())
		}
	}
}

// A guest that leads elsewhere, or is none, is refused with a sentence.
func TestHostileGuests(t *testing.T) {
	needsRoot(t)
	a := newArchive(t)
	for _, x := range []struct {
		name string
		g    guest
		edit func(s *Spec)
		want string
	}{
		{"a mount point that is a link", guest{fs: "ext4", files: map[string]string{"etc/fstab": "LABEL=guest /boot ext4 defaults 0 1\n"}, links: map[string]string{"boot": "/etc"}}, nil, "the guest's /boot is no folder"},
		{"no guest", guest{fs: "ext4", links: map[string]string{"etc/os-release": "/nowhere"}}, nil, "is not the root of a guest: it has no os-release"},
		{"no such partition", guest{fs: "ext4"}, func(s *Spec) { s.Origin.Customise.Root = 9 }, "the disk has no partition 9"},
		{"a partition without a file system", guest{fs: "ext4"}, func(s *Spec) { s.Origin.Customise.Root = 1 }, "partition 1 has no ext4, xfs or btrfs file system"},
		{"no shell", guest{fs: "ext4", links: map[string]string{"bin/sh": "/nowhere"}}, nil, "os-release"},
		{"a failing command", guest{fs: "ext4"}, func(s *Spec) { s.Origin.Run = []string{"echo this went wrong; false"} }, "this went wrong"},
		{"a package that is not offered", guest{fs: "ext4"}, func(s *Spec) { s.Packages = append(s.Packages, "nowhere") }, "the archive offers no nowhere"},
		{"an archive that does not answer", guest{fs: "ext4"}, func(s *Spec) { s.Mirrors[0].To = "http://127.0.0.1:1/" }, "connection refused"},
		{"no list", guest{fs: "ext4"}, func(s *Spec) { s.Manager.List = ":" }, "the guest's list of packages is empty"},
		{"no agent", guest{fs: "ext4"}, func(s *Spec) { s.Origin.Customise.Agent = "other" }, "no service manager that is known"},
		{"no boot loader", guest{fs: "ext4", files: map[string]string{"boot/grub/grub.cfg": "nothing\n"}}, nil, "no boot loader's configuration that is known"},
		{"no folder for the disk", guest{fs: "ext4"}, func(s *Spec) { s.Origin.Format = "raw" }, "it is to be raw and looks like qcow2"},
	} {
		t.Run(x.name, func(t *testing.T) {
			log := newLog(t)
			s := spec(t, x.g.make(t), a)
			if x.edit != nil {
				x.edit(&s)
			}
			_, err := Run(t.Context(), s, log.Scope)
			if err == nil || !strings.Contains(err.Error()+log.text(), x.want) {
				t.Errorf("%v\n%s", err, log.text())
			}
			if l := left(s.Dir); l != nil {
				t.Error(l)
			}
		})
	}
}

// Cancelled in any step, it leaves no process, mount, device or file outside of its folder.
func TestCancel(t *testing.T) {
	needsRoot(t)
	upstreams := guest{fs: "ext4"}.make(t)
	cause := errors.New("enough")
	for _, at := range []string{"── unpack", "── make room", "── customise", "kmi-part: prepare", "index", "git.tar", "kmi-part: clean up", "kmi-part: discard free space", "── collect", "── compress", "── hash"} {
		t.Run(at, func(t *testing.T) {
			a, log := newArchive(t), newLog(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			log.mu.Lock()
			log.each = func(line string) {
				if strings.Contains(line, at) {
					cancel(cause)
				}
			}
			log.mu.Unlock()
			a.mu.Lock()
			a.stop = func(r *http.Request) {
				if strings.Contains(r.URL.Path, at) {
					cancel(cause)
					<-r.Context().Done() // the guest waits for an answer that never comes
				}
			}
			a.mu.Unlock()
			s := spec(t, upstreams, a)
			// The last steps may be over before anybody hears of them.
			late := at == "── hash" || at == "── collect" || at == "── compress" || at == "kmi-part: discard free space"
			if _, err := Run(ctx, s, log.Scope); !errors.Is(err, cause) && !(late && err == nil) {
				t.Errorf("%v\n%s", err, log.text())
			}
			if l := left(s.Dir); l != nil {
				t.Error(l)
			}
		})
	}
}

// statfs is how large a file system is, in bytes.
func statfs(t *testing.T, path string) int64 {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Blocks) * s.Bsize
}

// What a guest leaves behind leads nowhere and fills nothing: plain files with plain names, in a folder of their own.
func TestCollect(t *testing.T) {
	entry := func(name string, kind byte, text, link string) tar.Header {
		return tar.Header{Name: name, Typeflag: kind, Size: int64(len(text)), Mode: 0o777, Linkname: link, PAXRecords: map[string]string{"KMI.text": text}}
	}
	pack := func(list ...tar.Header) string {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range list {
			text := h.PAXRecords["KMI.text"]
			h.PAXRecords = nil
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		_ = w.Close()
		return b.String()
	}
	const good = "base 1 all 1\n"
	// Files of holes only: their archive is small.
	holes := t.TempDir()
	words := []string{"-C", holes, "--format=posix", "--sparse", "-cf", "-"}
	for i := range maxArchive/maxLicence + 1 {
		name := filepath.Join(holes, fmt.Sprint(i))
		if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Truncate(name, maxLicence)); err != nil {
			t.Fatal(err)
		}
		words = append(words, filepath.Base(name))
	}
	sparse, err := exec.Command("tar", words...).Output()
	if err != nil || len(sparse) > 1<<20 {
		t.Fatalf("%d bytes, %v", len(sparse), err)
	}
	for _, x := range []struct {
		name     string
		packages string
		licences []tar.Header
		want     string // part of the error; "" for none
	}{
		{"good", good, nil, ""},
		{"names that lead out", good, []tar.Header{entry("../out", tar.TypeReg, "x", ""), entry("/out", tar.TypeReg, "x", ""), entry("a/../../out", tar.TypeReg, "x", ""), entry("a\\b", tar.TypeReg, "x", ""), entry("new\nline", tar.TypeReg, "x", ""),
			entry(strings.Repeat("long/", 200)+"x", tar.TypeReg, "x", "")}, ""},
		{"links", good, []tar.Header{entry("way", tar.TypeSymlink, "", "../.."), entry("way/out", tar.TypeReg, "x", ""), entry("hard", tar.TypeLink, "", "/etc/passwd"), entry("pipe", tar.TypeFifo, "", ""), entry("disk", tar.TypeBlock, "", "")}, ""},
		{"a file in the way, and one twice", good, []tar.Header{entry("a", tar.TypeReg, "1", ""), entry("a/b", tar.TypeReg, "2", ""), entry("a", tar.TypeReg, "3", "")}, ""},
		{"too much", good, nil, "more than 268435456 bytes"},
		{"no packages", "", nil, "list of packages is empty"},
		{"an escape sequence", "a\x1b[31m 1 all\n", nil, "the character U+001B"},
		{"not a list", "what is this?\n\n\nit is none\nat all\n", nil, "is not NAME VERSION ARCH"},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := t.TempDir()
			r := &run{Spec: Spec{Dir: filepath.Join(dir, "work"), Origin: &catalog.Origin{Customise: &catalog.Customise{Manager: "pm"}}, Way: catalog.Chroot}, scope: newLog(t).Scope}
			r.out = filepath.Join(dir, "guest.tar")
			inner := pack(append(x.licences, entry("usr/copyright", tar.TypeReg, "kept", ""))...)
			if x.name == "too much" {
				inner = string(sparse)
			}
			out := pack(entry("./packages.txt", tar.TypeReg, x.packages, ""), entry("../chosen.txt", tar.TypeReg, "x", ""), entry(licencesFile, tar.TypeReg, inner, ""))
			if err := os.WriteFile(r.out, []byte(out), 0o600); err != nil {
				t.Fatal(err)
			}
			d := &disk.Disk{Packages: "packages.txt", Licences: "licenses"}
			err := r.collect(d)
			if x.want != "" {
				if err == nil || !strings.Contains(err.Error(), x.want) {
					t.Errorf("%v, want %q", err, x.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					if !d.Type().IsRegular() {
						t.Errorf("%s is no plain file", path)
					}
					found = append(found, strings.TrimPrefix(path, dir))
				}
				return err
			})
			if want := []string{"/guest.tar", "/work/result/licenses/usr/copyright", "/work/result/packages.txt"}; err != nil || len(x.licences) == 0 && !slices.Equal(found, want) {
				t.Errorf("%q, %v, want %q", found, err, want)
			}
			for _, path := range found {
				if path != "/guest.tar" && path != "/work/result/packages.txt" && !strings.HasPrefix(path, "/work/result/licenses/") {
					t.Errorf("%s is outside", path)
				}
			}
			if data, err := os.ReadFile(filepath.Join(dir, "work/result/licenses/usr/copyright")); err != nil || string(data) != "kept" {
				t.Errorf("what is good is lost: %q, %v", data, err)
			}
			if data, err := os.ReadFile(filepath.Join(dir, "work/result/licenses/a")); err == nil && string(data) != "1" {
				t.Errorf("the second one of a name counts: %q", data)
			}
		})
	}
}
