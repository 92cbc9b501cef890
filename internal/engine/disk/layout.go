package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/diskfs/go-diskfs/partition/mbr"
	"github.com/google/uuid"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Volume is a part of a disk that can hold a file system: a partition, or all of it.
type Volume struct {
	Number int    // of the partition; 0 for a disk without a partition table
	Start  int64  // bytes
	Size   int64  // bytes
	FS     string // "ext4" (also ext2 and ext3), "xfs", "btrfs", "vfat"; "" for everything else
	UUID   string // of the file system, as the guest's fstab writes it
	Label  string // of the file system
	PartID string // of the partition, as PARTUUID writes it; "" for none
	Last   bool   // nothing comes after it on the disk
}

// Linux says whether the volume can hold the root of a guest.
func (v Volume) Linux() bool { return v.FS == "ext4" || v.FS == "xfs" || v.FS == "btrfs" }

// Layout reads what is on a raw disk: its partitions (GPT, as in UEFI 2.10 chapter 5, or MBR) and the file systems that
// begin in them, in the order of their places. Nothing is mounted. A disk without a partition table is one volume.
func Layout(path string) ([]Volume, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	volumes, err := layout(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("the disk's partitions: %w", err)
	}
	return volumes, nil
}

// readable is what the partition tables' library reads from.
type readable struct{ *io.SectionReader }

func (readable) Close() error               { return nil }
func (readable) Stat() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }

// modest says whether a header of a GPT, which is at an offset if there is one, asks for no more than a table needs: the
// library would make room for whatever it says.
func modest(f io.ReaderAt, offset int64) bool {
	head := make([]byte, sector)
	if _, err := f.ReadAt(head, offset); err != nil || !bytes.HasPrefix(head, []byte("EFI PART")) {
		return true
	}
	return binary.LittleEndian.Uint32(head[80:]) <= 1024 && binary.LittleEndian.Uint32(head[84:]) == 128
}

// maxPartitions is how many partitions are looked at.
const maxPartitions = 128

func layout(f io.ReaderAt, size int64) (list []Volume, err error) {
	defer func() {
		if r := recover(); r != nil { // of the library that reads the tables
			err = fmt.Errorf("damaged: %v", r)
		}
	}()
	if !modest(f, sector) || !modest(f, size-sector) {
		return nil, errors.New("the partition table claims to be larger than any")
	}
	source := readable{io.NewSectionReader(f, 0, size)}
	if t, gerr := gpt.Read(source, sector, sector); gerr == nil {
		for _, p := range t.Partitions {
			if p.Type != gpt.Unused && p.Size > 0 {
				list = append(list, Volume{Number: p.Index, Start: int64(p.Start) * sector, Size: int64(p.End-p.Start+1) * sector, PartID: strings.ToLower(p.GUID)})
			}
		}
	} else if t, merr := mbr.Read(source, sector, sector); merr == nil {
		head := make([]byte, sector)
		if _, err := f.ReadAt(head, 0); err != nil {
			return nil, err
		}
		signature := binary.LittleEndian.Uint32(head[0x1b8:])
		for i, p := range t.Partitions {
			if p.Type != mbr.Empty && p.Size > 0 {
				list = append(list, Volume{Number: i + 1, Start: int64(p.Start) * sector, Size: int64(p.Size) * sector, PartID: fmt.Sprintf("%08x-%02x", signature, i+1)})
			}
		}
	}
	// A boot sector has the mark of a partition table, too: what counts as partitions has to be on the disk.
	inside := len(list) > 0 && len(list) <= maxPartitions
	for _, v := range list {
		inside = inside && v.Start >= sector && v.Size > 0 && v.Size <= size && v.Start <= size-v.Size
	}
	whole := Volume{Size: size, Last: true}
	if err := whole.probe(f); err != nil {
		return nil, err
	}
	switch {
	case inside && !whole.Linux():
	case whole.FS != "":
		return []Volume{whole}, nil
	case len(list) > 0:
		return nil, errors.New("the partition table tells of partitions that are not on the disk")
	default:
		return nil, errors.New("there is neither a partition table nor a known file system")
	}
	last := 0
	for i := range list {
		if err := list[i].probe(f); err != nil {
			return nil, err
		}
		if list[i].Start > list[last].Start {
			last = i
		}
		for k := range i {
			if list[i].Start < list[k].Start+list[k].Size && list[k].Start < list[i].Start+list[i].Size {
				return nil, fmt.Errorf("partitions %d and %d overlap", list[k].Number, list[i].Number)
			}
		}
	}
	list[last].Last = true
	return list, nil
}

