package publish

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
	"github.com/sigstore/cosign/v2/pkg/cosign"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
)

const public = "registry.example.org/kmi/example"

// keyVariable names the key file of a publisher process; see TestPublisherProcess.
const keyVariable = "KMI_TEST_KEY"

// Two keys are enough for all tests: making and opening one takes a quarter of a second.
var signers = sync.OnceValue(func() (all [2]*trust.Signer) {
	for i := range all {
		data, err := os.ReadFile(os.Getenv(keyVariable)) // in a publisher process
		if err != nil {
			var k *cosign.KeysBytes
			if k, err = cosign.GenerateKeyPair(nil); err == nil {
				data = k.PrivateBytes
			}
		}
		if err == nil {
			all[i], err = trust.LoadSignerPEM(data, nil)
		}
		if err != nil {
			panic(err)
		}
	}
	return all
})

// qcow2 writes something with the header of a qcow2 of 10 GiB; from the 2nd MiB on it is a hole.
func qcow2(t testing.TB, seed string, size int64) (path, sum string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	head := make([]byte, min(size, 1<<20))
	h := sha256.Sum256([]byte(seed))
	for i := range head {
		head[i] = h[i%32] ^ byte(i>>5)
	}
	clear(head[:104])
	copy(head, "QFI\xfb")
	binary.BigEndian.PutUint32(head[4:], 3)
	binary.BigEndian.PutUint64(head[24:], 10<<30)
	if err := errors.Join(os.WriteFile(path, head, 0o644), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	whole := sha256.New()
	if _, err := io.Copy(whole, f); err != nil {
		t.Fatal(err)
	}
	return path, hex.EncodeToString(whole.Sum(nil))
}

// made is an image with the disk in it.
type made struct {
	v1.Image
	arch catalog.Arch
	sum  string
}

func makeImage(t testing.TB, arch catalog.Arch, seed string, size int64, tested string) made {
	t.Helper()
	path, sum := qcow2(t, seed, size)
	m := container.Metadata{Title: "Example 1", Flavor: "example", Release: "1", ContentKey: "sha256:" + seed, Tested: tested}
	img, err := container.Build(container.Spec{Arch: arch, DiskPath: path, DiskSHA256: sum, Metadata: m, Created: time.Unix(1_790_000_000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return made{img, arch, sum}
}

func digest(t testing.TB, i interface{ Digest() (v1.Hash, error) }) v1.Hash {
	t.Helper()
	d, err := i.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// prepare forms and signs what is published, keeping of what is there what may be kept.
func prepare(ctx context.Context, r Repository, s *trust.Signer, images ...made) (Release, error) {
	rel := Release{Key: &s.Key, Moving: []string{"1", "latest"}, Signatures: map[v1.Hash]v1.Image{}}
	state, err := Current(ctx, r, "1", images[0].arch)
	if err != nil {
		return rel, err
	}
	var kept []v1.Descriptor
	if state != nil {
		if kept, _, err = Keep(ctx, r, &s.Key, state.Entries, false); err != nil {
			return rel, err
		}
	}
	list := map[catalog.Arch]v1.Image{}
	for _, i := range images {
		list[i.arch] = i.Image
	}
	if rel.Index, err = container.Index(list, kept, nil); err != nil {
		return rel, err
	}
	rel.Disks = map[v1.Hash]string{}
	for _, i := range images {
		d, err := i.Image.Digest()
		if err != nil {
			return rel, err
		}
		rel.Disks[d] = i.sum
	}
	things := []interface{ Digest() (v1.Hash, error) }{rel.Index}
	for _, i := range images {
		things = append(things, i.Image)
	}
	for _, thing := range things {
		d, err := thing.Digest()
		if err != nil {
			return rel, err
		}
		old, err := Signatures(ctx, r, d)
		if err != nil {
			return rel, err
		}
		if rel.Signatures[d], err = trust.Sign(ctx, s, public, d, public+":1", old); err != nil {
			return rel, err
		}
	}
	return rel, nil
}

func publishAll(t testing.TB, r Repository, fixed string, images ...made) v1.Hash {
	t.Helper()
	rel, err := prepare(context.Background(), r, signers()[0], images...)
	if err != nil {
		t.Fatal(err)
	}
	if fixed != "" {
		rel.Fixed = []string{fixed}
	}
	if _, err := Publish(context.Background(), r, rel, nil); err != nil {
		t.Fatal(err)
	}
	return digest(t, rel.Index)
}

// fault stands in front of a registry.
type fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// faulty is a registry in this process, with a fault that can be changed.
type faulty struct {
	*httptest.Server
	host  string
	fault atomic.Pointer[fault]

	mu   sync.Mutex
	seen []string // METHOD PATH
}

func newFaulty(t testing.TB, options ...registry.Option) *faulty {
	t.Helper()
	f := &faulty{}
	next := registry.New(append(options, registry.Logger(log.New(io.Discard, "", 0)))...)
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen = append(f.seen, r.Method+" "+r.URL.Path)
		f.mu.Unlock()
		if fn := f.fault.Load(); fn != nil {
			(*fn)(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	f.host = strings.TrimPrefix(f.URL, "http://")
	return f
}

func (f *faulty) set(fn fault) {
	if fn == nil {
		f.fault.Store(nil)
		return
	}
	f.fault.Store(&fn)
}

func (f *faulty) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen
	f.seen = nil
	return seen
}

// naps is a Sleep that takes no time and remembers what was asked for.
type naps struct {
	mu    sync.Mutex
	asked []time.Duration
	lines []string
}

func (n *naps) options() Options {
	return Options{Sleep: func(ctx context.Context, d time.Duration) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.asked = append(n.asked, d)
		return context.Cause(ctx)
	}, Log: func(line string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.lines = append(n.lines, line)
	}}
}

func open(t testing.TB, ref string, o Options) Repository {
	t.Helper()
	reg, err := Open(ref, o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := reg.Repository("example")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// at tells where tags point; "" where there is no such tag.
func at(t testing.TB, r Repository, tags ...string) (found []string) {
	t.Helper()
	for _, tag := range tags {
		d, err := r.Head(context.Background(), tag)
		switch {
		case errors.Is(err, ErrNotFound):
			found = append(found, "")
		case err != nil:
			t.Fatal(err)
		default:
			found = append(found, d.Digest.String())
		}
	}
	return found
}

// tells checks that an error says something and what to do about it.
func tells(t testing.TB, err error, says, remedy string) {
	t.Helper()
	var r *event.Remedied
	if err == nil || !strings.Contains(err.Error(), says) || !errors.As(err, &r) || !strings.Contains(r.Remedy, remedy) {
		t.Errorf("%v (remedy %+v), want %q and the remedy %q", err, r, says, remedy)
	}
}

// registryConfig is Debian's docker-registry on a port of its choice; more is further YAML.
func realRegistry(t testing.TB, storage, more string) (host string) {
	t.Helper()
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("docker-registry is not installed: apt-get install docker-registry")
	}
	config := filepath.Join(t.TempDir(), "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nhttp: {addr: '127.0.0.1:0'}\nstorage:\n  filesystem: {rootdirectory: %s}\n%s\n", storage, more)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan string, 1)
	listening := regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)
	p, err := command.Start(ctx, command.Command{Name: "docker-registry", Args: []string{"serve", config}, Each: func(line string) {
		if m := listening.FindStringSubmatch(line); m != nil {
			ready <- m[1]
		}
	}}, nil)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); <-p.Done() })
	select {
	case host = <-ready:
		return host
	case <-p.Done():
		t.Fatalf("docker-registry: %v", p.Wait())
	}
	return ""
}

func failed(checks []Check) (names []string) {
	for _, c := range checks {
		if !c.OK {
			names = append(names, c.Name+": "+c.Detail)
		}
	}
	return names
}

func contains(list []string, part string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, part) })
}

// tarWith is a tar archive with one file.
func tarWith(t testing.TB, path string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: path, Typeflag: tar.TypeReg, Size: 1, Mode: 0o644}), func() error { _, err := w.Write([]byte("x")); return err }(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return &b
}

// sink is a registry that checks what it is given and forgets it.
func sink(t testing.TB) (host string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPost:
			w.Header().Set("Location", r.URL.Path+"x")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPatch:
			sum := sha256.New()
			_, _ = io.CopyBuffer(sum, r.Body, make([]byte, 64<<10))
			w.Header().Set("Location", r.URL.Path+"-"+hex.EncodeToString(sum.Sum(nil)))
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPut:
			if want := strings.TrimPrefix(r.URL.Query().Get("digest"), "sha256:"); !strings.HasSuffix(r.URL.Path, want) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.WriteHeader(http.StatusCreated)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(data, nil)
}
