package ui

import (
	"strings"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/x/ansi"
	"github.com/mattn/go-runewidth"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// styles is every look the console has. Colours are the terminal's own sixteen; each state also has a symbol and a word.
type styles struct {
	title, dim, bold, cursor, good, bad, busy, info, key, match, frame, active lipgloss.Style
}

func newStyles(r *lipgloss.Renderer) styles {
	s := func() lipgloss.Style { return r.NewStyle() }
	colour := func(c string) lipgloss.Style { return s().Foreground(lipgloss.Color(c)) }
	return styles{title: s().Bold(true), dim: s().Faint(true), bold: s().Bold(true), cursor: s().Reverse(true), good: colour("2"), bad: colour("1").Bold(true),
		busy: colour("3"), info: colour("6"), key: colour("6").Bold(true), match: s().Reverse(true), frame: s().Faint(true), active: colour("6")}
}

// state is how a stage or a target stands: a symbol and a word.
func (s styles) state(k event.Kind) (symbol, word string, style lipgloss.Style) {
	switch k {
	case event.Finished:
		return "✓", "done", s.good
	case event.Skipped:
		return "-", "nothing to do", s.info
	case event.Failed:
		return "✗", "FAILED", s.bad
	case event.Started, event.Progress, event.Log:
		return "▶", "at work", s.busy
	}
	return "·", "waiting", s.dim
}

// fit cuts or fills a plain text to exactly so many columns.
func fit(s string, width int) string {
	if width <= 0 {
		return ""
	}
	if w := runewidth.StringWidth(s); w > width {
		s = runewidth.Truncate(s, width, "…")
	}
	return s + strings.Repeat(" ", max(0, width-runewidth.StringWidth(s)))
}

// cut shortens a plain text to at most so many columns.
func cut(s string, width int) string {
	if width <= 0 {
		return ""
	}
	return runewidth.Truncate(s, width, "…")
}

// wrap breaks a plain text into lines of at most so many columns, between words where it can.
func wrap(s string, width int) []string {
	if width <= 0 {
		return nil
	}
	return strings.Split(ansi.Wrap(s, width, " ,"), "\n")
}
