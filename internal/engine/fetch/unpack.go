package fetch

import (
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// How much memory, in bytes, a compressed file may ask for. `xz -9` needs 65 MiB to unpack, `zstd --ultra -21` 64 MiB.
const (
	xzMemory   = 160 << 20 // of the xz program, in one thread
	xzThreads  = 48 << 20  // of all its threads: for large blocks it takes fewer of them
	xzDict     = 128 << 20 // of the library that stands in for it
	zstdWindow = 64 << 20
)

// packs are the compressions that Image.Pack names.
var packs = map[string]string{"gz": "gzip", "xz": "xz", "bz2": "bzip2", "zst": "Zstandard"}

// refusal is the error of an archive that is hostile rather than damaged: unpacking it ends at once.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

func refuse(format string, args ...any) error { return &refusal{fmt.Errorf(format, args...)} }

// unpacker turns the bytes that are written to in into those that out reads. After close, whoever writes hears of it.
type unpacker struct {
	in    io.WriteCloser
	out   io.Reader
	close func()
}

// programs are what unpacks faster than the Go libraries, the first that is installed, with what they are given.
// A single thread of xz is 1.5 times as fast as the library, bzip2 twice, and lbzip2 uses every processor.
var programs = map[string][][]string{
	"xz":  {{"xz", "-dcq", "--memlimit-decompress=" + strconv.Itoa(xzMemory)}},
	"bz2": {{"lbzip2", "-dcq", "-n2"}, {"bzip2", "-dcq"}},
}

// threaded reports whether the xz on PATH can unpack in threads and keep a limit on it (5.4 and later).
func threaded(ctx context.Context) bool {
	_, err := command.Output(ctx, command.Command{Name: "xz", Args: []string{"--memlimit-mt-decompress=1MiB", "--version"}}, 0, nil)
	return err == nil
}

// newUnpacker starts to unpack; "" hands through.
func newUnpacker(ctx context.Context, pack string, scope *event.Scope) (*unpacker, error) {
	for _, words := range programs[pack] {
		if _, err := command.Look(words[0]); err != nil {
			continue
		}
		args := words[1:]
		if words[0] == "xz" && threaded(ctx) {
			args = append([]string{"-T0", "--memlimit-mt-decompress=" + strconv.Itoa(xzThreads)}, args...)
		}
		return runUnpacker(ctx, words[0], args, scope)
	}
	r, w := io.Pipe()
	return &unpacker{in: w, out: &lazy{open: func() (io.Reader, error) { return decoder(pack, r) }}, close: func() { _ = r.CloseWithError(io.ErrClosedPipe) }}, nil
}

// runUnpacker lets a program unpack.
func runUnpacker(ctx context.Context, name string, args []string, scope *event.Scope) (*unpacker, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		_, _ = inR.Close(), inW.Close()
		return nil, err
	}
	for _, f := range []*os.File{inW, outW} { // fewer, larger turns; what the kernel refuses stays as it is
		_ = control(f, func(fd int) { _, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 1<<20) })
	}
	ctx, cancel := context.WithCancel(ctx)
	p, err := command.Start(ctx, command.Command{Name: name, Args: args, Stdin: inR, Stdout: outW}, scope.With(name+": "))
	_, _ = inR.Close(), outW.Close()
	if err != nil {
		cancel()
		_, _ = inW.Close(), outR.Close()
		return nil, err
	}
	return &unpacker{in: inW, out: &output{outR, p}, close: func() {
		cancel()
		_ = outR.Close()
		_ = p.Wait()
	}}, nil
}

func control(f *os.File, fn func(fd int)) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return c.Control(func(fd uintptr) { fn(int(fd)) })
}

// output is what a program prints; at its end, the program has to have ended well.
type output struct {
	*os.File
	p *command.Process
}

func (o *output) Read(p []byte) (int, error) {
	n, err := o.File.Read(p)
	if n == 0 && err == io.EOF {
		if werr := o.p.Wait(); werr != nil {
			err = werr
		}
	}
	return n, err
}

// lazy is a reader that is opened when it is first read: openers wait for the first bytes.
type lazy struct {
	open func() (io.Reader, error)
	once sync.Once
	r    io.Reader
	err  error
}

func (l *lazy) Read(p []byte) (int, error) {
	l.once.Do(func() {
		if l.r, l.err = l.open(); l.err == io.EOF {
			l.err = io.ErrUnexpectedEOF // nothing at all is no compressed file
		}
	})
	if l.err != nil {
		return 0, l.err
	}
	return l.r.Read(p)
}

// decoder unpacks with the libraries.
func decoder(pack string, r io.Reader) (io.Reader, error) {
	switch pack {
	case "":
		return r, nil
	case "gz":
		return newGunzip(r)
	case "xz":
		return xz.NewReader(r, xzDict)
	case "bz2":
		return bzip2.NewReader(bufio.NewReaderSize(r, 64<<10)), nil
	case "zst":
		// One goroutine is faster than several of them on two processors, and keeps less.
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderMaxMemory(zstdWindow))
		if err != nil {
			return nil, err
		}
		return &zstdReader{d}, nil
	}
	return nil, fmt.Errorf("%q is no compression that is known here: gz, xz, bz2, zst", pack)
}

type zstdReader struct{ d *zstd.Decoder }

func (z *zstdReader) Read(p []byte) (int, error) {
	n, err := z.d.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = refuse("it needs a window of more than %s to unpack", Size(zstdWindow))
	case errors.Is(err, io.EOF):
		z.d.Close()
	}
	return n, err
}

// gunzip reads the members of a gzip file (RFC 1952, section 2.2) and leaves alone what follows the last: some projects
// put their own signature or metadata there, which gzip(1) calls trailing garbage.
type gunzip struct {
	in *bufio.Reader
	z  *gzip.Reader
}

func newGunzip(r io.Reader) (*gunzip, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &gunzip{in, z}, nil
}

func (g *gunzip) Read(p []byte) (int, error) {
	for {
		n, err := g.z.Read(p)
		if err != io.EOF {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
		// Another member begins with ID1, ID2, CM = 8 and flags of which the upper three bits are 0.
		if next, _ := g.in.Peek(4); len(next) < 4 || next[0] != 0x1f || next[1] != 0x8b || next[2] != 8 || next[3]&0xe0 != 0 {
			return 0, io.EOF
		}
		if err := g.z.Reset(g.in); err != nil {
			return 0, err
		}
		g.z.Multistream(false)
	}
}

// limited ends with a refusal where more than max bytes come.
type limited struct {
	r    io.Reader
	left int64
	max  int64
}

func limit(r io.Reader, max int64) io.Reader { return &limited{r, max, max} }

func (l *limited) Read(p []byte) (int, error) {
	if l.left == 0 {
		var one [1]byte
		if n, err := l.r.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, refuse("more than %s come out of it", Size(l.max))
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}
