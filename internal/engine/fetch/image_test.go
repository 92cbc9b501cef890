package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

func sum256(data []byte) string {
	s := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(s[:])
}

func sum512(data []byte) string {
	s := sha512.Sum512(data)
	return "sha512:" + hex.EncodeToString(s[:])
}

// diskData is like a raw disk: text, noise, and zeros long enough to be holes.
func diskData(n int) []byte {
	data := make([]byte, n)
	r := rand.New(rand.NewSource(int64(n)))
	r.Read(data[:n/8])
	copy(data[n/4:n/2], bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog\n"), n/4/44))
	return data
}

// upstream is a server of one file that counts, notes the requests, and misbehaves where told.
type upstream struct {
	*httptest.Server
	mu       sync.Mutex
	data     []byte
	tag      string
	modified time.Time
	requests []http.Header
	sent     atomic.Int64
	fault    func(n int, w http.ResponseWriter, r *http.Request) bool // answers request n (from 1) itself
}

func serve(t *testing.T, data []byte) *upstream {
	t.Helper()
	u := &upstream{data: data, tag: `"v1"`}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.requests = append(u.requests, r.Header.Clone())
		n, data, tag, fault := len(u.requests), u.data, u.tag, u.fault
		u.mu.Unlock()
		if tag != "" {
			w.Header().Set("ETag", tag)
		}
		w = &counted{w, &u.sent}
		if fault != nil && fault(n, w, r) {
			return
		}
		http.ServeContent(w, r, "", u.modified, bytes.NewReader(data))
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) asked() []http.Header {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.requests)
}

type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// breakAfter sends the first n bytes of the whole and lets the connection die.
func breakAfter(w http.ResponseWriter, data []byte, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	_, _ = w.Write(data[:n])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// left lists the files of downloads and work, and checks that no blob appeared where none is wanted.
func left(t *testing.T, c *Cache) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"downloads/*", "work/*", "blobs/sha256/*/*"} {
		for _, p := range c.glob(pattern) {
			names = append(names, filepath.Dir(strings.TrimPrefix(p, c.Dir()+"/"))+"/"+filepath.Ext(p))
		}
	}
	return names
}

