package machine

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

func TestConsole(t *testing.T) {
	for _, c := range []struct{ text, panic, kernel string }{
		{"\x1bc\x1b[2J[    0.000000] Linux version 6.1.0-56 (gcc)\r\n[ 1.0] Unpacking initramfs\n", "", "Linux version 6.1.0-56"},
		{"\x1b[31m[    2.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n", "[    2.0] Kernel panic - not syncing: VFS: Unable to mount root fs", ""},
		{"[2.0] sysctl kernel.panic = 10\n", "", ""},
		{"Gave up waiting for root\r\n\r\n(initramfs) ", "(initramfs)", ""},
		{"(initramfs) [ 9.1] random: crng init done\r\n", "(initramfs) [ 9.1] random: crng init done", ""},
		{"error: no such device\r\nEntering rescue mode...\r\ngrub rescue> ", "grub rescue>", ""},
		{"\x1b[0m\x1b[30mgrub> \x1b[K", "grub>", ""},
		{"BdsDxe: No bootable option or device was found.\r\n", "BdsDxe: No bootable option or device was found.", ""},
		{"UEFI Interactive Shell v2.2\r\nShell> ", "Shell>", ""},
		{"You are in emergency mode. After logging in, type ...\n", "You are in emergency mode. After logging in, type ...", ""},
		{"# dracut (initramfs) is built\n", "", ""},
	} {
		for _, size := range []int{1, 1000} { // QEMU hands over byte by byte
			panicked := ""
			con := NewConsole(nil, func(line string) { panicked = line })
			for rest := c.text; rest != ""; {
				n := min(size, len(rest))
				_, _ = con.Write([]byte(rest[:n]))
				rest = rest[n:]
			}
			kernel := ""
			select {
			case kernel = <-con.Kernel:
			default:
			}
			if !strings.HasPrefix(c.panic, panicked) || (panicked == "") != (c.panic == "") || kernel != c.kernel {
				t.Errorf("%q in pieces of %d: panic %q, kernel %q", c.text, size, panicked, kernel)
			}
		}
	}
}

func TestAFloodOnTheConsoleIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	scope := event.NewBus(nil).Scope("t", "test", file)
	con := NewConsole(scope, func(string) {})
	chunk := []byte(strings.Repeat("x", 1<<20))
	for range maxConsole>>20 + 8 {
		_, _ = con.Write(chunk) // never a line end
	}
	for i := range 100 {
		_, _ = con.Write(fmt.Appendf(nil, "\n%d %s", i, strings.Repeat("y", 5000)))
	}
	_, _ = con.Write([]byte("\nlast words"))
	if len(con.line) > maxConsoleLine || len(con.Last()) > lastLines*(maxLastLine+10) {
		t.Errorf("%d bytes of a line, %d of the last ones are kept", len(con.line), len(con.Last()))
	}
	con.Close()
	scope.End("", nil)
	log, err := os.ReadFile(file)
	if err != nil || len(log) > maxConsole+1<<20 {
		t.Fatalf("%d bytes logged, %v", len(log), err)
	}
	for _, want := range []string{"has printed 32 MiB: what follows is left out here", "bytes of the console were left out"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	// What fits is kept to its last byte.
	scope = event.NewBus(nil).Scope("t", "test", file+"2")
	con = NewConsole(scope, func(string) {})
	_, _ = con.Write([]byte("one\r\ntwo without an end"))
	con.Close()
	scope.End("", nil)
	if log, _ := os.ReadFile(file + "2"); string(log) != "one\ntwo without an end\n" {
		t.Errorf("%q", log)
	}
}

func FuzzConsole(f *testing.F) {
	f.Add("a\r\nb\x1b[31m\n(initramfs) ", uint64(1))
	f.Add("grub> \xff\n\n", uint64(2))
	f.Fuzz(func(t *testing.T, s string, seed uint64) {
		con := NewConsole(nil, func(line string) {
			if strings.ContainsAny(line, "\x1b\n\r") {
				t.Fatalf("%q", line)
			}
		})
		random := rand.New(rand.NewPCG(seed, 0))
		for p := []byte(s); len(p) > 0; {
			n := 1 + random.IntN(len(p))
			_, _ = con.Write(p[:n])
			p = p[n:]
		}
		if len(con.line) > maxConsoleLine || len(con.tail) > lastLines {
			t.Fatalf("%d bytes, %d lines", len(con.line), len(con.tail))
		}
	})
}
