package customise

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

var apt = catalog.Manager{
	Env:      map[string]string{"DEBIAN_FRONTEND": "noninteractive"},
	Refresh:  []string{"apt-get -q update"},
	Update:   []string{"apt-get -qy -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Options::=--force-confold dist-upgrade"},
	Install:  "apt-get -qy -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Options::=--force-confold --no-install-recommends install {packages}",
	Offers:   "apt-cache policy {package} | grep -q 'Candidate: [^(]'",
	Clean:    []string{"apt-get clean", "rm -rf /var/lib/apt/lists/*"},
	List:     `dpkg-query -W -f '${db:Status-Status} ${Package} ${Version} ${Architecture} ${Installed-Size}\n' | while read -r state name version arch size; do [ "$state" != installed ] || echo "$name $version $arch $((${size:-0} * 1024))"; done`,
	Licences: []string{"/usr/share/doc/*/copyright", "/usr/share/common-licenses/*"},
}

func TestDev(t *testing.T) {
	dir := os.Getenv("KMI_DEV_DIR")
	if dir == "" {
		t.Skip()
	}
	way := os.Getenv("KMI_DEV_WAY")
	_ = os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bus := event.NewBus(time.Now)
	sub := bus.Subscribe()
	go func() {
		for {
			e, ok := sub.Next(context.Background())
			if !ok {
				return
			}
			for _, e := range e {
				if e.Kind == "log" {
					fmt.Println(time.Now().Format("04:05.0"), e.Line)
				}
			}
		}
	}()
	d, err := Run(context.Background(), Spec{
		Origin: &catalog.Origin{Kind: "image", Format: "qcow2", ArchNames: map[catalog.Arch]string{"x86_64": "amd64"},
			Packages: map[string]string{"screenfetch": "fastfetch|screenfetch|"}, Customise: &catalog.Customise{Manager: "apt", Seed: "cloud-init"}},
		Manager: apt, Release: &catalog.Release{Version: "12", Codename: "bookworm"}, Arch: catalog.X86_64,
		Packages: []string{"git", "vim", "tmux", "net-tools", "screenfetch", "qemu-guest-agent"},
		Disk:     os.Getenv("KMI_DEV_DISK"), Size: 10 << 30, Way: way, Dir: dir, Cache: dir + ".cache"}, bus.Scope("x", "customise", ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range d.Steps {
		fmt.Printf("%6.1f %s\n", s.Seconds, s.Name)
	}
	fmt.Printf("%+v\n", d)
}
