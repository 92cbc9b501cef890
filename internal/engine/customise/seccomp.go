package customise

import (
	"bytes"
	"encoding/binary"
	"runtime"

	"golang.org/x/sys/unix"
)

// Calls of the kernel that a guest's programs do not get on this host: those that lead past the guest's folder (a file's
// handle opens any other of its file system's), that reach what all of the host share (keys), and large parts of the kernel
// that no package manager needs. Programs hear of them what a kernel without them says.
var noCalls = []uint32{
	unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_CLONE3, // its arguments cannot be looked at: C libraries take clone instead
}

// filter is a program of seccomp(2) that refuses them, and new namespaces, whose makers have every right inside. Programs
// of another architecture that this kernel runs, too (32 bits), get no call at all: theirs have other numbers. An emulator
// makes this host's calls.
func filter() []byte {
	const (
		load, equal, least, bits, end = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K,
			unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		missing = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		refused = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
		other   = 0x40000000 // x86's second set of numbers begins there
	)
	// Where struct seccomp_data has the call's number, the architecture, and the lower half of the first argument.
	const number, architecture, first = 0, 4, 16
	native := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	program := []unix.SockFilter{
		{Code: load, K: architecture}, {Code: equal, K: native, Jt: 1}, {Code: end, K: missing},
		{Code: load, K: number}, {Code: least, K: other, Jf: 1}, {Code: end, K: missing},
	}
	for _, call := range noCalls {
		program = append(program, unix.SockFilter{Code: equal, K: call, Jf: 1}, unix.SockFilter{Code: end, K: missing})
	}
	program = append(program,
		unix.SockFilter{Code: equal, K: unix.SYS_UNSHARE, Jf: 1}, unix.SockFilter{Code: end, K: refused},
		unix.SockFilter{Code: equal, K: unix.SYS_CLONE, Jf: 3}, unix.SockFilter{Code: load, K: first},
		unix.SockFilter{Code: bits, K: unix.CLONE_NEWUSER, Jf: 1}, unix.SockFilter{Code: end, K: refused},
		unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ALLOW})
	var b bytes.Buffer
	_ = binary.Write(&b, binary.NativeEndian, program) // a buffer takes everything
	return b.Bytes()
}