// probe looks for a file system's superblock. Where it is and what it holds: ext4 in the kernel's documentation (disk
// layout, super block), xfs in the XFS Algorithms & Data Structures, btrfs in its on-disk format, FAT in Microsoft's
// specification.
func (v *Volume) probe(f io.ReaderAt) error {
	head := make([]byte, min(v.Size, 0x10200)) // up to btrfs's superblock and its label
	n, err := f.ReadAt(head, v.Start)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	head = append(head[:n], make([]byte, 0x10200-n)...)
	text := func(from, size int) string {
		s, _, _ := bytes.Cut(head[from:from+size], []byte{0})
		return strings.TrimRight(string(s), " ")
	}
	id := func(from int) string {
		u, _ := uuid.FromBytes(head[from : from+16])
		return u.String()
	}
	switch {
	case binary.LittleEndian.Uint16(head[0x438:]) == 0xef53:
		v.FS, v.UUID, v.Label = "ext4", id(0x468), text(0x478, 16)
	case bytes.HasPrefix(head, []byte("XFSB")):
		v.FS, v.UUID, v.Label = "xfs", id(32), text(108, 12)
	case bytes.HasPrefix(head[0x10040:], []byte("_BHRfS_M")):
		v.FS, v.UUID, v.Label = "btrfs", id(0x10020), text(0x1012b, 0x100-0x2b)
	case bytes.HasPrefix(head[0x52:], []byte("FAT32")):
		v.FS, v.UUID, v.Label = "vfat", volumeID(head[0x43:]), text(0x47, 11)
	case bytes.HasPrefix(head[0x36:], []byte("FAT1")):
		v.FS, v.UUID, v.Label = "vfat", volumeID(head[0x27:]), text(0x2b, 11)
	}
	return nil
}

func volumeID(b []byte) string {
	return fmt.Sprintf("%02X%02X-%02X%02X", b[3], b[2], b[1], b[0])
}

// Root finds the root file system among volumes: the one with this number, or, if that is 0, the largest that can be.
func Root(volumes []Volume, number int) (Volume, error) {
	var found *Volume
	for i := range volumes {
		v := &volumes[i]
		if number > 0 && v.Number == number || number == 0 && v.Linux() && (found == nil || v.Size > found.Size) {
			found = v
		}
	}
	switch {
	case found == nil && number > 0:
		return Volume{}, event.WithRemedy(fmt.Errorf("the disk has no partition %d", number), "look at root of [flavor.origin.customise]")
	case found == nil:
		return Volume{}, errors.New("none of the disk's partitions has an ext4, xfs or btrfs file system")
	case !found.Linux():
		return Volume{}, fmt.Errorf("partition %d has no ext4, xfs or btrfs file system", number)
	}
	return *found, nil
}

// Tool bounds a program of the field that reads a disk which somebody else made.
func Tool(c command.Command) command.Command {
	c.MaxMemory, c.MaxTime = 4<<30, 30*time.Minute
	if c.MaxFile == 0 {
		c.MaxFile = MaxVirtualSize
	}
	return c
}

// Unpack writes a qcow2 or raw disk, which Inspect has looked at, as a raw file with holes; the file of the disk is only
// read. The raw disk gets at least the size, in bytes.
func Unpack(ctx context.Context, from, format, to string, size int64, scope *event.Scope) error {
	facts, err := Inspect(from, format)
	if err != nil {
		return err
	}
	told := &percents{func(percent float64) {
		scope.Progress(int64(percent/100*float64(facts.VirtualSize)), facts.VirtualSize, "bytes unpacked")
	}, nil}
	if err := command.Run(ctx, Tool(command.Command{Name: "qemu-img", Args: []string{"convert", "-p", "-f", format, "-O", "raw", "-S", "4k", "-W", "-m", "8", from, to}, Stdout: told}), scope); err != nil {
		return err
	}
	info, err := os.Stat(to)
	if err != nil || info.Size() >= size {
		return err
	}
	return os.Truncate(to, size)
}

// percents reads what qemu-img -p says: "    (12.50/100%)", each followed by a carriage return.
type percents struct {
	told func(percent float64)
	text []byte // of a figure that is not complete
}

func (p *percents) Write(data []byte) (int, error) {
	for _, c := range data {
		switch {
		case c == '(':
			p.text = p.text[:0]
		case c == '/':
			if n, err := strconv.ParseFloat(string(p.text), 64); err == nil && n >= 0 && n <= 100 {
				p.told(n)
			}
			p.text = p.text[:0]
		case len(p.text) < 20:
			p.text = append(p.text, c)
		}
	}
	return len(data), nil
}

// Enlarge makes the volume that ends the partition table reach to the end of the disk, which has been made larger. A
// backup of the table at the old end moves to the new one.
func Enlarge(ctx context.Context, path string, v Volume, scope *event.Scope) error {
	if v.Number == 0 {
		return nil // it has the disk to itself
	}
	if !v.Last {
		return fmt.Errorf("partition %d cannot grow: another one comes after it", v.Number)
	}
	return command.Run(ctx, Tool(command.Command{Name: "sfdisk", Args: []string{"--quiet", "--no-reread", "--no-tell-kernel", "--force", "-N", strconv.Itoa(v.Number), path},
		Stdin: strings.NewReader(", +\n")}), scope)
}
