package fetch

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// member reads the one regular file of a tar archive whose cleaned name fits the pattern. The archive is read to its
// end, because a second one that fits is an error, and so that its compression's own checksum is checked.
type member struct {
	pattern string
	max     int64 // bytes
	all     io.Reader
	t       *tar.Reader
	name    string // of the member; "" before it was found
	over    bool   // it was read
}

func newMember(r io.Reader, pattern string, max int64) *member {
	return &member{pattern: pattern, max: max, all: r, t: tar.NewReader(r)}
}

func (m *member) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if m.name != "" && !m.over {
		n, err := m.t.Read(p)
		if err != io.EOF {
			return n, broken(err)
		}
		m.over = true
		if n > 0 {
			return n, nil
		}
	}
	for {
		h, err := m.t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, broken(err)
		}
		found, err := m.fits(h)
		if err != nil {
			return 0, err
		}
		if found {
			m.name = h.Name
			return m.Read(p)
		}
	}
	if _, err := io.Copy(io.Discard, m.all); err != nil {
		return 0, err
	}
	if m.name == "" {
		return 0, event.WithRemedy(fmt.Errorf("the archive holds no regular file %q", m.pattern), "correct the name of the member in the catalogue")
	}
	return 0, io.EOF
}

// fits reports whether an entry is the wanted one.
func (m *member) fits(h *tar.Header) (bool, error) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return false, nil
	}
	name := path.Clean(h.Name)
	if !filepath.IsLocal(name) || strings.HasPrefix(h.Name, "/") || climbs(h.Name) {
		return false, refuse("the archive holds %q, a name that leaves its tree", h.Name)
	}
	if ok, _ := path.Match(m.pattern, name); !ok {
		return false, nil
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
	case tar.TypeDir:
		return false, nil
	default:
		return false, refuse("the archive's %q is no regular file", h.Name)
	}
	if m.name != "" {
		return false, refuse("the archive holds two files %q: %q and %q", m.pattern, m.name, h.Name)
	}
	if h.Size < 0 || h.Size > m.max {
		return false, refuse("the archive's %q is %s long; at most %s may come out", h.Name, Size(h.Size), Size(m.max))
	}
	return true, nil
}

// climbs reports whether a step of the name goes up, whatever comes of it in the end.
func climbs(name string) bool {
	for _, step := range strings.Split(name, "/") {
		if step == ".." {
			return true
		}
	}
	return false
}

// broken says of an error that the archive is at fault, unless something else is known to be.
func broken(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the archive is damaged: %w", err)
	}
	return err
}
