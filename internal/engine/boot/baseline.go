package boot

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

// What KubeVirt's virt-launcher needs the agent to allow: to count as connected, and to hand over ssh keys.
var needed = []string{
	"guest-ping", "guest-get-time", "guest-info", "guest-shutdown", "guest-network-get-interfaces", "guest-get-fsinfo", "guest-get-host-name",
	"guest-get-users", "guest-get-timezone", "guest-get-osinfo",
	"guest-ssh-get-authorized-keys", "guest-ssh-add-authorized-keys", "guest-ssh-remove-authorized-keys",
}

const (
	agentPause   = 500 * time.Millisecond // before the agent is asked again whether it is there
	loginLimit   = 90 * time.Second       // for an ssh login and a command
	offLimit     = 2 * time.Minute        // from guest-shutdown to the machine's end
	settleLimit  = time.Minute            // for the services that still start when cloud-init is done
	maxClockSkew = time.Hour              // between the guest's clock and ours
)

// part is one check of the baseline. What is wrong is an error that says what was expected and what was found.
type part struct {
	name string
	full bool // only in the whole baseline
	run  func(*test, context.Context) (evidence string, err error)
}

// parts is the baseline in its order: first what everything else needs. What virt-launcher asks comes after cloud-init,
// because an agent may be there before the network is.
var parts = []part{
	{"firmware boots the disk", false, (*test).boots},
	{"guest agent answers", false, (*test).answers},
	{"guest agent allows what KubeVirt calls", false, (*test).allows},
	{"cloud-init has configured it", true, (*test).configured},
	{"guest tells of itself", true, (*test).tells},
	{"network is configured", true, (*test).network},
	{"ssh key handed over by the agent", true, (*test).firstKey},
	{"another key replaces it", true, (*test).secondKey},
	{"root file system has grown", true, (*test).grown},
	{"machine identity is its own", true, (*test).identity},
	{"no unit failed", true, (*test).units},
	{"powers off cleanly", false, (*test).powerOff},
}

// baseline runs the checks until one fails.
func (t *test) baseline(ctx context.Context) error {
	var list []part
	for _, p := range parts {
		if t.Full || !p.full {
			list = append(list, p)
		}
	}
	for i, p := range list {
		t.progress(i, len(list), "checks, waiting for: "+p.name)
		evidence, err := p.run(t, ctx)
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) { // a guest that is over has passed nothing
			err = cause
		}
		c := Check{Name: p.name, OK: err == nil, Detail: event.Clean(evidence), Seconds: time.Since(t.began).Seconds()}
		if err != nil {
			c.Detail = event.Clean(strings.ReplaceAll(err.Error(), "\n", " "))
		}
		t.result.Checks = append(t.result.Checks, c)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		t.scope.Logf("✓ %s: %s, %.1f s after power on: %s", t.Firmware, p.name, c.Seconds, c.Detail)
	}
	t.progress(len(list), len(list), "checks")
	return nil
}

// progress is told of the whole baseline only: a shorter one beside it would make it jump.
func (t *test) progress(done, total int, unit string) {
	if t.Full {
		t.scope.Progress(int64(done), int64(total), unit)
	}
}

