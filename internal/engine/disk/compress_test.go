package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/lima-vm/go-qcow2reader"
	qcow2lib "github.com/lima-vm/go-qcow2reader/image/qcow2"
)

func init() {
	qcow2lib.SetDecompressor(qcow2lib.CompressionTypeZstd, func(r io.Reader) (io.ReadCloser, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	})
}

// part is some of a disk's contents.
type part struct {
	at   int64
	data []byte
}

// rawDisk makes a raw disk with holes between its parts.
func rawDisk(t testing.TB, size int64, parts ...part) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if _, err := f.WriteAt(p.data, p.at); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

func noise(seed int64, n int) []byte {
	data := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(data)
	return data
}

// text has matches of all lengths, near and far.
func text(seed int64, n int) []byte {
	r := rand.New(rand.NewSource(seed))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%d: the %s of %s\n", r.Intn(1000), strings.Repeat("word", r.Intn(4)), []string{"a disk", "a table", "a cluster", "an entry"}[r.Intn(4)])
	}
	return b.Bytes()[:n]
}

// mixed alternates what stays as it is, what is packed, and zeros.
func mixed(clusters int) []byte {
	var b bytes.Buffer
	for i := range clusters {
		switch i % 7 {
		case 1, 4:
			b.Write(noise(int64(i), clusterSize))
		case 2:
			b.Write(make([]byte, clusterSize))
		case 3:
			b.Write(append(noise(int64(i), clusterSize-clusterSize/10), make([]byte, clusterSize/10)...))
		default:
			b.Write(text(int64(i), clusterSize))
		}
	}
	return b.Bytes()
}

// disks are what is written and read back.
func disks(t testing.TB) map[string]string {
	zeroFirst := make([]byte, 64*clusterSize)
	for i := 1; i < 64; i += 2 {
		copy(zeroFirst[i*clusterSize:], text(int64(i), clusterSize))
	}
	return map[string]string{
		"no bytes":        rawDisk(t, 0),
		"empty":           rawDisk(t, 10<<20),
		"one sector":      rawDisk(t, sector, part{0, noise(1, sector)}),
		"last byte":       rawDisk(t, 10<<20, part{10<<20 - 1, []byte{1}}),
		"random":          rawDisk(t, 8<<20, part{1 << 20, noise(1, 5<<20)}),
		"text":            rawDisk(t, 4<<20, part{0, text(1, 4<<20)}),
		"one byte value":  rawDisk(t, 8<<20, part{0, bytes.Repeat([]byte{0xaa}, 8<<20)}),
		"alternating":     rawDisk(t, 4<<20, part{0, zeroFirst}),
		"mixed":           rawDisk(t, 16<<20, part{0, mixed(256)}),
		"half a cluster":  rawDisk(t, 3*clusterSize+7*sector, part{0, text(1, 3*clusterSize+7*sector)}),
		"random end":      rawDisk(t, clusterSize+3*sector, part{0, noise(1, clusterSize+3*sector)}),
		"two tables":      rawDisk(t, tableCovers+2<<20, part{tableCovers - 1<<20, mixed(32)}),
		"an empty table":  rawDisk(t, 3*tableCovers+sector, part{5, []byte("first")}, part{3 * tableCovers, noise(1, sector)}),
		"exactly a table": rawDisk(t, tableCovers, part{tableCovers - 100, text(1, 100)}),
		"4 TiB":           rawDisk(t, MaxVirtualSize, part{0, text(1, 1000)}, part{1<<40 + 5, noise(1, 100)}, part{MaxVirtualSize - 70000, text(2, 70000)}),
	}
}

