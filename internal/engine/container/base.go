package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Scratch names no base image.
const Scratch = "scratch"

// Base finds a base image for an architecture: a reference HOST/REPOSITORY[:TAG|@DIGEST], dir:PATH[:TAG] for an OCI image
// layout, or Scratch, whose image is nil. Credentials come from the keychains in their order; without any, from
// Keychain. It returns the image, whose layers are read when they are used, and how metadata names
// it, by digest: HOST/REPOSITORY@DIGEST, or only DIGEST where it comes from a layout. Errors say what to do about them.
func Base(ctx context.Context, ref string, arch catalog.Arch, keychains ...authn.Keychain) (v1.Image, string, error) {
	if ref == Scratch {
		return nil, Scratch, nil
	}
	img, named, err := base(ctx, ref, v1.Platform{OS: "linux", Architecture: arch.OCI()}, keychains)
	if ctx.Err() != nil {
		return nil, "", context.Cause(ctx)
	}
	if err != nil {
		err = fmt.Errorf("base image %s: %w", ref, err)
		var remedied *event.Remedied
		if !errors.As(err, &remedied) {
			err = event.WithRemedy(err, "name another with --base, or let one be made from a package archive with --base built")
		}
		return nil, "", err
	}
	return img, named, nil
}

func base(ctx context.Context, ref string, platform v1.Platform, keychains []authn.Keychain) (img v1.Image, named string, err error) {
	if dir, ok := strings.CutPrefix(ref, "dir:"); ok {
		tag := ""
		if i := strings.LastIndexByte(dir, ':'); i > strings.LastIndexByte(dir, '/') {
			dir, tag = dir[:i], dir[i+1:]
		}
		if img, err = fromLayout(dir, tag, platform); err != nil {
			return nil, "", err
		}
	} else {
		r, err := name.ParseReference(ref)
		if err != nil {
			return nil, "", event.WithRemedy(err, "write --base HOST/REPOSITORY:TAG, dir:PATH, scratch or built")
		}
		if len(keychains) == 0 {
			keychains = []authn.Keychain{Keychain}
		}
		// What is named by its digest cannot be changed on the way.
		transport := newGuarded(0)
		_, transport.public = r.(name.Digest)
		img, err = remote.Image(r, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.NewMultiKeychain(keychains...)), remote.WithPlatform(platform),
			remote.WithTransport(transport), remote.WithUserAgent("kmi-tui"))
		if errors.Is(err, ErrPlain) {
			return nil, "", event.WithRemedy(ErrPlain, "name the image by its digest: %s@sha256:…", r.Context().Name())
		}
		if err != nil {
			return nil, "", event.WithRemedy(err, "check that %s can be reached, name another with --base, or let one be made from a package archive with --base built",
				r.Context().RegistryStr())
		}
		named = r.Context().Name() + "@"
	}
	if m, err := img.Manifest(); err != nil {
		return nil, "", err
	} else if m.Config.Size > MaxConfig { // the library reads all of it into memory
		return nil, "", fmt.Errorf("a configuration of %d bytes: more than %d are not accepted", m.Config.Size, MaxConfig)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, "", err
	}
	if file.Architecture != platform.Architecture || file.OS != platform.OS {
		return nil, "", fmt.Errorf("expected one for %s, found one for %s/%s", platform.String(), file.OS, file.Architecture)
	}
	digest, err := img.Digest()
	return img, named + digest.String(), err
}

// fromLayout finds an image in an OCI image layout (image-spec, image-layout.md): the one of the tag, or without tag
// the first that fits.
func fromLayout(dir, tag string, platform v1.Platform) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	fits := func(d v1.Descriptor) bool { return d.Platform == nil || d.Platform.Satisfies(platform) }
	for _, d := range manifest.Manifests {
		if tag != "" && d.Annotations["org.opencontainers.image.ref.name"] != tag || !fits(d) {
			continue
		}
		if d.MediaType.IsImage() {
			img, err := index.Image(d.Digest)
			if err != nil || tag != "" || d.Platform != nil {
				return img, err
			}
			file, err := img.ConfigFile()
			if err != nil {
				return nil, err
			}
			if file.OS == platform.OS && file.Architecture == platform.Architecture {
				return img, nil
			}
			continue
		}
		if !d.MediaType.IsIndex() {
			continue
		}
		inner, err := index.ImageIndex(d.Digest)
		if err != nil {
			return nil, err
		}
		list, err := inner.IndexManifest()
		if err != nil {
			return nil, err
		}
		for _, e := range list.Manifests {
			if e.MediaType.IsImage() && e.Platform != nil && fits(e) {
				return inner.Image(e.Digest)
			}
		}
	}
	if tag != "" {
		return nil, fmt.Errorf("the layout has no image for %s with the tag %s", platform.String(), tag)
	}
	return nil, fmt.Errorf("the layout has no image for %s", platform.String())
}

