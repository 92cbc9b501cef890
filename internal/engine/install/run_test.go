package install

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

const password = "correct-horse"

// tinyScript answers the tiny installer.
func tinyScript(mode string) Script {
	return Script{
		Memory: 128, Disk: 64, Firmware: "bios",
		Serve: Serve{HTTP: map[string]File{"/answers": {Text: "answer={{answer}}\n"}}},
		Fail:  []string{"Kernel panic", "No space left", "No answers"},
		Boot: []Boot{{
			Media: Media{Kind: "kernel", Kernel: "linux", Initrd: "initrd.gz", Append: "console=ttyS0 quiet panic=-1 mode=" + mode},
			Dialogue: []Step{
				{Expect: `Tiny installer`},
				{Expect: `Keyboard\?`, Send: "us<enter>", Optional: true},
				{Expect: `Disk\? \[vda\] $`, Send: "<enter>"},
				{Expect: `Password: $`, Send: "{{password}}<enter>", Secret: true},
				{Expect: `Password \(again\): $`, Send: "{{password}}<enter>", Secret: true},
				{Expect: `Erase vda\? \(yes/no\) `, Send: "yes<enter>"},
				{Expect: `Installation complete`},
			},
			End: End{Kind: "poweroff"},
		}},
	}
}

// tinySpec is an installation whose time limits are short.
func tinySpec(t *testing.T, mode string) Spec {
	return Spec{Script: tinyScript(mode), Arch: machine.Host(), Files: tinyInstaller(t), Values: map[string]string{"password": password, "answer": "42"},
		Dir: t.TempDir(), accel: "tcg", slow: 1}
}

// content reads the new disk's first bytes.
func readDisk(t *testing.T, disk string) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	if out, err := exec.Command("qemu-img", "convert", "-O", "raw", disk, raw).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// remains checks that nothing is left in the folder but what is named.
func remains(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, p := range procs {
		if cwd, err := os.Readlink(p); err == nil && strings.HasPrefix(cwd, dir) {
			t.Errorf("%s still works in %s", p, cwd)
		}
	}
}

func TestInstallation(t *testing.T) {
	t.Parallel()
	s := tinySpec(t, "normal")
	log := filepath.Join(t.TempDir(), "log")
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	scope := bus.Scope("tiny", "install", log)
	r, err := Run(context.Background(), s, scope)
	scope.End("", err)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s", r.Seconds)
	remains(t, s.Dir, TranscriptFile, DiskFile)
	data := readDisk(t, r.Disk)
	if len(data) != 64<<20 || !bytes.HasPrefix(data, []byte("KMI-MARKER password="+password+"\nanswer=42\n")) || !bytes.Equal(data[1<<20:5<<20], bytes.Repeat([]byte("x"), 4<<20)) {
		t.Errorf("%d bytes, beginning with %.100q", len(data), data)
	}
	text, err := os.ReadFile(r.Transcript)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nTiny installer (normal)\n", "\nDisk? [vda] \n", "step 3 of 7 came after", `typing "<enter>"`, "typing a secret", "\nInstallation complete.\n", "── boot 1 of 1: through after"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the transcript does not say %q:\n%s", want, text)
		}
	}
	logged, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(logged), "the guest fetches /answers by HTTP, 10 bytes") {
		t.Errorf("the log does not tell what was fetched:\n%s", logged)
	}
	if strings.Contains(string(text)+string(logged), password) {
		t.Error("the password was logged")
	}
	events, _ := sub.Poll()
	if !slices.ContainsFunc(events, func(e event.Event) bool { return e.Kind == event.Progress && e.Total == 8 }) {
		t.Error("nothing was told of progress")
	}
}

func TestInstallationsThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		mode   string
		change func(*Spec)
		want   []string
	}{
		"wrong answer": {"normal", func(s *Spec) { s.Script.Boot[0].Dialogue[5].Send = "no<enter>" },
			[]string{"boot 1 of 1, tcg, after ", "the guest has powered off before step 7 of 7, /Installation complete/, came", "Aborted.", "console.txt"}},
		"panic":        {"panic", nil, []string{"Kernel panic - not syncing", "/Kernel panic/ in fail"}},
		"no such file": {"normal", func(s *Spec) { s.Script.Boot[0].Media.Kernel = "vmlinux" }, []string{"names the file vmlinux, which was not fetched"}},
		"no kernel": {"normal", func(s *Spec) {
			s.Files = map[string]string{"linux": s.Files["initrd.gz"], "initrd.gz": s.Files["initrd.gz"]}
		}, []string{"boot 1 of 1, tcg, after 0 s: qemu-system-x86_64: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tinySpec(t, c.mode)
			if c.change != nil {
				c.change(&s)
			}
			r, err := Run(context.Background(), s, nil)
			if err == nil {
				t.Fatal("it went well")
			}
			var remedied *event.Remedied
			if !errors.As(err, &remedied) || !strings.Contains(remedied.Remedy, r.Transcript) || r.Disk != "" {
				t.Errorf("%+v, %+v", r, remedied)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nsays nothing of %q", err, want)
				}
			}
			remains(t, s.Dir, TranscriptFile)
		})
	}
}

