package publish

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"golang.org/x/crypto/bcrypt"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
)

func TestOpen(t *testing.T) {
	for _, ref := range []string{"quay.io/project", "127.0.0.1:5000/kmi", "localhost:5000", "localhost/kmi", "[::1]:5000/kmi", "registry.example.org:443/a/b/", "dir:images", "dir:/a b"} {
		reg, err := Open(ref, Options{})
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		r, err := reg.Repository("a-b")
		if err != nil || r.String() != strings.TrimRight(ref, "/")+"/a-b" {
			t.Errorf("%s: %v, %v", ref, r, err)
		}
		for _, bad := range []string{"", "../x", "A", "a/../b", "/a", "a//b", "a b", ".locks", "a:1"} {
			if _, err := reg.Repository(bad); err == nil {
				t.Errorf("%s: the repository %q is taken", ref, bad)
			}
		}
	}
	for _, ref := range []string{"", "dir:", "project/images", "images", "https://quay.io/project", "quay.io/Project", "quay.io/a@sha256:00", "quay.io/a b", "a..b:x/c"} {
		if _, err := Open(ref, Options{}); err == nil {
			t.Errorf("%q is taken", ref)
		} else {
			tells(t, err, "", "--registry")
		}
	}
}

// The same things hold for a registry and for a folder.
func TestRepository(t *testing.T) {
	for _, kind := range []string{"registry", "registry with referrers", "folder"} {
		t.Run(kind, func(t *testing.T) {
			ctx := context.Background()
			ref := "dir:" + filepath.Join(t.TempDir(), "images")
			switch kind {
			case "registry":
				ref = newFaulty(t).host + "/kmi"
			case "registry with referrers":
				ref = newFaulty(t, registry.WithReferrersSupport(true)).host + "/kmi"
			}
			r := open(t, ref, Options{})
			if tags, err := r.Tags(ctx); err != nil || len(tags) > 0 {
				t.Errorf("%v, %v", tags, err)
			}
			if s, err := Current(ctx, r, "1", catalog.ARM64); s != nil || err != nil || s.Labels() != nil || s.ContentKey() != "" || !s.Created().IsZero() {
				t.Errorf("%v, %v", s, err)
			}
			amd, arm := makeImage(t, catalog.X86_64, "a", 300_000, "yes"), makeImage(t, catalog.ARM64, "b", 10_000, "yes")
			index, err := container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: amd, catalog.ARM64: arm}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			var last, most int64
			if err := r.Push(ctx, index, func(done, total int64) {
				if done < last || done > total {
					t.Errorf("%d of %d after %d", done, total, last)
				}
				last, most = done, total
			}); err != nil {
				t.Fatal(err)
			}
			if last != most || most < 310_000 {
				t.Errorf("%d of %d at the end", last, most)
			}
			if tags, err := r.Tags(ctx); err != nil || len(tags) > 0 {
				t.Errorf("pushing made tags: %v, %v", tags, err)
			}
			d := digest(t, index)
			if err := r.Tag(ctx, d, "1", "1-20261123", "latest"); err != nil {
				t.Fatal(err)
			}
			if tags, err := r.Tags(ctx); err != nil || !slices.Equal(tags, []string{"1", "1-20261123", "latest"}) {
				t.Errorf("%v, %v", tags, err)
			}
			for _, ref := range []string{"1", "latest", d.String()} {
				h, err := r.Head(ctx, ref)
				if err != nil || h.Digest != d || h.MediaType != types.OCIImageIndex {
					t.Errorf("%+v, %v", h, err)
				}
				m, err := r.Get(ctx, ref)
				if err != nil || m.Digest != d || m.Size != int64(len(m.Raw)) {
					t.Errorf("%+v, %v", m, err)
				}
			}
			back, err := r.Index(ctx, "1")
			if err != nil || digest(t, back) != d {
				t.Fatal(err)
			}
			img, err := back.Image(digest(t, arm))
			if err != nil || digest(t, img) != digest(t, arm) {
				t.Fatal(err)
			}
			layers, err := img.Layers()
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range layers {
				rc, err := l.Compressed()
				if err != nil {
					t.Fatal(err)
				}
				h, _, err := v1.SHA256(rc)
				if want, _ := l.Digest(); err != nil || h != want {
					t.Errorf("%s, want %s; %v", h, want, err)
				}
				_ = rc.Close()
			}
			if cfg, err := img.ConfigFile(); err != nil || cfg.Architecture != "arm64" {
				t.Errorf("%+v, %v", cfg, err)
			}
			for _, bad := range []func() error{
				func() error { _, err := r.Head(ctx, "2"); return err },
				func() error { _, err := r.Get(ctx, "sha256:"+strings.Repeat("0", 64)); return err },
				func() error { _, err := r.Image(ctx, "2"); return err },
				func() error {
					_, err := r.Blob(ctx, v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)})
					return err
				},
				func() error { return r.Tag(ctx, v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}, "3") },
			} {
				if err := bad(); !errors.Is(err, ErrNotFound) {
					t.Errorf("%v", err)
				}
			}
			if _, err := r.Image(ctx, "1"); err == nil || !strings.Contains(err.Error(), "not an image") {
				t.Errorf("%v", err)
			}
			if _, err := r.Index(ctx, digest(t, arm).String()); err == nil || !strings.Contains(err.Error(), "not an index") {
				t.Errorf("%v", err)
			}
			if err := r.Tag(ctx, d, "good", "no tag"); err == nil || slices.Contains(at(t, r, "good"), d.String()) {
				t.Errorf("%v", err)
			}
			if err := r.Push(ctx, "text", nil); err == nil {
				t.Error("a text was pushed")
			}
			// An index is not stored without the images that it lists.
			stranger, err := container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: amd}, []v1.Descriptor{{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"},
				Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}, MediaType: types.OCIManifestSchema1, Size: 5}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Push(ctx, stranger, nil); !errors.Is(err, ErrNotFound) {
				t.Errorf("%v", err)
			}
			// What is there is not read again.
			poisoned := makeImage(t, catalog.X86_64, "a", 300_000, "yes")
			if err := os.Remove(diskOf(t, poisoned)); err == nil {
				if err := r.Push(ctx, poisoned.Image, nil); err != nil {
					t.Errorf("pushed again: %v", err)
				}
			}

			s, err := Current(ctx, r, "1", catalog.ARM64)
			if err != nil || s.Index.Digest != d || s.Entry.Digest != digest(t, arm) || s.ContentKey() != "sha256:b" || s.Created().Unix() != 1_790_000_000 || len(s.Entries) != 2 {
				t.Fatalf("%+v, %v", s, err)
			}
			if want := map[string][]string{"registry": {"1"}, "registry with referrers": {"1"}, "folder": {"1", "1-20261123", "latest"}}[kind]; !slices.Equal(s.Tags, want) {
				t.Errorf("%v", s.Tags)
			}
			if err := r.Tag(ctx, digest(t, arm), "1-20261124", "1-x"); err != nil {
				t.Fatal(err)
			}
			if dated, built, err := Fixed(ctx, r, "1", "", d); err != nil || !slices.Equal(dated, []string{"1-20261123"}) || built != nil {
				t.Errorf("%v, %v", dated, err)
			}
			// Somebody else's image.
			if s, err := Current(ctx, r, "1-x", catalog.ARM64); err != nil || s.Entry != nil || s.Labels() != nil || s.Index.Digest != digest(t, arm) {
				t.Errorf("%+v, %v", s, err)
			}
			other, err := random.Image(10, 1)
			if err != nil {
				t.Fatal(err)
			}
			plain := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
			if err := errors.Join(r.Push(ctx, plain, nil), r.Tag(ctx, digest(t, plain), "2")); err != nil {
				t.Fatal(err)
			}
			if s, err := Current(ctx, r, "2", catalog.X86_64); err != nil || s.Entry == nil || s.Labels() == nil || s.ContentKey() != "" || !s.Created().IsZero() {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

// diskOf finds the file that an image's disk layer reads, through its error.
func diskOf(t testing.TB, m made) string {
	t.Helper()
	paths, _ := filepath.Glob(filepath.Join(filepath.Dir(t.TempDir()), "*", "disk"))
	return paths[len(paths)-1]
}

func TestCurrentIsCheap(t *testing.T) {
	f := newFaulty(t)
	r := open(t, f.host+"/kmi", Options{})
	publishAll(t, r, "", makeImage(t, catalog.X86_64, "a", 1000, "yes"))
	reg := must(Open(f.host+"/kmi", Options{}))
	f.requests()
	// Who we are is asked once, however many targets look.
	for i, want := range [][]string{{"GET /v2/", "GET /v2/kmi/example/manifests/1"}, {"GET /v2/kmi/example/manifests/1"}} {
		if s, err := Current(context.Background(), must(reg.Repository("example")), "1", catalog.Arches[i]); err != nil || s == nil {
			t.Fatal(err)
		}
		if seen := f.requests(); !slices.Equal(seen, want) {
			t.Errorf("%v", seen)
		}
	}
}

func TestPublishAndVerify(t *testing.T) {
	for _, kind := range []string{"registry", "registry with referrers", "folder", "docker-registry"} {
		t.Run(kind, func(t *testing.T) {
			ctx := context.Background()
			var ref string
			switch kind {
			case "registry with referrers":
				ref = newFaulty(t, registry.WithReferrersSupport(true)).host + "/kmi"
			case "registry":
				ref = newFaulty(t).host + "/kmi"
			case "folder":
				ref = "dir:" + filepath.Join(t.TempDir(), "images")
			default:
				if testing.Short() {
					t.Skip("starts docker-registry")
				}
				ref = realRegistry(t, t.TempDir(), "") + "/kmi"
			}
			r := open(t, ref, Options{})
			s := signers()[0]
			first := makeImage(t, catalog.X86_64, "a", 3<<20, "yes")
			rel, err := prepare(ctx, r, s, first)
			if err != nil {
				t.Fatal(err)
			}
			rel.Fixed, rel.Tested = []string{"1-20261123"}, true
			bus := event.NewBus(nil)
			sub := bus.Subscribe()
			tags, err := Publish(ctx, r, rel, bus.Scope("example:1/x86_64", "publish", ""))
			if err != nil || !slices.Equal(tags, []string{"1", "latest", "1-20261123"}) {
				t.Fatalf("%v, %v", tags, err)
			}
			bus.Close()
			units := map[string]bool{}
			for events, more := sub.Poll(); len(events) > 0 || more; events, more = sub.Poll() {
				for _, e := range events {
					units[e.Unit] = true
				}
			}
			if !units["bytes read back"] {
				t.Errorf("progress in %v", units)
			}
			// Again: nothing is written, and the same tags are found.
			again, err := prepare(ctx, r, s, first)
			if err != nil {
				t.Fatal(err)
			}
			again.Fixed = []string{"1-20261123"}
			if tags, err := Publish(ctx, r, again, nil); err != nil || !slices.Equal(tags, []string{"1", "latest", "1-20261123"}) {
				t.Errorf("%v, %v", tags, err)
			}
			if sigs, err := Signatures(ctx, r, digest(t, rel.Index)); err != nil || count(t, sigs) != 1 {
				t.Errorf("%v", err)
			}
			// The other architecture joins, and the fixed tag stays where it is.
			second := makeImage(t, catalog.ARM64, "b", 100_000, "yes")
			rel2, err := prepare(ctx, r, s, second)
			if err != nil {
				t.Fatal(err)
			}
			rel2.Fixed = []string{"1-20261123"}
			if tags, err := Publish(ctx, r, rel2, nil); err != nil || !slices.Equal(tags, []string{"1", "latest", "1-20261123.1"}) {
				t.Fatalf("%v, %v", tags, err)
			}
			one, two := digest(t, rel.Index).String(), digest(t, rel2.Index).String()
			if found := at(t, r, "1", "latest", "1-20261123", "1-20261123.1"); !slices.Equal(found, []string{two, two, one, two}) {
				t.Errorf("%v", found)
			}
			both, err := container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: first, catalog.ARM64: second}, nil, nil)
			if err != nil || digest(t, both).String() != two {
				t.Error("one after the other makes another index than both at once")
			}

			// As a user.
			for _, image := range []string{ref + "/example:1", ref + "/example", ref + "/example@" + two, ref + "/example:1@" + two} {
				rep, err := Verify(ctx, image, &s.Key, Options{}, nil)
				if err != nil || !rep.OK() || rep.Digest != two || rep.Pinned != r.String()+"@"+two || rep.Key != s.ID || !slices.Equal(rep.Identities, []string{public + ":1"}) {
					t.Fatalf("%s: %+v, %v", image, rep, err)
				}
				if want := 6 - strings.Count(image, "@"); len(rep.Checks) != want || rep.Platforms["linux/arm64"] != digest(t, second).String() || rep.LabelsOf["linux/arm64"][container.LabelContentKey] != "sha256:b" || rep.Labels[container.LabelContentKey] != "sha256:a" {
					t.Errorf("%+v", rep)
				}
			}
			if rep, err := Verify(ctx, ref+"/example@"+digest(t, second).String(), &s.Key, Options{}, nil); err != nil || !rep.OK() || len(rep.Checks) != 2 {
				t.Errorf("one image: %+v, %v", rep, err)
			}
			rep, err := Verify(ctx, ref+"/example:1", &signers()[1].Key, Options{}, nil)
			if err != nil || rep.OK() || !contains(failed(rep.Checks), "not signed by this key") || rep.Labels != nil || len(rep.LabelsOf) > 0 {
				t.Errorf("with another key: %+v, %v", rep, err)
			}
			_, err = Verify(ctx, ref+"/example:none", &s.Key, Options{}, nil)
			tells(t, err, "not found", "check the name")

			// With cosign's own library, which is what `cosign verify --key` calls.
			public, err := cryptoutils.UnmarshalPEMToPublicKey(s.PEM)
			if err != nil {
				t.Fatal(err)
			}
			verifier, err := signature.LoadDefaultVerifier(public)
			if err != nil {
				t.Fatal(err)
			}
			check := &cosign.CheckOpts{SigVerifier: verifier, ClaimVerifier: cosign.SimpleClaimVerifier, IgnoreTlog: true, IgnoreSCT: true, Offline: true}
			for _, d := range []v1.Hash{digest(t, rel2.Index), digest(t, first), digest(t, second)} {
				if kind == "folder" {
					savedForCosign(t, filepath.Join(strings.TrimPrefix(ref, "dir:"), "example"), d, func(dir string) {
						if _, _, err := cosign.VerifyLocalImageSignatures(ctx, dir, check); err != nil {
							t.Errorf("cosign: %v", err)
						}
					})
					continue
				}
				named, err := name.NewDigest(r.Reference(d))
				if err != nil {
					t.Fatal(err)
				}
				if sigs, _, err := cosign.VerifyImageSignatures(ctx, named, check); err != nil || len(sigs) != 1 {
					t.Errorf("cosign: %v", err)
				}
			}
		})
	}
}

