package ui

import (
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
)

// deaf is how long a dialog ignores keys: those that were meant for what was there before.
const deaf = 200 * time.Millisecond

// dialog asks before something happens.
type dialog struct {
	title string
	lines []string
	word  string // what has to be typed; "": y or enter is enough
	typed string
	since time.Time
	yes   func(*model) tea.Cmd
}

func (d *dialog) key(m *model, k tea.KeyMsg) tea.Cmd {
	if m.now().Sub(d.since) < deaf {
		return nil
	}
	switch k.Type {
	case tea.KeyEsc, tea.KeyCtrlC:
		m.dialog = nil
		return nil
	case tea.KeyEnter:
		if d.word == "" || d.typed == d.word {
			m.dialog = nil
			return d.yes(m)
		}
		return nil
	case tea.KeyBackspace:
		if d.typed != "" {
			d.typed = d.typed[:len(d.typed)-1]
		}
		return nil
	}
	if d.word != "" {
		for _, r := range k.Runes {
			if len(d.typed) < len(d.word) && r < 0x80 {
				d.typed += string(r)
			}
		}
		return nil
	}
	switch k.String() {
	case "y":
		m.dialog = nil
		return d.yes(m)
	case "n", "q":
		m.dialog = nil
	}
	return nil
}

// view draws the dialog in the middle of exactly height lines.
func (d *dialog) view(s styles, now time.Time, width, height int) []string {
	inner := max(1, min(width-4, 100))
	var rows []string
	rows = append(rows, s.bold.Render(cut(d.title, inner)), "")
	for _, l := range d.lines {
		rows = append(rows, wrap(l, inner)...)
	}
	rows = append(rows, "")
	if d.word != "" {
		rows = append(rows, cut("type "+d.word+" and enter: "+d.typed+"▏", inner), s.dim.Render(cut("esc: no", inner)))
	} else {
		rows = append(rows, s.key.Render("y")+" yes   "+s.key.Render("n")+" no")
	}
	box := s.active.Border(lipgloss.RoundedBorder()).UnsetForeground().Padding(0, 1).Render(strings.Join(rows, "\n"))
	lines := strings.Split(box, "\n")
	if len(lines) > height { // no room for the frame
		lines = rows
		if len(lines) > height { // the question and the answer matter most
			lines = append(rows[:1:1], rows[min(len(rows), max(1, len(rows)-height+1)):]...)
		}
	}
	top := max(0, (height-len(lines))/2)
	out := make([]string, 0, height)
	for range top {
		out = append(out, "")
	}
	for _, l := range lines {
		out = append(out, strings.Repeat(" ", max(0, (width-lipgloss.Width(box))/2))+l)
	}
	for len(out) < height {
		out = append(out, "")
	}
	return out[:height]
}

// pad fills a styled text to so many columns.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-lipgloss.Width(s)))
}
