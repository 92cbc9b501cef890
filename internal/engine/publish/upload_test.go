package publish

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
)

// keeping breaks the first uploads that match after some bytes, which the registry keeps, and says how much that is as
// the distribution's specification has it; or, with claim, says something else.
func keeping(claim string, match func(r *http.Request) bool, after ...int64) fault {
	var mu sync.Mutex
	has := map[string]int64{}
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		defer mu.Unlock()
		id := r.URL.Path
		if n, ok := has[id]; ok && r.Method == http.MethodGet {
			w.Header().Set("Location", r.URL.Path)
			w.Header().Set("Range", fmt.Sprintf("0-%d", n-1))
			if claim != "" {
				w.Header().Set("Range", claim)
			}
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if len(after) == 0 || !match(r) {
			next.ServeHTTP(w, r)
			return
		}
		part, _ := io.ReadAll(io.LimitReader(r.Body, after[0]))
		sent := r.Clone(r.Context())
		sent.Body = io.NopCloser(bytes.NewReader(part))
		if has[id] > 0 {
			sent.Header.Set("Content-Range", fmt.Sprintf("%d-%d", has[id], has[id]+int64(len(part))-1))
		}
		next.ServeHTTP(&recorder{head: http.Header{}}, sent)
		has[id] += int64(len(part))
		after = after[1:]
		panic(http.ErrAbortHandler)
	}
}

// both is one fault behind the other.
func both(first, second fault) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		first(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { second(w, r, next) }))
	}
}

// headed adds a header to the answers of requests that match.
func headed(name, value string, match func(r *http.Request) bool) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !match(r) {
			next.ServeHTTP(w, r)
			return
		}
		rec := &recorder{head: http.Header{}, status: 200}
		next.ServeHTTP(rec, r)
		maps.Copy(w.Header(), rec.head)
		w.Header().Set(name, value)
		if value == "" {
			w.Header().Del(name)
		}
		w.WriteHeader(rec.status)
		_, _ = w.Write(rec.body.Bytes())
	}
}

// proxy stands in front of a registry in another process, as a cloud's front door does.
type proxy struct {
	*httptest.Server
	host, behind string
	fault        atomic.Pointer[fault]

	mu     sync.Mutex
	keeps  bool              // it gives the registry what came before a connection broke, and remembers where that stands
	states map[string]string // by upload, if it keeps: the newest query that the registry wants
	cuts   []int64           // after how many bytes the next uploads break
	sent   int64             // bytes of uploads that came in
	seen   []string
}

func newProxy(t testing.TB, behind string) *proxy {
	t.Helper()
	p := &proxy{behind: behind, states: map[string]string{}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fn := p.fault.Load(); fn != nil {
			(*fn)(w, r, http.HandlerFunc(p.pass))
			return
		}
		p.pass(w, r)
	}))
	t.Cleanup(p.Close)
	p.host = strings.TrimPrefix(p.URL, "http://")
	return p
}

func (p *proxy) breaks(keeps bool, cuts ...int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keeps, p.cuts, p.sent, p.seen = keeps, cuts, 0, nil
}

