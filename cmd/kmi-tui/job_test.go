package main_test

import (
	"archive/tar"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// crowd is how many times longer work may take that keeps every processor busy, because others of this machine work, too:
// runnable processes of the last minute, three for each two processors being our own.
func crowd() float64 {
	var load float64
	if data, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(data), &load)
	}
	return max(1, load/float64(runtime.NumCPU())/1.5)
}

// The main job on real guests: built from the distribution's archive, booted, signed, published, verified. Minutes, so
// these are left out by -short. One user goes through it all, as far as possible with one cache.
func TestTheMainJob(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	u := newUser(t)
	images := filepath.Join(u.home, "images")
	common := []string{"--batch", "--only", "debian:12", "--base", "built"}
	toFolder := append(common, "--registry", "dir:"+images)
	said := func(format string, args ...any) { t.Logf(format, args...); fmt.Printf("    "+format+"\n", args...) }

	// Interrupted and killed wherever it can be, on the way to the first image. Each run goes on where the last stopped.
	t.Run("interrupted", func(t *testing.T) {
		for _, c := range []struct {
			stage string
			line  string // wait for a log line with this, so that the stage is in the middle of its work
			sig   syscall.Signal
		}{
			{"resolve", "", syscall.SIGINT},
			{"fetch", "verified", syscall.SIGINT},
			{"fetch", "verified", syscall.SIGKILL},
			{"customise", "Unpacking ", syscall.SIGINT},
			{"customise", "Setting up ", syscall.SIGKILL},
		} {
			said("%s during %s", c.sig, c.stage)
			r := u.start(toFolder...)
			r.until(c.stage+" is at work", func(e engine.Event) bool {
				return e.Stage == c.stage && (c.line == "" && e.Kind == event.Started || c.line != "" && e.Kind == event.Log && strings.Contains(e.Line, c.line))
			})
			signal(t, r, c.sig)
			code, _ := r.end(10 * time.Second)
			if c.sig == syscall.SIGINT && code != 1 {
				t.Errorf("%s: exit code %d, want 1: %s", c.stage, code, r.stderr.String())
			}
			u.gone()
			if left := u.workFolders(); c.sig == syscall.SIGINT && len(left) > 0 {
				t.Errorf("%s: left in the cache: %v", c.stage, left)
			}
			if _, err := os.Stat(filepath.Join(images, "debian", "index.json")); err == nil {
				t.Fatal("something was published")
			}
		}
	})

	// Goes on, and is interrupted once more while it packs, and while the guest boots.
	r := u.start(toFolder...)
	built := r.until("the disk is there", func(e engine.Event) bool { return e.Stage == "customise" && e.Kind.Ends() })
	if built.Kind != event.Finished {
		t.Fatalf("%+v", built)
	}
	said("%s", built)
	r.until("pack has begun", func(e engine.Event) bool { return e.Stage == "pack" && e.Kind == event.Started })
	signal(t, r, syscall.SIGINT)
	if code, _ := r.end(10 * time.Second); code != 1 {
		t.Errorf("exit code %d", code)
	}
	u.gone()
	r = u.start(toFolder...)
	r.until("the guest's kernel is there", func(e engine.Event) bool { return e.Stage == "test" && strings.Contains(e.Line, "Linux version") })
	if left := u.workFolders(); len(left) == 0 {
		t.Error("the boot test works nowhere")
	}
	signal(t, r, syscall.SIGINT)
	if code, _ := r.end(10 * time.Second); code != 1 {
		t.Errorf("exit code %d", code)
	}
	u.gone()
	if left := u.workFolders(); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
	said("build, boot, sign, publish, verify")
	r = u.start(toFolder...)
	code, events := r.end(10 * time.Minute)
	if code != 0 {
		t.Fatalf("exit code %d: %s\n%v", code, r.stderr.String(), tail(events, 30))
	}
	stages := map[string]engine.Event{}
	for _, e := range events {
		if e.Stage != "" && e.Kind.Ends() {
			stages[e.Stage] = e
			said("%-9s %-8s %6.1f s  %s", e.Stage, e.Kind, e.Seconds, e.Reason)
		}
	}
	for stage, kind := range map[string]event.Kind{"resolve": event.Finished, "fetch": event.Skipped, "customise": event.Skipped, "pack": event.Finished,
		"test": event.Finished, "sign": event.Finished, "publish": event.Finished} {
		if stages[stage].Kind != kind {
			t.Errorf("%s: %s, want %s", stage, stages[stage].Kind, kind)
		}
	}
	if s, most := stages["test"].Seconds, 180*crowd(); s > most {
		t.Errorf("the boot test took %.0f s, want at most %.0f", s, most)
	}
	config := filepath.Join(u.home, ".config/kmi-tui")
	if info, err := os.Stat(filepath.Join(config, "cosign.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key that was made: %v, %v", info, err)
	}
	told := false
	for _, e := range events {
		told = told || strings.Contains(e.Line, "A signing key pair was generated for you")
	}
	if !told {
		t.Error("nobody was told that a key was made")
	}

	t.Run("the layout", func(t *testing.T) { theLayout(t, filepath.Join(images, "debian")) })

	t.Run("verified", func(t *testing.T) {
		u.want(0, "signature of linux/amd64", "verify", "dir:"+images+"/debian:12")
		stranger := newUser(t)
		if out, _, code := stranger.run("verify", "dir:"+images+"/debian:12"); code != 2 {
			t.Errorf("without a key: exit code %d: %s", code, out)
		}
		// One byte of the disk is changed.
		largest, size := "", int64(0)
		blobs, _ := filepath.Glob(filepath.Join(images, "debian/blobs/sha256/*"))
		for _, b := range blobs {
			if info, err := os.Stat(b); err == nil && info.Size() > size {
				largest, size = b, info.Size()
			}
		}
		f, err := os.OpenFile(largest, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 1)
		_, _ = f.ReadAt(b, size/2)
		_, _ = f.WriteAt([]byte{b[0] ^ 1}, size/2)
		u.want(1, "FAILED  contents of linux/amd64", "verify", "dir:"+images+"/debian:12")
		_, _ = f.WriteAt(b, size/2)
		u.want(0, "ok      contents of linux/amd64", "verify", "dir:"+images+"/debian:12")
	})

	t.Run("again with nothing changed", func(t *testing.T) {
		before := read(t, filepath.Join(images, "debian/index.json"))
		began := time.Now()
		out, errs := u.want(0, "nothing to do: content", toFolder...)
		took := time.Since(began)
		said("a second run took %s", took)
		if took > 3*time.Second {
			t.Errorf("it took %s, want at most 3 s", took)
		}
		for _, stage := range engine.Stages[1:] {
			if !strings.Contains(errs, fmt.Sprintf("%-9s - nothing", stage)) {
				t.Errorf("it does not say why %s had nothing to do: %s%s", stage, out, errs)
			}
		}
		if read(t, filepath.Join(images, "debian/index.json")) != before {
			t.Error("the layout was changed")
		}
	})

	t.Run("two at once", func(t *testing.T) {
		other := filepath.Join(u.home, "other")
		a, b := u.start(append(common, "--registry", "dir:"+other)...), u.start(append(common, "--registry", "dir:"+other)...)
		codeA, _ := a.end(time.Minute)
		codeB, _ := b.end(time.Minute)
		if codeA != 0 || codeB != 0 {
			t.Errorf("exit codes %d and %d: %s%s", codeA, codeB, a.stderr.String(), b.stderr.String())
		}
		u.want(0, "ok      contents of linux/amd64", "verify", "dir:"+other+"/debian:12")
	})

	t.Run("a real registry", func(t *testing.T) {
		host := registry(t)
		out, _ := u.want(0, "published", append(common, "--registry", host+"/kmi")...)
		said("%s", strings.TrimSpace(out))
		public, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(read(t, filepath.Join(config, "cosign.pub"))))
		if err != nil {
			t.Fatal(err)
		}
		verifier, err := signature.LoadVerifier(public, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		for _, tag := range []string{"12", "12-" + time.Now().UTC().Format("20060102")} {
			ref, err := name.ParseReference(host + "/kmi/debian:" + tag)
			if err != nil {
				t.Fatal(err)
			}
			// What `cosign verify --key` calls.
			sigs, _, err := cosign.VerifyImageSignatures(context.Background(), ref, &cosign.CheckOpts{SigVerifier: verifier, ClaimVerifier: cosign.SimpleClaimVerifier, IgnoreTlog: true, IgnoreSCT: true, Offline: true})
			if err != nil || len(sigs) != 1 {
				t.Errorf("cosign: %v, %d signatures", err, len(sigs))
			}
			index, err := remote.Index(ref)
			if err != nil {
				t.Fatal(err)
			}
			if digest := must(index.Digest()); !strings.Contains(read(t, filepath.Join(images, "debian/index.json")), digest.String()) {
				t.Errorf("the registry's index %s is another than the folder's", digest)
			}
		}
		u.want(0, "signature of the index", "verify", host+"/kmi/debian:12")
		u.want(0, "nothing to do", append(common, "--registry", host+"/kmi")...)

		t.Run("podman", func(t *testing.T) { pulls(t, host+"/kmi/debian:12", diskOf(t, u)) })
		t.Run("interrupted while publishing", func(t *testing.T) {
			for _, stage := range []string{"sign", "publish"} {
				slow, reached := stalling(t, host, stage)
				r := u.start(append(common, "--registry", slow+"/interrupted-"+stage)...)
				r.until(stage+" has begun", func(e engine.Event) bool { return e.Stage == stage && e.Kind == event.Started })
				<-reached
				signal(t, r, syscall.SIGINT)
				if code, _ := r.end(10 * time.Second); code != 1 {
					t.Errorf("%s: exit code %d: %s", stage, code, r.stderr.String())
				}
				u.gone()
				if tags, err := remote.List(must(name.NewRepository(host + "/interrupted-" + stage + "/debian"))); err == nil {
					for _, tag := range tags {
						if !strings.HasPrefix(tag, "sha256-") {
							t.Errorf("tag %s was made", tag)
						}
					}
				}
				u.want(0, "published", append(common, "--registry", host+"/interrupted-"+stage)...)
			}
		})
	})

	t.Run("the same bytes", func(t *testing.T) {
		// Built anew, in another folder, with another clock, language and umask: the same disk.
		first := diskOf(t, u)
		v := newUser(t)
		v.env = []string{"TZ=Asia/Tokyo", "LC_ALL=POSIX", "LANG=tr_TR.UTF-8"}
		if err := os.MkdirAll(filepath.Join(v.home, ".cache/kmi-tui"), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-rl", filepath.Join(u.home, ".cache/kmi-tui/blobs"), filepath.Join(v.home, ".cache/kmi-tui/")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		old := syscall.Umask(0o077)
		out, _, code := v.run("--batch", "--only", "debian:12", "--until", "customise")
		syscall.Umask(old)
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, out)
		}
		if second := diskOf(t, v); second != first {
			t.Errorf("disk sha256:%s, the first time sha256:%s", second, first)
		}
	})

	t.Run("the disk is full", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root to mount small file systems")
		}
		for _, size := range []string{"300m", "2g"} {
			dir := t.TempDir()
			if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "none", dir).CombinedOutput(); err != nil {
				t.Skipf("cannot mount: %s", out)
			}
			t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
			args := []string{"--batch", "--only", "debian:12", "--until", "customise", "--cache", dir}
			if size == "300m" { // too small from the start
				out, _ := u.want(1, "free space there, or choose another folder with --cache", args...)
				if !strings.Contains(out, "needs ") {
					t.Error(out)
				}
				continue
			}
			r := u.start(args...) // fills up half way
			r.until("packages are being unpacked", func(e engine.Event) bool { return e.Stage == "customise" && strings.Contains(e.Line, "Unpacking ") })
			filler, err := os.Create(filepath.Join(dir, "filler"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(filler, io.LimitReader(zeros{}, 4<<30))
			_ = filler.Close()
			code, events := r.end(2 * time.Minute)
			last := engine.Event{}
			for _, e := range events {
				if e.Stage == "customise" && e.Kind == event.Failed {
					last = e
				}
			}
			if code != 1 || !strings.Contains(last.Remedy, "free space there, or choose another folder with --cache") {
				t.Errorf("exit code %d: %+v", code, last)
			}
			_ = os.Remove(filler.Name())
			u.gone()
		}
	})
}

