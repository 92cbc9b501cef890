package fetch

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sync/errgroup"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

const (
	chunk      = 256 << 10 // bytes of a piece of work
	depth      = 8         // pieces that a reader may lag behind
	maxWindow  = 128 << 20 // bytes of zstd's window
	maxMembers = 100000    // of an archive
)

// fan hands what is written to it to several writers, each in a goroutine of its own. A writer that lags behind holds up
// the others only when it is several pieces late. The first error of one is that of all.
type fan struct {
	ctx   context.Context
	lines []chan []byte
	ended bool
	cause error
}

func newFan(ctx context.Context, group *errgroup.Group, writers []io.Writer) *fan {
	f := &fan{ctx: ctx}
	for _, w := range writers {
		line := make(chan []byte, depth)
		f.lines = append(f.lines, line)
		group.Go(func() error {
			var err error
			for b := range line {
				if err == nil {
					_, err = w.Write(b)
				}
				if err != nil {
					return err
				}
			}
			if end, ok := w.(*pipeEnd); ok {
				return end.CloseWithError(f.cause)
			}
			return nil
		})
	}
	return f
}

func (f *fan) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), chunk)
		piece := bytes.Clone(rest[:n]) // readers keep it for a while
		rest = rest[n:]
		for _, line := range f.lines {
			select {
			case line <- piece:
			case <-f.ctx.Done():
				return 0, context.Cause(f.ctx)
			}
		}
	}
	return len(p), nil
}

// close says that nothing more comes.
func (f *fan) close() { f.fail(nil) }

// fail says so, and that what came is not all.
func (f *fan) fail(cause error) {
	if f.ended {
		return
	}
	f.ended, f.cause = true, cause
	for _, line := range f.lines {
		close(line)
	}
}

// unpack writes what a packed file holds. What follows a gzip stream is no part of it.
func unpack(ctx context.Context, from io.Reader, to io.Writer, pack, member string, scope *event.Scope) error {
	if member == "" {
		return expand(ctx, from, to, pack, scope)
	}
	pr, pw := io.Pipe()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := expand(ctx, from, pw, pack, scope)
		_ = pw.CloseWithError(err)
		return err
	})
	group.Go(func() error {
		err := extract(pr, to, member)
		_ = pr.CloseWithError(err)
		return err
	})
	return group.Wait()
}

// programs unpack faster than libraries do, where they are installed: liblzma and libbz2 with several processors.
var programs = map[string][][]string{
	"xz":  {{"xz", "--decompress", "--stdout", "--threads=0", "--memlimit=80MiB"}},
	"bz2": {{"lbzip2", "--decompress", "--stdout"}, {"bzip2", "--decompress", "--stdout"}},
}

// expand undoes the packing.
func expand(ctx context.Context, from io.Reader, to io.Writer, pack string, scope *event.Scope) error {
	for _, p := range programs[pack] {
		if _, err := command.Look(p[0]); err == nil {
			err := command.Run(ctx, command.Command{Name: p[0], Args: p[1:], Stdin: from, Stdout: to}, scope)
			if err == nil {
				_, err = io.Copy(io.Discard, from)
			}
			return err
		}
	}
	var r io.Reader
	switch pack {
	case "":
		r = from
	case "gz":
		z, err := gzip.NewReader(bufio.NewReaderSize(from, chunk))
		if err != nil {
			return fmt.Errorf("it is not packed as gzip: %w", err)
		}
		z.Multistream(false)
		r = z
	case "xz":
		z, err := xz.ReaderConfig{DictCap: 64 << 20}.NewReader(bufio.NewReaderSize(from, chunk))
		if err != nil {
			return fmt.Errorf("it is not packed as xz: %w", err)
		}
		r = z
	case "bz2":
		r = bzip2.NewReader(bufio.NewReaderSize(from, chunk))
	case "zst":
		z, err := zstd.NewReader(from, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return fmt.Errorf("it is not packed as zstd: %w", err)
		}
		defer z.Close()
		r = z
	default:
		return fmt.Errorf("nobody knows how to unpack %q", pack)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{r}, make([]byte, chunk)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, from) // what follows is hashed elsewhere
	return err
}

// extract writes the one file of a tar archive whose path fits. All others are passed over, whatever they are.
func extract(from io.Reader, to io.Writer, member string) error {
	found := ""
	tr := tar.NewReader(bufio.NewReaderSize(from, chunk))
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("the archive: %w", err)
		}
		if n > maxMembers {
			return fmt.Errorf("the archive has more than %d members", maxMembers)
		}
		name := strings.TrimPrefix(h.Name, "./")
		if ok, err := path.Match(member, name); err != nil || !ok {
			continue
		}
		switch {
		case found != "":
			return fmt.Errorf("%q and %q of the archive both fit %s", event.Clean(found), event.Clean(name), member)
		case h.Typeflag != tar.TypeReg || path.Clean(name) != name || strings.HasPrefix(name, "../") || path.IsAbs(name):
			return fmt.Errorf("%q of the archive is no plain file", event.Clean(name))
		}
		found = name
		if _, err := io.Copy(to, tr); err != nil {
			return err
		}
	}
	if found == "" {
		return fmt.Errorf("nothing in the archive fits %s", member)
	}
	_, err := io.Copy(io.Discard, from)
	return err
}

// output is the file that comes out. Runs of zeros become holes.
type output struct {
	f    *os.File
	at   int64 // bytes taken in
	most int64
	late []byte // the last of them, less than a block, not written yet
}

// hole is the least run of zeros that is not written.
const hole = 64 << 10

var zeroes [hole]byte

func newOutput(name string, most int64, dir string) (*output, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, Explain(err, dir)
	}
	return &output{f: f, most: most, late: make([]byte, 0, hole)}, nil
}

func (o *output) Write(p []byte) (int, error) {
	if int64(len(p)) > o.most-o.at || o.at > math.MaxInt64-int64(len(p)) {
		return 0, fmt.Errorf("more than %s come out of it: refused", Size(o.most))
	}
	for rest := p; len(rest) > 0; {
		block := rest[:min(len(rest), hole)]
		if len(o.late) > 0 || len(block) < hole {
			block = rest[:min(len(rest), hole-len(o.late))]
			o.late = append(o.late, block...)
			o.at += int64(len(block))
			rest = rest[len(block):]
			if len(o.late) == hole {
				if err := o.block(o.late, o.at-hole); err != nil {
					return 0, err
				}
				o.late = o.late[:0]
			}
			continue
		}
		if err := o.block(block, o.at); err != nil {
			return 0, err
		}
		o.at += hole
		rest = rest[hole:]
	}
	return len(p), nil
}

// block writes a block, unless it is a hole.
func (o *output) block(b []byte, at int64) error {
	if bytes.Equal(b, zeroes[:len(b)]) {
		return nil
	}
	_, err := o.f.WriteAt(b, at)
	return err
}

func (o *output) name() string { return o.f.Name() }

func (o *output) close() (int64, error) {
	err := o.block(o.late, o.at-int64(len(o.late)))
	return o.at, errors.Join(err, o.f.Truncate(o.at), o.f.Close())
}

func (o *output) remove() {
	_ = o.f.Close()
	_ = os.Remove(o.f.Name())
}
