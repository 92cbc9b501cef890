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
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// KeyPair names the two files of a key pair.
type KeyPair struct{ Private, Public string }

// Key verifies signatures.
type Key struct {
	ID       string // SHA-256 of the public key's DER form (SubjectPublicKeyInfo), hex
	PEM      []byte
	verifier signature.Verifier
}

// Signer signs, and is the Key that verifies what it signed.
type Signer struct {
	Key
	signer signature.Signer
}

// GenerateKey makes a key pair, cosign.key (mode 0600, encrypted with the passphrase, which may be empty) and
// cosign.pub, in a folder that it makes. Existing files are an error, never overwritten.
func GenerateKey(dir string, passphrase []byte) (KeyPair, error) {
	pair := KeyPair{filepath.Join(dir, "cosign.key"), filepath.Join(dir, "cosign.pub")}
	keys, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return passphrase, nil })
	if err != nil {
		return pair, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return pair, event.WithRemedy(err, "name a key with --key FILE")
	}
	// The public half comes first: a private key that exists is complete. Link refuses to replace.
	for _, f := range []struct {
		path string
		data []byte
		mode os.FileMode
	}{{pair.Public, keys.PublicBytes, 0o644}, {pair.Private, keys.PrivateBytes, 0o600}} {
		if f.path == pair.Public {
			// A public half without its private one is what an interrupted first use left.
			if _, err := os.Stat(pair.Private); errors.Is(err, os.ErrNotExist) {
				_ = os.Remove(pair.Public)
			}
		}
		if err := create(f.path, f.data, f.mode); err != nil {
			return pair, event.WithRemedy(err, "name a key with --key FILE, or move the old one away")
		}
	}
	return pair, nil
}

// create writes a new file in one step.
func create(path string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), path)
	}
	return err
}

var uri = regexp.MustCompile(`^[a-z0-9]+://`)

// LoadSigner reads a private key of cosign from a file. KMS addresses and keyless signing are not supported yet, which
// the error says.
func LoadSigner(_ context.Context, ref string, passphrase []byte) (*Signer, error) {
	if uri.MatchString(ref) || ref == "keyless" {
		return nil, event.WithRemedy(fmt.Errorf("signing with %s: not supported yet", ref), "sign with a key file: --key FILE")
	}
	data, err := os.ReadFile(ref)
	if err != nil {
		return nil, event.WithRemedy(fmt.Errorf("signing key: %w", err), "make one with: cosign generate-key-pair; or leave --key out to have one made")
	}
	s, err := LoadSignerPEM(data, passphrase)
	if err != nil {
		var r *event.Remedied
		if errors.As(err, &r) {
			return nil, &event.Remedied{Err: fmt.Errorf("signing key %s: %w", ref, r.Err), Remedy: r.Remedy}
		}
		return nil, fmt.Errorf("signing key %s: %w", ref, err)
	}
	return s, nil
}

// LoadSignerPEM reads a private key of cosign, which takes about a quarter of a second (scrypt).
func LoadSignerPEM(data, passphrase []byte) (*Signer, error) {
	sv, err := cosign.LoadPrivateKey(data, passphrase, nil)
	if err != nil {
		switch {
		case strings.Contains(err.Error(), "decryption failed") && len(passphrase) == 0:
			return nil, event.WithRemedy(errors.New("it is encrypted and no passphrase was given"), "set COSIGN_PASSWORD to its passphrase")
		case strings.Contains(err.Error(), "decryption failed"):
			return nil, event.WithRemedy(errors.New("the passphrase is wrong"), "set COSIGN_PASSWORD to its passphrase")
		case strings.Contains(err.Error(), "invalid pem block"):
			return nil, event.WithRemedy(errors.New("it is not a private key of cosign"), "name the file that cosign generate-key-pair calls cosign.key")
		}
		return nil, err
	}
	public, err := sv.PublicKey()
	if err != nil {
		return nil, err
	}
	key, err := keyOf(public)
	if err != nil {
		return nil, err
	}
	return &Signer{*key, sv}, nil
}

// LoadKey reads a public key (PEM), or the public half of nothing else: a private key's file is an error.
func LoadKey(path string) (*Key, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, event.WithRemedy(fmt.Errorf("public key: %w", err), "name the publisher's cosign.pub with --key FILE")
	}
	if block, _ := pem.Decode(data); block != nil && strings.Contains(block.Type, "PRIVATE") {
		return nil, event.WithRemedy(fmt.Errorf("%s is a private key", path), "verify with the public one, cosign.pub")
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(bytes.TrimSpace(data))
	if err != nil {
		return nil, event.WithRemedy(fmt.Errorf("%s is not a public key: %w", path, err), "name the publisher's cosign.pub with --key FILE")
	}
	return keyOf(public)
}

func keyOf(public crypto.PublicKey) (*Key, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	verifier, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return &Key{ID: hex.EncodeToString(sum[:]), PEM: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), verifier: verifier}, nil
}
