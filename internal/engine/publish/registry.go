// Package publish brings images to a registry, or to a folder of OCI image layouts, and reads back what is there. Nothing
// is tagged before it was read back and verified.
package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

var (
	// ErrNotFound is the error of a tag or digest that the repository does not have.
	ErrNotFound = errors.New("not found")
	// ErrContent is the error of content that is not what its digest or size says.
	ErrContent = errors.New("the content is not what its digest says")
)

// maxManifest is the size in bytes of the largest manifest that is accepted, and of the largest configuration. Registries
// have to take 4 megabytes (OCI distribution-spec 1.1, Pushing Manifests) and take no more than 4 MiB (distribution,
// registry/handlers/manifests.go).
const maxManifest = 4 << 20

// Registry holds repositories.
type Registry interface {
	// Repository is the repository of that name: a flavor's id.
	Repository(name string) (Repository, error)
	String() string // HOST/PATH or dir:PATH
}

// Repository holds images and indexes by digest, and tags that point at them. Where a method takes ref, it is a tag or a
// digest ("sha256:HEX"). Errors are sentences with a remedy; ErrNotFound and ErrContent can be told from the others.
type Repository interface {
	String() string                  // what users pull, without tag
	Reference(digest v1.Hash) string // what users pull, by digest
	// Writable says, before hours of work, whether something could be pushed here. Nothing of it stays.
	Writable(ctx context.Context) error
	// Head tells type, digest and size of a manifest.
	Head(ctx context.Context, ref string) (*v1.Descriptor, error)
	// Get reads a manifest and checks it against its digest.
	Get(ctx context.Context, ref string) (*Manifest, error)
	// Image is an image whose layers are read when they are used.
	Image(ctx context.Context, ref string) (v1.Image, error)
	// Index is an index whose images are read when they are used.
	Index(ctx context.Context, ref string) (v1.ImageIndex, error)
	// Blob opens a blob. What is read is checked against the digest; the error is ErrContent at the end of what differs.
	Blob(ctx context.Context, digest v1.Hash) (io.ReadCloser, error)
	// Push writes a v1.Image, or a v1.ImageIndex with the images that it holds, by digest and without tag: blobs first,
	// then manifests; those already there are not written again. The images that an index lists and does not hold have to
	// be there. progress, which may be nil, is given bytes of the layers, and less done again where an upload starts anew.
	// What is larger than the registry takes is refused whole: *LimitError.
	Push(ctx context.Context, what any, progress func(done, total int64)) error
	// Tag points tags at a manifest that is there. In a folder all of them move at once or none; in a registry they move
	// in their order, and if one does not, the error is a *TagError.
	Tag(ctx context.Context, digest v1.Hash, tags ...string) error
	// Remove takes tags away, and then manifests. Whoever calls knows that no other tag points at those: registries that
	// cannot remove a tag remove every tag of a manifest with it. In a folder, blobs that nothing needs any more go, too.
	// What is gone already is no error.
	Remove(ctx context.Context, tags []string, manifests []v1.Hash) error
	// Tags lists the tags in alphabetical order; none when the repository does not exist.
	Tags(ctx context.Context) ([]string, error)
}

// TagError is the error of tags that could not all be moved.
type TagError struct {
	Digest v1.Hash  // where they were to point
	Moved  []string // those that point there now
	Tag    string   // the one that could not be moved; those after it were not tried
	Err    error
}

func (e *TagError) Error() string { return fmt.Sprintf("tag %s: %v", e.Tag, e.Err) }
func (e *TagError) Unwrap() error { return e.Err }

// Manifest is a manifest as it is stored.
type Manifest struct {
	v1.Descriptor
	Raw []byte
}

// RawManifest and MediaType make a Manifest something that can be written again as it is.
func (m *Manifest) RawManifest() ([]byte, error)        { return m.Raw, nil }
func (m *Manifest) MediaType() (types.MediaType, error) { return m.Descriptor.MediaType, nil }

