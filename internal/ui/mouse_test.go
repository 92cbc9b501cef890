package ui

import (
	"fmt"
	"strings"
	"testing"

	tea "github.com/charmbracelet/bubbletea"
)

// sgr is what a terminal says of the mouse: a button (0 left, 64 and 65 the wheel) at a cell, counted from 1 (xterm's
// control sequences, extended coordinates).
func sgr(button, x, y int) string {
	press := fmt.Sprintf("\x1b[<%d;%d;%dM", button, x, y)
	if button >= 64 { // no terminal tells that the wheel was let go
		return press
	}
	return press + fmt.Sprintf("\x1b[<%d;%d;%dm", button, x, y)
}

// at is where a text stands on the screen, from 0; the n-th of them.
func (x *terminalTest) at(text string, n int) (col, row int) {
	x.t.Helper()
	for y, l := range strings.Split(x.wait(text), "\n") {
		rest, before := l, 0
		for {
			i := strings.Index(rest, text)
			if i < 0 {
				break
			}
			if n == 0 {
				return before + width(rest[:i]), y
			}
			n--
			before += width(rest[:i+len(text)])
			rest = rest[i+len(text):]
		}
	}
	x.t.Fatalf("no %q on\n%s", text, x.screen())
	return 0, 0
}

// click clicks on a text. Clicks that are to be two come some time after each other.
func (x *terminalTest) click(text string, n int) {
	x.t.Helper()
	col, row := x.at(text, n)
	x.clock.advance(2 * doubleClick)
	x.press(sgr(0, col+1, row+1))
}

func (x *terminalTest) doubleClick(text string, n int) {
	x.t.Helper()
	col, row := x.at(text, n)
	x.clock.advance(2 * doubleClick)
	x.press(sgr(0, col+1, row+1), sgr(0, col+1, row+1))
}

func (x *terminalTest) wheel(text string, n, button int) {
	x.t.Helper()
	col, row := x.at(text, n)
	x.press(sgr(button, col+1, row+1))
}

func TestMouseOnLists(t *testing.T) {
	s := newScript()
	x := open(t, s, 120, 40)
	x.wait("release chart", "Debian")
	// It is the terminal's until somebody wants it.
	x.click("Ubuntu", 0)
	x.press("j")
	x.wait("▌      Alpine Linux")
	x.press("M")
	x.wait("clicks and the wheel work here")
	x.click("Debian", 0)
	x.wait("▌[ ] ▸ Debian")
	x.click("[ ] ▸ Ubuntu", 0) // its box
	x.wait("▌[x] ▸ Ubuntu", "2 targets selected")
	x.click("[x] ▸ Ubuntu", 0)
	x.wait("▌[ ] ▸ Ubuntu")
	x.doubleClick("Debian", 0) // as enter does
	x.wait("▌[ ] ▾ Debian", "13/x86_64")
	x.wheel("Debian", 0, 65)
	x.gone("▌[ ] ▾ Debian")

	x.click("i details", 0) // a key in the line of keys
	x.wait("details of", "y copies what is under the cursor")
	x.click("home", 0)
	x.wait("▌ home")
	x.click("esc back", 0)
	x.wait("release chart")
	x.click("? help", 0)
	x.wait("› keys")
	x.click("open", 0)
	x.wait("▌ enter")
	x.press("esc")
	x.wait("release chart")
	x.click("v stages", 0)
	x.wait("targets and stages")
	x.click("ubuntu:24.04/x86_64", 0)
	x.wait("▌ ubuntu:24.04/x86_64")
	x.press("esc")

	// A question is answered by its answers only, and not by the click that asked it.
	x.click("Debian", 0)
	x.doubleClick("b build", 0)
	x.wait("Publish 2 targets")
	x.clock.advance(2 * clickDeaf)
	x.click("debian:12/x86_64", 0) // what is behind it is not there
	x.click("Publish 2", 0)
	x.wait("Publish 2 targets")
	x.click("esc: back", 0)
	x.gone("Publish 2 targets")
	if n := len(s.runs()); n > 0 {
		t.Errorf("%d runs", n)
	}
	x.click("b build", 0)
	x.wait("Publish 2 targets")
	x.clock.advance(2 * clickDeaf)
	x.click("y or enter: publish", 0)
	x.wait("how the run ended")
	x.click("debian:12/x86_64", 0)
	x.wait("▌ debian:12/x86_64")
	x.doubleClick("debian:12/x86_64", 0)
	x.wait("log of debian:12/x86_64")
	x.press("M")
	x.wait("the mouse is the terminal's again")
}

// A word that has to be typed cannot be clicked.
func TestMouseTypesNothing(t *testing.T) {
	s := newScript()
	s.destination = "registry.example/kmi"
	x := open(t, s, 100, 30)
	x.wait("release chart")
	x.press("M")
	x.click("Debian", 0)
	x.wait("▌[ ] ▸ Debian")
	x.click("b build", 0)
	x.wait("type publish and press enter")
	x.clock.advance(2 * clickDeaf)
	for _, text := range []string{"type publish", "enter", "publish and"} {
		x.click(text, 0)
	}
	x.press("publish")
	x.wait("enter does it")
	x.click("enter does it", 0)
	x.click("esc goes back", 0)
	x.gone("Publish 2 targets")
	if n := len(s.runs()); n > 0 {
		t.Errorf("%d runs", n)
	}
}

