// Package boot starts a disk in a virtual machine and runs the baseline that every image has to pass.
package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Version names the baseline's definition: results of another one do not count.
const Version = "1"

// Spec is one boot test.
type Spec struct {
	Disk     string // qcow2, never written: the machine works on an overlay
	Arch     catalog.Arch
	Firmware string        // "bios" or "uefi"
	Memory   int           // MiB
	User     string        // the login that gets the keys
	Size     int64         // bytes of the disk that the machine sees: the root has to grow to it
	Full     bool          // the whole baseline; otherwise only until the guest agent answers
	Dir      string        // a folder to work in, made and removed by the caller
	Deadline time.Duration // for the whole test; 0 means 10 minutes emulated, 3 with KVM

	extra []string            // further arguments of QEMU, for tests
	port  func() (int, error) // finds a free port; nil: freePort
	bare  bool                // no overlay, no seed: for tests that boot a kernel directly
}

// Check is one part of the baseline.
type Check struct {
	Name    string  `json:"name"`
	OK      bool    `json:"ok"`
	Detail  string  `json:"detail"`  // the evidence
	Seconds float64 `json:"seconds"` // since power on
}

// Result is what a boot test found.
type Result struct {
	Firmware string  `json:"firmware"`
	Accel    string  `json:"accel"` // "kvm" or "tcg"
	Checks   []Check `json:"checks"`
	Seconds  float64 `json:"seconds"`
}

// machine describes how QEMU plays a computer of an architecture.
type machine struct {
	program  string
	board    string
	console  string // the serial port as the guest calls it
	firmware map[string]flash
}

// flash is a firmware's code, its variables' template and the package of both; empty files mean the board's own.
type flash struct{ code, vars, pkg string }

