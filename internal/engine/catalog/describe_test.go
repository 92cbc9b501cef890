package catalog

import (
	"fmt"
	"strings"
	"testing"
)

// described is a row whose disk is downloaded.
const described = head + `[[flavor]]
id = "a"
name = "A"
home = "https://a.example.org"
level = "preview"
arch = ["x86_64", "arm64"]
redistribution = "free"
[flavor.versions]
listing = "https://a.example.org/pub/"
match = 'v(?P<version>\d+)'
eol = "https://eol.example.org/a.json"
[[flavor.release]]
version = "9"
words = { flavour = "old" }
[flavor.origin]
kind = "image"
format = "qcow2"
pack = "xz"
arch_names = { x86_64 = "amd64", arm64 = "arm64" }
words = { firmware = { x86_64 = "bios", arm64 = "uefi" }, flavour = "new" }
url = "https://a.example.org/pub/v{version}/{name}"
[[flavor.origin.find]]
listing = "https://a.example.org/pub/v{version}/"
match = 'a-{version}-(?P<build>\d{8})-{firmware}-{flavour}-{arch}\.qcow2\.xz'
[flavor.origin.checksum]
url = "{url}.sha256"
[flavor.origin.signature]
kind = "openpgp"
url = "{checksum}.asc"
keys = ["04B54C3CDCA79751B16BC6B5225629DF75B188BD"]
`

