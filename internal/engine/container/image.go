// Package container makes the OCI image around a disk: the base image, the metadata with the guest's licences and
// entrypoint.sh, and /disk with exactly one file, as KubeVirt's containerDisk wants it. The same inputs give the same
// digest, always and everywhere.
package container

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// Labels of an image, besides OCI's own (org.opencontainers.image.*, image-spec annotations.md). They stand in the
// image's configuration, as annotations of its manifest, and at its entry in the index: what a registry has can be told
// with one request.
const (
	LabelFlavor      = "io.kmi.flavor"         // id in the catalogue
	LabelArch        = "io.kmi.arch"           // as the release chart spells it
	LabelLevel       = "io.kmi.level"          // of the release chart, when the image was built
	LabelTested      = "io.kmi.tested"         // what the boot test proved before publication; "no"
	LabelContentKey  = "io.kmi.content-key"    // what the guest is made of: "sha256:HEX"
	LabelRecipe      = "io.kmi.recipe"         // what is known of that before the disk is made: "sha256:HEX"
	LabelUpstream    = "io.kmi.upstream"       // upstream's name for its build
	LabelTrust       = "io.kmi.trust"          // what vouches for it: "indexes signed (openpgp)", "checksum over TLS only: …"
	LabelPassingOn   = "io.kmi.redistribution" // "free", "unclear", "restricted"
	LabelDisk        = "io.kmi.disk"           // "sha256:HEX" of the file in /disk
	LabelDiskSize    = "io.kmi.disk-size"      // of that file, bytes
	LabelVirtualSize = "io.kmi.virtual-size"   // of the root disk, bytes
	LabelLayer       = "io.kmi.layer"          // how a compressed layer of the disk was made: "zstd/1"; none where it is not compressed
	LabelUser        = "io.kmi.user"           // the login that the guest's provisioning makes
	LabelLicence     = "io.kmi.licence"        // URL
	LabelCreated     = "org.opencontainers.image.created"
)

// Environment variables of an image that KubeVirt's importer turns into labels of the volume: names of KubeVirt's
// common-instancetypes, fit for the architecture (containerized-data-importer, registry-datasource.go).
const (
	EnvInstancetype = "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE"
	EnvPreference   = "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_PREFERENCE"
)

// DiskFile is the name of the one file under /disk where Spec.DiskName does not say otherwise.
const DiskFile = "disk.qcow2"

// owner is the user and group that KubeVirt opens disks as (qemu).
const owner = 107

// What one image's metadata layer may hold. It is kept in memory.
const (
	maxMetadata = 128 << 20 // bytes
	maxLicences = 20000     // files
)

//go:embed entrypoint.sh
var entrypoint []byte

// Script is where entrypoint.sh lies, without a leading slash; /entrypoint.sh is a link to it. crun-vm boots an image whose entrypoint has this
// name, if / and /disk together hold one regular file (crun-vm, src/commands/create/custom_opts.rs and src/util.rs); podman
// finds it on PATH and prints the metadata. It must not be in /usr/bin, which KubeVirt hides.
const Script = "usr/local/bin/no-entrypoint"

// Spec says what goes into an image.
type Spec struct {
	Base v1.Image // the base image; nil: from scratch, where nothing can run entrypoint.sh
	Arch catalog.Arch

	DiskPath    string                  // the guest's disk: a qcow2 that needs no other file; it must not change until the image is pushed
	DiskName    string                  // its name in /disk; "" means DiskFile
	DiskSHA256  string                  // what it has to be, hex; "" leaves it open
	DiskSize    int64                   // likewise, bytes
	VirtualSize int64                   // of the root disk, likewise, bytes
	Layer       Form                    // how the disk's layer is compressed; "" means Plain
	Told        func(done, total int64) // hears how many bytes of the disk are hashed, and compressed with them; nil: nobody does
	Work        string                  // folder for a compressed layer's file, which stays there and is needed until the image is pushed

	Metadata    Metadata          // what the image says of itself; Build adds what it knows
	Packages    []byte            // the guest's packages, text
	Licences    fs.FS             // the guest's licence files, folders and regular files only; nil for none
	Labels      map[string]string // besides those that follow from Metadata; Build adds what it knows
	Environment map[string]string // see EnvInstancetype
	Created     time.Time         // says the image, and is part of its digest; zero means 1970
}

