package integrity

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// tool runs a program of the field in dir; it skips the test where there is none.
func tool(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Skipf("%s is not installed", args[0])
	}
	c := exec.Command(args[0], args[1:]...)
	c.Dir = dir
	c.Env = append(os.Environ(), "GNUPGHOME="+dir, "LC_ALL=C", "TZ=UTC")
	out, err := c.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, out string, err error) string {
	t.Helper()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return out
}

// ours says what Verify says about two files in dir.
func ours(t *testing.T, r *Ring, kind Kind, dir, signature, data, key string) error {
	t.Helper()
	s, err := os.ReadFile(filepath.Join(dir, signature))
	if err != nil {
		t.Fatal(err)
	}
	d, err := os.ReadFile(filepath.Join(dir, data))
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Verify(kind, s, d, []string{key}, time.Now().Add(time.Second))
	return err
}

// agree holds our verdict against that of the program, for a right signature and for changed ones.
func agree(t *testing.T, r *Ring, kind Kind, dir, key string, verify ...string) {
	t.Helper()
	right, err := os.ReadFile(filepath.Join(dir, "sig"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewSource(1))
	for i := range 12 {
		s, d := right, data
		if i > 0 && i%2 == 0 {
			s = flip(s, random.Intn(len(s)))
		} else if i > 0 {
			d = flip(d, random.Intn(len(d)))
		}
		for name, content := range map[string][]byte{"sig": s, "data": d} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, theirs := tool(t, dir, verify...)
		mine := ours(t, r, kind, dir, "sig", "data", key)
		if strings.Contains(out, "CRC") { // gpg minds the armor's CRC, which RFC 9580 (section 6.1.1) tells readers to ignore
			continue
		}
		if i == 0 && (theirs != nil || mine != nil) || i%2 == 1 && (theirs == nil || mine == nil) || mine == nil && theirs != nil {
			t.Errorf("%v, change %d: the program says %v (%s), we say %v", verify[0], i, theirs, out, mine)
		}
	}
}

func data(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "data"), bytes.Repeat([]byte("a line - of data \r\n"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
}

func short(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs other programs")
	}
	t.Parallel()
}

func TestAgreesWithGPG(t *testing.T) {
	short(t)
	for _, algorithm := range []string{"ed25519", "rsa3072", "nistp256"} {
		t.Run(algorithm, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "gpg") // a short name: the agent's socket is there
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_, _ = tool(t, dir, "gpgconf", "--kill", "all")
				_ = os.RemoveAll(dir)
			})
			data(t, dir)
			gpg := func(args ...string) string {
				t.Helper()
				out, err := tool(t, dir, append([]string{"gpg", "--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always"}, args...)...)
				return must(t, out, err)
			}
			gpg("--quick-gen-key", "x <x@example.org>", algorithm, "sign", "1d")
			var key string
			for line := range strings.Lines(gpg("--with-colons", "--list-keys")) {
				if f := strings.Split(line, ":"); f[0] == "fpr" {
					key = f[9]
				}
			}
			r, err := OpenRing(fstest.MapFS{"keys/" + key + ".asc": {Data: []byte(gpg("--armor", "--export"))}})
			if err != nil {
				t.Fatal(err)
			}
			for _, how := range [][]string{{"--digest-algo", "SHA256"}, {"--armor", "--digest-algo", "SHA512"}, {"--textmode", "--digest-algo", "SHA384"}} {
				data(t, dir)
				gpg(append(how, "--detach-sign", "-o", "sig", "data")...)
				agree(t, r, OpenPGP, dir, key, "gpg", "--batch", "--quiet", "--trust-model", "always", "--verify", "sig", "data")
			}
			data(t, dir)
			gpg("--clear-sign", "-o", "clear", "data")
			message, err := os.ReadFile(filepath.Join(dir, "clear"))
			if err != nil {
				t.Fatal(err)
			}
			text, _, err := r.Open(OpenPGP, message, []string{key}, time.Now().Add(time.Second))
			if err != nil || strings.Count(string(text), "\n") != 999 {
				t.Errorf("%d bytes, %v", len(text), err)
			}
		})
	}
}

