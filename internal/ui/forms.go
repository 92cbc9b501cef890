package ui

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/huh"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// form is a promotion or a Try Me on its way: questions (huh), what the engine made of the answers, and writing it.
type form struct {
	title   string
	flavor  string
	asking  *huh.Form                        // open questions; nil: something is shown
	then    func(*model) tea.Cmd             // when they are answered
	busy    string                           // what is being worked on; "" for nothing
	cancel  context.CancelCauseFunc          // of that
	lines   func(w int, st *styles) []string // what is shown
	why     string                           // why it cannot be written; "" if it can
	write   func(context.Context) error
	written string               // what to say when it was
	word    string               // has to be typed before it is written; "" wants yes or no
	texts   []string             // what can be copied, the most wanted first
	next    func(*model) tea.Cmd // on to the open questions; nil: there are none
	batch   func() string        // the same on the command line

	fits  []func(w, h int) // makes the text of a question fit a page of so many cells
	ask   engine.Ask
	words map[string]*string // answers, by criterion
}

// formMsg is what the engine came to.
type formMsg struct {
	form *form
	then func(*model) tea.Cmd
	err  error
}

func (m *model) whyNotForm() string {
	if m.replay != nil {
		return "a recording is shown: nothing can be changed"
	}
	if _, ok := m.chart.on(); !ok {
		return "there is no row under the cursor"
	}
	return ""
}

// openForm goes to the form's screen.
func (m *model) openForm(f *form) {
	m.form = f
	m.scrolled[formScreen] = list{}
	m.push(formScreen)
}

// questions opens a form of huh's over the screen.
func (f *form) questions(m *model, then func(*model) tea.Cmd, groups ...*huh.Group) tea.Cmd {
	theme := huh.ThemeBase()
	if m.st.colour {
		theme = huh.ThemeBase16()
	}
	f.asking, f.then = huh.NewForm(groups...).WithTheme(theme).WithShowHelp(true).WithShowErrors(true), then
	f.size(m.w, m.h)
	return f.asking.Init()
}

func (f *form) size(w, h int) {
	if f.asking != nil {
		w, h = max(20, min(w-4, 96)), max(5, h-5)
		for _, fit := range f.fits {
			fit(w-2, h-1) // a bar and a space before, the keys below
		}
		f.asking = f.asking.WithWidth(w).WithHeight(h)
	}
}

// formMessage hands a message to the open questions.
func (m *model) formMessage(msg tea.Msg) tea.Cmd {
	f := m.form
	if key, ok := msg.(tea.KeyMsg); ok && key.String() == "esc" {
		if f.asking = nil; f.lines == nil {
			return m.closeForm()
		}
		return nil
	}
	asked, cmd := f.asking.Update(msg)
	if next, ok := asked.(*huh.Form); ok {
		f.asking = next
	}
	switch f.asking.State {
	case huh.StateAborted:
		f.asking = nil
		if f.lines == nil {
			return m.closeForm()
		}
		return nil
	case huh.StateCompleted:
		f.asking = nil
		return f.then(m)
	}
	return cmd
}

func (m *model) closeForm() tea.Cmd {
	if f := m.form; f != nil && f.cancel != nil {
		f.cancel(errors.New("the form was left"))
	}
	m.form = nil
	if i := slices.Index(m.stack, formScreen); i > 0 {
		m.stack = m.stack[:i]
	}
	return nil
}

// work has the engine do something for the form.
func (f *form) work(m *model, busy string, do func(context.Context) (func(*model) tea.Cmd, error)) tea.Cmd {
	f.busy = busy
	wait, cancel := m.start(func(ctx context.Context) tea.Msg {
		then, err := do(ctx)
		return formMsg{f, then, err}
	}, func(err error) tea.Msg { return formMsg{f, nil, err} })
	f.cancel = cancel
	return wait
}

