package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ContainerCraft/kmi-tui/internal/engine/boot"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

func (j *job) pack(ctx context.Context, scope *event.Scope) (string, error) {
	packages, err := os.ReadFile(filepath.Join(j.folder, j.disk.Packages))
	if err != nil {
		return "", err
	}
	list, err := disk.ParsePackages(packages)
	if err != nil {
		_ = os.RemoveAll(j.folder)
		return "", event.WithRemedy(fmt.Errorf("the cache is damaged: %w", err), "run again: the disk will be built anew")
	}
	// What cannot be published need not be packed and tested. A compressed layer may be smaller than its disk.
	if j.e.form == container.Plain {
		if err := j.e.limits.CheckDisk(j.disk.Size, list); err != nil {
			return "", err
		}
	}
	path := filepath.Join(j.folder, j.disk.File)
	base, baseName, err := j.base(ctx, scope)
	if err != nil {
		return "", err
	}
	j.tested = "no"
	if firmware := j.target.Flavor.Origin.Boot[j.target.Arch].Firmware; len(firmware) > 0 {
		j.tested = strings.Join(firmware, " ") + " baseline " + boot.Version
	}
	f := j.target.Flavor
	meta := j.metadata(ctx, baseName)
	if missing := meta.Missing(); len(missing) > 0 {
		text := "the image criteria want metadata that is empty: " + strings.Join(missing, ", ")
		if f.Level == catalog.Stable {
			return "", event.WithRemedy(errors.New(text), "fill it into the row %s of %s", f.ID, j.e.cfg.Catalog.Path)
		}
		scope.Log(text)
	}
	environment := map[string]string{}
	instancetype, preference := f.Machine(j.target.Release, j.target.Arch)
	if instancetype != "" {
		environment[container.EnvInstancetype] = instancetype
	}
	if preference != "" {
		environment[container.EnvPreference] = preference
	}
	work := ""
	if j.e.form != container.Plain {
		if work, j.packed, err = j.e.cache.Work("layer"); err != nil {
			return "", err
		}
	}
	packing := "hashed"
	if j.e.form != container.Plain {
		packing = "compressed"
	}
	j.image, err = container.Build(container.Spec{Base: base, Arch: j.target.Arch, DiskPath: path, DiskSHA256: j.disk.SHA256, Layer: j.e.form, Work: work, Metadata: meta, Packages: packages,
		Told:     func(done, total int64) { scope.Progress(done, total, "bytes "+packing) },
		Licences: os.DirFS(filepath.Join(j.folder, j.disk.Licences)), Environment: environment, Created: j.pulledOn()})
	if err != nil {
		if sum, _, serr := disk.Sum(path); serr == nil && sum != j.disk.SHA256 {
			_ = os.RemoveAll(j.folder)
			return "", event.WithRemedy(fmt.Errorf("%s: expected sha256:%s, found sha256:%s: the cache is damaged", path, j.disk.SHA256, sum), "run again: the disk will be built anew")
		}
		return "", err
	}
	if j.digest, err = j.image.Digest(); err != nil {
		return "", err
	}
	size, err := imageSize(j.image)
	return fmt.Sprintf("image %s, %s on %s", j.digest, fetch.Size(size), baseName), err
}

// pulledOn is the day on which upstream was pulled (UTC). It is a part of the image, and so an input of it: the day of the
// cache's first download, unless SOURCE_DATE_EPOCH says another (reproducible-builds.org/specs/source-date-epoch).
func (j *job) pulledOn() time.Time {
	at := j.pulled
	if !j.e.cfg.SourceDate.IsZero() {
		at = j.e.cfg.SourceDate
	}
	return at.UTC().Truncate(24 * time.Hour)
}

