package customise

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
)

// Tests on real guests, some minutes each, for those who change the catalogue's package managers or the script: `make
// guest-test`, and `make emulated-test` for another architecture. KMI_TEST_DISK names a disk without the default packages,
// KMI_TEST_TARGET what it is: "debian:12/x86_64" if it is not set.
func realDisk(t *testing.T) (path string, c *catalog.Catalog) {
	t.Helper()
	path = os.Getenv("KMI_TEST_DISK")
	if path == "" {
		t.Skip("make guest-test runs it")
	}
	needsRoot(t)
	c, err := catalog.Load("../../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	return path, c
}

// realTarget is what KMI_TEST_DISK holds.
func realTarget(t *testing.T, c *catalog.Catalog) (f *catalog.Flavor, r *catalog.Release, arch catalog.Arch) {
	t.Helper()
	name, rest, _ := strings.Cut(cmp.Or(os.Getenv("KMI_TEST_TARGET"), "debian:12/x86_64"), ":")
	version, a, _ := strings.Cut(rest, "/")
	f, r, err := c.Release(name, version)
	if err != nil {
		t.Fatal(err)
	}
	if f.Origin.ArchNames[catalog.Arch(a)] == "" {
		t.Fatalf("KMI_TEST_TARGET: %q is no architecture of %s", a, name)
	}
	return f, r, catalog.Arch(a)
}

// made customises a disk with what a test adds, and returns the result's.
func made(t *testing.T, c *catalog.Catalog, way, disk, manager string, prepare []string, names map[string]string, packages ...string) (path, log, list string) {
	t.Helper()
	l := newLog(t)
	s := Spec{Origin: &catalog.Origin{Kind: "image", Format: "qcow2", ArchNames: map[catalog.Arch]string{catalog.X86_64: "amd64"}, Packages: names,
		Customise: &catalog.Customise{Manager: manager, Prepare: prepare, Without: map[string]string{catalog.PartAgent: "not of this test"}}}, Manager: c.Managers[manager], Release: &catalog.Release{Version: "12"}, Arch: catalog.X86_64,
		Packages: packages, Disk: disk, Size: 10 << 30, Way: way, Dir: t.TempDir()}
	d, err := Run(t.Context(), s, l.Scope)
	if err != nil {
		t.Fatalf("%v\n%s", err, l.text())
	}
	data, err := os.ReadFile(filepath.Join(s.Dir, "result", d.Packages))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(s.Dir, "result", d.File), l.text(), string(data)
}

// Under SELinux the boolean is on in the policy that the guest loads, enforcing stays, and new files have their labels.
func TestSELinux(t *testing.T) {
	plain, c := realDisk(t)
	selinux, _, _ := made(t, c, catalog.Chroot, plain, "apt", []string{
		"apt-get -q update",
		"apt-get -qy --no-install-recommends install selinux-policy-default policycoreutils checkpolicy semodule-utils setools qemu-guest-agent",
		`printf 'SELINUX=enforcing\nSELINUXTYPE=default\n' >/etc/selinux/config`,
		// Debian's policy does not have the boolean that Red Hat's has.
		`printf 'module agent 1.0;\nrequire { type init_t; type unlabeled_t; class file read; }\nbool ` + boolean + ` false;\nif (` + boolean + `) { allow init_t unlabeled_t:file read; }\n' >/tmp/agent.te`,
		"checkmodule -M -m -o /tmp/agent.mod /tmp/agent.te && semodule_package -o /tmp/agent.pp -m /tmp/agent.mod && semodule -n -i /tmp/agent.pp"}, nil)
	for _, way := range []string{catalog.Chroot, catalog.Guestfs} { // in the third way the guest does it under its own kernel
		t.Run(way, func(t *testing.T) {
			if err := new(Host).Can(t.Context(), way, catalog.X86_64); err != nil {
				t.Skip(err)
			}
			result, log, _ := made(t, c, way, selinux, "apt", nil, nil, "git")
			if !strings.Contains(log, "SELinux stays enforcing; "+boolean+" is on") {
				t.Error(log)
			}
			inside(t, result, func(root string) {
				out, err := exec.Command("chroot", root, "sh", "-c", "seinfo /etc/selinux/default/policy/policy.* -b "+boolean+" -x; cat /etc/selinux/config").CombinedOutput()
				if err != nil || !strings.Contains(string(out), "bool "+boolean+" true;") || !strings.Contains(string(out), "SELINUX=enforcing") {
					t.Errorf("%v\n%s", err, out)
				}
				for path, want := range map[string]string{"etc/shadow": "shadow_t", "usr/bin/git": "bin_t"} {
					out, err := exec.Command("getfattr", "--absolute-names", "-n", "security.selinux", filepath.Join(root, path)).CombinedOutput()
					if errors.Is(err, exec.ErrNotFound) {
						t.Skip(err)
					}
					if err != nil || !strings.Contains(string(out), ":"+want+":") {
						t.Errorf("%v\n%s", err, out)
					}
				}
			})
		})
	}
}

// The catalogue's commands work with the real package managers: those of other families run in a Debian guest, too, on
// repositories of a few packages.
func TestPackageManagers(t *testing.T) {
	plain, c := realDisk(t)
	spec := `Name: %s\nVersion: %s\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n%s\n%%description\nx\n%%files\n/usr/share/licenses/%s/COPYING\n%%install\nmkdir -p %%{buildroot}/usr/share/licenses/%s\nhead -c 5000 /dev/zero | tr "\\\\0" x >%%{buildroot}/usr/share/licenses/%s/COPYING\n`
	rpm := func(name, version, more string) string {
		return "printf '" + spec + "' " + name + " " + version + " '" + more + "' " + name + " " + name + " " + name + " >/tmp/x.spec && rpmbuild -bb --define '_rpmdir /srv/rpm' --define '_topdir /tmp/rpm' /tmp/x.spec >/dev/null"
	}
	pacman := func(name string) string {
		return "mkdir -p /tmp/" + name + " && cd /tmp/" + name + ` && printf 'pkgname=` + name + `\npkgver=1.0\npkgrel=1\narch=(any)\npackage() { mkdir -p "$pkgdir/usr/share/licenses/` + name + `"; head -c 5000 /dev/zero >"$pkgdir/usr/share/licenses/` + name +
			`/COPYING"; }\n' >PKGBUILD && chown -R nobody . && setpriv --reuid=65534 --clear-groups env HOME=/tmp makepkg -c -f >/dev/null 2>&1 && cp *.pkg.tar* /srv/pacman/ && cd /`
	}
	many, _, _ := made(t, c, catalog.Chroot, plain, "apt", []string{
		"apt-get -q update",
		"apt-get -qy --no-install-recommends install rpm dnf zypper createrepo-c pacman-package-manager makepkg fakeroot libarchive-tools zstd gawk binutils file xz-utils",
		"mkdir -p /srv/rpm /srv/pacman /etc/rpm; echo '%_dbpath /var/lib/rpm' >/etc/rpm/macros", // where the families have it
		rpm("git", "2.0", "Provides: git-core"), rpm("vim-enhanced", "9.0", "Epoch: 2"), rpm("neofetch", "7", ""), rpm("base", "1", ""),
		"rpm --initdb; rpm -i /srv/rpm/noarch/base-1-1.noarch.rpm", rpm("base", "2", ""), "createrepo_c -q /srv/rpm",
		"mkdir -p /etc/yum.repos.d /etc/dnf/vars /etc/zypp/repos.d; echo 1 >/etc/dnf/vars/releasever",
		`for d in /etc/yum.repos.d /etc/zypp/repos.d; do printf '[own]\nname=own\nbaseurl=file:///srv/rpm\ngpgcheck=0\nenabled=1\nautorefresh=1\n' >$d/own.repo; done`,
		pacman("git"), pacman("vim"), pacman("fastfetch"), "cd /srv/pacman && repo-add own.db.tar.gz *.pkg.tar* >/dev/null && cd /",
		"mkdir -p /etc/pacman.d/gnupg && echo secret >/etc/pacman.d/gnupg/key",
		`printf '[options]\nArchitecture = auto\nSigLevel = Never\n[own]\nServer = file:///srv/pacman\n' >/etc/pacman.conf`,
	}, nil)
	for _, x := range []struct {
		manager string
		names   map[string]string
		want    []string
	}{
		{"dnf", map[string]string{"vim": "vim-enhanced", "screenfetch": "fastfetch|neofetch|", "tmux": "tmux|"}, []string{"git 2.0-1 noarch 5000", "vim-enhanced 2:9.0-1 noarch 5000", "neofetch 7-1 noarch 5000", "base 2-1 noarch 5000"}},
		{"zypper", map[string]string{"vim": "vim-enhanced", "screenfetch": "fastfetch|neofetch|", "tmux": "tmux|"}, []string{"git 2.0-1 noarch 5000", "vim-enhanced 2:9.0-1 noarch 5000", "neofetch 7-1 noarch 5000", "base 2-1 noarch 5000"}},
		{"pacman", map[string]string{"screenfetch": "fastfetch|neofetch|", "tmux": "tmux|"}, []string{"git 1.0-1 any ", "vim 1.0-1 any ", "fastfetch 1.0-1 any "}},
	} {
		t.Run(x.manager, func(t *testing.T) {
			result, log, list := made(t, c, catalog.Chroot, many, x.manager, nil, x.names, "git", "vim", "screenfetch", "tmux")
			for _, want := range x.want {
				if !strings.Contains("\n"+list, "\n"+want) {
					t.Errorf("%q is not in the list:\n%s\n%s", want, list, log)
				}
			}
			if strings.Contains(list, "base 1-1") || !strings.Contains(log, "tmux: left out") {
				t.Errorf("%s\n%s", list, log)
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(result), "licenses/usr/share/licenses/git/COPYING")); err != nil {
				t.Error(err)
			}
			if x.manager == "pacman" {
				inside(t, result, func(root string) {
					if _, err := os.Stat(filepath.Join(root, "etc/pacman.d/gnupg")); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("the keyring with its private key is still there: %v", err)
					}
				})
			}
		})
	}
}

