package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
)

// publication is what a run publishes of one release: an index with every target of the run that came through its tests.
// They wait for each other, so that the tags move once, whatever the number of architectures.
type publication struct {
	e   *Engine
	run context.Context // of the run: what one target does for all does not end when that one is cancelled; nil: the target's own

	mu      sync.Mutex
	members int           // targets that are on their way or here
	round   *round        // the stage at which they meet next
	changed chan struct{} // closed when something above has changed
	unlock  func()        // lets others publish this release

	signed []*job // whose images are in index
	index  v1.ImageIndex
	sigs   map[v1.Hash]v1.Image
	tags   []string
}

// round is one stage of a publication.
type round struct {
	came    []*job
	leading bool // one of them does the work
	over    bool
	err     error
}

func newPublication(e *Engine) *publication {
	return &publication{e: e, round: &round{}, changed: make(chan struct{})}
}

// tell wakes up those who wait. The lock is held.
func (p *publication) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// join says that a target is on its way.
func (p *publication) join() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.members++
}

// leave says that a target is not on its way any more: it failed, has nothing to do, or is through.
func (p *publication) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.members--
	if p.members == 0 && p.unlock != nil {
		p.unlock()
		p.unlock = nil
	}
	p.tell()
}

// meet waits until every member has come or left; then one of those who came does the work for all of them, and each gets
// its error. Who is cancelled while it waits goes its own way.
func (p *publication) meet(ctx context.Context, j *job, scope *event.Scope, do func(ctx context.Context, jobs []*job) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.round
	r.came = append(r.came, j)
	p.tell()
	if n := p.members - len(r.came); n > 0 {
		scope.Logf("waiting for %d more of %s:%s: one index holds all of its architectures", n, j.target.Flavor.ID, j.target.Release.Version)
	}
	for {
		if r.over {
			return r.err
		}
		if !r.leading && len(r.came) == p.members {
			r.leading = true
			p.mu.Unlock()
			slices.SortFunc(r.came, func(a, b *job) int {
				return cmp.Compare(slices.Index(catalog.Arches, a.target.Arch), slices.Index(catalog.Arches, b.target.Arch))
			})
			if p.run != nil {
				ctx = p.run
			}
			err := do(ctx, slices.Clone(r.came))
			p.mu.Lock()
			r.over, r.err = true, err
			p.round = &round{}
			p.tell()
			return err
		}
		changed, cancelled := p.changed, ctx.Done()
		if r.leading {
			cancelled = nil // it is being done
		}
		p.mu.Unlock()
		select {
		case <-changed:
			p.mu.Lock()
		case <-cancelled:
			p.mu.Lock()
			if !r.leading {
				r.came = slices.DeleteFunc(r.came, func(o *job) bool { return o == j })
				return context.Cause(ctx)
			}
		}
	}
}

func (j *job) sign(ctx context.Context, scope *event.Scope) (string, error) {
	p := j.publication
	if err := p.meet(ctx, j, scope, func(ctx context.Context, jobs []*job) error { return p.sign(ctx, jobs, scope) }); err != nil {
		return "", err
	}
	index, err := p.index.Digest()
	if err != nil {
		return "", err
	}
	key, err := j.e.key(ctx, true)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("index %s and its image, by key %s", index, short(key.ID)), nil
}

// sign makes the index and signs it and its images.
func (p *publication) sign(ctx context.Context, jobs []*job, scope *event.Scope) error {
	first := jobs[0]
	version := first.target.Release.Version
	key, err := p.e.key(ctx, true)
	if err != nil {
		return err
	}
	if p.unlock == nil { // another process that publishes this release waits: the index is one
		if p.unlock, err = p.e.cache.Lock(ctx, "release-"+hexOf(first.repo.String()+":"+version), scope); err != nil {
			return err
		}
	}
	p.signed = jobs
	var kept []v1.Descriptor
	published, err := publish.Current(ctx, first.repo, version, first.target.Arch)
	if err != nil {
		return err
	}
	if published != nil {
		kept = published.Entries
	}
	images := map[catalog.Arch]v1.Image{}
	for _, j := range jobs {
		images[j.target.Arch] = j.image
	}
	if p.index, err = container.Index(images, kept, nil); err != nil {
		return err
	}
	index, err := p.index.Digest()
	if err != nil {
		return err
	}
	digests := []v1.Hash{index}
	for _, j := range jobs {
		digests = append(digests, j.digest)
	}
	p.sigs = map[v1.Hash]v1.Image{}
	for _, digest := range digests {
		old, err := publish.Signatures(ctx, first.repo, digest)
		if err != nil {
			return err
		}
		if p.sigs[digest], err = trust.Sign(ctx, key, first.identity(), digest, first.identity()+":"+version, old); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) publish(ctx context.Context, scope *event.Scope) (string, error) {
	// A way that must not end here is not gone at all (lineup.go). This is the last place at which nothing has been sent.
	if why := j.e.refusal(j.target.Flavor); why != "" {
		return "", errors.New(why)
	}
	if j.retag {
		return j.tags(ctx, scope)
	}
	p := j.publication
	if err := p.meet(ctx, j, scope, func(ctx context.Context, jobs []*job) error { return p.publish(ctx, jobs, scope) }); err != nil {
		return "", err
	}
	index, err := p.index.Digest()
	if err != nil {
		return "", err
	}
	j.result.Image, j.result.Tags = j.repo.String()+"@"+index.String(), p.tags
	j.pruneDisks()
	return fmt.Sprintf("%s, read back and verified; tags %s", j.result.Image, strings.Join(p.tags, ", ")), nil
}

// publish pushes, reads back, verifies and tags.
func (p *publication) publish(ctx context.Context, jobs []*job, scope *event.Scope) error {
	key, err := p.e.key(ctx, true)
	if err != nil {
		return err
	}
	if !slices.Equal(jobs, p.signed) { // one of them was cancelled
		if err := p.sign(ctx, jobs, scope); err != nil {
			return err
		}
	}
	first := jobs[0]
	disks := map[v1.Hash]string{}
	var fixed []string
	for _, j := range jobs {
		disks[j.digest] = j.disk.SHA256
		for _, tag := range j.fixed() {
			if !slices.Contains(fixed, tag) {
				fixed = append(fixed, tag)
			}
		}
	}
	p.tags, err = publish.Publish(ctx, first.repo, publish.Release{Index: p.index, Disks: disks, Signatures: p.sigs, Key: &key.Key,
		Moving: first.moving(), Fixed: fixed, Tested: first.mustBeTested()}, scope)
	if err != nil {
		return err
	}
	index, err := p.index.Digest()
	if err != nil {
		return err
	}
	for _, j := range jobs {
		j.signedBy = key.Key.ID
		j.remember(ctx, index, j.digest, key.Key.ID, p.tags, scope)
	}
	return nil
}

// moving are the tags that point at the newest publication of the target's release.
func (j *job) moving() []string {
	list := []string{j.target.Release.Version}
	if j.target.Flavor.Level == catalog.Stable && j.target.Newest {
		list = append(list, publish.Latest)
	}
	return list
}

// fixed are the tags that stay with what is published now.
func (j *job) fixed() []string {
	version := j.target.Release.Version
	list := []string{publish.DatedTag(version, j.e.cfg.Now())}
	if tag := publish.BuildTag(version, j.snapshot.Build); tag != "" {
		list = append(list, tag)
	}
	return list
}

// mustBeTested says whether the target's level lets only those images into an index that were tested.
func (j *job) mustBeTested() bool {
	return j.target.Flavor.Level == catalog.Proposed || j.target.Flavor.Level == catalog.Stable
}
