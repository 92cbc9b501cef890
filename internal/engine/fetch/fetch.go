package fetch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Item is a file to download, known by its checksum before the first byte comes.
type Item struct {
	URL    string
	Size   int64  // bytes
	SHA256 string // hex
}

// Fetcher downloads items into a cache.
type Fetcher struct {
	Cache    *Cache
	Client   *http.Client  // nil: NewClient()
	Parallel int           // downloads at once; 0 means 8
	Backoff  time.Duration // before the second try; doubled each time; 0 means 500 ms
	Tries    int           // 0 means 4
	Stall    time.Duration // how long a connection may bring nothing; 0 means 30 s
}

func (f *Fetcher) client() *http.Client {
	if f.Client == nil {
		return defaultClient
	}
	return f.Client
}

func (f *Fetcher) backoff() time.Duration { return cmp.Or(f.Backoff, 500*time.Millisecond) }
func (f *Fetcher) tries() int             { return cmp.Or(f.Tries, 4) }
func (f *Fetcher) stall() time.Duration   { return cmp.Or(f.Stall, 30*time.Second) }

// NewClient returns a client that follows proxies of the environment, gives up on silent servers, and refuses to be
// redirected from https to http.
func NewClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 30 * time.Second
	t.MaxIdleConnsPerHost = 16
	t.DisableCompression = true
	return &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return &redirectError{"more than 10 redirects"}
		}
		if from := via[len(via)-1].URL; from.Scheme == "https" && req.URL.Scheme != "https" {
			return &redirectError{fmt.Sprintf("redirected from %s to %s: refused, it would give up https", from.Redacted(), req.URL.Redacted())}
		}
		return nil
	}}
}

// redirectError is a redirect that is not followed.
type redirectError struct{ why string }

func (r *redirectError) Error() string { return r.why }

