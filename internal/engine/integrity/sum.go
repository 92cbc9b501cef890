// Package integrity reads checksum files and signatures as distributions publish them, and verifies them with keys that
// are pinned in the repository. Everything that it reads is hostile until it is verified.
package integrity

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Sum is a checksum.
type Sum struct {
	Algorithm string // "sha256", "sha384", "sha512"
	Hex       string // lower case
}

// algorithms are those that vouch for something, the strongest first. MD5 and SHA-1 do not.
var algorithms = []struct {
	name string
	size int // bytes
	make func() hash.Hash
}{
	{"sha512", 64, sha512.New},
	{"sha384", 48, sha512.New384},
	{"sha256", 32, sha256.New},
}

// String is the checksum as "sha512:HEX".
func (s Sum) String() string { return s.Algorithm + ":" + s.Hex }

// New is a hash that comes to such a checksum; nil for an algorithm that does not count.
func (s Sum) New() hash.Hash {
	for _, a := range algorithms {
		if a.name == s.Algorithm {
			return a.make()
		}
	}
	return nil
}

// strength is larger for a stronger algorithm; 0 for one that does not count.
func (s Sum) strength() int {
	for i, a := range algorithms {
		if a.name == s.Algorithm {
			return len(algorithms) - i
		}
	}
	return 0
}

// sum checks a hash by its algorithm, or without one by its length.
func sum(algorithm, digits string) (Sum, error) {
	digits = strings.ToLower(digits)
	raw, err := hex.DecodeString(digits)
	if err != nil {
		return Sum{}, fmt.Errorf("%q is no hash", event.Clean(clip(digits)))
	}
	for _, a := range algorithms {
		if a.name == algorithm && a.size != len(raw) {
			return Sum{Hex: digits}, fmt.Errorf("a %s hash has %d digits, this one has %d: %s", a.name, 2*a.size, len(digits), clip(digits))
		}
		if a.size == len(raw) && (algorithm == "" || algorithm == a.name) {
			return Sum{a.name, digits}, nil
		}
	}
	return Sum{Hex: digits}, fmt.Errorf("a hash of %d digits (%s) vouches for nothing: SHA-256 or SHA-512 is expected", len(digits), clip(digits))
}

func clip(s string) string {
	if len(s) > 140 {
		return s[:140] + "…"
	}
	return s
}

// ParseSum reads "sha256:HEX".
func ParseSum(s string) (Sum, error) {
	algorithm, digits, ok := strings.Cut(s, ":")
	if !ok || algorithm == "" {
		return Sum{}, fmt.Errorf("%q: ALGORITHM:HEX is expected", event.Clean(clip(s)))
	}
	return sum(algorithm, digits)
}

// ParseDigest reads a checksum as JSON documents write it: hexadecimal or base64, with or without padding, with or
// without "sha512:" before it. Without that, algorithm says which it is; "": its length does.
func ParseDigest(s, algorithm string) (Sum, error) {
	s = strings.TrimSpace(s)
	if label, rest, ok := strings.Cut(s, ":"); ok {
		label = strings.ReplaceAll(strings.ToLower(label), "-", "")
		if algorithm != "" && label != algorithm {
			return Sum{}, fmt.Errorf("%q: a %s checksum is expected", event.Clean(clip(s)), algorithm)
		}
		algorithm, s = label, rest
	}
	if s == "" {
		return Sum{}, errors.New("the checksum is empty")
	}
	if _, err := hex.DecodeString(s); err == nil {
		return sum(algorithm, s)
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := enc.Strict().DecodeString(strings.TrimRight(s, "=")); err == nil {
			return sum(algorithm, hex.EncodeToString(raw))
		}
	}
	return Sum{}, fmt.Errorf("%q is neither hexadecimal nor base64", event.Clean(clip(s)))
}
