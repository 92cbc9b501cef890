package ui

import (
	"fmt"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/ui/headless"
)

// pane is one target at work: its stages, its progress, its log.
type pane struct {
	target   string
	stages   map[engine.Stage]event.Event // how each ended, or that it runs
	stage    engine.Stage
	began    time.Time // of the stage
	progress event.Event
	rate     float64 // units a second
	rateAt   time.Time
	rateDone int64
	ended    event.Event
	log      log
}

// work is a run: its panes, and what came of it.
type work struct {
	panes   []*pane
	began   time.Time
	command string // the line that does the same headless
	focus   int
	zoom    bool
	cancel  func(error)
	stopped bool // somebody asked it to stop
	done    bool
	summary engine.Summary
	err     error
	result  bool // the summary is shown instead of the panes
	scroll  int  // of the summary
}

func (w *work) pane(target string) *pane {
	for _, p := range w.panes {
		if p.target == target {
			return p
		}
	}
	return nil
}

// focused is the pane that keys go to.
func (w *work) focused() *pane {
	if len(w.panes) == 0 {
		return nil
	}
	w.focus = max(0, min(w.focus, len(w.panes)-1))
	return w.panes[w.focus]
}

// event takes in what happened.
func (w *work) event(e event.Event) {
	list := w.panes
	if e.Target != "" {
		list = nil
		if p := w.pane(e.Target); p != nil {
			list = append(list, p)
		}
	}
	for _, p := range list {
		p.event(e)
	}
}

func (p *pane) event(e event.Event) {
	stage := engine.Stage(e.Stage)
	say := func(text string) { p.log.add(line{e.Time, e.Stage, text}) }
	switch {
	case e.Kind == event.Log:
		say(e.Line)
	case e.Stage == "":
		if e.Kind.Ends() && e.Target != "" {
			p.ended = e
		}
	case e.Kind == event.Started:
		p.stage, p.began, p.progress, p.rate, p.rateAt = stage, e.Time, event.Event{}, 0, time.Time{}
		p.stages[stage] = e
	case e.Kind == event.Progress:
		p.progress = e
		if p.rateAt.IsZero() || e.Done < p.rateDone {
			p.rateAt, p.rateDone = e.Time, e.Done
		} else if dt := e.Time.Sub(p.rateAt).Seconds(); dt >= 1 {
			p.rate = float64(e.Done-p.rateDone) / dt
			p.rateAt, p.rateDone = e.Time, e.Done
		}
	case e.Kind.Ends():
		p.stages[stage] = e
		p.progress = event.Event{}
		switch e.Kind {
		case event.Failed:
			for _, l := range strings.Split(e.Error, "\n") {
				say("✗ " + e.Stage + ": " + l)
			}
			if e.Remedy != "" {
				say("  what to do: " + e.Remedy)
			}
			if e.LogFile != "" {
				say("  the whole log: " + e.LogFile)
			}
		case event.Skipped:
			say("- " + e.Stage + ": nothing to do: " + e.Reason)
		default:
			say(fmt.Sprintf("✓ %s: %.1f s: %s", e.Stage, e.Seconds, e.Reason))
		}
	}
}

// kind is how the pane's target stands.
func (p *pane) kind() event.Kind {
	if p.ended.Kind != "" {
		return p.ended.Kind
	}
	if p.stage != "" {
		return event.Started
	}
	return ""
}

// short is how it stands in a few words.
func (p *pane) short() string {
	switch {
	case p.ended.Kind == event.Failed:
		return string(p.stage)
	case p.ended.Kind != "":
		return p.ended.Reason
	}
	return string(p.stage)
}

// chain is the way of the image, each stage with its symbol; short names when there is little room.
func (p *pane) chain(s styles, width int) string {
	full, plain := "", 0
	for _, st := range engine.Stages {
		e, known := p.stages[st]
		kind := e.Kind
		if !known {
			kind = ""
		}
		symbol, _, style := s.state(kind)
		text := symbol + " " + string(st)
		if plain > 0 {
			full += "  "
			plain += 2
		}
		full += style.Render(text)
		plain += len([]rune(text))
	}
	if plain <= width {
		return full
	}
	// Only the symbols, and the name of the stage at work.
	if width < len(engine.Stages) {
		return cut(string(p.stage), width)
	}
	brief := ""
	for _, st := range engine.Stages {
		kind := event.Kind("")
		if e, ok := p.stages[st]; ok {
			kind = e.Kind
		}
		symbol, _, style := s.state(kind)
		brief += style.Render(symbol)
	}
	return brief + " " + cut(string(p.stage), max(0, width-len(engine.Stages)-1))
}

// bar is the progress of the stage at work.
func (p *pane) bar(now time.Time, width int) string {
	if p.ended.Kind != "" || p.stage == "" {
		return ""
	}
	words := []string{fmt.Sprintf("%s %s", p.stage, elapsed(now.Sub(p.began)))}
	bar := ""
	if e := p.progress; e.Kind != "" {
		amount := fmt.Sprintf("%d %s", e.Done, e.Unit)
		if e.Total > 0 {
			const cells = 20
			n := int(min(cells, cells*e.Done/e.Total))
			bar = strings.Repeat("█", n) + strings.Repeat("░", cells-n) + " "
			amount = fmt.Sprintf("%d of %d %s", e.Done, e.Total, e.Unit)
		}
		if e.Unit == "bytes" {
			amount = headless.Bytes(e.Done)
			if e.Total > 0 {
				amount += " of " + headless.Bytes(e.Total)
			}
			if p.rate > 0 {
				amount += ", " + headless.Bytes(int64(p.rate)) + "/s"
				if e.Total > e.Done {
					amount += ", " + elapsed(time.Duration(float64(e.Total-e.Done)/p.rate*float64(time.Second))) + " left"
				}
			}
		}
		words = append(words, amount)
	}
	return cut(bar+strings.Join(words, " · "), width)
}

