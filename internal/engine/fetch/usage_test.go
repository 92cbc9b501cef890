package fetch

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The test binary is also another process that uses a cache until its standard input ends.
func TestMain(m *testing.M) {
	if dir := os.Getenv("KMI_TEST_CACHE_USER"); dir != "" {
		c, err := OpenCache(dir)
		if err != nil {
			panic(err)
		}
		if sum := os.Getenv("KMI_TEST_CACHE_BLOB"); sum != "" {
			done := c.share()
			c.has(sum, 1000)
			done()
		}
		os.Stdout.WriteString("ready\n")
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	if os.Getenv("KMI_BENCH") != "" {
		benchProcess()
	}
	os.Exit(m.Run())
}

// user starts another process that uses the cache; stop ends it, by SIGKILL.
func user(t *testing.T, c *Cache, blob string) (stop func()) {
	t.Helper()
	p := exec.Command(os.Args[0])
	p.Env = append(os.Environ(), "KMI_TEST_CACHE_USER="+c.Dir(), "KMI_TEST_CACHE_BLOB="+blob)
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = p.Process.Kill()
		_ = p.Wait()
		_ = in.Close()
	}
}

// put makes a file of a kilobyte in the cache that was used so long ago.
func put(t *testing.T, c *Cache, path string, ago time.Duration) {
	t.Helper()
	if err := WriteFile(c.Path(path), make([]byte, 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	when := time.Now().Add(-ago)
	for p := c.Path(path); p != c.Dir(); p = filepath.Dir(p) {
		if err := os.Chtimes(p, when, when); err != nil {
			t.Fatal(err)
		}
	}
}

func paths(list []Entry) (names []string) {
	for _, e := range list {
		names = append(names, strings.ReplaceAll(e.Path, strings.Repeat("0", 62), "0"))
	}
	return names
}

const day = 24 * time.Hour

func blobName(letter string) string { return letter + letter + strings.Repeat("0", 62) }

func blobPath(letter string) string {
	return "blobs/sha256/" + letter + letter + "/" + blobName(letter)
}

// filled is a cache with one of everything, used 10 to 80 days ago.
func filled(t *testing.T) *Cache {
	t.Helper()
	c := cache(t)
	if err := c.Store(fetchedKind, "k", record{Fetched: Fetched{SHA256: blobName("a"), URL: "https://example.org/a.qcow2"}}); err != nil {
		t.Fatal(err)
	}
	put(t, c, blobPath("a"), 10*day)
	put(t, c, blobPath("b"), 20*day)
	put(t, c, blobPath("c")+".part", 30*day)
	put(t, c, "downloads/dd.part", 40*day)
	if err := WriteFile(c.Path("downloads/dd.part.json"), []byte(`{"url":"https://example.org/d.iso","total":4096}`), 0o644); err != nil {
		t.Fatal(err)
	}
	put(t, c, "downloads/ee.part", 40*day)
	put(t, c, "logs/run1/debian/fetch.log", 50*day)
	put(t, c, "upstream/name1/memory", 60*day)
	put(t, c, "disks/key1/disk.qcow2", 70*day)
	put(t, c, "records/disks/key1.json", 80*day)
	if err := c.Store("history", "debian:12/x86_64", []string{"key1"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Store("pulled", "key1", time.Now()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestList(t *testing.T) {
	c := filled(t)
	list, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		if e.Kind != KindRecord {
			got = append(got, e.Kind+" "+e.Of)
		}
		if e.Size < 1000 || e.Size > 20_000 {
			t.Errorf("%s: %d bytes", e.Path, e.Size)
		}
	}
	want := []string{"blob https://example.org/a.qcow2", "blob ", "download https://example.org/d.iso, of 4.0 KiB", "download sha256:" + blobName("c"), "download ",
		"disk debian_12_x86_64", "log run run1", "upstream name1"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPruneByAge(t *testing.T) {
	c := filled(t)
	dry, err := c.Prune(context.Background(), Limits{Older: 25 * day, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	removed, err := c.Prune(context.Background(), Limits{Older: 25 * day})
	want := []string{"disks/key1", "upstream/name1", "logs/run1", "downloads/ee.part", "blobs/sha256/cc/cc0.part"}
	if err != nil || !slices.Equal(paths(removed), want) || !slices.Equal(paths(dry), want) {
		t.Errorf("removed %v, said before %v, want %v: %v", paths(removed), paths(dry), want, err)
	}
	for _, e := range removed {
		if _, err := os.Stat(c.Path(e.Path)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there", e.Path)
		}
	}
	var v any
	if c.Load("disks", "key1", &v) || !c.Load("pulled", "key1", &v) || !c.Load(fetchedKind, "k", &v) {
		t.Error("the record of the disk has to go, those of its day and of the blob have to stay")
	}
	removed, err = c.Prune(context.Background(), Limits{Older: 5 * day})
	if err != nil || !slices.Equal(paths(removed), []string{blobPathShort("b"), blobPathShort("a")}) || c.Load(fetchedKind, "k", &v) {
		t.Errorf("removed %v: %v", paths(removed), err)
	}
}

func blobPathShort(letter string) string {
	return strings.ReplaceAll(blobPath(letter), strings.Repeat("0", 62), "0")
}

func TestPruneBySize(t *testing.T) {
	c := filled(t)
	list, _ := c.List()
	var total int64
	for _, e := range list {
		total += e.Size
	}
	removed, err := c.Prune(context.Background(), Limits{Older: 365 * day, Keep: total - 1})
	if err != nil || !slices.Equal(paths(removed), []string{"disks/key1"}) {
		t.Errorf("removed %v: %v", paths(removed), err)
	}
	if removed, err = c.Prune(context.Background(), Limits{Older: 365 * day}); err != nil || len(removed) != 0 {
		t.Errorf("removed %v: %v", paths(removed), err)
	}
}

// What a running process asked for stays, however old it is; what it holds the lock of, too.
func TestPruneLeavesWhatIsInUse(t *testing.T) {
	c := filled(t)
	stop := user(t, c, blobName("b"))
	defer func() { stop() }()
	unlock, err := c.Lock(context.Background(), "image-ee", nil)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	c.Load("disks", "key1", &v) // as a run does that finds its disk there
	work, release, err := c.Work("disk")
	if err != nil {
		t.Fatal(err)
	}
	removed, err := c.Prune(context.Background(), Limits{Older: 0})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range removed {
		if e.Kind == KindDisk || strings.HasSuffix(e.Path, blobName("b")) || e.Path == "downloads/ee.part" {
			t.Errorf("%s was removed", e.Path)
		}
	}
	for _, p := range []string{c.Path("disks/key1/disk.qcow2"), c.Path(blobPath("b")), c.Path("downloads/ee.part"), work} {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(c.Path(blobPath("a"))); err == nil {
		t.Error("the blob that nobody uses is still there")
	}
	unlock()
	release()
	stop()
	stop = func() {}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err = OpenCache(c.Dir()); err != nil { // as the next call of the program does
		t.Fatal(err)
	}
	if _, err = c.Prune(context.Background(), Limits{Older: 0}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{c.Path("disks/key1"), c.Path(blobPath("b")), c.Path("downloads/ee.part")} {
		if _, err := os.Stat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there", p)
		}
	}
	if runs := c.glob("locks/run-*"); len(runs) != 1 {
		t.Errorf("dead runs are still noted: %v", runs)
	}
}

func TestPruneWaitsItsTurn(t *testing.T) {
	c := filled(t)
	done := c.share()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Prune(ctx, Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	done()
	if removed, err := c.Prune(context.Background(), Limits{Older: 90 * day}); err != nil || len(removed) != 0 {
		t.Errorf("%v, %v", paths(removed), err)
	}
}
