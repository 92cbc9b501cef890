package publish

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
)

// readTries is how often a blob is read whose connection breaks: that is no reason to push gigabytes again.
const readTries = 3

// contents reads every blob of an image, which checks it against its digest, and looks for the disk: /disk holds one
// file, in the last layer, with that SHA-256 (hex) and size in bytes (0 leaves it open).
func contents(ctx context.Context, r Repository, m *Manifest, sum string, size int64, scope *event.Scope, unit string) error {
	manifest, err := parseImage(m)
	if err != nil {
		return err
	}
	if len(manifest.Layers) == 0 {
		return errors.New("the image has no layers")
	}
	total := manifest.Config.Size
	for _, l := range manifest.Layers {
		total += l.Size
	}
	var before int64
	for i, d := range append([]v1.Descriptor{manifest.Config}, manifest.Layers...) {
		var found []file
		for n := 1; ; n++ {
			found, err = blob(ctx, r, d, i > 0, size, func(done int64) { scope.Progress(before+done, total, unit) })
			if err == nil || n == readTries || ctx.Err() != nil || !passing(err, false) {
				break
			}
			scope.Logf("blob %s: %v: once more", d.Digest, err)
		}
		if err != nil {
			return fmt.Errorf("blob %s: %w", d.Digest, err)
		}
		if i > 0 {
			if err := disk(found, i == len(manifest.Layers), sum, size); err != nil {
				return err
			}
		}
		before += d.Size
	}
	return nil
}

// blob reads a blob to its end, and finds what lies in /disk if it is a layer. A disk of size bytes may be in it.
func blob(ctx context.Context, r Repository, d v1.Descriptor, layer bool, size int64, progress func(done int64)) (found []file, err error) {
	rc, err := r.Blob(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	counted := &counter{r: io.LimitReader(rc, d.Size+1), ctx: ctx, tell: progress} // one too many tells that it is not the one
	if layer {
		found, err = files(counted, max(maxInflated, size+1<<20))
	}
	if _, rest := io.Copy(io.Discard, counted); rest != nil {
		err = rest // what is wrong with the blob itself explains the rest
	} else if counted.n != d.Size {
		err = fmt.Errorf("%w: expected %d bytes, found %s", ErrContent, d.Size, map[bool]string{true: "more", false: strconv.FormatInt(counted.n, 10)}[counted.n > d.Size])
	}
	return found, errors.Join(err, rc.Close())
}

// file is one that lies in /disk.
type file struct {
	name string
	sum  string // hex
	size int64
}

func disk(found []file, last bool, sum string, size int64) error {
	switch {
	case !last && len(found) > 0:
		return fmt.Errorf("/disk has to hold the disk alone, and a layer below has %s", found[0].name)
	case last && len(found) == 0:
		return errors.New("the last layer holds no disk")
	case last && len(found) > 1:
		return fmt.Errorf("/disk has to hold one file, and holds %s and %s", found[0].name, found[1].name)
	case last && !strings.EqualFold(found[0].sum, sum):
		return fmt.Errorf("expected the disk sha256:%s, found sha256:%s", sum, found[0].sum)
	case last && size != 0 && found[0].size != size:
		return fmt.Errorf("expected a disk of %d bytes, found %d", size, found[0].size)
	}
	return nil
}

// maxInflated bounds in bytes what a compressed layer may unpack to. With a larger disk in it, it is the disk.
const maxInflated = 8 << 30

// files finds what lies in /disk of a layer: a tar archive, plain or compressed with gzip or zstd to most bytes at most.
func files(r io.Reader, most int64) (found []file, err error) {
	b := bufio.NewReaderSize(r, 1<<20)
	magic, _ := b.Peek(4)
	var plain io.Reader = b
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b: // RFC 1952
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, err
		}
		plain = &bounded{z, most, most}
	case string(magic) == "\x28\xb5\x2f\xfd": // RFC 8878
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		plain = &bounded{z, most, most}
	}
	tr := tar.NewReader(plain)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean("/" + h.Name)
		if name != "/disk" && !strings.HasPrefix(name, "/disk/") || h.Typeflag == tar.TypeDir {
			continue
		}
		if h.Typeflag != tar.TypeReg || name == "/disk" {
			return nil, fmt.Errorf("%s is not a regular file", name)
		}
		sum := sha256.New()
		n, err := io.CopyBuffer(sum, struct{ io.Reader }{tr}, make([]byte, 1<<20))
		if err != nil {
			return nil, err
		}
		if found = append(found, file{name, hex.EncodeToString(sum.Sum(nil)), n}); len(found) > 1 {
			return found, nil // two are too many; nobody knows how many follow
		}
	}
}

