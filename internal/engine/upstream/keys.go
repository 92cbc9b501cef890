package upstream

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

//go:embed keys
var embedded embed.FS

// keyFiles holds keys/FINGERPRINT.asc.
var keyFiles fs.FS = embedded

// keys returns the pinned keys with these fingerprints (40 hexadecimal digits, upper case).
func keys(fingerprints []string) (openpgp.EntityList, error) {
	if len(fingerprints) == 0 {
		return nil, event.WithRemedy(fmt.Errorf("no key is named whose signature would be accepted"), "name fingerprints in signed_by of the release in distros.toml")
	}
	var list openpgp.EntityList
	for _, f := range fingerprints {
		data, err := fs.ReadFile(keyFiles, "keys/"+f+".asc")
		if err != nil {
			return nil, event.WithRemedy(fmt.Errorf("key %s is not among the pinned keys", f), "add it as internal/engine/upstream/keys/%s.asc, with its source", f)
		}
		found, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("keys/%s.asc: %w", f, err)
		}
		if len(found) != 1 || Fingerprint(found[0]) != f {
			return nil, fmt.Errorf("keys/%s.asc does not hold exactly that key", f)
		}
		list = append(list, found...)
	}
	return list, nil
}

// keyring returns the keys as a binary OpenPGP keyring (RFC 9580, transferable public keys).
func keyring(list openpgp.EntityList) ([]byte, error) {
	var buf bytes.Buffer
	for _, e := range list {
		if err := e.Serialize(&buf); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), nil
}

// Fingerprint is the primary key's fingerprint, as signed_by spells it.
func Fingerprint(e *openpgp.Entity) string {
	return strings.ToUpper(fmt.Sprintf("%x", e.PrimaryKey.Fingerprint))
}