// boots waits for a kernel's first words; a guest whose console is silent proves it by its agent.
func (t *test) boots(ctx context.Context) (string, error) {
	select {
	case kernel := <-t.console.Kernel:
		return kernel, nil
	case <-t.opened:
		return "the guest has opened the agent's channel; its console says nothing of a kernel", nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// answers waits for the guest to open the agent's channel, then for the agent.
func (t *test) answers(ctx context.Context) (string, error) {
	select {
	case <-t.opened:
	case <-ctx.Done():
		return "", fmt.Errorf("the guest has not opened the agent's channel: %w", context.Cause(ctx))
	}
	said := ""
	for {
		err := t.agent.sync(ctx)
		if err == nil {
			break
		}
		if text := err.Error(); text != said && ctx.Err() == nil {
			said = text
			t.scope.Logf("%s: the agent's channel is open, but: %s", t.Firmware, text)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the agent does not answer: %w", context.Cause(ctx))
		case <-time.After(agentPause):
		}
	}
	return "guest-sync-delimited and guest-ping", t.agent.call(ctx, "guest-ping", nil, nil)
}

func (t *test) allows(ctx context.Context) (string, error) {
	var info struct {
		Version  string `json:"version"`
		Commands []struct {
			Name    string `json:"name"`
			Enabled bool   `json:"enabled"`
		} `json:"supported_commands"`
	}
	if err := t.agent.call(ctx, "guest-info", nil, &info); err != nil {
		return "", err
	}
	enabled := map[string]bool{}
	for _, c := range info.Commands {
		enabled[c.Name] = c.Enabled
	}
	var lacking []string
	for _, n := range needed {
		if !enabled[n] {
			lacking = append(lacking, n)
		}
	}
	if len(lacking) > 0 {
		return "", fmt.Errorf("expected these calls to be enabled: %s; version %s of the agent has %d calls", strings.Join(lacking, ", "), machine.Clip(info.Version, 40), len(info.Commands))
	}
	evidence := fmt.Sprintf("version %s, %d calls", machine.Clip(info.Version, 40), len(info.Commands))
	// Lists of allowed calls have no guest-exec, which KubeVirt does not need either.
	if t.closed = !enabled["guest-exec"] || !enabled["guest-exec-status"]; t.closed {
		evidence += ", none of which runs programs: they are run by ssh"
	}
	return evidence, nil
}

// exec runs a program in the guest to its end, for at most limit (0: execLimit), and returns its exit code and its output,
// standard error last: by the agent, or where that is not allowed by ssh, as the user whom the agent has given a key.
func (t *test) exec(ctx context.Context, limit time.Duration, path string, args ...string) (code int, out string, err error) {
	if !t.closed {
		return t.agent.exec(ctx, limit, path, args...)
	}
	if limit == 0 {
		limit = execLimit
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s in the guest did not end within %s", path, limit))
	defer cancel()
	if t.last == nil {
		if err := t.unlock(ctx); err != nil {
			return 0, "", err
		}
	}
	words := make([]string, 0, 1+len(args))
	for _, w := range append([]string{path}, args...) {
		words = append(words, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
	}
	err = t.connect(ctx, func(conn net.Conn) error {
		code, out, err = t.session(conn, t.last, strings.Join(words, " "))
		return err
	})
	return code, out, err
}

// unlock hands over a key and waits until it opens the door: cloud-init may not have made the user yet, nor ssh begun.
func (t *test) unlock(ctx context.Context) error {
	said := ""
	for {
		s, err := t.handOver(ctx)
		if err == nil {
			try, cancel := context.WithTimeoutCause(ctx, loginLimit, fmt.Errorf("no login within %s", loginLimit))
			err = t.connect(try, func(conn net.Conn) error {
				_, _, err := t.session(conn, s, "true")
				return err
			})
			cancel()
		}
		if err == nil {
			return nil
		}
		t.last = nil
		if text := err.Error(); text != said && ctx.Err() == nil {
			said = text
			t.scope.Logf("%s: no key opens the guest's ssh yet: %s", t.Firmware, text)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", context.Cause(ctx), said)
		case <-time.After(agentPause):
		}
	}
}

// configured waits for cloud-init and reads what it says.
func (t *test) configured(ctx context.Context) (string, error) {
	code, out, err := t.exec(ctx, t.Deadline, "cloud-init", "status", "--wait", "--long")
	if err != nil {
		return "", err
	}
	status, source := "", ""
	lines := strings.Split(out, "\n")
	for i, line := range lines {
		line = strings.TrimLeft(line, ".") // one for each second of waiting, before the first line of all
		if v, ok := strings.CutPrefix(line, "status: "); ok {
			status = strings.TrimSpace(v)
		}
		if v, ok := strings.CutPrefix(line, "detail:"); ok { // on the same line, or on the next
			if source = strings.TrimSpace(v); source == "" && i+1 < len(lines) {
				source = strings.TrimSpace(lines[i+1])
			}
		}
	}
	// Exit code 2 with status done tells of recoverable errors (cloud-init 23.4 and later): they count, too.
	if status != "done" || code != 0 {
		return "", fmt.Errorf("expected cloud-init's status done and exit code 0, found %q and %d: %s", machine.Clip(status, 40), code, machine.Clip(strings.Join(strings.Fields(out), " "), maxWords))
	}
	host, err := t.hostname(ctx)
	if err != nil {
		return "", err
	}
	if name, _, _ := strings.Cut(host, "."); name != hostname {
		return "", fmt.Errorf("expected the host name %s from the seed, found %q", hostname, host)
	}
	return fmt.Sprintf("status: done, host name %s from the seed, %s", hostname, machine.Clip(source, 100)), nil
}

func (t *test) hostname(ctx context.Context) (string, error) {
	var host struct {
		Name string `json:"host-name"`
	}
	err := t.agent.call(ctx, "guest-get-host-name", nil, &host)
	return machine.Clip(host.Name, 100), err
}

// tells asks what virt-launcher polls.
func (t *test) tells(ctx context.Context) (string, error) {
	var system struct {
		ID     string `json:"id"`
		Pretty string `json:"pretty-name"`
		Kernel string `json:"kernel-release"`
	}
	if err := t.agent.call(ctx, "guest-get-osinfo", nil, &system); err != nil {
		return "", err
	}
	if system.ID == "" || system.Kernel == "" {
		return "", fmt.Errorf("guest-get-osinfo: expected an id and a kernel, found %q and %q", machine.Clip(system.ID, 40), machine.Clip(system.Kernel, 40))
	}
	if host, err := t.hostname(ctx); err != nil {
		return "", err
	} else if host == "" {
		return "", errors.New("guest-get-host-name: expected a name, found none")
	}
	address, err := t.address(ctx)
	if err != nil {
		return "", err
	}
	var filesystems []struct {
		Mountpoint string `json:"mountpoint"`
		Type       string `json:"type"`
	}
	if err := t.agent.call(ctx, "guest-get-fsinfo", nil, &filesystems); err != nil {
		return "", err
	}
	root := ""
	for _, f := range filesystems {
		if f.Mountpoint == "/" {
			root = machine.Clip(f.Type, 20)
		}
	}
	if root == "" {
		return "", fmt.Errorf("guest-get-fsinfo: expected a root file system among %d, found none", len(filesystems))
	}
	var zone struct {
		Offset *int `json:"offset"` // seconds east of UTC
	}
	if err := t.agent.call(ctx, "guest-get-timezone", nil, &zone); err != nil {
		return "", err
	}
	if zone.Offset == nil {
		return "", errors.New("guest-get-timezone: expected an offset, found none")
	}
	var users []json.RawMessage
	if err := t.agent.call(ctx, "guest-get-users", nil, &users); err != nil {
		return "", err
	}
	var frozen string
	if err := t.agent.call(ctx, "guest-fsfreeze-status", nil, &frozen); err != nil {
		return "", err
	}
	if frozen != "thawed" {
		return "", fmt.Errorf("guest-fsfreeze-status: expected thawed, found %q", machine.Clip(frozen, 40))
	}
	var clock int64 // nanoseconds since 1970
	if err := t.agent.call(ctx, "guest-get-time", nil, &clock); err != nil {
		return "", err
	}
	if skew := time.Since(time.Unix(0, clock)).Abs(); skew > maxClockSkew {
		return "", fmt.Errorf("guest-get-time: expected about %s, found %s", time.Now().UTC().Format(time.RFC3339), time.Unix(0, clock).UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("%s (%s), kernel %s, %s, root %s, %d users logged in", machine.Clip(system.Pretty, 80), machine.Clip(system.ID, 40), machine.Clip(system.Kernel, 40), address, root, len(users)), nil
}

// address is an interface and its IPv4 address, by the agent.
func (t *test) address(ctx context.Context) (string, error) {
	var interfaces []struct {
		Name      string `json:"name"`
		Addresses []struct {
			IP string `json:"ip-address"`
		} `json:"ip-addresses"`
	}
	if err := t.agent.call(ctx, "guest-network-get-interfaces", nil, &interfaces); err != nil {
		return "", err
	}
	var names []string
	for _, i := range interfaces {
		names = append(names, i.Name)
		for _, a := range i.Addresses {
			if ip := net.ParseIP(a.IP); ip != nil && ip.To4() != nil && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
				return machine.Clip(i.Name, 20) + " " + ip.String(), nil
			}
		}
	}
	return "", fmt.Errorf("guest-network-get-interfaces: expected an interface with an IPv4 address, found none on %q", machine.Clip(strings.Join(names, ", "), maxWords))
}

// network looks at what DHCP and router advertisements have led to. The test's network hands out an address but, as it
// leads nowhere, over IPv4 neither a router nor a name server: a default route is told, not demanded.
func (t *test) network(ctx context.Context) (string, error) {
	const script = `cat /proc/net/route /proc/net/ipv6_route 2>/dev/null
if [ -e /etc/resolv.conf ]; then grep ^nameserver /etc/resolv.conf
elif [ -L /etc/resolv.conf ]; then echo dangling; fi; true`
	code, out, err := t.exec(ctx, 0, "/bin/sh", "-c", script)
	if err != nil {
		return "", err
	}
	if code != 0 {
		return "", fmt.Errorf("looking at the guest's network: exit code %d: %s", code, machine.Clip(out, maxWords))
	}
	local, router, names, dangling := routes(out)
	switch {
	case local == "":
		return "", errors.New("expected a route to the network that DHCP has given an address in, found none")
	case dangling:
		return "", errors.New("expected /etc/resolv.conf to hold a resolver, found a symbolic link that leads nowhere")
	}
	evidence := "network " + local
	if router != "" {
		evidence += ", default route by " + router
	}
	if len(names) > 0 {
		evidence += ", name server " + strings.Join(names[:min(len(names), 3)], ", ")
	}
	return evidence, nil
}

// routes reads /proc/net/route, /proc/net/ipv6_route and lines of /etc/resolv.conf (Documentation/networking/proc_net_tcp
// has their relatives): an interface with a local IPv4 network, one with a default route, the name servers.
func routes(text string) (local, router string, names []string, dangling bool) {
	const nowhere = "00000000000000000000000000000000"
	for _, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) == 11 && len(f[1]) == 8 && len(f[2]) == 8: // interface destination gateway …
			if f[1] == "00000000" {
				router = machine.Clip(f[0], 20) + " (IPv4)"
			} else if f[2] == "00000000" && local == "" {
				local = machine.Clip(f[0], 20)
			}
		case len(f) == 10 && len(f[0]) == 32: // destination length source length gateway … interface
			if f[0] == nowhere && f[1] == "00" && f[4] != nowhere && router == "" {
				router = machine.Clip(f[9], 20) + " (IPv6)"
			}
		case len(f) == 2 && f[0] == "nameserver":
			names = append(names, machine.Clip(f[1], 60))
		case line == "dangling":
			dangling = true
		}
	}
	return local, router, names, dangling
}

// key makes a new ssh key.
func key() (ssh.Signer, string, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, "", err
	}
	return s, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey()))) + " " + hostname, nil
}