var machines = map[catalog.Arch]machine{
	catalog.X86_64: {"qemu-system-x86_64", "q35", "ttyS0", map[string]flash{
		"bios": {},
		"uefi": {"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf"},
	}},
	catalog.ARM64: {"qemu-system-aarch64", "virt,gic-version=max", "ttyAMA0", map[string]flash{
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

// Accelerator is what runs guests here, "kvm" or "tcg", and why. A /dev/kvm that opens is not enough: without
// virtualisation extensions QEMU starts with it and then fails.
func Accelerator(context.Context) (name, why string) {
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "tcg", err.Error()
	}
	return accelerator(string(cpu), func() error {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err == nil {
			_ = f.Close()
		}
		return err
	})
}

var extensions = regexp.MustCompile(`(?m)^flags\s*:.*\b(vmx|svm)\b`)

func accelerator(cpuinfo string, open func() error) (name, why string) {
	if err := open(); err != nil {
		return "tcg", err.Error()
	}
	if !extensions.MatchString(cpuinfo) {
		return "tcg", "/dev/kvm is there, but the processor offers no virtualisation extensions (vmx, svm)"
	}
	return "kvm", "/dev/kvm opens and the processor has virtualisation extensions"
}

// arguments are QEMU's.
func (s Spec) arguments(accel, sock string, port int) []string {
	m := machines[s.Arch]
	cpu, smp := "max", "1" // emulated, one processor is faster than two
	if accel == "kvm" {
		cpu, smp = "host", "2"
	}
	args := []string{"-name", "kmi", "-machine", m.board, "-accel", accel, "-cpu", cpu, "-smp", smp, "-m", strconv.Itoa(s.Memory),
		"-display", "none", "-nodefaults", "-no-reboot", "-no-user-config", "-serial", "stdio", "-monitor", "none",
		"-qmp", "unix:" + filepath.Join(sock, "qmp") + ",server=on,wait=off",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,server=on,wait=off,path=" + filepath.Join(sock, "agent"),
		"-device", "virtserialport,id=agent0,chardev=agent,name=org.qemu.guest_agent.0",
		"-netdev", fmt.Sprintf("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:%d-:22", port), "-device", "virtio-net-pci,netdev=net,romfile="}
	if f := m.firmware[s.Firmware]; f.code != "" {
		args = append(args, "-drive", "if=pflash,format=raw,readonly=on,file="+f.code, "-drive", "if=pflash,format=raw,file="+filepath.Join(s.Dir, "vars.fd"))
	}
	if !s.bare {
		args = append(args, "-drive", "if=virtio,format=qcow2,discard=unmap,file="+filepath.Join(s.Dir, "overlay.qcow2"),
			"-drive", "if=virtio,format=raw,readonly=on,file="+filepath.Join(s.Dir, "seed.iso"))
	}
	return append(args, s.extra...)
}

// test is one boot test under way.
type test struct {
	Spec
	scope   *event.Scope
	accel   string
	began   time.Time
	total   int
	result  Result
	agent   *agent
	qmp     *qmp
	port    int
	host    string // the machine's name
	process *command.Process
	first   ssh.Signer // the key that the second one replaces

	mu     sync.Mutex
	serial []string // last lines of the console
	panic  chan string
}

// Run boots the disk and runs the baseline. The result has what was found up to a failure. Errors: what failed, with the
// last lines of the guest's console; *command.Missing; the context's.
func Run(ctx context.Context, s Spec, scope *event.Scope) (Result, error) {
	accel, why := Accelerator(ctx)
	t := &test{Spec: s, scope: scope, accel: accel, host: "kmi-test", panic: make(chan string, 1)}
	t.result = Result{Firmware: s.Firmware, Accel: accel}
	if err := Firmware(s.Arch, s.Firmware); err != nil {
		return t.result, err
	}
	if s.Deadline == 0 {
		s.Deadline = 10 * time.Minute
		if accel == "kvm" {
			s.Deadline = 3 * time.Minute
		}
	}
	scope.Logf("%s: accelerator %s (%s)", s.Firmware, accel, why)
	if err := t.prepare(ctx); err != nil {
		return t.result, err
	}
	// Sockets have names of at most 107 bytes: they get a short folder.
	sock, err := os.MkdirTemp("", "kmi")
	if err != nil {
		return t.result, err
	}
	defer os.RemoveAll(sock)
	caller := ctx
	deadline := fmt.Errorf("it did not get further within %s", s.Deadline)
	ctx, cancel := context.WithTimeoutCause(ctx, s.Deadline, deadline)
	defer cancel()
	err = t.start(ctx, sock)
	if err == nil {
		err = t.baseline(ctx)
	}
	t.stop()
	t.result.Seconds = time.Since(t.began).Seconds()
	if caller.Err() != nil {
		return t.result, context.Cause(caller)
	}
	if err != nil {
		return t.result, t.explain(err)
	}
	return t.result, nil
}

// prepare makes what the machine is started from.
func (t *test) prepare(ctx context.Context) error {
	if f := machines[t.Arch].firmware[t.Firmware]; f.vars != "" {
		data, err := os.ReadFile(f.vars)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(t.Dir, "vars.fd"), data, 0o600); err != nil {
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
	if err := command.Run(ctx, command.Command{Name: "qemu-img", Args: []string{"create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk,
		filepath.Join(t.Dir, "overlay.qcow2"), strconv.FormatInt(t.Size, 10)}}, t.scope); err != nil {
		return err
	}
	seed := filepath.Join(t.Dir, "seed")
	if err := os.MkdirAll(seed, 0o755); err != nil {
		return err
	}
	// RSA host keys would cost an emulated guest 20 s; everything else is the image's own.
	for name, text := range map[string]string{
		"meta-data": fmt.Sprintf("instance-id: kmi-test\nlocal-hostname: %s\n", t.host),
		"user-data": "#cloud-config\nssh_genkeytypes: [ed25519, ecdsa]\n",
	} {
		if err := os.WriteFile(filepath.Join(seed, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return command.Run(ctx, command.Command{Name: "xorriso", Args: []string{"-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rock",
		"-output", filepath.Join(t.Dir, "seed.iso"), seed}}, t.scope)
}

// panics are what a kernel says when it is over.
var panics = regexp.MustCompile(`Kernel panic - not syncing|end Kernel panic|You are in emergency mode|VFS: Unable to mount root fs|\(initramfs\)|grub rescue>|No bootable device`)

// start starts QEMU, with another port where one is taken, and connects to it.
func (t *test) start(ctx context.Context, sock string) error {
	for try := 0; ; try++ {
		var err error
		find := t.Spec.port
		if find == nil {
			find = freePort
		}
		if t.port, err = find(); err != nil {
			return err
		}
		t.began = time.Now()
		lines := t.scope.Lines(t.console)
		var said []string
		t.process, err = command.Start(ctx, command.Command{Name: Program(t.Arch), Args: t.arguments(t.accel, sock, t.port), Stdout: lines, Grace: time.Second,
			Each: func(line string) { said = append(said, line) }}, t.scope)
		if err != nil {
			return err
		}
		t.qmp, err = dialQMP(ctx, filepath.Join(sock, "qmp"), t.process)
		if err == nil {
			t.agent = &agent{path: filepath.Join(sock, "agent")}
			return nil
		}
		if perr := t.process.Wait(); perr != nil && ctx.Err() == nil {
			err = perr
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if try < 5 && strings.Contains(strings.Join(said, " "), "Could not set up host forwarding rule") {
			t.scope.Logf("port %d was taken meanwhile: trying another", t.port)
			continue
		}
		return err
	}
}

// stop makes sure that the machine is gone.
func (t *test) stop() {
	if t.agent != nil {
		t.agent.close()
	}
	if t.process == nil {
		return
	}
	t.process.Kill() // nothing of it is kept
	<-t.process.Done()
	if t.qmp != nil {
		t.qmp.close()
	}
}

// console sees every line of the guest's serial console.
func (t *test) console(line string) {
	line = event.Clean(line)
	if strings.TrimSpace(line) == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.serial = append(t.serial, line); len(t.serial) > 12 {
		t.serial = t.serial[1:]
	}
	if panics.MatchString(line) {
		select {
		case t.panic <- line:
		default:
		}
	}
}

// explain adds the console's last lines.
func (t *test) explain(err error) error {
	var missing *command.Missing
	if errors.As(err, &missing) {
		return err
	}
	t.mu.Lock()
	last := strings.Join(t.serial, " | ")
	t.mu.Unlock()
	err = fmt.Errorf("%s, %s: after %.0f s: %w", t.Firmware, t.accel, time.Since(t.began).Seconds(), err)
	if last != "" {
		err = fmt.Errorf("%w; the console's last lines: %s", err, last)
	}
	return event.WithRemedy(err, "read the guest's console in the stage's log; nothing was published")
}
