package integrity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"hash"
	"io"
	"strings"

	"github.com/jedisct1/go-minisign"
	"golang.org/x/crypto/blake2b"
)

// readMinisign reads a signature file: untrusted comment, base64 of algorithm, key id and signature, trusted comment,
// base64 of the signature over the signature and the trusted comment.
func readMinisign(signature []byte, accepted []string) (minisign.Signature, error) {
	s, err := minisign.DecodeSignature(string(signature))
	if err != nil || !strings.HasPrefix(s.UntrustedComment, "untrusted comment:") {
		return s, fail(Minisign, ErrBad, nil, accepted, "this is no minisign signature (four lines, the first an untrusted comment)")
	}
	return s, nil
}

// minisignVerifier checks one minisign signature: over a hash of the data, or over the data itself (old form).
func (r *Ring) minisignVerifier(signature []byte, accepted []string, limit int) (verifier, error) {
	s, err := readMinisign(signature, accepted)
	if err != nil {
		return nil, err
	}
	id := keyID(Minisign, s.KeyId)
	if err := one(Minisign, id, accepted); err != nil {
		return nil, err
	}
	key, err := r.ed25519(Minisign, id)
	if err != nil {
		return nil, err
	}
	v := &edVerifier{kind: Minisign, id: id, accepted: accepted}
	switch s.SignatureAlgorithm {
	case [2]byte{'E', 'd'}:
		b := &buffer{limit: limit, kind: Minisign, accepted: accepted}
		v.Writer = b
		v.check = func() (bool, error) { return key.Verify(b.Bytes(), s) }
	case [2]byte{'E', 'D'}:
		var h hash.Hash
		if h, err = blake2b.New512(nil); err != nil {
			return nil, err
		}
		v.Writer = h
		// "ED" over a file is "Ed" over the file's BLAKE2b-512.
		s.SignatureAlgorithm = [2]byte{'E', 'd'}
		v.check = func() (bool, error) { return key.Verify(h.Sum(nil), s) }
	default:
		return nil, fail(Minisign, ErrBad, []string{id}, accepted, "the minisign signature is of an unknown form (%.10q)", s.SignatureAlgorithm[:])
	}
	return v, nil
}

// readSignify reads a signature file: untrusted comment, base64 of algorithm, key number and signature; the signed text
// may follow.
func readSignify(signature []byte, accepted []string) (s minisign.Signature, text []byte, err error) {
	comment, rest, _ := bytes.Cut(signature, []byte("\n"))
	line, text, _ := bytes.Cut(rest, []byte("\n"))
	data, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimRight(line, " \t\r")))
	if err != nil || len(comment) > 1024 || !bytes.HasPrefix(comment, []byte("untrusted comment:")) || len(data) != 2+8+64 || string(data[:2]) != "Ed" {
		return s, nil, fail(Signify, ErrBad, nil, accepted, "this is no signify signature (two lines, the first an untrusted comment)")
	}
	copy(s.SignatureAlgorithm[:], data)
	copy(s.KeyId[:], data[2:])
	copy(s.Signature[:], data[10:])
	return s, text, nil
}

// embeddedText parts a signature file from the text in it.
func embeddedText(message []byte, accepted []string) (text, signature []byte, err error) {
	if _, text, err = readSignify(message, accepted); err != nil {
		return nil, nil, err
	}
	return text, message[:len(message)-len(text)], nil
}

// signifyVerifier checks one signify signature.
func (r *Ring) signifyVerifier(signature []byte, accepted []string, limit int) (verifier, error) {
	s, text, err := readSignify(signature, accepted)
	if err != nil {
		return nil, err
	}
	id := keyID(Signify, s.KeyId)
	if len(bytes.TrimSpace(text)) > 0 {
		return nil, fail(Signify, ErrBad, []string{id}, accepted, "the signify signature is followed by a text; a detached one was expected")
	}
	if err := one(Signify, id, accepted); err != nil {
		return nil, err
	}
	key, err := r.ed25519(Signify, id)
	if err != nil {
		return nil, err
	}
	b := &buffer{limit: limit, kind: Signify, accepted: accepted}
	return &edVerifier{b, Signify, id, accepted, func() (bool, error) {
		return ed25519.Verify(key.PublicKey[:], b.Bytes(), s.Signature[:]), nil
	}}, nil
}

// edVerifier checks a signature by one key.
type edVerifier struct {
	io.Writer
	kind     Kind
	id       string
	accepted []string
	check    func() (bool, error)
}

func (v *edVerifier) verify() (string, error) {
	ok, err := v.check()
	if ok && err == nil {
		return v.id, nil
	}
	why := "the data or the signature was changed, or they do not belong together"
	if err != nil && strings.Contains(err.Error(), "global") {
		why = "its trusted comment was changed"
	}
	return "", fail(v.kind, ErrBad, []string{v.id}, v.accepted, "the signature by %s is wrong: %s", v.id, why)
}
