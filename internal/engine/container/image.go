// Package container makes the OCI image around a disk: the base image, the metadata with the guest's licences and
// entrypoint.sh, and /disk/ with exactly one file, as KubeVirt's containerDisk wants it. The same inputs give the same
// digest, always.
package container

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// Labels of an image, besides OCI's own (org.opencontainers.image.*, image-spec annotations.md).
const (
	LabelContentKey  = "io.kmi.content-key"  // what the guest is made of: "sha256:HEX"
	LabelTested      = "io.kmi.tested"       // what the boot test proved before publication
	LabelDisk        = "io.kmi.disk"         // "sha256:HEX" of the file in /disk
	LabelLevel       = "io.kmi.level"        // the level at publication
	LabelUpstream    = "io.kmi.upstream"     // upstream's build
	LabelVirtualSize = "io.kmi.virtual-size" // bytes
)

// DiskFile is the one file under /disk.
const DiskFile = "disk.qcow2"

// owner is the user that KubeVirt opens disks as (qemu).
const owner = 107

//go:embed entrypoint.sh
var entrypoint []byte

// Field is one piece of metadata that entrypoint.sh prints by its name.
type Field struct {
	Name  string // lower-case letters and hyphens
	Value string
}

// Spec says what goes into an image.
type Spec struct {
	Base        v1.Image // the base; empty.Image for none
	Arch        catalog.Arch
	DiskPath    string // the qcow2, read when the image is hashed and again when it is pushed
	Metadata    []Field
	Packages    []byte // the guest's packages, text
	Licences    fs.FS  // the guest's licence files; nil for none
	Labels      map[string]string
	Environment map[string]string
	Created     time.Time // of the newest that is in it; part of the digest
}

// Build makes the image. The disk is read once to hash it. Errors are those of the files.
func Build(s Spec) (v1.Image, error) {
	meta, err := metadataLayer(s)
	if err != nil {
		return nil, err
	}
	disk, err := diskLayer(s.DiskPath)
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(s.Base, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(base,
		mutate.Addendum{Layer: meta, MediaType: types.OCIUncompressedLayer, History: v1.History{Created: v1.Time{Time: s.Created}, CreatedBy: "kmi-tui: metadata and licences"}},
		mutate.Addendum{Layer: disk, MediaType: types.OCIUncompressedLayer, History: v1.History{Created: v1.Time{Time: s.Created}, CreatedBy: "kmi-tui: disk"}})
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.Created = v1.Time{Time: s.Created}
	cfg.Architecture, cfg.OS, cfg.Variant = s.Arch.OCI(), "linux", ""
	cfg.Author, cfg.Container, cfg.DockerVersion = "", "", ""
	cfg.Config.Entrypoint, cfg.Config.Cmd = []string{"/entrypoint.sh"}, nil
	cfg.Config.User = fmt.Sprintf("%d:%d", owner, owner)
	cfg.Config.WorkingDir = "/"
	cfg.Config.Hostname = ""
	cfg.Config.Labels = s.Labels
	cfg.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, k := range sorted(s.Environment) {
		cfg.Config.Env = append(cfg.Config.Env, k+"="+s.Environment[k])
	}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		return nil, err
	}
	annotated, ok := mutate.Annotations(img, s.Labels).(v1.Image)
	if !ok {
		return nil, errors.New("annotations made something else of the image")
	}
	return annotated, nil
}

// Index makes the multi-architecture index: each architecture's image once, in the chart's order. kept are entries of
// an older index for architectures that images does not have.
func Index(images map[catalog.Arch]v1.Image, kept []v1.Descriptor, annotations map[string]string) (v1.ImageIndex, error) {
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var add []mutate.IndexAddendum
	for _, arch := range catalog.Arches {
		if img, ok := images[arch]; ok {
			manifest, err := img.Manifest()
			if err != nil {
				return nil, err
			}
			// The labels stand here too: what is published can be told with one request.
			add = append(add, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch.OCI()}, Annotations: manifest.Annotations}})
			continue
		}
		for _, d := range kept {
			if d.Platform != nil && d.Platform.Architecture == arch.OCI() {
				add = append(add, mutate.IndexAddendum{Add: remembered{d}, Descriptor: d})
				break
			}
		}
	}
	index = mutate.AppendManifests(index, add...)
	if len(annotations) > 0 {
		annotated, ok := mutate.Annotations(index, annotations).(v1.ImageIndex)
		if !ok {
			return nil, errors.New("annotations made something else of the index")
		}
		index = annotated
	}
	return index, nil
}

// remembered stands in an index for a manifest that the registry has already.
type remembered struct{ d v1.Descriptor }

func (r remembered) MediaType() (types.MediaType, error) { return r.d.MediaType, nil }
func (r remembered) Digest() (v1.Hash, error)            { return r.d.Digest, nil }
func (r remembered) Size() (int64, error)                { return r.d.Size, nil }

