package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

// TestARealInstallation installs Debian with its own installer, then boots it, logs in on the serial line and powers it
// off. It takes an archive that has the installer's components (udebs), KMI_TEST_MIRROR=http://HOST/FOLDER, which the
// guest reaches as this host does, and up to an hour where the machine is emulated. KMI_TEST_RELEASE is Debian's
// version and code name, "12 bookworm" where it is not given; KMI_TEST_DIR, where given, keeps the results.
func TestARealInstallation(t *testing.T) {
	if os.Getenv("KMI_TEST_INSTALL") == "" {
		t.Skip("installs an operating system: KMI_TEST_INSTALL=1 KMI_TEST_MIRROR=http://HOST/FOLDER go test -timeout 4h -run TestARealInstallation ./internal/engine/install")
	}
	mirror, err := url.Parse(os.Getenv("KMI_TEST_MIRROR"))
	if err != nil || mirror.Scheme != "http" {
		t.Fatalf("KMI_TEST_MIRROR=%q: write http://HOST/FOLDER", os.Getenv("KMI_TEST_MIRROR"))
	}
	dir := os.Getenv("KMI_TEST_DIR")
	if dir == "" {
		dir = t.TempDir()
	}
	version, codename, _ := strings.Cut("12 bookworm", " ")
	if r := os.Getenv("KMI_TEST_RELEASE"); r != "" {
		version, codename, _ = strings.Cut(r, " ")
	}
	files := installer(t, mirror, version, codename)
	s := load(t, "debian.toml")
	bus := event.NewBus(nil)
	scope := bus.Scope("debian", "install", filepath.Join(t.TempDir(), "log"))
	began := time.Now()
	go func() {
		sub := bus.Subscribe()
		for {
			events, ok := sub.Next(context.Background())
			if !ok {
				return
			}
			for _, e := range events {
				if e.Kind == event.Log {
					fmt.Printf("%6.1f %s\n", time.Since(began).Seconds(), e.Line)
				}
			}
		}
	}()
	r, err := Run(context.Background(), Spec{Script: s, Arch: catalog.X86_64, Files: files, Dir: dir, Values: map[string]string{
		"mirror": mirror.Host, "folder": strings.TrimRight(mirror.Path, "/"), "codename": codename, "version": version, "password": password}}, scope)
	bus.Close()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(r.Disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %.0f s, boots %.0f, a disk of %d bytes", r.Accel, r.Seconds, r.Boots, info.Size())
	text, err := os.ReadFile(r.Transcript)
	if err != nil || strings.Contains(string(text), password) {
		t.Errorf("%v; the password is in the transcript: %v", err, err == nil)
	}
}

// installer fetches the package that holds the installer's files from the archive, by its signed index. The sums that
// the archive publishes beside the installer have to name the same files, where the signed index knows those sums: a
// mirror may be ahead of, or behind, its index there.
func installer(t *testing.T, mirror *url.URL, version, codename string) map[string]string {
	t.Helper()
	if machine.Host() != catalog.X86_64 {
		t.Skip("for x86_64")
	}
	sums, err := archive(t, mirror, codename, "main/installer-amd64/current/images/SHA256SUMS")
	if err != nil {
		t.Logf("the installer's files are only checked by their package: %v", err)
	}
	packages, err := archive(t, mirror, codename, "main/binary-amd64/Packages.xz")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	xz := exec.Command("xz", "-dc")
	xz.Stdin = bytes.NewReader(packages)
	index, err := xz.Output()
	if err != nil {
		t.Fatal(err)
	}
	_, entry, found := strings.Cut(string(index), "\nPackage: debian-installer-"+version+"-netboot-amd64\n")
	entry, _, _ = strings.Cut(entry, "\n\n")
	file := regexp.MustCompile(`(?m)^Filename: (.*)$`).FindStringSubmatch(entry)
	want := regexp.MustCompile(`(?m)^SHA256: (.*)$`).FindStringSubmatch(entry)
	if !found || file == nil || want == nil {
		t.Fatalf("the archive's index names no netboot package of the installer")
	}
	data := get(t, mirror.JoinPath(file[1]))
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != want[1] {
		t.Fatalf("%s is not what the signed index says", file[1])
	}
	if err := os.WriteFile(filepath.Join(dir, "netboot.deb"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("dpkg-deb", "-x", filepath.Join(dir, "netboot.deb"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files := map[string]string{}
	for _, name := range []string{"linux", "initrd.gz"} {
		path := filepath.Join(dir, "usr/lib/debian-installer/images", version, "amd64/text/debian-installer/amd64", name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		if want := hex.EncodeToString(sum[:]) + "  ./netboot/debian-installer/amd64/" + name + "\n"; sums != nil && !strings.Contains(string(sums), want) {
			t.Fatalf("the archive's SHA256SUMS has no line %q", want)
		}
		files[name] = path
	}
	return files
}

func get(t *testing.T, from *url.URL) []byte {
	t.Helper()
	response, err := http.Get(from.String())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, 512<<20))
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", from.Path, response.Status, err)
	}
	return data
}

// archive fetches a file that the archive's signed index names; an error if it is not the one that is named.
func archive(t *testing.T, mirror *url.URL, suite, name string) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	signed, index := filepath.Join(dir, "InRelease"), filepath.Join(dir, "Release")
	if err := os.WriteFile(signed, get(t, mirror.JoinPath("dists", suite, "InRelease")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gpgv", "-q", "--keyring", "/usr/share/keyrings/debian-archive-keyring.gpg", "--output", index, signed).CombinedOutput(); err != nil {
		t.Fatalf("gpgv: %v: %s", err, out)
	}
	release, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	data := get(t, mirror.JoinPath("dists", suite, name))
	sum := sha256.Sum256(data)
	if !regexp.MustCompile(`(?m)^ ` + hex.EncodeToString(sum[:]) + ` +\d+ ` + regexp.QuoteMeta(name) + `$`).Match(release) {
		return nil, fmt.Errorf("the signed index of %s knows another %s", suite, name)
	}
	return data, nil
}
