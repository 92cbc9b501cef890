package ui

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// What a run is about.

// askUntil asks how far a run is to go.
func (m *model) askUntil() tea.Cmd {
	stages := make([]string, len(engine.Stages))
	for i, s := range engine.Stages {
		stages[i] = string(s)
	}
	m.input = &input{prompt: "run up to (" + strings.Join(stages, ", ") + ")", then: func(text string) tea.Cmd {
		text = strings.TrimSpace(text)
		i := slices.Index(stages, text)
		switch {
		case text == "":
			return nil
		case i < 0:
			m.say(bad, "“"+text+"” is no stage: write one of "+strings.Join(stages, ", "))
			return nil
		case engine.Stages[i] == engine.Publish:
			return m.askBuild()
		}
		sel, names := m.meant()
		sel.Until = engine.Stages[i]
		return m.propose(sel, names, func() *dialog {
			return &dialog{title: "Run " + plural(len(names), "target") + " up to " + text + "?", text: "Nothing is published. What is finished is kept: a later run goes on from there.",
				batch: m.batch(sel), doing: "run", leaving: "back", yes: func() tea.Cmd { return m.startRun(sel, names) }}
		})
	}}
	return nil
}

// One target of a run.

func (m *model) whyNotCancelTarget() string {
	if why := m.whyNotCancel(); why != "" {
		return why
	}
	if why := m.whyNoPanes(); why != "" {
		return why
	}
	if p := m.board.panes[m.board.focus]; p.state != running && p.state != waiting {
		return p.target + " has ended"
	}
	return ""
}

func (m *model) askCancelTarget() tea.Cmd {
	p := m.board.panes[m.board.focus]
	m.dialog = &dialog{title: "Cancel " + p.target + "?", text: "The others go on. Finished stages and downloads are kept: A goes on from there once the run has ended. Nothing is half-published.",
		doing: "cancel it", leaving: "let it go on", running: true, opened: m.clock, yes: func() tea.Cmd {
			if m.engine.Cancel(p.target, errors.New("cancelled in the console")) {
				m.say(aside, "cancelling "+p.target+": waiting for its programs to end")
			} else {
				m.say(aside, p.target+" is not being worked on")
			}
			return nil
		}}
	return nil
}

// failures are the targets of the last run that failed.
func (m *model) failures() (names []string) {
	if m.board == nil {
		return nil
	}
	for _, p := range m.board.panes {
		if p.state == failed {
			names = append(names, p.target)
		}
	}
	return names
}

func (m *model) whyNotRetry() string {
	switch {
	case m.replay != nil:
		return m.whyRecorded()
	case m.board == nil:
		return "nothing has run yet in this console"
	case m.working():
		return "the run is under way: wait for its end"
	case m.planning():
		return "a plan is being made: wait for it, or esc on its screen"
	case len(m.failures()) == 0:
		return "nothing has failed in the last run"
	}
	return ""
}

// askRetry asks whether to run what failed again.
func (m *model) askRetry() tea.Cmd {
	names := m.failures()
	var lines []string
	for _, name := range names {
		line, p, stage := name, m.board.byTarget[name], ""
		if p.current >= 0 {
			stage = p.stages[p.current].name
			line += " · " + stage
		}
		if len(p.fault) > 0 {
			line += " · " + strings.TrimPrefix(p.fault[0], stage+": ")
		}
		lines = append(lines, line)
	}
	sel := engine.Selection{Only: names, Until: m.board.sel.Until, Force: m.board.sel.Force}
	where := clean(m.engine.Destination())
	m.dialog = &dialog{title: "Run " + plural(len(names), "failed target") + " again?", targets: lines, batch: m.batch(sel), doing: "run", leaving: "back", opened: m.clock,
		text: "What was finished is kept: each goes on from the stage that failed, and is published to " + where + " at the end.",
		yes:  func() tea.Cmd { return m.startRun(sel, names) }}
	if !strings.HasPrefix(where, "dir:") {
		m.dialog.word = "publish"
		m.dialog.text += " Others can pull it from there at once."
	}
	return nil
}

// resumedMsg says that the console is back from the shell, or that it cannot have the terminal again.
type resumedMsg struct{ err error }

func (m *model) resumed(msg resumedMsg) tea.Cmd {
	if msg.err != nil {
		return m.stop(fmt.Errorf("the terminal cannot be used: %w", msg.err))
	}
	return nil
}
