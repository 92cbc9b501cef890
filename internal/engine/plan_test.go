package engine

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// archives serves the archives of the flavors that are made of packages, with what their guests ask for, and brings these
// flavors back into the catalogue.
func (m *mirror) archives(t testing.TB, c *catalog.Catalog) {
	t.Helper()
	all, err := catalog.Load("../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all.Flavors {
		if f.Origin == nil || f.Origin.Kind != "packages" {
			continue
		}
		for i := range f.Releases {
			f.Releases[i].SignedBy = []string{fmt.Sprintf("%X", m.pgp.PrimaryKey.Fingerprint)}
			for _, a := range f.Origin.Archives {
				words := strings.Fields(strings.ReplaceAll(a, "{codename}", f.Releases[i].Codename))
				base := strings.TrimPrefix(words[0], "http://") + "/dists/" + words[1] + "/"
				release := "Codename: " + f.Releases[i].Codename + "\nVersion: 1\nDate: " + time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC).Format(time.RFC1123) + "\nArchitectures: amd64 arm64\nComponents: main\nSHA256:\n"
				for _, arch := range f.Arch {
					var index, packed bytes.Buffer
					q := upstream.Query{Flavor: &f, Release: &f.Releases[i], Arch: arch, Project: &c.Project}
					for _, name := range append(q.Roots(), "apt", "base") {
						essential := ""
						if name == "base" {
							essential = "Essential: yes\nPriority: required\n"
						}
						fmt.Fprintf(&index, "Package: %[1]s\nVersion: 1\nArchitecture: %[2]s\n%[3]sInstalled-Size: 1\nFilename: pool/%[1]s_1_%[2]s.deb\nSize: 10\nSHA256: %[4]x\n\n", name, f.Origin.ArchNames[arch], essential, sha256.Sum256([]byte(name)))
					}
					z := gzip.NewWriter(&packed)
					_, _ = z.Write(index.Bytes())
					_ = z.Close()
					name := "main/binary-" + f.Origin.ArchNames[arch] + "/Packages"
					m.extra[base+name+".gz"] = packed.Bytes()
					release += fmt.Sprintf(" %x %d %s\n %x %d %s.gz\n", sha256.Sum256(index.Bytes()), index.Len(), name, sha256.Sum256(packed.Bytes()), packed.Len(), name)
				}
				var signed bytes.Buffer
				w, err := clearsign.Encode(&signed, m.pgp.PrivateKey, signing)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = w.Write([]byte(release))
				_ = w.Close()
				m.extra[base+"InRelease"] = append(signed.Bytes(), '\n')
			}
		}
		c.Flavors = append(c.Flavors, f)
	}
}

