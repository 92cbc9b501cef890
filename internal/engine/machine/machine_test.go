package machine

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
)

func TestAccelerator(t *testing.T) {
	works, refused := func() error { return nil }, func() error { return os.ErrPermission }
	for _, c := range []struct {
		host catalog.Arch
		cpu  string
		try  func() error
		want string
	}{
		{catalog.X86_64, "flags\t\t: fpu vmx sse\n", works, "kvm"},
		{catalog.X86_64, "flags : fpu svm\n", works, "kvm"},
		{catalog.X86_64, "flags : fpu sse hypervisor\n", works, "tcg"}, // makes machines that do not run
		{catalog.X86_64, "flags : vmx\n", refused, "tcg"},
		{catalog.X86_64, "flags : novmx2\n", works, "tcg"},
		{catalog.X86_64, "", works, "tcg"},
		{catalog.ARM64, "Features : fp asimd\n", works, "kvm"},
		{catalog.ARM64, "Features : fp asimd\n", refused, "tcg"},
	} {
		if got, why := accelerator(c.host, c.cpu, c.try); got != c.want || why == "" {
			t.Errorf("%s, %q: %s (%s), want %s", c.host, c.cpu, got, why, c.want)
		}
	}
	if got, why := Accelerate(catalog.X86_64, catalog.ARM64); got != "tcg" || why != "arm64 is emulated on x86_64" {
		t.Errorf("another architecture's guest: %s (%s)", got, why)
	}
	if got, why := Accelerate(Host(), Host()); got != "kvm" && got != "tcg" || why == "" {
		t.Errorf("%q (%q)", got, why)
	}
}

// bare is a machine without any disk, in a folder whose name is longer than a socket's may be.
func bare(t *testing.T) Spec {
	t.Helper()
	s := Spec{Arch: Host(), Accel: "tcg", Memory: 64, Dir: filepath.Join(t.TempDir(), "w,eird "+strings.Repeat("x", 100))}
	if _, err := command.Look(Program(s.Arch)); err != nil {
		t.Skip(err)
	}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAMachineRunsAndIsGone(t *testing.T) {
	s := bare(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resumed := make(chan struct{})
	v, err := Start(ctx, s, func(name string, _ json.RawMessage) {
		if name == "RESUME" {
			close(resumed)
		}
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.PowerOn(ctx); err != nil {
		t.Error(err)
	}
	<-resumed
	var refused *Refused
	if err := v.QMP.Call(ctx, "no-such-call", nil, nil); !errors.As(err, &refused) || refused.Class != "CommandNotFound" {
		t.Errorf("%v", err)
	}
	v.Close()
	v.Close()
	select {
	case <-v.Done():
	default:
		t.Error("QEMU is still there")
	}
}

func TestWhatQEMUSaysOfItsEndIsTold(t *testing.T) {
	s := bare(t)
	s.Args = []string{"-device", "no-such-device"}
	v, err := Start(context.Background(), s, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "no-such-device") {
		t.Errorf("%v", err)
	}
	if v != nil {
		v.Close()
	}
	enough, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("enough"))
	if v, err := Start(enough, bare(t), nil, nil); err == nil || err.Error() != "enough" {
		t.Errorf("%v", err)
		v.Close()
	}
}

// QEMU opens some of its sockets late: who dials waits for them, and not for those that never come.
func TestDialWaitsForASocket(t *testing.T) {
	s := bare(t)
	s.Args = []string{"-netdev", "stream,id=net,server=on,addr.type=unix,addr.path=net"}
	v, err := Start(t.Context(), s, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := v.Dial("net")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	v.Close()
	v.dir, _ = os.Open(s.Dir)
	if conn, err := v.Dial("never"); err == nil {
		t.Error("connected to nothing")
		_ = conn.Close()
	}
}
