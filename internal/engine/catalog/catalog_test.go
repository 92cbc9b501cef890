package catalog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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

func TestMistakes(t *testing.T) {
	if _, err := Parse("d.toml", []byte(head+row+origin)); err != nil {
		t.Fatalf("the text that the mistakes are put into: %v", err)
	}
	replace := func(s, old, new string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("%q is not there", old)
		}
		return strings.Replace(s, old, new, 1)
	}
	full := head + row + origin
	for _, c := range []struct{ name, text, want string }{
		{"syntax", replace(full, `id = "a"`, `id = "a`), `d.toml:11: strings cannot contain newlines`},
		{"unknown key", replace(full, `home =`, `hoem =`), `d.toml:13: flavor "a": unknown key "hoem": did you mean "home"?`},
		{"unknown key, far", replace(full, `memory = 512`, "memory = 512\nqqqqqqqq = 1"), `d.toml:31: flavor "a": origin: boot: x86_64: unknown key "qqqqqqqq": write one of packages, bios,`},
		{"unknown table", full + "[projects]\nx = 1\n", `d.toml:31: unknown key "projects": did you mean "project"?`},
		{"unknown inline", replace(full, `arch_names = {x86_64 = "amd64"}`, "arch_names = {x86_64 = \"amd64\", riscv = \"riscv64\"}"), `d.toml:24: flavor "a": origin: arch_names: "riscv" is not an architecture`},
		{"wrong type", replace(full, `memory = 512`, `memory = "512"`), `d.toml:30: `},
		{"wrong level", replace(full, `"preview"`, `"beta"`), `d.toml:14: flavor "a": level: "beta" is not a level: write one of planned, preview, proposed, stable`},
		{"no level", replace(full, `level = "preview"`, ``), `d.toml:10: flavor "a": level: is missing: write one of planned`},
		{"no id", replace(full, `id = "a"`, ``), `d.toml:10: flavor 1: id: is missing: write lower-case letters`},
		{"no home", replace(full, `home = "https://a.example.org"`, ``), `d.toml:10: flavor "a": home: is missing: write the address`},
		{"no arch", replace(full, `arch = ["x86_64"]`, `arch = []`), `d.toml:15: flavor "a": arch: is missing: write a list of x86_64, arm64`},
		{"duplicate id", full + row, `d.toml:32: flavor "a": id: is there already, in line 11`},
		{"duplicate name", full + replace(row, `"a"`, `"b"`), `d.toml:33: flavor "b": name: "A" is there already, in line 12`},
		{"duplicate key", replace(full, `id = "a"`, "id = \"a\"\nid = \"b\""), `d.toml:12: `},
		{"dots in id", replace(full, `id = "a"`, `id = "../a"`), `d.toml:11: flavor "../a": id: "../a": write lower-case letters`},
		{"escape in id", replace(full, `id = "a"`, `id = "a\u001b[31m"`), `d.toml:11: flavor "a\x1b[31m": id: "a\x1b[31m": write`},
		{"bidi in name", replace(full, `name = "A"`, `name = "A\u202e"`), `d.toml:12: flavor "a": name: "A\u202e" has characters that a table cannot hold`},
		{"pipe in name", replace(full, `name = "A"`, `name = "A | B"`), `d.toml:12: flavor "a": name: "A | B" has characters`},
		{"home not http", replace(full, `https://a.example.org`, `javascript:alert(1)`), `d.toml:13: flavor "a": home: "javascript:alert(1)" is not an address`},
		{"home with bracket", replace(full, `https://a.example.org`, `https://a.example.org/)`), `d.toml:13: flavor "a": home:`},
		{"unknown arch", replace(full, `arch = ["x86_64"]`, `arch = ["x86_64", "amd64"]`), `d.toml:15: flavor "a": arch: "amd64" is not an architecture: write x86_64 or arm64`},
		{"arch twice", replace(full, `arch = ["x86_64"]`, `arch = ["x86_64", "x86_64"]`), `d.toml:15: flavor "a": arch: "x86_64" is there twice`},
		{"version", replace(full, `version = "1"`, `version = "1/../2"`), `d.toml:17: flavor "a": release 1: version: "1/../2": write`},
		{"version twice", replace(full, `[flavor.origin]`, "[[flavor.release]]\nversion=\"1\"\ncodename=\"c\"\nsigned_by=[\"04B54C3CDCA79751B16BC6B5225629DF75B188BD\"]\n[flavor.origin]"), `d.toml:21: flavor "a": release 2: version: "1" is there twice`},
		{"fingerprint", replace(full, `04B54C3C`, `04b54c3c`), `d.toml:19: flavor "a": release 1: signed_by: "04b54c3`},
		{"no fingerprint", replace(full, `signed_by = ["04B54C3CDCA79751B16BC6B5225629DF75B188BD"]`, ``), `d.toml:16: flavor "a": release 1: signed_by: is missing: write the fingerprints`},
		{"no release", head + row + "[flavor.origin]" + strings.SplitN(origin, "[flavor.origin]", 2)[1], `d.toml:16: flavor "a": origin: there is no release to build`},
		{"kind", replace(full, `kind = "packages"`, `kind = "package"`), `d.toml:21: flavor "a": origin: kind: "package" is not a kind of origin: write "packages"`},
		{"kind later", replace(full, `kind = "packages"`, `kind = "installer"`), `d.toml:21: flavor "a": origin: kind: "installer" is not supported yet`},
		{"archive", replace(full, `{codename} main`, `{codename}`), `d.toml:23: flavor "a": origin: archives: "http://a.example.org/a {codename}": write "URL SUITE COMPONENT…"`},
		{"archive option", replace(full, `http://a.example.org/a {`, `[trusted=yes] http://a.example.org/a {`), `d.toml:23: flavor "a": origin: archives:`},
		{"package option", replace(full, `[flavor.origin.boot.x86_64]`, "system = [\"--allow-unauthenticated\"]\n[flavor.origin.boot.x86_64]"), `d.toml:25: flavor "a": origin: system: "--allow-unauthenticated": write package names`},
		{"translation", replace(full, `[flavor.origin.boot.x86_64]`, "packages = {emacs = \"emacs\"}\n[flavor.origin.boot.x86_64]"), `d.toml:25: flavor "a": origin: packages: emacs: is none of the project's packages`},
		{"file path", replace(full, `[flavor.origin.boot.x86_64]`, "[[flavor.origin.file]]\npath = \"/etc/../../x\"\ntext = \"\"\n[flavor.origin.boot.x86_64]"), `d.toml:26: flavor "a": origin: file 1: path: "/etc/../../x": write an absolute path`},
		{"file mode", replace(full, `[flavor.origin.boot.x86_64]`, "[[flavor.origin.file]]\npath = \"/x\"\nmode = \"rwx\"\n[flavor.origin.boot.x86_64]"), `d.toml:27: flavor "a": origin: file 1: mode: "rwx": write four octal digits`},
		{"cmdline", replace(full, `[flavor.origin.boot.x86_64]`, "cmdline = \"quiet; $(x)\"\n[flavor.origin.boot.x86_64]"), `d.toml:25: flavor "a": origin: cmdline:`},
		{"efi path", replace(full, `memory = 512`, "memory = 512\nefi = {\"../x\" = \"/y\"}\nefi_grub = \"/EFI/x\""), `d.toml:31: flavor "a": origin: boot: x86_64: efi: ../x: "../x": write a path inside the partition`},
		{"firmware", replace(full, `["bios"]`, `["uefi"]`), `d.toml:29: flavor "a": origin: boot: x86_64: firmware: "uefi": no boot loader is described for it`},
		{"memory", replace(full, `512`, `5`), `d.toml:30: flavor "a": origin: boot: x86_64: memory: 5: write the MiB`},
		{"disk size", replace(full, `10GiB`, `10 GB`), `d.toml:7: project: disk_size: "10 GB" is not a size: write a number and a unit, such as 10GiB`},
		{"absurd disk", replace(full, `10GiB`, `2000TiB`), `d.toml:7: project: disk_size: 2000TiB: write a size from 1GiB to 1TiB`},
		{"registry", replace(full, `dir:images`, `https://x/y`), `d.toml:4: project: registry: "https://x/y": write HOST/PATH`},
		{"built base", replace(full, "[[flavor]]", "[base.built]\nflavor = \"z\"\nrelease = \"9\"\npackages = [\"x\"]\n[[flavor]]"), `d.toml:10: base: built: there is no release z:9`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("d.toml", []byte(c.text))
			var p Problems
			if !errors.As(err, &p) {
				t.Fatalf("no problems: %v", err)
			}
			found := false
			for _, one := range p {
				found = found || strings.HasPrefix(one.String(), c.want)
			}
			if !found {
				t.Errorf("want %s\ngot  %v", c.want, err)
			}
		})
	}
}

