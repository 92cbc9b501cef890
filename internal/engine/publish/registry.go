// Package publish brings images to a registry, or to an OCI layout on disk, and reads back what is there.
package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// ErrNotFound is the error of a tag or digest that the repository does not have.
var ErrNotFound = errors.New("not found")

// Registry holds a repository for each flavor.
type Registry interface {
	Repository(name string) (Repository, error)
	String() string // HOST/PATH or dir:PATH
}

// Manifest is a manifest as it is stored.
type Manifest struct {
	v1.Descriptor
	Raw []byte
}

// RawManifest and MediaType make a Manifest something that can be written again as it is.
func (m *Manifest) RawManifest() ([]byte, error)        { return m.Raw, nil }
func (m *Manifest) MediaType() (types.MediaType, error) { return m.Descriptor.MediaType, nil }

// Repository holds images by digest, and tags that point at them.
type Repository interface {
	String() string // what users pull, without tag
	// Get reads a manifest by tag or digest ("sha256:HEX"). Its error may be ErrNotFound.
	Get(ctx context.Context, ref string) (*Manifest, error)
	// Image is an image by tag or digest. Its error may be ErrNotFound.
	Image(ctx context.Context, ref string) (v1.Image, error)
	// Blob reads a blob; what it reads is checked against the digest at its end.
	Blob(ctx context.Context, digest v1.Hash) (io.ReadCloser, error)
	// Push writes an image by its digest, blobs first. What is there is not written again. progress gets bytes.
	Push(ctx context.Context, img v1.Image, progress func(done, total int64)) error
	// PushIndex writes an index by its digest; what it lists has to be there.
	PushIndex(ctx context.Context, index v1.ImageIndex) error
	// Tag points a tag at a manifest that is there.
	Tag(ctx context.Context, tag string, m *Manifest) error
	// Tags lists the tags; none when the repository does not exist.
	Tags(ctx context.Context) ([]string, error)
}

// Options say how a registry is reached.
type Options struct {
	Insecure bool // plain http also where the host is not loopback
	// Backoff is how often and how long requests are tried again; zero means 4 tries in about 8 s.
	Backoff remote.Backoff
}

// Open opens HOST[:PORT]/PATH, or dir:PATH for a folder in which every repository is an OCI image layout. Nothing is
// contacted or written yet. Credentials are found where docker and podman keep them.
func Open(ref string, o Options) (Registry, error) {
	if dir, ok := strings.CutPrefix(ref, "dir:"); ok {
		if dir == "" {
			return nil, event.WithRemedy(errors.New("dir: needs the path of a folder"), "write --registry dir:PATH")
		}
		return &directory{dir}, nil
	}
	var options []name.Option
	if o.Insecure {
		options = append(options, name.Insecure)
	}
	ref = strings.TrimRight(ref, "/")
	if _, err := name.NewRepository(ref+"/x", options...); err != nil || strings.Contains(ref, "://") {
		return nil, event.WithRemedy(fmt.Errorf("%q does not name a registry", ref), "write --registry HOST/PATH, such as quay.io/project, or dir:PATH for a folder")
	}
	if o.Backoff.Steps == 0 {
		o.Backoff = remote.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.1, Steps: 4}
	}
	return &server{ref, options, o.Backoff}, nil
}

// server is a registry that speaks the distribution protocol.
type server struct {
	prefix  string
	options []name.Option
	backoff remote.Backoff
}

func (s *server) String() string { return s.prefix }

func (s *server) Repository(n string) (Repository, error) {
	repo, err := name.NewRepository(s.prefix+"/"+n, s.options...)
	if err != nil {
		return nil, err
	}
	return &served{repo, s.backoff}, nil
}

type served struct {
	repo    name.Repository
	backoff remote.Backoff
}

func (r *served) String() string { return r.repo.Name() }

func (r *served) options(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithRetryBackoff(r.backoff),
		remote.WithRetryPredicate(temporary), remote.WithUserAgent("kmi-tui")}
}

