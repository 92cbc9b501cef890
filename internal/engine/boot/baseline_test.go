package boot

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// guest is a guest's agent that answers from tables.
type guest struct {
	calls map[string]string // call → the JSON of its result
	runs  map[string]ran    // the program and its first argument → how it ended
}

type ran struct {
	code int
	out  string
}

const seconds = int64(time.Second)

// healthy is a guest that passes.
func healthy() guest {
	return guest{
		calls: map[string]string{
			"guest-ping":                    `{}`,
			"guest-get-osinfo":              `{"id": "tiny", "pretty-name": "Tiny 1", "kernel-release": "6.1"}`,
			"guest-get-host-name":           `{"host-name": "kmi-test"}`,
			"guest-network-get-interfaces":  `[{"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1"}]}, {"name": "down"}, {"name": "eth0", "ip-addresses": [{"ip-address": "fe80::1"}, {"ip-address": "10.0.2.15"}]}]`,
			"guest-get-fsinfo":              `[{"mountpoint": "/boot", "type": "vfat"}, {"mountpoint": "/", "type": "ext4"}]`,
			"guest-get-timezone":            `{"offset": 0, "zone": "UTC"}`,
			"guest-get-users":               `[]`,
			"guest-fsfreeze-status":         `"thawed"`,
			"guest-get-time":                strconv.FormatInt(time.Now().Unix()*seconds, 10),
			"guest-ssh-add-authorized-keys": `{}`,
		},
		runs: map[string]ran{
			"cloud-init status":    {0, "....\nstatus: done\nlast_update: x\ndetail:\nDataSourceNoCloud [seed=/dev/vdb][dsmode=net]\n"},
			"df -Pk":               {0, "Filesystem     1024-blocks   Used Available Capacity Mounted on\n/dev/vda1         12148860 665052  11363900       6% /\n"},
			"cat /etc/machine-id":  {0, "0123456789abcdef0123456789abcdef\n"},
			"/bin/sh network":      {0, "eth0\t0002000A\t00000000\t0001\t0\t0\t1024\t00FFFFFF\t0\t0\t0\nnameserver 127.0.0.53\n"},
			"/bin/sh units":        {0, "running\n"},
			"journalctl -b":        {0, "it broke\n"},
			"cat /etc/ssh/ssh_hos": {1, "cat: no such file\n"},
		},
	}
}

// agent starts the guest's agent.
func (g guest) agent(t testing.TB) *agent {
	var last ran
	return speak(t, synced(func(line string, conn net.Conn) {
		var m struct {
			Execute   string
			Arguments struct {
				Path string
				Arg  []string
			}
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Error(err)
		}
		reply := ""
		switch m.Execute {
		case "guest-exec":
			what := m.Arguments.Arg[0]
			if what == "-c" {
				what = "network"
				if strings.Contains(m.Arguments.Arg[1], "systemctl") {
					what = "units"
				}
			}
			run, ok := g.runs[m.Arguments.Path+" "+what[:min(len(what), 16)]]
			if !ok {
				fmt.Fprintf(conn, `{"error": {"class": "GenericError", "desc": "Failed to execute child process %s (No such file or directory)"}}`+"\n", m.Arguments.Path)
				return
			}
			last, reply = run, `{"pid": 1}`
		case "guest-exec-status":
			reply = fmt.Sprintf(`{"exited": true, "exitcode": %d, "out-data": %q}`, last.code, base64.StdEncoding.EncodeToString([]byte(last.out)))
		default:
			if reply = g.calls[m.Execute]; reply == "" {
				fmt.Fprintf(conn, `{"error": {"class": "CommandNotFound", "desc": "The command %s has not been found"}}`+"\n", m.Execute)
				return
			}
		}
		fmt.Fprintf(conn, `{"return": %s}`+"\n", strings.ReplaceAll(reply, "\n", " "))
	}))
}

