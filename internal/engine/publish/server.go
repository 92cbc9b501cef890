package publish

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// server is a registry that speaks the distribution protocol.
type server struct {
	prefix    string
	names     []name.Option
	o         Options
	transport *polite

	mu    sync.Mutex
	locks map[string]chan struct{}      // by repository; what stands in the channel holds it
	known map[v1.Hash][]name.Repository // which have a blob, as far as this process saw
	repos map[string]*served            // by name: who asks again need not say again who it is
}

func (s *server) String() string { return s.prefix }

func (s *server) Repository(n string) (Repository, error) {
	if !repositoryForm.MatchString(n) {
		return nil, fmt.Errorf("%q is not a name for a repository", n)
	}
	repo, err := name.NewRepository(s.prefix+"/"+n, s.names...)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.repos[n]; r != nil {
		return r, nil
	}
	r := &served{server: s, repo: repo}
	if err := r.renew(); err != nil {
		return nil, err
	}
	s.repos[n] = r
	return r, nil
}

// served is one of a server's repositories.
type served struct {
	*server
	repo   name.Repository
	puller atomic.Pointer[remote.Puller] // keeps the registry's answer to who we are
}

// renew forgets who we are: the next request looks for credentials and greets the registry again.
func (r *served) renew() error {
	p, err := remote.NewPuller(r.options()...)
	if err == nil {
		r.puller.Store(p)
	}
	return err
}

func (r *served) String() string { return r.repo.Name() }

func (r *served) Reference(digest v1.Hash) string { return r.repo.Name() + "@" + digest.String() }

// options switch the library's own tries off: they sleep through the end of a context and do not know Retry-After.
func (r *served) options() []remote.Option {
	return []remote.Option{remote.WithAuthFromKeychain(r.o.Keychain), remote.WithTransport(r.transport), remote.WithUserAgent("kmi-tui"),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryPredicate(func(error) bool { return false })}
}

func (r *served) ref(ref string) (name.Reference, error) {
	if _, ok := hashRef(ref); ok {
		return r.repo.Digest(ref), nil
	}
	if !tagForm.MatchString(ref) {
		return nil, fmt.Errorf("%q is neither a tag nor a digest", ref)
	}
	return r.repo.Tag(ref), nil
}

// lock keeps other releases of this process out of the repository.
func (r *served) lock(ctx context.Context) (unlock func(), err error) {
	r.mu.Lock()
	c, ok := r.locks[r.repo.Name()]
	if !ok {
		c = make(chan struct{}, 1)
		r.locks[r.repo.Name()] = c
	}
	r.mu.Unlock()
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (r *served) Head(ctx context.Context, ref string) (d *v1.Descriptor, err error) {
	named, err := r.ref(ref)
	if err != nil {
		return nil, err
	}
	err = r.try(ctx, false, func() error {
		d, err = r.puller.Load().Head(ctx, named)
		return err
	})
	return d, err
}

func (r *served) Get(ctx context.Context, ref string) (m *Manifest, err error) {
	named, err := r.ref(ref)
	if err != nil {
		return nil, err
	}
	var d *remote.Descriptor
	if err = r.try(ctx, false, func() error {
		d, err = r.puller.Load().Get(ctx, named)
		return err
	}); err != nil {
		return nil, err
	}
	want, _ := hashRef(ref)
	m, err = newManifest(d.Manifest, d.MediaType, want)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", named.Name(), err)
	}
	return m, nil
}

func (r *served) Image(ctx context.Context, ref string) (v1.Image, error) { return image(ctx, r, ref) }

func (r *served) Index(ctx context.Context, ref string) (v1.ImageIndex, error) {
	return index(ctx, r, ref)
}

