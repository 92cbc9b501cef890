package boot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

func TestAccelerator(t *testing.T) {
	opens, refused := func() error { return nil }, func() error { return os.ErrPermission }
	for _, c := range []struct {
		cpu  string
		open func() error
		want string
	}{
		{"flags\t\t: fpu vmx sse\n", opens, "kvm"},
		{"flags : fpu svm\n", opens, "kvm"},
		{"flags : fpu sse hypervisor\n", opens, "tcg"}, // a device that opens and does not work
		{"flags : vmx\n", refused, "tcg"},
		{"flags : novmx2\n", opens, "tcg"},
		{"", opens, "tcg"},
	} {
		if got, why := accelerator(c.cpu, c.open); got != c.want || why == "" {
			t.Errorf("%q: %s (%s), want %s", c.cpu, got, why, c.want)
		}
	}
}

func TestArguments(t *testing.T) {
	s := Spec{Arch: catalog.X86_64, Firmware: "uefi", Memory: 512, Dir: "/w"}
	emulated := strings.Join(s.arguments("tcg", "/s", 2222), " ")
	for _, want := range []string{"-accel tcg -cpu max -smp 1 -m 512", "restrict=on,hostfwd=tcp:127.0.0.1:2222-:22", "readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
		"format=qcow2,discard=unmap,file=/w/overlay.qcow2", "format=raw,readonly=on,file=/w/seed.iso", "virtserialport,id=agent0", "name=org.qemu.guest_agent.0", "-no-reboot"} {
		if !strings.Contains(emulated, want) {
			t.Errorf("%q is missing in %s", want, emulated)
		}
	}
	s.Firmware = "bios"
	if got := strings.Join(s.arguments("kvm", "/s", 1), " "); strings.Contains(got, "pflash") || !strings.Contains(got, "-accel kvm -cpu host -smp 2") {
		t.Error(got)
	}
	if err := Firmware(catalog.ARM64, "bios"); err == nil {
		t.Error("arm64 has no BIOS")
	}
	for _, arch := range catalog.Arches {
		if Program(arch) == "" {
			t.Errorf("no QEMU for %s", arch)
		}
	}
}

// speak makes an agent whose guest answers as the test says: it gets each line and writes back.
func speak(t *testing.T, answer func(line string, conn net.Conn)) *agent {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				r := bufio.NewReader(conn)
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					answer(strings.TrimPrefix(strings.TrimSpace(line), "\xff"), conn)
				}
			}()
		}
	}()
	return &agent{path: path}
}

// synced answers guest-sync-delimited rightly and hands everything else on.
func synced(rest func(line string, conn net.Conn)) func(string, net.Conn) {
	return func(line string, conn net.Conn) {
		if strings.Contains(line, "guest-sync-delimited") {
			id := line[strings.LastIndex(line, ":")+1 : strings.Index(line, "}")]
			fmt.Fprintf(conn, "\xff{\"return\": %s}\n", id)
			return
		}
		rest(line, conn)
	}
}

func TestAgent(t *testing.T) {
	ctx := context.Background()
	var got struct{ X int }
	a := speak(t, synced(func(line string, conn net.Conn) { fmt.Fprint(conn, `{"return": {"X": 7}}`+"\n") }))
	if err := a.call(ctx, "guest-info", nil, &got); err != nil || got.X != 7 {
		t.Errorf("%v, %+v", err, got)
	}
	// What an earlier call left in the channel is passed over.
	a = speak(t, func(line string, conn net.Conn) {
		fmt.Fprint(conn, "noise\n{\"return\": 1}\nhalf {\"ret")
		synced(func(string, net.Conn) { fmt.Fprint(conn, `{"return": {"X": 8}}`+"\n") })(line, conn)
	})
	if err := a.sync(ctx); err != nil {
		t.Errorf("noise before the answer: %v", err)
	}
	for _, c := range []struct{ answer, want string }{
		{`{"error": {"class": "CommandNotFound", "desc": "no such"}}` + "\n", "guest-info: CommandNotFound: no such"},
		{"not json\n", "is not JSON"},
		{`{"return": "text"}` + "\n", "cannot unmarshal"},
		{strings.Repeat("x", maxReply+1<<20), "a line of more than"},
	} {
		a := speak(t, synced(func(_ string, conn net.Conn) { fmt.Fprint(conn, c.answer) }))
		if err := a.call(ctx, "guest-info", nil, &got); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: %v", c.answer, err)
		}
	}
	// A guest that never answers: the caller's end is the end.
	reached := make(chan struct{}, 1)
	a = speak(t, synced(func(string, net.Conn) { reached <- struct{}{} }))
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { <-reached; cancel(errors.New("enough")) }()
	if err := a.call(ctx, "guest-info", nil, &got); err == nil || err.Error() != "enough" {
		t.Errorf("%v", err)
	}
}

