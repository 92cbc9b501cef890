package engine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// Live is an engine whose catalogue is being edited: it starts with the rows that fit every rule, and takes the file anew
// whenever it was saved. What is under way goes on with the catalogue that it began with. Its methods are safe for
// concurrent use.
type Live struct {
	now   atomic.Pointer[version]
	path  string
	cfg   Config                 // as it was given: what it leaves to the catalogue is the catalogue's of now
	busy  atomic.Pointer[Engine] // that runs, or ran last
	known [sha256.Size]byte      // of the file that was read last

	watcher *fsnotify.Watcher // nil: nobody tells of changes
	why     error             // then
	ended   chan struct{}
	once    sync.Once
	reads   sync.Mutex
}

// version is the catalogue at one time, and the engine that works with it.
type version struct {
	*Engine
	draft *catalog.Draft
}

// quiet is how long nothing must have happened to the file before it is read: editors write in several steps.
const quiet = 30 * time.Millisecond

// catalogMost is more than a catalogue may have: what is beyond it is not read.
const catalogMost = 1<<20 + 1

// OpenLive makes an engine for the catalogue's file of this path; cfg.Catalog is not used. The error is a *NotStarted: the
// file cannot be read, or the rest of the configuration is wrong. Mistakes in the file are none: see Draft.
func OpenLive(cfg Config, path string) (*Live, error) {
	data, err := readCatalog(path)
	if err != nil {
		return nil, &NotStarted{err}
	}
	d := catalog.ParseDraft(path, data)
	cfg.Catalog = d.Catalog
	e, err := New(cfg)
	if err != nil {
		if len(d.Problems) > 0 { // they may be the reason
			return nil, &NotStarted{errors.Join(d.Problems, err)}
		}
		return nil, err
	}
	l := &Live{path: path, cfg: cfg, known: sha256.Sum256(data), ended: make(chan struct{})}
	l.now.Store(&version{e, d})
	l.watch()
	return l, nil
}

func readCatalog(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, catalogMost))
}

// watch asks to be told when something happens in the folder of the file, and in that of what it is a link to: editors
// rename, and who watches a file watches one that is not there any more.
func (l *Live) watch() {
	w, err := fsnotify.NewWatcher()
	if err == nil {
		dirs := []string{filepath.Dir(l.path)}
		if real, rerr := filepath.EvalSymlinks(l.path); rerr == nil && filepath.Dir(real) != dirs[0] {
			dirs = append(dirs, filepath.Dir(real))
		}
		for _, dir := range dirs {
			if err == nil {
				err = w.Add(dir)
			}
		}
		if err != nil {
			_ = w.Close()
		}
	}
	if err != nil {
		l.why = event.WithRemedy(err, "what is saved in %s shows when the console is opened again", l.path)
		return
	}
	l.watcher = w
}

// Changed waits until the file has another content than before, and reads it. It returns false when ctx is done, when the
// engine is closed and where changes cannot be watched; the error says why they cannot, or what became of the file; then
// the rows stay what they were.
func (l *Live) Changed(ctx context.Context) (bool, error) {
	if l.watcher == nil {
		return false, l.why
	}
	timer := time.NewTimer(0) // it may have been saved since it was read
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-l.ended:
			return false, nil
		case _, ok := <-l.watcher.Events:
			if !ok {
				return false, nil
			}
			timer.Reset(quiet)
		case err, ok := <-l.watcher.Errors: // events were lost
			if ok && err != nil {
				timer.Reset(quiet)
			}
		case <-timer.C:
			if changed, err := l.read(); changed || err != nil {
				return true, err
			}
		}
	}
}

// read takes the file if its content is another one.
func (l *Live) read() (bool, error) {
	l.reads.Lock()
	defer l.reads.Unlock()
	data, err := readCatalog(l.path)
	sum := sha256.Sum256(data)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // between two steps of an editor; the next tells
	}
	if err == nil && sum == l.known {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	l.known = sum
	d := catalog.ParseDraft(l.path, data)
	old := l.now.Load()
	e, err := old.Engine.with(l.cfg, d.Catalog)
	if err != nil {
		return false, err
	}
	l.now.Store(&version{e, d})
	return true, nil
}

