// Package fetch brings what a build needs into a content-addressed cache: downloaded with resume, verified before it is
// kept.
package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Cache is a folder that many runs share. Whatever stands in it under its final name is complete: everything is written
// under another name first and renamed.
type Cache struct {
	dir     string
	session *flock.Flock // says to others that somebody uses the cache
}

// OpenCache opens the cache in dir, makes it if need be, and removes the work folders that dead runs left behind.
func OpenCache(dir string) (*Cache, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c := &Cache{dir: dir}
	for _, sub := range []string{"blobs/sha256", "downloads", "work", "locks", "records", "logs"} {
		if err := os.MkdirAll(c.Path(sub), 0o755); err != nil {
			return nil, Explain(err, dir)
		}
	}
	if err := c.open(); err != nil {
		return nil, err
	}
	c.sweep()
	return c, nil
}

// Dir is the cache's folder.
func (c *Cache) Dir() string { return c.dir }

// Path is a path inside the cache.
func (c *Cache) Path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// Blob is where the file with this SHA-256 (hex) is or will be kept.
func (c *Cache) Blob(sum string) string { return c.Path("blobs/sha256", sum[:2], sum) }

// Lock takes the lock of that name, which one process holds at a time; it waits for its turn until ctx ends, and says
// so. A process that dies lets go.
func (c *Cache) Lock(ctx context.Context, name string, scope *event.Scope) (unlock func(), err error) {
	l := flock.New(c.Path("locks", name+".lock"))
	ok, err := l.TryLock()
	if err == nil && !ok {
		scope.Logf("another run is working on this: waiting for it")
		ok, err = l.TryLockContext(ctx, 100*time.Millisecond)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, Explain(err, c.dir)
	}
	if !ok {
		return nil, fmt.Errorf("lock %s was not to be had", l.Path())
	}
	return func() { _ = l.Unlock() }, nil
}

// Work makes an empty folder for intermediate files. Release removes it; if the process dies first, the next OpenCache
// does.
func (c *Cache) Work(name string) (dir string, release func(), err error) {
	dir, err = os.MkdirTemp(c.Path("work"), name+"-")
	if err != nil {
		return "", nil, Explain(err, c.dir)
	}
	l := flock.New(dir + ".lock")
	if ok, err := l.TryLock(); err != nil || !ok {
		return "", nil, fmt.Errorf("lock %s: %w", l.Path(), err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", nil, err
	}
	return dir, func() {
		removeAll(dir)
		_ = os.Remove(l.Path())
		_ = l.Unlock()
	}, nil
}

// sweep removes work folders that nobody holds.
func (c *Cache) sweep() {
	entries, _ := os.ReadDir(c.Path("work"))
	for _, e := range entries {
		dir := c.Path("work", e.Name())
		if !e.IsDir() {
			if base, ok := strings.CutSuffix(dir, ".lock"); ok {
				if _, err := os.Stat(base); errors.Is(err, fs.ErrNotExist) {
					_ = os.Remove(dir)
				}
			}
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) < time.Second {
			continue // being made: its lock may not be taken yet
		}
		l := flock.New(dir + ".lock")
		if ok, err := l.TryLock(); err == nil && ok {
			removeAll(dir)
			_ = os.Remove(l.Path())
			_ = l.Unlock()
		}
	}
}

// removeAll removes a tree; what belongs to subordinate users of ours (see command.Command.Isolated) is removed as they.
func removeAll(dir string) {
	if err := os.RemoveAll(dir); err != nil && errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		_ = command.Run(context.Background(), command.Command{Name: "rm", Args: []string{"-rf", "--", dir}, Isolated: true, Offline: true}, nil)
	}
}

// Load reads the record of that kind and key into v; it reports whether there is one. A record that cannot be read
// counts as absent: its stage runs again.
func (c *Cache) Load(kind, key string, v any) bool {
	defer c.share()()
	path := c.record(kind, key)
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, v) != nil {
		return false
	}
	touch(path)
	return true
}

// Store writes the record of that kind and key.
func (c *Cache) Store(kind, key string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(c.record(kind, key), append(data, '\n'), 0o644)
}

func (c *Cache) record(kind, key string) string {
	return c.Path("records", kind, strings.NewReplacer("/", "_", ":", "_").Replace(key)+".json")
}

// WriteFile writes a file under a temporary name and renames it, and makes its folder.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return Explain(err, filepath.Dir(path))
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return Explain(err, filepath.Dir(path))
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return Explain(err, filepath.Dir(path))
}

// Space checks that the file system of dir has at least need bytes free, for what.
func Space(dir string, need int64, what string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return Explain(err, dir)
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return event.WithRemedy(fmt.Errorf("%s needs %s in %s, which has %s free", what, Size(need), dir, Size(free)),
			"free space there, or choose another folder with --cache")
	}
	return nil
}

// Explain gives an error of the file system the remedy that its reader needs.
func Explain(err error, dir string) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return event.WithRemedy(err, "the disk of %s is full: free space there, or choose another folder with --cache", dir)
	case errors.Is(err, fs.ErrPermission):
		return event.WithRemedy(err, "make %s writable for this user, or choose another folder with --cache", dir)
	}
	return err
}

// Size spells a number of bytes for people: "12.3 MiB".
func Size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < 5 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %s", v, []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}[unit])
}
