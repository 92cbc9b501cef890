// Package disk makes the disk of a guest: built, given its identity-free final form, laid out for its firmware, compressed.
package disk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// Version names what this package makes of the same inputs. It is part of every content key: whoever changes the
// disk's bytes changes it. What is only said of the disk (its list of packages, its licences) leaves it as it is: a new
// one would have every image published and imported anew, with the guest that is there.
const Version = "2"

// Spec says what to build.
type Spec struct {
	Origin   *catalog.Origin
	Arch     catalog.Arch
	Codename string
	Snapshot *upstream.Snapshot
	Blob     func(sha256 string) string // where a package's file is
	Key      string                     // the content key, hex: file system identities derive from it
	Size     int64                      // virtual size in bytes
	Dir      string                     // an empty folder to work in; the results end up in its subfolder "result"
	Zstd     bool                       // see Compression
}

// Disk is a finished disk. Paths are relative to the folder that holds it.
type Disk struct {
	File        string `json:"file"`         // "disk.qcow2"
	Format      string `json:"format"`       // "qcow2"
	SHA256      string `json:"sha256"`       // of the file, hex
	Size        int64  `json:"size"`         // of the file, bytes
	VirtualSize int64  `json:"virtual_size"` // bytes
	Packages    string `json:"packages"`     // "packages.txt": see ParsePackages
	Licences    string `json:"licences"`     // "licenses": a folder
	Steps       []Step `json:"steps"`        // where the seconds went
}

// Step is one part of a build.
type Step struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// build is one build under way.
type build struct {
	Spec
	scope      *event.Scope
	boot       catalog.Boot
	rootUUID   string
	diskUUID   string
	partUUID   [3]string // BIOS boot, ESP, root
	fatID      string
	epoch      time.Time
	root       string // the tree
	out        string // what is taken out of the tree
	raw        string
	partitions map[int][2]int64 // number → first and last sector
}

// Build makes the disk. It needs root, or subordinate ids for an ordinary user. Cancelled or failed, it leaves
// unfinished files in Spec.Dir only.
func Build(ctx context.Context, s Spec, scope *event.Scope) (*Disk, error) {
	boot, ok := s.Origin.Boot[s.Arch]
	if !ok {
		return nil, fmt.Errorf("not supported yet: distros.toml describes no boot loader for %s", s.Arch)
	}
	space, err := uuid.Parse("6f3b0c1e-3c5e-5f0a-9a55-6b6d692d7475")
	if err != nil {
		return nil, err
	}
	id := func(what string) string { return uuid.NewSHA1(space, []byte(s.Key+" "+what)).String() }
	b := &build{Spec: s, scope: scope, boot: boot, rootUUID: id("root"), diskUUID: id("disk"),
		partUUID: [3]string{id("part 14"), id("part 15"), id("part 1")}, fatID: id("esp")[:8],
		root: filepath.Join(s.Dir, "root"), out: filepath.Join(s.Dir, "out"), raw: filepath.Join(s.Dir, "disk.raw")}
	if b.epoch, err = newest(s.Snapshot.Packages, s.Blob); err != nil {
		return nil, err
	}
	if err := fetch.Space(s.Dir, b.need(), "the build"); err != nil {
		return nil, err
	}
	for _, dir := range []string{b.out, filepath.Join(s.Dir, "overlay")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fetch.Explain(err, s.Dir)
		}
	}
	d := &Disk{File: "disk.qcow2", Format: "qcow2", VirtualSize: s.Size, Packages: "packages.txt", Licences: "licenses"}
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"install the packages", b.bootstrap},
		{"configure and clean the tree", b.finish},
		{"lay out the partitions", b.partition},
		{"fill the EFI system partition", b.esp},
		{"embed the BIOS boot loader", b.bios},
		{"fill the root file system", b.rootfs},
		{"compress", b.compress},
		{"hash and keep", func(context.Context) error { return b.keep(d) }},
	}
	for _, step := range steps {
		began := time.Now()
		scope.Logf("── %s", step.name)
		if err := step.run(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, b.explain(err)
		}
		d.Steps = append(d.Steps, Step{step.name, time.Since(began).Seconds()})
		scope.Logf("── %s: %.1f s", step.name, time.Since(began).Seconds())
	}
	return d, nil
}

