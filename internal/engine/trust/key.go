// Package trust signs images and verifies signatures, with keys and in the format of cosign: what `cosign verify --key`
// checks.
package trust

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Names of the two files of a key pair, as cosign has them.
const (
	PrivateName = "cosign.key"
	PublicName  = "cosign.pub"
)

// KeyPair names the two files of a key pair.
type KeyPair struct{ Private, Public string }

// Key verifies signatures.
type Key struct {
	ID       string // SHA-256 of the public key's DER form (SubjectPublicKeyInfo, RFC 5280), hex
	PEM      []byte // the public key
	verifier signature.Verifier
}

// String is the beginning of the key's ID, for messages.
func (k *Key) String() string { return k.ID[:16] }

// Signer signs, and is the Key that verifies what it signed.
type Signer struct {
	Key
	signer signature.Signer
}

// ErrExists is the error of a key pair that is there already.
var ErrExists = errors.New("there is a key already, and keys are never overwritten")

// ErrPassphrase is the error of a private key that the passphrase does not open.
var ErrPassphrase = errors.New("the passphrase does not open it")

// GenerateKey makes a key pair in dir, which it makes if need be: cosign.key (mode 0600, encrypted with the passphrase,
// which may be empty) and cosign.pub. Each is complete the moment it has its name; neither is ever overwritten. A pair
// whose making was interrupted after cosign.key is completed, if the passphrase fits. It takes about a quarter of a
// second (scrypt). Errors: ErrExists, and those of the files.
func GenerateKey(dir string, passphrase []byte) (KeyPair, error) {
	pair := KeyPair{filepath.Join(dir, PrivateName), filepath.Join(dir, PublicName)}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return pair, event.WithRemedy(err, "name a key with --key FILE")
	}
	unlock, err := lock(dir)
	if err != nil {
		return pair, event.WithRemedy(err, "name a key with --key FILE")
	}
	defer unlock()
	private, public := exists(pair.Private), exists(pair.Public)
	var data []byte
	switch {
	case public:
		return pair, event.WithRemedy(fmt.Errorf("%s: %w", pair.Public, ErrExists), "name a key with --key FILE, or move the old pair away")
	case private:
		s, err := LoadSigner(context.Background(), pair.Private, passphrase)
		if err != nil {
			return pair, err
		}
		data = s.PEM
	default:
		keys, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return passphrase, nil })
		if err != nil {
			return pair, err
		}
		if err := create(pair.Private, keys.PrivateBytes, 0o600); err != nil {
			return pair, event.WithRemedy(err, "name a key with --key FILE")
		}
		data = keys.PublicBytes
	}
	return pair, event.WithRemedy(create(pair.Public, data, 0o644), "name a key with --key FILE")
}

// exists says whether anything has that name; what cannot be told counts as there.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// lock takes the lock of a folder, which its holder loses when it dies.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(d.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), d.Close())
	}
	return func() { _ = d.Close() }, nil
}

// create writes a new file in one step. An existing one is ErrExists.
func create(path string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) { // Rename would replace
		return fmt.Errorf("%s: %w", path, ErrExists)
	} else if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

var uri = regexp.MustCompile(`^[a-z0-9+.-]+://`)

// maxKey is the size in bytes of the largest key file that is read.
const maxKey = 64 << 10

func readKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && info.Mode()&os.ModeNamedPipe == 0 {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	if info.Size() > maxKey {
		return nil, fmt.Errorf("%s has %d bytes: it is not a key", path, info.Size())
	}
	return os.ReadFile(path)
}

