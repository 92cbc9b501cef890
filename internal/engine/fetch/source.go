package fetch

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// errRestart ends a pass whose file turned out to be another one than that of which a part is there.
var errRestart = errors.New("the download starts over")

// wrong is the error of bytes that are not those expected: a mirror may have changed, so that one more pass from the
// beginning is worth it.
type wrong struct{ error }

func (w *wrong) Unwrap() error { return w.error }

// mark is what is kept beside a part: how its server marks this version of the file (RFC 9110, section 8.8).
type mark struct {
	URL      string `json:"url"`
	ETag     string `json:"etag,omitempty"`     // a strong one
	Modified string `json:"modified,omitempty"` // Last-Modified, where it can stand for one
	Total    int64  `json:"total"`              // bytes of the whole file; -1: not known
}

// validator is what If-Range takes.
func (m *mark) validator() string {
	if m.ETag != "" {
		return m.ETag
	}
	return m.Modified
}

// source reads a file from the network, beginning with the part of it that is on disk. It goes on by itself where a
// connection breaks off. Its errors: the context's cause, *finalError, *wrong, errRestart.
type source struct {
	f     *Fetcher
	img   *Image
	scope *event.Scope
	path  string // of the part
	limit int64  // bytes served, where the size is not known

	ctx   context.Context
	mark  mark
	part  *os.File
	kept  int64 // bytes of the part
	at    int64 // where the next byte stands
	total int64 // bytes; -1: not known

	resp   *http.Response
	cancel context.CancelCauseFunc // of the connection
	stall  *time.Timer
	broken error // of the connection, after the bytes that came with it

	tries int           // failures since the last real progress
	high  int64         // the furthest byte that was reached
	wait  time.Duration // before the next try
	sent  int64         // bytes that came over the network
}

// begin makes the source ready for another pass, from the part if there is one.
func (s *source) begin(ctx context.Context) error {
	s.ctx, s.resp, s.broken, s.at, s.kept, s.total = ctx, nil, nil, 0, 0, -1
	s.mark = mark{Total: -1}
	if s.img.Size > 0 {
		s.total = s.img.Size
	}
	data, err := os.ReadFile(s.path + ".json")
	if err != nil || json.Unmarshal(data, &s.mark) != nil {
		return s.forget() // nobody knows what the part is of
	}
	if s.part, err = os.Open(s.path); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return &finalError{Explain(err, s.f.Cache.Dir())}
	}
	info, err := s.part.Stat()
	if err != nil {
		return &finalError{err}
	}
	if s.total < 0 {
		s.total = s.mark.Total
	}
	// Of another address, only a checksum can tell that the bytes are of the same file.
	if s.total >= 0 && info.Size() > s.total || s.mark.URL != s.img.URL && len(s.img.Sums) == 0 {
		return s.forget()
	}
	s.kept = info.Size()
	if s.kept > 0 {
		s.scope.Logf("going on where an earlier download stopped: %s of it are there", Size(s.kept))
		s.scope.Progress(s.kept, max(s.total, 0), "bytes")
	}
	return nil
}

// forget removes the part.
func (s *source) forget() error {
	if s.part != nil {
		_ = s.part.Close()
		s.part = nil
	}
	s.kept, s.at, s.mark = 0, 0, mark{Total: -1}
	for _, name := range []string{s.path, s.path + ".json"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return &finalError{Explain(err, s.f.Cache.Dir())}
		}
	}
	return nil
}

// end closes what is open.
func (s *source) end() {
	s.hangUp()
	if s.part != nil {
		_ = s.part.Close()
		s.part = nil
	}
	if info, err := os.Stat(s.path); err == nil && info.Size() == 0 {
		_ = s.forget()
	}
}

