package ui

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// What logs need of the disk is asked for here, beside the console, and comes back as messages.

type (
	readMsg struct { // lines were read back
		view  *logView
		lines []event.TranscriptLine
	}
	siftedMsg struct { // a part of a log was searched
		view  *logView
		sift  *sift
		found []int
		next  int
		err   error
	}
	toldMsg struct { // something was done that is to be said
		tone tone
		text string
	}
	savedMsg struct { // a log was saved, or not
		path  string
		tone  tone
		text  string
		again func() tea.Cmd // not nil: there is such a file, and this replaces it
	}
)

// logWork is what the logs lack, as commands; nil if nothing.
func (m *model) logWork() tea.Cmd {
	if m.board == nil || m.scope()&(onRun|onLog) == 0 {
		return nil
	}
	var cmds []tea.Cmd
	for _, p := range m.board.panes {
		cmds = p.log.work(cmds)
	}
	return tea.Batch(cmds...)
}

func (v *logView) work(cmds []tea.Cmd) []tea.Cmd {
	b := v.buf
	if b.disk == nil {
		return cmds
	}
	if len(v.want) > 0 && !v.reading {
		rows := make([]int, len(v.want))
		for i, n := range v.want {
			rows[i] = b.row(n)
		}
		v.want, v.reading = nil, true
		disk := b.disk
		cmds = append(cmds, func() tea.Msg { return readMsg{v, disk.Read(rows)} })
	}
	for _, s := range []*sift{v.filter, v.search} {
		if s == nil || s.busy || !s.begun || s.upto >= b.base {
			continue
		}
		s.busy = true
		disk, row, what := b.disk, b.row(s.upto), s.Sift
		cmds = append(cmds, func() tea.Msg {
			found, next, err := disk.Search(what, row, 0)
			return siftedMsg{v, s, found, next, err}
		})
	}
	return cmds
}

// logMessage takes in what logWork asked for. It reports whether anything has changed that is shown.
func (m *model) logMessage(msg tea.Msg) bool {
	switch msg := msg.(type) {
	case readMsg:
		msg.view.reading = false
		msg.view.buf.readBack(msg.lines)
	case siftedMsg:
		s, v := msg.sift, msg.view
		s.busy = false
		if s != v.filter && s != v.search {
			return false
		}
		if msg.err != nil {
			s.err = msg.err
		}
		s.take(v.buf, msg.found, msg.next)
		told := v.told()
		v.grow()
		if v.search == s && m.log() == v && m.noteLog == v && m.note != "" && told != m.note {
			m.tellFound(v)
		}
	}
	return true
}

// tellFound says what a search has come to, until the next key.
func (m *model) tellFound(v *logView) {
	m.note, m.noteTone, m.noteLog = v.told(), aside, v
	if v.search == nil || v.seek == 0 && v.hit < 0 {
		m.noteTone = bad
	}
}

// Searching and filtering.

func (m *model) askSearch() tea.Cmd {
	m.input = &input{prompt: "search (after another /: an expression)", then: func(text string) tea.Cmd {
		v := m.log()
		stage, filter := v.only()
		if text == "" {
			v.sifted(stage, filter, nil)
			return nil
		}
		q, err := event.NewQuery(text)
		if err != nil {
			m.refuse(err)
			return nil
		}
		v.sifted(stage, filter, q)
		m.find(1)
		return nil
	}}
	return nil
}

func (m *model) askOnly() tea.Cmd {
	v := m.log()
	text := ""
	if _, words := v.only(); words != nil {
		text = words.String()
	}
	m.input = &input{prompt: "show only lines with", text: text, then: func(text string) tea.Cmd {
		var q *event.Query
		if text != "" {
			var err error
			if q, err = event.NewQuery(text); err != nil {
				m.refuse(err)
				return nil
			}
		}
		stage, _ := v.only()
		v.sifted(stage, q, v.query())
		return nil
	}}
	return nil
}

// refuse says why something cannot be done, and what to do.
func (m *model) refuse(err error) {
	text := err.Error()
	var remedied *event.Remedied
	if errors.As(err, &remedied) {
		text += ": " + remedied.Remedy
	}
	m.say(bad, text)
}

func (m *model) whyNoQuery() string {
	if m.log().search == nil {
		return "nothing was searched for yet: / searches"
	}
	return ""
}

