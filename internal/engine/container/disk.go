package container

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// diskLayer is the layer with /disk: an uncompressed tar (the disk in it is compressed already) that is neither held in
// memory nor written anywhere: headers, the file itself, padding. It can be opened any number of times.
type diskLayer struct {
	path    string
	head    []byte // tar headers of the folder and the file
	foot    []byte // padding and the end of the archive
	length  int64  // of the file
	virtual int64  // of the root disk
	sum     string // SHA-256 of the file, hex
	hash    v1.Hash

	mu      sync.Mutex
	changed time.Time // when the file was changed last, as far as its content is known
}

// newDiskLayer looks at the disk, and hashes it and the layer in one pass. More writers are given the layer in that pass.
func newDiskLayer(s Spec, more ...io.Writer) (*diskLayer, error) {
	f, err := os.Open(s.DiskPath)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", s.DiskPath)
	}
	size := info.Size()
	if s.DiskSize != 0 && size != s.DiskSize {
		return nil, fmt.Errorf("%s: expected %d bytes, found %d", s.DiskPath, s.DiskSize, size)
	}
	virtual, err := inspect(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.DiskPath, err)
	}
	if s.VirtualSize != 0 && s.VirtualSize != virtual {
		return nil, fmt.Errorf("%s: expected a virtual size of %d bytes, found %d", s.DiskPath, s.VirtualSize, virtual)
	}
	var head bytes.Buffer
	tw := tar.NewWriter(&head)
	if err := errors.Join(tw.WriteHeader(header("disk/", tar.TypeDir, 0o555, owner, 0)),
		tw.WriteHeader(header("disk/"+s.DiskName, tar.TypeReg, 0o444, owner, size))); err != nil {
		return nil, err
	}
	// A tar's blocks have 512 bytes, and two empty ones end it (POSIX, pax).
	l := &diskLayer{path: s.DiskPath, head: head.Bytes(), foot: make([]byte, (512-size%512)%512+1024), length: size, virtual: virtual, changed: info.ModTime()}
	if s.Told != nil {
		more = append(more, &telling{told: s.Told, total: size})
	}
	if l.hash, l.sum, err = l.hashes(f, more...); err != nil {
		return nil, err
	}
	if s.DiskSHA256 != "" && l.sum != strings.ToLower(s.DiskSHA256) {
		return nil, fmt.Errorf("%s: expected sha256:%s, found sha256:%s", s.DiskPath, s.DiskSHA256, l.sum)
	}
	return l, nil
}

// telling tells how much of a layer went by.
type telling struct {
	told        func(done, total int64)
	done, total int64
}

func (t *telling) Write(p []byte) (int, error) {
	t.done = min(t.total, t.done+int64(len(p)))
	t.told(t.done, t.total)
	return len(p), nil
}

// hashes hashes the layer and, in the same pass, the file in it.
func (l *diskLayer) hashes(f io.ReaderAt, more ...io.Writer) (layer v1.Hash, file string, err error) {
	whole, inner := sha256.New(), sha256.New()
	archive := io.MultiWriter(append([]io.Writer{whole}, more...)...)
	if _, err := archive.Write(l.head); err != nil {
		return layer, "", err
	}
	if _, err := io.CopyBuffer(io.MultiWriter(archive, inner), l.file(f), make([]byte, 1<<20)); err != nil {
		return layer, "", err
	}
	if _, err := archive.Write(l.foot); err != nil {
		return layer, "", err
	}
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(whole.Sum(nil))}, hex.EncodeToString(inner.Sum(nil)), nil
}

func (l *diskLayer) file(f io.ReaderAt) io.Reader {
	return &exactly{io.NewSectionReader(f, 0, l.length), l.length, l.path}
}

// Bits of a qcow2's incompatible features (QEMU, docs/interop/qcow2.rst).
const (
	qcowDirty    = 1 << 0
	qcowCorrupt  = 1 << 1
	qcowExternal = 1 << 2
)

// inspect reads the header of a qcow2 and returns its virtual size in bytes. It refuses what must not be given to
// anybody: a disk that is not complete in itself, or not closed properly.
func inspect(f io.ReaderAt) (int64, error) {
	h := make([]byte, 104)
	n, err := f.ReadAt(h, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if n < 72 || string(h[:4]) != "QFI\xfb" {
		return 0, errors.New("it is not a qcow2 disk")
	}
	version := binary.BigEndian.Uint32(h[4:])
	if version != 2 && (version != 3 || n < 104) {
		return 0, fmt.Errorf("it is a qcow2 disk of an unknown version (%d)", version)
	}
	if binary.BigEndian.Uint64(h[8:]) != 0 {
		return 0, errors.New("it needs a backing file: a disk has to be complete in itself")
	}
	if version == 3 {
		switch features := binary.BigEndian.Uint64(h[72:]); {
		case features&qcowExternal != 0:
			return 0, errors.New("it needs an external data file: a disk has to be complete in itself")
		case features&(qcowDirty|qcowCorrupt) != 0:
			return 0, errors.New("it is marked as dirty or corrupt: repair it with qemu-img check")
		}
	}
	size := int64(binary.BigEndian.Uint64(h[24:]))
	if size <= 0 {
		return 0, fmt.Errorf("its virtual size is %d bytes", size)
	}
	return size, nil
}

func (l *diskLayer) Digest() (v1.Hash, error) { return l.hash, nil }
func (l *diskLayer) DiffID() (v1.Hash, error) { return l.hash, nil }
func (l *diskLayer) Size() (int64, error) {
	return int64(len(l.head)) + l.length + int64(len(l.foot)), nil
}
func (l *diskLayer) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }
func (l *diskLayer) Compressed() (io.ReadCloser, error)  { return l.Uncompressed() }

// Uncompressed opens the layer. A file that was touched since it was hashed is hashed again: the error says if it is not
// the one that the image was made of any more.
func (l *diskLayer) Uncompressed() (io.ReadCloser, error) { return l.CompressedAt(0) }

// CompressedAt opens the layer at an offset in bytes, without reading what comes before.
func (l *diskLayer) CompressedAt(offset int64) (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	if err := l.same(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var parts []io.Reader
	for _, part := range []struct {
		r    io.ReaderAt
		size int64
		path string
	}{{bytes.NewReader(l.head), int64(len(l.head)), "the archive's head"}, {f, l.length, l.path}, {bytes.NewReader(l.foot), int64(len(l.foot)), "the archive's end"}} {
		from := min(offset, part.size)
		parts = append(parts, &exactly{io.NewSectionReader(part.r, from, part.size-from), part.size - from, part.path})
		offset -= from
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(parts...), f}, nil
}

func (l *diskLayer) same(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if info.ModTime().Equal(l.changed) && info.Size() == l.length {
		return nil
	}
	hash := v1.Hash{}
	if info.Size() == l.length {
		if hash, _, err = l.hashes(f); err != nil {
			return err
		}
	}
	if hash != l.hash {
		return fmt.Errorf("%s changed since the image was made of it", l.path)
	}
	l.changed = info.ModTime()
	return nil
}

// exactly reads left bytes of a file, neither more nor less.
type exactly struct {
	r    io.Reader
	left int64
	path string
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if errors.Is(err, io.EOF) {
		if e.left > 0 {
			return n, fmt.Errorf("%s changed while it was read: %d bytes are missing", e.path, e.left)
		}
	} else if err != nil {
		return n, err
	}
	return n, nil
}
