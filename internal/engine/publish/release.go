package publish

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/maruel/natural"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
)

// State is what a repository has under a tag, as the registry says: nothing of it is verified.
type State struct {
	Index   Manifest        // what the tag points at
	Entries []v1.Descriptor // its images; none where it is a single image, which nobody made who publishes like this
	Entry   *v1.Descriptor  // the one that was asked for; nil when it is not among them
	Tags    []string        // that point at Index: all of them in a folder, else only the one asked for; see Fixed
	labels  map[string]string
}

// Labels are those of the image that was asked for; nil when there is none.
func (s *State) Labels() map[string]string {
	if s == nil {
		return nil
	}
	return s.labels
}

// ContentKey says what the image that was asked for is made of, by its label; "" when it does not say.
func (s *State) ContentKey() string { return s.Labels()[container.LabelContentKey] }

// Created is when the image that was asked for was made, by its label; zero when it does not say.
func (s *State) Created() time.Time {
	at, err := time.Parse(time.RFC3339, s.Labels()[container.LabelCreated])
	if err != nil {
		return time.Time{}
	}
	return at
}

// Current reads what a tag points at: one request, and a second one for images whose index does not have their labels. It
// returns nil when there is no such tag.
func Current(ctx context.Context, r Repository, tag string, arch catalog.Arch) (*State, error) {
	m, err := r.Get(ctx, tag)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := &State{Index: *m, Tags: []string{tag}}
	if l, ok := r.(*laidOut); ok {
		if s.Tags, err = l.at(m.Digest); err != nil {
			return nil, err
		}
	}
	if !m.Descriptor.MediaType.IsIndex() {
		return s, nil
	}
	list, err := parseIndex(m)
	if err != nil {
		return nil, fmt.Errorf("%s:%s: %w", r, tag, err)
	}
	s.Entries = list.Manifests
	for i, d := range s.Entries {
		if container.ArchOf(d) == arch {
			s.Entry, s.labels = &s.Entries[i], d.Annotations
		}
	}
	if s.Entry != nil && s.ContentKey() == "" {
		m, err := r.Get(ctx, s.Entry.Digest.String())
		if err != nil {
			return nil, err
		}
		manifest, err := parseImage(m)
		if err != nil {
			return nil, err
		}
		s.labels = manifest.Annotations
		if s.labels == nil {
			s.labels = map[string]string{}
		}
	}
	return s, nil
}

// Latest is the tag of a flavor's newest release, once the flavor is stable.
const Latest = "latest"

// DatedTag is the tag of what is published of a version on a day (UTC): VERSION-YYYYMMDD.
func DatedTag(version string, day time.Time) string {
	return version + "-" + day.UTC().Format("20060102")
}

// BuildTag is the tag of what is published of a version and upstream's build: VERSION-BUILD, with hyphens for what a tag
// cannot hold; "" for a build that has no name.
func BuildTag(version, build string) string {
	build = strings.Trim(strings.Map(func(r rune) rune {
		if r < 128 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)) {
			return r
		}
		return '-'
	}, build), "-.")
	if build == "" {
		return ""
	}
	tag := version + "-" + build
	return tag[:min(len(tag), 120)] // of 128, with room for .N
}

// fixedChecked is how many tags of a form Fixed looks at.
const fixedChecked = 3

