package integrity

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"

	oldpgp "github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// maxSignatures is how many signatures of one file are looked at; each costs a hash over the data.
const maxSignatures = 16

// signature is one signature packet.
type signature struct {
	*packet.Signature        // nil: unreadable tells why
	weakHash          string // "MD5", …: it is not to be counted
	unreadable        error
}

// issuer is the fingerprint, or the key id, that the signature names; "" if none.
func (s signature) issuer() string {
	switch {
	case s.Signature == nil:
		return ""
	case len(s.IssuerFingerprint) > 0:
		return hexUpper(s.IssuerFingerprint)
	case s.IssuerKeyId != nil:
		return fmt.Sprintf("%016X", *s.IssuerKeyId)
	}
	return ""
}

func issuers(list []signature) (names []string) {
	for _, s := range list {
		if name := s.issuer(); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// unarmor returns the contents of every armored block of that type ("PGP SIGNATURE"), RFC 9580, section 6.
func unarmor(data []byte, kind string) (blocks [][]byte, err error) {
	begin, end := []byte("-----BEGIN "+kind+"-----"), []byte("-----END "+kind+"-----")
	var block []byte
	for line := range bytes.Lines(data) {
		bare := bytes.TrimRight(line, " \t\r\n")
		switch {
		case block == nil && bytes.Equal(bare, begin):
			block = append(block, line...)
		case block != nil && bytes.Equal(bare, end):
			decoded, err := armor.Decode(bytes.NewReader(append(block, line...)))
			if err != nil {
				return nil, errors.New("the armor is damaged")
			}
			content, err := io.ReadAll(decoded.Body)
			if err != nil || len(content) == 0 {
				return nil, errors.New("the armor is damaged")
			}
			blocks, block = append(blocks, content), nil
		case block != nil:
			block = append(block, line...)
		}
	}
	if block != nil {
		return nil, errors.New("it is cut off: the line that ends the armor is missing")
	}
	return blocks, nil
}

// signatures reads the signature packets of a file, binary or armored.
func signatures(data []byte) ([]signature, error) {
	bad := func(format string, args ...any) ([]signature, error) {
		return nil, fail(OpenPGP, ErrBad, nil, nil, "this is no OpenPGP signature: "+format, args...)
	}
	blocks := [][]byte{data}
	if len(data) == 0 {
		return bad("it is empty")
	} else if data[0]&0x80 == 0 { // every binary packet begins with this bit
		var err error
		if blocks, err = unarmor(data, openpgp.SignatureType); err != nil {
			return bad("%v", err)
		} else if len(blocks) == 0 {
			return bad("it begins %.40q", data)
		}
	}
	var list []signature
	for _, block := range blocks {
		packets := packet.NewOpaqueReader(bytes.NewReader(block))
		for {
			p, err := packets.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return bad("it is cut off or followed by something else")
			}
			switch p.Tag {
			case 2:
			case 10, 21: // marker, padding: to be ignored
				continue
			default:
				return bad("it holds a packet of type %d", p.Tag)
			}
			if len(list) == maxSignatures {
				return bad("it holds more than %d", maxSignatures)
			}
			list = append(list, readSignature(p))
		}
	}
	if len(list) == 0 {
		return bad("there is none in it")
	}
	return list, nil
}

// readSignature reads one packet. A hash algorithm that the library no longer knows is replaced by one that it does, so
// that the signature can at least be named; it never counts.
func readSignature(p *packet.OpaquePacket) (s signature) {
	if len(p.Contents) < 4 {
		return signature{unreadable: errors.New("it is cut off")}
	}
	var suffix []byte // what is hashed after the data, of version 3
	switch v := p.Contents[0]; v {
	case 4, 6:
	case 3:
		var err error
		if p.Contents, suffix, err = fourOfThree(p.Contents); err != nil {
			return signature{unreadable: err}
		}
	default:
		return signature{unreadable: fmt.Errorf("it is of version %d; 3, 4 and 6 are read", v)}
	}
	// RFC 9580, sections 5.2.3 and 9.5
	switch p.Contents[3] {
	case 1:
		s.weakHash = "MD5"
	case 2:
		s.weakHash = "SHA-1"
	case 3:
		s.weakHash = "RIPEMD-160"
	}
	if s.weakHash != "" {
		p.Contents[3] = 8 // SHA-256
	}
	parsed, err := p.Parse()
	var ok bool
	if s.Signature, ok = parsed.(*packet.Signature); !ok || err != nil {
		return signature{unreadable: fmt.Errorf("it cannot be read: %v", err)}
	}
	if suffix != nil {
		s.HashSuffix = suffix
	}
	return s
}

// fourOfThree writes a signature of version 3 (RFC 4880, section 5.2.2), which the library does not read and which some
// still make, in the form of version 4. suffix is what a signature of version 3 is over besides the data: type and time.
func fourOfThree(c []byte) (four, suffix []byte, err error) {
	// version, 5, type, time (4), key id (8), algorithm of the key, of the hash, 16 bits of the hash, numbers
	if len(c) < 21 || c[1] != 5 {
		return nil, nil, errors.New("it is cut off")
	}
	if c[15] != byte(packet.PubKeyAlgoRSA) {
		return nil, nil, fmt.Errorf("it is of version 3, by a key of kind %d; such are read by RSA keys only", c[15])
	}
	suffix = c[2:7:7]
	hashed := append([]byte{5, 2}, c[3:7]...)     // signature creation time
	unhashed := append([]byte{9, 16}, c[7:15]...) // issuer key id
	four = slices.Concat([]byte{4, c[2], c[15], c[16], 0, byte(len(hashed))}, hashed, []byte{0, byte(len(unhashed))}, unhashed, c[17:])
	return four, suffix, nil
}

// candidate is a signature that counts if it is right: its form, its time and its key are.
type candidate struct {
	*packet.Signature
	signer string
	key    *packet.PublicKey
	sum    hash.Hash // what the signature is over, so far
	text   io.Writer // to sum, with line ends made canonical if the signature is over text
}

type openPGPVerifier struct {
	candidates []*candidate
	accepted   []string
}

// openPGPVerifier finds the signatures that may count.
func (r *Ring) openPGPVerifier(data []byte, accepted []string, now time.Time) (verifier, error) {
	list, err := signatures(data)
	if err != nil {
		return nil, err
	}
	found := issuers(list)
	v := &openPGPVerifier{accepted: accepted}
	var first error // why the first signature by an accepted key does not count
	for _, name := range accepted {
		if _, _, err := r.openPGP(name); err != nil {
			return nil, err
		}
	}
	for _, s := range list {
		if s.Signature == nil {
			continue
		}
		for _, name := range accepted {
			e, _, err := r.openPGP(name)
			if err != nil {
				return nil, err
			}
			key, subkey := signingKey(e, s.Signature)
			if key == nil {
				continue
			}
			if err := usable(name, e, key, subkey, s, now, found, accepted); err != nil {
				if first == nil {
					first = err
				}
				continue
			}
			c := &candidate{Signature: s.Signature, signer: name, key: key}
			if c.sum, err = s.PrepareVerify(); err != nil {
				return nil, fail(OpenPGP, ErrBad, found, accepted, "the signature by %s: %v", name, err)
			}
			c.text = c.sum
			if s.SigType == packet.SigTypeText {
				c.text = oldpgp.NewCanonicalTextHash(c.sum)
			}
			v.candidates = append(v.candidates, c)
			break
		}
	}
	switch {
	case len(v.candidates) > 0:
		return v, nil
	case first != nil:
		return nil, first
	case len(found) == 0 && list[0].unreadable != nil:
		return nil, fail(OpenPGP, ErrBad, nil, accepted, "the signature does not count: %v", list[0].unreadable)
	}
	return nil, unknown(OpenPGP, found, accepted)
}

// signingKey is the key of e that the signature names: the primary one or a subkey.
func signingKey(e *openpgp.Entity, s *packet.Signature) (*packet.PublicKey, *openpgp.Subkey) {
	if s.CheckKeyIdOrFingerprint(e.PrimaryKey) {
		return e.PrimaryKey, nil
	}
	for i := range e.Subkeys {
		if s.CheckKeyIdOrFingerprint(e.Subkeys[i].PublicKey) {
			return e.Subkeys[i].PublicKey, &e.Subkeys[i]
		}
	}
	return nil, nil
}

// usable says why a signature by this key does not count at that time, whatever it is over. The key is judged as it is
// now, not as it was when it signed: a key that was revoked or let expire no longer vouches for what it signed before.
func usable(name string, e *openpgp.Entity, key *packet.PublicKey, subkey *openpgp.Subkey, s signature, now time.Time, found, accepted []string) error {
	no := func(reason error, format string, args ...any) error {
		return fail(OpenPGP, reason, found, accepted, format, args...)
	}
	date := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	switch {
	case s.SigType != packet.SigTypeBinary && s.SigType != packet.SigTypeText:
		return no(ErrBad, "the signature by %s is not one over data (type 0x%02X)", name, uint8(s.SigType))
	case s.weakHash != "":
		return no(ErrWeak, "the signature by %s is over a hash of the kind %s, which can be forged", name, s.weakHash)
	case s.Hash == crypto.SHA224:
		return no(ErrWeak, "the signature by %s is over a hash of the kind SHA-224, which is too short", name)
	}
	for _, k := range []*packet.PublicKey{e.PrimaryKey, key} {
		if why := weakKey(k); why != "" {
			return no(ErrWeak, "key %s %s", name, why)
		}
	}
	for _, n := range s.Notations {
		if n.IsCritical {
			return no(ErrBad, "the signature by %s has a condition that is not known here (%.60q)", name, n.Name)
		}
	}
	switch {
	case s.CreationTime.Before(key.CreationTime):
		return no(ErrTime, "the signature by %s is dated %s, before the key was made (%s)", name, s.CreationTime.UTC().Format(time.DateTime), key.CreationTime.UTC().Format(time.DateTime))
	case s.CreationTime.After(now):
		return no(ErrTime, "the signature by %s is dated %s, which is in the future", name, s.CreationTime.UTC().Format(time.DateTime))
	case s.SigExpired(now):
		return no(ErrExpired, "the signature by %s has expired (%s)", name, date(s.CreationTime.Add(time.Duration(*s.SigLifetimeSecs)*time.Second)))
	case e.Revoked(now):
		return no(ErrRevoked, "key %s was revoked by its owner", name)
	}
	expired := func(what string, k *packet.PublicKey, self *packet.Signature) error {
		if self == nil || self.KeyLifetimeSecs == nil {
			return no(ErrExpired, "%s has expired", what)
		}
		return no(ErrExpired, "%s expired on %s", what, date(k.CreationTime.Add(time.Duration(*self.KeyLifetimeSecs)*time.Second)))
	}
	config := &packet.Config{}
	self, err := e.VerifyPrimaryKey(now, config)
	switch {
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return expired("key "+name, e.PrimaryKey, self)
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return no(ErrRevoked, "key %s was revoked by its owner", name)
	case err != nil:
		return no(ErrBad, "key %s is not usable: %v", name, err)
	}
	if subkey != nil {
		what := fmt.Sprintf("subkey %s of key %s", hexUpper(key.Fingerprint), name)
		self, err = subkey.Verify(now, config)
		switch {
		case errors.Is(err, pgperrors.ErrKeyExpired):
			self, _ = subkey.LatestValidBindingSignature(now, config)
			return expired(what, key, self)
		case errors.Is(err, pgperrors.ErrKeyRevoked):
			return no(ErrRevoked, "%s was revoked by its owner", what)
		case err != nil:
			return no(ErrBad, "%s is not usable: %v", what, err)
		case !self.FlagSign: // only then has the library seen the subkey's own consent
			return no(ErrBad, "%s is not for signing", what)
		}
	} else if self.FlagsValid && !self.FlagSign {
		return no(ErrBad, "key %s is not for signing", name)
	}
	return nil
}

// weakKey says why a key is too weak, "" if it is not.
func weakKey(k *packet.PublicKey) string {
	switch k.PubKeyAlgo {
	case packet.PubKeyAlgoDSA, packet.PubKeyAlgoElGamal:
		return "is of an algorithm that is no longer safe (DSA)"
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		if n, err := k.BitLength(); err != nil || n < minRSA {
			return fmt.Sprintf("is too short (RSA, %d bits)", n)
		}
	}
	return ""
}

func (v *openPGPVerifier) Write(p []byte) (int, error) {
	for _, c := range v.candidates {
		if n, err := c.text.Write(p); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

func (v *openPGPVerifier) verify() (string, error) {
	for _, c := range v.candidates {
		if err := c.key.VerifySignature(c.sum, c.Signature); err != nil {
			return "", fail(OpenPGP, ErrBad, []string{signature{Signature: c.Signature}.issuer()}, v.accepted,
				"the signature by %s is wrong: the data or the signature was changed, or they do not belong together", c.signer)
		}
	}
	return v.candidates[0].signer, nil
}

// clearText parts a clear-signed message: the text for its reader, the same as it was signed, and the signature.
func clearText(message []byte, accepted []string) (text, signed, signature []byte, err error) {
	bad := func(why string) ([]byte, []byte, []byte, error) {
		return nil, nil, nil, fail(OpenPGP, ErrBad, nil, accepted, "%s", why)
	}
	block, rest := clearsign.Decode(message)
	if block == nil {
		return bad("this is no complete clear-signed text")
	}
	for line := range bytes.Lines(rest) {
		if strings.HasPrefix(string(line), "-----BEGIN PGP SIGNED MESSAGE-----") {
			return bad("a second signed text follows the first")
		}
	}
	if signature, err = io.ReadAll(block.ArmoredSignature.Body); err != nil || block.ArmoredSignature.Type != openpgp.SignatureType {
		return bad("the signature of the clear-signed text is damaged")
	}
	return block.Plaintext, block.Bytes, signature, nil
}
