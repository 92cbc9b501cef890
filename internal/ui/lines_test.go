package ui

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// Every action has a key, or is one kind of an action that has one; a line of help; an entry in the palette of the
// screens where it is meant; and a command line, or a reason why there is none.
func TestEveryActionIsComplete(t *testing.T) {
	m := modelOf(newScript())
	m.Update(tea.WindowSizeMsg{Width: 220, Height: 200})
	press(m, "a")
	m.startRun(m.meant())
	known := map[string]bool{}
	for i := range m.actions {
		a := &m.actions[i]
		known[a.name] = true
		p := m.parent(a)
		if len(p.keys) == 0 {
			t.Errorf("%q has no key, and is no kind of an action that has one", a.name)
		}
		if a.help == "" {
			t.Errorf("%q has no help", a.name)
		}
		table, listed := twins[a.name]
		if line, none := m.twin(a); (line == "") == (none == "") {
			t.Errorf("%q: its command line is %q, and the reason why there is none %q", a.name, line, none)
		} else if !listed && p == a && !slices.ContainsFunc(selections(), func(s selection) bool { return s.name == a.name }) {
			t.Errorf("%q: nobody has said what its command line is", a.name)
		} else if table.none != "" && line != "" {
			t.Errorf("%q has no command line, and the line %q", a.name, line)
		}
		for on := chartScreen; on <= formScreen; on++ {
			if a.in&on.scope() == 0 || on == helpScreen {
				continue
			}
			m.help, m.input = help{of: on, palette: true, filter: a.name}, &input{}
			m.stack = []screen{chartScreen, on, helpScreen}
			m.scrolled[helpScreen] = list{}
			if c := m.chosen(); c == nil || c.name != a.name {
				t.Errorf("the palette of screen %d does not have %q first: %v", m.help.of, a.name, c)
				continue
			}
			drawn := strings.Join(m.helpBody(220, 200), "\n")
			line, none := m.twinThere(a)
			first := line + none
			for _, want := range []string{p.keyNames(), a.name, a.help, first[:min(len(first), 200)]} {
				if !strings.Contains(drawn, want) {
					t.Errorf("the palette of screen %d does not show %q of %q", m.help.of, want, a.name)
				}
			}
		}
	}
	for name := range twins {
		if !known[name] {
			t.Errorf("there is no action %q any more", name)
		}
	}
}

// The palette copies the line of the action under its cursor, and so does the help.
func TestCommandLinesAreCopied(t *testing.T) {
	x := open(t, newScript(), 120, 40)
	x.wait("release chart")
	x.press(":", "build")
	x.wait("the same as a command line: ctrl+y copies it", "$ kmi-tui --batch --only almalinux")
	x.press("\x19")
	x.wait("clipboard", "kmi-tui --batch --only almalinux")
	x.press("esc", "?", "/", "select stable", "enter", "j", "y")
	x.wait("(OSC 52): kmi-tui --batch --plan --level stable") // it is written beside the loop: its answer must not come after the next
	x.press("/", "\x15", "wheel", "enter", "j", "y")
	x.wait("mouse has no command line: it is about this terminal")
}

// Levels and conditions are selected at once, and only what is shown and can be built.
func TestSelectionsByWhatIsTrue(t *testing.T) {
	x := open(t, newScript(), 120, 40)
	x.wait("release chart")
	x.press("2")
	x.wait("4 targets selected")
	x.press("/", "ubuntu", "enter", "2")
	x.wait("2 targets selected", "[x] ▸ Ubuntu")
	x.press("esc", "0")
	x.wait("[ ] ▸ Ubuntu")
	x.press("7")
	x.wait("select failed: none of the shown rows has one")
}

// Nobody is asked before the plan is there: what would be done, how much is fetched, and why.
func TestThePlanComesBeforeTheQuestion(t *testing.T) {
	s := newScript()
	h := make(chan struct{})
	made, asked := s.plan, 0
	s.plan = func(ctx context.Context, s *script, targets []string) ([]engine.Plan, error) {
		asked++
		select {
		case <-h:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		return made(ctx, s, targets)
	}
	x := open(t, s, 120, 40)
	x.wait("release chart")
	x.press(append(toDebian, "b")...)
	if s := x.wait("Asking upstream and registry", "debian:13/x86_64"); strings.Contains(s, "Publish") {
		t.Errorf("it asks before the plan is there:\n%s", s)
	}
	close(h)
	x.wait("Publish 2 targets to dir:images?", "1 to build, with 312 MiB from upstream; 1 with nothing to do.", "debian:13/x86_64 · build · 312 MiB · the guest has changed")
	x.clock.advance(deaf) // it comes while somebody may type: it is deaf for longer
	x.answer("Publish 2 targets", "esc")
	x.gone("Publish 2 targets")
	x.press("b") // a moment later: the same plan
	x.answer("Publish 2 targets", "esc")
	x.gone("Publish 2 targets")
	if asked != 1 {
		t.Errorf("upstream was asked %d times", asked)
	}
	x.clock.advance(fresh)
	x.press("b")
	x.answer("Publish 2 targets", "y")
	x.wait("how the run ended")
	if asked != 2 {
		t.Errorf("upstream was asked %d times", asked)
	}
}

// A question that comes while somebody types is not answered by what was meant for something else.
func TestAQuestionIsDeafAtFirst(t *testing.T) {
	now := noon
	m := modelOf(newScript())
	m.now = func() time.Time { return now }
	press(m, "/", "debian", "enter", "b")
	plannedFor(m, bothDebians...)
	for _, wait := range []time.Duration{0, deaf, deaf - 1} {
		if now = now.Add(wait); m.dialog == nil {
			t.Fatalf("%s after it came it is answered", now.Sub(noon))
		}
		press(m, "y")
	}
	if m.dialog == nil || m.board != nil {
		t.Fatal("it is answered too early")
	}
	now = now.Add(1)
	if press(m, "y"); m.dialog != nil || m.board == nil {
		t.Error("it is not answered")
	}
}

// Who goes elsewhere while the plan is made is not asked there.
func TestAPlanDoesNotAskElsewhere(t *testing.T) {
	s := newScript()
	h := make(chan struct{})
	made := s.plan
	s.plan = func(ctx context.Context, s *script, targets []string) ([]engine.Plan, error) {
		<-h
		return made(ctx, s, targets)
	}
	x := open(t, s, 120, 40)
	x.wait("release chart")
	x.press(append(toDebian, "b")...)
	x.wait("Asking upstream and registry")
	x.press("m")
	x.wait("› messages")
	close(h)
	x.wait("the plan is made: b shows it, and asks", "› messages")
	x.press("esc", "b")
	x.answer("Publish 2 targets", "y")
	x.wait("how the run ended")
}

// What the console was started with is selected; what does not exist is told.
func TestStartsWithASelection(t *testing.T) {
	x := open(t, newScript(), 120, 40, func(o *Options) { o.Select = engine.Selection{Only: []string{"debian"}} })
	x.wait("[x] ▸ Debian", "2 targets selected")
}
