package ui

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hinshun/vt10x"
)

// What was drawn line by line is what a terminal shows of the whole frame.
func TestPainter(t *testing.T) {
	const w, h = 30, 8
	r := rand.New(rand.NewPCG(5, 9))
	vt := vt10x.New(vt10x.WithSize(w, h))
	st := newStyles(true)
	p := &painter{}
	for i := range 500 {
		var lines []string
		for range r.IntN(h + 1) {
			text := []string{"", "short", strings.Repeat("x", w), "日本語 wide", "▸ " + strings.Repeat("y", r.IntN(w-2))}[r.IntN(5)]
			lines = append(lines, []paint{st.text, st.bad, st.match}[r.IntN(3)].of(text))
		}
		_, _ = vt.Write([]byte(p.draw(strings.Join(lines, "\n"), r.IntN(10) == 0)))
		screen := strings.Split(vt.String(), "\n")
		whole := vt10x.New(vt10x.WithSize(w, h))
		for i, l := range lines {
			_, _ = fmt.Fprintf(whole, "\x1b[%d;1H%s", i+1, l)
		}
		for k, want := range strings.Split(whole.String(), "\n") {
			if strings.TrimRight(screen[k], " ") != strings.TrimRight(want, " ") {
				t.Fatalf("frame %d, line %d: %q, want %q", i, k, screen[k], want)
			}
		}
		if again := p.draw(strings.Join(lines, "\n"), false); again != "" {
			t.Fatalf("the same frame again is %q", again)
		}
	}
}