func TestMouseOnPanes(t *testing.T) {
	s := newScript()
	h := hold(s)
	x := start(t, s, 200, 60, "a")
	h.step <- func(s *script, targets []string) {
		for _, target := range targets {
			scope := s.bus.Scope(target, "fetch", "")
			scope.Start()
			for i := range 200 {
				scope.Logf("line %d of %s", i, target)
			}
		}
	}
	x.wait("line 199 of debian:13/x86_64", "line 199 of debian:12/x86_64", "line 199 of ubuntu:24.04/x86_64")
	x.press("M")
	x.wait("clicks and the wheel work here")
	// The wheel scrolls the log under the pointer, and leaves the focus.
	x.wheel("line 199 of ubuntu:24.04/x86_64", 0, 64)
	x.gone("line 199 of ubuntu:24.04/x86_64")
	x.wait("line 196 of ubuntu:24.04/x86_64", "line 199 of debian:13/x86_64", "line 199 of debian:12/x86_64")
	x.click("line 199 of debian:12/x86_64", 0)
	x.press("z")
	x.wait("log of debian:12/x86_64")
	x.press("z")
	x.wait("run of 4 targets")
	x.click("debian:13/x86_64  ●", 0) // a title: the focus, and then the whole screen
	x.click("debian:13/x86_64  ●", 0)
	x.wait("log of debian:13/x86_64")
	x.click("debian:13/x86_64  ●", 0)
	x.wait("run of 4 targets")
	x.doubleClick("line 196 of ubuntu:24.04/x86_64", 0)
	x.wait("log of ubuntu:24.04/x86_64", "r run  tab")
	x.click("esc back", 0)
	x.wait("run of 4 targets")
}

// In the list of those that have no room a click gives one room.
func TestMouseOnOthers(t *testing.T) {
	s := newScript()
	h := hold(s)
	x := start(t, s, 100, 18, "a")
	h.step <- func(s *script, targets []string) {
		for _, target := range targets {
			scope := s.bus.Scope(target, "fetch", "")
			scope.Start()
			scope.Logf("line of %s", target)
		}
	}
	screen := x.until("list of three", func(s string) bool {
		return strings.Count(s, "fetch 2/7") == 4 && strings.Count(s, "64 fetch 2/7") == 3
	})
	x.press("M")
	x.wait("clicks and the wheel work here")
	for _, target := range []string{"debian:13/x86_64", "ubuntu:24.04/x86_64"} {
		if !strings.Contains(screen, target+" fetch 2/7") {
			continue // it has the room already
		}
		x.click(target+" fetch 2/7", 0)
		x.wait("line of " + target)
		x.gone(target + " fetch 2/7")
	}
}

// Coordinates that no cell has do nothing.
func TestMouseBeyondTheScreen(t *testing.T) {
	x := open(t, newScript(), 80, 24)
	x.wait("release chart")
	x.press("M")
	x.wait("clicks and the wheel work here")
	before := x.screen()
	for _, xy := range [][2]int{{0, 0}, {81, 1}, {1, 25}, {1 << 30, 1 << 30}, {0, 9}, {9, 0}} {
		x.press(sgr(0, xy[0], xy[1]))
	}
	x.press("\x1b[<0;99999999999999999999999;99999999999999999999999M", "\x1b[M \x01\x01") // the old form, of -32,-32
	x.press("j")
	x.wait("▌      Alpine Linux")
	x.press("k")
	x.until("the same", func(s string) bool { return strings.Count(s, "▌") == strings.Count(before, "▌") })

	m := modelOf(newScript())
	runOf(m, 5)
	press(m, "M")
	for _, x := range []int{-1 << 62, -1, 0, 39, 79, 80, 1<<62 - 1} {
		for _, y := range []int{-1 << 62, -1, 0, 12, 23, 24, 1<<62 - 1} {
			for _, b := range []tea.MouseButton{tea.MouseButtonLeft, tea.MouseButtonWheelUp, tea.MouseButtonWheelDown, tea.MouseButtonBackward} {
				m.Update(tea.MouseMsg{X: x, Y: y, Button: b, Action: tea.MouseActionPress})
				fits(t, m, fmt.Sprint(x, y, b))
			}
		}
	}
}

// What is on a wide character's cells, in a cut line or behind a colour is where it is drawn.
func TestMarksAreWhereTheyAreDrawn(t *testing.T) {
	m := modelOf(newScript())
	m.pointer.on = true
	hit := ""
	thing := func(name string) clickable {
		return clickable{click: func(bool) tea.Cmd { hit = name; return nil }}
	}
	lines := []string{fit("世界 "+m.mark(thing("outer"), m.st.bad.of("日本 ")+m.mark(thing("inner"), "語ab")+"cd")+" "+m.mark(thing("cut"), strings.Repeat("x", 50)), 24)}
	m.unmark(lines)
	if marks.MatchString(lines[0]) {
		t.Fatalf("%q", lines[0])
	}
	for x, want := range map[int]string{0: "", 4: "", 5: "outer", 9: "outer", 10: "inner", 13: "inner", 14: "outer", 15: "outer", 16: "", 17: "cut", 23: "cut", 24: "", -1: ""} {
		hit = ""
		if c := m.pointer.under(x, 0); c != nil {
			c.click(false)
		}
		if hit != want {
			t.Errorf("at %d: %q, not %q", x, hit, want)
		}
	}
}
