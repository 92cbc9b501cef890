package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/maruel/natural"
	"golang.org/x/sync/errgroup"

	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Retention says which publications of a version stay.
type Retention struct {
	Keep  int           // how many of the newest stay; at least 1
	Young time.Duration // what was published no longer ago stays, too
	Now   time.Time
}

// Fate is what a retention does with a tag, and why.
type Fate struct {
	Tag    string `json:"tag"`
	Digest string `json:"digest"` // that it points at: "sha256:HEX"
	Remove bool   `json:"remove"`
	Why    string `json:"why"`
}

// Retained is what a retention does with a repository.
type Retained struct {
	Repository string `json:"repository"`
	Fates      []Fate `json:"tags"`             // in natural order
	Manifests  int    `json:"manifests"`        // indexes, images and signatures that go
	Bytes      int64  `json:"bytes"`            // what goes says of its sizes; blobs that others use count here, too
	Error      string `json:"error,omitempty"`  // why not all of it could be done
	Remedy     string `json:"remedy,omitempty"` // what to do about that
	Done       bool   `json:"done"`             // it was carried out, not only said
	manifests  []v1.Hash
}

// Removed lists the tags that go.
func (r *Retained) Removed() (tags []string) {
	for _, f := range r.Fates {
		if f.Remove {
			tags = append(tags, f.Tag)
		}
	}
	return tags
}

// listing is what a repository has, as far as a retention has to know.
type listing struct {
	tags   map[string]v1.Hash
	listed map[v1.Hash][]v1.Hash // by index: the images in it
	builds map[v1.Hash][]string  // by index: upstream's names of the builds in it
	absent map[v1.Hash]bool      // what signatures are of and is not there
}

var (
	// datedTag is a tag of a publication's day: VERSION-YYYYMMDD or VERSION-YYYYMMDD.N.
	datedTag = regexp.MustCompile(`^(.+)-([0-9]{8}(?:\.[0-9]+)?)$`)
	// attached is a tag of what belongs to a digest: cosign's signatures, attestations and bills of materials, and what
	// stands for the referrers API where there is none (distribution-spec 1.1, "Referrers Tag Schema").
	attached = regexp.MustCompile(`^sha256-([0-9a-f]{64})(\.sig|\.att|\.sbom)?$`)
)

// dated reads a dated tag: its version, and YYYYMMDD or YYYYMMDD.N.
func dated(tag string) (version, stamp string, ok bool) {
	m := datedTag.FindStringSubmatch(tag)
	if m == nil {
		return "", "", false
	}
	_, err := time.Parse("20060102", m[2][:8])
	return m[1], m[2], err == nil
}