// Fixed returns those of a version's fixed tags that point at a digest: dated ones, VERSION-YYYYMMDD and
// VERSION-YYYYMMDD.N, and those of upstream's build, BuildTag and BuildTag.N. Of many, the newest three of each form are
// looked at: one request for the list, and one for each.
func Fixed(ctx context.Context, r Repository, version, build string, digest v1.Hash) (byDay, byBuild []string, err error) {
	tags, err := r.Tags(ctx)
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(tags, func(a, b string) int { return natural.Compare(b, a) })
	stem := BuildTag(version, build)
	isDated := func(t string) bool {
		v, _, ok := dated(t)
		return ok && v == version
	}
	isBuilt := func(t string) bool {
		rest, ok := strings.CutPrefix(t, stem)
		return ok && stem != "" && (rest == "" || rest[0] == '.' && len(rest) > 1 && strings.Trim(rest[1:], "0123456789") == "")
	}
	pointing := func(is func(string) bool) (found []string, err error) {
		looked := 0
		for _, t := range tags {
			if !is(t) || looked == fixedChecked {
				continue
			}
			looked++
			d, err := r.Head(ctx, t)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return nil, err
			}
			if err == nil && d.Digest == digest {
				found = append(found, t)
			}
		}
		return found, nil
	}
	if byDay, err = pointing(isDated); err != nil {
		return nil, nil, err
	}
	byBuild, err = pointing(isBuilt)
	return byDay, byBuild, err
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
	// Index is what is published, with the images that it holds (container.Index). What it lists besides is in the
	// repository already, in the index that the first of Moving points at, and signed by Key.
	Index      v1.ImageIndex
	Disks      map[v1.Hash]string   // of images that Index holds: SHA-256 of the disk that was tested, hex; others go by their labels
	Signatures map[v1.Hash]v1.Image // of Index and of the images that it holds (trust.Sign)
	Key        *trust.Key           // that they are signed by
	Moving     []string             // tags that point at Index afterwards, whatever they pointed at before; at least one
	Fixed      []string             // tags that are made and never moved: TAG.1, TAG.2 and so on where they point at something else
	Shrink     bool                 // Index may lack images of the index that the first of Moving points at
	Tested     bool                 // every image's label has to say that it was tested, also of those that Index only lists
}

var (
	// ErrOvertaken is the error of an index that was formed of one that is not the published one any more.
	ErrOvertaken = errors.New("somebody else published meanwhile")
	// ErrUntested is the error of an index with an image that was not tested.
	ErrUntested = errors.New("the image was not tested before it was published")
	// ErrOther is the error of an index with an image of another flavor, version or architecture.
	ErrOther = errors.New("the image is of something else")
)

// Publish pushes by digest, reads everything back and verifies it as a user would, and only then points the tags at the
// index, all together. It returns the tags that point at it now.
//
// On any error before that, no tag has moved. When a tag cannot be moved, those moved before it are moved back; what
// could not be is named in a *TagError. A publication that ended anywhere can be repeated: what is done is found and
// stays. While tags are decided about, other publications into the repository wait: in a folder all of them, in a
// registry those of this process. One whose index would drop what another published meanwhile is refused: ErrOvertaken.
func Publish(ctx context.Context, r Repository, rel Release, scope *event.Scope) ([]string, error) {
	if rel.Index == nil || rel.Key == nil || len(rel.Moving) == 0 {
		return nil, errors.New("a publication needs an index, a key and a tag")
	}
	p := &publication{Release: rel, r: r, scope: scope}
	if err := p.take(); err != nil {
		return nil, err
	}
	// What can be refused is refused before anything is sent.
	if err := p.current(ctx); err != nil {
		return nil, err
	}
	if err := p.listed(ctx); err != nil {
		return nil, err
	}
	scope.Logf("pushing to %s", r)
	if err := r.Push(ctx, rel.Index, func(done, total int64) { scope.Progress(done, total, "bytes pushed") }); err != nil {
		return nil, err
	}
	if err := p.sign(ctx); err != nil {
		return nil, err
	}
	scope.Logf("reading everything back from %s", r)
	if err := p.readBack(ctx); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, r)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := p.current(ctx); err != nil {
		return nil, err
	}
	return p.tag(ctx)
}

// Retag points tags at an index that the first of moving points at already and that was verified: what a publication that
// was killed between two tags left undone. Errors are those of Publish; ErrOvertaken where that tag has moved meanwhile.
func Retag(ctx context.Context, r Repository, digest v1.Hash, moving, fixed []string, scope *event.Scope) ([]string, error) {
	p := &publication{Release: Release{Moving: moving, Fixed: fixed}, r: r, scope: scope, digest: digest}
	if err := p.forms(); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, r)
	if err != nil {
		return nil, err
	}
	defer unlock()
	d, err := r.Head(ctx, moving[0])
	if err != nil {
		return nil, err
	}
	if d.Digest != digest {
		return nil, event.WithRemedy(fmt.Errorf("%s:%s points at %s now: %w", r, moving[0], d.Digest, ErrOvertaken), "run again")
	}
	return p.tag(ctx)
}