// LoadSigner reads a private key of cosign from a file. Addresses of key management services and "keyless" are not
// supported yet, which the error says. The error is ErrPassphrase where that is the reason; each names the file and what
// to do.
func LoadSigner(_ context.Context, ref string, passphrase []byte) (*Signer, error) {
	if uri.MatchString(ref) || ref == "keyless" {
		return nil, event.WithRemedy(fmt.Errorf("signing with %s is not supported yet", ref), "sign with a key file: --key FILE")
	}
	data, err := readKey(ref)
	if err != nil {
		return nil, event.WithRemedy(fmt.Errorf("signing key: %w", err), "make one with: cosign generate-key-pair; or leave --key out to have one made")
	}
	s, err := LoadSignerPEM(data, passphrase)
	var r *event.Remedied
	if errors.As(err, &r) {
		return nil, &event.Remedied{Err: fmt.Errorf("signing key %s: %w", ref, r.Err), Remedy: r.Remedy}
	}
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", ref, err)
	}
	return s, nil
}

// LoadSignerPEM reads a private key as cosign generate-key-pair writes it (PEM), which takes about a quarter of a second
// (scrypt). The error is ErrPassphrase where that is the reason.
func LoadSignerPEM(data, passphrase []byte) (*Signer, error) {
	const want = "give the file that cosign generate-key-pair calls cosign.key"
	block, _ := pem.Decode(data)
	switch {
	case block == nil:
		return nil, event.WithRemedy(errors.New("it is not a key (PEM)"), want)
	case strings.Contains(block.Type, "PUBLIC"):
		return nil, event.WithRemedy(errors.New("it is a public key, which cannot sign"), want)
	case block.Type != cosign.CosignPrivateKeyPemType && block.Type != cosign.SigstorePrivateKeyPemType:
		return nil, event.WithRemedy(fmt.Errorf("it is a %q, not a private key of cosign", block.Type), "convert it with: cosign import-key-pair --key FILE")
	}
	sv, err := cosign.LoadPrivateKey(data, passphrase, nil)
	if err != nil {
		// secure-systems-lab/go-securesystemslib, encrypted, has no error value for it.
		if strings.Contains(err.Error(), "decryption failed") {
			if len(passphrase) == 0 {
				return nil, event.WithRemedy(fmt.Errorf("%w: it is encrypted, and none was given", ErrPassphrase), "set COSIGN_PASSWORD to its passphrase")
			}
			return nil, event.WithRemedy(ErrPassphrase, "set COSIGN_PASSWORD to its passphrase")
		}
		return nil, event.WithRemedy(fmt.Errorf("it is damaged: %w", err), want)
	}
	public, err := sv.PublicKey()
	if err != nil {
		return nil, err
	}
	key, err := newKey(public, sv)
	if err != nil {
		return nil, err
	}
	return &Signer{*key, sv}, nil
}

// LoadKey reads a public key (PEM) from a file.
func LoadKey(path string) (*Key, error) {
	const remedy = "name the publisher's cosign.pub with --key FILE"
	if uri.MatchString(path) || path == "keyless" {
		return nil, event.WithRemedy(fmt.Errorf("verifying with %s is not supported yet", path), remedy)
	}
	data, err := readKey(path)
	if err != nil {
		return nil, event.WithRemedy(fmt.Errorf("public key: %w", err), remedy)
	}
	k, err := ParseKey(data)
	if err != nil {
		return nil, event.WithRemedy(fmt.Errorf("%s: %w", path, err), remedy)
	}
	return k, nil
}

// ParseKey reads a public key (PEM).
func ParseKey(data []byte) (*Key, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("it is not a key (PEM)")
	}
	if strings.Contains(block.Type, "PRIVATE") {
		return nil, errors.New("it is a private key: signatures are verified with the public one")
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(bytes.TrimSpace(data))
	if err != nil {
		return nil, fmt.Errorf("it is not a public key: %w", err)
	}
	// The same options as cosign loads keys with.
	verifier, err := signature.LoadDefaultVerifier(public, *cosign.GetDefaultLoadOptions(nil)...)
	if err != nil {
		return nil, fmt.Errorf("it is a public key of a kind that is not supported: %w", err)
	}
	return newKey(public, verifier)
}

func newKey(public crypto.PublicKey, verifier signature.Verifier) (*Key, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return &Key{ID: hex.EncodeToString(sum[:]), PEM: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), verifier: verifier}, nil
}
