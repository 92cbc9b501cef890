package ui

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"
	"github.com/muesli/termenv"
)

// Appearance says how the console looks.
type Appearance struct {
	Theme   string // one of Themes; "" means the first
	NoColor bool   // no colours, whatever the theme is
	ASCII   bool   // nothing but ASCII on the screen
	Colours int    // how many colours the terminal has: 16, 256, 1 << 24; 0 means 16
}

// theme is a set of colours: numbers of the terminal's palette, or #RRGGBB.
type theme struct {
	name                            string
	accent, good, active, warn, bad string // "" for none
}

// themes in the order in which they follow each other. dark uses the terminal's own sixteen colours, which its owner has
// made readable; light those of the larger palette that are dark enough on white; colour-blind the palette of Okabe and
// Ito (jfly.uni-koeln.de/color), in which no two are told apart by red and green alone.
var themes = []theme{
	{"dark", "6", "2", "6", "3", "1"},
	{"light", "25", "28", "25", "130", "124"},
	{"colour-blind", "#CC79A7", "#56B4E9", "#009E73", "#E69F00", "#D55E00"},
	{name: "mono"},
}

// Themes are the names of the themes.
func Themes() (names []string) {
	for _, t := range themes {
		names = append(names, t.name)
	}
	return names
}

// AppearanceOf is how the console looks on a terminal: with the theme of this name ("" for the first), and what the
// environment says (NO_COLOR, TERM, COLORTERM, LC_ALL, LC_CTYPE, LANG). The error lists the themes.
func AppearanceOf(theme string, getenv func(string) string) (Appearance, error) {
	l := Appearance{Theme: strings.ToLower(strings.TrimSpace(theme)), NoColor: getenv("NO_COLOR") != "", Colours: 16}
	if l.Theme == "colourblind" || l.Theme == "color-blind" || l.Theme == "colorblind" {
		l.Theme = "colour-blind"
	}
	if l.Theme == "" {
		l.Theme = themes[0].name
	}
	if !slices.Contains(Themes(), l.Theme) {
		return l, fmt.Errorf("there is no theme %q: write one of %s", theme, strings.Join(Themes(), ", "))
	}
	term := getenv("TERM")
	switch c := strings.ToLower(getenv("COLORTERM")); {
	case c == "truecolor" || c == "24bit" || strings.HasSuffix(term, "-direct"):
		l.Colours = 1 << 24
	case strings.Contains(term, "256color"):
		l.Colours = 256
	}
	// The console of the kernel has a font of its own, without most of the symbols.
	l.ASCII = term == "linux"
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} { // the first that is set counts: POSIX, 8.2
		if v := strings.ToUpper(getenv(name)); v != "" {
			l.ASCII = l.ASCII || !strings.Contains(v, "UTF-8") && !strings.Contains(v, "UTF8")
			break
		}
	}
	return l, nil
}

// profile is what termenv calls a terminal with so many colours.
func (l Appearance) profile() termenv.Profile {
	switch {
	case l.Colours >= 1<<24:
		return termenv.TrueColor
	case l.Colours >= 256:
		return termenv.ANSI256
	}
	return termenv.ANSI
}

// theme finds the theme of a look; without colours, mono.
func (l Appearance) theme() theme {
	i := slices.IndexFunc(themes, func(t theme) bool { return t.name == l.Theme })
	switch {
	case l.NoColor:
		return themes[len(themes)-1]
	case i < 0:
		return themes[0]
	}
	return themes[i]
}

// dress gives the console another appearance.
func (m *model) dress(l Appearance) {
	m.dressed = l
	m.st = stylesOf(l)
}

func (m *model) whyNoColour() string {
	if m.dressed.NoColor {
		return "NO_COLOR is set"
	}
	return ""
}

// nextTheme goes to the next theme.
func (m *model) nextTheme() tea.Cmd {
	names := Themes()
	return m.wear(names[mod(slices.Index(names, m.dressed.theme().name)+1, len(names))])
}

func (m *model) wear(name string) tea.Cmd {
	l := m.dressed
	l.Theme = name
	m.dress(l)
	m.note, m.noteTone = "theme "+name+": --theme "+name+" or KMI_THEME keeps it", aside
	return nil
}

// themeActions put each theme on.
func themeActions() (list []action) {
	for _, t := range themes {
		list = append(list, action{"theme " + t.name, nil, "", "colours: " + t.name, anything, false, (*model).whyNoColour, func(m *model) tea.Cmd { return m.wear(t.name) }})
	}
	return list
}

// inASCII is how each symbol of the console is written with ASCII, in as many cells.
var inASCII = map[rune]string{
	'○': "o", '◌': ":", '●': "*", '✓': "+", '–': "-", '✗': "x", '·': ".", '↑': "^", '↓': "v", '←': "<", '→': ">",
	'▌': ">", '▸': ">", '▾': "v", '…': "~", '›': ">", '─': "-", '│': "|", '╭': "+", '╮': "+", '╰': "+", '╯': "+", '━': "=", '┃': "|",
	'┌': "+", '┐': "+", '└': "+", '┘': "+", '├': "+", '┤': "+", '┬': "+", '┴': "+", '┼': "+", '█': "#", '▒': "%", '░': ".", '×': "x",
	'“': "\"", '”': "\"", '‘': "'", '’': "'", '—': "-", '•': "*", '▶': ">", '⏸': "=", '≥': ">", '≤': "<", '⚠': "!", '✎': "*",
}

// ascii writes a frame with ASCII: the console's symbols as above, whatever else there is as question marks, so that no
// column moves.
func ascii(frame string) string {
	i := strings.IndexFunc(frame, func(r rune) bool { return r > 0x7e })
	if i < 0 {
		return frame
	}
	var b strings.Builder
	b.Grow(len(frame))
	b.WriteString(frame[:i])
	for rest := frame[i:]; rest != ""; {
		if rest[0] < 0x80 {
			b.WriteByte(rest[0])
			rest = rest[1:]
			continue
		}
		r, _ := utf8.DecodeRuneInString(rest)
		cluster, w := ansi.FirstGraphemeCluster(rest, ansi.GraphemeWidth)
		if s, ok := inASCII[r]; ok && w == 1 {
			b.WriteString(s)
		} else {
			b.WriteString(strings.Repeat("?", w))
		}
		rest = rest[max(1, len(cluster)):]
	}
	return b.String()
}
