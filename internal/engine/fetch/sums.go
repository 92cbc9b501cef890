package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
)

// sums are the checksums of a stream while it runs.
type sums map[string]hash.Hash

// normalSums checks checksums of the form ALGORITHM:HEX and writes them in lower case.
func normalSums(list []string) ([]string, error) {
	out := make([]string, len(list))
	for i, text := range list {
		sum, err := integrity.ParseSum(strings.ToLower(strings.TrimSpace(text)))
		if err != nil {
			return nil, event.WithRemedy(fmt.Errorf("%q is no checksum that counts: %w", text, err), "write it as sha256:HEX or sha512:HEX")
		}
		out[i] = sum.String()
	}
	return out, nil
}

// newSums makes what the wanted checksums need, and SHA-256.
func newSums(want ...[]string) sums {
	s := sums{"sha256": sha256.New()}
	for _, list := range want {
		for _, w := range list {
			if sum, err := integrity.ParseSum(w); err == nil && s[sum.Algorithm] == nil {
				s[sum.Algorithm] = sum.New()
			}
		}
	}
	return s
}

func (s sums) sinks() (list []*sink) {
	for _, h := range s {
		list = append(list, &sink{w: h})
	}
	return list
}

// of is the checksum by that algorithm, in hex.
func (s sums) of(alg string) string { return hex.EncodeToString(s[alg].Sum(nil)) }

// differ says the first wanted checksum that does not fit, and what was found instead; "" when all fit.
func (s sums) differ(want []string) (expected, found string) {
	for _, w := range want {
		alg, _, _ := strings.Cut(w, ":")
		if got := alg + ":" + s.of(alg); got != w {
			return w, got
		}
	}
	return "", ""
}
