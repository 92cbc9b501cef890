package integrity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"embed"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Kind is a kind of signature.
type Kind string

const (
	OpenPGP  Kind = "openpgp"  // RFC 9580; keys are named by the fingerprint of their primary key, 40 or 64 digits
	Minisign Kind = "minisign" // https://jedisct1.github.io/minisign/; keys are named by their number, 16 digits, as minisign prints it
	Signify  Kind = "signify"  // signify(1); keys are named by their number, 16 digits in the order of its bytes
	RSA      Kind = "rsa"      // PKCS #1 v1.5 over SHA-256, base64; keys are named by the SHA-256 of their SubjectPublicKeyInfo, 64 digits
)

// extensions are those of the keys' files.
var extensions = map[Kind]string{OpenPGP: ".asc", Minisign: ".minisign", Signify: ".signify", RSA: ".pem"}

//go:embed keys
var embedded embed.FS

// Ring holds the keys that are pinned.
type Ring struct {
	files fs.FS // FINGERPRINT.asc and so on

	mu     sync.Mutex
	parsed map[string]any // by the file's name
}

// Pinned are the keys of this repository.
var Pinned = sync.OnceValue(func() *Ring {
	sub, err := fs.Sub(embedded, "keys")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return OpenRing(sub)
})

// OpenRing opens a folder of keys, each in a file named for it: FINGERPRINT.asc (OpenPGP, one key with its subkeys),
// NUMBER.minisign, NUMBER.signify (as their programs write public keys), FINGERPRINT.pem (RSA). Files are read when their
// keys are needed.
func OpenRing(folder fs.FS) *Ring { return &Ring{files: folder, parsed: map[string]any{}} }

// key reads the key of that kind and name.
func (r *Ring) key(kind Kind, name string) (any, error) {
	file := name + extensions[kind]
	r.mu.Lock()
	defer r.mu.Unlock()
	if k, ok := r.parsed[file]; ok {
		return k, nil
	}
	data, err := fs.ReadFile(r.files, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, event.WithRemedy(fmt.Errorf("key %s is not among the pinned keys", name), "add it as internal/engine/integrity/keys/%s, with its source in the README there", file)
	}
	if err != nil {
		return nil, err
	}
	var k any
	found := ""
	switch kind {
	case OpenPGP:
		var list openpgp.EntityList
		if list, err = openpgp.ReadArmoredKeyRing(bytes.NewReader(data)); err == nil {
			if len(list) != 1 {
				return nil, fmt.Errorf("keys/%s holds %d keys, not one", file, len(list))
			}
			k, found = list[0], Fingerprint(list[0])
		}
	case Minisign, Signify:
		var number [8]byte
		var public ed25519.PublicKey
		if number, public, err = edKey(data); err == nil {
			k, found = public, numberOf(kind, number)
		}
	case RSA:
		block, _ := pem.Decode(data)
		if block == nil {
			return nil, fmt.Errorf("keys/%s is no PEM", file)
		}
		var public any
		if public, err = x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			p, ok := public.(*rsa.PublicKey)
			if !ok || p.N.BitLen() < 2048 {
				return nil, fmt.Errorf("keys/%s is no RSA key of 2048 bits or more", file)
			}
			k, found = p, fmt.Sprintf("%X", sha256.Sum256(block.Bytes))
		}
	default:
		return nil, fmt.Errorf("there is no kind of signature %q", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("keys/%s: %w", file, err)
	}
	if found != name {
		return nil, fmt.Errorf("keys/%s holds the key %s", file, found)
	}
	r.parsed[file] = k
	return k, nil
}

// Entities returns the OpenPGP keys with these fingerprints.
func (r *Ring) Entities(fingerprints []string) (openpgp.EntityList, error) {
	if len(fingerprints) == 0 {
		return nil, event.WithRemedy(errors.New("no key is named whose signature would be accepted"), "name fingerprints in signed_by of the release in distros.toml")
	}
	var list openpgp.EntityList
	for _, f := range fingerprints {
		k, err := r.key(OpenPGP, f)
		if err != nil {
			return nil, err
		}
		list = append(list, k.(*openpgp.Entity))
	}
	return list, nil
}

// Keyring returns keys as a binary OpenPGP keyring (RFC 9580, transferable public keys).
func Keyring(list openpgp.EntityList) ([]byte, error) {
	var buf bytes.Buffer
	for _, e := range list {
		if err := e.Serialize(&buf); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), nil
}

// Fingerprint is the primary key's fingerprint, upper case.
func Fingerprint(e *openpgp.Entity) string {
	return strings.ToUpper(fmt.Sprintf("%x", e.PrimaryKey.Fingerprint))
}

// comment begins the first line of keys and signatures of minisign and signify.
const comment = "untrusted comment:"

// edLines reads what minisign and signify write: a comment, and a line of base64.
func edLines(data []byte) (raw []byte, rest string, err error) {
	first, rest, _ := strings.Cut(string(data), "\n")
	if strings.HasPrefix(first, comment) {
		first, rest, _ = strings.Cut(rest, "\n")
	}
	raw, err = base64.StdEncoding.DecodeString(strings.TrimSpace(first))
	if err != nil || len(raw) < 10 {
		return nil, "", errors.New("after a comment, a line of base64 is expected")
	}
	return raw, rest, nil
}

// edKey reads a public key of minisign or signify: "Ed", 8 bytes of its number, 32 of the key.
func edKey(data []byte) (number [8]byte, key ed25519.PublicKey, err error) {
	raw, _, err := edLines(data)
	if err != nil {
		return number, nil, err
	}
	if len(raw) != 42 || string(raw[:2]) != "Ed" {
		return number, nil, errors.New("it is no Ed25519 public key of minisign or signify")
	}
	copy(number[:], raw[2:])
	return number, raw[10:], nil
}

// numberOf spells a key's number: minisign prints it as one number, whose bytes are stored the other way round.
func numberOf(kind Kind, number [8]byte) string {
	if kind == Minisign {
		slices.Reverse(number[:])
	}
	return fmt.Sprintf("%X", number)
}