func TestChecks(t *testing.T) {
	allowed := func(but string) string {
		var list []string
		for _, n := range needed {
			list = append(list, fmt.Sprintf(`{"name": %q, "enabled": %v}`, n, n != but))
		}
		return `{"version": "7.2", "supported_commands": [` + strings.Join(list, ",") + `]}`
	}
	units := ran{0, "degraded\nb.service loaded failed failed B\na.service loaded failed failed A\n"}
	for _, c := range []struct {
		check func(*test, context.Context) (string, error)
		call  string // or program
		value any    // string: the call's result; ran: how the program ended; nil: there is no such thing
		want  string
	}{
		{(*test).allows, "guest-info", allowed(""), "version 7.2, 13 calls, none of which runs programs: they are run by ssh"},
		{(*test).allows, "guest-info", strings.Replace(allowed(""), "[", `[{"name": "guest-exec", "enabled": true}, {"name": "guest-exec-status", "enabled": true}, `, 1), "version 7.2, 15 calls"},
		{(*test).allows, "guest-info", allowed("guest-get-users"), "expected these calls to be enabled: guest-get-users; version 7.2"},
		{(*test).allows, "guest-info", `{"supported_commands": []}`, "enabled: guest-ping, "},
		{(*test).allows, "guest-info", `7`, "guest-info: the answer has another form"},
		{(*test).configured, "", nil, "status: done, host name kmi-test from the seed, DataSourceNoCloud"},
		{(*test).configured, "cloud-init status", ran{0, "status: done\ndetail: DataSourceNoCloud [x]\n"}, "from the seed, DataSourceNoCloud [x]"},
		{(*test).configured, "cloud-init status", ran{0, "....status: done\nextended_status: done\ndetail: DataSourceNoCloud [x]\n"}, "from the seed, DataSourceNoCloud [x]"},
		{(*test).configured, "cloud-init status", ran{2, "status: done\nrecoverable_errors:\nWARNING: x\n"}, `expected cloud-init's status done and exit code 0, found "done" and 2: `},
		{(*test).configured, "cloud-init status", ran{1, "status: error\ndetail:\n('locale', ...)\n"}, `found "error" and 1: status: error detail: ('locale', ...)`},
		{(*test).configured, "cloud-init status", ran{0, "status: disabled\n"}, `found "disabled"`},
		{(*test).configured, "cloud-init status", nil, "Failed to execute child process cloud-init"},
		{(*test).configured, "guest-get-host-name", `{"host-name": "localhost"}`, `expected the host name kmi-test from the seed, found "localhost"`},
		{(*test).configured, "guest-get-host-name", `{"host-name": "kmi-test.lan"}`, "status: done"},
		{(*test).tells, "", nil, "Tiny 1 (tiny), kernel 6.1, eth0 10.0.2.15, root ext4, 0 users logged in"},
		{(*test).tells, "guest-get-osinfo", `{"id": "x"}`, `expected an id and a kernel, found "x" and ""`},
		{(*test).tells, "guest-get-host-name", `{"host-name": ""}`, "guest-get-host-name: expected a name"},
		{(*test).tells, "guest-network-get-interfaces", `[{"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1"}]}, {"name": "eth0", "ip-addresses": [{"ip-address": "169.254.1.1"}, {"ip-address": "x"}]}]`, `found none on "lo, eth0"`},
		{(*test).tells, "guest-get-fsinfo", `[{"mountpoint": "/boot"}]`, "expected a root file system among 1, found none"},
		{(*test).tells, "guest-get-timezone", `{}`, "expected an offset"},
		{(*test).tells, "guest-get-users", `{}`, "guest-get-users: the answer has another form"},
		{(*test).tells, "guest-fsfreeze-status", `"frozen"`, `expected thawed, found "frozen"`},
		{(*test).tells, "guest-get-time", `1000000000`, "found 1970-01-01T00:00:01Z"},
		{(*test).network, "", nil, "network eth0, name server 127.0.0.53"},
		{(*test).network, "/bin/sh network", ran{0, "nameserver x\n"}, "expected a route to the network that DHCP"},
		{(*test).network, "/bin/sh network", ran{0, "eth0\t0002000A\t00000000\t0001\t0\t0\t1024\t00FFFFFF\t0\t0\t0\ndangling\n"}, "found a symbolic link that leads nowhere"},
		{(*test).grown, "", nil, "11.6 GiB on a disk of 12.0 GiB"},
		{(*test).grown, "df -Pk", ran{0, "F\n/dev/vda1 9961472 665052 11363900 6% /\n"}, "expected a root of nearly 12884901888 bytes, found 10200547328"},
		{(*test).grown, "df -Pk", ran{0, "F\n/dev/vda1 -9223372036854775807 1 1 1% /\n"}, "df in the guest: "},
		{(*test).grown, "df -Pk", ran{0, ""}, "df in the guest: exit code 0"},
		{(*test).identity, "", nil, "machine-id 0123456789abcdef0123456789abcdef"},
		{(*test).identity, "cat /etc/machine-id", ran{0, "\n"}, `expected a machine id of 32 hexadecimal digits, found ""`},
		{(*test).identity, "cat /etc/machine-id", ran{0, "uninitialized\n"}, `found "uninitialized"`},
		{(*test).identity, "cat /etc/machine-id", ran{0, strings.Repeat("0", 32)}, "expected a machine id"},
		{(*test).units, "", nil, "systemctl names none, the system is running"},
		{(*test).units, "/bin/sh units", ran{77, ""}, "not systemd: there are no units"},
		{(*test).units, "/bin/sh units", ran{0, ""}, "the system is starting"},
		{(*test).units, "/bin/sh units", units, "expected no failed unit, found a.service, b.service"},
		{(*test).units, "/bin/sh units", ran{1, "no bus"}, "systemctl in the guest: exit code 1: no bus"},
		{(*test).firstKey, "guest-ssh-add-authorized-keys", nil, "guest-ssh-add-authorized-keys: CommandNotFound"},
	} {
		g := healthy()
		g.calls, g.runs = maps.Clone(g.calls), maps.Clone(g.runs)
		switch v := c.value.(type) {
		case string:
			g.calls[c.call] = v
		case ran:
			g.runs[c.call] = v
		default:
			delete(g.calls, c.call)
			delete(g.runs, c.call)
		}
		tt := &test{Spec: Spec{Size: 12 << 30, User: "tiny", Deadline: time.Minute}, agent: g.agent(t)}
		got, err := c.check(tt, context.Background())
		if err != nil {
			got = err.Error()
		}
		if good := !strings.Contains(got, "expected") && !strings.Contains(got, ": exit code") && !strings.Contains(got, "df in"); !strings.Contains(got, c.want) || (err == nil) != good && c.call == "" {
			t.Errorf("%s %v: %s (%v), want %q", c.call, c.value, got, err, c.want)
		}
	}
}