func want(t *testing.T, got *Fetched, err error, data []byte) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(got.Path)
	if err != nil || !bytes.Equal(have, data) || "sha256:"+got.SHA256 != sum256(data) || got.Size != int64(len(data)) {
		t.Errorf("the blob (%d bytes, sha256:%s) is not the disk (%d bytes, %s): %v", len(have), got.SHA256, len(data), sum256(data), err)
	}
	if info, err := os.Stat(got.Path); err != nil || info.Mode() != 0o444 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func run(t *testing.T, name string, in []byte, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	c := exec.Command(name, args...)
	c.Stdin = bytes.NewReader(in)
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func gz(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

func zst(data []byte) []byte {
	var b bytes.Buffer
	w, _ := zstd.NewWriter(&b)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

type entry struct {
	name string
	data []byte
	kind byte
	link string
}

func tarball(list ...entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range list {
		kind := e.kind
		if kind == 0 {
			kind = tar.TypeReg
		}
		if err := w.WriteHeader(&tar.Header{Name: e.name, Typeflag: kind, Linkname: e.link, Size: int64(len(e.data)), Mode: 0o644}); err != nil {
			panic(err)
		}
		_, _ = w.Write(e.data)
	}
	_ = w.Close()
	return b.Bytes()
}

func TestImagePlain(t *testing.T) {
	data := diskData(3 << 20)
	u := serve(t, data)
	c := cache(t)
	img := Image{URL: u.URL + "/disk.raw", Size: int64(len(data)), Sums: []string{strings.ToUpper(sum256(data)), sum512(data)}}
	got, err := fetcher(c).Image(context.Background(), img, nil)
	want(t, got, err, data)
	if size, _, _ := c.measure(got.Path); size > int64(len(data))*3/4 {
		t.Errorf("%d bytes on disk of %d: zeros were written", size, len(data))
	}
	if names := left(t, c); len(names) != 1 {
		t.Errorf("left: %v", names)
	}
	again, err := fetcher(c).Image(context.Background(), img, nil)
	want(t, again, err, data)
	if !again.Cached || got.Cached || len(u.asked()) != 1 {
		t.Errorf("the second time: cached %v, %d requests", again.Cached, len(u.asked()))
	}
}

func TestImagePacks(t *testing.T) {
	data := diskData(2 << 20)
	noise, _ := content(5000)
	tarred := tarball(entry{name: "./", kind: tar.TypeDir}, entry{name: "./README", data: []byte("hello")}, entry{name: "./disk.raw", data: data}, entry{name: "link", kind: tar.TypeSymlink, link: "/etc/passwd"})
	for _, c := range []struct {
		name, pack, member string
		served             func(t *testing.T) []byte
		noPrograms         bool
	}{
		{"gz", "gz", "", func(*testing.T) []byte { return gz(data) }, false},
		{"gz with trailing garbage", "gz", "", func(*testing.T) []byte { return append(gz(data), noise...) }, false},
		{"gz with short trailing garbage", "gz", "", func(*testing.T) []byte { return append(gz(data), 0x1f, 0x8b) }, false},
		{"gz of two members", "gz", "", func(*testing.T) []byte { return append(gz(data[:1000]), gz(data[1000:])...) }, false},
		{"xz", "xz", "", func(t *testing.T) []byte { return run(t, "xz", data, "-1", "-T2", "--block-size=300KiB") }, false},
		{"xz without the program", "xz", "", func(t *testing.T) []byte { return run(t, "xz", data, "-1", "-T2", "--block-size=300KiB") }, true},
		{"bz2", "bz2", "", func(t *testing.T) []byte { return run(t, "bzip2", data, "-1") }, false},
		{"bz2 without the program", "bz2", "", func(t *testing.T) []byte { return run(t, "bzip2", data, "-1") }, true},
		{"zst", "zst", "", func(*testing.T) []byte { return zst(data) }, false},
		{"zst of two frames", "zst", "", func(*testing.T) []byte { return append(zst(data[:77]), zst(data[77:])...) }, false},
		{"tar", "", "disk.*", func(*testing.T) []byte { return tarred }, false},
		{"tar.gz", "gz", "disk.raw", func(*testing.T) []byte { return gz(tarred) }, false},
		{"tar.xz", "xz", "disk.raw", func(t *testing.T) []byte { return run(t, "xz", tarred, "-1") }, false},
		{"sparse tar.gz", "gz", "disk.raw", func(t *testing.T) []byte {
			dir := t.TempDir()
			f, err := os.Create(filepath.Join(dir, "disk.raw"))
			if err != nil {
				t.Fatal(err)
			}
			w := &sparse{f: f}
			_, _ = w.Write(data)
			if err := w.close(); err != nil {
				t.Fatal(err)
			}
			return gz(run(t, "tar", nil, "-C", dir, "--format=oldgnu", "-cSf", "-", "disk.raw"))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			served := c.served(t)
			if c.noPrograms {
				t.Setenv("PATH", t.TempDir())
			}
			u := serve(t, served)
			ca := cache(t)
			got, err := fetcher(ca).Image(context.Background(), Image{URL: u.URL, Sums: []string{sum256(served)}, Pack: c.pack, Member: c.member, DiskSums: []string{sum512(data)}}, nil)
			want(t, got, err, data)
			if "sha256:"+got.Served != sum256(served) || got.ServedSize != int64(len(served)) {
				t.Errorf("served %d bytes, sha256:%s", got.ServedSize, got.Served)
			}
			if size, _, _ := ca.measure(got.Path); size > int64(len(data))*3/4 {
				t.Errorf("%d bytes on disk of %d: zeros were written", size, len(data))
			}
			if names := left(t, ca); len(names) != 1 {
				t.Errorf("left: %v", names)
			}
		})
	}
}

// A connection breaks off: the rest is asked for by range, under the condition that the file is the same.
func TestImageResumes(t *testing.T) {
	data := diskData(1 << 20)
	packed := gz(data)
	cut := len(packed) / 2
	old := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	for _, c := range []struct {
		name, tag string
		modified  time.Time
		ifRange   string
	}{
		{"entity tag", `"v1"`, old, `"v1"`},
		{"weak entity tag", `W/"v1"`, old, old.Format(http.TimeFormat)},
		{"date", "", old, old.Format(http.TimeFormat)},
		{"date too fresh to tell", "", time.Now().UTC().Truncate(time.Second).Add(time.Minute), ""},
		{"nothing to tell by", "", time.Time{}, ""},
	} {
		for _, where := range []string{"the same run", "another run"} {
			t.Run(c.name+", "+where, func(t *testing.T) {
				u := serve(t, packed)
				u.tag, u.modified = c.tag, c.modified
				u.fault = func(n int, w http.ResponseWriter, r *http.Request) bool {
					if !c.modified.IsZero() {
						w.Header().Set("Last-Modified", c.modified.Format(http.TimeFormat))
					}
					if n == 1 {
						breakAfter(w, packed, cut)
					}
					return false
				}
				ca := cache(t)
				f := fetcher(ca)
				img := Image{URL: u.URL, Size: int64(len(packed)), Sums: []string{sum256(packed)}, Pack: "gz"}
				bus := event.NewBus(nil)
				sub := bus.Subscribe()
				if where == "another run" {
					f.Tries = 1
					if _, err := f.Image(context.Background(), img, nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("the connection ended after %d of %d bytes", cut, len(packed))) {
						t.Fatalf("%v", err)
					}
					if names := left(t, ca); !slices.Equal(names, []string{"downloads/.part", "downloads/.json"}) {
						t.Errorf("left: %v", names)
					}
				}
				got, err := f.Image(context.Background(), img, bus.Scope("t", "fetch", ""))
				want(t, got, err, data)
				asked := u.asked()
				if len(asked) != 2 || asked[1].Get("Range") != fmt.Sprintf("bytes=%d-", cut) || asked[1].Get("If-Range") != c.ifRange || asked[1].Get("Accept-Encoding") != "identity" {
					t.Fatalf("asked: %v", asked[1:])
				}
				if n := u.sent.Load(); n != int64(len(packed)) {
					t.Errorf("%d bytes were sent of a file of %d", n, len(packed))
				}
				events, _ := sub.Poll()
				for _, e := range events {
					if e.Kind == event.Progress && where == "another run" && (e.Done < int64(cut) || e.Total != int64(len(packed))) {
						t.Errorf("progress %d of %d after a resume at %d", e.Done, e.Total, cut)
					}
				}
			})
		}
	}
}

func TestImageStartsOver(t *testing.T) {
	data := diskData(1 << 20)
	other := append(bytes.Clone(data[:1<<19]), bytes.Repeat([]byte{7}, 1<<19)...)
	first := func(n int, w http.ResponseWriter) {
		if n == 1 {
			breakAfter(w, other, 500_000)
		}
	}
	for _, c := range []struct {
		name  string
		size  int64
		fault func(u *upstream) func(n int, w http.ResponseWriter, r *http.Request) bool
		asked int
	}{
		{"a server without ranges", int64(len(data)), func(u *upstream) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 1 {
					breakAfter(w, data, 500_000)
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				_, _ = w.Write(data)
				return true
			}
		}, 3},
		{"a changed file, seen by its tag", int64(len(data)), func(u *upstream) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("ETag", fmt.Sprintf(`"v%d"`, min(n, 2)))
				first(n, w)
				return false
			}
		}, 3},
		{"a changed file, seen by its tag though the server ignores If-Range", int64(len(data)), func(u *upstream) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("ETag", fmt.Sprintf(`"v%d"`, min(n, 2)))
				r.Header.Del("If-Range")
				first(n, w)
				return false
			}
		}, 3},
		{"a changed file, seen by its length", 0, func(u *upstream) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, r *http.Request) bool {
				w.Header().Del("ETag")
				if n == 1 {
					breakAfter(w, append(other, 1), 500_000)
				}
				return false
			}
		}, 3},
		{"a changed file, seen by its checksum", int64(len(data)), func(u *upstream) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, r *http.Request) bool {
				w.Header().Del("ETag")
				if n == 1 {
					breakAfter(w, other, 600_000)
				}
				return false
			}
		}, 3},
		{"a shorter file", 0, func(u *upstream) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, r *http.Request) bool {
				w.Header().Del("ETag")
				if n == 1 {
					breakAfter(w, bytes.Repeat([]byte{1}, 3<<20), 2<<20)
				}
				return false
			}
		}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := serve(t, data)
			u.fault = c.fault(u)
			ca := cache(t)
			got, err := fetcher(ca).Image(context.Background(), Image{URL: u.URL, Size: c.size, Sums: []string{sum256(data)}}, nil)
			want(t, got, err, data)
			if n := len(u.asked()); n != c.asked {
				t.Errorf("%d requests, want %d", n, c.asked)
			}
			if names := left(t, ca); len(names) != 1 {
				t.Errorf("left: %v", names)
			}
		})
	}
}