// sameDisk compares a qcow2 with the raw disk by a library, where the raw disk holds data, and that nothing else is allocated.
func sameDisk(t testing.TB, rawPath, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := os.Open(rawPath)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	info, err := raw.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() == 0 {
		return // the library reads no such disk
	}
	img, err := qcow2reader.OpenWithType(f, qcow2lib.Type)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if img.Size() != info.Size() {
		t.Fatalf("the disk has %d bytes, not %d", img.Size(), info.Size())
	}
	want, got := make([]byte, clusterSize), make([]byte, clusterSize)
	compare := func(from, to int64) error {
		for at := from; at < to; at += clusterSize {
			n := min(clusterSize, to-at)
			if _, err := raw.ReadAt(want[:n], at); err != nil {
				return err
			}
			if n, err := img.ReadAt(got[:n], at); err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
				return fmt.Errorf("at %d: %w", at, err)
			}
			if !bytes.Equal(got[:n], want[:n]) {
				return fmt.Errorf("the cluster at %d is another", at)
			}
		}
		return nil
	}
	if err := ranges(context.Background(), raw, info.Size(), compare); err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < info.Size() && info.Size() < 8<<30; { // the library takes a second for a TiB of nothing
		e, err := img.Extent(at, info.Size()-at)
		if err != nil {
			t.Fatal(err)
		}
		if e.Allocated {
			if err := compare(e.Start, e.Start+e.Length); err != nil {
				t.Fatal(err)
			}
			if data := make([]byte, min(e.Length, clusterSize)); e.Length <= clusterSize {
				if _, err := raw.ReadAt(data, e.Start); err != nil {
					t.Fatal(err)
				}
				if zero(data) {
					t.Fatalf("zeros at %d are stored", e.Start)
				}
			}
		}
		at = e.Start + e.Length
	}
}

func TestCompress(t *testing.T) {
	qemu := ""
	if path, err := exec.LookPath("qemu-img"); err == nil {
		qemu = path
	}
	for name, raw := range disks(t) {
		for _, z := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/zstd=%v", name, z), func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "disk.qcow2")
				var done, total int64
				err := Compress(context.Background(), raw, out, Compression{Zstd: z}, func(d, n int64) {
					if d < done || d > n || total != 0 && n != total {
						t.Errorf("progress went from %d of %d to %d of %d", done, total, d, n)
					}
					done, total = d, n
				})
				if err != nil {
					t.Fatal(err)
				}
				if done != total {
					t.Errorf("progress ended at %d of %d", done, total)
				}
				sameDisk(t, raw, out)
				if facts, err := Inspect(out, "qcow2"); name != "no bytes" && (err != nil || facts.ClusterSize != clusterSize || (facts.Compression == "zstd") != z) {
					t.Errorf("%+v, %v", facts, err)
				}
				if qemu == "" {
					return
				}
				if report, err := exec.Command(qemu, "check", "-f", "qcow2", out).CombinedOutput(); err != nil || !strings.HasPrefix(string(report), "No errors were found") {
					t.Errorf("check: %v: %s", err, report)
				}
				if report, err := exec.Command(qemu, "compare", "-f", "raw", "-F", "qcow2", raw, out).CombinedOutput(); err != nil {
					t.Errorf("compare: %v: %s", err, report)
				}
			})
		}
	}
}

func TestTheBytesDependOnTheDiskOnly(t *testing.T) {
	content := mixed(70)
	raw := rawDisk(t, 8<<20, part{1 << 20, content})
	other := rawDisk(t, 8<<20, part{0, make([]byte, 8<<20)}, part{1 << 20, content}) // without holes
	for _, z := range []bool{false, true} {
		sums := map[string]bool{}
		for i, workers := range []int{1, 2, 5, 0} {
			from, out := raw, filepath.Join(t.TempDir(), "disk.qcow2")
			if i == 3 {
				from = other
			}
			if err := Compress(context.Background(), from, out, Compression{Zstd: z, Workers: workers}, nil); err != nil {
				t.Fatal(err)
			}
			sum, _, err := Sum(out)
			if err != nil {
				t.Fatal(err)
			}
			sums[sum] = true
		}
		if len(sums) != 1 {
			t.Errorf("zstd=%v: different bytes: %v", z, sums)
		}
	}
}