// decide says what stays and what goes. It asks nobody. Every tag has one fate; manifests are the indexes and images that
// nothing points at afterwards.
//
// What stays whatever else holds: every tag of a form that is not ours, with what it points at; moving tags; what they
// point at; what has no dated tag.
func (r Retention) decide(l listing) (fates []Fate, manifests []v1.Hash) {
	names := make([]string, 0, len(l.tags))
	for t := range l.tags {
		names = append(names, t)
	}
	slices.SortFunc(names, natural.Compare)
	fate := map[string]*Fate{}
	keep := func(tag, why string) { fate[tag] = &Fate{tag, l.tags[tag].String(), false, why} }

	// The publications of each version, by their newest dated tag.
	day := map[string]map[v1.Hash]string{} // version → index → YYYYMMDD[.N]
	for _, t := range names {
		version, stamp, ok := dated(t)
		if _, isIndex := l.listed[l.tags[t]]; !ok || !isIndex {
			continue
		}
		if day[version] == nil {
			day[version] = map[v1.Hash]string{}
		}
		day[version][l.tags[t]] = stamp // names are in order: the newest is last
	}
	of := func(t string) (version string, ours bool) {
		digest := l.tags[t]
		for v, publications := range day {
			if _, ok := publications[digest]; !ok {
				continue
			}
			if version, _, ok := dated(t); ok && version == v {
				return v, true
			}
			for _, build := range l.builds[digest] {
				stem := BuildTag(v, build)
				rest, ok := strings.CutPrefix(t, stem)
				if ok && stem != "" && (rest == "" || len(rest) > 1 && rest[0] == '.' && strings.Trim(rest[1:], "0123456789") == "") {
					return v, true
				}
			}
		}
		return "", false
	}
	// What is pointed at by something else than fixed tags stays.
	held := map[v1.Hash]string{}
	for _, t := range names {
		_, fixed := of(t)
		switch {
		case fixed:
		case attached.MatchString(t):
			if _, odd := l.listed[l.tags[t]]; odd {
				held[l.tags[t]] = t + " points at it"
			}
		case day[t] != nil || t == Latest:
			keep(t, "it moves")
			held[l.tags[t]] = t + " points at it"
		default:
			keep(t, "it has no form of ours")
			if held[l.tags[t]] == "" {
				held[l.tags[t]] = t + " points at it"
			}
		}
	}
	gone := map[v1.Hash]bool{}
	why := map[v1.Hash]string{}
	for v, publications := range day {
		order := make([]v1.Hash, 0, len(publications))
		for d := range publications {
			order = append(order, d)
		}
		slices.SortFunc(order, func(a, b v1.Hash) int { return natural.Compare(publications[b], publications[a]) })
		for i, d := range order {
			at, _ := time.Parse("20060102", publications[d][:8])
			reason := ""
			switch {
			case held[d] != "":
				reason = held[d]
			case i < max(1, r.Keep):
				reason = fmt.Sprintf("number %d of the newest %d of %s", i+1, max(1, r.Keep), v)
			case r.Now.Sub(at) <= r.Young:
				reason = fmt.Sprintf("published within %d days", int(r.Young.Hours()/24))
			}
			if reason != "" {
				why[d] = reason
				delete(gone, d)
			} else if why[d] == "" {
				gone[d] = true
			}
		}
	}
	for d := range gone {
		why[d] = fmt.Sprintf("older than the newest %d", max(1, r.Keep))
	}
	for _, t := range names {
		if v, ok := of(t); ok {
			text := why[l.tags[t]]
			if gone[l.tags[t]] {
				text += " of " + v
			}
			fate[t] = &Fate{t, l.tags[t].String(), gone[l.tags[t]], text}
		}
	}
	// Images that no index lists any more go with theirs.
	stays := map[v1.Hash]bool{}
	for index, images := range l.listed {
		if gone[index] {
			continue
		}
		for _, i := range images {
			stays[i] = true
		}
	}
	for _, t := range names { // what a tag points at by itself
		if f := fate[t]; f != nil && !f.Remove {
			stays[l.tags[t]] = true
		}
	}
	lost := map[v1.Hash]bool{}
	for index := range gone {
		lost[index] = true
		manifests = append(manifests, index)
	}
	for index := range gone {
		for _, i := range l.listed[index] {
			if !stays[i] && !lost[i] {
				lost[i] = true
				manifests = append(manifests, i)
			}
		}
	}
	for _, t := range names {
		m := attached.FindStringSubmatch(t)
		if m == nil {
			continue
		}
		subject := v1.Hash{Algorithm: "sha256", Hex: m[1]}
		switch {
		case lost[subject]:
			fate[t] = &Fate{t, l.tags[t].String(), true, "what it belongs to goes"}
			manifests = append(manifests, l.tags[t])
		case l.absent[subject]:
			fate[t] = &Fate{t, l.tags[t].String(), true, "what it belongs to is not there any more"}
			manifests = append(manifests, l.tags[t])
		default:
			keep(t, "what it belongs to stays")
		}
	}
	for _, t := range names {
		fates = append(fates, *fate[t])
	}
	// Nothing goes that a tag which stays points at.
	for _, f := range fates {
		if !f.Remove {
			manifests = slices.DeleteFunc(manifests, func(h v1.Hash) bool { return h.String() == f.Digest })
		}
	}
	slices.SortFunc(manifests, func(a, b v1.Hash) int { return strings.Compare(a.Hex, b.Hex) })
	return fates, slices.Compact(manifests)
}

// retaining is how many requests a retention makes at once.
const retaining = 8

