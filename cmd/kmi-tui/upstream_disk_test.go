package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// mine is a row of a distribution that publishes a disk.
const mine = `
[[flavor]]
id             = "mine"
name           = "My Debian"
home           = "https://example.org"
level          = "preview"
arch           = ["x86_64"]
user           = "debian"
redistribution = "free"

[[flavor.release]]
version  = "12"
codename = "bookworm"

[flavor.origin]
kind       = "image"
format     = "qcow2"
arch_names = { x86_64 = "amd64" }
url        = "https://upstream.example.org/12/{name}"
unsigned   = "it is the tests' own"
packages   = { screenfetch = "fastfetch|screenfetch" }

[[flavor.origin.find]]
sums  = "https://upstream.example.org/12/SHA256SUMS"
match = 'mine-(?P<build>(?P<date>\d{8}))-{arch}\.qcow2'

[flavor.origin.checksum]
url = "https://upstream.example.org/12/SHA256SUMS"

[flavor.origin.customise]
manager = "apt"
ways    = ["chroot", "guestfs", "boot"]
seed    = "cloud-init"
trusted = "it is the tests' own"

[flavor.origin.boot.x86_64]
firmware = ["bios"]
memory   = 1024
`

// A disk that upstream publishes, a real Debian without the project's packages, all the way: customised, booted, signed,
// published; then again with nothing new.
func TestAnUpstreamDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
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
		u.want(0, "done up to customise", "--batch", "--only", "debian:12/x86_64", "--until", "customise", "--catalog", path)
		found, err := filepath.Glob(filepath.Join(u.home, ".cache/kmi-tui/disks/*/disk.qcow2"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		plain = found[0]
	}
	const name = "mine-20261101-amd64.qcow2"
	sum, _, err := disk.Sum(plain)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/12/SHA256SUMS":
			fmt.Fprintf(w, "%s  %s\n", sum, name)
		case "/12/" + name:
			http.ServeFile(w, r, plain)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()

	write(project + debian + mine)
	images := filepath.Join(u.home, "images")
	args := []string{"--batch", "--only", "mine", "--base", "built", "--catalog", path, "--registry", "dir:" + images, "--mirror", "https://upstream.example.org/=" + server.URL + "/"}
	out, _ := u.want(0, "1 to build", append(args, "--plan")...)
	if os.Geteuid() == 0 && !strings.Contains(out, "by chroot: the catalogue trusts upstream's disk: it is the tests' own") {
		t.Errorf("the plan:\n%s", out)
	}

	// Interrupted and killed while the guest's own programs run.
	for _, x := range []struct {
		line string
		sig  syscall.Signal
	}{{"── make room", syscall.SIGINT}, {"Unpacking git", syscall.SIGINT}, {"Setting up ", syscall.SIGKILL}, {"── compress", syscall.SIGKILL}} {
		said("%s at %q", x.sig, x.line)
		r := u.start(args...)
		r.until(x.line, func(e engine.Event) bool { return e.Stage == "customise" && strings.Contains(e.Line, x.line) })
		signal(t, r, x.sig)
		r.end(10 * time.Second)
		u.gone()
	}

	said("customise, boot, sign, publish, verify")
	r := u.start(args...)
	code, events := r.end(10 * time.Minute)
	if code != 0 {
		t.Fatalf("exit code %d: %s\n%v", code, r.stderr.String(), tail(events, 30))
	}
	for _, e := range events {
		if e.Stage != "" && e.Kind.Ends() {
			said("%-9s %-8s %6.1f s  %s", e.Stage, e.Kind, e.Seconds, e.Reason)
		}
	}
	u.want(0, "ok      contents of linux/amd64", "verify", "dir:"+images+"/mine:12")
	list, _ := filepath.Glob(filepath.Join(u.home, ".cache/kmi-tui/disks/*/packages.txt"))
	var all []byte
	for _, l := range list {
		all = append(all, read(t, l)...)
	}
	for _, want := range []string{"git 1:", "vim 2:", "tmux 3", "net-tools 2", "screenfetch 3", "qemu-guest-agent 1:"} {
		if !bytes.Contains(all, []byte("\n"+want)) {
			t.Errorf("%s is not inside", want)
		}
	}

	// At once again there is nothing to do; a day later the packages are looked at, and they are the same.
	u.want(0, "nothing to do: content", args...)
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
	code, events = r.end(5 * time.Minute)
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