func TestImageFaults(t *testing.T) {
	data, _ := content(200_000)
	other, _ := content(200_001)
	other = other[:200_000]
	type fault = func(n int, w http.ResponseWriter, r *http.Request) bool
	status := func(code int, header ...string) fault {
		return func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			return true
		}
	}
	raw := func(head string, body []byte) fault { // an answer that net/http would not send
		return func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = buf.WriteString(head + "\r\nConnection: close\r\n\r\n")
			_, _ = buf.Write(body)
			_ = buf.Flush()
			_ = conn.Close()
			return true
		}
	}
	size := fmt.Sprint(len(data))
	for _, c := range []struct {
		name  string
		size  int64
		fault fault
		asked int // 4 tries; + 3 where a server that cannot go on is asked anew for all of it
		want  string
	}{
		{"wrong checksum", 200_000, func(_ int, w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write(other); return true }, 2,
			"expected " + sum256(data) + ", got " + sum256(other) + " (200000 bytes)"},
		{"truncated", 200_000, func(_ int, w http.ResponseWriter, r *http.Request) bool { _, _ = w.Write(data[:10]); return true }, 2, "expected 200000 bytes, the server offers 10"},
		{"truncated, length not known", 0, func(_ int, w http.ResponseWriter, r *http.Request) bool { _, _ = w.Write(data[:10]); return true }, 2, "(10 bytes)"},
		{"says more than it sends", 200_000, raw("HTTP/1.1 200 OK\r\nContent-Length: "+size, data[:1000]), 4 + 3, "the connection ended after 1000 of 200000 bytes"},
		{"says less than it sends", 0, raw("HTTP/1.1 200 OK\r\nContent-Length: 1000", data), 2, "(1000 bytes)"},
		{"says nothing and stops early", 200_000, raw("HTTP/1.0 200 OK", data[:1000]), 4 + 3, "the connection ended after 1000 of 200000 bytes"},
		{"offers more", 200_000, func(_ int, w http.ResponseWriter, r *http.Request) bool {
			_, _ = w.Write(append(other, 1))
			return true
		}, 2, "more than that came"},
		{"never ends", 200_000, func(_ int, w http.ResponseWriter, r *http.Request) bool {
			for r.Context().Err() == nil {
				if _, err := w.Write(other); err != nil {
					break
				}
			}
			return true
		}, 2, "more than that came"},
		{"never ends, size not known", 0, func(_ int, w http.ResponseWriter, r *http.Request) bool {
			for r.Context().Err() == nil {
				if _, err := w.Write(other); err != nil {
					break
				}
			}
			return true
		}, 1, "more than 1.0 MiB came"},
		{"offers too much", 0, raw("HTTP/1.1 200 OK\r\nContent-Length: 1000000000", nil), 1, "more than the 1.0 MiB that are allowed"},
		{"encoded unasked", 200_000, func(_ int, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(gz(data))
			return true
		}, 2, "expected 200000 bytes"},
		{"stalls", 200_000, func(_ int, w http.ResponseWriter, r *http.Request) bool {
			_, _ = w.Write(data[:1000])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return true
		}, 4 + 3, "nothing came for 150ms"},
		{"no answer", 200_000, func(_ int, w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, 4, "no answer for 150ms"},
		{"closes", 200_000, func(int, http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, 4, "EOF"},
		{"gone", 0, status(404), 1, "the server answered 404"},
		{"forbidden", 0, status(403), 1, "the server answered 403"},
		{"withdrawn", 0, status(410), 1, "the server answered 410"},
		{"too many", 0, status(429, "Retry-After", "0"), 4, "the server answered 429"},
		{"busy", 0, status(503), 4, "the server answered 503"},
		{"redirects for ever", 0, func(_ int, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/again", http.StatusFound)
			return true
		}, 10, "more than 10 redirects"},
		{"a range that was not asked for", 0, status(206, "Content-Range", "bytes 5-9/10"), 4, "instead of one from 0"},
		{"a range that makes no sense", 0, status(206, "Content-Range", "bytes 0-99999999999999999999/5"), 4, "instead of one from 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := serve(t, data)
			u.fault = c.fault
			ca := cache(t)
			f := fetcher(ca)
			f.Stall = 150 * time.Millisecond
			if !strings.Contains(c.want, "150ms") {
				f.Stall = 0
			}
			_, err := f.Image(context.Background(), Image{URL: u.URL + "/disk", Size: c.size, Sums: []string{sum256(data)}, Max: 1 << 20}, nil)
			var r *event.Remedied
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), u.URL+"/disk") || !errors.As(err, &r) || r.Remedy == "" {
				t.Errorf("error %v (remedy %+v), want %q", err, r, c.want)
			}
			if n := len(u.asked()); n != c.asked {
				t.Errorf("%d requests, want %d", n, c.asked)
			}
			for _, name := range left(t, ca) {
				if !strings.HasPrefix(name, "downloads/") {
					t.Errorf("%s is left", name)
				}
			}
		})
	}
}

