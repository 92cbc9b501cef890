package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

const root = "../../../"

func TestTheCatalogueIsValidAndHoldsTheChart(t *testing.T) {
	c, err := Load(root + "distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	// The chart as the project published it: levels and architectures by row.
	chart, err := os.ReadFile("testdata/chart.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| \[(.+?)\] *\|(.*)\|$`)
	link := regexp.MustCompile(`(?m)^\[(.+)\]:(\S+)$`)
	homes := map[string]string{}
	for _, m := range link.FindAllStringSubmatch(string(chart), -1) {
		homes[m[1]] = m[2]
	}
	rows := row.FindAllStringSubmatch(string(chart), -1)
	c.Flavors = slices.DeleteFunc(c.Flavors, func(f Flavor) bool { return f.ID == "freebsd" }) // came later
	if len(rows) != 19 || len(c.Flavors) != 19 {
		t.Fatalf("%d rows, %d flavors", len(rows), len(c.Flavors))
	}
	for i, m := range rows {
		f := c.Flavors[i]
		cells := strings.Split(m[2], "|")
		x := func(i int) bool { return strings.EqualFold(strings.TrimSpace(cells[i]), "x") }
		var level Level
		for i, l := range []Level{Stable, Proposed, Preview, Planned} {
			if x(i) {
				level = l
			}
		}
		var arch []Arch
		for i, a := range Arches {
			if x(5 + i) {
				arch = append(arch, a)
			}
		}
		if f.Name != m[1] || f.Home != homes[m[1]] || f.Level != level || fmt.Sprint(f.Arch) != fmt.Sprint(arch) {
			t.Errorf("row %d: chart %s %s %s %v, catalogue %s %s %s %v", i, m[1], homes[m[1]], level, arch, f.Name, f.Home, f.Level, f.Arch)
		}
	}
	if c.Line("debian") == 0 || c.Line("nobody") != 0 {
		t.Errorf("debian begins in line %d", c.Line("debian"))
	}
}

const head = `[project]
name = "P"
source = "https://example.org/p"
registry = "dir:images"
public = "registry.example.org/p"
packages = ["git", "vim"]
disk_size = "10GiB"
[base]
image = "registry.example.org/base:1"
`

const row = `[[flavor]]
id = "a"
name = "A"
home = "https://a.example.org"
level = "preview"
arch = ["x86_64"]
redistribution = "free"
`

const origin = `[[flavor.release]]
version = "1"
codename = "one"
signed_by = ["04B54C3CDCA79751B16BC6B5225629DF75B188BD"]
[flavor.origin]
kind = "packages"
format = "deb"
archives = ["http://a.example.org/a {codename} main"]
arch_names = {x86_64 = "amd64"}
[flavor.origin.boot.x86_64]
bios = "i386-pc"
kernel = "/vmlinuz"
initrd = "/initrd.img"
firmware = ["bios"]
memory = 512
`

// Line numbers in these cases count from head's first line: row begins in line 10, origin in line 17.
func TestMistakes(t *testing.T) {
	full := head + row + origin
	if _, err := Parse("d.toml", []byte(full)); err != nil {
		t.Fatalf("the text that the mistakes are put into: %v", err)
	}
	// with puts lines into the origin, from line 26 on; boot puts them into its boot table, from line 32 on.
	with := func(lines string) [2]string {
		return [2]string{"[flavor.origin.boot.x86_64]", lines + "\n[flavor.origin.boot.x86_64]"}
	}
	boot := func(lines string) [2]string { return [2]string{"memory = 512", "memory = 512\n" + lines} }
	file := func(lines string) [2]string { return with("[[flavor.origin.file]]\n" + lines) }
	after := func(more string) [2]string { return [2]string{"memory = 512\n", "memory = 512\n" + more} }
	const release, org, bt = `flavor "a": release "1"`, `flavor "a": origin`, `flavor "a": origin: boot: x86_64`

	for _, c := range []struct {
		name   string
		change [2]string // text, what it becomes
		want   string    // all problems, without the file's name: "LINE: …"
	}{
		// The file.
		{"open text", [2]string{`id = "a"`, `id = "a`}, `11: is not TOML here: strings cannot contain newlines`},
		{"key twice", [2]string{`id = "a"`, "id = \"a\"\nid = \"b\""}, `12: is not TOML here: Key 'flavor.id' has already been defined.`},
		{"table twice", after("[project]\n"), `32: is not TOML here: Key 'project' has already been defined.`},
		{"not UTF-8", [2]string{`"A"`, "\"A\xff\""}, `12: is not UTF-8: save the file as UTF-8`},
		{"byte order mark", [2]string{"[project]", "\ufeff[project]"}, `1: begins with a byte order mark: save the file as UTF-8 without one`},
		{"bidi in a comment", [2]string{`level =`, "# \u202e evil\nlevel ="}, `14: has the invisible character U+202E: leave it out`},
		{"inline table over lines", [2]string{`{x86_64 = "amd64"}`, "{\nx86_64 = \"amd64\"}"}, `25: is not TOML 1.0 here: got line break, want name or string: write KEY = VALUE, with texts in quotes and an inline table on one line`},
		{"deep lists", with("run = " + strings.Repeat("[", 40)), `26: is nested deeper than 32 levels: see the other rows for the form`},
		{"deep key", with(strings.Repeat("a.", 40) + "a = 1"), `26: has a key of more than 32 parts: see the other rows for the form`},

		// Keys.
		{"unknown key", [2]string{`home =`, `hoem =`}, `10: flavor "a": home: is missing: write the address of a page, beginning with https://
13: flavor "a": unknown key "hoem": did you mean "home"?`},
		{"unknown key, far", boot("qqqqqqqq = 1"), `32: ` + bt + `: unknown key "qqqqqqqq": write one of packages, bios, efi, efi_grub, kernel, initrd, cmdline, firmware, memory`},
		{"unknown key, of another table", boot(`docs = "https://a.example.org"`), `32: ` + bt + `: unknown key "docs": it belongs below [[flavor]]`},
		{"unknown table", after("[projects]\nx = 1\n"), `32: unknown key "projects": did you mean "project"?`},
		{"unknown key like an index", after("[\"flavor[0]\"]\n"), `32: unknown key "flavor[0]": did you mean "flavor"?`},
		{"unknown key with an escape sequence", boot(`"\u001b[31m" = 1`), `32: ` + bt + `: unknown key "\x1b[31m": write one of packages, bios, efi, efi_grub, kernel, initrd, cmdline, firmware, memory`},
		{"unknown key in an inline table", with(`file = [{path = "/x", mod = "0644"}]`), `26: ` + org + `: file "/x": unknown key "mod": did you mean "mode"?`},
		{"escape sequence in a free key", with("packages = {\"\\u001b[31m\" = \"x\"}"), `26: ` + org + `: packages: "\x1b[31m": is none of the project's packages: write one of git, vim`},

		// Types, several at once.
		{"wrong types", [2]string{row, strings.NewReplacer(`"preview"`, `3`, `["x86_64"]`, `"x86_64"`, `"A"`, `["A"]`, `"https://a.example.org"`, `2026-11-23`).Replace(row) + "user = true\n"},
			`12: flavor "a": name: is a list: write a text in quotes
13: flavor "a": home: is a date or time: write a text in quotes
14: flavor "a": level: is the number 3: write a text in quotes
15: flavor "a": arch: is a text: write a list of texts in square brackets
17: flavor "a": user: is true: write a text in quotes`},
		{"wrong type in a list", [2]string{`["x86_64"]`, "[\n\"x86_64\",\n1.5,\n]"}, `17: flavor "a": arch: is a number with a fraction: write a text in quotes`},
		{"a text for a number", [2]string{`memory = 512`, `memory = "512"`}, `31: ` + bt + `: memory: is a text: write a whole number without quotes, such as 1024`},
		{"a huge number", [2]string{`memory = 512`, `memory = 9000000000`}, `31: ` + bt + `: memory: is the number 9000000000: write a whole number without quotes, such as 1024`},
		{"double brackets", [2]string{"[base]", "[[base]]"}, `8: base: is several tables: write a table that begins with [base]`},
		{"a text for a map", [2]string{`arch_names = {x86_64 = "amd64"}`, `arch_names = "amd64"`}, `25: ` + org + `: arch_names: is a text: write a table, such as arch_names = { NAME = VALUE }`},
		{"a text in a map", [2]string{`{x86_64 = "amd64"}`, `{x86_64 = ["amd64"]}`}, `25: ` + org + `: arch_names: x86_64: is a list: write a text in quotes`},
		{"single brackets", [2]string{"[[flavor.release]]", "[flavor.release]"}, `17: flavor "a": release: is a table: write a table for each, beginning with [[flavor.release]]
21: flavor "a": origin: there is no release to build: write a table [flavor.versions] that finds them, or at least one [[flavor.release]]`},

		// Project and base.
		{"no project", [2]string{head[:strings.Index(head, "[base]")], ""}, `0: project: name: is missing: write a name
0: project: source: is missing: write the address of a page, beginning with https://
0: project: registry: is missing: write HOST/PATH, or dir:PATH for a folder
0: project: public: is missing: write HOST/PATH, such as quay.io/project
0: project: disk_size: is missing: write the size of the root disk, such as 10GiB`},
		{"disk size", [2]string{`10GiB`, `10 GB`}, `7: project: disk_size: "10 GB" is not a size: write a whole number and MiB, GiB or TiB, such as 10GiB`},
		{"small disk", [2]string{`10GiB`, `1023MiB`}, `7: project: disk_size: 1023MiB: write a size from 1GiB to 1TiB`},
		{"layer", [2]string{`disk_size = "10GiB"`, "disk_size = \"10GiB\"\nlayer = \"xz\""}, `8: project: layer: "xz": write "none", "gzip" or "zstd"`},
		{"absurd disk", [2]string{`10GiB`, `2000TiB`}, `7: project: disk_size: 2000TiB: write a size from 1GiB to 1TiB`},
		{"a disk that is too much for a number", [2]string{`10GiB`, `16777217TiB`}, `7: project: disk_size: "16777217TiB" is more than any disk holds: write a size such as 10GiB`},
		{"registry", [2]string{`dir:images`, `https://x/y`}, `4: project: registry: "https://x/y": write HOST/PATH, such as quay.io/project, or dir:PATH for a folder`},
		{"registry without host", [2]string{`dir:images`, `images/kmi`}, `4: project: registry: "images/kmi": write HOST/PATH, such as quay.io/project, or dir:PATH for a folder`},
		{"public without path", [2]string{`registry.example.org/p`, `registry.example.org`}, `5: project: public: "registry.example.org" has no path: write HOST/PATH, such as quay.io/project`},
		{"project package", [2]string{`["git", "vim"]`, "[\n\"git\",\n\"Vim\",\n\"git\"]"}, `8: project: packages: "Vim": write a package name of lower-case letters, digits and + . - in between
9: project: packages: "git" is there twice: write it once`},
		{"base image", [2]string{`registry.example.org/base:1`, `registry.example.org/base:1 x`}, `9: base: image: "registry.example.org/base:1 x": write the reference of an image, such as quay.io/project/base:1`},
		{"base from nowhere", [2]string{"[[flavor]]", "[base.built]\nflavor = \"z\"\nrelease = \"9\"\npackages = [\"-x\"]\nlinks = {\"bin/sh\" = \"../x\"}\n[[flavor]]"},
			`10: base: built: there is no release z:9: write a flavor and a release of this catalogue
13: base: built: packages: "-x": write a package name of lower-case letters, digits and + . - in between
14: base: built: links: bin/sh: "bin/sh": write an absolute path of letters, digits and _ + . @ : ~ -, without ..
14: base: built: links: bin/sh: "../x": write what the link points to, without ..`},

		// Flavors.
		{"no flavor", [2]string{row + origin, ""}, `0: flavor: there is none: write at least one table [[flavor]]`},
		{"nothing in a flavor", after("[[flavor]]\n"), `32: flavor 2: id: is missing: write lower-case letters, digits and single hyphens, such as my-system
32: flavor 2: name: is missing: write a name
32: flavor 2: home: is missing: write the address of a page, beginning with https://
32: flavor 2: level: is missing: write one of planned, preview, proposed, stable
32: flavor 2: arch: is missing: write a list of x86_64, arm64
32: flavor 2: redistribution: is missing: write "free" if anybody may pass the image on, "restricted" if its licence forbids that, "unclear" if neither is certain`},
		{"level", [2]string{`"preview"`, `"previeww"`}, `14: flavor "a": level: "previeww" is not a level: write one of planned, preview, proposed, stable`},
		{"no arch", [2]string{`arch = ["x86_64"]`, `arch = []`}, `15: flavor "a": arch: is missing: write a list of x86_64, arm64`},
		{"unknown arch", [2]string{`arch = ["x86_64"]`, "arch = [\"x86_64\",\n\"aarch64\"]"}, `16: flavor "a": arch: "aarch64" is not an architecture of the chart: write arm64`},
		{"arch twice", [2]string{`arch = ["x86_64"]`, `arch = ["x86_64", "x86_64"]`}, `15: flavor "a": arch: "x86_64" is there twice: write it once`},
		{"id twice", after(replace(t, row, `"A"`, `"B"`)), `33: flavor "a": id: is there already, in line 11: choose another, or make one flavor of the two`},
		{"name twice", after(strings.NewReplacer(`"a"`, `"b"`, `"A"`, `"a"`).Replace(row)), `34: flavor "b": name: "a" is there already, in line 12: the chart's links need one name a row`},
		{"dots in id", [2]string{`id = "a"`, `id = "../a"`}, `11: flavor "../a": id: "../a": write lower-case letters, digits and single hyphens, such as my-system`},
		{"slash in id", [2]string{`id = "a"`, `id = "a/b"`}, `11: flavor "a/b": id: "a/b": write lower-case letters, digits and single hyphens, such as my-system`},
		{"upper case in id", [2]string{`id = "a"`, `id = "CentOS"`}, `11: flavor "CentOS": id: "CentOS": write lower-case letters, digits and single hyphens, such as my-system`},
		{"escape sequence in id", [2]string{`id = "a"`, `id = "a\u001b[31m"`}, `11: flavor "a\x1b[31m": id: "a\x1b[31m": write lower-case letters, digits and single hyphens, such as my-system`},
		{"long id", [2]string{`id = "a"`, `id = "` + strings.Repeat("a", 65) + `"`}, `11: flavor "` + strings.Repeat("a", 65) + `": id: has 65 characters: write at most 64`},
		{"bidi in name", [2]string{`"A"`, `"A\u202e"`}, `12: flavor "a": name: "A\u202e" has characters that a table cannot hold: write letters, digits, spaces and . + - _ / & ' ! ( )`},
		{"line in name", [2]string{`"A"`, `"A\nB"`}, `12: flavor "a": name: "A\nB" has characters that a table cannot hold: write letters, digits, spaces and . + - _ / & ' ! ( )`},
		{"pipe in name", [2]string{`"A"`, `"A | B"`}, `12: flavor "a": name: "A | B" has characters that a table cannot hold: write letters, digits, spaces and . + - _ / & ' ! ( )`},
		{"spaces in name", [2]string{`"A"`, `"A  B"`}, `12: flavor "a": name: "A  B": write single spaces, and none at the ends`},
		{"home that is no address", [2]string{`https://a.example.org`, `javascript:alert(1)`}, `13: flavor "a": home: "javascript:alert(1)" is not an address: write one that begins with https:// or http://, other characters percent-encoded, without ..`},
		{"other addresses", [2]string{row, row + "docs = \"/docs\"\ndownload = \"https://a.example.org/a b\"\nlicence = \"https://a.example.org/%0a\"\n"},
			`17: flavor "a": docs: "/docs" is not an address: write one that begins with https:// or http://, other characters percent-encoded, without ..
18: flavor "a": download: "https://a.example.org/a b" is not an address: write one that begins with https:// or http://, other characters percent-encoded, without ..
19: flavor "a": licence: "https://a.example.org/%0a" is not an address: write one that begins with https:// or http://, other characters percent-encoded, without ..`},
		{"user", [2]string{row, row + "user = \"a b\"\n"}, `17: flavor "a": user: "a b": write a login name of lower-case letters, digits, _ and -`},
		{"preference", [2]string{row, row + "preference = {amd64 = \"linux\", x86_64 = \"a b\"}\n"}, `17: flavor "a": preference: amd64: "amd64" is not an architecture of the chart: write x86_64
17: flavor "a": preference: x86_64: "a b": write a name of KubeVirt's common-instancetypes, such as linux.efi`},

		// Releases.
		{"version", [2]string{`version = "1"`, `version = "1/../2"`}, `18: flavor "a": release "1/../2": version: "1/../2": write lower-case letters, digits and single . _ - between them, such as 24.04`},
		{"version in upper case", [2]string{`version = "1"`, `version = "1A"`}, `18: flavor "a": release "1A": version: "1A": write lower-case letters, digits and single . _ - between them, such as 24.04`},
		{"version that moves", [2]string{`version = "1"`, `version = "latest"`}, `18: flavor "a": release "latest": version: "latest" is a tag that moves: write what upstream calls the release, or "rolling"`},
		{"version twice", [2]string{"[flavor.origin]", "[[flavor.release]]\nversion = \"1\"\ncodename = \"one\"\nsigned_by = [\"04B54C3CDCA79751B16BC6B5225629DF75B188BD\"]\n[flavor.origin]"},
			`22: ` + release + `: version: "1" is there twice, first in line 18: write each release once
23: ` + release + `: codename: "one" is there twice, first in line 19: write each release once`},
		{"codename", [2]string{`"one"`, `"one two"`}, `19: ` + release + `: codename: "one two": write lower-case letters and digits`},
		{"no codename", [2]string{`codename = "one"`, ``}, `17: ` + release + `: codename: is missing: write it, the archives are named by it`},
		{"fingerprint in lower case", [2]string{`04B54C3C`, `04b54c3c`}, `20: ` + release + `: signed_by: "04b54c3cDCA79751B16BC6B5225629DF75B188BD": write 04B54C3CDCA79751B16BC6B5225629DF75B188BD`},
		{"short fingerprint", [2]string{`["04B54C3CDCA79751B16BC6B5225629DF75B188BD"]`, "[\n\"04B54C3CDCA79751B16BC6B5225629DF75B188BD\",\n\"75B188BD\"]"}, `22: ` + release + `: signed_by: "75B188BD": write a key's full fingerprint, 40 upper-case hexadecimal digits (minisign and signify: the 16 of its number)`},
		{"no fingerprint", [2]string{`signed_by = ["04B54C3CDCA79751B16BC6B5225629DF75B188BD"]`, ``}, `17: ` + release + `: signed_by: is missing: write the fingerprints of the keys that sign the archive`},

		// The origin.
		{"no release", [2]string{origin[:strings.Index(origin, "[flavor.origin]")], ""}, `17: flavor "a": origin: there is no release to build: write a table [flavor.versions] that finds them, or at least one [[flavor.release]]`},
		{"no kind", [2]string{`kind = "packages"`, ``}, `21: ` + org + `: kind: is missing: write "image" for a disk to download, "packages" for one built from a package archive, "installer", or "none" where upstream publishes nothing`},
		{"kind", [2]string{`kind = "packages"`, `kind = "package"`}, `22: ` + org + `: kind: "package" is not a kind of origin: write "image" for a disk to download, "packages" for one built from a package archive, "installer", or "none" where upstream publishes nothing`},
		{"format", [2]string{`format = "deb"`, `format = "rpm"`}, `23: ` + org + `: format: "rpm" is not supported yet: write "deb", or leave [flavor.origin] out for now`},
		{"no archives", [2]string{`archives = ["http://a.example.org/a {codename} main"]`, ``}, `21: ` + org + `: archives: is missing: write a list of "URL SUITE COMPONENT…"`},
		{"archive without component", [2]string{`{codename} main`, `{codename}`}, `24: ` + org + `: archives: "http://a.example.org/a {codename}": write "URL SUITE COMPONENT…"; {codename} stands for the release's`},
		{"archive with option", [2]string{`"http://a.example.org/a {`, `"[trusted=yes] http://a.example.org/a {`}, `24: ` + org + `: archives: "[trusted=yes] http://a.example.org/a {codename} main": write "URL SUITE COMPONENT…"; {codename} stands for the release's`},
		{"archive of files", [2]string{`http://a.example.org/a`, `file:///etc`}, `24: ` + org + `: archives: "file:///etc" is not an address: write one that begins with https:// or http://, other characters percent-encoded, without ..`},
		{"second line in an archive", [2]string{`{codename} main`, `{codename} main\ndeb http://b.example.org/ x main`}, `24: ` + org + `: archives: "http://a.example.org/a {codename} main\ndeb http://b.example.org/ x main": write "URL SUITE COMPONENT…"; {codename} stands for the release's`},
		{"no spelling", [2]string{`arch_names = {x86_64 = "amd64"}`, ``}, `21: ` + org + `: arch_names: x86_64: is missing: write how upstream spells the architecture, or "" where it offers nothing for it`},
		{"spelling", [2]string{`"amd64"`, `"amd64 i386"`}, `25: ` + org + `: arch_names: x86_64: "amd64 i386": write how upstream spells the architecture, or "" where it offers nothing for it`},
		{"arch of a spelling", [2]string{`{x86_64 = "amd64"}`, `{x86_64 = "amd64", riscv = "riscv64"}`}, `25: ` + org + `: arch_names: riscv: "riscv" is not an architecture of the chart: write x86_64 or arm64`},
		{"packages that are arguments", with("system = [\n\"a-{arch}\",\n\"--allow-unauthenticated\",\n\"init-\",\n\"\",\n]"), `28: ` + org + `: system: "--allow-unauthenticated": write a package name of lower-case letters, digits and + . - in between; {arch} stands for the archive's spelling
29: ` + org + `: system: "init-": write a package name of lower-case letters, digits and + . - in between; {arch} stands for the archive's spelling
30: ` + org + `: system: holds an empty text: write a package name of lower-case letters, digits and + . - in between; {arch} stands for the archive's spelling`},
		{"translation", with(`packages = {emacs = "emacs", vim = "v m", git = ""}`), `26: ` + org + `: packages: emacs: is none of the project's packages: write one of git, vim
26: ` + org + `: packages: vim: "v m": write a package name of lower-case letters, digits and + . - in between, or "" to leave it out`},
		{"sources", with("sources = [\n\"deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://a.example.org/a {codename} main\",\n\"deb [trusted=yes] http://a.example.org/a {codename} main\",\n\"http://a.example.org/a {codename} main\",\n]"),
			`28: ` + org + `: sources: "deb [trusted=yes] http://a.example.org/a {codename} main": write "deb URL SUITE COMPONENT…", with no other options than [arch=…] and [signed-by=…]; {codename} stands for the release's
29: ` + org + `: sources: "http://a.example.org/a {codename} main": write "deb URL SUITE COMPONENT…", with no other options than [arch=…] and [signed-by=…]`},
		{"cmdline", with(`cmdline = "quiet; $(x)"`), `26: ` + org + `: cmdline: "quiet; $(x)": write kernel arguments without quotes or characters that a shell reads`},
		{"run", with(`run = ["", "echo \u202e"]`), `26: ` + org + `: run: holds an empty command: write a line of shell, or leave it out
26: ` + org + `: run: has the invisible character U+202E: leave it out`},
		{"licences", with(`licences = ["/usr/share/doc/*/copyright", "/usr/../etc/shadow", "/a b"]`), `26: ` + org + `: licences: "/usr/../etc/shadow": write an absolute path, with * where any name fits, without ..
26: ` + org + `: licences: "/a b": write an absolute path, with * where any name fits, without ..`},
		{"file path", file("path = \"/etc/../../x\""), `27: ` + org + `: file "/etc/../../x": path: "/etc/../../x": write an absolute path of letters, digits and _ + . @ : ~ -, without ..`},
		{"file path, relative", file("path = \"etc/x\""), `27: ` + org + `: file "etc/x": path: "etc/x": write an absolute path of letters, digits and _ + . @ : ~ -, without ..`},
		{"no file path", file("text = \"\""), `26: ` + org + `: file 1: path: is missing: write an absolute path`},
		{"file mode", file("path = \"/x\"\nmode = \"rwx\""), `28: ` + org + `: file "/x": mode: "rwx": write four octal digits that begin with 0, such as 0644`},
		{"file mode with set-user-id", file("path = \"/x\"\nmode = \"4755\""), `28: ` + org + `: file "/x": mode: "4755": write four octal digits that begin with 0, such as 0644`},
		{"file text", file("path = \"/x\"\ntext = \"a\\u0000\""), `28: ` + org + `: file "/x": text: has the invisible character U+0000: leave it out`},
		{"file twice, and one below", file("path = \"/x\"\n[[flavor.origin.file]]\npath = \"/x\"\n[[flavor.origin.file]]\npath = \"/x/y\""),
			`29: ` + org + `: file "/x": path: is there twice, first in line 27: write each file once
31: ` + org + `: file "/x/y": path: is below "/x", which is a file in line 27: choose another path`},

		// Boot.
		{"boot of an unknown arch", [2]string{"boot.x86_64", "boot.aarch64"}, `26: ` + org + `: boot: aarch64: "aarch64" is not an architecture of the chart: write arm64`},
		{"bios", [2]string{`"i386-pc"`, `"i386-pc; x"`}, `27: ` + bt + `: bios: "i386-pc; x": write a GRUB platform, such as i386-pc`},
		{"efi", boot("efi_grub = \"/EFI/x\"\n[flavor.origin.boot.x86_64.efi]\n\"../x\" = \"/y\"\n\"EFI/a\" = \"y\"\n\"efi/A\" = \"/y\""), `32: ` + bt + `: efi_grub: "/EFI/x": write a path inside the partition, without a leading / and without ..
34: ` + bt + `: efi: ../x: "../x": write a path inside the partition, without a leading / and without ..
35: ` + bt + `: efi: EFI/a: "y": write an absolute path of letters, digits and _ + . @ : ~ -, without ..
36: ` + bt + `: efi: efi/A: is there twice, but for its case, which the partition does not tell apart: write it once`},
		{"kernel", [2]string{`"/vmlinuz"`, `"vmlinuz"`}, `28: ` + bt + `: kernel: "vmlinuz": write an absolute path of letters, digits and _ + . @ : ~ -, without ..`},
		{"no firmware", [2]string{`firmware = ["bios"]`, ``}, `26: ` + bt + `: firmware: is missing: write a list of "uefi", "bios"`},
		{"firmware", [2]string{`["bios"]`, `["uefi", "bios", "bios", "coreboot"]`}, `30: ` + bt + `: firmware: "uefi": no boot loader is described for it: write efi = { … }, or leave it out here
30: ` + bt + `: firmware: "bios" is there twice: write it once
30: ` + bt + `: firmware: "coreboot": write "uefi" or "bios"`},
		{"memory", [2]string{`512`, `5`}, `31: ` + bt + `: memory: 5: write the MiB of the test machine, from 64 to 65536`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("d.toml", []byte(replace(t, full, c.change[0], c.change[1])))
			var p Problems
			if err != nil && !errors.As(err, &p) {
				t.Fatalf("%T: %v", err, err)
			}
			var got []string
			for _, one := range p {
				s := one.String()
				if one.Line == 0 {
					s = "d.toml:0" + strings.TrimPrefix(s, "d.toml")
				}
				got = append(got, strings.TrimPrefix(s, "d.toml:"))
			}
			if s := strings.Join(got, "\n"); s != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", s, c.want)
			}
		})
	}
}

