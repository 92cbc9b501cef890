package install

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
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

// Spec is one installation.
type Spec struct {
	Script Script
	Arch   catalog.Arch
	Files  map[string]string // what the script's file names stand for: paths of files that were fetched and checked
	Values map[string]string // what the script's {{name}}s stand for
	Dir    string            // a folder that exists; the results end up there, and on the way a subfolder that is removed

	accel string        // for tests; "" means the host's
	slow  float64       // for tests: the factor of time limits
	pause time.Duration // for tests: see settle
}

// Result is what an installation leaves in Spec.Dir.
type Result struct {
	Disk       string  // path of a qcow2 that qemu-img has checked; "" after an error
	Transcript string  // path of what the consoles have said and what was typed, as text; kept after an error, too
	Accel      string  // "kvm" or "tcg"
	Seconds    float64 // from the first power on to the end
	Boots      []float64
}

// Names of results, in Spec.Dir.
const (
	DiskFile       = "disk.qcow2"
	TranscriptFile = "console.txt"
)

// Files of an installation, in its folder, which is QEMU's working directory: their names need no quoting.
const (
	newDisk       = "new.qcow2"
	driveFile     = "drive.img"
	stickFile     = "stick.qcow2"
	mediaLink     = "media"
	kernelLink    = "kernel"
	initrdLink    = "initrd"
	consoleSocket = "console"
	networkSocket = "net"
)

// installation is one under way.
type installation struct {
	Spec
	scope *event.Scope
	dir   string // to work in
	slow  float64
	kept  *transcript
}

// Run installs: it makes a disk, powers the machine on as often as the script says, and talks. It returns when the
// machine is gone. Errors: what is wrong with the script; the step that did not come, with what was expected, the last
// lines of the console, where the whole transcript is, and a remedy (*event.Remedied); *command.Missing; the cause of
// the context's end. Nothing but the results is left of it.
func Run(ctx context.Context, s Spec, scope *event.Scope) (Result, error) {
	var r Result
	if err := errors.Join(s.Script.Check()...); err != nil {
		return r, fmt.Errorf("the installation's script: %w", err)
	}
	var err error
	if s.Script, err = s.Script.filled(s.Values); err == nil {
		err = errors.Join(s.Script.Check()...)
	}
	if err != nil {
		return r, fmt.Errorf("the installation's script: %w", err)
	}
	if err := machine.Firmware(s.Arch, s.Script.Firmware); err != nil {
		return r, err
	}
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return r, err
	}
	i := &installation{Spec: s, scope: scope, slow: s.slow}
	var why string
	if r.Accel, why = machine.Accelerate(machine.Host(), s.Arch); s.accel != "" {
		r.Accel, why = s.accel, "told"
	}
	i.accel = r.Accel
	if i.slow == 0 {
		if i.slow = 1; r.Accel != "kvm" {
			i.slow = Slower
		}
	}
	if i.dir, err = os.MkdirTemp(s.Dir, ".install-"); err != nil {
		return r, fetch.Explain(err, s.Dir)
	}
	defer os.RemoveAll(i.dir)
	r.Transcript = filepath.Join(s.Dir, TranscriptFile)
	if i.kept, err = newTranscript(r.Transcript, scope); err != nil {
		return r, fetch.Explain(err, s.Dir)
	}
	defer i.kept.close()
	i.kept.note("accelerator %s (%s)", r.Accel, why)
	began := time.Now()
	err = i.run(ctx, &r)
	r.Seconds = time.Since(began).Seconds()
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	if err != nil {
		i.kept.note("failed: %v", err)
		return r, fetch.Explain(err, s.Dir)
	}
	i.kept.note("installed after %.0f s", r.Seconds)
	r.Disk = filepath.Join(s.Dir, DiskFile)
	return r, nil
}

