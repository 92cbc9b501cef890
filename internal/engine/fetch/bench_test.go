package fetch

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchProcess is the server or the fetch of the benchmark, each in a process of its own:
// KMI_BENCH="serve FOLDER" prints its address, KMI_BENCH="fetch CACHE URL SUM PACK" its peak memory and that of
// its largest child in KiB.
func benchProcess() {
	words := strings.Split(os.Getenv("KMI_BENCH"), " ")
	if words[0] == "serve" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		fmt.Printf("http://%s\n", l.Addr())
		panic(http.Serve(l, http.FileServer(http.Dir(words[1]))))
	}
	c, err := OpenCache(words[1])
	if err != nil {
		panic(err)
	}
	got, err := (&Fetcher{Cache: c}).Image(context.Background(), Image{URL: words[2], Sums: []string{"sha256:" + words[3]}, Pack: words[4]}, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(got.Size)
	status, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Println(strings.Fields(line)[1])
		}
	}
	var children syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children)
	fmt.Println(children.Maxrss)
	os.Exit(0)
}

// mixed writes n bytes as a disk has them: programs and documents, what is compressed already, and free space.
func mixed(w io.Writer, n int64) error {
	b := bufio.NewWriterSize(w, 1<<20)
	r := rand.New(rand.NewSource(1))
	words := make([][]byte, 4000)
	for i := range words {
		words[i] = make([]byte, 2+r.Intn(10))
		for k := range words[i] {
			words[i][k] = byte('a' + r.Intn(26))
		}
		words[i][0] = ' '
	}
	noise := make([]byte, 1<<20)
	for left := n; left > 0; left -= 4 << 20 {
		piece := bytes.NewBuffer(make([]byte, 0, 4<<20))
		for piece.Len() < 2<<20 { // text, and numbers as programs have them
			for range 200 {
				piece.Write(words[int(r.ExpFloat64()*300)%len(words)])
			}
			for range 60 {
				piece.Write([]byte{byte(r.Intn(8)), byte(r.Intn(256)), 0, 0, 0x48, 0x8b, byte(r.Intn(16)), 0x24})
			}
		}
		piece.Truncate(2 << 20)
		r.Read(noise)
		piece.Write(noise)
		piece.Write(make([]byte, 1<<20))
		if _, err := b.Write(piece.Bytes()[:min(left, 4<<20)]); err != nil {
			return err
		}
	}
	return b.Flush()
}

// BenchmarkImage downloads 1 GiB from a server on loopback and unpacks it, beside what a shell does: the same file, the
// same server, in turn. It reports both times in seconds, their ratio (below 1: faster than the shell), and the peak
// memory in MiB of the process that fetches and of the program that it starts. KMI_BENCH_MIB makes it smaller.
func BenchmarkImage(b *testing.B) {
	size := int64(1024)
	if v := os.Getenv("KMI_BENCH_MIB"); v != "" {
		if _, err := fmt.Sscan(v, &size); err != nil {
			b.Fatal(err)
		}
	}
	for _, tool := range []string{"curl", "xz", "bash", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skipf("%s is not installed", tool)
		}
	}
	dir := b.TempDir()
	plain := filepath.Join(dir, "disk.qcow2")
	f, err := os.Create(plain)
	if err != nil {
		b.Fatal(err)
	}
	if err := mixed(f, size<<20); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	for _, words := range []string{"xz -1 -T2 -c disk.qcow2 >disk.qcow2.xz", "xz -1 -c disk.qcow2 >one.qcow2.xz"} {
		c := exec.Command("sh", "-c", words)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("%s", out)
		}
	}
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), "KMI_BENCH=serve "+dir)
	out, err := server.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	url = strings.TrimSpace(url)
	for _, c := range []struct{ name, file, pack, shell string }{
		{"qcow2", "disk.qcow2", "", `set -eo pipefail; curl -s "$1" | tee >(sha256sum >"$2.sum") >"$2"`},
		{"xz", "disk.qcow2.xz", "xz", `set -eo pipefail; curl -s "$1" | tee >(sha256sum >"$2.sum") | xz -d >"$2"`},
		{"xz_of_one_block", "one.qcow2.xz", "xz", `set -eo pipefail; curl -s "$1" | tee >(sha256sum >"$2.sum") | xz -d >"$2"`},
	} {
		sum, err := exec.Command("sha256sum", filepath.Join(dir, c.file)).Output()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.name, func(b *testing.B) {
			var ours, shell time.Duration
			var memory, child float64
			for b.Loop() {
				work, err := os.MkdirTemp(dir, "run")
				if err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				if out, err := exec.Command("bash", "-c", c.shell, "-", url+"/"+c.file, filepath.Join(work, "disk")).CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
				shell += time.Since(began)
				_ = os.Remove(filepath.Join(work, "disk"))
				began = time.Now()
				p := exec.Command(os.Args[0])
				p.Env = append(os.Environ(), "KMI_BENCH="+strings.Join([]string{"fetch", filepath.Join(work, "cache"), url + "/" + c.file, string(sum[:64]), c.pack}, " "))
				p.Stderr = os.Stderr
				out, err := p.Output()
				ours += time.Since(began)
				var got int64
				var peak, peakChild float64
				if _, serr := fmt.Sscan(string(out), &got, &peak, &peakChild); err != nil || serr != nil || got != size<<20 {
					b.Fatalf("%v: %q", err, out)
				}
				memory, child = max(memory, peak/1024), max(child, peakChild/1024)
				_ = os.RemoveAll(work)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(ours.Seconds()/float64(b.N), "s/fetch")
			b.ReportMetric(shell.Seconds()/float64(b.N), "s/shell")
			b.ReportMetric(ours.Seconds()/shell.Seconds(), "ratio")
			b.ReportMetric(memory, "MiB-peak")
			b.ReportMetric(child, "MiB-peak-child")
		})
	}
}
