package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/customise"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// Config says with what an engine works. Everything it needs from outside comes through here.
type Config struct {
	Catalog  *catalog.Catalog
	Cache    string // folder; made if need be
	Registry string // HOST/PATH or dir:PATH; "" means the catalogue's
	Base     string // see container.ResolveBase, or "built"; "" means the catalogue's
	Layer    string // how the disk's layer is compressed: none, gzip, zstd; "" means the catalogue's
	Mirrors  []upstream.Mirror
	Jobs     int // targets worked on at once after they are resolved; 0 means half the processors

	Key      string // file of the signing key; "" means the embedded default in KeyDir
	KeyPEM   []byte // the signing key itself, before Key
	Password []byte // its passphrase
	KeyDir   string // where the default key pair is, or is made at its first use

	Ring       *integrity.Ring  // keys of upstreams; nil means those of the repository
	Backoff    time.Duration    // before an upstream's document is asked for a second time; 0 means 300 ms
	Insecure   bool             // allow plain http to registries that are not loopback
	Now        func() time.Time // nil means time.Now
	Commit     string           // commit of the repository that builds; "" asks git in the catalogue's folder
	SourceDate time.Time        // when upstream was pulled, as images say it; zero means when it was
	Version    string           // of this program
}

// Engine runs the way of images. Its methods are safe for concurrent use; one Run at a time makes sense.
type Engine struct {
	Desk

	cfg      Config
	bus      *event.Bus
	cache    *fetch.Cache
	registry publish.Registry
	limits   publish.Limits // of registry
	form     container.Form // of the disk's layer
	fetcher  *fetch.Fetcher // of packages, whose addresses are rewritten by mirrors already
	images   *fetch.Fetcher // of upstream's own addresses
	client   *http.Client
	logs     string
	host     customise.Host

	knownMu sync.Mutex

	keyMu  sync.Mutex
	signer *trust.Signer

	cancelMu sync.Mutex
	cancels  map[string]context.CancelCauseFunc // of the targets that are worked on

	baseMu sync.Mutex
	bases  map[catalog.Arch]base
}

// New makes an engine. Its error is a *NotStarted.
func New(cfg Config) (*Engine, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Registry == "" {
		cfg.Registry = cfg.Catalog.Project.Registry
	}
	if cfg.Base == "" {
		cfg.Base = cfg.Catalog.Base.Image
	}
	if cfg.Layer == "" {
		cfg.Layer = cfg.Catalog.Project.Layer
	}
	form, err := container.ParseForm(cfg.Layer)
	if err != nil {
		return nil, &NotStarted{err}
	}
	if cfg.Ring == nil {
		cfg.Ring = integrity.Pinned()
	}
	if cfg.Jobs <= 0 {
		cfg.Jobs = max(1, runtime.NumCPU()/2)
	}
	cache, err := fetch.OpenCache(cfg.Cache)
	if err != nil {
		return nil, &NotStarted{err}
	}
	limits, err := publish.LimitsOf(cfg.Registry, cfg.Catalog)
	if err != nil {
		return nil, &NotStarted{err}
	}
	registry, err := publish.Open(cfg.Registry, publish.Options{Insecure: cfg.Insecure, Limits: limits})
	if err != nil {
		return nil, &NotStarted{err}
	}
	client := fetch.NewClient()
	e := &Engine{cfg: cfg, bases: map[catalog.Arch]base{}, cancels: map[string]context.CancelCauseFunc{}, bus: event.NewBus(cfg.Now), cache: cache, registry: registry, limits: limits, form: form, client: client, fetcher: &fetch.Fetcher{Cache: cache, Client: client, Backoff: cfg.Backoff}}
	mirrored := fetch.NewClient()
	mirrored.Transport = upstream.Through(e.mirrors(), mirrored.Transport)
	e.images = &fetch.Fetcher{Cache: cache, Client: mirrored, Backoff: cfg.Backoff}
	e.logs = cache.Path("logs", cfg.Now().UTC().Format("20060102T150405")+fmt.Sprintf("-%d", os.Getpid()))
	return e, nil
}

