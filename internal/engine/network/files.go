package network

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

// Content is what a served file holds: a text, or a file of this host.
type Content struct{ Text, Path string }

// Open returns the Content and its size in bytes.
func (c Content) Open() (io.ReadSeekCloser, int64, error) {
	if c.Path == "" {
		return struct {
			io.ReadSeeker
			io.Closer
		}{strings.NewReader(c.Text), io.NopCloser(nil)}, int64(len(c.Text)), nil
	}
	f, err := os.Open(c.Path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// files starts the servers.
func (n *Network) files(ctx context.Context, web, tftp map[string]Content) error {
	l, err := n.Listen(80)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: n.web(web), ReadHeaderTimeout: time.Minute, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 16 << 10}
	n.ends = append(n.ends, server, l)
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		_ = server.Serve(l)
	}()
	if len(tftp) == 0 {
		return nil
	}
	conn, err := n.udp(69, false)
	if err != nil {
		return err
	}
	n.ends = append(n.ends, conn)
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		n.tftp(ctx, conn, tftp)
	}()
	return nil
}

// web serves files over HTTP: what is asked for is looked up as it is, and nothing is taken.
func (n *Network) web(files map[string]Content) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := machine.Clip(r.URL.Path, 200)
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		c, ok := files[r.URL.Path]
		if !ok {
			n.logf("the guest asks by HTTP for %q: there is none", name)
			http.NotFound(w, r)
			return
		}
		f, size, err := c.Open()
		if err != nil {
			n.logf("the guest asks by HTTP for %q: %v", name, err)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		defer f.Close()
		n.logf("the guest fetches %s by HTTP, %d bytes", name, size)
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
	})
}

// TFTP (RFC 1350) with the options blksize and tsize (RFC 2347 to 2349).
const (
	tftpRead, tftpWrite, tftpData, tftpAck, tftpError, tftpOptions = 1, 2, 3, 4, 5, 6

	blockSize    = 512
	maxBlock     = 1468 // bytes of data that fit into one frame
	maxTransfers = 8
	tftpPatience = 3 * time.Second
	tftpTries    = 20
)

// request is a read request.
type request struct {
	name     string
	block    int
	wantSize bool
	options  bool // there are some that are known
}

// readRequest reads a read request of a sender that is not trusted.
func readRequest(b []byte) (request, error) {
	if len(b) < 2 {
		return request{}, errors.New("not a request")
	}
	switch binary.BigEndian.Uint16(b) {
	case tftpRead:
	case tftpWrite:
		return request{}, errors.New("nothing can be written here")
	default:
		return request{}, errors.New("not a request")
	}
	words := strings.Split(string(b[2:]), "\x00")
	if len(words) < 3 || words[len(words)-1] != "" || words[0] == "" {
		return request{}, errors.New("not a request")
	}
	r := request{name: strings.TrimLeft(words[0], "/"), block: blockSize}
	if mode := strings.ToLower(words[1]); mode != "octet" && mode != "netascii" {
		return r, errors.New("only octet is served")
	}
	for i := 2; i+2 < len(words); i += 2 {
		switch strings.ToLower(words[i]) {
		case "blksize":
			n, err := strconv.Atoi(words[i+1])
			if err != nil || n < 8 {
				continue
			}
			r.block, r.options = min(n, maxBlock), true
		case "tsize":
			r.wantSize, r.options = true, true
		}
	}
	return r, nil
}

func tftpRefusal(code uint16, text string) []byte {
	b := binary.BigEndian.AppendUint16(nil, tftpError)
	b = binary.BigEndian.AppendUint16(b, code)
	return append(append(b, text...), 0)
}

// tftp serves files until the connection is closed.
func (n *Network) tftp(ctx context.Context, conn *gonet.UDPConn, files map[string]Content) {
	slots := make(chan struct{}, maxTransfers)
	b := make([]byte, 1500)
	for {
		size, from, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		r, err := readRequest(b[:size])
		if err != nil {
			_, _ = conn.WriteTo(tftpRefusal(4, err.Error()), from)
			continue
		}
		c, ok := files[r.name]
		if !ok {
			n.logf("the guest asks by TFTP for %q: there is none", machine.Clip(r.name, 200))
			_, _ = conn.WriteTo(tftpRefusal(1, "there is none"), from)
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			continue // it will ask again
		}
		n.wg.Add(1)
		go func() {
			defer n.wg.Done()
			defer func() { <-slots }()
			if err := n.transfer(ctx, r, c, from); err != nil {
				n.logf("the guest fetches %s by TFTP: %v", r.name, err)
			}
		}()
	}
}

// transfer sends a file to a client: every transfer has a port of its own.
func (n *Network) transfer(ctx context.Context, r request, c Content, from net.Addr) error {
	to, ok := from.(*net.UDPAddr)
	if !ok {
		return fmt.Errorf("%v", from)
	}
	f, size, err := c.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	conn, err := gonet.DialUDP(n.stack, &tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(ours.As4())},
		&tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(to.IP.To4()), Port: uint16(to.Port)}, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	n.logf("the guest fetches %s by TFTP, %d bytes", r.name, size)
	return serveTFTP(conn, r, f, size)
}

// serveTFTP sends a file, block by block.
func serveTFTP(conn net.Conn, r request, f io.Reader, size int64) error {
	if r.options {
		var b bytes.Buffer
		_ = binary.Write(&b, binary.BigEndian, uint16(tftpOptions))
		if r.block != blockSize {
			fmt.Fprintf(&b, "blksize\x00%d\x00", r.block)
		}
		if r.wantSize {
			fmt.Fprintf(&b, "tsize\x00%d\x00", size)
		}
		if err := exchange(conn, b.Bytes(), 0); err != nil {
			return err
		}
	}
	packet := make([]byte, 4+r.block)
	binary.BigEndian.PutUint16(packet, tftpData)
	for block := uint16(1); ; block++ { // of long files the number starts again at 0, which every client does, too
		k, err := io.ReadFull(f, packet[4:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			_, _ = conn.Write(tftpRefusal(0, "it cannot be read"))
			return err
		}
		binary.BigEndian.PutUint16(packet[2:], block)
		if err := exchange(conn, packet[:4+k], block); err != nil {
			return err
		}
		if k < r.block {
			return nil
		}
	}
}

// exchange sends a packet until its block is acknowledged.
func exchange(conn net.Conn, packet []byte, block uint16) error {
	b := make([]byte, 600)
	for range tftpTries {
		if _, err := conn.Write(packet); err != nil {
			return err
		}
		_ = conn.SetReadDeadline(time.Now().Add(tftpPatience))
		for {
			size, err := conn.Read(b)
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				break // send it again
			}
			if err != nil {
				return err
			}
			if size < 4 {
				continue
			}
			switch binary.BigEndian.Uint16(b) {
			case tftpAck:
				if binary.BigEndian.Uint16(b[2:]) == block {
					return nil
				}
			case tftpError: // also what a client says who only wanted to know the size
				return fmt.Errorf("the guest gave up: %q", machine.Clip(strings.TrimRight(string(b[4:size]), "\x00"), 100))
			}
		}
	}
	return errors.New("the guest does not answer")
}
