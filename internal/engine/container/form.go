package container

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
)

// Form is how the disk's layer is compressed (image-spec, layer.md).
type Form string

// The forms. A disk's clusters are compressed already: what a form saves is the rest.
const (
	Plain Form = "none" // the default: nothing is written and nothing unpacked
	Gzip  Form = "gzip"
	Zstd  Form = "zstd"
)

// Forms are all of them.
var Forms = []Form{Plain, Gzip, Zstd}

// ParseForm reads a form; "" is Plain. The error names the others, and has a remedy.
func ParseForm(text string) (Form, error) {
	switch f := Form(text); f {
	case "":
		return Plain, nil
	case Plain, Gzip, Zstd:
		return f, nil
	}
	return "", event.WithRemedy(fmt.Errorf("%q is no form of a layer", text), "write none, gzip or zstd")
}

// encoding is how the encoders are set. The same disk has to give the same bytes for any number of processors: whoever
// changes a line, or takes a version of the encoders that writes something else, counts it up. It stands in the image's
// LabelLayer.
const encoding = "1"

const (
	gzipLevel = 1
	gzipBlock = 1 << 20 // bytes; each is compressed by one worker, which knows the end of the one before
	zstdLevel = zstd.SpeedFastest
	zstdSpan  = 1 << 20 // bytes of the window
)

func (f Form) mediaType() types.MediaType {
	switch f {
	case Gzip:
		return types.OCILayer
	case Zstd:
		return types.OCILayerZStd
	}
	return types.OCIUncompressedLayer
}

// encoder compresses to w with as many workers.
func (f Form) encoder(w io.Writer, workers int) (io.WriteCloser, error) {
	switch f {
	case Gzip:
		z, err := pgzip.NewWriterLevel(w, gzipLevel)
		if err != nil {
			return nil, err
		}
		return z, z.SetConcurrency(gzipBlock, workers)
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstdLevel), zstd.WithWindowSize(zstdSpan), zstd.WithEncoderConcurrency(workers), zstd.WithEncoderCRC(true), zstd.WithLowerEncoderMem(true))
	}
	return nil, fmt.Errorf("%q compresses nothing", f)
}

// workers is how many are of use.
func workers() int { return min(runtime.GOMAXPROCS(0), 8) }

// packedLayer is the layer with /disk, compressed: a file, written while the disk was hashed.
type packedLayer struct {
	*diskLayer // uncompressed

	form    Form
	file    string
	sum     v1.Hash // of the file
	size    int64   // likewise, bytes
	written time.Time
}

// newPackedLayer looks at the disk, and hashes and compresses it in one pass, into a file in dir.
func newPackedLayer(s Spec) (l *packedLayer, err error) {
	if s.Work == "" {
		return nil, errors.New("a compressed layer needs a folder for its file")
	}
	f, err := os.CreateTemp(s.Work, "layer-*."+string(s.Layer))
	if err != nil {
		return nil, fetch.Explain(err, s.Work)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	sum := sha256.New()
	out := &counting{w: io.MultiWriter(f, sum)}
	enc, err := s.Layer.encoder(out, workers())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	disk, err := newDiskLayer(s, enc)
	if err = errors.Join(err, enc.Close()); err != nil {
		return nil, fetch.Explain(errors.Join(err, f.Close()), s.Work)
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fetch.Explain(err, s.Work)
	}
	return &packedLayer{diskLayer: disk, form: s.Layer, file: f.Name(), size: out.n, written: info.ModTime(),
		sum: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}}, nil
}

// counting counts what is written.
type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func (l *packedLayer) Digest() (v1.Hash, error)            { return l.sum, nil }
func (l *packedLayer) Size() (int64, error)                { return l.size, nil }
func (l *packedLayer) MediaType() (types.MediaType, error) { return l.form.mediaType(), nil }
func (l *packedLayer) Compressed() (io.ReadCloser, error)  { return l.CompressedAt(0) }

// CompressedAt opens the layer's file at an offset in bytes.
func (l *packedLayer) CompressedAt(offset int64) (io.ReadCloser, error) {
	f, err := os.Open(l.file)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (info.Size() != l.size || !info.ModTime().Equal(l.written)) {
		err = fmt.Errorf("%s changed since it was written", l.file)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{&exactly{io.NewSectionReader(f, offset, l.size-offset), l.size - offset, l.file}, f}, nil
}
