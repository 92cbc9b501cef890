package customise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/elazarl/goproxy"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// proxy is the only way from a guest under work to package archives: HTTP, and HTTPS by CONNECT, to hosts that are not
// this one. Mirrors apply to HTTP; what HTTPS carries is between the guest and the archive.
type proxy struct {
	server  *http.Server
	bytes   atomic.Int64 // that came from archives
	refused atomic.Int32
	scope   *event.Scope
}

const maxTold = 20 // refusals that are logged

// newProxy serves on a listener until close.
func newProxy(listener net.Listener, mirrors []upstream.Mirror, scope *event.Scope) *proxy {
	p := &proxy{scope: scope}
	trusted := addresses(mirrors)
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: 30 * time.Second}
		if !slices.Contains(trusted, address) {
			d.Control = func(_, address string, _ syscall.RawConn) error {
				to, err := netip.ParseAddrPort(address)
				if err != nil {
					return err
				}
				why := machine.Forbidden(to.Addr())
				if why == "" && private(to.Addr()) {
					why = "an address of a private network (--mirror names archives there)"
				}
				if why != "" {
					return fmt.Errorf("%s is %s, which a guest may not reach", to.Addr(), why)
				}
				return nil
			}
		}
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			p.tell("%s: %v", address, err)
			return nil, err
		}
		return &counted{conn, &p.bytes}, nil
	}
	// The archive's own compression is the guest's business.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dial, DisableCompression: true, TLSHandshakeTimeout: 30 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute}
	through := upstream.Through(mirrors, transport)

	g := goproxy.NewProxyHttpServer()
	g.Logger = log.New(io.Discard, "", 0)
	g.Tr = transport
	g.KeepAcceptEncoding = true
	g.NonproxyHandler = http.NotFoundHandler()
	if g.ConnectDial == nil { // goproxy has found no proxy in the environment
		g.ConnectDial = func(network, address string) (net.Conn, error) { return dial(context.Background(), network, address) }
	}
	g.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		if _, port, err := net.SplitHostPort(host); err != nil || port != "443" {
			p.tell("CONNECT %s: only port 443", host)
			return goproxy.RejectConnect, host
		}
		return goproxy.OkConnect, host
	})
	g.OnRequest().DoFunc(func(req *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead || req.URL.Scheme != "http" {
			p.tell("%s %s: only GET and HEAD over http", req.Method, req.URL)
			return req, goproxy.NewResponse(req, goproxy.ContentTypeText, http.StatusForbidden, "only GET and HEAD\n")
		}
		ctx.RoundTripper = goproxy.RoundTripperFunc(func(req *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) { return through.RoundTrip(req) })
		return req, nil
	})
	p.server = &http.Server{Handler: g, ReadHeaderTimeout: 30 * time.Second, ErrorLog: g.Logger.(*log.Logger)}
	go func() { _ = p.server.Serve(listener) }()
	return p
}

// shared is the network between providers and their customers (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// private says whether an address is one of a network that is nobody else's business: archives are public, or mirrors.
func private(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsPrivate() || shared.Contains(a)
}

func (p *proxy) tell(format string, args ...any) {
	if p.refused.Add(1) <= maxTold {
		p.scope.Logf("the guest's network: "+format, args...)
	}
}

// close ends the server and every connection.
func (p *proxy) close() { _ = p.server.Close() }

// addresses are those that somebody who may do so has named: of mirrors, and of proxies in the environment.
func addresses(mirrors []upstream.Mirror) (list []string) {
	texts := []string{os.Getenv("http_proxy"), os.Getenv("HTTP_PROXY"), os.Getenv("https_proxy"), os.Getenv("HTTPS_PROXY")}
	for _, m := range mirrors {
		texts = append(texts, m.To)
	}
	for _, text := range texts {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"https": "443"}[u.Scheme]
		}
		if port == "" {
			port = "80"
		}
		list = append(list, net.JoinHostPort(u.Hostname(), port))
	}
	return list
}

// counted counts what comes.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// CloseWrite lets the other side know that nothing more comes.
func (c *counted) CloseWrite() error {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return errors.ErrUnsupported
}
