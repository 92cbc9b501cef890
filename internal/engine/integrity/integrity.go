// Package integrity reads the checksum files and checks the signatures that distributions publish beside their images,
// with keys that are pinned in this repository. It fetches nothing: callers pass what they have read, and all of that is
// hostile until it is checked here.
//
// Checksums: ParseTable reads checksum files of every shape in use (GNU, BSD, bare), ParseDigest one field of a JSON
// answer. Signatures: a Ring holds keys; Verify, Stream and Open check OpenPGP (RFC 9580), minisign, signify and RSA
// signatures made with them. A key that is pinned is not trusted by that: every check names the keys it accepts.
package integrity

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Kind is a form of signature.
type Kind string

const (
	// OpenPGP signatures (RFC 9580), binary or armored, detached or around a clear-signed text. Keys are named by the
	// fingerprint of the primary key: 40 hexadecimal digits in upper case (version 4), or 64 (version 6).
	OpenPGP Kind = "openpgp"

	// Minisign signatures (https://jedisct1.github.io/minisign/), "Ed" (over the file) and "ED" (over its BLAKE2b-512).
	// Keys are named as minisign prints them: the eight bytes of the key id from the last to the first, as 16
	// hexadecimal digits in upper case.
	Minisign Kind = "minisign"

	// Signify signatures (https://man.openbsd.org/signify), detached or with the text embedded, and those of usign.
	// Keys are named as usign prints them: the eight bytes of the key number in order, as 16 hexadecimal digits in
	// upper case.
	Signify Kind = "signify"

	// RSA signatures as `openssl dgst -sha256 -sign` makes them (PKCS #1 v1.5 over SHA-256, RFC 8017), in base64. Keys
	// are named by the SHA-256 of their SubjectPublicKeyInfo in DER: 64 hexadecimal digits in upper case. The signature
	// itself names no key.
	RSA Kind = "rsa"
)

// What an *Error is about.
var (
	ErrBad        = errors.New("the signature is wrong")                  // changed text, changed signature, or not a signature at all
	ErrUnknownKey = errors.New("signed by a key that is not accepted")    // Found tells which
	ErrNotPinned  = errors.New("the key is not among the pinned keys")    // an accepted key, that is
	ErrExpired    = errors.New("the key or the signature has expired")    // at the time the caller gave
	ErrRevoked    = errors.New("the key was revoked")                     // by its owner
	ErrWeak       = errors.New("the signature is of a kind to forge")     // MD5, SHA-1, short keys
	ErrTime       = errors.New("the signature's time cannot be right")    // before its key was made, or in the future
	ErrTooBig     = errors.New("more data than this signature can cover") // forms that sign the whole text, not its hash
)

// Error says why a signature was not accepted.
type Error struct {
	Kind     Kind
	Reason   error    // one of the Err… above: errors.Is finds it
	Detail   string   // the sentence to show
	Found    []string // the keys (OpenPGP: also subkeys) that the signature names; not verified
	Expected []string // the keys that the caller accepts
}

func (e *Error) Error() string { return e.Detail }
func (e *Error) Unwrap() error { return e.Reason }

// remedies tell what to do about each reason.
var remedies = map[error]string{
	ErrBad:        "fetch both files again, from upstream itself if a mirror was used; if it stays so, do not use them",
	ErrUnknownKey: "if upstream has announced the new key in more than one place, pin it in internal/engine/integrity/keys and name it in distros.toml; otherwise do not use the file",
	ErrNotPinned:  "add it to internal/engine/integrity/keys, with its source",
	ErrExpired:    "check this machine's clock; if it is right, look for upstream's newer key, or the same key with a later expiry, and pin that",
	ErrRevoked:    "do not use the file; look for upstream's new key, and what it says about the old one",
	ErrWeak:       "do not use the file; ask upstream for a signature over SHA-256 or better",
	ErrTime:       "check this machine's clock; if it is right, do not use the file",
	ErrTooBig:     "use upstream's signature over the checksum file instead",
}

// fail makes an *Error with the remedy of its reason.
func fail(kind Kind, reason error, found, expected []string, format string, args ...any) error {
	return event.WithRemedy(&Error{kind, reason, fmt.Sprintf(format, args...), found, expected}, "%s", remedies[reason])
}

// unknown is the error for a signature by none of the accepted keys.
func unknown(kind Kind, found, accepted []string) error {
	by := "an unnamed key"
	if len(found) > 0 {
		by = strings.Join(found, ", ")
	}
	return fail(kind, ErrUnknownKey, found, accepted, "signed by %s; accepted would be %s", by, strings.Join(accepted, ", "))
}
