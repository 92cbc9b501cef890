package install

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/network"
)

const (
	sector    = 512
	partStart = 2048     // the partition's first sector
	leastFAT  = 34 << 20 // bytes of a partition that can be FAT32
	mostDrive = 1 << 30  // bytes of its files
)

// makeDrive makes driveFile in a folder.
func makeDrive(ctx context.Context, dir string, d Drive, files map[string]network.Content, scope *event.Scope) error {
	tree := filepath.Join(dir, "drive")
	var total int64
	for _, name := range slices.Sorted(maps.Keys(files)) {
		size, err := lay(filepath.Join(tree, name), files[name])
		if err != nil {
			return err
		}
		if total += size; total > mostDrive {
			return fmt.Errorf("the installation's script: serve: drive: files of more than %d MiB", mostDrive>>20)
		}
	}
	defer os.RemoveAll(tree)
	run := func(name string, args ...string) error {
		return command.Run(ctx, command.Command{Name: name, Args: args, Dir: dir}, scope)
	}
	if d.Format == "iso9660" {
		args := []string{"-as", "mkisofs", "-quiet", "-joliet", "-rock", "-output", driveFile}
		if d.Label != "" {
			args = append(args, "-volid", d.Label)
		}
		return run("xorriso", append(args, "drive")...)
	}
	size := max(leastFAT, (total+total/8+(4<<20))&^(1<<20-1))
	if err := partitioned(filepath.Join(dir, driveFile), size); err != nil {
		return err
	}
	args := []string{"-F", "32", "-s", "1", "--offset", strconv.Itoa(partStart)}
	if d.Label != "" {
		args = append(args, "-n", strings.ToUpper(d.Label))
	}
	if err := run("mkfs.vfat", append(args, driveFile, strconv.FormatInt(size>>10, 10))...); err != nil {
		return err
	}
	entries, err := os.ReadDir(tree)
	if err != nil {
		return err
	}
	args = []string{"-s", "-i", driveFile + "@@" + strconv.Itoa(partStart*sector)}
	for _, e := range entries {
		args = append(args, filepath.Join("drive", e.Name()))
	}
	return run("mcopy", append(args, "::")...)
}

// lay puts a file into the tree, and returns its size.
func lay(path string, c network.Content) (int64, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, err
	}
	from, _, err := c.Open()
	if err != nil {
		return 0, err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(to, io.LimitReader(from, mostDrive+1))
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	return n, err
}

// partitioned makes a raw disk with a master boot record whose only partition, of the given size in bytes, is FAT32.
func partitioned(path string, size int64) error {
	mbr := make([]byte, sector)
	entry := mbr[446:]
	entry[4] = 0x0c                                     // FAT32, LBA
	copy(entry[1:], []byte{0xfe, 0xff, 0xff})           // cylinders, heads and sectors are not used
	copy(entry[5:], []byte{0xfe, 0xff, 0xff})           //
	binary.LittleEndian.PutUint32(entry[8:], partStart) // first sector
	binary.LittleEndian.PutUint32(entry[12:], uint32(size/sector))
	mbr[510], mbr[511] = 0x55, 0xaa
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(mbr)
	if err == nil {
		err = f.Truncate(partStart*sector + size)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
