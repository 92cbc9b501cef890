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
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// guest is the other side of the network: a stack like that of a guest.
func guest(t *testing.T, web, tftp map[string]Content, bootfile string, open bool) *stack.Stack {
	t.Helper()
	ours, theirs := net.Pipe()
	n, err := New(context.Background(), ours, Spec{HTTP: web, TFTP: tftp, Bootfile: bootfile, Outside: open}, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := &Network{conn: theirs, link: channel.New(1024, maxFrame, "\x52\x54\x00\x12\x34\x56"), stack: stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol}})}
	ctx, cancel := context.WithCancel(context.Background())
	g.stop = cancel
	if err := g.stack.CreateNIC(nic, ethernet.New(g.link)); err != nil {
		t.Fatal(err)
	}
	if err := g.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(guests.As4()), PrefixLen: 24}}, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	local, _ := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{10, 0, 2, 0}), tcpip.MaskFrom("\xff\xff\xff\x00"))
	g.stack.SetRouteTable([]tcpip.Route{{Destination: local, NIC: nic}, {Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFrom4(ours4()), NIC: nic}})
	g.wg.Add(2)
	go g.receive()
	go g.send(ctx)
	t.Cleanup(func() { n.Close(); g.Close() })
	return g.stack
}

func ours4() [4]byte { return ours.As4() }

func at(host string, port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(netip.MustParseAddr(host).As4()), Port: port}
}

func web(s *stack.Stack) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		to := netip.MustParseAddrPort(address)
		return gonet.DialContextTCP(ctx, s, at(to.Addr().String(), to.Port()), ipv4.ProtocolNumber)
	}}}
}

func TestServedFiles(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 200<<10/16)
	path := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(path, big, 0o600); err != nil {
		t.Fatal(err)
	}
	files := map[string]Content{"/a": {Text: "text a"}, "/pub/big": {Path: path}, "/gone": {Path: path + "x"}}
	g := guest(t, files, map[string]Content{"auto_install": {Path: path}, "etc/boot.conf": {Text: "boot"}, "full": {Text: strings.Repeat("x", 1024)}}, "auto_install", false)
	client := web(g)
	for url, want := range map[string]string{"/a": "200 text a", "/pub/big": "200 " + string(big), "/b": "404 404 page not found\n", "/pub/../a": "404 404 page not found\n", "/gone": "500 ", "/": "404 404 page not found\n"} {
		response, err := client.Get("http://10.0.2.2" + url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if got := fmt.Sprintf("%d %s", response.StatusCode, body); got != want {
			t.Errorf("%s: %.60q, %d bytes", url, got, len(got))
		}
	}
	if response, err := client.Post("http://10.0.2.2/a", "text/plain", strings.NewReader("x")); err != nil || response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("%v, %v", response, err)
	}
	// Parts, as installers that go on after an interruption ask for them.
	ask, _ := http.NewRequest(http.MethodGet, "http://10.0.2.2/a", nil)
	ask.Header.Set("Range", "bytes=5-")
	if response, err := client.Do(ask); err != nil || response.StatusCode != http.StatusPartialContent {
		t.Errorf("%v, %v", response, err)
	}
	for name, want := range map[string]string{"auto_install": string(big), "/etc/boot.conf": "boot", "full": strings.Repeat("x", 1024), "nothing": "!there is none", "../etc/passwd": "!there is none"} {
		for _, options := range []string{"", "blksize\x001432\x00tsize\x000\x00", "blksize\x0065464\x00", "tsize\x000\x00", "windowsize\x0016\x00"} {
			got, err := tftpGet(g, name, options)
			if err != nil {
				got = "!" + err.Error()
			}
			if got != want {
				t.Errorf("%s with %q: %.60q, %d bytes", name, options, got, len(got))
			}
		}
	}
	// Nothing else answers, and it says so at once.
	began := time.Now()
	for _, to := range []string{"http://10.0.2.2:22/", "http://10.0.2.3/", "http://192.0.2.1/", "http://169.254.169.254/"} {
		if response, err := client.Get(to); err == nil {
			t.Errorf("%s answers: %s", to, response.Status)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("to be refused took %s", took)
	}
}

