package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// refName is the annotation that names a tag in an index.json (image-spec, annotations.md).
const refName = "org.opencontainers.image.ref.name"

// folder is a folder of OCI image layouts, one a repository (image-spec, image-layout.md).
type folder struct{ dir string }

func (f *folder) String() string { return "dir:" + f.dir }

func (f *folder) Repository(name string) (Repository, error) {
	if !repositoryForm.MatchString(name) {
		return nil, fmt.Errorf("%q is not a name for a repository", name)
	}
	return &laidOut{dir: filepath.Join(f.dir, name), held: filepath.Join(f.dir, ".locks", name+".lock")}, nil
}

type laidOut struct {
	dir  string
	held string // the file that is locked while tags are decided about
}

func (l *laidOut) String() string                  { return "dir:" + l.dir }
func (l *laidOut) Reference(digest v1.Hash) string { return l.String() + "@" + digest.String() }

func (l *laidOut) blob(h v1.Hash) string { return filepath.Join(l.dir, "blobs", h.Algorithm, h.Hex) }

// lock keeps everybody else's releases out of the repository.
func (l *laidOut) lock(ctx context.Context) (unlock func(), err error) { return l.locked(ctx, l.held) }

func (l *laidOut) locked(ctx context.Context, path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, l.explain(err)
	}
	lock := flock.New(path)
	if _, err := lock.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, l.explain(err)
	}
	return func() { _ = lock.Unlock() }, nil
}

// index reads index.json; without one the repository is empty.
func (l *laidOut) index() (*v1.IndexManifest, error) {
	data, err := os.ReadFile(filepath.Join(l.dir, "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}, nil
	}
	if err != nil {
		return nil, l.explain(err)
	}
	m, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return nil, event.WithRemedy(fmt.Errorf("%s/index.json: %w", l.dir, err), "move the folder away, or choose another with --registry dir:PATH")
	}
	return m, nil
}

func (l *laidOut) Head(ctx context.Context, ref string) (*v1.Descriptor, error) {
	m, err := l.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &m.Descriptor, nil
}

func (l *laidOut) Get(_ context.Context, ref string) (*Manifest, error) {
	digest, ok := hashRef(ref)
	if !ok {
		m, err := l.index()
		if err != nil {
			return nil, err
		}
		for _, e := range m.Manifests {
			if e.Annotations[refName] == ref {
				digest, ok = e.Digest, true
			}
		}
		if !ok {
			return nil, fmt.Errorf("%s:%s: %w", l, ref, ErrNotFound)
		}
	}
	info, err := os.Stat(l.blob(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", l.Reference(digest), ErrNotFound)
	}
	if err != nil {
		return nil, l.explain(err)
	}
	if info.Size() > maxManifest {
		return nil, fmt.Errorf("%s: a manifest of %d bytes: more than %d are not accepted", l.Reference(digest), info.Size(), maxManifest)
	}
	raw, err := os.ReadFile(l.blob(digest))
	if err != nil {
		return nil, l.explain(err)
	}
	m, err := newManifest(raw, "", digest)
	if errors.Is(err, ErrContent) {
		return nil, event.WithRemedy(fmt.Errorf("%s: %w", l.blob(digest), err), "the layout is damaged: remove that file and publish again")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l, err)
	}
	return m, nil
}

func (l *laidOut) Image(ctx context.Context, ref string) (v1.Image, error) { return image(ctx, l, ref) }

func (l *laidOut) Index(ctx context.Context, ref string) (v1.ImageIndex, error) {
	return index(ctx, l, ref)
}

func (l *laidOut) Blob(_ context.Context, digest v1.Hash) (io.ReadCloser, error) {
	f, err := os.Open(l.blob(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", l.Reference(digest), ErrNotFound)
	}
	if err != nil {
		return nil, l.explain(err)
	}
	return &verified{f, sha256.New(), digest}, nil
}

// verified is a file whose end is an error if what was read is not the digest's.
type verified struct {
	*os.File
	sum    hash.Hash
	digest v1.Hash
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.File.Read(p)
	v.sum.Write(p[:n])
	if errors.Is(err, io.EOF) {
		if found := hex.EncodeToString(v.sum.Sum(nil)); found != v.digest.Hex {
			return n, event.WithRemedy(fmt.Errorf("%s: %w: found sha256:%s", v.Name(), ErrContent, found), "the layout is damaged: remove that file and publish again")
		}
	}
	return n, err
}

// WriteTo must not be the file's own, which would go around the hash.
func (v *verified) WriteTo(w io.Writer) (int64, error) {
	return io.CopyBuffer(w, struct{ io.Reader }{v}, make([]byte, 1<<20))
}

// create makes the layout's own files, once.
func (l *laidOut) create(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755); err != nil {
		return l.explain(err)
	}
	l.sweep()
	if _, err := os.Stat(filepath.Join(l.dir, "index.json")); err == nil {
		return nil
	}
	return l.edit(ctx, func(m *v1.IndexManifest) {})
}

// edit changes index.json under a lock of its own, and writes it in one step.
func (l *laidOut) edit(ctx context.Context, change func(*v1.IndexManifest)) error {
	unlock, err := l.locked(ctx, l.held+".index")
	if err != nil {
		return err
	}
	defer unlock()
	m, err := l.index()
	if err != nil {
		return err
	}
	change(m)
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	// image-spec, image-layout.md, "oci-layout file"
	if _, err := os.Stat(filepath.Join(l.dir, "oci-layout")); err != nil {
		if err := l.replace("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
			return err
		}
	}
	return l.replace("index.json", append(data, '\n'))
}