func (i *installation) run(ctx context.Context, r *Result) error {
	var talks []*dialogue
	for n, b := range i.Script.Boot {
		d, err := prepare(b, i.slow, i.kept)
		if err != nil {
			return fmt.Errorf("the installation's script: boot %d: %w", n+1, err)
		}
		if i.pause > 0 {
			d.pause = i.pause
		}
		talks = append(talks, d)
	}
	if err := i.prepare(ctx); err != nil {
		return err
	}
	for n, b := range i.Script.Boot {
		began := time.Now()
		err := i.boot(ctx, n, b, talks[n])
		seconds := time.Since(began).Seconds()
		r.Boots = append(r.Boots, seconds)
		if err != nil {
			return i.explain(n, seconds, err)
		}
		i.kept.note("boot %d of %d: through after %.1f s", n+1, len(i.Script.Boot), seconds)
	}
	return i.keep(ctx)
}

// explain adds to what failed where it was, the console's last lines, and where the rest is.
func (i *installation) explain(n int, seconds float64, err error) error {
	var missing *command.Missing
	if errors.As(err, &missing) {
		return err
	}
	err = fmt.Errorf("boot %d of %d, %s, after %.0f s: %w", n+1, len(i.Script.Boot), i.accel, seconds, err)
	if last := i.kept.last(); last != "" {
		err = fmt.Errorf("%w; the console's last lines: %s", err, last)
	}
	err = fmt.Errorf("%w; all of it: %s", err, i.kept.path)
	return event.WithRemedy(err, "read %s; where the installer asks something else than before, change the script's dialogue", i.kept.path)
}

// prepare makes what the machine is given: the new disk, and what is served.
func (i *installation) prepare(ctx context.Context) error {
	size := strconv.Itoa(i.Script.Disk) + "M"
	if m := i.Script.Boot[0].Media; m.Kind == "image" {
		if err := i.link(m.File, mediaLink); err != nil {
			return err
		}
		info, err := os.Stat(filepath.Join(i.dir, mediaLink))
		if err != nil {
			return err
		}
		if most := int64(i.Script.Disk) << 20; info.Size() > most {
			return fmt.Errorf("the installation's script: disk: %d: %s alone takes %d MiB: write more", i.Script.Disk, m.File, (info.Size()+1<<20-1)>>20)
		}
		if err := i.command(ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", mediaLink, newDisk); err != nil {
			return err
		}
		if err := i.command(ctx, "qemu-img", "resize", "-q", "-f", "qcow2", newDisk, size); err != nil {
			return err
		}
	} else if err := i.command(ctx, "qemu-img", "create", "-q", "-f", "qcow2", newDisk, size); err != nil {
		return err
	}
	if i.Script.Serve.Drive == nil {
		return nil
	}
	files, err := i.contents(i.Script.Serve.Drive.Files)
	if err != nil {
		return err
	}
	return makeDrive(ctx, i.dir, *i.Script.Serve.Drive, files, i.scope)
}

func (i *installation) command(ctx context.Context, name string, args ...string) error {
	return command.Run(ctx, command.Command{Name: name, Args: args, Dir: i.dir}, i.scope)
}

// link gives a file of the caller's a name in our folder.
func (i *installation) link(name, as string) error {
	path, ok := i.Files[name]
	if !ok {
		return fmt.Errorf("the installation's script names the file %s, which was not fetched", name)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(i.dir, as))
	return os.Symlink(path, filepath.Join(i.dir, as))
}

// contents finds what served files hold.
func (i *installation) contents(files map[string]File) (map[string]network.Content, error) {
	out := map[string]network.Content{}
	for name, f := range files {
		c := network.Content{Text: f.Text}
		if len(f.Tar) > 0 {
			c.Text = archived(f.Tar)
		}
		if f.From != "" {
			path, ok := i.Files[f.From]
			if !ok {
				return nil, fmt.Errorf("the installation's script serves the file %s, which was not fetched", f.From)
			}
			info, err := os.Stat(path)
			if err == nil && !info.Mode().IsRegular() {
				err = fmt.Errorf("%s is no file", path)
			}
			if err != nil {
				return nil, err
			}
			c = network.Content{Path: path}
		}
		out[name] = c
	}
	return out, nil
}