// bounded fails when more is read than left.
type bounded struct {
	r    io.Reader
	left int64
	most int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("a layer unpacks to more than %d bytes", b.most)
	}
	return n, err
}

// counter counts what is read, and ends with its context.
type counter struct {
	r    io.Reader
	ctx  context.Context // of the read that it is made for
	n    int64
	tell func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	if n > 0 {
		c.n += int64(n)
		c.tell(c.n)
	}
	return n, err
}

// Check is one thing that was looked at when an image was verified.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what was found, or what is wrong
}

// Report is what a user learns of an image.
type Report struct {
	Image      string                       `json:"image"`      // as it was asked for
	Digest     string                       `json:"digest"`     // what that is
	Pinned     string                       `json:"pinned"`     // the reference by digest, for a VirtualMachine
	Key        string                       `json:"key"`        // ID of the key that was verified with
	Identities []string                     `json:"identities"` // the names that the signatures of Digest vouch for
	Platforms  map[string]string            `json:"platforms"`  // "linux/amd64" → digest
	Labels     map[string]string            `json:"labels"`     // of the first image whose signature is good
	LabelsOf   map[string]map[string]string `json:"labels_of"`  // "linux/amd64" → its labels, if its signature is good
	Checks     []Check                      `json:"checks"`
}

// OK says whether something was checked and every check passed.
func (r *Report) OK() bool {
	for _, c := range r.Checks {
		if !c.OK {
			return false
		}
	}
	return len(r.Checks) > 0
}

// Verify checks an image as a user would: HOST/PATH/NAME[:TAG|@DIGEST], or dir:PATH/NAME[:TAG|@DIGEST], an index or one
// image of it. The index and every image in it are signed by key, every blob is what its digest says, and /disk of each
// image holds one file, the one that its label names; asked for by a tag, it was signed under that name. What is wrong with the image is in the report's checks; the error
// is one of reading, or ErrNotFound.
func Verify(ctx context.Context, ref string, key *trust.Key, o Options, scope *event.Scope) (*Report, error) {
	repository, at := split(ref)
	i := strings.LastIndexByte(repository, '/')
	if i < 0 || strings.HasPrefix(ref, "dir:") && i < len("dir:") {
		return nil, event.WithRemedy(fmt.Errorf("%q does not name an image", ref), "write HOST/PATH/NAME:TAG, or dir:PATH/NAME:TAG")
	}
	registry, err := Open(repository[:i], o)
	if err != nil {
		return nil, err
	}
	r, err := registry.Repository(repository[i+1:])
	if err != nil {
		return nil, event.WithRemedy(err, "write HOST/PATH/NAME:TAG, or dir:PATH/NAME:TAG")
	}
	m, err := r.Get(ctx, at)
	if errors.Is(err, ErrNotFound) {
		return nil, event.WithRemedy(err, "check the name and the tag")
	}
	if err != nil {
		return nil, err
	}
	v := &verification{r: r, key: key, scope: scope, Report: &Report{Image: ref, Digest: m.Digest.String(), Pinned: r.Reference(m.Digest), Key: key.ID,
		Identities: []string{}, Platforms: map[string]string{}, LabelsOf: map[string]map[string]string{}}}
	switch {
	case m.Descriptor.MediaType.IsIndex():
		err = v.index(ctx, m)
	case m.Descriptor.MediaType.IsImage():
		err = v.image(ctx, m, "the image")
	default:
		v.check("type", "", fmt.Errorf("it is a %q, neither an image nor an index", m.Descriptor.MediaType))
	}
	if _, pinned := hashRef(at); !pinned && len(v.Identities) > 0 {
		v.check("name", "it was signed under this name", misnamed(v.Identities, repository[i+1:], at))
	}
	return v.Report, err
}