// lock makes others wait who decide about the repository's tags.
func lock(ctx context.Context, r Repository) (unlock func(), err error) {
	if l, ok := r.(interface {
		lock(context.Context) (func(), error)
	}); ok {
		return l.lock(ctx)
	}
	return func() {}, nil
}

// publication is a release on its way.
type publication struct {
	Release
	r       Repository
	scope   *event.Scope
	digest  v1.Hash         // of the index
	entries []v1.Descriptor // of the index
	held    map[v1.Hash]*expected
	like    map[string]string // labels of an image that the index holds: the others are of the same flavor and version
}

// expected is what an image has to be.
type expected struct {
	disk string // SHA-256, hex
	size int64  // of the disk, bytes; 0: open
}

// take looks at what is to be published.
func (p *publication) take() (err error) {
	if p.digest, err = p.Index.Digest(); err != nil {
		return err
	}
	list, err := p.Index.IndexManifest()
	if err != nil {
		return err
	}
	p.entries, p.held = list.Manifests, map[v1.Hash]*expected{}
	for _, d := range p.entries {
		img, err := p.Index.Image(d.Digest)
		if errors.Is(err, container.ErrNotCarried) {
			continue
		}
		if err != nil {
			return err
		}
		manifest, err := img.Manifest()
		if err != nil {
			return err
		}
		if p.Tested && !tested(manifest.Annotations) {
			return fmt.Errorf("%s: %w", platform(d), ErrUntested)
		}
		e := &expected{}
		if e.disk, e.size, err = labelled(manifest.Annotations); err != nil {
			return fmt.Errorf("%s: %w", platform(d), err)
		}
		p.held[d.Digest] = e
		p.like = manifest.Annotations
	}
	for digest, disk := range p.Disks {
		e, ok := p.held[digest]
		if !ok {
			return fmt.Errorf("index %s does not hold the image %s", p.digest, digest)
		}
		if !strings.EqualFold(e.disk, disk) {
			return fmt.Errorf("the label of image %s names the disk sha256:%s, and sha256:%s was tested", digest, e.disk, disk)
		}
	}
	return p.forms()
}

func (p *publication) forms() error {
	for _, tag := range slices.Concat(p.Fixed, p.Moving) {
		if !tagForm.MatchString(tag) {
			return fmt.Errorf("%q is not a tag", tag)
		}
	}
	return nil
}

// labelled reads from an image's labels which disk it has: its SHA-256 (hex), and its size in bytes where it says.
func labelled(labels map[string]string) (sum string, size int64, err error) {
	sum, ok := strings.CutPrefix(labels[container.LabelDisk], "sha256:")
	if !ok {
		return "", 0, fmt.Errorf("the image has no label %s", container.LabelDisk)
	}
	if text := labels[container.LabelDiskSize]; text != "" {
		if size, err = strconv.ParseInt(text, 10, 64); err != nil {
			return "", 0, fmt.Errorf("label %s: %w", container.LabelDiskSize, err)
		}
	}
	return sum, size, nil
}

// tested says whether an image's labels name a test that it passed.
func tested(labels map[string]string) bool {
	return labels[container.LabelTested] != "" && labels[container.LabelTested] != "no"
}

func platform(d v1.Descriptor) string {
	if d.Platform == nil {
		return "an image without a platform"
	}
	return d.Platform.String()
}

