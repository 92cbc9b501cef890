package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Unpacking and hashing tell how many bytes are behind them, up to all of them.
func TestProgressOfUnpackAndSum(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	plain, qcow2, raw := filepath.Join(dir, "plain"), filepath.Join(dir, "qcow2"), filepath.Join(dir, "raw")
	content := make([]byte, 8<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(content)
	if err := os.WriteFile(plain, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", plain, qcow2).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	defer sub.Close()
	if err := Unpack(context.Background(), qcow2, "qcow2", raw, 16<<20, bus.Scope("t", "customise", "")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(raw)
	if err != nil || len(got) != 16<<20 || !bytes.Equal(got[:8<<20], content) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	var last event.Event
	events, _ := sub.Poll()
	for _, e := range events {
		switch {
		case e.Kind == event.Log:
			t.Errorf("qemu-img's figures are in the log: %q", e.Line)
		case e.Kind != event.Progress:
		case e.Unit != "bytes unpacked" || e.Total != 8<<20 || e.Done < last.Done || e.Done > e.Total:
			t.Errorf("%+v after %+v", e, last)
		default:
			last = e
		}
	}
	if last.Done != 8<<20 {
		t.Errorf("the last word is %+v", last)
	}

	var told []int64
	sum, size, err := Sum(plain, func(done, total int64) {
		if total != 8<<20 || len(told) > 0 && done <= told[len(told)-1] {
			t.Errorf("%d of %d after %v", done, total, told)
		}
		told = append(told, done)
	})
	if want := sha256.Sum256(content); err != nil || size != 8<<20 || sum != hex.EncodeToString(want[:]) || len(told) < 2 || told[len(told)-1] != size {
		t.Errorf("%s, %d, %v, %v", sum, size, told, err)
	}
}

// Whatever a program says, figures are between 0 and 100.
func FuzzPercents(f *testing.F) {
	f.Add([]byte("    (0.00/100%)\r    (12.50/100%)\r    (100.00/100%)\r\n"))
	f.Add([]byte("((((1e309/ (NaN/ (-1/ (+Inf/ ((101/"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &percents{told: func(n float64) {
			if !(n >= 0 && n <= 100) {
				t.Errorf("%v", n)
			}
		}}
		if n, err := p.Write(data); n != len(data) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}
