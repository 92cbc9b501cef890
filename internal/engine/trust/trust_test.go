package trust

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	gstatic "github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	ctypes "github.com/sigstore/cosign/v2/pkg/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

var ctx = context.Background()

// Two key pairs are enough for all tests: making and opening one takes a quarter of a second.
var keys = sync.OnceValue(func() (pairs [2]struct {
	private, public []byte
	signer          *Signer
}) {
	for i := range pairs {
		k, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return []byte("secret"), nil })
		if err != nil {
			panic(err)
		}
		pairs[i].private, pairs[i].public = k.PrivateBytes, k.PublicBytes
		if pairs[i].signer, err = LoadSignerPEM(k.PrivateBytes, []byte("secret")); err != nil {
			panic(err)
		}
	}
	return pairs
})

var one = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}
var two = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("2", 64)}

const identity = "registry.example.org/kmi/example:1"

// told checks that an error says something and what to do.
func told(t *testing.T, err error, says, remedy string) {
	t.Helper()
	var r *event.Remedied
	if err == nil || !strings.Contains(err.Error(), says) || !errors.As(err, &r) || !strings.Contains(r.Remedy, remedy) {
		t.Errorf("%v (%+v), want %q and the remedy %q", err, r, says, remedy)
	}
}

func TestGenerateKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "keys")
	pair, err := GenerateKey(dir, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]fs.FileMode{pair.Private: 0o600, pair.Public: 0o644, dir: 0o700 | fs.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	s, err := LoadSigner(ctx, pair.Private, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := LoadKey(pair.Public)
	if err != nil || k.ID != s.ID || len(k.ID) != 64 || !bytes.Equal(k.PEM, s.PEM) {
		t.Errorf("%v: %v, %v", err, k, s.Key)
	}
	before, _ := os.ReadFile(pair.Private)
	_, err = GenerateKey(dir, []byte("secret"))
	told(t, err, "never overwritten", "--key FILE")
	if after, _ := os.ReadFile(pair.Private); !errors.Is(err, ErrExists) || !bytes.Equal(before, after) {
		t.Errorf("%v", err)
	}
	// Interrupted between the two files: completed, with the right passphrase only.
	public, _ := os.ReadFile(pair.Public)
	_ = os.Remove(pair.Public)
	if _, err := GenerateKey(dir, []byte("wrong")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("%v", err)
	}
	if _, err := GenerateKey(dir, []byte("secret")); err != nil {
		t.Error(err)
	}
	if again, _ := os.ReadFile(pair.Public); !bytes.Equal(again, public) {
		t.Error("the public half is another one")
	}
	// A public key of somebody else's is not overwritten either.
	_ = os.Remove(pair.Private)
	if _, err := GenerateKey(dir, nil); !errors.Is(err, ErrExists) {
		t.Errorf("%v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	_ = os.WriteFile(file, nil, 0o600)
	_, err = GenerateKey(file, nil)
	told(t, err, "not a directory", "--key FILE")
}

// Of many at once, one makes the pair, and its halves belong together.
func TestGenerateKeyAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() { _, errs[i] = GenerateKey(dir, nil) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if !errors.Is(err, ErrExists) {
			t.Error(err)
		}
	}
	s, err := LoadSigner(ctx, filepath.Join(dir, PrivateName), nil)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := LoadKey(filepath.Join(dir, PublicName)); made != 1 || err != nil || k.ID != s.ID {
		t.Errorf("%d made a pair; %v", made, err)
	}
}

func TestLoadSigner(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	private := write("k", keys()[0].private)
	_, err := LoadSigner(ctx, private, []byte("wrong"))
	told(t, err, "signing key "+private+": the passphrase does not open it", "COSIGN_PASSWORD")
	if !errors.Is(err, ErrPassphrase) {
		t.Error("it is no ErrPassphrase")
	}
	_, err = LoadSigner(ctx, private, nil)
	told(t, err, "none was given", "COSIGN_PASSWORD")
	_, err = LoadSigner(ctx, private+"x", nil)
	told(t, err, "no such file", "cosign generate-key-pair")
	_, err = LoadSigner(ctx, dir, nil)
	told(t, err, "is not a file", "cosign generate-key-pair")
	_, err = LoadSigner(ctx, write("text", []byte("hello")), nil)
	told(t, err, "not a key", "cosign.key")
	_, err = LoadSigner(ctx, write("pub", keys()[0].public), nil)
	told(t, err, "public key, which cannot sign", "cosign.key")
	plain, _ := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, 32)))
	_, err = LoadSigner(ctx, write("plain", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: plain})), nil)
	told(t, err, `"PRIVATE KEY", not a private key of cosign`, "cosign import-key-pair")
	_, err = LoadSigner(ctx, write("bad", pem.EncodeToMemory(&pem.Block{Type: cosign.SigstorePrivateKeyPemType, Bytes: []byte("{}")})), nil)
	told(t, err, "damaged", "cosign.key")
	_, err = LoadSigner(ctx, write("big", make([]byte, maxKey+1)), nil)
	told(t, err, "not a key", "cosign generate-key-pair")
	for _, ref := range []string{"awskms:///alias/x", "gcpkms://projects/x", "azurekms://x", "hashivault://x", "k8s://ns/x", "keyless"} {
		_, err := LoadSigner(ctx, ref, nil)
		told(t, err, "signing with "+ref+" is not supported yet", "--key FILE")
	}
}