// savedForCosign shows one image of a layout as `cosign save` would write it: cosign reads folders in that form only.
func savedForCosign(t *testing.T, dir string, d v1.Hash, use func(dir string)) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var out []v1.Descriptor
	raw, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", d.Hex))
	if err != nil {
		t.Fatal(err)
	}
	found, err := newManifest(raw, "", d)
	if err != nil {
		t.Fatal(err)
	}
	kind := "dev.cosignproject.cosign/image"
	if found.Descriptor.MediaType.IsIndex() {
		kind = "dev.cosignproject.cosign/imageIndex"
	}
	out = append(out, v1.Descriptor{MediaType: found.Descriptor.MediaType, Digest: d, Size: found.Size, Annotations: map[string]string{"kind": kind}})
	for _, e := range m.Manifests {
		if e.Annotations[refName] == trust.Tag(d) {
			e.Annotations = map[string]string{"kind": "dev.cosignproject.cosign/sigs"}
			out = append(out, e)
		}
	}
	view := t.TempDir()
	m.Manifests = out
	data, _ := json.Marshal(m)
	if err := errors.Join(os.Symlink(filepath.Join(dir, "blobs"), filepath.Join(view, "blobs")), os.WriteFile(filepath.Join(view, "index.json"), data, 0o644),
		os.WriteFile(filepath.Join(view, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)); err != nil {
		t.Fatal(err)
	}
	use(view)
}

