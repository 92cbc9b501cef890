package integrity

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/jedisct1/go-minisign"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

//go:embed keys
var embedded embed.FS

// Ring is a folder of public keys, one file each, named for the key:
//
//	keys/FINGERPRINT.asc     OpenPGP, one armored transferable public key
//	keys/KEYID.minisign      minisign's public key file (two lines)
//	keys/KEYID.signify       signify's or usign's public key file (two lines)
//	keys/FINGERPRINT.pem     RSA, one SubjectPublicKeyInfo
//
// See the Kinds for how the names are spelled. Files are read, and held against their names, when a key is used. A Ring
// may be used by several goroutines.
type Ring struct{ files fs.FS }

// Pinned are the keys of this repository.
func Pinned() *Ring { return &Ring{embedded} }

// OpenRing reads and checks every key below keys/ of files; other names there, such as README.md, are left alone.
func OpenRing(files fs.FS) (*Ring, error) {
	r := &Ring{files}
	list, err := fs.ReadDir(files, "keys")
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		ext := path.Ext(f.Name())
		for kind, form := range forms {
			if form.ext == ext {
				if err := r.check(kind, strings.TrimSuffix(f.Name(), ext)); err != nil {
					return nil, err
				}
			}
		}
	}
	return r, nil
}

// forms tell how the files of each kind are named.
var forms = map[Kind]struct {
	ext  string
	name *regexp.Regexp
	what string
}{
	OpenPGP:  {".asc", regexp.MustCompile(`^([0-9A-F]{40}|[0-9A-F]{64})$`), "a full fingerprint, 40 or 64 upper-case hexadecimal digits"},
	Minisign: {".minisign", regexp.MustCompile(`^[0-9A-F]{16}$`), "a key id, 16 upper-case hexadecimal digits"},
	Signify:  {".signify", regexp.MustCompile(`^[0-9A-F]{16}$`), "a key number, 16 upper-case hexadecimal digits"},
	RSA:      {".pem", regexp.MustCompile(`^[0-9A-F]{64}$`), "a SHA-256 of the public key, 64 upper-case hexadecimal digits"},
}

// check reads one key.
func (r *Ring) check(kind Kind, name string) error {
	var err error
	switch kind {
	case OpenPGP:
		_, _, err = r.openPGP(name)
	case Minisign, Signify:
		_, err = r.ed25519(kind, name)
	case RSA:
		_, err = r.rsa(name)
	}
	return err
}

// read returns the key's file.
func (r *Ring) read(kind Kind, name string) (file string, data []byte, err error) {
	form := forms[kind]
	if !form.name.MatchString(name) {
		return "", nil, event.WithRemedy(fmt.Errorf("%.100q does not name a key: %s keys are named by %s", name, kind, form.what), "correct it in distros.toml")
	}
	file = "keys/" + name + form.ext
	data, err = fs.ReadFile(r.files, file)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil, fail(kind, ErrNotPinned, nil, []string{name}, "%s key %s is not among the pinned keys (there is no %s)", kind, name, file)
	}
	return file, data, err
}

// misnamed is the error for a file that holds something else.
func misnamed(file string) error {
	return fmt.Errorf("%s does not hold exactly the public key that it is named for", file)
}

// openPGP returns the key, and its packets as they are.
func (r *Ring) openPGP(fingerprint string) (*openpgp.Entity, []byte, error) {
	file, data, err := r.read(OpenPGP, fingerprint)
	if err != nil {
		return nil, nil, err
	}
	blocks, err := unarmor(data, openpgp.PublicKeyType)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(blocks) != 1 {
		return nil, nil, misnamed(file)
	}
	list, err := openpgp.ReadKeyRing(bytes.NewReader(blocks[0]))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(list) != 1 || list[0].PrivateKey != nil || hexUpper(list[0].PrimaryKey.Fingerprint) != fingerprint {
		return nil, nil, misnamed(file)
	}
	return list[0], blocks[0], nil
}

// Keyring returns these OpenPGP keys as one binary keyring (RFC 9580, transferable public keys), for programs that verify
// themselves, such as apt and gpgv. To name none is an error.
func (r *Ring) Keyring(fingerprints []string) ([]byte, error) {
	if len(fingerprints) == 0 {
		return nil, errNoKeys()
	}
	var buf bytes.Buffer
	for _, f := range fingerprints {
		_, packets, err := r.openPGP(f)
		if err != nil {
			return nil, err
		}
		buf.Write(packets)
	}
	return buf.Bytes(), nil
}

// errNoKeys is the error for a check that could never succeed.
func errNoKeys() error {
	return event.WithRemedy(errors.New("no key is named whose signature would be accepted"), "name the keys in distros.toml (signed_by)")
}

// ed25519 returns a minisign or signify key; both have the same form.
func (r *Ring) ed25519(kind Kind, id string) (minisign.PublicKey, error) {
	file, data, err := r.read(kind, id)
	if err != nil {
		return minisign.PublicKey{}, err
	}
	comment, rest, _ := strings.Cut(string(data), "\n")
	if !strings.HasPrefix(comment, "untrusted comment:") {
		return minisign.PublicKey{}, misnamed(file)
	}
	key, err := minisign.NewPublicKey(strings.TrimSpace(rest))
	if err != nil || key.SignatureAlgorithm != [2]byte{'E', 'd'} || keyID(kind, key.KeyId) != id {
		return minisign.PublicKey{}, misnamed(file)
	}
	return key, nil
}

// keyID spells a key id as its kind prints it.
func keyID(kind Kind, id [8]byte) string {
	if kind == Minisign {
		for i := range 4 {
			id[i], id[7-i] = id[7-i], id[i]
		}
	}
	return hexUpper(id[:])
}

// rsa returns an RSA key of at least 2048 bits.
func (r *Ring) rsa(fingerprint string) (*rsa.PublicKey, error) {
	file, data, err := r.read(RSA, fingerprint)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, misnamed(file)
	}
	sum := sha256.Sum256(block.Bytes)
	if hexUpper(sum[:]) != fingerprint {
		return nil, misnamed(file)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s holds no RSA key", file)
	}
	if public.N.BitLen() < minRSA {
		return nil, fail(RSA, ErrWeak, []string{fingerprint}, nil, "%s: a key of %d bits is too short", file, public.N.BitLen())
	}
	return public, nil
}

// minRSA is the shortest RSA key that counts, in bits (NIST SP 800-57).
const minRSA = 2048

func hexUpper(b []byte) string { return strings.ToUpper(fmt.Sprintf("%x", b)) }