func (p *proxy) pass(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	id, body, cut := r.URL.Path, io.Reader(r.Body), false
	query := r.URL.RawQuery
	if newest := p.states[id]; p.keeps && newest != "" {
		query = newest
		if d := r.URL.Query().Get("digest"); d != "" {
			query += "&digest=" + url.QueryEscape(d)
		}
	}
	p.seen = append(p.seen, r.Method+" "+r.URL.Path)
	if r.Method == http.MethodPatch && r.ContentLength > 1<<20 && len(p.cuts) > 0 {
		body, cut = io.LimitReader(body, p.cuts[0]), true
		p.cuts = p.cuts[1:]
	}
	keeps := p.keeps
	p.mu.Unlock()
	counted := &counter{r: body, ctx: r.Context(), tell: func(int64) {}}
	var sent io.Reader = counted
	if cut && !keeps {
		sent = io.MultiReader(counted, broken{})
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://"+p.behind+r.URL.Path, io.NopCloser(sent))
	if err != nil {
		panic(err)
	}
	req.URL.RawQuery, req.Host, req.Header = query, r.Host, r.Header.Clone()
	if req.ContentLength = r.ContentLength; cut && keeps {
		req.ContentLength = -1
	}
	if r.ContentLength == 0 {
		req.Body = http.NoBody
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	p.mu.Lock()
	if r.Method == http.MethodPatch {
		p.sent += counted.n
	}
	if err == nil {
		if u, uerr := url.Parse(resp.Header.Get("Location")); uerr == nil && strings.Contains(u.Path, "/uploads/") {
			p.states[u.Path] = u.RawQuery
		}
	}
	p.mu.Unlock()
	if err != nil || cut {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the connection broke") }

// Through a proxy that breaks connections, with Debian's docker-registry behind it. Where what was sent is kept, the
// upload goes on there; docker-registry by itself drops an upload whose connection broke, and it starts anew.
func TestBrokenUploads(t *testing.T) {
	if testing.Short() {
		t.Skip("starts docker-registry")
	}
	const size = 12 << 20
	ctx := context.Background()
	storage := t.TempDir()
	behind := realRegistry(t, storage, "")
	old, next := makeImage(t, catalog.X86_64, "old", 1000, "yes"), makeImage(t, catalog.X86_64, "new", size, "yes")
	disk := must(next.Manifest()).Layers[1].Digest
	uploads := method(http.MethodPatch, "/uploads/")
	commit := method(http.MethodPut, "/uploads/")
	start := method(http.MethodPost, "/uploads/")
	lose := func(w http.ResponseWriter, r *http.Request, next http.Handler) { // what a restart or a clean-up does
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/uploads/") {
			if err := os.RemoveAll(filepath.Join(storage, "docker/registry/v2/repositories", strings.TrimPrefix(filepath.Dir(filepath.Dir(filepath.Dir(r.URL.Path))), "/v2/"), "_uploads")); err != nil {
				t.Error(err)
			}
		}
		next.ServeHTTP(w, r)
	}
	var number atomic.Int32
	for what, c := range map[string]struct {
		keeps bool
		cuts  []int64
		fault fault
		most  int64 // bytes of uploads; 0: any number
		says  string
		is    error
	}{
		"nothing":                  {most: size * 21 / 20},
		"kept":                     {keeps: true, cuts: []int64{10 << 20}, most: size * 5 / 4},
		"kept three times":         {keeps: true, cuts: []int64{5 << 20, 4 << 20, 1 << 20}, most: size * 5 / 4},
		"kept before anything":     {keeps: true, cuts: []int64{0}, most: size * 5 / 4},
		"kept, then lost":          {keeps: true, cuts: []int64{10 << 20}, fault: lose, most: size * 2},
		"dropped":                  {cuts: []int64{10 << 20}, most: size * 2},
		"429 while it is asked":    {keeps: true, cuts: []int64{10 << 20}, fault: answer(429, "", times(1, method(http.MethodGet, "/uploads/"))), most: size * 5 / 4},
		"502 when it goes on":      {keeps: true, cuts: []int64{10 << 20}, fault: answer(502, "", times(1, commit)), most: size * 5 / 4},
		"429 at first":             {fault: answer(429, "", times(2, start)), most: size * 21 / 20},
		"500 for a while":          {fault: answer(500, "", times(2, uploads))},
		"the answer is lost":       {fault: lostAnswer(times(1, commit)), most: size * 21 / 20},
		"507":                      {fault: answer(507, "", uploads), says: "has no room for this (507"},
		"500 forever":              {fault: answer(500, "", uploads), says: "failed (500"},
		"always broken":            {cuts: []int64{1 << 20, 1 << 20, 1 << 20, 1 << 20}, says: "cannot reach"},
		"always broken, but kept":  {keeps: true, cuts: []int64{1 << 20, 1 << 20, 1 << 20, 1 << 20}, says: "cannot reach"},
		"another digest":           {fault: headed("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64), commit), says: "something else than what was asked for", is: ErrContent},
		"other content on the way": {fault: flipped, says: "DIGEST_INVALID"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			naps, p := &naps{}, newProxy(t, behind)
			r := open(t, fmt.Sprintf("%s/kmi%d", p.host, number.Add(1)), naps.options()) // it does not know the others' blobs
			before := publishAll(t, r, "1-1", old).String()
			rel, err := prepare(ctx, r, signers()[0], next)
			if err != nil {
				t.Fatal(err)
			}
			rel.Fixed = []string{"1-2"}
			after := digest(t, rel.Index).String()
			p.breaks(c.keeps, c.cuts...)
			if c.fault != nil {
				p.fault.Store(&c.fault)
			}
			_, err = Publish(ctx, r, rel, nil)
			p.fault.Store(nil)
			p.mu.Lock()
			sent := p.sent
			p.mu.Unlock()
			p.breaks(false)
			want := []string{after, after, after}
			if c.says != "" {
				want = []string{before, before, ""}
				if err == nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("%v, want %q", err, c.says)
				}
			} else if err != nil {
				t.Error(err)
			}
			if found := at(t, r, "1", "latest", "1-2"); !slices.Equal(found, want) {
				t.Errorf("tags %v, want %v", found, want)
			}
			if c.most > 0 && sent > c.most {
				t.Errorf("%d bytes were sent, want at most %d", sent, c.most)
			}
			t.Logf("%.2f times the blob was sent; %q", float64(sent)/size, naps.lines)
			if c.keeps && c.says == "" && what != "kept before anything" && what != "kept, then lost" && !contains(naps.lines, "goes on after ") {
				t.Errorf("it does not go on: %q", naps.lines)
			}
			// The next run repairs, and the registry has the right bytes.
			if _, err := Publish(ctx, r, rel, nil); err != nil {
				t.Error(err)
			}
			rc, err := r.Blob(ctx, disk)
			if err != nil {
				t.Fatal(err)
			}
			if h, n, err := v1.SHA256(rc); err != nil || h != disk || n < size {
				t.Errorf("%s, %d bytes, %v", h, n, err)
			}
			_ = rc.Close()
		})
	}
}

// lostAnswer lets a request through, and breaks the connection instead of answering.
func lostAnswer(match func(r *http.Request) bool) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !match(r) {
			next.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(&recorder{head: http.Header{}}, r)
		panic(http.ErrAbortHandler)
	}
}

// flipped changes what is uploaded.
func flipped(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if r.Method == http.MethodPatch {
		r.Body = struct {
			io.Reader
			io.Closer
		}{&flipping{r: r.Body}, r.Body}
	}
	next.ServeHTTP(w, r)
}

type flipping struct{ r io.Reader }

func (f *flipping) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if n > 0 {
		p[0] ^= 1
	}
	return n, err
}

// A blob that another repository of the registry has is not sent again.
func TestMount(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []string{"docker-registry", "registry that begins an upload instead", "registry that refuses"} {
		t.Run(kind, func(t *testing.T) {
			var host string
			var seen func() []string
			if kind == "docker-registry" {
				if testing.Short() {
					t.Skip("starts docker-registry")
				}
				p := newProxy(t, realRegistry(t, t.TempDir(), ""))
				host, seen = p.host, func() []string {
					p.mu.Lock()
					defer p.mu.Unlock()
					defer func() { p.seen = nil }()
					return p.seen
				}
			} else {
				f := newFaulty(t)
				host, seen = f.host, f.requests
				if kind == "registry that refuses" {
					f.set(answer(405, `{"errors":[{"code":"UNSUPPORTED"}]}`, func(r *http.Request) bool { return r.URL.Query().Get("mount") != "" }))
				}
			}
			patches := func() (n int) {
				for _, line := range seen() {
					if strings.HasPrefix(line, "PATCH ") {
						n++
					}
				}
				return n
			}
			// A base image of the same registry, as container.Base finds it.
			bare, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
				static.NewLayer(must(io.ReadAll(tarWith(t, "bin/sh"))), types.OCIUncompressedLayer))
			if err != nil {
				t.Fatal(err)
			}
			if bare, err = mutate.ConfigFile(bare, &v1.ConfigFile{Architecture: "amd64", OS: "linux", RootFS: must(bare.ConfigFile()).RootFS}); err != nil {
				t.Fatal(err)
			}
			if err := remote.Write(must(name.ParseReference(host+"/base/small:1")), bare); err != nil {
				t.Fatal(err)
			}
			base, _, err := container.Base(ctx, host+"/base/small:1", catalog.X86_64)
			if err != nil {
				t.Fatal(err)
			}
			path, _ := qcow2(t, "a", 100_000)
			img, err := container.Build(container.Spec{Base: base, Arch: catalog.X86_64, DiskPath: path})
			if err != nil {
				t.Fatal(err)
			}
			reg := must(Open(host+"/kmi", Options{}))
			one, two := must(reg.Repository("one")), must(reg.Repository("two"))
			seen()
			want := map[bool][2]int{true: {3, 0}, false: {4, 4}}[kind == "docker-registry"] // metadata, disk, configuration; base
			if kind != "docker-registry" {
				want[1] = 0 // ggcr's registry keeps one store for all repositories: HEAD finds it
			}
			if err := one.Push(ctx, img, nil); err != nil {
				t.Fatal(err)
			}
			if n := patches(); n != want[0] && kind == "docker-registry" {
				t.Errorf("%d uploads, want %d", n, want[0])
			}
			var last, total int64
			if err := two.Push(ctx, img, func(d, t int64) { last, total = d, t }); err != nil {
				t.Fatal(err)
			}
			if n := patches(); n != want[1] {
				t.Errorf("%d uploads for the second repository, want %d", n, want[1])
			}
			if last != total || last == 0 {
				t.Errorf("%d of %d at the end", last, total)
			}
			for _, r := range []Repository{one, two} {
				for _, d := range append(must(img.Manifest()).Layers, must(img.Manifest()).Config) {
					rc, err := r.Blob(ctx, d.Digest)
					if err != nil {
						t.Fatal(err)
					}
					if h, _, err := v1.SHA256(rc); err != nil || h != d.Digest {
						t.Errorf("%s: %s, %v", d.Digest, h, err)
					}
					_ = rc.Close()
				}
			}
		})
	}
}