// worked takes in what the engine came to.
func (m *model) worked(msg formMsg) tea.Cmd {
	f := msg.form
	f.busy, f.cancel = "", nil
	if m.form != f {
		return nil // it was left
	}
	if msg.err != nil {
		text := msg.err.Error()
		var r *event.Remedied
		if errors.As(msg.err, &r) {
			text += " — " + r.Remedy
		}
		m.say(bad, text)
		if f.lines == nil {
			return m.closeForm()
		}
		return nil
	}
	return msg.then(m)
}

// startPromotion asks where to.
func (m *model) startPromotion() tea.Cmd {
	l, _ := m.chart.on()
	i := slices.IndexFunc(m.engine.Catalog().Flavors, func(f catalog.Flavor) bool { return clean(f.ID) == l.row.id })
	if i < 0 {
		m.say(bad, "the catalogue has no "+l.row.id)
		return nil
	}
	flavor := &m.engine.Catalog().Flavors[i]
	id, level := flavor.ID, flavor.Level
	f := &form{title: "promotion of " + clean(id), flavor: id, ask: engine.Ask{Flavor: id, Stated: map[string]string{}, Waived: map[string]string{}}, words: map[string]*string{}}
	f.batch = func() string { return m.promoteLine(f.ask) }
	var options []huh.Option[catalog.Level]
	if r := level.Rank(); r+1 < len(catalog.Levels) {
		options = append(options, huh.NewOption("up to "+string(catalog.Levels[r+1]), catalog.Levels[r+1]))
	}
	if r := level.Rank(); r > 0 {
		options = append(options, huh.NewOption("down to "+string(catalog.Levels[r-1]), catalog.Levels[r-1]))
	}
	m.openForm(f)
	return f.questions(m, func(m *model) tea.Cmd { return f.judge(m) },
		huh.NewGroup(huh.NewSelect[catalog.Level]().Title(fmt.Sprintf("%s is %s. Where to?", clean(flavor.Name), level)).Options(options...).Value(&f.ask.To)),
		huh.NewGroup(huh.NewInput().Title("Why?").Description("It is kept with the row.").Value(&f.ask.Reason).Validate(func(s string) error {
			if strings.TrimSpace(s) == "" {
				return errors.New("a step down has a reason")
			}
			return nil
		})).WithHideFunc(func() bool { return f.ask.To.Rank() >= level.Rank() }))
}

// judge has the criteria looked at.
func (f *form) judge(m *model) tea.Cmd {
	ask := f.ask
	return f.work(m, "looking at what "+f.flavor+" proves …", func(ctx context.Context) (func(*model) tea.Cmd, error) {
		p, err := m.engine.Promotion(ctx, ask)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd { f.judged(p); return nil }, nil
	})
}

// judged shows the checklist and the difference.
func (f *form) judged(p *engine.Promotion) {
	f.why, f.next, f.write, f.written = "", nil, p.Write, fmt.Sprintf("%s is %s now: commit distros.toml and README.md", p.Flavor, p.To)
	f.texts, f.word = []string{p.Diff}, string(p.To)
	if err := p.Ready(); err != nil {
		f.why = "not every criterion is passed"
	}
	var open []engine.Criterion
	for _, c := range p.Criteria {
		if c.State == engine.Unproven || c.State == engine.Stated || c.Waivable && c.State != engine.Proven {
			open = append(open, c)
		}
	}
	if len(open) > 0 {
		f.next = func(m *model) tea.Cmd { return f.vouch(m, open) }
	}
	f.lines = func(w int, st *styles) []string {
		var out []string
		for _, c := range p.Criteria {
			symbol, p := map[engine.CriterionState]string{engine.Proven: "✓", engine.Unproven: "?", engine.Against: "✗", engine.Stated: "“", engine.Waived: "–"}[c.State], st.dim
			switch c.State {
			case engine.Proven, engine.Stated:
				p = st.good
			case engine.Against:
				p = st.bad
			case engine.Unproven:
				p = st.warn
			}
			out = append(out, p.of(fit(fmt.Sprintf("%s %-8s", symbol, c.State), 10))+" "+st.strong.of(pad(clean(c.ID), 14)))
			beside := w >= 70 // the words have room there; else they are below
			indent := 4
			if beside {
				indent = 26
			}
			for i, l := range wrap(clean(c.Text), max(10, w-indent)) {
				if i == 0 && beside {
					out[len(out)-1] += " " + l
				} else {
					out = append(out, spaces(indent)+l)
				}
			}
			for _, l := range wrap(clean(c.Evidence), max(10, w-indent-1)) {
				out = append(out, spaces(indent)+st.dim.of(l))
			}
		}
		return append(append(out, ""), diffLines(p.Diff, w, st)...)
	}
}