func (r *served) Blob(ctx context.Context, digest v1.Hash) (rc io.ReadCloser, err error) {
	err = r.try(ctx, false, func() error {
		layer, err := r.puller.Load().Layer(ctx, r.repo.Digest(digest.String()))
		if err == nil {
			rc, err = layer.Compressed()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &told{rc, func(err error) error { return r.explain(ctx, err, false) }}, nil
}

// told is a reader whose errors are explained.
type told struct {
	io.ReadCloser
	explain func(error) error
}

func (t *told) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = t.explain(err)
	}
	return n, err
}

func (r *served) Push(ctx context.Context, what any, progress func(done, total int64)) error {
	if err := r.o.Limits.Check(what); err != nil {
		return err
	}
	u, err := newUpload(what)
	if err != nil {
		return err
	}
	var from []name.Repository
	for _, l := range u.layers {
		digest, err := l.Digest()
		if err != nil {
			return err
		}
		for _, source := range r.sources(l, digest) {
			if !slices.ContainsFunc(from, func(f name.Repository) bool { return f.Name() == source.Name() }) {
				from = append(from, source)
			}
		}
	}
	s, err := r.sender(ctx, from)
	if err != nil {
		return err
	}
	m := &meter{total: u.total, tell: progress}
	for _, l := range u.layers {
		if err := s.send(ctx, l, m); err != nil {
			return err
		}
	}
	pusher, err := remote.NewPusher(append(r.options(), remote.WithTransport(s.transport))...) // of its own: a pusher does not look twice at what it saw once
	if err != nil {
		return err
	}
	for _, digest := range u.elsewhere {
		if _, err := r.Head(ctx, digest.String()); err != nil {
			return fmt.Errorf("image %s, which the index lists: %w", digest, err)
		}
	}
	for _, one := range u.manifests {
		if err := r.try(ctx, true, func() error { return pusher.Put(ctx, r.repo.Digest(one.Digest.String()), one) }); err != nil {
			return err
		}
	}
	return nil
}

func (r *served) Tag(ctx context.Context, digest v1.Hash, tags ...string) error {
	for _, tag := range tags {
		if !tagForm.MatchString(tag) {
			return fmt.Errorf("%q is not a tag", tag)
		}
	}
	m, err := r.Get(ctx, digest.String())
	if err != nil {
		return err
	}
	pusher, err := remote.NewPusher(r.options()...)
	if err != nil {
		return err
	}
	for i, tag := range tags {
		if err := r.try(ctx, true, func() error { return pusher.Put(ctx, r.repo.Tag(tag), m) }); err != nil {
			return &TagError{Digest: digest, Moved: tags[:i:i], Tag: tag, Err: err}
		}
	}
	return nil
}

func (r *served) Tags(ctx context.Context) (tags []string, err error) {
	err = r.try(ctx, false, func() error {
		tags = nil
		listed := 0
		pages, err := r.puller.Load().Lister(ctx, r.repo)
		for err == nil && pages.HasNext() {
			var page *remote.Tags
			if page, err = pages.Next(ctx); err != nil {
				break
			}
			tags = append(tags, page.Tags...)
			// Pages that hold nothing, or name themselves as the next, have an end as well.
			if listed += max(len(page.Tags), 20); listed > maxTags {
				return event.WithRemedy(fmt.Errorf("%s lists its tags without an end", r.repo.Name()), "ask who runs %s", r.repo.RegistryStr())
			}
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	slices.Sort(tags)
	return slices.Compact(tags), err
}

// maxTags is how many tags of a repository are listed.
const maxTags = 200_000

// polite remembers for how long the registry asked to be left alone.
type polite struct {
	next  http.RoundTripper
	after atomic.Int64 // nanoseconds
}

func (p *polite) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := p.next.RoundTrip(r)
	if err == nil && (resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable) {
		if d := retryAfter(resp.Header.Get("Retry-After"), time.Now()); d > 0 {
			p.after.Store(int64(d))
		}
	}
	return resp, err
}

// retryAfter reads for how long a server wants to be left alone: seconds or a time (RFC 9110, 10.2.3), up to a minute.
func retryAfter(text string, now time.Time) time.Duration {
	if s, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(s)*time.Second, time.Minute)
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), time.Minute)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d + rand.N(d/10+1)) // so that many who were turned away together do not come back together
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// try does something until it is done, cannot be helped, or was tried often enough; its error is explained.
func (r *served) try(ctx context.Context, writing bool, do func() error) error {
	wait, renewed := r.o.Wait, writing // who writes has looked for credentials just before
	for n := 1; ; n++ {
		err := do()
		if err == nil {
			return nil
		}
		var terr *transport.Error
		if !renewed && ctx.Err() == nil && errors.As(err, &terr) && (terr.StatusCode == http.StatusUnauthorized || terr.StatusCode == http.StatusForbidden) {
			// Credentials of hours ago may have expired, or somebody has logged in since.
			if renewed = true; r.renew() == nil {
				n--
				continue
			}
		}
		if n >= r.o.Tries || ctx.Err() != nil || !passing(err, writing) {
			return r.explain(ctx, err, writing)
		}
		pause := max(wait, time.Duration(r.transport.after.Swap(0)))
		r.o.Log(fmt.Sprintf("%s: try %d of %d in %s", r.explain(ctx, err, writing), n+1, r.o.Tries, pause))
		if err := r.o.Sleep(ctx, pause); err != nil {
			return err
		}
		wait *= 2
	}
}