func (s *source) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	if s.at < s.kept {
		n, err := s.part.ReadAt(p[:min(int64(len(p)), s.kept-s.at)], s.at)
		s.at += int64(n)
		if n == 0 && err != nil {
			return 0, &finalError{fmt.Errorf("%s: %w", s.path, err)}
		}
		return n, nil
	}
	for {
		if s.resp == nil {
			if s.total >= 0 && s.at == s.total {
				return 0, io.EOF
			}
			err := s.connect()
			if err == io.EOF {
				return 0, io.EOF
			}
			if err != nil {
				if err = s.failed(err); err != nil {
					return 0, err
				}
				continue
			}
		}
		n, err := s.receive(p)
		s.at += int64(n)
		s.sent += int64(n)
		if s.total >= 0 && s.at > s.total {
			return 0, s.failed(&wrong{fmt.Errorf("expected %d bytes, more than that came", s.total)})
		}
		if s.at > s.limit {
			return 0, s.failed(&finalError{fmt.Errorf("more than %s came", Size(s.limit))})
		}
		if n > 0 {
			s.broken = err
			s.scope.Progress(s.at, max(s.total, 0), "bytes")
			return n, nil
		}
		if err == nil {
			continue
		}
		if s.at == s.total || s.total < 0 && err == io.EOF {
			s.total = s.at
			s.hangUp()
			return 0, io.EOF
		}
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("the connection ended after %d bytes", s.at)
			if s.total >= 0 {
				err = fmt.Errorf("the connection ended after %d of %d bytes", s.at, s.total)
			}
		}
		if err = s.failed(err); err != nil {
			return 0, err
		}
	}
}

// receive reads from the connection, but does not wait for ever.
func (s *source) receive(p []byte) (int, error) {
	if err := s.broken; err != nil {
		return 0, err
	}
	s.stall.Reset(s.f.stall())
	n, err := s.resp.Body.Read(p)
	s.stall.Stop()
	return n, s.why(err)
}

var errStall = errors.New("stalled")

// why tells a connection that was cut here from one that broke.
func (s *source) why(err error) error {
	if err == nil || s.ctx.Err() != nil || err == io.EOF {
		return err
	}
	if s.resp != nil && errors.Is(context.Cause(s.resp.Request.Context()), errStall) {
		return fmt.Errorf("nothing came for %s", s.f.stall())
	}
	return err
}

// connect asks for what is missing. It returns io.EOF if nothing is.
func (s *source) connect() error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.cancel = cancel
	s.stall = time.AfterFunc(s.f.stall(), func() { cancel(errStall) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.img.URL, nil)
	if err != nil {
		return &finalError{err}
	}
	req.Header.Set("Accept-Encoding", "identity")
	if s.at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", s.at))
		if v := s.mark.validator(); v != "" && s.mark.URL == s.img.URL {
			req.Header.Set("If-Range", v)
		}
	}
	resp, err := s.f.client().Do(req)
	s.stall.Stop()
	if err != nil {
		if s.ctx.Err() == nil && errors.Is(context.Cause(ctx), errStall) {
			return fmt.Errorf("no answer for %s", s.f.stall())
		}
		return err
	}
	s.resp, s.broken = resp, nil
	got := mark{URL: s.img.URL, Total: resp.ContentLength}
	if tag := resp.Header.Get("ETag"); strings.HasPrefix(tag, `"`) {
		got.ETag = tag
	}
	got.Modified = resp.Header.Get("Last-Modified")
	if modified, err := http.ParseTime(got.Modified); err != nil {
		got.Modified = ""
	} else if date, err := http.ParseTime(resp.Header.Get("Date")); err != nil || date.Sub(modified) < time.Second {
		got.Modified = "" // it may change within the same second (RFC 9110, section 8.8.2.2)
	}
	switch {
	case resp.StatusCode == http.StatusPartialContent:
		from, total, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || from != s.at {
			return fmt.Errorf("the server answered with range %q instead of one from %d", resp.Header.Get("Content-Range"), s.at)
		}
		if got.Total = total; got.validator() == "" && s.mark.URL == s.img.URL {
			got.ETag, got.Modified = s.mark.ETag, s.mark.Modified
		}
		if s.at > 0 && s.mark.URL == s.img.URL && (got.ETag != s.mark.ETag && got.ETag != "" && s.mark.ETag != "" || got.Total >= 0 && s.mark.Total >= 0 && got.Total != s.mark.Total) {
			s.scope.Logf("%s has changed since the download began", s.img.URL)
			return errRestart
		}
	case resp.StatusCode == http.StatusOK:
		if s.at > 0 {
			s.scope.Logf("%s: the server sends all of it again", s.img.URL)
			return errRestart
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && s.at > 0:
		if resp.Header.Get("Content-Range") == fmt.Sprintf("bytes */%d", s.at) && (s.total < 0 || s.total == s.at) {
			s.total = s.at
			s.hangUp()
			return io.EOF
		}
		s.scope.Logf("%s is shorter than what was downloaded of it", s.img.URL)
		return errRestart
	default:
		return answer(resp)
	}
	if coding := resp.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		// Many servers say so of a file that is packed by itself. The bytes are taken as they come: the checksum decides.
		s.scope.Logf("%s: the server says Content-Encoding %s, which was not asked for; the bytes are taken as they come", s.img.URL, coding)
	}
	if got.Total >= 0 {
		if s.img.Size > 0 && got.Total != s.img.Size {
			return &wrong{fmt.Errorf("expected %d bytes, the server offers %d", s.img.Size, got.Total)}
		}
		if got.Total > s.limit {
			return &finalError{fmt.Errorf("the server offers %s, more than the %s that are allowed", Size(got.Total), Size(s.limit))}
		}
		if s.total < 0 {
			if err := Space(s.f.Cache.Dir(), got.Total-s.at, "the download"); err != nil {
				return &finalError{err}
			}
		}
		s.total = got.Total
	}
	s.mark = got
	data, err := json.Marshal(got)
	if err == nil {
		err = WriteFile(s.path+".json", append(data, '\n'), 0o644)
	}
	if err != nil {
		return &finalError{err}
	}
	return nil
}

