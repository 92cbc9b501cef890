package upstream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Limits of what is read of an upstream, and how often it is asked.
const (
	maxDocument = 16 << 20 // bytes
	maxTries    = 4
	maxWait     = 30 * time.Second // that a server may ask for
	maxTime     = 2 * time.Minute  // for one try
)

// Web reads upstreams' documents: listings, JSON, checksums, signatures. What was read before is asked for
// conditionally (RFC 9110, section 13) and not transferred again where it has not changed. One Session reads each
// document once, however many ask for it.
type Web struct {
	Client  *http.Client  // has to refuse redirects from https to http; nil: http.DefaultClient
	Dir     string        // where documents are kept; made if need be; "": nowhere
	Backoff time.Duration // before the second try; doubled each time; 0 means 300 ms
	Silence time.Duration // without a byte, after which a try ends; 0 means 20 s

	Requests, Bodies, Bytes atomic.Int64 // how much was asked, answered with a body, and read; for measurements
}

// Document is what an address answers.
type Document struct {
	URL      string    // that was asked for
	From     string    // that answered, after redirects
	Body     []byte    // nil of a Head
	Size     int64     // bytes; -1 of a Head that does not tell
	Modified time.Time // zero if the server does not tell
	Location string    // of a redirect that was not followed
}

// Session is one look at upstreams. It is safe for concurrent use.
type Session struct {
	web   *Web
	mu    sync.Mutex
	asked map[string]*answer
}

type answer struct {
	done chan struct{}
	doc  *Document
	err  error
}

// Session begins a look.
func (w *Web) Session() *Session { return &Session{web: w, asked: map[string]*answer{}} }

// Get reads a document.
func (s *Session) Get(ctx context.Context, address string) (*Document, error) {
	return s.once(ctx, http.MethodGet, address)
}

// Head asks for a file's size and date without reading it.
func (s *Session) Head(ctx context.Context, address string) (*Document, error) {
	return s.once(ctx, http.MethodHead, address)
}

// Redirect asks where an address leads to. One that does not lead elsewhere is an error.
func (s *Session) Redirect(ctx context.Context, address string) (*Document, error) {
	return s.once(ctx, "REDIRECT", address)
}

