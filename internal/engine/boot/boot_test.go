package boot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

func TestArguments(t *testing.T) {
	s := Spec{Arch: catalog.X86_64, Firmware: "uefi", Memory: 512, Dir: "/w,eird"}
	emulated := strings.Join(s.machine("tcg").Arguments(), " ")
	for _, want := range []string{"-accel tcg -cpu max -smp 1 -m 512", "restrict=on,hostfwd=tcp:127.0.0.1:0-:22", "readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
		"if=pflash,format=raw,file=vars.fd", "format=qcow2,discard=unmap,file=overlay.qcow2", "format=raw,readonly=on,file=seed.iso", "virtserialport,id=agent0",
		"name=org.qemu.guest_agent.0", "-no-reboot", " -S ", "-sandbox on"} {
		if !strings.Contains(emulated, want) {
			t.Errorf("%q is missing in %s", want, emulated)
		}
	}
	if strings.Contains(emulated, "/w,eird") {
		t.Errorf("the folder's name needs quoting in %s", emulated)
	}
	s.Firmware = "bios"
	if got := strings.Join(s.machine("kvm").Arguments(), " "); strings.Contains(got, "pflash") || !strings.Contains(got, "-accel kvm -cpu host -smp 2") {
		t.Error(got)
	}
	s = Spec{Arch: catalog.ARM64, Firmware: "uefi", Memory: 512}
	if got := strings.Join(s.machine("tcg").Arguments(), " "); !strings.Contains(got, "-machine virt") || !strings.Contains(got, "AAVMF_CODE.fd") {
		t.Error(got)
	}
	for _, c := range []struct {
		arch catalog.Arch
		name string
	}{{catalog.ARM64, "bios"}, {catalog.X86_64, "coreboot"}, {"riscv64", "uefi"}} {
		if err := Firmware(c.arch, c.name); err == nil {
			t.Errorf("%s has a firmware %s", c.arch, c.name)
		}
	}
	for _, arch := range catalog.Arches {
		if Program(arch) == "" {
			t.Errorf("no QEMU for %s", arch)
		}
	}
}

func TestAMissingFirmwareNamesItsPackage(t *testing.T) {
	old := machine.Boards[catalog.ARM64]
	defer func() { machine.Boards[catalog.ARM64] = old }()
	machine.Boards[catalog.ARM64] = machine.Board{Program: old.Program, Type: old.Type, CPU: old.CPU, Firmware: map[string]machine.Flash{"uefi": {Code: "/nowhere/CODE.fd", Vars: "/nowhere/VARS.fd", Package: "qemu-efi-aarch64"}}}
	_, err := Run(context.Background(), Spec{Arch: catalog.ARM64, Firmware: "uefi", Dir: t.TempDir()}, nil)
	var r *event.Remedied
	if !errors.As(err, &r) || !strings.HasSuffix(r.Remedy, " qemu-efi-aarch64") || !strings.Contains(err.Error(), "/nowhere/CODE.fd is missing") {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestSeed(t *testing.T) {
	texts := seedTexts()
	if len(texts) != 2 || texts["meta-data"] != "instance-id: kmi-test\nlocal-hostname: kmi-test\n" || !strings.HasPrefix(texts["user-data"], "#cloud-config\n") {
		t.Errorf("%q", texts)
	}
}

// speak makes an agent whose guest answers as the test says: it gets each line and writes back.
func speak(t testing.TB, answer func(line string, conn net.Conn)) *agent {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			answer(strings.TrimPrefix(strings.TrimSpace(line), "\xff"), conn)
		}
	}()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a := newAgent(conn)
	t.Cleanup(a.close)
	return a
}

// synced answers guest-sync-delimited rightly and hands everything else on.
func synced(rest func(line string, conn net.Conn)) func(string, net.Conn) {
	return func(line string, conn net.Conn) {
		if strings.Contains(line, "guest-sync-delimited") {
			id := line[strings.LastIndex(line, ":")+1 : strings.Index(line, "}")]
			fmt.Fprintf(conn, "\xff{\"return\": %s}\n", id)
			return
		}
		rest(line, conn)
	}
}

