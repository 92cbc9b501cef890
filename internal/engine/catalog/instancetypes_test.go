package catalog

import (
	"strings"
	"testing"
)

// The table is whole, and what it says can be read.
func TestCommonInstancetypes(t *testing.T) {
	all := Common()
	if all.Version == "" || len(all.Preference) < 20 || len(all.Instancetype) < 20 {
		t.Fatalf("%+v", all)
	}
	for kind, table := range map[string]map[string]Machine{"preference": all.Preference, "instancetype": all.Instancetype} {
		for name, m := range table {
			if !versionForm.MatchString(name) || m.Memory != "" && memory(m.Memory) < 256<<20 || (m.CPU == 0) != (m.Memory == "") {
				t.Errorf("%s %s: %+v", kind, name, m)
			}
			if m.Arch != "" && m.Arch != X86_64 && m.Arch != ARM64 || m.Starts != "" && m.Starts != "uefi" && m.Starts != "secure boot" {
				t.Errorf("%s %s: %+v", kind, name, m)
			}
			if kind == "instancetype" && (m.CPU == 0 || m.Arch != "" || m.Starts != "") {
				t.Errorf("%s: %+v", name, m)
			}
		}
	}
	if memory("1.5Gi") != 3<<29 || memory("512Mi") != 512<<20 || memory("") != 0 {
		t.Error("memory")
	}
}

// A machine that KubeVirt would refuse, or that nobody has started like that, is a mistake in the catalogue.
func TestMachines(t *testing.T) {
	for what, c := range map[string]struct{ row, says string }{
		"good":            {`instancetype = {x86_64 = "u1.small", arm64 = "u1.medium"}` + "\n" + `preference = {x86_64 = "ubuntu", arm64 = "fedora.arm64"}`, ""},
		"other arch":      {`preference = {arm64 = "fedora"}`, `preference: arm64: "fedora" is for x86_64 only: KubeVirt would refuse the machine`},
		"too little":      {`instancetype = {x86_64 = "u1.micro"}` + "\n" + `preference = {x86_64 = "ubuntu"}`, `instancetype: x86_64: "u1.micro" has 1 processor and 1Gi, and the preference "ubuntu" demands 1 processor and 2Gi: KubeVirt would refuse the machine`},
		"too few":         {`instancetype = {x86_64 = "u1.medium"}` + "\n" + `preference = {x86_64 = "oraclelinux"}`, `"u1.medium" has 1 processor and 4Gi, and the preference "oraclelinux" demands 2 processors and 4Gi`},
		"unknown":         {`instancetype = {x86_64 = "u1.hugest"}`, `instancetype: x86_64: "u1.hugest" is not one of KubeVirt's common-instancetypes ` + Common().Version + `: write one of u1.2xlarge, `},
		"unknown to all":  {`preference = {x86_64 = "zzz"}`, `"zzz" is not one of KubeVirt's common-instancetypes ` + Common().Version + `: write one of alpine, centos.stream10,`},
		"never booted so": {`preference = {x86_64 = "fedora"}` + "\n[flavor.origin]\nkind = \"none\"\nreason = \"r\"\n[flavor.origin.boot.x86_64]\nfirmware = [\"bios\"]\nmemory = 512", `preference: x86_64: "fedora" starts the machine with uefi, and its boot test does not`},
		"a release's own": {`instancetype = {x86_64 = "u1.small"}` + "\n[[flavor.release]]\nversion = \"1\"\ninstancetype = {x86_64 = \"u1.medium\"}\npreference = {x86_64 = \"ubuntu\"}", ""},
		"of a release":    {"[[flavor.release]]\nversion = \"1\"\npreference = {x86_64 = \"zzz\"}", `release "1": preference: x86_64: "zzz" is not one of`},
		"with the row's":  {`instancetype = {x86_64 = "u1.micro"}` + "\n[[flavor.release]]\nversion = \"1\"\npreference = {x86_64 = \"ubuntu\"}", `release "1": preference: x86_64: "u1.micro" has 1 processor and 1Gi, and the preference "ubuntu" demands`},
	} {
		_, err := Parse("distros.toml", []byte(head+"\n[[flavor]]\nid = \"a\"\nname = \"A\"\nhome = \"https://a.example.org\"\nlevel = \"planned\"\narch = [\"x86_64\", \"arm64\"]\nredistribution = \"free\"\n"+c.row))
		said := ""
		if err != nil {
			said = err.Error()
		}
		if (c.says == "") != (err == nil) || !strings.Contains(said, c.says) {
			t.Errorf("%s: %s, want %s", what, said, c.says)
		}
	}
}
