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

	"golang.org/x/crypto/blake2b"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Sum is a checksum. The zero value is none.
type Sum struct {
	Algorithm string // "sha256", "sha384", "sha512" or "blake2b" (that of b2sum: 512 bits)
	Hex       string // lower case
}

// algorithms that are good enough, the strongest first.
var algorithms = []struct {
	name string
	size int // bytes
	new  func() hash.Hash
}{
	{"sha512", sha512.Size, sha512.New},
	{"blake2b", blake2b.Size, func() hash.Hash { h, _ := blake2b.New512(nil); return h }}, // fails for a key only
	{"sha384", sha512.Size384, sha512.New384},
	{"sha256", sha256.Size, sha256.New},
}

// weak algorithms, by the length of their hashes in bytes; a file that has nothing better is refused.
var weak = map[int]string{16: "MD5", 20: "SHA-1", 28: "SHA-224"}

const betterSum = "upstream has to publish SHA-256 or better; do not use the file on the strength of this checksum"

// size is the length of an algorithm's hash in bytes, 0 if it is not one of ours.
func size(algorithm string) int {
	for _, a := range algorithms {
		if a.name == algorithm {
			return a.size
		}
	}
	return 0
}

// bySize is the algorithm whose hash has so many bytes: SHA-2, where two would fit.
func bySize(n int) string {
	for _, a := range algorithms {
		if a.size == n {
			return a.name
		}
	}
	return ""
}

// String is "sha256:HEX".
func (s Sum) String() string { return s.Algorithm + ":" + s.Hex }

// IsZero says whether there is no checksum.
func (s Sum) IsZero() bool { return s == Sum{} }

// New returns a hash of the sum's algorithm, nil if it is none that ParseSum knows.
func (s Sum) New() hash.Hash {
	for _, a := range algorithms {
		if a.name == s.Algorithm {
			return a.new()
		}
	}
	return nil
}

// Is says whether h, which New returned and all of the data was written to, has come to this sum.
func (s Sum) Is(h hash.Hash) bool { return hex.EncodeToString(h.Sum(nil)) == s.Hex }

// ParseSum reads "ALGORITHM:HEX", as String writes it; upper case is allowed.
func ParseSum(s string) (Sum, error) {
	algorithm, digits, ok := strings.Cut(s, ":")
	if !ok {
		return Sum{}, fmt.Errorf("%.80q is not a checksum: write ALGORITHM:HEX", s)
	}
	return newSum(algorithm, digits)
}

// newSum checks and normalises both parts.
func newSum(algorithm, digits string) (Sum, error) {
	algorithm, digits = strings.ToLower(algorithm), strings.ToLower(digits)
	n := size(algorithm)
	if n == 0 {
		return Sum{}, unusable(algorithm)
	}
	if len(digits) != 2*n {
		return Sum{}, fmt.Errorf("a %s checksum has %d hexadecimal digits, not %d", algorithm, 2*n, len(digits))
	}
	if !isHex(digits) {
		return Sum{}, fmt.Errorf("the %s checksum %.150q is not hexadecimal", algorithm, digits)
	}
	return Sum{algorithm, digits}, nil
}

// unusable is the error for an algorithm that is not among ours.
func unusable(algorithm string) error {
	switch strings.ReplaceAll(strings.ToLower(algorithm), "-", "") {
	case "md5", "sha1", "sha224":
		return event.WithRemedy(fmt.Errorf("%s is too weak a checksum", strings.ToUpper(algorithm)), "%s", betterSum)
	}
	return fmt.Errorf("checksums of the kind %.40q are not known", algorithm)
}

func isHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return s != ""
}

// ParseDigest reads a checksum as JSON answers carry them: hexadecimal digits, or base64 (standard or URL alphabet,
// padded or not), with or without the algorithm in front ("sha512:…", or "sha512-…" as in W3C Subresource Integrity).
// The algorithm, if given, is what the field is documented to hold; a label that says otherwise is an error. Without
// one, the label decides, and else the length.
func ParseDigest(s, algorithm string) (Sum, error) {
	s = strings.TrimSpace(s)
	algorithm = strings.ToLower(algorithm)
	if algorithm != "" && size(algorithm) == 0 {
		return Sum{}, unusable(algorithm)
	}
	if i := strings.IndexAny(s, ":-"); i >= 0 && (s[i] == ':' || size(strings.ToLower(s[:i])) > 0) {
		label := strings.ToLower(s[:i])
		if size(label) == 0 {
			return Sum{}, unusable(label)
		}
		if algorithm != "" && algorithm != label {
			return Sum{}, fmt.Errorf("a %s checksum was expected, this is labelled %s", algorithm, label)
		}
		algorithm, s = label, s[i+1:]
	}
	if s == "" {
		return Sum{}, errors.New("the checksum is empty")
	}
	if len(s) > 256 {
		return Sum{}, fmt.Errorf("a checksum of %d characters is none", len(s))
	}
	data, err := hex.DecodeString(s)
	if err != nil || bySize(len(data)) == "" && weak[len(data)] == "" {
		if other, e := fromBase64(s); e == nil {
			data, err = other, nil
		}
	}
	if err != nil {
		return Sum{}, fmt.Errorf("the checksum %.150q is neither hexadecimal nor base64", s)
	}
	if algorithm == "" {
		algorithm = bySize(len(data))
	}
	switch {
	case len(data) == size(algorithm):
	case weak[len(data)] != "":
		return Sum{}, event.WithRemedy(fmt.Errorf("the checksum is %s, which is too weak", weak[len(data)]), "%s", betterSum)
	case algorithm == "":
		return Sum{}, fmt.Errorf("no known checksum has %d bits", 8*len(data))
	default:
		return Sum{}, fmt.Errorf("a %s checksum has %d bits, not %d", algorithm, 8*size(algorithm), 8*len(data))
	}
	return Sum{algorithm, hex.EncodeToString(data)}, nil
}

// fromBase64 reads either alphabet, with or without padding, in its one canonical form.
func fromBase64(s string) ([]byte, error) {
	s = strings.NewReplacer("-", "+", "_", "/").Replace(s)
	encoding := base64.RawStdEncoding
	if strings.HasSuffix(s, "=") {
		encoding = base64.StdEncoding
	}
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("a line break")
	}
	return encoding.Strict().DecodeString(s)
}
