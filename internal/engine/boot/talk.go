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
	"regexp"
	"strconv"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

const (
	maxReply = machine.MaxReply
	maxWords = machine.MaxWords

	syncLimit = 10 * time.Second // for the agent to answer that it is there
	callLimit = 60 * time.Second // for a call of the agent
	execLimit = 2 * time.Minute  // for a program in the guest, where nothing else is said
	execPoll  = 250 * time.Millisecond
)

// agentPort is the id of the agent's channel in QEMU.
const agentPort = "agent0"

// told hears QEMU's events.
func (t *test) told(name string, data json.RawMessage) {
	var port struct {
		ID   string `json:"id"`
		Open bool   `json:"open"`
	}
	if name != "VSERPORT_CHANGE" || json.Unmarshal(data, &port) != nil || port.ID != agentPort || !port.Open {
		return
	}
	select {
	case <-t.opened:
	default:
		close(t.opened)
	}
}

var hostForward = regexp.MustCompile(`TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s`)

// forwarded asks which port the kernel gave to QEMU for the guest's ssh.
func forwarded(ctx context.Context, q *machine.QMP) (int, error) {
	var text string
	if err := q.Call(ctx, "human-monitor-command", map[string]any{"command-line": "info usernet"}, &text); err != nil {
		return 0, err
	}
	m := hostForward.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("QEMU names no forwarded port: %s", machine.Clip(text, maxWords))
	}
	return strconv.Atoi(m[1])
}

// agent is the guest agent's channel (docs/interop/qemu-ga-ref): JSON, one call at a time.
type agent struct {
	conn   net.Conn
	r      *bufio.Reader
	synced bool // no answer is outstanding
}

func newAgent(conn net.Conn) *agent {
	return &agent{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
}

func (a *agent) close() { _ = a.conn.Close() }

// within bounds what is read and written by a time and the context's end; the result has to be called afterwards.
func (a *agent) within(ctx context.Context, most time.Duration) (done func()) {
	_ = a.conn.SetDeadline(time.Now().Add(most))
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = a.conn.SetDeadline(time.Unix(1, 0))
		close(ended)
	})
	return func() {
		if !stop() {
			<-ended // it must not reach into the next call
		}
	}
}

// failed is the error of a channel that failed.
func (a *agent) failed(ctx context.Context, name string, most time.Duration, err error) error {
	a.synced = false
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s: no answer within %s", name, most)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s: QEMU has closed the channel", name)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// sync makes the guest throw away what it has half read, and passes over what the channel still holds: the guest
// answers with a delimiter, and a number that only this call knows.
func (a *agent) sync(ctx context.Context) error {
	const name = "guest-sync-delimited"
	defer a.within(ctx, syncLimit)()
	id := rand.Int64N(1 << 50)
	if _, err := fmt.Fprintf(a.conn, "\xff{\"execute\":%q,\"arguments\":{\"id\":%d}}\n", name, id); err != nil {
		return a.failed(ctx, name, syncLimit, err)
	}
	for noise := 0; noise < maxReply; {
		line, err := machine.ReadLine(a.r)
		if err != nil {
			return a.failed(ctx, name, syncLimit, err)
		}
		if i := bytes.LastIndexByte(line, 0xff); i >= 0 {
			line = line[i+1:]
		}
		var m struct {
			Return json.Number `json:"return"`
		}
		if json.Unmarshal(line, &m) == nil && m.Return.String() == strconv.FormatInt(id, 10) {
			a.synced = true
			return nil
		}
		noise += len(line) + 1
	}
	return fmt.Errorf("%s: nothing but noise came back", name)
}

// call calls a function of the agent and reads its result into out, which may be nil. Errors: *machine.Refused; what is wrong
// with the channel or the answer; the cause of the context's end.
func (a *agent) call(ctx context.Context, name string, arguments, out any) error {
	if !a.synced {
		if err := a.sync(ctx); err != nil {
			return err
		}
	}
	body, err := machine.Request(name, arguments)
	if err != nil {
		return err
	}
	defer a.within(ctx, callLimit)()
	if _, err := a.conn.Write(body); err != nil {
		return a.failed(ctx, name, callLimit, err)
	}
	line, err := machine.ReadLine(a.r)
	if err != nil {
		return a.failed(ctx, name, callLimit, err)
	}
	err = machine.Answer(name, line, out)
	if refusal := (*machine.Refused)(nil); err != nil && !errors.As(err, &refusal) {
		a.synced = false
	}
	return err
}

// exec runs a program in the guest to its end, for at most limit (0: execLimit), and returns its exit code and its
// output, standard error last.
func (a *agent) exec(ctx context.Context, limit time.Duration, path string, args ...string) (code int, out string, err error) {
	if limit == 0 {
		limit = execLimit
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s in the guest did not end within %s", path, limit))
	defer cancel()
	var started struct {
		Pid int `json:"pid"`
	}
	if err := a.call(ctx, "guest-exec", map[string]any{"path": path, "arg": append([]string{}, args...), "capture-output": true}, &started); err != nil {
		return 0, "", err
	}
	for {
		var s struct {
			Exited   bool   `json:"exited"`
			ExitCode *int   `json:"exitcode"`
			Signal   int    `json:"signal"`
			Out      string `json:"out-data"`
			Err      string `json:"err-data"`
		}
		if err := a.call(ctx, "guest-exec-status", map[string]any{"pid": started.Pid}, &s); err != nil {
			return 0, "", err
		}
		if s.Exited {
			data, err := base64.StdEncoding.DecodeString(s.Out)
			if err != nil {
				return 0, "", fmt.Errorf("guest-exec-status: the output: %w", err)
			}
			errs, err := base64.StdEncoding.DecodeString(s.Err)
			if err != nil {
				return 0, "", fmt.Errorf("guest-exec-status: the errors: %w", err)
			}
			if s.ExitCode == nil {
				return 0, "", fmt.Errorf("%s in the guest was ended by signal %d", path, s.Signal)
			}
			return *s.ExitCode, string(append(data, errs...)), nil
		}
		select {
		case <-time.After(execPoll): // the agent tells nobody when a program ends
		case <-ctx.Done():
			return 0, "", context.Cause(ctx)
		}
	}
}
