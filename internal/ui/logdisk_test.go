package ui

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// bench is a console whose one target writes a real raw log; the test does by hand what bubbletea does.
type bench struct {
	t   testing.TB
	m   *model
	s   *script
	sub *engine.Subscription
	dir string
}

const benchTarget = "flavor0:0/x86_64"

func newBench(t testing.TB) *bench {
	s := newScript()
	s.bus = event.NewBus(nil)
	x := &bench{t: t, s: s, m: modelOf(s), sub: s.bus.Subscribe(), dir: t.TempDir()}
	x.m.startRun(engine.Selection{}, []string{benchTarget})
	return x
}

func (x *bench) scope(stage string) *event.Scope {
	return x.s.bus.Scope(benchTarget, stage, filepath.Join(x.dir, stage+".log"))
}

// read hands what was published to the console.
func (x *bench) read() {
	events, _ := x.sub.Poll()
	x.do(x.m.Update(eventsMsg(events)))
}

// do does commands until nothing is left of them.
func (x *bench) do(_ tea.Model, cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	switch msg := cmd().(type) {
	case nil:
	case tea.BatchMsg:
		for _, c := range msg {
			x.do(nil, c)
		}
	case readMsg, siftedMsg, toldMsg, savedMsg:
		x.do(x.m.Update(msg))
	default:
		x.t.Fatalf("%T came: %v", msg, x.m.crash)
	}
}

// press presses keys and lets what they lead to happen.
func (x *bench) press(keys ...string) {
	types := map[string]tea.KeyType{"enter": tea.KeyEnter, "esc": tea.KeyEsc, "pgup": tea.KeyPgUp, "pgdn": tea.KeyPgDown, "home": tea.KeyHome, "ctrl+u": tea.KeyCtrlU}
	for _, k := range keys {
		msg := tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)}
		if t, ok := types[k]; ok {
			msg = tea.KeyMsg{Type: t}
		}
		x.do(x.m.Update(msg))
	}
}

func (x *bench) screen() string { return ansi.Strip(x.m.View()) }

func (x *bench) shows(texts ...string) {
	x.t.Helper()
	for _, text := range texts {
		if !strings.Contains(x.screen(), text) {
			x.t.Errorf("no %q on the screen:\n%s", text, x.screen())
		}
	}
}

// long fills the log of two stages with n lines each; "needle" is in every thousandth.
func (x *bench) long(n int) {
	for _, stage := range []string{"fetch", "customise"} {
		s := x.scope(stage)
		s.Start()
		w := s.Lines(nil)
		for i := range n {
			text := fmt.Sprintf("%s line %d of it", stage, i)
			if i%1000 == 0 {
				text += " with a Needle"
			}
			_, _ = w.Write([]byte(text + "\n"))
			if i%500 == 499 {
				x.read()
			}
		}
		s.End("", nil)
	}
	x.read()
}

