package customise

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
)

// Limits of what a guest leaves behind.
const (
	maxArchive  = 256 << 20 // bytes
	maxList     = 16 << 20  // bytes of a list
	maxLicences = 50_000    // files
	maxLicence  = 4 << 20   // bytes of one
	maxPath     = 512       // bytes
)

// collect takes the results out of the guest's archive, which is not trusted: only plain files with plain names, of
// bounded size, come out of it, and they are made anew here.
func (r *run) collect(d *disk.Disk) error {
	result := filepath.Join(r.Dir, "result")
	if err := os.MkdirAll(filepath.Join(result, d.Licences), 0o755); err != nil {
		return err
	}
	lists := map[string][]byte{packagesFile: nil, chosenFile: nil}
	if f, err := os.Open(r.out); err == nil {
		defer f.Close()
		t := tar.NewReader(io.LimitReader(f, maxArchive))
		for {
			h, err := t.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("what the guest left behind: %w", err)
			}
			name := path.Clean(h.Name)
			if _, ok := lists[name]; ok && h.Typeflag == tar.TypeReg {
				if lists[name], err = io.ReadAll(io.LimitReader(t, maxList)); err != nil {
					return fmt.Errorf("what the guest left behind: %s: %w", name, err)
				}
			} else if name == licencesFile && h.Typeflag == tar.TypeReg {
				if err := licences(t, filepath.Join(result, d.Licences)); err != nil {
					return fmt.Errorf("the guest's licence files: %w", err)
				}
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) || r.Way != Copy {
		return err
	}
	list, err := packageList(lists[packagesFile])
	if err != nil {
		return fmt.Errorf("the guest's list of packages: %w", err)
	}
	if len(list) == 0 && r.Origin.Customise.Manager != "" {
		return errors.New("the guest's list of packages is empty: look at list of its package manager in the catalogue")
	}
	if err := os.WriteFile(filepath.Join(result, d.Packages), list, 0o644); err != nil {
		return err
	}
	for _, line := range strings.Split(strings.TrimSpace(string(lists[chosenFile])), "\n") {
		if name, chosen, ok := strings.Cut(line, " "); ok && chosen != name && len(line) < maxPath {
			if chosen == "-" {
				r.scope.Logf("%s: left out", name)
			} else {
				r.scope.Logf("%s: %s", name, chosen)
			}
		}
	}
	return nil
}

// licences writes the files of an archive below a folder.
func licences(from io.Reader, to string) error {
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewReader(from)
	var total int64 // a sparse file is larger than its archive
	for n := 0; ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // the guest's tar may have been cut short
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || h.Size > maxLicence || !plain(h.Name) {
			continue
		}
		if n++; n > maxLicences {
			return fmt.Errorf("more than %d files", maxLicences)
		}
		if total += h.Size; total > maxArchive {
			return fmt.Errorf("they have more than %d bytes", int64(maxArchive))
		}
		if err := root.MkdirAll(path.Dir(h.Name), 0o755); err != nil {
			continue // a file is in its way
		}
		f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			continue // it is there twice
		}
		_, err = io.Copy(f, t)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}

// plain says whether a name can be that of a file below a folder, on any file system.
func plain(name string) bool {
	if len(name) == 0 || len(name) > maxPath || !fs.ValidPath(name) || name == "." {
		return false
	}
	return !strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\\' || c == 0xfffd })
}

// packageList puts a guest's list into its form: sorted lines NAME VERSION ARCH BYTES, each once.
func packageList(data []byte) ([]byte, error) {
	var b bytes.Buffer
	seen := map[string]bool{}
	var lines []string
	for _, line := range strings.Split(string(data), "\n") {
		if line = strings.Join(strings.Fields(line), " "); line != "" && !seen[line] {
			seen[line] = true
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	_, err := disk.ParsePackages(b.Bytes())
	return b.Bytes(), err
}
