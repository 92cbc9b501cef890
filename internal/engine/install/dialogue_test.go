package install

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// talk holds a dialogue with a console that a test plays: act gets its end of the line, and hangs up by returning.
func talk(t *testing.T, b Boot, fail []string, act func(con net.Conn)) (transcript string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), time.Minute, errors.New("the test takes too long"))
	defer cancel()
	return talkUntil(ctx, t, b, fail, act)
}

func talkUntil(ctx context.Context, t *testing.T, b Boot, fail []string, act func(con net.Conn)) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "console")
	kept, err := newTranscript(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := prepare(b, 0.25, kept) // a second of a script is a quarter of one here
	if err != nil {
		t.Fatal(err)
	}
	d.pause = 20 * time.Millisecond
	s, err := newScreen(fail, kept)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := serialLine(t)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer theirs.Close()
		act(theirs)
	}()
	err = d.hold(ctx, ours, s)
	<-gone
	kept.close()
	text, rerr := os.ReadFile(path)
	if rerr != nil {
		t.Fatal(rerr)
	}
	return string(text), err
}

// serialLine is a serial line: what is sent waits until it is read.
func serialLine(t *testing.T) (one, other net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "serial line")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	return ends[0], ends[1]
}

// say prints in pieces of a size; 0 means all at once.
func say(con net.Conn, text string, size int) {
	if size == 0 {
		size = len(text)
	}
	for text != "" {
		n := min(size, len(text))
		if _, err := io.WriteString(con, text[:n]); err != nil {
			return
		}
		text = text[n:]
	}
}

// hear reads what is typed, as long as what is expected, and returns it.
func hear(con net.Conn, length int) string {
	b := make([]byte, length)
	_ = con.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, _ := io.ReadFull(con, b)
	return string(b[:n])
}

// passed says that a dialogue was held to its end, and that the machine is gone then.
func passed(err error) bool {
	var e *ended
	return err == nil || errors.As(err, &e) && e.missing == ""
}

func TestDialogueInPieces(t *testing.T) {
	b := Boot{Dialogue: []Step{
		{Expect: `(?m)^login: $`, Send: "röot<enter>"},
		{Expect: `Password: $`, Send: "hunter22<tab><enter>", Secret: true},
		{Expect: `\$ $`, Send: "exit<ctrl-d>"},
	}, End: End{Kind: "poweroff"}}
	for _, size := range []int{0, 1, 2, 3, 7} {
		var got []string
		text, err := talk(t, b, nil, func(con net.Conn) {
			say(con, "\x1b[2J\x1b[1;1HWelcome\r\n\r\nhöst \x1b]0;title\x1b\\login: ", size)
			say(con, "\rlo\bogin: ", size)
			got = append(got, hear(con, 6))
			say(con, "röot\r\nPassword: ", size)
			got = append(got, hear(con, 10))
			say(con, "\r\nhunter22 is in the prompt\r\n\x1b[32m$\x1b[0m ", size)
			got = append(got, hear(con, 5))
		})
		if want := "röot\r|hunter22\t\r|exit\x04"; !passed(err) || strings.Join(got, "|") != want {
			t.Errorf("in pieces of %d: %v, %q", size, err, got)
		}
		if strings.Contains(text, "hunter22") || !strings.HasPrefix(text, "Welcome\n\nhöst login: \nlogin: \n── step 1 of 3") || !strings.Contains(text, "\n[redacted] is in the prompt\n") || strings.Contains(text, "\x1b") {
			t.Errorf("in pieces of %d:\n%s", size, text)
		}
	}
}

// A prompt that begins like another one is not taken for it, and one that stands within it neither.
func TestAPromptThatIsAPrefixOfAnother(t *testing.T) {
	b := Boot{Dialogue: []Step{
		{Expect: `Name: ?$`, Send: "a<enter>", Optional: true},
		{Expect: `Name: ?of the disk\? $`, Send: "b<enter>"},
		{Expect: `Name: ?$`, Send: "c<enter>"},
	}, End: End{Kind: "poweroff"}}
	for _, size := range []int{0, 1} {
		var got []string
		_, err := talk(t, b, nil, func(con net.Conn) {
			say(con, "Name: of the disk? ", size)
			got = append(got, hear(con, 2))
			say(con, "b\r\nName: ", size)
			got = append(got, hear(con, 2))
		})
		if !passed(err) || strings.Join(got, "") != "b\rc\r" {
			t.Errorf("in pieces of %d: %v, %q", size, err, got)
		}
	}
	// Two that are met at the same place: the longer match counts.
	got := ""
	_, err := talk(t, Boot{Dialogue: []Step{
		{Expect: `Pass`, Send: "no", Optional: true},
		{Expect: `Passphrase:`, Send: "ok"},
	}, End: End{Kind: "poweroff"}}, nil, func(con net.Conn) { say(con, "Passphrase: ", 0); got = hear(con, 2) })
	if !passed(err) || got != "ok" {
		t.Errorf("%v, %q", err, got)
	}
}

