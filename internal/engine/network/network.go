// Package network is the network of a virtual machine, played in this process: the guest gets an address, reaches what is
// served here and, where the way is open, what is outside of this host.
package network

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/buffer"
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
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

// The guest's network lives in this process, at the other end of a socket of QEMU's: QEMU itself opens no connection,
// and the guest reaches what is answered here and nothing else. Its addresses are those that QEMU's own user network
// has, which installers know; that one cannot keep the host's loopback from a guest that may use the network, and
// cannot put a server of ours at the address that netbooted installers ask.
var (
	ours   = netip.MustParseAddr("10.0.2.2")
	guests = netip.MustParseAddr("10.0.2.15")
	subnet = netip.MustParsePrefix("10.0.2.0/24")
	ourMAC = tcpip.LinkAddress("\x52\x55\x0a\x00\x02\x02")
)

// MAC is the guest's address on the network.
const MAC = "52:54:00:12:34:56"

// Guest is the guest's address, with the length of its network's prefix.
const Guest = "10.0.2.15/24"

// Gateway is our address on the guest's network: what is served is served there.
const Gateway = "10.0.2.2"

const (
	nic           = 1
	maxFrame      = 1514       // bytes of an Ethernet frame
	maxStream     = 64<<10 + 4 // bytes of a frame that QEMU may announce
	maxConns      = 256        // connections to other networks at a time
	maxQuestions  = 32         // name lookups at a time
	dialLimit     = 20 * time.Second
	questionLimit = 10 * time.Second
)

// Spec says what there is on a guest's network besides its address.
type Spec struct {
	HTTP, TFTP map[string]Content // what is served, by its path
	Bootfile   string             // what DHCP names for a firmware to boot; "" for nothing
	Outside    bool               // other networks can be reached
}

// Network is a guest's network.
type Network struct {
	scope *event.Scope
	stack *stack.Stack
	link  *channel.Endpoint
	conn  net.Conn
	stop  context.CancelFunc
	wg    sync.WaitGroup
	ends  []io.Closer
	told  atomic.Int32 // lines logged
}

// New starts the network at a stream socket of QEMU's (-netdev stream: frames with their length in four bytes before).
// It has to be closed, which closes the socket, too.
func New(ctx context.Context, conn net.Conn, s Spec, scope *event.Scope) (*Network, error) {
	ctx, cancel := context.WithCancel(ctx)
	n := &Network{scope: scope, conn: conn, stop: cancel, link: channel.New(1024, maxFrame, ourMAC),
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
		})}
	if err := n.start(ctx, s); err != nil {
		n.Close()
		return nil, fmt.Errorf("the guest's network: %w", err)
	}
	return n, nil
}

func (n *Network) start(ctx context.Context, s Spec) error {
	if err := n.stack.CreateNIC(nic, ethernet.New(n.link)); err != nil {
		return errors.New(err.String())
	}
	address := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(ours.As4()), PrefixLen: subnet.Bits()}}
	if err := n.stack.AddProtocolAddress(nic, address, stack.AddressProperties{}); err != nil {
		return errors.New(err.String())
	}
	n.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	sack := tcpip.TCPSACKEnabled(true)
	if err := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); err != nil {
		return errors.New(err.String())
	}
	if err := n.dhcp(s.Bootfile); err != nil {
		return err
	}
	if err := n.files(ctx, s.HTTP, s.TFTP); err != nil {
		return err
	}
	if err := n.others(ctx, s.Outside); err != nil {
		return err
	}
	n.wg.Add(2)
	go n.receive()
	go n.send(ctx)
	return nil
}

// Listen listens for the guest's TCP connections to a port of the gateway, until the listener or the network is closed.
func (n *Network) Listen(port uint16) (net.Listener, error) {
	return gonet.ListenTCP(n.stack, tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(ours.As4()), Port: port}, ipv4.ProtocolNumber)
}

// receive hands the guest's frames to the stack.
func (n *Network) receive() {
	defer n.wg.Done()
	r := bufio.NewReaderSize(n.conn, 64<<10)
	for {
		var length [4]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(length[:])
		if size > maxStream {
			n.logf("the guest's network: a frame of %d bytes: closed", size)
			_ = n.conn.Close()
			return
		}
		frame := make([]byte, size)
		if _, err := io.ReadFull(r, frame); err != nil {
			return
		}
		if size < header.EthernetMinimumSize {
			continue
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
		n.link.InjectInbound(0, pkt)
		pkt.DecRef()
	}
}

// send hands the stack's frames to the guest.
func (n *Network) send(ctx context.Context) {
	defer n.wg.Done()
	var b []byte
	for {
		pkt := n.link.ReadContext(ctx)
		if pkt == nil {
			return
		}
		view := pkt.ToView()
		b = binary.BigEndian.AppendUint32(b[:0], uint32(view.Size()))
		b = append(b, view.AsSlice()...)
		view.Release()
		pkt.DecRef()
		if _, err := n.conn.Write(b); err != nil {
			return
		}
	}
}

// Close ends every connection of the guest's.
func (n *Network) Close() {
	n.stop()
	_ = n.conn.Close()
	for _, c := range n.ends {
		_ = c.Close()
	}
	n.link.Close()
	n.stack.Close()
	n.wg.Wait()
	n.stack.Wait()
}

// maxTold is how many lines the guest can make the network log.
const maxTold = 2000

func (n *Network) logf(format string, args ...any) {
	switch told := n.told.Add(1); {
	case told < maxTold:
		n.scope.Log(event.Clean(fmt.Sprintf(format, args...)))
	case told == maxTold:
		n.scope.Log("… the guest asks for more and more: what follows is left out here")
	}
}

// udp opens a port at our address; broadcasts reach it, too, where all is true.
func (n *Network) udp(port uint16, all bool) (*gonet.UDPConn, error) {
	var wq waiter.Queue
	ep, err := n.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &wq)
	if err != nil {
		return nil, errors.New(err.String())
	}
	address := tcpip.FullAddress{NIC: nic, Port: port}
	if all {
		ep.SocketOptions().SetBroadcast(true)
	} else {
		address.Addr = tcpip.AddrFrom4(ours.As4())
	}
	if err := ep.Bind(address); err != nil {
		ep.Close()
		return nil, fmt.Errorf("UDP port %d: %s", port, err)
	}
	conn := gonet.NewUDPConn(&wq, ep)
	return conn, nil
}

