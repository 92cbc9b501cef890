package machine

import (
	"fmt"
	"os"
	"regexp"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Board describes how QEMU plays a computer of an architecture.
type Board struct {
	Program  string
	Type     string           // -machine
	CPU      string           // the emulated processor
	Firmware map[string]Flash // by name: "bios", "uefi"
}

// Flash is a firmware's code, its variables' template and the package of both; empty files mean the board's own.
type Flash struct{ Code, Vars, Package string }

// Boards are the computers that QEMU plays here.
var Boards = map[catalog.Arch]Board{
	// Without graphics, the BIOS and the boot loader speak on the serial port, too.
	catalog.X86_64: {"qemu-system-x86_64", "q35,graphics=off", "max", map[string]Flash{
		"bios": {},
		"uefi": {"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf"},
	}},
	// Emulating the architecture's own pointer authentication would take half of the time.
	catalog.ARM64: {"qemu-system-aarch64", "virt,gic-version=max", "max,pauth-impdef=on", map[string]Flash{
		"uefi": {"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd", "qemu-efi-aarch64"},
	}},
}

// Program is the QEMU of an architecture.
func Program(arch catalog.Arch) string { return Boards[arch].Program }

// Firmware says whether a firmware can be used here.
func Firmware(arch catalog.Arch, name string) error {
	f, ok := Boards[arch].Firmware[name]
	if !ok {
		return fmt.Errorf("%s has no firmware %q", arch, name)
	}
	for _, file := range []string{f.Code, f.Vars} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return event.WithRemedy(fmt.Errorf("%s is missing", file), "install it: apt-get install --no-install-recommends %s", f.Package)
		}
	}
	return nil
}

// Host is the architecture of this machine.
func Host() catalog.Arch {
	if runtime.GOARCH == "amd64" {
		return catalog.X86_64
	}
	return catalog.Arch(runtime.GOARCH)
}

// Accelerate is what runs guests of an architecture on a host of another or the same, "kvm" or "tcg", and why. A
// /dev/kvm that opens is not enough: without virtualisation extensions QEMU starts with it and then fails.
func Accelerate(host, guest catalog.Arch) (name, why string) {
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
