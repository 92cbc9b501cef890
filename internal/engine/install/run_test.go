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
		"passwords differ": {"normal", func(s *Spec) {
			s.Script.Boot[0].Dialogue[4].Send = "another-horse<enter>"
			s.Script.Fail = append(s.Script.Fail, `^They differ\.$`)
		}, []string{"while waiting for step 6 of 7", `the console said "They differ."`, `/^They differ\.$/ in fail`}},
		"never comes": {"silent", func(s *Spec) { s.Script.Boot[0].Dialogue[2].Within = 1 },
			[]string{`step 3 of 7, /Disk\? \[vda\] $/, did not come within 1s`, "Tiny installer (silent)"}},
		"panic":        {"panic", nil, []string{"Kernel panic - not syncing", "/Kernel panic/ in fail"}},
		"other end":    {"reboot", nil, []string{"the guest has rebooted, where the script expects its end by poweroff"}},
		"no answers":   {"normal", func(s *Spec) { s.Script.Serve.HTTP = map[string]File{"/other": {Text: "x"}} }, []string{"No answers"}},
		"no end":       {"text", func(s *Spec) { s.Script.Boot[0].End.Within = 1 }, []string{"the machine's end did not come within 1s"}},
		"no such file": {"normal", func(s *Spec) { s.Script.Boot[0].Media.Kernel = "vmlinux" }, []string{"names the file vmlinux, which was not fetched"}},
		"no kernel": {"normal", func(s *Spec) {
			s.Files = map[string]string{"linux": s.Files["initrd.gz"], "initrd.gz": s.Files["initrd.gz"]}
			s.Script.Boot[0].Dialogue[0].Within = 2
		}, []string{"boot 1 of 1, tcg, after 0 s: qemu-system-x86_64: "}},
	} {
		t.Run(name, func(t *testing.T) {
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

func TestCancelLeavesNothing(t *testing.T) {
	s := tinySpec(t, "normal")
	s.Script.Boot[0].Dialogue[2].Expect = "never"
	ctx, cancel := context.WithCancelCause(context.Background())
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	go func() {
		for {
			events, ok := sub.Next(context.Background())
			if !ok || slices.ContainsFunc(events, func(e event.Event) bool {
				return strings.Contains(e.Line, "Disk?") || strings.Contains(e.Line, "DHCP: ACK")
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
