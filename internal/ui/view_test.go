package ui

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// noon is the clock of tests that look at the model.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// model makes a console without a terminal; work that it starts never ends by itself.
func modelOf(e Engine) *model {
	m := newModel(e, true, func() time.Time { return noon })
	m.copy = func(string) error { return nil }
	m.start = func(func(context.Context) tea.Msg, func(error) tea.Msg) (tea.Cmd, context.CancelCauseFunc) {
		return nil, func(error) {}
	}
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	return m
}

func press(m *model, keys ...string) {
	for _, k := range keys {
		switch k {
		case "enter":
			m.Update(tea.KeyMsg{Type: tea.KeyEnter})
		case "esc":
			m.Update(tea.KeyMsg{Type: tea.KeyEsc})
		case "right":
			m.Update(tea.KeyMsg{Type: tea.KeyRight})
		case "space":
			m.Update(tea.KeyMsg{Type: tea.KeySpace, Runes: []rune{' '}})
		case "tab":
			m.Update(tea.KeyMsg{Type: tea.KeyTab})
		default:
			m.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)})
		}
		m.View()
	}
}

// running makes a model with a run of n targets under way.
func runOf(m *model, n int) {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("flavor%d:%d/x86_64", i, i))
	}
	m.startRun(engine.Selection{Only: names}, names)
	var events eventsMsg
	for _, name := range names {
		events = append(events, event.Event{Time: noon, Target: name, Kind: event.Started}, event.Event{Time: noon, Target: name, Stage: "fetch", Kind: event.Started})
	}
	m.Update(events)
}

// flood is a batch of n lines for every target, some of them nasty.
func flood(m *model, r *rand.Rand, n int) eventsMsg {
	nasty := []string{"plain words of a build that goes on and on", "日本語のログ行がここに流れて行きます、とても長い行です", "emoji 🐧🚀 and e\u0301 combining", "", strings.Repeat("x", 500),
		"\x1b[31mred\x1b[0m \x1b]0;title\x07", "tabs\tand\x00controls\x7f", "❤️ variation", "👩‍👩‍👧 family 🇩🇪 flag", strings.Repeat("世", 200), "\u202edlrow", "\xff\xfe invalid"}
	var events eventsMsg
	for _, p := range m.board.panes {
		for range n {
			events = append(events, event.Event{Time: noon, Target: p.target, Stage: "fetch", Kind: event.Log, Line: event.Clean(nasty[r.IntN(len(nasty))])})
		}
		events = append(events, event.Event{Time: noon, Target: p.target, Stage: "fetch", Kind: event.Progress, Done: r.Int64N(1 << 40), Total: r.Int64N(1 << 40), Unit: "bytes"})
	}
	return events
}

// marks are those of what can be clicked, which no terminal gets to see.
var marks = regexp.MustCompile("\x1b\\[[0-9]*z")

// fits checks that a frame fits its terminal and has nothing in it that moves a cursor.
func fits(t *testing.T, m *model, what string) {
	t.Helper()
	frame := m.View()
	if m.crash != nil {
		t.Fatalf("%s: %v", what, m.crash)
	}
	if frame == "" {
		return
	}
	if marks.MatchString(frame) {
		t.Fatalf("%s: there is a mark of the mouse in %q", what, frame)
	}
	lines := strings.Split(frame, "\n")
	if len(lines) > m.h {
		t.Fatalf("%s: %d lines on %d×%d", what, len(lines), m.w, m.h)
	}
	for i, l := range lines {
		if n := ansi.StringWidth(l); n > m.w {
			t.Fatalf("%s: line %d has %d cells on %d×%d: %q", what, i, n, m.w, m.h, l)
		}
		for _, r := range ansi.Strip(l) {
			if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x202e {
				t.Fatalf("%s: line %d: %q", what, i, l)
			}
		}
	}
}

