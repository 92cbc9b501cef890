package integrity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/blake2b"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Why a signature is not accepted.
var (
	ErrUnknownKey = errors.New("it is by a key that is not accepted")
	ErrExpired    = errors.New("its key, or the signature, has expired")
	ErrRevoked    = errors.New("its key was revoked")
	ErrBad        = errors.New("it does not fit what it should have signed")
	ErrForm       = errors.New("it is not a signature of the kind that is expected")
)

// Rejected is the error of a signature that is not accepted.
type Rejected struct {
	Why      error    // ErrUnknownKey, ErrExpired, ErrRevoked, ErrBad or ErrForm
	Detail   string   // more, in words; may be empty
	Found    []string // fingerprints or key numbers that it names
	Expected []string // those that would be accepted
}

func (r *Rejected) Error() string {
	s := r.Why.Error()
	if r.Detail != "" {
		s += " (" + event.Clean(r.Detail) + ")"
	}
	found := "no key"
	if len(r.Found) > 0 {
		found = strings.Join(r.Found, ", ")
	}
	return s + ": found " + found + ", expected " + strings.Join(r.Expected, " or ")
}

func (r *Rejected) Unwrap() error { return r.Why }

// Limits of signatures.
const (
	maxSignature = 1 << 20  // bytes
	maxWhole     = 64 << 20 // of what is signed in a form that has to be in memory
	maxPackets   = 100
)

// Verify verifies a detached signature over data by one of the accepted keys, and returns that key's name. Where there
// are several signatures, one by an accepted key is enough. The error is a *Rejected, or says that a key cannot be read.
func (r *Ring) Verify(kind Kind, signature, data []byte, accepted []string, now time.Time) (signer string, err error) {
	s, err := r.Stream(kind, signature, accepted, now)
	if err != nil {
		return "", err
	}
	if _, err := s.Write(data); err != nil {
		s.Abort()
		return "", err
	}
	err = s.Close()
	return s.signer, err
}

// Open verifies a text that holds its own signature and returns only what is signed: an OpenPGP message in the cleartext
// signature framework (RFC 9580, section 7), or signify's embedded form, in which the text follows the signature.
func (r *Ring) Open(kind Kind, message []byte, accepted []string, now time.Time) (text []byte, signer string, err error) {
	if len(message) > maxTable {
		return nil, "", &Rejected{Why: ErrForm, Detail: "it is too large", Expected: accepted}
	}
	switch kind {
	case OpenPGP:
		block, _ := clearsign.Decode(message)
		if block == nil {
			return nil, "", &Rejected{Why: ErrForm, Detail: "it is not clear-signed", Expected: accepted}
		}
		signature, err := io.ReadAll(io.LimitReader(block.ArmoredSignature.Body, maxSignature))
		if err != nil {
			return nil, "", &Rejected{Why: ErrForm, Detail: err.Error(), Expected: accepted}
		}
		if signer, err = r.Verify(kind, signature, block.Bytes, accepted, now); err != nil {
			return nil, "", err
		}
		return block.Plaintext, signer, nil
	case Signify:
		if _, rest, err := edLines(message); err == nil {
			signature := message[:len(message)-len(rest)]
			if signer, err = r.Verify(kind, signature, []byte(rest), accepted, now); err != nil {
				return nil, "", err
			}
			return []byte(rest), signer, nil
		}
	}
	return nil, "", &Rejected{Why: ErrForm, Detail: "the text holds no " + string(kind) + " signature", Expected: accepted}
}

// Stream verifies a signature while what is signed goes by. Exactly one of Close and Abort has to be called.
type Stream struct {
	signer string
	write  func([]byte) (int, error)
	close  func() error
	abort  func()
}

// Write takes in the next bytes.
func (s *Stream) Write(p []byte) (int, error) { return s.write(p) }

// Close says whether the signature is right, after the last byte.
func (s *Stream) Close() error { return s.close() }

// Abort gives up.
func (s *Stream) Abort() { s.abort() }

// Signer is the name of the key by which the signature claims to be; Close says whether it is.
func (s *Stream) Signer() string { return s.signer }

