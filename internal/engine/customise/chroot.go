package customise

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

//go:embed chroot.sh
var chrootScript string

// guestTime is how long the guest's own programs may take.
const guestTime = 2 * time.Hour

// guestMemory bounds the address space of each of them where this host runs them itself, bytes.
const guestMemory = 16 << 30

// chroot mounts the guest's file systems on this host and runs the script in them, confined.
func (r *run) chroot(ctx context.Context) error {
	ns, listener, err := namespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	p := newProxy(listener, r.Mirrors, r.scope)
	defer p.close()
	r.proxy = "http://" + listener.Addr().String()

	devices := map[int]*loop{} // by the volumes' numbers
	defer func() {
		for _, l := range devices {
			l.close()
		}
	}()
	table := func(list []mount) error {
		var b, d strings.Builder
		for _, m := range list {
			l := devices[m.Volume.Number]
			if l == nil {
				if l, err = attach(r.raw, m.Volume); err != nil {
					return err
				}
				devices[m.Volume.Number] = l
				fmt.Fprintf(&d, "--dev-bind %s %s ", l.path, l.path)
				for folder, name := range map[string]string{"by-uuid": m.Volume.UUID, "by-partuuid": m.Volume.PartID} {
					if name != "" { // boot loaders' programs look here
						fmt.Fprintf(&d, "--symlink ../../%s /dev/disk/%s/%s ", filepath.Base(l.path), folder, name)
					}
				}
			}
			options := m.Options
			if options == "" {
				options = "-"
			}
			fmt.Fprintf(&b, "%s %s %s %s\n", l.path, m.Volume.FS, options, m.Point)
		}
		if err := r.note("mounts", b.String()); err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(r.Dir, "devices"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_, err = f.WriteString(d.String())
		return errors.Join(err, f.Close())
	}
	if err := table([]mount{{Volume: r.root, Point: "/"}}); err != nil {
		return err
	}
	for name, text := range map[string]string{"chroot.sh": chrootScript, "script": r.script(), "grow": "", "relabel": "", "seccomp": string(filter())} {
		if err := r.note(name, text); err != nil {
			return err
		}
	}
	memory := int64(guestMemory)
	if r.Arch != machine.Host() {
		memory = 0 // an emulator's address space is not the program's
	}
	isolated := func(phase string) error {
		return command.Run(ctx, command.Command{Name: "sh", Args: []string{"-eu", "chroot.sh", phase}, Dir: r.Dir, Isolated: true, Network: ns,
			MaxFile: disk.MaxVirtualSize, MaxMemory: memory, MaxTime: guestTime, Each: r.line}, r.scope)
	}
	needed := map[string]string{"xfs": "xfs_growfs", "btrfs": "btrfs"}[r.root.FS]
	if needed != "" && r.grow {
		if _, err := command.Look(needed); err != nil {
			return err
		}
	}
	if err := isolated("look"); err != nil {
		return err
	}
	read := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(r.Dir, "look."+name))
		return string(data)
	}
	if read("etc_os-release")+read("usr_lib_os-release") == "" && r.Origin.Customise.Manager != "" {
		return r.noGuest()
	}
	list := mounts(read("etc_fstab"), r.volumes, r.root)
	if subvolume := "subvol=" + strings.TrimSpace(read("subvolume")); list[0].Options == "" && subvolForm.MatchString(subvolume) {
		list[0].Options = subvolume
	}
	if err := table(list); err != nil {
		return err
	}
	if r.grow {
		if err := r.note("grow", "root\n"); err != nil {
			return err
		}
	}
	if kind := selinux(read("etc_selinux_config")); kind != "" {
		if _, out := r.Origin.Customise.Without[catalog.PartSELinux]; !out {
			if _, err := command.Look("setfiles"); err != nil {
				return fmt.Errorf("the guest's files need SELinux labels: %w", err)
			}
			if err := r.note("relabel", kind); err != nil {
				return err
			}
		}
	}
	if err := isolated("customise"); err != nil {
		return err
	}
	r.scope.Logf("%s came from package archives", fetch.Size(p.bytes.Load()))
	return nil
}

// note writes a file that the scripts read.
func (r *run) note(name, text string) error {
	return fetch.WriteFile(filepath.Join(r.Dir, name), []byte(text), 0o644)
}

// selinux reads the policy's name from SELinux' configuration; "" where it is off.
func selinux(config string) string {
	mode, kind := "", ""
	for _, line := range strings.Split(config, "\n") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name {
		case "SELINUX":
			mode = strings.TrimSpace(value)
		case "SELINUXTYPE":
			kind = strings.TrimSpace(value)
		}
	}
	if mode != "enforcing" && mode != "permissive" || !pointForm.MatchString("/"+kind) || strings.Contains(kind, "..") {
		return ""
	}
	return kind
}
