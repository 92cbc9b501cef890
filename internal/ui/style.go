package ui

import (
	"io"
	"strings"

	"github.com/charmbracelet/lipgloss"
)

// paint is a style, ready to be put around text.
type paint struct{ on, off string }

func (p paint) of(s string) string {
	if s == "" || p.on == "" {
		return s
	}
	return p.on + s + p.off
}

// styles is the one table of how things look.
type styles struct {
	colour bool  // there are some
	title  paint // the program's name, names of panes
	text   paint
	strong paint // what the cursor is on
	dim    paint // headings, what is not important now
	accent paint // the cursor, what has the focus, keys
	good   paint
	active paint
	warn   paint
	bad    paint
	match  paint // what a search found
}

// newStyles is the table of the first theme, or without colours.
func newStyles(colour bool) *styles { return stylesOf(Appearance{NoColor: !colour}) }

// stylesOf makes the table: the theme's colours, and attributes. Nothing is said by colour alone.
func stylesOf(l Appearance) *styles {
	r := lipgloss.NewRenderer(io.Discard)
	r.SetColorProfile(l.profile())
	r.SetHasDarkBackground(true) // known, so that nobody asks
	style := func(colour string) lipgloss.Style {
		s := r.NewStyle()
		if colour != "" {
			s = s.Foreground(lipgloss.Color(colour))
		}
		return s
	}
	t := l.theme()
	return &styles{
		colour: t.accent != "",
		title:  painted(style("").Bold(true)),
		text:   painted(style("")),
		strong: painted(style("").Bold(true)),
		dim:    painted(style("").Faint(true)),
		accent: painted(style(t.accent).Bold(true)),
		good:   painted(style(t.good)),
		active: painted(style(t.active)),
		warn:   painted(style(t.warn)),
		bad:    painted(style(t.bad).Bold(true)),
		match:  painted(style("").Reverse(true)),
	}
}

// painted takes a style apart: rendering costs microseconds, and a frame has thousands of cells.
func painted(s lipgloss.Style) paint {
	on, off, _ := strings.Cut(s.Render("x"), "x")
	return paint{on, off}
}

// state is how a target, a stage or a row is doing: always a symbol, a word and a colour together.
type state int

const (
	ready       state = iota // it can be built and was not yet, in this process
	waiting                  // it is in the run, its turn has not come
	running                  // it is being worked on
	done                     // it ended well
	skipped                  // there was nothing to do
	failed                   // it ended badly
	unsupported              // it cannot be built yet
	stale                    // it is published, and upstream has something newer
	unsigned                 // it is published without a good signature
)

var states = [...]struct{ symbol, word string }{
	ready:       {"○", "ready"},
	waiting:     {"◌", "waiting"},
	running:     {"●", "running"},
	done:        {"✓", "done"},
	skipped:     {"–", "nothing to do"},
	failed:      {"✗", "failed"},
	unsupported: {"·", "not supported yet"},
	stale:       {"↑", "stale"},
	unsigned:    {"!", "unsigned"},
}

func (s state) symbol() string { return states[s].symbol }
func (s state) word() string   { return states[s].word }

func (st *styles) state(s state) paint {
	switch s {
	case running:
		return st.active
	case done:
		return st.good
	case failed:
		return st.bad
	case stale:
		return st.warn
	case unsigned:
		return st.bad
	case waiting, skipped, unsupported:
		return st.dim
	}
	return st.text
}

// label is symbol and word in the state's colour, with another word where that says more.
func (st *styles) label(s state, word string) string {
	if word == "" {
		word = s.word()
	}
	return st.state(s).of(s.symbol() + " " + word)
}

// bar is a progress bar of w cells.
func (st *styles) bar(share float64, w int) string {
	if w <= 0 {
		return ""
	}
	full := min(w, max(0, int(share*float64(w)+0.5)))
	return st.active.of(strings.Repeat("━", full)) + st.dim.of(strings.Repeat("─", w-full))
}
