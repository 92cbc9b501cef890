package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand"
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

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

func cache(t *testing.T) *Cache {
	t.Helper()
	c, err := OpenCache(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func content(n int) ([]byte, string) {
	data := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(data)
	sum := sha256.Sum256(data)
	return data, hex.EncodeToString(sum[:])
}

func fetcher(c *Cache) *Fetcher { return &Fetcher{Cache: c, Backoff: time.Millisecond} }

func TestDownloadIsVerifiedAndKept(t *testing.T) {
	data, sum := content(300_000)
	var requests atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
	}))
	defer srv.Close()
	c := cache(t)
	items := []Item{{srv.URL + "/x", int64(len(data)), sum}, {srv.URL + "/again", int64(len(data)), sum}}
	if err := fetcher(c).All(context.Background(), items, nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(c.Blob(sum)); !bytes.Equal(got, data) {
		t.Error("the blob is not the file")
	}
	var skip *event.Skip
	if err := fetcher(c).All(context.Background(), items, nil); !errors.As(err, &skip) || requests.Load() != 1 {
		t.Errorf("a second run: %v after %d requests", err, requests.Load())
	}
}

func TestResumesWhereItStopped(t *testing.T) {
	data, sum := content(200_000)
	var ranges []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) == 1 { // dies half way
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:80_000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
	}))
	defer srv.Close()
	c := cache(t)
	if err := fetcher(c).All(context.Background(), []Item{{srv.URL, int64(len(data)), sum}}, nil); err != nil {
		t.Fatal(err)
	}
	if len(ranges) != 2 || !strings.HasPrefix(ranges[1], "bytes=") || ranges[1] == "bytes=0-" {
		t.Errorf("ranges asked for: %q", ranges)
	}
}

func TestFaults(t *testing.T) {
	data, sum := content(1000)
	other, _ := content(1001)
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		tries   int32
		want    string
	}{
		{"wrong bytes", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(other[:1000]) }, 4, "expected 1000 bytes with sha256:" + sum + ", got sha256:"},
		{"too long", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(append(data, 'x')) }, 4, "got more than 1000 bytes"},
		{"never ends", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(other); err != nil {
					return
				}
			}
		}, 4, "got more than 1000 bytes"},
		{"too short", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data[:10]) }, 4, "the connection ended after"},
		{"gone", status(404), 1, "the server answered 404"},
		{"forbidden", status(403), 1, "the server answered 403"},
		{"busy", status(503, "Retry-After", "0"), 4, "the server answered 503"},
		{"wrong range", status(206, "Content-Range", "bytes 5-9/10"), 4, "instead of one from 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var n atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.Add(1); c.handler(w, r) }))
			defer srv.Close()
			ca := cache(t)
			err := fetcher(ca).All(context.Background(), []Item{{srv.URL + "/file", 1000, sum}}, nil)
			var r *event.Remedied
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), srv.URL+"/file") || !errors.As(err, &r) {
				t.Errorf("error %v (remedy %v)", err, r != nil)
			}
			if n.Load() != c.tries {
				t.Errorf("%d tries, want %d", n.Load(), c.tries)
			}
			if _, err := os.Stat(ca.Blob(sum)); err == nil {
				t.Error("a bad file was kept")
			}
		})
	}
}

func TestDowngradeIsRefused(t *testing.T) {
	data, sum := content(10)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer secure.Close()
	client := NewClient()
	client.Transport = secure.Client().Transport
	f := fetcher(cache(t))
	f.Client = client
	err := f.All(context.Background(), []Item{{secure.URL, 10, sum}}, nil)
	if err == nil || !strings.Contains(err.Error(), "it would give up https") {
		t.Errorf("%v", err)
	}
}

func TestCancelled(t *testing.T) {
	_, sum := content(1000)
	reached := make(chan struct{})
	var once sync.Once
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(reached) })
		<-r.Context().Done()
	}))
	defer srv.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() { <-reached; cancel(errors.New("interrupted by the test")) }()
	if err := fetcher(cache(t)).All(ctx, []Item{{srv.URL, 1000, sum}}, nil); err == nil || err.Error() != "interrupted by the test" {
		t.Errorf("%v", err)
	}
}

