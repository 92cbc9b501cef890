package publish

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
)

// What a process of the benchmarks does: see TestBenchmarkProcess.
const (
	roleVariable = "KMI_BENCH_ROLE" // "sink", "plain", or the form of our layer
	diskVariable = "KMI_BENCH_DISK" // a qcow2; BenchmarkPull takes it from the user, too
	toVariable   = "KMI_BENCH_TO"   // HOST/PATH
)

// pushed is what a push cost.
type pushed struct {
	CPU   float64 // seconds of processors, of the pushing process
	Wall  float64 // seconds
	Peak  int64   // bytes of memory of that process
	Again float64 // seconds that the same image took as a new tag
	Anew  float64 // likewise, with the image made of its disk again
}

// TestBenchmarkProcess is a process of BenchmarkPush: a registry that reads and forgets, or somebody who pushes.
func TestBenchmarkProcess(t *testing.T) {
	role := os.Getenv(roleVariable)
	if role == "" {
		t.Skip("it is started by BenchmarkPush")
	}
	if role == "sink" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("listening", l.Addr())
		t.Fatal(http.Serve(l, discard()))
	}
	ctx := context.Background()
	began, cpu := time.Now(), used()
	p := pushed{}
	if role == "plain" {
		if err := pushPlainly(os.Getenv(diskVariable), os.Getenv(toVariable)+"/example:1"); err != nil {
			t.Fatal(err)
		}
		p.Wall, p.CPU = time.Since(began).Seconds(), used()-cpu
	} else {
		r := open(t, os.Getenv(toVariable), Options{})
		push := func(tag string, img v1.Image) {
			if img == nil {
				var err error
				if img, err = container.Build(container.Spec{Arch: catalog.X86_64, DiskPath: os.Getenv(diskVariable), Layer: container.Form(role), Work: t.TempDir()}); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(r.Push(ctx, img, nil), r.Tag(ctx, digest(t, img), tag)); err != nil {
				t.Fatal(err)
			}
		}
		img, err := container.Build(container.Spec{Arch: catalog.X86_64, DiskPath: os.Getenv(diskVariable), Layer: container.Form(role), Work: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		push("1", img)
		p.Wall, p.CPU = time.Since(began).Seconds(), used()-cpu
		began = time.Now()
		push("2", img)
		p.Again = time.Since(began).Seconds()
		began = time.Now()
		push("3", nil)
		p.Anew = time.Since(began).Seconds()
	}
	p.Peak = peak()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("pushed %s\n", text)
}

// used is the processor time of this process, seconds.
func used() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// peak is the most memory that this process ever had, bytes (proc(5), VmHWM).
func peak() int64 {
	data, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	n, _ := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
	return n << 10
}

// discard is a registry that reads everything, hashes nothing, and keeps manifests and the names of blobs.
func discard() http.Handler {
	var mu sync.Mutex
	blobs, manifests := map[string]bool{}, map[string][]byte{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 256<<10)
		var body []byte
		for {
			n, err := r.Body.Read(buf)
			if strings.Contains(r.URL.Path, "/manifests/") {
				body = append(body, buf[:n]...)
			}
			if err != nil {
				break
			}
		}
		mu.Lock()
		defer mu.Unlock()
		last := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		w.Header().Set("Location", r.URL.Path)
		switch {
		case r.URL.Path == "/v2/":
		case strings.Contains(r.URL.Path, "/manifests/") && r.Method == http.MethodPut:
			manifests[last] = body
			w.WriteHeader(http.StatusCreated)
		case strings.Contains(r.URL.Path, "/manifests/") && manifests[last] != nil:
			h, _, _ := v1.SHA256(bytes.NewReader(manifests[last]))
			w.Header().Set("Docker-Content-Digest", h.String())
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			_, _ = w.Write(manifests[last])
		case r.Method == http.MethodHead && blobs[last]:
		case r.Method == http.MethodPost:
			w.Header().Set("Location", r.URL.Path+"1")
			w.WriteHeader(http.StatusAccepted)
		case r.Method == http.MethodPatch:
			w.WriteHeader(http.StatusAccepted)
		case r.Method == http.MethodPut:
			blobs[r.URL.Query().Get("digest")] = true
			w.WriteHeader(http.StatusCreated)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
}

// pushPlainly is what most programs do: the library's layer of a tar archive, and its push.
func pushPlainly(disk, to string) error {
	info, err := os.Stat(disk)
	if err != nil {
		return err
	}
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "disk/disk.qcow2", Typeflag: tar.TypeReg, Mode: 0o444, Uid: 107, Gid: 107, Size: info.Size()}); err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		f, err := os.Open(disk)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head.Bytes()), f, bytes.NewReader(make([]byte, (512-info.Size()%512)%512+1024))), f}, nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(to)
	if err != nil {
		return err
	}
	return remote.Write(ref, img)
}

