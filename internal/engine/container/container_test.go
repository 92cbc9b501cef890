package container

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// qcow2 writes a file with the header of a qcow2 of 10 GiB and some bytes behind it; change may spoil the header.
func qcow2(t testing.TB, path string, size int, change func(h []byte)) string {
	t.Helper()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7)
	}
	clear(data[:min(size, 104)])
	copy(data, "QFI\xfb")
	binary.BigEndian.PutUint32(data[4:], 3)
	binary.BigEndian.PutUint64(data[24:], 10<<30)
	if change != nil {
		change(data)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func sumOf(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

var metadata = Metadata{
	Title: "Example 1", Flavor: "example", Release: "1", Codename: "first", Arch: "x86_64", Level: "stable", User: "example",
	Source: "https://example.org/kmi", Commit: "0123456789abcdef0123456789abcdef01234567", Builder: "kmi-tui v1", How: "built from the package archive",
	Upstream: "https://example.org/archive", UpstreamBuild: "20261101T000000Z", UpstreamDate: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
	Pulled: "2026-11-02", ChecksumOf: "the archive's indexes", Trust: "indexes signed (openpgp)", PassingOn: "free", Recipe: "sha256:55", LeftOut: "update: it updates itself", Project: "Example Images", Checksums: []string{"sha256:00 Packages", "sha256:11 Release"}, Signature: "verified ABCD",
	Documentation: "https://example.org/docs", Download: "https://example.org/download?a=1&b=<2>", Home: "https://example.org", Licence: "https://example.org/licence",
	ContentKey: "sha256:22", Tested: "uefi baseline 1", Base: "registry.example.org/base@sha256:33",
	Verify: []string{"kmi-tui verify registry.example.org/kmi/example:1 --key cosign.pub", "cosign verify --key cosign.pub registry.example.org/kmi/example:1"},
}

func testSpec(t testing.TB) Spec {
	t.Helper()
	return Spec{Arch: catalog.X86_64, DiskPath: qcow2(t, filepath.Join(t.TempDir(), "d"), 100_001, nil), Metadata: metadata,
		Packages: []byte("git 1:2.39 amd64\nvim 2:9.0 amd64\n"), Created: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		Licences:    fstest.MapFS{"git/copyright": {Data: []byte("GPL-2\n\f page two\n")}, "vim/copyright": {Data: []byte("Vim licence")}},
		Environment: map[string]string{EnvInstancetype: "u1.medium", EnvPreference: "example"}}
}

func build(t testing.TB, s Spec) v1.Image {
	t.Helper()
	img, err := Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digest(t testing.TB, i interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	d, err := i.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// tarOf reads a layer.
func tarOf(t testing.TB, l v1.Layer) (heads []tar.Header, data map[string]string) {
	t.Helper()
	rc, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	data = map[string]string{}
	for tr := tar.NewReader(rc); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return heads, data
		}
		if err != nil {
			t.Fatal(err)
		}
		heads = append(heads, *h)
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		data[h.Name] = string(b)
	}
}

func layersOf(t testing.TB, img v1.Image) []v1.Layer {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	return layers
}

// whole checks that an image is what its manifest and configuration say. (The library's own check of contents takes every
// layer for a gzip.)
func whole(t testing.TB, img v1.Image) {
	t.Helper()
	if err := validate.Image(img, validate.Fast); err != nil {
		t.Error(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers := layersOf(t, img)
	if len(cfg.RootFS.DiffIDs) != len(layers) || len(cfg.History) != len(layers) {
		t.Errorf("%d layers, %d diff IDs, %d of history", len(layers), len(cfg.RootFS.DiffIDs), len(cfg.History))
	}
	for i, l := range layers {
		for _, c := range []struct {
			open func() (io.ReadCloser, error)
			want func() (v1.Hash, error)
		}{{l.Compressed, l.Digest}, {l.Uncompressed, l.DiffID}} {
			rc, err := c.open()
			if err != nil {
				t.Fatal(err)
			}
			found, _, err := v1.SHA256(rc)
			_ = rc.Close()
			if want, werr := c.want(); err != nil || werr != nil || found != want {
				t.Errorf("layer %d: %s, want %s; %v, %v", i, found, want, err, werr)
			}
		}
		if d, _ := l.DiffID(); d != cfg.RootFS.DiffIDs[i] {
			t.Errorf("layer %d: diff ID %s, want %s", i, cfg.RootFS.DiffIDs[i], d)
		}
	}
}

func TestBuild(t *testing.T) {
	s := testSpec(t)
	s.DiskSHA256, s.DiskSize, s.VirtualSize = strings.ToUpper(sumOf(t, s.DiskPath)), 100_001, 10<<30
	img := build(t, s)
	whole(t, img)
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if m.MediaType != types.OCIManifestSchema1 || m.Config.MediaType != types.OCIConfigJSON || len(m.Layers) != 2 {
		t.Fatalf("%+v", m)
	}
	for _, l := range m.Layers {
		if l.MediaType != types.OCIUncompressedLayer {
			t.Errorf("a layer is a %s", l.MediaType)
		}
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.OS != "linux" || cfg.Architecture != "amd64" || cfg.Config.User != "107" || !slices.Equal(cfg.Config.Entrypoint, []string{"no-entrypoint"}) || cfg.Config.Cmd != nil {
		t.Errorf("%+v", cfg)
	}
	for _, want := range []string{EnvInstancetype + "=u1.medium", EnvPreference + "=example"} {
		if !slices.Contains(cfg.Config.Env, want) {
			t.Errorf("%s is not in %v", want, cfg.Config.Env)
		}
	}
	if !maps.Equal(cfg.Config.Labels, m.Annotations) {
		t.Error("labels and annotations differ")
	}
	for name, want := range map[string]string{
		"org.opencontainers.image.title": "Example 1", "org.opencontainers.image.source": "https://example.org/kmi", LabelCreated: "2026-11-01T00:00:00Z",
		"org.opencontainers.image.revision": metadata.Commit, "org.opencontainers.image.base.name": "registry.example.org/base", "org.opencontainers.image.base.digest": "sha256:33",
		LabelContentKey: "sha256:22", LabelTested: "uefi baseline 1", LabelLevel: "stable", LabelArch: "x86_64", LabelVirtualSize: "10737418240",
		LabelDisk: "sha256:" + sumOf(t, s.DiskPath), LabelDiskSize: "100001",
	} {
		if m.Annotations[name] != want {
			t.Errorf("label %s is %q, want %q", name, m.Annotations[name], want)
		}
	}

	heads, data := tarOf(t, layersOf(t, img)[1])
	if len(heads) != 2 {
		t.Fatalf("the disk's layer has %d entries", len(heads))
	}
	for i, want := range []tar.Header{
		{Name: "disk/", Typeflag: tar.TypeDir, Mode: 0o555, Uid: 107, Gid: 107, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR},
		{Name: "disk/disk.qcow2", Typeflag: tar.TypeReg, Mode: 0o444, Uid: 107, Gid: 107, Size: 100_001, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR},
	} {
		if !reflect.DeepEqual(heads[i], want) {
			t.Errorf("header %+v, want %+v", heads[i], want)
		}
	}
	if sum := sha256.Sum256([]byte(data["disk/disk.qcow2"])); hex.EncodeToString(sum[:]) != sumOf(t, s.DiskPath) {
		t.Error("the disk in the layer is another one")
	}

	heads, data = tarOf(t, layersOf(t, img)[0])
	for _, h := range heads {
		if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(time.Unix(0, 0)) || h.Uname != "" || h.Format != tar.FormatUSTAR || strings.HasPrefix(h.Name, "usr/bin") {
			t.Errorf("header %+v", h)
		}
		want := int64(0o444)
		if h.Typeflag == tar.TypeDir {
			want = 0o755
		} else if h.Name == "usr/local/bin/no-entrypoint" {
			want = 0o555
		} else if h.Name == "entrypoint.sh" {
			want = 0o777
			if h.Typeflag != tar.TypeSymlink || h.Linkname != "usr/local/bin/no-entrypoint" {
				t.Errorf("%+v", h)
			}
		}
		if h.Mode != want {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(data["kmi/metadata.json"]), &object); err != nil {
		t.Fatal(err)
	}
	var back Metadata
	if err := json.Unmarshal([]byte(data["kmi/metadata.json"]), &back); err != nil {
		t.Fatal(err)
	}
	if back.Checksums[1] != "sha256:11 Release" || back.DiskSize != 100_001 || back.Pulled != "2026-11-02" || back.Download != metadata.Download {
		t.Errorf("%+v", back)
	}
	names := strings.Fields(data["kmi/fields.txt"])
	if len(names) != len(object) {
		t.Errorf("%d names, %d fields in JSON", len(names), len(object))
	}
	v := reflect.TypeOf(Metadata{})
	for i := range v.NumField() { // every criterion is there, under one name everywhere
		n, _, _ := strings.Cut(v.Field(i).Tag.Get("json"), ",")
		if slices.Contains(words, n) || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("%s cannot be asked for by its name", n)
		}
		if _, ok := object[n]; !ok || !slices.Contains(names, n) || data["kmi/fields/"+n] == "" {
			t.Errorf("%s is missing", n)
		}
	}
	for name, want := range map[string]string{"kmi/fields/checksum": "sha256:00 Packages\nsha256:11 Release\n", "kmi/fields/pulled": "2026-11-02\n",
		"kmi/fields/disk": "/disk/disk.qcow2\n", "kmi/packages.txt": string(s.Packages), "kmi/licenses/git/copyright": "GPL-2\n\f page two\n", "kmi/licenses.txt": "git/copyright\nvim/copyright\n"} {
		if data[name] != want {
			t.Errorf("%s is %q, want %q", name, data[name], want)
		}
	}
	if !strings.Contains(data["kmi/metadata.json"], "a=1&b=<2>") {
		t.Error("JSON escapes what it need not")
	}
}

// The digest is that of these inputs on every machine. If it has to change, every published image changes with it.
const goldenDigest = "sha256:388878eb6ddec78d9b6da4f1cfd27582c522bfc8eaae3ea957d990aaa7766ea5"

func TestSameInputsSameDigest(t *testing.T) {
	if got := digest(t, build(t, testSpec(t))); got != goldenDigest {
		t.Errorf("the digest of the same inputs became %s", got)
	}
	// Another folder, file time, mask, time zone, language, and kind of file system.
	defer syscall.Umask(syscall.Umask(0o077))
	t.Setenv("LC_ALL", "tr_TR.UTF-8")
	t.Setenv("TZ", "Asia/Kathmandu")
	was := time.Local
	time.Local = time.FixedZone("far", 14*3600)
	defer func() { time.Local = was }()
	s := testSpec(t)
	at := time.Now().Add(-1000 * time.Hour)
	if err := os.Chtimes(s.DiskPath, at, at); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, n := range []string{"vim", "git"} {
		text, err := fs.ReadFile(s.Licences, n+"/copyright")
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Mkdir(filepath.Join(dir, n), 0o700)
		if err := os.WriteFile(filepath.Join(dir, n, "copyright"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Licences = os.DirFS(dir)
	s.Metadata.UpstreamDate, s.Created = s.Metadata.UpstreamDate.In(time.Local), s.Created.In(time.Local)
	if got := digest(t, build(t, s)); got != goldenDigest {
		t.Errorf("elsewhere the digest of the same inputs is %s", got)
	}
	for what, change := range map[string]func(*Spec){
		"disk":     func(s *Spec) { qcow2(t, s.DiskPath, 100_002, nil) },
		"field":    func(s *Spec) { s.Metadata.Title = "Other" },
		"packages": func(s *Spec) { s.Packages = append(s.Packages, 'x') },
		"licence":  func(s *Spec) { s.Licences = fstest.MapFS{"a": {Data: []byte("b")}} },
		"label":    func(s *Spec) { s.Labels = map[string]string{LabelLevel: "proposed"} },
		"env":      func(s *Spec) { s.Environment[EnvPreference] = "other" },
		"created":  func(s *Spec) { s.Created = s.Created.Add(time.Second) },
		"arch":     func(s *Spec) { s.Arch = catalog.ARM64 },
	} {
		s := testSpec(t)
		change(&s)
		if digest(t, build(t, s)) == goldenDigest {
			t.Errorf("another %s makes the same digest", what)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"architecture":     {func(s *Spec) { s.Arch = "riscv" }, "not an architecture"},
		"no disk":          {func(s *Spec) { s.DiskPath += "x" }, "no such file"},
		"folder":           {func(s *Spec) { s.DiskPath = filepath.Dir(s.DiskPath) }, "not a regular file"},
		"size":             {func(s *Spec) { s.DiskSize = 5 }, "expected 5 bytes, found 100001"},
		"sum":              {func(s *Spec) { s.DiskSHA256 = "00" }, "expected sha256:00, found sha256:"},
		"virtual size":     {func(s *Spec) { s.VirtualSize = 1 << 30 }, "expected a virtual size of 1073741824 bytes, found 10737418240"},
		"disk name":        {func(s *Spec) { s.DiskName = "../x" }, "not a name"},
		"hidden disk":      {func(s *Spec) { s.DiskName = ".x" }, "not a name"},
		"escape":           {func(s *Spec) { s.Metadata.User = "a\x1b[31m" }, "do not belong"},
		"two lines":        {func(s *Spec) { s.Metadata.User = "a\nb" }, "do not belong"},
		"bidi":             {func(s *Spec) { s.Metadata.User = "a\u202eb" }, "do not belong"},
		"list with escape": {func(s *Spec) { s.Metadata.Verify = []string{"a", "b\r"} }, "do not belong"},
		"other disk":       {func(s *Spec) { s.Metadata.DiskSHA256 = "00" }, "expected "},
		"bootc":            {func(s *Spec) { s.Labels = map[string]string{"containers.bootc": "1"} }, "refuses"},
		"licence name":     {func(s *Spec) { s.Licences = fstest.MapFS{"a\nb": {}} }, "control characters"},
		"licence link":     {func(s *Spec) { s.Licences = fstest.MapFS{"a": {Mode: fs.ModeSymlink}} }, "not a regular file"},
		"licence too big": {func(s *Spec) {
			s.Packages = make([]byte, maxMetadata)
			s.Licences = fstest.MapFS{"a": {Data: []byte("x")}}
		}, "more than 128 MiB"},
		"foreign base": {func(s *Spec) {
			l, err := random.Layer(10, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
			if err != nil {
				t.Fatal(err)
			}
			if s.Base, err = mutate.AppendLayers(empty.Image, l); err != nil {
				t.Fatal(err)
			}
		}, "may be passed on"},
	} {
		s := testSpec(t)
		c.change(&s)
		if _, err := Build(s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

func TestInspect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	for what, c := range map[string]struct {
		size   int
		change func(h []byte)
		want   string
	}{
		"good":          {200, nil, ""},
		"version 2":     {200, func(h []byte) { h[7] = 2; h[79] = 255 }, ""},
		"backing":       {200, func(h []byte) { h[15] = 1 }, "backing file"},
		"external data": {200, func(h []byte) { h[79] = qcowExternal }, "external data file"},
		"dirty":         {200, func(h []byte) { h[79] = qcowDirty }, "dirty or corrupt"},
		"corrupt":       {200, func(h []byte) { h[79] = qcowCorrupt }, "dirty or corrupt"},
		"version 4":     {200, func(h []byte) { h[7] = 4 }, "unknown version"},
		"short":         {80, nil, "unknown version"},
		"empty":         {0, func([]byte) {}, "not a qcow2"},
		"raw":           {200, func(h []byte) { clear(h) }, "not a qcow2"},
		"no size":       {200, func(h []byte) { clear(h[24:32]) }, "virtual size is 0"},
		"negative":      {200, func(h []byte) { h[24] = 0xff }, "virtual size is -"},
	} {
		if c.size == 0 {
			_ = os.WriteFile(path, nil, 0o644)
		} else {
			qcow2(t, path, c.size, c.change)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		size, err := inspect(f)
		_ = f.Close()
		if c.want == "" && (err != nil || size != 10<<30) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %d, %v, want %q", what, size, err, c.want)
		}
	}
}

// What qemu-img makes is understood.
func TestInspectRealDisks(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not installed")
	}
	dir := t.TempDir()
	for _, c := range []struct {
		name, options, want string
		more                []string
	}{
		{"plain", "compat=1.1", "", nil},
		{"old", "compat=0.10", "", nil},
		{"backed", "backing_file=plain,backing_fmt=qcow2", "backing file", nil},
		{"external", "data_file=data", "external data file", nil},
	} {
		c2 := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-o", c.options, c.name, "3G")
		c2.Dir = dir
		if out, err := c2.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		f, err := os.Open(filepath.Join(dir, c.name))
		if err != nil {
			t.Fatal(err)
		}
		size, err := inspect(f)
		_ = f.Close()
		if c.want == "" && (err != nil || size != 3<<30) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %d, %v, want %q", c.name, size, err, c.want)
		}
	}
}

// The layer is byte for byte what archive/tar writes, for every length of the last block, and can be read again.
func TestDiskLayer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	for _, size := range []int{511, 512, 513, 4096, 100_000} {
		qcow2(t, path, size, nil)
		l, err := newDiskLayer(Spec{DiskPath: path, DiskName: DiskFile})
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		tw := tar.NewWriter(&want)
		_ = tw.WriteHeader(&tar.Header{Name: "disk/", Typeflag: tar.TypeDir, Mode: 0o555, Uid: 107, Gid: 107, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
		_ = tw.WriteHeader(&tar.Header{Name: "disk/disk.qcow2", Typeflag: tar.TypeReg, Mode: 0o444, Uid: 107, Gid: 107, Size: int64(size), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
		data, _ := os.ReadFile(path)
		_, _ = tw.Write(data)
		_ = tw.Close()
		for range 2 {
			rc, err := l.Compressed()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(rc)
			_ = rc.Close()
			if err != nil || !bytes.Equal(got, want.Bytes()) {
				t.Fatalf("size %d: %d bytes, want %d; %v", size, len(got), want.Len(), err)
			}
		}
		sum := sha256.Sum256(want.Bytes())
		if n, _ := l.Size(); n != int64(want.Len()) || l.hash.Hex != hex.EncodeToString(sum[:]) {
			t.Errorf("size %d: layer %d bytes, %s", size, n, l.hash)
		}
	}
	if h := header("disk/disk.qcow2", tar.TypeReg, 0o444, owner, 9<<30); tar.NewWriter(io.Discard).WriteHeader(h) != nil {
		t.Error("no room for 9 GiB")
	}
}

func TestDiskThatChanges(t *testing.T) {
	path := qcow2(t, filepath.Join(t.TempDir(), "d"), 1000, nil)
	l, err := newDiskLayer(Spec{DiskPath: path, DiskName: DiskFile})
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	open := func() error {
		rc, err := l.Compressed()
		if err == nil {
			_, err = io.Copy(io.Discard, rc)
			_ = rc.Close()
		}
		return err
	}
	if err := os.Chtimes(path, later, later); err != nil || open() != nil {
		t.Error("a file that was only touched is refused")
	}
	qcow2(t, path, 1000, func(h []byte) { h[999]++ })
	if err := open(); err == nil || !strings.Contains(err.Error(), "changed since") {
		t.Errorf("changed: %v", err)
	}
	qcow2(t, path, 1001, nil)
	if err := open(); err == nil || !strings.Contains(err.Error(), "changed since") {
		t.Errorf("grown: %v", err)
	}
	qcow2(t, path, 1000, nil)
	rc, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	_ = os.Truncate(path, 500)
	if _, err := io.Copy(io.Discard, rc); err == nil || !strings.Contains(err.Error(), "500 bytes are missing") {
		t.Errorf("cut while it is read: %v", err)
	}
	_ = rc.Close()
}

func TestBaseLayers(t *testing.T) {
	l, err := random.Layer(100, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	base, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	base, err = mutate.Config(base, v1.Config{Env: []string{"container=oci", "PATH=/base"}, Labels: map[string]string{"containers.bootc": "1", "name": "base"}, Cmd: []string{"/bin/bash"}, User: "root"})
	if err != nil {
		t.Fatal(err)
	}
	s := testSpec(t)
	s.Base = base
	img := build(t, s)
	m, err := img.Manifest()
	if err != nil || len(m.Layers) != 3 || m.Layers[0].MediaType != types.OCILayer || m.MediaType != types.OCIManifestSchema1 {
		t.Fatalf("%v, %+v", err, m)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(cfg.Config.Env, "container=oci") || !slices.Contains(cfg.Config.Env, "PATH=/usr/local/bin:/base") || cfg.Config.Cmd != nil || cfg.Config.User != "107" || cfg.Config.Labels["name"] != "" || len(cfg.History) != 3 {
		t.Errorf("%+v", cfg)
	}
	whole(t, img)
}

// crun-vm boots the one regular file that it finds in / and /disk, whatever the base.
func TestOneFileForCrunVM(t *testing.T) {
	base, err := FromFiles([]io.Reader{archive(t, tar.Header{Name: "./bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755})}, map[string]string{"/bin/sh": "/bin/busybox"})
	if err != nil {
		t.Fatal(err)
	}
	s := testSpec(t)
	s.Base = base
	img := build(t, s)
	var found []string
	for _, l := range layersOf(t, img) {
		heads, _ := tarOf(t, l)
		for _, h := range heads {
			if dir := path.Dir(path.Clean("/" + h.Name)); h.Typeflag == tar.TypeReg && (dir == "/" || dir == "/disk") {
				found = append(found, h.Name)
			}
		}
	}
	if !slices.Equal(found, []string{"disk/disk.qcow2"}) {
		t.Errorf("%v", found)
	}
}

func TestMissing(t *testing.T) {
	if missing := metadata.Missing(); len(missing) != 0 {
		t.Errorf("missing: %v", missing)
	}
	m := metadata
	m.Commit, m.Checksums, m.Pulled, m.Codename = "", nil, "", ""
	if missing := m.Missing(); !slices.Equal(missing, []string{"commit", "pulled", "checksum"}) {
		t.Errorf("missing: %v", missing)
	}
}

func TestIndex(t *testing.T) {
	s := testSpec(t)
	amd := build(t, s)
	s.Arch = catalog.ARM64
	arm := build(t, s)
	both, err := Index(map[catalog.Arch]v1.Image{catalog.ARM64: arm, catalog.X86_64: amd}, nil, map[string]string{"b": "2", "a": "1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(both, validate.Fast); err != nil {
		t.Error(err)
	}
	m, err := both.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 2 || m.Manifests[0].Platform.String() != "linux/amd64" || m.Manifests[1].Platform.String() != "linux/arm64" || m.Annotations["a"] != "1" {
		t.Fatalf("%+v", m)
	}
	if m.Manifests[0].Annotations[LabelContentKey] != "sha256:22" || m.Manifests[0].MediaType != types.OCIManifestSchema1 {
		t.Errorf("%+v", m.Manifests[0])
	}
	// One at a time comes to the same, and strangers do not get in.
	strange := v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}, Digest: m.Manifests[0].Digest}
	one, err := Index(map[catalog.Arch]v1.Image{catalog.ARM64: arm}, append(m.Manifests, strange), map[string]string{"a": "1", "b": "2"})
	if err != nil || digest(t, one) != digest(t, both) {
		t.Errorf("%v: %s, want %s", err, digest(t, one), digest(t, both))
	}
	if _, err := one.Image(m.Manifests[0].Digest); !errors.Is(err, ErrNotCarried) {
		t.Errorf("%v", err)
	}
	if img, err := one.Image(m.Manifests[1].Digest); err != nil || digest(t, img) != digest(t, arm) {
		t.Errorf("%v", err)
	}
	for _, images := range []map[catalog.Arch]v1.Image{nil, {catalog.X86_64: arm}, {"riscv": arm}} {
		if _, err := Index(images, nil, nil); err == nil {
			t.Errorf("an index of %v", images)
		}
	}
}

// files makes a tar archive.
func archive(t testing.TB, heads ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range heads {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		data := []byte(nil)
		if h.Typeflag == tar.TypeReg {
			data = []byte("content of " + h.Name)
		}
		h.Size = int64(len(data))
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestFromFiles(t *testing.T) {
	first := func() io.Reader {
		return archive(t, tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "./usr/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Now()},
			tar.Header{Name: "./usr/bin/busybox", Mode: 0o4755, Uid: 5, Gname: "staff", ModTime: time.Now(), PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}},
			tar.Header{Name: "./usr/bin/vi", Typeflag: tar.TypeLink, Linkname: "./usr/bin/busybox"}, tar.Header{Name: "usr/bin/ed", Typeflag: tar.TypeSymlink, Linkname: "../bin/vi"})
	}
	second := func(at time.Time) io.Reader {
		return archive(t, tar.Header{Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: at}, tar.Header{Name: "usr/share/doc/b", Mode: 0o644, ModTime: at})
	}
	links := map[string]string{"/bin/sh": "/usr/bin/busybox", "usr/bin/cat": "busybox"}
	img, err := FromFiles([]io.Reader{first(), second(time.Now())}, links)
	if err != nil {
		t.Fatal(err)
	}
	heads, data := tarOf(t, layersOf(t, img)[0])
	var names []string
	for _, h := range heads {
		names = append(names, h.Name)
		if h.Uid != 0 || h.Gname != "" || !h.ModTime.Equal(time.Unix(0, 0)) || h.Mode > 0o777 || len(h.PAXRecords) > 0 {
			t.Errorf("%+v", h)
		}
	}
	want := []string{"bin/", "bin/sh", "usr/", "usr/bin/", "usr/bin/busybox", "usr/bin/cat", "usr/bin/ed", "usr/bin/vi", "usr/share/", "usr/share/doc/", "usr/share/doc/b"}
	if !slices.Equal(names, want) {
		t.Errorf("%v", names)
	}
	if data["usr/bin/vi"] != "content of ./usr/bin/busybox" {
		t.Errorf("the hard link holds %q", data["usr/bin/vi"])
	}
	again, err := FromFiles([]io.Reader{first(), second(time.Unix(1, 0))}, links)
	if err != nil || digest(t, again) != digest(t, img) {
		t.Errorf("the same files make another image: %v", err)
	}
	s := testSpec(t)
	s.Base = img
	whole(t, build(t, s))
}

func TestFromFilesRefuses(t *testing.T) {
	a := tar.Header{Name: "a", Mode: 0o644}
	for what, c := range map[string]struct {
		heads []tar.Header
		links map[string]string
		want  string
	}{
		"absolute":           {[]tar.Header{{Name: "/etc/passwd"}}, nil, "leaves the tree"},
		"parent":             {[]tar.Header{{Name: "a/../../b"}}, nil, "leaves the tree"},
		"parent inside":      {[]tar.Header{{Name: "a/../b"}}, nil, "leaves the tree"},
		"backslash":          {[]tar.Header{{Name: `..\b`}}, nil, "leaves the tree"},
		"character device":   {[]tar.Header{{Name: "null", Typeflag: tar.TypeChar}}, nil, "neither a folder"},
		"block device":       {[]tar.Header{{Name: "sda", Typeflag: tar.TypeBlock}}, nil, "neither a folder"},
		"fifo":               {[]tar.Header{{Name: "f", Typeflag: tar.TypeFifo}}, nil, "neither a folder"},
		"hard link outside":  {[]tar.Header{{Name: "l", Typeflag: tar.TypeLink, Linkname: "../etc/shadow"}}, nil, "leaves the tree"},
		"hard link absolute": {[]tar.Header{a, {Name: "l", Typeflag: tar.TypeLink, Linkname: "/a"}}, nil, "leaves the tree"},
		"hard link forward":  {[]tar.Header{{Name: "l", Typeflag: tar.TypeLink, Linkname: "a"}, a}, nil, "not a file that came before"},
		"hard link to link":  {[]tar.Header{{Name: "s", Typeflag: tar.TypeSymlink, Linkname: "a"}, {Name: "l", Typeflag: tar.TypeLink, Linkname: "s"}}, nil, "not a file that came before"},
		"symlink outside":    {[]tar.Header{{Name: "d/s", Typeflag: tar.TypeSymlink, Linkname: "../../x"}}, nil, "leaves the tree"},
		"through a symlink":  {[]tar.Header{{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, {Name: "d/passwd"}}, nil, "not a folder"},
		"through a file":     {[]tar.Header{a, {Name: "a/b"}}, nil, "not a folder"},
		"twice":              {[]tar.Header{a, a}, nil, "twice"},
		"dir over link":      {[]tar.Header{{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, {Name: "d/", Typeflag: tar.TypeDir}}, nil, "twice"},
		"root is a link":     {[]tar.Header{{Name: ".", Typeflag: tar.TypeSymlink, Linkname: "/"}}, nil, "not a folder"},
		"dangling link":      {[]tar.Header{a}, map[string]string{"/bin/sh": "busybox"}, "points to /bin/busybox, which none"},
		"link outside":       {[]tar.Header{a}, map[string]string{"/sh": "../a"}, "leaves the tree"},
		"link over file":     {[]tar.Header{a}, map[string]string{"/a": "a"}, "twice"},
		"link nowhere":       {[]tar.Header{a}, map[string]string{"/": "a"}, "a path in the image"},
		"link up":            {[]tar.Header{a}, map[string]string{"/../b": "a"}, "a path in the image"},
		"nothing":            {nil, nil, "nothing"},
	} {
		if _, err := FromFiles([]io.Reader{archive(t, c.heads...)}, c.links); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	for what, r := range map[string]io.Reader{"garbage": strings.NewReader(strings.Repeat("x", 2000)), "big": bigTar(t, 0), "many bigs": bigTar(t, 5), "sparse": sparseTar(t), "crowd": crowd(t)} {
		if _, err := FromFiles([]io.Reader{r}, nil); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

// bigTar is an archive with a file whose header names more than may be, or of several that do together; without content.
func bigTar(t testing.TB, n int) io.Reader {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if n == 0 {
		_ = tw.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 1 << 50})
		return &b
	}
	readers := []io.Reader{}
	for i := range n {
		b.Reset()
		_ = tar.NewWriter(&b).WriteHeader(&tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeReg, Size: 16 << 20})
		readers = append(readers, bytes.NewReader(bytes.Clone(b.Bytes())), bytes.NewReader(make([]byte, 16<<20)))
	}
	return io.MultiReader(readers...)
}

// sparseTar is an archive with a file of a byte and a sparse one without data that claims to be as long as a file can.
func sparseTar(t testing.TB) io.Reader {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	_ = tw.WriteHeader(&tar.Header{Name: "a", Size: 1})
	_, _ = tw.Write([]byte("x"))
	// The writer leaves out records of sparse files, so they get their names afterwards.
	if err := tw.WriteHeader(&tar.Header{Name: "b", PAXRecords: map[string]string{
		"GNX.sparse.size": fmt.Sprint(math.MaxInt64), "GNX.sparse.numblocks": "1", "GNX.sparse.map": "0,0"}}); err != nil {
		t.Fatal(err)
	}
	_ = tw.Close()
	return bytes.NewReader(bytes.ReplaceAll(b.Bytes(), []byte("GNX.sparse"), []byte("GNU.sparse")))
}

func crowd(t testing.TB) io.Reader {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for i := range maxFiles + 1 {
		_ = tw.WriteHeader(&tar.Header{Name: fmt.Sprint("f", i), Typeflag: tar.TypeReg})
	}
	_ = tw.Close()
	return &b
}

func FuzzFromFiles(f *testing.F) {
	for _, h := range [][]tar.Header{{{Name: "./a/b", Mode: 0o755}}, {{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "../x"}}, {{Name: "/a"}, {Name: "l", Typeflag: tar.TypeLink, Linkname: "a"}}} {
		b, _ := io.ReadAll(archive(f, h...))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := FromFiles([]io.Reader{bytes.NewReader(data)}, nil)
		if err != nil {
			return
		}
		heads, _ := tarOf(t, layersOf(t, img)[0])
		folders := map[string]bool{".": true}
		for _, h := range heads {
			n := strings.TrimSuffix(h.Name, "/")
			if n == "" || strings.HasPrefix(n, "/") || slices.Contains(strings.Split(n, "/"), "..") || !folders[filepath.Dir(n)] || h.Mode&^0o777 != 0 || h.Uid != 0 {
				t.Fatalf("%+v got in", h)
			}
			folders[n] = h.Typeflag == tar.TypeDir
		}
	})
}

func TestBase(t *testing.T) {
	ctx := context.Background()
	if img, named, err := Base(ctx, "scratch", catalog.ARM64); img != nil || named != "scratch" || err != nil {
		t.Errorf("%v, %s, %v", img, named, err)
	}
	s := testSpec(t)
	amd := build(t, s)
	s.Arch = catalog.ARM64
	arm := build(t, s)
	index, err := Index(map[catalog.Arch]v1.Image{catalog.ARM64: arm, catalog.X86_64: amd}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	tag := func(ref string) name.Tag { r, _ := name.NewTag(ref); return r }
	if err := errors.Join(remote.WriteIndex(tag(host+"/both:1"), index), remote.Write(tag(host+"/amd:1"), amd)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	ref := func(tag string) layout.Option {
		return layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})
	}
	if err := errors.Join(l.AppendImage(amd, ref("amd")), l.AppendIndex(index, ref("both"))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ref   string
		arch  catalog.Arch
		want  v1.Image
		named string
		err   string
	}{
		{host + "/both:1", catalog.ARM64, arm, host + "/both@" + digest(t, arm), ""},
		{host + "/both:1", catalog.X86_64, amd, host + "/both@" + digest(t, amd), ""},
		{host + "/both@" + digest(t, index), catalog.ARM64, arm, host + "/both@" + digest(t, arm), ""},
		{host + "/amd:1", catalog.X86_64, amd, host + "/amd@" + digest(t, amd), ""},
		{host + "/amd:1", catalog.ARM64, nil, "", "expected one for linux/arm64, found one for linux/amd64"},
		{host + "/none:1", catalog.ARM64, nil, "", "NAME_UNKNOWN"},
		{"UPPER/x y", catalog.ARM64, nil, "", "base image UPPER/x y"},
		{"dir:" + dir + ":both", catalog.ARM64, arm, digest(t, arm), ""},
		{"dir:" + dir, catalog.ARM64, arm, digest(t, arm), ""},
		{"dir:" + dir + ":amd", catalog.ARM64, nil, "", "expected one for linux/arm64"},
		{"dir:" + dir + ":none", catalog.ARM64, nil, "", "no image for linux/arm64 with the tag none"},
		{"dir:" + dir + "x", catalog.ARM64, nil, "", "no such file"},
	} {
		img, named, err := Base(ctx, c.ref, c.arch)
		if c.err != "" {
			var remedied *event.Remedied
			if err == nil || !strings.Contains(err.Error(), c.err) || !errors.As(err, &remedied) {
				t.Errorf("%s: %v, want %q", c.ref, err, c.err)
			}
			continue
		}
		if err != nil || named != c.named || digest(t, img) != digest(t, c.want) {
			t.Errorf("%s: %s, %v", c.ref, named, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := Base(ended, host+"/both:1", catalog.ARM64); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A base image whose configuration claims a size that nobody has memory for is refused by its manifest.
func TestBaseWithAnEndlessConfiguration(t *testing.T) {
	asked := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"size":%d,"digest":"sha256:%064d"},"layers":[]}`, types.OCIManifestSchema1, types.OCIConfigJSON, int64(1)<<50, 1)
		case strings.Contains(r.URL.Path, "/blobs/"):
			asked = true
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer srv.Close()
	if _, _, err := Base(t.Context(), strings.TrimPrefix(srv.URL, "http://")+"/base:1", catalog.X86_64); err == nil || !strings.Contains(err.Error(), "a configuration of 1125899906842624 bytes") || asked {
		t.Errorf("%v, asked for it: %v", err, asked)
	}
}

// Plain http to another machine is refused before anything is sent, and credentials are never sent that way.
func TestTransport(t *testing.T) {
	get := func(rt http.RoundTripper, url, auth string) error {
		r, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if auth != "" {
			r.Header.Set("Authorization", auth)
		}
		resp, err := rt.RoundTrip(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	for _, url := range []string{"http://10.0.0.1:5000/v2/", "http://192.168.1.1/v2/", "http://registry.example.org/v2/", "http://localhost.example.org/"} {
		if err := get(Transport(false, 0), url, ""); !errors.Is(err, ErrPlain) {
			t.Errorf("%s: %v", url, err)
		}
	}
	public := newGuarded(0)
	public.public = true
	if err := get(public, "http://10.0.0.1/", "Basic x"); !errors.Is(err, ErrPlain) {
		t.Errorf("credentials would be sent: %v", err)
	}
	for host, want := range map[string]bool{"127.0.0.1": true, "127.1.2.3": true, "::1": true, "[::1]": true, "localhost": true, "a.localhost": true, "10.0.0.1": false, "example.org": false, "": false} {
		if Loopback(host) != want {
			t.Errorf("Loopback(%q) is %v", host, !want)
		}
	}
	// A registry that takes the connection and says nothing is given up.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	began := time.Now()
	var timeout net.Error
	if err := get(Transport(false, 50*time.Millisecond), "http://"+l.Addr().String(), ""); !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(began) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	// One that is slow and moves is not.
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 8 {
			_, _ = w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			time.Sleep(40 * time.Millisecond)
		}
	}))
	defer slow.Close()
	client := http.Client{Transport: Transport(false, 200*time.Millisecond)}
	resp, err := client.Get(slow.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if data, err := io.ReadAll(resp.Body); err != nil || len(data) != 8 {
		t.Errorf("%q, %v", data, err)
	}
}

// entrypoint.sh does what it says in every shell that an image may have, with nothing on PATH but cat.
func TestEntrypoint(t *testing.T) {
	root := t.TempDir()
	_, data := tarOf(t, layersOf(t, build(t, testSpec(t)))[0])
	for name, text := range data {
		path := filepath.Join(root, name)
		if strings.HasSuffix(name, "/") || name == "entrypoint.sh" {
			continue
		}
		_ = os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(cat, filepath.Join(bin, "cat")); err != nil {
		t.Fatal(err)
	}
	for _, shell := range [][]string{{"dash"}, {"bash"}, {"bash", "--posix"}, {"busybox", "sh"}, {"sh"}} {
		t.Run(strings.Join(shell, " "), func(t *testing.T) {
			path, err := exec.LookPath(shell[0])
			if err != nil {
				t.Skipf("%s is not installed: apt-get install %s", shell[0], map[string]string{"busybox": "busybox-static"}[shell[0]])
			}
			run := func(args ...string) (stdout, stderr string, code int) {
				c := exec.Command(path, slices.Concat(shell[1:], []string{filepath.Join(root, Script)}, args)...)
				c.Env = []string{"PATH=" + bin, "KMI_DIR=" + filepath.Join(root, "kmi")}
				c.Dir = bin // where a glob would find something
				var out, errs bytes.Buffer
				c.Stdout, c.Stderr = &out, &errs
				_ = c.Run()
				return out.String(), errs.String(), c.ProcessState.ExitCode()
			}
			var all strings.Builder
			for _, n := range strings.Fields(data["kmi/fields.txt"]) {
				for _, line := range strings.Split(strings.TrimSuffix(data["kmi/fields/"+n], "\n"), "\n") {
					fmt.Fprintf(&all, "%s: %s\n", n, line)
				}
			}
			for _, c := range []struct{ args, want string }{
				{"", all.String()}, {"all", all.String()},
				{"json", data["kmi/metadata.json"]}, {"packages", data["kmi/packages.txt"]}, {"list", data["kmi/fields.txt"]},
				{"licenses", "===== git/copyright\nGPL-2\n\f page two\n\n===== vim/copyright\nVim licence\n"}, {"licences", "===== git/copyright\nGPL-2\n\f page two\n\n===== vim/copyright\nVim licence\n"},
				{"release", "1\n"}, {"checksum", "sha256:00 Packages\nsha256:11 Release\n"}, {"disk-sha256", data["kmi/fields/disk-sha256"]}, {"disk_virtual_size", "10737418240\n"},
				{"release checksum user", "release: 1\nchecksum: sha256:00 Packages\nchecksum: sha256:11 Release\nuser: example\n"},
				{"download", "https://example.org/download?a=1&b=<2>\n"},
			} {
				if out, errs, code := run(strings.Fields(c.args)...); out != c.want || errs != "" || code != 0 {
					t.Errorf("%q: %d, %q, %q, want %q", c.args, code, out, errs, c.want)
				}
			}
			for _, word := range []string{"help", "-h", "--help"} {
				if out, errs, code := run(word); !strings.HasPrefix(out, "usage: ") || errs != "" || code != 0 {
					t.Errorf("%s: %d, %q, %q", word, code, out, errs)
				}
			}
			for _, args := range [][]string{{"nonsense"}, {"release", "nonsense"}, {""}, {"../packages.txt"}, {"*"}, {"-n"}, {"release user"}, {"$(id)"}, {"fields.txt"}} {
				out, errs, code := run(args...)
				if code != 2 || out != "" || !strings.Contains(errs, "no such field: "+args[len(args)-1]) || !strings.Contains(errs, "\ncontent-key\n") {
					t.Errorf("%q: %d, %q, %q", args, code, out, errs)
				}
			}
			_ = os.Rename(filepath.Join(root, "kmi/packages.txt"), filepath.Join(root, "gone"))
			if _, _, code := run("packages"); code != 1 {
				t.Errorf("without the list of packages: exit code %d", code)
			}
			_ = os.Rename(filepath.Join(root, "gone"), filepath.Join(root, "kmi/packages.txt"))
		})
	}
}

// Packing tells how many of the disk's bytes are behind it, in every form.
func TestBuildTellsItsProgress(t *testing.T) {
	for _, form := range Forms {
		s := testSpec(t)
		s.Layer, s.Work = form, t.TempDir()
		var last, total int64
		s.Told = func(done, all int64) {
			if done < last || done > all {
				t.Errorf("%s: %d of %d after %d", form, done, all, last)
			}
			last, total = done, all
		}
		if _, err := Build(s); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(s.DiskPath); err != nil || last != info.Size() || total != last {
			t.Errorf("%s: %d of %d, %v", form, last, total, err)
		}
	}
}
