package publish

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	guest "github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
)

// Limits are what a registry takes. The zero value is a folder's: it has none.
type Limits struct {
	Registry string // HOST or HOST:PORT, as messages call it
	Layer    int64  // the largest layer, bytes; 0: no limit is known
	Source   string // where that is told
}

// LimitsOf tells what is known of where images are published, HOST[:PORT][/PATH] or dir:PATH. The error is one of a
// catalogue that nobody checked.
func LimitsOf(ref string, c *catalog.Catalog) (l Limits, err error) {
	if strings.HasPrefix(ref, "dir:") {
		return l, nil
	}
	l.Registry, _, _ = strings.Cut(ref, "/")
	if r := c.RegistryOf(ref); r != nil {
		l.Source = r.Source
		l.Layer, err = catalog.ParseLimit(r.Layer)
	}
	return l, err
}

// LimitError is the error of something that is too large for a registry.
type LimitError struct {
	What     string          // "the disk's layer for linux/arm64"
	Type     types.MediaType // "" where it is none yet
	Size     int64           // bytes
	Limit    int64           // bytes
	Of       string          // what the limit is for: "layers", "configurations", "manifests"
	Source   string          // where the limit is told
	Registry string
}

func (e *LimitError) Error() string {
	what := e.What
	if e.Type != "" {
		what += fmt.Sprintf(" (%s)", e.Type)
	}
	return event.Clean(fmt.Sprintf("%s has %d bytes (%s), and %s takes %s of at most %d bytes (%s, see %s)",
		what, e.Size, fetch.Size(e.Size), e.Registry, e.Of, e.Limit, fetch.Size(e.Limit), e.Source))
}

// manifestSource is where maxManifest is told.
const manifestSource = "OCI distribution-spec 1.1, Pushing Manifests"

// CheckDisk says whether a disk can be a layer, before there is one: a layer is a few KiB larger. size is that of its
// file in bytes. The error is a *LimitError with a remedy that names the largest of the guest's packages.
func (l Limits) CheckDisk(size int64, packages []guest.Package) error {
	if l.Layer == 0 || size <= l.Layer {
		return nil
	}
	return event.WithRemedy(&LimitError{What: "the disk", Size: size, Limit: l.Layer, Of: "layers", Source: l.Source, Registry: l.Registry}, "%s", smaller(packages))
}

// Check says whether the registry takes a v1.Image, or a v1.ImageIndex with all that it holds: layers, configurations and
// manifests. Nobody is asked. The error is a *LimitError with a remedy; of a disk's layer it names the largest of the
// guest's packages.
func (l Limits) Check(what any) error {
	if l.Registry == "" {
		return nil
	}
	return l.check(what, "", map[v1.Hash]bool{})
}

// check looks at what is called by its platform, " for linux/arm64", where that is known.
func (l Limits) check(what any, of string, seen map[v1.Hash]bool) error {
	switch x := what.(type) {
	case v1.Image:
		return l.image(x, of)
	case v1.ImageIndex:
		list, err := x.IndexManifest()
		if err != nil {
			return err
		}
		for _, d := range list.Manifests {
			if seen[d.Digest] {
				continue
			}
			seen[d.Digest] = true
			var child any
			if d.MediaType.IsIndex() {
				child, err = x.ImageIndex(d.Digest)
			} else {
				child, err = x.Image(d.Digest)
			}
			if errors.Is(err, container.ErrNotCarried) {
				continue // it is there already
			}
			name := of
			if d.Platform != nil {
				name = " for " + d.Platform.String()
			}
			if err == nil {
				err = l.check(child, name, seen)
			}
			if err != nil {
				return err
			}
		}
		return l.manifest("the index"+of, x)
	}
	return fmt.Errorf("a %T is neither an image nor an index", what)
}

func (l Limits) image(img v1.Image, of string) error {
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	for i, d := range manifest.Layers {
		if l.Layer == 0 || d.Size <= l.Layer {
			continue
		}
		e := &LimitError{What: fmt.Sprintf("layer %d of %d of the image%s", i+1, len(manifest.Layers), of), Type: d.MediaType, Size: d.Size, Limit: l.Layer, Of: "layers", Source: l.Source, Registry: l.Registry}
		if i < len(manifest.Layers)-1 || manifest.Annotations[container.LabelDisk] == "" {
			return event.WithRemedy(e, "take another base image (--base), or publish to a registry that takes larger layers (--registry)")
		}
		e.What = "the disk's layer" + of
		return event.WithRemedy(e, "%s", smaller(packages(img)))
	}
	if d := manifest.Config; d.Size > maxManifest {
		return event.WithRemedy(&LimitError{What: "the configuration of the image" + of, Type: d.MediaType, Size: d.Size, Limit: maxManifest, Of: "configurations", Source: manifestSource, Registry: l.Registry},
			"take a base image with fewer layers and variables (--base)")
	}
	return l.manifest("the manifest of the image"+of, img)
}

func (l Limits) manifest(what string, m interface {
	MediaType() (types.MediaType, error)
	Size() (int64, error)
}) error {
	size, err := m.Size()
	if err != nil || size <= maxManifest {
		return err
	}
	mt, err := m.MediaType()
	if err != nil {
		return err
	}
	return event.WithRemedy(&LimitError{What: what, Type: mt, Size: size, Limit: maxManifest, Of: "manifests", Source: manifestSource, Registry: l.Registry},
		"give the image fewer or shorter labels")
}

// largest is how many packages a remedy names.
const largest = 10

// smaller says how a disk's layer gets smaller.
func smaller(packages []guest.Package) string {
	remedy := "take out packages that the guest can do without, or publish to a registry that takes larger layers (--registry)"
	var names []string
	for _, p := range guest.Largest(packages, largest) {
		names = append(names, fmt.Sprintf("%s (%s)", p.Name, fetch.Size(p.Installed)))
	}
	if len(names) > 0 {
		remedy += "; the largest packages by their installed size: " + strings.Join(names, ", ")
	}
	return event.Clean(remedy)
}

// maxListed bounds in bytes each file that is read of an image's metadata.
const maxListed = 64 << 20

// packages reads the list of the guest's packages; nil where there is none that can be read.
func packages(img v1.Image) []guest.Package {
	files, err := Metadata(img, "kmi/packages.txt")
	if err != nil {
		return nil
	}
	list, err := guest.ParsePackages(files["kmi/packages.txt"])
	if err != nil {
		return nil
	}
	return list
}

// Metadata reads files of an image's metadata layer, the one before the disk's (container.Build), by their paths without
// leading slashes. Those that are not there are missing in the result.
func Metadata(img v1.Image, names ...string) (map[string][]byte, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	if len(layers) < 2 {
		return nil, errors.New("the image has no layer with metadata")
	}
	rc, err := layers[len(layers)-2].Uncompressed()
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	found := map[string][]byte{}
	tr := tar.NewReader(io.LimitReader(rc, 4*maxListed))
	for len(found) < len(names) {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || !slices.Contains(names, name) {
			continue
		}
		if found[name], err = io.ReadAll(io.LimitReader(tr, maxListed)); err != nil {
			return nil, err
		}
	}
	return found, nil
}
