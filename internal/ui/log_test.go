package ui

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

func fill(v *logView, from, to int) {
	for i := from; i < to; i++ {
		v.buf.push(noon, said, fmt.Sprintf("line %d", i))
	}
}

func text(v *logView, w, h int) string {
	return strings.Join(v.draw(newStyles(false), w, h), "\n")
}

func TestLogIsBounded(t *testing.T) {
	v := newLogView()
	fill(v, 0, 3*maxLines)
	if n := v.buf.count; n > maxLines || n < maxLines-2*chunk {
		t.Errorf("%d lines are kept", n)
	}
	if v.buf.end() != 3*maxLines || v.buf.base+v.buf.count != v.buf.end() {
		t.Errorf("lines %d to %d", v.buf.base, v.buf.end())
	}
	for _, n := range []int{v.buf.base, v.buf.base + 1, v.buf.end() - 1} {
		if got := v.buf.at(n).text; got != fmt.Sprintf("line %d", n) {
			t.Errorf("line %d is %q", n, got)
		}
	}
	long := strings.Repeat("x", 4096)
	for range 20_000 {
		v.buf.push(noon, said, long)
	}
	if v.buf.bytes > maxBytes {
		t.Errorf("%d bytes are kept", v.buf.bytes)
	}
}

func TestLogStaysWhereItIs(t *testing.T) {
	v := newLogView()
	fill(v, 0, 100)
	if got := text(v, 20, 3); got != "line 97\nline 98\nline 99" {
		t.Errorf("following: %q", got)
	}
	v.scroll(-10)
	want := "line 87\nline 88\nline 89"
	if got := text(v, 20, 3); got != want {
		t.Errorf("scrolled up: %q", got)
	}
	fill(v, 100, 5000)
	if got := text(v, 20, 3); got != want {
		t.Errorf("after more lines: %q", got)
	}
	if got := v.place(); got != "line 88 of 5,000 · 4,910 below" {
		t.Error(got)
	}
	fill(v, 5000, 2*maxLines) // what is seen is not kept any more
	if got := text(v, 20, 1); got != fmt.Sprintf("line %d", v.buf.base) {
		t.Errorf("the oldest kept line: %q", got)
	}
	v.scroll(1 << 30)
	if v.free {
		t.Error("it does not follow at the end")
	}
	v.toFirst()
	v.scroll(-5)
	if v.top != v.buf.base {
		t.Errorf("above the first line: %d", v.top)
	}
}

func TestLogWraps(t *testing.T) {
	v := newLogView()
	v.wrap = true
	v.buf.push(noon, said, "0123456789abcdefghij!")
	v.buf.push(noon, said, "")
	v.buf.push(noon, said, "日本語日本語")
	if got := text(v, 10, 9); got != "0123456789\nabcdefghij\n!\n\n日本語日本\n語\n\n\n" {
		t.Errorf("%q", got)
	}
	if got := text(v, 10, 4); got != "!\n\n日本語日本\n語" {
		t.Errorf("%q", got)
	}
	v.scroll(-1)
	if got := text(v, 10, 4); got != "abcdefghij\n!\n\n日本語日本" {
		t.Errorf("%q", got)
	}
	v.scroll(1)
	if v.free {
		t.Error("it does not follow at the end")
	}
	v.stamps = true
	if got := ansi.Strip(text(v, 40, 3)); !strings.HasPrefix(got, time.UnixMilli(noon.UnixMilli()).Format("15:04:05 ")+"0123456789") {
		t.Errorf("%q", got)
	}
}

// seek searches a log for a text.
func seek(t *testing.T, v *logView, text string) string {
	t.Helper()
	q, err := event.NewQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	stage, filter := v.only()
	v.sifted(stage, filter, q)
	v.find(1)
	return v.told()
}