// handOver gives the guest's user a key as virt-launcher does, in place of those before.
func (t *test) handOver(ctx context.Context) (ssh.Signer, error) {
	s, line, err := key()
	if err != nil {
		return nil, err
	}
	if err := t.agent.call(ctx, "guest-ping", nil, nil); err != nil {
		return nil, err
	}
	if err := t.agent.call(ctx, "guest-ssh-add-authorized-keys", map[string]any{"username": t.User, "keys": []string{line}, "reset": true}, nil); err != nil {
		return nil, err
	}
	t.last = s
	return s, nil
}

// known reads, by the agent, the key that the guest's ssh has to show. An agent that runs no programs reads none: then the
// first login shows it.
func (t *test) known(ctx context.Context) error {
	if t.closed {
		return nil
	}
	const path = "/etc/ssh/ssh_host_ed25519_key.pub"
	code, public, err := t.agent.exec(ctx, 0, "cat", path)
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("expected a host key in the guest's %s: %s", path, machine.Clip(public, maxWords))
	}
	if t.hostKey, _, _, _, err = ssh.ParseAuthorizedKey([]byte(public)); err != nil {
		return fmt.Errorf("the guest's %s: %w", path, err)
	}
	return nil
}

// errRefused is the error of a login whose key the guest does not accept.
var errRefused = errors.New("the guest refuses the key")