func TestLoadKey(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"private": {keys()[0].private, "is a private key"},
		"text":    {[]byte("hello"), "not a key"},
		"broken":  {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}), "not a public key"},
		"huge":    {make([]byte, maxKey+1), "not a key"},
	} {
		path := filepath.Join(dir, name)
		_ = os.WriteFile(path, c.data, 0o600)
		_, err := LoadKey(path)
		told(t, err, c.want, "cosign.pub")
	}
	_, err := LoadKey(filepath.Join(dir, "none"))
	told(t, err, "no such file", "cosign.pub")
	_, err = LoadKey("awskms:///x")
	told(t, err, "not supported yet", "cosign.pub")
	// Other kinds of keys that cosign can sign with.
	edp, _, _ := ed25519.GenerateKey(rand.Reader)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, public := range []any{edp, &r.PublicKey} {
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseKey(append([]byte("\n\n"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)); err != nil {
			t.Errorf("%T: %v", public, err)
		}
	}
}

func sign(t *testing.T, s *Signer, digest v1.Hash, as string, old v1.Image) v1.Image {
	t.Helper()
	img, err := Sign(ctx, s, "registry.example.org/kmi/example", digest, as, old)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func count(t *testing.T, img v1.Image) int {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return len(m.Layers)
}

func TestSignAndVerify(t *testing.T) {
	a, b := keys()[0].signer, keys()[1].signer
	img := sign(t, a, one, identity, nil)
	m, err := img.Manifest()
	if err != nil || m.MediaType != types.OCIManifestSchema1 || m.Layers[0].MediaType != ctypes.SimpleSigningMediaType {
		t.Fatalf("%+v, %v", m, err)
	}
	claims, err := Claims(ctx, &a.Key, one, img)
	if err != nil || len(claims) != 1 || claims[0] != (Claim{one, identity, a.ID}) {
		t.Errorf("%+v, %v", claims, err)
	}
	public, err := ParseKey(keys()[0].public)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(ctx, public, one, img); err != nil {
		t.Error(err)
	}
	// Signing again changes nothing; another name is another claim; somebody else's signature is added.
	if again := sign(t, a, one, identity, img); again != img {
		t.Error("a signature was added that was there")
	}
	third := sign(t, b, one, identity, sign(t, a, one, "", img))
	if count(t, third) != 3 || Verify(ctx, &b.Key, one, third) != nil {
		t.Errorf("%d signatures", count(t, third))
	}
	if claims, err := Claims(ctx, &a.Key, one, third); err != nil || len(claims) != 2 || claims[1].Identity != "registry.example.org/kmi/example" {
		t.Errorf("%+v, %v", claims, err)
	}
	if _, err := Sign(ctx, a, "UPPER case", one, "", nil); err == nil || !strings.Contains(err.Error(), "the name to sign for") {
		t.Errorf("%v", err)
	}
	if Tag(one) != "sha256-"+one.Hex+".sig" {
		t.Error(Tag(one))
	}
}

func TestVerifyRefuses(t *testing.T) {
	a, b := keys()[0].signer, keys()[1].signer
	good := sign(t, a, one, identity, nil)
	// stored makes an image of one signature, as it might be found.
	stored := func(payload []byte, mt types.MediaType, annotations map[string]string) v1.Image {
		img, err := mutate.Append(mutate.MediaType(sign(t, b, two, "", nil), types.OCIManifestSchema1), mutate.Addendum{Layer: gstatic.NewLayer(payload, mt), Annotations: annotations})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	body := func(d v1.Hash, kind string) []byte {
		var p map[string]any
		sig, err := NewSignature(a, d, identity)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := sig.Payload()
		_ = json.Unmarshal(raw, &p)
		p["critical"].(map[string]any)["type"] = kind
		out, _ := json.Marshal(p)
		return out
	}
	signed := func(payload []byte) map[string]string {
		raw, err := a.signer.SignMessage(bytes.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{static.SignatureAnnotationKey: base64.StdEncoding.EncodeToString(raw), keyAnnotation: a.ID}
	}
	m, err := good.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	known, anonymous := m.Layers[0].Annotations, map[string]string{static.SignatureAnnotationKey: m.Layers[0].Annotations[static.SignatureAnnotationKey]}
	mine, other := body(one, "cosign container image signature"), body(one, "something else")
	none, err := random.Image(10, 0)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		key    *Key
		digest v1.Hash
		img    v1.Image
		want   []error
		says   string
	}{
		"no image":             {&a.Key, one, nil, []error{ErrUnsigned}, "not signed"},
		"no signature":         {&a.Key, one, none, []error{ErrUnsigned}, "not signed"},
		"attestation only":     {&a.Key, one, only(t, stored([]byte("{}"), ctypes.DssePayloadType, nil)), []error{ErrUnsigned}, "not signed"},
		"other key":            {&b.Key, one, good, []error{ErrWrongKey}, "it is by key \"" + a.ID[:16] + "\", expected " + b.ID[:16]},
		"other key, unnamed":   {&b.Key, one, only(t, stored(payloadOf(t, good), ctypes.SimpleSigningMediaType, anonymous)), []error{ErrWrongKey}, "invalid signature"},
		"other image":          {&a.Key, two, good, []error{ErrTampered}, "the signature of another image: expected " + two.String() + ", found " + one.String()},
		"changed payload":      {&a.Key, one, stored(mine, ctypes.SimpleSigningMediaType, map[string]string{static.SignatureAnnotationKey: base64.StdEncoding.EncodeToString([]byte("x")), keyAnnotation: a.ID}), []error{ErrTampered, ErrWrongKey}, "does not verify"},
		"replayed":             {&a.Key, two, stored(payloadOf(t, good), ctypes.SimpleSigningMediaType, known), []error{ErrTampered}, "another image"},
		"no JSON":              {&a.Key, one, stored([]byte("x"), ctypes.SimpleSigningMediaType, signed([]byte("x"))), []error{ErrTampered}, "no simple signing document"},
		"other type":           {&a.Key, one, stored(other, ctypes.SimpleSigningMediaType, signed(other)), []error{ErrTampered}, "something else"},
		"no signature in it":   {&a.Key, one, stored(mine, ctypes.SimpleSigningMediaType, nil), []error{ErrWrongKey}, ""},
		"base64 that is none":  {&a.Key, one, stored(mine, ctypes.SimpleSigningMediaType, map[string]string{static.SignatureAnnotationKey: "\x00"}), []error{ErrWrongKey}, ""},
		"wrong layer":          {&a.Key, one, lying(t, good), []error{ErrTampered}, "expected a payload with the digest"},
		"key is only a prefix": {&a.Key, one, stored(mine, ctypes.SimpleSigningMediaType, map[string]string{keyAnnotation: "\x1b]0;x"}), []error{ErrWrongKey}, ""},
	} {
		err := Verify(ctx, c.key, c.digest, c.img)
		for _, want := range c.want {
			if !errors.Is(err, want) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%s: %v, want %v, %q", what, err, want, c.says)
			}
		}
	}
	// One good signature among bad ones is enough.
	if err := Verify(ctx, &a.Key, one, sign(t, a, one, identity, sign(t, b, one, "", broken(t)))); err != nil {
		t.Error(err)
	}
	big := stored(make([]byte, maxPayload+1), ctypes.SimpleSigningMediaType, nil)
	if err := Verify(ctx, &a.Key, one, big); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := Verify(ended, &b.Key, one, good); err == nil {
		t.Error("a context that ended is no reason to accept")
	}
}

func TestMerge(t *testing.T) {
	a, b := keys()[0].signer, keys()[1].signer
	base := sign(t, a, one, identity, nil)
	left, right := sign(t, a, one, "registry.example.org/left:1", base), sign(t, b, one, "", base)
	both, err := Merge(left, right)
	if err != nil || count(t, both) != 3 || Verify(ctx, &a.Key, one, both) != nil || Verify(ctx, &b.Key, one, both) != nil {
		t.Errorf("%d signatures, %v", count(t, both), err)
	}
	if same, err := Merge(both, left); err != nil || same != both {
		t.Errorf("%v", err)
	}
	if same, err := Merge(nil, left); err != nil || same != left {
		t.Errorf("%v", err)
	}
}

func payloadOf(t *testing.T, img v1.Image) []byte {
	t.Helper()
	all, err := (&signatures{img}).read()
	if err != nil {
		t.Fatal(err)
	}
	return all[0].payload
}

// only leaves the last layer of an image of signatures.
func only(t *testing.T, img v1.Image) v1.Image {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	m.Layers = m.Layers[len(m.Layers)-1:]
	return &altered{img, m, nil}
}

// lying gives another payload than its manifest names.
func lying(t *testing.T, img v1.Image) v1.Image {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return &altered{img, m, gstatic.NewLayer([]byte("{}"), ctypes.SimpleSigningMediaType)}
}

// broken is an image with a signature that is none.
func broken(t *testing.T) v1.Image {
	t.Helper()
	img, err := mutate.Append(mutate.MediaType(sign(t, keys()[1].signer, two, "", nil), types.OCIManifestSchema1), mutate.Addendum{
		Layer: gstatic.NewLayer([]byte("{}"), ctypes.SimpleSigningMediaType), Annotations: map[string]string{static.SignatureAnnotationKey: "AAAA"}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

type altered struct {
	v1.Image
	m     *v1.Manifest
	layer v1.Layer
}

func (a *altered) Manifest() (*v1.Manifest, error) { return a.m, nil }
func (a *altered) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	if a.layer != nil {
		return a.layer, nil
	}
	return a.Image.LayerByDigest(h)
}