// planner is an engine whose upstreams are the recorded ones, as of the day of the recording.
func planner(t testing.TB, change func(*catalog.Catalog)) (*Engine, *mirror) {
	t.Helper()
	c, err := catalog.Load("../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	c.Flavors = slices.DeleteFunc(c.Flavors, func(f catalog.Flavor) bool { return f.Origin != nil && f.Origin.Kind == "packages" })
	if change != nil {
		change(c)
	}
	m := newMirror(t, c)
	e, err := New(Config{Catalog: c, Cache: t.TempDir(), Registry: "dir:" + t.TempDir(), KeyDir: t.TempDir(), Mirrors: m.mirrors(), Ring: m.ring, Backoff: time.Millisecond,
		Now: func() time.Time { return time.Date(2026, 10, 15, 12, 0, 0, 0, time.UTC) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e, m
}

func plan(t testing.TB, e *Engine, only ...string) map[string]Plan {
	t.Helper()
	plans, err := e.Plan(t.Context(), Selection{Only: only})
	if err != nil {
		t.Fatal(err)
	}
	byTarget := map[string]Plan{}
	for _, p := range plans {
		byTarget[p.Target] = p
	}
	return byTarget
}

// Every row of the chart that downloads something finds its newest, with what vouches for it.
func TestEveryDistribution(t *testing.T) {
	e, _ := planner(t, nil)
	plans := plan(t, e)
	var lines []string
	for _, p := range plans {
		line := p.Target + ": " + p.Reason
		if u := p.Upstream; u != nil {
			line = fmt.Sprintf("%s: %s of %s, %d bytes, %s, %s", p.Target, u.Build, u.Date.Format(time.DateOnly), u.Size, u.Trust, clipSum(u.Checksum))
		}
		if p.Action == Fail {
			line += " !! " + string(p.Action) + ": " + p.Reason
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	const golden = "testdata/plan.txt"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(golden); err != nil || string(want) != got {
		t.Errorf("%v: %s differs; look at it and rewrite it with -update:\n%s", err, golden, got)
	}
}

var update = flag.Bool("update", false, "rewrite the golden files")

// A mirror of the catalogue serves as one of the command line does.
func TestMirrorsOfTheCatalogue(t *testing.T) {
	e, m := planner(t, nil)
	c := *e.cfg.Catalog
	c.Project.Mirrors = []catalog.Mirror{{From: "https://", To: m.URL + "/"}}
	again, err := New(Config{Catalog: &c, Cache: t.TempDir(), Registry: "dir:" + t.TempDir(), KeyDir: t.TempDir(), Ring: m.ring, Backoff: time.Millisecond, Now: e.cfg.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if p := plan(t, again, "alpine:3.24/x86_64")["alpine:3.24/x86_64"]; p.Upstream == nil || p.Upstream.Build != "3.24.1-r0" || !strings.HasPrefix(p.Upstream.URL, "https://dl-cdn.alpinelinux.org/") {
		t.Errorf("%+v", p)
	}
}

// Each document is asked for once; the second time nothing is transferred.
func TestNothingIsReadTwice(t *testing.T) {
	e, m := planner(t, nil)
	seen := map[string]int{}
	m.break_ = func(_ http.ResponseWriter, r *http.Request) bool {
		e.keyMu.Lock()
		defer e.keyMu.Unlock()
		seen[r.Method+" "+r.URL.String()]++
		return false
	}
	plan(t, e)
	for key, n := range seen {
		if n > 1 {
			t.Errorf("%s was asked %d times", key, n)
		}
	}
	first := m.bodies.Swap(0)
	plan(t, e)
	if n := m.bodies.Load(); n > 0 || first == 0 {
		t.Errorf("%d bodies the first time, %d the second", first, n)
	}
}

// BenchmarkResolve resolves every target of the chart, against a mirror whose every answer takes 50 ms: those that
// download something, and with "archives" those that are made of packages, too, whose indexes apt reads.
func BenchmarkResolve(b *testing.B) {
	for _, name := range []string{"files/first", "files/again", "archives too/first", "archives too/again"} {
		again, archives := strings.HasSuffix(name, "again"), strings.HasPrefix(name, "archives")
		b.Run(name, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				e, m := planner(b, nil)
				if archives {
					m.archives(b, e.cfg.Catalog)
				}
				m.delay = 50 * time.Millisecond
				if again {
					plan(b, e)
				}
				asked, bodies := m.asked.Load(), m.bodies.Load()
				b.StartTimer()
				plans := plan(b, e)
				b.ReportMetric(float64(m.asked.Load()-asked), "requests/op")
				b.ReportMetric(float64(m.bodies.Load()-bodies), "bodies/op")
				b.ReportMetric(float64(len(plans)), "targets/op")
			}
		})
	}
}

// What upstream publishes is fetched, verified by checksum and by a signature over the file, and unpacked; what is wrong
// is not kept. What comes after it is not automated yet, and says so.
func TestFetchesWhatUpstreamPublishes(t *testing.T) {
	disk := bytes.Repeat([]byte("disk"), 100000)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(disk)
	_ = z.Close()
	const name = "a.example.org/pub/v2/a-2.raw.gz"
	flavor := catalog.Flavor{ID: "a", Name: "A", Level: catalog.Preview, Arch: []catalog.Arch{catalog.X86_64}, Redistribution: catalog.Free, Releases: []catalog.Release{{Version: "2"}},
		Origin: &catalog.Origin{Kind: "image", Format: "raw", Pack: "gz", ArchNames: map[catalog.Arch]string{catalog.X86_64: "amd64"}, URL: "https://a.example.org/pub/v{version}/a-{version}.raw.gz",
			Checksum: &catalog.Checksum{URL: "{url}.sha256"}, Signature: &catalog.Signature{Kind: "openpgp", Of: "file", URL: "{url}.sig"}}}
	e, m := planner(t, func(c *catalog.Catalog) { c.Flavors = []catalog.Flavor{flavor} })
	good := fmt.Appendf(nil, "%x  a-2.raw.gz\n", sha256.Sum256(packed.Bytes()))
	sign := func(data []byte) []byte {
		var b bytes.Buffer
		if err := openpgp.DetachSign(&b, m.pgp, bytes.NewReader(data), signing); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	run := func(want string) Result {
		t.Helper()
		s, err := e.Run(t.Context(), Selection{Only: []string{"a"}, Until: Fetch})
		if err != nil || len(s.Results) != 1 {
			t.Fatal(s, err)
		}
		r := s.Results[0]
		if got := r.Error + r.Reason + r.Stages[len(r.Stages)-1].Reason; !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		return r
	}
	m.extra = map[string][]byte{name: packed.Bytes(), name + ".sha256": good}
	m.break_ = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".sig") {
			http.NotFound(w, r)
			return true
		}
		return false
	}
	run("the signature is missing")
	m.break_ = nil
	m.extra[name+".sig"] = sign([]byte("something else"))
	run("is wrong: the data or the signature was changed")
	m.extra[name+".sig"] = sign(packed.Bytes())
	m.extra[name+".sha256"] = fmt.Appendf(nil, "%x  a-2.raw.gz\n", sha256.Sum256(disk))
	run("expected sha256:")
	m.extra[name+".sha256"] = good
	if r := run("390.6 KiB unpacked, sha256:"); r.State != event.Finished && r.State != "" {
		t.Errorf("%+v", r)
	}
	run("is in the cache, verified before")
	if blob, err := os.ReadFile(e.cache.Blob(fmt.Sprintf("%x", sha256.Sum256(disk)))); err != nil || !bytes.Equal(blob, disk) {
		t.Errorf("%d bytes, %v", len(blob), err)
	}
	// What is verified and would make a program read another file is refused before any opens it.
	flavor.Origin.Format = "qcow2"
	run("the disk is refused: it is no qcow2")
	header := make([]byte, 512)
	copy(header, "QFI\xfb\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x0b")
	copy(header[256:], "/etc/passwd")
	flavor.Origin.Pack = ""
	m.extra[name], m.extra[name+".sig"] = header, sign(header)
	m.extra[name+".sha256"] = fmt.Appendf(nil, "%x  a-2.raw.gz\n", sha256.Sum256(header))
	run(`the disk is refused: it has a backing file ("/etc/passwd")`)
	if _, err := e.Run(t.Context(), Selection{Only: []string{"a"}}); err == nil || !strings.Contains(err.Error(), "not supported yet: how its disk is customised is not described") {
		t.Error(err)
	}
}

// Every key that the catalogue names is pinned, but for those that could not be found anywhere yet: what they sign fails.
func TestKeysOfTheCatalogueArePinned(t *testing.T) {
	missing := []string{
		"F26ADFADBAE702EF7AF637459DA7EF23BFFCDF22", // Alpine
		"8A8BC12F46B836C0F9CDB36F1D53D1877742E911", // OpenWrt
	}
	c, err := catalog.Load("../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range c.Flavors {
		var names []string
		for _, r := range f.Releases {
			names = append(names, r.SignedBy...)
		}
		if f.Origin.Signature != nil {
			names = append(names, f.Origin.Signature.Keys...)
		}
		for _, name := range names {
			found := false
			for _, ext := range []string{".asc", ".minisign", ".signify", ".pem"} {
				_, err := os.Stat("integrity/keys/" + name + ext)
				found = found || err == nil
			}
			if found == slices.Contains(missing, name) {
				t.Errorf("%s: key %s is pinned: %v", f.ID, name, found)
			}
		}
	}
}

// What may not be passed on is not published where others could get it.
func TestLicences(t *testing.T) {
	c := &catalog.Catalog{Project: catalog.Project{Private: []string{"registry.example.org/private"}}}
	for _, x := range []struct {
		redistribution catalog.Redistribution
		decision       string
		registry       string
		want           string
	}{
		{catalog.Free, "", "quay.io/p", ""},
		{catalog.Unclear, "", "quay.io/p", "a maintainer's decision is recorded"},
		{catalog.Unclear, "2026-10-01: as a remix, without the mark", "quay.io/p", ""},
		{catalog.Unclear, "", "dir:images", ""},
		{catalog.Restricted, "", "quay.io/p", "its licence restricts who may have it: because (https://example.org/eula)"},
		{catalog.Restricted, "", "registry.example.org/private", ""},
		{catalog.Restricted, "", "registry.example.org/private/sub", ""},
		{catalog.Restricted, "", "registry.example.org/privateer", "its licence"},
		{catalog.Restricted, "yes", "quay.io/p", "its licence"},
		{catalog.Restricted, "", "dir:images", ""},
	} {
		e := &Engine{cfg: Config{Catalog: c, Registry: x.registry}}
		got := e.refusal(&catalog.Flavor{Redistribution: x.redistribution, Decision: x.decision, Because: "because", Licence: "https://example.org/eula"})
		if (got == "") != (x.want == "") || !strings.Contains(got, x.want) {
			t.Errorf("%s %q to %s: %q", x.redistribution, x.decision, x.registry, got)
		}
	}
}
