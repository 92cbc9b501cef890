package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/andybalholm/brotli/flate"
	"github.com/andybalholm/brotli/matchfinder"
	inflater "github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Compression says how to write a disk as a compressed qcow2.
type Compression struct {
	Zstd    bool // clusters compressed by zstd, which hypervisors before QEMU 5.1 cannot open; otherwise zlib
	Workers int  // 0: as many as processors; the bytes do not depend on it
}

// How many workers there are at most, which bounds memory: one of zlib takes about 1.5 MiB, one of zstd about 6.
const maxZlib, maxZstd = 16, 4

// Compress writes the raw disk in the file from (its size is the virtual size; a multiple of 512 or an error, at most
// MaxVirtualSize) as the qcow2 file to, which is complete when it appears. Holes and zeros take no room in it. The same
// disk gives the same bytes. progress, if there is one, is told how many bytes of those that are no holes are done; it
// is called from one goroutine at a time. Cancelled, it returns the context's cause; it leaves nothing behind then, nor
// when it fails.
func Compress(ctx context.Context, from, to string, c Compression, progress func(done, total int64)) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	switch size := info.Size(); {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file", from)
	case size%sector != 0:
		return fmt.Errorf("%s has %d bytes: a disk has whole sectors of %d", from, size, sector)
	case size > MaxVirtualSize:
		return fmt.Errorf("%s has %d bytes; disks of up to %d are written", from, size, int64(MaxVirtualSize))
	}
	out, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if err := compress(ctx, in, info.Size(), out, c, progress); err != nil {
		return err
	}
	if err := errors.Join(out.Chmod(0o644), out.Close()); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return os.Rename(out.Name(), to)
}

// piece is a cluster on its way.
type piece struct {
	offset int64
	data   []byte
	packed []byte        // what is written of it: nothing if it is zeros, data if that is not larger
	ready  chan struct{} // packed is there
}

// compress reads clusters in order, compresses them side by side, and writes them in order.
func compress(ctx context.Context, in *os.File, size int64, out io.WriterAt, c Compression, progress func(done, total int64)) error {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	var total int64
	if err := ranges(ctx, in, size, func(from, to int64) error { total += to - from; return nil }); err != nil {
		return err
	}
	workers := c.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	if workers = min(workers, maxZlib); c.Zstd {
		workers = min(workers, maxZstd)
	}
	g, gctx := errgroup.WithContext(ctx)
	free, work, order := make(chan *piece, 4*workers), make(chan *piece, 4*workers), make(chan *piece, 4*workers)
	for range cap(free) {
		free <- &piece{data: make([]byte, clusterSize), ready: make(chan struct{}, 1)}
	}
	g.Go(func() error { // none of the sends waits: there are as many places as pieces
		defer close(work)
		defer close(order)
		return ranges(gctx, in, size, func(from, to int64) error {
			for at := from; at < to; at += clusterSize {
				var p *piece
				select {
				case p = <-free:
				case <-gctx.Done():
					return context.Cause(gctx)
				}
				n := min(clusterSize, size-at)
				if _, err := in.ReadAt(p.data[:n], at); err != nil {
					if errors.Is(err, io.EOF) {
						err = fmt.Errorf("%s became shorter while it was read", in.Name())
					}
					return err
				}
				clear(p.data[n:])
				p.offset = at
				work <- p
				order <- p
			}
			return nil
		})
	})
	for range workers {
		g.Go(func() error {
			pack, err := packer(c.Zstd)
			if err != nil {
				return err
			}
			same := unpacker(c.Zstd)
			for p := range work {
				p.packed = p.packed[:0]
				if !zero(p.data) {
					p.packed = pack(p.packed, p.data)
				}
				// A guest's disk is worth a second look at what an encoder makes of it.
				if len(p.packed) > 0 && len(p.packed) < clusterSize && !same(p.packed, p.data) {
					return fmt.Errorf("the compressed data at byte %d is not what went in: this is a defect of the program", p.offset)
				}
				p.ready <- struct{}{}
			}
			return nil
		})
	}
	g.Go(func() error {
		image := newImage(out, size, c.Zstd)
		var done int64
		progress(0, total)
		for p := range order {
			select {
			case <-p.ready:
			case <-gctx.Done():
				return context.Cause(gctx)
			}
			var err error
			switch {
			case len(p.packed) >= clusterSize:
				err = image.add(p.offset, p.data)
			case len(p.packed) > 0:
				err = image.add(p.offset, p.packed)
			}
			if err != nil {
				return err
			}
			done += min(clusterSize, size-p.offset)
			progress(done, total)
			free <- p
		}
		if gctx.Err() != nil {
			return context.Cause(gctx)
		}
		return image.finish()
	})
	err := g.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// ranges calls f for each range of the file, in whole clusters, that is no hole.
func ranges(ctx context.Context, in *os.File, size int64, f func(from, to int64) error) error {
	for at := int64(0); at < size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		from, err := in.Seek(at, unix.SEEK_DATA)
		to := size
		switch {
		case errors.Is(err, unix.ENXIO): // a hole up to the end
			return nil
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTSUP): // a file system that does not tell
			from = at
		case err != nil:
			return err
		default:
			if to, err = in.Seek(from, unix.SEEK_HOLE); err != nil {
				return err
			}
		}
		from = max(from&^(clusterSize-1), at)
		to = min((to+clusterSize-1)&^(clusterSize-1), size)
		if from >= to {
			return fmt.Errorf("%s changed while it was read", in.Name())
		}
		if err := f(from, to); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// packer returns what compresses a cluster, appending to dst. It is for one goroutine.
func packer(useZstd bool) (func(dst, src []byte) []byte, error) {
	if useZstd {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(clusterSize), zstd.WithEncoderCRC(false),
			zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, err
		}
		return func(dst, src []byte) []byte { return e.EncodeAll(src, dst) }, nil
	}
	// QEMU inflates with a window of 4096 bytes. Matches of four bytes are taken, since near ones cost little, and three
	// blocks have each their own Huffman codes: the best ratio found at 60 MB/s per core.
	const blocks = 3
	find := &matchfinder.M4{MaxDistance: 4096, MinLength: 3, HashLen: 4, TableBits: 15, ChainLength: 4, DistanceBitCost: 50}
	encode := flate.NewEncoder()
	var matches []matchfinder.Match
	return func(dst, src []byte) []byte {
		find.Reset()
		encode.Reset()
		for len(src) > 0 {
			n := min(clusterSize/blocks+1, len(src))
			matches = find.FindMatches(matches[:0], src[:n])
			dst = encode.Encode(dst, src[:n], matches, n == len(src))
			src = src[n:]
		}
		return dst
	}, nil
}

// unpacker returns what says whether a compressed cluster holds what it should. It is for one goroutine.
func unpacker(useZstd bool) func(packed, want []byte) bool {
	out := make([]byte, clusterSize)
	if useZstd {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		return func(packed, want []byte) bool {
			if err != nil {
				return false
			}
			got, err := d.DecodeAll(packed, out[:0])
			return err == nil && bytes.Equal(got, want)
		}
	}
	var from bytes.Reader
	inflate := inflater.NewReader(&from)
	return func(packed, want []byte) bool {
		from.Reset(packed)
		if err := inflate.(inflater.Resetter).Reset(&from, nil); err != nil {
			return false
		}
		_, err := io.ReadFull(inflate, out)
		return err == nil && bytes.Equal(out, want)
	}
}
