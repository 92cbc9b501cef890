// Package boot starts a disk in a virtual machine and runs the baseline that every image has to pass. Whatever the guest
// says is hostile: what is read of it is bounded in size and time.
package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

// Version names the baseline's definition: results of another one do not count.
const Version = "2"

// hostname is what the seed calls the machine; that the guest has it proves that the seed was read.
const hostname = "kmi-test"

// Spec is one boot test.
type Spec struct {
	Disk     string // qcow2, never written: the machine works on an overlay
	Arch     catalog.Arch
	Firmware string        // "bios" or "uefi"
	Memory   int           // MiB
	User     string        // the login that gets the keys
	Size     int64         // bytes of the disk that the machine sees: the root has to grow to it
	Full     bool          // the whole baseline; otherwise only until the guest agent answers
	Dir      string        // a folder to work in, made and removed by the caller; nothing is put anywhere else
	Deadline time.Duration // for the whole test; 0 means 10 minutes emulated, 30 of another architecture, 3 with KVM

	extra []string // further arguments of QEMU, for tests
	bare  bool     // no overlay, no seed: for tests that boot nothing
}

// Check is one part of the baseline.
type Check struct {
	Name    string  `json:"name"`
	OK      bool    `json:"ok"`
	Detail  string  `json:"detail"`  // the evidence, or what is wrong; one line, harmless to show
	Seconds float64 `json:"seconds"` // since power on
}

// Result is what a boot test found.
type Result struct {
	Firmware string  `json:"firmware"`
	Accel    string  `json:"accel"` // "kvm" or "tcg"
	Checks   []Check `json:"checks"`
	Seconds  float64 `json:"seconds"` // from power on to the end
}

// Program is the QEMU of an architecture.
func Program(arch catalog.Arch) string { return machine.Program(arch) }

// Firmware says whether a firmware can be used here.
func Firmware(arch catalog.Arch, name string) error { return machine.Firmware(arch, name) }

// Accelerator is what runs guests of this host's architecture here, "kvm" or "tcg", and why.
func Accelerator(context.Context) (name, why string) {
	return machine.Accelerate(machine.Host(), machine.Host())
}

// Files of a test, in its folder, which is QEMU's working directory.
const (
	overlayFile = "overlay.qcow2"
	seedFile    = "seed.iso"
	agentSocket = "agent"
)

// machine is the computer that the disk is put into. The port that leads to the guest's ssh is the kernel's choice.
func (s Spec) machine(accel string) machine.Spec {
	args := []string{"-serial", "stdio",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,server=on,wait=off,path=" + agentSocket,
		"-device", "virtserialport,id=" + agentPort + ",chardev=agent,name=org.qemu.guest_agent.0",
		"-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22", "-device", "virtio-net-pci,netdev=net,romfile="}
	if !s.bare {
		args = append(args, "-drive", "if=virtio,format=qcow2,discard=unmap,file="+overlayFile,
			"-drive", "if=virtio,format=raw,readonly=on,file="+seedFile)
	}
	return machine.Spec{Arch: s.Arch, Firmware: s.Firmware, Accel: accel, Memory: s.Memory, Dir: s.Dir, Args: append(args, s.extra...)}
}

// test is one boot test under way.
type test struct {
	Spec
	scope   *event.Scope
	accel   string
	began   time.Time // power on
	result  Result
	vm      *machine.VM
	console *machine.Console
	opened  chan struct{} // closed when the guest has opened the agent's port
	agent   *agent
	port    int         // on 127.0.0.1; leads to the guest's ssh
	leaving atomic.Bool // the guest was told to power off

	closed  bool          // the agent runs no programs: they are run by ssh
	hostKey ssh.PublicKey // of the guest, read by the agent, or seen at the first login where it reads no files
	last    ssh.Signer    // the key that was handed over last
	first   ssh.Signer    // the key that the second one replaces
}