// views are the console's screens, each with the keys that lead there from the chart.
var views = []struct {
	name string
	to   func(m *model)
}{
	{"chart", func(m *model) {}},
	{"unfolded", func(m *model) { press(m, "G", "k", "right", "space") }},
	{"filter", func(m *model) { press(m, "/", "日本 e") }},
	{"details", func(m *model) { press(m, "i") }},
	{"details of an image", func(m *model) {
		m.knows(knownMsg{known: weeks().known})
		press(m, "G", "k", "i")
		m.Update(imageMsg{m.meantTarget().id, weeks().images["debian:13/x86_64"], errors.New(strings.Repeat("no 世界 ", 30))})
	}},
	{"sorted", func(m *model) { m.knows(knownMsg{known: weeks().known}); press(m, "s", "n", "right") }},
	{"matrix", func(m *model) {
		m.knows(knownMsg{known: weeks().known})
		press(m, "v", "l", "l", "j")
		m.Update(historyMsg{weeks().past, errors.New("one cannot be read")})
	}},
	{"stage", func(m *model) {
		m.Update(historyMsg{weeks().past, nil})
		press(m, "v", "l", "l", "l", "l", "j", "enter")
	}},
	{"planning", func(m *model) { press(m, "a", "p") }},
	{"plan", func(m *model) {
		press(m, "a", "p")
		plans, _ := planned2(context.Background(), newScript(), []string{"debian:13/x86_64", "debian:12/x86_64", "世界:1/x86_64"})
		m.Update(planMsg{m.plan, plans, nil, time.Now()})
	}},
	{"no plan", func(m *model) {
		press(m, "a", "p")
		m.Update(planMsg{m.plan, nil, event.WithRemedy(errors.New(strings.Repeat("no plan ", 40)), "do something"), time.Now()})
	}},
	{"question", func(m *model) { press(m, "a", "b") }},
	{"run of 1", func(m *model) { runOf(m, 1) }},
	{"run of 2", func(m *model) { runOf(m, 2) }},
	{"run of 9", func(m *model) { runOf(m, 9) }},
	{"log", func(m *model) { runOf(m, 3); press(m, "z", "k", "/", "世", "enter") }},
	{"log wrapped", func(m *model) { runOf(m, 3); press(m, "z", "w", "t") }},
	{"cancel", func(m *model) { runOf(m, 3); press(m, "x") }},
	{"stopping", func(m *model) { runOf(m, 3); m.stop(errors.New("over")) }},
	{"summary", func(m *model) {
		runOf(m, 5)
		var s engine.Summary
		for i, p := range m.board.panes {
			r := engine.Result{Target: p.target, State: []event.Kind{event.Finished, event.Failed, event.Skipped}[i%3], Reason: strings.Repeat("理由 ", i*10), Seconds: 1000.5 * float64(i)}
			if r.State == event.Failed {
				r.Error, r.Remedy = strings.Repeat("it did not work\nat all ", 10), "try again"
			}
			for _, st := range engine.Stages {
				r.Stages = append(r.Stages, engine.StageTime{Stage: st, State: r.State, Seconds: 123.4})
			}
			s.Results = append(s.Results, r)
		}
		m.Update(runMsg{m.board, s, nil})
	}},
	{"not started", func(m *model) {
		runOf(m, 2)
		m.Update(runMsg{m.board, engine.Summary{}, event.WithRemedy(errors.New(strings.Repeat("cannot ", 50)), "install it")})
	}},
	{"messages", func(m *model) { m.say(bad, strings.Repeat("世界 ", 50)); press(m, "m") }},
	{"help", func(m *model) { press(m, "?") }},
	{"palette", func(m *model) { press(m, ":", "s") }},
}

