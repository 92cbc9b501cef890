package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
)

// proof is what the cache remembers of a published image that was verified: while its tags are the same, so is the rest,
// because a digest names what it is of. One request a tag tells.
type proof struct {
	Index    string             `json:"index"`
	Image    string             `json:"image"`
	Key      string             `json:"key"` // that the signatures were verified with
	Verified time.Time          `json:"verified"`
	Tags     map[string]v1.Hash `json:"tags"` // what users pull, and where the signatures are: what each points at
}

func (j *job) proofName() string {
	return hexOf(j.repo.String() + ":" + j.target.Release.Version + "/" + string(j.target.Arch))
}

// remember notes that index and image were verified with a key and that tags point at the index. What cannot be noted is
// looked up the next time.
func (j *job) remember(ctx context.Context, index, image v1.Hash, key string, tags []string, scope *event.Scope) {
	p := proof{Index: index.String(), Image: image.String(), Key: key, Verified: j.e.cfg.Now().UTC(), Tags: map[string]v1.Hash{}}
	for _, tag := range tags {
		p.Tags[tag] = index
	}
	for _, digest := range []v1.Hash{index, image} {
		d, err := j.repo.Head(ctx, trust.Tag(digest))
		if err != nil {
			return
		}
		p.Tags[trust.Tag(digest)] = d.Digest
	}
	if err := j.e.cache.Store("published", j.proofName(), p); err != nil {
		scope.Logf("what was verified cannot be remembered: %v", err)
	}
}

// proven says whether what is published is what was verified before with the key, by one request a tag. The time is that
// of the verification.
func (j *job) proven(ctx context.Context, key string) (at time.Time, ok bool) {
	var p proof
	if !j.e.cache.Load("published", j.proofName(), &p) || p.Index != j.published.Index.Digest.String() || p.Image != j.published.Entry.Digest.String() || p.Key != key {
		return at, false
	}
	for _, tag := range j.moving() {
		if p.Tags[tag] != j.published.Index.Digest {
			return at, false
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	ok = true
	for tag, want := range p.Tags {
		if tag == j.target.Release.Version {
			continue // it has been asked
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			d, err := j.repo.Head(ctx, tag)
			mu.Lock()
			defer mu.Unlock()
			ok = ok && err == nil && d.Digest == want
		}()
	}
	wg.Wait()
	if !ok {
		return at, false
	}
	for tag, want := range p.Tags {
		if want == j.published.Index.Digest && tag != j.target.Release.Version {
			j.others = append(j.others, tag)
		}
	}
	slices.Sort(j.others)
	return p.Verified, true
}

// whole says whether what is published is signed by the key that signs here, or why not.
func (j *job) whole(ctx context.Context, scope *event.Scope) (whole bool, why string, err error) {
	key, err := j.e.verifier(ctx)
	if err != nil {
		return false, "", err
	}
	if key == nil {
		return false, "published, but there is no key yet to verify its signature with", nil
	}
	j.signedBy = key.ID
	if at, ok := j.proven(ctx, key.ID); ok {
		j.vouched = fmt.Sprintf("index and image are signed by key %s, verified on %s and unchanged", short(key.ID), at.Format("2006-01-02"))
		return true, "", nil
	}
	index, image := j.published.Index.Digest, j.published.Entry.Digest
	for _, digest := range []v1.Hash{index, image} {
		sigs, err := publish.Signatures(ctx, j.repo, digest)
		if err != nil {
			return false, "", err
		}
		if err := trust.Verify(ctx, key, digest, sigs); err != nil {
			return false, fmt.Sprintf("published, but %s: %v", digest, err), nil
		}
	}
	j.vouched = fmt.Sprintf("index and image are signed by key %s, verified just now", short(key.ID))
	// A publication that was killed has not moved all of its tags.
	version := j.target.Release.Version
	dated, built, err := publish.Fixed(ctx, j.repo, version, j.snapshot.Build, index)
	if err != nil {
		return false, "", err
	}
	var missing []string
	j.others = slices.Concat(dated, built)
	for _, tag := range j.moving()[1:] {
		d, err := j.repo.Head(ctx, tag)
		if err != nil && !errors.Is(err, publish.ErrNotFound) {
			return false, "", err
		}
		if err != nil || d.Digest != index {
			missing = append(missing, tag)
		} else {
			j.others = append(j.others, tag)
		}
	}
	for _, tag := range j.fixed() {
		if isDated := tag == publish.DatedTag(version, j.e.cfg.Now()); isDated && len(dated) == 0 || !isDated && len(built) == 0 {
			missing = append(missing, tag)
		}
	}
	slices.Sort(j.others)
	j.others = slices.Compact(j.others)
	if len(missing) > 0 {
		j.retag = true
		return true, "published, but without all of its tags: " + strings.Join(missing, ", ") + " will be set", nil
	}
	j.remember(ctx, index, image, key.ID, append([]string{version}, j.others...), scope)
	return true, "", nil
}

// tags sets the tags that a publication left undone.
func (j *job) tags(ctx context.Context, scope *event.Scope) (string, error) {
	unlock, err := j.e.cache.Lock(ctx, "release-"+hexOf(j.repo.String()+":"+j.target.Release.Version), scope)
	if err != nil {
		return "", err
	}
	defer unlock()
	index := j.published.Index.Digest
	tags, err := publish.Retag(ctx, j.repo, index, j.moving(), j.fixed(), scope)
	if err != nil {
		return "", err
	}
	j.result.Image, j.result.Tags = j.repo.String()+"@"+index.String(), tags
	j.remember(ctx, index, j.published.Entry.Digest, j.signedBy, tags, scope)
	return fmt.Sprintf("tags %s point at %s now", strings.Join(tags, ", "), index), nil
}