func count(t testing.TB, img v1.Image) int {
	t.Helper()
	if img == nil {
		return 0
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return len(m.Layers)
}

// answer gives a status to requests that match.
func answer(status int, body string, match func(r *http.Request) bool) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !match(r) {
			next.ServeHTTP(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// times lets a fault happen to the first n requests that match.
func times(n int32, match func(r *http.Request) bool) func(r *http.Request) bool {
	var left atomic.Int32
	left.Store(n)
	return func(r *http.Request) bool { return match(r) && left.Add(-1) >= 0 }
}

func method(m, part string) func(r *http.Request) bool {
	return func(r *http.Request) bool { return r.Method == m && strings.Contains(r.URL.Path, part) }
}

// cut breaks the connection after some bytes of the request's body, or of the answer's.
func cut(after int, match func(r *http.Request) bool) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !match(r) {
			next.ServeHTTP(w, r)
			return
		}
		if r.Method != http.MethodGet {
			_, _ = io.CopyN(io.Discard, r.Body, int64(after))
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(&cutter{ResponseWriter: w, left: after}, r)
	}
}

type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left <= 0 {
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return c.ResponseWriter.Write(p)
}

// rewrite changes the answer's body.
func rewrite(match func(r *http.Request) bool, change func([]byte) []byte) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !match(r) {
			next.ServeHTTP(w, r)
			return
		}
		rec := &recorder{head: http.Header{}, status: 200}
		next.ServeHTTP(rec, r)
		body := change(rec.body.Bytes())
		for k, v := range rec.head {
			w.Header()[k] = v
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.WriteHeader(rec.status)
		_, _ = w.Write(body)
	}
}

type recorder struct {
	head   http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.head }
func (r *recorder) WriteHeader(s int)           { r.status = s }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// Whatever a registry does wrong: the tags point all at the old index or all at the new one, the error says what is wrong
// and what to do, and the next run brings it to its end.
func TestFaults(t *testing.T) {
	old := makeImage(t, catalog.X86_64, "old", 1000, "yes")
	// The new image's disk is large enough that a connection can break in the middle.
	next := makeImage(t, catalog.X86_64, "new", 2<<20, "yes")
	manifest, err := next.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	disk := manifest.Layers[len(manifest.Layers)-1].Digest.String()
	image := digest(t, next).String()
	index, err := container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: next}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	list := digest(t, index).String()
	sig := "/manifests/" + trust.Tag(digest(t, index))
	upload := method(http.MethodPatch, "/uploads/")
	start := method(http.MethodPost, "/uploads/")
	commit := method(http.MethodPut, "/uploads/")
	known := method(http.MethodHead, "/blobs/"+disk)
	moving := func(r *http.Request) bool {
		return r.Method == http.MethodPut && (strings.HasSuffix(r.URL.Path, "/manifests/1") || strings.HasSuffix(r.URL.Path, "/manifests/latest"))
	}
	flip := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b }

	const ok = ""
	for what, c := range map[string]struct {
		fault        fault
		says, remedy string
		is           error
	}{
		"429 for a while":         {answer(429, "", times(3, start)), ok, "", nil},
		"500 for a while":         {answer(500, "", times(2, upload)), ok, "", nil},
		"503 on a manifest once":  {answer(503, "", times(1, method(http.MethodPut, "/manifests/"))), ok, "", nil},
		"upload broken once":      {cut(1<<20, times(1, upload)), ok, "", nil},
		"upload forgotten once":   {answer(404, `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}`, times(1, upload)), ok, "", nil},
		"upload goes on once":     {keeping("", upload, 1<<20), ok, "", nil},
		"upload goes on thrice":   {keeping("", upload, 1<<20, 500_000, 10), ok, "", nil},
		"too much is kept":        {keeping("0-99999999", upload, 1<<20), ok, "", nil},
		"more than was sent":      {keeping("0-2097200", upload, 1<<20), ok, "", nil},
		"other bytes are kept":    {keeping("5-1048575", upload, 1<<20), ok, "", nil},
		"less than nothing":       {keeping("0--1", upload, 1<<20), ok, "", nil},
		"no number is kept":       {keeping("0-99999999999999999999", upload, 1<<20), ok, "", nil},
		"less is kept than said":  {keeping("0-1048600", upload, 1<<20), ok, "", nil},
		"it forgets how much":     {keeping("0-1000", upload, 1<<20), ok, "", nil},
		"status broken once":      {both(cut(0, times(1, method(http.MethodGet, "/uploads/"))), keeping("", upload, 1<<20)), ok, "", nil},
		"status 503 twice":        {both(answer(503, "", times(2, method(http.MethodGet, "/uploads/"))), keeping("", upload, 1<<20)), ok, "", nil},
		"commit 500 once":         {answer(500, "", times(1, commit)), ok, "", nil},
		"commit answer lost once": {lostAnswer(times(1, commit)), ok, "", nil},
		"another blob at commit":  {headed("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64), commit), "something else than what was asked for", "damaged", ErrContent},
		"another blob is known":   {both(headed("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64), known), answer(200, "", known)), "something else than what was asked for", "damaged", ErrContent},
		"commit refused":          {answer(400, `{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}`, commit), "refuses (400 Bad Request, DIGEST_INVALID: no)", "rule", nil},
		"commit full":             {answer(507, "", commit), "has no room for this (507", "free space", nil},
		"no place to go on":       {headed("Location", "", upload), "does not say where the upload goes on", "run again", nil},
		"read back broken once":   {cut(1<<20, times(1, method(http.MethodGet, "/blobs/"+disk))), ok, "", nil},
		"tag answer lost once":    {cut(0, times(1, moving)), ok, "", nil},
		"429 forever":             {answer(429, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`, start), "wants fewer requests (429 Too Many Requests, TOOMANYREQUESTS: slow down)", "wait and run again", nil},
		"500 forever":             {answer(500, "", upload), "failed (500 Internal Server Error)", "run again", nil},
		"502 at the index":        {answer(502, "", method(http.MethodPut, "/manifests/"+list)), "failed (502 Bad Gateway)", "run again", nil},
		"upload always broken":    {cut(1<<20, upload), "cannot reach", "run again: what is done stays done", nil},
		"401":                     {answer(401, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you\u001b[31m"}]}`, start), "does not let us in (401 Unauthorized, UNAUTHORIZED: who are you)", "docker login ", nil},
		"403":                     {answer(403, `{"errors":[{"code":"DENIED","message":"requested access is denied"}]}`, start), "does not let us in (403 Forbidden, DENIED", "podman login", nil},
		"quota":                   {answer(403, `{"errors":[{"code":"DENIED","message":"Quota has been exceeded"}]}`, start), "has no room", "quota", nil},
		"read-only":               {answer(405, `{"errors":[{"code":"UNSUPPORTED"}]}`, start), "cannot be written to", "read-only", nil},
		"full":                    {answer(507, "", upload), "has no room for this (507 Insufficient Storage)", "free space", nil},
		"too large":               {answer(413, "", upload), "has no room", "free space", nil},
		"no space left":           {answer(500, `{"errors":[{"code":"UNKNOWN","message":"write: no space left on device"}]}`, upload), "has no room", "free space", nil},
		"no such repository":      {answer(404, `{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}`, start), "does not exist", "make it", nil},
		"manifest refused":        {answer(400, `{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}`, method(http.MethodPut, "/manifests/"+image)), "refuses (400 Bad Request, MANIFEST_INVALID: no)", "rule", nil},
		"signature refused":       {answer(400, "", method(http.MethodPut, sig)), "tag sha256-", "rule", nil},
		"blob that is not kept":   {answer(200, "", method(http.MethodHead, "/blobs/"+disk)), "reading back: linux/amd64: blob " + disk, "", ErrNotFound},
		"blob that is gone":       {answer(404, "", method(http.MethodGet, "/blobs/"+disk)), "reading back: linux/amd64: blob " + disk, "", ErrNotFound},
		"other blob":              {rewrite(method(http.MethodGet, "/blobs/"+disk), flip), "something else than what was asked for", "damaged", ErrContent},
		"shorter blob":            {rewrite(method(http.MethodGet, "/blobs/"+disk), func(b []byte) []byte { return b[:len(b)-512] }), "something else", "damaged", ErrContent},
		"other manifest":          {rewrite(method(http.MethodGet, "/manifests/"+image), func(b []byte) []byte { return append(b, ' ') }), "something else", "damaged", ErrContent},
		"other index":             {rewrite(method(http.MethodGet, "/manifests/"+list), func(b []byte) []byte { return append(b, ' ') }), "something else", "damaged", ErrContent},
		"signature lost":          {answer(404, "", method(http.MethodGet, sig)), "reading back: signature of " + list + ": it is not signed", "", trust.ErrUnsigned},
		"read back always broken": {cut(1<<20, method(http.MethodGet, "/blobs/"+disk)), "cannot reach", "run again", nil},
		"first tag refused":       {answer(403, "", method(http.MethodPut, "/manifests/1")), "tag 1: ", "run again", nil},
		"second tag refused":      {answer(403, "", method(http.MethodPut, "/manifests/latest")), "tag latest: ", "run again", nil},
		"second tag broken":       {cut(0, method(http.MethodPut, "/manifests/latest")), "all tags point where they pointed before", "run again", nil},
		"fixed tag refused":       {answer(403, "", method(http.MethodPut, "/manifests/1-2")), "tag 1-2: ", "run again", nil},
		"second tag answer lost":  {lost(list), "tag latest: ", "run again", nil},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			f := newFaulty(t)
			n := &naps{}
			r := open(t, f.host+"/kmi", n.options())
			before := publishAll(t, r, "1-1", old).String()
			rel, err := prepare(ctx, r, signers()[0], next)
			if err != nil {
				t.Fatal(err)
			}
			rel.Fixed = []string{"1-2"}
			f.set(c.fault)
			_, err = Publish(ctx, r, rel, nil)
			f.set(nil)
			after := list
			if c.says == ok {
				if err != nil {
					t.Fatal(err)
				}
				if len(n.asked) == 0 && !strings.HasPrefix(what, "read back") {
					t.Error("nothing was tried again")
				}
			} else {
				after = before
				if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\x1b") || c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("%v, want %q, %v", err, c.says, c.is)
				}
				if c.remedy != "" {
					tells(t, err, "", c.remedy)
				}
			}
			want := []string{after, after, ""}
			if c.says == ok {
				want[2] = after
			}
			if found := at(t, r, "1", "latest", "1-2"); !slices.Equal(found, want) {
				t.Errorf("tags %v, want %v", found, want)
			}
			if rep, err := Verify(ctx, f.host+"/kmi/example:1", &signers()[0].Key, Options{}, nil); err != nil || !rep.OK() {
				t.Errorf("what is tagged is not whole: %v, %v", rep, err)
			}
			// The next run repairs.
			if _, err := Publish(ctx, r, rel, nil); err != nil {
				t.Fatal(err)
			}
			if found := at(t, r, "1", "latest", "1-2", "1-1"); !slices.Equal(found, []string{list, list, list, before}) {
				t.Errorf("after another run: %v", found)
			}
		})
	}
}

// lost stores a tag and breaks the connection instead of answering, as long as the tag is to point at a digest.
func lost(list string) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/manifests/latest") {
			next.ServeHTTP(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := &recorder{head: http.Header{}}
		next.ServeHTTP(rec, r)
		if h, _, _ := v1.SHA256(bytes.NewReader(body)); h.String() == list {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(rec.status)
	}
}

// A registry that is not there, and one that takes connections and says nothing.
func TestUnreachable(t *testing.T) {
	ctx := context.Background()
	f := newFaulty(t)
	n := &naps{}
	r := open(t, f.host+"/kmi", n.options())
	f.Close()
	_, err := Current(ctx, r, "1", catalog.ARM64)
	tells(t, err, "cannot reach "+f.host+": ", "run again")
	if !slices.Equal(n.asked, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}) || !contains(n.lines, "try 4 of 4 in 4s") {
		t.Errorf("%v, %q", n.asked, n.lines)
	}
	if _, err := Verify(ctx, f.host+"/kmi/example:1", &signers()[0].Key, n.options(), nil); err == nil {
		t.Error("verified")
	}
	quiet := newFaulty(t)
	quiet.set(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		select {
		case <-r.Context().Done():
		case <-time.After(5 * time.Second):
		}
	})
	began := time.Now()
	o := n.options()
	o.Stall, o.Tries = 50*time.Millisecond, 2
	_, err = Current(ctx, open(t, quiet.host+"/kmi", o), "1", catalog.ARM64)
	tells(t, err, "cannot reach "+quiet.host, "run again")
	if time.Since(began) > 4*time.Second {
		t.Errorf("it took %s", time.Since(began))
	}
	ended, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	began = time.Now()
	if _, err := Current(ended, open(t, quiet.host+"/kmi", Options{}), "1", catalog.ARM64); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 2*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