// hostile is a catalogue whose texts want to break the screen.
func hostile() *catalog.Catalog {
	c := chart19()
	c.Project.Name = "Project \x1b[2J\x1b]0;x\x07 日本語 🚀"
	f := &c.Flavors[0]
	f.Name, f.Home = "\x1b[31mEvil\x1b[0m\nLinux \u202e", strings.Repeat("https://世界.example/", 20)
	c.Flavors[5].Name = "世界世界世界世界世界世界世界世界世界"
	c.Flavors[6].Name = "👩‍👩‍👧 Fedora 🇩🇪 ❤️"
	return c
}

func TestEveryScreenFitsEverySize(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sizes := [][2]int{{0, 0}, {1, 1}, {0, 24}, {80, 0}, {2, 2}, {3, 30}, {300, 2}, {300, 100}, {80, 24}, {40, 12}, {120, 40}, {200, 60}, {60, 13}, {49, 14}, {50, 14}, {20, 5}, {12, 100}}
	n := 60
	if testing.Short() {
		n = 12
	}
	for range n {
		sizes = append(sizes, [2]int{r.IntN(301), r.IntN(101)})
	}
	for _, v := range views {
		for _, c := range []*catalog.Catalog{chart19(), hostile()} {
			s := newScript()
			s.catalog = c
			s.destination = "registry.世界.example/" + strings.Repeat("kmi/", 10)
			m := modelOf(s)
			v.to(m)
			for _, size := range sizes {
				m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
				fits(t, m, v.name)
				if m.board != nil {
					m.Update(flood(m, r, 5))
					fits(t, m, v.name+" with logs")
				}
				press(m, []string{"j", "k", "G", "g", "tab"}[r.IntN(5)])
				fits(t, m, v.name+" after a key")
			}
		}
	}
}

// Whatever is pressed, in whatever order, at whatever size: no panic and no broken frame.
func TestMonkey(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var keys []string
	for _, a := range bindings() {
		keys = append(keys, a.keys...)
	}
	n := 20000
	if testing.Short() {
		n = 4000
	}
	now := noon
	s := newScript()
	s.catalog = hostile()
	m := modelOf(s)
	m.now = func() time.Time { return now }
	names := map[string]tea.KeyMsg{"enter": {Type: tea.KeyEnter}, "esc": {Type: tea.KeyEsc}, "right": {Type: tea.KeyRight}, "left": {Type: tea.KeyLeft}, "up": {Type: tea.KeyUp}, "down": {Type: tea.KeyDown},
		" ": {Type: tea.KeySpace, Runes: []rune{' '}}, "tab": {Type: tea.KeyTab}, "shift+tab": {Type: tea.KeyShiftTab}, "ctrl+c": {Type: tea.KeyCtrlC}, "ctrl+u": {Type: tea.KeyCtrlU}, "ctrl+d": {Type: tea.KeyCtrlD},
		"ctrl+b": {Type: tea.KeyCtrlB}, "ctrl+f": {Type: tea.KeyCtrlF}, "ctrl+w": {Type: tea.KeyCtrlW}, "pgup": {Type: tea.KeyPgUp}, "pgdown": {Type: tea.KeyPgDown}, "home": {Type: tea.KeyHome}, "end": {Type: tea.KeyEnd},
		"backspace": {Type: tea.KeyBackspace}}
	var said []string
	for i := range n {
		now = now.Add(time.Duration(r.IntN(400)) * time.Millisecond)
		k := keys[r.IntN(len(keys))]
		msg, ok := names[k]
		if !ok {
			msg = tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)}
		}
		said = append(said, k)
		m.Update(msg)
		switch r.IntN(40) {
		case 0:
			m.Update(tea.WindowSizeMsg{Width: r.IntN(200), Height: r.IntN(60)})
		case 1:
			if m.board != nil {
				m.Update(flood(m, r, 20))
			}
		case 2:
			if m.working() && r.IntN(4) == 0 {
				m.Update(runMsg{m.board, engine.Summary{Results: []engine.Result{{Target: "debian:13/x86_64", State: event.Failed, Error: "no"}}}, nil})
			}
		case 3:
			if m.planning() {
				m.Update(planMsg{m.plan, []engine.Plan{{Target: "a", Action: engine.Build}}, nil, time.Now()})
			}
		case 4:
			m.Update(tickMsg{})
		case 5, 6, 7:
			button := []tea.MouseButton{tea.MouseButtonLeft, tea.MouseButtonLeft, tea.MouseButtonWheelUp, tea.MouseButtonWheelDown, tea.MouseButtonRight}[r.IntN(5)]
			x, y := r.IntN(220)-10, r.IntN(80)-10
			said = append(said, fmt.Sprintf("click %d,%d", x, y))
			for range 1 + r.IntN(2) {
				m.Update(tea.MouseMsg{X: x, Y: y, Button: button, Action: tea.MouseActionPress})
			}
		}
		fits(t, m, fmt.Sprintf("key %d, the last ones %q", i, said[max(0, len(said)-12):]))
		if m.stopping {
			m.stopping = false // go on as if nobody had wanted to leave
		}
	}
}

