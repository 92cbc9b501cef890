package boot

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
)

// maxReply is the size in bytes of the largest line that a guest or QEMU may answer.
const maxReply = 4 << 20

// freePort finds a TCP port on loopback that nobody listens on right now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// readLine reads up to a line end, of a sender that is not trusted.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxReply {
			return nil, fmt.Errorf("a line of more than %d bytes", maxReply)
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// qmp is QEMU's control socket (docs/interop/qmp-spec.txt).
type qmp struct {
	conn   net.Conn
	events chan string // names of events; "OPEN" when the guest opened the agent's port
}

// dialQMP connects as soon as QEMU listens, and fails when QEMU ends before.
func dialQMP(ctx context.Context, path string, p *command.Process) (*qmp, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			q := &qmp{conn: conn, events: make(chan string, 64)}
			go q.read()
			_, err = io.WriteString(conn, `{"execute":"qmp_capabilities"}`+"\n")
			return q, err
		}
		select {
		case <-p.Done():
			return nil, errors.New("QEMU ended at once")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (q *qmp) read() {
	defer close(q.events)
	r := bufio.NewReader(q.conn)
	for {
		line, err := readLine(r)
		if err != nil {
			return
		}
		var m struct {
			Event string `json:"event"`
			Data  struct {
				Open bool `json:"open"`
			} `json:"data"`
		}
		if json.Unmarshal(line, &m) != nil || m.Event == "" {
			continue
		}
		if m.Event == "VSERPORT_CHANGE" && m.Data.Open {
			m.Event = "OPEN"
		}
		select {
		case q.events <- m.Event:
		default: // nobody needs more than the first of them
		}
	}
}

func (q *qmp) close() { _ = q.conn.Close() }

// agent is the guest agent's channel (docs/interop/qemu-ga-ref): JSON, one call at a time.
type agent struct {
	path string
	conn net.Conn
	r    *bufio.Reader
}

func (a *agent) close() {
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
	}
}

// sync connects anew and throws away whatever the channel still held: the guest answers to a delimiter and a number
// that only this call knows.
func (a *agent) sync(ctx context.Context) error {
	a.close()
	conn, err := net.Dial("unix", a.path)
	if err != nil {
		return err
	}
	a.conn, a.r = conn, bufio.NewReaderSize(conn, 64<<10)
	id := rand.Int64N(1 << 50)
	deadline(ctx, conn, 10*time.Second)
	if _, err := fmt.Fprintf(conn, "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%d}}\n", id); err != nil {
		return err
	}
	for skipped := 0; skipped < 1000; skipped++ {
		line, err := readLine(a.r)
		if err != nil {
			return fmt.Errorf("guest-sync-delimited: %w", err)
		}
		if i := bytes.LastIndexByte(line, 0xff); i >= 0 {
			line = line[i+1:]
		}
		var m struct {
			Return json.Number `json:"return"`
		}
		if json.Unmarshal(line, &m) == nil && m.Return.String() == fmt.Sprint(id) {
			return nil
		}
	}
	return errors.New("guest-sync-delimited: nothing but noise came back")
}

func deadline(ctx context.Context, conn net.Conn, most time.Duration) {
	at := time.Now().Add(most)
	if d, ok := ctx.Deadline(); ok && d.Before(at) {
		at = d
	}
	_ = conn.SetDeadline(at)
}

// call calls a function of the agent and reads its result into out, which may be nil.
func (a *agent) call(ctx context.Context, name string, arguments, out any) error {
	if a.conn == nil {
		if err := a.sync(ctx); err != nil {
			return err
		}
	}
	body, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{name, arguments})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = a.conn.SetDeadline(time.Now()) })
	defer stop()
	deadline(ctx, a.conn, 60*time.Second)
	if _, err := a.conn.Write(append(body, '\n')); err != nil {
		a.close()
		return fmt.Errorf("%s: %w", name, err)
	}
	line, err := readLine(a.r)
	if err != nil {
		a.close()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("%s: no answer within 60 s", name)
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	var m struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		a.close()
		return fmt.Errorf("%s: the answer is not JSON: %w", name, err)
	}
	if m.Error != nil {
		return fmt.Errorf("%s: %s: %s", name, m.Error.Class, m.Error.Desc)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, out); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// exec runs a program in the guest to its end and returns its exit code and output.
func (a *agent) exec(ctx context.Context, path string, args ...string) (code int, out string, err error) {
	var started struct {
		Pid int `json:"pid"`
	}
	if err := a.call(ctx, "guest-exec", map[string]any{"path": path, "arg": args, "capture-output": true}, &started); err != nil {
		return 0, "", err
	}
	for {
		var s struct {
			Exited   bool   `json:"exited"`
			ExitCode int    `json:"exitcode"`
			Out      string `json:"out-data"`
			Err      string `json:"err-data"`
		}
		if err := a.call(ctx, "guest-exec-status", map[string]any{"pid": started.Pid}, &s); err != nil {
			return 0, "", err
		}
		if s.Exited {
			data, err := base64.StdEncoding.DecodeString(s.Out)
			if err != nil {
				return 0, "", fmt.Errorf("guest-exec-status: %w", err)
			}
			errs, _ := base64.StdEncoding.DecodeString(s.Err)
			return s.ExitCode, string(append(data, errs...)), nil
		}
		select {
		case <-time.After(250 * time.Millisecond): // the agent tells nobody when a program ends
		case <-ctx.Done():
			return 0, "", context.Cause(ctx)
		}
	}
}