// ggcr's registry has one store for all repositories, so mounting is asked for only where HEAD says no.
func TestMountThatIsNotGiven(t *testing.T) {
	ctx := context.Background()
	for status, body := range map[int]string{202: "", 400: "{}", 401: "{}", 404: `{"errors":[{"code":"NAME_UNKNOWN"}]}`, 405: "{}"} {
		f := newFaulty(t)
		var mounts, sent atomic.Int32
		f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			switch {
			case r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/two/blobs/"):
				w.WriteHeader(http.StatusNotFound)
			case r.URL.Query().Get("mount") != "":
				mounts.Add(1)
				if r.URL.Query().Get("from") != "kmi/one" {
					t.Errorf("from %q", r.URL.Query().Get("from"))
				}
				if status != http.StatusAccepted {
					w.WriteHeader(status)
					_, _ = io.WriteString(w, body)
					return
				}
				next.ServeHTTP(w, r)
			default:
				if r.Method == http.MethodPatch {
					sent.Add(1)
				}
				next.ServeHTTP(w, r)
			}
		})
		reg := must(Open(f.host+"/kmi", (&naps{}).options()))
		img := makeImage(t, catalog.X86_64, "a", 1000, "yes")
		for _, n := range []string{"one", "two"} {
			if err := must(reg.Repository(n)).Push(ctx, img.Image, nil); err != nil {
				t.Errorf("%d: %v", status, err)
			}
		}
		if mounts.Load() != 3 || sent.Load() != 6 {
			t.Errorf("%d: %d mounts were asked for, and %d blobs sent", status, mounts.Load(), sent.Load())
		}
	}
}