// devices are QEMU's arguments for a power-on.
func (i *installation) devices(ctx context.Context, b Boot) ([]string, error) {
	m := b.Media
	args := []string{
		"-chardev", "socket,id=console,server=on,wait=off,path=" + consoleSocket, "-serial", "chardev:console",
		"-netdev", "stream,id=net,server=on,addr.type=unix,addr.path=" + networkSocket,
		// Whatever ends badly is thrown away: the host need not write before it wants to.
		"-drive", "if=none,id=disk,format=qcow2,discard=unmap,detect-zeroes=unmap,cache=unsafe,file=" + newDisk,
		"-device", "virtio-blk-pci,drive=disk,bootindex=2",
	}
	card := "virtio-net-pci,netdev=net,mac=" + network.MAC
	if m.Kind == "netboot" {
		args = append(args, "-device", card+",bootindex=1")
	} else {
		args = append(args, "-device", card+",romfile=")
	}
	switch m.Kind {
	case "cdrom":
		if err := i.link(m.File, mediaLink); err != nil {
			return nil, err
		}
		args = append(args, "-drive", "if=none,id=media,media=cdrom,format=raw,readonly=on,file="+mediaLink)
		if i.Arch == catalog.X86_64 { // the board has AHCI
			args = append(args, "-device", "ide-cd,drive=media,bootindex=1")
		} else {
			args = append(args, "-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-cd,bus=scsi.0,drive=media,bootindex=1")
		}
	case "usb":
		if err := i.link(m.File, mediaLink); err != nil {
			return nil, err
		}
		if err := i.command(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", mediaLink, stickFile); err != nil {
			return nil, err
		}
		args = append(args, "-device", "qemu-xhci", "-drive", "if=none,id=media,format=qcow2,cache=unsafe,file="+stickFile,
			"-device", "usb-storage,drive=media,removable=on,bootindex=1")
	case "kernel":
		if err := i.link(m.Kernel, kernelLink); err != nil {
			return nil, err
		}
		args = append(args, "-kernel", kernelLink)
		if m.Initrd != "" {
			if err := i.link(m.Initrd, initrdLink); err != nil {
				return nil, err
			}
			args = append(args, "-initrd", initrdLink)
		}
		if m.Append != "" {
			args = append(args, "-append", m.Append)
		}
	}
	if i.Script.Serve.Drive != nil {
		args = append(args, "-drive", "if=none,id=drive,format=raw,readonly=on,file="+driveFile, "-device", "virtio-blk-pci,drive=drive")
	}
	return args, nil
}