func TestImageDowngradeIsRefused(t *testing.T) {
	data, _ := content(10)
	plain := serve(t, data)
	secure := httptest.NewUnstartedServer(http.RedirectHandler(plain.URL, http.StatusFound))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	front := httptest.NewServer(http.RedirectHandler(secure.URL, http.StatusFound))
	defer front.Close()
	f := fetcher(cache(t))
	f.Client = NewClient()
	f.Client.Transport = secure.Client().Transport
	for _, url := range []string{secure.URL, front.URL} {
		if _, err := f.Image(context.Background(), Image{URL: url, Sums: []string{sum256(data)}}, nil); err == nil || !strings.Contains(err.Error(), "it would give up https") || strings.Contains(err.Error(), "tried") {
			t.Errorf("%v", err)
		}
	}
	if len(plain.asked()) != 0 {
		t.Error("the plain server was asked")
	}
	f.Client = NewClient() // which does not know the certificate
	if _, err := f.Image(context.Background(), Image{URL: secure.URL, Sums: []string{sum256(data)}}, nil); err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "tried") {
		t.Errorf("%v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-3": 0, "soon": 0, "99999999999999999999": 0,
		"Mon, 23 Nov 2026 10:00:30 GMT": 30 * time.Second, "Mon, 23 Nov 2026 09:00:00 GMT": 0} {
		if got := parseRetryAfter(v, now); got != want {
			t.Errorf("%q: %s, want %s", v, got, want)
		}
	}
	for after, want := range map[time.Duration]time.Duration{0: 0, 5 * time.Second: 5 * time.Second, time.Hour: time.Minute} {
		got := pauseFor(&retryAfter{"429", after}, time.Second)
		if got < max(want, 500*time.Millisecond) || got > max(want, 1500*time.Millisecond) {
			t.Errorf("after %s: %s", after, got)
		}
	}
	if testing.Short() {
		return // the rest takes a second
	}
	data, _ := content(100)
	u := serve(t, data)
	u.fault = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}
		return n == 1
	}
	began := time.Now()
	got, err := fetcher(cache(t)).Image(context.Background(), Image{URL: u.URL, Sums: []string{sum256(data)}}, nil)
	want(t, got, err, data)
	if time.Since(began) < time.Second {
		t.Error("the server's wish was not heard")
	}
}