// A token for pushing also reads where blobs are mounted from; who may not read there sends them.
func TestMountWithTokens(t *testing.T) {
	ctx := context.Background()
	for _, denied := range []bool{false, true} {
		f := newFaulty(t)
		var mu sync.Mutex
		var asked [][]string
		var mounts int
		f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			mu.Lock()
			defer mu.Unlock()
			scopes := r.URL.Query()["scope"]
			switch {
			case r.URL.Path == "/token" && denied && len(scopes) > 1:
				w.WriteHeader(http.StatusForbidden)
			case r.URL.Path == "/token":
				asked = append(asked, scopes)
				_, _ = fmt.Fprintf(w, `{"token":"%d"}`, len(asked))
			case !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "):
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+f.host+`/token",service="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			case r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/two/blobs/"):
				w.WriteHeader(http.StatusNotFound)
			default:
				if r.URL.Query().Get("mount") != "" {
					mounts++
				}
				next.ServeHTTP(w, r)
			}
		})
		reg := must(Open(f.host+"/kmi", (&naps{}).options()))
		img := makeImage(t, catalog.X86_64, "a", 1000, "yes")
		for _, n := range []string{"one", "two"} {
			if err := must(reg.Repository(n)).Push(ctx, img.Image, nil); err != nil {
				t.Errorf("%v: %v", denied, err)
			}
		}
		want := [][]string{{"repository:kmi/one:push,pull"}, {"repository:kmi/two:push,pull", "repository:kmi/one:pull"}}
		if denied {
			want[1] = want[1][:1]
		}
		if len(asked) != 2 || !slices.Equal(asked[0], want[0]) || !slices.Equal(asked[1], want[1]) || mounts != 3 {
			t.Errorf("%v: scopes %q, want %q; %d mounts", denied, asked, want, mounts)
		}
	}
}

// A token that expires anywhere in an upload is renewed, and nothing is tried again for it.
func TestTokensThatExpire(t *testing.T) {
	ctx := context.Background()
	for what, expires := range map[string]func(r *http.Request) bool{
		"before it begins":     method(http.MethodPost, "/uploads/"),
		"before it is sent":    method(http.MethodPatch, "/uploads/"),
		"while it is sent":     method(http.MethodPut, "/uploads/"),
		"before the manifests": method(http.MethodPut, "/manifests/"),
		"every time": func(r *http.Request) bool {
			return r.Method != http.MethodGet && r.Method != http.MethodHead && strings.Contains(r.URL.Path, "/v2/kmi/")
		},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFaulty(t)
			var mu sync.Mutex
			issued, expired := 0, map[string]bool{} // by method and path
			f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				mu.Lock()
				defer mu.Unlock()
				if r.URL.Path == "/token" {
					issued++
					_, _ = fmt.Fprintf(w, `{"token":"%d"}`, issued)
					return
				}
				old := !expired[r.Method+r.URL.Path] && expires(r)
				if old {
					expired[r.Method+r.URL.Path] = true
				}
				if old || r.Header.Get("Authorization") == "" {
					_, _ = io.CopyN(io.Discard, r.Body, 1000)
					w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+f.host+`/token",service="x"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				next.ServeHTTP(w, r)
			})
			n := &naps{}
			r := open(t, f.host+"/kmi", n.options())
			img := makeImage(t, catalog.X86_64, "a", 200_000, "yes")
			var done, total int64
			if err := r.Push(ctx, img.Image, func(d, t int64) { done, total = d, t }); err != nil {
				t.Fatal(err)
			}
			if len(expired) == 0 || issued < 2 || len(n.asked) > 0 || done != total {
				t.Errorf("%d expired, %d tokens, tries %q, %d of %d bytes", len(expired), issued, n.lines, done, total)
			}
			m := must(r.Get(ctx, digest(t, img).String()))
			if err := contents(ctx, r, m, img.sum, 200_000, nil, "bytes"); err != nil {
				t.Error(err)
			}
		})
	}
}