// Lines that memory does not keep are there when one goes to them, and are found, filtered, saved and copied as all
// others.
func TestLogIsReadBack(t *testing.T) {
	const n = 30_000
	x := newBench(t)
	x.m.Update(tea.WindowSizeMsg{Width: 100, Height: 30})
	x.long(n)
	v := x.m.log()
	if v.buf.base == 0 || v.buf.count > tailLines || v.buf.end() != 2*n+4 {
		t.Fatalf("%d of %d lines are in memory, from %d on", v.buf.count, v.buf.end(), v.buf.base)
	}
	x.press("z")
	x.shows("customise line 29999", "following · 60,004 lines", "older read from disk: ")
	x.press("g")
	x.shows("▸ fetch", "fetch line 0 of it with a Needle", "fetch line 15 of it", "line 1 of 60,004")
	x.press("pgdn", "pgdn", "pgdn")
	x.shows("fetch line 70 of it")
	x.press("G", "/", "CUSTOMISE LINE 1 ", "enter")
	x.shows("is in none of the 60,004 lines")
	x.press("/", "customise line 1 ", "enter")
	x.shows("customise line 1 of it", "1 of 1, line 30,005 of 60,004", "▸ customise", "✓ fetch: done")
	x.press("/", "/Needle$", "enter")
	x.shows("31 of 60", "customise line 0 of it with a Needle")
	x.press("N", "N")
	x.shows("29 of 60", "fetch line 28000 of it with a Needle")
	// Filters, one and both.
	x.press("esc", "&", "needle", "enter")
	x.shows("60 of 60,004 (“needle”)")
	x.press("g")
	x.shows("fetch line 0 of it", "fetch line 1000 of it", "fetch line 9000 of it")
	x.press("s", "s")
	x.shows("30 of 60,004 (only customise, “needle”)", "customise line 1000 of it")
	x.press("/", "line 2", "enter")
	x.shows("1 of 11", "customise line 2000 of it")
	// What is shown is saved, then the whole; a file that is there only after a question.
	shown, whole := filepath.Join(x.dir, "shown"), filepath.Join(x.dir, "whole")
	x.press("O", "ctrl+u", shown, "enter")
	x.shows("saved 30 lines")
	if got, _ := os.ReadFile(shown); strings.Count(string(got), "\n") != 30 || !strings.HasPrefix(string(got), "customise line 0 of it with a Needle\ncustomise line 1000 ") {
		t.Errorf("%.200s", got)
	}
	x.press("W", "ctrl+u", whole, "enter")
	x.shows("saved 60,004 lines")
	got, _ := os.ReadFile(whole)
	lines := strings.Split(string(got), "\n")
	if len(lines) != 2*n+5 || lines[0] != "▸ fetch" || lines[n] != fmt.Sprintf("fetch line %d of it", n-1) || lines[n+2] != "▸ customise" || !strings.HasPrefix(lines[2*n+3], "✓ customise: done") {
		t.Errorf("%d lines: %q … %q", len(lines), lines[:2], lines[n:n+3])
	}
	x.press("O", "ctrl+u", whole, "enter")
	x.shows("Overwrite " + whole + "?")
	x.m.clock = x.m.clock.Add(-2 * deaf)
	x.m.dialog.opened = x.m.clock
	x.press("n")
	if again, _ := os.ReadFile(whole); len(again) != len(got) {
		t.Error("it was overwritten without a yes")
	}
	x.press("O", "ctrl+u", whole, "enter")
	x.m.dialog.opened = x.m.clock.Add(-2 * deaf)
	x.press("y")
	x.shows("saved 30 lines")
	// The clipboard.
	var copied string
	x.m.copy = func(text string) error { copied = text; return nil }
	x.press("C")
	x.shows("sent 30 lines (1.2 KiB) to the terminal's clipboard (OSC 52)")
	if strings.Count(copied, "\n") != 29 {
		t.Errorf("%q", copied)
	}
	x.press("esc", "esc", "g", "c")
	x.shows("line 1 of 60,004")
	if !strings.HasPrefix(copied, "▸ fetch\nfetch line 0 of it with a Needle\nfetch line 1 of it\n") || strings.Count(copied, "\n") > 30 {
		t.Errorf("%q", copied)
	}
	x.press("C")
	x.shows("sent the newest 2,", "of 60,004 lines (72.2 KiB)")
	x.m.copy = func(string) error { return errors.New("no terminal") }
	x.press("C")
	x.shows("the terminal did not take it: no terminal")
}

// A console that was too slow for the events shows what it has missed all the same, and nothing twice.
func TestMissedLinesAreReadBack(t *testing.T) {
	x := newBench(t)
	x.m.Update(tea.WindowSizeMsg{Width: 100, Height: 30})
	s := x.scope("customise")
	s.Start()
	for i := range 100_000 {
		s.Logf("line %d of it", i)
	}
	x.read()
	s.End("", nil)
	x.read()
	v := x.m.log()
	if v.buf.end() != 100_002 || x.m.unread != 0 {
		t.Errorf("%d lines, %d messages", v.buf.end(), x.m.unread)
	}
	x.press("z", "g")
	x.shows("▸ customise", "line 0 of it", "line 10 of it")
	x.press("/", "line 50000 ", "enter")
	x.shows("1 of 1, line 50,002 of 100,002", "line 49999 of it")
	n, lines := v.text(true, false)
	i := 0
	for l, err := range lines {
		if want := fmt.Sprintf("line %d of it", i-1); err != nil || i > 0 && i <= 100_000 && l != want {
			t.Fatalf("line %d is %q, %v", i, l, err)
		}
		i++
	}
	if i != n || n != 100_002 {
		t.Errorf("%d of %d", i, n)
	}
}

