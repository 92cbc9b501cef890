package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"

	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
)

// The layout: BIOS boot as partition 14, the EFI system partition as 15, and the root as 1 at the end, so that it can
// grow.
const (
	sector     = 512
	mib        = 1 << 20 / sector
	biosFirst  = 1 * mib
	espFirst   = 5 * mib
	rootFirst  = 129 * mib
	endReserve = 1 * mib // the backup table's sectors, and alignment
)

// partition writes the partition table (UEFI specification 2.10, chapter 5).
func (b *build) partition(context.Context) error {
	f, err := os.Create(b.raw)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(b.Size); err != nil {
		return err
	}
	last := b.Size/sector - endReserve - 1
	b.partitions = map[int][2]int64{14: {biosFirst, espFirst - 1}, 15: {espFirst, rootFirst - 1}, 1: {rootFirst, last}}
	part := func(n int, kind gpt.Type, name, id string, attributes uint64) *gpt.Partition {
		return &gpt.Partition{Index: n, Start: uint64(b.partitions[n][0]), End: uint64(b.partitions[n][1]), Type: kind, Name: name, GUID: id, Attributes: attributes}
	}
	table := &gpt.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true, GUID: b.diskUUID, Partitions: []*gpt.Partition{
		part(1, gpt.LinuxFilesystem, "root", b.partUUID[2], 0),
		part(14, gpt.BIOSBoot, "bios", b.partUUID[0], 0),
		part(15, gpt.EFISystemPartition, "esp", b.partUUID[1], 0),
	}}
	return table.Write(f, b.Size)
}

// esp makes the EFI system partition and copies it into its place.
func (b *build) esp(ctx context.Context) error {
	if len(b.boot.EFI) == 0 {
		return nil
	}
	if err := os.WriteFile(filepath.Join(b.Dir, "efi.cfg"), []byte(fmt.Sprintf(
		"search.fs_uuid %s root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n", b.rootUUID)), 0o644); err != nil {
		return err
	}
	files := map[string]string{b.boot.EFIGrub: filepath.Join(b.Dir, "efi.cfg")}
	for to := range b.boot.EFI {
		files[to] = filepath.Join(b.out, "efi", to)
	}
	image := filepath.Join(b.Dir, "esp.img")
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		return err
	}
	span := b.partitions[15]
	if err := os.Truncate(image, (span[1]-span[0]+1)*sector); err != nil {
		return err
	}
	if err := b.run(ctx, "mkfs.vfat", "--invariant", "-F", "32", "-s", "1", "-i", b.fatID, "-n", "EFI", image); err != nil {
		return err
	}
	dirs := map[string]bool{}
	names := make([]string, 0, len(files))
	for to := range files {
		names = append(names, to)
		for d := path.Dir(to); d != "."; d = path.Dir(d) {
			dirs[d] = true
		}
	}
	sort.Strings(names)
	folders := make([]string, 0, len(dirs))
	for d := range dirs {
		folders = append(folders, "::"+d)
	}
	sort.Strings(folders)
	if err := b.run(ctx, "mmd", append([]string{"-i", image}, folders...)...); err != nil {
		return err
	}
	for _, to := range names {
		if err := os.Chtimes(files[to], b.epoch, b.epoch); err != nil {
			return err
		}
		if err := b.run(ctx, "mcopy", "-m", "-i", image, files[to], "::"+to); err != nil {
			return err
		}
	}
	return b.copyIn(image, span[0]*sector)
}