// A disk that changes while it is sent is told as that, and not as the registry's fault.
func TestDiskThatChangesWhileItIsSent(t *testing.T) {
	f := newFaulty(t)
	path, _ := qcow2(t, "a", 64<<20)
	img, err := container.Build(container.Spec{Arch: catalog.X86_64, DiskPath: path})
	if err != nil {
		t.Fatal(err)
	}
	f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPatch && r.ContentLength > 1<<20 {
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			if err := os.Truncate(path, 2<<20); err != nil {
				t.Error(err)
			}
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
	n := &naps{}
	err = open(t, f.host+"/kmi", n.options()).Push(context.Background(), img, nil)
	tells(t, err, path+" changed while it was read", "run again")
	if len(n.asked) > 0 {
		t.Errorf("it was tried again: %q", n.lines)
	}
}

// Uploads go where the registry says, with its query, and credentials to the registry only.
func TestLocations(t *testing.T) {
	ctx := context.Background()
	img := makeImage(t, catalog.X86_64, "a", 100_000, "yes")
	keychain := authn.NewMultiKeychain(account{"maintainer", "secret"})
	authorization := "Basic " + base64.StdEncoding.EncodeToString([]byte("maintainer:secret"))
	for what, change := range map[string]func(own, other, path string) string{
		"relative": func(_, _, path string) string { return path + "?state=a%2Bb&x=1" },
		"from it": func(_, _, path string) string {
			return "../../.." + path[strings.Index(path, "/blobs/"):] + "?state=a%2Bb&x=1"
		},
		"absolute": func(own, _, path string) string { return own + path + "?state=a%2Bb&x=1" },
		"elsewhere": func(_, other, path string) string {
			return strings.Replace(other, "127.0.0.1", "localhost", 1) + path + "?state=a%2Bb&x=1"
		},
		"another port": func(_, other, path string) string { return other + path + "?state=a%2Bb&x=1" },
		"password":     func(own, _, path string) string { return strings.Replace(own, "://", "://a:b@", 1) + path },
		"no web":       func(_, _, path string) string { return "ftp://127.0.0.1" + path },
		"no address":   func(string, string, string) string { return "http://[::1" },
		"nothing":      func(string, string, string) string { return "" },
	} {
		t.Run(what, func(t *testing.T) {
			var elsewhere []string
			f := newFaulty(t)
			relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				elsewhere = append(elsewhere, r.Method+" "+r.Header.Get("Authorization"))
				f.Config.Handler.ServeHTTP(w, r)
			}))
			defer relay.Close()
			f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				own := r.Host == f.host
				if own && r.Header.Get("Authorization") != authorization {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				if strings.Contains(r.URL.Path, "/uploads/") && r.Method != http.MethodPost && r.URL.Query().Get("state") != "a+b" {
					t.Errorf("%s with %q", r.Method, r.URL.RawQuery)
				}
				rec := &recorder{head: http.Header{}, status: 200}
				next.ServeHTTP(rec, r)
				maps.Copy(w.Header(), rec.head)
				if u, err := url.Parse(rec.head.Get("Location")); err == nil && strings.Contains(u.Path, "/uploads/") {
					w.Header().Set("Location", change("http://"+f.host, relay.URL, u.Path))
				}
				w.WriteHeader(rec.status)
				_, _ = w.Write(rec.body.Bytes())
			})
			o := (&naps{}).options()
			o.Keychain = keychain
			err := open(t, f.host+"/kmi", o).Push(ctx, img.Image, nil)
			switch what {
			case "relative", "from it", "absolute", "another port":
				if err != nil {
					t.Error(err)
				}
			default:
				tells(t, err, map[string]string{"password": "a password in it", "no web": "no web address", "no address": "no address", "nothing": "does not say where", "elsewhere": "an address of this network"}[what], "run again")
			}
			if (what == "another port") != (len(elsewhere) > 0) {
				t.Errorf("elsewhere: %q", elsewhere)
			}
			for _, line := range elsewhere {
				if _, auth, _ := strings.Cut(line, " "); auth != "" {
					t.Errorf("credentials were sent to another server: %q", line)
				}
			}
		})
	}
	own := must(url.Parse("https://registry.example.org/v2/"))
	for where, good := range map[string]bool{
		"https://registry.example.org/x": true, "http://registry.example.org/x": true, // the library goes over https there
		"https://storage.example.com/x": true, "https://8.8.8.8/x": true, "http://storage.example.com/x": false, "http://registry.example.org:8080/x": false,
		"https://10.0.0.1/x": false, "https://[fe80::1]/x": false, "https://169.254.169.254/x": false, "https://127.0.0.1/x": false, "https://localhost/x": false, "https://0.0.0.0/": false,
		"https://user@registry.example.org/x": false, "file:///etc/passwd": false, "https:///x": false,
	} {
		s := &sender{r: open(t, "registry.example.org/kmi", Options{}).(*served)}
		if err := s.admit(must(url.Parse(where)), own); (err == nil) != good {
			t.Errorf("%s: %v", where, err)
		}
	}
}

