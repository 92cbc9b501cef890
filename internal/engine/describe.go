package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/install"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// Tried is what the description of a flavor's upstream finds in a recording.
type Tried struct {
	Flavor   string      `json:"flavor"`
	Line     int         `json:"line"`               // in the catalogue
	Found    []TriedFile `json:"found"`              // of each release and architecture
	Left     []string    `json:"left_out,omitempty"` // releases that do not count, and why
	Problem  string      `json:"problem,omitempty"`  // why the description does not fit what is recorded
	Remedy   string      `json:"remedy,omitempty"`
	Recorded bool        `json:"recorded"` // there is a recording
}

// TriedFile is one file that a description finds.
type TriedFile struct {
	Target   string    `json:"target"`
	Build    string    `json:"build"`
	URL      string    `json:"url"`
	Date     time.Time `json:"date"`
	Checksum string    `json:"checksum"`
}

// Try runs the descriptions of a catalogue's upstreams, or of these flavors only, with a transport: a recording, or the
// network. Signatures are not verified. Flavors that download nothing are left out.
func Try(ctx context.Context, c *catalog.Catalog, only []string, transport http.RoundTripper, now time.Time) []Tried {
	var list []Tried
	var flavors []*catalog.Flavor
	for i := range c.Flavors {
		f := &c.Flavors[i]
		if f.Origin != nil && (f.Origin.Kind == "image" || f.Origin.Kind == "installer") && (len(only) == 0 || slices.Contains(only, f.ID)) {
			flavors = append(flavors, f)
			list = append(list, Tried{Flavor: f.ID, Line: c.Line(f.ID), Recorded: true})
		}
	}
	session := (&upstream.Web{Client: &http.Client{Transport: transport}, Backoff: time.Millisecond}).Session()
	var wg sync.WaitGroup
	for i, f := range flavors {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := try(ctx, c, f, session, now, &list[i]); errors.Is(err, upstream.ErrNotRecorded) {
				list[i].Recorded = false
				list[i].Problem = err.Error()
			} else if err != nil {
				list[i].Problem, list[i].Remedy = explain(err)
			}
		}()
	}
	wg.Wait()
	return list
}

func try(ctx context.Context, c *catalog.Catalog, f *catalog.Flavor, session *upstream.Session, now time.Time, t *Tried) error {
	releases, left, err := upstream.Releases(ctx, session, f, now, func(string) {})
	for _, l := range left {
		t.Left = append(t.Left, l.Version+": "+l.Reason)
	}
	if err != nil {
		return err
	}
	nobody := event.NewBus(nil).Scope("", "", "")
	for i := range releases {
		for _, arch := range f.Arch {
			if f.Origin.ArchNames[arch] == "" {
				continue
			}
			target := Target{Flavor: f, Release: &releases[i], Arch: arch}
			s, err := upstream.Find(ctx, upstream.Query{Flavor: f, Release: &releases[i], Arch: arch, Project: &c.Project, Web: session, Dry: true,
				Now: func() time.Time { return now }}, nobody)
			if err != nil {
				return fmt.Errorf("%s: %w", target, err)
			}
			t.Found = append(t.Found, TriedFile{target.String(), s.Build, s.URL, s.Date, s.Checksum})
		}
	}
	return nil
}

// CheckInstallers reads every unattended installation that the catalogue names. Each error names the row's line.
func CheckInstallers(c *catalog.Catalog) (wrong []error) {
	for _, f := range c.Flavors {
		if f.Origin == nil || f.Origin.Install == "" {
			continue
		}
		if _, err := install.Load(filepath.Join(filepath.Dir(c.Path), f.Origin.Install)); err != nil {
			wrong = append(wrong, fmt.Errorf("%s:%d: flavor %q: install: %w", c.Path, c.Line(f.ID), f.ID, err))
		}
	}
	return wrong
}

// TryRecorded runs the descriptions with a folder of recorded answers, as of the day of the recording.
func TryRecorded(ctx context.Context, c *catalog.Catalog, only []string, folder fs.FS) []Tried {
	return Try(ctx, c, only, upstream.Recorded{FS: folder}, upstream.RecordedDate(folder, time.Now()))
}
