package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// half is a build that has come as far as the partitions.
func half(t *testing.T) *build {
	t.Helper()
	dir := t.TempDir()
	b := &build{Spec: Spec{Size: 160 << 20, Dir: dir, Codename: "one", Arch: catalog.X86_64, Origin: &catalog.Origin{Cmdline: "quiet", ArchNames: map[catalog.Arch]string{catalog.X86_64: "amd64"},
		Sources: []string{"deb http://a.example.org {codename} main", "deb [arch={arch}] http://b.example.org {codename} main"}}},
		rootUUID: "11111111-2222-3333-4444-555555555555", diskUUID: "AAAAAAAA-2222-3333-4444-555555555555", fatID: "01020304",
		partUUID: [3]string{"BBBBBBBB-0000-0000-0000-000000000014", "BBBBBBBB-0000-0000-0000-000000000015", "BBBBBBBB-0000-0000-0000-000000000001"},
		epoch:    time.Unix(1700000000, 0), root: filepath.Join(dir, "root"), out: filepath.Join(dir, "out"), raw: filepath.Join(dir, "disk.raw")}
	b.boot = catalog.Boot{Kernel: "/vmlinuz", Initrd: "/initrd.img"}
	if err := os.Mkdir(b.out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.partition(context.Background()); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPartitions(t *testing.T) {
	b := half(t)
	f, err := os.Open(b.raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, sector, sector)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.EqualFold(table.GUID, b.diskUUID) {
		t.Errorf("disk %s", table.GUID)
	}
	out, err := exec.Command("sfdisk", "--dump", b.raw).Output()
	if err == nil { // where the tool is installed, it has to agree
		for _, want := range []string{"disk.raw1 : start=      264192", "disk.raw14 : start=        2048", "disk.raw15 : start=       10240", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "21686148-6449-6E6F-744E-656564454649"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%q is missing in\n%s", want, out)
			}
		}
	}
	kinds := map[gpt.Type]bool{}
	for _, p := range table.Partitions {
		kinds[p.Type] = true
	}
	if !kinds[gpt.BIOSBoot] || !kinds[gpt.EFISystemPartition] || !kinds[gpt.LinuxFilesystem] {
		t.Errorf("%v", kinds)
	}
}

func TestBIOSLoaderIsChained(t *testing.T) {
	b := half(t)
	b.boot.BIOS = "i386-pc"
	boot, core := bytes.Repeat([]byte{0xb0}, sector), bytes.Repeat([]byte{0xc0}, 3*sector+100)
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(b.out, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("boot.img", boot)
	write("core.img", core)
	if err := b.bios(context.Background()); err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(b.raw)
	if err != nil {
		t.Fatal(err)
	}
	if at := binary.LittleEndian.Uint64(disk[0x5c:]); at != biosFirst {
		t.Errorf("the first sector leads to %d", at)
	}
	if disk[0x1fe] != 0x55 || disk[0x1ff] != 0xaa || disk[0x1c2] != 0xee {
		t.Error("the protective table was written over")
	}
	first := disk[biosFirst*sector:]
	if at, n := binary.LittleEndian.Uint64(first[0x1f4:]), binary.LittleEndian.Uint16(first[0x1fc:]); at != biosFirst+1 || n != 3 {
		t.Errorf("the core's list: sector %d, %d sectors", at, n)
	}
	if !bytes.Equal(first[sector:len(core)], core[sector:]) {
		t.Error("the core is not there")
	}
	for name, bad := range map[string][]byte{"boot.img": boot[:100], "core.img": bytes.Repeat([]byte{1}, 5<<20)} {
		good, _ := os.ReadFile(filepath.Join(b.out, name))
		write(name, bad)
		if err := b.bios(context.Background()); err == nil {
			t.Errorf("%s of %d bytes was accepted", name, len(bad))
		}
		write(name, good)
	}
}

func TestESPHoldsTheLoaders(t *testing.T) {
	for _, tool := range []string{"mkfs.vfat", "mmd", "mcopy"} {
		if _, err := command.Look(tool); err != nil {
			t.Skip(err)
		}
	}
	var sums []string
	for range 2 { // the same bytes both times
		b := half(t)
		b.boot.EFI = map[string]string{"EFI/BOOT/BOOTX64.EFI": "/usr/lib/shim"}
		b.boot.EFIGrub = "EFI/x/grub.cfg"
		if err := os.MkdirAll(filepath.Join(b.out, "efi/EFI/BOOT"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(b.out, "efi/EFI/BOOT/BOOTX64.EFI"), []byte("a loader"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := b.esp(context.Background()); err != nil {
			t.Fatal(err)
		}
		at := fmt.Sprintf("%s@@%d", b.raw, espFirst*sector)
		for file, want := range map[string]string{"::EFI/BOOT/BOOTX64.EFI": "a loader", "::EFI/x/grub.cfg": "search.fs_uuid " + b.rootUUID} {
			if out, err := exec.Command("mtype", "-i", at, file).CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s: %v: %s", file, err, out)
			}
		}
		sum, _, err := Sum(b.raw)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum)
	}
	if sums[0] != sums[1] {
		t.Errorf("two runs gave %v", sums)
	}
}

func TestExpand(t *testing.T) {
	b := half(t)
	got := b.expand("root={root_uuid} {cmdline} {kernel} {initrd} {arch}\n{sources}")
	want := "root=11111111-2222-3333-4444-555555555555 quiet /vmlinuz /initrd.img amd64\ndeb http://a.example.org one main\ndeb [arch=amd64] http://b.example.org one main"
	if got != want {
		t.Errorf("%q", got)
	}
}

func TestNewestPackageDatesTheGuest(t *testing.T) {
	dir := t.TempDir()
	deb := func(name, head string) upstream.Package {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(head), 0o644); err != nil {
			t.Fatal(err)
		}
		return upstream.Package{Name: name, SHA256: name}
	}
	member := func(date string) string {
		return "!<arch>\n" + fmt.Sprintf("%-16s%-12s%-6d%-6d%-8s%-10d`\n", "debian-binary", date, 0, 0, "100644", 4) + "2.0\n"
	}
	blob := func(sum string) string { return filepath.Join(dir, sum) }
	list := []upstream.Package{deb("a", member("1700000000")), deb("b", member("1700000500")), deb("c", member("1600000000"))}
	if at, err := newest(list, blob); err != nil || at.Unix() != 1700000500 {
		t.Errorf("%v, %v", at, err)
	}
	for _, bad := range []string{"", "PK\x03\x04", member("never")} {
		if _, err := newest([]upstream.Package{deb("x", bad)}, blob); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if _, err := newest([]upstream.Package{{SHA256: "none"}}, blob); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestFullDisksAreExplained(t *testing.T) {
	b := &build{Spec: Spec{Dir: "/x"}}
	var r *event.Remedied
	err := b.explain(&command.Failed{Name: "tool", Err: fmt.Errorf("exit status 1: %w", syscall.ENOSPC)})
	if !errors.As(err, &r) || !strings.Contains(r.Remedy, "the disk of /x is full") {
		t.Errorf("%v", err)
	}
	if err := b.explain(errors.New("else")); errors.As(err, &r) && r.Remedy == "" {
		t.Errorf("%v", err)
	}
}

func TestTooLittleSpaceIsSaidFirst(t *testing.T) {
	o := &catalog.Origin{Boot: map[catalog.Arch]catalog.Boot{catalog.X86_64: {Kernel: "/v"}}}
	s := &upstream.Snapshot{Size: 1 << 60}
	_, err := Build(context.Background(), Spec{Origin: o, Arch: catalog.X86_64, Snapshot: s, Key: "k", Dir: t.TempDir()}, nil)
	if err == nil || !strings.Contains(err.Error(), "the build needs") {
		t.Errorf("%v", err)
	}
	if _, err := Build(context.Background(), Spec{Origin: o, Arch: catalog.ARM64, Snapshot: s, Dir: t.TempDir()}, nil); err == nil || !strings.Contains(err.Error(), "not supported yet") {
		t.Errorf("%v", err)
	}
}

func TestHeaderField(t *testing.T) {
	text := []byte("Filesystem UUID: x\nInode count:              647168\nFree inodes:              624106\n")
	if headerField(text, "Inode count") != 647168 || headerField(text, "Free inodes") != 624106 || headerField(text, "Nothing") != 0 {
		t.Error("wrong numbers")
	}
}
