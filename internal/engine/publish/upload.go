package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
)

// sender sends blobs into one repository (OCI distribution-spec 1.1, Push). The library does that, too, and loses what
// was sent when a connection breaks.
type sender struct {
	r         *served
	client    *http.Client
	transport http.RoundTripper // that knows who we are
}

// sender asks the registry who may write. Repositories that blobs may be mounted from have to be read as well.
func (r *served) sender(ctx context.Context, from []name.Repository) (*sender, error) {
	scopes := []string{r.repo.Scope(transport.PushScope)}
	for _, f := range from {
		scopes = append(scopes, f.Scope(transport.PullScope))
	}
	s := &sender{r: r}
	err := r.try(ctx, true, func() error {
		auth, err := authn.Resolve(ctx, r.o.Keychain, r.repo)
		if err != nil {
			return err
		}
		agent := transport.NewUserAgent(&again{r.transport}, "kmi-tui")
		s.transport, err = transport.NewWithContext(ctx, r.repo.Registry, auth, agent, scopes)
		if err != nil && len(scopes) > 1 && ctx.Err() == nil && !passing(err, true) {
			// Who may not read there sends the blobs.
			s.transport, err = transport.NewWithContext(ctx, r.repo.Registry, auth, agent, scopes[:1])
		}
		return err
	})
	s.client = &http.Client{Transport: s.transport, CheckRedirect: s.redirect}
	return s, err
}

// again opens the body of a request that is made once more: when a token has expired, the library gets another and makes the
// same request again, whose body may have been read or closed by then (transport/bearer.go).
type again struct{ next http.RoundTripper }

func (a *again) RoundTrip(r *http.Request) (*http.Response, error) {
	if body, ok := r.Body.(*counted); ok && body.given.Swap(true) {
		fresh, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = fresh
		if c, ok := fresh.(*counted); ok {
			c.given.Store(true)
		}
	}
	return a.next.RoundTrip(r)
}

func (s *sender) address(path string, query url.Values) *url.URL {
	return &url.URL{Scheme: s.r.repo.Scheme(), Host: s.r.repo.RegistryStr(), Path: "/v2/" + s.r.repo.RepositoryStr() + "/blobs/" + path, RawQuery: query.Encode()}
}

// do makes a request. Its answer is closed by the caller; a status other than those wanted is a *transport.Error.
func (s *sender) do(r *http.Request, want ...int) (*http.Response, error) {
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, want...); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp, nil
}

func (s *sender) ask(ctx context.Context, method string, u *url.URL, want ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if method == http.MethodPut {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	resp, err := s.do(req, want...)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection serves again
	return resp, errors.Join(err, resp.Body.Close())
}

// redirect follows where the method stays and the host may be talked to.
func (s *sender) redirect(r *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("ten redirections in a row")
	}
	if r.Method != via[0].Method {
		return http.ErrUseLastResponse
	}
	return s.admit(r.URL, via[len(via)-1].URL)
}

// follow reads where an upload goes on.
func (s *sender) follow(resp *http.Response) (*url.URL, error) {
	where := resp.Header.Get("Location")
	if where == "" {
		return nil, errors.New("the registry does not say where the upload goes on (no Location)")
	}
	u, err := resp.Request.URL.Parse(where)
	if err != nil {
		return nil, errors.New("the registry names a place for the upload that is no address")
	}
	u.Fragment = ""
	return u, s.admit(u, resp.Request.URL)
}