func TestAgent(t *testing.T) {
	ctx := context.Background()
	var got struct{ X int }
	a := speak(t, synced(func(line string, conn net.Conn) { fmt.Fprint(conn, `{"return": {"X": 7}}`+"\n") }))
	if err := a.call(ctx, "guest-info", nil, &got); err != nil || got.X != 7 {
		t.Errorf("%v, %+v", err, got)
	}
	// What an earlier call left in the channel is passed over.
	a = speak(t, func(line string, conn net.Conn) {
		if strings.Contains(line, "guest-sync-delimited") {
			fmt.Fprint(conn, "noise\n{\"return\": 1}\n\xff\xff{\"return\": {}}\nhalf {\"ret")
		}
		synced(func(string, net.Conn) { fmt.Fprint(conn, `{"return": {"X": 8}}`+"\n") })(line, conn)
	})
	if err := a.sync(ctx); err != nil {
		t.Errorf("noise before the answer: %v", err)
	}
	for _, c := range []struct{ answer, want string }{
		{`{"error": {"class": "CommandNotFound", "desc": "no such"}}` + "\n", "guest-info: CommandNotFound: no such"},
		{"not json\n", "guest-info: the answer is not JSON"},
		{"{\"return\": {\"X\": \n", "guest-info: the answer is not JSON"},
		{"\xff\xff\xff\n", "guest-info: the answer is not JSON"},
		{"{}\n", "holds neither return nor error"},
		{`{"return": "text"}` + "\n", "has another form than expected"},
		{strings.Repeat("[", 100000) + "\n", "guest-info: the answer is not JSON"},
		{strings.Repeat("x", maxReply+1<<20), "a line of more than"},
		{`{"error": {"class": "x", "desc": "` + strings.Repeat("long ", 100000) + `"}}` + "\n", "guest-info: x: long"},
	} {
		a := speak(t, synced(func(_ string, conn net.Conn) { fmt.Fprint(conn, c.answer) }))
		if err := a.call(ctx, "guest-info", nil, &got); err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 1000 {
			t.Errorf("%.40q: %.1000v", c.answer, err)
		}
	}
	// After an answer that made no sense the channel is put in order before the next call.
	bad := true
	a = speak(t, synced(func(_ string, conn net.Conn) {
		if bad {
			bad = false
			fmt.Fprint(conn, "garbage\n{\"return\": {\"X\": 1}}\n")
			return
		}
		fmt.Fprint(conn, `{"return": {"X": 9}}`+"\n")
	}))
	if err := a.call(ctx, "guest-info", nil, &got); err == nil {
		t.Error("garbage was accepted")
	}
	if err := a.call(ctx, "guest-info", nil, &got); err != nil || got.X != 9 {
		t.Errorf("after garbage: %v, %+v", err, got)
	}
	// Noise without an end, in lines.
	a = speak(t, func(_ string, conn net.Conn) {
		for {
			if _, err := io.WriteString(conn, strings.Repeat("noise\n", 1000)); err != nil {
				return
			}
		}
	})
	if err := a.sync(ctx); err == nil || !strings.Contains(err.Error(), "nothing but noise") {
		t.Errorf("%v", err)
	}
}

func TestAGuestThatNeverAnswersEndsWithTheCaller(t *testing.T) {
	for name, use := range map[string]func(*agent, context.Context) error{
		"sync": func(a *agent, ctx context.Context) error { return a.sync(ctx) },
		"call": func(a *agent, ctx context.Context) error { a.synced = true; return a.call(ctx, "guest-info", nil, nil) },
		"exec": func(a *agent, ctx context.Context) error {
			a.synced = true
			_, _, err := a.exec(ctx, 0, "true")
			return err
		},
	} {
		reached := make(chan struct{}, 1)
		a := speak(t, func(string, net.Conn) { reached <- struct{}{} })
		ctx, cancel := context.WithCancelCause(context.Background())
		go func() { <-reached; cancel(errors.New("enough")) }()
		began := time.Now()
		if err := use(a, ctx); err == nil || err.Error() != "enough" || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(began))
		}
	}
}

func TestExec(t *testing.T) {
	ctx := context.Background()
	polls := 0
	guest := func(status string) *agent {
		return speak(t, synced(func(line string, conn net.Conn) {
			switch {
			case strings.Contains(line, "guest-exec-status"):
				if polls++; polls == 1 {
					fmt.Fprint(conn, `{"return": {"exited": false}}`+"\n")
					return
				}
				fmt.Fprint(conn, status+"\n")
			case !strings.Contains(line, `"arg":[]`):
				t.Errorf("no list of arguments in %s", line)
			default:
				fmt.Fprint(conn, `{"return": {"pid": 5}}`+"\n")
			}
		}))
	}
	if code, out, err := guest(`{"return": {"exited": true, "exitcode": 3, "out-data": "b3V0", "err-data": "ZXJy"}}`).exec(ctx, 0, "x"); code != 3 || out != "outerr" || err != nil {
		t.Errorf("%d %q %v", code, out, err)
	}
	for status, want := range map[string]string{
		`{"return": {"exited": true, "signal": 9}}`:                       "ended by signal 9",
		`{"return": {"exited": true, "exitcode": 0, "out-data": "%%%%"}}`: "illegal base64",
		`{"error": {"class": "GenericError", "desc": "PID 5 is gone"}}`:   "PID 5 is gone",
	} {
		if _, _, err := guest(status).exec(ctx, 0, "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", status, err)
		}
	}
	never := guest(`{"return": {"exited": false}}`)
	if _, _, err := never.exec(ctx, 600*time.Millisecond, "x"); err == nil || err.Error() != "x in the guest did not end within 600ms" {
		t.Errorf("%v", err)
	}
	if err := never.sync(ctx); err != nil {
		t.Errorf("after a program that did not end: %v", err)
	}
}

