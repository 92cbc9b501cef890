// Package machine runs a virtual machine under QEMU: confined, powered on only when its caller is connected, gone when
// its caller is. What the machine is for, is its callers' business.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Files of a machine, in its folder.
const (
	varsFile  = "vars.fd"
	qmpSocket = "qmp"
)

// Spec is a machine.
type Spec struct {
	Arch       catalog.Arch
	Firmware   string    // "bios" or "uefi"
	Accel      string    // "kvm" or "tcg", see Accelerate
	Memory     int       // MiB
	Processors int       // 0: one where they are emulated, which is faster than two, and two with KVM
	Dir        string    // QEMU's working directory: what is in it needs no quoting, whatever the folder is called
	Args       []string  // its devices
	Stdout     io.Writer // for a port that goes to stdio; nil: log lines
}

// Arguments are QEMU's. The machine waits for QMP's cont; a reboot ends it.
func (s Spec) Arguments() []string {
	b := Boards[s.Arch]
	cpu, smp := b.CPU, 1
	if s.Accel == "kvm" {
		cpu, smp = "host", 2
	}
	if s.Processors > 0 {
		smp = s.Processors
	}
	args := []string{"-name", "kmi", "-machine", b.Type, "-accel", s.Accel, "-cpu", cpu, "-smp", strconv.Itoa(smp), "-m", strconv.Itoa(s.Memory),
		"-S", "-display", "none", "-nodefaults", "-no-reboot", "-no-user-config", "-monitor", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-qmp", "unix:" + qmpSocket + ",server=on,wait=off",
		"-device", "virtio-rng-pci"}
	if f := b.Firmware[s.Firmware]; f.Code != "" {
		args = append(args, "-drive", "if=pflash,format=raw,readonly=on,file="+f.Code, "-drive", "if=pflash,format=raw,file="+varsFile)
	}
	return append(args, s.Args...)
}

// Prepare puts the firmware's variables, with nothing remembered, into the machine's folder.
func (s Spec) Prepare() error {
	f := Boards[s.Arch].Firmware[s.Firmware]
	if f.Vars == "" {
		return nil
	}
	data, err := os.ReadFile(f.Vars)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.Dir, varsFile), data, 0o600)
}

// VM is a machine that QEMU plays.
type VM struct {
	*command.Process
	QMP *QMP
	dir *os.File
}

// Start starts QEMU, paused, and connects to its control socket. The machine has to be closed, even after an error, as
// long as it is not nil. Where told is not nil, it gets QEMU's events.
func Start(ctx context.Context, s Spec, told func(name string, data json.RawMessage), scope *event.Scope) (*VM, error) {
	dir, err := os.Open(s.Dir)
	if err != nil {
		return nil, err
	}
	p, err := command.Start(ctx, command.Command{Name: Program(s.Arch), Args: s.Arguments(), Dir: s.Dir, Stdout: s.Stdout, Grace: time.Second}, scope)
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	v := &VM{Process: p, dir: dir}
	if v.QMP, err = DialQMP(ctx, v.path(qmpSocket), p.Done(), told); err != nil {
		return v, v.Early(ctx, err)
	}
	return v, nil
}

// path is a name for a file in the machine's folder that is short enough for a socket: they have names of at most 107
// bytes, folders may have longer ones.
func (v *VM) path(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", v.dir.Fd(), name) }

// Dial connects to a Unix socket in the machine's folder on which QEMU listens, or will in a moment: that of a stream
// netdev it opens beside its other work.
func (v *VM) Dial(name string) (net.Conn, error) {
	for began := time.Now(); ; {
		conn, err := net.Dial("unix", v.path(name))
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > 10*time.Second {
			return conn, err
		}
		select {
		case <-v.Done():
			return conn, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// PowerOn lets the machine run.
func (v *VM) PowerOn(ctx context.Context) error { return v.QMP.Call(ctx, "cont", nil, nil) }

// Early makes the best of an error from before power on: where QEMU ended, its own words say more.
func (v *VM) Early(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-v.Done():
	case <-time.After(time.Second): // its last words are still on their way
		v.Kill()
		return err
	}
	if perr := v.Wait(); perr != nil {
		return perr
	}
	return err
}

// Close makes sure that the machine is gone: nothing of it is kept.
func (v *VM) Close() {
	select {
	case <-v.Done():
	default:
		v.Kill()
		<-v.Done()
	}
	if v.QMP != nil {
		v.QMP.Close()
	}
	_ = v.dir.Close()
}