// passing says whether an error may be gone at the next try.
func passing(err error, writing bool) bool {
	var again *spoilt
	if errors.As(err, &again) || errors.Is(err, context.Canceled) { // somebody else's greeting, which this one waited for: its own end is looked at before
		return true
	}
	var terr *transport.Error
	if errors.As(err, &terr) {
		switch terr.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout, 499, 520, 521, 522, 523, 524: // the last ones are proxies'
			return true
		case http.StatusNotFound: // an upload that a restarted registry does not know any more
			return writing && slices.ContainsFunc(terr.Errors, func(d transport.Diagnostic) bool { return d.Code == transport.BlobUploadUnknownErrorCode })
		}
		return slices.ContainsFunc(terr.Errors, func(d transport.Diagnostic) bool {
			return d.Code == transport.TooManyRequestsErrorCode || d.Code == transport.BlobUploadInvalidErrorCode
		})
	}
	if errors.Is(err, container.ErrPlain) && speaksPlain(err) || badContent(err) {
		return false
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return !dns.IsNotFound
	}
	var timeout net.Error
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &timeout) && timeout.Timeout() ||
		slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET, syscall.ECONNABORTED, net.ErrClosed}, func(e error) bool { return errors.Is(err, e) }) ||
		slices.ContainsFunc([]string{"server closed idle connection", "http2: server sent GOAWAY", "stream error: stream ID"}, // they have no error value (net/http)
			func(part string) bool { return strings.Contains(err.Error(), part) })
}

// badContent says whether the library found that a digest or a size does not match; it has no error value for it
// (go-containerregistry, internal/verify, pkg/v1/remote/fetcher.go).
func badContent(err error) bool {
	text := err.Error()
	return errors.Is(err, ErrContent) || strings.Contains(text, "error verifying") || strings.Contains(text, "does not match requested digest") ||
		strings.Contains(text, "does not match expected size")
}