// metadata is what the image says of itself.
func (j *job) metadata(ctx context.Context, base string) container.Metadata {
	f, r, p, s := j.target.Flavor, j.target.Release, j.e.cfg.Catalog.Project, j.snapshot
	public := p.Public + "/" + f.ID + ":" + r.Version
	how := map[string]string{"packages": "built from upstream's package archive", "image": "upstream's disk, customised"}[f.Origin.Kind]
	return container.Metadata{
		Title: f.Name + " " + r.Version, Flavor: f.ID, Release: r.Version, Codename: r.Codename, Arch: string(j.target.Arch), Level: string(f.Level), User: f.User,
		Project: p.Name, Source: p.Source, Commit: j.e.commit(ctx), Builder: "kmi-tui " + j.e.cfg.Version, How: how,
		Upstream: s.URL, UpstreamBuild: s.Build, UpstreamDate: s.Date, Pulled: j.pulledOn().Format(time.DateOnly),
		Checksums: []string{s.Checksum}, ChecksumOf: checksumOf(s), Signature: s.Signature, Trust: s.Trust,
		Documentation: f.Docs, Download: f.Download, Home: f.Home, Licence: f.Licence, PassingOn: string(f.Redistribution),
		DiskSHA256: j.disk.SHA256, VirtualSize: j.disk.VirtualSize, ContentKey: "sha256:" + j.content, Recipe: "sha256:" + j.key,
		LeftOut: leftOut(f.Origin, r), Tested: j.tested, Base: base,
		Verify: []string{"kmi-tui verify " + public + " --key cosign.pub", "cosign verify --key cosign.pub --insecure-ignore-tlog " + public},
	}
}

// checksumOf says what a snapshot's checksum is of.
func checksumOf(s *upstream.Snapshot) string {
	if s.File != nil {
		return "upstream's file, as it was downloaded"
	}
	return "the sorted list of packages: name, version, architecture, SHA-256; each verified"
}

// leftOut says what was not done to a disk that upstream made, and why; "" if everything was.
func leftOut(o *catalog.Origin, r *catalog.Release) string {
	if o.Kind != "image" || o.Customise == nil {
		return ""
	}
	if why := o.Untouched(r); why != "" {
		return "everything: " + why
	}
	var list []string
	for _, part := range catalog.Parts {
		if why, ok := o.Customise.Without[part]; ok {
			list = append(list, part+": "+why)
		}
	}
	return strings.Join(list, "; ")
}

func imageSize(img v1.Image) (size int64, err error) {
	m, err := img.Manifest()
	if err != nil {
		return 0, err
	}
	for _, l := range m.Layers {
		size += l.Size
	}
	return size, nil
}

// base is a base image, as it was found once for all images of an architecture.
type base struct {
	image v1.Image
	name  string // how metadata names it; "" if it was not found yet
}

// base is the base image and its name. It is found before hours of work that would be in vain without it.
func (j *job) base(ctx context.Context, scope *event.Scope) (v1.Image, string, error) {
	j.e.baseMu.Lock()
	defer j.e.baseMu.Unlock()
	b := j.e.bases[j.target.Arch]
	if b.name == "" {
		var err error
		if b.image, b.name, err = j.findBase(ctx, scope); err != nil {
			return nil, "", err
		}
		j.e.bases[j.target.Arch] = b
	}
	return b.image, b.name, nil
}

// findBase finds the base image, or makes one from a package archive.
func (j *job) findBase(ctx context.Context, scope *event.Scope) (v1.Image, string, error) {
	if j.e.cfg.Base != "built" {
		return container.Base(ctx, j.e.cfg.Base, j.target.Arch)
	}
	b := j.e.cfg.Catalog.Base.Built
	flavor, release, err := j.e.cfg.Catalog.Release(b.Flavor, b.Release)
	if err != nil {
		return nil, "", event.WithRemedy(err, "describe [base.built] in %s, or name another base with --base", j.e.cfg.Catalog.Path)
	}
	s, err := upstream.Find(ctx, j.query(flavor, release, b.Packages, scope), scope)
	if err != nil {
		return nil, "", fmt.Errorf("base image: %w", err)
	}
	var skip *event.Skip
	if err := j.e.fetcher.All(ctx, items(s), scope); err != nil && !errors.As(err, &skip) {
		return nil, "", fmt.Errorf("base image: %w", err)
	}
	var tars []io.Reader
	var names []string
	for _, p := range s.Packages {
		data, err := command.Output(ctx, command.Command{Name: "dpkg-deb", Args: []string{"--fsys-tarfile", j.e.cache.Blob(p.SHA256)}}, 64<<20, scope)
		if err != nil {
			return nil, "", fmt.Errorf("base image: %w", err)
		}
		tars = append(tars, strings.NewReader(string(data)))
		names = append(names, p.Name+" "+p.Version)
	}
	scope.Logf("the base image is made of %s, from %s", strings.Join(names, ", "), s.URL)
	img, err := container.FromFiles(tars, b.Links)
	return img, "built from " + strings.Join(names, ", "), err
}