// start starts this program once more, in a role. What it says goes to each.
func start(b *testing.B, each func(line string), env ...string) *exec.Cmd {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^TestBenchmarkProcess$", "-test.timeout", "20m")
	cmd.Env, cmd.Stderr = append(append(os.Environ(), "TMPDIR="+b.TempDir()), env...), os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		each(lines.Text())
		if strings.HasPrefix(lines.Text(), "listening ") {
			return cmd
		}
	}
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	return cmd
}

// incompressible writes something with the header of a qcow2 that no compressor makes smaller.
func incompressible(b *testing.B, size int64) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "disk.qcow2")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	head := make([]byte, 104)
	copy(head, "QFI\xfb\x00\x00\x00\x03")
	binary.BigEndian.PutUint64(head[24:], 10<<30)
	_, err = f.Write(head)
	if err == nil {
		_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size-int64(len(head)))
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		b.Fatal(err)
	}
	return path
}

// BenchmarkPush pushes an incompressible disk of 1 GiB, from a process of its own to a registry in another one, beside what
// the library does by itself: to a registry that only reads, and to docker-registry.
func BenchmarkPush(b *testing.B) {
	if testing.Short() {
		b.Skip("takes a minute or two")
	}
	disk := incompressible(b, 1<<30)
	var sinkHost string
	sink := start(b, func(line string) { sinkHost, _ = strings.CutPrefix(line, "listening ") }, roleVariable+"=sink")
	defer func() { _ = sink.Process.Kill(); _ = sink.Wait() }()
	roles := []string{"plain", "none", "gzip", "zstd"}
	fmt.Printf("\n%-28s %8s %8s %10s %10s %16s\n", "1 GiB pushed", "CPU s", "wall s", "peak MiB", "new tag s", "from the disk s")
	for _, where := range []string{"the sink", "docker-registry"} {
		var plain pushed
		for _, role := range roles {
			b.Run(strings.ReplaceAll(where, " ", "-")+"/"+role, func(b *testing.B) {
				for b.Loop() {
					host := sinkHost
					if where != "the sink" {
						host = realRegistry(b, b.TempDir(), "")
					}
					var p pushed
					start(b, func(line string) {
						if text, ok := strings.CutPrefix(line, "pushed "); ok {
							if err := json.Unmarshal([]byte(text), &p); err != nil {
								b.Fatal(err)
							}
						}
					}, roleVariable+"="+role, diskVariable+"="+disk, toVariable+"="+host+"/kmi")
					if p.Wall == 0 {
						b.Fatal("nothing was pushed")
					}
					b.ReportMetric(p.CPU, "cpu-s")
					b.ReportMetric(float64(p.Peak)/(1<<20), "peak-MiB")
					what := "ours, " + role
					if role == "plain" {
						plain, what = p, "LayerFromOpener"
					}
					fmt.Printf("\n%-28s %8.2f %8.2f %10.1f", what+" to "+where, p.CPU, p.Wall, float64(p.Peak)/(1<<20))
					if role != "plain" {
						fmt.Printf(" %10.3f %16.2f   %.2f of the CPU, %.2f of the wall time of LayerFromOpener", p.Again, p.Anew, p.CPU/plain.CPU, p.Wall/plain.Wall)
					}
					fmt.Println()
				}
			})
		}
	}
}

