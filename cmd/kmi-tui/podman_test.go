package main_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// podman is Debian's, with a storage of its own.
type podman struct {
	t    *testing.T
	args []string
}

func newPodman(t *testing.T) *podman {
	t.Helper()
	for _, name := range []string{"podman", "runc"} {
		if _, err := exec.LookPath(name); err != nil || os.Geteuid() != 0 {
			t.Skip("needs podman and runc, as root: apt-get install podman runc")
		}
	}
	run, err := os.MkdirTemp("", "pod") // podman takes no path of more than 50 characters
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	// crun refuses machines with both versions of cgroups.
	p := &podman{t, []string{"--runtime", "runc", "--root", filepath.Join(t.TempDir(), "root"), "--runroot", run, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"}}
	t.Cleanup(func() { _, _, _ = p.do("system", "reset", "--force") })
	return p
}

func (p *podman) do(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	c := exec.Command("podman", append(p.args, args...)...)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// run runs an image as its user would. Limits are ones that a machine without the right to raise its own has, too.
func (p *podman) run(flags []string, image string, args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	return p.do(append(append(append([]string{"run", "--rm", "--network=none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"}, flags...), image), args...)...)
}

// pulls takes an image from a registry, runs it as podman's and KubeVirt's users do, and takes its disk out again.
func pulls(t *testing.T, image, disk string) {
	p := newPodman(t)
	if out, errs, code := p.do("pull", "--tls-verify=false", image); code != 0 {
		t.Fatalf("podman pull: %s%s", out, errs)
	}
	if out, errs, code := p.run(nil, image); code != 0 || !strings.Contains(out, "\ndisk-sha256: "+disk+"\n") {
		t.Errorf("podman run IMAGE: %d: %s%s", code, out, errs)
	}
	for field, want := range map[string]string{"release": "12\n", "disk-sha256": disk + "\n"} {
		if out, errs, code := p.run(nil, image, field); out != want || code != 0 {
			t.Errorf("podman run IMAGE %s: %d: %s%s", field, code, out, errs)
		}
	}
	if out, errs, code := p.run(nil, image, "json"); code != 0 || !json.Valid([]byte(out)) {
		t.Errorf("podman run IMAGE json: %d: %s%s", code, out, errs)
	}
	if out, errs, code := p.run(nil, image, "nonsense"); code != 2 || out != "" || !strings.Contains(errs, "no such field: nonsense") {
		t.Errorf("podman run IMAGE nonsense: %d: %s%s", code, out, errs)
	}
	for what, flags := range map[string][]string{"by its old name": {"--entrypoint", "/entrypoint.sh"}, "without rights": {"--user", "107", "--cap-drop", "all", "--read-only"}} {
		if out, errs, code := p.run(flags, image, "release"); out != "12\n" || code != 0 {
			t.Errorf("podman run %s: %d: %s%s", what, code, out, errs)
		}
	}
	container, errs, code := p.do("create", "--network=none", image)
	if code != 0 {
		t.Fatal(errs)
	}
	root, errs, code := p.do("mount", strings.TrimSpace(container))
	if code != 0 {
		t.Fatal(errs)
	}
	root = strings.TrimSpace(root)
	for path, mode := range map[string]os.FileMode{"disk": os.ModeDir | 0o555, "disk/disk.qcow2": 0o444} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if at := info.Sys().(*syscall.Stat_t); info.Mode() != mode || at.Uid != 107 || at.Gid != 107 {
			t.Errorf("%s: %s of %d:%d", path, info.Mode(), at.Uid, at.Gid)
		}
	}
	if files, _ := os.ReadDir(filepath.Join(root, "disk")); len(files) != 1 {
		t.Errorf("%v", files)
	}
	if sum := sha256Of(t, filepath.Join(root, "disk/disk.qcow2")); sum != disk {
		t.Errorf("the disk in the image is %s, made was %s", sum, disk)
	}
}
