package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Promotions and snippets are shown first and written when somebody says so.
func TestPromoteAndTryMe(t *testing.T) {
	u := newUser(t)
	dir := t.TempDir()
	for _, name := range []string{"distros.toml", "README.md"} {
		data, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(must(filepath.Abs("../../deploy")), filepath.Join(dir, "deploy")); err != nil {
		t.Fatal(err)
	}
	catalogue := filepath.Join(dir, "distros.toml")
	common := []string{"--catalog", catalogue, "--registry", "dir:" + filepath.Join(u.home, "images")}
	want := func(code int, says string, args ...string) (string, string) {
		t.Helper()
		return u.want(code, says, append(args, common...)...)
	}
	before := read(t, catalogue)
	out, _ := want(1, "debian cannot be proposed yet: published is not met", "promote", "debian", "--to", "proposed")
	for _, s := range []string{"proven    described ", "failed    published ", "unproven  reliable ", "+level          = \"proposed\"", "+++ b/README.md"} {
		if !strings.Contains(out, s) {
			t.Errorf("%q is missing in\n%s", s, out)
		}
	}
	want(2, "a step down has a reason", "promote", "debian", "--to", "planned")
	want(2, `--state "reliable": write ID=TEXT`, "promote", "debian", "--to", "proposed", "--state", "reliable")
	want(2, "look with --dry-run, then say --yes", "promote", "debian", "--to", "planned", "--reason", "it broke")
	want(0, "", "promote", "debian", "--to", "planned", "--reason", "it broke", "--dry-run")
	if read(t, catalogue) != before {
		t.Error("something was written")
	}
	want(0, "debian is planned now", "promote", "debian", "--to", "planned", "--reason", "it broke", "--yes")
	u.want(0, "no mistakes; README.md holds the same chart", "check", "--catalog", catalogue)

	out, _ = want(0, "", "tryme", "debian:12")
	if !strings.Contains(out, "# debian is not published yet") || !strings.Contains(out, "image: quay.io/containercraft/kmi/debian:12\n") {
		t.Error(out)
	}
	want(0, "virtctl create vm --name=debian-12 ", "tryme", "debian:12", "--form", "command")
	want(0, "--volume-import=type:registry,url:docker://quay.io/containercraft/kmi/debian:12,size:10Gi", "tryme", "debian:12", "--form", "command")
	want(0, "dataVolumeTemplates:", "tryme", "debian:12", "--form", "keep")
	want(2, "write yaml, keep, command or readme", "tryme", "debian", "--form", "x")
	want(2, `selector "debain" fits nothing`, "tryme", "debain")
	want(2, "look with --dry-run, then say --yes", "tryme", "debian", "--write")
	want(0, "+<!-- kmi:tryme debian begin -->", "tryme", "debian", "--write", "--yes")
	want(0, "README.md has it already", "tryme", "debian", "--write", "--yes")
	u.want(0, "README.md holds the same chart", "check", "--catalog", catalogue)
}
