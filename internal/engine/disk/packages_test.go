package disk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
)

func TestParsePackages(t *testing.T) {
	got, err := ParsePackages([]byte("bash 5.2.15-2+b8 amd64 7335936\nlibc6:amd64 2.36-9 amd64 0\nold 1:1.0~rc1 all\nlast 1 all 5"))
	want := []Package{{"bash", "5.2.15-2+b8", "amd64", 7335936}, {"libc6:amd64", "2.36-9", "amd64", 0}, {"old", "1:1.0~rc1", "all", 0}, {"last", "1", "all", 5}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParsePackages(nil); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	long := "a 1 " + strings.Repeat("x", maxPackageLine-4)
	many := strings.Repeat("a 1 all\n", maxPackages)
	for text, want := range map[string]string{
		"a 1 all\n\nb 1 all\n":          `line 2: "" is not NAME VERSION ARCH INSTALLED`,
		"a 1\n":                         `line 1: "a 1" is not NAME`,
		"a  1 all\n":                    `line 1: "a  1 all" is not NAME`,
		"a 1 all 5 6\n":                 `line 1: "a 1 all 5 6" is not NAME`,
		"a 1 all \n":                    `line 1: "a 1 all " is not NAME`,
		"a 1 all -5\n":                  `line 1: "-5" is not a number of bytes`,
		"a 1 all +5\n":                  `line 1: "+5" is not a number of bytes`,
		"a 1 all 1e3\n":                 `line 1: "1e3" is not a number of bytes`,
		"a 1 all 9223372036854775808\n": `line 1: "9223372036854775808" is not a number of bytes`,
		"a 1 all\r\n":                   `line 1: it has the character U+000D`,
		"a\t1 all\n":                    `line 1: it has the character U+0009`,
		"a\x1b[31m 1 all\n":             `line 1: it has the character U+001B`,
		"a\u202e 1 all\n":               `line 1: it has the character U+202E`,
		"a\u00a0b 1 all\n":              `line 1: it has the character U+00A0`,
		"a\x00 1 all\n":                 `line 1: it has the character U+0000`,
		"a\xff 1 all\n":                 `line 1: it is not UTF-8`,
		long + "x":                      `line 1: 513 bytes: no package`,
		many + "a 1 all\n":              `line 100001: more than 100000 packages`,
	} {
		if _, err := ParsePackages([]byte(text)); err == nil || !strings.Contains(err.Error(), "list of packages, "+want) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	for _, text := range []string{long, many} {
		if list, err := ParsePackages([]byte(text)); err != nil || len(list) != strings.Count(text, "a 1 ") {
			t.Errorf("%d, %v", len(list), err)
		}
	}
}

func TestLargest(t *testing.T) {
	list := []Package{{Name: "b", Installed: 5}, {Name: "unknown"}, {Name: "c", Installed: 9}, {Name: "a", Installed: 5}}
	for n, want := range map[int]string{-1: "", 0: "", 1: "c", 2: "c a", 3: "c a b", 9: "c a b"} {
		var names []string
		for _, p := range Largest(list, n) {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
	if list[0].Name != "b" || list[1].Name != "unknown" {
		t.Errorf("the list was changed: %v", list)
	}
}

// The script takes the list from the guest's database, whatever that says of sizes.
func TestTheGuestsPackagesAreListed(t *testing.T) {
	for _, tool := range []string{"dpkg-query", "awk", "tar"} {
		if _, err := command.Look(tool); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"root/tmp", "root/dev", "root/etc", "root/var/log", "out", "overlay", "database/info", "database/updates"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"modes", "commands", "efi", "licences"} {
		write(name, "", 0o644)
	}
	// Only the database is asked; it lies elsewhere.
	write("bin/chroot", "#!/bin/sh\nshift\n[ \"$1\" = dpkg-query ] || exit 0\nDPKG_ADMINDIR="+filepath.Join(dir, "database")+" exec \"$@\"\n", 0o755)
	status := ""
	for _, p := range []string{"large 5000000", "small 12", "none", "word $(false)", "negative -5", "huge 99999999999999999999"} {
		name, size, sized := strings.Cut(p, " ")
		status += "Package: " + name + "\nStatus: install ok installed\nVersion: 1:2~3-4\nArchitecture: all\nMaintainer: x\nDescription: x\n"
		if sized {
			status += "Installed-Size: " + size + "\n"
		}
		status += "\n"
	}
	write("database/status", status, 0o644)
	c := exec.Command("sh", "-eu", "-c", finishScript, "finish.sh", filepath.Join(dir, "root"), filepath.Join(dir, "out"), "", "1700000000")
	c.Dir, c.Env = dir, append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "out/packages.txt"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := ParsePackages(data)
	want := "[{huge 1:2~3-4 all 0} {large 1:2~3-4 all 5120000000} {negative 1:2~3-4 all 0} {none 1:2~3-4 all 0} {small 1:2~3-4 all 12288} {word 1:2~3-4 all 0}]"
	if got := fmt.Sprint(list); err != nil || got != want {
		t.Errorf("%v\n%s\nwant:\n%s", err, got, want)
	}
	// A database that cannot be read is no guest without packages.
	write("database/status", "x\n", 0o644)
	c = exec.Command(c.Path, c.Args[1:]...)
	c.Dir, c.Env = dir, append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	if out, err := c.CombinedOutput(); err == nil {
		t.Errorf("accepted:\n%s", out)
	}
}

// Whatever a guest says, what is read is bounded, harmless, and the same when it is written and read again.
func FuzzParsePackages(f *testing.F) {
	f.Add([]byte("bash 5.2.15-2+b8 amd64 7335936\nlibc6:amd64 2.36-9 amd64\n"))
	f.Add([]byte("a 1 all 0\n\n"))
	f.Add([]byte("a 1 all 99999999999999999999\n"))
	f.Add([]byte("\u202e \x1b[2J ü 7"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParsePackages(data)
		if err != nil {
			if s := err.Error(); len(s) > 4000 || strings.ContainsFunc(s, unicode.IsControl) {
				t.Fatalf("%q", s)
			}
			return
		}
		again := ""
		for _, p := range list {
			for _, s := range []string{p.Name, p.Version, p.Arch} {
				if s == "" || len(s) > maxPackageLine || strings.ContainsFunc(s, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }) {
					t.Fatalf("%+v", p)
				}
			}
			if p.Installed < 0 {
				t.Fatalf("%+v", p)
			}
			again += fmt.Sprintf("%s %s %s %d\n", p.Name, p.Version, p.Arch, p.Installed)
		}
		if len(again) < maxPackageLine {
			if twice, err := ParsePackages([]byte(again)); err != nil || !reflect.DeepEqual(twice, list) {
				t.Fatalf("%v: %v, then %v", err, list, twice)
			}
		}
		for i, p := range Largest(list, 10) {
			if i > 9 || p.Installed == 0 {
				t.Fatalf("%d: %+v", i, p)
			}
		}
	})
}