// replace writes one of the layout's files in one step.
func (l *laidOut) replace(name string, data []byte) error {
	path := filepath.Join(l.dir, name)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	f, err := os.CreateTemp(l.dir, parts+"*")
	if err != nil {
		return l.explain(err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return l.explain(err)
	}
	d, err := os.Open(l.dir)
	if err != nil {
		return l.explain(err)
	}
	return l.explain(errors.Join(d.Sync(), d.Close()))
}

// parts is how the names of unfinished files begin.
const parts = ".part-"

// sweep removes what runs that were killed left unfinished: files that nobody holds and nobody touched for an hour.
func (l *laidOut) sweep() {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !strings.HasPrefix(e.Name(), parts) || time.Since(info.ModTime()) < time.Hour {
			continue
		}
		path := filepath.Join(l.dir, e.Name())
		lock := flock.New(path)
		if ok, err := lock.TryLock(); err == nil && ok {
			_ = os.Remove(path)
			_ = lock.Unlock()
		}
	}
}

func (l *laidOut) Push(ctx context.Context, what any, progress func(done, total int64)) error {
	u, err := newUpload(what)
	if err != nil {
		return err
	}
	if err := l.create(ctx); err != nil {
		return err
	}
	var done int64
	count := func(n int64) {
		if done += n; progress != nil {
			progress(done, u.total)
		}
	}
	for _, layer := range u.layers {
		digest, err := layer.Digest()
		if err != nil {
			return err
		}
		size, err := layer.Size()
		if err != nil {
			return err
		}
		if l.has(digest, size) {
			count(size)
			continue
		}
		rc, err := layer.Compressed()
		if err != nil {
			return err
		}
		err = l.write(ctx, digest, rc, count)
		if err = errors.Join(err, rc.Close()); err != nil {
			return err
		}
	}
	for _, digest := range u.elsewhere {
		if _, err := l.Head(ctx, digest.String()); err != nil {
			return fmt.Errorf("image %s, which the index lists: %w", digest, err)
		}
	}
	for _, m := range u.manifests {
		if l.has(m.Digest, m.Size) {
			continue
		}
		if err := l.write(ctx, m.Digest, bytes.NewReader(m.Raw), func(int64) {}); err != nil {
			return err
		}
	}
	return nil
}

// has says whether a blob of that size is there; then it counts as written now.
func (l *laidOut) has(digest v1.Hash, size int64) bool {
	info, err := os.Stat(l.blob(digest))
	if err != nil || info.Size() != size {
		return false
	}
	now := time.Now()
	return os.Chtimes(l.blob(digest), now, now) == nil || time.Since(info.ModTime()) < grace/2
}

// write writes a blob under a name of its own, checks it and renames it.
func (l *laidOut) write(ctx context.Context, digest v1.Hash, r io.Reader, count func(int64)) error {
	f, err := os.CreateTemp(l.dir, parts+"*")
	if err != nil {
		return l.explain(err)
	}
	defer func() { _ = os.Remove(f.Name()); _ = f.Close() }()
	alive := flock.New(f.Name())
	if _, err := alive.TryLock(); err != nil {
		return l.explain(err)
	}
	defer func() { _ = alive.Unlock() }()
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, rerr := r.Read(buf)
		sum.Write(buf[:n])
		if _, err := f.Write(buf[:n]); err != nil {
			return l.explain(err)
		}
		if n > 0 {
			count(int64(n))
		}
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return rerr
		}
	}
	if found := hex.EncodeToString(sum.Sum(nil)); found != digest.Hex {
		return fmt.Errorf("%w: expected %s, found sha256:%s", ErrContent, digest, found)
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync()); err != nil {
		return l.explain(err)
	}
	return l.explain(os.Rename(f.Name(), l.blob(digest)))
}

func (l *laidOut) Tag(ctx context.Context, digest v1.Hash, tags ...string) error {
	for _, tag := range tags {
		if !tagForm.MatchString(tag) {
			return fmt.Errorf("%q is not a tag", tag)
		}
	}
	m, err := l.Get(ctx, digest.String())
	if err != nil {
		return err
	}
	return l.edit(ctx, func(index *v1.IndexManifest) {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(e v1.Descriptor) bool { return slices.Contains(tags, e.Annotations[refName]) })
		for _, tag := range tags {
			index.Manifests = append(index.Manifests, v1.Descriptor{MediaType: m.Descriptor.MediaType, Digest: m.Digest, Size: m.Size,
				Annotations: map[string]string{refName: tag}})
		}
		slices.SortStableFunc(index.Manifests, func(a, b v1.Descriptor) int { return strings.Compare(a.Annotations[refName], b.Annotations[refName]) })
	})
}

func (l *laidOut) Tags(context.Context) ([]string, error) {
	m, err := l.index()
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, e := range m.Manifests {
		if tag := e.Annotations[refName]; tag != "" {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags), nil
}

// at lists the tags that point at a digest.
func (l *laidOut) at(digest v1.Hash) ([]string, error) {
	m, err := l.index()
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, e := range m.Manifests {
		if tag := e.Annotations[refName]; tag != "" && e.Digest == digest {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	return tags, nil
}

func (l *laidOut) explain(err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("the OCI layout %s: %w", l.dir, err)
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return event.WithRemedy(err, "make room there, or choose another folder with --registry dir:PATH")
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		return event.WithRemedy(err, "get the right to write there, or choose another folder with --registry dir:PATH")
	}
	return event.WithRemedy(err, "choose another folder with --registry dir:PATH")
}
