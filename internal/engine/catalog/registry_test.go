package catalog

import (
	"fmt"
	"strings"
	"testing"
)

func TestMistakesAboutRegistries(t *testing.T) {
	const table = "[[registry]]\nhost = \"quay.io\"\nlayer = \"20GB\"\nsource = \"its source\"\n"
	if _, err := Parse("d.toml", []byte(head+table+row)); err != nil {
		t.Fatal(err)
	}
	another := func(host string) string { return strings.Replace(table, "quay.io", host, 1) }
	// The table begins in line 10.
	for _, x := range []struct{ name, text, want string }{
		{"glob", another("https://quay.io/p"), `11: registry "https://quay.io/p": host: "https://quay.io/p": write HOST or HOST:PORT in lower case, with * where any text fits, such as quay.io or *.example.org:5000`},
		{"class", another("quay.[a-z]o"), `11: registry "quay.[a-z]o": host: "quay.[a-z]o": write HOST or HOST:PORT`},
		{"upper case", another("Quay.io"), `11: registry "Quay.io": host: "Quay.io": write HOST or HOST:PORT`},
		{"dots", another("quay..io"), `11: registry "quay..io": host: "quay..io": write HOST or HOST:PORT`},
		{"path", another("quay.io/p"), `11: registry "quay.io/p": host: "quay.io/p": write HOST or HOST:PORT`},
		{"folder", another("dir:images"), `11: registry "dir:images": host: "dir:images": write HOST or HOST:PORT`},
		{"escape sequence", another(`q\u001b[31m`), `11: registry "q\x1b[31m": host: "q\x1b[31m": write HOST or HOST:PORT`},
		{"long", another(strings.Repeat("a", 256)), `: host: has 256 characters: write at most 255`},
		{"unit", strings.Replace(table, "20GB", "20G", 1), `12: registry "quay.io": layer: "20G" is not a size: write a whole number and MB, GB, TB, MiB, GiB or TiB, such as 10GB`},
		{"sign", strings.Replace(table, "20GB", "-1GB", 1), `12: registry "quay.io": layer: "-1GB" is not a size: write`},
		{"nothing", strings.Replace(table, "20GB", "0GB", 1), `12: registry "quay.io": layer: 0GB: write a size of at least 1MB, or leave the table out where there is no limit`},
		{"too much", strings.Replace(table, "20GB", "9999999999TB", 1), `12: registry "quay.io": layer: "9999999999TB" is more than any layer holds: write a size such as 10GB`},
		{"number", strings.Replace(table, `"20GB"`, "20000", 1), `12: registry "quay.io": layer: is the number 20000: write a text in quotes`},
		{"lines", strings.Replace(table, "its source", `its\nsource`, 1), `13: registry "quay.io": source: has characters that do not show: write one line`},
		{"long source", strings.Replace(table, "its source", strings.Repeat("x", 201), 1), `13: registry "quay.io": source: has 201 bytes: write at most 200`},
		{"unknown key", table + "size = \"1GB\"\n", `14: registry "quay.io": unknown key "size": write one of host, layer, source`},
		{"misspelt key", strings.Replace(table, "layer", "layers", 1), `10: registry "quay.io": layer: is missing: write the size
12: registry "quay.io": unknown key "layers": did you mean "layer"?`},
		{"empty", "[[registry]]\n", `10: registry 1: host: is missing: write HOST or HOST:PORT in lower case, with * where any text fits, such as quay.io or *.example.org:5000
10: registry 1: layer: is missing: write the size of the largest layer that the registry takes, such as 10GB or 52000MiB
10: registry 1: source: is missing: write where the limit is told, an address or a few words`},
		{"single brackets", "[registry]\nhost = \"quay.io\"\n", `10: registry: is a table: write a table for each, beginning with [[registry]]`},
		{"twice", table + table, `15: registry "quay.io": host: is there already, in line 11: write each registry once`},
		{"twice, any port", table + another("quay.io:*"), `15: registry "quay.io:*": host: is there already, in line 11: write each registry once`},
		{"behind a glob", another("*.io") + table, `15: registry "quay.io": host: "*.io" in line 11 fits it already, and the first that fits counts: write this table before that one`},
		{"behind all ports", table + another("quay.io:443"), `15: registry "quay.io:443": host: "quay.io" in line 11 fits it already`},
		{"glob behind a glob", another("*.amazonaws.com") + another("*.dkr.ecr.*.amazonaws.com"), `15: registry "*.dkr.ecr.*.amazonaws.com": host: "*.amazonaws.com" in line 11 fits it already`},
	} {
		_, err := Parse("d.toml", []byte(head+x.text+row))
		for _, want := range strings.Split(x.want, "\n") {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("%s: no %q in:\n%v", x.name, want, err)
			}
		}
		if n := strings.Count(fmt.Sprint(err), "d.toml:"); n != strings.Count(x.want, "\n")+1 {
			t.Errorf("%s: %d mistakes:\n%v", x.name, n, err)
		}
	}
	// The other way round both count.
	for _, text := range []string{table + another("*.io"), another("quay.io:443") + table, another("a.*") + another("*.b"), another("quay.io:443") + another("quay.io:444")} {
		if _, err := Parse("d.toml", []byte(head+text+row)); err != nil {
			t.Error(err)
		}
	}
}