// door is a guest's ssh on loopback.
type door struct {
	mu      sync.Mutex
	host    ssh.Signer
	open    map[string]bool // keys that are accepted
	flood   bool            // answers a command without an end
	port    int
	keeps   bool // old keys stay
	forever bool // takes connections and says nothing

	runs map[string]ran // what a command is answered by; one that is not here tells who and where it is
}

func newDoor(t *testing.T) *door {
	t.Helper()
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	host, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	d := &door{host: host, open: map[string]bool{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	d.port = l.Addr().(*net.TCPAddr).Port
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			if !d.forever {
				go d.serve(conn)
			}
		}
	}()
	return d
}

func (d *door) serve(conn net.Conn) {
	c := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.open[string(k.Marshal())] {
			return nil, errors.New("no")
		}
		return nil, nil
	}}
	c.AddHostKey(d.host)
	s, channels, requests, err := ssh.NewServerConn(conn, c)
	if err != nil {
		return
	}
	defer s.Close()
	go ssh.DiscardRequests(requests)
	for n := range channels {
		ch, rs, err := n.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range rs {
				_ = r.Reply(r.Type == "exec", nil)
				if r.Type != "exec" {
					continue
				}
				var asked struct{ Command string }
				_ = ssh.Unmarshal(r.Payload, &asked)
				if run, ok := d.runs[asked.Command]; ok {
					_, _ = ch.Write([]byte(run.out))
					_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(run.code)}))
					_ = ch.Close()
					continue
				}
				fmt.Fprintf(ch, "%s\nLinux x86_64\n", s.User())
				for d.flood {
					if _, err := ch.Write(make([]byte, 1<<15)); err != nil {
						return
					}
				}
				_, _ = ch.SendRequest("exit-status", false, make([]byte, 4))
				_ = ch.Close()
			}
		}()
	}
}