// Stream begins to verify a detached signature. A signature that cannot be accepted whatever was signed is a *Rejected at
// once.
func (r *Ring) Stream(kind Kind, signature []byte, accepted []string, now time.Time) (*Stream, error) {
	if len(signature) > maxSignature {
		return nil, &Rejected{Why: ErrForm, Detail: "it is too large", Expected: accepted}
	}
	switch kind {
	case OpenPGP:
		return r.pgp(signature, accepted, now)
	case Minisign, Signify:
		return r.ed(kind, signature, accepted)
	case RSA:
		return r.rsa(signature, accepted)
	}
	return nil, fmt.Errorf("there is no kind of signature %q", kind)
}

// hashed makes a stream that verifies what a hash comes to.
func hashed(signer string, h hash.Hash, verify func(sum []byte) error) *Stream {
	return &Stream{signer: signer, write: h.Write, close: func() error { return verify(h.Sum(nil)) }, abort: func() {}}
}

// pgp verifies OpenPGP signatures, armoured or not.
func (r *Ring) pgp(signature []byte, accepted []string, now time.Time) (*Stream, error) {
	if bytes.HasPrefix(bytes.TrimLeft(signature, "\ufeff \t\r\n"), []byte("-----BEGIN")) {
		block, err := armor.Decode(bytes.NewReader(signature))
		if err != nil || block.Type != openpgp.SignatureType {
			return nil, &Rejected{Why: ErrForm, Detail: "its armour holds no signature", Expected: accepted}
		}
		if signature, err = io.ReadAll(io.LimitReader(block.Body, maxSignature)); err != nil {
			return nil, &Rejected{Why: ErrForm, Detail: err.Error(), Expected: accepted}
		}
	}
	keys, err := r.Entities(accepted)
	if err != nil {
		return nil, err
	}
	issuers, signer, one, err := choose(signature, keys)
	if err != nil {
		return nil, &Rejected{Why: ErrForm, Detail: err.Error(), Expected: accepted}
	}
	if signer == nil {
		return nil, &Rejected{Why: ErrUnknownKey, Found: issuers, Expected: accepted}
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	pr, pw := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, _, err := openpgp.VerifyDetachedSignature(openpgp.EntityList{signer}, pr, bytes.NewReader(one), config)
		_ = pr.CloseWithError(errEnough) // whatever it has not read
		ended <- err
	}()
	name := Fingerprint(signer)
	return &Stream{signer: name,
		write: func(p []byte) (int, error) {
			n, err := pw.Write(p)
			if errors.Is(err, errEnough) { // it is decided already: Close says how
				return len(p), nil
			}
			return n, err
		},
		close: func() error {
			_ = pw.Close()
			if err := <-ended; err != nil {
				return &Rejected{Why: reason(err), Detail: err.Error(), Found: issuers, Expected: accepted}
			}
			return nil
		},
		abort: func() { _ = pw.CloseWithError(io.ErrUnexpectedEOF); <-ended },
	}, nil
}

var errEnough = errors.New("nothing more is read")

// choose finds among several signatures the first by one of the keys. issuers are all the keys that they name.
func choose(signatures []byte, keys openpgp.EntityList) (issuers []string, signer *openpgp.Entity, one []byte, err error) {
	packets := packet.NewReader(bytes.NewReader(signatures))
	for range maxPackets {
		p, err := packets.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, nil, err
		}
		s, ok := p.(*packet.Signature)
		if !ok || s.IssuerKeyId == nil && len(s.IssuerFingerprint) == 0 {
			continue
		}
		name := strings.ToUpper(fmt.Sprintf("%x", s.IssuerFingerprint))
		if name == "" {
			name = fmt.Sprintf("%016X", *s.IssuerKeyId)
		}
		for _, e := range keys {
			if signer == nil && has(e, s) {
				var buf bytes.Buffer
				if err := s.Serialize(&buf); err != nil {
					return nil, nil, nil, err
				}
				signer, one = e, buf.Bytes()
			}
		}
		if !slices.Contains(issuers, name) {
			issuers = append(issuers, name)
		}
	}
	if len(issuers) == 0 {
		return nil, nil, nil, errors.New("there is no signature in it")
	}
	return issuers, signer, one, nil
}

