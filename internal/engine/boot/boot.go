// Package boot starts a disk in a virtual machine and runs the baseline that every image has to pass. Whatever the guest
// says is hostile: what is read of it is bounded in size and time.
package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
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
	Deadline time.Duration // for the whole test; 0 means 10 minutes emulated, 3 with KVM

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

// machine describes how QEMU plays a computer of an architecture.
type machine struct {
	program  string
	board    string
	cpu      string // the emulated processor
	firmware map[string]flash
}

// flash is a firmware's code, its variables' template and the package of both; empty files mean the board's own.
type flash struct{ code, vars, pkg string }

var machines = map[catalog.Arch]machine{
	// Without graphics, the BIOS and the boot loader speak on the serial port, too.
	catalog.X86_64: {"qemu-system-x86_64", "q35,graphics=off", "max", map[string]flash{
		"bios": {},
		"uefi": {"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf"},
	}},
	// Emulating the architecture's own pointer authentication would take half of the time.
	catalog.ARM64: {"qemu-system-aarch64", "virt,gic-version=max", "max,pauth-impdef=on", map[string]flash{
		"uefi": {"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd", "qemu-efi-aarch64"},
	}},
}

// Program is the QEMU of an architecture.
func Program(arch catalog.Arch) string { return machines[arch].program }

// Firmware says whether a firmware can be used here.
func Firmware(arch catalog.Arch, name string) error {
	f, ok := machines[arch].firmware[name]
	if !ok {
		return fmt.Errorf("%s has no firmware %q", arch, name)
	}
	for _, file := range []string{f.code, f.vars} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return event.WithRemedy(fmt.Errorf("%s is missing", file), "install it: apt-get install --no-install-recommends %s", f.pkg)
		}
	}
	return nil
}

// host is the architecture of this machine.
func host() catalog.Arch {
	if runtime.GOARCH == "amd64" {
		return catalog.X86_64
	}
	return catalog.Arch(runtime.GOARCH)
}

// Accelerator is what runs guests of this host's architecture here, "kvm" or "tcg", and why. A /dev/kvm that opens is
// not enough: without virtualisation extensions QEMU starts with it and then fails.
func Accelerator(context.Context) (name, why string) {
	return accelerate(host(), host())
}

func accelerate(host, guest catalog.Arch) (name, why string) {
	if guest != host {
		return "tcg", fmt.Sprintf("%s is emulated on %s", guest, host)
	}
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "tcg", err.Error()
	}
	return accelerator(host, string(cpu), func() error {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		const createVM = 0xae01 // KVM_CREATE_VM, linux/kvm.h
		vm, err := unix.IoctlRetInt(int(f.Fd()), createVM)
		if err != nil {
			return fmt.Errorf("/dev/kvm opens, but makes no machine: %w", err)
		}
		return unix.Close(vm)
	})
}

var extensions = regexp.MustCompile(`(?m)^flags\s*:.*\b(vmx|svm)\b`)

// accelerator decides by the processor's description and by a try. An x86 processor tells its extensions; on others
// the try says it all.
func accelerator(host catalog.Arch, cpuinfo string, try func() error) (name, why string) {
	if err := try(); err != nil {
		return "tcg", err.Error()
	}
	if host != catalog.X86_64 {
		return "kvm", "/dev/kvm makes machines"
	}
	if !extensions.MatchString(cpuinfo) {
		return "tcg", "/dev/kvm is there, but the processor offers no virtualisation extensions (vmx, svm)"
	}
	return "kvm", "/dev/kvm opens and the processor has virtualisation extensions"
}

// Files of a test, in its folder, which is QEMU's working directory: their names need no quoting, whatever the folder
// is called, and the sockets' names stay short.
const (
	overlayFile = "overlay.qcow2"
	seedFile    = "seed.iso"
	varsFile    = "vars.fd"
	qmpSocket   = "qmp"
	agentSocket = "agent"
)

