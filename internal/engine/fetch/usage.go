package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// Kinds of what a cache holds.
const (
	KindBlob     = "blob"     // a verified file
	KindDisk     = "disk"     // a finished disk
	KindDownload = "download" // the part of a file that can go on
	KindLog      = "log"      // the logs of a run
	KindRun      = "run"      // the recording of a run
	KindUpstream = "upstream" // what upstream answered
	KindWork     = "work"     // what a run is working on
	KindRecord   = "record"   // what the cache remembers; never pruned by itself
)

// Entry is one thing that a cache holds.
type Entry struct {
	Kind string    `json:"kind"`
	Path string    `json:"path"` // inside the cache
	Size int64     `json:"size"` // bytes on disk: holes count nothing
	Used time.Time `json:"used"` // when it was made or last asked for
	Of   string    `json:"of,omitempty"`
	Busy bool      `json:"busy"` // a running process uses it, or may do so

	lock string // name of the lock that its users hold
}

// How the cache knows what is in use. Every open cache holds the lock of a file locks/run-*.lock until its process ends.
// Who asks for a blob or a record sets its access time, under a lock that others may hold as well but nobody while
// things are removed. What was asked for since the oldest of the running processes began may be in use.

// open says that this process uses the cache from now on.
func (c *Cache) open() error {
	f, err := os.CreateTemp(c.Path("locks"), "run-*.new")
	if err != nil {
		return Explain(err, c.dir)
	}
	defer f.Close()
	l := flock.New(f.Name())
	if ok, err := l.TryLock(); err != nil || !ok {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	c.session = l // held until the process ends
	return Explain(os.Rename(f.Name(), strings.TrimSuffix(f.Name(), ".new")+".lock"), c.dir)
}

// Close says that this process uses the cache no more. A process that ends need not say so.
func (c *Cache) Close() error { return c.session.Unlock() }

// since is when the oldest running user of the cache opened it; what ended runs left of themselves is removed.
func (c *Cache) since() time.Time {
	oldest := time.Now()
	entries, _ := os.ReadDir(c.Path("locks"))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !strings.HasPrefix(e.Name(), "run-") {
			continue
		}
		name := c.Path("locks", e.Name())
		if strings.HasSuffix(name, ".new") && time.Since(info.ModTime()) < time.Minute {
			oldest = earlier(oldest, info.ModTime()) // its lock may not be taken yet
			continue
		}
		l := flock.New(name)
		if ok, err := l.TryLock(); err == nil && ok {
			_ = os.Remove(name)
			_ = l.Unlock()
			continue
		}
		oldest = earlier(oldest, info.ModTime())
	}
	return oldest
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// share keeps others from removing anything until it is called back.
func (c *Cache) share() (done func()) {
	l := flock.New(c.Path("locks", "prune.lock"))
	if l.RLock() != nil {
		return func() {}
	}
	return func() { _ = l.Unlock() }
}

// has reports whether a blob of that size is there, and notes that somebody asked. The caller holds share.
func (c *Cache) has(sum string, size int64) bool {
	blob := c.Blob(sum)
	info, err := os.Stat(blob)
	if err != nil || info.Size() != size {
		return false
	}
	touch(blob)
	return true
}

// touch sets the access time, and leaves the time of the last change as it is.
func touch(path string) {
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_OMIT}}, 0)
}

// used is when a file was written or last asked for.
func used(info fs.FileInfo) time.Time {
	t := info.ModTime()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if a := time.Unix(st.Atim.Unix()); a.After(t) {
			t = a
		}
	}
	return t
}

