package integrity

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

var (
	h256  = strings.Repeat("0123456789abcdef", 4)
	i256  = strings.Repeat("fedcba9876543210", 4)
	h384  = strings.Repeat("0123456789abcdef", 6)
	h512  = strings.Repeat("0123456789abcdef", 8)
	i512  = strings.Repeat("fedcba9876543210", 8)
	hMD5  = h256[:32]
	hSHA1 = h256[:40]
)

func TestTables(t *testing.T) {
	for _, c := range []struct{ name, file, ask, want, fails string }{
		{"GNU, text", h256 + "  a.qcow2\n", "a.qcow2", "sha256:" + h256, ""},
		{"GNU, one space", h256 + " a.qcow2\n", "a.qcow2", "sha256:" + h256, ""},
		{"GNU, binary", h256 + " *a.img\n", "a.img", "sha256:" + h256, ""},
		{"GNU, SHA-512", h512 + "  a.qcow2", "a.qcow2", "sha512:" + h512, ""},
		{"GNU, SHA-384", h384 + "  a.qcow2", "a.qcow2", "sha384:" + h384, ""},
		{"GNU, upper case", strings.ToUpper(h256) + "  a.qcow2\n", "a.qcow2", "sha256:" + h256, ""},
		{"a leading dot", h256 + " *./a.img\n", "a.img", "sha256:" + h256, ""},
		{"a folder", h256 + " *packages/a.ipk\n", "packages/a.ipk", "sha256:" + h256, ""},
		{"the folder matters", h256 + " *packages/a.ipk\n", "a.ipk", "", "does not name a.ipk, but packages/a.ipk"},
		{"blanks in a name", h256 + "  a b.iso\n", "a b.iso", "sha256:" + h256, ""},
		{"escaped", `\` + h256 + "  a\\\\b\\nc\n", "a\\b\nc", "sha256:" + h256, ""},
		{"not escaped", h256 + `  a\nb`, `a\nb`, "sha256:" + h256, ""},
		{"BSD", "SHA256 (a.qcow2) = " + h256 + "\n", "a.qcow2", "sha256:" + h256, ""},
		{"BSD, a bracket in the name", "SHA256 (a (1).qcow2) = " + h256 + "\n", "a (1).qcow2", "sha256:" + h256, ""},
		{"BSD, escaped", `\SHA512 (a\\b) = ` + h512, `a\b`, "sha512:" + h512, ""},
		{"BLAKE2", "BLAKE2b (a) = " + h512 + "\nSHA256 (a) = " + h256, "a", "blake2b:" + h512, ""},
		{"openssl", "SHA256(a.iso)= " + h256 + "\nSHA2-512(b.iso)= " + h512, "b.iso", "sha512:" + h512, ""},
		{"sizes", "# a.qcow2: 12 bytes\nSHA256 (a.qcow2) = " + h256 + "\n", "a.qcow2", "sha256:" + h256, ""},
		{"the strongest", "SHA256 (a) = " + h256 + "\nSHA512 (a) = " + h512 + "\nMD5 (a) = " + hMD5 + "\n", "a", "sha512:" + h512, ""},
		{"CRLF", h256 + "  a\r\n" + i256 + "  b\r\n", "b", "sha256:" + i256, ""},
		{"BOM", "\ufeff" + h256 + "  a\n", "a", "sha256:" + h256, ""},
		{"twice the same", h256 + "  a\n" + strings.ToUpper(h256) + "  a\n", "a", "sha256:" + h256, ""},
		{"twice, differently", h256 + "  a\n" + i256 + " *./a\n", "a", "", "two different sha256"},
		{"twice, differently, in two forms", h512 + "  a\nSHA512 (a) = " + i512 + "\n", "a", "", "two different sha512"},
		{"another twice", h256 + "  a\n" + i256 + "  b\n" + h256 + "  b\n", "a", "sha256:" + h256, ""},
		{"only MD5", hMD5 + "  a\n", "a", "", "only MD5 for a, which is too weak"},
		{"only MD5 and SHA-1", "MD5 (a) = " + hMD5 + "\nSHA1 (a) = " + hSHA1 + "\n" + h256 + "  b", "a", "", "only MD5 and SHA-1"},
		{"MD5 beside", hMD5 + "  a\n" + h256 + "  a\n", "a", "sha256:" + h256, ""},
		{"too short", h256[:63] + "  a\n", "a", "", "63 hexadecimal digits"},
		{"too short, labelled", "SHA256 (a) = " + h256[:62] + "\n", "a", "", "64 hexadecimal digits, not 62"},
		{"too short beside a right one", h256 + "  a\n" + h256[:60] + "  a\n", "a", "", "60 hexadecimal digits"},
		{"mislabelled", "SHA512 (a) = " + h256 + "\n", "a", "", "128 hexadecimal digits, not 64"},
		{"not hexadecimal", "SHA256 (a) = " + h256[:63] + "g\n", "a", "", "not hexadecimal"},
		{"no hash", "SHA256 (a) = \n", "a", "", "not 0"},
		{"a wrong line of another", h256[:60] + "  b\n" + h256 + "  a\n", "a", "sha256:" + h256, ""},
		{"a sibling", h256 + "  a-ext4.qcow2\n", "a.qcow2", "", "does not name a.qcow2"},
		{"a part of a name", h256 + "  prefix-a.qcow2\n", "a.qcow2", "", "does not name a.qcow2"},
		{"bare", h512 + "\n", "a", "", "names no file"},
		{"none", "<!DOCTYPE html>\n<html>", "a", "", `begins "<!DOCTYPE html>"`},
		{"empty", "", "a", "", "no checksum"},
		{"only words", "Hash: SHA256\n\n-----BEGIN PGP SIGNATURE-----\n", "a", "", "no checksum"},
		{"a transcript", "--2018-11-29 10:00:00--  https://example.org/a\nResolving example.org... 192.0.2.1\nHTTP request sent, awaiting response... 200 OK\nLength: 345 [text/plain]\nSaving to: 'STDOUT'\n\n     0K          100% 1.2M=0s\n\n" +
			"SHA256 (a) = " + h256 + "\n\n2018-11-29 (1.2 MB/s) - written to stdout [345/345]\n", "a", "sha256:" + h256, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, err := ParseTable([]byte(c.file))
			var sum Sum
			if err == nil {
				sum, err = table.Sum(c.ask)
			}
			switch {
			case c.fails != "":
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("%s, %v", sum, err)
				}
			case err != nil || sum.String() != c.want:
				t.Errorf("%s, %v", sum, err)
			}
		})
	}
}

func TestTableTellsAll(t *testing.T) {
	table, err := ParseTable([]byte("# b: 12345 bytes\nSHA256 (b) = " + h256 + "\n#./a: 1 bytes\n" + i256 + "  a\nSHA256 (b) = " + h256 + "\n# c: 1 bytes\n# c: 2 bytes\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(table.Names(), " "); got != "b a" {
		t.Errorf("names %q", got)
	}
	for name, want := range map[string]int64{"b": 12345, "a": 1, "c": -1, "d": -1} {
		if n, ok := table.Size(name); ok != (want >= 0) || ok && n != want {
			t.Errorf("size of %s: %d, %v", name, n, ok)
		}
	}
	if _, _, err := table.Only(); err == nil {
		t.Error("one name of two")
	}
	if _, err := table.Bare(); err == nil {
		t.Error("a bare hash of two names")
	}
	table, err = ParseTable([]byte(h256 + "  a-20260101\n"))
	if err != nil {
		t.Fatal(err)
	}
	if name, sum, err := table.Only(); name != "a-20260101" || sum.Hex != h256 || err != nil {
		t.Errorf("%s %s %v", name, sum, err)
	}
}

func TestBareHashes(t *testing.T) {
	for _, c := range []struct{ file, want, fails string }{
		{h512 + "\n", "sha512:" + h512, ""}, {strings.ToUpper(h256), "sha256:" + h256, ""}, {"# of a\n\n" + h256 + "\r\n", "sha256:" + h256, ""},
		{h256 + "\n" + h256 + "\n", "sha256:" + h256, ""}, {h256 + "\n" + i256 + "\n", "", "lines 1 and 2"}, {hMD5, "", "only MD5"}, {hSHA1, "", "only SHA-1"}, {h256[:50], "", "50 hexadecimal digits"},
		{h256[:41], "", "41 hexadecimal digits"},
	} {
		table, err := ParseTable([]byte(c.file))
		if err != nil {
			t.Fatal(err)
		}
		sum, err := table.Bare()
		if c.fails == "" && (err != nil || sum.String() != c.want) || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%q: %s, %v", c.file, sum, err)
		}
	}
}

func TestTableLimits(t *testing.T) {
	for name, data := range map[string][]byte{
		"bytes":  bytes.Repeat([]byte("\n"), maxTable+1),
		"line":   append([]byte(h256+"  "), bytes.Repeat([]byte("a"), maxLine)...),
		"hashes": bytes.Repeat([]byte(hMD5+" a\n"), maxEntries+1),
	} {
		if _, err := ParseTable(data); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseTable(bytes.Repeat([]byte(hMD5+" a\n"), maxEntries)); err != nil {
		t.Error(err)
	}
}

func TestSums(t *testing.T) {
	for _, s := range []string{"sha256:" + h256, "sha384:" + h384, "sha512:" + h512, "blake2b:" + h512, "SHA256:" + strings.ToUpper(h256)} {
		sum, err := ParseSum(s)
		if err != nil || sum.String() != strings.ToLower(s) || sum.IsZero() {
			t.Fatalf("%s: %s, %v", s, sum, err)
		}
		h := sum.New()
		_, _ = h.Write([]byte("x"))
		right := Sum{sum.Algorithm, hex.EncodeToString(h.Sum(nil))}
		if len(right.Hex) != len(sum.Hex) || !right.Is(h) || sum.Is(h) {
			t.Errorf("%s: %s", s, right)
		}
	}
	for _, s := range []string{"", h256, "sha256:", "sha256:" + h512, "sha256:" + h256[:63] + "g", "md5:" + hMD5, "sha1:" + hSHA1, "crc:00", "sha256-" + h256} {
		if sum, err := ParseSum(s); err == nil {
			t.Errorf("%q: %s", s, sum)
		}
	}
	if (Sum{}).New() != nil || !(Sum{}).IsZero() {
		t.Error("the zero value is a checksum")
	}
}

func TestDigests(t *testing.T) {
	raw := func(h string) []byte { b, _ := hex.DecodeString(h); return b }
	odd := strings.Repeat("fb", 64) // all of base64's special characters
	std, url := base64.StdEncoding, base64.URLEncoding
	for _, c := range []struct{ in, algorithm, want string }{
		{h256, "", "sha256:" + h256}, {h256, "sha256", "sha256:" + h256}, {" " + h512 + "\n", "SHA512", "sha512:" + h512}, {strings.ToUpper(h256), "", "sha256:" + h256},
		{"sha256:" + h256, "", "sha256:" + h256}, {"sha256:" + h256, "sha256", "sha256:" + h256}, {h512, "blake2b", "blake2b:" + h512},
		{"sha512:" + std.WithPadding(base64.NoPadding).EncodeToString(raw(h512)), "", "sha512:" + h512},
		{"sha512:" + std.EncodeToString(raw(h512)), "sha512", "sha512:" + h512},
		{std.EncodeToString(raw(h512)), "", "sha512:" + h512}, {std.EncodeToString(raw(h256)), "sha256", "sha256:" + h256}, {std.EncodeToString(raw(h384)), "", "sha384:" + h384},
		{url.EncodeToString(raw(odd)), "", "sha512:" + odd}, {std.EncodeToString(raw(odd)), "", "sha512:" + odd}, {"sha512-" + std.EncodeToString(raw(odd)), "", "sha512:" + odd},
		{"sha512:12EiyHyUDRq5M09DB8mMAdxC8LSaIM3fJ41ZuS00q2PQWsH0Df/aPS0y44Hwl3Bu7mzL95pZa/ssuz2DxjWuNQ", "",
			"sha512:d76122c87c940d1ab9334f4307c98c01dc42f0b49a20cddf278d59b92d34ab63d05ac1f40dffda3d2d32e381f097706eee6ccbf79a596bfb2cbb3d83c635ae35"},
	} {
		if sum, err := ParseDigest(c.in, c.algorithm); err != nil || sum.String() != c.want {
			t.Errorf("%q as %q: %s, %v", c.in, c.algorithm, sum, err)
		}
	}
	for _, c := range []struct{ in, algorithm, fails string }{
		{"", "", "empty"}, {"sha256:", "", "empty"}, {h256, "sha512", "512 bits, not 256"}, {h256, "sha384", "384 bits, not 256"}, {h512, "sha256", "256 bits, not 512"},
		{hMD5, "", "MD5"}, {hMD5, "sha256", "MD5"}, {hSHA1, "", "SHA-1"}, {"md5:" + hMD5, "", "MD5"}, {h256, "md5", "MD5"}, {std.EncodeToString(raw(hSHA1)), "", "SHA-1"},
		{"sha256:" + h256, "sha512", "labelled sha256"}, {"sha3:" + h256, "", "not known"}, {h256, "crc32", "not known"}, {"null", "", "24 bits"}, {"é", "", "neither"}, {h256[:63], "", "neither"},
		{strings.Repeat("a", 300), "", "300 characters"}, {std.EncodeToString(raw(h256))[:43] + "\n=", "", "neither"},
	} {
		sum, err := ParseDigest(c.in, c.algorithm)
		if err == nil || !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%q as %q: %s, %v", c.in, c.algorithm, sum, err)
		}
		var r *event.Remedied
		if c.fails == "MD5" && (!errors.As(err, &r) || r.Remedy == "") {
			t.Errorf("%q: nothing to do about it", c.in)
		}
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add([]byte(h256 + "  a\nSHA512 (b) = " + h512 + "\n# a: 1 bytes\n\\" + i256 + " *c\\n\n" + hMD5 + " d\n" + h256[:20] + " e"))
	f.Add([]byte("\ufeff" + h512 + "\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := ParseTable(data)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, name := range table.Names() {
			if seen[name] || name == "" {
				t.Errorf("name %q", name)
			}
			seen[name] = true
			sum, err := table.Sum(name)
			if err != nil {
				continue
			}
			if again, err := ParseSum(sum.String()); err != nil || again != sum {
				t.Errorf("%s: %v", sum, err)
			}
			if !bytes.Contains(bytes.ToLower(data), []byte(sum.Hex)) {
				t.Errorf("%s does not stand in the file", sum)
			}
		}
		if sum, err := table.Bare(); err == nil && len(table.Names()) > 0 {
			t.Errorf("%s is bare", sum)
		}
		_, _, _ = table.Only()
	})
}

func FuzzParseDigest(f *testing.F) {
	for _, s := range []string{h256, "sha512:" + h512, "sha512-" + base64.StdEncoding.EncodeToString([]byte(h512[:64])), "sha256:_-=="} {
		f.Add(s, "sha256")
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, s, algorithm string) {
		sum, err := ParseDigest(s, algorithm)
		if err != nil {
			return
		}
		if again, err := ParseSum(sum.String()); err != nil || again != sum || algorithm != "" && sum.Algorithm != strings.ToLower(algorithm) {
			t.Errorf("%q as %q: %s, %v", s, algorithm, sum, err)
		}
	})
}

func BenchmarkParseTable(b *testing.B) {
	var file bytes.Buffer
	for i := range 10_000 {
		fmt.Fprintf(&file, "%s *packages/package-%d.ipk\n", h256, i)
	}
	b.SetBytes(int64(file.Len()))
	for b.Loop() {
		if _, err := ParseTable(file.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}
