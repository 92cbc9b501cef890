package fetch

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
)

// noise is n bytes that do not pack well, with a hole in the middle.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	clear(b[n/3 : n/2])
	return b
}

func sum256(b []byte) integrity.Sum {
	return integrity.Sum{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(b))}
}

func sum512(b []byte) integrity.Sum {
	return integrity.Sum{Algorithm: "sha512", Hex: fmt.Sprintf("%x", sha512.Sum512(b))}
}

func packed(t testing.TB, pack string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch pack {
	case "":
		return data
	case "gz":
		w = gzip.NewWriter(&b)
	case "xz":
		w, err = xz.NewWriter(&b)
	case "zst":
		w, err = zstd.NewWriter(&b)
	case "bz2":
		cmd := exec.Command("bzip2", "-c")
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Skip("bzip2 is not installed")
		}
		return out
	}
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarred(t testing.TB, heads ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range heads {
		data := []byte(nil)
		if h.Typeflag == tar.TypeReg {
			data = noise(100000)
			h.Size = int64(len(data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(data)
	}
	_ = w.Close()
	return b.Bytes()
}

func images(t testing.TB) *Fetcher {
	t.Helper()
	cache, err := OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &Fetcher{Cache: cache, Backoff: time.Millisecond}
}

func plain(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

// watcher is what a signature is: it has seen everything, or it says no.
type watcher struct {
	hash.Hash
	want   integrity.Sum
	closed atomic.Int32
	gone   atomic.Int32
}

func watch(disk bool, want integrity.Sum, all *[]*watcher) func() ([]Watcher, error) {
	return func() ([]Watcher, error) {
		w := &watcher{Hash: sha256.New(), want: want}
		*all = append(*all, w)
		return []Watcher{{Writer: w, Disk: disk, Abort: func() { w.gone.Add(1) }, Close: func() error {
			w.closed.Add(1)
			if got := fmt.Sprintf("%x", w.Sum(nil)); got != want.Hex {
				return errors.New("it is by somebody else")
			}
			return nil
		}}}, nil
	}
}

func TestImagesInEveryPacking(t *testing.T) {
	disk := noise(3 << 20)
	archive := tarred(t, tar.Header{Name: "./a/b.raw", Typeflag: tar.TypeReg}, tar.Header{Name: "../../etc/passwd", Typeflag: tar.TypeReg}, tar.Header{Name: "link.qcow2", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"})
	for _, c := range []struct {
		name, pack, member string
		data, want         []byte
	}{
		{"plain", "", "", disk, disk},
		{"gzip", "gz", "", packed(t, "gz", disk), disk},
		{"gzip with trailing garbage", "gz", "", append(packed(t, "gz", disk), "garbage that is hashed and not unpacked"...), disk},
		{"xz", "xz", "", packed(t, "xz", disk), disk},
		{"zstd", "zst", "", packed(t, "zst", disk), disk},
		{"bzip2", "bz2", "", packed(t, "bz2", disk), disk},
		{"tar", "", "a/*.raw", archive, noise(100000)},
		{"tar in gzip", "gz", "a/*.raw", packed(t, "gz", archive), noise(100000)},
		{"tar in xz", "xz", "a/*.raw", packed(t, "xz", archive), noise(100000)},
	} {
		for _, library := range []bool{false, true} {
			if library && programs[c.pack] == nil {
				continue
			}
			t.Run(c.name+map[bool]string{true: " by library"}[library], func(t *testing.T) {
				if library {
					old := programs
					programs = nil
					t.Cleanup(func() { programs = old })
				}
				var asked atomic.Int32
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); plain(c.data)(w, r) }))
				defer s.Close()
				f := images(t)
				var seen []*watcher
				img := Image{URL: s.URL + "/x", Size: int64(len(c.data)), Sums: []integrity.Sum{sum512(c.data), sum256(c.data)}, DiskSums: []integrity.Sum{sum256(c.want)}, Pack: c.pack, Member: c.member,
					Watch: watch(c.pack != "" || c.member != "", sum256(c.want), &seen)}
				got, err := f.Image(context.Background(), img, nil)
				if err != nil {
					t.Fatal(err)
				}
				data, err := os.ReadFile(got.Path)
				if err != nil || !bytes.Equal(data, c.want) || got.SHA256 != sum256(c.want).Hex || got.Size != int64(len(c.want)) || got.Served != int64(len(c.data)) || got.Cached {
					t.Errorf("%d bytes, %+v, %v", len(data), got, err)
				}
				if info, _ := os.Stat(got.Path); info.Mode().Perm() != 0o444 {
					t.Errorf("mode %s", info.Mode())
				}
				if len(seen) != 1 || seen[0].closed.Load() != 1 || seen[0].gone.Load() != 0 {
					t.Errorf("watchers: %+v", seen)
				}
				again, err := f.Image(context.Background(), img, nil)
				if err != nil || !again.Cached || again.Path != got.Path || asked.Load() != 1 {
					t.Errorf("%+v, %v, asked %d times", again, err, asked.Load())
				}
				if left, _ := filepath.Glob(f.Cache.Path("downloads", "*")); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			})
		}
	}
}

func TestImagesThatAreRefused(t *testing.T) {
	disk := noise(1 << 20)
	gz := packed(t, "gz", disk)
	bomb := packed(t, "gz", make([]byte, 64<<20))
	reg := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	two := tarred(t, reg("a.raw"), reg("b.raw"))
	evil := tarred(t, reg("../a.raw"))
	link := tarred(t, tar.Header{Name: "a.raw", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"})
	no := func() ([]Watcher, error) {
		return []Watcher{{Writer: io.Discard, Close: func() error { return errors.New("it is by somebody else") }, Abort: func() {}}}, nil
	}
	for _, c := range []struct {
		name string
		data []byte
		img  Image
		want string
	}{
		{"no checksum", disk, Image{}, "nothing says what its checksum has to be"},
		{"weak checksum", disk, Image{Sums: []integrity.Sum{{Algorithm: "md5", Hex: strings.Repeat("0", 32)}}}, "no checksum that can be verified"},
		{"wrong checksum", disk, Image{Sums: []integrity.Sum{sum256(gz)}}, "expected " + sum256(gz).String() + ", got " + sum256(disk).String()},
		{"one of two is wrong", disk, Image{Sums: []integrity.Sum{sum256(disk), sum512(gz)}}, "expected " + sum512(gz).String()},
		{"wrong disk", gz, Image{Sums: []integrity.Sum{sum256(gz)}, DiskSums: []integrity.Sum{sum256(gz)}, Pack: "gz"}, "unpacked, expected " + sum256(gz).String()},
		{"signature", disk, Image{Sums: []integrity.Sum{sum256(disk)}, Watch: no}, "the signature was not accepted: it is by somebody else"},
		{"too long", disk, Image{Sums: []integrity.Sum{sum256(disk)}, Size: 1000}, "expected 1000 bytes, the server has 1048576"},
		{"too short", disk, Image{Sums: []integrity.Sum{sum256(disk)}, Size: 2 << 20}, "expected 2097152 bytes, the server has 1048576"},
		{"bomb", bomb, Image{Sums: []integrity.Sum{sum256(bomb)}, Pack: "gz", Max: 1 << 20}, "more than 1.0 MiB come out of it"},
		{"not packed", disk, Image{Sums: []integrity.Sum{sum256(disk)}, Pack: "gz"}, "not packed as gzip"},
		{"broken xz", disk, Image{Sums: []integrity.Sum{sum256(disk)}, Pack: "xz"}, "xz"},
		{"cut gzip", gz[:len(gz)/2], Image{Sums: []integrity.Sum{sum256(gz[:len(gz)/2])}, Pack: "gz"}, "unexpected EOF"},
		{"no member", two, Image{Sums: []integrity.Sum{sum256(two)}, Member: "c.raw"}, "nothing in the archive fits c.raw"},
		{"two members", two, Image{Sums: []integrity.Sum{sum256(two)}, Member: "*.raw"}, "both fit"},
		{"member outside", evil, Image{Sums: []integrity.Sum{sum256(evil)}, Member: "*/*.raw"}, "no plain file"},
		{"member is a link", link, Image{Sums: []integrity.Sum{sum256(link)}, Member: "*.raw"}, "no plain file"},
		{"no archive", disk, Image{Sums: []integrity.Sum{sum256(disk)}, Member: "*.raw"}, "the archive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(plain(c.data))
			defer s.Close()
			f := images(t)
			c.img.URL = s.URL + "/x"
			got, err := f.Image(context.Background(), c.img, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %v", got, err)
			}
			blobs, _ := filepath.Glob(f.Cache.Path("blobs/sha256/*/*"))
			left, _ := filepath.Glob(f.Cache.Path("downloads", "*"))
			if len(blobs)+len(left) > 0 {
				t.Errorf("kept: %q %q", blobs, left)
			}
		})
	}
}

// A download goes on where it stopped, in this run or the next, as long as the server's file is the same.
func TestImagesGoOn(t *testing.T) {
	disk := noise(4 << 20)
	gz := packed(t, "gz", disk)
	other := packed(t, "gz", noise(1<<20))
	half := int64(len(gz) / 2)
	for _, c := range []struct {
		name       string
		etag, next string // of the first answer and of the second
		ranges     bool
		sent       int64 // bytes that the server sends the second time
	}{
		{"the same", `"one"`, `"one"`, true, int64(len(gz)) - half},
		{"changed between", `"one"`, `"two"`, true, int64(len(gz))},
		{"no ranges", `"one"`, `"one"`, false, int64(len(gz))},
		{"weak validator", `W/"one"`, `W/"one"`, true, int64(len(gz))},
		{"no validator", ``, ``, true, int64(len(gz))},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var sent int64
			var ranges []string
			n := 0
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				n++
				ranges = append(ranges, r.Header.Get("Range")+" "+r.Header.Get("If-Range"))
				if n == 1 {
					w.Header().Set("Content-Length", strconv.Itoa(len(gz)))
					w.Header().Set("ETag", c.etag)
					data := gz
					if c.next != c.etag {
						data = other
						data = append(bytes.Clone(data), make([]byte, len(gz))...)
					}
					_, _ = w.Write(data[:half])
					return // the connection is closed early
				}
				w.Header().Set("ETag", c.next)
				if !c.ranges {
					r.Header.Del("Range")
				}
				counted := &counter{ResponseWriter: w}
				http.ServeContent(counted, r, "", time.Time{}, bytes.NewReader(gz))
				sent = counted.n
			}))
			defer s.Close()
			f := images(t)
			f.Tries = 1
			img := Image{URL: s.URL + "/x", Size: int64(len(gz)), Sums: []integrity.Sum{sum256(gz)}, Pack: "gz"}
			if _, err := f.Image(context.Background(), img, nil); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
				t.Fatal(err)
			}
			if info, err := filepath.Glob(f.Cache.Path("downloads", "*.part")); err != nil || len(info) != 1 {
				t.Fatalf("%q", info)
			}
			got, err := (&Fetcher{Cache: f.Cache}).Image(context.Background(), img, nil) // another run
			if err != nil || got.SHA256 != sum256(disk).Hex {
				t.Fatalf("%+v, %v", got, err)
			}
			if sent != c.sent {
				t.Errorf("%d bytes were sent again, want %d (%q)", sent, c.sent, ranges)
			}
			if c.name == "the same" && ranges[1] != fmt.Sprintf("bytes=%d- \"one\"", half) {
				t.Errorf("asked for %q", ranges[1])
			}
		})
	}
}

