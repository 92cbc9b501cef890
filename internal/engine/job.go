package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ContainerCraft/kmi-tui/internal/engine/boot"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/customise"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// job is one target on its way. Each stage leaves in it what the next ones need.
type job struct {
	e      *Engine
	target Target
	force  bool
	last   Stage // that is to be run

	asking      *asking
	publication *publication // with the other targets of the release

	repo      publish.Repository
	snapshot  *upstream.Snapshot
	key       string // recipe key, hex: what is known of the guest before its disk is made
	content   string // content key, hex: of a packages origin the same; of an image its packages are in it, too
	source    string // upstream's disk, of an image origin
	published *publish.State
	plan      Plan
	nothing   map[Stage]string // why a stage has nothing to do; nil: there is something to do
	others    []string         // tags that point at what is published, besides the release's
	vouched   string           // what its signatures came to
	retag     bool             // all that is left to do is to set tags

	way      string // of customising
	signedBy string // number of the key that has signed what is published
	record   diskRecord
	disk     *disk.Disk
	folder   string // where the disk is
	pulled   time.Time
	image    v1.Image
	digest   v1.Hash
	tested   string
	unlock   func()
	packed   func() // removes what pack made for publish
	reached  Stage

	result Result
	ends   map[Stage]StageKnown // how its stages ended
}

// way is the way of an image. A stage returns what it came to in a few words, or an *event.Skip.
var way = []struct {
	stage Stage
	run   func(*job, context.Context, *event.Scope) (string, error)
}{
	{Resolve, (*job).resolve},     // what is newest, what is published, what is to be done
	{Fetch, (*job).fetch},         // its files, verified, into the cache
	{Customise, (*job).customise}, // the disk
	{Pack, (*job).pack},           // the container around it
	{Test, (*job).test},           // boots exactly that disk
	{Sign, (*job).sign},           // by digest
	{Publish, (*job).publish},     // pushed, read back, verified, tagged
}

// identity is the name that users pull and signatures vouch for.
func (j *job) identity() string {
	if where := j.e.registry.String(); !strings.HasPrefix(where, "dir:") {
		return where + "/" + j.target.Flavor.ID
	}
	return j.e.cfg.Catalog.Project.Public + "/" + j.target.Flavor.ID
}

func (j *job) query(flavor *catalog.Flavor, release *catalog.Release, only []string, scope *event.Scope) upstream.Query {
	return upstream.Query{Flavor: flavor, Release: release, Arch: j.target.Arch, Project: &j.e.cfg.Catalog.Project, Only: only, Mirrors: j.e.mirrors(), Now: j.e.cfg.Now, Client: j.e.client,
		Web: j.asking.web, Ring: j.e.cfg.Ring,
		State: func(name string) string { return j.e.cache.Path("upstream", name) },
		Lock:  func(ctx context.Context, name string) (func(), error) { return j.e.cache.Lock(ctx, name, scope) }}
}