func TestKeys(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(d *door, host *string)
		want  string
	}{
		"good":          {nil, ""},
		"old key stays": {func(d *door, _ *string) { d.keeps = true }, "expected the first key to be refused, found that it still opens the door"},
		"another host": {func(_ *door, host *string) {
			_, *host, _ = key()
		}, "ssh with the key that was handed over: ssh: handshake failed: ssh: host key mismatch"},
		"not a key":        {func(_ *door, host *string) { *host = "garbage" }, "the guest's /etc/ssh/ssh_host_ed25519_key.pub: ssh: no key found"},
		"nobody is let in": {func(d *door, _ *string) { d.open = nil }, "ssh with the key that was handed over: the guest refuses the key: "},
		"flood":            {func(d *door, _ *string) { d.flood = true }, "expected a few words from id and uname"},
		"says nothing":     {func(d *door, _ *string) { d.forever = true }, "enough"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t)
			host := string(ssh.MarshalAuthorizedKey(d.host.PublicKey()))
			if c.spoil != nil {
				c.spoil(d, &host)
			}
			a := speak(t, synced(func(line string, conn net.Conn) {
				var m struct {
					Execute   string
					Arguments struct {
						Username string
						Keys     []string
						Reset    bool
					}
				}
				_ = json.Unmarshal([]byte(line), &m)
				reply := "{}"
				switch m.Execute {
				case "guest-ssh-add-authorized-keys":
					k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(m.Arguments.Keys[0]))
					if err != nil || m.Arguments.Username != "tiny" || !m.Arguments.Reset || len(m.Arguments.Keys) != 1 {
						t.Errorf("%s: %v", line, err)
					}
					d.mu.Lock()
					if d.open != nil {
						if !d.keeps {
							clear(d.open)
						}
						d.open[string(k.Marshal())] = true
					}
					d.mu.Unlock()
				case "guest-exec":
					reply = `{"pid": 1}`
				case "guest-exec-status":
					reply = fmt.Sprintf(`{"exited": true, "exitcode": 0, "out-data": %q}`, base64.StdEncoding.EncodeToString([]byte(host)))
				}
				fmt.Fprintf(conn, `{"return": %s}`+"\n", reply)
			}))
			tt := &test{Spec: Spec{User: "tiny"}, agent: a, port: d.port}
			ctx, cancel := context.WithTimeoutCause(context.Background(), 20*time.Second, errors.New("too long"))
			defer cancel()
			if d.forever {
				ctx, cancel = context.WithTimeoutCause(ctx, time.Second, errors.New("enough"))
				defer cancel()
			}
			_, err := tt.firstKey(ctx)
			if err == nil {
				_, err = tt.secondKey(ctx)
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// A guest whose agent runs no programs is asked by ssh, as soon as cloud-init has made its user, and passes all the same.
func TestAClosedAgent(t *testing.T) {
	d := newDoor(t)
	d.runs = map[string]ran{
		"'cloud-init' 'status' '--wait' '--long'": {0, "status: done\ndetail: DataSourceNoCloud [x]\n"},
		"'df' '-Pk' '/'":          {0, "F\n/dev/vda1 12148860 665052 11363900 6% /\n"},
		"'cat' '/etc/machine-id'": {3, "0123456789abcdef0123456789abcdef\n"},
		"'it'\\''s' 'a b'":        {7, "quoted"},
	}
	tries, shut := 0, atomic.Bool{}
	a := speak(t, synced(func(line string, conn net.Conn) {
		var m struct {
			Execute   string
			Arguments struct{ Keys []string }
		}
		_ = json.Unmarshal([]byte(line), &m)
		reply := `{"return": {}}`
		switch m.Execute {
		case "guest-get-host-name":
			reply = `{"return": {"host-name": "kmi-test"}}`
		case "guest-exec":
			reply = `{"error": {"class": "CommandNotFound", "desc": "Command guest-exec has been disabled"}}`
		case "guest-ssh-add-authorized-keys":
			if tries++; tries == 1 || shut.Load() {
				reply = `{"error": {"class": "GenericError", "desc": "no such user"}}`
				break
			}
			if k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(m.Arguments.Keys[0])); err == nil && tries != 2 { // and ssh is not there at once
				d.mu.Lock()
				clear(d.open)
				d.open[string(k.Marshal())] = true
				d.mu.Unlock()
			}
		}
		fmt.Fprintln(conn, reply)
	}))
	tt := &test{Spec: Spec{User: "tiny", Size: 12 << 30, Deadline: time.Minute}, agent: a, port: d.port, closed: true}
	for _, x := range []struct {
		check func(*test, context.Context) (string, error)
		want  string
	}{
		{(*test).configured, "status: done, host name kmi-test from the seed, DataSourceNoCloud [x]"},
		{(*test).firstKey, "logged in by ssh as tiny Linux x86_64, the host's key is that of the first login"},
		{(*test).secondKey, "the new key logs in, the old one is refused"},
		{(*test).grown, "11.6 GiB on a disk of 12.0 GiB"},
		{(*test).identity, "expected a machine id of 32 hexadecimal digits"},
		{func(tt *test, ctx context.Context) (string, error) {
			code, out, err := tt.exec(ctx, 0, "it's", "a b")
			return fmt.Sprint(code, " ", out), err
		}, "7 quoted"},
	} {
		got, err := x.check(tt, t.Context())
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, x.want) {
			t.Errorf("%s, want %q", got, x.want)
		}
	}
	// Another machine behind the same port is noticed.
	other := newDoor(t)
	other.open = d.open
	tt.port = other.port
	if _, err := tt.grown(t.Context()); err == nil || !strings.Contains(err.Error(), "host key mismatch") {
		t.Errorf("%v", err)
	}
	// One that never lets in ends with what it said.
	shut.Store(true)
	tt.last, tt.port = nil, d.port
	if _, _, err := tt.exec(t.Context(), 2*time.Second, "df"); err == nil || !strings.Contains(err.Error(), "df in the guest did not end within 2s: guest-ssh-add-authorized-keys: GenericError: no such user") {
		t.Errorf("%v", err)
	}
}
