package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	MaxReply = 4 << 20 // bytes of the largest line that a guest or QEMU may answer
	MaxWords = 400     // bytes of what a guest says that an error repeats
)

// Clip shortens a text that a guest has written to at most n bytes and a mark.
func Clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + " …"
}

// ReadLine reads up to a line end, of a sender that is not trusted. A line longer than MaxReply is an error, and is not
// read to its end.
func ReadLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > MaxReply {
			return nil, fmt.Errorf("a line of more than %d bytes", MaxReply)
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// Request is a call in QMP's form, which the guest agent's is, too: a line of JSON.
func Request(name string, arguments any) ([]byte, error) {
	body, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{name, arguments})
	return append(body, '\n'), err
}

// Refused is an answer that says no.
type Refused struct{ Call, Class, Desc string }

func (r *Refused) Error() string {
	return Clip(fmt.Sprintf("%s: %s: %s", r.Call, r.Class, r.Desc), MaxWords)
}

// Answer reads a call's answer into out, which may be nil. Errors: *Refused; what is wrong with the answer.
func Answer(name string, line []byte, out any) error {
	var m struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return fmt.Errorf("%s: the answer is not JSON: %w: %s", name, err, Clip(string(line), MaxWords))
	}
	switch {
	case m.Error != nil:
		return &Refused{name, m.Error.Class, m.Error.Desc}
	case m.Return == nil:
		return fmt.Errorf("%s: the answer holds neither return nor error: %s", name, Clip(string(line), MaxWords))
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(m.Return, out); err != nil {
		return fmt.Errorf("%s: the answer has another form than expected: %w: %s", name, err, Clip(string(m.Return), MaxWords))
	}
	return nil
}

// QMP is QEMU's control socket (docs/interop/qmp-spec.txt).
type QMP struct {
	conn    net.Conn
	replies chan []byte   // answers to calls, one call at a time
	gone    chan struct{} // closed when QEMU has hung up
	event   func(name string, data json.RawMessage)

	mu     sync.Mutex
	reason string // of the machine's end
}

// DialQMP connects as soon as QEMU listens on the Unix socket, and fails when QEMU ends before. Where event is not nil,
// it is told QEMU's events, one after the other.
func DialQMP(ctx context.Context, path string, ended <-chan struct{}, event func(name string, data json.RawMessage)) (*QMP, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			q := &QMP{conn: conn, replies: make(chan []byte, 1), gone: make(chan struct{}), event: event}
			go q.read()
			return q, q.Call(ctx, "qmp_capabilities", nil, nil)
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

func (q *QMP) read() {
	defer close(q.gone)
	r := bufio.NewReader(q.conn)
	for {
		line, err := ReadLine(r)
		if err != nil {
			return
		}
		var m struct {
			Greeting json.RawMessage `json:"QMP"`
			Event    string          `json:"event"`
			Data     json.RawMessage `json:"data"`
		}
		if json.Unmarshal(line, &m) != nil || m.Greeting != nil {
			continue
		}
		if m.Event == "" {
			select {
			case q.replies <- line:
			default: // nobody has asked
			}
			continue
		}
		if m.Event == "SHUTDOWN" {
			var data struct {
				Reason string `json:"reason"`
			}
			_ = json.Unmarshal(m.Data, &data)
			q.mu.Lock()
			q.reason = data.Reason
			q.mu.Unlock()
		}
		if q.event != nil {
			q.event(m.Event, m.Data)
		}
	}
}

// Call calls QEMU and reads the answer into out, which may be nil. Errors: *Refused; what is wrong with the answer; the
// cause of the context's end.
func (q *QMP) Call(ctx context.Context, name string, arguments, out any) error {
	body, err := Request(name, arguments)
	if err != nil {
		return err
	}
	if _, err := q.conn.Write(body); err != nil {
		return fmt.Errorf("QEMU: %s: %w", name, err)
	}
	select {
	case line := <-q.replies:
		return Answer(name, line, out)
	case <-q.gone:
		return fmt.Errorf("QEMU: %s: it has hung up", name)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Shutdown is why the machine ended, in QEMU's words: "guest-shutdown", "guest-reset", "host-signal"; it waits until
// QEMU has hung up.
func (q *QMP) Shutdown() string {
	<-q.gone
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.reason == "" {
		return "no reason given"
	}
	return q.reason
}

// Close hangs up.
func (q *QMP) Close() { _ = q.conn.Close() }