// Limits of what a base image is made of. It is kept in memory.
const (
	maxBase  = 64 << 20 // bytes, all files together
	maxFiles = 10000
)

// MaxConfig is the size in bytes of the largest configuration of an image that is read.
const MaxConfig = 4 << 20

// FromFiles makes a base image of the tar archives that packages unpack to, and of symbolic links (path → target). Names
// may begin with "./" or "/" in links, and with "./" in archives. Archives are read as hostile: anything but folders,
// files, symbolic links and hard links to files that came before, a name or a link that leaves the tree, something below
// what is not a folder, the same file twice, one of links that points to nothing, and too much of anything are errors.
// Owners, times, extended attributes and set-id bits are left out.
func FromFiles(archives []io.Reader, links map[string]string) (v1.Image, error) {
	t := tree{entries: map[string]entry{}}
	for i, a := range archives {
		tr := tar.NewReader(a)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = t.add(h, tr)
			}
			if err != nil {
				return nil, fmt.Errorf("archive %d: %w", i+1, err)
			}
		}
	}
	var ends [][2]string
	for _, link := range slices.Sorted(maps.Keys(links)) {
		target := links[link]
		name, err := clean(strings.TrimPrefix(link, "/"))
		if err != nil || name == "" {
			return nil, fmt.Errorf("link %q: a path in the image is expected", link)
		}
		if err := t.link(name, target); err != nil {
			return nil, fmt.Errorf("link %q: %w", link, err)
		}
		to := strings.TrimPrefix(target, "/")
		if to == target {
			to = path.Join(path.Dir(name), target)
		}
		ends = append(ends, [2]string{link, path.Clean(to)})
	}
	for _, e := range ends {
		if _, ok := t.entries[e[1]]; !ok {
			return nil, fmt.Errorf("link %q: it points to /%s, which none of the archives holds", e[0], e[1])
		}
	}
	for name := range t.entries {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if e, ok := t.entries[dir]; ok && e.head.Typeflag != tar.TypeDir {
				return nil, fmt.Errorf("%q is below %q, which is not a folder", name, dir)
			}
		}
	}
	if len(t.entries) == 0 {
		return nil, errors.New("there is nothing to make a base image of")
	}
	l, err := tarLayer(t.entries)
	if err != nil {
		return nil, err
	}
	return mutate.Append(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
		layer(l, types.OCIUncompressedLayer, time.Time{}, "base from packages"))
}

// tree collects what archives hold.
type tree struct {
	entries map[string]entry
	total   int64
}

// clean returns a name of an archive without "./" and slashes at its ends; "" is the root.
func clean(name string) (string, error) {
	if path.IsAbs(name) || slices.Contains(strings.Split(name, "/"), "..") || strings.ContainsAny(name, "\x00\\") {
		return "", fmt.Errorf("%q: the name leaves the tree", name)
	}
	if name = path.Clean(name); name == "." {
		return "", nil
	}
	return name, nil
}

func (t *tree) add(h *tar.Header, r io.Reader) error {
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%q is not a folder", h.Name)
		}
		return nil
	}
	old, twice := t.entries[name]
	if twice && (h.Typeflag != tar.TypeDir || old.head.Typeflag != tar.TypeDir) {
		return fmt.Errorf("%q is there twice", name)
	}
	if len(t.entries) >= maxFiles {
		return fmt.Errorf("there are more than %d files", maxFiles)
	}
	mode := h.Mode & 0o777
	switch h.Typeflag {
	case tar.TypeDir:
		t.entries[name] = entry{head: header(name+"/", tar.TypeDir, mode, 0, 0)}
	case tar.TypeReg:
		if err := t.grow(h.Size); err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		t.entries[name] = entry{header(name, tar.TypeReg, mode, 0, int64(len(data))), data}
	case tar.TypeLink:
		target, err := clean(h.Linkname)
		if err != nil {
			return fmt.Errorf("%q: hard link to %w", name, err)
		}
		file, ok := t.entries[target]
		if !ok || file.head.Typeflag != tar.TypeReg {
			return fmt.Errorf("%q: hard link to %q, which is not a file that came before it", name, h.Linkname)
		}
		if err := t.grow(file.head.Size); err != nil {
			return err
		}
		t.entries[name] = entry{header(name, tar.TypeReg, file.head.Mode, 0, file.head.Size), file.data}
	case tar.TypeSymlink:
		return t.link(name, h.Linkname)
	default:
		return fmt.Errorf("%q is neither a folder, a file nor a link", name)
	}
	return nil
}

