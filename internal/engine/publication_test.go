package engine

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// watched is a registry in this process that keeps what it was asked.
type watched struct {
	host string

	mu   sync.Mutex
	seen []string                                                 // METHOD PATH
	deny func(w http.ResponseWriter, r *http.Request) (done bool) // nil: nothing is denied
}

func watchedRegistry(t *testing.T) *watched {
	t.Helper()
	w := &watched{}
	next := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.seen = append(w.seen, r.Method+" "+r.URL.Path)
		deny := w.deny
		w.mu.Unlock()
		if deny == nil || !deny(rw, r) {
			next.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(s.Close)
	w.host = strings.TrimPrefix(s.URL, "http://")
	return w
}

// asked returns what was asked since the last call, without who asks about the registry itself.
func (w *watched) asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := slices.DeleteFunc(w.seen, func(s string) bool { return s == "GET /v2/" })
	w.seen = nil
	return seen
}

func (w *watched) denying(deny func(w http.ResponseWriter, r *http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deny = deny
}

// theCatalogue is the repository's, wherever a test goes.
var theCatalogue, _ = filepath.Abs("../../distros.toml")

// week is an engine and the clock that it works by.
type week struct {
	*Engine
	now time.Time
}

func newWeek(t *testing.T, where string) *week {
	t.Helper()
	c, err := catalog.Load(theCatalogue)
	if err != nil {
		t.Fatal(err)
	}
	w := &week{now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	w.Engine, err = New(Config{Catalog: c, Cache: t.TempDir(), Registry: where, Base: "scratch", KeyDir: t.TempDir(), Commit: "none", Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// made is a job whose disk is in the cache and was tested.
func (w *week) made(t *testing.T, p *publication, level catalog.Level, arch catalog.Arch, content string) *job {
	t.Helper()
	flavor := w.Catalog().Flavors[slices.IndexFunc(w.Catalog().Flavors, func(f catalog.Flavor) bool { return f.Origin != nil && f.Origin.Kind == "packages" })]
	flavor.Level = level
	o := *flavor.Origin
	flavor.Origin = &o
	j := w.job(Target{Flavor: &flavor, Release: &flavor.Releases[0], Arch: arch, Newest: true}, Selection{}, w.ask(w.bus))
	var err error
	if j.repo, err = w.registry.Repository(flavor.ID); err != nil {
		t.Fatal(err)
	}
	j.publication = p
	p.join()
	j.key = strings.Repeat(content, 64)
	j.content, j.snapshot, j.pulled = j.key, &upstream.Snapshot{URL: "https://example.org/", Build: "1.2+" + content, Size: 1, Checksum: "sha256:00", Signature: "verified 00"}, w.now
	j.folder = w.cache.Path("disks", j.key+string(arch))
	file := filepath.Join(j.folder, "disk.qcow2")
	if err := errors.Join(os.MkdirAll(filepath.Join(j.folder, "licenses"), 0o755), os.WriteFile(file, emptyDisk(4096), 0o644),
		os.WriteFile(filepath.Join(j.folder, "packages.txt"), []byte("one "+content+" all\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	sum, _, err := disk.Sum(file)
	if err != nil {
		t.Fatal(err)
	}
	j.disk = &disk.Disk{File: "disk.qcow2", Format: "qcow2", SHA256: sum, Size: 4096, VirtualSize: 10 << 30, Packages: "packages.txt", Licences: "licenses"}
	return j
}

// all takes jobs through some stages, each in a goroutine of its own, and returns their errors.
func all(t *testing.T, jobs []*job, stages ...Stage) []string {
	t.Helper()
	errs := make([]string, len(jobs))
	var wg sync.WaitGroup
	for i, j := range jobs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer j.publication.leave()
			for _, s := range stages {
				if !j.step(t.Context(), slices.Index(Stages, s)) {
					errs[i] = j.result.Error
					return
				}
			}
		}()
	}
	wg.Wait()
	return errs
}

// again is the next run's look at what is published.
func (w *week) again(t *testing.T, old *job) *job {
	t.Helper()
	j := w.job(old.target, Selection{}, w.ask(w.bus))
	j.repo, j.key, j.content, j.snapshot = old.repo, old.key, old.content, old.snapshot
	j.publication = newPublication(w.Engine)
	j.publication.join()
	var err error
	if j.published, err = publish.Current(t.Context(), j.repo, j.target.Release.Version, j.target.Arch); err != nil {
		t.Fatal(err)
	}
	if err := j.decide(t.Context(), j.published.Labels(), w.scope(w.bus, j.target.String(), Resolve)); err != nil {
		t.Fatal(err)
	}
	return j
}

func tags(t *testing.T, j *job) map[string]string {
	t.Helper()
	list, err := j.repo.Tags(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, tag := range list {
		if strings.HasPrefix(tag, "sha256-") {
			continue
		}
		d, err := j.repo.Head(t.Context(), tag)
		if err != nil {
			t.Fatal(err)
		}
		found[tag] = d.Digest.String()
	}
	return found
}

// Both architectures of a release are published as one index, at once: its tags move once.
func TestOneIndexForAllArchitectures(t *testing.T) {
	r := watchedRegistry(t)
	w := newWeek(t, r.host+"/kmi")
	p := newPublication(w.Engine)
	jobs := []*job{w.made(t, p, catalog.Preview, catalog.ARM64, "a"), w.made(t, p, catalog.Preview, catalog.X86_64, "a")}
	if errs := all(t, jobs, Pack, Sign, Publish); strings.Join(errs, "") != "" {
		t.Fatal(errs)
	}
	moved := 0
	for _, s := range r.asked() {
		if strings.HasPrefix(s, "PUT ") && strings.HasSuffix(s, "/manifests/13") {
			moved++
		}
	}
	if moved != 1 {
		t.Errorf("the tag moved %d times", moved)
	}
	found := tags(t, jobs[0])
	if len(found) != 3 || found["13"] == "" || found["13"] != found["13-20261123"] || found["13"] != found["13-1.2-a"] {
		t.Errorf("%v", found)
	}
	for _, j := range jobs {
		if s := w.again(t, j); s.plan.Action != None || len(s.published.Entries) != 2 {
			t.Errorf("%s: %+v", j.target, s.plan)
		}
	}
}

// One that fails, or is cancelled while it waits, does not keep the others; what is published of it stays.
func TestWhoFailsLeavesTheIndex(t *testing.T) {
	w := newWeek(t, "dir:"+t.TempDir())
	p := newPublication(w.Engine)
	jobs := []*job{w.made(t, p, catalog.Preview, catalog.X86_64, "a"), w.made(t, p, catalog.Preview, catalog.ARM64, "a")}
	if errs := all(t, jobs, Pack, Sign, Publish); strings.Join(errs, "") != "" {
		t.Fatal(errs)
	}
	before := jobs[1].digest
	w.now = w.now.AddDate(0, 0, 7)
	p = newPublication(w.Engine)
	x86, arm := w.made(t, p, catalog.Preview, catalog.X86_64, "b"), w.made(t, p, catalog.Preview, catalog.ARM64, "b")
	if err := os.Remove(filepath.Join(arm.folder, "packages.txt")); err != nil {
		t.Fatal(err)
	}
	errs := all(t, []*job{x86, arm}, Pack, Sign, Publish)
	if errs[0] != "" || !strings.Contains(errs[1], "packages.txt") {
		t.Fatal(errs)
	}
	s := w.again(t, x86)
	digests := []string{}
	for _, d := range s.published.Entries {
		digests = append(digests, d.Digest.String())
	}
	if !slices.Equal(digests, []string{x86.digest.String(), before.String()}) {
		t.Errorf("%v", digests)
	}
	// Cancelled while it waits for the other.
	p = newPublication(w.Engine)
	x86, arm = w.made(t, p, catalog.Preview, catalog.X86_64, "c"), w.made(t, p, catalog.Preview, catalog.ARM64, "c")
	for _, j := range []*job{x86, arm} {
		if !j.step(t.Context(), slices.Index(Stages, Pack)) {
			t.Fatal(j.result.Error)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan bool)
	waits := make(chan struct{})
	go func() {
		sub := w.Subscribe()
		defer sub.Close()
		close(waits)
		for {
			events, ok := sub.Next(t.Context())
			if !ok || slices.ContainsFunc(events, func(e event.Event) bool { return strings.Contains(e.Line, "waiting for 1 more") }) {
				cancel(errors.New("enough"))
				return
			}
		}
	}()
	<-waits
	go func() {
		ok := arm.step(ctx, slices.Index(Stages, Sign))
		arm.publication.leave()
		ended <- ok
	}()
	if <-ended || !strings.Contains(arm.result.Error, "enough") {
		t.Fatal(arm.result.Error)
	}
	if errs := all(t, []*job{x86}, Sign, Publish); errs[0] != "" {
		t.Fatal(errs)
	}
}

// Nothing to do costs one request a tag; and whatever is missing or moved is noticed.
func TestNothingToDoIsCheap(t *testing.T) {
	r := watchedRegistry(t)
	w := newWeek(t, r.host+"/kmi")
	j := w.made(t, newPublication(w.Engine), catalog.Stable, catalog.X86_64, "a")
	if errs := all(t, []*job{j}, Pack, Sign, Publish); errs[0] != "" {
		t.Fatal(errs)
	}
	found := tags(t, j)
	want := []string{"13", "13-1.2-a", "13-20261123", "latest"}
	for _, tag := range want {
		if found[tag] != found["13"] || found[tag] == "" {
			t.Errorf("%s: %v", tag, found)
		}
	}
	r.asked()
	w.now = w.now.AddDate(0, 0, 1)
	if s := w.again(t, j); s.plan.Action != None {
		t.Errorf("%+v", s.plan)
	}
	// Four tags that users pull, and those where the signatures of index and image are.
	if asked := r.asked(); len(asked) != len(want)+2 {
		t.Errorf("%d requests: %v", len(asked), asked)
	}
	// Without what the cache remembers, everything is verified again, and remembered.
	if err := os.RemoveAll(w.cache.Path("records", "published")); err != nil {
		t.Fatal(err)
	}
	if s := w.again(t, j); s.plan.Action != None || !strings.Contains(s.nothing[Sign], "verified just now") {
		t.Errorf("%+v %v", s.plan, s.nothing)
	}
	r.asked()
	if s := w.again(t, j); s.plan.Action != None || !strings.Contains(s.nothing[Sign], "unchanged") {
		t.Errorf("%+v %v", s.plan, s.nothing)
	}
	if asked := r.asked(); len(asked) != len(want)+2 {
		t.Errorf("%d requests: %v", len(asked), asked)
	}
	// Somebody takes the signature away.
	sig := "sha256-" + j.digest.Hex + ".sig"
	r.denying(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, sig) {
			return false
		}
		http.NotFound(w, r)
		return true
	})
	if s := w.again(t, j); s.plan.Action != Build || !strings.Contains(s.plan.Reason, "not signed") {
		t.Errorf("%+v", s.plan)
	}
}

// A publication that was killed between two tags is completed by the next run, without building or sending anything.
func TestTagsAreCompleted(t *testing.T) {
	r := watchedRegistry(t)
	w := newWeek(t, r.host+"/kmi")
	j := w.made(t, newPublication(w.Engine), catalog.Stable, catalog.X86_64, "a")
	puts := 0
	r.denying(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") && !strings.Contains(r.URL.Path, "/manifests/sha256") {
			puts++
			if puts > 1 {
				panic(http.ErrAbortHandler) // as if we were killed: neither this nor what follows arrives
			}
		}
		return false
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, s := range []Stage{Pack, Sign} {
		if !j.step(ctx, slices.Index(Stages, s)) {
			t.Fatal(j.result.Error)
		}
	}
	w.registry = impatient(t, r.host)
	if j.repo, _ = w.registry.Repository(j.target.Flavor.ID); j.step(ctx, slices.Index(Stages, Publish)) {
		t.Fatal("it was published")
	}
	j.publication.leave()
	if found := tags(t, j); len(found) != 1 || found["13"] == "" {
		t.Fatalf("%v", found)
	}
	r.denying(nil)
	s := w.again(t, j)
	if s.plan.Action != Build || s.plan.Reason != "published, but without all of its tags: latest, 13-20261123, 13-1.2-a will be set" {
		t.Errorf("%+v", s.plan)
	}
	r.asked()
	for _, stage := range Stages[1:] {
		if !s.step(t.Context(), slices.Index(Stages, stage)) {
			t.Fatal(s.result.Error)
		}
	}
	s.finish(Publish)
	if s.result.State != event.Finished || !slices.Equal(s.result.Tags, []string{"13", "latest", "13-20261123", "13-1.2-a"}) {
		t.Errorf("%+v", s.result)
	}
	for _, a := range r.asked() {
		if strings.Contains(a, "/blobs/") || strings.HasPrefix(a, "POST") {
			t.Errorf("sent: %s", a)
		}
	}
	if found := tags(t, j); len(found) != 4 || found["latest"] != found["13"] {
		t.Errorf("%v", found)
	}
	if s := w.again(t, j); s.plan.Action != None {
		t.Errorf("%+v", s.plan)
	}
}

// On another day, another machine, in another language, with other masks and folders, the same inputs make the same image
// and the same index. The day of the pull is an input.
func TestTheSameBytesElsewhere(t *testing.T) {
	build := func(now time.Time, epoch int64) (image, index string) {
		w := newWeek(t, "dir:"+t.TempDir())
		w.now = now
		if epoch > 0 {
			w.cfg.SourceDate = time.Unix(epoch, 0)
		}
		p := newPublication(w.Engine)
		jobs := []*job{w.made(t, p, catalog.Preview, catalog.X86_64, "a"), w.made(t, p, catalog.Preview, catalog.ARM64, "a")}
		if errs := all(t, jobs, Pack, Sign, Publish); strings.Join(errs, "") != "" {
			t.Fatal(errs)
		}
		return jobs[0].digest.String(), tags(t, jobs[0])["13"]
	}
	day := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	image, index := build(day, day.Unix())
	defer syscall.Umask(syscall.Umask(0o077))
	t.Setenv("LC_ALL", "tr_TR.UTF-8")
	t.Setenv("TZ", "Pacific/Kiritimati")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	t.Chdir(t.TempDir())
	if i, x := build(day.AddDate(0, 3, 0).In(time.FixedZone("there", 14*3600)), day.Unix()); i != image || x != index {
		t.Errorf("%s and %s, elsewhere %s and %s", image, index, i, x)
	}
	if i, _ := build(day.Add(time.Hour), 0); i != image {
		t.Errorf("pulled on the same day: %s, %s", image, i)
	}
	if i, _ := build(day.AddDate(0, 0, 1), 0); i == image {
		t.Error("the day of the pull is not in the image")
	}
}

// Nothing of an image whose licence does not let others have it is sent, by whatever way it came here.
func TestWhatMayNotBePassedOnIsNotSent(t *testing.T) {
	r := watchedRegistry(t)
	for _, where := range []string{r.host + "/kmi", "dir:" + t.TempDir()} {
		w := newWeek(t, where)
		j := w.made(t, newPublication(w.Engine), catalog.Preview, catalog.X86_64, "a")
		j.target.Flavor.Redistribution, j.target.Flavor.Because, j.target.Flavor.Licence = catalog.Restricted, "nobody may", "https://example.org/eula"
		errs := all(t, []*job{j}, Pack, Sign, Publish)
		if strings.HasPrefix(where, "dir:") {
			if errs[0] != "" || len(tags(t, j)) == 0 {
				t.Errorf("a folder is one's own: %v", errs)
			}
			continue
		}
		if !strings.Contains(errs[0], "its licence restricts who may have it: nobody may (https://example.org/eula)") {
			t.Error(errs)
		}
		for _, a := range r.asked() {
			if !strings.HasPrefix(a, "GET ") && !strings.HasPrefix(a, "HEAD ") {
				t.Errorf("sent: %s", a)
			}
		}
	}
}

// What a level demands: an untested image does not stay in the index of a stable flavor.
func TestLevelsDemandTests(t *testing.T) {
	w := newWeek(t, "dir:"+t.TempDir())
	untested := w.made(t, newPublication(w.Engine), catalog.Preview, catalog.ARM64, "a")
	untested.target.Flavor.Origin.Boot = nil
	if errs := all(t, []*job{untested}, Pack, Sign, Publish); errs[0] != "" {
		t.Fatal(errs)
	}
	if got := w.again(t, untested).published.Labels()[container.LabelTested]; got != "no" {
		t.Errorf("tested: %q", got)
	}
	j := w.made(t, newPublication(w.Engine), catalog.Stable, catalog.X86_64, "a")
	if errs := all(t, []*job{j}, Pack, Sign, Publish); !strings.Contains(errs[0], "was not tested before it was published") {
		t.Error(errs)
	}
}

func impatient(t *testing.T, host string) publish.Registry {
	t.Helper()
	r, err := publish.Open(host+"/kmi", publish.Options{Tries: 1})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The work on one target can be ended alone, and only while there is some.
func TestCancelOneTarget(t *testing.T) {
	w := newWeek(t, "dir:"+t.TempDir())
	one, ended := w.cancellable(t.Context(), "a:1/x86_64")
	other, endedToo := w.cancellable(t.Context(), "b:1/x86_64")
	defer endedToo()
	if w.Cancel("c:1/x86_64", errors.New("enough")) || !w.Cancel("a:1/x86_64", errors.New("enough")) {
		t.Error("who is worked on")
	}
	if context.Cause(one) == nil || context.Cause(one).Error() != "enough" || other.Err() != nil {
		t.Errorf("%v, %v", context.Cause(one), other.Err())
	}
	ended()
	if w.Cancel("a:1/x86_64", errors.New("enough")) {
		t.Error("it has ended")
	}
}