// misnamed says what an image was signed as, where that is another flavor or version than the name that it is found
// under. Whoever can write to a registry and cannot sign can point a tag at another image of ours. The host and the path
// before the last part may differ: images are copied to registries of others.
func misnamed(identities []string, flavor, tag string) error {
	for _, identity := range identities {
		repository, version := split(identity)
		signed := repository[strings.LastIndexByte(repository, '/')+1:]
		if signed == flavor && (repository == identity || tag == version || tag == Latest || strings.HasPrefix(tag, version+"-")) {
			return nil
		}
	}
	return fmt.Errorf("asked for was %s:%s, and it was signed as %s (if that is meant, verify it by its digest)", flavor, tag, strings.Join(identities, ", "))
}

// verification is a report in the making.
type verification struct {
	*Report
	r     Repository
	key   *trust.Key
	scope *event.Scope
}

func (v *verification) check(name, detail string, err error) bool {
	if err != nil {
		detail = err.Error()
	}
	v.Checks = append(v.Checks, Check{name, err == nil, event.Clean(strings.ReplaceAll(detail, "\n", "; "))})
	return err == nil
}

// index checks an index and the images in it.
func (v *verification) index(ctx context.Context, m *Manifest) error {
	list, err := parseIndex(m)
	if err != nil {
		v.check("index", "", err)
		return nil
	}
	if ok, err := v.signature(ctx, m.Digest, "the index"); err != nil || !ok {
		return err // what it lists is nobody's word
	}
	for _, d := range list.Manifests {
		v.Platforms[platform(d)] = d.Digest.String()
		child, err := v.r.Get(ctx, d.Digest.String())
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrContent) {
			v.check(platform(d), "", err)
			continue
		}
		if err == nil {
			err = v.image(ctx, child, platform(d))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// signature checks whether a digest is signed.
func (v *verification) signature(ctx context.Context, digest v1.Hash, what string) (ok bool, err error) {
	found, err := claims(ctx, v.r, v.key, digest)
	if err != nil && !errors.Is(err, trust.ErrUnsigned) && !errors.Is(err, trust.ErrWrongKey) && !errors.Is(err, trust.ErrTampered) {
		return false, err
	}
	detail := "by key " + v.key.String()
	for _, c := range found {
		if c.Identity == "" {
			continue
		}
		detail += ", for " + c.Identity
		if digest.String() == v.Digest {
			v.Identities = append(v.Identities, c.Identity)
		}
	}
	return v.check("signature of "+what, detail, err), nil
}

// image checks one image.
func (v *verification) image(ctx context.Context, m *Manifest, what string) error {
	manifest, err := parseImage(m)
	if err != nil {
		v.check(what, "", err)
		return nil
	}
	if ok, err := v.signature(ctx, m.Digest, what); err != nil || !ok {
		return err // its labels are nobody's word
	}
	v.LabelsOf[what] = manifest.Annotations
	if v.Labels == nil {
		v.Labels = manifest.Annotations
	}
	sum, size, err := labelled(manifest.Annotations)
	if err != nil {
		v.check("contents of "+what, "", err)
		return nil
	}
	v.scope.Logf("reading %s", v.r.Reference(m.Digest))
	err = contents(ctx, v.r, m, sum, size, v.scope, "bytes")
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var remedied *event.Remedied
	if errors.As(err, &remedied) && !errors.Is(err, ErrContent) && !errors.Is(err, ErrNotFound) {
		return err // the registry, not the image
	}
	v.check("contents of "+what, fmt.Sprintf("%d layers, the disk is sha256:%s", len(manifest.Layers), sum), err)
	return nil
}

// split parts a reference into the repository and the tag or digest; without either, the tag is "latest".
func split(ref string) (repository, at string) {
	if repository, digest, ok := strings.Cut(ref, "@"); ok {
		if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') && !strings.HasPrefix(repository[i:], ":/") {
			repository = repository[:i] // NAME:TAG@DIGEST: the digest decides
		}
		return repository, digest
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:]
	}
	return ref, "latest"
}