func TestOptionalSteps(t *testing.T) {
	b := Boot{Dialogue: []Step{
		{Expect: `first\?`, Send: "1"},
		{Expect: `maybe\?`, Send: "m", Optional: true},
		{Expect: `perhaps\?`, Send: "p", Optional: true, Within: 8},
		{Expect: `last\?`, Send: "9", Within: 10},
		{Expect: `after\?`, Send: "a", Optional: true},
	}, End: End{Kind: "text", Text: `(?m)^bye$`}}
	for console, want := range map[string]string{
		"first? maybe? perhaps? last? after? \nbye\n": "1mp9a",
		"first? perhaps? last? \nbye\n":               "1p9",
		"first? last? maybe? after? \nbye\n":          "19a",
		"first? perhaps? maybe? last? \nbye\n":        "1p9", // what was passed over is not gone back to
	} {
		got := ""
		_, err := talk(t, b, nil, func(con net.Conn) {
			say(con, console, 0)
			got = hear(con, len(want))
			_, _ = io.Copy(io.Discard, con)
		})
		if err != nil || got != want {
			t.Errorf("%q: %v, %q, want %q", console, err, got, want)
		}
	}
	// An optional step's time is up before the one that is needed comes.
	late := make(chan struct{})
	time.AfterFunc(300*time.Millisecond, func() { close(late) })
	_, err := talk(t, Boot{Dialogue: []Step{{Expect: "perhaps", Send: "p", Optional: true, Within: 1}, {Expect: "last", Within: 10}}, End: End{Kind: "poweroff"}}, nil,
		func(con net.Conn) { <-late; say(con, "perhaps, and last", 0) })
	if !passed(err) {
		t.Error(err)
	}
}