type counter struct {
	http.ResponseWriter
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

func TestServersOfImagesThatMisbehave(t *testing.T) {
	disk := noise(1 << 20)
	var n atomic.Int32
	once := func(bad http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) == 1 {
				bad(w, r)
				return
			}
			plain(disk)(w, r)
		}
	}
	code := func(code int, after string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if after != "" {
				w.Header().Set("Retry-After", after)
			}
			w.WriteHeader(code)
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
		tries   int32
	}{
		{"503 once", once(code(503, "")), "", 2},
		{"429 with Retry-After", once(code(429, "0")), "", 2},
		{"429 with a date", once(code(429, time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat))), "", 2},
		{"503 for ever", func(w http.ResponseWriter, r *http.Request) { n.Add(1); code(503, "")(w, r) }, "503 Service Unavailable (tried 4 times)", 4},
		{"404", func(w http.ResponseWriter, r *http.Request) { n.Add(1); code(404, "")(w, r) }, "404 Not Found", 1},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request) { n.Add(1); http.Redirect(w, r, "/x", http.StatusFound) }, "more than 10 redirects", 40},
		{"wrong range", once(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-9/10")
			w.WriteHeader(http.StatusPartialContent)
		}), "", 2},
		{"packed unasked", func(w http.ResponseWriter, _ *http.Request) { n.Add(1); w.Header().Set("Content-Encoding", "br") }, "not asked to", 1},
		{"wrong once", once(plain(noise(1 << 19))), "", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.Store(0)
			s := httptest.NewServer(c.handler)
			defer s.Close()
			_, err := images(t).Image(context.Background(), Image{URL: s.URL + "/x", Size: int64(len(disk)), Sums: []integrity.Sum{sum256(disk)}}, nil)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Error(err)
			}
			if n.Load() != c.tries {
				t.Errorf("asked %d times, want %d", n.Load(), c.tries)
			}
		})
	}
	t.Run("https to http", func(t *testing.T) {
		s := httptest.NewServer(plain(disk))
		defer s.Close()
		tls := httptest.NewTLSServer(http.RedirectHandler(s.URL+"/x", http.StatusFound))
		defer tls.Close()
		f := images(t)
		f.Client = NewClient()
		f.Client.Transport = tls.Client().Transport
		if _, err := f.Image(context.Background(), Image{URL: tls.URL + "/x", Sums: []integrity.Sum{sum256(disk)}}, nil); err == nil || !strings.Contains(err.Error(), "it would give up https") {
			t.Error(err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(context.Background())
		cause := errors.New("enough")
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(disk)))
			_, _ = w.Write(disk[:1000])
			w.(http.Flusher).Flush()
			cancel(cause)
			<-r.Context().Done()
		}))
		defer s.Close()
		f := images(t)
		if _, err := f.Image(ctx, Image{URL: s.URL + "/x", Sums: []integrity.Sum{sum256(disk)}, Pack: "gz"}, nil); !errors.Is(err, cause) {
			t.Error(err)
		}
	})
	t.Run("two at once", func(t *testing.T) {
		n.Store(0)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.Add(1); plain(disk)(w, r) }))
		defer s.Close()
		f := images(t)
		var wg sync.WaitGroup
		for range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if _, err := f.Image(context.Background(), Image{URL: s.URL + "/x", Sums: []integrity.Sum{sum256(disk)}}, nil); err != nil {
					t.Error(err)
				}
			}()
		}
		wg.Wait()
		if n.Load() != 1 {
			t.Errorf("downloaded %d times", n.Load())
		}
	})
}