// speaksPlain says whether a registry answered https with plain http (net/http, transport.go).
func speaksPlain(err error) bool {
	return strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// explain turns an error into a sentence with a remedy. writing tells whether something was to be written.
func (r *served) explain(ctx context.Context, err error, writing bool) error {
	if err == nil || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var remedied *event.Remedied
	if errors.As(err, &remedied) {
		return err
	}
	host := r.repo.RegistryStr()
	var terr *transport.Error
	if errors.As(err, &terr) {
		return r.refused(host, terr, writing)
	}
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var other x509.HostnameError
	cause := err
	var uerr *url.Error
	if errors.As(err, &uerr) { // without the address, which may hold an upload's state
		cause = uerr.Err
	}
	switch {
	case badContent(err):
		return event.WithRemedy(fmt.Errorf("%s gave something else than what was asked for: %w: %w", r.repo.Name(), ErrContent, cause),
			"run again; if it lasts, the registry's storage is damaged, or somebody on the way changes what is sent")
	case errors.As(err, &unknown) || errors.As(err, &invalid) || errors.As(err, &other):
		return event.WithRemedy(fmt.Errorf("the registry %s cannot prove who it is: %w", host, cause), "check the name, or have the system trust its certificate (SSL_CERT_FILE names more)")
	case r.repo.Scheme() == "https" && speaksPlain(err) || errors.Is(err, container.ErrPlain) && (speaksPlain(err) || !passing(err, writing)):
		return event.WithRemedy(fmt.Errorf("the registry %s speaks plain http: %w", host, container.ErrPlain), "if that is meant, allow it with --insecure")
	case uerr != nil || passing(err, writing):
		return event.WithRemedy(fmt.Errorf("cannot reach %s: %w", host, cause), "check the name, the network and that the registry runs, then run again: what is done stays done")
	}
	return event.WithRemedy(fmt.Errorf("%s: %w", r.repo.Name(), cause), "run again: what is done stays done")
}

// refused explains what a registry answered.
func (r *served) refused(host string, terr *transport.Error, writing bool) error {
	said := fmt.Sprintf("%d %s", terr.StatusCode, http.StatusText(terr.StatusCode))
	var words []string
	for _, d := range terr.Errors {
		word := string(d.Code)
		if d.Message != "" {
			word += ": " + d.Message
		}
		words = append(words, word)
	}
	if len(words) > 0 {
		said += ", " + strings.Join(words, "; ")
	}
	if len(said) > 300 {
		said = said[:300] + "…"
	}
	said = event.Clean(strings.Join(strings.Fields(said), " "))
	detail := strings.ToLower(terr.Error())
	switch code := terr.StatusCode; {
	case code == http.StatusInsufficientStorage || code == http.StatusRequestEntityTooLarge || strings.Contains(detail, "quota") || strings.Contains(detail, "no space left"):
		return event.WithRemedy(&refusal{fmt.Sprintf("%s has no room for this (%s)", r.repo.Name(), said), terr}, "free space or raise the quota there, then run again: what is done stays done")
	case code == http.StatusNotFound && !writing:
		return fmt.Errorf("%s: %w", r.repo.Name(), ErrNotFound)
	case code == http.StatusNotFound:
		return event.WithRemedy(&refusal{fmt.Sprintf("%s does not exist, or lost an upload (%s)", r.repo.Name(), said), terr}, "some registries want a repository made before it is written to: make it, then run again")
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return event.WithRemedy(&refusal{fmt.Sprintf("%s does not let us in (%s)", r.repo.Name(), said), terr},
			"log in with an account that has the right: docker login %s (or podman login)", host)
	case code == http.StatusMethodNotAllowed:
		return event.WithRemedy(&refusal{fmt.Sprintf("%s cannot be written to (%s)", r.repo.Name(), said), terr}, "the registry may be in read-only mode: ask who runs %s", host)
	case code == http.StatusTooManyRequests:
		return event.WithRemedy(&refusal{fmt.Sprintf("%s wants fewer requests (%s)", host, said), terr}, "wait and run again: what is done stays done")
	case code >= 500:
		return event.WithRemedy(&refusal{fmt.Sprintf("%s failed (%s)", host, said), terr}, "run again: what is done stays done; if it lasts, its disk may be full: ask who runs %s", host)
	}
	return event.WithRemedy(&refusal{fmt.Sprintf("%s refuses (%s)", r.repo.Name(), said), terr}, "if the registry has a rule that this breaks, change it there")
}

// refusal is what a registry answered, as a sentence.
type refusal struct {
	text string
	err  error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.err }