// diffLines is a unified difference with its colours.
func diffLines(text string, w int, st *styles) (out []string) {
	for _, l := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		l = fit(clean(strings.TrimRight(l, "\r")), w)
		switch {
		case strings.HasPrefix(l, "+"):
			l = st.good.of(l)
		case strings.HasPrefix(l, "-"):
			l = st.bad.of(l)
		case strings.HasPrefix(l, "@@"):
			l = st.accent.of(l)
		}
		out = append(out, l)
	}
	return out
}

// vouch asks for words where nothing can be seen.
func (f *form) vouch(m *model, open []engine.Criterion) tea.Cmd {
	var groups []*huh.Group
	f.fits = nil
	for i, c := range open {
		if f.words[c.ID] == nil {
			f.words[c.ID] = new(string)
		}
		what := "What vouches for it? Empty leaves it open."
		if c.State == engine.Against || c.State == engine.Waived {
			what = "It does not hold. Why may it be waived? Empty leaves it open."
		}
		in := huh.NewInput().CharLimit(400).Value(f.words[c.ID])
		f.fits = append(f.fits, func(w, h int) {
			title, question := fmt.Sprintf("%d of %d · %s", i+1, len(open), clean(c.ID)), wrap(what, w)
			if h >= 12 {
				title += ": " + clean(c.Text)
			}
			// Evidence may be long; the line that is typed into has to be there.
			seen := cut(wrap(clean(c.Evidence), w-2), h-1-len(wrap(title, w))-len(question))
			in.Title(title).Description(strings.Join(append(seen, question...), "\n"))
		})
		groups = append(groups, huh.NewGroup(in))
	}
	return f.questions(m, func(m *model) tea.Cmd {
		f.ask.Stated, f.ask.Waived = map[string]string{}, map[string]string{}
		for _, c := range open {
			text := strings.TrimSpace(*f.words[c.ID])
			switch {
			case text == "":
			case c.State == engine.Against || c.State == engine.Waived:
				f.ask.Waived[c.ID] = text
			default:
				f.ask.Stated[c.ID] = text
			}
		}
		return f.judge(m)
	}, groups...)
}

// startTryMe makes the snippet of the row's newest release, or of the release under the cursor.
func (m *model) startTryMe() tea.Cmd {
	l, _ := m.chart.on()
	selector := l.row.id
	if l.target != nil {
		selector, _, _ = strings.Cut(l.target.id, "/")
	}
	f := &form{title: "Try Me of " + selector, flavor: l.row.id}
	keep := false
	f.batch = func() string {
		if keep {
			return m.commandLine("tryme", selector, "--form", "keep")
		}
		return m.commandLine("tryme", selector)
	}
	m.openForm(f)
	return f.work(m, "asking what is published of "+selector+" …", func(ctx context.Context) (func(*model) tea.Cmd, error) {
		t, err := m.engine.TryMe(ctx, selector)
		if err != nil {
			return nil, err
		}
		diff, derr := t.Diff()
		return func(m *model) tea.Cmd {
			f.texts = []string{strings.Join(t.YAML, "---\n")}
			f.next = func(m *model) tea.Cmd { // the other kind of disk
				if keep = !keep; keep {
					f.texts[0] = strings.Join(t.KeepYAML, "---\n")
				} else {
					f.texts[0] = strings.Join(t.YAML, "---\n")
				}
				return nil
			}
			f.write, f.written = t.Write, "README.md has it now: commit it"
			switch {
			case derr != nil:
				f.why = derr.Error()
			case diff == "":
				f.why = "README.md has it already"
			}
			f.lines = func(w int, st *styles) []string {
				var out []string
				for _, line := range strings.Split(strings.TrimRight(t.Text(keep), "\n"), "\n") {
					if parts := wrap(clean(line), w); len(parts) > 0 && strings.HasPrefix(line, "#") {
						for _, p := range parts {
							out = append(out, st.dim.of(p))
						}
						continue
					}
					out = append(out, fit(clean(line), w))
				}
				if diff != "" {
					out = append(append(out, "", st.title.of("what would change in README.md"), ""), diffLines(diff, w, st)...)
				}
				return out
			}
			return nil
		}, nil
	})
}