func elapsed(d time.Duration) string {
	d = max(0, d.Round(time.Second))
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// view draws a pane in exactly height lines.
func (p *pane) view(s styles, now time.Time, width, height int, focused bool) []string {
	symbol, word, style := s.state(p.kind())
	title := fmt.Sprintf("%s %s · %s", symbol, p.target, word)
	rule := "─"
	if focused {
		rule = "━"
	}
	head := cut(rule+rule+" "+title+" ", width)
	head = style.Render(head) + s.frame.Render(strings.Repeat(rule, max(0, width-len([]rune(head)))))
	lines := []string{head}
	if height > 2 {
		lines = append(lines, p.chain(s, width))
	}
	if height > 4 {
		lines = append(lines, p.bar(now, width))
	}
	room := height - len(lines)
	if room > 3 {
		if hidden := p.log.hidden(room - 1); hidden != "" {
			lines = append(lines, s.dim.Render(cut("  "+hidden, width)))
			room--
		}
	}
	lines = append(lines, p.log.view(s, width, room)...)
	return lines[:min(height, len(lines))]
}

// view draws the run in exactly height lines.
func (w *work) view(s styles, now time.Time, width, height int) []string {
	if height <= 0 {
		return nil
	}
	if w.result {
		return w.outcome(s, width, height)
	}
	lines := []string{}
	n := len(w.panes)
	const least = 7 // lines of a pane that says something
	columns := 1
	if width >= 160 && n > 1 {
		columns = 2
	}
	perColumn := (n + columns - 1) / max(1, columns)
	if n > 0 && (w.zoom || height/max(1, perColumn) < least) {
		p := w.focused()
		room := height
		if n > 1 {
			room--
		}
		lines = append(lines, p.view(s, now, width, room, true)...)
		if n > 1 {
			lines = append(lines, s.dim.Render(cut(fmt.Sprintf("pane %d of %d: tab shows the next", w.focus+1, n), width)))
		}
	} else if n > 0 {
		each := height / perColumn
		rest := height - each*perColumn
		for r := range perColumn {
			h := each
			if r == 0 {
				h += rest
			}
			if columns == 1 {
				lines = append(lines, w.panes[r].view(s, now, width, h, r == w.focus && n > 1)...)
				continue
			}
			left := w.panes[r].view(s, now, width/2-1, h, r == w.focus)
			var right []string
			if k := r + perColumn; k < n {
				right = w.panes[k].view(s, now, width-width/2-1, h, k == w.focus)
			}
			for i := range left {
				x := ""
				if i < len(right) {
					x = right[i]
				}
				lines = append(lines, pad(left[i], width/2)+x)
			}
		}
	}
	for len(lines) < height {
		lines = append(lines, "")
	}
	return lines[:height]
}

// outcome draws the summary.
func (w *work) outcome(s styles, width, height int) []string {
	var b strings.Builder
	if w.err != nil {
		fmt.Fprintf(&b, "The run did not start: %v\n", w.err)
	} else {
		headless.SummaryText(&b, w.summary, width)
	}
	var all []string
	for _, l := range strings.Split(strings.TrimRight(b.String(), "\n"), "\n") {
		all = append(all, wrap(l, width)...)
	}
	w.scroll = max(0, min(w.scroll, len(all)-height))
	var lines []string
	for _, l := range all[w.scroll:] {
		switch {
		case strings.HasPrefix(l, "FAILED"), strings.HasPrefix(l, "The run did not start"):
			l = s.bad.Render(l)
		case strings.HasPrefix(l, "done"):
			l = s.good.Render(l)
		case strings.HasPrefix(l, "nothing"):
			l = s.info.Render(l)
		case strings.HasPrefix(l, "target "), strings.HasPrefix(l, "seconds "):
			l = s.dim.Render(l)
		}
		lines = append(lines, l)
	}
	for len(lines) < height {
		lines = append(lines, "")
	}
	return lines[:height]
}

// progress is the run as a whole in one line.
func (w *work) progress(now time.Time) string {
	count := map[event.Kind]int{}
	for _, p := range w.panes {
		count[p.kind()]++
	}
	words := []string{}
	for _, x := range []struct {
		kind event.Kind
		word string
	}{{event.Failed, "failed"}, {event.Finished, "done"}, {event.Skipped, "with nothing to do"}, {event.Started, "at work"}, {"", "waiting"}} {
		if n := count[x.kind]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, x.word))
		}
	}
	text := fmt.Sprintf("%d targets: %s · %s", len(w.panes), strings.Join(words, ", "), elapsed(now.Sub(w.began)))
	switch {
	case w.done:
		text = "ended: " + text
	case w.stopped:
		text = "stopping… " + text
	}
	return text
}
