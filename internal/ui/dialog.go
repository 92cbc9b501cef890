package ui

import (
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"
)

// deaf is how long a new question ignores keys: what was typed before it was seen is no answer to it.
const deaf = 200 * time.Millisecond

// dialog is a question in front of the screen.
type dialog struct {
	title   string
	text    string   // what happens
	targets []string // to what
	batch   string   // the same on the command line
	word    string   // has to be typed; "" wants yes or no
	doing   string   // what yes does
	leaving string   // what no does
	typed   string
	running bool // it is about the run that is under way
	opened  time.Time
	yes     func() tea.Cmd
}

// dialogKey is a key while a question is open.
func (m *model) dialogKey(msg tea.KeyMsg) tea.Cmd {
	d := m.dialog
	if m.clock.Sub(d.opened) < deaf {
		return nil
	}
	if msg.Paste {
		return nil // an answer has to be typed
	}
	key := msg.String()
	if d.word == "" || key == "enter" || key == "esc" || key == "ctrl+c" {
		if a := m.bound(key, inDialog); a != nil {
			return m.run(a)
		}
		return nil
	}
	in := input{text: d.typed}
	switch {
	case key == "backspace":
		in.delete()
	case key == "ctrl+u", key == "ctrl+w":
		in.text = ""
	case msg.Type == tea.KeyRunes && len(in.text) < 20:
		in.add(string(msg.Runes))
	}
	d.typed = in.text
	return nil
}

func (m *model) yes() tea.Cmd {
	d := m.dialog
	if d.word != "" && d.typed != d.word {
		return nil // the question says what it waits for
	}
	m.dialog = nil
	return d.yes()
}

func (m *model) no() tea.Cmd {
	m.dialog = nil
	return nil
}

func (m *model) interruptDialog() tea.Cmd {
	if m.dialog.running {
		return m.yes()
	}
	return m.no()
}

// overlay draws the open question, or that the console is ending, over the screen's lines.
func (m *model) overlay(lines []string, w, h int) []string {
	var box []string
	inner := min(w-6, 76)
	framed := w >= 50 && h >= 14
	if !framed {
		inner = w - 2
	}
	room := h - 2
	if framed {
		room = h - 6
	}
	switch {
	case m.stopping:
		box = m.stoppingLines(inner)
	case m.dialog != nil:
		box = m.dialogLines(inner, room)
	default:
		return lines
	}
	st := m.st
	if framed {
		bar := st.accent.of("│")
		out := []string{st.accent.of("╭" + strings.Repeat("─", inner+2) + "╮")}
		for _, l := range box {
			out = append(out, bar+" "+pad(l, inner)+" "+bar)
		}
		box = append(out, st.accent.of("╰"+strings.Repeat("─", inner+2)+"╯"))
		inner += 4
	} else {
		for i := range box {
			box[i] = " " + pad(box[i], inner) + " "
		}
		inner += 2
	}
	x, y := max(0, (w-inner)/2), max(0, (h-len(box))/2)
	for i := range lines {
		text := st.dim.of(pad(ansi.Strip(lines[i]), w))
		if i >= y && i-y < len(box) {
			plain := pad(ansi.Strip(lines[i]), w)
			if text = st.dim.of(ansi.Cut(plain, 0, x)) + box[i-y] + st.dim.of(ansi.Cut(plain, x+inner, w)); x < 4 {
				text = spaces(x) + box[i-y] // what would be left of the line behind says nothing
			}
		}
		lines[i] = text
	}
	return lines
}

func (m *model) stoppingLines(w int) []string {
	out := []string{m.st.title.of(fit("Stopping …", w)), ""}
	text := "Waiting for the programs of the run to end; the console closes then."
	if m.board == nil || m.board.over() {
		text = "Waiting for the plan to end; the console closes then."
	}
	return append(out, wrap(text, w)...)
}

// dialogLines is the question in at most h lines. The answer's line is always there; the list of targets gives way
// first.
func (m *model) dialogLines(w, h int) []string {
	st, d := m.st, m.dialog
	if w <= 0 || h <= 0 {
		return nil
	}
	var title []string
	for _, l := range wrap(d.title, w) {
		title = append(title, st.title.of(l))
	}
	var answer []string
	if d.word != "" {
		cursor := st.match.of(" ")
		line := st.accent.of("type "+d.word+" and press enter: ") + d.typed + cursor
		if width(line) > w {
			line = st.accent.of("type "+d.word+", enter: ") + d.typed + cursor
		}
		switch {
		case d.typed == d.word:
			answer = []string{line, fit(st.good.of("enter does it")+m.mark(m.clickAnswer(m.no), st.dim.of(" · esc goes back")), w)}
		case !strings.HasPrefix(d.word, d.typed):
			answer = []string{line, fit(st.bad.of("not “"+d.word+"”")+m.mark(m.clickAnswer(m.no), st.dim.of(" · esc goes back")), w)}
		default:
			answer = []string{line, m.mark(m.clickAnswer(m.no), st.dim.of(fit("esc goes back", w)))}
		}
	} else {
		yes := m.mark(m.clickAnswer(m.yes), st.accent.of("y")+" or "+st.accent.of("enter")+": "+d.doing)
		answer = []string{fit(yes+"   "+m.mark(m.clickAnswer(m.no), st.accent.of("esc")+": "+d.leaving), w)}
	}
	var batch []string
	if d.batch != "" {
		if h >= 12 {
			batch = append(batch, st.dim.of(fit("The same without the console:", w)))
		}
		for _, l := range wrap(d.batch, w-2) {
			batch = append(batch, "  "+l)
		}
	}
	text := wrap(d.text, w)
	var targets []string
	for _, t := range d.targets {
		targets = append(targets, fit("  "+t, w))
	}
	// What is left for the middle, with an empty line between the parts if there is room.
	gap := 1
	if h < 12 {
		gap = 0
	}
	left := h - len(title) - len(answer) - gap
	part := func(lines []string, least int, more string) []string {
		n := len(lines)
		if n == 0 || left <= gap {
			return nil
		}
		if n+gap > left {
			n = max(min(least, left-gap), left-gap)
			rest := len(lines) - n + 1
			if more != "" {
				lines = append(lines[:max(0, n-1):max(0, n-1)], fit("  … and "+plural(rest, more)+" more", w))
			} else {
				lines = cut(lines, n)
			}
		}
		left -= len(lines) + gap
		return lines
	}
	// Whoever answers has to know what happens and to what; the targets get what the rest leaves.
	reserve := min(len(targets), 2) + gap
	left -= reserve
	line := min(len(batch), 1)
	left -= line
	text = part(text, 1, "")
	left += line
	batch = part(batch, 2, "")
	left += reserve
	targets = part(targets, 1, "target")
	var out []string
	for i, p := range [][]string{title, text, targets, batch, answer} {
		if len(p) == 0 {
			continue
		}
		if i > 0 && gap > 0 {
			out = append(out, "")
		}
		out = append(out, p...)
	}
	if len(out) > h {
		out = append(out[:max(0, h-len(answer))], answer[:min(h, len(answer))]...)
	}
	return out
}
