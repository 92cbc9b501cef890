package disk

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// bootstrap installs exactly the snapshot's packages into a tree. mmdebstrap sees no archive but a local one made of the
// snapshot's verified files, and no network.
func (b *build) bootstrap(ctx context.Context) error {
	archive := filepath.Join(b.Dir, "archive")
	if err := os.Mkdir(archive, 0o755); err != nil {
		return err
	}
	var index strings.Builder
	filename := regexp.MustCompile(`(?m)^Filename: .*$`)
	for _, p := range b.Snapshot.Packages {
		name := p.SHA256 + ".deb"
		if err := link(b.Blob(p.SHA256), filepath.Join(archive, name)); err != nil {
			return err
		}
		index.WriteString(filename.ReplaceAllString(p.Stanza, "Filename: ./"+name))
		index.WriteString("\n\n")
	}
	if err := os.WriteFile(filepath.Join(archive, "Packages"), []byte(index.String()), 0o644); err != nil {
		return err
	}
	total, done := int64(2*len(b.Snapshot.Packages)), int64(0)
	err := b.isolated(ctx, func(line string) {
		if strings.HasPrefix(line, "Unpacking ") || strings.HasPrefix(line, "Setting up ") {
			done++
			b.scope.Progress(min(done, total-1), total, "package steps")
		}
	}, "mmdebstrap", "--mode=root", "--variant=minbase", "--verbose", "--architectures="+b.Origin.ArchNames[b.Arch],
		"--dpkgopt=force-unsafe-io", "--include="+strings.Join(b.Snapshot.Roots, ","),
		"", b.root, "deb [trusted=yes] copy:"+archive+" ./")
	if err != nil {
		return err
	}
	b.scope.Progress(total, total, "package steps")
	return os.RemoveAll(archive)
}

//go:embed finish.sh
var finishScript string

// finish puts the catalogue's files into the tree, runs its commands there, takes out what the boot loader, the package
// list and the licences need, and removes everything that must not be shared between machines.
func (b *build) finish(ctx context.Context) error {
	overlay := filepath.Join(b.Dir, "overlay")
	var modes strings.Builder
	for _, f := range b.Origin.Files {
		path := filepath.Join(overlay, f.Path)
		if err := fetch.WriteFile(path, []byte(b.expand(f.Text)), 0o644); err != nil {
			return err
		}
		mode := f.Mode
		if mode == "" {
			mode = "0644"
		}
		fmt.Fprintf(&modes, "%s %s\n", mode, f.Path)
	}
	commands := "set -e\n"
	for _, c := range b.Origin.Run {
		commands += b.expand(c) + "\n"
	}
	var efi strings.Builder
	for to, from := range b.boot.EFI {
		fmt.Fprintf(&efi, "%s %s\n", from, to)
	}
	early := fmt.Sprintf("search.fs_uuid %s root\nset prefix=($root)/boot/grub\n", b.rootUUID)
	for name, text := range map[string]string{"modes": modes.String(), "commands": commands, "efi": efi.String(), "early.cfg": early,
		"licences": strings.Join(b.Origin.Licences, "\n") + "\n", "finish.sh": finishScript} {
		if err := os.WriteFile(filepath.Join(b.Dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := b.isolated(ctx, nil, "sh", "-eu", "finish.sh", b.root, b.out, b.boot.BIOS, strconv.FormatInt(b.epoch.Unix(), 10)); err != nil {
		return err
	}
	return b.listed()
}

// listed looks at the list of packages that was taken out of the guest: it will be shown to people.
func (b *build) listed() error {
	data, err := os.ReadFile(filepath.Join(b.out, "packages.txt"))
	if err != nil {
		return err
	}
	if _, err = ParsePackages(data); err != nil {
		return event.WithRemedy(fmt.Errorf("what the guest says of its packages: %w", err), "look for the package that wrote this into the guest's package database")
	}
	return nil
}

// newest is the time at which the newest of the packages was built: the date that the guest's files get at most. It
// follows from the packages alone, so that the same packages give the same disk on any day.
func newest(packages []upstream.Package, blob func(string) string) (time.Time, error) {
	var latest int64
	for _, p := range packages {
		// A package is an ar archive (deb(5)): a magic of 8 bytes, then a member's header with its time at bytes 16 to 28.
		head := make([]byte, 8+60)
		f, err := os.Open(blob(p.SHA256))
		if err != nil {
			return time.Time{}, event.WithRemedy(err, "run again: the file will be fetched anew")
		}
		_, err = io.ReadFull(f, head)
		_ = f.Close()
		if err != nil || !strings.HasPrefix(string(head), "!<arch>\n") {
			return time.Time{}, fmt.Errorf("%s %s is not a package", p.Name, p.Version)
		}
		t, err := strconv.ParseInt(strings.TrimSpace(string(head[8+16:8+28])), 10, 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("%s %s carries no time: %w", p.Name, p.Version, err)
		}
		latest = max(latest, t)
	}
	return time.Unix(latest, 0).UTC(), nil
}

// link makes a hard link, or a copy where the file systems differ.
func link(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return event.WithRemedy(err, "run again: the file will be fetched anew")
	}
	return os.WriteFile(to, data, 0o644)
}