func TestExplain(t *testing.T) {
	get := func(err error) error {
		return &url.Error{Op: "Patch", URL: "https://registry.example.org/v2/?_state=secret", Err: err}
	}
	refused := get(&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED})
	http2https := get(errors.New("http: server gave HTTP response to HTTPS client"))
	plain := get(container.ErrPlain)
	for _, c := range []struct {
		host, says, remedy string
		err                error
		again              bool
	}{
		{"registry.example.org", "cannot reach registry.example.org: dial tcp: connection refused", "check the name", refused, true},
		{"10.0.0.1:5000", "cannot reach 10.0.0.1:5000: dial tcp: connection refused", "check the name", errors.Join(refused, plain), true},
		{"10.0.0.1:5000", "the registry 10.0.0.1:5000 speaks plain http", "--insecure", errors.Join(http2https, plain), false},
		{"registry.example.org", "speaks plain http", "--insecure", http2https, false},
		{"registry.example.org", "speaks plain http", "--insecure", plain, false},
		{"127.0.0.1:5000", "cannot reach 127.0.0.1:5000", "run again", errors.Join(http2https, refused), true},
		{"10.0.0.1:5000", "cannot prove who it is", "SSL_CERT_FILE", errors.Join(get(x509.UnknownAuthorityError{}), plain), false},
		{"registry.example.org", "cannot prove who it is", "SSL_CERT_FILE", get(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}), false},
		{"registry.example.org", "cannot reach registry.example.org: lookup registry.example.org: no such host", "check the name", get(&net.DNSError{Err: "no such host", Name: "registry.example.org", IsNotFound: true}), false},
		{"registry.example.org", "cannot reach registry.example.org", "run again", get(&net.DNSError{Err: "server misbehaving", IsTemporary: true}), true},
		{"registry.example.org", "cannot reach registry.example.org: EOF", "run again", get(io.EOF), true},
		{"registry.example.org", "something odd", "run again", errors.New("something odd"), false},
	} {
		r := open(t, c.host+"/kmi", Options{}).(*served)
		err := r.explain(context.Background(), c.err, true)
		tells(t, err, c.says, c.remedy)
		if strings.Contains(err.Error(), "secret") || passing(c.err, true) != c.again {
			t.Errorf("%v: again %v", err, !c.again)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	f := newFaulty(t)
	n := &naps{}
	r := open(t, f.host+"/kmi", n.options())
	var asked atomic.Int32
	f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/manifests/") && asked.Add(1) <= 2 {
			w.Header().Set("Retry-After", map[int32]string{1: "17", 2: "3600"}[asked.Load()])
			w.WriteHeader(429)
			return
		}
		next.ServeHTTP(w, r)
	})
	if _, err := Current(context.Background(), r, "1", catalog.ARM64); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(n.asked, []time.Duration{17 * time.Second, time.Minute}) {
		t.Errorf("%v", n.asked)
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{"": 0, "0": 0, "5": 5 * time.Second, "-5": 0, "61": time.Minute, "4294967296": 0, "soon": 0,
		"Mon, 23 Nov 2026 12:00:20 GMT": 20 * time.Second, "Mon, 23 Nov 2026 11:00:00 GMT": 0, "Tue, 24 Nov 2026 12:00:00 GMT": time.Minute} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// Cancelled in the middle of an upload: it ends at once, and no tag has moved.
func TestCancel(t *testing.T) {
	f := newFaulty(t)
	r := open(t, f.host+"/kmi", Options{})
	before := publishAll(t, r, "", makeImage(t, catalog.X86_64, "old", 1000, "yes")).String()
	rel, err := prepare(context.Background(), r, signers()[0], makeImage(t, catalog.X86_64, "new", 2<<20, "yes"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPatch {
			_, _ = io.CopyN(io.Discard, r.Body, 100_000)
			cancel(why)
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
	began := time.Now()
	if _, err := Publish(ctx, r, rel, nil); !errors.Is(err, why) || time.Since(began) > 3*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	f.set(nil)
	if found := at(t, r, "1", "latest"); !slices.Equal(found, []string{before, before}) {
		t.Errorf("%v", found)
	}
	// Cancelled while the tags move: they are moved back all the same.
	ctx, cancel = context.WithCancelCause(context.Background())
	f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/latest") && ctx.Err() == nil {
			_, _ = io.Copy(io.Discard, r.Body) // the server looks for the end of the connection only then
			cancel(why)
			<-r.Context().Done()
			return
		}
		next.ServeHTTP(w, r)
	})
	if _, err := Publish(ctx, r, rel, nil); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	if found := at(t, r, "1", "latest"); !slices.Equal(found, []string{before, before}) {
		t.Errorf("%v", found)
	}
}

// Who logs in while the program runs need not start it again, and credentials that expire are looked for anew.
func TestCredentialsThatChange(t *testing.T) {
	ctx := context.Background()
	f := newFaulty(t)
	publishAll(t, open(t, f.host+"/kmi", Options{}), "", makeImage(t, catalog.X86_64, "a", 1000, "yes"))
	var valid atomic.Value
	valid.Store("first")
	f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if _, password, _ := r.BasicAuth(); password != valid.Load() {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
	var kept changing
	kept.Store(authn.Anonymous)
	r := open(t, f.host+"/kmi", Options{Keychain: &kept, Tries: 1})
	_, err := Current(ctx, r, "1", catalog.X86_64)
	tells(t, err, "does not let us in", "login")
	for _, password := range []string{"first", "second"} {
		valid.Store(password)
		kept.Store(authn.FromConfig(authn.AuthConfig{Username: "u", Password: password}))
		if s, err := Current(ctx, r, "1", catalog.X86_64); err != nil || s == nil {
			t.Errorf("%s: %v", password, err)
		}
	}
}

// changing is a keychain whose account changes.
type changing struct {
	mu  sync.Mutex
	now authn.Authenticator
}

func (c *changing) Store(a authn.Authenticator) { c.mu.Lock(); defer c.mu.Unlock(); c.now = a }

func (c *changing) Resolve(authn.Resource) (authn.Authenticator, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now, nil
}

// Who is cancelled while the registry is greeted for all does not take the others along.
func TestCancelledGreeting(t *testing.T) {
	f := newFaulty(t)
	publishAll(t, open(t, f.host+"/kmi", Options{}), "", makeImage(t, catalog.X86_64, "a", 1000, "yes"))
	reg := must(Open(f.host+"/kmi", (&naps{}).options()))
	ctx, cancel := context.WithCancel(context.Background())
	other := make(chan error, 1)
	var once sync.Once
	f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		once.Do(func() {
			go func() {
				_, err := Current(context.Background(), must(reg.Repository("example")), "1", catalog.X86_64)
				other <- err
			}()
			time.AfterFunc(50*time.Millisecond, cancel) // the other one waits by then, or comes later: both have to be good
			<-r.Context().Done()
		})
		next.ServeHTTP(w, r)
	})
	if _, err := Current(ctx, must(reg.Repository("example")), "1", catalog.X86_64); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := <-other; err != nil {
		t.Error(err)
	}
}

// When the tags cannot be moved back either, the error names those that moved.
func TestStuckTags(t *testing.T) {
	f := newFaulty(t)
	n := &naps{}
	r := open(t, f.host+"/kmi", n.options())
	before := publishAll(t, r, "", makeImage(t, catalog.X86_64, "old", 1000, "yes")).String()
	rel, err := prepare(context.Background(), r, signers()[0], makeImage(t, catalog.X86_64, "new", 1000, "yes"))
	if err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/latest") {
			broken.Store(true)
		}
		if broken.Load() && r.Method == http.MethodPut {
			w.WriteHeader(403)
			return
		}
		next.ServeHTTP(w, r)
	})
	_, err = Publish(context.Background(), r, rel, nil)
	f.set(nil)
	var stuck *TagError
	after := digest(t, rel.Index)
	if !errors.As(err, &stuck) || stuck.Tag != "latest" || !slices.Equal(stuck.Moved, []string{"1"}) || stuck.Digest != after {
		t.Fatalf("%v: %+v", err, stuck)
	}
	tells(t, err, "1 pointed at "+after.String()+" already and could not be moved back", "run again")
	if found := at(t, r, "1", "latest"); !slices.Equal(found, []string{after.String(), before}) {
		t.Errorf("%v", found)
	}
	// At the first publication there is nothing to move back to.
	f2 := newFaulty(t)
	r2 := open(t, f2.host+"/kmi", n.options())
	f2.set(answer(403, "", method(http.MethodPut, "/manifests/latest")))
	if _, err := Publish(context.Background(), r2, rel, nil); !errors.As(err, &stuck) || !slices.Equal(stuck.Moved, []string{"1"}) {
		t.Errorf("%v", err)
	}
}

// What is published is refused before anything is sent.
func TestPublishRefuses(t *testing.T) {
	ctx := context.Background()
	f := newFaulty(t)
	s, stranger := signers()[0], signers()[1]
	amd, arm := makeImage(t, catalog.X86_64, "a", 1000, "yes"), makeImage(t, catalog.ARM64, "b", 1000, "no")
	r := open(t, f.host+"/kmi", Options{})
	good, err := prepare(ctx, r, s, amd)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		change func(*Release)
		says   string
	}{
		"no index":     {func(r *Release) { r.Index = nil }, "needs an index"},
		"no key":       {func(r *Release) { r.Key = nil }, "needs an index, a key"},
		"no tag":       {func(r *Release) { r.Moving = nil }, "and a tag"},
		"bad tag":      {func(r *Release) { r.Moving = []string{"a b"} }, "not a tag"},
		"bad fixed":    {func(r *Release) { r.Fixed = []string{"../1"} }, "not a tag"},
		"other image":  {func(r *Release) { r.Disks = map[v1.Hash]string{digest(t, arm.Image): arm.sum} }, "does not hold the image"},
		"other disk":   {func(r *Release) { r.Disks = map[v1.Hash]string{digest(t, amd.Image): arm.sum} }, "sha256:" + arm.sum + " was tested"},
		"unsigned":     {func(r *Release) { r.Signatures = nil }, "not signed"},
		"other signer": {func(r *Release) { r.Key = &stranger.Key }, "not signed by this key"},
		"untested": {func(r *Release) {
			p, err := prepare(ctx, open(t, f.host+"/none", Options{}), s, arm)
			if err != nil {
				t.Fatal(err)
			}
			*r = p
			r.Tested = true
		}, "not tested"},
	} {
		rel := good
		c.change(&rel)
		if _, err := Publish(ctx, r, rel, nil); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
		if found := at(t, r, "1", "latest"); !slices.Equal(found, []string{"", ""}) {
			t.Errorf("%s: %v", what, found)
		}
	}
}