// Build makes the image. The disk is read once, to hash it, and again each time the image is pushed; where its layer is
// compressed, that happens in the same pass, and what is pushed is the file. Errors are those of
// the files, of a disk that is not what the spec says or not one that KubeVirt may be given, and of metadata that cannot
// be printed.
func Build(s Spec) (v1.Image, error) {
	if !slices.Contains(catalog.Arches, s.Arch) {
		return nil, fmt.Errorf("%q is not an architecture of the release chart", s.Arch)
	}
	if s.DiskName == "" {
		s.DiskName = DiskFile
	}
	if s.DiskName != path.Base(s.DiskName) || s.DiskName[0] == '.' || s.DiskName[0] == '/' || len(s.DiskName) > 64 || strings.ContainsFunc(s.DiskName, unicode.IsControl) {
		return nil, fmt.Errorf("%q is not a name for the file in /disk", s.DiskName)
	}
	form, err := ParseForm(string(s.Layer))
	if err != nil {
		return nil, err
	}
	var disk *diskLayer
	var packed v1.Layer
	if form == Plain {
		disk, err = newDiskLayer(s)
		packed = disk
	} else {
		var p *packedLayer
		if p, err = newPackedLayer(s); err == nil {
			disk, packed = p.diskLayer, p
		}
	}
	if err != nil {
		return nil, err
	}
	meta, err := metadataLayer(s, disk)
	if err != nil {
		return nil, err
	}
	labels := s.Metadata.Labels()
	maps.Copy(labels, s.Labels)
	labels[LabelArch], labels[LabelDisk], labels[LabelDiskSize] = string(s.Arch), "sha256:"+disk.sum, strconv.FormatInt(disk.length, 10)
	labels[LabelVirtualSize] = strconv.FormatInt(disk.virtual, 10)
	if !s.Created.IsZero() {
		labels[LabelCreated] = created(s.Created).Format(time.RFC3339)
	}
	if form != Plain {
		labels[LabelLayer] = string(form) + "/" + encoding
	}
	for _, name := range []string{"containers.bootc", "ostree.bootable"} {
		if _, ok := labels[name]; ok {
			return nil, fmt.Errorf("label %s: KubeVirt's importer refuses images that carry it", name)
		}
	}

	config := v1.Config{User: strconv.Itoa(owner), WorkingDir: "/", Entrypoint: []string{path.Base(Script)}, Labels: labels}
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	var adds []mutate.Addendum
	if s.Base != nil {
		if adds, err = baseLayers(s.Base, s.Created, env); err != nil {
			return nil, fmt.Errorf("base image: %w", err)
		}
	}
	adds = append(adds, layer(meta, types.OCIUncompressedLayer, s.Created, "metadata and licences"), layer(packed, form.mediaType(), s.Created, "disk"))
	if !slices.Contains(strings.Split(env["PATH"], ":"), "/"+path.Dir(Script)) {
		env["PATH"] = "/" + path.Dir(Script) + ":" + env["PATH"]
	}
	maps.Copy(env, s.Environment)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		config.Env = append(config.Env, name+"="+env[name])
	}

	img, err := mutate.Append(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), adds...)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file.Created, file.Architecture, file.OS, file.Config = created(s.Created), s.Arch.OCI(), "linux", config
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return nil, err
	}
	annotated, ok := mutate.Annotations(img, labels).(v1.Image)
	if !ok {
		return nil, errors.New("annotations made something else of the image")
	}
	_, err = annotated.Digest()
	return annotated, err
}

// layer adds a layer that this package made.
func layer(l v1.Layer, mt types.MediaType, at time.Time, what string) mutate.Addendum {
	return mutate.Addendum{Layer: l, MediaType: mt, History: v1.History{Created: created(at), CreatedBy: "kmi-tui: " + what}}
}

func created(t time.Time) v1.Time {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return v1.Time{Time: t.UTC().Truncate(time.Second)}
}

