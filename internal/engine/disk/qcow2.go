package disk

import (
	"encoding/binary"
	"io"
)

// The qcow2 files that are written here: QEMU's docs/interop/qcow2.txt, version 3, clusters of 64 KiB, reference counts
// of 16 bits. All numbers are big-endian.
const (
	clusterBits = 16
	clusterSize = 1 << clusterBits
	tableSize   = clusterSize / 8         // entries of a second table
	tableCovers = tableSize * clusterSize // bytes of the disk that a second table covers
	blockSize   = clusterSize / 2         // entries of a block of reference counts
	sectorsAt   = 62 - (clusterBits - 8)  // where in a descriptor the number of additional sectors begins
	compressed  = uint64(1) << 62         // a descriptor's mark of a compressed cluster
	copied      = uint64(1) << 63         // the mark of a cluster that is referred to once
	firstTable  = clusterSize             // offset of the first table, which takes one cluster: enough for MaxVirtualSize
	maxPlain    = 64                      // clusters that wait for a good place
	zlibHeader  = 104                     // bytes of a header that says nothing of compression
	zstdHeader  = 112                     // bytes of one that does
)

// image writes a qcow2 file. Clusters come in the order of the disk; tables are written when they are complete.
type image struct {
	w    io.WriterAt
	size int64 // virtual, bytes
	zstd bool

	first  [tableSize]uint64 // the first table
	table  [tableSize]uint64 // the second table under way
	at     int64             // its index in the first table
	refs   []uint16          // the reference count of each cluster of the file, up to its end: 2 bytes for 64 KiB
	packed int64             // offset behind the last compressed cluster
	plain  []byte            // clusters to be stored as they are
	slots  []int             // their places in the second table
	buf    [clusterSize]byte // for writing tables
}

func newImage(w io.WriterAt, size int64, zstd bool) *image {
	return &image{w: w, size: size, zstd: zstd, refs: []uint16{1, 1}} // the header and the first table
}

// add stores the cluster of the disk at an offset: data as it is (a whole cluster), or compressed (less than that).
// Offsets ascend.
func (m *image) add(offset int64, data []byte) error {
	cluster := offset >> clusterBits
	if at := cluster / tableSize; at != m.at {
		if err := m.endTable(); err != nil {
			return err
		}
		m.at = at
	}
	slot := int(cluster % tableSize)
	if len(data) == clusterSize {
		m.plain, m.slots = append(m.plain, data...), append(m.slots, slot)
	} else if err := m.pack(slot, data); err != nil {
		return err
	}
	// A plain cluster begins a cluster of the file, and what is left of the one that compressed clusters fill would be lost:
	// it waits until that is little, or until many wait.
	if lost := m.left(); len(m.slots) > 0 && (lost <= int64(len(m.slots))*512 || len(m.slots) == maxPlain) {
		return m.flush()
	}
	return nil
}

// left is how many bytes of the file's last cluster compressed clusters can still fill; 0 if it is not theirs.
func (m *image) left() int64 {
	if room := -m.packed & (clusterSize - 1); m.packed+room == m.end() {
		return room
	}
	return 0
}

// end is the offset of the end of the file's last cluster.
func (m *image) end() int64 { return int64(len(m.refs)) << clusterBits }

// pack writes a compressed cluster right behind the one before; the last byte of its last sector may belong to the next.
func (m *image) pack(slot int, data []byte) error {
	n := int64(len(data))
	if room := -m.packed & (clusterSize - 1); room < n {
		if m.packed+room != m.end() { // something else follows, so it does not continue there
			m.packed = m.end()
		}
		m.refs = append(m.refs, 0)
	}
	if _, err := m.w.WriteAt(data, m.packed); err != nil {
		return err
	}
	last := m.packed + n - 1
	for c := m.packed >> clusterBits; c <= last>>clusterBits; c++ {
		m.refs[c]++
	}
	m.table[slot] = compressed | uint64(last/512-m.packed/512)<<sectorsAt | uint64(m.packed)
	m.packed += n
	return nil
}

// take reserves clusters at the end of the file.
func (m *image) take(n int) (offset int64) {
	offset = m.end()
	for range n {
		m.refs = append(m.refs, 1)
	}
	return offset
}

// flush writes the plain clusters that wait.
func (m *image) flush() error {
	offset := m.take(len(m.slots))
	for i, slot := range m.slots {
		m.table[slot] = copied | uint64(offset+int64(i)<<clusterBits)
	}
	_, err := m.w.WriteAt(m.plain, offset)
	m.plain, m.slots = m.plain[:0], m.slots[:0]
	return err
}

// endTable writes the second table, if it has entries.
func (m *image) endTable() error {
	if len(m.slots) > 0 {
		if err := m.flush(); err != nil {
			return err
		}
	}
	if m.table == ([tableSize]uint64{}) {
		return nil
	}
	offset := m.take(1)
	m.first[m.at] = copied | uint64(offset)
	err := m.write(m.table[:], offset)
	clear(m.table[:])
	return err
}

// write writes numbers that make up a cluster at most, and zeros behind them.
func (m *image) write(numbers []uint64, offset int64) error {
	clear(m.buf[:])
	for i, v := range numbers {
		binary.BigEndian.PutUint64(m.buf[8*i:], v)
	}
	_, err := m.w.WriteAt(m.buf[:], offset)
	return err
}

// finish writes what is left: reference counts, the first table, and the header last.
func (m *image) finish() error {
	if err := m.endTable(); err != nil {
		return err
	}
	used, blocks, clusters := len(m.refs), 0, 0 // the blocks and their table count themselves
	for {
		b := (used + blocks + clusters + blockSize - 1) / blockSize
		c := (b + tableSize - 1) / tableSize
		if b == blocks && c == clusters {
			break
		}
		blocks, clusters = b, c
	}
	offset := m.take(blocks + clusters)
	counts := offset + int64(blocks)<<clusterBits
	list := make([]uint64, blocks)
	for i := range list {
		clear(m.buf[:])
		for k, v := range m.refs[i*blockSize : min((i+1)*blockSize, len(m.refs))] {
			binary.BigEndian.PutUint16(m.buf[2*k:], v)
		}
		list[i] = uint64(offset) + uint64(i)<<clusterBits
		if _, err := m.w.WriteAt(m.buf[:], int64(list[i])); err != nil {
			return err
		}
	}
	for i := range clusters {
		if err := m.write(list[i*tableSize:min((i+1)*tableSize, blocks)], counts+int64(i)<<clusterBits); err != nil {
			return err
		}
	}
	entries := max((m.size+tableCovers-1)/tableCovers, 1)
	if err := m.write(m.first[:entries], firstTable); err != nil {
		return err
	}
	head := make([]byte, clusterSize) // zeros are its extensions' end
	copy(head, "QFI\xfb")
	u32 := func(at int, v uint32) { binary.BigEndian.PutUint32(head[at:], v) }
	u64 := func(at int, v uint64) { binary.BigEndian.PutUint64(head[at:], v) }
	u32(4, 3) // version
	u32(20, clusterBits)
	u64(24, uint64(m.size))
	u32(36, uint32(entries))
	u64(40, firstTable)
	u64(48, uint64(counts))
	u32(56, uint32(clusters))
	u32(96, 4) // reference counts of 2^4 bits
	u32(100, zlibHeader)
	if m.zstd {
		u64(72, compressionType)
		u32(100, zstdHeader)
		head[104] = 1
	}
	_, err := m.w.WriteAt(head, 0)
	return err
}