// has says whether a signature names the key or one of its subkeys.
func has(e *openpgp.Entity, s *packet.Signature) bool {
	fits := func(k *packet.PublicKey) bool {
		if len(s.IssuerFingerprint) > 0 {
			return bytes.Equal(s.IssuerFingerprint, k.Fingerprint)
		}
		return *s.IssuerKeyId == k.KeyId
	}
	return fits(e.PrimaryKey) || slices.ContainsFunc(e.Subkeys, func(k openpgp.Subkey) bool { return fits(k.PublicKey) })
}

// reason sorts the library's errors.
func reason(err error) error {
	switch {
	case errors.Is(err, pgperrors.ErrSignatureExpired), errors.Is(err, pgperrors.ErrKeyExpired):
		return ErrExpired
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return ErrRevoked
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return ErrUnknownKey
	}
	return ErrBad
}

// ed verifies signatures of minisign and signify: 2 bytes for the algorithm, 8 for the key's number, 64 of Ed25519
// (RFC 8032) over the message, or for minisign's "ED" over its BLAKE2b-512. minisign signs its trusted comment, too.
func (r *Ring) ed(kind Kind, signature []byte, accepted []string) (*Stream, error) {
	raw, rest, err := edLines(signature)
	if err != nil || len(raw) != 74 || raw[0] != 'E' || raw[1] != 'd' && !(raw[1] == 'D' && kind == Minisign) {
		return nil, &Rejected{Why: ErrForm, Expected: accepted}
	}
	name := numberOf(kind, [8]byte(raw[2:10]))
	if !slices.Contains(accepted, name) {
		return nil, &Rejected{Why: ErrUnknownKey, Found: []string{name}, Expected: accepted}
	}
	k, err := r.key(kind, name)
	if err != nil {
		return nil, err
	}
	key := k.(ed25519.PublicKey)
	if kind == Minisign {
		trusted, global, _ := strings.Cut(rest, "\n")
		trusted, ok := strings.CutPrefix(strings.TrimSuffix(trusted, "\r"), "trusted comment: ")
		seal, err := base64.StdEncoding.DecodeString(strings.TrimSpace(global))
		if !ok || err != nil || !ed25519.Verify(key, append(raw[10:74:74], trusted...), seal) {
			return nil, &Rejected{Why: ErrBad, Detail: "the trusted comment was changed", Found: []string{name}, Expected: accepted}
		}
	}
	verify := func(message []byte) error {
		if !ed25519.Verify(key, message, raw[10:74]) {
			return &Rejected{Why: ErrBad, Found: []string{name}, Expected: accepted}
		}
		return nil
	}
	if raw[1] == 'D' {
		h, err := blake2b.New512(nil)
		if err != nil {
			return nil, err
		}
		return hashed(name, h, verify), nil
	}
	var whole bytes.Buffer // Ed25519 needs all of the message at once
	return &Stream{signer: name, close: func() error { return verify(whole.Bytes()) }, abort: func() {}, write: func(p []byte) (int, error) {
		if whole.Len()+len(p) > maxWhole {
			return 0, fmt.Errorf("the signature is of minisign's old form, which can only be verified up to %d MiB", maxWhole>>20)
		}
		return whole.Write(p)
	}}, nil
}

// rsa verifies a base64 signature as `openssl dgst -sha256 -sign` makes it. It does not name its key: each accepted one
// is tried.
func (r *Ring) rsa(signature []byte, accepted []string) (*Stream, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(signature)), ""))
	if err != nil {
		return nil, &Rejected{Why: ErrForm, Detail: "base64 is expected", Expected: accepted}
	}
	var keys []*rsa.PublicKey
	for _, name := range accepted {
		k, err := r.key(RSA, name)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k.(*rsa.PublicKey))
	}
	s := &Stream{}
	h := sha256.New()
	s.write, s.abort = h.Write, func() {}
	s.close = func() error {
		digest := h.Sum(nil)
		for i, k := range keys {
			if rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, raw) == nil {
				s.signer = accepted[i]
				return nil
			}
		}
		return &Rejected{Why: ErrBad, Expected: accepted}
	}
	return s, nil
}