func (m *model) find(step int) {
	m.log().find(step)
	m.tellFound(m.log())
}

func (m *model) whyNoLines() string {
	if m.log().buf.end() == 0 {
		return "there are no lines yet"
	}
	return ""
}

// toError goes to the first line that looks like an error; again: to the next one.
func (m *model) toError() tea.Cmd {
	v := m.log()
	if q := v.query(); q == nil || q.String() != event.Errors().String() {
		stage, filter := v.only()
		v.sifted(stage, filter, event.Errors())
		v.top, v.row, v.free = v.buf.first(), 0, true
	}
	m.find(1)
	return nil
}

func (m *model) whyOneStage() string {
	if len(m.log().buf.stages) < 2 {
		return "no stage has said anything yet"
	}
	return ""
}

// turnStage shows the lines of the next stage only, and of all after the last one.
func (m *model) turnStage(delta int) {
	v := m.log()
	stage, filter := v.only()
	i := mod(slices.Index(v.buf.stages, stage)+delta, len(v.buf.stages))
	v.sifted(v.buf.stages[i], filter, v.query())
}

// clear takes a step back from what a log is bound to: the search, then the filters. It reports whether there was one.
func (v *logView) clear() bool {
	stage, filter := v.only()
	switch {
	case v.search != nil:
		v.sifted(stage, filter, nil)
	case v.filter != nil:
		v.sifted("", nil, nil)
	default:
		return false
	}
	return true
}

// Saving and copying.

// text is the lines of a log as they are at this moment, for somebody who reads them beside the console: those that are
// shown (only those that the window shows), or all. How many there are comes with them.
func (v *logView) text(all, window bool) (int, iter.Seq2[string, error]) {
	b := v.buf
	var numbers []uint32
	first, end := b.first(), b.end()
	filtered := v.filter != nil && !all
	if filtered {
		numbers = v.filter.list[v.filter.ord(first):]
		numbers = numbers[:len(numbers):len(numbers)]
	}
	n := end - first
	if filtered {
		n = len(numbers)
	}
	from, to := 0, n
	if window {
		from = v.settle()
		rows := -v.row
		for to = from; to < n && rows < v.h; to++ {
			rows += v.rows(v.nth(to))
		}
	}
	at := func(i int) int {
		if filtered {
			return int(numbers[i])
		}
		return first + i
	}
	// What is in memory is taken along; the rest is read from the transcript, which others may use at the same time.
	kept := map[int]logLine{}
	for i := to - 1; i >= from; i-- {
		k := at(i)
		if k < b.base {
			break
		}
		kept[k] = *b.at(k)
	}
	marks, start, disk, stamps := slices.Clone(b.marks), b.start, b.disk, v.stamps
	format := func(l logLine) string {
		if stamps {
			return time.UnixMilli(l.at).Format("2006-01-02T15:04:05.000Z07:00 ") + l.text
		}
		return l.text
	}
	return to - from, func(yield func(string, error) bool) {
		snap := logBuffer{marks: marks, start: start}
		for i := from; i < to; {
			// The next lines up to one that is not on disk are read together.
			k := at(i)
			if l, ok := kept[k]; ok {
				if !yield(format(l), nil) {
					return
				}
				i++
				continue
			}
			if l := snap.markAt(k); l != nil {
				if !yield(format(*l), nil) {
					return
				}
				i++
				continue
			}
			var rows []int
			for j := i; j < to && len(rows) < 4096; j++ {
				k := at(j)
				if _, ok := kept[k]; ok || snap.markAt(k) != nil {
					break
				}
				rows = append(rows, snap.row(k))
			}
			for _, l := range disk.Read(rows) {
				if l.Err != nil {
					yield("", event.WithRemedy(fmt.Errorf("line %s of the log cannot be read back: %w", number(snap.number(l.N)+1), l.Err), "the raw logs of the stages hold what there is"))
					return
				}
				if !yield(format(logLine{at: l.Time.UnixMilli(), text: clean(l.Text)}), nil) {
					return
				}
				i++
			}
		}
	}
}

func (m *model) whyNotShown() string {
	if why := m.whyNoLines(); why != "" {
		return why
	}
	v := m.log()
	v.grow()
	switch {
	case v.filter != nil && !v.filter.done(v.buf):
		return "the filter is still at work: a moment"
	case v.total() == 0:
		return "the filters show no lines"
	}
	return ""
}

