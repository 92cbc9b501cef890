package event

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// talk reports n lines of a stage, in pieces as a pipe has them, and gives the target's transcript.
func talk(t testing.TB, b *Bus, target, stage, dir string, n int, line func(i int) string) *Transcript {
	t.Helper()
	s := b.Scope(target, stage, filepath.Join(dir, stage+".log"))
	w := s.Lines(nil)
	var piece []byte
	for i := range n {
		piece = append(append(piece, line(i)...), '\n')
		if len(piece) > 30_000 || i == n-1 {
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
			piece = piece[:0]
		}
	}
	s.End("", nil)
	return b.Transcript(target)
}

func usual(i int) string {
	return fmt.Sprintf("%07d Unpacking a package of a usual name (1.2.3-4+deb13u1) over the old one", i)
}

func numbers(from, to int) (list []int) {
	for i := from; i < to; i++ {
		list = append(list, i)
	}
	return list
}

// search looks through the whole log, part by part.
func search(t testing.TB, x *Transcript, s Sift, most int) (found []int) {
	t.Helper()
	for next := 0; next < x.Len(); {
		part, n, err := x.Search(s, next, most)
		if err != nil || n <= next {
			t.Fatalf("searched up to %d, then %d: %v", next, n, err)
		}
		found, next = append(found, part...), n
	}
	return found
}