func FuzzReadLine(f *testing.F) {
	f.Add("a\nb")
	f.Add("\xff{\"return\":1}\n")
	f.Fuzz(func(t *testing.T, s string) {
		r := bufio.NewReaderSize(strings.NewReader(s), 16)
		for {
			line, err := readLine(r)
			if len(line) > maxReply {
				t.Fatalf("%d bytes", len(line))
			}
			if err != nil {
				return
			}
		}
	})
}

func TestAPanicIsSeenAtOnce(t *testing.T) {
	tt := &test{panic: make(chan string, 1)}
	tt.console("[    1.0] Linux version 6.1")
	tt.console("\x1b[31m[    2.0] Kernel panic - not syncing: VFS: Unable to mount root fs")
	select {
	case line := <-tt.panic:
		if strings.ContainsRune(line, 0x1b) {
			t.Errorf("%q", line)
		}
	default:
		t.Error("the panic was not seen")
	}
	for i := range 100 {
		tt.console(fmt.Sprintf("line %d", i))
	}
	if len(tt.serial) != 12 || tt.serial[11] != "line 99" {
		t.Errorf("kept %v", tt.serial)
	}
}

// Real machines from here on, tiny ones: SeaBIOS with nothing to boot.
func empty(t *testing.T) Spec {
	t.Helper()
	if testing.Short() {
		t.Skip("starts machines")
	}
	if _, err := command.Look(Program(catalog.X86_64)); err != nil {
		t.Skip(err)
	}
	return Spec{Arch: catalog.X86_64, Firmware: "bios", Memory: 64, Dir: t.TempDir(), bare: true}
}

func TestNothingToBootIsSaid(t *testing.T) {
	s := empty(t)
	s.extra = []string{"-device", "sga"} // the BIOS's messages on the serial console
	s.Deadline = time.Minute
	began := time.Now()
	_, err := Run(context.Background(), s, nil)
	if err == nil || !strings.Contains(err.Error(), "guest agent answers: the guest gave up") || time.Since(began) > 30*time.Second {
		t.Errorf("%v", err)
	}
}

func TestDeadlineAndCancel(t *testing.T) {
	s := empty(t)
	s.Deadline = time.Second
	began := time.Now()
	if _, err := Run(context.Background(), s, nil); err == nil || !strings.Contains(err.Error(), "it did not get further within 1s") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	go func() {
		_, _ = sub.Next(context.Background()) // it has begun
		cancel(errors.New("stopped"))
	}()
	s.Deadline = time.Minute
	if _, err := Run(ctx, s, bus.Scope("t", "test", "")); err == nil || err.Error() != "stopped" {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("both took %s", took)
	}
	out, _ := exec.Command("pgrep", "-f", s.Dir).Output()
	if len(out) > 0 {
		t.Errorf("QEMU is still there: %s", out)
	}
}

func TestAPortThatIsTakenIsTriedNoMore(t *testing.T) {
	s := empty(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	first := true
	s.port = func() (int, error) {
		if first {
			first = false
			return taken.Addr().(*net.TCPAddr).Port, nil
		}
		return freePort()
	}
	s.Deadline = 3 * time.Second
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	_, err = Run(context.Background(), s, bus.Scope("t", "test", ""))
	if err == nil || !strings.Contains(err.Error(), "it did not get further") {
		t.Errorf("%v", err)
	}
	events, _ := sub.Poll()
	var said strings.Builder
	for _, e := range events {
		said.WriteString(e.Line + "\n")
	}
	if !strings.Contains(said.String(), "was taken meanwhile: trying another") {
		t.Error(said.String())
	}
}

func TestQEMUThatEndsIsExplained(t *testing.T) {
	s := empty(t)
	s.extra = []string{"-device", "no-such-device"}
	_, err := Run(context.Background(), s, nil)
	if err == nil || !strings.Contains(err.Error(), "no-such-device") {
		t.Errorf("%v", err)
	}
}
