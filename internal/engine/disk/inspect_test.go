package disk

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// qemuImg makes a disk with qemu-img.
func qemuImg(t testing.TB, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not installed")
	}
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %q: %v: %s", args, err, out)
	}
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, data []byte) {
		if err := os.WriteFile(at(name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	qemuImg(t, "create", "-q", "-f", "qcow2", at("good"), "10G")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "compat=0.10", at("version 2"), "1G")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "compression_type=zstd", at("zstd"), "1G")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=128k", at("extended"), "1G")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", at("small clusters"), "1G")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", at("backing"), "1G")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+at("data"), at("external"), "1G")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", at("huge"), "2E")
	qemuImg(t, "create", "-q", "-f", "qcow2", at("snapshot"), "1G")
	qemuImg(t, "snapshot", "-c", "one", at("snapshot"))
	// LUKS measures this machine's speed first, which fails on a busy one: its marks are written below.
	qemuImg(t, "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o", "encrypt.format=aes,encrypt.key-secret=s", at("encrypted"), "16M")
	qemuImg(t, "create", "-q", "-f", "vmdk", at("vmdk"), "1G")
	qemuImg(t, "create", "-q", "-f", "vdi", at("vdi"), "1G")
	good, err := os.ReadFile(at("good"))
	if err != nil {
		t.Fatal(err)
	}
	change := func(name string, offset int, value any) {
		var b bytes.Buffer
		if err := binary.Write(&b, binary.BigEndian, value); err != nil {
			t.Fatal(err)
		}
		data := bytes.Clone(good)
		copy(data[offset:], b.Bytes())
		write(name, data)
	}
	change("corrupt", 72, uint64(corrupt))
	change("dirty", 72, uint64(dirty))
	change("unknown feature", 72, uint64(1<<40))
	change("luks", 32, uint32(2))
	change("luks header", 112, []uint32{encryption, 16, 0, 0x10000, 0, 0x10000})
	change("no clusters", 20, uint32(3))
	change("first table outside", 40, uint64(1<<50))
	change("first table in the header", 40, uint64(0))
	change("short first table", 36, uint32(1))
	change("long first table", 36, uint32(1<<31))
	change("counts outside", 48, uint64(1<<63))
	change("long header", 100, uint32(1<<30))
	change("version 9", 4, uint32(9))
	change("endless extensions", 104+8, []uint32{0x12345678, 0xffffffff})
	write("cut off", good[:80])
	packed := bytes.Clone(good[:104])
	copy(packed[72:], []byte{0, 0, 0, 0, 0, 0, 0, compressionType})
	copy(packed[100:], []byte{0, 0, 0, 112})
	write("cut off before its compression", packed)
	write("truncated", good[:70000])
	write("raw", make([]byte, 4096))
	write("empty", nil)
	iso := make([]byte, 40000)
	copy(iso[16*2048+1:], "CD001")
	write("iso", iso)
	if err := os.Symlink("/dev/zero", at("device")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, format string
		virtual      int64
		want         string // part of the error; "" for none
	}{
		{"good", "qcow2", 10 << 30, ""},
		{"version 2", "qcow2", 1 << 30, ""},
		{"zstd", "qcow2", 1 << 30, ""},
		{"extended", "qcow2", 1 << 30, ""},
		{"small clusters", "qcow2", 1 << 30, ""},
		{"raw", "raw", 4096, ""},
		{"iso", "iso", 40000, ""},
		{"backing", "qcow2", 0, `it has a backing file ("/etc/passwd")`},
		{"external", "qcow2", 0, "its data is in another file"},
		{"huge", "qcow2", 0, "its virtual size is 2305843009213693952 bytes"},
		{"snapshot", "qcow2", 0, "1 internal snapshots"},
		{"encrypted", "qcow2", 0, "it is encrypted (method 1)"},
		{"luks", "qcow2", 0, "it is encrypted (method 2)"},
		{"luks header", "qcow2", 0, "it is encrypted"},
		{"vmdk", "qcow2", 0, "it is no qcow2, it looks like vmdk"},
		{"corrupt", "qcow2", 0, "marked as corrupt"},
		{"dirty", "qcow2", 0, "not closed properly"},
		{"unknown feature", "qcow2", 0, "features that are not known here (0x10000000000)"},
		{"no clusters", "qcow2", 0, "2^3 bytes"},
		{"first table outside", "qcow2", 0, "its first table"},
		{"first table in the header", "qcow2", 0, "its first table"},
		{"short first table", "qcow2", 0, "its first table has 1 entries"},
		{"long first table", "qcow2", 0, "its first table has 2147483648 entries"},
		{"counts outside", "qcow2", 0, "reference counts"},
		{"long header", "qcow2", 0, "its header has 1073741824 bytes"},
		{"version 9", "qcow2", 0, "version 9"},
		{"endless extensions", "qcow2", 0, "do not end"},
		{"cut off", "qcow2", 0, "its header is cut off"},
		{"cut off before its compression", "qcow2", 0, "does not say how it is compressed"},
		{"truncated", "qcow2", 0, "is not in the file"},
		{"raw", "qcow2", 0, "it is no qcow2"},
		{"empty", "qcow2", 0, "it is no qcow2"},
		{"good", "raw", 0, "looks like qcow2: whoever opens it later would take it for that"},
		{"vmdk", "raw", 0, "looks like vmdk"},
		{"vdi", "raw", 0, "looks like vdi"},
		{"empty", "raw", 0, "it has 0 bytes"},
		{"raw", "iso", 0, "no ISO 9660"},
		{"device", "raw", 0, "is no file"},
		{"good", "vhd", 0, `the format "vhd" is not known`},
		{"nothing", "raw", 0, "no such file"},
	} {
		facts, err := Inspect(at(c.name), c.format)
		if c.want == "" {
			if err != nil || facts.VirtualSize != c.virtual || facts.Format != c.format {
				t.Errorf("%s: %+v, %v", c.name, facts, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s as %s: %+v, %v, want %q", c.name, c.format, facts, err, c.want)
		}
	}
	if f, err := Inspect(at("zstd"), "qcow2"); err != nil || f.Compression != "zstd" || f.ClusterSize != 64<<10 {
		t.Errorf("%+v, %v", f, err)
	}
}

// Whatever a header says, reading it ends, and what is accepted keeps to the limits.
func FuzzInspect(f *testing.F) {
	dir := f.TempDir()
	for _, args := range [][]string{{"-o", "cluster_size=512"}, {"-o", "compat=0.10"}, {"-o", "compression_type=zstd"}} {
		name := filepath.Join(dir, "seed")
		qemuImg(f, append(append([]string{"create", "-q", "-f", "qcow2"}, args...), name, "1M")...)
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[:min(len(data), 4096)], int64(len(data)))
	}
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		if size < 0 {
			return
		}
		for _, format := range []string{"qcow2", "raw", "iso"} {
			if facts, err := inspect(bytes.NewReader(data), size, format); err == nil && (facts.VirtualSize <= 0 || facts.VirtualSize > MaxVirtualSize) {
				t.Fatalf("%+v", facts)
			}
		}
	})
}