func TestRegistriesAreFoundByHost(t *testing.T) {
	for host, names := range map[string][2]string{ // those that fit, those that do not
		"quay.io":                   {"quay.io quay.io:443 quay.io:5000 QUAY.io", "xquay.io quay.io.example.org a.quay.io quayxio quay"},
		"quay.io:443":               {"quay.io quay.io:443", "quay.io:5000 quay.io:4430"},
		"*.dkr.ecr.*.amazonaws.com": {"123456789012.dkr.ecr.eu-west-1.amazonaws.com 1.dkr.ecr.x.amazonaws.com:443", "dkr.ecr.x.amazonaws.com 1.dkr.ecr.x.amazonaws.com.example.org 1.dkr.ecr.amazonaws.com"},
		"127.0.0.1:*":               {"127.0.0.1:5000 127.0.0.1:1 127.0.0.1", "127.0.0.10:5000 localhost:5000"},
		"localhost:5000":            {"localhost:5000", "localhost localhost:50000 localhost:5001"},
		"*":                         {"quay.io localhost:5000", ""},
		"*:5000":                    {"localhost:5000", "localhost quay.io"},
	} {
		for i, list := range names {
			for _, name := range strings.Fields(list) {
				if fits := (Registry{Host: host}).Fits(name); fits != (i == 0) {
					t.Errorf("%s fits %s: %v", host, name, fits)
				}
			}
		}
	}
	c, err := Load(root + "distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{"quay.io/containercraft/kmi": "20GB", "ghcr.io/a": "10GB", "1.dkr.ecr.eu-west-1.amazonaws.com/a": "52000MiB", "public.ecr.aws/a/b": "10000MiB",
		"docker.io/a": "", "index.docker.io/a": "", "registry.example.org": "", "registry.example.org/quay.io": "", "dir:quay.io": "", "dir:": "", "": ""} {
		got := ""
		if r := c.RegistryOf(ref); r != nil {
			got = r.Layer
		}
		if got != want {
			t.Errorf("%s: %q", ref, got)
		}
	}
}

func TestParseLimit(t *testing.T) {
	for text, want := range map[string]int64{"1MB": 1e6, "10GB": 10e9, "20TB": 20e12, "1MiB": 1 << 20, "52000MiB": 52000 << 20, "10GiB": 10 << 30, "1TiB": 1 << 40,
		"": 0, "GB": 0, "10": 0, "10G": 0, "10 GB": 0, "-1GB": 0, "+1GB": 0, "1.5GB": 0, "10gb": 0, "9223373TB": 0, "99999999999999999999GB": 0} {
		n, err := ParseLimit(text)
		if n != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	// Disks are made of whole MiB.
	if _, err := ParseSize("10GB"); err == nil {
		t.Error("a disk of 10GB")
	}
}
