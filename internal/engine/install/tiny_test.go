package install

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

// tinyInit is the first program of an installer that fits into 2 MB: it asks, fetches its answers, and writes a disk.
const tinyInit = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /tmp /bin /etc /mnt
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
echo 1 >/proc/sys/kernel/printk
for again in 1 2 3; do for m in /m/*.ko; do insmod $m 2>/dev/null; done; done # each after what it needs
mode=$(sed -n 's/.*mode=\([a-z]*\).*/\1/p' /proc/cmdline)
printf 'Tiny installer (%s)\r\n' "$mode"
case $mode in
panic) echo 0 >/proc/sys/kernel/printk; echo 7 >/proc/sys/kernel/printk; exit 1;;
flood) cat /flood;;
esac
if [ "$mode" = second ]; then
	printf 'found: '; dd if=/dev/vda bs=512 count=1 2>/dev/null | head -n 1
	printf 'CONFIG CHANGED' | dd of=/dev/vda bs=512 seek=100 conv=notrunc 2>/dev/null
	sync; poweroff -f
fi
ip link set lo up; ip link set eth0 up
udhcpc -q -n -t 20 -i eth0 -s /dhcp >/dev/null 2>&1 || echo 'no address'
printf '\033[2J\033[1;1HDisk? [vda] '; read disk; disk=${disk:-vda}
while :; do
	stty -echo
	printf 'Password: '; read one; echo
	printf 'Password (again): '; read two; echo
	stty echo
	[ "$one" = "$two" ] && break
	echo 'They differ.'
done
printf 'Erase %s? (yes/no) ' $disk; read yes
[ "$yes" = yes ] || { echo 'Aborted.'; poweroff -f; }
wget -q -O /tmp/answers http://10.0.2.2/answers || { echo 'No answers.'; poweroff -f; }
if [ -b /dev/vdb ]; then
	mount -t vfat -o ro /dev/vdb1 /mnt 2>/dev/null || mount -t iso9660 -o ro /dev/vdb /mnt
	cat /mnt/conf/extra >>/tmp/answers
fi
wget -q -O /dev/null http://192.0.2.1/ && echo 'OUTSIDE is reachable'
{ echo "KMI-MARKER password=$one"; cat /tmp/answers; } | dd of=/dev/$disk bs=64k conv=notrunc 2>/dev/null
dd if=/dev/zero bs=1M count=4 2>/dev/null | tr '\0' x | dd of=/dev/$disk bs=1M seek=1 conv=notrunc 2>/dev/null
sync; echo 'Installation complete.'
[ "$mode" = reboot ] && reboot -f
poweroff -f
`

const tinyDHCP = `#!/bin/busybox sh
if [ "$1" = bound ]; then
	ip addr add "$ip/$mask" dev "$interface"; ip route add default via "$router"; echo "nameserver $dns" >/etc/resolv.conf
fi
`

// flood is a quarter of a megabyte of control sequences.
func flood() []byte {
	return bytes.Repeat([]byte("\x1b[31m\x1b]0;title\x07\x1b[10;20Hx\x1b[0m\r\x1b[2K\xff\xfe\u202e 50%\b\b\b"), 250<<10/54)
}

var tinyModules = strings.Fields("virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk failover net_failover virtio_net cdrom isofs fat nls_cp437 nls_ascii vfat")

var tiny = sync.OnceValues(makeTiny)

// tinyInstaller returns a kernel of the archive and an initrd that is an installer. The kernel is fetched once and kept
// in the user's cache.
func tinyInstaller(t *testing.T) map[string]string {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a machine")
	}
	for _, p := range []string{machine.Program(machine.Host()), "qemu-img", "xorriso", "mkfs.vfat", "mcopy"} {
		if _, err := command.Look(p); err != nil {
			t.Skip(err)
		}
	}
	files, err := tiny()
	if err != nil {
		t.Skipf("no kernel to boot: %v", err)
	}
	return files
}

func makeTiny() (map[string]string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "kmi-tui-test", "kernel")
	kernels, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if len(kernels) == 0 {
		if err := fetchKernel(dir); err != nil {
			return nil, err
		}
		kernels, _ = filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	}
	if len(kernels) == 0 {
		return nil, fmt.Errorf("no kernel in %s", dir)
	}
	busybox, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install busybox-static", err)
	}
	a := &cpio{}
	a.add("bin", 0o40755, nil)
	a.add("m", 0o40755, nil)
	a.add("dev", 0o40755, nil)
	a.add("bin/busybox", 0o100755, busybox)
	a.add("init", 0o100755, []byte(tinyInit))
	a.add("dhcp", 0o100755, []byte(tinyDHCP))
	a.add("flood", 0o100644, flood())
	for _, m := range tinyModules {
		found, _ := filepath.Glob(filepath.Join(dir, "lib/modules/*/kernel/*/"+m+".ko"))
		for _, deeper := range []string{"*/*/", "*/*/*/"} {
			more, _ := filepath.Glob(filepath.Join(dir, "lib/modules/*/kernel/"+deeper+m+".ko"))
			found = append(found, more...)
		}
		for _, f := range found {
			data, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			a.add("m/"+m+".ko", 0o100644, data)
		}
	}
	a.add("TRAILER!!!", 0, nil)
	var initrd bytes.Buffer
	z, _ := gzip.NewWriterLevel(&initrd, gzip.BestSpeed)
	_, _ = z.Write(a.Bytes())
	_ = z.Close()
	path := filepath.Join(tinyDir, "initrd.gz")
	return map[string]string{"linux": kernels[0], "initrd.gz": path}, os.WriteFile(path, initrd.Bytes(), 0o600)
}

func fetchKernel(dir string) error {
	out, err := exec.Command("apt-cache", "depends", "linux-image-cloud-amd64").Output()
	if err != nil {
		return fmt.Errorf("apt-cache: %w", err)
	}
	_, name, _ := strings.Cut(string(out), "Depends: ")
	name, _, _ = strings.Cut(name, "\n")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, args := range [][]string{{"apt-get", "-q", "download", name}, {"sh", "-c", "dpkg-deb -x *.deb . && rm *.deb"}} {
		if err := command.Run(context.Background(), command.Command{Name: args[0], Args: args[1:], Dir: dir}, nil); err != nil {
			return err
		}
	}
	return nil
}

// cpio writes an archive in the new ASCII form (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	bytes.Buffer
	files int
}

func (a *cpio) add(name string, mode int, data []byte) {
	a.files++
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", a.files, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.align()
	a.Write(data)
	a.align()
}

func (a *cpio) align() { a.Write(make([]byte, (4-a.Len()%4)%4)) }

var tinyDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "kmi-install-test")
	if err != nil {
		panic(err)
	}
	tinyDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}