// The installer prints a flood before it asks, and finds a drive with more answers; the disk is booted for a second
// talk.
func TestDriveFloodAndASecondBoot(t *testing.T) {
	t.Parallel()
	s := tinySpec(t, "flood")
	s.Script.Serve.Drive = &Drive{Format: "fat", Label: "seed", Files: map[string]File{"conf/extra": {Text: "extra={{answer}}\n"}, "from": {From: "initrd.gz"}}}
	s.Script.Boot = append(s.Script.Boot, Boot{
		Media:    Media{Kind: "kernel", Kernel: "linux", Initrd: "initrd.gz", Append: "console=ttyS0 quiet mode=second"},
		Dialogue: []Step{{Expect: `found: KMI-MARKER`}}, End: End{Kind: "poweroff"},
	})
	r, err := Run(context.Background(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s, boots %.1f", r.Seconds, r.Boots)
	remains(t, s.Dir, TranscriptFile, DiskFile)
	data := readDisk(t, r.Disk)
	if !bytes.HasPrefix(data, []byte("KMI-MARKER password="+password+"\nanswer=42\nextra=42\n")) || !bytes.HasPrefix(data[512*100:], []byte("CONFIG CHANGED")) {
		t.Errorf("%.100q", data)
	}
}

// Another end than a power-off, and a drive of another kind.
func TestRebootIsTheEnd(t *testing.T) {
	t.Parallel()
	s := tinySpec(t, "reboot")
	s.Script.Serve.Drive = &Drive{Format: "iso9660", Label: "seed", Files: map[string]File{"conf/extra": {Text: "extra=1\n"}}}
	s.Script.Boot[0].End = End{Kind: "reboot"}
	r, err := Run(context.Background(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if data := readDisk(t, r.Disk); !bytes.HasPrefix(data, []byte("KMI-MARKER password="+password+"\nanswer=42\nextra=1\n")) {
		t.Errorf("%.100q", data)
	}
	s.Script.Boot[0].End = End{Kind: "poweroff"}
	s.Script.Boot[0].Media.Append = strings.Replace(s.Script.Boot[0].Media.Append, "mode=reboot", "mode=panic", 1)
	s.Script.Fail = nil
	s.Script.Boot[0].Dialogue = s.Script.Boot[0].Dialogue[:1]
	if _, err := Run(context.Background(), s, nil); err == nil || !strings.Contains(err.Error(), "the guest has rebooted, where the script expects its end by poweroff") {
		t.Errorf("%v", err)
	}
}

// bootSector prints a text on the first serial port, by BIOS calls, and stops.
func bootSector(text string) []byte {
	code := []byte{0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x1b, 0x7c, 0xac, 0x84, 0xc0, 0x74, 0x0a, 0xb4, 0x01, 0x31, 0xd2, 0xcd, 0x14, 0xeb, 0xf3, 0x90, 0x90, 0xf4, 0xeb, 0xfd, 0x90}
	b := make([]byte, 512)
	copy(b, code)
	copy(b[len(code):], text+"\x00")
	b[510], b[511] = 0x55, 0xaa
	return b
}

// An image of a disk, a stick, a CD and the network: what each begins with is what the firmware boots.
func TestMedia(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("boots a machine")
	}
	dir := t.TempDir()
	disk := filepath.Join(dir, "an,image")
	if err := os.WriteFile(disk, append(bootSector("it boots from %d\r\n"), make([]byte, 1<<20-512)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "tree"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tree", "boot.bin"), bootSector("it boots from CD\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(dir, "cd.iso")
	if out, err := exec.Command("xorriso", "-as", "mkisofs", "-quiet", "-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "1", "-o", iso, filepath.Join(dir, "tree")).CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, out)
	}
	for kind, file := range map[string]string{"image": disk, "usb": disk, "cdrom": iso, "netboot": disk} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := Spec{Arch: catalog.X86_64, Files: map[string]string{"media": file}, Dir: t.TempDir(), accel: "tcg", slow: 1,
				Script: Script{Memory: 64, Disk: 8, Firmware: "bios", Boot: []Boot{{Media: Media{Kind: kind, File: "media"}, End: End{Kind: "text", Text: "it boots from [^\n]*\n"}}}}}
			if kind == "netboot" {
				if os.Getenv("KMI_TEST_INSTALL") == "" {
					t.Skip("KMI_TEST_INSTALL=1 tries it: iPXE waits 13 s for a router of IPv6")
				}
				s.Script.Serve.TFTP = map[string]File{"media": {From: "sector"}}
				s.Files["sector"] = filepath.Join(dir, "tree", "boot.bin")
			}
			r, err := Run(context.Background(), s, nil)
			if err != nil {
				t.Fatal(err)
			}
			data := readDisk(t, r.Disk)
			if len(data) != 8<<20 || bytes.Contains(data[:512], []byte("it boots")) != (kind == "image") {
				t.Errorf("%d bytes, %.80q", len(data), data)
			}
		})
	}
	small := Spec{Arch: catalog.X86_64, Files: map[string]string{"media": filepath.Join(dir, "large")}, Dir: t.TempDir(),
		Script: Script{Memory: 64, Disk: 1, Firmware: "bios", Boot: []Boot{{Media: Media{Kind: "image", File: "media"}, End: End{Kind: "poweroff"}}}}}
	if err := os.WriteFile(small.Files["media"], make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), small, nil); err == nil || !strings.Contains(err.Error(), "alone takes 2 MiB: write more") {
		t.Errorf("%v", err)
	}
}

func TestCancelLeavesNothing(t *testing.T) {
	t.Parallel()
	s := tinySpec(t, "normal")
	s.Script.Boot[0].Dialogue[2].Expect = "never"
	ctx, cancel := context.WithCancelCause(context.Background())
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	go func() {
		for {
			events, ok := sub.Next(context.Background())
			if !ok || slices.ContainsFunc(events, func(e event.Event) bool {
				return strings.Contains(e.Line, "Tiny")
			}) {
				cancel(errors.New("enough"))
				return
			}
		}
	}()
	began := time.Now()
	_, err := Run(ctx, s, bus.Scope("t", "install", ""))
	if err == nil || err.Error() != "enough" || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	remains(t, s.Dir, TranscriptFile)
	bus.Close()
}