// login logs in with a key, checks that the host's key is the one known of the guest, and runs a command.
func (t *test) login(ctx context.Context, with ssh.Signer) (string, error) {
	if t.hostKey == nil {
		if err := t.known(ctx); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, loginLimit, fmt.Errorf("no login within %s", loginLimit))
	defer cancel()
	var code int
	var out string
	if err := t.connect(ctx, func(conn net.Conn) (err error) {
		code, out, err = t.session(conn, with, "id -un && uname -sm")
		return err
	}); err != nil {
		return "", err
	}
	words := strings.Fields(out)
	switch {
	case len(words) == 0 || words[0] != t.User:
		return "", fmt.Errorf("expected to be %s after the login, am %q", t.User, machine.Clip(strings.Join(words, " "), 100))
	case len(out) > 1000:
		return "", fmt.Errorf("expected a few words from id and uname, found %s", machine.Clip(out, 100))
	case code != 0:
		return "", fmt.Errorf("id and uname in the guest: exit code %d", code)
	}
	return strings.Join(words, " "), nil
}

// connect opens a connection to the guest's ssh for a function, and ends it with the context.
func (t *test) connect(ctx context.Context, use func(net.Conn) error) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(t.port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	err = use(conn)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// session is a login on an open connection, in which a command is run to its end.
func (t *test) session(conn net.Conn, with ssh.Signer, command string) (code int, out string, err error) {
	same := func(name string, remote net.Addr, key ssh.PublicKey) error {
		if t.hostKey == nil && t.closed { // nothing tells it beforehand; QEMU's port leads to this guest only
			t.hostKey = key
		}
		return ssh.FixedHostKey(t.hostKey)(name, remote, key)
	}
	c, channels, requests, err := ssh.NewClientConn(conn, "guest", &ssh.ClientConfig{User: t.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(with)},
		HostKeyCallback: same, HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}})
	if err != nil {
		if strings.Contains(err.Error(), "unable to authenticate") {
			return 0, "", fmt.Errorf("%w: %s", errRefused, machine.Clip(err.Error(), maxWords))
		}
		return 0, "", errors.New(machine.Clip(err.Error(), maxWords))
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return 0, "", errors.New(machine.Clip(err.Error(), maxWords))
	}
	stdout, errs := &most{client: client}, &most{client: client}
	session.Stdout, session.Stderr = stdout, errs
	err = session.Run(command)
	out = string(stdout.data) + string(errs.data)
	var exit *ssh.ExitError
	switch {
	case stdout.over || errs.over:
		return 0, out, nil // whoever reads it sees that it is too much
	case errors.As(err, &exit):
		return exit.ExitStatus(), out, nil
	case err != nil:
		return 0, "", errors.New(machine.Clip(err.Error(), maxWords))
	}
	return 0, out, nil
}