// temporary says whether another try makes sense.
func temporary(err error) bool {
	var terr *transport.Error
	if errors.As(err, &terr) {
		return terr.Temporary() || terr.StatusCode == http.StatusTooManyRequests || terr.StatusCode >= 500 && terr.StatusCode != http.StatusInsufficientStorage && terr.StatusCode != http.StatusNotImplemented
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

func (r *served) ref(ref string) name.Reference {
	if strings.HasPrefix(ref, "sha256:") {
		return r.repo.Digest(ref)
	}
	return r.repo.Tag(ref)
}

func (r *served) Get(ctx context.Context, ref string) (*Manifest, error) {
	d, err := remote.Get(r.ref(ref), r.options(ctx)...)
	if err != nil {
		return nil, r.explain(ctx, err)
	}
	return &Manifest{d.Descriptor, d.Manifest}, nil
}

func (r *served) Image(ctx context.Context, ref string) (v1.Image, error) {
	img, err := remote.Image(r.ref(ref), r.options(ctx)...)
	return img, r.explain(ctx, err)
}

func (r *served) Blob(ctx context.Context, digest v1.Hash) (io.ReadCloser, error) {
	layer, err := remote.Layer(r.repo.Digest(digest.String()), r.options(ctx)...)
	if err != nil {
		return nil, r.explain(ctx, err)
	}
	rc, err := layer.Compressed()
	return rc, r.explain(ctx, err)
}

func (r *served) Push(ctx context.Context, img v1.Image, progress func(done, total int64)) error {
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	// The channel is buffered and always drained: a full one would stop the upload.
	updates := make(chan v1.Update, 256)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for u := range updates {
			if u.Error == nil && progress != nil {
				progress(u.Complete, u.Total)
			}
		}
	}()
	err = remote.Write(r.repo.Digest(digest.String()), img, append(r.options(ctx), remote.WithProgress(updates))...)
	select {
	case <-drained:
	case <-ctx.Done():
	}
	return r.explain(ctx, err)
}

func (r *served) PushIndex(ctx context.Context, index v1.ImageIndex) error {
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	return r.explain(ctx, remote.Put(r.repo.Digest(digest.String()), index, r.options(ctx)...))
}

func (r *served) Tag(ctx context.Context, tag string, m *Manifest) error {
	return r.explain(ctx, remote.Tag(r.repo.Tag(tag), m, r.options(ctx)...))
}

func (r *served) Tags(ctx context.Context) ([]string, error) {
	tags, err := remote.List(r.repo, r.options(ctx)...)
	if err = r.explain(ctx, err); errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return tags, err
}

// explain turns a registry's error into a sentence with a remedy.
func (r *served) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	host := r.repo.RegistryStr()
	var terr *transport.Error
	if errors.As(err, &terr) {
		said := strings.Join(strings.Fields(terr.Error()), " ")
		switch {
		case terr.StatusCode == http.StatusNotFound:
			return fmt.Errorf("%s: %w", r.repo.Name(), ErrNotFound)
		case terr.StatusCode == http.StatusUnauthorized || terr.StatusCode == http.StatusForbidden:
			return event.WithRemedy(fmt.Errorf("the registry %s refuses: %s", host, said),
				"log in with an account that may write there: podman login %s (or docker login), or check the token's rights", host)
		case terr.StatusCode == http.StatusTooManyRequests:
			return event.WithRemedy(fmt.Errorf("the registry %s says: too many requests: %s", host, said), "wait and run again: what is done stays done")
		case terr.StatusCode == http.StatusInsufficientStorage || terr.StatusCode == http.StatusRequestEntityTooLarge:
			return event.WithRemedy(fmt.Errorf("the registry %s has no room for this: %s", host, said), "free space or raise the quota there, and run again")
		}
		return event.WithRemedy(fmt.Errorf("the registry %s failed: %s", host, said), "run again: what is done stays done; if it lasts, ask who runs %s", host)
	}
	var uerr *url.Error
	if errors.As(err, &uerr) || errors.Is(err, syscall.ECONNREFUSED) {
		if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
			return event.WithRemedy(fmt.Errorf("the registry %s speaks plain http: %w", host, err), "if that is meant, allow it with --insecure")
		}
		return event.WithRemedy(fmt.Errorf("the registry %s cannot be reached: %w", host, err), "check the name and that it runs, or publish into a folder with --registry dir:PATH")
	}
	return event.WithRemedy(fmt.Errorf("the registry %s: %w", host, err), "run again: what is done stays done")
}
