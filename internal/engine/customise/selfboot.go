package customise

import (
	"bufio"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/network"
)

//go:embed selfboot.sh
var selfbootScript string

// Names of the machine's, in its folder.
const (
	logSocket = "log"
	netSocket = "net"
	seedImage = "seed.iso"
)

const (
	proxyPort   = 3128
	maxLeft     = 512 << 20 // bytes of the disk that the guest writes its archive to
	leastMemory = 1024      // MiB
)

// Times that a guest may take, by accelerator: from power on until its script says the first word, which one that does
// not read the seed never does, and until the end.
var (
	beginTime = map[string]time.Duration{"kvm": 4 * time.Minute, "tcg": 12 * time.Minute}
	selfTime  = map[string]time.Duration{"kvm": 20 * time.Minute, "tcg": time.Hour}
)

// selfboot boots the disk with a seed that makes the guest run the script itself.
func (r *run) selfboot(ctx context.Context) error {
	accel, why := machine.Accelerate(machine.Host(), r.Arch)
	r.scope.Logf("accelerator %s (%s)", accel, why)
	ctx, cancel := context.WithTimeoutCause(ctx, selfTime[accel], fmt.Errorf("the guest did not get through within %s", selfTime[accel]))
	defer cancel()
	r.proxy = fmt.Sprintf("http://%s:%d", network.Gateway, proxyPort)
	end := "kmi" + rand.Text() // nobody in the guest knows it but the seed's own script
	if err := r.seed(ctx, end); err != nil {
		return err
	}
	if err := os.WriteFile(r.out, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(r.out, maxLeft); err != nil {
		return err
	}
	b := r.Origin.Boot[r.Arch]
	m := machine.Spec{Arch: r.Arch, Accel: accel, Firmware: r.firmware(), Memory: max(leastMemory, b.Memory), Dir: r.Dir, Args: []string{
		"-drive", "if=none,id=disk,format=raw,discard=unmap,detect-zeroes=unmap,cache=unsafe,file=" + filepath.Base(r.raw), "-device", "virtio-blk-pci,drive=disk,bootindex=1",
		"-drive", "if=none,id=out,format=raw,cache=unsafe,file=" + filepath.Base(r.out), "-device", "virtio-blk-pci,drive=out,serial=kmi-out",
		"-drive", "if=none,id=seed,format=raw,readonly=on,file=" + seedImage, "-device", "virtio-blk-pci,drive=seed",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=log,server=on,wait=off,path=" + logSocket, "-device", "virtserialport,chardev=log,name=org.kmi.log",
		"-netdev", "stream,id=net,server=on,addr.type=unix,addr.path=" + netSocket, "-device", "virtio-net-pci,netdev=net,romfile=,mac=" + network.MAC,
		"-serial", "stdio",
	}}
	if err := m.Prepare(); err != nil {
		return err
	}
	ctx, over := context.WithCancelCause(ctx)
	defer over(nil)
	console := machine.NewConsole(r.scope.With("console | "), func(line string) { over(fmt.Errorf("the guest gave up: %s", line)) })
	defer console.Close()
	m.Stdout = console
	vm, err := machine.Start(ctx, m, nil, r.scope)
	if vm != nil {
		defer vm.Close()
	}
	if err != nil {
		return err
	}
	log, err := vm.Dial(logSocket)
	if err != nil {
		return vm.Early(ctx, err)
	}
	defer log.Close()
	link, err := vm.Dial(netSocket)
	if err != nil {
		return vm.Early(ctx, err)
	}
	n, err := network.New(ctx, link, network.Spec{}, r.scope)
	if err != nil {
		_ = link.Close()
		return err
	}
	defer n.Close()
	listener, err := n.Listen(proxyPort)
	if err != nil {
		return err
	}
	p := newProxy(listener, r.Mirrors, r.scope)
	defer p.close()
	if err := vm.PowerOn(ctx); err != nil {
		return vm.Early(ctx, err)
	}
	r.scope.Log("power on")
	r.line(mark + "boot")
	code := make(chan string, 1)
	said := &lastLines{}
	silent := time.AfterFunc(beginTime[accel], func() {
		over(fmt.Errorf("the guest has not begun within %s: does it read a NoCloud seed?", beginTime[accel]))
	})
	defer silent.Stop()
	go func() { code <- r.listen(log, end, said, func() { silent.Stop() }) }()
	select {
	case c := <-code:
		if c != "0" {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if c == "" {
				return r.lost(errors.New("the machine ended before the script did"), console)
			}
			return fmt.Errorf("inside the guest: exit status %s: %s", c, said)
		}
	case <-ctx.Done():
		return r.lost(context.Cause(ctx), console)
	}
	// Its file systems are read-only: nobody writes what a shutdown would write.
	if err := vm.QMP.Call(ctx, "quit", nil, nil); err != nil {
		r.scope.Logf("%v", err)
	}
	select {
	case <-vm.Done():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := vm.Wait(); err != nil {
		return err
	}
	r.line(mark + "done")
	r.scope.Logf("%s came from package archives", fetch.Size(p.bytes.Load()))
	return nil
}

// lost adds to what ended a guest what its console said last.
func (r *run) lost(err error, c *machine.Console) error {
	if last := c.Last(); last != "" {
		err = fmt.Errorf("%w; the console's last lines: %s", err, last)
	}
	return event.WithRemedy(err, "read the guest's console in the stage's log")
}

// listen reads what the script says until its end, and returns the exit status that it tells; "" if it tells none.
func (r *run) listen(from io.Reader, end string, said *lastLines, spoke func()) string {
	lines := bufio.NewReader(from)
	for {
		line, err := machine.ReadLine(lines)
		text := strings.TrimRight(string(line), "\r\n")
		if err == nil {
			spoke()
		}
		if status, ok := strings.CutPrefix(text, end+" "); ok {
			if _, err := strconv.ParseUint(status, 10, 8); err == nil {
				return status
			}
		}
		if text != "" {
			r.scope.Log(text)
			r.line(text)
			said.add(text)
		}
		if err != nil {
			return ""
		}
	}
}

// lastLines keeps a guest's last words, for an error.
type lastLines struct{ lines []string }

func (l *lastLines) add(line string) {
	if len(l.lines) == 5 {
		l.lines = l.lines[1:]
	}
	l.lines = append(l.lines, event.Clean(machine.Clip(line, machine.MaxWords)))
}

func (l *lastLines) String() string { return strings.Join(l.lines, " | ") }

// firmware is the one that the guest is booted with.
func (r *run) firmware() string { return firmware(r.Origin, r.Arch) }

func firmware(o *catalog.Origin, arch catalog.Arch) string {
	if f := o.Boot[arch].Firmware; len(f) > 0 {
		return f[0]
	}
	if arch == catalog.X86_64 {
		return "bios"
	}
	return "uefi"
}

// seed makes the disk from which cloud-init reads what to do (its documentation: "NoCloud").
func (r *run) seed(ctx context.Context, end string) error {
	dir := filepath.Join(r.Dir, "seed")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, text := range seedFiles(rand.Text(), end, r.script(), r.grow) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return command.Run(ctx, command.Command{Name: "xorriso", Dir: r.Dir,
		Args: []string{"-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-output", seedImage, "seed"}}, r.scope)
}

// seedFiles are the seed's files. In the mode local cloud-init does all of it before the network and the services are up,
// and bootcmd comes before every module that changes the guest: it does not return. So no account, host key, host name
// or network configuration is made, and nothing has to be undone.
func seedFiles(instance, end, script string, grow bool) map[string]string {
	fill := "no"
	if grow {
		fill = "yes"
	}
	command := fmt.Sprintf("end=%s address=%s grow=%s\nscript=%s\n%s", end, network.Guest, fill, quote(script), selfbootScript)
	return map[string]string{
		"meta-data":      "instance-id: " + instance + "\ndsmode: local\n",
		"network-config": "config: disabled\n",
		// A string of Go in ASCII is one of YAML, in double quotes.
		"user-data": "#cloud-config\nbootcmd:\n- " + strconv.QuoteToASCII(command) + "\n",
	}
}

// canSelfBoot looks for what the way needs of the host.
func canSelfBoot(o *catalog.Origin, arch catalog.Arch) error {
	for _, name := range []string{"qemu-img", "sfdisk", "prlimit", "xorriso", machine.Program(arch)} {
		if _, err := command.Look(name); err != nil {
			return err
		}
	}
	return machine.Firmware(arch, firmware(o, arch))
}
