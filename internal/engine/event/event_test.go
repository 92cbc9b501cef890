package event

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain text, ümlaut, 日本", "plain text, ümlaut, 日本"},
		{"\x1b[31mred\x1b[0m", "red"},
		{"\x1b]0;title\x07after", "after"},
		{"\x1b]52;c;aGk=\x1b\\copied", "copied"},
		{"\x1bPq#0\x1b\\x", "x"},
		{"\x1b(B\x1b[?25lx", "x"},
		{"\x1b[", ""},
		{"\x1b]never ends", ""},
		{"\x1b[12\x1b[31mx", "x"},
		{"10%\r50%\r100%\r\n", "100%"},
		{"a\tb", "a    b"},
		{"bell\x07 nul\x00 del\x7f", `bell\x07 nul\x00 del\x7f`},
		{"c1 \u009b31m", `c1 \u009b31m`},
		{"bidi \u202egpj.exe", `bidi \u202egpj.exe`},
		{"zero\u200bwidth \u2066x\u2069 \ufeff \u115f\u3164\u034f\u180b \U000e0100", `zero\u200bwidth \u2066x\u2069 \ufeff \u115f\u3164\u034f\u180b \ue0100`},
		{"e\u0301 ✔\ufe0f " + "z" + strings.Repeat("\u0300", 8), "e\u0301 ✔\ufe0f z" + strings.Repeat("\u0300", 6) + `\u0300\u0300`},
		{"bad \xff\xfe", `bad \xff\xfe`},
		{"::error file=x::boo", ": :error file=x::boo"},
		{"  ::set-env name=x::y", "  : :set-env name=x::y"},
		{"\x1b[m::add-mask::x", ": :add-mask::x"},
		{"##[command]x", "## [command]x"},
	} {
		if got := Clean(c.in); got != c.want {
			t.Errorf("Clean(%q) = %q, want %q", c.in, got, c.want)
		}
	}
	if got := Clean(strings.Repeat("x", MaxLine+10)); !strings.HasSuffix(got, "… (10 bytes more)") || len(got) > MaxLine+40 {
		t.Errorf("a long line became %d bytes ending in %q", len(got), got[len(got)-30:])
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"\x1b[31mred", "\x1b]0;t\x07", "::error::x", "##[x", "\u202e", "a\r\nb", "\xff", "\x1b\x1b[m::x::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if !utf8.ValidString(got) {
			t.Fatalf("%q is not valid UTF-8", got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unseen(r) {
				t.Fatalf("%q holds %U", got, r)
			}
		}
		if strings.HasPrefix(strings.TrimSpace(got), "::") || strings.Contains(got, "##[") {
			t.Fatalf("%q is a workflow command", got)
		}
	})
}

func TestBusKeepsEveryEndAndCoalescesProgress(t *testing.T) {
	b := NewBus(nil)
	sub := b.Subscribe()
	const stages, logs = 50, 3 * pendingLogs
	for i := range stages {
		target := "t" + string(rune('A'+i))
		b.Publish(Event{Target: target, Stage: "fetch", Kind: Started})
		for n := range 100 {
			b.Publish(Event{Target: target, Stage: "fetch", Kind: Progress, Done: int64(n + 1), Total: 100})
		}
		for range logs / stages {
			b.Publish(Event{Target: target, Stage: "fetch", Kind: Log, Line: "line"})
		}
		b.Publish(Event{Target: target, Stage: "fetch", Kind: Finished})
	}
	b.Close()
	events, _ := sub.Next(context.Background())
	count := map[Kind]int{}
	state := map[string]Kind{}
	for _, e := range events {
		count[e.Kind]++
		if e.Target == "" {
			if !strings.Contains(e.Line, "left out here") {
				t.Errorf("unexpected %v", e)
			}
			continue
		}
		if e.Kind == Progress && e.Done != 100 {
			t.Errorf("old progress %d was kept", e.Done)
		}
		if state[e.Target].Ends() {
			t.Errorf("%v came after the end of its stage", e)
		}
		state[e.Target] = e.Kind
	}
	if count[Started] != stages || count[Finished] != stages || count[Progress] != stages {
		t.Errorf("started, finished, progress: %d, %d, %d of %d", count[Started], count[Finished], count[Progress], stages)
	}
	if count[Log] > 2*pendingLogs+1 || count[Log] < pendingLogs {
		t.Errorf("%d log lines were kept", count[Log])
	}
	if _, open := sub.Next(context.Background()); open {
		t.Error("a closed, empty subscription is still open")
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, ok := NewBus(nil).Subscribe().Next(ctx); ok {
		t.Error("Next returned events")
	}
}

func TestScope(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	b := NewBus(func() time.Time { return now })
	sub := b.Subscribe()
	file := filepath.Join(t.TempDir(), "fetch.log")
	s := b.Scope("debian:12/x86_64", "fetch", file)
	s.Redact("hunter2")
	s.Start()
	w := s.Lines(nil)
	_, _ = w.Write([]byte("one\r\ntwo \x1b[1mhunter2"))
	_ = w.Close()
	now = now.Add(1500 * time.Millisecond)
	s.End("", WithRemedy(errors.New("it broke: hunter2"), "mend %s", "it"))
	events, _ := sub.Poll()
	var got []string
	for _, e := range events {
		got = append(got, e.String())
	}
	want := []string{"debian:12/x86_64 fetch: started", "debian:12/x86_64 fetch: one", "debian:12/x86_64 fetch: two [redacted]",
		"debian:12/x86_64 fetch: failed: it broke: [redacted] — mend it"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if last := events[len(events)-1]; last.Seconds != 1.5 || last.LogFile != file {
		t.Errorf("the end says %v s, log %q", last.Seconds, last.LogFile)
	}
	raw, _ := os.ReadFile(file)
	if string(raw) != "one\ntwo \x1b[1m[redacted]\n" {
		t.Errorf("the raw log holds %q", raw)
	}
	s = b.Scope("t", "test", "")
	s.End("", Skipf("nothing %s", "new"))
	if events, _ := sub.Poll(); events[0].Kind != Skipped || events[0].Reason != "nothing new" {
		t.Errorf("%+v", events[0])
	}
	var none *Scope
	none.Start()
	none.Log("x")
	none.Progress(1, 2, "x")
	none.Redact("x")
	none.End("", nil)
	_, _ = none.Lines(nil).Write([]byte("x\n"))
}

// What was made harmless once stays as it is, also where that made it longer than a line may be.
func TestCleanTwice(t *testing.T) {
	for _, line := range []string{"plain", "::error::x", "a ## b ##[x]", "\x1b[31mred", strings.Repeat("ä", 3000), strings.Repeat("\u202e", 1300), strings.Repeat("x", 5000), strings.Repeat("\x00", 4000), "\ttab", "~ !\"#$%"} {
		once := Clean(line)
		if got := CleanLong(once); got != once {
			t.Errorf("%.60q: %.60q, then %.60q", line, once, got)
		}
	}
	text := "one\n::two\n\x1b[3three"
	if once := CleanText(text); CleanText(once) != once || strings.Contains(once, "\n::") {
		t.Errorf("%q", once)
	}
}
