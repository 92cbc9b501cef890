package main_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// mine is a row of a distribution that publishes a disk: %[1]s its version, %[2]s its code name, %[3]s the architecture,
// %[4]s upstream's word for that, %[5]s the firmware.
const mine = `
[[flavor]]
id             = "mine"
name           = "My Debian"
home           = "https://example.org"
level          = "preview"
arch           = ["%[3]s"]
user           = "debian"
redistribution = "free"

[[flavor.release]]
version  = "%[1]s"
codename = "%[2]s"

[flavor.origin]
kind       = "image"
format     = "qcow2"
arch_names = { %[3]s = "%[4]s" }
url        = "https://upstream.example.org/{version}/{name}"
unsigned   = "it is the tests' own"
packages   = { screenfetch = "fastfetch|screenfetch" }

# As closed as others' agents are: it runs no programs, and what KubeVirt calls has to be opened.
[[flavor.origin.file]]
path = "/etc/qemu/qemu-ga.conf"
text = """
[general]
block-rpcs=guest-exec,guest-exec-status,guest-file-open,guest-ssh-add-authorized-keys
"""

[[flavor.origin.find]]
sums  = "https://upstream.example.org/{version}/SHA256SUMS"
match = 'mine-(?P<build>(?P<date>\d{8}))-{arch}\.qcow2'

[flavor.origin.checksum]
url = "https://upstream.example.org/{version}/SHA256SUMS"

[flavor.origin.customise]
manager = "apt"
ways    = ["chroot", "guestfs", "boot"]
seed    = "cloud-init"
trusted = "it is the tests' own"

[flavor.origin.boot.%[3]s]
firmware = ["%[5]s"]
memory   = 1024
`

// A disk that upstream publishes, a real Debian without the project's packages, all the way: customised, booted, signed,
// published; then again with nothing new. KMI_TEST_TARGET is what KMI_TEST_DISK holds, "debian:12/x86_64" if it is not set;
// one of another architecture is emulated, and takes an hour.
func TestAnUpstreamDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	target := cmp.Or(os.Getenv("KMI_TEST_TARGET"), "debian:12/x86_64")
	version, arch, _ := strings.Cut(strings.TrimPrefix(target, "debian:"), "/")
	codename := map[string]string{"12": "bookworm", "13": "trixie"}[version]
	word, firmware := map[string]string{"x86_64": "amd64", "arm64": "arm64"}[arch], map[string]string{"x86_64": "bios", "arm64": "uefi"}[arch]
	foreign := word != runtime.GOARCH
	within := 10 * time.Minute
	if foreign {
		within = 3 * time.Hour
	}
	u := newUser(t)
	said := func(format string, args ...any) { t.Logf(format, args...); fmt.Printf("    "+format+"\n", args...) }
	catalogue := read(t, "../../distros.toml")
	dir := t.TempDir()
	path := filepath.Join(dir, "distros.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	project := catalogue[:strings.Index(catalogue, "\n[[flavor]]\n")]
	debian := catalogue[strings.Index(catalogue, "\n[[flavor]]\nid             = \"debian\""):]
	debian = debian[:1+strings.Index(debian[1:], "\n[[flavor]]\n")]

	// Upstream's disk: make test has made one.
	plain := os.Getenv("KMI_TEST_DISK")
	if plain == "" {
		begin := strings.Index(project, "packages  = [")
		end := begin + strings.IndexByte(project[begin:], '\n')
		write(project[:begin] + "packages = []" + project[end:] + debian)
		said("upstream's disk is made")
		u.want(0, "done up to customise", "--batch", "--only", target, "--until", "customise", "--catalog", path)
		found, err := filepath.Glob(filepath.Join(u.home, ".cache/kmi-tui/disks/*/disk.qcow2"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		plain = found[0]
	}
	name := "mine-20261101-" + word + ".qcow2"
	sum, _, err := disk.Sum(plain)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/" + version + "/SHA256SUMS":
			fmt.Fprintf(w, "%s  %s\n", sum, name)
		case "/" + version + "/" + name:
			http.ServeFile(w, r, plain)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()

	write(project + debian + fmt.Sprintf(mine, version, codename, arch, word, firmware))
	images := filepath.Join(u.home, "images")
	args := []string{"--batch", "--only", "mine:" + version + "/" + arch, "--base", "built", "--catalog", path, "--registry", "dir:" + images, "--mirror", "https://upstream.example.org/=" + server.URL + "/"}
	out, _ := u.want(0, "1 to build", append(args, "--plan")...)
	if os.Geteuid() == 0 && !strings.Contains(out, "by chroot: the catalogue trusts upstream's disk: it is the tests' own") {
		t.Errorf("the plan:\n%s", out)
	}

	// Interrupted and killed while the guest's own programs run.
	ends := []struct {
		line string
		sig  syscall.Signal
	}{{"── make room", syscall.SIGINT}, {"Unpacking git", syscall.SIGINT}, {"Setting up ", syscall.SIGKILL}, {"── compress", syscall.SIGKILL}}
	if foreign {
		ends = ends[2:3]
	}
	for _, x := range ends {
		said("%s at %q", x.sig, x.line)
		r := u.start(args...)
		r.until(x.line, func(e engine.Event) bool { return e.Stage == "customise" && strings.Contains(e.Line, x.line) })
		signal(t, r, x.sig)
		r.end(10 * time.Second)
		u.gone()
	}

	said("customise, boot, sign, publish, verify")
	r := u.start(args...)
	code, events := r.end(within)
	if code != 0 {
		t.Fatalf("exit code %d: %s\n%v", code, r.stderr.String(), tail(events, 30))
	}
	for _, e := range events {
		if e.Stage != "" && e.Kind.Ends() {
			said("%-9s %-8s %6.1f s  %s", e.Stage, e.Kind, e.Seconds, e.Reason)
		}
	}
	u.want(0, "ok      contents of linux/"+word, "verify", "dir:"+images+"/mine:"+version)
	list, _ := filepath.Glob(filepath.Join(u.home, ".cache/kmi-tui/disks/*/packages.txt"))
	var all []byte
	for _, l := range list {
		all = append(all, read(t, l)...)
	}
	fetch := map[string]string{"12": "screenfetch 3", "13": "fastfetch 2"}[version]
	for _, want := range []string{"git 1:", "vim 2:", "tmux 3", "net-tools 2", fetch, "qemu-guest-agent 1:"} {
		if !bytes.Contains(all, []byte("\n"+want)) {
			t.Errorf("%s is not inside", want)
		}
	}

	// At once again there is nothing to do; a day later the packages are looked at, and they are the same.
	u.want(0, "nothing to do: content", args...)
	if foreign {
		return // that takes as long again
	}
	if left := u.workFolders(); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
	records, _ := filepath.Glob(filepath.Join(u.home, ".cache/kmi-tui/records/disks/*"))
	for _, file := range records {
		var record map[string]any
		if err := json.Unmarshal([]byte(read(t, file)), &record); err != nil {
			t.Fatal(err)
		}
		record["made"] = time.Now().Add(-25 * time.Hour).UTC().Format(time.RFC3339)
		data, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r = u.start(args...)
	code, events = r.end(within)
	stages := map[string]engine.Event{}
	for _, e := range events {
		if e.Stage != "" && e.Kind.Ends() {
			stages[e.Stage] = e
		}
	}
	if code != 0 || stages["customise"].Kind != event.Finished || stages["publish"].Kind != event.Skipped || !strings.Contains(fmt.Sprint(events), "no package has changed") {
		t.Errorf("exit code %d: %v", code, stages)
	}
}
