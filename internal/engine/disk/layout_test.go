package disk

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
)

// drawn makes a raw disk with a partition table of sfdisk's.
func drawn(t *testing.T, size int64, table string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	if table != "" {
		tool(t, table, "sfdisk", "-q", path)
	}
	return path
}

func tool(t *testing.T, stdin, name string, args ...string) {
	t.Helper()
	program, err := command.Look(name)
	if err != nil {
		t.Skip(err)
	}
	c := exec.Command(program, args...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

const gptTable = `label: gpt
first-lba: 34
14 : start=2048, size=8192, type=21686148-6449-6E6F-744E-656564454649
15 : start=10240, size=20480, type=U
1 : start=30720, type=L, uuid=11111111-2222-3333-4444-555555555555
`

func TestLayout(t *testing.T) {
	path := drawn(t, 64<<20, gptTable)
	at := func(sector int64) string { return "offset=" + strconv.FormatInt(sector*512, 10) }
	tool(t, "", "mkfs.ext4", "-q", "-F", "-L", "the root", "-U", "7c555850-be17-5f44-9f87-925d3cfa8a0f", "-E", at(30720), path, "40m")
	volumes, err := Layout(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(volumes) != 3 {
		t.Fatalf("%+v", volumes)
	}
	root, err := Root(volumes, 0)
	if err != nil || root.Number != 1 || root.Start != 30720*512 || root.FS != "ext4" || root.Label != "the root" || root.UUID != "7c555850-be17-5f44-9f87-925d3cfa8a0f" ||
		root.PartID != "11111111-2222-3333-4444-555555555555" || !root.Last {
		t.Errorf("%+v, %v", root, err)
	}
	for number, want := range map[int]string{9: "the disk has no partition 9", 14: "partition 14 has no ext4, xfs or btrfs file system"} {
		if _, err := Root(volumes, number); err == nil || err.Error() != want {
			t.Errorf("%d: %v", number, err)
		}
	}
	// Larger, the root grows to the end, and the table is whole.
	if err := os.Truncate(path, 128<<20); err != nil {
		t.Fatal(err)
	}
	if err := Enlarge(t.Context(), path, root, nil); err != nil {
		t.Fatal(err)
	}
	again, err := Layout(path)
	if err != nil {
		t.Fatal(err)
	}
	grown, err := Root(again, 1)
	if err != nil || grown.Start != root.Start || grown.Start+grown.Size < 126<<20 || grown.PartID != root.PartID {
		t.Errorf("%+v, %v", grown, err)
	}
	tool(t, "", "sfdisk", "--verify", path)
	if err := Enlarge(t.Context(), path, again[1], nil); err == nil || !strings.Contains(err.Error(), "another one comes after it") && !strings.Contains(err.Error(), "cannot grow") {
		t.Error(err)
	}
}

func TestLayoutOfMBRAndOfNoTable(t *testing.T) {
	path := drawn(t, 64<<20, "label: dos\nlabel-id: 0x12345678\nstart=2048, size=2048, type=c\nstart=8192, type=83\n")
	tool(t, "", "mkfs.ext4", "-q", "-F", "-E", "offset="+strconv.FormatInt(8192*512, 10), path, "50m")
	tool(t, "", "mkfs.vfat", "-n", "BOOT", "-i", "ABCDEF01", "--offset", "2048", path, "1024")
	volumes, err := Layout(path)
	if err != nil || len(volumes) != 2 || volumes[0].FS != "vfat" || volumes[0].UUID != "ABCD-EF01" || volumes[0].Label != "BOOT" || volumes[1].PartID != "12345678-02" || !volumes[1].Last {
		t.Errorf("%+v, %v", volumes, err)
	}
	whole := drawn(t, 64<<20, "")
	tool(t, "", "mkfs.ext4", "-q", "-F", "-L", "/", whole)
	volumes, err = Layout(whole)
	if err != nil || len(volumes) != 1 || volumes[0] != (Volume{Size: 64 << 20, FS: "ext4", UUID: volumes[0].UUID, Label: "/", Last: true}) {
		t.Errorf("%+v, %v", volumes, err)
	}
	if err := Enlarge(t.Context(), whole, volumes[0], nil); err != nil {
		t.Error(err)
	}
}

func TestHostileLayouts(t *testing.T) {
	good, err := os.ReadFile(drawn(t, 16<<20, "label: gpt\nstart=2048, size=2048\nstart=4096, size=2048\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(b []byte){
		"huge table":       func(b []byte) { binary.LittleEndian.PutUint32(b[512+80:], 1<<31) },
		"huge entries":     func(b []byte) { binary.LittleEndian.PutUint32(b[512+84:], 1<<31) },
		"huge backup":      func(b []byte) { binary.LittleEndian.PutUint32(b[len(b)-512+80:], 1<<31) },
		"nothing":          func(b []byte) { clear(b) },
		"beyond the end":   func(b []byte) { mbrOnly(b, 2048, 1<<30) },
		"over one another": func(b []byte) { mbrOnly(b, 2048, 4096); copy(b[446+16:], b[446:446+16]) },
	} {
		b := bytes.Clone(good)
		change(b)
		if v, err := layout(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// mbrOnly leaves one partition in an MBR.
func mbrOnly(b []byte, start, size uint32) {
	clear(b)
	b[446+4] = 0x83
	binary.LittleEndian.PutUint32(b[446+8:], start)
	binary.LittleEndian.PutUint32(b[446+12:], size)
	b[510], b[511] = 0x55, 0xaa
}

func FuzzLayout(f *testing.F) {
	mbr := make([]byte, 4096)
	mbrOnly(mbr, 1, 7)
	f.Add(mbr, uint32(1<<16))
	ext := make([]byte, 4096)
	ext[0x438], ext[0x439] = 0x53, 0xef
	f.Add(ext, uint32(1<<16))
	gpt := make([]byte, 4096)
	mbrOnly(gpt, 1, 1<<20)
	gpt[446+4] = 0xee
	copy(gpt[512:], "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
	gpt[512+72], gpt[512+80], gpt[512+84] = 2, 4, 128
	f.Add(gpt, uint32(1<<16))
	f.Fuzz(func(t *testing.T, data []byte, size uint32) {
		size = min(size, 1<<24)
		whole := make([]byte, max(len(data), int(size)))
		copy(whole, data)
		volumes, err := layout(bytes.NewReader(whole), int64(len(whole)))
		if err != nil {
			return
		}
		last := 0
		for i, v := range volumes {
			if v.Start < 0 || v.Size <= 0 || v.Start > int64(len(whole))-v.Size {
				t.Errorf("%+v is not on a disk of %d bytes", v, len(whole))
			}
			if v.Last {
				last++
			}
			for _, o := range volumes[:i] {
				if v.Start < o.Start+o.Size && o.Start < v.Start+v.Size {
					t.Errorf("%+v and %+v overlap", o, v)
				}
			}
		}
		if last != 1 || len(volumes) > maxPartitions {
			t.Errorf("%d volumes, %d of them last", len(volumes), last)
		}
	})
}