// metadataLayer holds /kmi and /entrypoint.sh.
func metadataLayer(s Spec) (v1.Layer, error) {
	files := map[string][]byte{"entrypoint.sh": entrypoint, "kmi/packages.txt": s.Packages}
	object := map[string]string{}
	var names []string
	for _, f := range s.Metadata {
		if f.Name == "" || strings.Trim(f.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return nil, fmt.Errorf("metadata field %q: a name has lower-case letters, digits and hyphens", f.Name)
		}
		files["kmi/fields/"+f.Name] = []byte(f.Value + "\n")
		object[f.Name] = f.Value
		names = append(names, f.Name)
	}
	data, err := json.MarshalIndent(object, "", "  ")
	if err != nil {
		return nil, err
	}
	files["kmi/metadata.json"] = append(data, '\n')
	files["kmi/names"] = []byte(strings.Join(names, "\n") + "\n")
	if s.Licences != nil {
		var all bytes.Buffer
		err := fs.WalkDir(s.Licences, ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := fs.ReadFile(s.Licences, p)
			if err != nil {
				return err
			}
			files["kmi/licenses/"+p] = text
			fmt.Fprintf(&all, "===== %s\n%s\n", p, text)
			return nil
		})
		if err != nil {
			return nil, err
		}
		files["kmi/licenses.txt"] = all.Bytes()
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	dirs := map[string]bool{}
	for _, name := range sorted(files) {
		for _, dir := range parents(name) {
			if !dirs[dir] {
				dirs[dir] = true
				if err := tw.WriteHeader(header(dir+"/", tar.TypeDir, 0o755, 0, 0)); err != nil {
					return nil, err
				}
			}
		}
		mode := int64(0o444)
		if name == "entrypoint.sh" {
			mode = 0o555
		}
		if err := tw.WriteHeader(header(name, tar.TypeReg, mode, 0, int64(len(files[name])))); err != nil {
			return nil, err
		}
		if _, err := tw.Write(files[name]); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return static.NewLayer(buf.Bytes(), types.OCIUncompressedLayer), nil
}

// header is a tar header that says nothing of when and where it was made.
func header(name string, kind byte, mode int64, id int, size int64) *tar.Header {
	format := tar.FormatUSTAR
	if size >= 8<<30 || len(name) > 95 {
		format = tar.FormatPAX
	}
	return &tar.Header{Name: name, Typeflag: kind, Mode: mode, Uid: id, Gid: id, Size: size, ModTime: time.Unix(0, 0).UTC(), Format: format}
}

func parents(name string) (dirs []string) {
	for d := path.Dir(name); d != "."; d = path.Dir(d) {
		dirs = append([]string{d}, dirs...)
	}
	return dirs
}

func sorted[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// disk is the layer with /disk: an uncompressed tar (the file in it is compressed already) that is never held in memory
// nor written anywhere: head, the file itself, padding.
type disk struct {
	path   string
	head   []byte // tar headers of the directory and the file
	foot   []byte // padding and the end of the archive
	size   int64  // of the whole layer
	length int64  // of the file
	once   sync.Once
	hash   v1.Hash
	file   string // SHA-256 of the file, hex
	err    error
}

func diskLayer(file string) (*disk, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	var head bytes.Buffer
	tw := tar.NewWriter(&head)
	if err := tw.WriteHeader(header("disk/", tar.TypeDir, 0o555, owner, 0)); err != nil {
		return nil, err
	}
	if err := tw.WriteHeader(header("disk/"+DiskFile, tar.TypeReg, 0o444, owner, info.Size())); err != nil {
		return nil, err
	}
	pad := (512 - info.Size()%512) % 512
	d := &disk{path: file, head: head.Bytes(), foot: make([]byte, pad+1024), length: info.Size()}
	d.size = int64(len(d.head)) + info.Size() + int64(len(d.foot))
	return d, nil
}

func (d *disk) hashed() error {
	d.once.Do(func() {
		f, err := os.Open(d.path)
		if err != nil {
			d.err = err
			return
		}
		defer f.Close()
		whole, inner := sha256.New(), sha256.New()
		whole.Write(d.head)
		n, err := io.Copy(io.MultiWriter(whole, inner), f)
		if err == nil && n != d.length {
			err = fmt.Errorf("%s changed while it was read", d.path)
		}
		whole.Write(d.foot)
		d.err, d.file = err, hex.EncodeToString(inner.Sum(nil))
		d.hash = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(whole.Sum(nil))}
	})
	return d.err
}

func (d *disk) Digest() (v1.Hash, error)            { return d.hash, d.hashed() }
func (d *disk) DiffID() (v1.Hash, error)            { return d.hash, d.hashed() }
func (d *disk) Size() (int64, error)                { return d.size, nil }
func (d *disk) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }
func (d *disk) Compressed() (io.ReadCloser, error)  { return d.Uncompressed() }
func (d *disk) Uncompressed() (io.ReadCloser, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(d.head), io.LimitReader(f, d.length), bytes.NewReader(d.foot)), f}, nil
}