// boot is one power-on.
func (i *installation) boot(ctx context.Context, n int, b Boot, d *dialogue) error {
	for _, name := range []string{stickFile, consoleSocket, networkSocket, "qmp"} { // of the power-on before
		_ = os.Remove(filepath.Join(i.dir, name))
	}
	args, err := i.devices(ctx, b)
	if err != nil {
		return err
	}
	web, err := i.contents(i.Script.Serve.HTTP)
	if err != nil {
		return err
	}
	tftp, err := i.contents(i.Script.Serve.TFTP)
	if err != nil {
		return err
	}
	spec := machine.Spec{Arch: i.Arch, Firmware: i.Script.Firmware, Accel: i.accel, Memory: i.Script.Memory, Processors: i.Script.Processors, Dir: i.dir, Args: args}
	if n == 0 { // later ones know what the installer has told the firmware
		if err := spec.Prepare(); err != nil {
			return err
		}
	}
	ctx, over := context.WithCancelCause(ctx)
	defer over(nil)
	vm, err := machine.Start(ctx, spec, func(name string, data json.RawMessage) {
		if err := broken(name, data); err != nil {
			over(err)
		}
	}, i.scope)
	if vm != nil {
		defer vm.Close()
	}
	if err != nil {
		return err
	}
	con, err := vm.Dial(consoleSocket)
	if err != nil {
		return vm.Early(ctx, err)
	}
	defer con.Close()
	link, err := vm.Dial(networkSocket)
	if err != nil {
		return vm.Early(ctx, err)
	}
	bootfile := ""
	if b.Media.Kind == "netboot" {
		bootfile = b.Media.File
	}
	net, err := network.New(ctx, link, network.Spec{HTTP: web, TFTP: tftp, Bootfile: bootfile, Outside: i.Script.Network}, i.scope)
	if err != nil {
		_ = link.Close()
		return err
	}
	defer net.Close()
	screen, err := newScreen(i.Script.Fail, i.kept)
	if err != nil {
		return err
	}
	i.kept.note("boot %d of %d: power on", n+1, len(i.Script.Boot))
	if err := vm.PowerOn(ctx); err != nil {
		return vm.Early(ctx, err)
	}
	done := 0
	for _, before := range i.Script.Boot[:n] {
		done += len(before.Dialogue) + 1
	}
	total := 0
	for _, all := range i.Script.Boot {
		total += len(all.Dialogue) + 1
	}
	d.told = func(at, _ int) { i.scope.Progress(int64(done+at), int64(total), "steps") }
	err = d.hold(ctx, con, screen)
	var gone *ended
	switch {
	case err == nil: // the end's text
		if err := vm.QMP.Call(ctx, "quit", nil, nil); err != nil {
			i.scope.Logf("%v", err)
		}
		select {
		case <-vm.Done():
			return vm.Wait()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case errors.As(err, &gone):
		return i.judge(vm, b.End, gone)
	}
	return err
}

// broken is the error of an event after which the machine can only wait: QEMU stops it when the host's disk is full.
func broken(name string, data json.RawMessage) error {
	var e struct {
		NoSpace bool   `json:"nospace"`
		Action  string `json:"action"`
		Reason  string `json:"reason"`
	}
	if name != "BLOCK_IO_ERROR" || json.Unmarshal(data, &e) != nil || e.Action != "stop" {
		return nil
	}
	return fmt.Errorf("the machine's disk cannot be written: %s", machine.Clip(event.Clean(e.Reason), machine.MaxWords))
}

// judge says whether the machine has ended as the script says.
func (i *installation) judge(vm *machine.VM, end End, gone *ended) error {
	if err := vm.Wait(); err != nil {
		return fmt.Errorf("%s: %w", gone, err)
	}
	kind, how := "", vm.QMP.Shutdown()
	switch how {
	case "guest-shutdown":
		kind, how = "poweroff", "the guest has powered off"
	case "guest-reset":
		kind, how = "reboot", "the guest has rebooted"
	case "guest-panic":
		how = "the guest has crashed"
	default:
		how = "the machine ended by itself (" + how + ")"
	}
	switch {
	case gone.missing != "":
		return fmt.Errorf("%s before %s came", how, gone.missing)
	case kind != end.Kind:
		return fmt.Errorf("%s, where the script expects its end by %s", how, end.Kind)
	}
	return nil
}

// keep checks the disk and moves it to its place.
func (i *installation) keep(ctx context.Context) error {
	if err := i.command(ctx, "qemu-img", "check", "-q", "-f", "qcow2", newDisk); err != nil {
		return fmt.Errorf("the new disk: %w", err)
	}
	from := filepath.Join(i.dir, newDisk)
	f, err := os.OpenFile(from, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(from, filepath.Join(i.Dir, DiskFile))
}

// archived makes a tar archive, gzipped, of executable files; the same of the same texts.
func archived(texts map[string]string) string {
	var b strings.Builder
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(texts)) { // none of this fails: it is written into memory
		_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(texts[name])), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
		_, _ = io.WriteString(w, texts[name])
	}
	_ = w.Close()
	_ = z.Close()
	return b.String()
}
