package machine

import (
	"net"
	"net/netip"
	"slices"
)

// Forbidden says what an address is that no guest may reach, "" if it may: the host itself, and what clouds keep beside
// it.
func Forbidden(a netip.Addr) string {
	a = a.Unmap()
	switch {
	case a.IsLoopback() || a.IsUnspecified():
		return "this host"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	case !a.IsGlobalUnicast():
		return "not an address of a host"
	}
	own, err := net.InterfaceAddrs()
	if err != nil || slices.ContainsFunc(own, func(o net.Addr) bool {
		p, err := netip.ParsePrefix(o.String())
		return err == nil && p.Addr().Unmap() == a
	}) {
		return "this host"
	}
	return ""
}