func TestManyAtOnceShareOneDownload(t *testing.T) {
	data, sum := content(100_000)
	var requests atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
	}))
	defer srv.Close()
	c := cache(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var skip *event.Skip
			if err := fetcher(c).All(context.Background(), []Item{{srv.URL, int64(len(data)), sum}}, nil); err != nil && !errors.As(err, &skip) {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if requests.Load() != 1 {
		t.Errorf("%d requests", requests.Load())
	}
}

func TestWorkOfADeadRunIsRemoved(t *testing.T) {
	c := cache(t)
	live, release, err := c.Work("live")
	if err != nil {
		t.Fatal(err)
	}
	dead := c.Path("work", "dead-1")
	if err := os.MkdirAll(filepath.Join(dead, "root/etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	for _, d := range []string{dead, live} {
		if err := os.Chtimes(d, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenCache(c.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Error("the dead run's folder is still there")
	}
	if _, err := os.Stat(live); err != nil {
		t.Error("a live run's folder was removed")
	}
	release()
	if left, _ := os.ReadDir(c.Path("work")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLockWaitsForItsTurn(t *testing.T) {
	c := cache(t)
	unlock, err := c.Lock(context.Background(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	got := make(chan error, 1)
	go func() {
		u, err := c.Lock(ctx, "x", bus.Scope("t", "s", ""))
		if err == nil {
			u()
		}
		got <- err
	}()
	if events, _ := sub.Next(context.Background()); !strings.Contains(events[0].Line, "another run is working on this") {
		t.Errorf("%v", events)
	}
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	unlock, _ = c.Lock(context.Background(), "x", nil)
	defer unlock()
	cancel()
	if _, err := c.Lock(ctx, "x", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestRecords(t *testing.T) {
	c := cache(t)
	var v struct{ N int }
	if c.Load("tests", "a/b:c", &v) {
		t.Error("a record was there")
	}
	if err := c.Store("tests", "a/b:c", struct{ N int }{7}); err != nil || !c.Load("tests", "a/b:c", &v) || v.N != 7 {
		t.Errorf("%v, %+v", err, v)
	}
	if err := os.WriteFile(c.record("tests", "broken"), []byte("{"), 0o644); err != nil || c.Load("tests", "broken", &v) {
		t.Error("a broken record was believed")
	}
}

// A full disk: a file system of 1 MiB that the test makes.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "none", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %s", out)
	}
	defer exec.Command("umount", dir).Run()
	c, err := OpenCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data, sum := content(900_000)
	fill := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-fill
		_, _ = w.Write(data)
	}))
	defer srv.Close()
	if err := fetcher(c).All(context.Background(), []Item{{srv.URL, 5 << 20, sum}}, nil); err == nil || !strings.Contains(err.Error(), "the download needs 5.0 MiB") {
		t.Errorf("too large from the start: %v", err)
	}
	go func() { // it fills while the download runs
		_ = os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 500_000), 0o644)
		close(fill)
	}()
	err = fetcher(c).All(context.Background(), []Item{{srv.URL, int64(len(data)), sum}}, nil)
	var r *event.Remedied
	if !errors.As(err, &r) || !strings.Contains(r.Remedy, "free space there, or choose another folder with --cache") {
		t.Errorf("full half way: %v", err)
	}
}

// A server that falls silent in the middle of a file is given up, and asked again for the rest.
func TestPackagesThatStall(t *testing.T) {
	data := []byte(strings.Repeat("package ", 1000))
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			_, _ = w.Write(data[:4000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	defer s.Close()
	c, err := OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	item := Item{URL: s.URL + "/x.deb", Size: int64(len(data)), SHA256: fmt.Sprintf("%x", sha256.Sum256(data))}
	f := &Fetcher{Cache: c, Backoff: time.Millisecond, Stall: 100 * time.Millisecond, Tries: 1}
	if err := f.All(context.Background(), []Item{item}, nil); err == nil || !strings.Contains(err.Error(), "nothing came for 100ms") {
		t.Fatal(err)
	}
	if err := f.All(context.Background(), []Item{item}, nil); err != nil || asked.Load() != 2 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}