// An index is only ever extended: by images that we signed, and not over what somebody else published meanwhile.
func TestKeptImages(t *testing.T) {
	ctx := context.Background()
	s, stranger := signers()[0], signers()[1]
	amd, arm, arm2 := makeImage(t, catalog.X86_64, "a", 1000, "yes"), makeImage(t, catalog.ARM64, "b", 1000, "no"), makeImage(t, catalog.ARM64, "c", 1000, "yes")
	for _, kind := range []string{"registry", "folder"} {
		repository := func() Repository {
			if kind == "registry" {
				return open(t, newFaulty(t).host+"/kmi", Options{})
			}
			return open(t, "dir:"+t.TempDir(), Options{})
		}
		// Formed before somebody else added an image.
		r := repository()
		early, err := prepare(ctx, r, s, amd)
		if err != nil {
			t.Fatal(err)
		}
		publishAll(t, r, "", arm)
		_, err = Publish(ctx, r, early, nil)
		tells(t, err, "which this release would drop: somebody else published meanwhile", "run again")
		if !errors.Is(err, ErrOvertaken) {
			t.Error("it is no ErrOvertaken")
		}
		late, err := prepare(ctx, r, s, amd)
		if err != nil {
			t.Fatal(err)
		}
		late.Tested = true
		_, err = Publish(ctx, r, late, nil)
		tells(t, err, "linux/arm64", "delete the tag 1")
		if !errors.Is(err, ErrUntested) {
			t.Errorf("an untested image stays: %v", err)
		}
		late.Tested = false
		// Formed before somebody else replaced an image.
		publishAll(t, r, "", arm2)
		if _, err := Publish(ctx, r, late, nil); !errors.Is(err, ErrOvertaken) {
			t.Errorf("%v", err)
		}
		early.Shrink = true
		if _, err := Publish(ctx, r, early, nil); err != nil {
			t.Errorf("%v", err)
		}
		if _, err := Publish(ctx, r, late, nil); !errors.Is(err, ErrOvertaken) {
			t.Errorf("what was taken away comes back: %v", err)
		}

		// Somebody who can write and cannot sign put an image into the index.
		r = repository()
		evil, err := container.Index(map[catalog.Arch]v1.Image{catalog.ARM64: arm}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Push(ctx, evil, nil), r.Tag(ctx, digest(t, evil), "1")); err != nil {
			t.Fatal(err)
		}
		state, err := Current(ctx, r, "1", catalog.X86_64)
		if err != nil {
			t.Fatal(err)
		}
		laundry, err := container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: amd}, state.Entries, nil)
		if err != nil {
			t.Fatal(err)
		}
		rel := Release{Index: laundry, Key: &s.Key, Moving: []string{"1"}}
		_, err = Publish(ctx, r, rel, nil)
		tells(t, err, "the image for linux/arm64 that "+r.String()+":1 has cannot stay in the index: signature of "+digest(t, arm).String()+": it is not signed", "delete the tag")
		kept, why, err := Keep(ctx, r, &s.Key, state.Entries, false)
		if err != nil || len(kept) > 0 || !errors.Is(why["linux/arm64"], trust.ErrUnsigned) {
			t.Errorf("%v, %v, %v", kept, why, err)
		}
		// Left out, it does not stand in the way.
		publishAll(t, r, "", amd)
		// The same with another key's signature, which is what a new key finds.
		theirs, err := prepare(ctx, r, stranger, amd)
		if err != nil || len(must(theirs.Index.IndexManifest()).Manifests) != 1 {
			t.Fatal(err)
		}
		if _, err := Publish(ctx, r, theirs, nil); err != nil {
			t.Error(err)
		}
		// Both signatures are there now.
		for _, k := range []*trust.Key{&s.Key, &stranger.Key} {
			sigs, err := Signatures(ctx, r, digest(t, amd))
			if err != nil || count(t, sigs) != 2 || trust.Verify(ctx, k, digest(t, amd), sigs) != nil {
				t.Errorf("%d signatures, %v", count(t, sigs), err)
			}
		}
		// Ours, and put where it does not belong.
		for what, stray := range map[string]struct {
			arch catalog.Arch // that the index says
			meta container.Metadata
			says string
		}{
			"flavor":       {catalog.ARM64, container.Metadata{Title: "Other 1", Flavor: "other", Release: "1"}, `io.kmi.flavor is "other", expected "example"`},
			"version":      {catalog.ARM64, container.Metadata{Title: "Example 0", Flavor: "example", Release: "0"}, `version is "0", expected "1"`},
			"architecture": {catalog.X86_64, container.Metadata{Title: "Example 1", Flavor: "example", Release: "1"}, `io.kmi.arch is "x86_64", expected "arm64"`},
		} {
			r = repository()
			path, sum := qcow2(t, what, 1000)
			img, err := container.Build(container.Spec{Arch: stray.arch, DiskPath: path, DiskSHA256: sum, Metadata: stray.meta})
			if err != nil {
				t.Fatal(err)
			}
			publishAll(t, r, "", made{img, stray.arch, sum}) // signed by our key
			state, err := Current(ctx, r, "1", stray.arch)
			if err != nil {
				t.Fatal(err)
			}
			entry := *state.Entry
			entry.Platform = &v1.Platform{OS: "linux", Architecture: "arm64"}
			theirs := must(container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: amd}, []v1.Descriptor{entry}, nil))
			if err := errors.Join(r.Push(ctx, theirs, nil), r.Tag(ctx, digest(t, theirs), "1")); err != nil {
				t.Fatal(err)
			}
			rel, err := prepare(ctx, r, s, makeImage(t, catalog.X86_64, "n", 1000, "yes"))
			if what == "architecture" {
				rel, err = prepare(ctx, r, s, amd) // it is left out already
				if n := len(must(rel.Index.IndexManifest()).Manifests); n != 1 {
					t.Errorf("%d images", n)
				}
				rel.Index = must(container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: amd}, []v1.Descriptor{entry}, nil))
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = Publish(ctx, r, rel, nil)
			tells(t, err, stray.says, "build that architecture anew")
			if !errors.Is(err, ErrOther) || at(t, r, "1")[0] != digest(t, theirs).String() {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What a user must not be told is good.
func TestVerifyFinds(t *testing.T) {
	ctx := context.Background()
	s := signers()[0]
	good := makeImage(t, catalog.X86_64, "a", 100_000, "yes")
	// wrong publishes an image past all checks, properly signed.
	wrong := func(t *testing.T, r Repository, img v1.Image) {
		t.Helper()
		index, err := container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: img}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Push(ctx, index, nil), r.Tag(ctx, digest(t, index), "1")); err != nil {
			t.Fatal(err)
		}
		for _, d := range []v1.Hash{digest(t, index), digest(t, img)} {
			sigs, err := trust.Sign(ctx, s, public, d, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(r.Push(ctx, sigs, nil), r.Tag(ctx, digest(t, sigs), trust.Tag(d))); err != nil {
				t.Fatal(err)
			}
		}
	}
	entry := func(path string) []byte { // a tar with one file
		img, err := container.FromFiles([]io.Reader{tarWith(t, path)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		layers, _ := img.Layers()
		rc, _ := layers[0].Uncompressed()
		return must(io.ReadAll(rc))
	}
	layered := func(data []byte, mt types.MediaType) v1.Image {
		base, err := mutate.AppendLayers(empty.Image, static.NewLayer(data, mt))
		if err != nil {
			t.Fatal(err)
		}
		path, sum := qcow2(t, "a", 1000)
		img, err := container.Build(container.Spec{Base: base, Arch: catalog.X86_64, DiskPath: path, DiskSHA256: sum})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	relabelled := func(name, value string) v1.Image {
		return mutate.Annotations(good.Image, map[string]string{name: value}).(v1.Image)
	}
	for what, c := range map[string]struct {
		img  v1.Image
		says string
	}{
		"good":                {good.Image, ""},
		"base with gzip":      {layered(gzipped(entry("bin/sh")), types.OCILayer), ""},
		"base with zstd":      {layered(zstded(t, entry("bin/sh")), types.OCILayerZStd), ""},
		"disk in the base":    {layered(gzipped(entry("disk/other")), types.OCILayer), "a layer below has /disk/other"},
		"disk in zstd":        {layered(zstded(t, entry("disk/a/b")), types.OCILayerZStd), "a layer below has /disk/a/b"},
		"base is no tar":      {layered([]byte(strings.Repeat("x", 1024)), types.OCIUncompressedLayer), "tar"},
		"broken gzip":         {layered(gzipped(entry("bin/sh"))[:40], types.OCILayer), "EOF"},
		"other disk":          {relabelled(container.LabelDisk, "sha256:"+strings.Repeat("0", 64)), "expected the disk sha256:0000"},
		"other size":          {relabelled(container.LabelDiskSize, "7"), "expected a disk of 7 bytes, found 100000"},
		"no label":            {relabelled(container.LabelDisk, "md5:0"), "has no label io.kmi.disk"},
		"size that is none":   {relabelled(container.LabelDiskSize, "much"), "io.kmi.disk-size"},
		"labels with escapes": {relabelled(container.LabelDisk, "sha256:\x1b[31m"), "expected the disk"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			wrong(t, open(t, "dir:"+dir, Options{}), c.img)
			rep, err := Verify(ctx, "dir:"+dir+"/example:1", &s.Key, Options{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if rep.OK() != (c.says == "") || c.says != "" && !contains(failed(rep.Checks), c.says) || contains(failed(rep.Checks), "\x1b") {
				t.Errorf("%q, want %q", failed(rep.Checks), c.says)
			}
		})
	}
	empty := &Report{}
	if empty.OK() {
		t.Error("nothing checked is good")
	}
	for _, ref := range []string{"", "x", "dir:", "dir:x", "registry.example.org", "registry.example.org/UPPER:1"} {
		_, err := Verify(ctx, ref, &s.Key, Options{}, nil)
		tells(t, err, "", "")
	}
}

// Another image of ours under a name that it was not signed for is not what was asked for.
func TestMisnamed(t *testing.T) {
	ctx := context.Background()
	s := signers()[0]
	dir := t.TempDir()
	publishAll(t, open(t, "dir:"+dir, Options{}), "1-20261123", makeImage(t, catalog.X86_64, "a", 1000, "yes"))
	from := must(must(Open("dir:"+dir, Options{})).Repository("example"))
	index := digest(t, must(from.Index(ctx, "1")))
	if err := from.Tag(ctx, index, "2", "10", "1-build"); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "other"), os.DirFS(filepath.Join(dir, "example"))); err != nil {
		t.Fatal(err)
	}
	for image, good := range map[string]bool{"example:1": true, "example": true, "example:1-20261123": true, "example:1-build": true, "example:2": false, "example:10": false,
		"example@" + index.String(): true, "example:2@" + index.String(): true, "other:1": false, "other": false, "other@" + index.String(): true} {
		rep, err := Verify(ctx, "dir:"+dir+"/"+image, &s.Key, Options{}, nil)
		if err != nil || rep.OK() != good || !good && !contains(failed(rep.Checks), "name: asked for was "+strings.TrimSuffix(image, ":latest")) {
			t.Errorf("%s: %+v, %v", image, rep, err)
		}
	}
	for identity, good := range map[string]bool{"h.example/kmi/example": true, "h.example:5000/example": true, "h.example:5000/example:1": true, "example:1": true, "h.example/example:2": false, "h.example/1": false} {
		if err := misnamed([]string{identity}, "example", "1-20261123"); (err == nil) != good {
			t.Errorf("%s: %v", identity, err)
		}
	}
}

// Answers without an end, or that unpack to one, end; nothing of them piles up.
func TestEndlessAnswers(t *testing.T) {
	ctx := context.Background()
	img := makeImage(t, catalog.X86_64, "a", 100_000, "yes")
	layer := must(img.Manifest()).Layers[1].Digest.String()
	config := must(img.Manifest()).Config.Digest.String()
	endless := func(status int, head, piece string, match func(r *http.Request) bool) fault {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !match(r) {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", string(types.OCIImageIndex))
			w.WriteHeader(status)
			_, err := io.WriteString(w, head)
			for part := strings.Repeat(piece, 1+(64<<10)/len(piece)); err == nil; {
				_, err = io.WriteString(w, part)
			}
		}
	}
	pages := 0
	crowd := func() []byte { // more files in /disk than anybody could keep in mind, in a few bytes
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		tw := tar.NewWriter(z)
		for i := range 100_000 {
			if err := tw.WriteHeader(&tar.Header{Name: fmt.Sprint("disk/", strings.Repeat("x", 80), i), Typeflag: tar.TypeReg, Mode: 0o444}); err != nil {
				t.Fatal(err)
			}
		}
		_ = errors.Join(tw.Close(), z.Close())
		return b.Bytes()
	}()
	if found, err := files(bytes.NewReader(crowd), maxInflated); err != nil || len(found) != 2 {
		t.Errorf("%d files, %v", len(found), err)
	}
	exactly := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !method(http.MethodGet, "/blobs/"+layer)(r) {
			next.ServeHTTP(w, r)
			return
		}
		_, _ = w.Write(append(crowd, make([]byte, 100_000)...))
	}
	verify := func(f *faulty) error {
		rep, err := Verify(ctx, f.host+"/kmi/example:1", &signers()[0].Key, (&naps{}).options(), nil)
		if err == nil && !rep.OK() {
			err = errors.New(strings.Join(failed(rep.Checks), "; "))
		}
		return err
	}
	list := func(f *faulty) error {
		_, err := open(t, f.host+"/kmi", (&naps{}).options()).Tags(ctx)
		return err
	}
	for what, c := range map[string]struct {
		fault fault
		do    func(f *faulty) error
		says  string // "" for what does no harm
	}{
		"greeting":      {endless(200, "", " ", func(r *http.Request) bool { return r.URL.Path == "/v2/" }), verify, ""},
		"error":         {endless(400, `{"errors":[{"code":"`, "x", method(http.MethodGet, "/manifests/1")), verify, "byte limit"},
		"manifest":      {endless(200, `{"schemaVersion":2,"mediaType":"`, "x", method(http.MethodGet, "/manifests/1")), verify, ""},
		"configuration": {endless(200, `{"a":"`, "x", method(http.MethodGet, "/blobs/"+config)), verify, "expected"},
		"layer":         {endless(200, "", "\x00", method(http.MethodGet, "/blobs/"+layer)), verify, "found more"},
		"signature": {endless(200, "", "x", func(r *http.Request) bool {
			return strings.Contains(r.URL.Path, "/blobs/") && !strings.Contains(r.URL.Path, layer)
		}), verify, ""},
		"files in a layer": {exactly, verify, "the content is not what its digest says"},
		"tags":             {endless(200, `{"name":"kmi/example","tags":["1"`, `,"1"`, method(http.MethodGet, "/tags/list")), list, "more than 16777216 bytes"},
		"pages of tags": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.HasSuffix(r.URL.Path, "/tags/list") {
				next.ServeHTTP(w, r)
				return
			}
			pages++
			w.Header().Set("Link", fmt.Sprintf(`</v2/kmi/example/tags/list?n=%d>; rel="next"`, pages))
			_, _ = io.WriteString(w, `{"tags":["1"]}`)
		}, list, "without an end"},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFaulty(t)
			publishAll(t, open(t, f.host+"/kmi", Options{}), "", img)
			f.set(c.fault)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := c.do(f)
			runtime.ReadMemStats(&after)
			if what == "greeting" && err != nil || what != "greeting" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%.300v, want %q", err, c.says)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 150 {
				t.Errorf("%d MiB of memory", used)
			} else {
				t.Logf("%d MiB; %.200v", used, err)
			}
		})
	}
}

