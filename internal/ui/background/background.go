// Package background tells lipgloss what the terminal's background is before bubbletea's init asks the terminal: that
// question writes an escape sequence to standard output and waits up to five seconds for an answer, even when a program
// that merely links bubbletea prints its version. The console uses the terminal's own sixteen colours, which are
// readable on either background, so nothing is lost by not asking.
//
// Go initialises packages that are ready in the order of their import paths. This one has to be initialised before
// github.com/charmbracelet/bubbletea, with which it shares the dependency lipgloss: its path has to sort before it
// ("github.com/ContainerCraft/…" does: upper case comes first). A test of package ui watches over that on a
// pseudo-terminal that never answers.
package background

import "github.com/charmbracelet/lipgloss"

func init() { lipgloss.SetHasDarkBackground(true) }