// tftpGet fetches a file as RFC 1350 says.
func tftpGet(s *stack.Stack, name, options string) (string, error) {
	local := at(guests.String(), 0)
	conn, err := gonet.DialUDP(s, &local, nil, ipv4.ProtocolNumber)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	var to net.Addr = &net.UDPAddr{IP: ours.AsSlice(), Port: 69}
	if _, err := conn.WriteTo([]byte("\x00\x01"+name+"\x00octet\x00"+options), to); err != nil {
		return "", err
	}
	var got strings.Builder
	block, b := blockSize, make([]byte, 2000)
	for next := uint16(1); ; {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return "", err
		}
		number := uint16(0)
		switch binary.BigEndian.Uint16(b) {
		case tftpOptions:
			words := strings.Split(string(b[2:n]), "\x00")
			for i := 0; i+1 < len(words); i += 2 {
				if words[i] == "blksize" {
					_, _ = fmt.Sscan(words[i+1], &block)
				}
			}
		case tftpData:
			if number = binary.BigEndian.Uint16(b[2:]); number == next {
				got.Write(b[4:n])
				next++
			}
		case tftpError:
			return "", errors.New(strings.TrimRight(string(b[4:n]), "\x00"))
		}
		if _, err := conn.WriteTo([]byte{0, tftpAck, byte(number >> 8), byte(number)}, from); err != nil {
			return "", err
		}
		if binary.BigEndian.Uint16(b) == tftpData && n < 4+block {
			return got.String(), nil
		}
	}
}

func TestForbiddenAddresses(t *testing.T) {
	for address, open := range map[string]bool{"127.0.0.1": false, "127.8.8.8": false, "0.0.0.0": false, "10.0.2.2": false, "10.0.2.99": false, "169.254.169.254": false,
		"224.0.0.1": false, "255.255.255.255": false, "192.0.2.1": true, "198.51.100.7": true, "10.1.2.3": true} {
		if why := forbidden(netip.MustParseAddr(address)); (why == "") != open {
			t.Errorf("%s: %q", address, why)
		}
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range own {
		if p := netip.MustParsePrefix(o.String()); p.Addr().Is4() && forbidden(p.Addr()) == "" {
			t.Errorf("%s of this host can be reached", p)
		}
	}
}

// What is refused is refused where the way is open, too: the host itself, on a port that is served there.
func TestTheHostCannotBeReached(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hosts := []string{"10.0.2.2"}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range own { // a stack drops packets for loopback by itself
		if p := netip.MustParsePrefix(o.String()); p.Addr().Is4() && !p.Addr().IsLoopback() {
			hosts = append(hosts, p.Addr().String())
		}
	}
	go func() {
		if conn, err := l.Accept(); err == nil {
			t.Error("the guest has reached the host")
			_ = conn.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	g := guest(t, nil, nil, "", true)
	for _, host := range hosts {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if conn, err := gonet.DialContextTCP(ctx, g, at(host, uint16(port)), ipv4.ProtocolNumber); err == nil {
			_ = conn.Close()
			t.Errorf("%s:%d answers", host, port)
		} else if ctx.Err() != nil {
			t.Errorf("%s:%d: nobody refuses", host, port)
		}
		cancel()
	}
}

func TestNames(t *testing.T) {
	look := func(_ context.Context, network, name string) ([]netip.Addr, error) {
		switch {
		case network != "ip4":
			return nil, errors.New(network)
		case name == "mirror.example.org.":
			return []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("::ffff:192.0.2.8"), netip.MustParseAddr("2001:db8::1")}, nil
		case name == "many.example.org.":
			return make([]netip.Addr, 100), nil
		case name == "none.example.org.":
			return nil, &net.DNSError{IsNotFound: true}
		}
		return nil, errors.New("broken")
	}
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want string
	}{
		{"mirror.example.org.", dnsmessage.TypeA, "RCodeSuccess [192 0 2 7] [192 0 2 8]"},
		{"mirror.example.org.", dnsmessage.TypeAAAA, "RCodeSuccess"},
		{"many.example.org.", dnsmessage.TypeA, "RCodeSuccess"},
		{"none.example.org.", dnsmessage.TypeA, "RCodeNameError"},
		{"fail.example.org.", dnsmessage.TypeA, "RCodeServerFailure"},
	} {
		q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(c.name), Type: c.kind, Class: dnsmessage.ClassINET}}}
		packed, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(resolve(context.Background(), packed, look)); err != nil || m.ID != 7 || !m.Response || len(m.Questions) != 1 {
			t.Errorf("%s: %v, %+v", c.name, err, m)
			continue
		}
		got := m.RCode.String()
		for _, a := range m.Answers {
			got += fmt.Sprint(" ", a.Body.(*dnsmessage.AResource).A)
		}
		if got != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, c.kind, got, c.want)
		}
	}
}

