// Package quiet keeps the terminal libraries from asking the terminal for its background while the program starts: a
// terminal that does not answer would hold up even --version for seconds, and the question would stand in its output.
// The console's colours are the terminal's own sixteen, which need no answer.
//
// Bubbletea asks in an init function. This package has to be initialised before, and it is: Go initialises packages that
// are ready in the order of their import paths, and this module's path sorts before bubbletea's (upper case comes first).
// A test holds it to that.
package quiet

import "github.com/charmbracelet/lipgloss"

func init() { lipgloss.SetHasDarkBackground(true) }