// BenchmarkPull pulls the same disk in every form of its layer with podman: KMI_BENCH_DISK, or 256 MiB that no compressor
// makes smaller.
func BenchmarkPull(b *testing.B) {
	if testing.Short() {
		b.Skip("takes a minute or two")
	}
	if _, err := exec.LookPath("podman"); err != nil {
		b.Skip("podman is not installed: apt-get install --no-install-recommends podman")
	}
	disk := os.Getenv(diskVariable)
	if disk == "" {
		disk = incompressible(b, 256<<20)
	}
	info, err := os.Stat(disk)
	if err != nil {
		b.Fatal(err)
	}
	host := realRegistry(b, b.TempDir(), "")
	policy := filepath.Join(b.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		b.Fatal(err)
	}
	sizes := map[container.Form]int64{}
	for _, form := range container.Forms {
		img, err := container.Build(container.Spec{Arch: catalog.X86_64, DiskPath: disk, Layer: form, Work: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		r := must(must(Open(host+"/kmi", Options{})).Repository(string(form)))
		if err := errors.Join(r.Push(b.Context(), img, nil), r.Tag(b.Context(), digest(b, img), "1")); err != nil {
			b.Fatal(err)
		}
		for _, l := range must(img.Manifest()).Layers {
			sizes[form] += l.Size
		}
	}
	driver := ""
	pull := func(b *testing.B, form container.Form) (wall, cpu float64, err error) {
		dir := b.TempDir()
		podman := func(args ...string) *exec.Cmd {
			return exec.CommandContext(b.Context(), "podman", append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", driver}, args...)...)
		}
		defer func() { _ = podman("rmi", "--all", "--force").Run() }()
		began := time.Now()
		cmd := podman("pull", "--quiet", "--tls-verify=false", "--signature-policy", policy, host+"/kmi/"+string(form)+":1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, 0, fmt.Errorf("podman with %s: %w: %s", driver, err, out)
		}
		return time.Since(began).Seconds(), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), nil
	}
	var refused error
	for _, d := range []string{"overlay", "vfs"} {
		driver = d
		if _, _, err := pull(b, container.Plain); err == nil {
			refused = nil
			break
		} else if refused = errors.Join(refused, err); d == "vfs" {
			b.Fatal(refused)
		}
	}
	best, cpus := map[container.Form]float64{}, map[container.Form]float64{}
	b.Run(driver, func(b *testing.B) {
		for b.Loop() {
			for n := range 3 { // in turns, each of them first once, and the best of each: what else the machine does hits all alike
				for _, form := range slices.Concat(container.Forms[n:], container.Forms[:n]) {
					s, cpu, err := pull(b, form)
					if err != nil {
						b.Fatal(err)
					}
					if best[form] == 0 || s < best[form] {
						best[form], cpus[form] = s, cpu
					}
				}
			}
		}
		for _, form := range container.Forms {
			b.ReportMetric(best[form], string(form)+"-s")
		}
	})
	fmt.Printf("\n%-10s %10s %10s %10s   a disk of %.1f MB, podman with %s\n", "pulled", "MB sent", "wall s", "CPU s", float64(info.Size())/1e6, driver)
	for _, form := range container.Forms {
		fmt.Printf("%-10s %10.1f %10.2f %10.2f   %.2f of the wall time, %.2f of the CPU without compression\n", form, float64(sizes[form])/1e6, best[form], cpus[form],
			best[form]/best[container.Plain], cpus[form]/cpus[container.Plain])
	}
}