// contentRange reads "bytes FROM-TO/TOTAL" (RFC 9110, section 14.4); a total of "*" is -1.
func contentRange(s string) (from, total int64, ok bool) {
	span, whole, ok := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	first, last, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 || !strings.HasPrefix(s, "bytes ") {
		return 0, 0, false
	}
	from, err := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	total = -1
	var err3 error
	if whole != "*" {
		total, err3 = strconv.ParseInt(whole, 10, 64)
	}
	if err != nil || err2 != nil || err3 != nil || from < 0 || to < from || total >= 0 && to >= total {
		return 0, 0, false
	}
	return from, total, true
}

// hangUp ends the connection.
func (s *source) hangUp() {
	if s.resp != nil {
		_ = s.resp.Body.Close()
		s.resp = nil
	}
	if s.cancel != nil {
		s.stall.Stop()
		s.cancel(nil)
		s.cancel = nil
	}
}

// headway is how many new bytes make up for the failures before them.
const headway = 16 << 20

// failed looks at what went wrong, and waits if another try is due; otherwise it returns why not.
func (s *source) failed(err error) error {
	s.hangUp()
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if s.at >= s.high+headway {
		s.tries = 0
	}
	s.high = max(s.high, s.at)
	// A restart needs no limit of its own: it follows a failure, or comes of a part that is gone then.
	if isWrong(err) || isFinal(err) || errors.Is(err, errRestart) {
		return err
	}
	if s.tries == 0 {
		s.wait = s.f.backoff()
	}
	s.tries++
	if s.tries >= s.f.tries() {
		return &finalError{event.WithRemedy(fmt.Errorf("%w (tried %d times)", err, s.tries), "%s", remedy(err, s.img.URL))}
	}
	pause := pauseFor(err, s.wait)
	s.scope.Logf("%s: %v; trying again in %s", s.img.URL, err, pause.Round(time.Millisecond))
	s.wait *= 2
	select {
	case <-time.After(pause):
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

func isWrong(err error) bool {
	var w *wrong
	return errors.As(err, &w)
}

// isFinal reports whether another try would not mend it: what was found out to be so, redirects that are refused, and
// certificates.
func isFinal(err error) bool {
	var final *finalError
	var redirect *redirectError
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &final) || errors.As(err, &redirect) || errors.As(err, &certificate)
}

// answer is the error of a response that brings no file.
func answer(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code >= 500:
		return &retryAfter{resp.Status, parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())}
	}
	what := remedy(nil, resp.Request.URL.String())
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden:
		what = "upstream may have moved or withdrawn the file: run again to find the newest, or name a mirror with --mirror FROM=TO"
	}
	return &finalError{event.WithRemedy(fmt.Errorf("the server answered %s", resp.Status), "%s", what)}
}

// parseRetryAfter reads seconds or a date (RFC 9110, section 10.2.3); what is neither is 0.
func parseRetryAfter(v string, now time.Time) time.Duration {
	if s, err := strconv.ParseUint(strings.TrimSpace(v), 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// pauseFor is how long to wait before the next try: what the server asks for, up to a minute, or around wait, so that
// many who failed together do not come again together.
func pauseFor(err error, wait time.Duration) time.Duration {
	pause := wait/2 + time.Duration(rand.Int64N(int64(wait)+1))
	var after *retryAfter
	if errors.As(err, &after) {
		pause = max(pause, after.wait)
	}
	return min(pause, time.Minute)
}