// recipeKey names everything that is known of a guest before its disk is made: what upstream has, and what is done to
// it. Of a packages origin that is all there is to know; what a guest's own package manager brings shows later.
func (j *job) recipeKey() (string, error) {
	o := j.target.Flavor.Origin
	b := o.Boot[j.target.Arch]
	b.Firmware, b.Memory = nil, 0 // what the test uses is not in the guest
	// How upstream is found is not in it either.
	type recipe struct {
		Kind, Format string
		Archives     []string
		ArchNames    map[catalog.Arch]string
		Packages     map[string]string
		System       []string
		Sources      []string
		Cmdline      string
		Run          []string
		Licences     []string
		Files        []catalog.File
		Boot         map[catalog.Arch]catalog.Boot
		Customise    *catalog.Customise `json:",omitempty"`
		Manager      *catalog.Manager   `json:",omitempty"`
		Translations map[string]string  `json:",omitempty"`
		Untouched    string             `json:",omitempty"`
		Zstd         bool               `json:",omitempty"`
	}
	rec := recipe{Kind: o.Kind, Format: o.Format, Archives: o.Archives, ArchNames: o.ArchNames, Packages: o.Packages, System: o.System, Sources: o.Sources, Cmdline: o.Cmdline,
		Run: o.Run, Licences: o.Licences, Files: o.Files, Boot: map[catalog.Arch]catalog.Boot{j.target.Arch: b}}
	builder, roots := disk.Version, j.snapshot.Roots
	rec.Zstd = j.e.cfg.Catalog.Project.Zstd()
	if c := o.Customise; c != nil {
		builder = customise.Version + "/" + disk.Version
		roots = j.e.cfg.Catalog.Project.Packages
		m := j.e.cfg.Catalog.Managers[c.Manager]
		same := *c
		same.Ways, same.Trusted = nil, "" // every way leaves the same
		rec.Customise, rec.Manager, rec.Translations, rec.Untouched = &same, &m, j.target.Release.Packages, o.Untouched(j.target.Release)
		// An image that nobody has signed yet may be named by another algorithm's checksum, or none: its address is in it.
		if j.snapshot.Checksum == "" {
			roots = append(slices.Clone(roots), j.snapshot.URL)
		}
	}
	data, err := json.Marshal(struct {
		Builder, Arch, Codename, Size, Snapshot string
		Roots                                   []string
		Origin                                  recipe
	}{builder, string(j.target.Arch), j.target.Release.Codename, j.e.cfg.Catalog.Project.DiskSize, j.snapshot.Checksum, roots, rec})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// contentKey names a guest whose packages are known: its recipe and them.
func contentKey(recipe string, packages []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s", recipe, packages)
	return hex.EncodeToString(h.Sum(nil))
}

// settled says whether the recipe alone tells what the guest is made of.
func (j *job) settled() bool {
	o := j.target.Flavor.Origin
	return o.Kind != "image" || o.Customise == nil || o.Untouched(j.target.Release) != ""
}

func (j *job) resolve(ctx context.Context, scope *event.Scope) (string, error) {
	repo, err := j.e.registry.Repository(j.target.Flavor.ID)
	if err != nil {
		return "", err
	}
	j.repo = repo
	type current struct {
		state *publish.State
		err   error
	}
	registry := make(chan current, 1)
	go func() {
		var c current
		c.state, c.err = publish.Current(ctx, repo, j.target.Release.Version, j.target.Arch)
		registry <- c
	}()
	j.snapshot, err = upstream.Find(ctx, j.query(j.target.Flavor, j.target.Release, nil, scope), scope)
	c := <-registry
	s := j.snapshot
	if s != nil {
		j.plan.Upstream = &Upstream{URL: s.URL, Size: s.Size, Date: s.Date, Build: s.Build, Checksum: s.Checksum, Signature: s.Signature, Trust: s.Trust}
	}
	if err = errors.Join(err, c.err); err != nil {
		return "", err
	}
	j.published = c.state
	if j.key, err = j.recipeKey(); err != nil {
		return "", err
	}
	if j.settled() {
		j.content = j.key
	} else if j.cached() { // made lately: its packages are known
		j.content = j.record.Content
		j.disk = nil // the stages say it themselves
	}
	if o := j.target.Flavor.Origin; o.Kind == "image" && o.Customise != nil {
		if j.way, j.plan.WayReason, err = j.e.host.Choose(ctx, o, j.target.Release, j.target.Arch, signed(s.Signature), false); err != nil {
			j.plan.WayReason = err.Error()
		}
		j.plan.Way = j.way
	}
	labels := j.published.Labels()
	if labels != nil {
		j.plan.Published = &Published{Digest: j.published.Entry.Digest.String(), ContentKey: labels[container.LabelContentKey], Date: j.published.Created(), Build: labels[container.LabelUpstream]}
	}
	if err := j.decide(ctx, labels, scope); err != nil {
		return "", err
	}
	if p := j.plan.Published; p != nil {
		p.Tags = append([]string{j.target.Release.Version}, j.others...)
	}
	what := fetch.Size(s.Size)
	if s.Size == 0 {
		what = "size not known"
	}
	if len(s.Packages) > 0 {
		what = fmt.Sprintf("%d packages, %s", len(s.Packages), what)
	}
	return fmt.Sprintf("%s, %s, %s; %s: %s", s.Build, what, keyIDs(s.Signature), j.plan.Action, j.plan.Reason), nil
}

var fingerprints = regexp.MustCompile(`\b[0-9A-F]{24}([0-9A-F]{16})\b`)

// keyIDs shortens the fingerprints in a text to key IDs, their last 16 digits, for lines that people read.
func keyIDs(text string) string { return fingerprints.ReplaceAllString(text, "$1") }

// signed says whether a signature is verified with a pinned key, now or while the file is fetched.
func signed(signature string) bool {
	return strings.HasPrefix(signature, "verified ") || strings.HasPrefix(signature, "over the file by ")
}

// decide compares what is newest with what is published.
func (j *job) decide(ctx context.Context, labels map[string]string, scope *event.Scope) error {
	j.plan.Action = Build
	have, recipe := labels[container.LabelContentKey], labels[container.LabelRecipe]
	switch {
	case j.published == nil:
		j.plan.Reason = "not published yet"
	case labels == nil:
		j.plan.Reason = "published for other architectures only"
	case j.content == "" && recipe == "sha256:"+j.key:
		j.plan.Reason = "upstream's disk is the published one: whether its packages have updates shows when they are installed"
		if j.force {
			j.plan.Reason = "asked for by --force"
		}
	case j.content == "":
		j.plan.Reason = fmt.Sprintf("upstream or the recipe has changed: published is recipe %s, newest is %s", short(recipe), short(j.key))
	case have != "sha256:"+j.content:
		j.plan.Reason = fmt.Sprintf("the guest has changed: published is content %s, newest is %s", short(have), short(j.content))
	case j.force:
		j.plan.Reason = "asked for by --force"
	default:
		// The content is the same. What is published has to be whole, too.
		whole, why, err := j.whole(ctx, scope)
		if err != nil {
			return err
		}
		j.plan.Reason = why
		if p := j.plan.Published; p != nil && whole {
			p.Signature = "verified " + j.signedBy
		} else if p != nil && j.signedBy != "" {
			p.Signature = "bad: " + strings.TrimPrefix(why, "published, but ")
		}
		if whole {
			j.rests(labels)
		}
		if whole && !j.retag {
			j.plan.Action, j.plan.Reason = None, fmt.Sprintf("content %s is published", short(j.content))
		}
	}
	return nil
}

// rests notes why nothing is left to do: the content is published.
func (j *job) rests(labels map[string]string) {
	entry := j.published.Entry.Digest
	j.nothing = map[Stage]string{
		Fetch:     fmt.Sprintf("the newest packages are those of the published image (content %s)", short(j.content)),
		Customise: fmt.Sprintf("its disk is published: %s", labels[container.LabelDisk]),
		Pack:      fmt.Sprintf("its container is published: %s", entry),
		Test:      "tested before publication: " + labels[container.LabelTested],
		Sign:      j.vouched,
		Publish:   fmt.Sprintf("%s → %s", strings.Join(append([]string{j.target.Release.Version}, j.others...), ", "), j.published.Index.Digest),
	}
	if j.retag {
		delete(j.nothing, Publish)
	}
	if j.target.Flavor.Origin.Kind == "image" {
		j.nothing[Fetch] = fmt.Sprintf("upstream's disk and its newest packages are those of the published image (content %s)", short(j.content))
	}
	j.digest = entry
	j.result.Image = j.repo.String() + "@" + j.published.Index.Digest.String()
	j.result.Tags = append([]string{j.target.Release.Version}, j.others...)
}

func short(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	if digest == "" {
		return "unknown"
	}
	return digest[:min(12, len(digest))]
}

// diskRecord is what the cache knows of a finished disk.
type diskRecord struct {
	Disk    disk.Disk `json:"disk"`
	Pulled  time.Time `json:"pulled"`
	Made    time.Time `json:"made"`    // when its packages were the newest
	Content string    `json:"content"` // content key, hex
}

// fresh is how long the packages that a guest's own package manager brought count as the newest.
const fresh = 20 * time.Hour

// cached finds a finished disk of this content.
func (j *job) cached() bool {
	var r diskRecord
	j.folder = j.e.cache.Path("disks", j.key)
	if !j.e.cache.Load("disks", j.key, &r) {
		return false
	}
	info, err := os.Stat(filepath.Join(j.folder, r.Disk.File))
	if err != nil || info.Size() != r.Disk.Size || !j.settled() && (j.force || j.e.cfg.Now().Sub(r.Made).Abs() > fresh) {
		return false
	}
	j.disk, j.pulled, j.record = &r.Disk, r.Pulled, r
	return true
}

func (j *job) fetch(ctx context.Context, scope *event.Scope) (string, error) {
	unlock, err := j.e.cache.Lock(ctx, "content-"+j.key, scope)
	if err != nil {
		return "", err
	}
	j.unlock = unlock
	if slices.Index(Stages, j.last) >= slices.Index(Stages, Pack) {
		if _, _, err := j.base(ctx, scope); err != nil {
			return "", err
		}
	}
	if j.last == Publish {
		if err := j.repo.Writable(ctx); err != nil {
			return "", err
		}
	}
	if j.cached() {
		return "", event.Skipf("a disk of this content (%s) is in the cache", short(j.key))
	}
	// The day on which the first of the files came counts, also when a later run brings the rest.
	if !j.e.cache.Load("pulled", j.key, &j.pulled) {
		j.pulled = j.e.cfg.Now().UTC().Truncate(time.Second)
		if err := j.e.cache.Store("pulled", j.key, j.pulled); err != nil {
			return "", err
		}
	}
	if j.snapshot.File != nil {
		return j.fetchFile(ctx, scope)
	}
	if err := j.e.fetcher.All(ctx, items(j.snapshot), scope); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d packages, %s, every SHA-256 verified", len(j.snapshot.Packages), fetch.Size(j.snapshot.Size)), nil
}

// fetchFile downloads a file of upstream's, verifies it and unpacks it, in one pass.
func (j *job) fetchFile(ctx context.Context, scope *event.Scope) (string, error) {
	s, f := j.snapshot, j.snapshot.File
	img := fetch.Image{URL: s.URL, Size: s.Size, Sums: texts(f.Sums), DiskSums: texts(f.DiskSums), Pack: f.Pack, Member: f.Member}
	var stream *integrity.Stream
	if seal := f.Seal; seal != nil {
		img.Checks = []fetch.Check{{Disk: seal.Disk, Name: sealName(seal), New: func() io.WriteCloser {
			var err error
			if stream, err = j.e.cfg.Ring.Stream(seal.Kind, seal.Signature, seal.Keys, j.e.cfg.Now()); err != nil {
				return refusing{err}
			}
			return stream
		}}}
	}
	got, err := j.e.images.Image(ctx, img, scope)
	if err != nil {
		return "", err
	}
	j.source = got.Path
	facts, err := disk.Inspect(got.Path, f.Format)
	if err != nil {
		return "", fmt.Errorf("%s: %w", s.URL, err)
	}
	if got.Cached {
		return "", event.Skipf("%s (%s) is in the cache, verified before", s.Build, fetch.Size(got.Size))
	}
	if stream != nil {
		s.Signature = "verified " + stream.Signer()
		j.plan.Upstream.Signature = s.Signature
	}
	what := fetch.Size(got.ServedSize)
	if got.Size != got.ServedSize {
		what += ", " + fetch.Size(got.Size) + " unpacked"
	}
	return fmt.Sprintf("%s, %s, %s; %s, %s virtual", what, clipSum(s.Checksum), keyIDs(s.Signature), facts.Format, fetch.Size(facts.VirtualSize)), nil
}

// sealName tells signatures and the keys that count apart.
func sealName(s *upstream.Seal) string {
	sum := sha256.Sum256(s.Signature)
	return fmt.Sprintf("%s signature %x by %s", s.Kind, sum[:16], keyIDs(strings.Join(s.Keys, " or ")))
}

// refusing is a check that cannot begin.
type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }
func (r refusing) Close() error              { return r.err }

