package integrity

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"strings"
)

// rsaVerifier checks an RSA signature over the SHA-256 of the data.
type rsaVerifier struct {
	hash.Hash
	signature []byte
	keys      []*rsa.PublicKey // one for each accepted
	accepted  []string
}

func (r *Ring) rsaVerifier(signature []byte, accepted []string) (verifier, error) {
	v := &rsaVerifier{Hash: sha256.New(), accepted: accepted}
	text := bytes.Join(bytes.Fields(signature), nil)
	var err error
	if v.signature, err = base64.StdEncoding.Strict().DecodeString(string(text)); err != nil || len(v.signature) < minRSA/8 {
		return nil, fail(RSA, ErrBad, nil, accepted, "this is no RSA signature in base64")
	}
	fits := false
	for _, f := range accepted {
		key, err := r.rsa(f)
		if err != nil {
			return nil, err
		}
		v.keys = append(v.keys, key)
		fits = fits || key.Size() == len(v.signature)
	}
	if !fits {
		return nil, fail(RSA, ErrUnknownKey, nil, accepted, "the signature has %d bits, which none of the accepted keys (%s) makes", 8*len(v.signature), strings.Join(accepted, ", "))
	}
	return v, nil
}

func (v *rsaVerifier) verify() (string, error) {
	sum := v.Sum(nil)
	for i, key := range v.keys {
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum, v.signature) == nil {
			return v.accepted[i], nil
		}
	}
	return "", fail(RSA, ErrBad, nil, v.accepted, "the signature is not by %s over this data: the data or the signature was changed, or another key signed (an RSA signature does not name its key)", strings.Join(v.accepted, " or "))
}