func TestAgreesWithMinisign(t *testing.T) {
	short(t)
	dir := t.TempDir()
	out, err := tool(t, dir, "minisign", "-G", "-W", "-p", "pub", "-s", "sec")
	must(t, out, err)
	pub, err := os.ReadFile(filepath.Join(dir, "pub"))
	if err != nil {
		t.Fatal(err)
	}
	// "untrusted comment: minisign public key ID", without leading zeros
	words := strings.Fields(strings.SplitN(string(pub), "\n", 2)[0])
	key := fmt.Sprintf("%016s", words[len(words)-1])
	r, err := OpenRing(fstest.MapFS{"keys/" + key + ".minisign": {Data: pub}})
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range [][]string{nil, {"-l"}} {
		data(t, dir)
		out, err := tool(t, dir, append([]string{"minisign", "-S", "-s", "sec", "-m", "data", "-x", "sig"}, form...)...)
		must(t, out, err)
		agree(t, r, Minisign, dir, key, "minisign", "-V", "-p", "pub", "-m", "data", "-x", "sig")
	}
}

func TestAgreesWithSignify(t *testing.T) {
	short(t)
	dir := t.TempDir()
	out, err := tool(t, dir, "signify-openbsd", "-G", "-n", "-p", "x.pub", "-s", "x.sec")
	must(t, out, err)
	pub, err := os.ReadFile(filepath.Join(dir, "x.pub"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Fields(strings.SplitN(string(pub), "\n", 2)[1])[0])
	if err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf("%X", raw[2:10])
	r, err := OpenRing(fstest.MapFS{"keys/" + key + ".signify": {Data: pub}})
	if err != nil {
		t.Fatal(err)
	}
	data(t, dir)
	out, err = tool(t, dir, "signify-openbsd", "-S", "-s", "x.sec", "-m", "data", "-x", "sig")
	must(t, out, err)
	out, err = tool(t, dir, "signify-openbsd", "-S", "-e", "-s", "x.sec", "-m", "data", "-x", "embedded")
	must(t, out, err)
	message, err := os.ReadFile(filepath.Join(dir, "embedded"))
	if err != nil {
		t.Fatal(err)
	}
	if text, _, err := r.Open(Signify, message, []string{key}, time.Now()); err != nil || len(text) != 19000 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	agree(t, r, Signify, dir, key, "signify-openbsd", "-V", "-p", "x.pub", "-m", "data", "-x", "sig")
}

func TestAgreesWithOpenSSL(t *testing.T) {
	short(t)
	dir := t.TempDir()
	out, err := tool(t, dir, "openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", "sec")
	must(t, out, err)
	out, err = tool(t, dir, "openssl", "pkey", "-in", "sec", "-pubout", "-out", "pub")
	must(t, out, err)
	out, err = tool(t, dir, "sh", "-c", "openssl pkey -pubin -in pub -outform DER | openssl dgst -sha256 -r")
	key := strings.ToUpper(must(t, out, err)[:64])
	pub, err := os.ReadFile(filepath.Join(dir, "pub"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenRing(fstest.MapFS{"keys/" + key + ".pem": {Data: pub}})
	if err != nil {
		t.Fatal(err)
	}
	data(t, dir)
	out, err = tool(t, dir, "sh", "-c", "openssl dgst -sha256 -sign sec -out raw data && base64 raw > sig")
	must(t, out, err)
	agree(t, r, RSA, dir, key, "sh", "-c", "base64 -d sig > raw && openssl dgst -sha256 -verify pub -signature raw data")
}

// Keys of OpenPGP's version 6, which gpg does not make.
func TestVersion6Keys(t *testing.T) {
	now := time.Unix(1750000000, 0)
	config := &packet.Config{V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519, DefaultHash: crypto.SHA512, Time: func() time.Time { return now }}
	e, err := openpgp.NewEntity("x", "", "x@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	var pub, sig bytes.Buffer
	w, err := armor.Encode(&pub, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Serialize(w); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	key := fmt.Sprintf("%X", e.PrimaryKey.Fingerprint)
	if len(key) != 64 {
		t.Fatal(key)
	}
	r, err := OpenRing(fstest.MapFS{"keys/" + key + ".asc": {Data: pub.Bytes()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := openpgp.DetachSign(&sig, []*openpgp.Entity{e}, strings.NewReader("data"), config); err != nil {
		t.Fatal(err)
	}
	if signer, err := r.Verify(OpenPGP, sig.Bytes(), []byte("data"), []string{key}, now.Add(time.Hour)); err != nil || signer != key {
		t.Errorf("%q, %v", signer, err)
	}
	if _, err := r.Verify(OpenPGP, sig.Bytes(), []byte("Data"), []string{key}, now.Add(time.Hour)); err == nil {
		t.Error("a changed text was accepted")
	}
}
