package publish

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
)

// State is what a repository has of a release.
type State struct {
	Index   Manifest        // what the tag points at
	Entries []v1.Descriptor // its architectures
	Entry   *v1.Descriptor  // the one asked for; nil when it is not among them
}

// Labels are those of the image that was asked for.
func (s *State) Labels() map[string]string {
	if s == nil || s.Entry == nil {
		return nil
	}
	return s.Entry.Annotations
}

// Current reads what a tag points at: one request. It returns nil when there is no such tag.
func Current(ctx context.Context, r Repository, tag string, arch catalog.Arch) (*State, error) {
	m, err := r.Get(ctx, tag)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := &State{Index: *m}
	if !m.Descriptor.MediaType.IsIndex() {
		return s, nil // somebody else's image: what we publish is an index
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(m.Raw))
	if err != nil {
		return nil, fmt.Errorf("%s:%s: %w", r, tag, err)
	}
	s.Entries = index.Manifests
	for i, d := range index.Manifests {
		if d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == arch.OCI() {
			s.Entry = &s.Entries[i]
		}
	}
	return s, nil
}

// Dated returns the dated tags of a version that point at a digest, of the newest few.
func Dated(ctx context.Context, r Repository, version string, digest v1.Hash) ([]string, error) {
	tags, err := r.Tags(ctx)
	if err != nil {
		return nil, err
	}
	var dated []string
	for _, t := range tags {
		if rest, ok := strings.CutPrefix(t, version+"-"); ok && len(rest) >= 8 && strings.Trim(rest[:8], "0123456789") == "" {
			dated = append(dated, t)
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(dated)))
	var found []string
	for _, t := range dated[:min(3, len(dated))] {
		m, err := r.Get(ctx, t)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if err == nil && m.Digest == digest {
			found = append(found, t)
		}
	}
	return found, nil
}

// Signatures reads the image of a digest's signatures; nil when there are none.
func Signatures(ctx context.Context, r Repository, digest v1.Hash) (v1.Image, error) {
	img, err := r.Image(ctx, trust.Tag(digest))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return img, err
}

// Release is one publication.
type Release struct {
	Image      v1.Image // of one architecture
	Index      v1.ImageIndex
	Disk       string               // SHA-256 of the disk that was tested, hex
	Signatures map[v1.Hash]v1.Image // of the image and of the index
	Key        *trust.Key
	Moving     []string // tags that point at the index afterwards, whatever they pointed at before
	Fixed      string   // a tag that is made, and never moved: a suffix is added where it points at something else
}

// Publish pushes by digest, reads everything back and verifies it as a user would, and only then points the tags at it.
// When a tag cannot be moved, those moved before it are moved back. It returns the tags that point at the index now.
func Publish(ctx context.Context, r Repository, rel Release, scope *event.Scope) ([]string, error) {
	image, err := rel.Image.Digest()
	if err != nil {
		return nil, err
	}
	index, err := rel.Index.Digest()
	if err != nil {
		return nil, err
	}
	scope.Logf("pushing %s", image)
	if err := r.Push(ctx, rel.Image, func(done, total int64) { scope.Progress(done, total, "bytes") }); err != nil {
		return nil, err
	}
	if err := r.PushIndex(ctx, rel.Index); err != nil {
		return nil, err
	}
	for digest, sigs := range rel.Signatures {
		if err := pushTagged(ctx, r, sigs, trust.Tag(digest)); err != nil {
			return nil, err
		}
	}
	scope.Logf("reading back and verifying")
	if err := readBack(ctx, r, index, image, rel.Disk, rel.Key, scope); err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	return point(ctx, r, index, rel.Moving, rel.Fixed, scope)
}

