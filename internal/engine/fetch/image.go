package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
)

// Image is a file to download, and to unpack in the same pass if it is packed.
type Image struct {
	URL      string
	Size     int64           // bytes as it is served; 0: not known
	Sums     []integrity.Sum // of the file as it is served; all have to be right
	DiskSums []integrity.Sum // of what comes out
	Pack     string          // "", "gz", "xz", "bz2", "zst"
	Member   string          // glob over the path of the one file wanted of a tar archive; "": it is none
	Max      int64           // most bytes that may come out; 0: 64 GiB
	Sealed   string          // what Watch verifies, in words: an image that was kept without it does not count
	Watch    func() ([]Watcher, error)
}

// Watcher sees a file go by and says at its end whether it is right: a signature. Each try has new ones.
type Watcher struct {
	io.Writer
	Disk  bool         // it sees what comes out, not what is served
	Close func() error // after the last byte
	Abort func()       // instead of Close
}

// Fetched is a downloaded image, a blob of the cache.
type Fetched struct {
	Path   string    `json:"-"`
	SHA256 string    `json:"sha256"` // of what came out, hex; the blob's name
	Size   int64     `json:"size"`   // bytes of it
	Served int64     `json:"served"` // bytes that were served
	URL    string    `json:"url"`
	Time   time.Time `json:"time"`
	Cached bool      `json:"-"` // it was there: nobody was asked
}

const (
	defaultMax = 64 << 30
	silence    = 30 * time.Second // without a byte, after which a try ends
)

