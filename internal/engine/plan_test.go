package engine

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

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
	for target, want := range map[string]string{
		"almalinux:10/x86_64": "10.2-20260526.0 checksum signed (openpgp)",
	} {
		p := plans[target]
		if p.Upstream == nil || p.Upstream.Build+" "+p.Upstream.Trust != want {
			t.Errorf("%s: %+v", target, p)
		}
	}
	for target, p := range plans {
		if p.Action == Fail {
			t.Errorf("%s: %s", target, p.Reason)
		}
	}
	var lines []string
	for _, p := range plans {
		line := p.Target + " " + string(p.Action) + " " + p.Reason
		if p.Upstream != nil {
			line = fmt.Sprintf("%s | %s | %s | %s | %d | %s", p.Target, p.Upstream.Build, p.Upstream.Date.Format(time.DateOnly), p.Upstream.Trust, p.Upstream.Size, p.Upstream.Signature[:min(30, len(p.Upstream.Signature))])
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	t.Log("\n" + strings.Join(lines, "\n"))
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

// BenchmarkResolve resolves every target of the chart that downloads something, against a mirror whose every answer takes
// 50 ms.
func BenchmarkResolve(b *testing.B) {
	for _, again := range []bool{false, true} {
		b.Run(map[bool]string{false: "first", true: "again"}[again], func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				e, m := planner(b, nil)
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
	if _, err := e.Run(t.Context(), Selection{Only: []string{"a"}}); err == nil || !strings.Contains(err.Error(), "not supported yet: customising a disk that upstream made") {
		t.Error(err)
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