func TestFrameIsCached(t *testing.T) {
	m := modelOf(newScript())
	m.View()
	if m.dirty {
		t.Fatal("the frame is worked out anew though nothing has changed")
	}
	m.Update(tea.FocusMsg{}) // nothing that anything is shown of
	if m.dirty {
		t.Error("a message that changes nothing asks for a new frame")
	}
	m.ticking = true
	if _, cmd := m.Update(tickMsg{}); cmd != nil || m.ticking {
		t.Error("the clock ticks though nothing is going on")
	}
}

func TestColourIsNeverAlone(t *testing.T) {
	m := newModel(newScript(), false, func() time.Time { return noon })
	m.Update(tea.WindowSizeMsg{Width: 120, Height: 40})
	for i := 30; i <= 37; i++ {
		for _, form := range []string{"\x1b[%dm", ";%dm", "\x1b[%d;"} {
			if code := fmt.Sprintf(form, i); strings.Contains(m.View(), code) {
				t.Errorf("there is a colour in %q though none is wanted", code)
			}
		}
	}
	words := map[string]bool{}
	for s := range states {
		label := ansi.Strip(m.st.label(state(s), ""))
		if words[label] || len(strings.Fields(label)) < 2 {
			t.Errorf("state %d is %q", s, label)
		}
		words[label] = true
	}
}

// Whatever is selected, the selectors that are shown and run mean exactly that.
func TestSelectorsMeanTheSelection(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	dir := t.TempDir()
	e, err := engine.New(engine.Config{Catalog: chart19(), Cache: filepath.Join(dir, "cache"), Registry: "dir:" + filepath.Join(dir, "images")})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	targets, err := e.Targets(engine.Selection{Only: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range targets {
		targets[i].Unsupported = ""
	}
	c := newChart(chart19(), targets)
	for range 500 {
		var want []string
		for _, row := range c.rows {
			for _, t := range row.targets {
				if t.selected = r.IntN(2) == 0; t.selected {
					want = append(want, t.id)
				}
			}
		}
		if len(want) == 0 {
			continue
		}
		only := c.selectors(c.selection())
		got, err := e.Targets(engine.Selection{Only: only})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, g := range got {
			names = append(names, g.String())
		}
		if !slices.Equal(names, want) {
			t.Fatalf("%q means %q, not %q", only, names, want)
		}
	}
	for _, row := range c.rows {
		set(row.targets, row.id == "debian")
	}
	if got := strings.Join(c.selectors(c.selection()), ","); got != "debian" {
		t.Errorf("all of debian is %q", got)
	}
}

// The project's own catalogue is shown, every row of it.
func TestProjectsCatalogue(t *testing.T) {
	file := filepath.Join("..", "..", "distros.toml")
	if _, err := os.Stat(file); err != nil {
		t.Skip(err)
	}
	c, err := catalog.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	s := newScript()
	s.catalog = c
	m := modelOf(s)
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 25})
	frame := ansi.Strip(m.View())
	for _, f := range c.Flavors {
		if !strings.Contains(frame, f.Name) {
			t.Errorf("no %s:\n%s", f.Name, frame)
		}
	}
}

