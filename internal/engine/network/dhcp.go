package network

import (
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// dhcp hands the guest its address (RFC 2131) and, where there is one, the name of what the firmware boots.
func (n *Network) dhcp(bootfile string) error {
	conn, err := n.udp(dhcpv4.ServerPort, true)
	if err != nil {
		return err
	}
	n.ends = append(n.ends, conn)
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		b := make([]byte, 1500)
		for {
			size, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			reply := lease(b[:size], bootfile)
			if reply == nil {
				continue
			}
			n.logf("the guest's network: DHCP: %s for %s", reply.MessageType(), reply.YourIPAddr)
			// The guest has no address yet that ARP could find.
			_, _ = conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort})
		}
	}()
	return nil
}

// lease answers a message of a DHCP client, with nil where there is nothing to say.
func lease(message []byte, bootfile string) *dhcpv4.DHCPv4 {
	m, err := dhcpv4.FromBytes(message)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootRequest {
		return nil
	}
	kind := dhcpv4.MessageTypeOffer
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
	case dhcpv4.MessageTypeRequest:
		kind = dhcpv4.MessageTypeAck
		for _, asked := range []net.IP{m.RequestedIPAddress(), m.ClientIPAddr} {
			if asked != nil && !asked.IsUnspecified() && !asked.Equal(guests.AsSlice()) {
				kind = dhcpv4.MessageTypeNak
			}
		}
		if server := m.ServerIdentifier(); server != nil && !server.Equal(ours.AsSlice()) {
			return nil
		}
	case dhcpv4.MessageTypeInform:
		kind = dhcpv4.MessageTypeAck
	default:
		return nil
	}
	with := []dhcpv4.Modifier{dhcpv4.WithMessageType(kind), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ours.AsSlice()))}
	if kind != dhcpv4.MessageTypeNak {
		with = append(with, dhcpv4.WithServerIP(ours.AsSlice()), dhcpv4.WithRouter(ours.AsSlice()), dhcpv4.WithDNS(ours.AsSlice()),
			dhcpv4.WithNetmask(net.CIDRMask(subnet.Bits(), 32)))
		if m.MessageType() != dhcpv4.MessageTypeInform {
			with = append(with, dhcpv4.WithYourIP(guests.AsSlice()), dhcpv4.WithLeaseTime(uint32((24 * time.Hour).Seconds())))
		}
		if bootfile != "" {
			with = append(with, dhcpv4.WithOption(dhcpv4.OptTFTPServerName(ours.String())), dhcpv4.WithOption(dhcpv4.OptBootFileName(bootfile)),
				func(d *dhcpv4.DHCPv4) { d.BootFileName = bootfile })
		}
	}
	reply, err := dhcpv4.NewReplyFromRequest(m, with...)
	if err != nil {
		return nil
	}
	return reply
}