// askSave asks for the file that a log is saved to.
func (m *model) askSave(all bool) tea.Cmd {
	v := m.log()
	name := "messages"
	if v.buf.target != "" {
		name = strings.NewReplacer(":", "-", "/", "-").Replace(clean(v.buf.target))
	}
	prompt := "save what is shown to"
	if all {
		prompt = "save the whole log to"
	}
	m.input = &input{prompt: prompt, text: name + ".log", then: func(path string) tea.Cmd { return m.save(v, path, all, false) }}
	return nil
}

// save saves a log beside the console. A file that is there is asked for.
func (m *model) save(v *logView, path string, all, overwrite bool) tea.Cmd {
	n, lines := v.text(all, false)
	missing := ""
	if first := v.buf.first(); first > 0 {
		missing = " · " + number(first) + " older ones are not kept here"
	}
	return func() tea.Msg {
		saved, err := m.engine.Save(path, overwrite, lines)
		switch {
		case errors.Is(err, fs.ErrExist) && !overwrite:
			return savedMsg{path: path, again: func() tea.Cmd { return m.save(v, path, all, true) }}
		case err != nil:
			return savedMsg{tone: bad, text: "not saved: " + err.Error()}
		case saved.Lines != n:
			return savedMsg{tone: bad, text: fmt.Sprintf("only %s of %s were saved: %s", number(saved.Lines), plural(n, "line"), saved.Path)}
		}
		return savedMsg{tone: good, text: fmt.Sprintf("saved %s (%s) to %s%s", plural(saved.Lines, "line"), size(float64(saved.Bytes)), saved.Path, missing)}
	}
}

// saved takes in how saving ended.
func (m *model) saved(msg savedMsg) {
	if msg.again == nil {
		m.say(msg.tone, msg.text)
		return
	}
	if m.stopping {
		return
	}
	m.dialog = &dialog{title: "Overwrite " + clean(msg.path) + "?", text: "There is such a file. What is in it now is lost.", doing: "overwrite", leaving: "leave it as it is", opened: m.clock, yes: msg.again}
}

// Bounds of what is copied: terminals take about 100,000 characters of base64 at once, and a desktop is no archive.
const (
	terminalMost = 74_000
	desktopMost  = 16 << 20
)

// copyLines copies lines of a log: to the desktop's clipboard, where there is one, and to the terminal's. It says where
// they went and how many.
func (m *model) copyLines(window bool) tea.Cmd {
	_, lines := m.log().text(false, window)
	engine, toTerminal := m.engine, m.copy
	return func() tea.Msg {
		var list []string
		total, bytes := 0, 0
		for l, err := range lines {
			if err != nil {
				return toldMsg{bad, "not copied: " + err.Error()}
			}
			total++
			list = append(list, l)
			for bytes += len(l) + 1; bytes > desktopMost; list = list[1:] {
				bytes -= len(list[0]) + 1
			}
		}
		newest, size0 := 0, 0
		for i := len(list) - 1; i >= 0 && size0+len(list[i])+1 <= terminalMost; i-- {
			size0 += len(list[i]) + 1
			newest++
		}
		how := func(n, bytes int) string {
			if n < total {
				return fmt.Sprintf("the newest %s of %s (%s)", number(n), plural(total, "line"), size(float64(bytes)))
			}
			return fmt.Sprintf("%s (%s)", plural(n, "line"), size(float64(bytes)))
		}
		program, err := engine.Clipboard(context.Background(), strings.Join(list, "\n")+"\n")
		var parts []string
		if program != "" && err == nil {
			parts = append(parts, "copied "+how(len(list), bytes)+" with "+program)
		}
		osc := toTerminal(strings.Join(list[len(list)-newest:], "\n"))
		if osc == nil {
			parts = append(parts, "sent "+how(newest, size0)+" to the terminal's clipboard (OSC 52)")
		}
		if err != nil {
			parts = append(parts, "not copied with "+program+": "+err.Error())
		}
		if osc != nil {
			parts = append(parts, "the terminal did not take it: "+osc.Error())
		}
		t := good
		if err != nil || osc != nil {
			t = bad
		}
		return toldMsg{t, strings.Join(parts, " · ")}
	}
}