func query(t testing.TB, text string) *Query {
	t.Helper()
	q, err := NewQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// What comes back from the disk is what the events had, line by line and in their order.
func TestTranscriptHasEveryLine(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	b := NewBus(func() time.Time { return now })
	sub := b.Subscribe()
	dir := t.TempDir()
	nasty := []string{"plain", "", "\x1b[31mred\x1b[0m", "10%\r50%\r100%", "bad \xff\xfe", "::error::x", "日本語", strings.Repeat("long ", 3000), "tab\there", "\u202edlrow", "two\nlines", "##[group]x"}
	const n = 3 * tailRecords
	a := b.Scope("debian:13/x86_64", "fetch", filepath.Join(dir, "fetch.log"))
	c := b.Scope("debian:13/x86_64", "customise", filepath.Join(dir, "customise.log"))
	a.Redact("hunter2")
	for i := range n {
		now = now.Add(time.Millisecond)
		if s := a; i%7 < 3 {
			s.Log(nasty[i%len(nasty)] + " hunter2")
		} else {
			c.With("guest | ").Log(nasty[i%len(nasty)])
		}
	}
	x := b.Transcript("debian:13/x86_64")
	events, _ := sub.Poll()
	if len(events) != x.Len() || x.Len() <= n {
		t.Fatalf("%d events, %d lines, %d reports", len(events), x.Len(), n)
	}
	var got []TranscriptLine
	for len(got) < x.Len() {
		got = append(got, x.Read(numbers(len(got), x.Len()))...)
	}
	for i, e := range events {
		l := got[i]
		if l.Err != nil || l.N != i || l.Text != e.Line || l.Stage != e.Stage || !l.Time.Equal(e.Time) || e.Row != i+1 {
			t.Fatalf("line %d: %+v, the event has %+v", i, l, e)
		}
		if strings.Contains(l.Text, "hunter2") {
			t.Fatal("a secret came back")
		}
	}
	some := []int{3, 77, 78, 4000, 4096, x.Len() - 1, x.Len() + 5}
	for i, l := range x.Read(some) {
		if l.N != some[i] || (l.Err != nil) != (some[i] >= x.Len()) || l.Err == nil && l.Text != events[l.N].Line {
			t.Errorf("%+v", l)
		}
	}
	for _, s := range []Sift{{Stage: "customise"}, {Words: []*Query{query(t, "RED")}}, {Words: []*Query{query(t, "red")}}, {Stage: "fetch", Words: []*Query{query(t, "日本"), query(t, "語")}}, {Words: []*Query{query(t, "/^(guest . )?l(on)g")}},
		{Words: []*Query{query(t, ": :error")}}, {Words: []*Query{query(t, "bytes more")}}, {Words: []*Query{Errors()}}} {
		var want []int
		for i, e := range events {
			if s.Match(e.Stage, e.Line) {
				want = append(want, i)
			}
		}
		for _, most := range []int{0, 5000} {
			if found := search(t, x, s, most); !slices.Equal(found, want) {
				t.Errorf("%+v: %d found, %d expected", s, len(found), len(want))
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".lines*")); left != nil {
		t.Errorf("%v is left", left)
	}
}

func TestQuery(t *testing.T) {
	for _, c := range []struct {
		query, line string
		at          string // what is found, marked
	}{
		{"error", "An Error, an ERROR", "An <Error>, an <ERROR>"},
		{"Error", "An Error, an ERROR", "An <Error>, an ERROR"},
		{"straße", "STRAßE und Straße", "<STRAßE> und <Straße>"},
		{"a.c", "abc a.c", "abc <a.c>"},
		{"/a.c", "abc A.C", "<abc> <A.C>"},
		{"/A.C", "abc A.C", "abc <A.C>"},
		{`/\S+ing`, "going GOING", "<going> <GOING>"},
		{"/x*", "abxx", "ab<xx>"},
		{"aa", "aaaaa", "<aa><aa>a"},
		{"kelvin", "\u212aelvin", "\u212aelvin"},
		{"é", "É e\u0301", "<É> e\u0301"},
		{" ", "a b", "a< >b"},
		{"", "a", "a"},
	} {
		q := query(t, c.query)
		var got strings.Builder
		last := 0
		for _, m := range q.Find(c.line) {
			got.WriteString(c.line[last:m[0]] + "<" + c.line[m[0]:m[1]] + ">")
			last = m[1]
		}
		got.WriteString(c.line[last:])
		if got.String() != c.at {
			t.Errorf("%q in %q: %q, want %q", c.query, c.line, got.String(), c.at)
		}
		if q.Match(c.line) != (c.at != c.line) && c.query != "" {
			t.Errorf("%q matches %q: %v", c.query, c.line, q.Match(c.line))
		}
	}
	if _, err := NewQuery("/a(b"); err == nil || !strings.Contains(err.Error(), `"a(b" is no regular expression`) {
		t.Error(err)
	}
}

func TestErrorsAreFound(t *testing.T) {
	for line, want := range map[string]bool{
		"error: no space left": true, "E: Unable to locate package x": true, "fatal: bad object": true, "Kernel panic - not syncing": true, "mount: permission denied": true,
		"dpkg: error processing package": true, "the build FAILED": true, "systemd[1]: Failed to start x.": true, "cp: cannot stat 'x'": true,
		"Unpacking libgpg-error0 (1.2)": false, "0 errors, 0 warnings": false, "errors=remount-ro": false, "Setting up libwww-perl": false, "tests passed, no failures": false, "failover is set up": false,
		"see /usr/share/error/x": false,
	} {
		if got := Errors().Match(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

// A line that matches in one way matches in the other: as a whole, and where the match is.
func FuzzQuery(f *testing.F) {
	f.Add("error", "An Error: \x1b[31mred")
	f.Add("/a(b|c)*", "abcbc")
	f.Add("É", "é\xff")
	f.Fuzz(func(t *testing.T, text, line string) {
		q, err := NewQuery(text)
		if err != nil {
			return
		}
		line = Clean(line)
		at := q.Find(line)
		if len(at) > 0 && !q.Match(line) {
			t.Fatalf("%q is found in %q at %v, but does not match", text, line, at)
		}
		last := 0
		for _, m := range at {
			if m[0] < last || m[1] <= m[0] || m[1] > len(line) {
				t.Fatalf("%q in %q: %v", text, line, at)
			}
			last = m[1]
		}
		if !strings.HasPrefix(text, "/") && text != "" && ascii(text) && ascii(line) {
			want := strings.Contains(line, text)
			if text == strings.ToLower(text) {
				want = strings.Contains(strings.ToLower(line), text)
			}
			if q.Match(line) != want {
				t.Fatalf("%q in %q: %v", text, line, !want)
			}
		}
	})
}

// The places of lines are known also where there can be no index, for the newest; others say why not. A raw log that
// cannot be written is told, once.
func TestTranscriptWithoutDisk(t *testing.T) {
	dir := t.TempDir()
	b := NewBus(nil)
	sub := b.Subscribe()
	if err := os.Mkdir(filepath.Join(dir, "pack.log"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := b.Scope("t", "pack", filepath.Join(dir, "pack.log"))
	s.Log("one")
	s.Log("two")
	events, _ := sub.Poll()
	if len(events) != 3 || !strings.Contains(events[1].Line, "cannot be written") || events[1].Row != 0 || events[2].Row != 2 {
		t.Fatalf("%v", events)
	}
	for _, l := range b.Transcript("t").Read([]int{0, 1}) {
		if l.Err == nil || l.Stage != "pack" {
			t.Errorf("%+v", l)
		}
	}
	if e := s.End("", nil); e.LogFile != "" {
		t.Errorf("a log that is not there is at %q", e.LogFile)
	}

	x := talk(t, b, "t", "fetch", dir, 2*tailRecords, usual)
	x.mu.Lock()
	_ = x.index.Close() // as a disk that breaks
	x.mu.Unlock()
	talk(t, b, "t", "fetch", dir, 2*tailRecords, usual)
	all := x.Read([]int{5, x.Len() - 1})
	if all[0].Err == nil {
		t.Errorf("%+v", all[0])
	}
	if all[1].Err != nil || all[1].Text != usual(2*tailRecords-1) {
		t.Errorf("%+v", all[1])
	}
	if _, next, err := x.Search(Sift{Words: []*Query{query(t, "0000001 ")}}, 0, 0); err == nil || next != x.Len() {
		t.Errorf("searched up to %d: %v", next, err)
	}
	if err := os.Truncate(filepath.Join(dir, "fetch.log"), 100); err != nil {
		t.Fatal(err)
	}
	if l := x.Read([]int{x.Len() - 1})[0]; l.Err == nil {
		t.Errorf("%+v", l)
	}
	b.Close()
	s = b.Scope("t", "fetch", filepath.Join(dir, "fetch.log"))
	s.Log("after the end")
}

// Lines of several stages at once are numbered as they are published.
func TestTranscriptIsInTheOrderOfEvents(t *testing.T) {
	b := NewBus(nil)
	sub := b.Subscribe()
	dir := t.TempDir()
	var wait sync.WaitGroup
	for w := range 4 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			s := b.Scope("t", "test", filepath.Join(dir, "test.log"))
			for i := range 2000 {
				s.Logf("%d of %d", i, w)
			}
		}()
	}
	wait.Wait()
	events, _ := sub.Poll()
	x := b.Transcript("t")
	for from := 0; from < len(events); from += 4000 {
		for i, l := range x.Read(numbers(from, from+4000)) {
			if e := events[from+i]; e.Row != from+i+1 || l.Text != e.Line {
				t.Fatalf("event %d: row %d, %q, read back %q", from+i, e.Row, e.Line, l.Text)
			}
		}
	}
}

// A consumer that does not read costs no more memory than one that does, whatever is said, and what it has missed can be
// read back.
func TestSlowConsumer(t *testing.T) {
	b := NewBus(nil)
	sub := b.Subscribe()
	x := talk(t, b, "t", "customise", t.TempDir(), 10*pendingLogs, usual)
	if n := len(sub.queue); n > 2*pendingLogs+2 {
		t.Errorf("%d events are queued", n)
	}
	events, _ := sub.Poll()
	if events[0].Missed == 0 || events[0].Missed+len(events)-2 != x.Len() {
		t.Errorf("%d events, %d missed, of %d", len(events), events[0].Missed, x.Len())
	}
	first := events[1].Row - 1
	if l := x.Read([]int{first - 1})[0]; l.Text != usual(first-1) {
		t.Errorf("%+v", l)
	}
	if end := events[len(events)-1]; end.Kind != Finished || end.Row != x.Len()+1 {
		t.Errorf("%+v", end)
	}
}

// A log of a million lines is searched in less than a blink: a fifth of a second, five times that on a busy machine.
func TestMillionLines(t *testing.T) {
	if testing.Short() {
		t.Skip("100 MB of log")
	}
	const n = 1_000_000
	x := talk(t, NewBus(nil), "t", "customise", t.TempDir(), n, usual)
	for _, c := range []struct {
		sift Sift
		hits int
	}{
		{Sift{Words: []*Query{query(t, "0999999")}}, 1},
		{Sift{Words: []*Query{query(t, "0000777 unpacking a")}}, 1},
		{Sift{Words: []*Query{query(t, "is not there")}}, 0},
		{Sift{Words: []*Query{query(t, "unpacking")}}, n},
		{Sift{Stage: "customise"}, n},
	} {
		fastest := time.Hour
		for range 3 {
			began := time.Now()
			if got := search(t, x, c.sift, 0); len(got) != c.hits {
				t.Fatalf("%v: %d hits", c.sift.Words, len(got))
			}
			fastest = min(fastest, time.Since(began))
		}
		t.Logf("%v %s: %v", c.sift.Words, c.sift.Stage, fastest)
		if fastest > time.Second {
			t.Errorf("%v took %v", c.sift.Words, fastest)
		}
	}
}

// BenchmarkLog is a line on its way to the raw log, the index and one subscription that is read thirty times a second;
// "piped" as a program's output comes, in pieces of 4 KiB.
func BenchmarkLog(b *testing.B) {
	for _, piped := range []bool{false, true} {
		b.Run(fmt.Sprintf("piped=%v", piped), func(b *testing.B) {
			bus := NewBus(nil)
			sub := bus.Subscribe()
			s := bus.Scope("t", "customise", filepath.Join(b.TempDir(), "customise.log"))
			line := usual(1)
			piece := []byte(strings.Repeat(line+"\n", 4096/len(line)))
			w := s.Lines(nil)
			b.ReportAllocs()
			for i := 0; i < b.N; i++ {
				if piped {
					_, _ = w.Write(piece)
					i += 4096/len(line) - 1
				} else {
					s.Log(line)
				}
				if i%1600 < 64 {
					sub.Poll()
				}
			}
		})
	}
}

// BenchmarkSearch is a search through a million lines for a word that is in none of them.
func BenchmarkSearch(b *testing.B) {
	x := talk(b, NewBus(nil), "t", "customise", b.TempDir(), 1_000_000, usual)
	for _, text := range []string{"is not there", "Not there", "/not [a-z]+ there", "errors"} {
		b.Run(text, func(b *testing.B) {
			q := query(b, text)
			if text == "errors" {
				q = Errors()
			}
			for range b.N {
				search(b, x, Sift{Words: []*Query{q}}, 0)
			}
		})
	}
}
