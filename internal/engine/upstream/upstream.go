// Package upstream finds the newest that a distribution offers, with its checksum and its signature.
package upstream

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
)

// Query is what to look for.
type Query struct {
	Flavor  *catalog.Flavor
	Release *catalog.Release
	Arch    catalog.Arch
	Project *catalog.Project
	Only    []string                 // unpack exactly these packages, without dependencies; nil: a whole guest
	Mirrors []Mirror                 // rewrites of URL prefixes
	State   func(name string) string // a folder that outlives the run, for conditional requests
	Lock    func(ctx context.Context, name string) (unlock func(), err error)
	Client  *http.Client     // asks whether anything has changed; nil: http.DefaultClient
	Web     *Session         // of image and installer origins
	Ring    *integrity.Ring  // keys that are pinned
	Dry     bool             // try the description only: signatures are neither read nor verified
	Now     func() time.Time // nil: time.Now
}

// Snapshot is the newest upstream of a target. Of a packages origin it is the exact packages that a guest is made of, and
// URL, Date and Signature are those of the archives' indexes.
type Snapshot struct {
	URL       string    // of the file, or of the first archive's signed index
	Date      time.Time // of the file, or of the newest of the signed indexes; zero: upstream does not tell
	Build     string    // what upstream calls it: "10.2-20260526.0", "12.15-20261121"
	Checksum  string    // "ALGORITHM:HEX" of the file, or "sha256:HEX" over the sorted list of the packages' names, versions and checksums
	Signature string    // "verified FINGERPRINT[, FINGERPRINT]", "over the file by …", "not offered", "missing", "bad: …"
	Trust     string    // what vouches for it, in a few words: "checksum signed (openpgp)", "checksum over TLS only: …"
	Size      int64     // bytes of the file, or of all packages; 0: not known
	File      *File     // nil of a packages origin
	Packages  []Package // sorted by name
	Roots     []string  // what was asked for; the rest are dependencies
}

// Package is one package of a snapshot.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"` // the archive's spelling
	URL     string `json:"url"`  // upstream's own, before any mirror
	From    string `json:"-"`    // where it is downloaded from
	Size    int64  `json:"size"` // bytes
	SHA256  string `json:"sha256"`
	Stanza  string `json:"-"` // its record in the signed index
}

// Mirror rewrites the prefix From of a URL to To. From "https://" with To "http://127.0.0.1:9000/" turns
// https://HOST/PATH into http://127.0.0.1:9000/HOST/PATH.
type Mirror struct{ From, To string }

// ParseMirror reads FROM=TO.
func ParseMirror(s string) (Mirror, error) {
	from, to, ok := strings.Cut(s, "=")
	scheme := func(u string) bool { return strings.HasPrefix(u, "http://") || strings.HasPrefix(u, "https://") }
	if !ok || !scheme(from) || !scheme(to) || strings.ContainsAny(s, " \t\r\n[]\"'") {
		return Mirror{}, fmt.Errorf("mirror %q: write FROM=TO, both beginning with http:// or https://", s)
	}
	return Mirror{from, to}, nil
}

// Apply rewrites url by the mirror with the longest prefix that fits.
func Apply(mirrors []Mirror, url string) string {
	best := -1
	for i, m := range mirrors {
		if strings.HasPrefix(url, m.From) && (best < 0 || len(m.From) > len(mirrors[best].From)) {
			best = i
		}
	}
	if best < 0 {
		return url
	}
	return mirrors[best].To + strings.TrimPrefix(url, mirrors[best].From)
}

// Through is a transport that asks mirrors: every request goes where they rewrite its address to, those of redirects too.
// Whoever uses it sees upstream's own addresses only.
func Through(mirrors []Mirror, next http.RoundTripper) http.RoundTripper {
	if len(mirrors) == 0 {
		return next
	}
	return &through{mirrors, next}
}

type through struct {
	mirrors []Mirror
	next    http.RoundTripper
}

func (t *through) RoundTrip(req *http.Request) (*http.Response, error) {
	to := Apply(t.mirrors, req.URL.String())
	if to == req.URL.String() {
		return t.next.RoundTrip(req)
	}
	u, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	there := req.Clone(req.Context())
	there.URL, there.Host = u, u.Host
	resp, err := t.next.RoundTrip(there)
	if err != nil {
		return nil, err
	}
	resp.Request = req
	// A mirror that leads to itself leads to what it is a mirror of.
	if location := resp.Header.Get("Location"); location != "" {
		for _, m := range t.mirrors {
			if rest, ok := strings.CutPrefix(location, m.To); ok {
				resp.Header.Set("Location", m.From+rest)
				break
			}
		}
	}
	return resp, nil
}

// Find resolves the query. With an error, the snapshot holds what was found until then, or is nil.
func Find(ctx context.Context, q Query, scope *event.Scope) (*Snapshot, error) {
	o := q.Flavor.Origin
	if o == nil {
		return nil, fmt.Errorf("not supported yet: distros.toml has no origin for %s", q.Flavor.ID)
	}
	switch {
	case o.Kind == "image" || o.Kind == "installer":
		return findFile(ctx, q, scope)
	case o.Kind != "packages" || o.Format != "deb":
		return nil, fmt.Errorf("not supported yet: origin %s %s", o.Kind, o.Format)
	}
	return findDeb(ctx, q, scope)
}

// Roots lists the packages that the query's guest is asked to have, in the release's own names, sorted.
func (q Query) Roots() []string {
	if q.Only != nil {
		return q.Only
	}
	o := q.Flavor.Origin
	set := map[string]bool{}
	for _, name := range q.Project.Packages {
		if t, ok := o.Packages[name]; ok {
			name = t
		}
		if t, ok := q.Release.Packages[name]; ok {
			name = t
		}
		set[name] = true
	}
	for _, name := range append(append([]string(nil), o.System...), o.Boot[q.Arch].Packages...) {
		set[strings.ReplaceAll(name, "{arch}", o.ArchNames[q.Arch])] = true
	}
	delete(set, "")
	roots := make([]string, 0, len(set))
	for name := range set {
		roots = append(roots, name)
	}
	sort.Strings(roots)
	return roots
}

// Installed is the size in bytes that the package takes when it is installed, as its record says (deb-control(5):
// Installed-Size, in KiB).
func (p Package) Installed() int64 {
	n, _ := strconv.ParseInt(fields(p.Stanza)["Installed-Size"], 10, 64)
	return n << 10
}
