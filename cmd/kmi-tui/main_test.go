package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// The tests here use the program as its users do: the built binary, its flags, its exit codes.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "kmi-test")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "kmi-tui")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s", out)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// user is somebody with a home of their own.
type user struct {
	t    *testing.T
	home string
	env  []string
}

func newUser(t *testing.T) *user { return &user{t: t, home: t.TempDir()} }

// command prepares a call of the program from the repository's folder.
func (u *user) command(args ...string) *exec.Cmd {
	c := exec.Command(binary, args...)
	c.Dir = "../.."
	c.Env = append(os.Environ(), "HOME="+u.home, "XDG_CACHE_HOME=", "XDG_CONFIG_HOME=", "CI=true", "GITHUB_ACTIONS=", "COSIGN_PASSWORD=", "COSIGN_PRIVATE_KEY=")
	c.Env = append(c.Env, u.env...)
	return c
}

// run calls the program and returns what it printed and its exit code.
func (u *user) run(args ...string) (stdout, stderr string, code int) {
	u.t.Helper()
	c := u.command(args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		u.t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// want runs the program and checks its exit code and what it says.
func (u *user) want(code int, says string, args ...string) (stdout, stderr string) {
	u.t.Helper()
	stdout, stderr, got := u.run(args...)
	if got != code || !strings.Contains(stdout+stderr, says) {
		u.t.Errorf("kmi-tui %s: exit code %d, want %d, and %q in:\n%s%s", strings.Join(args, " "), got, code, says, stdout, stderr)
	}
	return stdout, stderr
}

// A terminal that never answers: a program that asks it something would wait, and leave its question in the output.
func TestOnATerminalThatNeverAnswers(t *testing.T) {
	u := newUser(t)
	warm := []string{"--batch", "--plan", "--only", "debian:12/x86_64"}
	if out, errs, code := u.run(warm...); code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	for _, args := range [][]string{{"--version"}, {"chart"}, warm} {
		best := time.Hour
		for range 3 { // the machine may be busy: the best of three counts
			c := u.command(args...)
			began := time.Now()
			tty, err := pty.Start(c)
			if err != nil {
				t.Fatal(err)
			}
			out, _ := io.ReadAll(tty)
			_ = c.Wait()
			best = min(best, time.Since(began))
			_ = tty.Close()
			if len(out) == 0 || bytes.ContainsRune(out, 0x1b) {
				t.Errorf("%v printed %q", args, out)
			}
		}
		t.Logf("%v: %s", args, best)
		if best > 3*time.Second { // usually less than 0.2 s; who asks a terminal waits five for its answer
			t.Errorf("%v took %s", args, best)
		}
	}
}

func TestChartAndCheck(t *testing.T) {
	u := newUser(t)
	u.want(0, "20 flavors, no mistakes", "check")
	markdown, _ := u.want(0, "[Debian]:https://www.debian.org", "chart", "--output", "markdown")
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "\n"+markdown+"<!-- chart:end -->") {
		t.Error("README.md does not hold the chart byte for byte")
	}
	u.want(0, "Fedora CoreOS", "chart")
	u.want(2, "--output yaml: write one of text, markdown, json", "chart", "--output", "yaml")

	dir := t.TempDir()
	catalogue, err := os.ReadFile("../../distros.toml")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad := write("distros.toml", strings.Replace(regexp.MustCompile(`(?m)^id( *)= "debian"`).ReplaceAllString(string(catalogue), `id$1= "../debian"`), `"planned"`, `"someday"`, 1))
	_, said := u.want(2, `"someday" is not a level`, "check", "--catalog", bad)
	if !strings.Contains(said, bad+":") || !strings.Contains(said, `"../debian"`) {
		t.Errorf("check says: %s", said)
	}
	u.want(2, bad+":", "--batch", "--catalog", bad)
	good := write("distros.toml", string(catalogue))
	write("README.md", strings.Replace(string(readme), "| [VyOS] ", "| [VyOs] ", 1))
	u.want(2, "differs from", "check", "--catalog", good)
	u.want(2, "no such file", "check", "--catalog", filepath.Join(dir, "none.toml"))
}

func TestWrongUsageStartsNothing(t *testing.T) {
	u := newUser(t)
	for _, c := range []struct {
		says string
		args []string
	}{
		{`selector "debain" fits nothing in distros.toml; its flavors are: almalinux, alpine,`, []string{"--batch", "--only", "debain"}},
		{`debian:12/x86_64`, []string{"--batch", "--only", "debian:11"}},
		{`selector "debian:": write FLAVOR`, []string{"--batch", "--only", "debian:"}},
		{`level "beta": write one of planned`, []string{"--batch", "--level", "beta"}},
		{`stage "boot": write one of resolve, fetch`, []string{"--batch", "--until", "boot"}},
		{`unknown flag: --frobnicate`, []string{"--frobnicate"}},
		{`nothing says to which level`, []string{"promote", "debian"}},
		{`unknown command "bulid"`, []string{"bulid"}},
		{`the console needs a terminal`, nil},
		{`what to do: without one, use --batch`, nil},
		{`none of the selected targets can be built: pfsense: not supported yet: its unattended installation`, []string{"--batch", "--only", "pfsense:2.8.1"}},
		{`none of the selected targets can be built: neutrino: nothing upstream: upstream never published a release`, []string{"--batch", "--only", "neutrino"}},
		{`mirror "x": write FROM=TO`, []string{"--batch", "--mirror", "x"}},
		{`does not name a registry`, []string{"--batch", "--registry", "https://x/y"}},
		{`signing with awskms://x is not supported yet`, []string{"--batch", "--only", "debian:12", "--key", "awskms://x"}},
		{`signing key: stat /nonexistent/key`, []string{"--batch", "--only", "debian:12", "--key", "/nonexistent/key"}},
		{`there is no public key to verify with`, []string{"verify", "dir:x/debian:12"}},
	} {
		u.want(2, c.says, c.args...)
	}
	u.env = []string{"KMI_JOBS=many"}
	u.want(2, "KMI_JOBS", "--batch")
	if entries, _ := os.ReadDir(filepath.Join(u.home, ".config")); len(entries) > 0 {
		t.Errorf("something was configured: %v", entries)
	}
}

func TestMissingProgramsAreNamedBeforeAnythingStarts(t *testing.T) {
	bin := t.TempDir()
	programs, _ := filepath.Glob("/usr/bin/*")
	for _, p := range programs {
		if name := filepath.Base(p); !strings.HasPrefix(name, "qemu") && name != "mmdebstrap" {
			_ = os.Symlink(p, filepath.Join(bin, name))
		}
	}
	u := newUser(t)
	u.env = []string{"PATH=" + bin}
	u.want(2, "mmdebstrap is not installed", "doctor")
	stdout, stderr := u.want(2, "what to do: apt-get install --no-install-recommends mmdebstrap", "--batch", "--only", "debian:12", "--registry", "dir:"+filepath.Join(u.home, "images"))
	for _, word := range []string{"qemu-utils", "qemu-system-x86"} {
		if !strings.Contains(stderr, word) {
			t.Errorf("%s is not named in %s", word, stderr)
		}
	}
	if strings.Contains(stdout+stderr, "resolve") && strings.Contains(stderr, "done") {
		t.Errorf("something was started: %s", stderr)
	}
	// What needs none of them still works.
	u.want(0, "done up to resolve, as asked", "--batch", "--only", "debian:12", "--until", "resolve")
}

func TestWrongPassphrase(t *testing.T) {
	u := newUser(t)
	pair, err := trust.GenerateKey(u.home, []byte("right"))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--batch", "--only", "debian:12", "--key", pair.Private, "--registry", "dir:" + filepath.Join(u.home, "images")}
	u.want(2, "set COSIGN_PASSWORD", args...)
	u.env = []string{"COSIGN_PASSWORD=wrong"}
	_, said := u.want(2, "the passphrase does not open it", args...)
	if strings.Contains(said, "resolve") {
		t.Errorf("something was started: %s", said)
	}
}

func TestNoNetwork(t *testing.T) {
	u := newUser(t)
	nowhere := "http://deb.debian.org/=http://127.0.0.1:1/"
	out, said := u.want(1, "the archive cannot be reached", "--batch", "--only", "debian:12", "--mirror", nowhere, "--registry", "dir:"+filepath.Join(u.home, "images"))
	if !strings.Contains(out, "FAILED    debian:12/x86_64: resolve:") || !strings.Contains(out, "what to do: check the network and that") {
		t.Errorf("%s%s", out, said)
	}
	out, _ = u.want(1, `"action":"fail"`, "--batch", "--plan", "--output", "json", "--only", "debian:12/x86_64", "--mirror", nowhere)
	var p engine.Plan
	if err := json.Unmarshal([]byte(out), &p); err != nil || p.Target != "debian:12/x86_64" || p.Upstream != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestRegistryDown(t *testing.T) {
	u := newUser(t)
	out, _ := u.want(1, "cannot reach 127.0.0.1:1", "--batch", "--only", "debian:12", "--registry", "127.0.0.1:1/kmi")
	if !strings.Contains(out, "what to do: check the name, the network and that the registry runs") {
		t.Error(out)
	}
}

// A base image that cannot be had is said before the disk is made, not after.
func TestBaseImageIsLookedForFirst(t *testing.T) {
	u := newUser(t)
	out, progress := u.want(1, "fetch: base image 127.0.0.1:1/none", "--batch", "--only", "debian:12/x86_64", "--base", "127.0.0.1:1/none", "--registry", "dir:"+filepath.Join(u.home, "images"))
	if !strings.Contains(out, "what to do: check that 127.0.0.1:1 can be reached, name another with --base") || strings.Contains(progress, " customise ") {
		t.Error(out, progress)
	}
}

// Nor is a disk made for a registry that does not let us in.
func TestReadOnlyTokenIsNoticedFirst(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"pull only"}]}`)
		case r.URL.Path != "/v2/":
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	u := newUser(t)
	out, progress := u.want(1, "fetch: "+strings.TrimPrefix(s.URL, "http://")+"/kmi/debian does not let us in (403 Forbidden, DENIED: pull only)",
		"--batch", "--only", "debian:12/x86_64", "--base", "scratch", "--registry", strings.TrimPrefix(s.URL, "http://")+"/kmi")
	if !strings.Contains(out, "what to do: log in with an account that has the right") || strings.Contains(progress, " customise ") {
		t.Error(out, progress)
	}
}

func TestPlanAsJSON(t *testing.T) {
	u := newUser(t)
	out, _ := u.want(0, "", "--batch", "--plan", "--only", "debian", "--output", "json", "--registry", "dir:"+filepath.Join(u.home, "images"))
	seen := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var p map[string]any
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for _, k := range []string{"target", "action", "reason", "upstream", "published"} {
			if _, ok := p[k]; !ok {
				t.Errorf("%q is missing in %s", k, line)
			}
		}
		seen[p["target"].(string)] = p["action"].(string)
		if u, ok := p["upstream"].(map[string]any); ok {
			for _, k := range []string{"url", "size", "date", "build", "checksum", "signature"} {
				if u[k] == nil || u[k] == "" {
					t.Errorf("upstream's %q is missing in %s", k, line)
				}
			}
		}
	}
	if seen["debian:12/x86_64"] != "build" || seen["debian:13/x86_64"] != "build" || seen["debian:13/arm64"] != "none" {
		t.Errorf("%v", seen)
	}
	if entries, _ := os.ReadDir(filepath.Join(u.home, "images")); len(entries) > 0 {
		t.Error("a plan wrote into the registry")
	}
	if entries, _ := os.ReadDir(filepath.Join(u.home, ".config")); len(entries) > 0 {
		t.Error("a plan made a key")
	}
}

// Every upstream is asked through a mirror; what it has of a row is in the plan, and what is wrong with one row is that
// row's alone.
func TestPlanThroughAMirror(t *testing.T) {
	recorded := upstream.Recorded{FS: os.DirFS("../../internal/engine/upstream/testdata/recorded")}
	var down atomic.Bool
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		r.URL.Host, r.URL.Path = host, "/"+rest
		resp, err := recorded.RoundTrip(r)
		if err != nil || down.Load() {
			http.NotFound(w, r)
			return
		}
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
	defer mirror.Close()
	u := newUser(t)
	args := []string{"--batch", "--plan", "--only", "amazonlinux,neutrino,pfsense", "--mirror", "https://=" + mirror.URL + "/", "--registry", "dir:" + filepath.Join(u.home, "images")}
	out, _ := u.want(0, "", args...)
	for _, want := range []string{"amazonlinux:2023/x86_64  ", "2023.12.20260909.0, of 2026-09-09, 1.9 GiB, checksum over TLS only",
		"amazonlinux:2 ", "left out: end of life since 2026-06-30", "neutrino ", "nothing upstream: upstream never published a release", "restricted: the EULA", "1 to build, 4 with nothing to do, 0 that cannot be decided"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	u.want(0, "done up to resolve", "--batch", "--until", "resolve", "--only", "amazonlinux:2023", "--mirror", "https://="+mirror.URL+"/")
	// A contributor records a row's answers; later the description is tried against them.
	rec := filepath.Join(u.home, "recorded")
	u.want(0, "1 of 1 descriptions of upstreams fit", "check", "amazonlinux", "--record", "--recorded", rec, "--mirror", "https://="+mirror.URL+"/")
	u.want(0, "amazonlinux:2023/x86_64: 2023.12.20260909.0, https://cdn.amazonlinux.com/", "check", "amazonlinux", "--verbose", "--recorded", rec)
	u.want(0, "rocky: not tried: https://dl.rockylinux.org/pub/rocky/: it is not recorded", "check", "rocky", "--recorded", rec)
	u.want(2, `has no flavor "nobody"`, "check", "nobody")
	down.Store(true)
	out, _ = u.want(1, "", args...)
	if !strings.Contains(out, "404 Not Found") || !strings.Contains(out, "nothing upstream") {
		t.Errorf("%s", out)
	}
}

// running is the program at work, its events read as they come.
type running struct {
	*exec.Cmd
	t      *testing.T
	events *bufio.Scanner
	stderr bytes.Buffer
}

// start starts the program with NDJSON output.
func (u *user) start(args ...string) *running {
	u.t.Helper()
	r := &running{Cmd: u.command(append(args, "--output", "json")...), t: u.t}
	out, err := r.StdoutPipe()
	if err != nil {
		u.t.Fatal(err)
	}
	r.Stderr = &r.stderr
	if err := r.Start(); err != nil {
		u.t.Fatal(err)
	}
	r.events = bufio.NewScanner(out)
	r.events.Buffer(nil, 1<<20)
	u.t.Cleanup(func() { _ = r.Process.Kill() })
	return r
}

// until reads events up to one that fits.
func (r *running) until(what string, fits func(engine.Event) bool) engine.Event {
	r.t.Helper()
	for r.events.Scan() {
		var e engine.Event
		if err := json.Unmarshal(r.events.Bytes(), &e); err == nil && fits(e) {
			return e
		}
	}
	r.t.Fatalf("the program ended before %s: %s", what, r.stderr.String())
	return engine.Event{}
}

// end reads the rest and returns the exit code; it must come soon.
func (r *running) end(within time.Duration) (code int, rest []engine.Event) {
	r.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), within+time.Minute)
	defer cancel()
	context.AfterFunc(ctx, func() { _ = r.Process.Kill() })
	for r.events.Scan() {
		var e engine.Event
		if json.Unmarshal(r.events.Bytes(), &e) == nil {
			rest = append(rest, e)
		}
	}
	_ = r.Wait()
	if took := time.Since(began); took > 3*within { // a machine that does much else at once is given time
		r.t.Errorf("it took %s to end, want at most %s", took, within)
	}
	return r.ProcessState.ExitCode(), rest
}

// gone checks that nothing of a run is left: no processes that mention its home, no work folders, no mounts.
func (u *user) gone() {
	u.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		var left []string
		procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range procs {
			data, _ := os.ReadFile(p)
			if line := strings.ReplaceAll(string(data), "\x00", " "); strings.Contains(line, u.home) && !strings.Contains(line, "-test.") {
				left = append(left, line)
			}
		}
		mounts, _ := os.ReadFile("/proc/mounts")
		if strings.Contains(string(mounts), u.home+"/.cache") {
			left = append(left, "a mount")
		}
		loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
		for _, l := range loops {
			if data, _ := os.ReadFile(l); strings.Contains(string(data), u.home) {
				left = append(left, "a loop device of "+string(data))
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			u.t.Fatalf("left behind: %q", left)
		}
		time.Sleep(10 * time.Millisecond) // the kernel takes its time to reap killed processes
	}
}

func (u *user) workFolders() []string {
	entries, _ := os.ReadDir(filepath.Join(u.home, ".cache/kmi-tui/work"))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func signal(t *testing.T, r *running, s syscall.Signal) {
	t.Helper()
	if err := r.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func TestCacheCommand(t *testing.T) {
	u := newUser(t)
	u.want(2, "the first run makes it; name another folder with --cache DIR", "cache")
	dir := filepath.Join(u.home, ".cache/kmi-tui")
	blob := strings.Repeat("ab", 32)
	old := time.Now().AddDate(0, 0, -40)
	for path, data := range map[string]string{
		"blobs/sha256/ab/" + blob: "a package", "downloads/x.part": "half a disk", "downloads/x.part.json": `{"url":"https://example.org/\u001b[31mdisk.iso"}`,
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := u.want(0, "1 files that disks are built from", "cache")
	if !strings.Contains(out, "https://example.org/disk.iso") || !strings.Contains(out, "40 days ago") || !strings.Contains(out, "total") || strings.Contains(out, "\x1b") {
		t.Errorf("%s", out)
	}
	u.want(2, "--older 3: write hours, days or weeks: 12h, 30d, 8w", "cache", "prune", "--older", "3")
	u.want(2, "--keep", "cache", "prune", "--keep", "much")
	u.want(2, "--output yaml: write one of text, json", "cache", "--output", "yaml")
	u.want(2, "there is no cache", "cache", "prune", "--cache", filepath.Join(u.home, "elsewhere"))
	u.want(0, "nothing to remove", "cache", "prune", "--older", "8w")
	u.want(0, "nothing was removed: --dry-run", "cache", "prune", "--dry-run")
	var result struct {
		Cache   string                            `json:"cache"`
		Removed []struct{ Kind, Path, Of string } `json:"removed"`
		Total   int64                             `json:"total"`
		DryRun  bool                              `json:"dry_run"`
	}
	out, _ = u.want(0, "", "cache", "prune", "--output", "json")
	if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.Removed) != 2 || result.Total == 0 || result.DryRun || result.Cache != dir {
		t.Errorf("%v: %s", err, out)
	}
	for _, name := range []string{"blobs/sha256/ab/" + blob, "downloads/x.part", "downloads/x.part.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there", name)
		}
	}
	u.want(0, `"entries": []`, "cache", "-o", "json")
}