func TestGrid(t *testing.T) {
	for _, c := range []struct{ n, w, h, cols, rows, fit int }{
		{1, 80, 21, 1, 1, 1},
		{2, 80, 21, 1, 2, 2},
		{3, 80, 21, 1, 2, 2}, // one at a time would hide more
		{4, 120, 37, 1, 4, 4},
		{4, 200, 57, 2, 2, 4},
		{2, 200, 57, 2, 1, 2},
		{9, 200, 57, 2, 5, 9},
		{40, 200, 57, 3, 7, 21},
		{2, 40, 9, 1, 1, 1},
		{0, 80, 21, 1, 1, 0},
	} {
		if cols, rows, fit := grid(c.n, c.w, c.h); cols != c.cols || rows != c.rows || fit != c.fit {
			t.Errorf("%d panes on %d×%d: %d×%d, %d fit; want %d×%d, %d", c.n, c.w, c.h, cols, rows, fit, c.cols, c.rows, c.fit)
		}
	}
}

// BenchmarkFrame is one frame of a busy run: a thirtieth of a second's events at 50,000 lines a second, taken in and
// drawn.
func BenchmarkFrame(b *testing.B) {
	for _, size := range [][2]int{{80, 24}, {200, 60}} {
		b.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(b *testing.B) {
			m := modelOf(newScript())
			runOf(m, 4)
			m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
			r := rand.New(rand.NewPCG(1, 1))
			events := flood(m, r, 50_000/30/4)
			for range 300 {
				m.Update(events) // the buffers are full
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				m.Update(events)
				m.View()
			}
		})
	}
}

// BenchmarkView is the drawing alone.
func BenchmarkView(b *testing.B) {
	for _, v := range []string{"chart", "run of 9", "log wrapped", "summary", "help"} {
		b.Run(v, func(b *testing.B) {
			m := modelOf(newScript())
			for _, x := range views {
				if x.name == v {
					x.to(m)
				}
			}
			m.Update(tea.WindowSizeMsg{Width: 200, Height: 60})
			if m.board != nil {
				m.Update(flood(m, rand.New(rand.NewPCG(1, 1)), 20_000))
			}
			b.ResetTimer()
			for range b.N {
				m.dirty = true
				m.View()
			}
		})
	}
}

// What a plan said last may come after the run has begun that it was made for: it is no part of the run.
func TestLateEventsOfAPlan(t *testing.T) {
	m := modelOf(newScript())
	m.Update(tea.WindowSizeMsg{Width: 120, Height: 40})
	press(m, "/", "debian", "enter", "b")
	late := event.Event{Time: time.Now(), Target: "debian:13/x86_64", Stage: "resolve", Kind: event.Finished}
	m.Update(planMsg{m.plan, []engine.Plan{{Target: "debian:13/x86_64", Action: engine.Build}, {Target: "debian:12/x86_64", Action: engine.Build}}, nil, time.Now()})
	m.startRun(m.meant())
	line := late
	line.Kind, line.Line = event.Log, "said while it was planned"
	m.Update(eventsMsg{line, late})
	if p := m.board.byTarget["debian:13/x86_64"]; p.log.buf.end() != 0 || p.stages[0].state != waiting {
		t.Errorf("%d lines, %v", p.log.buf.end(), p.stages[0].state)
	}
	m.Update(eventsMsg{{Time: time.Now(), Target: "debian:13/x86_64", Stage: "resolve", Kind: event.Started}})
	if p := m.board.byTarget["debian:13/x86_64"]; p.stages[0].state != running {
		t.Errorf("%v", p.stages[0].state)
	}
}
