package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Base finds a base image: a reference HOST/REPOSITORY[:TAG|@DIGEST], dir:PATH[:TAG] for an OCI layout, or "scratch" for
// none. It returns the image and how metadata names it, by digest.
func Base(ctx context.Context, ref string, arch catalog.Arch) (v1.Image, string, error) {
	platform := v1.Platform{OS: "linux", Architecture: arch.OCI()}
	if ref == "scratch" {
		return empty.Image, "scratch", nil
	}
	if dir, ok := strings.CutPrefix(ref, "dir:"); ok {
		img, err := fromLayout(dir, platform)
		if err != nil {
			return nil, "", event.WithRemedy(fmt.Errorf("base image %s: %w", ref, err), "name another with --base, or let one be made with --base built")
		}
		digest, err := img.Digest()
		return img, digest.String(), err
	}
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, "", event.WithRemedy(fmt.Errorf("base image: %w", err), "write --base HOST/REPOSITORY:TAG, dir:PATH, scratch or built")
	}
	img, err := remote.Image(r, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithPlatform(platform))
	if err != nil {
		return nil, "", event.WithRemedy(fmt.Errorf("base image %s: %w", ref, err),
			"check that %s can be reached, name another with --base, or let one be made from a package archive with --base built", r.Context().RegistryStr())
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, "", err
	}
	return img, r.Context().Name() + "@" + digest.String(), nil
}

func fromLayout(dir string, platform v1.Platform) (v1.Image, error) {
	tag := ""
	if i := strings.LastIndexByte(dir, ':'); i > strings.LastIndexByte(dir, '/') {
		dir, tag = dir[:i], dir[i+1:]
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range manifest.Manifests {
		if tag != "" && d.Annotations["org.opencontainers.image.ref.name"] != tag {
			continue
		}
		if d.MediaType.IsIndex() {
			inner, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			list, err := inner.IndexManifest()
			if err != nil {
				return nil, err
			}
			for _, e := range list.Manifests {
				if e.Platform != nil && e.Platform.Satisfies(platform) {
					return inner.Image(e.Digest)
				}
			}
			continue
		}
		if d.MediaType.IsImage() {
			return index.Image(d.Digest)
		}
	}
	return nil, fmt.Errorf("there is no image %q for %s in the layout", tag, platform.String())
}

// Limits of what a base image is made of.
const (
	maxBase  = 64 << 20 // bytes, all files together
	maxFiles = 10000
)

// FromFiles makes a base image of the tar archives that packages unpack to and of symbolic links (path → target). Only
// directories, regular files and symbolic links are taken; names that leave the tree are errors.
func FromFiles(archives []io.Reader, links map[string]string) (v1.Image, error) {
	type entry struct {
		head tar.Header
		data []byte
	}
	entries := map[string]entry{}
	total := 0
	for _, a := range archives {
		tr := tar.NewReader(a)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			name := path.Clean("/" + h.Name)[1:]
			if strings.Contains("/"+h.Name+"/", "/../") || len(entries) > maxFiles {
				return nil, fmt.Errorf("%q: a name that leaves the tree, or too many files", h.Name)
			}
			e := entry{head: *header(name, h.Typeflag, h.Mode&0o777, 0, 0)}
			switch {
			case name == "":
				continue
			case h.Typeflag == tar.TypeDir:
				e.head.Name += "/"
			case h.Typeflag == tar.TypeSymlink:
				e.head.Linkname = h.Linkname
			case h.Typeflag == tar.TypeReg:
				if total += int(min(h.Size, maxBase+1)); total > maxBase {
					return nil, fmt.Errorf("the packages hold more than %d bytes", maxBase)
				}
				if e.data, err = io.ReadAll(tr); err != nil {
					return nil, err
				}
				e.head.Size = int64(len(e.data))
			default:
				return nil, fmt.Errorf("%q is neither a file, a directory nor a symbolic link", h.Name)
			}
			entries[name] = e
		}
	}
	for link, target := range links {
		name := path.Clean("/" + link)[1:]
		h := header(name, tar.TypeSymlink, 0o777, 0, 0)
		h.Linkname = target
		entries[name] = entry{head: *h}
	}
	for name := range entries {
		for _, dir := range parents(name) {
			if _, ok := entries[dir]; !ok {
				entries[dir] = entry{head: *header(dir+"/", tar.TypeDir, 0o755, 0, 0)}
			}
		}
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, name := range sorted(entries) {
		e := entries[name]
		if err := tw.WriteHeader(&e.head); err != nil {
			return nil, err
		}
		if _, err := tw.Write(e.data); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return mutate.Append(empty.Image, mutate.Addendum{Layer: static.NewLayer(buf.Bytes(), types.OCIUncompressedLayer), MediaType: types.OCIUncompressedLayer,
		History: v1.History{CreatedBy: "kmi-tui: base from packages"}})
}