// damage changes a file of a layout.
func damage(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFolder(t *testing.T) {
	ctx := context.Background()
	s := signers()[0]
	dir := t.TempDir()
	r := open(t, "dir:"+dir, Options{})
	img := makeImage(t, catalog.X86_64, "a", 100_000, "yes")
	index := publishAll(t, r, "1-1", img)
	repo := filepath.Join(dir, "example")

	// Any other program reads it.
	l, err := layout.FromPath(repo)
	if err != nil {
		t.Fatal(err)
	}
	top, err := l.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]string{}
	for _, d := range m.Manifests {
		tags[d.Annotations[refName]] = d.Digest.String()
	}
	for _, tag := range []string{"1", "latest", "1-1"} {
		if tags[tag] != index.String() {
			t.Errorf("tag %s is %s", tag, tags[tag])
		}
	}
	inner, err := top.ImageIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inner.Image(digest(t, img)); err != nil {
		t.Error(err)
	}
	var stray []string
	_ = filepath.WalkDir(repo, func(path string, d os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(repo, path); err == nil && !d.IsDir() && rel != "index.json" && rel != "oci-layout" {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			info, _ := d.Info()
			if h, _, err := v1.SHA256(f); err != nil || filepath.Join("blobs", "sha256", h.Hex) != rel || info.Mode() != 0o644 {
				stray = append(stray, rel+" "+info.Mode().String())
			}
		}
		return err
	})
	if len(stray) > 0 {
		t.Errorf("not blobs of their digests, for everybody to read: %v", stray)
	}

	// What others put into index.json stays.
	damage(t, filepath.Join(repo, "index.json"), func(data []byte) []byte {
		return []byte(strings.Replace(string(data), `"manifests": [`, `"annotations": {"theirs": "kept"}, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "`+digest(t, img).String()+`", "size": 5, "annotations": {"vendor": "note"}},`, 1))
	})
	publishAll(t, r, "1-2", img, makeImage(t, catalog.ARM64, "b", 1000, "yes"))
	if data, _ := os.ReadFile(filepath.Join(repo, "index.json")); !bytes.Contains(data, []byte(`"vendor": "note"`)) || !bytes.Contains(data, []byte(`"theirs": "kept"`)) {
		t.Errorf("%s", data)
	}

	// A blob that was damaged is found, also where its size is right.
	manifest, _ := img.Manifest()
	disk := filepath.Join(repo, "blobs/sha256", manifest.Layers[1].Digest.Hex)
	damage(t, disk, func(b []byte) []byte { b[5000] ^= 1; return b })
	rep, err := Verify(ctx, "dir:"+dir+"/example:1", &s.Key, Options{}, nil)
	if err != nil || rep.OK() || !contains(failed(rep.Checks), "the content is not what its digest says") {
		t.Errorf("%+v, %v", rep, err)
	}
	rel, err := prepare(ctx, r, s, img)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Publish(ctx, r, rel, nil)
	tells(t, err, disk, "remove that file and publish again")
	_ = os.Remove(disk)
	if _, err := Publish(ctx, r, rel, nil); err != nil {
		t.Error(err)
	}
	// A blob that was cut is written again.
	damage(t, disk, func(b []byte) []byte { return b[:10] })
	if _, err := Publish(ctx, r, rel, nil); err != nil {
		t.Error(err)
	}
	// So with manifests, signatures and the list of tags.
	child := filepath.Join(repo, "blobs/sha256", digest(t, img).Hex)
	damage(t, child, func(b []byte) []byte { return append(b, ' ') })
	rep, err = Verify(ctx, "dir:"+dir+"/example:1", &s.Key, Options{}, nil)
	if err != nil || rep.OK() || !contains(failed(rep.Checks), child) {
		t.Errorf("%+v, %v", rep, err)
	}
	_ = os.Remove(child)
	if rep, err := Verify(ctx, "dir:"+dir+"/example:1", &s.Key, Options{}, nil); err != nil || !contains(failed(rep.Checks), "not found") {
		t.Errorf("%+v, %v", rep, err)
	}
	damage(t, filepath.Join(repo, "index.json"), func([]byte) []byte { return []byte("{") })
	_, err = Publish(ctx, r, rel, nil)
	tells(t, err, "index.json", "move the folder away")

	if os.Geteuid() != 0 {
		shut := t.TempDir()
		_ = os.Chmod(shut, 0o500)
		_, err = Publish(ctx, open(t, "dir:"+shut, Options{}), rel, nil)
		tells(t, err, "permission denied", "right to write")
	}
	file := filepath.Join(t.TempDir(), "file")
	_ = os.WriteFile(file, nil, 0o644)
	rel.Index = must(container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: img}, nil, nil))
	_, err = Publish(ctx, open(t, "dir:"+file, Options{}), rel, nil)
	tells(t, err, "not a directory", "choose another folder")
}

// What killed runs left goes; what living ones hold stays.
func TestFolderSweeps(t *testing.T) {
	dir := t.TempDir()
	r := open(t, "dir:"+dir, Options{})
	img := makeImage(t, catalog.X86_64, "a", 1000, "yes")
	publishAll(t, r, "", img)
	l := r.(*laidOut)
	old := time.Now().Add(-2 * time.Hour)
	var held func()
	for _, n := range []string{"dead", "held", "new"} {
		path := filepath.Join(l.dir, parts+n)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if n != "new" {
			_ = os.Chtimes(path, old, old)
		}
		if n == "held" {
			var err error
			if held, err = l.locked(context.Background(), path); err != nil {
				t.Fatal(err)
			}
		}
	}
	publishAll(t, r, "", img)
	held()
	left, _ := filepath.Glob(filepath.Join(l.dir, parts+"*"))
	if len(left) != 2 || slices.Contains(left, filepath.Join(l.dir, parts+"dead")) {
		t.Errorf("%v", left)
	}
	// A write that is cancelled leaves nothing.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.write(ctx, digest(t, img), strings.NewReader("x"), func(int64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := l.write(context.Background(), digest(t, img), strings.NewReader("x"), func(int64) {}); !errors.Is(err, ErrContent) {
		t.Errorf("%v", err)
	}
	if now, _ := filepath.Glob(filepath.Join(l.dir, parts+"*")); len(now) != 2 {
		t.Errorf("%v", now)
	}
}

// Publishers of two architectures at once, each its own registry object: whoever is overtaken takes in what is there and
// tries again, and in the end the index has the newest of both. A reader sees a whole index at any moment.
func TestAtOnce(t *testing.T) {
	for _, kind := range []string{"folder", "registry"} {
		t.Run(kind, func(t *testing.T) {
			ctx := context.Background()
			ref := "dir:" + t.TempDir()
			if kind == "registry" {
				ref = newFaulty(t).host + "/kmi"
			}
			reg := must(Open(ref, Options{})) // releases into a registry take turns inside one process
			repository := func() Repository {
				if kind == "folder" {
					return open(t, ref, Options{})
				}
				return must(reg.Repository("example"))
			}
			var wg, readers sync.WaitGroup
			done := make(chan struct{})
			readers.Go(func() {
				r := open(t, ref, Options{})
				for {
					select {
					case <-done:
						return
					default:
					}
					s, err := Current(ctx, r, "1", catalog.X86_64)
					if err != nil {
						t.Error(err)
						return
					}
					if s != nil && len(s.Entries) == 0 {
						t.Error("an index without images")
					}
				}
			})
			const rounds = 4
			last := map[catalog.Arch]made{}
			for _, arch := range catalog.Arches {
				last[arch] = makeImage(t, arch, fmt.Sprint(arch, rounds-1), 1000, "yes")
			}
			for _, arch := range catalog.Arches {
				wg.Go(func() {
					r := repository()
					for i := range rounds {
						img := makeImage(t, arch, fmt.Sprint(arch, i), 1000, "yes")
						for try := 0; ; try++ {
							rel, err := prepare(ctx, r, signers()[0], img)
							if err == nil {
								rel.Fixed = []string{"1-20261123"}
								_, err = Publish(ctx, r, rel, nil)
							}
							if err == nil {
								break
							}
							if !errors.Is(err, ErrOvertaken) || try > 50 {
								t.Error(err)
								return
							}
						}
					}
				})
			}
			wg.Wait()
			close(done)
			readers.Wait()
			rep, err := Verify(ctx, ref+"/example:1", &signers()[0].Key, Options{}, nil)
			if err != nil || !rep.OK() || rep.Platforms["linux/amd64"] != digest(t, last[catalog.X86_64]).String() || rep.Platforms["linux/arm64"] != digest(t, last[catalog.ARM64]).String() {
				t.Errorf("%+v, %v", rep, err)
			}
			tags, err := open(t, ref, Options{}).Tags(ctx)
			if err != nil {
				t.Fatal(err)
			}
			fixed := map[string]bool{}
			for _, tag := range tags {
				if strings.HasPrefix(tag, "1-20261123") {
					d, err := open(t, ref, Options{}).Head(ctx, tag)
					if err != nil || fixed[d.Digest.String()] {
						t.Errorf("%s: %v, or two fixed tags for one index", tag, err)
					}
					fixed[d.Digest.String()] = true
				}
			}
		})
	}
}