func texts[T fmt.Stringer](list []T) (out []string) {
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}

// clipSum shortens a checksum for lines that people read.
func clipSum(sum string) string {
	algorithm, digits, _ := strings.Cut(sum, ":")
	return algorithm + ":" + short(digits)
}

func items(s *upstream.Snapshot) []fetch.Item {
	list := make([]fetch.Item, len(s.Packages))
	for i, p := range s.Packages {
		list[i] = fetch.Item{URL: p.From, Size: p.Size, SHA256: p.SHA256}
	}
	return list
}

func (j *job) customise(ctx context.Context, scope *event.Scope) (string, error) {
	defer func() {
		if j.unlock != nil {
			j.unlock()
			j.unlock = nil
		}
	}()
	if j.disk != nil {
		j.content = j.record.Content
		if j.content == "" {
			j.content = j.key
		}
		if err := j.compare(ctx, scope); err != nil {
			return "", err
		}
		return "", event.Skipf("the disk is in the cache: sha256:%s, %s", short(j.disk.SHA256), fetch.Size(j.disk.Size))
	}
	size, err := catalog.ParseSize(j.e.cfg.Catalog.Project.DiskSize)
	if err != nil {
		return "", err
	}
	work, release, err := j.e.cache.Work("disk")
	if err != nil {
		return "", err
	}
	defer release()
	zstd := j.e.cfg.Catalog.Project.Zstd()
	if zstd {
		scope.Log("warning: the disk's clusters are compressed by zstd, as disk_compression asks: hypervisors with a QEMU before 5.1, and older KubeVirt's, cannot open it")
	}
	var d *disk.Disk
	o, made := j.target.Flavor.Origin, j.e.cfg.Now().UTC().Truncate(time.Second)
	if o.Kind == "image" {
		// Now it matters whether what looks possible is.
		if j.way, j.plan.WayReason, err = j.e.host.Choose(ctx, o, j.target.Release, j.target.Arch, signed(j.snapshot.Signature), true); err != nil {
			return "", event.WithRemedy(fmt.Errorf("this machine cannot customise the disk: %w", err), "kmi-tui doctor says what this machine can do")
		}
		scope.Logf("way: %s (%s)", j.way, j.plan.WayReason)
		d, err = customise.Run(ctx, customise.Spec{Origin: o, Manager: j.e.cfg.Catalog.Managers[o.Customise.Manager], Release: j.target.Release, Arch: j.target.Arch,
			Packages: j.e.cfg.Catalog.Project.Packages, Disk: j.source, Size: size, Way: j.way, Mirrors: j.e.mirrors(), Dir: work, Cache: j.e.cache.Path("upstream", "appliance"), Zstd: zstd}, scope)
	} else {
		d, err = disk.Build(ctx, disk.Spec{Origin: o, Arch: j.target.Arch, Codename: j.target.Release.Codename, Snapshot: j.snapshot,
			Blob: j.e.cache.Blob, Key: j.key, Size: size, Dir: work, Zstd: zstd}, scope)
	}
	if err != nil {
		return "", err
	}
	j.content = j.key
	if !j.settled() {
		packages, err := os.ReadFile(filepath.Join(work, "result", d.Packages))
		if err != nil {
			return "", err
		}
		j.content = contentKey(j.key, packages)
	}
	if err := os.MkdirAll(filepath.Dir(j.folder), 0o755); err != nil {
		return "", fetch.Explain(err, j.e.cache.Dir())
	}
	if err := os.RemoveAll(j.folder); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(work, "result"), j.folder); err != nil {
		return "", err
	}
	if err := j.e.cache.Store("disks", j.key, diskRecord{Disk: *d, Pulled: j.pulled, Made: made, Content: j.content}); err != nil {
		return "", err
	}
	j.disk = d
	what := fmt.Sprintf("%s virtual, %s qcow2, sha256:%s", fetch.Size(d.VirtualSize), fetch.Size(d.Size), short(d.SHA256))
	if j.way != "" {
		what += ", by " + j.way
	}
	return what, j.compare(ctx, scope)
}