// What cannot be compressed costs little more than its size, and does not keep others from being packed.
func TestFilesAreSmall(t *testing.T) {
	const each = 40
	var b bytes.Buffer
	for i := range each {
		b.Write(noise(int64(i), clusterSize))
		b.Write(text(int64(i), clusterSize))
	}
	raw, out := rawDisk(t, int64(b.Len()), part{0, b.Bytes()}), filepath.Join(t.TempDir(), "disk.qcow2")
	if err := Compress(context.Background(), raw, out, Compression{}, nil); err != nil {
		t.Fatal(err)
	}
	var packed int
	pack, err := packer(false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range each {
		packed += len(pack(nil, text(int64(i), clusterSize)))
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > int64(each*clusterSize+packed+8*clusterSize) {
		t.Errorf("%v bytes for %d and %d", info.Size(), each*clusterSize, packed)
	}
}

// QEMU inflates with a window of 4096 bytes: nothing may be repeated from farther.
func TestTheWindowIsSmall(t *testing.T) {
	pack, err := packer(false)
	if err != nil {
		t.Fatal(err)
	}
	far := noise(1, 4097)
	for _, c := range []struct {
		period int
		small  bool
	}{{4096, true}, {4097, false}, {8000, false}} {
		data := bytes.Repeat(append(far, noise(2, 8000)...)[:c.period], clusterSize/c.period+1)[:clusterSize]
		if got := len(pack(nil, data)); (got < 3*4096) != c.small {
			t.Errorf("a cluster of period %d takes %d bytes", c.period, got)
		}
	}
}

func TestCompressCancelled(t *testing.T) {
	raw := rawDisk(t, 16<<20, part{0, mixed(256)})
	cause := errors.New("enough")
	for _, when := range []int64{-1, 0, 1 << 20, 15 << 20} {
		dir := t.TempDir()
		ctx, cancel := context.WithCancelCause(context.Background())
		if when < 0 {
			cancel(cause)
		}
		err := Compress(ctx, raw, filepath.Join(dir, "disk.qcow2"), Compression{}, func(done, _ int64) {
			if done >= when {
				cancel(cause)
			}
		})
		if err != cause {
			t.Errorf("at %d: %v", when, err)
		}
		empty(t, dir)
		cancel(nil)
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestCompressRefuses(t *testing.T) {
	dir := t.TempDir()
	for raw, want := range map[string]string{
		rawDisk(t, 1000, part{0, []byte("x")}): "whole sectors",
		rawDisk(t, MaxVirtualSize+sector):      "disks of up to",
		t.TempDir():                            "is no file",
		filepath.Join(t.TempDir(), "none"):     "no such file",
	} {
		if err := Compress(context.Background(), raw, filepath.Join(dir, "disk.qcow2"), Compression{}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
	empty(t, dir)
	raw := rawDisk(t, 1<<20, part{0, text(1, 1<<20)})
	if err := Compress(context.Background(), raw, filepath.Join(dir, "none", "disk.qcow2"), Compression{}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "disk.qcow2"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Compress(context.Background(), raw, filepath.Join(dir, "disk.qcow2"), Compression{}, nil); err == nil {
		t.Error("a folder was replaced")
	}
	if err := os.Remove(filepath.Join(dir, "disk.qcow2")); err != nil {
		t.Fatal(err)
	}
	empty(t, dir)
}

// full is a file on a disk that has no room for more than so many bytes.
type full int64

func (n full) WriteAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > int64(n) {
		return 0, &os.PathError{Op: "write", Path: "disk.qcow2", Err: syscall.ENOSPC}
	}
	return len(p), nil
}

func TestFullDisksAreSaid(t *testing.T) {
	in, err := os.Open(rawDisk(t, tableCovers+sector, part{0, mixed(32)}, part{tableCovers, text(1, sector)}))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for _, room := range []full{0, 4 * clusterSize, 12 * clusterSize, 18 * clusterSize} {
		if err := compress(context.Background(), in, tableCovers+sector, room, Compression{}, nil); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("room for %d: %v", room, err)
		}
	}
	if err := compress(context.Background(), in, tableCovers+sector, full(1<<30), Compression{}, nil); err != nil {
		t.Error(err)
	}
	// A disk that becomes shorter meanwhile is no disk that ends in zeros.
	if err := compress(context.Background(), in, 2*tableCovers, full(1<<30), Compression{}, nil); err != nil && !strings.Contains(err.Error(), "while it was read") {
		t.Error(err)
	}
}

// The tables of reference counts grow with the file.
func TestManyReferenceCounts(t *testing.T) {
	m := newImage(full(1<<60), MaxVirtualSize, false)
	m.take(10 * blockSize)
	before := len(m.refs)
	if err := m.finish(); err != nil {
		t.Fatal(err)
	}
	if got := len(m.refs) - before; got != 11+1 {
		t.Errorf("%d clusters for the counts of %d", got, len(m.refs))
	}
}

// FuzzCompress composes a disk: five bytes say what comes next, for how long, and how far behind the one before.
func FuzzCompress(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 1, 1, 0, 200, 1, 9, 2, 3, 255, 0, 0, 3, 255, 255, 40, 0}, false)
	f.Add([]byte{1, 0, 255, 0, 0, 0, 0, 255, 0, 1, 1, 0, 255, 0, 2, 4, 9, 9, 9, 9}, true)
	f.Fuzz(func(t *testing.T, plan []byte, z bool) {
		const size = 4 << 20
		var parts []part
		at := int64(0)
		for n := 0; len(plan) >= 5 && n < 40; n, plan = n+1, plan[5:] {
			length, skip := 1+int(binary.BigEndian.Uint16(plan[1:])), int64(plan[3])*int64(plan[4])
			if at += skip; at+int64(length) > size {
				break
			}
			var data []byte
			switch plan[0] % 5 {
			case 0:
				data = noise(int64(n), length)
			case 1:
				data = text(int64(n), length)
			case 2:
				data = bytes.Repeat([]byte{plan[4]}, length)
			case 3:
				data = make([]byte, length)
			case 4:
				data = bytes.Repeat(plan, length/len(plan)+1)[:length]
			}
			parts = append(parts, part{at, data})
			at += int64(length)
		}
		raw, out := rawDisk(t, (max(at, 1)+sector-1)/sector*sector, parts...), filepath.Join(t.TempDir(), "disk.qcow2")
		if err := Compress(context.Background(), raw, out, Compression{Zstd: z, Workers: 2}, nil); err != nil {
			t.Fatal(err)
		}
		sameDisk(t, raw, out)
	})
}

// BenchmarkCompress writes 256 MiB of compressible data by Compress and by `qemu-img convert -c`. It reports MB/s of both,
// and the size of the file relative to that of qemu-img's (below 1: smaller).
func BenchmarkCompress(b *testing.B) {
	qemu, err := exec.LookPath("qemu-img")
	if err != nil {
		b.Skip(err)
	}
	const size = 256 << 20
	raw, dir := rawDisk(b, size), b.TempDir()
	f, err := os.OpenFile(raw, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	for at := int64(0); at < size; at += 1 << 20 {
		piece := append(text(at, 1<<19), noise(at, 1<<18)...)
		for range 1 << 14 { // numbers as programs have them
			piece = append(piece, byte(at), byte(len(piece)>>4*7), 0, 0, 0x48, 0x8b, piece[len(piece)-1<<18], 0x24)
		}
		piece = append(piece, text(at, 1<<17)...)
		if _, err := f.WriteAt(piece, at); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	for _, z := range []bool{false, true} {
		b.Run(fmt.Sprintf("zstd=%v", z), func(b *testing.B) {
			var ours, theirs time.Duration
			var ratio float64
			for b.Loop() {
				mine, other := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
				began := time.Now()
				if err := Compress(context.Background(), raw, mine, Compression{Zstd: z}, nil); err != nil {
					b.Fatal(err)
				}
				ours += time.Since(began)
				kind := map[bool]string{false: "zlib", true: "zstd"}[z]
				began = time.Now()
				if out, err := exec.Command(qemu, "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type="+kind, raw, other).CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
				theirs += time.Since(began)
				a, err := os.Stat(mine)
				if err != nil {
					b.Fatal(err)
				}
				c, err := os.Stat(other)
				if err != nil {
					b.Fatal(err)
				}
				ratio = float64(a.Size()) / float64(c.Size())
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(size/1e6*float64(b.N)/ours.Seconds(), "MB/s")
			b.ReportMetric(size/1e6*float64(b.N)/theirs.Seconds(), "MB/s-qemu-img")
			b.ReportMetric(ratio, "size-ratio")
		})
	}
}