// admit says whether a registry may send us to u. Credentials go to the registry's own host and port only (go-containerregistry,
// transport/basic.go and bearer.go), over the scheme that it was found with (schemer.go); what is sent elsewhere is the
// content alone, and not in the clear when the registry itself is talked to over TLS. An address inside a network is not
// for a registry outside of it to choose.
func (s *sender) admit(u, from *url.URL) error {
	own := s.r.repo.RegistryStr()
	if strings.EqualFold(u.Host, own) && u.User == nil {
		return nil
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	registry := (&url.URL{Host: own}).Hostname()
	switch {
	case u.User != nil:
		return fmt.Errorf("%s sends the upload to an address with a password in it", own)
	case u.Scheme != "https" && u.Scheme != "http" || host == "":
		return fmt.Errorf("%s sends the upload to something that is no web address", own)
	case u.Scheme == "http" && from.Scheme != "http":
		return fmt.Errorf("%s sends the upload to %s: %w", own, u.Host, container.ErrPlain)
	case !strings.EqualFold(host, registry) && (container.Loopback(host) || ip != nil && (ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified())):
		return fmt.Errorf("%s sends the upload to %s, an address of this network", own, u.Host)
	}
	return nil
}

// transfer is one blob on its way.
type transfer struct {
	*sender
	layer  v1.Layer
	digest v1.Hash
	size   int64
	from   []name.Repository // of the same registry, that may have the blob
	meter  *meter

	at      *url.URL // where the upload goes on; nil: it has not begun
	resumed bool     // a part of it was sent by a request that broke
	doubts  int      // how often the registry could not tell in a row what it has
	begun   bool     // mounting was tried

	mu    sync.Mutex
	last  *counted
	sent  int64 // the most of it that was ever read to be sent
	shown int64 // what progress says of it
	local error // of reading it
}

// send brings a blob into the repository unless it is there.
func (s *sender) send(ctx context.Context, l v1.Layer, m *meter) error {
	t := &transfer{sender: s, layer: l, meter: m}
	var err error
	if t.digest, err = l.Digest(); err != nil {
		return err
	}
	if t.size, err = l.Size(); err != nil {
		return err
	}
	t.from = s.r.sources(l, t.digest)
	err = s.r.try(ctx, true, func() error { return t.attempt(ctx) })
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = nil // what is still being read counts no more
	if err != nil {
		return err
	}
	s.r.remember(t.digest)
	t.show(t.size)
	return nil
}

// attempt begins an upload, or goes on with one that broke.
func (t *transfer) attempt(ctx context.Context) error {
	var offset int64
	if t.at != nil {
		var err error
		if offset, err = t.kept(ctx); err != nil {
			return err
		}
	}
	if t.at == nil {
		done, err := t.begin(ctx)
		if done || err != nil {
			return err
		}
	}
	if offset == 0 || offset < t.size {
		if err := t.stream(ctx, offset); err != nil {
			return err
		}
	}
	return t.finish(ctx)
}

// begin says whether the repository has the blob, or got it from another one; otherwise an upload has begun.
func (t *transfer) begin(ctx context.Context) (done bool, err error) {
	t.resumed, t.doubts = false, 0
	resp, err := t.ask(ctx, http.MethodHead, t.address(t.digest.String(), nil), http.StatusOK, http.StatusNotFound)
	if err != nil {
		return false, err
	}
	if resp.StatusCode == http.StatusOK {
		return true, t.named(resp)
	}
	t.r.forget(t.digest, t.r.repo)
	start := t.address("uploads/", nil)
	if !t.begun {
		t.begun = true
		for _, from := range t.from[:min(1, len(t.from))] {
			resp, err = t.ask(ctx, http.MethodPost, t.address("uploads/", url.Values{"mount": {t.digest.String()}, "from": {from.RepositoryStr()}}), http.StatusCreated, http.StatusAccepted)
			if err == nil && resp.StatusCode == http.StatusCreated {
				return true, t.named(resp)
			}
			if err != nil && (ctx.Err() != nil || passing(err, true)) {
				t.begun = false
				return false, err
			}
			t.r.forget(t.digest, from)
			if err == nil { // it does not mount, and has begun an upload instead
				t.at, err = t.follow(resp)
				return false, err
			}
			// Some registries refuse a mount instead of beginning an upload.
		}
	}
	if resp, err = t.ask(ctx, http.MethodPost, start, http.StatusAccepted); err != nil {
		return false, err
	}
	t.at, err = t.follow(resp)
	return false, err
}

// named fails if an answer names another blob.
func (t *transfer) named(resp *http.Response) error {
	if found := resp.Header.Get("Docker-Content-Digest"); found != "" && found != t.digest.String() {
		return fmt.Errorf("%w: expected %s, found %.100q", ErrContent, t.digest, found)
	}
	return nil
}

// rangeForm is what a registry has of an upload: its first byte, always 0, and its last (distribution-spec, Pushing a blob
// in chunks).
var rangeForm = regexp.MustCompile(`^(?:bytes=)?0-([0-9]{1,18})$`)

// kept asks how much the registry has of an upload that broke. When it cannot go on, the upload is forgotten.
func (t *transfer) kept(ctx context.Context) (int64, error) {
	resp, err := t.ask(ctx, http.MethodGet, t.at, http.StatusOK, http.StatusAccepted, http.StatusNoContent)
	var terr *transport.Error
	if errors.As(err, &terr) {
		t.doubts++
		if passing(err, false) && terr.StatusCode != http.StatusInternalServerError && t.doubts < 2 {
			return 0, err // it may answer later
		}
		t.at = nil
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	t.doubts = 0
	m := rangeForm.FindStringSubmatch(resp.Header.Get("Range"))
	at := t.at
	if resp.Header.Get("Location") != "" {
		at, err = t.follow(resp)
	}
	if m == nil || err != nil {
		t.at = nil
		return 0, nil
	}
	last, err := strconv.ParseInt(m[1], 10, 64)
	t.mu.Lock()
	defer t.mu.Unlock()
	n := last + 1
	if last == 0 {
		n = 0 // "0-0" is also what registries say that have nothing
	}
	if err != nil || n > t.sent || n > t.size {
		t.at = nil // it cannot have what was never sent
		return 0, nil
	}
	t.at, t.resumed = at, true
	t.last = nil
	t.show(n)
	if n > 0 {
		t.r.o.Log(fmt.Sprintf("%s: the upload of %s goes on after %d of %d bytes", t.r.repo.Name(), t.digest, n, t.size))
	}
	return n, nil
}

// stream sends the blob from an offset on, in one request.
func (t *transfer) stream(ctx context.Context, offset int64) error {
	body, err := t.open(offset)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, t.at.String(), body)
	if err != nil {
		return errors.Join(err, body.Close())
	}
	req.GetBody = func() (io.ReadCloser, error) { return t.open(offset) }
	req.ContentLength = t.size - offset
	if req.ContentLength == 0 {
		_ = body.Close()
		req.Body, req.GetBody = http.NoBody, nil
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if offset > 0 {
		req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", offset, t.size-1))
	}
	resp, err := t.do(req, http.StatusAccepted, http.StatusCreated, http.StatusNoContent)
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.local != nil && ctx.Err() == nil {
			return t.local
		}
		return t.dead(err)
	}
	next, err := t.follow(resp)
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	t.at = next
	return nil
}

// dead forgets an upload that the registry refuses. If that may be because it was taken up again, it starts anew.
func (t *transfer) dead(err error) error {
	var terr *transport.Error
	if !errors.As(err, &terr) || terr.StatusCode >= 500 || terr.StatusCode == http.StatusRequestTimeout || terr.StatusCode == http.StatusTooManyRequests {
		return err
	}
	t.at = nil
	if t.resumed && slices.Contains([]int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusRequestedRangeNotSatisfiable, http.StatusUnprocessableEntity}, terr.StatusCode) {
		return &spoilt{err}
	}
	return err
}