// formBody is the form's screen.
func (m *model) formBody(w, h int) []string {
	f := m.form
	if f == nil {
		return nil
	}
	if f.asking != nil {
		return strings.Split(f.asking.View(), "\n")
	}
	if f.busy != "" {
		return []string{"", "  " + m.st.active.of(running.symbol()+" "+f.busy)}
	}
	if f.lines == nil {
		return nil
	}
	l := &m.scrolled[formScreen]
	text := f.lines(w-4, m.st)
	l.n, l.h = max(1, len(text)-h+1), h // the cursor is the first line on the screen
	l.move(0)
	var out []string
	for _, s := range text[min(l.cursor, len(text)):] {
		out = append(out, "  "+s)
	}
	return out
}

func (m *model) whyNotWrite() string {
	switch f := m.form; {
	case f == nil || f.busy != "":
		return "wait"
	case f.why != "":
		return f.why
	}
	return ""
}

// writeForm asks once more, and writes.
func (m *model) writeForm() tea.Cmd {
	f := m.form
	m.dialog = &dialog{title: "Write it?", text: "Files of the repository are changed as shown, all at once, and nothing else. Commit them afterwards.", batch: f.batch(), word: f.word,
		doing: "write", leaving: "go back", opened: m.clock, yes: func() tea.Cmd {
			return f.work(m, "writing …", func(ctx context.Context) (func(*model) tea.Cmd, error) {
				if err := f.write(ctx); err != nil {
					return nil, err
				}
				return func(m *model) tea.Cmd { m.closeForm(); m.say(good, f.written); return nil }, nil
			})
		}}
	return nil
}

func (m *model) whyNotAnswer() string {
	if m.form == nil || m.form.busy != "" || m.form.next == nil {
		return "there is nothing to answer"
	}
	return ""
}

func (m *model) answer() tea.Cmd { return m.form.next(m) }

func (m *model) whyNotCopyForm() string {
	if m.form == nil || len(m.form.texts) == 0 {
		return "there is nothing to copy yet"
	}
	return ""
}

// copyForm copies what is shown.
func (m *model) copyForm() tea.Cmd {
	text := m.form.texts[0]
	return func() tea.Msg { return copiedMsg{m.form.title, m.copy(text)} }
}

// copyFormLine copies the same as one command.
func (m *model) copyFormLine() tea.Cmd { return m.copyText(m.form.batch()) }

// promoteLine is a promotion as a command line.
func (m *model) promoteLine(ask engine.Ask) string {
	words := []string{"promote", ask.Flavor, "--to", string(ask.To)}
	if ask.Reason != "" {
		words = append(words, "--reason", ask.Reason)
	}
	for _, given := range []struct {
		flag  string
		texts map[string]string
	}{{"--state", ask.Stated}, {"--waive", ask.Waived}} {
		for _, id := range slices.Sorted(maps.Keys(given.texts)) {
			words = append(words, given.flag, id+"="+given.texts[id])
		}
	}
	return m.commandLine(words...)
}