// The other release, all the way, with plain output.
func TestTheOtherRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	u := newUser(t)
	images := filepath.Join(u.home, "images")
	out, errs := u.want(0, "done      debian:13/x86_64: published", "--batch", "--only", "debian:13", "--base", "built", "--registry", "dir:"+images)
	fmt.Println(out)
	if !strings.Contains(errs, "debian:13/x86_64   test      ✓ done") {
		t.Errorf("%s", errs)
	}
	u.want(0, "ok      contents of linux/amd64", "verify", "dir:"+images+"/debian:13")
}

// theLayout checks what a user of the folder finds.
func theLayout(t *testing.T, dir string) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]v1.Hash{}
	for _, d := range m.Manifests {
		tags[d.Annotations["org.opencontainers.image.ref.name"]] = d.Digest
	}
	dated := "12-" + time.Now().UTC().Format("20060102")
	if tags["12"].Hex == "" || tags["12"] != tags[dated] {
		t.Fatalf("tags %v", tags)
	}
	inner, err := index.ImageIndex(tags["12"])
	if err != nil {
		t.Fatal(err)
	}
	im, err := inner.IndexManifest()
	if err != nil || len(im.Manifests) != 1 || im.Manifests[0].Platform.String() != "linux/amd64" {
		t.Fatalf("%v: %+v", err, im)
	}
	img, err := inner.Image(im.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	env := strings.Join(cfg.Config.Env, "\n")
	for _, want := range []string{"INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE=u1.medium", "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_PREFERENCE=debian"} {
		if !strings.Contains(env, want) {
			t.Errorf("%s is missing in %s", want, env)
		}
	}
	// The whole file system, as a container runtime would lay it out.
	root := t.TempDir()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	disks := 0
	for _, l := range layers {
		rc, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		tr := tar.NewReader(rc)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimSuffix(h.Name, "/")
			path := filepath.Join(root, name)
			switch h.Typeflag {
			case tar.TypeDir:
				if name == "disk" && (h.Mode != 0o555 || h.Uid != 107 || h.Gid != 107) {
					t.Errorf("/disk: %o %d:%d", h.Mode, h.Uid, h.Gid)
				}
				_ = os.MkdirAll(path, 0o755)
			case tar.TypeSymlink:
				_ = os.MkdirAll(filepath.Dir(path), 0o755)
				_ = os.Symlink(h.Linkname, path)
			default:
				if strings.HasPrefix(name, "disk/") {
					if disks++; h.Mode != 0o444 || h.Uid != 107 || h.Gid != 107 {
						t.Errorf("%s: %o %d:%d", name, h.Mode, h.Uid, h.Gid)
					}
				}
				_ = os.MkdirAll(filepath.Dir(path), 0o755)
				f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, os.FileMode(h.Mode&0o777|0o200))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(f, tr); err != nil {
					t.Fatal(err)
				}
				_ = f.Close()
			}
		}
		_ = rc.Close()
	}
	if disks != 1 {
		t.Errorf("%d files in /disk", disks)
	}
	var info struct {
		Format  string `json:"format"`
		Virtual int64  `json:"virtual-size"`
		Backing string `json:"backing-filename"`
	}
	files, _ := filepath.Glob(filepath.Join(root, "disk/*"))
	out, err := exec.Command("qemu-img", "info", "--output=json", files[0]).Output()
	if err != nil || json.Unmarshal(out, &info) != nil || info.Format != "qcow2" || info.Virtual != 10<<30 || info.Backing != "" {
		t.Errorf("%v: %s", err, out)
	}
	// entrypoint.sh, in the image's own base.
	enter := func(args ...string) (string, int) {
		c := exec.Command("chroot", append([]string{root, "/entrypoint.sh"}, args...)...)
		out, _ := c.CombinedOutput()
		return string(out), c.ProcessState.ExitCode()
	}
	if os.Geteuid() == 0 {
		if out, code := enter("release"); out != "12\n" || code != 0 {
			t.Errorf("entrypoint.sh release: %q, exit code %d", out, code)
		}
		all, code := enter()
		if code != 0 {
			t.Errorf("entrypoint.sh: exit code %d: %s", code, all)
		}
		for _, want := range []string{"https://www.debian.org/legal/licenses/", "https://wiki.debian.org/Cloud", "https://deb.debian.org/debian/", time.Now().UTC().Format("2006-01-02"), "sha256:"} {
			if !strings.Contains(all, want) {
				t.Errorf("%q is missing in %s", want, all)
			}
		}
		packages, _ := enter("packages")
		for _, want := range []string{"git ", "vim ", "tmux ", "net-tools ", "screenfetch ", "qemu-guest-agent "} {
			if !strings.Contains("\n"+packages, "\n"+want) {
				t.Errorf("%s is not among the packages", want)
			}
		}
		if out, code := enter("nonsense"); code != 2 {
			t.Errorf("entrypoint.sh nonsense: exit code %d: %s", code, out)
		}
		if out, _ := enter("licenses"); !strings.Contains(out, "GNU GENERAL PUBLIC LICENSE") {
			t.Error("the licence texts are missing")
		}
		if out, code := enter("json"); code != 0 || !json.Valid([]byte(out)) {
			t.Errorf("entrypoint.sh json: %s", out)
		}
	}
}

