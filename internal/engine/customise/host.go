package customise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

// Host knows in which ways this machine can customise disks. It looks once. The zero value is ready.
type Host struct {
	mu    sync.Mutex
	known map[string]error // by way and architecture
}

// Choose chooses the way in which a release's disk is customised here, the first of those that its flavor allows and
// this machine can. signed says whether the file's signature is verified with a pinned key: only such a disk, or one that
// the catalogue trusts, is mounted by this host's own kernel. With try the way is tried, which takes a moment; without it
// only looked at. why tells the reasons in a few words; the error those against every way.
func (h *Host) Choose(ctx context.Context, o *catalog.Origin, r *catalog.Release, arch catalog.Arch, signed, try bool) (way, why string, err error) {
	if why := o.Untouched(r); why != "" {
		return Copy, why, nil
	}
	var against []string
	for _, way := range o.Customise.Ways {
		err := h.can(ctx, o, way, arch, try)
		if err == nil && way == catalog.Chroot && !signed && o.Customise.Trusted == "" {
			err = errors.New("upstream's disk is not signed, so this host does not mount it")
		}
		if err == nil {
			why := "the first that the catalogue names"
			switch {
			case len(against) > 0:
				why = strings.Join(against, "; ")
			case way == catalog.Chroot && signed:
				why = "upstream's disk is signed, and this machine can mount it"
			case way == catalog.Chroot:
				why = "the catalogue trusts upstream's disk: " + o.Customise.Trusted
			}
			return way, why, nil
		}
		what := err.Error()
		var remedied *event.Remedied
		if errors.As(err, &remedied) {
			what += " (" + remedied.Remedy + ")"
		}
		against = append(against, way+": "+what)
	}
	return "", "", errors.New(strings.Join(against, "; "))
}

// Can says why disks of an architecture cannot be customised in a way here; nil if they can. It tries, which takes a
// moment the first time.
func (h *Host) Can(ctx context.Context, way string, arch catalog.Arch) error {
	return h.can(ctx, &catalog.Origin{}, way, arch, true)
}

// can says why a way cannot be gone here; nil if it can.
func (h *Host) can(ctx context.Context, o *catalog.Origin, way string, arch catalog.Arch, try bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := fmt.Sprint(way, " ", arch, " ", firmware(o, arch), " ", try)
	err, looked := h.known[key]
	if !looked {
		switch way {
		case catalog.Chroot:
			err = canChroot(ctx, arch, try)
		case catalog.Guestfs:
			err = canGuestfs(arch)
		case catalog.SelfBoot:
			err = canSelfBoot(o, arch)
		default:
			err = fmt.Errorf("there is no way %q of customising", way)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if h.known == nil {
			h.known = map[string]error{}
		}
		h.known[key] = err
	}
	return err
}

// chrootPrograms are what the way needs of the host.
var chrootPrograms = []string{"bwrap", "unshare", "prlimit", "mount", "fstrim", "sfdisk", "e2fsck", "resize2fs", "qemu-img"}

// canChroot tries what the way needs: rights, programs, a loop device, a network namespace, and the guest's architecture.
func canChroot(ctx context.Context, arch catalog.Arch, try bool) error {
	if !privileged() {
		return errors.New("only root can mount disks")
	}
	for _, name := range chrootPrograms {
		if _, err := command.Look(name); err != nil {
			return err
		}
	}
	if err := Runs(arch); err != nil {
		return err
	}
	if !try {
		return nil
	}
	dir, err := os.MkdirTemp("", "kmi-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "disk")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		return err
	}
	l, err := attach(file, disk.Volume{Size: 1 << 20})
	if err != nil {
		return fmt.Errorf("it cannot make loop devices: %w", err)
	}
	l.close()
	ns, listener, err := namespace()
	if err != nil {
		return fmt.Errorf("it cannot make namespaces: %w", err)
	}
	_ = listener.Close()
	defer ns.Close()
	if err := os.WriteFile(filepath.Join(dir, "seccomp"), filter(), 0o600); err != nil {
		return err
	}
	err = command.Run(ctx, command.Command{Name: "sh", Args: []string{"-c", "exec bwrap --ro-bind / / --unshare-pid --cap-drop ALL --seccomp 9 -- /bin/true 9<seccomp"}, Dir: dir, Isolated: true, Network: ns}, nil)
	if err != nil {
		return fmt.Errorf("it cannot confine programs: %w", err)
	}
	return nil
}

// privileged says whether this process may mount file systems: root in a container often may not.
func privileged() bool {
	header, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	return unix.Capget(&header, &data[0]) == nil && os.Geteuid() == 0 && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// Runs says why programs of an architecture do not run here; nil if they do, themselves or through the kernel's
// binfmt_misc with an emulator that is opened beforehand (flag F), which a guest's own files need not hold.
func Runs(arch catalog.Arch) error {
	if arch == machine.Host() {
		return nil
	}
	name := "qemu-" + map[catalog.Arch]string{catalog.ARM64: "aarch64", catalog.X86_64: "x86_64"}[arch]
	data, err := os.ReadFile("/proc/sys/fs/binfmt_misc/" + name)
	text := string(data)
	if err != nil || !strings.HasPrefix(text, "enabled") || !strings.Contains(text, "flags: ") || !strings.Contains(strings.SplitN(strings.SplitN(text, "flags: ", 2)[1], "\n", 2)[0], "F") {
		remedy := "apt-get install --no-install-recommends qemu-user-static binfmt-support arch-test"
		if _, err := os.Stat("/proc/sys/fs/binfmt_misc/register"); err != nil { // where no service manager does it
			remedy += "; mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc; update-binfmts --enable " + name
		}
		return event.WithRemedy(fmt.Errorf("programs of %s do not run on this machine", arch), "%s", remedy)
	}
	return nil
}