// List is everything that the cache holds, the kinds in the order of the constants, what was used last first. What
// vanishes meanwhile is left out.
func (c *Cache) List() ([]Entry, error) {
	of, disks := c.known()
	var list []Entry
	add := func(e Entry, paths ...string) {
		for _, p := range paths {
			size, written, asked := c.measure(p)
			e.Size += size
			e.Used = later(e.Used, written)
			if e.Kind == KindBlob || e.Kind == KindUpstream { // of the others, a look is no use
				e.Used = later(e.Used, asked)
			}
		}
		e.Path = strings.TrimPrefix(paths[0], c.dir+"/")
		if e.Size > 0 || !e.Used.IsZero() {
			list = append(list, e)
		}
	}
	for _, p := range c.glob("blobs/sha256/*/*") {
		name := filepath.Base(p)
		if sum, ok := strings.CutSuffix(name, ".part"); ok {
			add(Entry{Kind: KindDownload, Of: "sha256:" + sum, lock: "blob-" + sum[:min(2, len(sum))]}, p)
			continue
		}
		add(Entry{Kind: KindBlob, Of: of[name]}, p)
	}
	for _, p := range c.glob("disks/*") {
		key := filepath.Base(p)
		e := Entry{Kind: KindDisk, Of: disks[key], lock: "content-" + key}
		if info, err := os.Stat(c.record("disks", key)); err == nil {
			e.Used = used(info)
		}
		add(e, p)
	}
	for _, p := range c.glob("downloads/*.part") {
		var m mark
		if data, err := os.ReadFile(p + ".json"); err == nil {
			_ = json.Unmarshal(data, &m)
		}
		what := m.URL
		if m.Total > 0 {
			what += ", of " + Size(m.Total)
		}
		add(Entry{Kind: KindDownload, Of: what, lock: "image-" + strings.TrimSuffix(filepath.Base(p), ".part")}, p, p+".json")
	}
	for _, p := range c.glob("logs/*") {
		add(Entry{Kind: KindLog, Of: "run " + filepath.Base(p)}, p)
	}
	for _, p := range c.glob("runs/*.ndjson") {
		add(Entry{Kind: KindRun, Of: "recording " + strings.TrimSuffix(filepath.Base(p), ".ndjson")}, p)
	}
	for _, p := range c.glob("upstream/*") {
		add(Entry{Kind: KindUpstream, Of: filepath.Base(p), lock: "upstream-" + filepath.Base(p)}, p)
	}
	for _, p := range c.glob("work/*") {
		if info, err := os.Stat(p); err == nil && info.IsDir() {
			add(Entry{Kind: KindWork, Busy: true}, p)
		}
	}
	for _, p := range c.glob("records/*") {
		add(Entry{Kind: KindRecord, Of: filepath.Base(p)}, p)
	}
	since := c.since()
	order := []string{KindBlob, KindDisk, KindDownload, KindLog, KindRun, KindUpstream, KindWork, KindRecord}
	for i := range list {
		list[i].Busy = list[i].Busy || !list[i].Used.Before(since) || c.locked(list[i].lock)
	}
	slices.SortStableFunc(list, func(a, b Entry) int {
		if a.Kind != b.Kind {
			return slices.Index(order, a.Kind) - slices.Index(order, b.Kind)
		}
		return b.Used.Compare(a.Used)
	})
	return list, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (c *Cache) glob(pattern string) []string {
	list, _ := filepath.Glob(filepath.Join(escapeGlob(c.dir), pattern))
	return list
}

// escapeGlob keeps the characters of a folder's name from being a pattern.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// measure is the bytes on disk of a file or tree, and when any of its files was written and asked for last.
func (c *Cache) measure(path string) (size int64, written, asked time.Time) {
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			size += st.Blocks * 512
		}
		written = later(written, info.ModTime())
		if !d.IsDir() {
			asked = later(asked, used(info))
		}
		return nil
	})
	return size, written, asked
}