// Runs of zeros are holes on the disk.
func TestZerosAreHoles(t *testing.T) {
	disk := make([]byte, 32<<20)
	copy(disk[5<<20:], "data")
	gz := packed(t, "gz", disk)
	s := httptest.NewServer(plain(gz))
	defer s.Close()
	got, err := images(t).Image(context.Background(), Image{URL: s.URL + "/x", Sums: []integrity.Sum{sum256(gz)}, Pack: "gz"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("stat", "-c", "%b %s", got.Path).Output()
	var blocks, size int64
	if _, serr := fmt.Sscan(string(out), &blocks, &size); err != nil || serr != nil || size != int64(len(disk)) || blocks*512 > 1<<20 {
		t.Errorf("%d blocks of %d bytes, %v", blocks, size, err)
	}
}

func FuzzUnpack(f *testing.F) {
	for _, pack := range []string{"", "gz", "xz", "zst"} {
		f.Add(packed(f, pack, []byte("hello")), pack, "")
		f.Add(packed(f, pack, tarred(f, tar.Header{Name: "a.raw", Typeflag: tar.TypeReg})[:2048]), pack, "*.raw")
	}
	old := programs
	programs = nil
	f.Cleanup(func() { programs = old })
	f.Fuzz(func(t *testing.T, data []byte, pack, member string) {
		out, err := newOutput(filepath.Join(t.TempDir(), "out"), 1<<20, "")
		if err != nil {
			t.Fatal(err)
		}
		defer out.remove()
		_ = unpack(context.Background(), bytes.NewReader(data), out, pack, member, nil)
		if out.at > 1<<20 {
			t.Fatalf("%d bytes came out", out.at)
		}
	})
}