// Two publishers on two machines: the registry keeps nobody out. However their requests fall between each other, the tags
// that move end at one index, and whoever lost is told.
func TestTwoMachines(t *testing.T) {
	ctx := context.Background()
	images := [2]made{makeImage(t, catalog.X86_64, "first", 1000, "yes"), makeImage(t, catalog.X86_64, "second", 1000, "yes")}
	tag := func(name string) func(r *http.Request) bool {
		return func(r *http.Request) bool {
			return r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/"+name)
		}
	}
	for what, c := range map[string]struct {
		before func(r *http.Request) bool // of the first one's requests, at which the second one publishes
		wins   int
		lost   bool // the first one is told that it lost
	}{
		"before any tag":           {tag("1"), 0, false},
		"between the tags":         {tag("latest"), 1, true},
		"between the tags' checks": {method(http.MethodHead, "/manifests/latest"), 1, true},
		"before the fixed tag":     {tag("1-1"), 1, true},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFaulty(t)
			r := [2]Repository{open(t, f.host+"/kmi", Options{}), open(t, f.host+"/kmi", Options{})}
			publishAll(t, r[0], "1-0", makeImage(t, catalog.X86_64, "old", 1000, "yes"))
			var rel [2]Release
			for i := range rel {
				var err error
				if rel[i], err = prepare(ctx, r[i], signers()[0], images[i]); err != nil {
					t.Fatal(err)
				}
				rel[i].Fixed = []string{fmt.Sprint("1-", i+1)}
			}
			f.set(func(w http.ResponseWriter, q *http.Request, next http.Handler) {
				// The second check of the first one comes after its tags have moved.
				if c.before(q) && (q.Method != http.MethodHead || at(t, r[1], "1")[0] == digest(t, rel[0].Index).String()) {
					f.set(nil)
					if _, err := Publish(ctx, r[1], rel[1], nil); err != nil {
						t.Error(err)
					}
				}
				next.ServeHTTP(w, q)
			})
			_, err := Publish(ctx, r[0], rel[0], nil)
			if errors.Is(err, ErrOvertaken) != c.lost || err != nil && !c.lost {
				t.Error(err)
			} else if c.lost {
				tells(t, err, "tag 1: it points at "+digest(t, rel[1].Index).String(), "run again")
			}
			want := digest(t, rel[c.wins].Index).String()
			if found := at(t, r[0], "1", "latest"); !slices.Equal(found, []string{want, want}) {
				t.Errorf("%v, want %s", found, want)
			}
		})
	}
	// Many times at once.
	f := newFaulty(t)
	for round := range 8 {
		var wg sync.WaitGroup
		var lost atomic.Int32
		for i := range images {
			wg.Go(func() {
				r := open(t, f.host+"/kmi", Options{})
				rel, err := prepare(ctx, r, signers()[0], makeImage(t, catalog.X86_64, fmt.Sprint(round, i), 1000, "yes"))
				if err == nil {
					_, err = Publish(ctx, r, rel, nil)
				}
				if errors.Is(err, ErrOvertaken) {
					lost.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		found := at(t, open(t, f.host+"/kmi", Options{}), "1", "latest")
		if found[0] == "" || found[0] != found[1] || lost.Load() > 1 {
			t.Errorf("round %d: %v, %d lost", round, found, lost.Load())
		}
	}
}

// A registry that does not hear everywhere at once of tags that moved: what it said before is not taken for somebody else's
// doing.
func TestLateTags(t *testing.T) {
	ctx := context.Background()
	for what, c := range map[string]struct {
		tag   string
		times int32
		says  string // "" for published
	}{
		"the first tag": {"1", 2, ""}, "another tag": {"latest", 2, ""}, "a new tag": {"1-2", 2, ""},
		"a new tag that does not come": {"1-2", 100, "not found"}, "a tag that does not move": {"1", 100, "it still points at"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			r := open(t, f.host+"/kmi", Options{})
			before := publishAll(t, r, "1-1", makeImage(t, catalog.X86_64, "old", 1000, "yes")).String()
			rel, err := prepare(ctx, r, signers()[0], makeImage(t, catalog.X86_64, "new", 1000, "yes"))
			if err != nil {
				t.Fatal(err)
			}
			rel.Fixed = []string{"1-2"}
			var moved atomic.Bool
			late := times(c.times, func(r *http.Request) bool {
				return moved.Load() && r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, "/manifests/"+c.tag)
			})
			var puts []string
			f.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method == http.MethodPut && !strings.Contains(r.URL.Path, "sha256") && strings.Contains(r.URL.Path, "/manifests/") {
					puts = append(puts, r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
					moved.Store(moved.Load() || strings.HasSuffix(r.URL.Path, "/manifests/1-2"))
				}
				switch {
				case !late(r):
					next.ServeHTTP(w, r)
				case c.tag == "1-2":
					w.WriteHeader(http.StatusNotFound)
				default:
					headed("Docker-Content-Digest", before, func(*http.Request) bool { return true })(w, r, next)
				}
			})
			_, err = Publish(ctx, r, rel, nil)
			f.set(nil)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %q", err, c.says)
			}
			after := digest(t, rel.Index).String()
			if found := at(t, r, "1", "latest"); !slices.Equal(found, []string{after, after}) {
				t.Errorf("%v, want %s", found, after)
			}
			if c.says == "" && !slices.Equal(puts, []string{"1", "latest", "1-2"}) {
				t.Errorf("moved: %q", puts)
			}
		})
	}
}

// TestPublisherProcess is a process that publishes images of one architecture into a folder, for TestProcesses.
func TestPublisherProcess(t *testing.T) {
	ref, arch := os.Getenv("KMI_TEST_REGISTRY"), catalog.Arch(os.Getenv("KMI_TEST_ARCH"))
	if ref == "" {
		t.Skip("it is started by TestProcesses")
	}
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	go func() {
		for events, ok := sub.Next(context.Background()); ok; events, ok = sub.Next(context.Background()) {
			for _, e := range events {
				fmt.Println("step", e)
			}
		}
	}()
	r := open(t, ref, Options{})
	for i := range 3 {
		img := makeImage(t, arch, fmt.Sprint(arch, i), 4<<20, "yes")
		for {
			rel, err := prepare(context.Background(), r, signers()[0], img)
			if err == nil {
				rel.Fixed = []string{"1-20261123"}
				_, err = Publish(context.Background(), r, rel, bus.Scope("example:1", "publish", ""))
			}
			if err == nil {
				break
			}
			if !errors.Is(err, ErrOvertaken) {
				t.Fatal(err)
			}
		}
	}
}

