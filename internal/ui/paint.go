package ui

import (
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
)

// Bubbletea's renderer draws on a clock: at 30 frames a second keys are slow, at 120 an idle console is not idle. This one
// draws a frame when there is a new one, and does nothing else.

// leastPause is the least time between two frames: what comes faster is drawn together.
const leastPause = 5 * time.Millisecond

// painter is the terminal while the console has it: raw, on its other screen, with the newest frame on it.
type painter struct {
	out      io.Writer
	terminal term.File // nil: the output is none
	keys     term.File // nil: the input is none
	cooked   *term.State

	drawing sync.Mutex // held while something is written, or the terminal is somebody else's
	mouse   bool       // it tells of the mouse

	mu    sync.Mutex
	frame string // to be drawn
	all   bool   // and all of it: the terminal has changed
	over  bool

	wake  chan struct{}
	done  chan struct{} // closed: nothing is drawn any more
	lines []string      // on the screen; only the drawing knows
}

// newPainter takes the terminal over. Its error says that it cannot be made raw.
func newPainter(in io.Reader, out *output) (*painter, error) {
	p := &painter{out: out, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if f, ok := out.w.(term.File); ok && term.IsTerminal(f.Fd()) {
		p.terminal = f
	}
	if f, ok := in.(term.File); ok && term.IsTerminal(f.Fd()) {
		p.keys = f
	}
	if err := p.take(); err != nil {
		return nil, err
	}
	go p.run()
	return p, nil
}

// The terminal's modes of xterm: it tells of the mouse's wheel and buttons, with numbers of any size.
const (
	mouseOn  = "\x1b[?1000h\x1b[?1006h"
	mouseOff = "\x1b[?1006l\x1b[?1000l"
)

// take makes the terminal the console's. The caller is the only one who draws.
func (p *painter) take() error {
	if p.keys != nil {
		state, err := term.MakeRaw(p.keys.Fd())
		if err != nil {
			return err
		}
		p.cooked = state
	}
	text := ansi.SetAltScreenSaveCursorMode + ansi.EraseEntireScreen + ansi.CursorHomePosition + ansi.HideCursor + ansi.SetBracketedPasteMode
	if p.mouse {
		text += mouseOn
	}
	_, _ = io.WriteString(p.out, text)
	return nil
}

// give makes the terminal what it was before.
func (p *painter) give() {
	text := ""
	if p.mouse {
		text = mouseOff
	}
	_, _ = io.WriteString(p.out, text+ansi.ResetBracketedPasteMode+ansi.ShowCursor+ansi.ResetAltScreenSaveCursorMode)
	if p.cooked != nil {
		_ = term.Restore(p.keys.Fd(), p.cooked)
	}
}

// setMouse has the terminal tell of the mouse, or not.
func (p *painter) setMouse(on bool) {
	p.drawing.Lock()
	defer p.drawing.Unlock()
	p.mouse = on
	text := mouseOff
	if on {
		text = mouseOn
	}
	_, _ = io.WriteString(p.out, text)
}

// lend gives the terminal back while do runs: nothing is drawn, and after it everything anew.
func (p *painter) lend(do func()) error {
	p.drawing.Lock()
	defer p.drawing.Unlock()
	p.mu.Lock()
	over := p.over
	p.all = true
	p.mu.Unlock()
	if over {
		return nil
	}
	p.give()
	do()
	p.mu.Lock()
	over = p.over // meanwhile
	p.mu.Unlock()
	if over {
		return nil
	}
	err := p.take()
	p.poke()
	return err
}

// stopProcess stops this process as a shell does with ctrl+z, until somebody goes on with it. Where there is no shell
// that could, the system does not stop it.
func stopProcess() {
	resumed := make(chan os.Signal, 1)
	signal.Notify(resumed, syscall.SIGCONT)
	defer signal.Stop(resumed)
	if syscall.Kill(0, syscall.SIGTSTP) == nil {
		select {
		case <-resumed:
		case <-time.After(time.Second / 2):
		}
	}
}

// show draws a frame soon, and what came before it not at all if it is not drawn by then.
func (p *painter) show(frame string, all bool) {
	p.mu.Lock()
	p.frame, p.all = frame, p.all || all
	p.mu.Unlock()
	p.poke()
}

func (p *painter) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *painter) run() {
	defer close(p.done)
	for range p.wake {
		p.drawing.Lock()
		p.mu.Lock()
		frame, all, over := p.frame, p.all, p.over
		p.all = false
		p.mu.Unlock()
		text := ""
		if !over {
			if text = p.draw(frame, all); text != "" {
				_, _ = io.WriteString(p.out, text)
			}
		}
		p.drawing.Unlock()
		if over {
			return
		}
		if text != "" {
			time.Sleep(leastPause)
		}
	}
}

// draw is what makes a frame of what is on the screen. Each line that has changed is put where it belongs.
func (p *painter) draw(frame string, all bool) string {
	var lines []string
	if frame != "" {
		lines = strings.Split(frame, "\n")
	}
	var b strings.Builder
	if all {
		b.WriteString(ansi.EraseEntireScreen)
		p.lines = nil
	}
	for i, l := range lines {
		if i < len(p.lines) && p.lines[i] == l {
			continue
		}
		b.WriteString("\x1b[" + strconv.Itoa(i+1) + ";1H")
		if i < len(p.lines) && p.lines[i] != "" {
			b.WriteString(ansi.EraseLineRight) // terminals disagree on how wide some characters are
		}
		b.WriteString(l)
	}
	if len(lines) < len(p.lines) {
		b.WriteString("\x1b[" + strconv.Itoa(len(lines)+1) + ";1H" + ansi.EraseScreenBelow)
	}
	p.lines = lines
	return b.String()
}

// close gives the terminal back as it was. It may be called more than once.
func (p *painter) close() {
	p.mu.Lock()
	over := p.over
	p.over = true
	p.mu.Unlock()
	if over {
		return
	}
	p.poke()
	select {
	case <-p.done:
	case <-time.After(time.Second): // a terminal that takes nothing any more, or is lent
	}
	p.give()
}

// watch tells the size of the terminal, and each new one, until stop is called.
func (p *painter) watch(tell func(tea.WindowSizeMsg)) (stop func()) {
	if p.terminal == nil {
		return func() {}
	}
	changed, end, ended := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		defer close(ended)
		for {
			if w, h, err := term.GetSize(p.terminal.Fd()); err == nil {
				tell(tea.WindowSizeMsg{Width: w, Height: h})
			}
			select {
			case <-changed:
			case <-end:
				return
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		close(end)
		<-ended
	}
}
