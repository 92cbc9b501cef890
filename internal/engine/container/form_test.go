package container

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// What the encoders make of the same inputs on every machine. If it has to change, encoding counts up.
var goldenForms = map[Form]string{
	Plain: goldenDigest,
	Gzip:  "sha256:9709468b2983763d01c5f1ad3202d7baa2e7e9bb6be56282ec972554920dae70",
	Zstd:  "sha256:bcc5a6bafd03cd7d010fa5a260f784115f6480a0192ae3403cf69f70e27355a6",
}

func TestForms(t *testing.T) {
	var plain v1.Hash
	for _, form := range Forms {
		s := testSpec(t)
		s.Layer, s.Work = form, t.TempDir()
		img := build(t, s)
		if got := digest(t, img); got != goldenForms[form] {
			t.Errorf("%s: the digest of the same inputs became %s: count up encoding", form, got)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		d := m.Layers[len(m.Layers)-1]
		if want := map[Form]types.MediaType{Plain: types.OCIUncompressedLayer, Gzip: types.OCILayer, Zstd: types.OCILayerZStd}[form]; d.MediaType != want {
			t.Errorf("%s: %s, want %s", form, d.MediaType, want)
		}
		if want := map[Form]string{Gzip: "gzip/1", Zstd: "zstd/1"}[form]; m.Annotations[LabelLayer] != want {
			t.Errorf("%s: label %q, want %q", form, m.Annotations[LabelLayer], want)
		}
		file, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		ids := file.RootFS.DiffIDs
		if form == Plain {
			plain = ids[len(ids)-1]
		} else if ids[len(ids)-1] != plain {
			t.Errorf("%s: it unpacks to something else", form)
		}
		// Once more, and from any offset.
		layers, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		l := layers[len(layers)-1].(interface {
			v1.Layer
			CompressedAt(int64) (io.ReadCloser, error)
		})
		whole := read(t, l.Compressed)
		if h, _, _ := v1.SHA256(bytes.NewReader(whole)); h != d.Digest || int64(len(whole)) != d.Size {
			t.Errorf("%s: %d bytes %s, want %d %s", form, len(whole), h, d.Size, d.Digest)
		}
		for _, n := range []int64{1, 511, 1500, 2048, 50_000, d.Size - 1, d.Size} {
			if n > d.Size {
				continue
			}
			if got := read(t, func() (io.ReadCloser, error) { return l.CompressedAt(n) }); !bytes.Equal(got, whole[n:]) {
				t.Errorf("%s: from %d on there are %d bytes, want %d", form, n, len(got), len(whole[n:]))
			}
		}
		left, _ := filepath.Glob(filepath.Join(s.Work, "*"))
		if want := map[bool]int{true: 0, false: 1}[form == Plain]; len(left) != want {
			t.Errorf("%s: files %v", form, left)
		}
		if form == Plain {
			continue
		}
		if err := os.WriteFile(left[0], []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Compressed(); err == nil || !strings.Contains(err.Error(), "changed since it was written") {
			t.Errorf("%s: a file that was changed: %v", form, err)
		}
		// What cannot be packed leaves no file.
		s.Work, s.DiskSHA256 = t.TempDir(), strings.Repeat("0", 64)
		if _, err := Build(s); err == nil || !strings.Contains(err.Error(), "expected sha256:0000") {
			t.Errorf("%s: %v", form, err)
		}
		if left, _ := filepath.Glob(filepath.Join(s.Work, "*")); len(left) > 0 {
			t.Errorf("%s: left behind: %v", form, left)
		}
		s.Work = ""
		if _, err := Build(s); err == nil || !strings.Contains(err.Error(), "folder") {
			t.Errorf("%s: %v", form, err)
		}
	}
	s := testSpec(t)
	s.Layer = "xz"
	_, err := Build(s)
	var r *event.Remedied
	if err == nil || !errors.As(err, &r) || !strings.Contains(r.Remedy, "none, gzip or zstd") {
		t.Errorf("%v", err)
	}
}

func read(t testing.TB, open func() (io.ReadCloser, error)) []byte {
	t.Helper()
	rc, err := open()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(rc)
	if err = errors.Join(err, rc.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

// However many workers there are, and however the bytes come, the encoders write the same.
func TestEncodersAreSteady(t *testing.T) {
	data := make([]byte, 9<<20+12345)
	r := rand.New(rand.NewSource(1))
	_, _ = r.Read(data)
	copy(data[2<<20:], bytes.Repeat([]byte("the same again and again "), 100_000))
	for _, form := range []Form{Gzip, Zstd} {
		var first []byte
		for _, workers := range []int{1, 2, 3, 8} {
			for _, piece := range []int{1 << 20, 4097, len(data)} {
				var out bytes.Buffer
				enc, err := form.encoder(&out, workers)
				if err != nil {
					t.Fatal(err)
				}
				for rest := data; len(rest) > 0; {
					n := min(piece, len(rest))
					if _, err := enc.Write(rest[:n]); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if err := enc.Close(); err != nil {
					t.Fatal(err)
				}
				if first == nil {
					first = out.Bytes()
				} else if !bytes.Equal(out.Bytes(), first) {
					t.Errorf("%s with %d workers in pieces of %d: other bytes", form, workers, piece)
				}
			}
		}
	}
}