// grow counts the bytes of a file. A sparse one may claim up to 2^63-1 of them.
func (t *tree) grow(size int64) error {
	if size < 0 || size > maxBase-t.total {
		return fmt.Errorf("the files hold more than %d MiB", maxBase>>20)
	}
	t.total += size
	return nil
}

// link adds a symbolic link. An absolute target is one inside the image; a relative one must not leave it.
func (t *tree) link(name, target string) error {
	if _, ok := t.entries[name]; ok {
		return fmt.Errorf("%q is there twice", name)
	}
	if target == "" || strings.ContainsAny(target, "\x00\\") {
		return fmt.Errorf("%q: link to %q", name, target)
	}
	if to := path.Join(path.Dir(name), target); !path.IsAbs(target) && (to == ".." || strings.HasPrefix(to, "../")) {
		return fmt.Errorf("%q: link to %q, which leaves the tree", name, target)
	}
	h := header(name, tar.TypeSymlink, 0o777, 0, 0)
	h.Linkname = target
	t.entries[name] = entry{head: h}
	return nil
}

// Transport is how registries are talked to: through the environment's proxies; over plain http only where the host is
// this machine, or with insecure; and given up when no byte moves for stall (0: 5 minutes), however long the whole takes.
func Transport(insecure bool, stall time.Duration) http.RoundTripper {
	g := newGuarded(stall)
	g.insecure = insecure
	return g
}

// ErrPlain is the error of a request that would go over plain http to another machine.
var ErrPlain = errors.New("it would be talked to over plain http, where anybody on the way could read and change what is sent")

type guarded struct {
	insecure bool // plain http may be used
	public   bool // likewise, but no credentials may be sent over it
	next     http.RoundTripper
}

func newGuarded(stall time.Duration) *guarded {
	if stall == 0 {
		stall = 5 * time.Minute
	}
	dialer := net.Dialer{Timeout: min(stall, 30*time.Second), KeepAlive: 30 * time.Second}
	return &guarded{next: &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &watched{Conn: c, stall: stall}, nil
		},
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          100,
		MaxIdleConnsPerHost:   20,
		IdleConnTimeout:       min(stall, 90*time.Second),
		TLSHandshakeTimeout:   min(stall, 10*time.Second),
		ResponseHeaderTimeout: stall,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}}
}

func (g *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !g.insecure && !Loopback(r.URL.Hostname()) && (!g.public || r.Header.Get("Authorization") != "") {
		return nil, ErrPlain
	}
	resp, err := g.next.RoundTrip(r)
	if err == nil && (resp.StatusCode >= 300 || short(r)) {
		resp.Body = &limited{ReadCloser: resp.Body, left: maxAnswer}
	}
	return resp, err
}

// maxAnswer bounds in bytes what a registry may answer that is no blob. Manifests have at most 4 MiB, and lists come in pages.
const maxAnswer = 16 << 20

// short says whether a request is one of those that the library reads to their end, or into memory, whatever comes.
func short(r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, "/v2/") || strings.HasSuffix(r.URL.Path, "/tags/list") || strings.Contains(r.URL.Path, "/manifests/")
}

// limited is an answer that ends in an error when it is too long.
type limited struct {
	io.ReadCloser
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errors.Join(fmt.Errorf("the answer has more than %d bytes", maxAnswer), l.Close()) // the library does not close what it cannot read
	}
	n, err := l.ReadCloser.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// Loopback says whether a host (without port) is this machine, by its name or address alone.
func Loopback(host string) bool {
	host = strings.Trim(host, "[]")
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// watched is a connection that fails when nothing moves on it for a while.
type watched struct {
	net.Conn
	stall time.Duration
}

func (w *watched) Read(p []byte) (int, error) {
	_ = w.SetDeadline(time.Now().Add(w.stall)) // of a closed connection: Read says it
	return w.Conn.Read(p)
}

func (w *watched) Write(p []byte) (int, error) {
	_ = w.SetDeadline(time.Now().Add(w.stall))
	return w.Conn.Write(p)
}
