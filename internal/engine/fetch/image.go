package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Image is a file to download and, if it is packed, to unpack in the same pass.
type Image struct {
	URL      string
	Size     int64    // bytes as served; 0: not known
	Sums     []string // "sha256:HEX", "sha512:HEX" of the file as served; all have to fit
	Pack     string   // "" (not packed), "gz", "xz", "bz2", "zst"
	Member   string   // pattern (path.Match) of the cleaned name of the one file wanted of a tar archive; "": not a tar archive
	DiskSums []string // like Sums, of what comes out
	Max      int64    // most bytes that may be served, and that may come out, a whole archive's included; 0: 64 GiB
	Checks   []Check  // what the bytes have to pass besides, signatures say
}

// Check is one more reader of an Image's bytes, which says in the end whether they are right.
type Check struct {
	// Name says what is checked and with what, and differs where the answer might: a digest of the signature and the
	// fingerprints that count. It is part of what the cache remembers, and of errors.
	Name string
	Disk bool // reads what comes out instead of what is served
	// New makes the reader for a pass; a download that starts over takes another one. It sees every byte in order, from
	// one goroutine. Close is called once in any case; its error, or one of Write, refuses the file if the pass came to
	// its end.
	New func() io.WriteCloser
}

// Fetched is an image in the cache: verified, and never changed again.
type Fetched struct {
	Path       string `json:"-"`           // of the blob, which is read-only
	SHA256     string `json:"sha256"`      // of what came out, hex; the blob's name
	Size       int64  `json:"size"`        // of what came out, bytes
	Served     string `json:"served"`      // SHA-256 of the file as served, hex
	ServedSize int64  `json:"served_size"` // bytes
	URL        string `json:"url"`         // where it came from
	Cached     bool   `json:"-"`           // nothing was to be downloaded
}

// record is what the cache remembers of an image, and of its blob, so that changes to it are seen.
type record struct {
	Fetched
	Inode    uint64    `json:"inode"`
	Modified time.Time `json:"modified"`
	Boot     string    `json:"boot"` // of the machine: what was written before a crash may not have reached the disk
}

const (
	fetchedKind = "fetched" // of records
	maxImage    = 64 << 30
)

// normal checks the image and brings it into the form that keys are made of.
func (i Image) normal() (Image, error) {
	var err error
	if i.Sums, err = normalSums(i.Sums); err != nil {
		return i, fmt.Errorf("%s: %w", i.URL, err)
	}
	if i.DiskSums, err = normalSums(i.DiskSums); err != nil {
		return i, fmt.Errorf("%s: %w", i.URL, err)
	}
	if i.Pack != "" && packs[i.Pack] == "" {
		return i, fmt.Errorf("%s: %q is no compression that is known here: gz, xz, bz2, zst", i.URL, i.Pack)
	}
	if _, err := path.Match(i.Member, ""); err != nil {
		return i, fmt.Errorf("%s: the pattern %q of the member: %w", i.URL, i.Member, err)
	}
	if len(i.Sums)+len(i.Checks) == 0 {
		return i, event.WithRemedy(fmt.Errorf("%s: there is neither a checksum nor a signature to verify it with", i.URL), "nothing unverified is downloaded: name where upstream publishes the checksum")
	}
	for _, c := range i.Checks {
		if c.Name == "" || c.New == nil {
			return i, fmt.Errorf("%s: a check without a name or without a reader", i.URL)
		}
	}
	if i.Max <= 0 {
		i.Max = maxImage
	}
	if i.Size < 0 || i.Size > i.Max {
		return i, fmt.Errorf("%s: a size of %d bytes; at most %d are allowed", i.URL, i.Size, i.Max)
	}
	return i, nil
}

// packed reports whether what comes out is not what is served.
func (i *Image) packed() bool { return i.Pack != "" || i.Member != "" }