// Close ends every subscription.
func (e *Engine) Close() { e.bus.Close() }

// Catalog is the catalogue that the engine works from.
func (e *Engine) Catalog() *catalog.Catalog { return e.cfg.Catalog }

// Subscribe returns a subscription to everything that happens from now on.
func (e *Engine) Subscribe() *Subscription { return e.bus.Subscribe() }

// Destination is where runs publish: HOST/PATH or dir:PATH.
func (e *Engine) Destination() string { return e.cfg.Registry }

// Transcript is the whole log of a target in this process; nil when nothing was logged for it yet.
func (e *Engine) Transcript(target string) *Transcript { return e.bus.Transcript(target) }

// Logs is the folder of this process's raw logs.
func (e *Engine) Logs() string { return e.logs }

// scope makes the reporter of a target's stage, with its raw log on disk.
func (e *Engine) scope(bus *event.Bus, target string, stage Stage) *event.Scope {
	if bus != e.bus {
		return bus.Scope(target, string(stage), "") // nobody listens
	}
	dir := filepath.Join(e.logs, strings.NewReplacer(":", "-", "/", "-").Replace(target))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return e.bus.Scope(target, string(stage), "")
	}
	return e.bus.Scope(target, string(stage), filepath.Join(dir, string(stage)+".log"))
}

// keptRuns is how many runs' logs stay in the cache.
const keptRuns = 30

// pruneLogs removes the logs of all but the newest runs.
func (e *Engine) pruneLogs() {
	entries, err := os.ReadDir(e.cache.Path("logs"))
	if err != nil || len(entries) <= keptRuns {
		return
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	for _, old := range entries[:len(entries)-keptRuns] {
		_ = os.RemoveAll(e.cache.Path("logs", old.Name()))
	}
}

// verifier returns the key that what is published here is verified with; nil when there is none yet. The embedded
// default's public half is read from its file: decrypting the private one takes a quarter of a second.
func (e *Engine) verifier(ctx context.Context) (*trust.Key, error) {
	if e.cfg.Key == "" && len(e.cfg.KeyPEM) == 0 {
		public := filepath.Join(e.cfg.KeyDir, "cosign.pub")
		if _, err := os.Stat(public); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return trust.LoadKey(public)
	}
	s, err := e.key(ctx, false)
	if err != nil || s == nil {
		return nil, err
	}
	return &s.Key, nil
}

// key returns the signer. With make, a key pair is generated where there is none yet, and said; without it, the signer
// is nil then. Its error is a *NotStarted.
func (e *Engine) key(ctx context.Context, generate bool) (*trust.Signer, error) {
	e.keyMu.Lock()
	defer e.keyMu.Unlock()
	if e.signer != nil {
		return e.signer, nil
	}
	var err error
	switch {
	case len(e.cfg.KeyPEM) > 0:
		e.signer, err = trust.LoadSignerPEM(e.cfg.KeyPEM, e.cfg.Password)
	case e.cfg.Key != "":
		e.signer, err = trust.LoadSigner(ctx, e.cfg.Key, e.cfg.Password)
	default:
		private := filepath.Join(e.cfg.KeyDir, "cosign.key")
		if _, serr := os.Stat(private); errors.Is(serr, fs.ErrNotExist) {
			if !generate {
				return nil, nil
			}
			var pair trust.KeyPair
			if pair, err = trust.GenerateKey(e.cfg.KeyDir, e.cfg.Password); err != nil {
				return nil, &NotStarted{err}
			}
			protected := "without a passphrase (set COSIGN_PASSWORD before the first use to have one)"
			if len(e.cfg.Password) > 0 {
				protected = "with the passphrase of COSIGN_PASSWORD"
			}
			e.bus.Scope("", "", "").Logf("A signing key pair was generated for you, %s: %s signs, %s is for those who verify. Keep the first one secret and safe.",
				protected, pair.Private, pair.Public)
		}
		e.signer, err = trust.LoadSigner(ctx, private, e.cfg.Password)
	}
	if err != nil {
		return nil, &NotStarted{err}
	}
	return e.signer, nil
}