// Where the disk fails, lines say so; nothing stands still.
func TestRawLogsThatAreGone(t *testing.T) {
	x := newBench(t)
	x.m.Update(tea.WindowSizeMsg{Width: 200, Height: 30})
	x.long(20_000)
	x.press("z")
	for _, f := range []string{"fetch.log", "customise.log"} {
		if err := os.Remove(filepath.Join(x.dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	x.press("g")
	x.shows("this line cannot be read back: ", "no such file")
	x.press("/", "fetch line 3", "enter")
	x.shows("not all could be searched")
	file := filepath.Join(x.dir, "saved")
	x.press("W", "ctrl+u", file, "enter")
	x.shows("not saved: line 2 of the log cannot be read back")
	if _, err := os.Stat(file); err == nil {
		t.Error("half a log was saved")
	}
}

// The first error is found wherever it is, then the next.
func TestFirstError(t *testing.T) {
	x := newBench(t)
	x.m.Update(tea.WindowSizeMsg{Width: 100, Height: 30})
	s := x.scope("fetch")
	s.Start()
	for i := range 30_000 {
		text := fmt.Sprintf("Unpacking libgpg-error0 number %d", i)
		if i == 77 {
			text = "E: Unable to locate package kmi"
		}
		s.Log(text)
		if i%1000 == 0 {
			x.read()
		}
	}
	s.End("", event.WithRemedy(errors.New("apt-get: exit status 100"), "look"))
	x.read()
	x.press("z", "e")
	x.shows("E: Unable to locate package kmi", "“errors”: 1 of 2, line 79 of 30,004")
	x.press("e")
	x.shows("2 of 2", "✗ fetch: failed after")
	x.press("e")
	x.shows("1 of 2", "around the end")
}

// Whatever a guest writes, rows that are wrapped one page up are those that stand before.
func TestPagesOfWrappedLines(t *testing.T) {
	x := newBench(t)
	x.m.Update(tea.WindowSizeMsg{Width: 44, Height: 20})
	s := x.scope("test")
	s.Start()
	for i := range 20_000 {
		s.Logf("<%d>%s", i, strings.Repeat("世x", i%40))
		if i%500 == 0 {
			x.read()
		}
	}
	x.read()
	v := x.m.log()
	x.press("z", "w", "g")
	var down []string
	for range 60 {
		down = append(down, x.window())
		x.press("pgdn")
	}
	for i := len(down) - 1; i >= 0; i-- {
		x.press("pgup")
		if got := x.window(); got != down[i] {
			t.Fatalf("page %d is\n%s\nand was\n%s", i, got, down[i])
		}
	}
	// From the end up through what has to be read back no line is left out.
	x.press("G")
	last := v.top
	for range 5000 {
		x.press("pgup")
		if v.top > last || last-v.top > v.h {
			t.Fatalf("from line %d to %d in a window of %d", last, v.top, v.h)
		}
		if v.top < 10_000 {
			return
		}
		last = v.top
	}
	t.Errorf("it stands at %d", v.top)
}

// window is the log's part of the screen.
func (x *bench) window() string {
	v := x.m.log()
	return ansi.Strip(strings.Join(v.draw(x.m.st, v.w, v.h), "\n"))
}

// Sizes, keys and lines come in any order, at any speed: every frame fits, and nothing is lost.
func TestLogsWhileTheTerminalChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	x := newBench(t)
	nasty := []string{"plain", "日本語のログ行がここに", strings.Repeat("世", 200), "\x1b[31mred\x1b[2J", "a\u0301\u0302\u0303\u0304\u0305\u0306\u0307", "bad \xff", strings.Repeat("y", 1000), "👩‍👩‍👧 🇩🇪", "\u202e\u200b\u2066", "error: \x00", "\u3164\u115f\ufeff"}
	keys := []string{"k", "j", "pgup", "pgdn", "g", "G", "w", "t", "s", "S", "n", "N", "e", "z", "left", "l", "h", "f"}
	s := x.scope("test")
	s.Start()
	rounds, said := 150, 0
	if testing.Short() {
		rounds = 60
	}
	for i := range rounds {
		for range r.IntN(200) {
			s.Log(nasty[r.IntN(len(nasty))])
			said++
		}
		switch r.IntN(6) {
		case 0:
			x.press("/", nasty[r.IntN(len(nasty))][:1], "enter")
		case 1:
			x.press("&", []string{"", "e", "/[a-y]", "世"}[r.IntN(4)], "enter")
			x.press("esc")
		default:
			x.press(keys[r.IntN(len(keys))])
		}
		x.read()
		x.do(x.m.Update(tea.WindowSizeMsg{Width: r.IntN(301), Height: r.IntN(101)}))
		fits(t, x.m, fmt.Sprintf("round %d", i))
		if x.m.top() == chartScreen {
			x.press("r")
		}
	}
	if n := x.m.board.panes[0].log.buf.end(); n != said+1 {
		t.Errorf("%d lines, %d were said", n, said)
	}
}

// The log at the sizes that count, with a fixed clock.
func TestLogFrames(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {120, 40}, {200, 60}, {40, 12}} {
		x := newBench(t)
		x.m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		x.s.bus.Publish(event.Event{Time: noon, Target: benchTarget, Kind: event.Started})
		events := eventsMsg{{Time: noon, Target: benchTarget, Stage: "customise", Kind: event.Started}}
		for i := range 500 {
			events = append(events, event.Event{Time: noon, Target: benchTarget, Stage: "customise", Kind: event.Log, Line: fmt.Sprintf("Get:%d libsomething-%d 日本 with a line that is longer than most terminals are wide, so that it is cut", i, i)})
		}
		x.do(x.m.Update(events))
		x.press("z", "g", "/", "something-49", "enter", "s")
		fits(t, x.m, "log")
		lines := strings.Split(x.screen(), "\n")
		if len(lines) != size[1] {
			t.Fatalf("%v: %d lines", size, len(lines))
		}
		x.shows("libsomething-49")
		if size[0] >= 80 {
			x.shows("log of "+benchTarget, "“something-49” 1 of 11", "only customise", "customise")
		}
		for _, w := range []string{"w", "t"} {
			x.press(w)
			fits(t, x.m, "log with "+w)
		}
		if size[0] >= 40 {
			x.shows(noon.Local().Format("15:04:05 "))
		}
		t.Logf("%d×%d\n%s", size[0], size[1], x.screen())
	}
}

// A million lines: the log opens, jumps and searches faster than one sees.
func BenchmarkLogOfAMillionLines(b *testing.B) {
	x := newBench(b)
	x.long(500_000)
	b.Run("open", func(b *testing.B) {
		for range b.N {
			x.press("z", "g")
			x.press("G", "esc")
		}
	})
	b.Run("search", func(b *testing.B) {
		x.press("z")
		for range b.N {
			x.press("/", "customise line 499998", "enter")
			x.shows("1 of 1, line 1,000,002 of 1,000,004")
		}
	})
	b.Run("filter", func(b *testing.B) {
		for range b.N {
			x.press("&", "ctrl+u", "needle", "enter")
			x.shows("1,000 of 1,000,004 (")
		}
	})
}

// A stage that failed before it said a word has no log: nobody is sent to that of the stage before.
func TestFailedWithoutALog(t *testing.T) {
	m := modelOf(newScript())
	runOf(m, 1)
	p := m.board.panes[0]
	m.Update(eventsMsg{
		{Time: noon, Target: p.target, Stage: "fetch", Kind: event.Finished, LogFile: "/cache/logs/1/fetch.log"},
		{Time: noon, Target: p.target, Stage: "customise", Kind: event.Started},
	})
	if got := m.logPath(p); got != "/cache/logs/1/fetch.log" {
		t.Errorf("it is in %s", got)
	}
	m.Update(eventsMsg{{Time: noon, Target: p.target, Stage: "customise", Kind: event.Failed, Error: "no"}})
	if got := m.logPath(p); got != m.engine.Logs() {
		t.Errorf("it is in %s", got)
	}
}