// arguments are QEMU's. The machine waits for QMP's cont; the port that leads to the guest's ssh is the kernel's choice.
func (s Spec) arguments(accel string) []string {
	m := machines[s.Arch]
	cpu, smp := m.cpu, "1" // emulated, one processor is faster than two
	if accel == "kvm" {
		cpu, smp = "host", "2"
	}
	args := []string{"-name", "kmi", "-machine", m.board, "-accel", accel, "-cpu", cpu, "-smp", smp, "-m", strconv.Itoa(s.Memory),
		"-S", "-display", "none", "-nodefaults", "-no-reboot", "-no-user-config", "-serial", "stdio", "-monitor", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-qmp", "unix:" + qmpSocket + ",server=on,wait=off",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,server=on,wait=off,path=" + agentSocket,
		"-device", "virtserialport,id=" + agentPort + ",chardev=agent,name=org.qemu.guest_agent.0",
		"-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22", "-device", "virtio-net-pci,netdev=net,romfile="}
	if f := m.firmware[s.Firmware]; f.code != "" {
		args = append(args, "-drive", "if=pflash,format=raw,readonly=on,file="+f.code, "-drive", "if=pflash,format=raw,file="+varsFile)
	}
	if !s.bare {
		args = append(args, "-drive", "if=virtio,format=qcow2,discard=unmap,file="+overlayFile,
			"-drive", "if=virtio,format=raw,readonly=on,file="+seedFile)
	}
	return append(args, s.extra...)
}

// test is one boot test under way.
type test struct {
	Spec
	scope   *event.Scope
	accel   string
	began   time.Time // power on
	result  Result
	process *command.Process
	console *console
	qmp     *qmp
	agent   *agent
	port    int         // on 127.0.0.1; leads to the guest's ssh
	leaving atomic.Bool // the guest was told to power off

	hostKey ssh.PublicKey // of the guest, read by the agent
	first   ssh.Signer    // the key that the second one replaces
}

// Run boots the disk and runs the baseline. It returns when the machine is gone; what it has put into Dir stays there.
// The result has what was found up to a failure. Errors: the check that failed, what was expected and found, with the
// last lines of the guest's console and a remedy (*event.Remedied); *command.Missing; the cause of the context's end.
func Run(ctx context.Context, s Spec, scope *event.Scope) (Result, error) {
	accel, why := accelerate(host(), s.Arch)
	t := &test{Spec: s, scope: scope, accel: accel, result: Result{Firmware: s.Firmware, Accel: accel}}
	if err := Firmware(s.Arch, s.Firmware); err != nil {
		return t.result, err
	}
	if s.Deadline == 0 {
		s.Deadline = 10 * time.Minute
		if accel == "kvm" {
			s.Deadline = 3 * time.Minute
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
	if f := machines[t.Arch].firmware[t.Firmware]; f.vars != "" {
		data, err := os.ReadFile(f.vars)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(t.Dir, varsFile), data, 0o600); err != nil {
			return err
		}
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
	dir, err := os.Open(t.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Sockets have names of at most 107 bytes, folders may have longer ones.
	sockets := fmt.Sprintf("/proc/self/fd/%d/", dir.Fd())
	t.console = newConsole(t.scope, func(line string) { over(fmt.Errorf("the guest gave up: %s", line)) })
	t.process, err = command.Start(ctx, command.Command{Name: Program(t.Arch), Args: t.arguments(t.accel), Dir: t.Dir, Stdout: t.console, Grace: time.Second}, t.scope)
	if err != nil {
		return err
	}
	if t.qmp, err = dialQMP(ctx, sockets+qmpSocket, t.process.Done()); err != nil {
		return t.early(ctx, err)
	}
	if t.port, err = t.qmp.forwarded(ctx); err != nil {
		return t.early(ctx, err)
	}
	if t.agent, err = dialAgent(sockets + agentSocket); err != nil {
		return t.early(ctx, err)
	}
	t.began = time.Now()
	if err := t.qmp.call(ctx, "cont", nil, nil); err != nil {
		return t.early(ctx, err)
	}
	go func() {
		<-t.process.Done()
		if !t.leaving.Load() {
			over(t.ended())
		}
	}()
	return nil
}

// early makes the best of an error from before power on: where QEMU ended, its own words say more.
func (t *test) early(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-t.process.Done():
	case <-time.After(time.Second): // its last words are still on their way
		t.process.Kill()
		return err
	}
	if perr := t.process.Wait(); perr != nil {
		return perr
	}
	return err
}

// ended says why a machine is gone that nobody has told to go.
func (t *test) ended() error {
	if err := t.process.Wait(); err != nil {
		return fmt.Errorf("the machine ended by itself: %w", err)
	}
	switch reason := t.qmp.shutdown(); reason {
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
	if t.process != nil {
		select {
		case <-t.process.Done():
		default:
			t.process.Kill() // nothing of it is kept
			<-t.process.Done()
		}
	}
	if t.agent != nil {
		t.agent.close()
	}
	if t.qmp != nil {
		t.qmp.close()
	}
	if t.console != nil {
		t.console.close()
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
		if last := t.console.last(); last != "" {
			err = fmt.Errorf("%w; the console's last lines: %s", err, last)
		}
	}
	return event.WithRemedy(err, "read the guest's console in the stage's log; nothing was published")
}
