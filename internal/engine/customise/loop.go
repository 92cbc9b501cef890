package customise

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
)

// loop is a loop device on a part of a file. It goes by itself when it is closed and no longer mounted, also when this
// process is killed.
type loop struct {
	path string // of the device
	file *os.File
}

// attach makes a loop device of a volume.
func attach(path string, v disk.Volume) (*loop, error) {
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 100 { // others take devices, too
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a loop device: %w", err)
		}
		l := &loop{path: fmt.Sprintf("/dev/loop%d", n)}
		if l.file, err = os.OpenFile(l.path, os.O_RDWR, 0); err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd())}
		config.Info.Offset, config.Info.Sizelimit, config.Info.Flags = uint64(v.Start), uint64(v.Size), unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(l.file.Fd()), &config)
		if err == nil {
			return l, nil
		}
		_ = l.file.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("a loop device: %w", err)
		}
	}
	return nil, errors.New("no loop device is free")
}

func (l *loop) close() { _ = l.file.Close() }