func (s *Session) once(ctx context.Context, method, address string) (*Document, error) {
	key := method + " " + address
	s.mu.Lock()
	a, ok := s.asked[key]
	if !ok {
		a = &answer{done: make(chan struct{})}
		s.asked[key] = a
	}
	s.mu.Unlock()
	if !ok {
		a.doc, a.err = s.web.ask(ctx, method, address)
		if a.err != nil && ctx.Err() != nil {
			s.mu.Lock()
			delete(s.asked, key) // whoever asks later is not the one that gave up
			s.mu.Unlock()
		}
		close(a.done)
	}
	select {
	case <-a.done:
		return a.doc, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// kept is what is remembered of a document besides its body.
type kept struct {
	URL, From, ETag, Modified string
	Size                      int64
}

// Status is the error of a server that does not answer with what was asked for.
type Status struct {
	URL  string
	Code int
	Text string // as the server says it: "404 Not Found"
	wait time.Duration
}

func (s *Status) Error() string { return fmt.Sprintf("%s: the server answered %s", s.URL, s.Text) }

// ask asks in several tries if need be.
func (w *Web) ask(ctx context.Context, method, address string) (*Document, error) {
	wait := w.Backoff
	if wait == 0 {
		wait = 300 * time.Millisecond
	}
	for try := 1; ; try++ {
		doc, err := w.try(ctx, method, address)
		if err == nil {
			return doc, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var status *Status
		var final *finalError
		again := !errors.As(err, &final)
		pause := wait/2 + rand.N(wait)
		if errors.As(err, &status) {
			again = status.Code == http.StatusTooManyRequests || status.Code >= 500
			pause = max(pause, min(status.wait, maxWait))
		}
		if !again || try == maxTries {
			if final != nil {
				err = final.error
			}
			return nil, event.WithRemedy(err, "%s", remedyFor(err, address))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		wait *= 2
	}
}

// finalError is one that another try would not mend.
type finalError struct{ error }

func (f *finalError) Unwrap() error { return f.error }

func remedyFor(err error, address string) string {
	var status *Status
	host := address
	if u, perr := url.Parse(address); perr == nil {
		host = u.Host
	}
	if errors.As(err, &status) && status.Code < 500 && status.Code != http.StatusTooManyRequests {
		return "look at " + address + ": upstream may have moved it; its description is in distros.toml"
	}
	return "check that " + host + " can be reached, or name a mirror with --mirror FROM=TO; the others go on"
}

func (w *Web) try(ctx context.Context, method, address string) (*Document, error) {
	silence := w.Silence
	if silence == 0 {
		silence = 20 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(ctx, maxTime, fmt.Errorf("it took more than %s", maxTime))
	defer cancel()
	ctx, quiet := context.WithCancelCause(ctx)
	defer quiet(nil)
	stall := time.AfterFunc(silence, func() { quiet(fmt.Errorf("no byte came for %s", silence)) })
	defer stall.Stop()
	verb := method
	if method == "REDIRECT" {
		verb = http.MethodHead
	}
	req, err := http.NewRequestWithContext(ctx, verb, address, nil)
	if err != nil {
		return nil, &finalError{err}
	}
	req.Header.Set("User-Agent", "kmi-tui")
	var old kept
	var body []byte
	if method != "REDIRECT" {
		if old, body, err = w.load(method, address); err == nil {
			if old.ETag != "" {
				req.Header.Set("If-None-Match", old.ETag)
			}
			if old.Modified != "" {
				req.Header.Set("If-Modified-Since", old.Modified)
			}
		}
	}
	client := http.DefaultClient
	if w.Client != nil {
		client = w.Client
	}
	if method == "REDIRECT" {
		still := *client
		still.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		client = &still
	}
	w.Requests.Add(1)
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, plainly(ctx, err))
	}
	defer resp.Body.Close()
	doc := &Document{URL: address, From: resp.Request.URL.String(), Size: resp.ContentLength}
	switch {
	case method == "REDIRECT":
		if resp.StatusCode/100 == 3 && resp.Header.Get("Location") != "" {
			to, err := resp.Location()
			if err != nil {
				return nil, &finalError{fmt.Errorf("%s: it leads to %q, which is no address", address, resp.Header.Get("Location"))}
			}
			doc.Location = to.String()
			return doc, nil
		}
		if resp.StatusCode == http.StatusOK {
			return nil, &finalError{fmt.Errorf("%s: expected that it leads elsewhere, and it does not", address)}
		}
	case resp.StatusCode == http.StatusNotModified && old.URL != "":
		doc.Size, doc.From = old.Size, old.From
		if method == http.MethodGet {
			doc.Body = body
		}
		doc.Modified, _ = http.ParseTime(old.Modified)
		return doc, nil
	case resp.StatusCode == http.StatusOK:
		now := kept{URL: address, From: doc.From, ETag: resp.Header.Get("ETag"), Modified: resp.Header.Get("Last-Modified"), Size: doc.Size}
		doc.Modified, _ = http.ParseTime(now.Modified)
		if method == http.MethodGet {
			w.Bodies.Add(1)
			if doc.Body, err = io.ReadAll(&alive{io.LimitReader(resp.Body, maxDocument+1), stall, silence}); err != nil {
				return nil, fmt.Errorf("%s: after %d bytes: %w", address, len(doc.Body), plainly(ctx, err))
			}
			w.Bytes.Add(int64(len(doc.Body)))
			if len(doc.Body) > maxDocument {
				return nil, &finalError{fmt.Errorf("%s: it has more than %d MiB, which is no listing, checksum or signature", address, maxDocument>>20)}
			}
			doc.Size = int64(len(doc.Body))
			now.Size = doc.Size
		}
		w.save(method, now, doc.Body)
		return doc, nil
	}
	status := &Status{URL: address, Code: resp.StatusCode, Text: resp.Status}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		status.wait = time.Duration(s) * time.Second
	} else if t, err := http.ParseTime(resp.Header.Get("Retry-After")); err == nil {
		status.wait = time.Until(t)
	}
	return nil, status
}

// plainly takes the request out of an error of the HTTP client: whoever reads it is told the address already.
func plainly(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return fmt.Errorf("the name %s cannot be resolved", dns.Name)
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// alive puts off the end of a try for as long as bytes come.
type alive struct {
	r       io.Reader
	stall   *time.Timer
	silence time.Duration
}

func (a *alive) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if n > 0 {
		a.stall.Reset(a.silence)
	}
	return n, err
}

func (w *Web) file(method, address string) string {
	sum := sha256.Sum256([]byte(method + " " + address))
	return filepath.Join(w.Dir, hex.EncodeToString(sum[:16]))
}

// load finds what was kept of an address. Its file is one line of JSON and the body.
func (w *Web) load(method, address string) (k kept, body []byte, err error) {
	if w.Dir == "" {
		return k, nil, errors.New("nothing is kept")
	}
	data, err := os.ReadFile(w.file(method, address))
	if err != nil {
		return k, nil, err
	}
	line, body, ok := bytes.Cut(data, []byte("\n"))
	if err := json.Unmarshal(line, &k); err != nil || !ok || method == http.MethodGet && int64(len(body)) != k.Size {
		return kept{}, nil, errors.New("what was kept cannot be read")
	}
	return k, body, nil
}

// save keeps an answer that can be asked for conditionally. Where it cannot be kept, it is read again next time.
func (w *Web) save(method string, k kept, body []byte) {
	if w.Dir == "" || k.ETag == "" && k.Modified == "" {
		return
	}
	line, err := json.Marshal(k)
	if err != nil || os.MkdirAll(w.Dir, 0o755) != nil {
		return
	}
	_ = replace(w.file(method, k.URL), append(append(line, '\n'), body...))
}
