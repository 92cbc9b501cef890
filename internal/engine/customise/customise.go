// Package customise turns a disk that upstream published into a guest's disk: enlarged, updated, with the project's
// packages and an agent that KubeVirt can use, without an identity of its own. Upstream's file is only read.
package customise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// Version names what this package makes of the same inputs. It is part of what decides whether a disk has to be made
// anew: whoever changes the result changes it.
const Version = "1"

// Copy is the way of a disk in which nothing is changed: it gets its size and its form only.
const Copy = "copy"

// Spec says what to customise.
type Spec struct {
	Origin   *catalog.Origin // of kind image, with Customise
	Manager  catalog.Manager
	Release  *catalog.Release
	Arch     catalog.Arch
	Packages []string // the project's default packages, by the project's names
	Disk     string   // upstream's file, which disk.Inspect has accepted
	Size     int64    // virtual size in bytes; a disk that is larger stays as it is
	Way      string   // see Choose
	Mirrors  []upstream.Mirror
	Dir      string // an empty folder to work in; the results end up in its subfolder "result"
	Cache    string // a folder that stays, for what later runs can use again
	Zstd     bool   // see disk.Compression
}

// translation is what a package of the project is called in this release.
func (s Spec) translation(name string) (string, bool) {
	if t, ok := s.Release.Packages[name]; ok {
		return t, true
	}
	t, ok := s.Origin.Packages[name]
	return t, ok
}

// expand fills in what a catalogue's text leaves open.
func (s Spec) expand(text string) string {
	return strings.NewReplacer("{version}", s.Release.Version, "{codename}", s.Release.Codename, "{arch}", s.Origin.ArchNames[s.Arch]).Replace(text)
}

// run is one customisation under way.
type run struct {
	Spec
	scope   *event.Scope
	proxy   string // where the guest reaches package archives
	raw     string // the disk under work
	out     string // the archive that the guest leaves
	volumes []disk.Volume
	root    disk.Volume
	grow    bool        // its file system has to fill its partition
	parts   []disk.Step // inside the guest
	began   time.Time   // of the last of parts
	steps   []disk.Step
}

// Run makes the disk. Cancelled or failed, it leaves unfinished files in Spec.Dir only, and no process, mount or device.
// Errors: what went wrong, with a remedy where there is one (*event.Remedied).
func Run(ctx context.Context, s Spec, scope *event.Scope) (*disk.Disk, error) {
	r := &run{Spec: s, scope: scope, raw: filepath.Join(s.Dir, "disk.raw"), out: filepath.Join(s.Dir, "guest.tar")}
	d := &disk.Disk{File: "disk.qcow2", Format: "qcow2", Packages: "packages.txt", Licences: "licenses"}
	type step struct {
		name string
		run  func(context.Context) error
	}
	steps := []step{{"unpack upstream's disk", r.unpack}}
	switch s.Way {
	case Copy:
	case catalog.Chroot:
		steps = append(steps, step{"make room", r.enlarge}, step{"customise", r.chroot})
	case catalog.Guestfs:
		steps = append(steps, step{"make room", r.enlarge}, step{"customise", r.guestfs})
	case catalog.SelfBoot:
		steps = append(steps, step{"make room", r.enlarge}, step{"customise", r.selfboot})
	default:
		return nil, fmt.Errorf("there is no way %q of customising", s.Way)
	}
	steps = append(steps, step{"collect", func(context.Context) error { return r.collect(d) }},
		step{"compress", r.compress}, step{"hash and keep", func(context.Context) error { return r.keep(d) }})
	for _, step := range steps {
		began := time.Now()
		scope.Logf("── %s", step.name)
		if err := step.run(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, r.explain(fmt.Errorf("%s: %w", step.name, err))
		}
		r.steps = append(r.steps, disk.Step{Name: step.name, Seconds: time.Since(began).Seconds()})
		scope.Logf("── %s: %.1f s", step.name, time.Since(began).Seconds())
		if step.name == "customise" {
			r.steps = append(r.steps, r.parts...)
		}
	}
	d.Steps = r.steps
	return d, nil
}

// unpack makes the raw disk to work on.
func (r *run) unpack(ctx context.Context) error {
	facts, err := disk.Inspect(r.Disk, r.Origin.Format)
	if err != nil {
		return err
	}
	// At its peak the folder holds the raw disk's contents, what is added to them, and the compressed disk.
	if err := fetch.Space(r.Dir, 4*facts.Size+2<<30, "customising"); err != nil {
		return err
	}
	size := (max(r.Size, facts.VirtualSize) + 1<<20 - 1) &^ (1<<20 - 1)
	if err := disk.Unpack(ctx, r.Disk, r.Origin.Format, r.raw, size, r.scope); err != nil {
		return err
	}
	if r.Way == Copy {
		return nil
	}
	r.volumes, err = disk.Layout(r.raw)
	return err
}