// pushTagged pushes a small image and points a tag at it.
func pushTagged(ctx context.Context, r Repository, img v1.Image, tag string) error {
	if err := r.Push(ctx, img, nil); err != nil {
		return err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	mt, err := img.MediaType()
	if err != nil {
		return err
	}
	return r.Tag(ctx, tag, &Manifest{v1.Descriptor{MediaType: mt, Digest: digest, Size: int64(len(raw))}, raw})
}

// point moves the tags, together.
func point(ctx context.Context, r Repository, index v1.Hash, moving []string, fixed string, scope *event.Scope) ([]string, error) {
	m, err := r.Get(ctx, index.String())
	if err != nil {
		return nil, err
	}
	if fixed != "" {
		if fixed, err = free(ctx, r, fixed, index); err != nil {
			return nil, err
		}
		moving = append([]string{fixed}, moving...)
	}
	old := map[string]*Manifest{}
	for _, tag := range moving {
		before, err := r.Get(ctx, tag)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if err == nil {
			old[tag] = before
		}
	}
	for i, tag := range moving {
		if old[tag] != nil && old[tag].Digest == index {
			continue
		}
		if err := r.Tag(ctx, tag, m); err != nil {
			restore := context.WithoutCancel(ctx)
			for _, moved := range moving[:i] {
				if old[moved] == nil || old[moved].Digest == index {
					continue
				}
				if rerr := r.Tag(restore, moved, old[moved]); rerr != nil {
					err = errors.Join(err, fmt.Errorf("tag %s points at %s already and could not be moved back: %w", moved, index, rerr))
				}
			}
			return nil, fmt.Errorf("tag %s: %w", tag, err)
		}
		scope.Logf("tag %s → %s", tag, index)
	}
	return moving, nil
}

// free finds the fixed tag to use: the one asked for if it is free or points at the index already, else the first of
// TAG.1, TAG.2, … that is.
func free(ctx context.Context, r Repository, tag string, index v1.Hash) (string, error) {
	for n := 0; n < 1000; n++ {
		t := tag
		if n > 0 {
			t = fmt.Sprintf("%s.%d", tag, n)
		}
		m, err := r.Get(ctx, t)
		if errors.Is(err, ErrNotFound) || err == nil && m.Digest == index {
			return t, nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("a thousand tags %s.N exist", tag)
}

// readBack checks what the repository has: manifests, every blob, the disk, the signatures.
func readBack(ctx context.Context, r Repository, index, image v1.Hash, disk string, key *trust.Key, scope *event.Scope) error {
	m, err := r.Get(ctx, index.String())
	if err != nil {
		return err
	}
	list, err := v1.ParseIndexManifest(bytes.NewReader(m.Raw))
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(m.Raw); hex.EncodeToString(sum[:]) != index.Hex {
		return fmt.Errorf("asked for index %s and got sha256:%x", index, sum)
	}
	if !slices.ContainsFunc(list.Manifests, func(d v1.Descriptor) bool { return d.Digest == image }) {
		return fmt.Errorf("index %s does not list %s", index, image)
	}
	img, err := r.Get(ctx, image.String())
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(img.Raw); hex.EncodeToString(sum[:]) != image.Hex {
		return fmt.Errorf("asked for image %s and got sha256:%x", image, sum)
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(img.Raw))
	if err != nil {
		return err
	}
	if err := blobs(ctx, r, manifest, disk, func(done, total int64) { scope.Progress(done, total, "bytes read back") }); err != nil {
		return err
	}
	for _, digest := range []v1.Hash{index, image} {
		sigs, err := Signatures(ctx, r, digest)
		if err != nil {
			return err
		}
		if err := trust.Verify(ctx, key, digest, sigs); err != nil {
			return fmt.Errorf("%s: %w", digest, err)
		}
	}
	return nil
}

// blobs reads every blob of an image, which checks it against its digest, and finds the disk in the last layer.
func blobs(ctx context.Context, r Repository, m *v1.Manifest, disk string, progress func(done, total int64)) error {
	if len(m.Layers) == 0 {
		return errors.New("the image has no layers")
	}
	total := m.Config.Size
	for _, l := range m.Layers {
		total += l.Size
	}
	var done int64
	for i, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		rc, err := r.Blob(ctx, d.Digest)
		if err != nil {
			return err
		}
		counted := &counter{r: rc, ctx: ctx, fn: func(n int64) { done += n; progress(done, total) }}
		if i == len(m.Layers) {
			err = oneDisk(counted, disk)
		}
		if err == nil {
			_, err = io.Copy(io.Discard, counted)
		}
		_ = rc.Close()
		if err != nil {
			return fmt.Errorf("blob %s: %w", d.Digest, err)
		}
	}
	return nil
}

// oneDisk reads a layer's tar and checks that it holds /disk with exactly the one expected file.
func oneDisk(r io.Reader, want string) error {
	tr := tar.NewReader(r)
	found := ""
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch {
		case h.Typeflag == tar.TypeDir && h.Name == "disk/":
		case h.Typeflag == tar.TypeReg && h.Name == "disk/"+container.DiskFile && found == "":
			sum := sha256.New()
			if _, err := io.Copy(sum, tr); err != nil {
				return err
			}
			found = hex.EncodeToString(sum.Sum(nil))
		default:
			return fmt.Errorf("the disk's layer holds %q", h.Name)
		}
	}
	if found == "" {
		return errors.New("the disk's layer holds no disk")
	}
	if want != "" && found != want {
		return fmt.Errorf("expected the disk sha256:%s, found sha256:%s", want, found)
	}
	return nil
}

// counter reports what is read, and ends with its context.
type counter struct {
	r   io.Reader
	ctx context.Context
	fn  func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.fn(int64(n))
	return n, err
}

// Check is one thing that was looked at when an image was verified.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Report is what a user learns of an image.
type Report struct {
	Image     string            `json:"image"`     // as it was asked for
	Digest    string            `json:"digest"`    // of the index
	Pinned    string            `json:"pinned"`    // the reference by digest, for a VirtualMachine
	Platforms map[string]string `json:"platforms"` // "linux/amd64" → digest
	Labels    map[string]string `json:"labels"`
	Checks    []Check           `json:"checks"`
}

// OK says whether every check passed.
func (r *Report) OK() bool {
	return len(r.Checks) > 0 && !slices.ContainsFunc(r.Checks, func(c Check) bool { return !c.OK })
}

// Verify checks an image as a user would: HOST/PATH/REPOSITORY[:TAG|@DIGEST], or dir:PATH/REPOSITORY[:TAG|@DIGEST]. The
// signatures of the index and of every image in it are by key, every blob is what its digest says, and each image has
// exactly one disk, the one that its label names. The error is one of reading; what is wrong with the image is in the
// report's checks.
func Verify(ctx context.Context, ref string, key *trust.Key, o Options, scope *event.Scope) (*Report, error) {
	repository, at := split(ref)
	i := strings.LastIndexByte(repository, '/')
	if i < 0 {
		return nil, event.WithRemedy(fmt.Errorf("%q does not name an image", ref), "write HOST/PATH/NAME:TAG, or dir:PATH/NAME:TAG")
	}
	registry, err := Open(repository[:i], o)
	if err != nil {
		return nil, err
	}
	r, err := registry.Repository(repository[i+1:])
	if err != nil {
		return nil, err
	}
	m, err := r.Get(ctx, at)
	if err != nil {
		return nil, err
	}
	rep := &Report{Image: ref, Digest: m.Digest.String(), Pinned: r.String() + "@" + m.Digest.String(), Platforms: map[string]string{}}
	check := func(name, detail string, err error) {
		if err != nil {
			detail = err.Error()
		}
		rep.Checks = append(rep.Checks, Check{name, err == nil, detail})
	}
	signed := func(what string, digest v1.Hash) error {
		sigs, err := Signatures(ctx, r, digest)
		if err != nil {
			return err
		}
		check("signature of "+what, "by key "+key.ID[:12], trust.Verify(ctx, key, digest, sigs))
		return nil
	}
	if !m.Descriptor.MediaType.IsIndex() {
		check("index", "", fmt.Errorf("it is a %s; what kmi-tui publishes is an index", m.Descriptor.MediaType))
		return rep, nil
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(m.Raw))
	if err != nil {
		return nil, err
	}
	if err := signed("the index", m.Digest); err != nil {
		return nil, err
	}
	for _, d := range index.Manifests {
		platform := "unknown"
		if d.Platform != nil {
			platform = d.Platform.OS + "/" + d.Platform.Architecture
		}
		rep.Platforms[platform] = d.Digest.String()
		if err := signed(platform, d.Digest); err != nil {
			return nil, err
		}
		child, err := r.Get(ctx, d.Digest.String())
		if err != nil {
			return nil, err
		}
		manifest, err := v1.ParseManifest(bytes.NewReader(child.Raw))
		if err != nil {
			return nil, err
		}
		if rep.Labels == nil {
			rep.Labels = manifest.Annotations
		}
		disk := strings.TrimPrefix(manifest.Annotations[container.LabelDisk], "sha256:")
		if disk == "" {
			check("contents of "+platform, "", fmt.Errorf("it has no label %s", container.LabelDisk))
			continue
		}
		var once sync.Once
		err = blobs(ctx, r, manifest, disk, func(done, total int64) {
			once.Do(func() { scope.Logf("reading %s", platform) })
			scope.Progress(done, total, "bytes")
		})
		check("contents of "+platform, fmt.Sprintf("%d layers, the disk is sha256:%s", len(manifest.Layers), disk), err)
	}
	return rep, nil
}

// split parts a reference into the repository and the tag or digest.
func split(ref string) (repository, at string) {
	if repository, digest, ok := strings.Cut(ref, "@"); ok {
		return repository, digest
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:]
	}
	return ref, "latest"
}