func TestDialoguesThatFail(t *testing.T) {
	quiet := func(con net.Conn) { _, _ = io.Copy(io.Discard, con) }
	for name, c := range map[string]struct {
		boot Boot
		fail []string
		act  func(net.Conn)
		want string
	}{
		"never comes": {Boot{Dialogue: []Step{{Expect: "a"}, {Expect: "o", Optional: true}, {Expect: `Really\?`, Within: 1}}}, nil,
			func(con net.Conn) { say(con, "a", 0); quiet(con) }, `step 3 of 3, /Really\?/, did not come within 250ms`},
		"only partly": {Boot{Dialogue: []Step{{Expect: `Really\? \[y/n\]`, Within: 1}}}, nil, func(con net.Conn) { say(con, "Really? [y", 0); quiet(con) }, "did not come"},
		"panic": {Boot{Dialogue: []Step{{Expect: "x+y"}}}, []string{"other", `^panic: `}, func(con net.Conn) { say(con, "a\r\npanic: \x1b[31mout of paper\r\n", 1); quiet(con) },
			`the console said "panic: out of paper", which /^panic: / in fail stands for`},
		"panic at the end": {Boot{Dialogue: []Step{{Expect: "x+y"}}}, []string{`paper$`}, func(con net.Conn) { say(con, "panic: out of paper", 0); quiet(con) }, `said "panic: out of paper"`},
		"ended":            {Boot{Dialogue: []Step{{Expect: "x"}, {Expect: "y+"}}}, nil, func(con net.Conn) { say(con, "x", 0) }, "the machine ended before step 2 of 2, /y+/, came"},
		"no end":           {Boot{Dialogue: []Step{{Expect: "x"}}, End: End{Kind: "poweroff", Within: 1}}, nil, func(con net.Conn) { say(con, "x", 0); quiet(con) }, "the machine's end did not come within 250ms"},
		"no text":          {Boot{End: End{Kind: "text", Text: "done", Within: 1}}, nil, func(con net.Conn) { say(con, "x", 0) }, "the machine ended before the end, /done/, came"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := talk(t, c.boot, c.fail, c.act); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestCancelOfADialogue(t *testing.T) {
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancelCause(context.Background())
	_, err := talkUntil(ctx, t, Boot{Dialogue: []Step{{Expect: "never"}}}, nil, func(con net.Conn) {
		say(con, "hello\r\n", 0)
		cancel(errors.New("enough"))
		_, _ = io.Copy(io.Discard, con)
	})
	if err == nil || err.Error() != "enough" {
		t.Error(err)
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestAFloodIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	kept, err := newTranscript(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newScreen([]string{"Kernel panic", `(a|b)*c{3,9}$`}, kept)
	if err != nil {
		t.Fatal(err)
	}
	re := []*regexp.Regexp{regexp.MustCompile(`login: $`), regexp.MustCompile(`(?i)continue\?`)}
	chunk := flood()
	began, total := time.Now(), 0
	for total < 10<<20 {
		for rest := chunk; len(rest) > 0; {
			n := min(len(rest), 16<<10-7)
			if _, why := s.feed(rest[:n]); why != nil {
				t.Fatal(why)
			}
			if which, _ := s.met(re, false); which >= 0 {
				t.Fatal(which)
			}
			rest, total = rest[n:], total+n
			if len(s.window) > maxWindow || len(s.line) > maxLine {
				t.Fatalf("%d bytes of the window, %d of a line", len(s.window), len(s.line))
			}
		}
	}
	took := time.Since(began)
	kept.size = maxTranscript - 1<<20
	for range 2 << 10 {
		s.feed([]byte(strings.Repeat("y", 1000) + "\n"))
	}
	s.feed([]byte("\r\nlogin: "))
	if which, _ := s.met(re, true); which != 0 {
		t.Error("after the flood the prompt is not seen")
	}
	s.close()
	kept.close()
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxTranscript+1<<10 {
		t.Errorf("a transcript of %d bytes, %v", info.Size(), err)
	}
	tail := make([]byte, 200)
	f, _ := os.Open(path)
	_, _ = f.ReadAt(tail, info.Size()-200)
	_ = f.Close()
	if !bytes.Contains(tail, []byte("bytes of the console were left out")) || kept.last() == "" || len(kept.last()) > lastLines*(maxLastLine+10) {
		t.Errorf("%q", tail)
	}
	t.Logf("%d bytes of control sequences in %s", total, took)
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain\r\ntext":                        "plain\ntext",
		"a\r\n\r\nb\n\nc":                      "a\n\nb\n\nc",
		"10%\r20%\rdone\r\n":                   "10%\n20%\ndone\n",
		"\r\r\n":                               "\n",
		"\x1b[1mbold\x1b[0m \x1b(Bx":           "bold x",
		"\x1b[10;20HOne\x1b[11;1HTwo":          "One\nTwo",
		"a\x1b[5Cb":                            "a b",
		"\x1b]0;ti\x1b[tle\x07after":           "after",
		"\x1b]0;title\x1b\\after":              "after",
		"\x1bPq#0;2\x1b\\x":                    "x",
		"tab\tnul\x00bell\x07\x7f":             "tab nulbell",
		"bidi \u202ex\u200b \u009b31m \u2028y": "bidi x 31m y",
		"bad \xff\xe2\x82x €":                  "bad \ufffd\ufffd\ufffdx €",
		"spin |\b/\b-":                         "spin |\b/\b-",
		"\x1b[12\x01x":                         "x",
		"\x1b":                                 "",
	} {
		for _, size := range []int{1, 2, 3, 1000} {
			c := cleaner{}
			got := ""
			for rest := []byte(in); len(rest) > 0; {
				n := min(size, len(rest))
				got += c.feed(rest[:n])
				rest = rest[n:]
			}
			if got != want {
				t.Errorf("%q in pieces of %d: %q, want %q", in, size, got, want)
			}
		}
	}
	// A control string that never ends does not hide the rest for ever.
	c := cleaner{}
	if got := c.feed([]byte("\x1b]" + strings.Repeat("x", 2*maxString) + "\nlogin: ")); !strings.HasSuffix(got, "\nlogin: ") {
		t.Errorf("%d bytes, %.40q", len(got), got)
	}
}

func FuzzScreen(f *testing.F) {
	for _, s := range []string{"a\r\nb\x1b[31m\nlogin: ", "\x1b]0;t\x07x\b\b\b\by", "\xe2\x82", "::error::x\n\x1b[5;5H\x1b[2J", strings.Repeat("x", 5000)} {
		f.Add([]byte(s), uint8(3))
	}
	re := []*regexp.Regexp{regexp.MustCompile(`n: $`), regexp.MustCompile(`[a-c]+\?`)}
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		data = data[:min(len(data), 8<<10)] // every piece is looked at with all that came before
		kept, err := newTranscript(os.DevNull, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer kept.close()
		s, _ := newScreen([]string{"panic"}, kept)
		whole, pieces := cleaner{}, cleaner{}
		one, many := whole.feed(data), ""
		for rest := data; len(rest) > 0; {
			n := min(1+int(size), len(rest))
			many += pieces.feed(rest[:n])
			s.feed(rest[:n])
			s.met(re, size%2 == 0)
			rest = rest[n:]
			if len(s.window) > maxWindow || len(s.line) > maxLine {
				t.Fatalf("%d, %d", len(s.window), len(s.line))
			}
		}
		if one != many {
			t.Fatalf("%q at once, %q in pieces", one, many)
		}
		for _, r := range one {
			if r < ' ' && r != '\n' && r != '\b' || r == 0x1b || r == 0x7f {
				t.Fatalf("%U in %q", r, one)
			}
		}
		for _, l := range kept.tail {
			if event.Clean(l) != l && !strings.HasSuffix(l, "…") {
				t.Fatalf("%q", l)
			}
		}
	})
}
