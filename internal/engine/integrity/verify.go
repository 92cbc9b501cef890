package integrity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Limits of what is read into memory.
const (
	maxSignature = 256 << 10 // bytes of a signature file
	maxMessage   = 32 << 20  // bytes of a text with its signature
	maxBuffered  = 64 << 20  // bytes of a stream whose signature is over the text itself, not its hash
)

// verifier checks one signature over what is written to it.
type verifier interface {
	io.Writer
	// verify tells, after the last write, whose signature it is.
	verify() (signer string, err error)
}

// verifier prepares a check; everything that can be said without the data is said here.
func (r *Ring) verifier(kind Kind, signature []byte, accepted []string, now time.Time, buffer int) (verifier, error) {
	if len(accepted) == 0 {
		return nil, errNoKeys()
	}
	if now.IsZero() {
		now = time.Now()
	}
	if len(signature) > maxSignature {
		return nil, fail(kind, ErrBad, nil, accepted, "the signature file has %d bytes: it is none", len(signature))
	}
	switch kind {
	case OpenPGP:
		return r.openPGPVerifier(signature, accepted, now)
	case Minisign:
		return r.minisignVerifier(signature, accepted, buffer)
	case Signify:
		return r.signifyVerifier(signature, accepted, buffer)
	case RSA:
		return r.rsaVerifier(signature, accepted)
	}
	return nil, fmt.Errorf("signatures of the kind %.40q are not known", kind)
}

// Verify checks a detached signature over data at the time now, and returns which of the accepted keys made it (for
// OpenPGP the primary key, whichever of its subkeys signed). Where one file has several signatures, one right one by an
// accepted key is enough; those by other keys, and those by accepted keys that have expired, were revoked or use a weak
// hash, do not count; a wrong one by an accepted key spoils all. Errors are *Error wherever the signature is at fault.
func (r *Ring) Verify(kind Kind, signature, data []byte, accepted []string, now time.Time) (signer string, err error) {
	v, err := r.verifier(kind, signature, accepted, now, len(data))
	if err != nil {
		return "", err
	}
	if _, err := v.Write(data); err != nil {
		return "", err
	}
	return v.verify()
}

// Open checks a text that carries its signature with it and returns what was signed and by which of the accepted keys.
//
// OpenPGP: a clear-signed text (RFC 9580, section 7). The text comes back without dash escapes and trailing blanks, with
// "\n" line ends and without the last one, which is not signed. What stands before and after it is ignored; a second
// signed text is refused. Signify: a signature file with the text embedded (`signify -S -e`), byte for byte.
func (r *Ring) Open(kind Kind, message []byte, accepted []string, now time.Time) (text []byte, signer string, err error) {
	if len(message) > maxMessage {
		return nil, "", fail(kind, ErrBad, nil, accepted, "the signed text has %d bytes; more than %d are not read", len(message), maxMessage)
	}
	var signed, signature []byte
	switch kind {
	case OpenPGP:
		text, signed, signature, err = clearText(message, accepted)
	case Signify:
		text, signature, err = embeddedText(message, accepted)
		signed = text
	default:
		return nil, "", fmt.Errorf("a %s signature does not hold the text it signs", kind)
	}
	if err != nil {
		return nil, "", err
	}
	if signer, err = r.Verify(kind, signature, signed, accepted, now); err != nil {
		return nil, "", err
	}
	return text, signer, nil
}

// Issuers are the keys that a signature, or a text with its signature, names as its makers, without any check: for
// messages only. OpenPGP gives fingerprints (of the key or subkey that signed) or, from old programs, 16-digit key ids.
// RSA signatures name none.
func (r *Ring) Issuers(kind Kind, signature []byte) ([]string, error) {
	if len(signature) > maxMessage {
		return nil, fail(kind, ErrBad, nil, nil, "the signature file has %d bytes: it is none", len(signature))
	}
	switch kind {
	case OpenPGP:
		list, err := signatures(signature)
		if err != nil {
			return nil, err
		}
		return issuers(list), nil
	case Minisign:
		s, err := readMinisign(signature, nil)
		if err != nil {
			return nil, err
		}
		return []string{keyID(kind, s.KeyId)}, nil
	case Signify:
		s, _, err := readSignify(signature, nil)
		if err != nil {
			return nil, err
		}
		return []string{keyID(kind, s.KeyId)}, nil
	case RSA:
		return nil, nil
	}
	return nil, fmt.Errorf("signatures of the kind %.40q are not known", kind)
}

// Stream checks a signature over data that is too big for memory: write all of it, then Close says whether it is right.
// Nothing written may be used before that. A Stream needs no goroutine and holds a few hash states, so one that is
// dropped costs nothing; only signatures over the text itself (minisign's old form, signify) keep it, up to 64 MiB.
// It is for one goroutine at a time.
type Stream struct {
	v      verifier
	signer string
	err    error
}

var (
	errAborted = errors.New("the check of the signature was broken off")
	errClosed  = errors.New("data after the end of the check of a signature")
)

// Stream begins the check of a detached signature, as Verify does it. A signature that could not count whatever the data
// is (of an unknown, expired or revoked key, a weak one, none at all) is an error here, before anything is downloaded.
func (r *Ring) Stream(kind Kind, signature []byte, accepted []string, now time.Time) (*Stream, error) {
	v, err := r.verifier(kind, signature, accepted, now, maxBuffered)
	if err != nil {
		return nil, err
	}
	return &Stream{v: v}, nil
}

// Write takes in a part of the data.
func (s *Stream) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.v == nil {
		return 0, errClosed
	}
	n, err := s.v.Write(p)
	if err != nil {
		s.err, s.v = err, nil
	}
	return n, err
}

// Close says whether the signature is right for all that was written; so does every later call.
func (s *Stream) Close() error {
	if s.err == nil && s.v != nil {
		s.signer, s.err = s.v.verify()
		s.v = nil
	}
	return s.err
}

// Abort ends the check without a result; Close fails from now on. After Close it does nothing.
func (s *Stream) Abort() {
	if s.v != nil {
		s.v, s.err = nil, errAborted
	}
}

// Signer is the accepted key that made the signature, once Close has found it right; "" until then.
func (s *Stream) Signer() string { return s.signer }

// buffer keeps what is written, up to a limit.
type buffer struct {
	bytes.Buffer
	limit    int
	kind     Kind
	accepted []string
}

func (b *buffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.limit {
		b.Reset()
		return 0, fail(b.kind, ErrTooBig, nil, b.accepted, "this %s signature is over the file itself, not over its hash, and more than %d MiB are not held in memory for it", b.kind, b.limit>>20)
	}
	return b.Buffer.Write(p)
}

// one says whether the found key is among the accepted ones, with an error that names both.
func one(kind Kind, found string, accepted []string) error {
	if !slices.Contains(accepted, found) {
		return unknown(kind, []string{found}, accepted)
	}
	return nil
}