// compare looks whether a disk that had to be made to know it has brought nothing new.
func (j *job) compare(ctx context.Context, scope *event.Scope) error {
	labels := j.published.Labels()
	if j.settled() || j.force || labels == nil || labels[container.LabelContentKey] != "sha256:"+j.content {
		return nil
	}
	whole, why, err := j.whole(ctx, scope)
	if err != nil {
		return err
	}
	if why != "" {
		scope.Log(why)
	}
	if !whole {
		return nil
	}
	if !j.retag {
		j.plan.Action, j.plan.Reason = None, fmt.Sprintf("no package has changed: content %s is published", short(j.content))
		scope.Log(j.plan.Reason)
	}
	j.rests(labels)
	return nil
}

// testRecord is a boot test that passed.
type testRecord struct {
	Time    time.Time     `json:"time"`
	Results []boot.Result `json:"results"`
}

// testKey names the boot test of a disk (its SHA-256, hex) as its target describes it now.
func testKey(t Target, sum string) string {
	b := t.Flavor.Origin.Boot[t.Arch]
	id := sha256.Sum256([]byte(strings.Join(append([]string{sum, boot.Version, string(t.Arch), t.Flavor.User, strconv.Itoa(b.Memory)}, b.Firmware...), " ")))
	return hex.EncodeToString(id[:])
}

