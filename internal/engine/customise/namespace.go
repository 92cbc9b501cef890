package customise

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace makes a network namespace in which there is nothing but a loopback, and listens on that. Whoever is put into
// it reaches the listener and nothing else. It needs the rights of root. The namespace is gone when both are closed and
// nobody is left in it.
func namespace() (ns *os.File, listener net.Listener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine, nobody else gets it
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("a network namespace: %w", err)
			return
		}
		if err = loopbackUp(); err != nil {
			err = fmt.Errorf("the loopback of a network namespace: %w", err)
			return
		}
		if ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return
		}
		if listener, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			_ = ns.Close()
		}
	}()
	<-done
	return ns, listener, err
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