// most keeps what a guest's program prints, up to a bound: then the connection ends.
type most struct {
	client *ssh.Client
	data   []byte
	over   bool
}

func (m *most) Write(p []byte) (int, error) {
	m.data = append(m.data, p[:min(len(p), maxReply-len(m.data))]...)
	if len(m.data) == maxReply && !m.over {
		m.over = true
		_ = m.client.Close()
	}
	return len(p), nil
}

func (t *test) firstKey(ctx context.Context) (string, error) {
	s, err := t.handOver(ctx)
	if err != nil {
		return "", err
	}
	who, err := t.login(ctx, s)
	if err != nil {
		return "", fmt.Errorf("ssh with the key that was handed over: %w", err)
	}
	t.first = s
	if t.closed {
		return "logged in by ssh as " + who + ", the host's key is that of the first login", nil
	}
	return "logged in by ssh as " + who + ", host key as read by the agent", nil
}

func (t *test) secondKey(ctx context.Context) (string, error) {
	s, err := t.handOver(ctx)
	if err != nil {
		return "", err
	}
	if _, err := t.login(ctx, s); err != nil {
		return "", fmt.Errorf("ssh with the second key: %w", err)
	}
	if _, err := t.login(ctx, t.first); err == nil {
		return "", errors.New("expected the first key to be refused, found that it still opens the door")
	} else if !errors.Is(err, errRefused) {
		return "", fmt.Errorf("ssh with the first key: expected to be refused, found: %w", err)
	}
	return "the new key logs in, the old one is refused", nil
}