func (j *job) test(ctx context.Context, scope *event.Scope) (string, error) {
	b := j.target.Flavor.Origin.Boot[j.target.Arch]
	key := testKey(j.target, j.disk.SHA256)
	var record testRecord
	if j.e.cache.Load("tests", key, &record) && !j.force {
		return "", event.Skipf("this disk passed on %s: %s", record.Time.Format("2006-01-02 15:04"), passed(record.Results))
	}
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		result boot.Result
		err    error
	}
	// A machine takes one processor: as many at once as there are.
	slots := make(chan struct{}, max(1, runtime.NumCPU()/max(1, j.e.cfg.Jobs)))
	outcomes := make([]chan outcome, len(b.Firmware))
	for i, firmware := range b.Firmware {
		outcomes[i] = make(chan outcome, 1)
		go func() {
			slots <- struct{}{}
			o := outcome{}
			o.result, o.err = j.boots(ctx, firmware, i == 0, scope.With(firmware+" | "))
			if o.err != nil {
				cancel() // the others need not go on
			}
			outcomes[i] <- o
			<-slots
		}()
	}
	var failures []error
	for _, c := range outcomes {
		o := <-c
		record.Results = append(record.Results, o.result)
		if o.err != nil && !errors.Is(o.err, context.Canceled) {
			failures = append(failures, o.err)
		}
	}
	if caller.Err() != nil {
		return "", context.Cause(caller)
	}
	if err := errors.Join(failures...); err != nil {
		return "", err
	}
	record.Time = j.e.cfg.Now().UTC()
	return passed(record.Results), j.e.cache.Store("tests", key, record)
}