func replace(t *testing.T, s, old, new string) string {
	t.Helper()
	if !strings.Contains(s, old) {
		t.Fatalf("%q is not there", old)
	}
	return strings.Replace(s, old, new, 1)
}

// Mistakes of every sort are told together, in the order of their lines, and counted.
func TestAllMistakesAtOnceInOrder(t *testing.T) {
	_, err := Parse("d.toml", []byte(strings.NewReplacer(`"preview"`, `"beta"`, `10GiB`, `x`, `home =`, `hom =`, `512`, `"512"`).Replace(head+row+origin)))
	if want := `d.toml:7: project: disk_size: "x" is not a size: write a whole number and MiB, GiB or TiB, such as 10GiB
d.toml:10: flavor "a": home: is missing: write the address of a page, beginning with https://
d.toml:13: flavor "a": unknown key "hom": did you mean "home"?
d.toml:14: flavor "a": level: "beta" is not a level: write one of planned, preview, proposed, stable
d.toml:31: flavor "a": origin: boot: x86_64: memory: is a text: write a whole number without quotes, such as 1024
5 mistakes`; fmt.Sprint(err) != want {
		t.Errorf("%v", err)
	}
	_, err = Parse("d.toml", []byte(head+strings.Repeat("[[flavor]]\n", 1000)))
	if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != maxTold+2 || lines[maxTold] != "… and 900 more" || lines[maxTold+1] != "1000 mistakes or more" {
		t.Errorf("%d lines, near the last: %s", len(lines), lines[len(lines)-2])
	}
}