// known tells what blobs (by SHA-256) and disks (by key) are of, as far as there are records.
func (c *Cache) known() (blobs, disks map[string]string) {
	blobs, disks = map[string]string{}, map[string]string{}
	for _, p := range c.glob("records/" + fetchedKind + "/*.json") {
		var r record
		if data, err := os.ReadFile(p); err == nil && json.Unmarshal(data, &r) == nil {
			blobs[r.SHA256] = r.URL
		}
	}
	for _, p := range c.glob("records/history/*.json") {
		var keys []string
		if data, err := os.ReadFile(p); err == nil && json.Unmarshal(data, &keys) == nil {
			for _, k := range keys {
				disks[k] = strings.TrimSuffix(filepath.Base(p), ".json")
			}
		}
	}
	return blobs, disks
}

// locked reports whether somebody holds that lock.
func (c *Cache) locked(name string) bool {
	if _, err := os.Stat(c.Path("locks", name+".lock")); name == "" || errors.Is(err, fs.ErrNotExist) {
		return false
	}
	unlock, ok := c.tryLock(name)
	unlock()
	return !ok
}

// tryLock takes a lock if it is free; "" always is.
func (c *Cache) tryLock(name string) (unlock func(), ok bool) {
	if name == "" {
		return func() {}, true
	}
	l := flock.New(c.Path("locks", name+".lock"))
	if ok, err := l.TryLock(); err != nil || !ok {
		return func() {}, false
	}
	return func() { _ = l.Unlock() }, true
}

// Limits say what Prune leaves.
type Limits struct {
	Older  time.Duration // what was not used for so long goes
	Keep   int64         // bytes that may stay; beyond that, what was used least recently goes first; 0: no limit
	DryRun bool          // only say what would go
	Now    time.Time     // zero: time.Now()
}

// Prune removes what the limits do not leave and no running process uses, and returns it in the order of removal.
// Records of people's decisions, and of days that digests depend on, stay.
func (c *Cache) Prune(ctx context.Context, l Limits) (removed []Entry, err error) {
	if l.Now.IsZero() {
		l.Now = time.Now()
	}
	lock := flock.New(c.Path("locks", "prune.lock"))
	if ok, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil || !ok {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, Explain(err, c.dir)
	}
	defer func() { _ = lock.Unlock() }()
	list, err := c.List()
	if err != nil {
		return nil, err
	}
	var total int64
	for _, e := range list {
		total += e.Size
	}
	slices.SortStableFunc(list, func(a, b Entry) int { return a.Used.Compare(b.Used) })
	for _, e := range list {
		if ctx.Err() != nil {
			return removed, context.Cause(ctx)
		}
		if e.Busy || e.Kind == KindRecord || e.Kind == KindWork || l.Now.Sub(e.Used) < l.Older && (l.Keep <= 0 || total <= l.Keep) {
			continue
		}
		gone, err := c.remove(e, l.DryRun)
		if err != nil {
			return removed, err
		}
		if gone {
			total -= e.Size
			removed = append(removed, e)
		}
	}
	return removed, nil
}

// remove removes an entry unless somebody took its lock meanwhile. Its record goes first: what is half gone is not
// believed.
func (c *Cache) remove(e Entry, dry bool) (bool, error) {
	unlock, ok := c.tryLock(e.lock)
	if !ok {
		return false, nil
	}
	defer unlock()
	if dry {
		return true, nil
	}
	path := c.Path(e.Path)
	gone := []string{path}
	switch e.Kind {
	case KindDisk:
		gone = []string{c.record("disks", filepath.Base(path)), path}
	case KindDownload:
		gone = append(gone, path+".json")
	case KindBlob:
		gone = append(c.recordsOf(filepath.Base(path)), path)
	}
	for _, p := range gone {
		if err := os.RemoveAll(p); err != nil {
			return false, Explain(err, c.dir)
		}
	}
	return true, nil
}

// recordsOf are the records of images whose blob this is.
func (c *Cache) recordsOf(sum string) (list []string) {
	for _, p := range c.glob("records/" + fetchedKind + "/*.json") {
		var r record
		if data, err := os.ReadFile(p); err == nil && json.Unmarshal(data, &r) == nil && r.SHA256 == sum {
			list = append(list, p)
		}
	}
	return list
}