// Every way leaves the same packages, and the same files with the same contents, owners and modes.
func TestWaysAgree(t *testing.T) {
	plain, c := realDisk(t)
	flavor, release, arch := realTarget(t, c)
	var host Host
	var first string
	var packages string
	var files map[string]string
	for _, way := range catalog.Ways {
		if err := host.Can(t.Context(), way, arch); err != nil {
			t.Logf("%s: %v", way, err)
			continue
		}
		if only := os.Getenv("KMI_TEST_WAY"); only != "" && !strings.Contains(only, way) {
			continue
		}
		t.Run(way, func(t *testing.T) {
			l := newLog(t)
			s := Spec{Origin: &catalog.Origin{Kind: "image", Format: "qcow2", ArchNames: flavor.Origin.ArchNames, Boot: flavor.Origin.Boot,
				Customise: &catalog.Customise{Manager: "apt", Seed: "cloud-init", Trusted: "made here"}}, Manager: c.Managers["apt"], Release: release, Arch: arch,
				Packages: c.Project.Packages, Disk: plain, Size: 10 << 30, Way: way, Dir: t.TempDir(), Cache: t.TempDir()}
			d, err := Run(t.Context(), s, l.Scope)
			if err != nil {
				t.Fatalf("%v\n%s", err, l.text())
			}
			for _, step := range d.Steps {
				t.Logf("%7.1f s  %s", step.Seconds, step.Name)
			}
			if l := left(s.Dir); l != nil {
				t.Error(l)
			}
			data, err := os.ReadFile(filepath.Join(s.Dir, "result", d.Packages))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%.1f MB, %d packages", float64(d.Size)/1e6, strings.Count(string(data), "\n"))
			found := map[string]string{}
			inside(t, filepath.Join(s.Dir, "result", d.File), func(root string) { found = tree(t, root) })
			if first == "" {
				first, packages, files = way, string(data), found
				return
			}
			if string(data) != packages {
				t.Errorf("the packages differ from those of %s", first)
			}
			for _, line := range differences(files, found) {
				t.Errorf("%s and %s: %s", first, way, line)
			}
		})
	}
}