// Retain says what a retention does with a repository, and with carryOut does it. Tags that users pull go first, then
// indexes, images and signatures: whatever ends it in between, nothing that a tag points at is incomplete, and the next
// one goes on. It waits for publications of this process, in a folder of every process.
func Retain(ctx context.Context, r Repository, policy Retention, carryOut bool) (*Retained, error) {
	if carryOut {
		unlock, err := lock(ctx, r)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	found, err := retainable(ctx, r)
	if err != nil {
		return nil, err
	}
	out := &Retained{Repository: r.String()}
	out.Fates, out.manifests = policy.decide(*found)
	out.Manifests = len(out.manifests)
	counted := map[v1.Hash]bool{}
	for _, h := range out.manifests {
		m, err := r.Get(ctx, h.String())
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if err != nil || m.Descriptor.MediaType.IsIndex() {
			continue
		}
		image, err := parseImage(m)
		if err != nil {
			continue // it is not ours to understand, and goes all the same
		}
		for _, d := range append(image.Layers, image.Config) {
			if !counted[d.Digest] {
				counted[d.Digest] = true
				out.Bytes += d.Size
			}
		}
	}
	tags := out.Removed()
	if !carryOut || len(tags) == 0 {
		return out, nil
	}
	// Somebody else may have published since: what is read again has to be the same.
	again, err := r.Tags(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range again {
		if _, known := found.tags[t]; !known {
			return nil, event.WithRemedy(fmt.Errorf("%s:%s is new: %w", r, t, ErrOvertaken), "run again")
		}
	}
	for t, was := range found.tags {
		if f := out.Fates[slices.IndexFunc(out.Fates, func(f Fate) bool { return f.Tag == t })]; f.Remove || attached.MatchString(t) {
			continue
		}
		d, err := r.Head(ctx, t)
		if err != nil {
			return nil, err
		}
		if d.Digest != was {
			return nil, event.WithRemedy(fmt.Errorf("%s:%s has moved: %w", r, t, ErrOvertaken), "run again")
		}
	}
	users, rest := []string{}, []string{}
	for _, t := range tags {
		if attached.MatchString(t) {
			rest = append(rest, t)
		} else {
			users = append(users, t)
		}
	}
	if err := r.Remove(ctx, append(users, rest...), out.manifests); err != nil {
		return nil, err
	}
	out.Done = true
	return out, nil
}

// Remove takes tags away by their names where the registry can do that (distribution-spec 1.1, "Deleting tags"), and by
// the manifests that they point at where it cannot: distribution 2 answers 405 or 400.
func (r *served) Remove(ctx context.Context, tags []string, manifests []v1.Hash) error {
	s, err := r.sender(ctx, nil)
	if err != nil {
		return err
	}
	remove := func(ref string) (status int, err error) {
		u := s.address("", nil)
		u.Path = "/v2/" + r.repo.RepositoryStr() + "/manifests/" + ref
		err = r.try(ctx, true, func() error {
			resp, err := s.ask(ctx, http.MethodDelete, u, http.StatusOK, http.StatusAccepted, http.StatusNoContent, http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed)
			if err == nil {
				status = resp.StatusCode
			}
			return err
		})
		return status, err
	}
	for _, t := range tags {
		status, err := remove(t)
		if err != nil {
			return err
		}
		if status == http.StatusBadRequest || status == http.StatusMethodNotAllowed {
			break // none of them, then
		}
	}
	for _, h := range manifests {
		status, err := remove(h.String())
		if err != nil {
			return err
		}
		if status == http.StatusBadRequest || status == http.StatusMethodNotAllowed {
			return event.WithRemedy(fmt.Errorf("%s does not remove anything (%d %s)", r.repo.Name(), status, http.StatusText(status)),
				"let the registry delete: for distribution that is storage.delete.enabled (REGISTRY_STORAGE_DELETE_ENABLED=true)")
		}
	}
	for _, t := range tags {
		if _, err := r.Head(ctx, t); !errors.Is(err, ErrNotFound) {
			if err == nil {
				err = event.WithRemedy(fmt.Errorf("%s:%s is still there", r.repo.Name(), t), "look at what the registry says of deleting tags")
			}
			return err
		}
	}
	return nil
}

// grace is how long a blob of a folder that nothing needs stays: somebody may be publishing what will need it.
const grace = 24 * time.Hour

func (l *laidOut) Remove(ctx context.Context, tags []string, _ []v1.Hash) error {
	if err := l.edit(ctx, func(index *v1.IndexManifest) {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(e v1.Descriptor) bool { return slices.Contains(tags, e.Annotations[refName]) })
	}); err != nil {
		return err
	}
	index, err := l.index()
	if err != nil {
		return err
	}
	needed := map[v1.Hash]bool{}
	for _, e := range index.Manifests {
		if err := l.needs(ctx, e.Digest, needed); err != nil {
			return err // rather keep all than remove too much
		}
	}
	blobs, err := os.ReadDir(filepath.Join(l.dir, "blobs", "sha256"))
	if err != nil {
		return l.explain(err)
	}
	for _, b := range blobs {
		info, err := b.Info()
		h := v1.Hash{Algorithm: "sha256", Hex: b.Name()}
		if err != nil || !info.Mode().IsRegular() || needed[h] || time.Since(info.ModTime()) < grace {
			continue
		}
		if err := os.Remove(l.blob(h)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return l.explain(err)
		}
	}
	return nil
}

// needs adds a manifest and all that it needs.
func (l *laidOut) needs(ctx context.Context, digest v1.Hash, needed map[v1.Hash]bool) error {
	if needed[digest] {
		return nil
	}
	m, err := l.Get(ctx, digest.String())
	if err != nil {
		return err
	}
	needed[digest] = true
	if m.Descriptor.MediaType.IsIndex() {
		list, err := parseIndex(m)
		if err != nil {
			return err
		}
		for _, d := range list.Manifests {
			if err := l.needs(ctx, d.Digest, needed); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		return nil
	}
	image, err := parseImage(m)
	if err != nil {
		return err
	}
	needed[image.Config.Digest] = true
	for _, d := range image.Layers {
		needed[d.Digest] = true
	}
	return nil
}

// retainable reads what a retention has to know.
func retainable(ctx context.Context, r Repository) (*listing, error) {
	names, err := r.Tags(ctx)
	if err != nil {
		return nil, err
	}
	l := &listing{tags: map[string]v1.Hash{}, listed: map[v1.Hash][]v1.Hash{}, builds: map[v1.Hash][]string{}, absent: map[v1.Hash]bool{}}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(retaining)
	for _, t := range names {
		g.Go(func() error {
			if attached.MatchString(t) {
				d, err := r.Head(gctx, t)
				if errors.Is(err, ErrNotFound) {
					return nil
				}
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				l.tags[t] = d.Digest
				return nil
			}
			m, err := r.Get(gctx, t)
			if errors.Is(err, ErrNotFound) {
				return nil // gone meanwhile
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			l.tags[t] = m.Digest
			if !m.Descriptor.MediaType.IsIndex() {
				return nil
			}
			index, err := parseIndex(m)
			if err != nil {
				return err
			}
			l.listed[m.Digest] = nil
			for _, d := range index.Manifests {
				l.listed[m.Digest] = append(l.listed[m.Digest], d.Digest)
				if build := d.Annotations[container.LabelUpstream]; build != "" {
					l.builds[m.Digest] = append(l.builds[m.Digest], build)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	// Signatures of what is not listed: is it there at all?
	known := map[string]bool{}
	for index, images := range l.listed {
		known[index.Hex] = true
		for _, i := range images {
			known[i.Hex] = true
		}
	}
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(retaining)
	for t := range l.tags {
		m := attached.FindStringSubmatch(t)
		if m == nil || known[m[1]] {
			continue
		}
		known[m[1]] = true
		g.Go(func() error {
			subject := v1.Hash{Algorithm: "sha256", Hex: m[1]}
			_, err := r.Head(gctx, subject.String())
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			l.absent[subject] = err != nil
			return nil
		})
	}
	return l, g.Wait()
}