// enlarge makes the root's partition reach to the end of the disk. Where it cannot, the root keeps its size.
func (r *run) enlarge(ctx context.Context) error {
	root, err := disk.Root(r.volumes, r.Origin.Customise.Root)
	if err != nil {
		return err
	}
	info, err := os.Stat(r.raw)
	if err != nil {
		return err
	}
	r.root = root
	if root.Number == 0 {
		r.grow = true // all of the disk is its own
		return nil
	}
	if info.Size()-root.Start-root.Size < little {
		return nil
	}
	if !root.Last {
		r.scope.Logf("the root is partition %d, and others come after it: it keeps its %s", root.Number, fetch.Size(root.Size))
		return nil
	}
	if err := disk.Enlarge(ctx, r.raw, root, r.scope); err != nil {
		return err
	}
	if r.volumes, err = disk.Layout(r.raw); err != nil {
		return err
	}
	if r.root, err = disk.Root(r.volumes, root.Number); err == nil {
		r.grow = true
	}
	return err
}

// little is how many bytes behind the root are not worth a change of the partition table.
const little = 32 << 20

// line reads a line of the guest's script: its marks say which part begins.
func (r *run) line(line string) {
	name, ok := strings.CutPrefix(line, mark)
	if !ok {
		return
	}
	now := time.Now()
	if n := len(r.parts); n > 0 {
		r.parts[n-1].Seconds = now.Sub(r.began).Seconds()
	}
	if name == "done" || len(r.parts) > 30 {
		return
	}
	r.began = now
	r.parts = append(r.parts, disk.Step{Name: "· " + event.Clean(name)})
	r.scope.Progress(int64(len(r.parts)), int64(r.partCount()), "parts: "+event.Clean(name))
}

// partCount is how many parts the script has.
func (r *run) partCount() int { return strings.Count(r.script(), "echo '"+mark) }

func (r *run) compress(ctx context.Context) error {
	return disk.Compress(ctx, r.raw, filepath.Join(r.Dir, "disk.qcow2"), disk.Compression{Zstd: r.Zstd}, func(done, total int64) { r.scope.Progress(done, total, "bytes compressed") })
}

// keep hashes the disk and puts the results together.
func (r *run) keep(d *disk.Disk) error {
	info, err := os.Stat(r.raw)
	if err != nil {
		return err
	}
	d.VirtualSize = info.Size()
	if err := os.Remove(r.raw); err != nil {
		return err
	}
	if d.SHA256, d.Size, err = disk.Sum(filepath.Join(r.Dir, d.File), func(done, total int64) { r.scope.Progress(done, total, "bytes hashed") }); err != nil {
		return err
	}
	return os.Rename(filepath.Join(r.Dir, d.File), filepath.Join(r.Dir, "result", d.File))
}

// explain gives an error its remedy.
func (r *run) explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return event.WithRemedy(err, "the disk of %s is full (or the guest's own, if its package manager said so): free space there, or choose another folder with --cache; disk_size makes the guest's larger", r.Dir)
	}
	return err
}

// mount is a file system of the guest.
type mount struct {
	Volume  disk.Volume
	Point   string // in the guest
	Options string // of the guest's own, those that matter
}

var (
	pointForm  = regexp.MustCompile(`^(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$`)
	subvolForm = regexp.MustCompile(`^subvol=/?[A-Za-z0-9_@][A-Za-z0-9_@./-]*$`)
)

// mounts reads what a guest mounts where from its fstab(5): what is on this disk, the outer ones first. The root comes
// without options of the file if it has none. It trusts nothing: names that are not plain are left out.
func mounts(fstab string, volumes []disk.Volume, root disk.Volume) []mount {
	list := []mount{{Volume: root, Point: "/"}}
	for _, line := range strings.Split(fstab, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 4 || strings.HasPrefix(fields[0], "#") || len(list) > 32 {
			continue
		}
		name, value, _ := strings.Cut(fields[0], "=")
		value = strings.Trim(value, `"`)
		at := slices.IndexFunc(volumes, func(v disk.Volume) bool {
			switch name {
			case "UUID":
				return v.UUID != "" && strings.EqualFold(v.UUID, value)
			case "LABEL":
				return v.Label != "" && v.Label == value
			case "PARTUUID":
				return v.PartID != "" && strings.EqualFold(v.PartID, value)
			}
			return false
		})
		if at < 0 || volumes[at].FS == "" {
			continue
		}
		m := mount{Volume: volumes[at], Point: fields[1]}
		for _, option := range strings.Split(fields[3], ",") {
			if m.Volume.FS == "btrfs" && subvolForm.MatchString(option) && !strings.Contains(option, "..") {
				m.Options = option
			}
		}
		switch {
		case m.Point == "/" && m.Volume.Number == root.Number:
			list[0].Options = m.Options
		case m.Point != "/" && pointForm.MatchString(m.Point) && !strings.Contains(m.Point, "..") && !slices.ContainsFunc(list, func(o mount) bool { return o.Point == m.Point }):
			list = append(list, m)
		}
	}
	slices.SortStableFunc(list, func(a, b mount) int {
		depth := func(m mount) int { return strings.Count(strings.TrimSuffix(m.Point, "/"), "/") }
		return depth(a) - depth(b)
	})
	return list
}

// noGuest says that the root file system is none.
func (r *run) noGuest() error {
	return event.WithRemedy(fmt.Errorf("%s (%s, %s) is not the root of a guest: it has no os-release", called(r.root), r.root.FS, fetch.Size(r.root.Size)),
		"write root of [flavor.origin.customise]: the number of the root's partition")
}

// called is how people call a volume.
func called(v disk.Volume) string {
	if v.Number == 0 {
		return "the whole disk"
	}
	return "partition " + strconv.Itoa(v.Number)
}