// current says whether the index still fits what is published: of the index that the first tag points at, it keeps or
// replaces every image that may be kept.
func (p *publication) current(ctx context.Context) error {
	old, err := p.r.Get(ctx, p.Moving[0])
	if errors.Is(err, ErrNotFound) {
		old, err = &Manifest{}, nil
	}
	if err != nil {
		return err
	}
	var published []v1.Descriptor
	if old.Descriptor.MediaType.IsIndex() {
		list, err := parseIndex(old)
		if err != nil {
			return err
		}
		published = list.Manifests
	}
	for _, d := range published {
		arch := container.ArchOf(d)
		if arch == "" {
			continue
		}
		i := slices.IndexFunc(p.entries, func(e v1.Descriptor) bool { return container.ArchOf(e) == arch })
		if i >= 0 && (p.held[p.entries[i].Digest] != nil || p.entries[i].Digest == d.Digest) || i < 0 && p.Shrink {
			continue
		}
		if i < 0 {
			unfit, err := p.unfit(ctx, d)
			if err != nil {
				return err
			}
			if unfit != nil {
				continue // see Keep
			}
		}
		return event.WithRemedy(fmt.Errorf("%s:%s has %s for %s, which this release would drop: %w", p.r, p.Moving[0], d.Digest, platform(d), ErrOvertaken),
			"run again: what is done stays done, and the new index takes that in")
	}
	for _, e := range p.entries {
		if p.held[e.Digest] == nil && !slices.ContainsFunc(published, func(d v1.Descriptor) bool { return d.Digest == e.Digest }) {
			return event.WithRemedy(fmt.Errorf("%s:%s does not have %s for %s any more, which this release would bring back: %w", p.r, p.Moving[0], e.Digest, platform(e), ErrOvertaken),
				"run again: what is done stays done")
		}
	}
	return nil
}

// listed refuses images that the index lists, does not hold, and must not keep.
func (p *publication) listed(ctx context.Context) error {
	for _, d := range p.entries {
		if p.held[d.Digest] != nil {
			continue
		}
		unfit, err := p.unfit(ctx, d)
		if err != nil {
			return err
		}
		if unfit != nil {
			return event.WithRemedy(fmt.Errorf("the image for %s that %s:%s has cannot stay in the index: %w", platform(d), p.r, p.Moving[0], unfit),
				"build that architecture anew in the same run; or delete the tag %s there, then run again: every architecture is published anew", p.Moving[0])
		}
	}
	return nil
}

func (p *publication) unfit(ctx context.Context, d v1.Descriptor) (why, err error) {
	return unfit(ctx, p.r, p.Key, d, p.Tested, p.like)
}

// Keep chooses which entries of a published index may stay in a new one: those that are signed by the same key and, with
// mustBeTested, whose labels name a test. Whoever can write to the registry and cannot sign must not get an image of
// theirs into an index that we sign. It also says why the others may not, by platform. The error is one of reading.
func Keep(ctx context.Context, r Repository, k *trust.Key, entries []v1.Descriptor, mustBeTested bool) (kept []v1.Descriptor, why map[string]error, err error) {
	why = map[string]error{}
	for _, d := range entries {
		reason, err := unfit(ctx, r, k, d, mustBeTested, nil)
		switch {
		case err != nil:
			return nil, nil, err
		case reason != nil:
			why[platform(d)] = reason
		default:
			kept = append(kept, d)
		}
	}
	return kept, why, nil
}

// unfit says why an entry may not stay. like are labels of an image that it stands beside; nil where there is none.
func unfit(ctx context.Context, r Repository, k *trust.Key, d v1.Descriptor, mustBeTested bool, like map[string]string) (why, err error) {
	m, err := r.Get(ctx, d.Digest.String())
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrContent) {
		return err, nil
	}
	if err != nil {
		return nil, err
	}
	manifest, err := parseImage(m)
	if err != nil {
		return err, nil
	}
	_, err = claims(ctx, r, k, d.Digest)
	if errors.Is(err, trust.ErrUnsigned) || errors.Is(err, trust.ErrWrongKey) || errors.Is(err, trust.ErrTampered) {
		return err, nil
	}
	if err != nil {
		return nil, err
	}
	if mustBeTested && !tested(manifest.Annotations) {
		return ErrUntested, nil
	}
	return other(manifest.Annotations, like, d), nil
}

// other says what an image is of, by its labels, that is not what its entry says, or not what its neighbours are of. One key
// signs every flavor: an image of ours can be put where it does not belong by whoever may write to the registry.
func other(labels, like map[string]string, d v1.Descriptor) error {
	want := map[string]string{container.LabelArch: string(container.ArchOf(d))}
	for _, name := range []string{container.LabelFlavor, "org.opencontainers.image.version"} {
		want[name] = like[name]
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if want[name] != "" && labels[name] != "" && labels[name] != want[name] {
			return fmt.Errorf("%w: its label %s is %q, expected %q", ErrOther, name, labels[name], want[name])
		}
	}
	return nil
}