// Run boots the disk and runs the baseline. It returns when the machine is gone; what it has put into Dir stays there.
// The result has what was found up to a failure. Errors: the check that failed, what was expected and found, with the
// last lines of the guest's console and a remedy (*event.Remedied); *command.Missing; the cause of the context's end.
func Run(ctx context.Context, s Spec, scope *event.Scope) (Result, error) {
	accel, why := machine.Accelerate(machine.Host(), s.Arch)
	t := &test{Spec: s, scope: scope, accel: accel, opened: make(chan struct{}), result: Result{Firmware: s.Firmware, Accel: accel}}
	if err := Firmware(s.Arch, s.Firmware); err != nil {
		return t.result, err
	}
	if s.Deadline == 0 {
		s.Deadline = 10 * time.Minute
		switch {
		case accel == "kvm":
			s.Deadline = 3 * time.Minute
		case s.Arch != machine.Host():
			s.Deadline = 30 * time.Minute
		}
	}
	t.Deadline = s.Deadline
	scope.Logf("%s: accelerator %s (%s)", s.Firmware, accel, why)
	if err := t.prepare(ctx); err != nil {
		return t.result, err
	}
	caller := ctx
	ctx, over := context.WithCancelCause(ctx)
	defer over(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, s.Deadline, fmt.Errorf("it did not get further within the test's %s", s.Deadline))
	defer cancel()
	t.began = time.Now()
	if s.Full {
		scope.Deadline(t.began.Add(s.Deadline))
		defer scope.Deadline(time.Time{})
	}
	err := t.start(ctx, over)
	if err == nil {
		err = t.baseline(ctx)
	}
	t.stop()
	t.result.Seconds = time.Since(t.began).Seconds()
	if caller.Err() != nil {
		return t.result, context.Cause(caller)
	}
	return t.result, t.explain(err)
}

// prepare makes what the machine is started from.
func (t *test) prepare(ctx context.Context) error {
	if err := t.machine(t.accel).Prepare(); err != nil {
		return err
	}
	if t.bare {
		return nil
	}
	disk, err := filepath.Abs(t.Disk)
	if err != nil {
		return err
	}
	if err := command.Run(ctx, command.Command{Name: "qemu-img", Dir: t.Dir,
		Args: []string{"create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk, overlayFile, strconv.FormatInt(t.Size, 10)}}, t.scope); err != nil {
		return err
	}
	seed := filepath.Join(t.Dir, "seed")
	if err := os.MkdirAll(seed, 0o755); err != nil {
		return err
	}
	for name, text := range seedTexts() {
		if err := os.WriteFile(filepath.Join(seed, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return command.Run(ctx, command.Command{Name: "xorriso", Dir: t.Dir,
		Args: []string{"-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-output", seedFile, "seed"}}, t.scope)
}

// seedTexts are the files of the NoCloud seed. RSA host keys would cost an emulated guest 20 s; everything else is the
// image's own.
func seedTexts() map[string]string {
	return map[string]string{
		"meta-data": "instance-id: " + hostname + "\nlocal-hostname: " + hostname + "\n",
		"user-data": "#cloud-config\nssh_genkeytypes: [ed25519, ecdsa]\n",
	}
}

// start starts QEMU, connects to it and powers the machine on. From then on, over is told when the guest gives up or
// the machine ends unasked.
func (t *test) start(ctx context.Context, over func(error)) error {
	t.console = machine.NewConsole(t.scope, func(line string) { over(fmt.Errorf("the guest gave up: %s", line)) })
	m := t.machine(t.accel)
	m.Stdout = t.console
	var err error
	if t.vm, err = machine.Start(ctx, m, t.told, t.scope); err != nil {
		return err
	}
	if t.port, err = forwarded(ctx, t.vm.QMP); err != nil {
		return t.vm.Early(ctx, err)
	}
	conn, err := t.vm.Dial(agentSocket)
	if err != nil {
		return t.vm.Early(ctx, err)
	}
	t.agent = newAgent(conn)
	t.began = time.Now()
	if err := t.vm.PowerOn(ctx); err != nil {
		return t.vm.Early(ctx, err)
	}
	go func() {
		<-t.vm.Done()
		if !t.leaving.Load() {
			over(t.ended())
		}
	}()
	return nil
}

// ended says why a machine is gone that nobody has told to go.
func (t *test) ended() error {
	if err := t.vm.Wait(); err != nil {
		return fmt.Errorf("the machine ended by itself: %w", err)
	}
	switch reason := t.vm.QMP.Shutdown(); reason {
	case "guest-reset":
		return errors.New("the guest rebooted")
	case "guest-shutdown":
		return errors.New("the guest powered off by itself")
	default:
		return fmt.Errorf("the machine ended by itself (%s)", reason)
	}
}

// stop makes sure that the machine is gone.
func (t *test) stop() {
	if t.vm != nil {
		t.vm.Close()
	}
	if t.agent != nil {
		t.agent.close()
	}
	if t.console != nil {
		t.console.Close()
	}
}

// explain adds to what failed the machine, the time and the console's last lines.
func (t *test) explain(err error) error {
	var missing *command.Missing
	if err == nil || errors.As(err, &missing) {
		return err
	}
	err = fmt.Errorf("%s, %s: after %.0f s: %w", t.Firmware, t.accel, time.Since(t.began).Seconds(), err)
	if t.console != nil {
		if last := t.console.Last(); last != "" {
			err = fmt.Errorf("%w; the console's last lines: %s", err, last)
		}
	}
	return event.WithRemedy(err, "read the guest's console in the stage's log; nothing was published")
}