// baseLayers are the base's layers, with OCI's names for their forms, and its environment goes into env. Its labels are
// left out: they tell of another image, and some make KubeVirt's importer refuse it.
func baseLayers(base v1.Image, at time.Time, env map[string]string) (adds []mutate.Addendum, err error) {
	layers, err := base.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		mt, err := l.MediaType()
		if err != nil {
			return nil, err
		}
		switch mt {
		case types.DockerLayer:
			mt = types.OCILayer
		case types.DockerUncompressedLayer:
			mt = types.OCIUncompressedLayer
		case types.OCILayer, types.OCIUncompressedLayer, types.OCILayerZStd:
		default:
			return nil, fmt.Errorf("a layer is of type %s: only layers that may be passed on can be used", mt)
		}
		adds = append(adds, layer(l, mt, at, "base"))
	}
	file, err := base.ConfigFile()
	if err != nil {
		return nil, err
	}
	for _, e := range file.Config.Env {
		if name, value, ok := strings.Cut(e, "="); ok {
			env[name] = value
		}
	}
	return adds, nil
}

// metadataLayer holds /kmi, the script that prints it, and /entrypoint.sh.
func metadataLayer(s Spec, disk *diskLayer) (v1.Layer, error) {
	known := []Field{{"disk", "/disk/" + s.DiskName}, {"disk-format", "qcow2"}, {"disk-sha256", disk.sum}, {"disk-size", disk.length}, {"disk-virtual-size", disk.virtual}}
	if len(s.Packages) > 0 {
		sum := sha256.Sum256(s.Packages)
		known = append(known, Field{"package-list", "/kmi/packages.txt sha256:" + hex.EncodeToString(sum[:])})
	}
	if s.Licences != nil {
		known = append(known, Field{"licence-files", "/kmi/licenses"})
	}
	fields, err := complete(s.Metadata.Fields(), known)
	if err != nil {
		return nil, err
	}
	object, err := document(fields)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{Script: entrypoint, "kmi/metadata.json": object, "kmi/packages.txt": s.Packages}
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
		files["kmi/fields/"+f.Name] = []byte(f.text() + "\n")
	}
	files["kmi/fields.txt"] = []byte(strings.Join(names, "\n") + "\n")
	total := int64(len(s.Packages))
	var licences strings.Builder
	if s.Licences != nil {
		err := fs.WalkDir(s.Licences, ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if !info.Mode().IsRegular() {
				return fmt.Errorf("licence file %s is not a regular file", p)
			}
			if strings.ContainsFunc(p, unicode.IsControl) {
				return fmt.Errorf("licence file %q has control characters in its name", p)
			}
			if total += info.Size(); total > maxMetadata || len(files) > maxLicences {
				return fmt.Errorf("licences and packages hold more than %d MiB or %d files", maxMetadata>>20, maxLicences)
			}
			text, err := fs.ReadFile(s.Licences, p)
			files["kmi/licenses/"+p] = text
			licences.WriteString(p + "\n")
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	files["kmi/licenses.txt"] = []byte(licences.String())

	entries := map[string]entry{}
	for name, data := range files {
		mode := int64(0o444)
		if name == Script {
			mode = 0o555
		}
		entries[name] = entry{header(name, tar.TypeReg, mode, 0, int64(len(data))), data}
	}
	link := header("entrypoint.sh", tar.TypeSymlink, 0o777, 0, 0)
	link.Linkname = Script
	entries["entrypoint.sh"] = entry{head: link}
	return tarLayer(entries)
}

// entry is one file of a tar archive.
type entry struct {
	head *tar.Header
	data []byte
}

// tarLayer makes an uncompressed layer of entries by their path (without slashes at its ends), with the folders that
// lead to them. Uncompressed, because a compressor's output may change with its version.
func tarLayer(entries map[string]entry) (v1.Layer, error) {
	for _, name := range slices.Collect(maps.Keys(entries)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := entries[dir]; !ok {
				entries[dir] = entry{head: header(dir+"/", tar.TypeDir, 0o755, 0, 0)}
			}
		}
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if err := tw.WriteHeader(entries[name].head); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, err := tw.Write(entries[name].data); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return static.NewLayer(buf.Bytes(), types.OCIUncompressedLayer), nil
}

// header is a tar header that says nothing of when and where it was made. Its format is USTAR; archive/tar takes PAX
// where USTAR has no room (files from 8 GiB, paths that cannot be split at 155 and 100 bytes).
func header(name string, kind byte, mode int64, id int, size int64) *tar.Header {
	return &tar.Header{Name: name, Typeflag: kind, Mode: mode, Uid: id, Gid: id, Size: size, ModTime: time.Unix(0, 0).UTC()}
}