// others answers for every other address: connections are refused at once, so that nobody in the guest waits, or, where
// the way is open, carried on; then names have addresses, too.
func (n *Network) others(ctx context.Context, open bool) error {
	if err := n.stack.SetPromiscuousMode(nic, true); err != nil {
		return errors.New(err.String())
	}
	if err := n.stack.SetSpoofing(nic, true); err != nil {
		return errors.New(err.String())
	}
	if !open {
		refuse := tcp.NewForwarder(n.stack, 0, maxConns, func(r *tcp.ForwarderRequest) { r.Complete(true) })
		n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, refuse.HandlePacket)
		return nil
	}
	slots := make(chan struct{}, maxConns)
	forward := tcp.NewForwarder(n.stack, 0, maxConns, func(r *tcp.ForwarderRequest) {
		n.wg.Add(1)
		go func() {
			defer n.wg.Done()
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				n.forward(ctx, r)
			default:
				r.Complete(true)
			}
		}()
	})
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, forward.HandlePacket)
	return n.names(ctx)
}

// forward carries one connection of the guest's to another network.
func (n *Network) forward(ctx context.Context, r *tcp.ForwarderRequest) {
	id := r.ID()
	to := netip.AddrPortFrom(netip.AddrFrom4(id.LocalAddress.As4()), id.LocalPort)
	if why := forbidden(to.Addr()); why != "" {
		n.logf("the guest's network: %s is %s: refused", to, why)
		r.Complete(true)
		return
	}
	dial, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	out, err := (&net.Dialer{}).DialContext(dial, "tcp", to.String())
	if err != nil {
		n.logf("the guest's network: %s: %v", to, err)
		r.Complete(true)
		return
	}
	defer out.Close()
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	r.Complete(terr != nil)
	if terr != nil {
		return
	}
	in := gonet.NewTCPConn(&wq, ep)
	defer in.Close()
	defer context.AfterFunc(ctx, func() { _, _ = in.Close(), out.Close() })()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(out, in)
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(in, out)
	_ = in.CloseWrite()
	<-done
}

// forbidden says what an address is that this guest may not reach; "" if it may.
func forbidden(a netip.Addr) string {
	if subnet.Contains(a) {
		return "the guest's own network"
	}
	return machine.Forbidden(a)
}

// names answers questions for the addresses of names (RFC 1035) as this host would answer them.
func (n *Network) names(ctx context.Context) error {
	conn, err := n.udp(53, false)
	if err != nil {
		return err
	}
	n.ends = append(n.ends, conn)
	slots := make(chan struct{}, maxQuestions)
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		for {
			b := make([]byte, 1500)
			size, from, err := conn.ReadFrom(b)
			if err != nil {
				return
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
				if answer := resolve(ctx, b[:size], net.DefaultResolver.LookupNetIP); answer != nil {
					_, _ = conn.WriteTo(answer, from)
				}
			}()
		}
	}()
	return nil
}

// maxAddresses is how many addresses of a name fit into an answer of 512 bytes.
const maxAddresses = 12

// resolve answers one question, with nil for what is no question. Whoever asks for more than IPv4 addresses learns that
// there are none.
func resolve(ctx context.Context, question []byte, look func(ctx context.Context, network, name string) ([]netip.Addr, error)) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(question)
	if err != nil || h.Response || h.OpCode != 0 {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	reply := dnsmessage.Header{ID: h.ID, Response: true, RecursionDesired: h.RecursionDesired, RecursionAvailable: true}
	var found []netip.Addr
	if q.Class == dnsmessage.ClassINET && q.Type == dnsmessage.TypeA {
		ctx, cancel := context.WithTimeout(ctx, questionLimit)
		defer cancel()
		found, err = look(ctx, "ip4", q.Name.String())
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			reply.RCode = dnsmessage.RCodeNameError
		} else if err != nil {
			reply.RCode = dnsmessage.RCodeServerFailure
		}
	}
	b := dnsmessage.NewBuilder(nil, reply)
	b.EnableCompression()
	_ = b.StartQuestions()
	_ = b.Question(q)
	_ = b.StartAnswers()
	for _, a := range found[:min(len(found), maxAddresses)] {
		if a = a.Unmap(); a.Is4() {
			_ = b.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}, dnsmessage.AResource{A: a.As4()})
		}
	}
	answer, err := b.Finish()
	if err != nil {
		return nil
	}
	return answer
}