// bios puts GRUB where a BIOS looks for it: boot.img's code into the first sector, core.img into the BIOS boot
// partition, each told where the next piece begins. The offsets are those of GRUB 2's include/grub/i386/pc/boot.h and
// kernel.h: the core's sector at 0x5c of boot.img; at the end of the core's first sector its list of blocks, here one
// block of the rest, loaded to segment 0x820.
func (b *build) bios(context.Context) error {
	if b.boot.BIOS == "" {
		return nil
	}
	boot, err := os.ReadFile(filepath.Join(b.out, "boot.img"))
	if err != nil {
		return err
	}
	core, err := os.ReadFile(filepath.Join(b.out, "core.img"))
	if err != nil {
		return err
	}
	first, last := b.partitions[14][0], b.partitions[14][1]
	if len(boot) != sector || len(core) < 2*sector || int64(len(core)) > (last-first+1)*sector {
		return fmt.Errorf("boot loader of unexpected size: boot.img %d bytes, core.img %d", len(boot), len(core))
	}
	sectors := (len(core) + sector - 1) / sector
	binary.LittleEndian.PutUint64(boot[0x5c:], uint64(first))
	boot[0x66], boot[0x67] = 0x90, 0x90 // do not trust the drive number that the BIOS gives (two no-operations)
	binary.LittleEndian.PutUint64(core[0x1f4:], uint64(first+1))
	binary.LittleEndian.PutUint16(core[0x1fc:], uint16(sectors-1))
	binary.LittleEndian.PutUint16(core[0x1fe:], 0x820)
	f, err := os.OpenFile(b.raw, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(boot[:440], 0) // behind it come the disk's signature and the protective table
	if err == nil {
		_, err = f.WriteAt(core, first*sector)
	}
	return errors.Join(err, f.Close())
}

// rootfs makes the root file system from the tree, straight in the disk.
func (b *build) rootfs(ctx context.Context) error {
	span := b.partitions[1]
	err := b.isolated(ctx, nil, "mkfs.ext4", "-q", "-F", "-L", "root", "-U", b.rootUUID, "-m", "1",
		"-E", "offset="+strconv.FormatInt(span[0]*sector, 10)+",hash_seed="+b.rootUUID+",lazy_itable_init=1,lazy_journal_init=1,nodiscard",
		"-d", b.root, b.raw, strconv.FormatInt((span[1]-span[0]+1)*sector/1024, 10)+"k")
	if err != nil {
		return err
	}
	// The tree's change and access times are those of this build: they go, so that the same packages give the same bytes.
	volume := b.raw + "?offset=" + strconv.FormatInt(span[0]*sector, 10)
	out, err := command.Output(ctx, command.Command{Name: "dumpe2fs", Args: []string{"-h", volume}, Env: b.env()}, 0, nil)
	if err != nil {
		return err
	}
	count, free := headerField(out, "Inode count"), headerField(out, "Free inodes")
	if count <= free || free <= 0 {
		return fmt.Errorf("dumpe2fs tells of %d inodes, %d of them free", count, free)
	}
	var script bytes.Buffer
	stamp := strconv.FormatInt(b.epoch.Unix(), 10)
	for inode := int64(1); inode <= count-free; inode++ { // a new file system takes them in order
		if inode == 2 || inode > 10 { // the root and the tree, not what the file system keeps for itself
			fmt.Fprintf(&script, "sif <%d> atime @%s\nsif <%d> ctime @%s\n", inode, stamp, inode, stamp)
		}
	}
	path := filepath.Join(b.Dir, "times")
	if err := os.WriteFile(path, script.Bytes(), 0o644); err != nil {
		return err
	}
	return command.Run(ctx, command.Command{Name: "debugfs", Args: []string{"-w", "-f", path, volume}, Env: b.env(), Stdout: io.Discard}, b.scope)
}

// headerField reads a number of dumpe2fs's "NAME:   NUMBER" lines; 0 if there is none.
func headerField(header []byte, name string) int64 {
	m := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+)$`).FindSubmatch(header)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n
}

// copyIn writes a file's contents at an offset of the disk, leaving holes where it holds zeros only.
func (b *build) copyIn(from string, offset int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(b.raw, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 && !zero(buf[:n]) {
			if _, werr := out.WriteAt(buf[:n], offset); werr != nil {
				return werr
			}
		}
		offset += int64(n)
		if err != nil {
			break
		}
	}
	return out.Close()
}

func zero(p []byte) bool {
	for _, c := range p {
		if c != 0 {
			return false
		}
	}
	return true
}