// keys are the names of the download, which mirrors of a file share where a checksum says that it is the same one, and
// of the record.
func (i *Image) keys() (download, record string) {
	key := func(groups ...[]string) string {
		h := sha256.New()
		for _, g := range groups {
			g = slices.Clone(g)
			slices.Sort(g)
			fmt.Fprintf(h, "%q\n", g)
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	what := i.Sums
	if len(what) == 0 {
		what = []string{i.URL}
	}
	var checks []string
	for _, c := range i.Checks {
		checks = append(checks, fmt.Sprintf("%v %s", c.Disk, c.Name))
	}
	return key(what), key(what, i.DiskSums, []string{i.Pack}, []string{i.Member}, checks)
}

// Image makes the image a blob of the cache and returns it. What every checksum and check agreed to before is answered
// at once, without a request. Errors name the URL and carry a remedy; nothing that is not verified stays but the part of
// a download that can go on.
func (f *Fetcher) Image(ctx context.Context, img Image, scope *event.Scope) (*Fetched, error) {
	img, err := img.normal()
	if err != nil {
		return nil, err
	}
	download, key := img.keys()
	if got := f.Cache.fetched(ctx, key, &img, scope); got != nil {
		return got, nil
	}
	unlock, err := f.Cache.Lock(ctx, "image-"+download, scope)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if got := f.Cache.fetched(ctx, key, &img, scope); got != nil {
		return got, nil
	}
	got, err := f.image(ctx, &img, f.Cache.Path("downloads", download+".part"), scope)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		err = fmt.Errorf("%s: %w", img.URL, err)
		var r *event.Remedied
		if !errors.As(err, &r) {
			err = event.WithRemedy(err, "%s", remedy(err, img.URL))
		}
		return nil, err
	}
	f.Cache.remember(key, got)
	scope.Logf("%s %s sha256:%s verified", img.URL, Size(got.ServedSize), got.Served)
	return got, nil
}

// image downloads in as many passes as it takes: another one from the beginning after a file that turned out wrong, and
// where a server cannot go on.
func (f *Fetcher) image(ctx context.Context, img *Image, part string, scope *event.Scope) (*Fetched, error) {
	s := &source{f: f, img: img, scope: scope, path: part, limit: img.Max}
	for again := false; ; {
		got, err := f.pass(ctx, s)
		switch {
		case err == nil, ctx.Err() != nil:
			return got, err
		case errors.Is(err, errRestart):
		case isWrong(err):
			if again {
				_ = s.forget()
				return nil, event.WithRemedy(err, "the server has another file than the checksum is of: try again later, or name a mirror with --mirror FROM=TO")
			}
			again = true
			scope.Logf("%s: %v; downloading it once more from the beginning", img.URL, err)
		default:
			var refused *refusal
			if errors.As(err, &refused) {
				_ = s.forget()
				err = event.WithRemedy(err, "do not use this file; tell its publisher, or correct the catalogue if it allows too little")
			}
			return nil, err
		}
		if err := s.forget(); err != nil {
			return nil, err
		}
	}
}

// pass reads the file once from its beginning: from what is on disk of it, then from the network, to the checksums, the
// part, the checks, and through the unpacking.
func (f *Fetcher) pass(ctx context.Context, s *source) (*Fetched, error) {
	img := s.img
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer s.end()
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	if s.total >= 0 {
		need := s.total - s.kept
		if img.packed() {
			need += s.total // what comes out is hardly less
		}
		if err := Space(f.Cache.Dir(), need, "the download"); err != nil {
			return nil, &finalError{err}
		}
	}
	full := func(err error) { stop(&finalError{Explain(err, f.Cache.Dir())}) }
	file, err := os.OpenFile(s.path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, &finalError{Explain(err, f.Cache.Dir())}
	}
	part := &sparse{f: file, skip: s.kept}
	out := s.path
	var u *unpacker
	if img.packed() {
		work, release, err := f.Cache.Work("fetch")
		if err != nil {
			_ = part.close()
			return nil, &finalError{err}
		}
		defer release()
		out = filepath.Join(work, "disk")
		if u, err = newUnpacker(ctx, img.Pack, s.scope); err != nil {
			_ = part.close()
			return nil, &finalError{err}
		}
	}
	servedChecks, diskChecks := newChecks(img.Checks, false), newChecks(img.Checks, true)
	sinks := slices.Concat([]*sink{{w: part, fail: full}}, servedChecks.sinks())
	var served, disk sums
	var size int64
	var unpackErr error
	unpacked := make(chan struct{})
	if u == nil {
		served = newSums(img.Sums, img.DiskSums)
		disk = served
		sinks = slices.Concat(sinks, served.sinks(), diskChecks.sinks())
		close(unpacked)
	} else {
		served, disk = newSums(img.Sums), newSums(img.DiskSums)
		sinks = slices.Concat(sinks, served.sinks(), []*sink{{w: u.in, end: func() { _ = u.in.Close() }}})
		go func() {
			defer close(unpacked)
			defer u.close()
			size, unpackErr = unpack(&cancelled{ctx, u.out}, img, out, full, slices.Concat(disk.sinks(), diskChecks.sinks()))
			var refused *refusal
			if errors.As(unpackErr, &refused) {
				stop(unpackErr)
			}
		}()
	}
	n, err := pump(s, sinks...)
	if err != nil {
		stop(err) // ends the unpacking, too
	}
	<-unpacked
	cerr := part.close()
	refusals := errors.Join(servedChecks.close(), diskChecks.close())
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if cerr != nil {
		return nil, &finalError{Explain(cerr, f.Cache.Dir())}
	}
	if !img.packed() {
		size = n
	}
	if err := verdict(img, served, disk, n, size, unpackErr, refusals); err != nil {
		return nil, err
	}
	got := &Fetched{SHA256: disk.of("sha256"), Size: size, Served: served.of("sha256"), ServedSize: n, URL: img.URL}
	got.Path = f.Cache.Blob(got.SHA256)
	if err := f.keep(out, got.Path); err != nil {
		return nil, &finalError{Explain(err, f.Cache.Dir())}
	}
	return got, s.forget()
}

// unpack writes what comes out of r to the file out and to the sinks.
func unpack(r io.Reader, img *Image, out string, full func(error), sinks []*sink) (int64, error) {
	f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		full(err)
		return 0, err
	}
	w := &sparse{f: f}
	r = limit(r, img.Max)
	if img.Member != "" {
		r = newMember(r, img.Member, img.Max)
	}
	n, err := pump(r, append(sinks, &sink{w: w, fail: full})...)
	if cerr := w.close(); cerr != nil {
		full(cerr)
		return n, cerr
	}
	if n == 0 && err == nil {
		err = errors.New("nothing comes out of it")
	}
	return n, err
}

