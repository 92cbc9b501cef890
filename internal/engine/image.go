package engine

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ContainerCraft/kmi-tui/internal/engine/boot"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
)

// Image is what is known of a target's image: what the registry says of it, and what the cache holds of its disks. Its
// texts are made harmless.
type Image struct {
	Reference string            // REPOSITORY@DIGEST of the image; "" while nothing is published
	Index     string            // digest of the index that the release's tag points at: "sha256:HEX"
	Tags      []string          // the tag that was asked for, and in a folder all others that point at the index
	Labels    map[string]string // of the image
	Layers    []Layer           // the base's first; nil: they could not be read
	Manifest  int64             // bytes of the manifest

	Disk    string // SHA-256 of the published disk, or else of the one in the cache, hex
	Local   string // path of that disk in the cache; "" if it is not there
	Size    int64  // bytes of that file; 0: not known
	Virtual int64  // bytes that a guest sees; 0: not known

	Tested  time.Time     // when the disk passed its boot test here; zero: no record of it is in this cache
	Boots   []boot.Result // that test, one a firmware
	Changes *PackageChanges
}

// Layer is one layer of an image.
type Layer struct {
	Digest string
	Type   string // media type
	Size   int64  // bytes as they are transferred
	What   string // how it was made, as the image's configuration tells; "" where it does not
}

// PackageChanges is how the packages of a target's two newest disks in the cache differ.
type PackageChanges struct {
	Old, New                string          // when each was made: "2006-01-02"
	Added, Removed, Changed []PackageChange // by name
}

// PackageChange is a package that is in one of two disks only, or in both with different versions.
type PackageChange struct {
	Name     string
	From, To string // versions; "" for none
}

// Image reads what is known of a target's image ("debian:12/x86_64"): four small requests to the registry, and the cache.
// It changes nothing. With an error, what could be found out is there all the same.
func (e *Engine) Image(ctx context.Context, target string) (Image, error) {
	var img Image
	t, err := e.target(target)
	if err != nil {
		return img, err
	}
	e.local(t, &img)
	err = e.remote(ctx, t, &img)
	if img.Disk != "" && t.Flavor.Origin != nil {
		var record testRecord
		if e.cache.Load("tests", testKey(t, img.Disk), &record) {
			img.Tested, img.Boots = record.Time, cleanBoots(record.Results)
		}
	}
	return img, err
}

// target finds a target by its name.
func (e *Engine) target(name string) (Target, error) {
	targets, err := e.Targets(Selection{Only: []string{name}})
	if err != nil {
		return Target{}, err
	}
	for _, t := range targets {
		if t.String() == name {
			return t, nil
		}
	}
	return Target{}, fmt.Errorf("there is no target %s", name)
}

// remote reads what the registry says.
func (e *Engine) remote(ctx context.Context, t Target, img *Image) error {
	repo, err := e.registry.Repository(t.Flavor.ID)
	if err != nil {
		return err
	}
	s, err := publish.Current(ctx, repo, t.Release.Version, t.Arch)
	if err != nil || s == nil || s.Entry == nil {
		return err
	}
	img.Reference, img.Index = repo.Reference(s.Entry.Digest), s.Index.Digest.String()
	for _, tag := range s.Tags {
		img.Tags = append(img.Tags, event.Clean(tag))
	}
	img.Labels = map[string]string{}
	for k, v := range s.Labels() {
		img.Labels[event.Clean(k)] = event.CleanLong(strings.ReplaceAll(v, "\n", " "))
	}
	if h, err := v1.NewHash(img.Labels[container.LabelDisk]); err == nil {
		if h.Hex != img.Disk { // the one in the cache is another one
			img.Local, img.Size, img.Virtual = "", 0, 0
		}
		img.Disk = h.Hex
	}
	img.Size = cmp.Or(img.Size, bytesOf(img.Labels[container.LabelDiskSize]))
	img.Virtual = cmp.Or(img.Virtual, bytesOf(img.Labels[container.LabelVirtualSize]))
	m, err := repo.Get(ctx, s.Entry.Digest.String())
	if err != nil {
		return err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(m.Raw))
	if err != nil {
		return fmt.Errorf("%s: its manifest is not one: %w", img.Reference, err)
	}
	img.Manifest = m.Descriptor.Size
	told, err := history(ctx, repo, manifest.Config)
	for i, l := range manifest.Layers {
		layer := Layer{Digest: l.Digest.String(), Type: event.Clean(string(l.MediaType)), Size: l.Size}
		if len(told) == len(manifest.Layers) {
			layer.What = told[i]
		}
		img.Layers = append(img.Layers, layer)
	}
	return err
}