// newManifest describes a manifest by its content. want is its digest where it is known.
func newManifest(raw []byte, mt types.MediaType, want v1.Hash) (*Manifest, error) {
	if len(raw) > maxManifest {
		return nil, fmt.Errorf("a manifest of %d bytes: more than %d are not accepted", len(raw), maxManifest)
	}
	sum := sha256.Sum256(raw)
	found := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
	if want.Hex != "" && want != found {
		return nil, fmt.Errorf("%w: expected %s, found %s", ErrContent, want, found)
	}
	var head struct {
		MediaType types.MediaType   `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, fmt.Errorf("the manifest %s is not one: %w", found, err)
	}
	switch {
	case head.MediaType != "":
		mt = head.MediaType
	case mt == "" && head.Manifests != nil: // OCI has it optional
		mt = types.OCIImageIndex
	case mt == "":
		mt = types.OCIManifestSchema1
	}
	return &Manifest{v1.Descriptor{MediaType: mt, Digest: found, Size: int64(len(raw))}, raw}, nil
}

// Options say how a registry is reached.
type Options struct {
	Insecure bool           // plain http also where the host is not loopback
	Keychain authn.Keychain // nil: container.Keychain
	Limits   Limits         // what the registry takes: Push refuses more before it asks or sends anything
	// Tries is how often a request is tried that failed for a passing reason (429, 5xx, a broken connection); 0 means 4.
	Tries int
	// Wait is the time before the second try; it doubles with each. 0 means 1 s. A registry that asks for a longer wait
	// gets up to a minute.
	Wait time.Duration
	// Stall is the time without any byte moving after which a connection is given up; 0 means 5 minutes.
	Stall time.Duration
	// Sleep waits for d or until ctx ends; nil means a real wait, up to a tenth longer at random.
	Sleep func(ctx context.Context, d time.Duration) error
	// Log is told of every further try; nil means nobody.
	Log func(line string)
}

// repositoryForm is what distribution-spec allows of a repository's name.
var repositoryForm = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// tagForm is what distribution-spec allows of a tag.
var tagForm = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// Open opens HOST[:PORT]/PATH, or dir:PATH for a folder in which every repository is an OCI image layout. Nothing is
// contacted or written yet.
func Open(ref string, o Options) (Registry, error) {
	if dir, ok := strings.CutPrefix(ref, "dir:"); ok {
		if dir == "" {
			return nil, event.WithRemedy(errors.New("dir: needs the path of a folder"), "write --registry dir:PATH")
		}
		return &folder{dir}, nil
	}
	const remedy = "write --registry HOST/PATH, such as quay.io/project, or dir:PATH for a folder"
	ref = strings.TrimRight(ref, "/")
	host, _, _ := strings.Cut(ref, "/")
	bare := host
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		bare = host[:i]
	}
	if !strings.ContainsAny(host, ".:") && bare != "localhost" || strings.Contains(ref, "://") || strings.Contains(ref, "@") {
		return nil, event.WithRemedy(fmt.Errorf("%q does not name a registry", ref), remedy)
	}
	var options []name.Option
	if o.Insecure || container.Loopback(bare) {
		options = append(options, name.Insecure)
	}
	if _, err := name.NewRepository(ref+"/x", options...); err != nil {
		return nil, event.WithRemedy(fmt.Errorf("%q does not name a registry: %w", ref, err), remedy)
	}
	if o.Keychain == nil {
		o.Keychain = container.Keychain
	}
	if o.Tries == 0 {
		o.Tries = 4
	}
	if o.Wait == 0 {
		o.Wait = time.Second
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	return &server{prefix: ref, names: options, o: o, transport: &polite{next: container.Transport(o.Insecure, o.Stall)}, locks: map[string]chan struct{}{}, known: map[v1.Hash][]name.Repository{}, repos: map[string]*served{}}, nil
}

// upload is what Push writes: an image, or an index and the images that it holds.
type upload struct {
	layers    []v1.Layer // without doubles; the configurations are among them
	manifests []*Manifest
	elsewhere []v1.Hash // listed by the index and not held by it
	total     int64     // bytes of the layers
}

func newUpload(what any) (*upload, error) {
	u := &upload{}
	seen := map[v1.Hash]bool{}
	switch x := what.(type) {
	case v1.Image:
		return u, u.image(x, seen)
	case v1.ImageIndex:
		manifest, err := x.IndexManifest()
		if err != nil {
			return nil, err
		}
		for _, d := range manifest.Manifests {
			img, err := x.Image(d.Digest)
			if errors.Is(err, container.ErrNotCarried) {
				u.elsewhere = append(u.elsewhere, d.Digest)
				continue
			}
			if err == nil {
				err = u.image(img, seen)
			}
			if err != nil {
				return nil, err
			}
		}
		return u, u.manifest(x)
	default:
		return nil, fmt.Errorf("a %T is neither an image nor an index", what)
	}
}

func (u *upload) image(img v1.Image, seen map[v1.Hash]bool) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	config, err := partial.ConfigLayer(img)
	if err != nil {
		return err
	}
	for _, l := range append(layers, config) {
		digest, err := l.Digest()
		if err != nil {
			return err
		}
		if seen[digest] {
			continue
		}
		seen[digest] = true
		size, err := l.Size()
		if err != nil {
			return err
		}
		u.total += size
		u.layers = append(u.layers, l)
	}
	return u.manifest(img)
}

func (u *upload) manifest(what interface {
	RawManifest() ([]byte, error)
	MediaType() (types.MediaType, error)
	Digest() (v1.Hash, error)
}) error {
	raw, err := what.RawManifest()
	if err != nil {
		return err
	}
	mt, err := what.MediaType()
	if err != nil {
		return err
	}
	digest, err := what.Digest()
	if err != nil {
		return err
	}
	m, err := newManifest(raw, mt, digest)
	u.manifests = append(u.manifests, m)
	return err
}

// hashRef reads a ref as a digest.
func hashRef(ref string) (v1.Hash, bool) {
	if !strings.HasPrefix(ref, "sha256:") {
		return v1.Hash{}, false
	}
	h, err := v1.NewHash(ref)
	return h, err == nil
}

func parseIndex(m *Manifest) (*v1.IndexManifest, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(m.Raw))
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", m.Digest, err)
	}
	return index, nil
}

func parseImage(m *Manifest) (*v1.Manifest, error) {
	manifest, err := v1.ParseManifest(bytes.NewReader(m.Raw))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", m.Digest, err)
	}
	return manifest, nil
}

// image is an image of a repository whose layers are read when they are used.
func image(ctx context.Context, r Repository, ref string) (v1.Image, error) {
	m, err := r.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	if !m.Descriptor.MediaType.IsImage() {
		return nil, fmt.Errorf("%s is a %s, not an image", r.Reference(m.Digest), m.Descriptor.MediaType)
	}
	manifest, err := parseImage(m)
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&storedImage{Manifest: m, ctx: ctx, r: r, list: manifest})
}

// storedImage is an image of a repository (partial.CompressedImageCore).
type storedImage struct {
	*Manifest
	ctx  context.Context // of the call that asked for it: v1.Image's methods have no room for one
	r    Repository
	list *v1.Manifest
}

func (s *storedImage) RawConfigFile() ([]byte, error) {
	rc, err := s.r.Blob(s.ctx, s.list.Config.Digest)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(rc, maxManifest+1))
	if err = errors.Join(err, rc.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("a configuration of more than %d bytes is not accepted", maxManifest)
	}
	return data, nil
}

func (s *storedImage) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range append([]v1.Descriptor{s.list.Config}, s.list.Layers...) {
		if d.Digest == digest {
			return &storedLayer{s, d}, nil
		}
	}
	return nil, fmt.Errorf("blob %s: %w", digest, ErrNotFound)
}

// storedLayer is a blob of a repository (partial.CompressedLayer).
type storedLayer struct {
	image *storedImage
	d     v1.Descriptor
}

func (l *storedLayer) Digest() (v1.Hash, error)            { return l.d.Digest, nil }
func (l *storedLayer) Size() (int64, error)                { return l.d.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) { return l.d.MediaType, nil }
func (l *storedLayer) Descriptor() (*v1.Descriptor, error) { return l.d.DeepCopy(), nil }
func (l *storedLayer) Compressed() (io.ReadCloser, error) {
	return l.image.r.Blob(l.image.ctx, l.d.Digest)
}

// index is an index of a repository whose images are read when they are used.
func index(ctx context.Context, r Repository, ref string) (v1.ImageIndex, error) {
	m, err := r.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	if !m.Descriptor.MediaType.IsIndex() {
		return nil, fmt.Errorf("%s is a %s, not an index", r.Reference(m.Digest), m.Descriptor.MediaType)
	}
	list, err := parseIndex(m)
	return &storedIndex{Manifest: m, ctx: ctx, r: r, list: list}, err
}

// storedIndex is an index of a repository.
type storedIndex struct {
	*Manifest
	ctx  context.Context // likewise
	r    Repository
	list *v1.IndexManifest
}

func (s *storedIndex) Digest() (v1.Hash, error)                  { return s.Manifest.Digest, nil }
func (s *storedIndex) Size() (int64, error)                      { return s.Manifest.Size, nil }
func (s *storedIndex) IndexManifest() (*v1.IndexManifest, error) { return s.list.DeepCopy(), nil }
func (s *storedIndex) Image(h v1.Hash) (v1.Image, error)         { return image(s.ctx, s.r, h.String()) }
func (s *storedIndex) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	return index(s.ctx, s.r, h.String())
}