// sign stores the signatures, besides those that are there.
func (p *publication) sign(ctx context.Context) error {
	unlock, err := lock(ctx, p.r)
	if err != nil {
		return err
	}
	defer unlock()
	digests := []v1.Hash{p.digest}
	for _, d := range p.entries {
		if p.held[d.Digest] != nil {
			digests = append(digests, d.Digest)
		}
	}
	for _, digest := range digests {
		img := p.Signatures[digest]
		if img == nil {
			return fmt.Errorf("%s: %w", digest, trust.ErrUnsigned)
		}
		have, err := Signatures(ctx, p.r, digest)
		if err != nil {
			return err
		}
		merged, err := trust.Merge(have, img)
		if err != nil {
			return err
		}
		if merged == have {
			continue
		}
		at, err := merged.Digest()
		if err != nil {
			return err
		}
		if err := p.r.Push(ctx, merged, nil); err != nil {
			return err
		}
		if err := p.r.Tag(ctx, at, trust.Tag(digest)); err != nil {
			return err
		}
	}
	return nil
}

// readBack checks what the repository has: manifests, every blob, the disks, the signatures.
func (p *publication) readBack(ctx context.Context) error {
	if _, err := p.r.Get(ctx, p.digest.String()); err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	for _, d := range p.entries {
		e := p.held[d.Digest]
		if e == nil {
			continue // see listed
		}
		m, err := p.r.Get(ctx, d.Digest.String())
		if err != nil {
			return fmt.Errorf("reading back: %w", err)
		}
		if err := contents(ctx, p.r, m, e.disk, e.size, p.scope, "bytes read back"); err != nil {
			return fmt.Errorf("reading back: %s: %w", platform(d), err)
		}
		if _, err := claims(ctx, p.r, p.Key, d.Digest); err != nil {
			return fmt.Errorf("reading back: %w", err)
		}
	}
	if _, err := claims(ctx, p.r, p.Key, p.digest); err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	return nil
}

// tag points the tags at the index. Those that exist go first, because they can be moved back.
func (p *publication) tag(ctx context.Context) ([]string, error) {
	all := slices.Clone(p.Moving)
	for _, tag := range p.Fixed {
		tag, err := p.free(ctx, tag)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, tag) {
			all = append(all, tag)
		}
	}
	old := map[string]v1.Hash{}
	var existing, made []string
	for _, tag := range all {
		d, err := p.r.Head(ctx, tag)
		switch {
		case errors.Is(err, ErrNotFound):
			made = append(made, tag)
		case err != nil:
			return nil, err
		case d.Digest != p.digest:
			old[tag] = d.Digest
			existing = append(existing, tag)
		}
	}
	tags := slices.Concat(existing, made)
	if len(tags) == 0 {
		return all, nil
	}
	if err := p.r.Tag(ctx, p.digest, tags...); err != nil {
		return nil, p.back(ctx, err, old)
	}
	if err := p.settle(ctx, tags, old); err != nil {
		return nil, err
	}
	for _, tag := range tags {
		p.scope.Logf("%s:%s is %s now", p.r, tag, p.digest)
	}
	return all, nil
}