// The problems as --output json has them.
func TestProblemsAsJSON(t *testing.T) {
	_, err := Parse("d.toml", []byte(strings.Replace(head+row, `"preview"`, `"beta"`, 1)))
	data, jerr := json.Marshal(err)
	if jerr != nil {
		t.Fatal(jerr)
	}
	if want := `[{"file":"d.toml","line":14,"key":"flavor \"a\": level","message":"\"beta\" is not a level: write one of planned, preview, proposed, stable"}]`; string(data) != want {
		t.Errorf("%s", data)
	}
}

// What a stranger may send is refused in no time and little memory.
func TestHostileFilesAreCheap(t *testing.T) {
	for name, text := range map[string]string{
		"dotted key":              strings.Repeat("a.", 300000) + "a = 1",
		"dotted heading":          "[" + strings.Repeat("a.", 300000) + "a]",
		"quoted parts":            strings.Repeat(`"".`, 300000) + `"" = 1`,
		"numbers in a key":        strings.Repeat("1.", 300000) + "1 = 1",
		"lists":                   "a = " + strings.Repeat("[", 1<<20-10),
		"inline tables":           "a = " + strings.Repeat("{a=", 300000),
		"open inline table":       "a = " + strings.Repeat("{a=", 100000) + "\"",
		"brackets":                strings.Repeat("[", 1<<20-10),
		"dots that no lexer sees": "a = \"" + strings.Repeat("a.", 300000),
		"headings":                strings.Repeat("[[flavor]]\n", 95000),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			if _, err := Parse("d.toml", []byte(text)); err == nil {
				t.Error("accepted")
			} else if n := len(err.Error()); n > 100<<10 {
				t.Errorf("%d bytes of message", n)
			}
			runtime.ReadMemStats(&after)
			t.Logf("%v, %d MiB", time.Since(began), (after.TotalAlloc-before.TotalAlloc)>>20)
			if d := time.Since(began); d > 20*time.Second {
				t.Errorf("took %v", d)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<30 {
				t.Errorf("took %d MiB", n>>20)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"1MiB": 1 << 20, "10GiB": 10 << 30, "1TiB": 1 << 40, "": 0, "GiB": 0, "10": 0, "10G": 0, "-1GiB": 0, "+1GiB": 0, "1.5GiB": 0,
		" 1GiB": 0, "8388608TiB": 0, "99999999999999999999GiB": 0} {
		n, err := ParseSize(text)
		if n != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}

func TestCheckRegistry(t *testing.T) {
	for text, good := range map[string]bool{"quay.io/p": true, "127.0.0.1:5000": true, "localhost/a/b": true, "localhost:5000/a": true, "dir:images": true, "dir:/a b/ü": true,
		"": false, "dir:": false, "dir:a\x1b": false, "images": false, "a/b": false, "quay.io/P": false, "quay.io/p/": false, "quay.io/../p": false, "https://quay.io/p": false,
		"quay.io/p:1": false, "quay.io/p@x": false} {
		if err := CheckRegistry(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLoadRefusesWhatIsNoCatalogue(t *testing.T) {
	big := filepath.Join(t.TempDir(), "big.toml")
	if err := os.WriteFile(big, make([]byte, maxFile+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), "is larger than 1048576 bytes") {
		t.Errorf("%v", err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.toml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// Nothing that a stranger writes stops the program, puts control characters into its messages, or gets into the catalogue
// in a form that a path, an argument, a table or a shell would read as something else.
func FuzzParse(f *testing.F) {
	f.Add([]byte(head + row + origin))
	f.Add([]byte("[[flavor]]\nid = 1\n[flavor.origin.boot]\n"))
	f.Add([]byte("flavor = [{id=\"x\"}]"))
	f.Add([]byte("[[flavor]]\n[[flavor.release]]\n[[flavor.release]]\n[[flavor]]\n[[flavor.release]]\n"))
	f.Add([]byte("a.\"\\u001b\".'b' = {x = [1, 2.0, {y = 07:32:00}]}\r\n"))
	f.Add([]byte(head + "[[registry]]\nhost = \"*.a\"\nlayer = \"1GB\"\nsource = \"x\"\n[[registry]]\nhost = \"b.a:*\"\nlayer = \"0\"\n" + row))
	f.Add([]byte("flavor = 3\n[base]\nbuilt = []\n"))
	if data, err := os.ReadFile(root + "distros.toml"); err == nil {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f.toml", data)
		if err != nil {
			var p Problems
			if !errors.As(err, &p) || len(p) == 0 {
				t.Fatalf("%T %v", err, err)
			}
			lines := bytes.Count(data, []byte("\n")) + 1
			for i, one := range p {
				if one.Line < 0 || one.Line > lines || i > 0 && one.Line < p[i-1].Line || one.Message == "" {
					t.Fatalf("of %d lines: %+v", lines, one)
				}
				if s := one.String(); strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) || len(s) > 10000 {
					t.Fatalf("%q", s)
				}
			}
			return
		}
		no := func(what, s, bad string) {
			if strings.HasPrefix(s, "-") || strings.Contains(s, "..") || strings.ContainsAny(s, bad) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
				t.Fatalf("accepted %s %q", what, s)
			}
		}
		const word, line = " /\\*?[]{}'\"`$;&|<>()#~:@%!,=", " \\*?[]{}'\"`$;&|<>()!"
		for _, name := range append(slices.Clone(c.Project.Packages), c.Base.Built.Packages...) {
			no("package", name, word)
		}
		for _, r := range c.Registries {
			no("host", strings.ReplaceAll(r.Host, "*", "x"), strings.ReplaceAll(word, ":", "")+"_+")
			if n, err := ParseLimit(r.Layer); err != nil || n < 1 || r.Host == "" || len(r.Source) > 200 || strings.ContainsFunc(r.Source, unicode.IsControl) || r.Source == "" {
				t.Fatalf("accepted %+v", r)
			}
		}
		for _, fl := range c.Flavors {
			no("id", fl.ID, word+"+._")
			no("name", fl.Name, "|[]<>`\\*")
			for _, u := range []string{fl.Home, fl.Docs, fl.Download, fl.Licence} {
				no("address", u, line)
			}
			if fl.ID == "" || fl.Name == "" || fl.Home == "" || fl.Level == "" || len(fl.Arch) == 0 || c.Line(fl.ID) < 1 {
				t.Fatalf("accepted %+v", fl)
			}
			for _, r := range fl.Releases {
				no("version", r.Version, word+"+")
				no("codename", r.Codename, word+"+")
			}
			if fl.Origin == nil {
				continue
			}
			for _, name := range fl.Origin.System {
				no("package", strings.ReplaceAll(name, "{arch}", ""), word)
			}
			for _, a := range fl.Origin.Archives {
				no("archive", strings.NewReplacer("{codename}", "", " ", "").Replace(a), line)
			}
			for _, file := range fl.Origin.Files {
				no("path", file.Path, line)
				no("mode", file.Mode, word)
			}
			for _, b := range fl.Origin.Boot {
				for to, from := range b.EFI {
					no("path", to, line)
					no("path", from, line)
				}
				no("kernel", b.Kernel, line)
				no("initrd", b.Initrd, line)
			}
		}
	})
}