func TestDescriptions(t *testing.T) {
	c, err := Parse("d.toml", []byte(described))
	if err != nil {
		t.Fatal(err)
	}
	o := c.Flavors[0].Origin
	if text, ok := o.Words["flavour"].Get(ARM64); !ok || text != "new" {
		t.Errorf("%q, %v", text, ok)
	}
	if text, _ := o.Words["firmware"].Get(ARM64); text != "uefi" {
		t.Errorf("%q", text)
	}
	for _, x := range []struct {
		name, old, new, want string
	}{
		{"unknown name", "v{version}/{name}", "v{version}/{nane}", `30: flavor "a": origin: url: {nane} is not known here: write one of arch, build, firmware, flavour, name, version`},
		{"expression", `(?P<version>\d+)`, `(?P<version>\d+`, `19: flavor "a": versions: match: error parsing regexp: missing closing ): `},
		{"no expression", `match = 'v(?P<version>\d+)'`, ``, `17: flavor "a": versions: match: is missing: write a regular expression for the whole name`},
		{"two addresses", `listing = "https://a.example.org/pub/"`, "listing = \"https://a.example.org/pub/\"\njson = \"https://a.example.org/x\"", `17: flavor "a": versions: has 2 addresses: write one of listing`},
		{"http", `listing = "https://a.example.org/pub/"`, `listing = "http://a.example.org/pub/"`, `18: flavor "a": versions: listing: "http://a.example.org/pub/": write https://`},
		{"jq", `listing = "https://a.example.org/pub/v{version}/"`, `json = "https://a.example.org/pub/v{version}/"`, `33: flavor "a": origin: find 1: match: is for names, not for a JSON document: write jq`},
		{"no jq", `match = 'v(?P<version>\d+)'`, `jq = '.'`, `19: flavor "a": versions: jq: is for a JSON document: write match`},
		{"bad jq", "listing = \"https://a.example.org/pub/\"\nmatch = 'v(?P<version>\\d+)'", "json = \"https://a.example.org/pub/\"\njq = '.[] | {version: $release}'", `19: flavor "a": versions: jq: variable not defined: $release: write a jq program`},
		{"order", "match = 'v", "order = \"newest\"\nmatch = 'v", `19: flavor "a": versions: order: "newest": write "natural" or "date"`},
		{"group", "(?P<build>", "(?P<arch>", `33: flavor "a": origin: find 1: match: the group "arch" has the name of something that is known already: choose another`},
		{"kept", "eol =", "keep = 11\neol =", `20: flavor "a": versions: keep: 11: write how many of the newest releases count, from 1 to 10`},
		{"cycle", "eol = \"https://eol.example.org/a.json\"", "cycle = \"{x}\"", `17: flavor "a": versions: eol: is missing: write the address of the document`},
		{"per", "eol =", "per = \"major\"\neol =", `20: flavor "a": versions: per: "major" is not known: write one of name, version`},
		{"format", `"qcow2"`, `"iso"`, `26: flavor "a": origin: format: "iso": write what the file is once it is unpacked: "qcow2" or "raw"`},
		{"pack", `"xz"`, `"lzma"`, `27: flavor "a": origin: pack: "lzma": write "gz", "xz", "bz2" or "zst"`},
		{"word", `arm64 = "uefi"`, `armhf = "uefi"`, `29: flavor "a": origin: words: firmware: armhf: "armhf" is not an architecture of the chart: write x86_64 or arm64` + "\n" +
			`29: flavor "a": origin: words: firmware: says nothing for arm64: write a text for each architecture, or one for all`},
		{"word's text", `"uefi"`, `"../uefi"`, `29: flavor "a": origin: words: firmware: arm64: "../uefi": write a part of an address`},
		{"word's name", `flavour = "old"`, `version = "old"`, `23: flavor "a": release "9": words: version: is what the program calls something itself: choose another name`},
		{"no checksum", "[flavor.origin.checksum]\nurl = \"{url}.sha256\"\n", "", `24: flavor "a": origin: checksum: is missing: write a table [flavor.origin.checksum]`},
		{"no signature", described[strings.Index(described, "[flavor.origin.signature]"):], "", `24: flavor "a": origin: signature: is missing: write a table [flavor.origin.signature], or unsigned = `},
		{"kind of signature", `kind = "openpgp"`, `kind = "gpg"`, `37: flavor "a": origin: signature: kind: "gpg": write "openpgp", "minisign", "signify" or "rsa"`},
		{"of", `kind = "openpgp"`, "kind = \"openpgp\"\nof = \"image\"", `38: flavor "a": origin: signature: of: "image": write "checksum", "file" (as it is downloaded) or "disk" (unpacked)`},
		{"no keys", `keys = ["04B54C3CDCA79751B16BC6B5225629DF75B188BD"]`, "", `36: flavor "a": origin: signature: keys: is missing: write the fingerprints`},
		{"short key", `"04B54C3CDCA79751B16BC6B5225629DF75B188BD"`, `"75B188BD"`, `39: flavor "a": origin: signature: keys: "75B188BD": write a key's full fingerprint`},
		{"licence", `redistribution = "free"`, `redistribution = "restricted"`, `10: flavor "a": licence: is missing: write the address of the document that makes redistribution restricted` + "\n" +
			`10: flavor "a": because: is missing: write in a few words why redistribution is restricted`},
		{"redistribution", `redistribution = "free"`, `redistribution = "yes"`, `16: flavor "a": redistribution: "yes" is none of its values: write "free"`},
		{"decision", `redistribution = "free"`, "redistribution = \"free\"\ndecision = \"x\"", `17: flavor "a": decision: is for rows with redistribution = "unclear": leave it out`},
		{"pin and skip", `version = "9"`, "version = \"9\"\npin = true\nskip = \"x\"", `23: flavor "a": release "9": pin: it cannot be pinned and skipped: leave one of them out`},
		{"end of life", `version = "9"`, "version = \"9\"\neol = \"2026-13-01\"", `23: flavor "a": release "9": eol: "2026-13-01" is not a day: write YYYY-MM-DD`},
		{"truth", `version = "9"`, "version = \"9\"\npin = \"yes\"", `23: flavor "a": release "9": pin: is a text: write true or false, without quotes`},
		{"nothing upstream", described[strings.Index(described, "kind = \"image\""):], "kind = \"none\"", `24: flavor "a": origin: reason: is missing: write why there is nothing to take`},
		{"mirror", "[base]", "mirror = [{from = \"a\", to = \"https://b.example.org/\"}]\n[base]", `8: project: mirror 1: from: "a": write the beginning of addresses, with https:// or http://`},
		{"long expression", `v(?P<version>\d+)`, `(?P<version>` + strings.Repeat("a", 600) + `)`, `19: flavor "a": versions: match: has 613 characters: write at most 500`},
		{"heavy expression", `v(?P<version>\d+)`, `(?P<version>((a{100}){100}){100})`, `19: flavor "a": versions: match: `},
	} {
		text := strings.Replace(described, x.old, x.new, 1)
		if text == described {
			t.Errorf("%s: the text has no %q", x.name, x.old)
			continue
		}
		_, err := Parse("d.toml", []byte(text))
		for _, want := range strings.Split(x.want, "\n") {
			if !strings.Contains(fmt.Sprint(err), "d.toml:"+want) {
				t.Errorf("%s: no %q in:\n%v", x.name, want, err)
			}
		}
	}
}

func TestTemplates(t *testing.T) {
	known := map[string]string{"version": "1.0", "arch": "x+y"}
	if got, err := Expand("a/{version}/{arch}{3}{A}", known); got != "a/1.0/x+y{3}{A}" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Expand("{nobody}", known); err == nil || !strings.Contains(err.Error(), "{nobody}") {
		t.Error(err)
	}
	re, err := Pattern(`d-{version}-(?P<build>\d{2,3})-{arch}`, known)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"d-1.0-123-x+y": true, "d-1x0-123-x+y": false, "d-1.0-123-xxy": false, "d-1.0-1-x+y": false, "-d-1.0-123-x+y": false, "d-1.0-123-x+y\n": false} {
		if re.MatchString(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
	if _, err := Compile("$a + $b", []string{"a", "b", "a"}); err != nil {
		t.Error(err)
	}
	if _, err := Compile("env", nil); err != nil {
		t.Error(err) // it is empty: see upstream's tests
	}
}