// history is how each layer was made, as the image's configuration tells.
func history(ctx context.Context, repo publish.Repository, config v1.Descriptor) ([]string, error) {
	r, err := repo.Blob(ctx, config.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, container.MaxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(data) > container.MaxConfig {
		return nil, fmt.Errorf("the configuration %s is larger than %s", config.Digest, fetch.Size(container.MaxConfig))
	}
	c, err := v1.ParseConfigFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("the configuration %s is not one: %w", config.Digest, err)
	}
	var told []string
	for _, h := range c.History {
		if !h.EmptyLayer {
			told = append(told, event.Clean(strings.ReplaceAll(h.CreatedBy, "\n", " ")))
		}
	}
	return told, nil
}

// bytesOf is a label's number; 0 if it is none.
func bytesOf(label string) (n int64) {
	if _, err := fmt.Sscan(label, &n); err != nil || n < 0 {
		return 0
	}
	return n
}

// local finds the target's newest disks in the cache.
func (e *Engine) local(t Target, img *Image) {
	var history []string
	e.cache.Load("history", t.String(), &history)
	type made struct {
		record   diskRecord
		packages []disk.Package
	}
	var disks []made
	for _, key := range history {
		if len(key) != 64 || strings.Trim(key, "0123456789abcdef") != "" || len(disks) == 2 {
			continue
		}
		var m made
		folder := e.cache.Path("disks", key)
		if !e.cache.Load("disks", key, &m.record) || filepath.Base(m.record.Disk.File) != m.record.Disk.File || filepath.Base(m.record.Disk.Packages) != m.record.Disk.Packages {
			continue
		}
		path := filepath.Join(folder, m.record.Disk.File)
		if info, err := os.Stat(path); err != nil || info.Size() != m.record.Disk.Size {
			continue
		}
		if data, err := os.ReadFile(filepath.Join(folder, m.record.Disk.Packages)); err == nil {
			m.packages, _ = disk.ParsePackages(data) // a damaged list is found when it is used
		}
		if len(disks) == 0 {
			img.Disk, img.Local, img.Size, img.Virtual = m.record.Disk.SHA256, path, m.record.Disk.Size, m.record.Disk.VirtualSize
		}
		disks = append(disks, m)
	}
	if len(disks) < 2 || disks[0].packages == nil || disks[1].packages == nil {
		return
	}
	day := func(m made) string {
		at := m.record.Made
		if at.IsZero() {
			at = m.record.Pulled
		}
		return at.UTC().Format(time.DateOnly)
	}
	img.Changes = compare(disks[1].packages, disks[0].packages)
	img.Changes.Old, img.Changes.New = day(disks[1]), day(disks[0])
}

// compare tells how two lists of packages differ. A package of which there are several counts by all of its versions.
func compare(before, after []disk.Package) *PackageChanges {
	versions := func(list []disk.Package) map[string]string {
		all := map[string][]string{}
		for _, p := range list {
			all[p.Name] = append(all[p.Name], p.Version)
		}
		m := map[string]string{}
		for name, v := range all {
			slices.Sort(v)
			m[name] = strings.Join(slices.Compact(v), ", ")
		}
		return m
	}
	old, now := versions(before), versions(after)
	c := &PackageChanges{}
	for name, v := range now {
		switch was, ok := old[name]; {
		case !ok:
			c.Added = append(c.Added, PackageChange{name, "", v})
		case was != v:
			c.Changed = append(c.Changed, PackageChange{name, was, v})
		}
	}
	for name, v := range old {
		if _, ok := now[name]; !ok {
			c.Removed = append(c.Removed, PackageChange{name, v, ""})
		}
	}
	for _, list := range [][]PackageChange{c.Added, c.Removed, c.Changed} {
		slices.SortFunc(list, func(a, b PackageChange) int { return strings.Compare(a.Name, b.Name) })
	}
	return c
}

// cleanBoots makes what guests said harmless once more: the record is a file.
func cleanBoots(list []boot.Result) []boot.Result {
	for i := range list {
		r := &list[i]
		r.Firmware, r.Accel, r.Seconds = event.Clean(r.Firmware), event.Clean(r.Accel), sane(r.Seconds)
		for k := range r.Checks {
			c := &r.Checks[k]
			c.Name, c.Detail, c.Seconds = event.Clean(c.Name), event.CleanLong(c.Detail), sane(c.Seconds)
		}
	}
	return list
}

// Image is nothing: a recording holds none.
func (r *Replay) Image(context.Context, string) (Image, error) {
	return Image{}, notStarted("%s", whyRecording)
}