func TestSearch(t *testing.T) {
	v := newLogView()
	v.find(1)
	if got := v.told(); !strings.Contains(got, "nothing was searched") {
		t.Error(got)
	}
	if got := seek(t, v, "x"); got != "“x” is in none of the 0 lines" {
		t.Error(got)
	}
	fill(v, 0, 1000)
	v.buf.push(noon, said, "Straße İSTANBUL Error: no")
	fill(v, 1001, 2000)
	v.draw(newStyles(false), 40, 10)
	for _, q := range []string{"error", "Error", "straße", "ERROR", "/err.r:", "/İ.+L"} {
		got := seek(t, v, q)
		if found := v.hit == 1000; found != (q != "ERROR") {
			t.Errorf("%q: %s", q, got)
		}
		if q != "ERROR" && !strings.Contains(ansi.Strip(text(v, 40, 10)), "Error: no") {
			t.Errorf("%q: what was found is not seen", q)
		}
	}
	if got := seek(t, v, "line 199"); !strings.Contains(got, "2 of 11, line 1,991 of 2,000") { // of 199 and 1990 to 1999; the window is below the first
		t.Error(got)
	}
	seen := map[int]bool{}
	for range 11 {
		v.find(1)
		seen[v.hit] = true
	}
	if len(seen) != 11 {
		t.Errorf("found %v", seen)
	}
	v.find(-1)
	if got := v.told(); !strings.Contains(got, "1 of 11, line 200 of 2,000") {
		t.Error(got)
	}
	v.find(-1)
	if got := v.told(); !strings.Contains(got, "11 of 11, line 2,000 of 2,000, around the end") {
		t.Error(got)
	}
	fill(v, 1990, 1992)
	if v.find(1); !strings.Contains(v.told(), "12 of 13, line 2,001 of 2,002") {
		t.Error(v.told())
	}
}

// Drawing costs what is seen, not what is kept.
func TestLogIsDrawnByTheWindow(t *testing.T) {
	v := newLogView()
	fill(v, 0, maxLines)
	st := newStyles(true)
	n := testing.AllocsPerRun(100, func() { v.draw(st, 80, 40) })
	if n > 1000 {
		t.Errorf("%.0f allocations for 40 of %d lines", n, maxLines)
	}
}

func TestTextFits(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	alphabet := []string{"a", " ", "é", "e\u0301", "世", "🐧", "·", "…", "ﬁ", "\u3000"}
	for range 5000 {
		var b strings.Builder
		for range r.IntN(40) {
			b.WriteString(alphabet[r.IntN(len(alphabet))])
		}
		s, w := b.String(), r.IntN(30)
		if got := fit(s, w); width(got) > w || width(s) <= w && w > 0 && got != s {
			t.Fatalf("fit(%q, %d) = %q", s, w, got)
		}
		if got := pad(s, w); width(got) != w {
			t.Fatalf("pad(%q, %d) = %q", s, w, got)
		}
		if got := ends(s, "right", w); w > 0 && width(got) != w {
			t.Fatalf("ends(%q, %d) = %q", s, w, got)
		}
		for _, l := range wrap(s, w) {
			if width(l) > w {
				t.Fatalf("wrap(%q, %d) has %q", s, w, l)
			}
		}
		cuts := append(breaks(s, max(w, 2)), len(s))
		for i := 1; i < len(cuts); i++ {
			if width(s[cuts[i-1]:cuts[i]]) > max(w, 2) {
				t.Fatalf("breaks(%q, %d) = %v", s, w, cuts)
			}
		}
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{"debian:13/x86_64,ubuntu": "debian:13/x86_64,ubuntu", "dir:my images": "'dir:my images'", "it's": `'it'\''s'`, "*/arm64": "'*/arm64'", "": "''"} {
		if got := quote(word); got != want {
			t.Errorf("%q is %s, want %s", word, got, want)
		}
	}
}

func BenchmarkLogDraw(b *testing.B) {
	v := newLogView()
	fill(v, 0, maxLines)
	st := newStyles(true)
	b.ReportAllocs()
	for range b.N {
		v.draw(st, 80, 40)
	}
}
