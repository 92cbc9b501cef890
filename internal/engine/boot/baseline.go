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
)

// What KubeVirt's virt-launcher needs the agent to allow: to count as connected, and to hand over ssh keys.
var needed = []string{
	"guest-ping", "guest-get-time", "guest-info", "guest-shutdown", "guest-network-get-interfaces", "guest-get-fsinfo", "guest-get-host-name",
	"guest-get-users", "guest-get-timezone", "guest-get-osinfo",
	"guest-ssh-get-authorized-keys", "guest-ssh-add-authorized-keys", "guest-ssh-remove-authorized-keys",
}

// part is one check of the baseline.
type part struct {
	name string
	full bool // only in the whole baseline
	run  func(*test, context.Context) (evidence string, err error)
}

var parts = []part{
	{"guest agent answers", false, (*test).answers},
	{"guest agent allows what KubeVirt calls", false, (*test).allows},
	{"guest tells of itself", true, (*test).tells},
	{"cloud-init has configured it", true, (*test).configured},
	{"ssh key handed over by the agent", true, (*test).firstKey},
	{"another key replaces it", true, (*test).secondKey},
	{"root file system has grown", true, (*test).grown},
	{"machine identity is its own", true, (*test).identity},
	{"no unit failed", true, (*test).units},
	{"powers off cleanly", false, (*test).powerOff},
}

func (t *test) baseline(ctx context.Context) error {
	var list []part
	for _, p := range parts {
		if t.Full || !p.full {
			list = append(list, p)
		}
	}
	for i, p := range list {
		t.progress(i, len(list), "checks, waiting for: "+p.name)
		evidence, err := t.guarded(ctx, p)
		c := Check{Name: p.name, OK: err == nil, Detail: event.Clean(evidence), Seconds: time.Since(t.began).Seconds()}
		if err != nil {
			c.Detail = event.Clean(err.Error())
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

// guarded runs a check until it ends, or the guest does.
func (t *test) guarded(ctx context.Context, p part) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case line := <-t.panic:
			cancel(fmt.Errorf("the guest gave up: %s", line))
		case <-t.process.Done():
			if p.name != parts[len(parts)-1].name { // the last check expects it
				err := errors.New("the machine ended by itself")
				if perr := t.process.Wait(); perr != nil {
					err = fmt.Errorf("%w: %w", err, perr)
				}
				cancel(err)
			}
		case <-done:
		}
	}()
	evidence, err := p.run(t, ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return evidence, err
}

// answers waits for the guest to open the agent's port, then for the agent.
func (t *test) answers(ctx context.Context) (string, error) {
	for {
		select {
		case e, ok := <-t.qmp.events:
			if !ok { // QEMU is gone; what it said last comes with it
				return "", errors.Join(errors.New("the machine ended by itself"), t.process.Wait())
			}
			if e != "OPEN" {
				continue
			}
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		break
	}
	for {
		err := t.agent.sync(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		t.scope.Logf("the agent's port is open, the agent is not there yet: %v", err)
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
		return "", fmt.Errorf("expected these calls to be enabled: %s", strings.Join(lacking, ", "))
	}
	return fmt.Sprintf("version %s, %d calls", info.Version, len(info.Commands)), nil
}

// tells asks what virt-launcher polls.
func (t *test) tells(ctx context.Context) (string, error) {
	var os struct {
		ID, PrettyName string
		Kernel         string
	}
	var raw map[string]any
	if err := t.agent.call(ctx, "guest-get-osinfo", nil, &raw); err != nil {
		return "", err
	}
	text := func(k string) string { s, _ := raw[k].(string); return s }
	os.ID, os.PrettyName, os.Kernel = text("id"), text("pretty-name"), text("kernel-release")
	if os.ID == "" || os.Kernel == "" {
		return "", fmt.Errorf("guest-get-osinfo names no system: %v", raw)
	}
	var host struct {
		Name string `json:"host-name"`
	}
	if err := t.agent.call(ctx, "guest-get-host-name", nil, &host); err != nil {
		return "", err
	}
	var interfaces []struct {
		Name      string `json:"name"`
		Addresses []struct {
			IP   string `json:"ip-address"`
			Type string `json:"ip-address-type"`
		} `json:"ip-addresses"`
	}
	address := ""
	if err := t.agent.call(ctx, "guest-network-get-interfaces", nil, &interfaces); err != nil {
		return "", err
	}
	for _, i := range interfaces {
		for _, a := range i.Addresses {
			if ip := net.ParseIP(a.IP); ip != nil && ip.To4() != nil && !ip.IsLoopback() {
				address = i.Name + " " + a.IP
			}
		}
	}
	if address == "" {
		return "", errors.New("no interface has an IPv4 address")
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
			root = f.Type
		}
	}
	if root == "" {
		return "", errors.New("guest-get-fsinfo names no root file system")
	}
	for _, name := range []string{"guest-get-timezone", "guest-get-users", "guest-fsfreeze-status", "guest-get-time"} {
		if err := t.agent.call(ctx, name, nil, &json.RawMessage{}); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s (%s), kernel %s, %s, root %s", os.PrettyName, os.ID, os.Kernel, address, root), nil
}

// configured waits for cloud-init and reads what it says.
func (t *test) configured(ctx context.Context) (string, error) {
	code, out, err := t.agent.exec(ctx, "cloud-init", "status", "--wait", "--long")
	if err != nil {
		return "", err
	}
	status := ""
	for _, line := range strings.Split(out, "\n") {
		if v, ok := strings.CutPrefix(line, "status: "); ok {
			status = strings.TrimSpace(v)
		}
	}
	if status != "done" {
		return "", fmt.Errorf("expected cloud-init's status done, found %q (exit code %d): %s", status, code, strings.Join(strings.Fields(out), " "))
	}
	// Exit code 2 with status done tells of recoverable errors (cloud-init 23.4 and later): they are told, too.
	if code != 0 {
		return "", fmt.Errorf("cloud-init is done with exit code %d: %s", code, strings.Join(strings.Fields(out), " "))
	}
	var host struct {
		Name string `json:"host-name"`
	}
	if err := t.agent.call(ctx, "guest-get-host-name", nil, &host); err != nil {
		return "", err
	}
	if name, _, _ := strings.Cut(host.Name, "."); name != t.host {
		return "", fmt.Errorf("expected the host name %s from the seed, found %s", t.host, host.Name)
	}
	return "status: done, host name from the seed", nil
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
	return s, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey()))) + " kmi-test", nil
}