// Cancelled while they work, the slow ways leave nothing either.
func TestCancelTheSlowWays(t *testing.T) {
	plain, c := realDisk(t)
	cause := errors.New("enough")
	var host Host
	cache := t.TempDir()
	for _, x := range []struct{ way, at string }{
		{catalog.Guestfs, "── customise"}, {catalog.Guestfs, "kmi-part: refresh"}, {catalog.Guestfs, "Unpacking "}, {catalog.SelfBoot, "power on"}, {catalog.SelfBoot, "console | "},
	} {
		if err := host.Can(t.Context(), x.way, catalog.X86_64); err != nil {
			t.Logf("%s: %v", x.way, err)
			continue
		}
		t.Run(x.way+" "+x.at, func(t *testing.T) {
			l := newLog(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			l.mu.Lock()
			l.each = func(line string) {
				if strings.Contains(line, x.at) {
					cancel(cause)
				}
			}
			l.mu.Unlock()
			s := Spec{Origin: &catalog.Origin{Kind: "image", Format: "qcow2", ArchNames: map[catalog.Arch]string{catalog.X86_64: "amd64"},
				Customise: &catalog.Customise{Manager: "apt", Seed: "cloud-init"}}, Manager: c.Managers["apt"], Release: &catalog.Release{Version: "12"}, Arch: catalog.X86_64,
				Packages: c.Project.Packages, Disk: plain, Size: 10 << 30, Way: x.way, Dir: t.TempDir(), Cache: cache}
			if _, err := Run(ctx, s, l.Scope); !errors.Is(err, cause) {
				t.Errorf("%v\n%s", err, l.text())
			}
			if l := left(s.Dir); l != nil {
				t.Error(l)
			}
		})
	}
}

// tree lists the files below a folder: what they are, and a checksum of what they hold.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		info, err := d.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		what := fmt.Sprintf("%s %d:%d", info.Mode(), stat.Uid, stat.Gid)
		switch {
		case info.Mode().IsRegular():
			sum, _, err := disk.Sum(path)
			if err != nil {
				return err
			}
			what += " " + sum[:16]
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += " " + to
		}
		list[name] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// timed are files in which programs note the time, or what the kernel was that they ran under.
var timed = regexp.MustCompile(`^/(var/log/|var/cache/(ldconfig/|man/|apt/)|var/lib/dpkg/(status|.*-old)$|var/lib/apt/(extended_states|daily_lock)|var/lib/dpkg/info$|etc/ld.so.cache$|lost\+found)|^/(var/cache/debconf|usr/share/mime|var/lib/systemd/deb-systemd)`)

func differences(a, b map[string]string) (list []string) {
	for name, what := range a {
		if other, ok := b[name]; !ok {
			list = append(list, name+" is missing: "+what)
		} else if other != what && !timed.MatchString(name) {
			list = append(list, name+": "+what+" became "+other)
		}
	}
	for name, what := range b {
		if _, ok := a[name]; !ok {
			list = append(list, name+" is new: "+what)
		}
	}
	slices.Sort(list)
	return list
}