// need is how many bytes the build takes at its peak: the tree, the raw disk, the compressed disk and the packages.
func (b *build) need() int64 {
	var installed int64
	for _, p := range b.Snapshot.Packages {
		installed += p.Installed()
	}
	return installed*5/2 + 2*b.Snapshot.Size
}

// explain gives an error its remedy.
func (b *build) explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return event.WithRemedy(err, "the disk of %s is full: free space there, or choose another folder with --cache", b.Dir)
	}
	return err
}

// run runs a program of the field as the caller; isolated runs one as root of the tree, without network.
func (b *build) run(ctx context.Context, name string, args ...string) error {
	return command.Run(ctx, command.Command{Name: name, Args: args, Dir: b.Dir, Env: b.env()}, b.scope)
}

func (b *build) isolated(ctx context.Context, each func(string), name string, args ...string) error {
	return command.Run(ctx, command.Command{Name: name, Args: args, Dir: b.Dir, Env: b.env(), Isolated: true, Offline: true, Each: each}, b.scope)
}

func (b *build) env() []string {
	epoch := strconv.FormatInt(b.epoch.Unix(), 10)
	return []string{"SOURCE_DATE_EPOCH=" + epoch, "E2FSPROGS_FAKE_TIME=" + epoch, "MTOOLS_SKIP_CHECK=1", "TMPDIR=" + b.Dir}
}

// expand fills in what a catalogue's text leaves open.
func (b *build) expand(text string) string {
	names := []string{"{codename}", b.Codename, "{arch}", b.Origin.ArchNames[b.Arch]}
	cmdline := b.Origin.Cmdline
	if b.boot.Cmdline != "" {
		cmdline = b.boot.Cmdline
	}
	sources := strings.NewReplacer(names...).Replace(strings.Join(b.Origin.Sources, "\n"))
	return strings.NewReplacer(append(names, "{root_uuid}", b.rootUUID, "{cmdline}", cmdline,
		"{kernel}", b.boot.Kernel, "{initrd}", b.boot.Initrd, "{sources}", sources)...).Replace(text)
}

// compress makes the qcow2. zlib clusters: older hypervisors cannot open others.
func (b *build) compress(ctx context.Context) error {
	return Compress(ctx, b.raw, filepath.Join(b.Dir, "disk.qcow2"), Compression{Zstd: b.Zstd}, func(done, total int64) { b.scope.Progress(done, total, "bytes compressed") })
}

// keep hashes the disk and puts the results together.
func (b *build) keep(d *Disk) error {
	path := filepath.Join(b.Dir, d.File)
	sum, size, err := Sum(path, func(done, total int64) { b.scope.Progress(done, total, "bytes hashed") })
	if err != nil {
		return err
	}
	d.SHA256, d.Size = sum, size
	result := filepath.Join(b.Dir, "result")
	if err := os.Mkdir(result, 0o755); err != nil {
		return err
	}
	for name, from := range map[string]string{d.File: b.Dir, d.Packages: b.out, d.Licences: b.out} {
		if err := os.Rename(filepath.Join(from, name), filepath.Join(result, name)); err != nil {
			return err
		}
	}
	return nil
}

// Sum returns the SHA-256 (hex) and the size of a file in bytes. Each of told hears how many of them are hashed.
func Sum(path string, told ...func(done, total int64)) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	if size, err = io.CopyBuffer(struct{ io.Writer }{h}, &heard{r: f, total: info.Size(), told: told}, make([]byte, 1<<20)); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// heard tells how much of a file is read.
type heard struct {
	r           io.Reader
	done, total int64
	told        []func(done, total int64)
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if h.done += int64(n); n > 0 {
		for _, f := range h.told {
			f(h.done, h.total)
		}
	}
	return n, err
}