var hex64 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// All makes every item a blob of the cache. What is there already is not asked for. The first item that cannot be had
// ends it; what was downloaded by then stays.
func (f *Fetcher) All(ctx context.Context, items []Item, scope *event.Scope) error {
	var total, done atomic.Int64
	var missing []Item
	seen := map[string]bool{}
	release := sync.OnceFunc(f.Cache.share())
	defer release()
	for _, it := range items {
		if !hex64.MatchString(it.SHA256) {
			return fmt.Errorf("%s: %q is no SHA-256", it.URL, it.SHA256)
		}
		if seen[it.SHA256] {
			continue
		}
		seen[it.SHA256] = true
		if f.Cache.has(it.SHA256, it.Size) {
			continue
		}
		missing = append(missing, it)
		total.Add(it.Size)
	}
	release()
	if len(missing) == 0 {
		return event.Skipf("all %d files (verified SHA-256) are in the cache", len(seen))
	}
	if err := Space(f.Cache.Dir(), total.Load(), "the download"); err != nil {
		return err
	}
	scope.Logf("%d of %d files to download, %s", len(missing), len(seen), Size(total.Load()))
	limit := f.Parallel
	if limit == 0 {
		limit = 8
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(limit)
	for _, it := range missing {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error {
			err := f.one(gctx, it, scope, func(n int64) { scope.Progress(done.Add(n), total.Load(), "bytes") })
			if err == nil {
				scope.Logf("%s %s sha256:%s verified", it.URL, Size(it.Size), it.SHA256)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}

// one downloads an item, in several tries if need be. Each try goes on where the one before stopped.
func (f *Fetcher) one(ctx context.Context, it Item, scope *event.Scope, progress func(int64)) error {
	blob := f.Cache.Blob(it.SHA256)
	if err := os.MkdirAll(filepath.Dir(blob), 0o755); err != nil {
		return Explain(err, f.Cache.Dir())
	}
	// One process, and in it one goroutine, writes a part at a time.
	lock := flock.New(f.Cache.Path("locks", "blob-"+it.SHA256[:2]+".lock"))
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return err
	}
	defer func() { _ = lock.Unlock() }()
	release := f.Cache.share()
	there := f.Cache.has(it.SHA256, it.Size)
	release()
	if there {
		progress(it.Size)
		return nil
	}
	tries, wait := f.tries(), f.backoff()
	for try := 1; ; try++ {
		err := f.try(ctx, it, blob, progress)
		if err == nil || ctx.Err() != nil {
			return err
		}
		var final *finalError
		if errors.As(err, &final) {
			return final.error
		}
		if try >= tries || isFinal(err) {
			return event.WithRemedy(fmt.Errorf("%s: %w (tried %d times)", it.URL, err, try), "%s", remedy(err, it.URL))
		}
		pause := pauseFor(err, wait)
		scope.Logf("%s: %v; trying again in %s", it.URL, err, pause.Round(time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait *= 2
	}
}

// finalError is an error that another try would not mend.
type finalError struct{ error }

func (f *finalError) Unwrap() error { return f.error }

type retryAfter struct {
	status string
	wait   time.Duration
}

func (r *retryAfter) Error() string { return "the server answered " + r.status }

func (f *Fetcher) try(ctx context.Context, it Item, blob string, progress func(int64)) error {
	part, err := os.OpenFile(blob+".part", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return &finalError{Explain(err, f.Cache.Dir())}
	}
	defer part.Close()
	sum := sha256.New()
	have, err := io.Copy(sum, part)
	if err != nil {
		return &finalError{err}
	}
	if have > it.Size {
		if err := part.Truncate(0); err != nil {
			return &finalError{err}
		}
		_, _ = part.Seek(0, io.SeekStart)
		sum.Reset()
		have = 0
	}
	if have < it.Size {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		stall := time.AfterFunc(f.stall(), func() { cancel(errStall) })
		defer stall.Stop()
		silent := func(err error) error {
			if errors.Is(context.Cause(ctx), errStall) {
				return fmt.Errorf("nothing came for %s", f.stall())
			}
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, it.URL, nil)
		if err != nil {
			return &finalError{err}
		}
		if have > 0 {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
		}
		resp, err := f.client().Do(req)
		if err != nil {
			return silent(err)
		}
		defer resp.Body.Close()
		switch {
		case resp.StatusCode == http.StatusPartialContent:
			var from int64
			if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != have {
				return fmt.Errorf("the server answered with range %q instead of one from %d", resp.Header.Get("Content-Range"), have)
			}
		case resp.StatusCode == http.StatusOK:
			if have > 0 {
				if err := part.Truncate(0); err != nil {
					return &finalError{err}
				}
				_, _ = part.Seek(0, io.SeekStart)
				sum.Reset()
				have = 0
			}
		case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
			_ = os.Remove(blob + ".part")
			return errors.New("the server's file is shorter than what was downloaded of it")
		case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
			return &retryAfter{resp.Status, parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())}
		default:
			return &finalError{event.WithRemedy(fmt.Errorf("%s: the server answered %s", it.URL, resp.Status), "%s", remedy(nil, it.URL))}
		}
		progress(have)
		n, err := io.Copy(io.MultiWriter(part, sum), &meter{io.LimitReader(resp.Body, it.Size-have+1), func(n int64) {
			if n > 0 {
				stall.Reset(f.stall())
			}
			progress(n)
		}})
		have += n
		if err != nil {
			progress(-have)
			if errors.Is(err, syscall.ENOSPC) {
				return &finalError{Explain(err, f.Cache.Dir())}
			}
			return silent(err)
		}
	} else {
		progress(have)
	}
	found := hex.EncodeToString(sum.Sum(nil))
	if have < it.Size {
		progress(-have)
		return fmt.Errorf("the connection ended after %d of %d bytes", have, it.Size)
	}
	if have > it.Size || found != it.SHA256 {
		progress(-have)
		_ = os.Remove(part.Name())
		what := "sha256:" + found
		if have > it.Size {
			what = fmt.Sprintf("more than %d bytes", it.Size)
		}
		return fmt.Errorf("expected %d bytes with sha256:%s, got %s", it.Size, it.SHA256, what)
	}
	touch(part.Name())
	if err := os.Rename(part.Name(), blob); err != nil {
		return &finalError{Explain(err, f.Cache.Dir())}
	}
	return nil
}

var defaultClient = NewClient()

// meter reports what is read.
type meter struct {
	r  io.Reader
	fn func(int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.fn(int64(n))
	return n, err
}

func remedy(err error, rawURL string) string {
	host := rawURL
	if u, perr := url.Parse(rawURL); perr == nil {
		host = u.Host
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return "the name " + host + " cannot be resolved: check the network, or name a mirror with --mirror FROM=TO"
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return "check this machine's clock and its certificate authorities (package ca-certificates)"
	}
	var redirect *redirectError
	if errors.As(err, &redirect) {
		return "name a mirror that serves the file itself with --mirror FROM=TO"
	}
	return "check that " + host + " can be reached, or name a mirror with --mirror FROM=TO"
}