func TestAllMistakesAtOnceInOrder(t *testing.T) {
	_, err := Parse("d.toml", []byte(strings.NewReplacer(`"preview"`, `"beta"`, `10GiB`, `x`, `home =`, `hom =`).Replace(head+row+origin)))
	var p Problems
	if !errors.As(err, &p) || len(p) != 4 || !strings.HasSuffix(err.Error(), "4 mistakes") {
		t.Fatalf("%v", err)
	}
	for i := 1; i < len(p); i++ {
		if p[i].Line < p[i-1].Line {
			t.Errorf("line %d comes after line %d", p[i].Line, p[i-1].Line)
		}
	}
}

func TestLoadRefusesWhatIsNoCatalogue(t *testing.T) {
	big := filepath.Join(t.TempDir(), "big.toml")
	if err := os.WriteFile(big, make([]byte, maxFile+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("%v", err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.toml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head + row + origin))
	f.Add([]byte("[[flavor]]\nid = 1\n[flavor.origin.boot]\n"))
	f.Add([]byte("flavor = [{id=\"x\"}]"))
	f.Add([]byte("[[flavor]]\n[[flavor.release]]\n[[flavor.release]]\n[[flavor]]\n[[flavor.release]]\n"))
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
			return
		}
		for _, fl := range c.Flavors {
			if !idForm.MatchString(fl.ID) || strings.ContainsAny(fl.Name, "|\n\x1b") {
				t.Fatalf("accepted %+v", fl)
			}
			for _, r := range fl.Releases {
				if strings.Contains(r.Version, "..") || strings.ContainsAny(r.Version, "/ ") {
					t.Fatalf("accepted version %q", r.Version)
				}
			}
		}
	})
}