// key names what is asked for: the same file from anywhere.
func (i Image) key() string {
	h := sha256.New()
	for _, s := range i.Sums {
		fmt.Fprintln(h, "served", s)
	}
	for _, s := range i.DiskSums {
		fmt.Fprintln(h, "disk", s)
	}
	fmt.Fprintln(h, i.Pack, i.Member, i.Sealed)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Image makes an image a blob of the cache: it downloads, hashes, verifies and unpacks in one pass, and goes on where an
// earlier try or run stopped. What does not agree with every checksum and watcher is not kept. Without a checksum it is
// refused. An image that is there already is not asked for again.
func (f *Fetcher) Image(ctx context.Context, img Image, scope *event.Scope) (*Fetched, error) {
	if len(img.Sums) == 0 {
		return nil, fmt.Errorf("%s: refused: nothing says what its checksum has to be", img.URL)
	}
	for _, s := range append(append([]integrity.Sum(nil), img.Sums...), img.DiskSums...) {
		if s.New() == nil {
			return nil, fmt.Errorf("%s: %s is no checksum that can be verified", img.URL, s)
		}
	}
	key := img.key()
	unlock, err := f.Cache.Lock(ctx, "image-"+key, scope)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var known Fetched
	if f.Cache.Load("images", key, &known) && hex64.MatchString(known.SHA256) {
		known.Path, known.Cached = f.Cache.Blob(known.SHA256), true
		if info, err := os.Stat(known.Path); err == nil && info.Size() == known.Size {
			return &known, nil
		}
	}
	if err := os.MkdirAll(f.Cache.Path("downloads"), 0o755); err != nil {
		return nil, Explain(err, f.Cache.Dir())
	}
	if img.Size > 0 {
		if err := Space(f.Cache.Dir(), img.Size, "the download"); err != nil {
			return nil, err
		}
	}
	d := &download{f: f, img: img, part: f.Cache.Path("downloads", key+".part"), scope: scope}
	var done *Fetched
	wrong := false
	err = f.retry(ctx, img.URL, scope, func() error {
		var err error
		if done, err = d.try(ctx); err == nil {
			return nil
		}
		var mismatch *mismatchError
		if errors.As(err, &mismatch) {
			d.forget()
			if wrong { // twice is no accident
				return &finalError{event.WithRemedy(fmt.Errorf("%s: %w", img.URL, err), "nothing of it is kept; look at %s, or name another mirror with --mirror FROM=TO", img.URL)}
			}
			wrong = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	d.forget()
	if err := f.Cache.Store("images", key, done); err != nil {
		return nil, err
	}
	return done, nil
}

// mismatchError is the error of a file that is not what it has to be.
type mismatchError struct{ error }

func (m *mismatchError) Unwrap() error { return m.error }

// download is one image on its way. The part file holds what was served so far; it outlives the process.
type download struct {
	f     *Fetcher
	img   Image
	part  string
	scope *event.Scope
}

// served is what the part file was served by.
type served struct{ URL, ETag, Modified string }

// validator is what If-Range needs (RFC 9110, section 13.1.5): a weak one does not do.
func (s served) validator() string {
	if s.ETag != "" && !strings.HasPrefix(s.ETag, "W/") {
		return s.ETag
	}
	return s.Modified
}

func (d *download) forget() {
	_ = os.Remove(d.part)
	_ = os.Remove(d.part + ".json")
	_ = os.Remove(d.part + ".out")
}

// try downloads what is missing. What is there already goes the same way first.
func (d *download) try(ctx context.Context) (*Fetched, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	part, err := os.OpenFile(d.part, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, &finalError{Explain(err, d.f.Cache.Dir())}
	}
	defer part.Close()
	info, err := part.Stat()
	if err != nil {
		return nil, &finalError{err}
	}
	have := info.Size()
	var from served
	if data, err := os.ReadFile(d.part + ".json"); have > 0 && (err != nil || json.Unmarshal(data, &from) != nil || from.validator() == "") {
		have = 0 // nobody could tell whether the rest belongs to it
	}
	resp, have, err := d.ask(ctx, have, from)
	if err != nil {
		return nil, err
	}
	if resp != nil {
		defer resp.Body.Close()
	}
	if have == 0 {
		if err := part.Truncate(0); err != nil {
			return nil, &finalError{err}
		}
	}
	p, err := d.pipeline(ctx)
	if err != nil {
		return nil, &finalError{err}
	}
	defer p.abort()
	d.scope.Progress(0, d.img.Size, "bytes")
	if have > 0 {
		d.scope.Logf("going on after %s that are there", Size(have))
		if _, err := io.CopyBuffer(struct{ io.Writer }{p}, io.LimitReader(part, have), make([]byte, chunk)); err != nil {
			return nil, p.explain(ctx, err)
		}
		d.scope.Progress(have, d.img.Size, "bytes")
	}
	total := have
	if resp != nil {
		stall := time.AfterFunc(silence, func() { cancel(fmt.Errorf("no byte came for %s", silence)) })
		defer stall.Stop()
		total, err = d.receive(io.MultiWriter(part, p), &meter{resp.Body, func(n int64) {
			if n > 0 {
				stall.Reset(silence)
			}
		}}, have)
		if err != nil {
			return nil, p.explain(ctx, err)
		}
	}
	return p.finish(ctx, part, total)
}

// receive copies what is served and reports how far it is.
func (d *download) receive(to io.Writer, from io.Reader, have int64) (int64, error) {
	buf := make([]byte, chunk)
	for total := have; ; {
		n, err := from.Read(buf)
		if n > 0 {
			if d.img.Size > 0 && total+int64(n) > d.img.Size {
				return total, &mismatchError{fmt.Errorf("expected %d bytes, got more", d.img.Size)}
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return total, err
			}
			total += int64(n)
			d.scope.Progress(total, d.img.Size, "bytes")
		}
		if errors.Is(err, io.EOF) {
			if d.img.Size > 0 && total < d.img.Size {
				return total, fmt.Errorf("the connection ended after %d of %d bytes", total, d.img.Size)
			}
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// explain tells why a try ended early: the disk is full, somebody gave up, what came is wrong, or the server.
func (p *pipeline) explain(ctx context.Context, err error) error {
	wrong := p.fan.ctx.Err() != nil && ctx.Err() == nil
	if wrong {
		err = context.Cause(p.fan.ctx)
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &finalError{Explain(err, p.d.f.Cache.Dir())}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case wrong:
		return &mismatchError{err}
	}
	return err
}

// ask sends the request for what is missing, and says how much of what is there it goes on after. The response is nil if
// nothing is missing.
func (d *download) ask(ctx context.Context, have int64, from served) (*http.Response, int64, error) {
	if have > 0 && have == d.img.Size {
		return nil, have, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.img.URL, nil)
	if err != nil {
		return nil, 0, &finalError{err}
	}
	req.Header.Set("User-Agent", "kmi-tui")
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
		req.Header.Set("If-Range", from.validator())
	}
	client := d.f.Client
	if client == nil {
		client = defaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	bad := func(err error) (*http.Response, int64, error) {
		resp.Body.Close()
		return nil, 0, err
	}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		var start int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &start); err != nil || start != have || have == 0 {
			return bad(fmt.Errorf("the server answered with range %q instead of one from %d", resp.Header.Get("Content-Range"), have))
		}
	case http.StatusOK:
		have = 0
		data, err := json.Marshal(served{d.img.URL, resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")})
		if err == nil {
			err = WriteFile(d.part+".json", data, 0o644)
		}
		if err != nil {
			return bad(&finalError{err})
		}
	case http.StatusRequestedRangeNotSatisfiable:
		d.forget()
		return bad(errors.New("the server's file is shorter than what was downloaded of it"))
	default:
		return bad(refused(resp, d.img.URL))
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return bad(&finalError{fmt.Errorf("%s: the server packs it (%s) though it was not asked to", d.img.URL, event.Clean(e))})
	}
	if n := resp.ContentLength; n >= 0 && d.img.Size > 0 && have+n != d.img.Size {
		return bad(&mismatchError{fmt.Errorf("expected %d bytes, the server has %d", d.img.Size, have+n)})
	}
	return resp, have, nil
}

// pipeline is what the bytes go through: checksums, watchers, and the way to the file that comes out.
type pipeline struct {
	d        *download
	group    *errgroup.Group
	fan      *fan
	served   []hash.Hash // of Image.Sums
	out      *output     // nil: what is served is what comes out
	sum      hash.Hash   // SHA-256 of what comes out
	disk     []hash.Hash // of Image.DiskSums
	watchers []Watcher
	ended    bool
}

func (d *download) pipeline(ctx context.Context) (*pipeline, error) {
	p := &pipeline{d: d, sum: sha256.New()}
	p.group, ctx = errgroup.WithContext(ctx)
	if d.img.Watch != nil {
		var err error
		if p.watchers, err = d.img.Watch(); err != nil {
			return nil, err
		}
	}
	var serve, come []io.Writer
	for _, s := range d.img.Sums {
		h := s.New()
		p.served = append(p.served, h)
		serve = append(serve, h)
	}
	come = append(come, p.sum)
	for _, s := range d.img.DiskSums {
		h := s.New()
		p.disk = append(p.disk, h)
		come = append(come, h)
	}
	for _, w := range p.watchers {
		if w.Disk {
			come = append(come, w)
		} else {
			serve = append(serve, w)
		}
	}
	if d.img.Pack == "" && d.img.Member == "" {
		p.fan = newFan(ctx, p.group, append(serve, come...))
		return p, nil
	}
	most := d.img.Max
	if most == 0 {
		most = defaultMax
	}
	var err error
	if p.out, err = newOutput(d.part+".out", most, d.f.Cache.Dir()); err != nil {
		return nil, err
	}
	packed, pw := io.Pipe()
	p.group.Go(func() error {
		after := newFan(ctx, p.group, come)
		err := unpack(ctx, packed, io.MultiWriter(p.out, after), d.img.Pack, d.img.Member, d.scope)
		after.close()
		_ = packed.CloseWithError(err)
		return err
	})
	p.fan = newFan(ctx, p.group, append(serve, &pipeEnd{pw}))
	return p, nil
}

// pipeEnd hands on to the unpacker until it has had enough: what follows the packed stream is hashed, and not unpacked.
type pipeEnd struct{ *io.PipeWriter }

func (e *pipeEnd) Write(p []byte) (int, error) {
	if _, err := e.PipeWriter.Write(p); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return 0, err
	}
	return len(p), nil
}

func (p *pipeline) Write(b []byte) (int, error) { return p.fan.Write(b) }

// finish says whether everything is right, and makes what came out a blob.
func (p *pipeline) finish(ctx context.Context, part *os.File, total int64) (*Fetched, error) {
	p.fan.close()
	p.ended = true
	if err := p.group.Wait(); err != nil {
		p.drop()
		return nil, p.explain(ctx, err)
	}
	for i, s := range p.d.img.Sums {
		if err := p.compare(s, p.served[i], "", total); err != nil {
			p.drop()
			return nil, err
		}
	}
	come := total
	if p.out != nil {
		come = p.out.at
	}
	for i, s := range p.d.img.DiskSums {
		if err := p.compare(s, p.disk[i], "unpacked, ", come); err != nil {
			p.drop()
			return nil, err
		}
	}
	for i, w := range p.watchers {
		if err := w.Close(); err != nil {
			p.watchers = p.watchers[i+1:]
			p.drop()
			return nil, &mismatchError{fmt.Errorf("the signature was not accepted: %w", err)}
		}
	}
	done := &Fetched{SHA256: hex.EncodeToString(p.sum.Sum(nil)), Size: total, Served: total, URL: p.d.img.URL, Time: time.Now().UTC()}
	name := p.d.part
	if p.out != nil {
		size, err := p.out.close()
		if err != nil {
			return nil, &finalError{Explain(err, p.d.f.Cache.Dir())}
		}
		done.Size, name = size, p.out.name()
	}
	done.Path = p.d.f.Cache.Blob(done.SHA256)
	err := os.MkdirAll(filepath.Dir(done.Path), 0o755)
	if err == nil {
		err = os.Chmod(name, 0o444)
	}
	if err == nil {
		err = os.Rename(name, done.Path)
	}
	if err != nil {
		return nil, &finalError{Explain(err, p.d.f.Cache.Dir())}
	}
	return done, nil
}

func (p *pipeline) compare(want integrity.Sum, h hash.Hash, what string, size int64) error {
	if found := hex.EncodeToString(h.Sum(nil)); found != want.Hex {
		return &mismatchError{fmt.Errorf("%sexpected %s, got %s:%s (%d bytes)", what, want, want.Algorithm, found, size)}
	}
	return nil
}

// drop ends watchers that were not asked.
func (p *pipeline) drop() {
	for _, w := range p.watchers {
		w.Abort()
	}
	p.watchers = nil
	if p.out != nil {
		p.out.remove()
	}
}

// abort ends a pipeline that was not finished.
func (p *pipeline) abort() {
	if p.ended {
		return
	}
	p.fan.fail(context.Canceled)
	_ = p.group.Wait()
	p.drop()
}