// grown reads the root's size in df's portable form (POSIX), which every guest has.
func (t *test) grown(ctx context.Context) (string, error) {
	code, out, err := t.exec(ctx, 0, "df", "-Pk", "/")
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	f := strings.Fields(lines[len(lines)-1])
	if code != 0 || len(f) < 6 {
		return "", fmt.Errorf("df in the guest: exit code %d: %s", code, machine.Clip(out, maxWords))
	}
	blocks, err := strconv.ParseInt(f[1], 10, 53)
	if err != nil {
		return "", fmt.Errorf("df in the guest: %s", machine.Clip(out, maxWords))
	}
	if size := blocks << 10; size < t.Size/10*9 {
		return "", fmt.Errorf("expected a root of nearly %d bytes, found %d", t.Size, size)
	}
	return fmt.Sprintf("%.1f GiB on a disk of %.1f GiB", float64(blocks)/(1<<20), float64(t.Size)/(1<<30)), nil
}

func (t *test) identity(ctx context.Context) (string, error) {
	code, out, err := t.exec(ctx, 0, "cat", "/etc/machine-id")
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(out)
	if code != 0 || len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || id == strings.Repeat("0", 32) {
		return "", fmt.Errorf("expected a machine id of 32 hexadecimal digits, found %q", machine.Clip(id, 100))
	}
	return "machine-id " + id, nil
}

// units asks systemd, once everything has started, what has failed. A guest with another init has no units.
func (t *test) units(ctx context.Context) (string, error) {
	const other = 77
	script := fmt.Sprintf(`[ -d /run/systemd/system ] || exit %d
timeout %d systemctl is-system-running --wait 2>/dev/null
systemctl list-units --state=failed --plain --no-legend --no-pager 2>/dev/null`, other, int(settleLimit.Seconds()))
	code, out, err := t.exec(ctx, settleLimit+execLimit, "/bin/sh", "-c", script)
	if err != nil {
		return "", err
	}
	if code == other {
		return "not systemd: there are no units", nil
	}
	if code != 0 {
		return "", fmt.Errorf("systemctl in the guest: exit code %d: %s", code, machine.Clip(out, maxWords))
	}
	state, failed := "starting", []string(nil)
	for i, line := range strings.Split(out, "\n") {
		words := strings.Fields(line)
		switch {
		case len(words) == 1 && i == 0:
			state = machine.Clip(words[0], 20)
		case len(words) > 0:
			failed = append(failed, machine.Clip(words[0], 100))
		}
	}
	if len(failed) > 0 {
		t.journal(ctx, failed)
		slices.Sort(failed)
		return "", fmt.Errorf("expected no failed unit, found %s", machine.Clip(strings.Join(failed, ", "), maxWords))
	}
	return "systemctl names none, the system is " + state, nil
}

// journal logs what units that failed have said: the guest will be gone.
func (t *test) journal(ctx context.Context, units []string) {
	args := []string{"-b", "--no-pager", "-n", "40"}
	for _, u := range units[:min(len(units), 10)] {
		args = append(args, "-u", u)
	}
	_, out, err := t.exec(ctx, 0, "journalctl", args...)
	if err != nil {
		t.scope.Logf("%s: what the units have said is not known: %v", t.Firmware, err)
		return
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, line := range lines[max(0, len(lines)-60):] {
		t.scope.Logf("%s: journal: %s", t.Firmware, machine.Clip(line, 400))
	}
}

// powerOff tells the guest to power off and waits until it has.
func (t *test) powerOff(ctx context.Context) (string, error) {
	const name = "guest-shutdown"
	body, err := machine.Request(name, map[string]any{"mode": "powerdown"})
	if err != nil {
		return "", err
	}
	began := time.Now()
	t.leaving.Store(true)
	done := t.agent.within(ctx, offLimit)
	defer done()
	if _, err := t.agent.conn.Write(body); err != nil {
		return "", t.agent.failed(ctx, name, offLimit, err)
	}
	// The call has an answer only when it fails.
	no := make(chan error, 1)
	go func() {
		if line, err := machine.ReadLine(t.agent.r); err == nil {
			if err := machine.Answer(name, line, nil); err != nil {
				no <- err
			}
		}
	}()
	select {
	case <-t.vm.Done():
	case err := <-no:
		return "", err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-time.After(offLimit):
		return "", fmt.Errorf("expected the machine to be off, it is still running %s after guest-shutdown", offLimit)
	}
	if err := t.vm.Wait(); err != nil {
		return "", err
	}
	if reason := t.vm.QMP.Shutdown(); reason != name {
		return "", fmt.Errorf("expected the guest to power off, QEMU says: %s", reason)
	}
	return fmt.Sprintf("by guest-shutdown, in %.1f s", time.Since(began).Seconds()), nil
}