// finish tells the registry that all of the blob was sent.
func (t *transfer) finish(ctx context.Context) error {
	u := *t.at
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += "digest=" + url.QueryEscape(t.digest.String())
	resp, err := t.ask(ctx, http.MethodPut, &u, http.StatusCreated)
	if err != nil {
		return t.dead(err)
	}
	return t.named(resp)
}

// spoilt is the error of an upload that could not be taken up again where it broke.
type spoilt struct{ err error }

func (s *spoilt) Error() string { return s.err.Error() }
func (s *spoilt) Unwrap() error { return s.err }

// open opens the blob from an offset on, counting what is read.
func (t *transfer) open(offset int64) (io.ReadCloser, error) {
	var rc io.ReadCloser
	var err error
	l := t.layer
	if m, ok := l.(*remote.MountableLayer); ok {
		l = m.Layer
	}
	if at, ok := l.(interface {
		CompressedAt(offset int64) (io.ReadCloser, error)
	}); ok {
		rc, err = at.CompressedAt(offset)
	} else if rc, err = l.Compressed(); err == nil && offset > 0 {
		if _, err = io.CopyN(io.Discard, rc, offset); err != nil {
			err = errors.Join(err, rc.Close())
		}
	}
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.local = nil
	t.last = &counted{ReadCloser: rc, t: t, n: offset}
	t.show(offset)
	return t.last, nil
}

// show tells progress how much of the blob is done; the lock is held.
func (t *transfer) show(n int64) {
	t.meter.add(n - t.shown)
	t.shown = n
}

// counted is what is sent of a blob.
type counted struct {
	io.ReadCloser
	t     *transfer
	n     int64
	given atomic.Bool // to a connection
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	c.n += int64(n)
	if c.t.last != c { // a later try counts
		return n, err
	}
	c.t.sent = max(c.t.sent, c.n)
	if n > 0 {
		c.t.show(c.n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.t.local = err
	}
	return n, err
}

// meter adds up what is sent.
type meter struct {
	done, total int64
	tell        func(done, total int64)
}

func (m *meter) add(n int64) {
	m.done += n
	if m.tell != nil {
		m.tell(m.done, m.total)
	}
}

// sources lists the repositories of the same registry that are known to have a blob: the one that it was read from (of a
// base image), and those that this process has seen it in.
func (r *served) sources(l v1.Layer, digest v1.Hash) []name.Repository {
	r.mu.Lock()
	list := slices.Clone(r.known[digest])
	r.mu.Unlock()
	if m, ok := l.(*remote.MountableLayer); ok && m.Reference != nil && m.Reference.Context().RegistryStr() == r.repo.RegistryStr() {
		list = append(list, m.Reference.Context())
	}
	return slices.DeleteFunc(list, func(from name.Repository) bool { return from.Name() == r.repo.Name() })
}

// remember notes that the repository has a blob.
func (r *served) remember(digest v1.Hash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.ContainsFunc(r.known[digest], func(in name.Repository) bool { return in.Name() == r.repo.Name() }) {
		r.known[digest] = append(r.known[digest], r.repo)
	}
}

// forget notes that a repository does not have a blob, or does not give it.
func (s *server) forget(digest v1.Hash, from name.Repository) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[digest] = slices.DeleteFunc(s.known[digest], func(in name.Repository) bool { return in.Name() == from.Name() })
	if len(s.known[digest]) == 0 {
		delete(s.known, digest)
	}
}
