package integrity

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// then is some time after the vectors were signed.
var then = time.Date(2025, 7, 1, 0, 0, 0, 0, time.UTC)

func ring(t testing.TB) *Ring {
	t.Helper()
	r, err := OpenRing(os.DirFS("testdata"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// file reads a vector.
func file(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/signed/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// id is how the key of that name is called.
func id(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile("testdata/keys/names")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if w := strings.Fields(line); w[0] == name {
			return w[1]
		}
	}
	t.Fatalf("there is no key of %s", name)
	return ""
}

func ids(t testing.TB, names string) (list []string) {
	for _, n := range strings.Fields(names) {
		list = append(list, id(t, n))
	}
	return list
}

func flip(data []byte, at int) []byte {
	data = bytes.Clone(data)
	data[(at+len(data))%len(data)] ^= 1
	return data
}

func TestSignatures(t *testing.T) {
	r, sums := ring(t), file(t, "sums")
	late := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	minisig := func(edit func(lines []string)) []byte {
		lines := strings.SplitAfter(string(file(t, "carol.minisig")), "\n")
		edit(lines)
		return []byte(strings.Join(lines, ""))
	}
	for _, c := range []struct {
		name, file string
		kind       Kind
		signature  []byte // nil: file
		data       []byte // nil: sums
		accepted   string
		now        time.Time // zero: then
		signer     string    // "": it fails
		reason     error
		want       string
	}{
		{name: "binary", file: "alice.sig", kind: OpenPGP, accepted: "alice", signer: "alice"},
		{name: "armored", file: "alice.asc", kind: OpenPGP, accepted: "alice", signer: "alice"},
		{name: "armored, CRLF", kind: OpenPGP, signature: crlf(file(t, "alice.asc")), accepted: "alice", signer: "alice"},
		{name: "armored, among words", kind: OpenPGP, signature: []byte("Words.\n\n" + string(file(t, "alice.asc")) + "\nMore words.\n"), accepted: "alice", signer: "alice"},
		{name: "over text", file: "text.asc", kind: OpenPGP, accepted: "alice", signer: "alice"},
		{name: "over text, CRLF", file: "text.asc", kind: OpenPGP, data: crlf(sums), accepted: "alice", signer: "alice"},
		{name: "CRLF", file: "alice.asc", kind: OpenPGP, data: crlf(sums), accepted: "alice", reason: ErrBad, want: "is wrong"},
		{name: "RSA key", file: "rita.asc", kind: OpenPGP, accepted: "rita", signer: "rita"},
		{name: "subkey", file: "sub.asc", kind: OpenPGP, accepted: "sub", signer: "sub"},
		{name: "second of the accepted", file: "bob.asc", kind: OpenPGP, accepted: "alice bob", signer: "bob"},
		{name: "two signatures", file: "both.asc", kind: OpenPGP, accepted: "alice bob", signer: "alice"},
		{name: "two signatures, one accepted", file: "both.asc", kind: OpenPGP, accepted: "bob", signer: "bob"},
		{name: "two files in one", kind: OpenPGP, signature: append(file(t, "bob.asc"), file(t, "alice.asc")...), accepted: "alice", signer: "alice"},
		{name: "two binary files in one", kind: OpenPGP, signature: append(file(t, "alice.sig"), file(t, "alice.sig")...), accepted: "alice", signer: "alice"},
		{name: "one that does not count beside one that does", kind: OpenPGP, signature: append(file(t, "expired.asc"), file(t, "alice.asc")...), accepted: "expired alice", signer: "alice"},
		{name: "a weak one beside a strong one", kind: OpenPGP, signature: append(file(t, "sha1.asc"), file(t, "rita.asc")...), accepted: "rita", signer: "rita"},

		{name: "changed text", file: "alice.asc", kind: OpenPGP, data: flip(sums, 40), accepted: "alice", reason: ErrBad, want: "was changed"},
		{name: "longer text", file: "alice.asc", kind: OpenPGP, data: append(bytes.Clone(sums), '\n'), accepted: "alice", reason: ErrBad, want: "was changed"},
		{name: "no text", file: "alice.asc", kind: OpenPGP, data: []byte{}, accepted: "alice", reason: ErrBad, want: "was changed"},
		{name: "changed signature", kind: OpenPGP, signature: flip(file(t, "alice.sig"), -3), accepted: "alice", reason: ErrBad, want: "was changed"},
		{name: "other key", file: "bob.asc", kind: OpenPGP, accepted: "alice", reason: ErrUnknownKey, want: "signed by " + id(t, "bob") + "; accepted would be " + id(t, "alice")},
		{name: "one wrong beside one right", kind: OpenPGP, signature: append(file(t, "alice.sig"), flip(file(t, "alice.sig"), -3)...), accepted: "alice", reason: ErrBad, want: "was changed"},
		{name: "expired key", file: "expired.asc", kind: OpenPGP, accepted: "expired", reason: ErrExpired, want: "expired on 2025-03-01"},
		{name: "expired subkey", file: "sub.asc", kind: OpenPGP, accepted: "sub", now: late, reason: ErrExpired, want: "expired on 2025-12-31"},
		{name: "expired signature", file: "sigexpired.asc", kind: OpenPGP, accepted: "alice", reason: ErrExpired, want: "has expired (2025-06-02)"},
		{name: "revoked key", file: "revoked.asc", kind: OpenPGP, accepted: "revoked", reason: ErrRevoked, want: "revoked by its owner"},
		{name: "revoked subkey", file: "subrevoked.asc", kind: OpenPGP, accepted: "subrevoked", reason: ErrRevoked, want: "revoked by its owner"},
		{name: "before the key", file: "early.asc", kind: OpenPGP, accepted: "alice", reason: ErrTime, want: "dated 2024-12-01 00:00:00, before the key was made"},
		{name: "in the future", file: "alice.asc", kind: OpenPGP, accepted: "alice", now: time.Date(2025, 5, 1, 0, 0, 0, 0, time.UTC), reason: ErrTime, want: "in the future"},
		{name: "SHA-1", file: "sha1.asc", kind: OpenPGP, accepted: "rita", reason: ErrWeak, want: "SHA-1"},
		{name: "MD5", kind: OpenPGP, signature: withHash(file(t, "alice.sig"), 1), accepted: "alice", reason: ErrWeak, want: "MD5"},
		{name: "unknown hash", kind: OpenPGP, signature: withHash(file(t, "alice.sig"), 99), accepted: "alice", reason: ErrBad, want: "cannot be read"},
		{name: "short key", file: "weak.asc", kind: OpenPGP, accepted: "weak", reason: ErrWeak, want: "too short (RSA, 1024 bits)"},
		{name: "unknown version", kind: OpenPGP, signature: flip(withVersion(file(t, "alice.sig"), 5), -1), accepted: "alice", reason: ErrBad, want: "version 5"},
		{name: "old version, cut off", kind: OpenPGP, signature: flip(withVersion(file(t, "alice.sig"), 3), -1), accepted: "alice", reason: ErrBad, want: "cut off"},
		{name: "not detached", file: "inline.asc", kind: OpenPGP, accepted: "alice", reason: ErrBad, want: "no OpenPGP signature"},
		{name: "not a signature", kind: OpenPGP, signature: []byte("<html>404</html>"), accepted: "alice", reason: ErrBad, want: `it begins "<html>`},
		{name: "empty", kind: OpenPGP, signature: []byte{}, accepted: "alice", reason: ErrBad, want: "empty"},
		{name: "huge", kind: OpenPGP, signature: make([]byte, maxSignature+1), accepted: "alice", reason: ErrBad, want: "bytes"},
		{name: "cut off", kind: OpenPGP, signature: file(t, "alice.sig")[:60], accepted: "alice", reason: ErrBad, want: "cut off"},
		{name: "armor cut off", kind: OpenPGP, signature: file(t, "alice.asc")[:200], accepted: "alice", reason: ErrBad, want: "cut off"},
		{name: "armor damaged", kind: OpenPGP, signature: bytes.Replace(file(t, "alice.asc"), []byte("iHUE"), []byte("iH*E"), 1), accepted: "alice", reason: ErrBad, want: "damaged"},
		{name: "trailing junk", kind: OpenPGP, signature: append(file(t, "alice.sig"), "junk"...), accepted: "alice", reason: ErrBad, want: "followed by something else"},
		{name: "too many", kind: OpenPGP, signature: bytes.Repeat(file(t, "alice.sig"), maxSignatures+1), accepted: "alice", reason: ErrBad, want: "more than"},
		{name: "a key instead", kind: OpenPGP, signature: packets(t, id(t, "alice")), accepted: "alice", reason: ErrBad, want: "packet of type 6"},

		{name: "minisign", file: "carol.minisig", kind: Minisign, accepted: "dave carol", signer: "carol"},
		{name: "minisign, CRLF", kind: Minisign, signature: crlf(file(t, "carol.minisig")), accepted: "carol", signer: "carol"},
		{name: "minisign, old form", file: "carol-old.minisig", kind: Minisign, accepted: "carol", signer: "carol"},
		{name: "minisign, changed", file: "carol.minisig", kind: Minisign, data: flip(sums, 0), accepted: "carol", reason: ErrBad, want: "the data or the signature"},
		{name: "minisign, old form, changed", file: "carol-old.minisig", kind: Minisign, data: flip(sums, 0), accepted: "carol", reason: ErrBad, want: "the data or the signature"},
		{name: "minisign, other key", file: "dave.minisig", kind: Minisign, accepted: "carol", reason: ErrUnknownKey, want: "signed by " + id(t, "dave") + "; accepted would be " + id(t, "carol")},
		{name: "minisign, trusted comment", kind: Minisign, signature: minisig(func(l []string) { l[2] = "trusted comment: trusted sword\n" }), accepted: "carol", reason: ErrBad, want: "trusted comment was changed"},
		{name: "minisign, no trusted comment", kind: Minisign, signature: minisig(func(l []string) { l[2] = "comment\n" }), accepted: "carol", reason: ErrBad, want: "by " + id(t, "carol")},
		{name: "minisign, untrusted comment", kind: Minisign, signature: minisig(func(l []string) { l[0] = "untrusted comment: whatever\n" }), accepted: "carol", signer: "carol"},
		{name: "minisign, two lines", kind: Minisign, signature: minisig(func(l []string) { l[2], l[3] = "", "" }), accepted: "carol", reason: ErrBad, want: "no minisign signature"},
		{name: "minisign, junk", kind: Minisign, signature: append(file(t, "carol.minisig"), "junk\n"...), accepted: "carol", reason: ErrBad, want: "no minisign signature"},
		{name: "minisign, unknown form", kind: Minisign, signature: minisig(func(l []string) { l[1] = "RX" + l[1][2:] }), accepted: "carol", reason: ErrBad, want: "unknown form"},
		{name: "minisign, another kind", file: "erin.sig", kind: Minisign, accepted: "carol", reason: ErrBad, want: "no minisign signature"},

		{name: "signify", file: "erin.sig", kind: Signify, accepted: "erin", signer: "erin"},
		{name: "signify, no line end", kind: Signify, signature: bytes.TrimSpace(file(t, "erin.sig")), accepted: "erin", signer: "erin"},
		{name: "signify, CRLF", kind: Signify, signature: crlf(file(t, "erin.sig")), accepted: "erin", signer: "erin"},
		{name: "signify, changed", file: "erin.sig", kind: Signify, data: flip(sums, -1), accepted: "erin", reason: ErrBad, want: "was changed"},
		{name: "signify, other key", file: "frank.sig", kind: Signify, accepted: "erin", reason: ErrUnknownKey, want: "signed by " + id(t, "frank")},
		{name: "signify, embedded", file: "erin-embedded.sig", kind: Signify, accepted: "erin", reason: ErrBad, want: "followed by a text"},
		{name: "signify, cut off", kind: Signify, signature: file(t, "erin.sig")[:100], accepted: "erin", reason: ErrBad, want: "no signify signature"},
		{name: "signify, the key instead", kind: Signify, signature: keyFile(t, id(t, "erin")+".signify"), accepted: "erin", reason: ErrBad, want: "no signify signature"},

		{name: "RSA", file: "grace.rsa", kind: RSA, accepted: "heidi grace", signer: "grace"},
		{name: "RSA, one line", kind: RSA, signature: bytes.ReplaceAll(file(t, "grace.rsa"), []byte("\n"), nil), accepted: "grace", signer: "grace"},
		{name: "RSA, changed", file: "grace.rsa", kind: RSA, data: flip(sums, 0), accepted: "grace", reason: ErrBad, want: "was changed"},
		{name: "RSA, other key", file: "heidi.rsa", kind: RSA, accepted: "grace", reason: ErrBad, want: id(t, "grace")},
		{name: "RSA, cut off", kind: RSA, signature: file(t, "grace.rsa")[:300], accepted: "grace", reason: ErrBad, want: "no RSA signature"},
		{name: "RSA, longer", kind: RSA, signature: []byte(base64.StdEncoding.EncodeToString(make([]byte, 512))), accepted: "grace", reason: ErrUnknownKey, want: "4096 bits"},
	} {
		t.Run(c.name, func(t *testing.T) {
			signature, data, now := c.signature, c.data, c.now
			if signature == nil {
				signature = file(t, c.file)
			}
			if data == nil {
				data = sums
			}
			if now.IsZero() {
				now = then
			}
			accepted := ids(t, c.accepted)
			check := func(how, signer string, err error) {
				t.Helper()
				if c.signer != "" {
					if err != nil || signer != id(t, c.signer) {
						t.Errorf("%s: %q, %v", how, signer, err)
					}
					return
				}
				var e *Error
				var remedy *event.Remedied
				if !errors.Is(err, c.reason) || !errors.As(err, &e) || !errors.As(err, &remedy) || remedy.Remedy == "" || signer != "" || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: %q, %v", how, signer, err)
				}
				if errors.Is(err, ErrUnknownKey) && strings.Join(e.Expected, " ") != strings.Join(accepted, " ") {
					t.Errorf("%s expects %q", how, e.Expected)
				}
			}
			signer, err := r.Verify(c.kind, signature, data, accepted, now)
			check("Verify", signer, err)
			s, err := r.Stream(c.kind, signature, accepted, now)
			if err != nil {
				check("Stream", "", err)
				return
			}
			for part := range bytes.Lines(data) { // also with line ends at the seams
				if _, err := s.Write(part[:len(part)-1]); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Write(part[len(part)-1:]); err != nil {
					t.Fatal(err)
				}
			}
			if s.Signer() != "" {
				t.Error("a signer before the end")
			}
			err = s.Close()
			check("Close", s.Signer(), err)
			if again := s.Close(); again != err {
				t.Errorf("Close said %v, then %v", err, again)
			}
		})
	}
}

func crlf(data []byte) []byte { return bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")) }

// withHash changes the hash algorithm that a binary signature names.
func withHash(signature []byte, algorithm byte) []byte {
	signature = bytes.Clone(signature)
	signature[2+3] = algorithm
	return signature
}

func withVersion(signature []byte, version byte) []byte {
	signature = bytes.Clone(signature)
	signature[2] = version
	return signature
}

// packets are those of a key.
func packets(t testing.TB, fingerprint string) []byte {
	_, data, err := ring(t).openPGP(fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func keyFile(t testing.TB, name string) []byte {
	data, err := os.ReadFile("testdata/keys/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestUnknownKeyNamesBoth(t *testing.T) {
	_, err := ring(t).Verify(OpenPGP, file(t, "both.asc"), nil, ids(t, "rita sub"), then)
	var e *Error
	if !errors.As(err, &e) || strings.Join(e.Found, " ") != strings.Join(ids(t, "alice bob"), " ") || strings.Join(e.Expected, " ") != strings.Join(ids(t, "rita sub"), " ") {
		t.Errorf("%v: %+v", err, e)
	}
}

func TestSignedTexts(t *testing.T) {
	r, clear, embedded := ring(t), file(t, "clear.asc"), file(t, "erin-embedded.sig")
	sums := string(file(t, "sums"))
	plain := strings.TrimSuffix(strings.Replace(sums, "blanks \t\n", "blanks\n", 1), "\n")
	other := file(t, "clear-bob.asc")
	for _, c := range []struct {
		name     string
		kind     Kind
		message  []byte
		accepted string
		text     string // "": it fails
		reason   error
		want     string
	}{
		{"clear-signed", OpenPGP, clear, "alice", plain, nil, ""},
		{"CRLF", OpenPGP, crlf(clear), "alice", plain, nil, ""},
		{"words around it", OpenPGP, []byte("SHA256 (disk.qcow2) = 00\n" + string(clear) + "SHA256 (disk.qcow2) = 00\n"), "alice", plain, nil, ""},
		{"changed text", OpenPGP, bytes.Replace(clear, []byte("123 bytes"), []byte("124 bytes"), 1), "alice", "", ErrBad, "is wrong"},
		{"a line more", OpenPGP, bytes.Replace(clear, []byte("\n\n"), []byte("\n\nmore\n"), 1), "alice", "", ErrBad, "is wrong"},
		{"a line in the headers", OpenPGP, bytes.Replace(clear, []byte("SHA256\n\n"), []byte("SHA256\nSHA256 (disk.qcow2) = 00\n\n"), 1), "alice", "", ErrBad, "no complete clear-signed text"},
		{"other key", OpenPGP, other, "alice", "", ErrUnknownKey, "signed by " + id(t, "bob")},
		{"another's text after it", OpenPGP, append(bytes.Clone(clear), other...), "alice", "", ErrBad, "second signed text"},
		{"another's text before it", OpenPGP, append(bytes.Clone(other), clear...), "alice", "", ErrBad, "second signed text"},
		{"not signed", OpenPGP, []byte(sums), "alice", "", ErrBad, "no complete clear-signed text"},
		{"cut off", OpenPGP, clear[:len(clear)-40], "alice", "", ErrBad, "no complete clear-signed text"},
		{"without a signature", OpenPGP, clear[:bytes.Index(clear, []byte("-----BEGIN PGP SIGNATURE"))], "alice", "", ErrBad, "no complete clear-signed text"},
		{"detached", OpenPGP, file(t, "alice.asc"), "alice", "", ErrBad, "no complete clear-signed text"},
		{"too long", OpenPGP, make([]byte, maxMessage+1), "alice", "", ErrBad, "not read"},
		{"embedded", Signify, embedded, "erin", sums, nil, ""},
		{"embedded, changed", Signify, flip(embedded, -5), "erin", "", ErrBad, "is wrong"},
		{"embedded, longer", Signify, append(bytes.Clone(embedded), "more\n"...), "erin", "", ErrBad, "is wrong"},
		{"embedded, other key", Signify, embedded, "frank", "", ErrUnknownKey, "signed by " + id(t, "erin")},
		{"not signed by signify", Signify, []byte(sums), "erin", "", ErrBad, "no signify signature"},
		{"minisign", Minisign, file(t, "carol.minisig"), "carol", "", nil, "does not hold the text"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, signer, err := r.Open(c.kind, c.message, ids(t, c.accepted), then)
			if c.text != "" {
				if err != nil || string(text) != c.text || signer != id(t, c.accepted) {
					t.Errorf("%q by %q, %v", text, signer, err)
				}
				return
			}
			if err == nil || text != nil || signer != "" || !strings.Contains(err.Error(), c.want) || c.reason != nil && !errors.Is(err, c.reason) {
				t.Errorf("%q by %q, %v", text, signer, err)
			}
		})
	}
	// What comes out is what a checksum file may be read from.
	text, _, err := r.Open(OpenPGP, clear, ids(t, "alice"), then)
	if err != nil {
		t.Fatal(err)
	}
	table, err := ParseTable(text)
	if err != nil || strings.Join(table.Names(), " ") != "disk.qcow2 other.qcow2" {
		t.Errorf("%v, %v", table, err)
	}
}

func TestIssuers(t *testing.T) {
	r := ring(t)
	for _, c := range []struct {
		kind       Kind
		file, want string
	}{
		{OpenPGP, "both.asc", "alice bob"}, {OpenPGP, "alice.sig", "alice"}, {OpenPGP, "clear.asc", "alice"}, {Minisign, "carol.minisig", "carol"},
		{Signify, "erin.sig", "erin"}, {Signify, "erin-embedded.sig", "erin"}, {RSA, "grace.rsa", ""},
	} {
		got, err := r.Issuers(c.kind, file(t, c.file))
		if err != nil || strings.Join(got, " ") != strings.Join(ids(t, c.want), " ") {
			t.Errorf("%s: %q, %v", c.file, got, err)
		}
		if c.kind != RSA {
			if got, err := r.Issuers(c.kind, []byte("none")); err == nil {
				t.Errorf("%s: %q", c.kind, got)
			}
		}
	}
	if _, err := r.Issuers("x", nil); err == nil {
		t.Error("an unknown kind")
	}
}

func TestStreamsEnd(t *testing.T) {
	r := ring(t)
	open := func(kind Kind, name, by string) *Stream {
		s, err := r.Stream(kind, file(t, name), ids(t, by), then)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open(OpenPGP, "alice.asc", "alice")
	if _, err := s.Write(file(t, "sums")); err != nil {
		t.Fatal(err)
	}
	s.Abort()
	if err := s.Close(); !errors.Is(err, errAborted) || s.Signer() != "" {
		t.Errorf("after Abort: %v", err)
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("a write after Abort")
	}
	s = open(OpenPGP, "alice.asc", "alice")
	_, _ = s.Write(file(t, "sums"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Abort()
	if _, err := s.Write([]byte("x")); !errors.Is(err, errClosed) || s.Close() != nil || s.Signer() == "" {
		t.Errorf("after Close: %v", err)
	}
	// A signature over the whole text is held in memory up to a limit; one over its hash has none.
	part := make([]byte, 1<<20)
	for _, c := range []struct {
		kind     Kind
		file, by string
		want     error
	}{{Minisign, "carol-old.minisig", "carol", ErrTooBig}, {Signify, "erin.sig", "erin", ErrTooBig}, {Minisign, "carol.minisig", "carol", ErrBad}} {
		s := open(c.kind, c.file, c.by)
		var err error
		for i := 0; err == nil && i < maxBuffered>>20; i++ {
			if _, err = s.Write(part); err != nil {
				t.Fatalf("%s after %d MiB: %v", c.file, i, err)
			}
		}
		_, err = s.Write(part)
		if closed := s.Close(); !errors.Is(closed, c.want) || err != nil && closed != err {
			t.Errorf("%s: %v, %v", c.file, err, closed)
		}
	}
}

func TestAcceptedKeys(t *testing.T) {
	r, sums := ring(t), file(t, "sums")
	for _, c := range []struct {
		kind     Kind
		accepted []string
		reason   error
		want     string
	}{
		{OpenPGP, nil, nil, "no key is named"},
		{OpenPGP, []string{strings.Repeat("A", 40)}, ErrNotPinned, "not among the pinned keys"},
		{OpenPGP, []string{id(t, "alice"), strings.Repeat("A", 64)}, ErrNotPinned, "not among the pinned keys"},
		{OpenPGP, []string{strings.ToLower(id(t, "alice"))}, nil, "does not name a key"},
		{OpenPGP, []string{id(t, "alice")[24:]}, nil, "does not name a key"},
		{OpenPGP, []string{"../keys/" + id(t, "alice")}, nil, "does not name a key"},
		{RSA, []string{strings.Repeat("A", 64)}, ErrNotPinned, "not among the pinned keys"},
		{"x", []string{"x"}, nil, "not known"},
	} {
		signature := file(t, "alice.asc")
		if c.kind == RSA {
			signature = file(t, "grace.rsa")
		}
		signer, err := r.Verify(c.kind, signature, sums, c.accepted, then)
		if err == nil || signer != "" || !strings.Contains(err.Error(), c.want) || c.reason != nil && !errors.Is(err, c.reason) {
			t.Errorf("%q: %q, %v", c.accepted, signer, err)
		}
	}
	if _, err := r.Keyring(nil); err == nil {
		t.Error("a keyring of no keys")
	}
	if _, err := r.Keyring([]string{strings.Repeat("A", 40)}); !errors.Is(err, ErrNotPinned) {
		t.Errorf("a keyring of an unknown key: %v", err)
	}
	if data, err := r.Keyring(ids(t, "alice bob")); err != nil || !bytes.Equal(data, append(packets(t, id(t, "alice")), packets(t, id(t, "bob"))...)) {
		t.Errorf("a keyring of two: %v", err)
	}
}

func TestRingsHoldWhatTheyName(t *testing.T) {
	alice, carol, erin, grace := id(t, "alice"), id(t, "carol"), id(t, "erin"), id(t, "grace")
	other := strings.Repeat("A", 40)
	for name, data := range map[string][]byte{
		"keys/" + other + ".asc":           keyFile(t, alice+".asc"),
		"keys/" + alice + ".asc":           append(keyFile(t, alice+".asc"), keyFile(t, id(t, "bob")+".asc")...),
		"keys/" + id(t, "bob") + ".asc":    []byte("nothing"),
		"keys/short.asc":                   keyFile(t, alice+".asc"),
		"keys/" + other[:16] + ".minisign": keyFile(t, carol+".minisign"),
		"keys/" + carol + ".minisign":      bytes.TrimPrefix(keyFile(t, carol+".minisign"), []byte("untrusted")),
		"keys/" + other[:16] + ".signify":  keyFile(t, erin+".signify"),
		"keys/" + erin + ".signify":        keyFile(t, id(t, "frank")+".signify"),
		"keys/" + grace + ".pem":           append(keyFile(t, grace+".pem"), "more"...),
		"keys/" + id(t, "heidi") + ".pem":  keyFile(t, grace+".pem"),
		"keys/" + carol[8:] + ".signify":   keyFile(t, erin+".signify"),
	} {
		if _, err := OpenRing(fstest.MapFS{name: {Data: data}}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := OpenRing(fstest.MapFS{}); err == nil {
		t.Error("a ring without a folder")
	}
	if _, err := OpenRing(fstest.MapFS{"keys/README.md": {}, "keys/" + alice + ".asc": {Data: keyFile(t, alice+".asc")}}); err != nil {
		t.Error(err)
	}
}

func TestEveryPinnedKeyIsWhatItIsNamedFor(t *testing.T) {
	if _, err := OpenRing(embedded); err != nil {
		t.Fatal(err)
	}
	list, err := fs.ReadDir(embedded, "keys")
	if err != nil || len(list) < 2 {
		t.Fatalf("%v, %d files", err, len(list))
	}
	sources, err := fs.ReadFile(embedded, "keys/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if ext := path.Ext(f.Name()); ext != ".md" && !bytes.Contains(sources, []byte("| "+strings.TrimSuffix(f.Name(), ext)+" |")) {
			t.Errorf("keys/README.md does not tell the source of %s", f.Name())
		}
	}
	for line := range strings.Lines(string(sources)) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && strings.Trim(cells[1], " 0123456789ABCDEF") == "" && strings.TrimSpace(cells[1]) != "" {
			if m, _ := fs.Glob(embedded, "keys/"+strings.TrimSpace(cells[1])+".*"); len(m) != 1 {
				t.Errorf("keys/README.md names %s, of which there is no file", cells[1])
			}
		}
	}
}

// A pinned key that cannot sign on the day it was pinned is of no use.
func TestPinnedKeysCanSign(t *testing.T) {
	day := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	list, err := fs.Glob(embedded, "keys/*.asc")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range list {
		name := strings.TrimSuffix(path.Base(file), ".asc")
		e, _, err := Pinned().openPGP(name)
		if err != nil {
			t.Fatal(err)
		}
		made := signature{Signature: &packet.Signature{SigType: packet.SigTypeBinary, Hash: crypto.SHA512, CreationTime: day}}
		why := usable(name, e, e.PrimaryKey, nil, made, day, nil, nil)
		for i := range e.Subkeys {
			if usable(name, e, e.Subkeys[i].PublicKey, &e.Subkeys[i], made, day, nil, nil) == nil {
				why = nil
			}
		}
		if why != nil {
			t.Errorf("%s: %v", name, why)
		}
	}
}

// What an upstream really published, with the keys that are really pinned.
func TestRealChecksumFile(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile("testdata/real/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	sums := read("SHA256SUMS")
	accepted := []string{"4A3CE3CD565D7EB5C810E2B97FF3F408476CF100", "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"}
	signer, err := Pinned().Verify(OpenPGP, read("SHA256SUMS.gpg"), sums, accepted, time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC))
	if err != nil || signer != accepted[1] {
		t.Fatalf("%q, %v", signer, err)
	}
	table, err := ParseTable(sums)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := table.Sum("noble-server-cloudimg-amd64.img")
	if err != nil || sum.String() != "sha256:6a81c37564db9b1ee84e141922625e1d7c5b389b99bb3c572e0243607d5bb4d2" || len(table.Names()) != 66 {
		t.Errorf("%s of %d, %v", sum, len(table.Names()), err)
	}
}

func TestRingIsForManyGoroutines(t *testing.T) {
	r, sums := ring(t), file(t, "sums")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := r.Verify(OpenPGP, file(t, "sub.asc"), sums, ids(t, "sub"), then); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func FuzzOpen(f *testing.F) {
	r := ring(f)
	for _, name := range []string{"clear.asc", "clear-bob.asc", "erin-embedded.sig", "erin.sig", "alice.asc", "sums"} {
		f.Add(file(f, name))
	}
	alice, erin := ids(f, "alice"), ids(f, "erin")
	clear, _, err := r.Open(OpenPGP, file(f, "clear.asc"), alice, then)
	if err != nil {
		f.Fatal(err)
	}
	sums := file(f, "sums")
	f.Fuzz(func(t *testing.T, message []byte) {
		// Nothing but what was once signed is ever signed.
		if text, signer, err := r.Open(OpenPGP, message, alice, then); err == nil && (!bytes.Equal(text, clear) && !bytes.Equal(text, bytes.TrimSpace(clear)) || signer != alice[0]) {
			t.Errorf("%q by %s", text, signer)
		}
		if text, signer, err := r.Open(Signify, message, erin, then); err == nil && (!bytes.Equal(text, sums) || signer != erin[0]) {
			t.Errorf("%q by %s", text, signer)
		}
	})
}

func FuzzVerify(f *testing.F) {
	r := ring(f)
	for _, name := range []string{"alice.sig", "alice.asc", "both.asc", "sha1.asc", "carol.minisig", "carol-old.minisig", "erin.sig", "grace.rsa"} {
		f.Add(file(f, name))
	}
	accepted := map[Kind][]string{OpenPGP: ids(f, "alice bob rita"), Minisign: ids(f, "carol"), Signify: ids(f, "erin"), RSA: ids(f, "grace")}
	changed := flip(file(f, "sums"), 7)
	f.Fuzz(func(t *testing.T, signature []byte) {
		for kind, list := range accepted {
			if signer, err := r.Verify(kind, signature, changed, list, then); err == nil || signer != "" {
				t.Errorf("%s: a changed text was accepted, signed by %q", kind, signer)
			}
			_, _ = r.Issuers(kind, signature)
		}
	})
}

func BenchmarkStream(b *testing.B) {
	r, part := ring(b), make([]byte, 1<<20)
	for _, c := range []struct {
		kind     Kind
		file, by string
	}{{OpenPGP, "alice.asc", "alice"}, {OpenPGP, "both.asc", "alice bob"}, {Minisign, "carol.minisig", "carol"}, {RSA, "grace.rsa", "grace"}} {
		b.Run(fmt.Sprintf("%s/%s", c.kind, c.file), func(b *testing.B) {
			s, err := r.Stream(c.kind, file(b, c.file), ids(b, c.by), then)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(part)))
			for b.Loop() {
				_, _ = s.Write(part)
			}
		})
	}
}