// boots is the boot test with one firmware.
func (j *job) boots(ctx context.Context, firmware string, full bool, scope *event.Scope) (boot.Result, error) {
	work, release, err := j.e.cache.Work("boot")
	if err != nil {
		return boot.Result{}, err
	}
	defer release()
	// The machine gets a bigger disk than the image: the root has to grow.
	return boot.Run(ctx, boot.Spec{Disk: filepath.Join(j.folder, j.disk.File), Arch: j.target.Arch, Firmware: firmware,
		Memory: j.target.Flavor.Origin.Boot[j.target.Arch].Memory, User: j.target.Flavor.User, Size: j.disk.VirtualSize + 2<<30, Full: full, Dir: work}, scope)
}

func passed(results []boot.Result) string {
	words := make([]string, len(results))
	for i, r := range results {
		words[i] = fmt.Sprintf("%s %d checks in %.0f s (%s)", r.Firmware, len(r.Checks), r.Seconds, r.Accel)
	}
	return strings.Join(words, ", ")
}

func hexOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

// keptDisks is how many finished disks of a target stay in the cache.
const keptDisks = 2

// pruneDisks removes older disks of this target.
func (j *job) pruneDisks() {
	var history []string
	name := j.target.String()
	j.e.cache.Load("history", name, &history)
	list := []string{j.key}
	for _, k := range history {
		if k != j.key {
			list = append(list, k)
		}
	}
	for _, old := range list[min(keptDisks, len(list)):] {
		if len(old) == 64 && strings.Trim(old, "0123456789abcdef") == "" {
			_ = os.RemoveAll(j.e.cache.Path("disks", old))
		}
	}
	_ = j.e.cache.Store("history", name, list[:min(keptDisks, len(list))])
}

// commit is the commit of the repository that builds: what was configured, what CI says, or what git says of the
// catalogue's folder, with "-dirty" where files differ.
func (e *Engine) commit(ctx context.Context) string {
	if e.cfg.Commit != "" {
		return e.cfg.Commit
	}
	dir := filepath.Dir(e.cfg.Catalog.Path)
	git := func(args ...string) (string, error) {
		out, err := command.Output(ctx, command.Command{Name: "git", Args: append([]string{"-C", dir}, args...)}, 0, nil)
		return strings.TrimSpace(string(out)), err
	}
	head, err := git("rev-parse", "HEAD")
	if err != nil || head == "" {
		return "unknown"
	}
	if changes, err := git("status", "--porcelain", "--untracked-files=no"); err != nil || changes != "" {
		head += "-dirty"
	}
	return head
}