// account is a keychain of one account.
type account struct{ user, password string }

func (s account) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{Username: s.user, Password: s.password}), nil
}

// What a registry says of an upload that broke is not believed before it can be true.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"0-0", "0-99", "bytes=0-5", "0-", "-1", "1-2", "0-18446744073709551615", "0-999999999999999999", "0-0x10", " 0-1", "0-1\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m := rangeForm.FindStringSubmatch(text)
		if m == nil {
			return
		}
		if strings.Trim(m[1], "0123456789") != "" || len(m[1]) > 18 || len(m[1]) == 0 || !strings.HasSuffix(text, "0-"+m[1]) {
			t.Errorf("%q is taken as %q", text, m[1])
		}
	})
}

// Disks in compressed layers are published, read back and verified like the others.
func TestCompressedLayers(t *testing.T) {
	ctx := context.Background()
	for _, form := range container.Forms {
		for _, ref := range []string{"dir:" + t.TempDir(), newFaulty(t).host + "/kmi"} {
			path, sum := qcow2(t, "a", 3<<20)
			meta := container.Metadata{Title: "Example 1", Flavor: "example", Release: "1", Tested: "yes"}
			img, err := container.Build(container.Spec{Arch: catalog.X86_64, DiskPath: path, DiskSHA256: sum, Layer: form, Work: t.TempDir(), Metadata: meta, Created: time.Unix(1_790_000_000, 0)})
			if err != nil {
				t.Fatal(err)
			}
			publishAll(t, open(t, ref, Options{}), "1-1", made{img, catalog.X86_64, sum})
			rep, err := Verify(ctx, ref+"/example:1", &signers()[0].Key, Options{}, nil)
			if err != nil || !rep.OK() {
				t.Errorf("%s in %s: %+v, %v", form, ref, rep, err)
			}
		}
	}
	// A layer that unpacks to more than it may.
	var b bytes.Buffer
	b.Write(must(io.ReadAll(tarWith(t, "disk/a"))))
	for form, z := range map[string][]byte{"gzip": gzipped(b.Bytes()), "zstd": zstded(t, b.Bytes())} {
		if _, err := files(bytes.NewReader(z), 600); err == nil || !strings.Contains(err.Error(), "unpacks to more than 600 bytes") {
			t.Errorf("%s: %v", form, err)
		}
		if found, err := files(bytes.NewReader(z), 4096); err != nil || len(found) != 1 {
			t.Errorf("%s: %v, %v", form, found, err)
		}
	}
}