// diskOf is the SHA-256 of the one disk in a user's cache.
func diskOf(t *testing.T, u *user) string {
	t.Helper()
	disks, _ := filepath.Glob(filepath.Join(u.home, ".cache/kmi-tui/disks/*/disk.qcow2"))
	if len(disks) != 1 {
		t.Fatalf("disks %v", disks)
	}
	return sha256Of(t, disks[0])
}

// sha256Of is a file's SHA-256, hex.
func sha256Of(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func tail[T any](list []T, n int) []T { return list[max(0, len(list)-n):] }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// registry starts Debian's docker-registry on loopback and returns its address.
func registry(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("docker-registry is not installed")
	}
	for range 5 {
		l := must(net.Listen("tcp", "127.0.0.1:0"))
		address := l.Addr().String()
		_ = l.Close()
		config := filepath.Join(t.TempDir(), "config.yml")
		text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", t.TempDir(), address)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c := exec.Command("docker-registry", "serve", config)
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = c.Wait(); close(ended) }()
		t.Cleanup(func() { _ = c.Process.Kill(); <-ended })
		for {
			if resp, err := http.Get("http://" + address + "/v2/"); err == nil {
				_ = resp.Body.Close()
				return address
			}
			select {
			case <-ended: // the port was taken meanwhile
			case <-time.After(10 * time.Millisecond):
				continue
			}
			break
		}
	}
	t.Fatal("no registry could be started")
	return ""
}

// stalling is a proxy in front of a registry that stops answering at the first request of a stage: while signing, the
// question for signatures; while publishing, an upload.
func stalling(t *testing.T, host, stage string) (address string, reached chan struct{}) {
	reached = make(chan struct{}, 100)
	proxy := httputil.NewSingleHostReverseProxy(must(url.Parse("http://" + host)))
	director := proxy.Director
	proxy.Director = func(r *http.Request) { original := r.Host; director(r); r.Host = original }
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stall := stage == "publish" && (r.Method == http.MethodPatch || r.Method == http.MethodPut) ||
			stage == "sign" && strings.Contains(r.URL.Path, "/manifests/sha256-")
		if stall {
			reached <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body) // who hangs up is noticed only after the body
			<-r.Context().Done()
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), reached
}
