package upstream

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
)

func TestMirrors(t *testing.T) {
	var list []Mirror
	for _, s := range []string{"https://=http://127.0.0.1:9000/", "http://deb.example.org/=http://mirror.example.org/deb/"} {
		m, err := ParseMirror(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	for in, want := range map[string]string{
		"https://host.example.org/path": "http://127.0.0.1:9000/host.example.org/path",
		"http://deb.example.org/debian": "http://mirror.example.org/deb/debian",
		"http://other.example.org/":     "http://other.example.org/",
	} {
		if got := Apply(list, in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
	for _, bad := range []string{"", "https://x", "x=http://y", "http://x=y", "http://x=http://y z", "http://x=http://y]"} {
		if _, err := ParseMirror(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// archive is a small package archive as Debian lays one out, signed with a key of its own.
type archive struct {
	key   *openpgp.Entity
	made  time.Time
	files map[string][]byte
	hits  map[string]int
	srv   *httptest.Server
}

func newArchive(t *testing.T, packages ...string) *archive {
	t.Helper()
	key, err := openpgp.NewEntity("Test Archive", "", "archive@example.org", &packet.Config{DefaultHash: crypto.SHA256, Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048})
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{key: key, made: time.Unix(1700000000, 0), files: map[string][]byte{}, hits: map[string]int{}}
	var index strings.Builder
	for _, p := range packages {
		name, extra, _ := strings.Cut(p, " ")
		dir := filepath.Join(t.TempDir(), name)
		control := fmt.Sprintf("Package: %s\nVersion: 1:1.0+b~1\nArchitecture: amd64\nMaintainer: Test <t@example.org>\nInstalled-Size: 12\nDescription: a test\n%s", name, strings.ReplaceAll(extra, "|", "\n"))
		if err := os.MkdirAll(filepath.Join(dir, "DEBIAN"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "DEBIAN/control"), []byte(strings.TrimRight(control, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("dpkg-deb", "--build", "--root-owner-group", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		deb, err := os.ReadFile(dir + ".deb")
		if err != nil {
			t.Fatal(err)
		}
		path := "pool/main/" + name + "_1.0+b~1_amd64.deb"
		a.files["/debian/"+path] = deb
		fmt.Fprintf(&index, "%s\nFilename: %s\nSize: %d\nSHA256: %x\n\n", strings.TrimRight(control, "\n"), path, len(deb), sha256.Sum256(deb))
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(index.String()))
	_ = z.Close()
	a.files["/debian/dists/test/main/binary-amd64/Packages.gz"] = zipped.Bytes()
	a.sign(t, time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour))
	a.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.hits[r.URL.Path]++
		data, ok := a.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", a.made, bytes.NewReader(data))
	}))
	t.Cleanup(a.srv.Close)
	return a
}

func (a *archive) sign(t *testing.T, date, until time.Time) {
	t.Helper()
	const path = "main/binary-amd64/Packages"
	z := a.files["/debian/dists/test/"+path+".gz"]
	plain, err := gzip.NewReader(bytes.NewReader(z))
	if err != nil {
		t.Fatal(err)
	}
	var index bytes.Buffer
	if _, err := index.ReadFrom(plain); err != nil {
		t.Fatal(err)
	}
	release := fmt.Sprintf("Origin: Test\nSuite: oldtest\nCodename: test\nVersion: 7.1\nDate: %s\nValid-Until: %s\nArchitectures: amd64\nComponents: main\nSHA256:\n %x %d %s\n %x %d %s.gz\n",
		date.UTC().Format(time.RFC1123), until.UTC().Format(time.RFC1123), sha256.Sum256(index.Bytes()), index.Len(), path, sha256.Sum256(z), len(z), path)
	a.made = a.made.Add(time.Minute)
	var signed bytes.Buffer
	w, err := clearsign.Encode(&signed, a.key.PrivateKey, &packet.Config{DefaultHash: crypto.SHA256})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(release))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	a.files["/debian/dists/test/InRelease"] = append(signed.Bytes(), '\n')
}

// ring holds keys as if they were pinned.
func ring(t *testing.T, entities ...*openpgp.Entity) *integrity.Ring {
	t.Helper()
	files := fstest.MapFS{"keys/README.md": {}}
	for _, e := range entities {
		var buf bytes.Buffer
		w, err := armor.Encode(&buf, openpgp.PublicKeyType, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Serialize(w); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		files["keys/"+fingerprint(e)+".asc"] = &fstest.MapFile{Data: buf.Bytes()}
	}
	ring, err := integrity.OpenRing(files)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func fingerprint(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

// query asks the archive, through a mirror, for a guest of these packages.
func (a *archive) query(t *testing.T, roots ...string) Query {
	dir := t.TempDir()
	return Query{
		Flavor: &catalog.Flavor{ID: "test", Origin: &catalog.Origin{Kind: "packages", Format: "deb", Archives: []string{"http://upstream.example.org/debian {codename} main"},
			ArchNames: map[catalog.Arch]string{"x86_64": "amd64"}, Packages: map[string]string{"screenfetch": "fastfetch", "net-tools": ""}, System: append(roots, "kernel-{arch}")}},
		Release: &catalog.Release{Version: "7", Codename: "test", SignedBy: []string{fingerprint(a.key)}},
		Arch:    "x86_64", Project: &catalog.Project{Packages: []string{"screenfetch", "net-tools"}},
		Mirrors: []Mirror{{"http://upstream.example.org/", a.srv.URL + "/"}},
		State:   func(name string) string { return filepath.Join(dir, name) },
		Lock:    func(context.Context, string) (func(), error) { return func() {}, nil },
		Ring:    ring(t, a.key),
	}
}

func TestFindsTheExactPackages(t *testing.T) {
	a := newArchive(t, "apt Essential: yes", "base Essential: yes", "kernel-amd64 Depends: lib", "lib ", "fastfetch ", "unrelated ")
	q := a.query(t, "lib")
	s, err := Find(context.Background(), q, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range s.Packages {
		got = append(got, p.Name)
		if p.Version != "1:1.0+b~1" || p.Size == 0 || len(p.SHA256) != 64 || p.Installed() != 12<<10 ||
			p.URL != "http://upstream.example.org/debian/pool/main/"+p.Name+"_1.0%2bb%7e1_amd64.deb" && p.URL != "http://upstream.example.org/debian/pool/main/"+p.Name+"_1.0+b~1_amd64.deb" {
			t.Errorf("%+v", p)
		}
		if !strings.HasPrefix(p.From, a.srv.URL) {
			t.Errorf("%s would be downloaded from %s", p.Name, p.From)
		}
	}
	if strings.Join(got, " ") != "apt base fastfetch kernel-amd64 lib" {
		t.Errorf("packages %q", got)
	}
	if strings.Join(s.Roots, " ") != "fastfetch kernel-amd64 lib" {
		t.Errorf("roots %q", s.Roots)
	}
	if s.Signature != "verified "+fingerprint(a.key) || !strings.HasPrefix(s.Build, "7.1-") || s.URL != "http://upstream.example.org/debian/dists/test/InRelease" ||
		!strings.HasPrefix(s.Checksum, "sha256:") || s.Size == 0 {
		t.Errorf("%+v", s)
	}
	before := a.hits["/debian/dists/test/main/binary-amd64/Packages.gz"]
	bus := event.NewBus(nil)
	sub := bus.Subscribe()
	again, err := Find(context.Background(), q, bus.Scope("t", "resolve", ""))
	if err != nil || !reflect.DeepEqual(again.Packages, s.Packages) || !again.Date.Equal(s.Date) || again.Checksum != s.Checksum || again.Signature != s.Signature {
		t.Errorf("the second time: %v, %+v", err, again)
	}
	if events, _ := sub.Poll(); len(events) != 1 || !strings.Contains(events[0].Line, "nothing to read anew") {
		t.Errorf("the second time took the long way: %v", events)
	}
	if a.hits["/debian/dists/test/main/binary-amd64/Packages.gz"] != before {
		t.Error("an unchanged index was fetched again")
	}
	// What has changed is read anew; what is past its time, too.
	a.sign(t, time.Now(), time.Now().Add(time.Hour))
	if changed, err := Find(context.Background(), q, nil); err != nil || !changed.Date.After(s.Date) || changed.Checksum != s.Checksum {
		t.Errorf("a new index: %v, %+v", err, changed)
	}
	q.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	_, err = Find(context.Background(), q, bus.Scope("t", "resolve", ""))
	if events, _ := sub.Poll(); err != nil || len(events) < 2 {
		t.Errorf("an index past its time was believed: %v, %v", err, events)
	}
	q.Only = []string{"unrelated"}
	if only, err := Find(context.Background(), q, nil); err != nil || len(only.Packages) != 1 || only.Packages[0].Name != "unrelated" {
		t.Errorf("single packages: %v, %+v", err, only)
	}
}

func TestRefusals(t *testing.T) {
	stranger := newArchive(t, "x ")
	for _, c := range []struct {
		name, want, remedy string
		break_             func(*testing.T, *archive, *Query)
	}{
		{"unknown key", "signature", "signed_by", func(t *testing.T, a *archive, q *Query) {
			q.Ring = ring(t, stranger.key)
			q.Release.SignedBy = []string{fingerprint(stranger.key)}
		}},
		{"changed index", "Packages", "", func(t *testing.T, a *archive, _ *Query) {
			z := a.files["/debian/dists/test/main/binary-amd64/Packages.gz"]
			z[len(z)/2] ^= 1
		}},
		{"changed release", "signature", "", func(t *testing.T, a *archive, _ *Query) {
			a.files["/debian/dists/test/InRelease"] = bytes.Replace(a.files["/debian/dists/test/InRelease"], []byte("Version: 7.1"), []byte("Version: 7.2"), 1)
		}},
		{"unsigned", "", "", func(t *testing.T, a *archive, _ *Query) {
			block, _ := clearsign.Decode(a.files["/debian/dists/test/InRelease"])
			a.files["/debian/dists/test/InRelease"] = block.Plaintext
		}},
		{"expired", "not of this time", "clock", func(t *testing.T, a *archive, _ *Query) {
			a.sign(t, time.Now().Add(-72*time.Hour), time.Now().Add(-48*time.Hour))
		}},
		{"not there", "", "", func(t *testing.T, a *archive, _ *Query) {
			clear(a.files)
		}},
		{"down", "cannot be reached", "--mirror", func(t *testing.T, a *archive, _ *Query) {
			a.srv.Close()
		}},
		{"no such package", "nosuch", "package names in distros.toml", func(t *testing.T, a *archive, q *Query) {
			q.Flavor.Origin.System = append(q.Flavor.Origin.System, "nosuch")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newArchive(t, "apt Essential: yes", "kernel-amd64 ", "fastfetch ")
			q := a.query(t)
			c.break_(t, a, &q)
			s, err := Find(context.Background(), q, nil)
			if err == nil {
				t.Fatalf("accepted: %+v", s)
			}
			var r *event.Remedied
			if !strings.Contains(err.Error(), c.want) || !errors.As(err, &r) || !strings.Contains(r.Remedy, c.remedy) {
				t.Errorf("error %v; remedy %+v", err, r)
			}
		})
	}
}

func FuzzFields(f *testing.F) {
	f.Add("Package: a\nVersion: 1\n folded\nSize: 3")
	f.Add(":\n:\n")
	f.Fuzz(func(t *testing.T, s string) {
		for k, v := range fields(s) {
			if strings.ContainsAny(k+v, "\n") {
				t.Errorf("%q: %q", k, v)
			}
		}
	})
}