// Many servers say Content-Encoding of files that are packed by themselves.
func TestImageContentEncodingOfThePackItself(t *testing.T) {
	data := diskData(1 << 20)
	packed := gz(data)
	u := serve(t, packed)
	u.fault = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Encoding", "x-gzip")
		return false
	}
	got, err := fetcher(cache(t)).Image(context.Background(), Image{URL: u.URL, Size: int64(len(packed)), Sums: []string{sum256(packed)}, Pack: "gz"}, nil)
	want(t, got, err, data)
}

func TestImageHostile(t *testing.T) {
	zeroes := make([]byte, 4<<20)
	long := tarball(entry{name: "disk", data: zeroes})
	for _, c := range []struct {
		name, pack, member string
		served             []byte
		want               string
	}{
		{"gz bomb", "gz", "", gz(zeroes), "more than 1.0 MiB come out of it"},
		{"zst bomb", "zst", "", zst(zeroes), "more than 1.0 MiB come out of it"},
		{"xz bomb", "xz", "", run(t, "xz", zeroes), "more than 1.0 MiB come out of it"},
		{"bz2 bomb", "bz2", "", run(t, "bzip2", zeroes), "more than 1.0 MiB come out of it"},
		{"bomb in a tar archive", "gz", "disk", gz(long), "is 4.0 MiB long; at most 1.0 MiB may come out"},
		{"bomb beside the member", "gz", "disk", gz(tarball(entry{name: "disk", data: []byte("x")}, entry{name: "other", data: zeroes})), "more than 1.0 MiB come out of it"},
		{"zst that wants memory", "zst", "", []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x98, 0x01, 0, 0, 0}, "window of more than"},
		{"climbs", "", "*", tarball(entry{name: "../disk", data: []byte("x")}), "leaves its tree"},
		{"climbs in the middle", "", "disk", tarball(entry{name: "a/../../disk", data: []byte("x")}), "leaves its tree"},
		{"climbs and comes back", "", "disk", tarball(entry{name: "a/../disk", data: []byte("x")}), "leaves its tree"},
		{"absolute", "", "disk", tarball(entry{name: "/disk", data: []byte("x")}), "leaves its tree"},
		{"another entry climbs", "gz", "disk", gz(tarball(entry{name: "disk", data: []byte("x")}, entry{name: "../../etc/passwd", data: []byte("x")})), "leaves its tree"},
		{"link", "", "disk", tarball(entry{name: "disk", kind: tar.TypeSymlink, link: "/etc/passwd"}), "no regular file"},
		{"hard link", "", "disk", tarball(entry{name: "disk", kind: tar.TypeLink, link: "/etc/passwd"}), "no regular file"},
		{"device", "", "disk", tarball(entry{name: "disk", kind: tar.TypeBlock}), "no regular file"},
		{"two that fit", "", "d*", tarball(entry{name: "disk", data: []byte("x")}, entry{name: "./dusk", data: []byte("y")}), `holds two files "d*"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := serve(t, c.served)
			ca := cache(t)
			_, err := fetcher(ca).Image(context.Background(), Image{URL: u.URL, Sums: []string{sum256(c.served)}, Pack: c.pack, Member: c.member, Max: 1 << 20}, nil)
			var r *event.Remedied
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), u.URL) || !errors.As(err, &r) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if n := len(u.asked()); n != 1 {
				t.Errorf("%d requests", n)
			}
			if names := left(t, ca); len(names) != 0 {
				t.Errorf("left: %v", names)
			}
		})
	}
}

// The library that stands in for xz keeps a limit, too. The file's one block wants a dictionary of 4 GiB.
func TestXZMemory(t *testing.T) {
	// Stream header, block header (The .xz File Format 1.2.1, sections 2.1.1 and 3.1) with dictionary size 40.
	sealed := func(data ...byte) []byte { return binary.LittleEndian.AppendUint32(data, crc32.ChecksumIEEE(data)) }
	file := slices.Concat([]byte("\xfd7zXZ\x00"), sealed(0, 1), sealed(2, 0, 0x21, 1, 40, 0, 0, 0), make([]byte, 64))
	for _, path := range []string{os.Getenv("PATH"), t.TempDir()} {
		t.Setenv("PATH", path)
		u := serve(t, file)
		_, err := fetcher(cache(t)).Image(context.Background(), Image{URL: u.URL, Sums: []string{sum256(file)}, Pack: "xz"}, nil)
		if err == nil || !strings.Contains(err.Error(), "cannot be unpacked as xz") || !strings.Contains(err.Error(), "limit") && !strings.Contains(err.Error(), "exceeds max") {
			t.Errorf("%v", err)
		}
	}
}

func TestImageDamagedPacks(t *testing.T) {
	data := diskData(1 << 20)
	for _, c := range []struct {
		name, pack, member string
		served             []byte
		want               string
	}{
		{"gz, cut", "gz", "", gz(data)[:5000], "it cannot be unpacked as gzip: "},
		{"gz, no such thing", "gz", "", []byte("<html>not found</html>"), "it cannot be unpacked as gzip: "},
		{"gz, empty", "gz", "", nil, "it cannot be unpacked as gzip: "},
		{"xz, empty", "xz", "", nil, "it cannot be unpacked as xz: xz: "},
		{"bz2, empty", "bz2", "", nil, "it cannot be unpacked as bzip2: "},
		{"zst, empty", "zst", "", nil, "it cannot be unpacked as Zstandard: "},
		{"tar, empty", "", "disk", nil, "holds no regular file"},
		{"xz, cut", "xz", "", run(t, "xz", data)[:5000], "it cannot be unpacked as xz: xz: "},
		{"xz, no such thing", "xz", "", []byte("<html>not found</html>"), "it cannot be unpacked as xz: xz: "},
		{"bz2, cut", "bz2", "", run(t, "bzip2", data)[:5000], "it cannot be unpacked as bzip2: "},
		{"zst, cut", "zst", "", zst(data)[:5000], "it cannot be unpacked as Zstandard: "},
		{"tar, cut", "", "disk", tarball(entry{name: "disk", data: data})[:5000], "it cannot be unpacked as tar: the archive is damaged"},
		{"tar, no such member", "gz", "dusk", gz(tarball(entry{name: "disk", data: data})), `it cannot be unpacked as gzip tar: the archive holds no regular file "dusk"`},
		{"tar, a folder", "", "disk", tarball(entry{name: "disk/", kind: tar.TypeDir}), "holds no regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := serve(t, c.served)
			ca := cache(t)
			_, err := fetcher(ca).Image(context.Background(), Image{URL: u.URL, Sums: []string{sum256(c.served)}, Pack: c.pack, Member: c.member}, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "as served it has the right checksum") {
				t.Errorf("%v, want %q", err, c.want)
			}
			_, err = fetcher(ca).Image(context.Background(), Image{URL: u.URL, Sums: []string{sum256(data)}, Pack: c.pack, Member: c.member}, nil)
			if err == nil || !strings.Contains(err.Error(), "expected "+sum256(data)) {
				t.Errorf("with a wrong checksum: %v", err)
			}
			for _, name := range left(t, ca) {
				if !strings.HasPrefix(name, "downloads/") {
					t.Errorf("%s is left", name)
				}
			}
		})
	}
}

// witness is a check that remembers what it saw.
type witness struct {
	bytes.Buffer
	answer func(seen []byte) error
	closed *atomic.Int32
}

func (w *witness) Close() error {
	w.closed.Add(1)
	return w.answer(w.Bytes())
}

func TestImageChecks(t *testing.T) {
	data := diskData(1 << 20)
	packed := gz(data)
	var closed atomic.Int32
	check := func(name string, disk bool, right []byte) Check {
		return Check{Name: name, Disk: disk, New: func() io.WriteCloser {
			return &witness{closed: &closed, answer: func(seen []byte) error {
				if !bytes.Equal(seen, right) {
					return errors.New("bad signature")
				}
				return nil
			}}
		}}
	}
	good, goodDisk, bad := check("signature A", false, packed), check("signature B", true, data), check("signature C", false, data)
	u := serve(t, packed)
	c := cache(t)
	img := Image{URL: u.URL, Pack: "gz", Checks: []Check{good, goodDisk}}
	got, err := fetcher(c).Image(context.Background(), img, nil)
	want(t, got, err, data)
	if got, err = fetcher(c).Image(context.Background(), img, nil); err != nil || !got.Cached || closed.Load() != 2 {
		t.Errorf("the second time: %+v, %v, %d checks", got, err, closed.Load())
	}
	// What was not checked so far is no answer of the cache; a refusal is believed at once where the checksum fits.
	img = Image{URL: u.URL, Pack: "gz", Sums: []string{sum256(packed)}, Checks: []Check{good, bad}}
	if _, err := fetcher(c).Image(context.Background(), img, nil); err == nil || !strings.Contains(err.Error(), "signature C: bad signature") || len(u.asked()) != 2 {
		t.Errorf("%v after %d requests", err, len(u.asked()))
	}
	img.Sums = nil
	if _, err := fetcher(c).Image(context.Background(), img, nil); err == nil || !strings.Contains(err.Error(), "signature C: bad signature") || len(u.asked()) != 4 {
		t.Errorf("without a checksum, twice: %v after %d requests", err, len(u.asked()))
	}
	if closed.Load() != 8 {
		t.Errorf("%d checks were closed", closed.Load())
	}
	// A connection that breaks off is no answer of a check.
	u.fault = func(n int, w http.ResponseWriter, _ *http.Request) bool { breakAfter(w, packed, 100); return true }
	if _, err := fetcher(c).Image(context.Background(), img, nil); err == nil || strings.Contains(err.Error(), "signature") || !strings.Contains(err.Error(), "the connection ended") {
		t.Errorf("%v", err)
	}
}

func TestImageNeedsVerification(t *testing.T) {
	u := serve(t, []byte("x"))
	for _, c := range []struct {
		img  Image
		want string
	}{
		{Image{}, "neither a checksum nor a signature"},
		{Image{DiskSums: []string{sum256(nil)}}, "neither a checksum nor a signature"},
		{Image{Sums: []string{"md5:d41d8cd98f00b204e9800998ecf8427e"}}, "no checksum that counts"},
		{Image{Sums: []string{"sha256:abc"}}, "no checksum that counts"},
		{Image{Sums: []string{sum256(nil)}, Pack: "rar"}, "no compression that is known"},
		{Image{Sums: []string{sum256(nil)}, Member: "["}, "pattern"},
		{Image{Sums: []string{sum256(nil)}, Size: 65 << 30}, "at most"},
		{Image{Checks: []Check{{}}}, "without a name"},
	} {
		c.img.URL = u.URL
		if _, err := fetcher(cache(t)).Image(context.Background(), c.img, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if len(u.asked()) != 0 {
		t.Error("the server was asked")
	}
}

func TestImageWrongDiskSum(t *testing.T) {
	data := diskData(1 << 20)
	packed := gz(data)
	u := serve(t, packed)
	_, err := fetcher(cache(t)).Image(context.Background(), Image{URL: u.URL, Sums: []string{sum256(packed)}, Pack: "gz", DiskSums: []string{sum256(nil)}}, nil)
	if err == nil || !strings.Contains(err.Error(), "unpacked, expected "+sum256(nil)+", got "+sum256(data)) || len(u.asked()) != 1 {
		t.Errorf("%v after %d requests", err, len(u.asked()))
	}
}

// A mirror that was being changed is asked once more.
func TestImageWrongOnce(t *testing.T) {
	data, _ := content(50_000)
	u := serve(t, data)
	u.fault = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 1 {
			_, _ = w.Write(make([]byte, len(data)))
		}
		return n == 1
	}
	got, err := fetcher(cache(t)).Image(context.Background(), Image{URL: u.URL, Size: int64(len(data)), Sums: []string{sum256(data)}}, nil)
	want(t, got, err, data)
}

func TestImageCancelledLeavesOnlyThePart(t *testing.T) {
	data := diskData(4 << 20)
	for _, pack := range []string{"", "gz", "xz"} {
		t.Run("pack "+pack, func(t *testing.T) {
			served := data
			switch pack {
			case "gz":
				served = gz(data)
			case "xz":
				served = run(t, "xz", data, "-1")
			}
			u := serve(t, served)
			u.fault = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n > 1 {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(served)))
				_, _ = w.Write(served[:len(served)/2])
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				return true
			}
			c := cache(t)
			bus := event.NewBus(nil)
			sub := bus.Subscribe()
			ctx, cancel := context.WithCancelCause(context.Background())
			done := make(chan error, 1)
			img := Image{URL: u.URL, Size: int64(len(served)), Sums: []string{sum256(served)}, Pack: pack}
			go func() {
				_, err := fetcher(c).Image(ctx, img, bus.Scope("t", "fetch", ""))
				done <- err
			}()
			for came := false; !came; { // half of it is there
				events, _ := sub.Next(context.Background())
				for _, e := range events {
					came = came || e.Kind == event.Progress
				}
			}
			cancel(errors.New("interrupted by the test"))
			if err := <-done; err == nil || err.Error() != "interrupted by the test" {
				t.Errorf("%v", err)
			}
			if names := left(t, c); !slices.Equal(names, []string{"downloads/.part", "downloads/.json"}) {
				t.Errorf("left: %v", names)
			}
			got, err := fetcher(c).Image(context.Background(), img, nil)
			want(t, got, err, data)
			if r := u.asked()[1].Get("Range"); r == "" || r == "bytes=0-" {
				t.Errorf("the next run asked for range %q", r)
			}
		})
	}
}

// Two users of one cache want the same image: one downloads, the other waits and has it.
func TestImageTwoAtOnce(t *testing.T) {
	data := diskData(1 << 20)
	packed := gz(data)
	u := serve(t, packed)
	c := cache(t)
	other, err := OpenCache(c.Dir())
	if err != nil {
		t.Fatal(err)
	}
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	u.fault = func(int, http.ResponseWriter, *http.Request) bool { // until the other one waits
		_, _ = sub.Next(context.Background())
		return false
	}
	img := Image{URL: u.URL, Sums: []string{sum256(packed)}, Pack: "gz"}
	var wg sync.WaitGroup
	for i, c := range []*Cache{c, other, c} {
		var scope *event.Scope
		if i > 0 {
			scope = bus.Scope("t", "fetch", "")
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			got, err := fetcher(c).Image(context.Background(), img, scope)
			if err != nil || got.Size != int64(len(data)) {
				t.Errorf("%+v, %v", got, err)
			}
		}()
	}
	wg.Wait()
	if n := len(u.asked()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestImageOfADamagedCache(t *testing.T) {
	data := diskData(1 << 20)
	u := serve(t, data)
	c := cache(t)
	img := Image{URL: u.URL, Sums: []string{sum256(data)}}
	get := func(requests int) *Fetched {
		t.Helper()
		got, err := fetcher(c).Image(context.Background(), img, nil)
		want(t, got, err, data)
		if n := len(u.asked()); n != requests {
			t.Errorf("%d requests, want %d", n, requests)
		}
		return got
	}
	blob := get(1).Path
	if err := os.Truncate(blob, 1000); err != nil {
		t.Fatal(err)
	}
	get(2)
	replaced := bytes.Clone(data) // the same size, another inode
	replaced[5]++
	_ = os.Remove(blob)
	if err := os.WriteFile(blob, replaced, 0o444); err != nil {
		t.Fatal(err)
	}
	get(3)
	_ = os.Remove(blob)
	if err := os.WriteFile(blob, data, 0o444); err != nil { // a copy that is right, a restored backup say
		t.Fatal(err)
	}
	get(3)
	if err := os.Remove(blob); err != nil {
		t.Fatal(err)
	}
	get(4)
}

// Another mirror goes on with the part of the first, where a checksum will tell.
func TestImageGoesOnFromAnotherMirror(t *testing.T) {
	data, _ := content(300_000)
	one, two := serve(t, data), serve(t, data)
	one.fault = func(_ int, w http.ResponseWriter, _ *http.Request) bool { breakAfter(w, data, 100_000); return true }
	c := cache(t)
	f := fetcher(c)
	f.Tries = 1
	img := Image{URL: one.URL, Sums: []string{sum256(data)}}
	if _, err := f.Image(context.Background(), img, nil); err == nil {
		t.Fatal("no error")
	}
	img.URL = two.URL
	got, err := f.Image(context.Background(), img, nil)
	want(t, got, err, data)
	if asked := two.asked(); len(asked) != 1 || asked[0].Get("Range") != "bytes=100000-" || asked[0].Get("If-Range") != "" {
		t.Errorf("asked %v", asked)
	}
}

func TestImageDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=2m", "none", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %s", out)
	}
	defer exec.Command("umount", dir).Run()
	c, err := OpenCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data, _ := content(3 << 20)
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	packed := gz(text)
	u := serve(t, data)
	if _, err := fetcher(c).Image(context.Background(), Image{URL: u.URL, Size: int64(len(data)), Sums: []string{sum256(data)}}, nil); err == nil || !strings.Contains(err.Error(), "the download needs 3.0 MiB") || len(u.asked()) != 0 {
		t.Errorf("too large from the start: %v", err)
	}
	if _, err := fetcher(c).Image(context.Background(), Image{URL: u.URL, Sums: []string{sum256(data)}}, nil); err == nil || !strings.Contains(err.Error(), "the download needs 3.0 MiB") {
		t.Errorf("too large when the size was known: %v", err)
	}
	u = serve(t, packed)
	_, err = fetcher(c).Image(context.Background(), Image{URL: u.URL, Size: int64(len(packed)), Sums: []string{sum256(packed)}, Pack: "gz"}, nil)
	var r *event.Remedied
	if !errors.As(err, &r) || !strings.Contains(r.Remedy, "free space there, or choose another folder with --cache") || !strings.Contains(err.Error(), u.URL) {
		t.Errorf("what comes out is too large: %v", err)
	}
	if names := left(t, c); !slices.Equal(names, []string{"downloads/.part", "downloads/.json"}) {
		t.Errorf("left: %v", names)
	}
}

// Whatever pieces it comes in, a sparse file is the file.
func TestSparse(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for round := range 40 {
		var data []byte
		for len(data) < 1<<20 && r.Intn(9) > 0 {
			piece := make([]byte, r.Intn(300_000))
			if r.Intn(2) == 0 {
				r.Read(piece)
			}
			data = append(data, piece...)
		}
		path := filepath.Join(t.TempDir(), "f")
		kept := 0
		if len(data) > 0 {
			kept = r.Intn(len(data)) * (round % 2)
		}
		if err := os.WriteFile(path, data[:kept], 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		w := &sparse{f: f, skip: int64(kept)}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+r.Intn(100_000))
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); !bytes.Equal(got, data) {
			t.Fatalf("round %d: %d bytes became %d others", round, len(data), len(got))
		}
	}
}

// FuzzUnpack feeds gzip, tar and Zstandard with whatever: it ends, within the limit, without a panic.
func FuzzUnpack(f *testing.F) {
	data := diskData(20_000)
	archive := tarball(entry{name: "a/../b", data: data[:10]}, entry{name: "disk", data: data[:5000]}, entry{name: "l", kind: tar.TypeSymlink, link: "x"})
	for _, seed := range [][]byte{gz(data), append(gz(data), "trailing"...), append(gz(data[:9]), gz(data[9:99])...), archive, gz(archive), gz(tarball(entry{name: "disk", data: data[:100]})), zst(data), {}} {
		for kind := range uint8(6) {
			f.Add(seed, kind)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, kind uint8) {
		const most = 64 << 10
		pack := []string{"", "gz", "zst"}[kind%3]
		r, err := decoder(pack, bytes.NewReader(in))
		if err != nil {
			return
		}
		r = limit(r, most)
		if kind%6 >= 3 {
			r = newMember(r, "disk*", most)
		}
		n, err := io.Copy(io.Discard, r)
		if n > most {
			t.Errorf("%d bytes came out", n)
		}
		if m, ok := r.(*member); ok && err == nil && m.name == "" {
			t.Error("no member, and no error")
		}
	})
}
