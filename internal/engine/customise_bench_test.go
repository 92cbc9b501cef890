package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/customise"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

// BenchmarkCustomise measures every way of customising beside the chain of tools that images like ours were made with
// before: virt-sparsify --in-place, virt-sysprep with the packages, virt-sparsify --compress. All of them get the same
// Debian disk, which is built first, without the default packages. It prints where the seconds go.
func BenchmarkCustomise(b *testing.B) {
	if testing.Short() {
		b.Skip("takes some minutes")
	}
	if os.Geteuid() != 0 {
		b.Skip("the fast way needs root")
	}
	ctx := b.Context()
	plain := plainDebian(b, "12")
	c, err := catalog.Load("../../distros.toml")
	if err != nil {
		b.Fatal(err)
	}
	flavor, release, err := c.Release("debian", "12")
	if err != nil {
		b.Fatal(err)
	}
	origin := &catalog.Origin{Kind: "image", Format: "qcow2", ArchNames: flavor.Origin.ArchNames, Boot: flavor.Origin.Boot,
		Customise: &catalog.Customise{Manager: "apt", Ways: catalog.Ways, Seed: "cloud-init", Trusted: "made here"}}
	type outcome struct {
		name    string
		seconds float64
		size    int64
		steps   []disk.Step
	}
	var outcomes []outcome
	var host customise.Host
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // what building the disk took is not counted (proc(5))
	cache := b.TempDir()
	for _, way := range catalog.Ways {
		if err := host.Can(ctx, way, machine.Host()); err != nil {
			b.Logf("%s: %v", way, err)
			continue
		}
		b.Run(way, func(b *testing.B) {
			for range b.N {
				dir := b.TempDir()
				began := time.Now()
				d, err := customise.Run(ctx, customise.Spec{Origin: origin, Manager: c.Managers["apt"], Release: release, Arch: machine.Host(), Packages: c.Project.Packages,
					Disk: plain, Size: 10 << 30, Way: way, Dir: dir, Cache: cache}, event.NewBus(time.Now).Scope("bench", "customise", ""))
				if err != nil {
					b.Fatal(err)
				}
				outcomes = append(outcomes, outcome{way, time.Since(began).Seconds(), d.Size, d.Steps})
				b.ReportMetric(float64(d.Size)/1e6, "MB")
			}
		})
	}
	own := peak(b)
	chain := outcome{name: "the chain"}
	b.Run("chain", func(b *testing.B) {
		if _, err := exec.LookPath("virt-sysprep"); err != nil {
			b.Skip("virt-sysprep is not installed: apt-get install --no-install-recommends guestfs-tools")
		}
		dir := b.TempDir()
		work, out := filepath.Join(dir, "work.qcow2"), filepath.Join(dir, "out.qcow2")
		env := append(os.Environ(), "LIBGUESTFS_BACKEND=direct", "TMPDIR="+dir, "LIBGUESTFS_CACHEDIR="+dir)
		if accel, _ := machine.Accelerate(machine.Host(), machine.Host()); accel != "kvm" {
			env = append(env, "LIBGUESTFS_BACKEND_SETTINGS=force_tcg")
		}
		for _, args := range [][]string{
			{"cp", plain, work},
			{"virt-sparsify", "--in-place", "--format", "qcow2", work},
			{"virt-sysprep", "--network", "--format", "qcow2", "-a", work, "--install", strings.Join(c.Project.Packages, ",")},
			{"virt-sparsify", "--compress", "--format", "qcow2", work, out},
		} {
			began := time.Now()
			p := exec.CommandContext(ctx, args[0], args[1:]...)
			p.Env = env
			if text, err := p.CombinedOutput(); err != nil {
				b.Fatalf("%v: %v: %s", args, err, text)
			}
			s := time.Since(began).Seconds()
			chain.steps = append(chain.steps, disk.Step{Name: strings.Join(args[:2], " "), Seconds: s})
			chain.seconds += s
		}
		info, err := os.Stat(out)
		if err != nil {
			b.Fatal(err)
		}
		chain.size = info.Size()
		b.ReportMetric(float64(chain.size)/1e6, "MB")
	})
	if chain.size > 0 {
		outcomes = append(outcomes, chain)
	}
	for _, o := range outcomes {
		fmt.Printf("\n%-10s %7.1f s  %6.1f MB", o.name, o.seconds, float64(o.size)/1e6)
		if chain.size > 0 && o.name != chain.name {
			fmt.Printf("  %.1f times as fast as the chain, %.2f of its size", chain.seconds/o.seconds, float64(o.size)/float64(chain.size))
		}
		fmt.Println()
		for _, s := range o.steps {
			fmt.Printf("    %7.1f s  %s\n", s.Seconds, s.Name)
		}
	}
	fmt.Printf("\nour own process: %d MiB at its peak\n", own>>20)
	if most := int64(100 << 20); own > most {
		b.Errorf("our own process took %d MiB, want at most %d", own>>20, most>>20)
	}
}

// plainDebian builds a Debian disk without the project's default packages, as a distribution would publish it.
func plainDebian(tb testing.TB, version string) string {
	tb.Helper()
	c, err := catalog.Load("../../distros.toml")
	if err != nil {
		tb.Fatal(err)
	}
	c.Project.Packages = nil
	cache := os.Getenv("KMI_BENCH_CACHE") // keeps the disk between runs
	if cache == "" {
		cache = tb.TempDir()
	}
	e, err := New(Config{Catalog: c, Cache: cache, Registry: "dir:" + tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	defer e.Close()
	s, err := e.Run(context.Background(), Selection{Only: []string{"debian:" + version + "/" + string(machine.Host())}, Until: Customise})
	if err != nil || s.Failed() > 0 {
		tb.Fatalf("%+v, %v", s, err)
	}
	found, err := filepath.Glob(filepath.Join(cache, "disks", "*", "disk.qcow2"))
	if err != nil || len(found) != 1 {
		tb.Fatalf("%v, %v", found, err)
	}
	return found[0]
}

// peak is the most memory that this process has had, in bytes.
func peak(tb testing.TB) int64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tb.Fatal(err)
	}
	var n int64
	if m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(data); m != nil {
		_, _ = fmt.Sscan(string(m[1]), &n)
	}
	return n << 10
}