// verdict says whether the file is right, after all of it came.
func verdict(img *Image, served, disk sums, n, size int64, unpackErr, refusals error) error {
	if expected, found := served.differ(img.Sums); expected != "" {
		return &wrong{fmt.Errorf("expected %s, got %s (%d bytes)", expected, found, n)}
	}
	var err error
	switch expected, found := disk.differ(img.DiskSums); {
	case unpackErr != nil:
		format := packs[img.Pack]
		if img.Member != "" {
			format = strings.TrimSpace(format + " tar")
		}
		err = fmt.Errorf("it cannot be unpacked as %s: %w", format, unpackErr)
	case expected != "":
		err = fmt.Errorf("unpacked, expected %s, got %s (%d bytes)", expected, found, size)
	default:
		err = refusals
	}
	if err == nil {
		return nil
	}
	if len(img.Sums) == 0 { // it may be another file than upstream's
		return &wrong{err}
	}
	return &finalError{event.WithRemedy(fmt.Errorf("%w; as served it has the right checksum", err), "do not use this file; upstream's own records disagree: tell its publisher, or correct the catalogue")}
}

// keep gives a finished file its final name.
func (f *Fetcher) keep(from, blob string) error {
	if err := os.MkdirAll(filepath.Dir(blob), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(from, 0o444); err != nil {
		return err
	}
	touch(from)
	return os.Rename(from, blob)
}

// checks are the readers of a pass.
type checks []*check

type check struct {
	name string
	w    io.WriteCloser
	sink *sink
}

func newChecks(list []Check, disk bool) (out checks) {
	for _, c := range list {
		if c.Disk == disk {
			w := c.New()
			out = append(out, &check{c.Name, w, &sink{w: w}})
		}
	}
	return out
}

func (c checks) sinks() (list []*sink) {
	for _, one := range c {
		list = append(list, one.sink)
	}
	return list
}

// close asks every check for its answer.
func (c checks) close() error {
	var errs []error
	for _, one := range c {
		err := one.w.Close()
		if one.sink.err != nil {
			err = one.sink.err
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", one.name, err))
		}
	}
	return errors.Join(errs...)
}

// remember records the image. Without its record it is downloaded again, nothing worse.
func (c *Cache) remember(key string, got *Fetched) {
	info, err := os.Stat(got.Path)
	if err != nil {
		return
	}
	_ = c.Store(fetchedKind, key, record{*got, inode(info), info.ModTime().UTC(), bootID()})
}

// fetched answers from the cache, or returns nil. A blob whose size differs is no answer; one that may have changed
// otherwise (another inode, another time, a machine that was started again since) is read again first.
func (c *Cache) fetched(ctx context.Context, key string, img *Image, scope *event.Scope) *Fetched {
	var r record
	if !c.Load(fetchedKind, key, &r) || !hex64.MatchString(r.SHA256) {
		return nil
	}
	release := c.share()
	there := c.has(r.SHA256, r.Size)
	release()
	blob := c.Blob(r.SHA256)
	info, err := os.Stat(blob)
	if !there || err != nil {
		return nil
	}
	got := r.Fetched
	got.Path, got.Cached = blob, true
	if inode(info) == r.Inode && info.ModTime().Equal(r.Modified) && bootID() == r.Boot {
		return &got
	}
	scope.Logf("%s is in the cache; reading it again to be sure", img.URL)
	f, err := os.Open(blob)
	if err != nil {
		return nil
	}
	defer f.Close()
	h := newSums()
	if _, err := pump(&cancelled{ctx, f}, h.sinks()...); err != nil || h.of("sha256") != r.SHA256 {
		if err == nil {
			scope.Logf("%s is damaged: expected sha256:%s, found sha256:%s", blob, r.SHA256, h.of("sha256"))
		}
		return nil
	}
	c.remember(key, &got)
	return &got
}

// cancelled is a reader that ends with its context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

func inode(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// bootID differs after every start of the machine (proc_sys_kernel(5)).
func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}
