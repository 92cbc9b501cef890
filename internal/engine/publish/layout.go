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
	"sort"
	"time"

	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// refName is the annotation that names a tag in an index.json (image-spec, annotations.md).
const refName = "org.opencontainers.image.ref.name"

// directory is a folder of OCI image layouts, one a repository (image-spec, image-layout.md).
type directory struct{ dir string }

func (d *directory) String() string { return "dir:" + d.dir }

func (d *directory) Repository(name string) (Repository, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%q is no name of a repository", name)
	}
	return &laidOut{filepath.Join(d.dir, name)}, nil
}

type laidOut struct{ dir string }

func (l *laidOut) String() string { return "dir:" + l.dir }

func (l *laidOut) blob(h v1.Hash) string { return filepath.Join(l.dir, "blobs", h.Algorithm, h.Hex) }

// index reads index.json; without one the repository is empty.
func (l *laidOut) index() (*v1.IndexManifest, error) {
	data, err := os.ReadFile(filepath.Join(l.dir, "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return nil, event.WithRemedy(fmt.Errorf("%s/index.json: %w", l.dir, err), "move the folder away, or choose another with --registry dir:PATH")
	}
	return m, nil
}

func (l *laidOut) Get(_ context.Context, ref string) (*Manifest, error) {
	d := v1.Descriptor{}
	if h, err := v1.NewHash(ref); err == nil {
		d.Digest = h
	} else {
		m, err := l.index()
		if err != nil {
			return nil, err
		}
		for _, e := range m.Manifests {
			if e.Annotations[refName] == ref {
				d.Digest = e.Digest
			}
		}
		if d.Digest.Hex == "" {
			return nil, fmt.Errorf("%s:%s: %w", l, ref, ErrNotFound)
		}
	}
	raw, err := os.ReadFile(l.blob(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s@%s: %w", l, d.Digest, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != d.Digest.Hex {
		return nil, event.WithRemedy(fmt.Errorf("%s: its content is not its digest's: the layout is damaged", l.blob(d.Digest)), "remove that file and publish again")
	}
	var head struct {
		MediaType types.MediaType `json:"mediaType"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, fmt.Errorf("%s@%s: %w", l, d.Digest, err)
	}
	d.MediaType, d.Size = head.MediaType, int64(len(raw))
	return &Manifest{d, raw}, nil
}

func (l *laidOut) Image(ctx context.Context, ref string) (v1.Image, error) {
	m, err := l.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	return layout.Path(l.dir).Image(m.Digest)
}

func (l *laidOut) Blob(_ context.Context, digest v1.Hash) (io.ReadCloser, error) {
	f, err := os.Open(l.blob(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s@%s: %w", l, digest, ErrNotFound)
	}
	if err != nil {
		return nil, err
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
	if errors.Is(err, io.EOF) && hex.EncodeToString(v.sum.Sum(nil)) != v.digest.Hex {
		return n, fmt.Errorf("%s: its content is not its digest's", v.File.Name())
	}
	return n, err
}

func (l *laidOut) Push(ctx context.Context, img v1.Image, progress func(done, total int64)) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	var done, total int64
	for _, layer := range layers {
		n, err := layer.Size()
		if err != nil {
			return err
		}
		total += n
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return err
		}
		size, err := layer.Size()
		if err != nil {
			return err
		}
		if l.has(digest, size) {
			if done += size; progress != nil {
				progress(done, total)
			}
			continue
		}
		rc, err := layer.Compressed()
		if err != nil {
			return err
		}
		err = l.write(ctx, digest, rc, func(n int64) {
			if done += n; progress != nil {
				progress(done, total)
			}
		})
		_ = rc.Close()
		if err != nil {
			return err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	name, err := img.ConfigName()
	if err != nil {
		return err
	}
	if err := l.write(ctx, name, bytes.NewReader(config), nil); err != nil {
		return err
	}
	return l.manifest(ctx, img)
}

func (l *laidOut) PushIndex(ctx context.Context, index v1.ImageIndex) error {
	return l.manifest(ctx, index)
}

func (l *laidOut) manifest(ctx context.Context, m interface {
	RawManifest() ([]byte, error)
	Digest() (v1.Hash, error)
}) error {
	raw, err := m.RawManifest()
	if err != nil {
		return err
	}
	digest, err := m.Digest()
	if err != nil {
		return err
	}
	return l.write(ctx, digest, bytes.NewReader(raw), nil)
}

// has says whether a blob of that size is there.
func (l *laidOut) has(digest v1.Hash, size int64) bool {
	info, err := os.Stat(l.blob(digest))
	return err == nil && info.Size() == size
}

// write writes a blob under a name of its own, checks it and renames it. Two that write the same blob take turns; what a
// killed one left is written over.
func (l *laidOut) write(ctx context.Context, digest v1.Hash, r io.Reader, count func(int64)) error {
	path := l.blob(digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return l.explain(err)
	}
	part := path + ".part"
	lock := flock.New(part)
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return l.explain(err)
	}
	defer func() { _ = lock.Unlock() }()
	if _, err := os.Stat(path); err == nil {
		_ = os.Remove(part)
		return nil // somebody else was faster, or it was there
	}
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return l.explain(err)
	}
	defer f.Close()
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, rerr := r.Read(buf)
		if n > 0 {
			sum.Write(buf[:n])
			if _, err := f.Write(buf[:n]); err != nil {
				return l.explain(err)
			}
			if count != nil {
				count(int64(n))
			}
		}
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return rerr
		}
	}
	if found := hex.EncodeToString(sum.Sum(nil)); found != digest.Hex {
		return fmt.Errorf("expected content of %s, got sha256:%s", digest, found)
	}
	if err := f.Close(); err != nil {
		return l.explain(err)
	}
	return l.explain(os.Rename(part, path))
}

func (l *laidOut) Tag(ctx context.Context, tag string, m *Manifest) error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return l.explain(err)
	}
	lock := flock.New(filepath.Join(l.dir, ".lock"))
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return l.explain(err)
	}
	defer func() { _ = lock.Unlock() }()
	index, err := l.index()
	if err != nil {
		return err
	}
	kept := index.Manifests[:0]
	for _, e := range index.Manifests {
		if e.Annotations[refName] != tag {
			kept = append(kept, e)
		}
	}
	entry := v1.Descriptor{MediaType: m.Descriptor.MediaType, Digest: m.Digest, Size: int64(len(m.Raw)), Annotations: map[string]string{refName: tag}}
	index.Manifests = append(kept, entry)
	sort.SliceStable(index.Manifests, func(i, j int) bool {
		return index.Manifests[i].Annotations[refName] < index.Manifests[j].Annotations[refName]
	})
	data, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	if err := l.replace("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	return l.replace("index.json", append(data, '\n'))
}

// replace writes one of the layout's files in one step; the caller holds the lock.
func (l *laidOut) replace(name string, data []byte) error {
	path := filepath.Join(l.dir, name)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	next := filepath.Join(l.dir, "."+name+".new")
	if err := os.WriteFile(next, data, 0o644); err != nil {
		return l.explain(err)
	}
	return l.explain(os.Rename(next, path))
}

func (l *laidOut) Tags(context.Context) ([]string, error) {
	index, err := l.index()
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, e := range index.Manifests {
		if tag := e.Annotations[refName]; tag != "" {
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

func (l *laidOut) explain(err error) error {
	if err == nil {
		return nil
	}
	return event.WithRemedy(fmt.Errorf("the OCI layout %s: %w", l.dir, err), "make room and rights there, or choose another folder with --registry dir:PATH")
}