func TestLease(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	discover, err := dhcpv4.NewDiscovery(mac)
	if err != nil {
		t.Fatal(err)
	}
	offer := lease(discover.ToBytes(), "auto_install")
	if offer == nil || offer.MessageType() != dhcpv4.MessageTypeOffer || offer.YourIPAddr.String() != "10.0.2.15" || offer.ServerIPAddr.String() != "10.0.2.2" ||
		offer.BootFileName != "auto_install" || offer.BootFileNameOption() != "auto_install" || offer.Router()[0].String() != "10.0.2.2" || offer.DNS()[0].String() != "10.0.2.2" || offer.TransactionID != discover.TransactionID {
		t.Fatalf("%v", offer)
	}
	request, err := dhcpv4.NewRequestFromOffer(offer)
	if err != nil {
		t.Fatal(err)
	}
	if ack := lease(request.ToBytes(), ""); ack == nil || ack.MessageType() != dhcpv4.MessageTypeAck || ack.BootFileName != "" || ack.IPAddressLeaseTime(0) != 24*time.Hour {
		t.Errorf("%v", ack)
	}
	request.UpdateOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 168, 0, 9)))
	if nak := lease(request.ToBytes(), ""); nak == nil || nak.MessageType() != dhcpv4.MessageTypeNak {
		t.Errorf("%v", nak)
	}
	request.UpdateOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 168, 0, 1)))
	if got := lease(request.ToBytes(), ""); got != nil {
		t.Errorf("a request to another server is answered: %v", got)
	}
	if got := lease(offer.ToBytes(), ""); got != nil {
		t.Errorf("a reply is answered: %v", got)
	}
}

// FuzzGuestsPackets feeds what a guest may send to everything that reads it, and as a stream of frames.
func FuzzGuestsPackets(f *testing.F) {
	discover, _ := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 1})
	f.Add(discover.ToBytes())
	f.Add([]byte("\x00\x01a\x00octet\x00blksize\x001432\x00tsize\x000\x00"))
	f.Add([]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"))
	f.Add([]byte("\x00\x00\x00\x0e\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x00"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if reply := lease(b, "x"); reply != nil && len(reply.ToBytes()) > 1500 {
			t.Fatalf("%d bytes", len(reply.ToBytes()))
		}
		if r, err := readRequest(b); err == nil && (r.block < 8 || r.block > maxBlock) {
			t.Fatalf("%+v", r)
		}
		if a := resolve(context.Background(), b, func(context.Context, string, string) ([]netip.Addr, error) { return make([]netip.Addr, 50), nil }); len(a) > 1500 {
			t.Fatalf("%d bytes", len(a))
		}
		ours, theirs := net.Pipe()
		n, err := New(context.Background(), ours, Spec{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		_ = theirs.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = theirs.Write(b)
		_ = theirs.Close()
		n.Close()
	})
}