// with is the same engine for another catalogue: cache, events and logs stay. given is the configuration that the engine
// was made of.
func (e *Engine) with(given Config, c *catalog.Catalog) (*Engine, error) {
	cfg := e.cfg
	cfg.Catalog = c
	cfg.Registry = cmp.Or(given.Registry, c.Project.Registry)
	cfg.Base = cmp.Or(given.Base, c.Base.Image)
	cfg.Layer = cmp.Or(given.Layer, c.Project.Layer)
	form, err := container.ParseForm(cfg.Layer)
	if err != nil {
		return nil, err
	}
	limits, err := publish.LimitsOf(cfg.Registry, c)
	if err != nil {
		return nil, err
	}
	registry, err := publish.Open(cfg.Registry, publish.Options{Insecure: cfg.Insecure, Limits: limits})
	if err != nil {
		return nil, err
	}
	n := &Engine{cfg: cfg, bases: map[catalog.Arch]base{}, bus: e.bus, cache: e.cache, registry: registry, limits: limits, form: form, fetcher: e.fetcher, client: e.client, logs: e.logs}
	images := *e.images
	client := *images.Client
	client.Transport = upstream.Through(n.mirrors(), e.client.Transport)
	images.Client = &client
	n.images = &images
	return n, nil
}

// Draft is what was read last, with its mistakes.
func (l *Live) Draft() *catalog.Draft { return l.now.Load().draft }

// Close ends the watching and every subscription.
func (l *Live) Close() {
	l.once.Do(func() {
		close(l.ended)
		if l.watcher != nil {
			_ = l.watcher.Close()
		}
		l.now.Load().Close()
	})
}

// errMistakes keeps what has mistakes from being published.
func (l *Live) errMistakes() error {
	d := l.Draft()
	if len(d.Problems) == 0 {
		return nil
	}
	return &NotStarted{event.WithRemedy(d.Problems, "mend the catalogue: nothing is built from one with mistakes")}
}

// Run is Engine.Run. A catalogue with mistakes is not built from.
func (l *Live) Run(ctx context.Context, sel Selection) (Summary, error) {
	if err := l.errMistakes(); err != nil {
		return Summary{}, err
	}
	e := l.now.Load().Engine
	l.busy.Store(e)
	return e.Run(ctx, sel)
}

// Cancel is Engine.Cancel, of the run that is under way.
func (l *Live) Cancel(target string, cause error) bool {
	e := l.busy.Load()
	return e != nil && e.Cancel(target, cause)
}

// The rest is that of Engine, with the catalogue as it is now.

func (l *Live) Catalog() *catalog.Catalog               { return l.now.Load().Catalog() }
func (l *Live) Subscribe() *Subscription                { return l.now.Load().Subscribe() }
func (l *Live) Destination() string                     { return l.now.Load().Destination() }
func (l *Live) Logs() string                            { return l.now.Load().Logs() }
func (l *Live) Known() (map[string]Known, error)        { return l.now.Load().Known() }
func (l *Live) History(weeks int) ([]PastRun, error)    { return l.now.Load().History(weeks) }
func (l *Live) Targets(sel Selection) ([]Target, error) { return l.now.Load().Targets(sel) }
func (l *Live) Plan(ctx context.Context, sel Selection) ([]Plan, error) {
	return l.now.Load().Plan(ctx, sel)
}
func (l *Live) Look(ctx context.Context, each func(Plan)) error { return l.now.Load().Look(ctx, each) }
func (l *Live) Transcript(target string) *Transcript            { return l.now.Load().Transcript(target) }
func (l *Live) Save(path string, overwrite bool, lines iter.Seq2[string, error]) (Saved, error) {
	return l.now.Load().Save(path, overwrite, lines)
}
func (l *Live) Clipboard(ctx context.Context, text string) (string, error) {
	return l.now.Load().Clipboard(ctx, text)
}
func (l *Live) Promotion(ctx context.Context, ask Ask) (*Promotion, error) {
	return l.now.Load().Promotion(ctx, ask)
}
func (l *Live) TryMe(ctx context.Context, selector string) (*TryMe, error) {
	return l.now.Load().TryMe(ctx, selector)
}
func (l *Live) Image(ctx context.Context, target string) (Image, error) {
	return l.now.Load().Image(ctx, target)
}
