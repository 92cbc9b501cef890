package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// ErrNotCarried is the error of asking an index for an image that it lists and does not hold.
var ErrNotCarried = errors.New("the index lists the image and does not hold it")

// Index makes a multi-architecture index of images, in the chart's order, each with its labels at its entry. kept are
// entries of an older index: those for other architectures of the chart stay as they are, and the index does not hold
// their images. The same inputs give the same digest.
func Index(images map[catalog.Arch]v1.Image, kept []v1.Descriptor, annotations map[string]string) (v1.ImageIndex, error) {
	index := &imageIndex{images: map[v1.Hash]v1.Image{}}
	manifest := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}, Annotations: annotations}
	for arch, img := range images {
		if !slices.Contains(catalog.Arches, arch) {
			return nil, fmt.Errorf("%q is not an architecture of the release chart", arch)
		}
		d, err := describe(arch, img)
		if err != nil {
			return nil, fmt.Errorf("image for %s: %w", arch, err)
		}
		index.images[d.Digest] = img
		manifest.Manifests = append(manifest.Manifests, *d)
	}
	for _, d := range kept {
		if a := ArchOf(d); a != "" && !slices.ContainsFunc(manifest.Manifests, func(o v1.Descriptor) bool { return ArchOf(o) == a }) {
			manifest.Manifests = append(manifest.Manifests, d)
		}
	}
	if len(manifest.Manifests) == 0 {
		return nil, errors.New("an index needs at least one image")
	}
	slices.SortFunc(manifest.Manifests, func(a, b v1.Descriptor) int {
		return slices.Index(catalog.Arches, ArchOf(a)) - slices.Index(catalog.Arches, ArchOf(b))
	})
	var err error
	index.raw, err = json.Marshal(manifest)
	return index, err
}

// ArchOf is the architecture of an index's entry; "" where it is none of the release chart.
func ArchOf(d v1.Descriptor) catalog.Arch {
	for _, a := range catalog.Arches {
		if d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == a.OCI() {
			return a
		}
	}
	return ""
}

// describe makes an image's entry.
func describe(arch catalog.Arch, img v1.Image) (*v1.Descriptor, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	if file.OS != "linux" || file.Architecture != arch.OCI() {
		return nil, fmt.Errorf("it is for %s/%s", file.OS, file.Architecture)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	d, err := partial.Descriptor(img)
	if err != nil {
		return nil, err
	}
	d.Platform, d.Annotations, d.ArtifactType = &v1.Platform{OS: "linux", Architecture: arch.OCI()}, manifest.Annotations, ""
	return d, nil
}

// imageIndex is an index that holds some of its images.
type imageIndex struct {
	raw    []byte
	images map[v1.Hash]v1.Image
}

func (i *imageIndex) MediaType() (types.MediaType, error)       { return types.OCIImageIndex, nil }
func (i *imageIndex) Digest() (v1.Hash, error)                  { return partial.Digest(i) }
func (i *imageIndex) Size() (int64, error)                      { return partial.Size(i) }
func (i *imageIndex) RawManifest() ([]byte, error)              { return i.raw, nil }
func (i *imageIndex) ImageIndex(v1.Hash) (v1.ImageIndex, error) { return nil, ErrNotCarried }
func (i *imageIndex) IndexManifest() (m *v1.IndexManifest, err error) {
	m = &v1.IndexManifest{}
	return m, json.Unmarshal(i.raw, m)
}

func (i *imageIndex) Image(h v1.Hash) (v1.Image, error) {
	if img, ok := i.images[h]; ok {
		return img, nil
	}
	return nil, ErrNotCarried
}
