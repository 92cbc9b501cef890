package upstream

import (
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
)

// What distributions really published is read as it is meant: see testdata/SOURCES.md.
func TestTrueFiles(t *testing.T) {
	folder := os.DirFS("testdata/true")
	read := func(name string) []byte {
		t.Helper()
		data, err := fs.ReadFile(folder, name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	now := time.Date(2026, 10, 15, 0, 0, 0, 0, time.UTC)
	t.Run("checksums", func(t *testing.T) {
		seen := 0
		err := fs.WalkDir(folder, ".", func(name string, d fs.DirEntry, err error) error {
			base := path.Base(name)
			if err != nil || d.IsDir() || !(strings.Contains(strings.ToUpper(base), "CHECKSUM") || strings.Contains(strings.ToLower(base), "sha256")) || strings.HasSuffix(base, ".asc") || strings.HasSuffix(base, ".gpg") {
				return err
			}
			seen++
			table, err := integrity.ParseTable(read(name))
			if err != nil || len(table.Names()) == 0 {
				t.Errorf("%s: %v", name, err)
				return nil
			}
			for _, n := range table.Names() {
				if _, err := table.Sum(n); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			return nil
		})
		if err != nil || seen < 12 {
			t.Errorf("%d files, %v", seen, err)
		}
	})
	t.Run("single sums", func(t *testing.T) {
		for name, want := range map[string][2]string{
			"repo.almalinux.org/almalinux/10/cloud/x86_64/images/CHECKSUM":                                       {"AlmaLinux-10-GenericCloud-10.2-20260526.0.x86_64.qcow2", "47f2218668dd4776be140dd92fa3bea700be1766e2c7d88bdfd6a4b50f477b4d"},
			"pkg.opnsense.org/releases/26.7/OPNsense-26.7-checksums-amd64.sha256":                                {"OPNsense-26.7-nano-amd64.img.bz2", "28d5e2f37e40d87468a924e3006ef10e2ddc6de485b85333d9e3958c84d0cb9d"},
			"dl.rockylinux.org/pub/rocky/9/images/x86_64/Rocky-9-GenericCloud-Base.latest.x86_64.qcow2.CHECKSUM": {"Rocky-9-GenericCloud-Base.latest.x86_64.qcow2", "92c206cc6f790c61583247eefe87890f8828420662c17cacf247cec78ab4eec8"},
		} {
			table, err := integrity.ParseTable(read(name))
			if err != nil {
				t.Fatal(err)
			}
			if sum, err := table.Sum(want[0]); err != nil || sum.Hex != want[1] {
				t.Errorf("%s: %s, %v", name, sum, err)
			}
		}
		table, _ := integrity.ParseTable(read("dl.rockylinux.org/pub/rocky/9/images/x86_64/Rocky-9-GenericCloud-Base.latest.x86_64.qcow2.CHECKSUM"))
		if n, ok := table.Size("Rocky-9-GenericCloud-Base.latest.x86_64.qcow2"); !ok || n != 645988352 {
			t.Errorf("%d, %v", n, ok)
		}
	})
	t.Run("signatures", func(t *testing.T) {
		ring := integrity.Pinned()
		for name, key := range map[string]string{
			"cloud-images.ubuntu.com/releases/noble/release-20260725/SHA256SUMS .gpg":                                                "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81",
			"download.opensuse.org/distribution/leap/16.0/appliances/Leap-16.0-Minimal-VM.aarch64-Cloud-Build18.7.qcow2.sha256 .asc": "AD485664E901B867051AB15F35A2F86E29B700A4",
		} {
			file, ext, _ := strings.Cut(name, " ")
			signer, err := ring.Verify(integrity.OpenPGP, read(file+ext), read(file), []string{key}, now)
			if err != nil || signer != key {
				t.Errorf("%s: %q, %v", file, signer, err)
			}
			if _, err := ring.Verify(integrity.OpenPGP, read(file+ext), append(read(file), ' '), []string{key}, now); err == nil {
				t.Errorf("%s: a changed file is accepted", file)
			}
		}
		const fedora = "download.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/aarch64/images/Fedora-Cloud-44-1.7-aarch64-CHECKSUM"
		text, signer, err := ring.Open(integrity.OpenPGP, read(fedora), []string{"36F612DCF27F7D1A48A835E4DBFCF71C6D9F90A6"}, now)
		if err != nil || signer == "" || !strings.Contains(string(text), "SHA256 (Fedora-Cloud-Base-Generic-44-1.7.aarch64.qcow2) = ") || strings.Contains(string(text), "BEGIN PGP") {
			t.Errorf("%q, %v: %s", signer, err, text)
		}
	})
	t.Run("listings", func(t *testing.T) {
		for name, want := range map[string]string{
			"cdn.openbsd.org/pub/OpenBSD/index.html":                         "7.7",
			"ftp.lysator.liu.se/pub/OpenBSD/index.html":                      "snapshots",
			"cloud.debian.org/images/cloud/index.html":                       "trixie",
			"cloud-images.ubuntu.com/noble/20250430/index.html":              "SHA256SUMS",
			"repo.almalinux.org/almalinux/10.3-beta/isos/aarch64/index.html": "CHECKSUM",
			"channels.nixos.org/index.xml":                                   "nixos-26.05",
		} {
			address := "https://" + strings.TrimSuffix(strings.TrimSuffix(name, "index.html"), "index.xml")
			list, err := entries(&Document{URL: address, From: address, Body: read(name)})
			found, dated := false, false
			for _, e := range list {
				found = found || e.Name == want
				dated = dated || !e.Date.IsZero()
			}
			if err != nil || !found || !dated {
				t.Errorf("%s: %v, %d entries, %s: %v, with dates: %v", name, err, len(list), want, found, dated)
			}
		}
	})
	t.Run("documents", func(t *testing.T) {
		for name, program := range map[string]string{
			"fedoraproject.org/releases.json":                                                                `.[] | select(.variant == "Cloud") | {version, link, sha256, size}`,
			"builds.coreos.fedoraproject.org/streams/stable.json":                                            `.architectures.x86_64.artifacts.qemu | {build: .release} + (.formats["qcow2.xz"].disk | {url: .location, sha256, signature})`,
			"raw.githubusercontent.com/vyos/vyos-nightly-build/refs/heads/current/version.json":              `.[] | {build: .version, date: .timestamp, url}`,
			"raw.githubusercontent.com/openshift/installer/release-4.22/data/data/coreos/coreos-rhel-9.json": `.architectures.aarch64.artifacts.qemu | {build: .release} + (.formats["qcow2.gz"].disk | {url: .location, sha256})`,
			"cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.json":                  `.items[] | select(.kind == "Upload") | {digest: .metadata.annotations["cloud.debian.org/digest"]}`,
			"endoflife.date/api/nodejs.json":                                                                 `.[] | {cycle, eol}`,
		} {
			found, err := answers(t.Context(), &Document{Body: read(name)}, program, nil)
			if err != nil || len(found) == 0 || len(found[0].values) == 0 {
				t.Errorf("%s: %d objects, %v", name, len(found), err)
				continue
			}
			for _, field := range []string{"sha256", "digest"} {
				if v := found[0].values[field]; v != "" {
					if sum, err := integrity.ParseDigest(v, ""); err != nil {
						t.Errorf("%s: %s %v", name, sum, err)
					}
				}
			}
		}
	})
}
