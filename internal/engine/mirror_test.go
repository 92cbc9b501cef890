package engine

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

const recordings = "upstream/testdata/recorded"

// mirror serves what upstreams answered, each answer after a delay, with signatures by keys of its own.
type mirror struct {
	*httptest.Server
	ring   *integrity.Ring
	pgp    *openpgp.Entity
	ed     ed25519.PrivateKey
	rsa    *rsa.PrivateKey
	delay  time.Duration
	folder fs.FS
	extra  map[string][]byte                             // answers by path, before those recorded
	break_ func(http.ResponseWriter, *http.Request) bool // answers instead, if it wants to
	asked  atomic.Int64
	bodies atomic.Int64 // answers with one
}

// signing is how the mirror's key signs, and when it was made.
var signing = &packet.Config{DefaultHash: crypto.SHA256, Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC) }}

var number = [8]byte{1, 2, 3, 4, 5, 6, 7, 8}

const signifyName, minisignName = "0102030405060708", "0807060504030201"

func newMirror(t testing.TB, c *catalog.Catalog) *mirror {
	t.Helper()
	m := &mirror{folder: os.DirFS(recordings), extra: map[string][]byte{}}
	var err error
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	m.pgp, err = openpgp.NewEntity("Test", "", "test@example.org", signing)
	must(err)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	m.ed = private
	m.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	var armoured bytes.Buffer
	w, err := armor.Encode(&armoured, openpgp.PublicKeyType, nil)
	must(err)
	must(m.pgp.Serialize(w))
	must(w.Close())
	der, err := x509.MarshalPKIXPublicKey(&m.rsa.PublicKey)
	must(err)
	names := map[string]string{"openpgp": fmt.Sprintf("%X", m.pgp.PrimaryKey.Fingerprint), "minisign": minisignName, "signify": signifyName, "rsa": fmt.Sprintf("%X", sha256.Sum256(der))}
	ed := []byte("untrusted comment: test\n" + base64.StdEncoding.EncodeToString(slices.Concat([]byte("Ed"), number[:], public)) + "\n")
	m.ring, err = integrity.OpenRing(fstest.MapFS{"keys/README.md": {}, "keys/" + names["openpgp"] + ".asc": {Data: armoured.Bytes()}, "keys/" + minisignName + ".minisign": {Data: ed},
		"keys/" + signifyName + ".signify": {Data: ed}, "keys/" + names["rsa"] + ".pem": {Data: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}})
	must(err)
	for i := range c.Flavors {
		f := &c.Flavors[i]
		if f.Origin == nil || f.Origin.Signature == nil {
			continue
		}
		f.Origin.Signature.Keys = []string{names[f.Origin.Signature.Kind]}
		for r := range f.Releases {
			f.Releases[r].SignedBy = nil
		}
	}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) mirrors() []upstream.Mirror {
	return []upstream.Mirror{{From: "https://", To: m.URL + "/"}, {From: "http://", To: m.URL + "/"}}
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.asked.Add(1)
	time.Sleep(m.delay) // the network
	if m.break_ != nil && m.break_(w, r) {
		return
	}
	host, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	req := r.Clone(r.Context())
	req.URL.Scheme, req.URL.Host, req.URL.Path = "https", host, "/"+rest
	if data, ok := m.answer(host + "/" + rest); ok {
		req.Header.Del("Range")
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(m.seed(host+"/"+rest, data))))
		made := time.Time{}
		if strings.HasSuffix(rest, "/InRelease") {
			made = signing.Time()
		}
		if r.Header.Get("If-None-Match") != w.Header().Get("ETag") && (made.IsZero() || r.Header.Get("If-Modified-Since") != made.Format(http.TimeFormat)) {
			m.bodies.Add(1)
		}
		http.ServeContent(w, r, "", made, bytes.NewReader(data))
		return
	}
	resp, err := upstream.Recorded{FS: m.folder}.RoundTrip(req)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	if r.Method == http.MethodGet && resp.StatusCode == http.StatusOK {
		m.bodies.Add(1)
	}
	if resp.ContentLength > 0 {
		w.Header().Set("Content-Length", fmt.Sprint(resp.ContentLength))
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// seed is what an answer's validator is made of: signatures differ each time they are made.
func (m *mirror) seed(name string, data []byte) []byte {
	if _, ok := m.extra[name]; ok {
		return data
	}
	return []byte(name)
}

// answer makes signatures of what is recorded.
func (m *mirror) answer(name string) ([]byte, bool) {
	if data, ok := m.extra[name]; ok {
		return data, true
	}
	read := func(name string) []byte {
		data, err := fs.ReadFile(m.folder, name)
		if err != nil {
			return []byte("what is too large to be recorded")
		}
		return data
	}
	switch ext := path.Ext(name); {
	case strings.HasSuffix(name, "-CHECKSUM") && strings.HasPrefix(name, "download.fedoraproject.org/"):
		var signed bytes.Buffer
		w, _ := clearsign.Encode(&signed, m.pgp.PrivateKey, signing)
		_, _ = w.Write(read(name))
		_ = w.Close()
		return append(signed.Bytes(), '\n'), true
	case path.Base(name) == "SHA256.sig":
		text := read(strings.TrimSuffix(name, ".sig"))
		return append([]byte("untrusted comment: test\n"+base64.StdEncoding.EncodeToString(slices.Concat([]byte("Ed"), number[:], ed25519.Sign(m.ed, text)))+"\n"), text...), true
	case ext == ".minisig":
		signature := ed25519.Sign(m.ed, make([]byte, 64))
		return []byte("untrusted comment: test\n" + base64.StdEncoding.EncodeToString(slices.Concat([]byte("ED"), number[:], signature)) + "\ntrusted comment: test\n" +
			base64.StdEncoding.EncodeToString(ed25519.Sign(m.ed, append(signature, "test"...))) + "\n"), true
	case strings.HasSuffix(name, ".img.sig"):
		signature, _ := rsa.SignPKCS1v15(nil, m.rsa, crypto.SHA256, make([]byte, 32))
		return []byte(base64.StdEncoding.EncodeToString(signature)), true
	case ext == ".asc" || ext == ".gpg":
		var b bytes.Buffer
		_ = openpgp.ArmoredDetachSign(&b, m.pgp, bytes.NewReader(read(strings.TrimSuffix(name, ext))), signing)
		return b.Bytes(), true
	case ext == ".sig":
		var b bytes.Buffer
		_ = openpgp.DetachSign(&b, m.pgp, bytes.NewReader(read(strings.TrimSuffix(name, ext))), signing)
		return b.Bytes(), true
	}
	return nil, false
}