// settle looks at tags that were moved as a user finds them. A registry keeps nobody out: somebody else may have moved
// some of them meanwhile. What the first moving tag points at then decides for the others, for whoever comes last sees
// that the same way: the tags do not stay divided between two publications. old is what was there before; a registry that
// still says so has not heard of it everywhere, and gets some time.
func (p *publication) settle(ctx context.Context, tags []string, old map[string]v1.Hash) error {
	const looks = 5
	first := p.Moving[0]
	for n := 1; n <= looks; n++ {
		at := map[string]v1.Hash{}
		late := ""
		for _, tag := range slices.Concat(p.Moving, tags) {
			if _, known := at[tag]; known {
				continue
			}
			d, err := p.r.Head(ctx, tag)
			if errors.Is(err, ErrNotFound) && n < looks {
				late = tag
				continue
			}
			if err != nil {
				return &TagError{Digest: p.digest, Moved: tags, Tag: tag, Err: err}
			}
			if at[tag] = d.Digest; d.Digest == old[tag] {
				late = tag
			}
		}
		if late != "" && n == looks {
			err := &TagError{Digest: p.digest, Moved: slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return t == late }), Tag: late, Err: fmt.Errorf("it still points at %s", at[late])}
			return event.WithRemedy(err, "run again: what is pushed stays, and the tags are moved")
		}
		if late != "" {
			p.scope.Logf("%s:%s is what it was before: looking again", p.r, late)
			if err := sleep(ctx, time.Duration(n)*200*time.Millisecond); err != nil {
				return err
			}
			continue
		}
		divided := slices.DeleteFunc(slices.Clone(p.Moving), func(tag string) bool { return at[tag] == at[first] })
		if len(divided) > 0 {
			p.scope.Logf("somebody else publishes into %s: %s follow %s to %s", p.r, strings.Join(divided, ", "), first, at[first])
			if err := p.r.Tag(ctx, at[first], divided...); err != nil {
				return err
			}
			continue
		}
		for _, tag := range append([]string{first}, tags...) {
			if at[tag] != p.digest {
				err := &TagError{Digest: p.digest, Tag: tag, Err: fmt.Errorf("it points at %s: %w", at[tag], ErrOvertaken)}
				return event.WithRemedy(err, "run again: what is done stays done, and the new index takes that in")
			}
		}
		return nil
	}
	return event.WithRemedy(&TagError{Digest: p.digest, Tag: first, Err: ErrOvertaken}, "run again when the others are through")
}

// free finds the fixed tag to use: the one asked for if it is free or points at the index already, else the first of
// TAG.1, TAG.2 and so on that is.
func (p *publication) free(ctx context.Context, fixed string) (string, error) {
	for n := range 1000 {
		tag := fixed
		if n > 0 {
			tag = fmt.Sprintf("%s.%d", fixed, n)
		}
		d, err := p.r.Head(ctx, tag)
		if errors.Is(err, ErrNotFound) || err == nil && d.Digest == p.digest {
			return tag, nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("a thousand tags %s.N exist", fixed)
}

// back moves tags back after one of them could not be moved, and tells what came of it.
func (p *publication) back(ctx context.Context, err error, old map[string]v1.Hash) error {
	var failed *TagError
	if !errors.As(err, &failed) {
		return err // none has moved
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	stuck := &TagError{Digest: p.digest, Tag: failed.Tag, Err: failed.Err}
	// The one that failed may have moved all the same, if only the answer was lost.
	for _, tag := range append(slices.Clone(failed.Moved), failed.Tag) {
		d, herr := p.r.Head(ctx, tag)
		if herr == nil && d.Digest != p.digest || errors.Is(herr, ErrNotFound) {
			continue
		}
		was, existed := old[tag]
		if existed && p.r.Tag(ctx, was, tag) == nil {
			continue
		}
		// A tag that is new stays: registries differ in what they delete with a tag.
		if herr == nil || tag != failed.Tag {
			stuck.Moved = append(stuck.Moved, tag)
		}
	}
	if len(stuck.Moved) > 0 {
		err = fmt.Errorf("%w; %s pointed at %s already and could not be moved back", stuck, strings.Join(stuck.Moved, ", "), p.digest)
	} else {
		err = fmt.Errorf("%w; all tags point where they pointed before", stuck)
	}
	return event.WithRemedy(err, "run again: what is pushed stays, and the tags are moved")
}

// claims says what the signatures of a digest by a key vouch for, as a user finds them.
func claims(ctx context.Context, r Repository, k *trust.Key, digest v1.Hash) ([]trust.Claim, error) {
	sigs, err := Signatures(ctx, r, digest)
	if err != nil {
		return nil, err
	}
	found, err := trust.Claims(ctx, k, digest, sigs)
	if errors.Is(err, ErrContent) {
		err = fmt.Errorf("%w: %w", trust.ErrTampered, err)
	}
	if err != nil {
		return nil, fmt.Errorf("signature of %s: %w", digest, err)
	}
	return found, nil
}