// FuzzReply feeds what a guest may answer to everything that reads it.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"a\nb", "\xff{\"return\":1}\n", `{"return": {"exited": true, "exitcode": 0, "out-data": "b3V0"}}` + "\n", `{"error": {"class": "x", "desc": "y"}}` + "\n",
		"{\"return\": [[[[\n", "{\"return\": null}\n", "{\"error\": null}\n", strings.Repeat("\xff", 40) + "\n", `{"return": 1e999}` + "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := bufio.NewReaderSize(strings.NewReader(s), 16)
		for {
			line, err := machine.ReadLine(r)
			if len(line) > maxReply {
				t.Fatalf("%d bytes", len(line))
			}
			var out struct {
				Exited bool `json:"exited"`
			}
			if err := machine.Answer("guest-exec-status", line, &out); err != nil && len(err.Error()) > 4*maxWords {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			if err != nil {
				break
			}
		}
		_, _, _, _ = routes(s)
		// The same as a whole conversation: a guest that says this and hangs up.
		ours, theirs := net.Pipe()
		go func() {
			go func() { _, _ = io.Copy(io.Discard, theirs) }()
			_, _ = io.WriteString(theirs, s)
			_ = theirs.Close()
		}()
		a := &agent{conn: ours, r: bufio.NewReader(ours)}
		defer a.close()
		if err := a.sync(context.Background()); err == nil {
			t.Fatalf("%q knew the number", s)
		}
	})
}

func TestQMP(t *testing.T) {
	usernet := `{"return": "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  12       127.0.0.1 37985       10.0.2.15    22     0     0\r\n"}`
	serve := func(answers ...string) (string, chan struct{}) {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "q"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		more := make(chan struct{})
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			r := bufio.NewReader(conn)
			fmt.Fprintln(conn, `{"QMP": {"version": {}}}`)
			for _, a := range answers {
				if _, err := r.ReadString('\n'); err != nil {
					return
				}
				fmt.Fprintln(conn, a)
			}
			<-more
		}()
		return l.Addr().String(), more
	}
	ctx := context.Background()
	path, more := serve(`{"return": {}}`, `{"event": "RESUME"}
`+usernet+`
{"event": "VSERPORT_CHANGE", "data": {"id": "another", "open": true}}
{"event": "VSERPORT_CHANGE", "data": {"id": "agent0", "open": true}}
{"event": "VSERPORT_CHANGE", "data": {"id": "agent0", "open": true}}
{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}`)
	tt := &test{opened: make(chan struct{})}
	q, err := machine.DialQMP(ctx, path, nil, tt.told)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if port, err := forwarded(ctx, q); err != nil || port != 37985 {
		t.Errorf("%d, %v", port, err)
	}
	<-tt.opened
	close(more)
	if got := q.Shutdown(); got != "guest-reset" {
		t.Error(got)
	}
	if err := q.Call(ctx, "cont", nil, nil); err == nil {
		t.Error("a QEMU that has hung up answered")
	}
	path, more = serve(`{"return": {}}`, `{"return": "nothing"}`)
	defer close(more)
	if q, err = machine.DialQMP(ctx, path, nil, nil); err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, err := forwarded(ctx, q); err == nil || !strings.Contains(err.Error(), "names no forwarded port") {
		t.Errorf("%v", err)
	}
	ended := make(chan struct{})
	close(ended)
	if _, err := machine.DialQMP(ctx, filepath.Join(t.TempDir(), "nobody"), ended, nil); err == nil || err.Error() != "QEMU ended at once" {
		t.Errorf("%v", err)
	}
}

func TestRoutes(t *testing.T) {
	const head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
	const local = "enp0s3\t0002000A\t00000000\t0001\t0\t0\t1024\t00FFFFFF\t0\t0\t0\n"
	for _, c := range []struct {
		text, local, router, names string
		dangling                   bool
	}{
		{head, "", "", "", false},
		{head + local, "enp0s3", "", "", false},
		{head + "eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" + local, "enp0s3", "eth0 (IPv4)", "", false},
		{head + local + "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000002 00000400 00000001 00000000 00450003   enp0s3\n" +
			"00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n" +
			"nameserver 127.0.0.53\nnameserver fec0::3\n", "enp0s3", "enp0s3 (IPv6)", "127.0.0.53 fec0::3", false},
		{head + local + "dangling\n", "enp0s3", "", "", true},
	} {
		local, router, names, dangling := routes(c.text)
		if local != c.local || router != c.router || strings.Join(names, " ") != c.names || dangling != c.dangling {
			t.Errorf("%q: %q %q %q %v", c.text, local, router, names, dangling)
		}
	}
}
