package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Facts are what the header of a disk says.
type Facts struct {
	Format      string // "qcow2", "raw", "iso"
	VirtualSize int64  // bytes
	Size        int64  // bytes of the file
	ClusterSize int64  // of qcow2, bytes
	Compression string // of qcow2's compressed clusters: "zlib", "zstd"
}

// MaxVirtualSize is the largest disk that is opened: more than any root disk needs, and no program runs out of memory or
// time with it.
const MaxVirtualSize = 4 << 40

// Inspect reads the header of a disk that somebody else made, before any program opens it. It refuses what would make a
// program read another file (backing files, external data files), what cannot be an image (encryption, internal
// snapshots, features that are not known, marks of damage), sizes that are absurd, tables that are not in the file, and
// a raw disk that looks like another format, since those who open it later may guess. format is what the file has to be:
// "qcow2", "raw" or "iso".
func Inspect(path, format string) (*Facts, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	facts, err := inspect(f, info.Size(), format)
	if err != nil {
		return nil, event.WithRemedy(fmt.Errorf("the disk is refused: %w", err), "look at what upstream published, and at format and pack of its description; nothing has opened the file yet")
	}
	return facts, nil
}

// guessed are the beginnings by which programs know formats, at their offsets.
var guessed = []struct {
	name   string
	offset int
	magic  string
}{
	{"qcow2", 0, "QFI\xfb"},
	{"qed", 0, "QED\x00"},
	{"vmdk", 0, "KDMV"},
	{"vmdk", 0, "COWD"},
	{"vmdk", 0, "# Disk DescriptorFile"},
	{"vhdx", 0, "vhdxfile"},
	{"vhd", 0, "conectix"},
	{"vdi", 0x40, "\x7f\x10\xda\xbe"},
	{"luks", 0, "LUKS\xba\xbe"},
	{"parallels", 0, "WithoutFreeSpace"},
	{"parallels", 0, "WithouFreSpacExt"},
	{"gzip", 0, "\x1f\x8b"},
	{"xz", 0, "\xfd7zXZ\x00"},
	{"zstd", 0, "\x28\xb5\x2f\xfd"},
	{"bzip2", 0, "BZh"},
}

func inspect(r io.ReaderAt, size int64, format string) (*Facts, error) {
	head := make([]byte, 512)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head = head[:n]
	looks := ""
	for _, g := range guessed {
		if len(head) > g.offset && bytes.HasPrefix(head[g.offset:], []byte(g.magic)) {
			looks = g.name
			break
		}
	}
	switch format {
	case "qcow2":
		if looks != "qcow2" {
			return nil, fmt.Errorf("it is no qcow2%s", alike(looks))
		}
		return qcow2(r, head, size)
	case "raw", "iso":
		switch {
		case looks != "":
			return nil, fmt.Errorf("it is to be %s and looks like %s: whoever opens it later would take it for that", format, looks)
		case size < 512:
			return nil, fmt.Errorf("it has %d bytes", size)
		case size > MaxVirtualSize:
			return nil, fmt.Errorf("it has %d bytes, more than any root disk needs (%d)", size, int64(MaxVirtualSize))
		}
		if format == "iso" {
			mark := make([]byte, 5) // ECMA-119, 8.1: the first volume descriptor is in sector 16
			if _, err := r.ReadAt(mark, 16*2048+1); err != nil || string(mark) != "CD001" {
				return nil, errors.New("it is no ISO 9660 image")
			}
		}
		return &Facts{Format: format, VirtualSize: size, Size: size}, nil
	}
	return nil, fmt.Errorf("the format %q is not known", format)
}

func alike(looks string) string {
	if looks == "" {
		return ""
	}
	return ", it looks like " + looks
}

// Incompatible features of qcow2's version 3.
const (
	dirty, corrupt, dataFile, compressionType, extendedL2 = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4
)

// maxFirstTable is how many entries QEMU takes of the first table.
const maxFirstTable = 4 << 20

// Header extensions.
const (
	endOfExtensions = 0
	backingFormat   = 0xE2792ACA
	dataFileName    = 0x44415441
	encryption      = 0x0537BE77
)

