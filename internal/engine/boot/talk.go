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
	"sync"
	"time"
)

const (
	maxReply = 4 << 20 // bytes of the largest line that a guest or QEMU may answer
	maxWords = 400     // bytes of what a guest says that an error repeats

	syncLimit = 10 * time.Second // for the agent to answer that it is there
	callLimit = 60 * time.Second // for a call of the agent
	execLimit = 2 * time.Minute  // for a program in the guest, where nothing else is said
	execPoll  = 250 * time.Millisecond
)

// readLine reads up to a line end, of a sender that is not trusted. A longer line is an error, and is not read to its
// end.
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

// agentPort is the id of the agent's channel in QEMU.
const agentPort = "agent0"

// qmp is QEMU's control socket (docs/interop/qmp-spec.txt).
type qmp struct {
	conn    net.Conn
	replies chan []byte   // answers to calls, one call at a time
	opened  chan struct{} // closed when the guest has opened the agent's port
	gone    chan struct{} // closed when QEMU has hung up

	mu     sync.Mutex
	reason string // of the machine's end
}

// dialQMP connects as soon as QEMU listens, and fails when QEMU ends before.
func dialQMP(ctx context.Context, path string, ended <-chan struct{}) (*qmp, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			q := &qmp{conn: conn, replies: make(chan []byte, 1), opened: make(chan struct{}), gone: make(chan struct{})}
			go q.read()
			return q, q.call(ctx, "qmp_capabilities", nil, nil)
		}
		select {
		case <-ended:
			return nil, errors.New("QEMU ended at once")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (q *qmp) read() {
	defer close(q.gone)
	opened := false
	r := bufio.NewReader(q.conn)
	for {
		line, err := readLine(r)
		if err != nil {
			return
		}
		var m struct {
			Greeting json.RawMessage `json:"QMP"`
			Event    string          `json:"event"`
			Data     struct {
				ID     string `json:"id"`
				Open   bool   `json:"open"`
				Reason string `json:"reason"`
			} `json:"data"`
		}
		if json.Unmarshal(line, &m) != nil || m.Greeting != nil {
			continue
		}
		switch m.Event {
		case "":
			select {
			case q.replies <- line:
			default: // nobody has asked
			}
		case "VSERPORT_CHANGE":
			if m.Data.ID == agentPort && m.Data.Open && !opened {
				opened = true
				close(q.opened)
			}
		case "SHUTDOWN":
			q.mu.Lock()
			q.reason = m.Data.Reason
			q.mu.Unlock()
		}
	}
}

// call calls QEMU and reads the answer into out, which may be nil.
func (q *qmp) call(ctx context.Context, name string, arguments, out any) error {
	body, err := request(name, arguments)
	if err != nil {
		return err
	}
	if _, err := q.conn.Write(body); err != nil {
		return fmt.Errorf("QEMU: %s: %w", name, err)
	}
	select {
	case line := <-q.replies:
		return answer(name, line, out)
	case <-q.gone:
		return fmt.Errorf("QEMU: %s: it has hung up", name)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var hostForward = regexp.MustCompile(`TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s`)

// forwarded asks which port the kernel gave to QEMU for the guest's ssh.
func (q *qmp) forwarded(ctx context.Context) (int, error) {
	var text string
	if err := q.call(ctx, "human-monitor-command", map[string]any{"command-line": "info usernet"}, &text); err != nil {
		return 0, err
	}
	m := hostForward.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("QEMU names no forwarded port: %s", clip(text, maxWords))
	}
	return strconv.Atoi(m[1])
}

// shutdown is why the machine ended, in QEMU's words: "guest-shutdown", "guest-reset", "host-signal"; it waits until
// QEMU has hung up.
func (q *qmp) shutdown() string {
	<-q.gone
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.reason == "" {
		return "no reason given"
	}
	return q.reason
}

func (q *qmp) close() { _ = q.conn.Close() }

// request is a call in QMP's form, which the agent's is, too.
func request(name string, arguments any) ([]byte, error) {
	body, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{name, arguments})
	return append(body, '\n'), err
}

// refused is an answer that says no.
type refused struct{ call, class, desc string }

func (r *refused) Error() string {
	return clip(fmt.Sprintf("%s: %s: %s", r.call, r.class, r.desc), maxWords)
}

// answer reads a call's answer into out, which may be nil. Errors: *refused; what is wrong with the answer.
func answer(name string, line []byte, out any) error {
	var m struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return fmt.Errorf("%s: the answer is not JSON: %w: %s", name, err, clip(string(line), maxWords))
	}
	switch {
	case m.Error != nil:
		return &refused{name, m.Error.Class, m.Error.Desc}
	case m.Return == nil:
		return fmt.Errorf("%s: the answer holds neither return nor error: %s", name, clip(string(line), maxWords))
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(m.Return, out); err != nil {
		return fmt.Errorf("%s: the answer has another form than expected: %w: %s", name, err, clip(string(m.Return), maxWords))
	}
	return nil
}

// agent is the guest agent's channel (docs/interop/qemu-ga-ref): JSON, one call at a time.
type agent struct {
	conn   net.Conn
	r      *bufio.Reader
	synced bool // no answer is outstanding
}

func dialAgent(path string) (*agent, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return &agent{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}, nil
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
		line, err := readLine(a.r)
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

// call calls a function of the agent and reads its result into out, which may be nil. Errors: *refused; what is wrong
// with the channel or the answer; the cause of the context's end.
func (a *agent) call(ctx context.Context, name string, arguments, out any) error {
	if !a.synced {
		if err := a.sync(ctx); err != nil {
			return err
		}
	}
	body, err := request(name, arguments)
	if err != nil {
		return err
	}
	defer a.within(ctx, callLimit)()
	if _, err := a.conn.Write(body); err != nil {
		return a.failed(ctx, name, callLimit, err)
	}
	line, err := readLine(a.r)
	if err != nil {
		return a.failed(ctx, name, callLimit, err)
	}
	err = answer(name, line, out)
	if refusal := (*refused)(nil); err != nil && !errors.As(err, &refusal) {
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