// handOver gives the guest's user a key as virt-launcher does, in place of those before.
func (t *test) handOver(ctx context.Context) (ssh.Signer, error) {
	s, line, err := key()
	if err != nil {
		return nil, err
	}
	return s, t.agent.call(ctx, "guest-ssh-add-authorized-keys", map[string]any{"username": t.User, "keys": []string{line}, "reset": true}, nil)
}

// login logs in with a key, checks that the host's key is the one the agent read from the guest, and runs a command.
func (t *test) login(ctx context.Context, with ssh.Signer) (string, error) {
	code, public, err := t.agent.exec(ctx, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
	if err != nil {
		return "", err
	}
	if code != 0 {
		return "", fmt.Errorf("the guest has no ed25519 host key: %s", public)
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(public))
	if err != nil {
		return "", fmt.Errorf("the guest's host key: %w", err)
	}
	dialer := net.Dialer{}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(t.port)))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline(ctx, conn, 90*time.Second)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	c, channels, requests, err := ssh.NewClientConn(conn, "guest", &ssh.ClientConfig{User: t.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(with)},
		HostKeyCallback: ssh.FixedHostKey(host), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}})
	if err != nil {
		return "", err
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	out, err := session.Output("id -un && uname -sm")
	if err != nil {
		return "", err
	}
	words := strings.Fields(string(out[:min(len(out), 1000)]))
	if len(words) == 0 || words[0] != t.User {
		return "", fmt.Errorf("expected to be %s, am %q", t.User, words)
	}
	return strings.Join(words, " "), nil
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
		return "", errors.New("the first key still opens the door")
	} else if !strings.Contains(err.Error(), "unable to authenticate") {
		return "", fmt.Errorf("ssh with the first key: expected to be refused, got: %w", err)
	}
	return "the new key logs in, the old one is refused", nil
}

func (t *test) grown(ctx context.Context) (string, error) {
	code, out, err := t.agent.exec(ctx, "df", "-B1", "--output=size", "/")
	if err != nil {
		return "", err
	}
	words := strings.Fields(out)
	if code != 0 || len(words) == 0 {
		return "", fmt.Errorf("df: exit code %d: %s", code, out)
	}
	size, err := strconv.ParseInt(words[len(words)-1], 10, 64)
	if err != nil {
		return "", fmt.Errorf("df printed %q", out)
	}
	if size < t.Size*9/10 {
		return "", fmt.Errorf("expected a root of nearly %d bytes, found %d", t.Size, size)
	}
	return fmt.Sprintf("%.1f GiB on a disk of %.1f GiB", float64(size)/(1<<30), float64(t.Size)/(1<<30)), nil
}

func (t *test) identity(ctx context.Context) (string, error) {
	code, out, err := t.agent.exec(ctx, "cat", "/etc/machine-id")
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(out)
	if code != 0 || len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || id == strings.Repeat("0", 32) {
		return "", fmt.Errorf("expected a machine id of 32 hexadecimal digits, found %q", id)
	}
	return "machine-id " + id, nil
}

func (t *test) units(ctx context.Context) (string, error) {
	code, out, err := t.agent.exec(ctx, "systemctl", "list-units", "--state=failed", "--plain", "--no-legend")
	if err != nil {
		return "", err
	}
	if code != 0 {
		return "", fmt.Errorf("systemctl: exit code %d: %s", code, out)
	}
	var failed []string
	for _, line := range strings.Split(out, "\n") {
		if words := strings.Fields(line); len(words) > 0 {
			failed = append(failed, words[0])
		}
	}
	if len(failed) > 0 {
		slices.Sort(failed)
		return "", fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return "systemctl names none", nil
}

func (t *test) powerOff(ctx context.Context) (string, error) {
	// The call has no answer when it succeeds.
	_ = t.agent.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := t.agent.conn.Write([]byte(`{"execute":"guest-shutdown","arguments":{"mode":"powerdown"}}` + "\n")); err != nil {
		return "", err
	}
	select {
	case <-t.process.Done():
		return "by guest-shutdown", t.process.Wait()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-time.After(2 * time.Minute):
		return "", errors.New("still running 2 minutes after guest-shutdown")
	}
}