// Processes that publish into one folder at once do not lose each other's images, and one that is killed leaves nothing
// that the next one stumbles over.
func TestProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	ctx := context.Background()
	pair, err := trust.GenerateKey(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.LoadKey(pair.Public)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ref := "dir:" + t.TempDir()
	temp := t.TempDir() // a process that is killed leaves its own temporary folders
	publisher := func(arch catalog.Arch, each func(line string)) (*command.Process, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		p, err := command.Start(ctx, command.Command{Name: self, Args: []string{"-test.run", "^TestPublisherProcess$"}, Each: each, Grace: time.Nanosecond,
			Env: []string{"KMI_TEST_REGISTRY=" + ref, "KMI_TEST_ARCH=" + string(arch), keyVariable + "=" + pair.Private, "TMPDIR=" + temp}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p, cancel
	}
	// Killed at its first, second and third step.
	for n := 1; n <= 3; n++ {
		steps, enough := 0, make(chan struct{})
		p, kill := publisher(catalog.X86_64, func(line string) {
			if strings.HasPrefix(line, "step") {
				if steps++; steps == n {
					close(enough)
				}
			}
		})
		select {
		case <-enough:
		case <-p.Done():
		}
		kill()
		<-p.Done()
		if rep, err := Verify(ctx, ref+"/example:1", key, Options{}, nil); err == nil && !rep.OK() {
			t.Errorf("killed at step %d: %q", n, failed(rep.Checks))
		} else if err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("killed at step %d: %v", n, err)
		}
	}
	var running []*command.Process
	for _, arch := range []catalog.Arch{catalog.X86_64, catalog.ARM64, catalog.X86_64} {
		p, kill := publisher(arch, nil)
		defer kill()
		running = append(running, p)
	}
	for _, p := range running {
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}
	rep, err := Verify(ctx, ref+"/example:1", key, Options{}, nil)
	if err != nil || !rep.OK() {
		t.Fatalf("%+v, %v", rep, err)
	}
	for _, arch := range catalog.Arches {
		if got, want := rep.Platforms["linux/"+arch.OCI()], digest(t, makeImage(t, arch, fmt.Sprint(arch, 2), 4<<20, "yes")).String(); got != want {
			t.Errorf("%s is %s, want %s", arch, got, want)
		}
	}
}

// A process that is killed when one tag has moved and the next has not, with Debian's docker-registry: what users find is
// whole, and the next run moves the rest without sending a blob.
func TestKilledBetweenTags(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	ctx := context.Background()
	pair, err := trust.GenerateKey(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := trust.LoadSigner(ctx, pair.Private, nil)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, realRegistry(t, t.TempDir(), ""))
	r := open(t, p.host+"/kmi", Options{})
	rel, err := prepare(ctx, r, signer, makeImage(t, catalog.X86_64, "old", 1000, "yes"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Publish(ctx, r, rel, nil); err != nil {
		t.Fatal(err)
	}
	before := digest(t, rel.Index).String()
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	var publisher *command.Process
	started := make(chan struct{})
	fn := fault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/latest") {
			<-started
			kill()
			<-publisher.Done()
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
	p.fault.Store(&fn)
	publisher, err = command.Start(ctx, command.Command{Name: self, Args: []string{"-test.run", "^TestPublisherProcess$"}, Grace: time.Nanosecond,
		Env: []string{"KMI_TEST_REGISTRY=" + p.host + "/kmi", "KMI_TEST_ARCH=" + string(catalog.X86_64), keyVariable + "=" + pair.Private, "TMPDIR=" + t.TempDir()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	close(started)
	if err := publisher.Wait(); err == nil {
		t.Fatal("it was not killed")
	}
	p.fault.Store(nil)
	ctx = context.Background()
	after := digest(t, must(r.Index(ctx, "1"))).String()
	if found := at(t, r, "1", "latest", "1-20261123"); after == before || !slices.Equal(found, []string{after, before, ""}) {
		t.Fatalf("%v, before %s", found, before)
	}
	for _, tag := range []string{"1", "latest"} {
		if rep, err := Verify(ctx, p.host+"/kmi/example:"+tag, &signer.Key, Options{}, nil); err != nil || !rep.OK() {
			t.Errorf("%s: %+v, %v", tag, rep, err)
		}
	}
	p.breaks(false)
	if rel, err = prepare(ctx, r, signer, makeImage(t, catalog.X86_64, fmt.Sprint(catalog.X86_64, 0), 4<<20, "yes")); err != nil {
		t.Fatal(err)
	}
	rel.Fixed = []string{"1-20261123"}
	if _, err := Publish(ctx, r, rel, nil); err != nil {
		t.Fatal(err)
	}
	if found := at(t, r, "1", "latest", "1-20261123"); !slices.Equal(found, []string{after, after, after}) {
		t.Errorf("%v, want %s", found, after)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if contains(p.seen, "PATCH ") || contains(p.seen, "POST ") {
		t.Errorf("sent: %q", p.seen)
	}
}

// What one registry has can be copied to another, with its signatures.
func TestCopy(t *testing.T) {
	ctx := context.Background()
	from, to := open(t, newFaulty(t).host+"/kmi", Options{}), t.TempDir()
	publishAll(t, from, "", makeImage(t, catalog.X86_64, "a", 1000, "yes"), makeImage(t, catalog.ARM64, "b", 1000, "yes"))
	dir := open(t, "dir:"+to, Options{})
	tags, err := from.Tags(ctx)
	if err != nil || len(tags) != 5 {
		t.Fatal(tags, err)
	}
	for _, tag := range tags {
		m, err := from.Get(ctx, tag)
		if err != nil {
			t.Fatal(err)
		}
		var what any
		if m.Descriptor.MediaType.IsIndex() {
			what, err = from.Index(ctx, tag)
		} else {
			what, err = from.Image(ctx, tag)
		}
		if err := errors.Join(err, dir.Push(ctx, what, nil), dir.Tag(ctx, m.Digest, tag)); err != nil {
			t.Fatal(err)
		}
	}
	if rep, err := Verify(ctx, "dir:"+to+"/example:1", &signers()[0].Key, Options{}, nil); err != nil || !rep.OK() || len(rep.Platforms) != 2 {
		t.Errorf("%+v, %v", rep, err)
	}
}

func TestDiskInLayers(t *testing.T) {
	a, b := file{"/disk/a", "00", 1}, file{"/disk/b", "11", 2}
	for says, c := range map[string]struct {
		found []file
		last  bool
	}{
		"":                              {[]file{a}, true},
		"a layer below has /disk/b":     {[]file{b}, false},
		"holds no disk":                 {nil, true},
		"holds /disk/a and /disk/b":     {[]file{a, b}, true},
		"expected the disk sha256:00, ": {[]file{b}, true},
	} {
		if err := disk(c.found, c.last, "00", 1); says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	for _, path := range []string{"disk", "./disk/a/../b", "/disk/x", "disk//y"} {
		found, err := files(tarWith(t, path), maxInflated)
		if err == nil && len(found) == 0 {
			t.Errorf("%q was overlooked", path)
		}
	}
}

// A disk of any size is pushed and read back with the same little memory.
func TestMemory(t *testing.T) {
	const size = 256 << 20
	img := makeImage(t, catalog.X86_64, "a", size, "yes")
	for _, kind := range []string{"folder", "sink", "docker-registry"} {
		t.Run(kind, func(t *testing.T) {
			var r Repository
			switch kind {
			case "folder":
				r = open(t, "dir:"+t.TempDir(), Options{})
			case "sink":
				r = open(t, sink(t)+"/kmi", Options{})
			default:
				if testing.Short() {
					t.Skip("starts docker-registry")
				}
				r = open(t, realRegistry(t, t.TempDir(), "")+"/kmi", Options{})
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			began := time.Now()
			if err := r.Push(context.Background(), img.Image, nil); err != nil {
				t.Fatal(err)
			}
			pushed := time.Since(began)
			began = time.Now()
			if kind != "sink" {
				m, err := r.Get(context.Background(), digest(t, img).String())
				if err != nil {
					t.Fatal(err)
				}
				if err := contents(context.Background(), r, m, img.sum, size, nil, "bytes"); err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
			// Everything that was ever allocated, not only what was held at once.
			used := after.TotalAlloc - before.TotalAlloc
			t.Logf("%d MiB: pushed in %s, read back in %s, %.1f MiB allocated in all, %.1f MiB from the system", size>>20, pushed, time.Since(began), float64(used)/(1<<20), float64(after.Sys)/(1<<20))
			if used > 32<<20 {
				t.Errorf("%d MiB of memory for a disk of %d MiB", used>>20, size>>20)
			}
		})
	}
}

// With Debian's docker-registry: accounts, read-only mode, a full disk, a restart.
func TestDockerRegistry(t *testing.T) {
	if testing.Short() {
		t.Skip("starts docker-registry")
	}
	ctx := context.Background()
	img := makeImage(t, catalog.X86_64, "a", 1<<20, "yes")
	one := Options{Tries: 1}

	t.Run("accounts", func(t *testing.T) {
		users := filepath.Join(t.TempDir(), "htpasswd")
		hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(users, []byte("maintainer:"+string(hash)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		host := realRegistry(t, t.TempDir(), "auth:\n  htpasswd: {realm: kmi, path: "+users+"}")
		home := t.TempDir()
		t.Setenv("HOME", home)
		t.Setenv("DOCKER_CONFIG", "")
		t.Setenv("XDG_RUNTIME_DIR", "")
		t.Setenv("XDG_CONFIG_HOME", "")
		t.Setenv("REGISTRY_AUTH_FILE", "")
		_, err = Current(ctx, open(t, host+"/kmi", one), "1", catalog.X86_64)
		tells(t, err, host+"/kmi/example does not let us in (401 Unauthorized", "docker login "+host)
		for _, path := range []string{".config/containers/auth.json", ".docker/config.json"} { // podman's, docker's
			for password, good := range map[string]bool{"wrong": false, "secret": true} {
				auth := base64.StdEncoding.EncodeToString([]byte("maintainer:" + password))
				file := filepath.Join(home, path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(`{"auths":{"`+host+`":{"auth":"`+auth+`"}}}`), 0o600)); err != nil {
					t.Fatal(err)
				}
				r := open(t, host+"/kmi", one)
				if err := r.Writable(ctx); (err == nil) != good {
					t.Errorf("%s, %s: writable: %v", path, password, err)
				} else if err != nil {
					tells(t, err, "does not let us in", "login")
				}
				if err := r.Push(ctx, img.Image, nil); (err == nil) != good {
					t.Errorf("%s, %s: %v", path, password, err)
				} else if err != nil {
					tells(t, err, "does not let us in", "login")
					if strings.Contains(err.Error(), auth) || strings.Contains(err.Error(), password) {
						t.Errorf("the password is told: %v", err)
					}
				}
			}
		}
	})
	t.Run("read-only", func(t *testing.T) {
		r := open(t, realRegistry(t, t.TempDir(), "  maintenance: {readonly: {enabled: true}}")+"/kmi", one)
		tells(t, r.Push(ctx, img.Image, nil), "cannot be written to (405", "read-only")
		tells(t, r.Writable(ctx), "cannot be written to (405", "read-only")
	})
	t.Run("restart", func(t *testing.T) {
		storage := t.TempDir()
		var first string
		t.Run("one", func(t *testing.T) {
			r := open(t, realRegistry(t, storage, "")+"/kmi", Options{})
			first = publishAll(t, r, "1-1", img).String()
		})
		host := realRegistry(t, storage, "")
		rep, err := Verify(ctx, host+"/kmi/example:1-1", &signers()[0].Key, Options{}, nil)
		if err != nil || !rep.OK() || rep.Digest != first {
			t.Errorf("%+v, %v", rep, err)
		}
		// A blob that went bad on the registry's disk is found.
		m, _ := img.Manifest()
		h := m.Layers[1].Digest.Hex
		damage(t, filepath.Join(storage, "docker/registry/v2/blobs/sha256", h[:2], h, "data"), func(b []byte) []byte { b[5000] ^= 1; return b })
		rep, err = Verify(ctx, host+"/kmi/example:1", &signers()[0].Key, Options{}, nil)
		if err != nil || rep.OK() || !contains(failed(rep.Checks), "the content is not what its digest says") {
			t.Errorf("%+v, %v", rep, err)
		}
	})
	t.Run("full", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("mounting a small file system needs root")
		}
		small := t.TempDir()
		if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=3m"); err != nil {
			t.Skipf("mount: %v", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
		r := open(t, realRegistry(t, small, "")+"/kmi", Options{Tries: 2, Sleep: (&naps{}).options().Sleep})
		before := publishAll(t, r, "", makeImage(t, catalog.X86_64, "old", 1000, "yes")).String()
		rel, err := prepare(ctx, r, signers()[0], makeImage(t, catalog.X86_64, "new", 8<<20, "yes"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Publish(ctx, r, rel, nil)
		tells(t, err, "", "")
		t.Logf("%v", err)
		if found := at(t, r, "1", "latest"); !slices.Equal(found, []string{before, before}) {
			t.Errorf("%v", found)
		}
		// So with a folder.
		local := t.TempDir()
		if err := syscall.Mount("tmpfs", local, "tmpfs", 0, "size=3m"); err != nil {
			t.Skipf("mount: %v", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(local, syscall.MNT_DETACH) })
		f := open(t, "dir:"+local, Options{})
		before = publishAll(t, f, "", makeImage(t, catalog.X86_64, "old", 1000, "yes")).String()
		_, err = Publish(ctx, f, rel, nil)
		tells(t, err, "no space left on device", "make room there")
		if found := at(t, f, "1", "latest"); !slices.Equal(found, []string{before, before}) {
			t.Errorf("%v", found)
		}
		if left, _ := filepath.Glob(filepath.Join(local, "example", parts+"*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}