// qcow2 reads a header as QEMU's docs/interop/qcow2.txt describes it; all numbers are big-endian.
func qcow2(r io.ReaderAt, head []byte, size int64) (*Facts, error) {
	if len(head) < 104 {
		return nil, errors.New("its header is cut off")
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(head[at:]) }
	u64 := func(at int) uint64 { return binary.BigEndian.Uint64(head[at:]) }
	version, bits, virtual := u32(4), u32(20), u64(24)
	facts := &Facts{Format: "qcow2", Size: size, Compression: "zlib"}
	switch {
	case version != 2 && version != 3:
		return nil, fmt.Errorf("it is of version %d; 2 and 3 are known", version)
	case u64(8) != 0 || u32(16) != 0:
		return nil, fmt.Errorf("it has a backing file%s", named(r, int64(u64(8)), int64(u32(16)), size))
	case u32(32) != 0:
		return nil, fmt.Errorf("it is encrypted (method %d)", u32(32))
	case bits < 9 || bits > 21:
		return nil, fmt.Errorf("its clusters have 2^%d bytes; 2^9 to 2^21 are possible", bits)
	case virtual == 0 || virtual > MaxVirtualSize:
		return nil, fmt.Errorf("its virtual size is %d bytes; up to %d are opened", virtual, uint64(MaxVirtualSize))
	case u32(60) != 0:
		return nil, fmt.Errorf("it holds %d internal snapshots", u32(60))
	}
	facts.VirtualSize, facts.ClusterSize = int64(virtual), 1<<bits
	extensions := int64(72)
	entry := uint64(8) // bytes of an entry of the second table
	if version == 3 {
		features := u64(72)
		switch {
		case features&dataFile != 0:
			return nil, errors.New("its data is in another file")
		case features&corrupt != 0:
			return nil, errors.New("it is marked as corrupt")
		case features&dirty != 0:
			return nil, errors.New("it is marked as not closed properly")
		case features&^(compressionType|extendedL2) != 0:
			return nil, fmt.Errorf("it needs features that are not known here (%#x)", features)
		}
		if order := u32(96); order > 6 {
			return nil, fmt.Errorf("its reference counts have 2^%d bits", order)
		}
		extensions = int64(u32(100))
		if extensions < 104 || extensions > facts.ClusterSize || extensions%8 != 0 {
			return nil, fmt.Errorf("its header has %d bytes", extensions)
		}
		if features&compressionType != 0 {
			if extensions <= 104 || len(head) <= 104 {
				return nil, errors.New("its header does not say how it is compressed")
			}
			switch kind := head[104]; kind {
			case 1:
				facts.Compression = "zstd"
			default:
				return nil, fmt.Errorf("it is compressed in a way that is not known (%d)", kind)
			}
		}
		if features&extendedL2 != 0 {
			entry = 16
		}
	}
	// The first table has an entry for each part of the disk that a second table covers.
	covered := uint64(facts.ClusterSize) * uint64(facts.ClusterSize) / entry
	if need := (virtual + covered - 1) / covered; uint64(u32(36)) < need || u32(36) > maxFirstTable {
		return nil, fmt.Errorf("its first table has %d entries, %d are needed", u32(36), need)
	}
	if err := inside("first table", u64(40), uint64(u32(36))*8, uint64(facts.ClusterSize), size); err != nil {
		return nil, err
	}
	if err := inside("table of reference counts", u64(48), uint64(u32(56))<<bits, uint64(facts.ClusterSize), size); err != nil {
		return nil, err
	}
	return facts, readExtensions(r, extensions, facts.ClusterSize, size)
}

// inside says whether a table lies in the file, behind the header, at the beginning of a cluster.
func inside(what string, offset, length, cluster uint64, size int64) error {
	if offset < cluster || offset%cluster != 0 || length == 0 || offset > uint64(size) || length > uint64(size)-offset {
		return fmt.Errorf("its %s (%d bytes at %d) is not in the file (%d bytes)", what, length, offset, size)
	}
	return nil
}

// readExtensions looks for header extensions that name other files, or encryption.
func readExtensions(r io.ReaderAt, at, cluster, size int64) error {
	for n := 0; at+8 <= min(cluster, size); n++ {
		var b [8]byte
		if _, err := r.ReadAt(b[:], at); err != nil {
			return fmt.Errorf("its header's extensions: %w", err)
		}
		kind, length := binary.BigEndian.Uint32(b[:]), int64(binary.BigEndian.Uint32(b[4:]))
		switch {
		case kind == endOfExtensions:
			return nil
		case kind == backingFormat || kind == dataFileName:
			return fmt.Errorf("it names another file%s", named(r, at+8, length, size))
		case kind == encryption:
			return errors.New("it is encrypted")
		case n > 100 || length > cluster:
			return errors.New("its header's extensions do not end")
		}
		at += 8 + (length+7)/8*8
	}
	return nil
}

// named reads a name out of a header, for messages.
func named(r io.ReaderAt, at, length, size int64) string {
	if at <= 0 || length <= 0 || at > size {
		return ""
	}
	name := make([]byte, min(length, 200))
	n, _ := r.ReadAt(name, at)
	return fmt.Sprintf(" (%q)", event.Clean(string(name[:n])))
}
