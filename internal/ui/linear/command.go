package linear

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/ui"
)

// command is one that can be typed: by its name, its number in the help, or its beginning.
type command struct {
	name  string // as the console's actions are called, where there is one
	takes string // what may come after it
	help  string // "": the console's
	why   func(*session) string
	do    func(s *session, rest string)
}

func commands() []command {
	return []command{
		{"chart", "WORDS", "read the release chart, or its rows with these words", (*session).whyReplay, (*session).chart},
		{"select", "NUMBER or SELECTOR", "", (*session).whyReplay, (*session).choose},
		{"select all", "", "select everything that can be built; again: none", (*session).whyReplay, func(s *session, _ string) { s.chooseAll() }},
		{"details", "NUMBER or FLAVOR", "everything that is known of a row and its targets", (*session).whyReplay, (*session).details},
		{"plan", "", "", (*session).whyNotPlan, func(s *session, _ string) { s.plan() }},
		{"look", "", "", (*session).whyNotAsk, func(s *session, _ string) { s.look() }},
		{"build", "", "", (*session).whyNotPlan, func(s *session, _ string) { s.build("") }},
		{"build up to", "STAGE", "", (*session).whyNotPlan, (*session).buildUpTo},
		{"cancel", "", "", (*session).whyNotCancel, func(s *session, _ string) { s.cancel() }},
		{"cancel target", "TARGET", "cancel one target of the run only; asks first", (*session).whyNotCancel, (*session).cancelTarget},
		{"retry", "", "", (*session).whyNotRetry, func(s *session, _ string) { s.retry() }},
		{"show run", "", "", (*session).whyNoRun, func(s *session, _ string) { s.showRun() }},
		{"open log", "TARGET [LINES]", "the last lines of the log of a target", (*session).whyNoLog, (*session).log},
		{"promote", "NUMBER or FLAVOR", "how a row fares by the image criteria of the next level", (*session).whyNotAsk, (*session).promote},
		{"try me", "NUMBER or FLAVOR", "", (*session).whyNotAsk, (*session).tryMe},
		{"messages", "", "", nil, func(s *session, _ string) { s.readMessages() }},
		{"copy command", "", "say the same as a command line", (*session).whyNotPlan, func(s *session, _ string) { s.say(s.batch(s.selection())) }},
		{"pause", "", "", (*session).whyNoReplay, replaying((*engine.Replay).Pause)},
		{"slower", "", "", (*session).whyNoReplay, replaying((*engine.Replay).Slower)},
		{"faster", "", "", (*session).whyNoReplay, replaying((*engine.Replay).Faster)},
		{"to first failure", "", "", (*session).whyNoFailure, replaying(func(r *engine.Replay) { r.ToFailure() })},
		{"to the end", "", "", (*session).whyNoReplay, replaying((*engine.Replay).ToEnd)},
		{"restart", "", "", (*session).whyNoReplay, replaying((*engine.Replay).Restart)},
		{"help", "", "these commands", nil, func(s *session, _ string) { s.help() }},
		{"quit", "", "", nil, func(s *session, _ string) { s.quit() }},
	}
}

// line is what was typed.
func (s *session) line(text string) {
	if len(text) > longest {
		s.say("That line is too long for a command.")
		return
	}
	text = strings.Join(strings.Fields(text), " ")
	if q := s.question; q != nil {
		s.question = nil
		if text == q.word {
			q.yes()
		} else {
			s.say(q.no)
		}
		s.ready()
		return
	}
	if s.leaving || text == "" {
		return
	}
	c, rest, why := find(text)
	if why == "" && c.why != nil {
		if why = c.why(s); why != "" {
			why = c.name + ": " + why
		}
	}
	if why != "" {
		s.say("Not done. " + why + ".")
	} else {
		c.do(s, rest)
	}
	s.ready()
}

// find finds the command that a line means: its whole name, its number, or the only one that begins so.
func find(text string) (c command, rest string, why string) {
	all := commands()
	first, after, _ := strings.Cut(text, " ")
	if n, err := strconv.Atoi(first); err == nil {
		if n < 1 || n > len(all) {
			return c, "", fmt.Sprintf("There is no command %d: help lists them", n)
		}
		return all[n-1], after, ""
	}
	lower := strings.ToLower(text)
	slices.SortStableFunc(all, func(a, b command) int { return len(b.name) - len(a.name) }) // "select all" is no "select"
	for _, c := range all {
		if lower == c.name || strings.HasPrefix(lower, c.name+" ") {
			return c, strings.TrimSpace(text[len(c.name):]), ""
		}
	}
	var fits []command
	for _, c := range all {
		if begins, _, _ := strings.Cut(c.name, " "); strings.HasPrefix(begins, strings.ToLower(first)) || c.name == "open log" && strings.TrimSuffix(strings.ToLower(first), "s") == "log" {
			fits = append(fits, c)
		}
	}
	same := func(c command) bool { return c.name == fits[0].name || strings.HasPrefix(fits[0].name, c.name+" ") }
	if len(fits) > 0 && !slices.ContainsFunc(fits, func(c command) bool { return !same(c) }) {
		return fits[len(fits)-1], after, "" // of "select all" and "select", the second
	}
	if len(fits) > 1 {
		var names []string
		for _, c := range fits {
			names = append(names, c.name)
		}
		return c, "", fmt.Sprintf("%q may mean %s", first, strings.Join(names, ", "))
	}
	return c, "", fmt.Sprintf("%q is no command: help lists them", first)
}

func (s *session) help() {
	about := ui.Actions()
	s.say("Type a command by its name, its beginning, or its number:")
	for i, c := range commands() {
		text := c.help
		if text == "" {
			text = about[c.name]
		}
		name := c.name
		if c.takes != "" {
			name += " " + c.takes
		}
		line := fmt.Sprintf("%d, %s: %s", i+1, name, text)
		if c.why != nil {
			if why := c.why(s); why != "" {
				line += ". Not now: " + why
			}
		}
		s.say(line + ".")
	}
}

func (s *session) quit() {
	if s.run == nil {
		s.say("Good-bye.")
		s.end(errLeft)
		return
	}
	s.say("A run is under way. It is cancelled first; finished stages and downloads are kept.")
	s.ask(question{word: "yes", yes: func() { s.say("Cancelling: waiting for programs to end."); s.end(errLeft) }, no: "The run goes on."}, "Type yes to cancel it and leave, anything else to stay.")
}

func (s *session) ask(q question, text string) {
	s.question = &q
	s.say(text)
}

// Reasons why something cannot be done now.

func (s *session) whyReplay() string {
	if s.replay != nil {
		return "this is a recording: nothing can be done in it"
	}
	return ""
}

func (s *session) whyNoReplay() string {
	if s.replay == nil {
		return "no recording is shown: kmi-tui replay FILE does that"
	}
	return ""
}

func (s *session) whyNoFailure() string {
	if why := s.whyNoReplay(); why != "" {
		return why
	}
	return s.replay.WhyNoFailure()
}

func (s *session) whyNotAsk() string {
	switch {
	case s.replay != nil:
		return s.whyReplay()
	case s.run != nil:
		return "a run is under way: show run tells how it is going"
	case s.asking != nil:
		return "upstreams are being asked: wait for it"
	}
	return ""
}

func (s *session) whyNotPlan() string {
	if why := s.whyNotAsk(); why != "" {
		return why
	}
	if len(s.names()) == 0 {
		return "nothing is selected: select NUMBER does that"
	}
	return ""
}

func (s *session) whyNotCancel() string {
	switch {
	case s.replay != nil:
		return s.whyReplay()
	case s.run == nil:
		return "nothing is running"
	case s.run.cancelled:
		return "the run is being cancelled: its programs are ending"
	}
	return ""
}

func (s *session) whyNoRun() string {
	if s.run == nil && s.summary == nil && s.replay == nil {
		return "nothing has run yet"
	}
	return ""
}

func (s *session) whyNoLog() string {
	if len(s.order) == 0 {
		return "there is no log yet"
	}
	return ""
}

// replaying makes a command of something that a replay does.
func replaying(do func(*engine.Replay)) func(*session, string) {
	return func(s *session, _ string) {
		do(s.replay)
		st := s.replay.State()
		speed := strconv.FormatFloat(st.Speed, 'g', -1, 64) + " times as fast"
		if st.Speed == engine.Fastest {
			speed = "as fast as it can"
		}
		if st.Paused {
			speed += ", paused"
		}
		s.sayf("REPLAY %s, at %s of %s.", speed, span(st.At.Seconds()), span(st.Length.Seconds()))
	}
}

// Working.

func (s *session) selection() engine.Selection { return engine.Selection{Only: s.names()} }

// batch spells a selection as a command line.
func (s *session) batch(sel engine.Selection) string {
	return ui.Batch(sel, s.e.Destination(), s.o.Flags)
}

func (s *session) plan() { s.planOf(s.selection(), func([]engine.Plan) {}) }

// planOf says what a run would do, and then goes on.
func (s *session) planOf(sel engine.Selection, then func([]engine.Plan)) {
	s.sayf("Asking upstream and registry about %s.", count(len(sel.Only), "target"))
	s.asking = s.start(func(ctx context.Context) func() {
		plans, err := s.e.Plan(ctx, sel)
		return func() {
			s.asking = nil
			for _, p := range plans {
				s.learn(p)
				s.tell(p)
			}
			if err != nil {
				s.explain("The plan could not be made", err)
			} else if !s.leaving {
				then(plans)
			}
			s.ready()
		}
	})
}

func (s *session) look() {
	s.say("Asking every upstream.")
	s.asking = s.start(func(ctx context.Context) func() {
		var plans []engine.Plan
		err := s.e.Look(ctx, func(p engine.Plan) { plans = append(plans, p) })
		return func() {
			s.asking = nil
			n := map[engine.Action]int{}
			for _, p := range plans {
				s.learn(p)
				n[p.Action]++
				if p.Action == engine.Fail {
					s.tell(p)
				}
			}
			s.load()
			if err != nil && !errors.Is(err, context.Canceled) {
				s.explain("Upstreams", err)
			}
			s.sayf("%d to build, %d with nothing to do, %d that cannot be decided. chart reads the rows.", n[engine.Build], n[engine.None], n[engine.Fail])
			s.ready()
		}
	})
}

// command is the program with these words, as a line for a shell.
func (s *session) command(words ...string) string {
	return ui.Command(words, s.e.Destination(), s.o.Flags)
}

// rowOf finds the row that is named by its number or its flavor; where none is it says how the command names one: -1.
func (s *session) rowOf(what, command string) int {
	i, err := strconv.Atoi(what)
	i--
	if err != nil {
		i = slices.IndexFunc(s.rows, func(r row) bool { return r.flavor.ID == what })
	}
	if i < 0 || i >= len(s.rows) {
		s.sayf("Name a row by its number or its flavor, as in %s 1.", command)
		return -1
	}
	return i
}

// promote says by which criteria a row can be moved one level up, and how it is written.
func (s *session) promote(what string) {
	i := s.rowOf(what, "promote")
	if i < 0 {
		return
	}
	f := s.rows[i].flavor
	if f.Level.Rank()+1 >= len(catalog.Levels) {
		s.sayf("%s is %s: there is no higher level.", f.Name, f.Level)
		return
	}
	to := catalog.Levels[f.Level.Rank()+1]
	s.sayf("Looking at what %s proves for %s.", f.Name, to)
	s.asking = s.start(func(ctx context.Context) func() {
		p, err := s.e.Promotion(ctx, engine.Ask{Flavor: f.ID, To: to})
		return func() {
			s.asking = nil
			if err != nil {
				s.explain("The promotion", err)
				s.ready()
				return
			}
			for _, c := range p.Criteria {
				s.sayf("%s, %s: %s. %s.", c.ID, c.State, c.Text, strings.TrimSuffix(c.Evidence, "."))
			}
			if err := p.Ready(); err != nil {
				s.explain("Not yet", err)
			}
			s.sayf("To see the difference and write it: %s", s.command("promote", f.ID, "--to", string(to)))
			s.ready()
		}
	})
}

// tryMe says how the image of a row's newest release is tried.
func (s *session) tryMe(what string) {
	i := s.rowOf(what, "try me")
	if i < 0 {
		return
	}
	f := s.rows[i].flavor
	s.asking = s.start(func(ctx context.Context) func() {
		t, err := s.e.TryMe(ctx, f.ID)
		return func() {
			s.asking = nil
			if err != nil {
				s.explain("The Try Me", err)
			} else {
				for line := range strings.SplitSeq(strings.TrimRight(t.Commands(), "\n"), "\n") {
					s.say(line)
				}
				s.sayf("The same as a manifest: %s", s.command("tryme", f.ID))
			}
			s.ready()
		}
	})
}

// tell says a plan.
func (s *session) tell(p engine.Plan) {
	verb := map[engine.Action]string{engine.Build: "to build", engine.None: "nothing to do", engine.Fail: "cannot be decided"}[p.Action]
	s.sayf("%s: %s: %s.", p.Target, verb, strings.TrimSuffix(strings.ReplaceAll(p.Reason, "\n", "; "), "."))
	if p.Remedy != "" {
		s.say("What to do: " + p.Remedy)
	}
}

// build says what a run up to a stage would do, and then asks. No stage: all of them.
func (s *session) build(until engine.Stage) {
	sel := s.selection()
	sel.Until = until
	s.planOf(sel, func(plans []engine.Plan) {
		s.sayf("%s: %s. %s", count(len(sel.Only), "target"), strings.Join(sel.Only, ", "), ui.Expectation(plans))
		s.askRun(sel)
	})
}

// askRun asks whether to start a run.
func (s *session) askRun(sel engine.Selection) {
	where := s.e.Destination()
	q := question{word: "yes", yes: func() { s.begin(sel) }, no: "Nothing is built."}
	text := "Type yes to publish, anything else to go back."
	switch {
	case sel.Until != "" && sel.Until != engine.Publish:
		s.sayf("Each is taken up to %s. Nothing is published; what is finished is kept.", sel.Until)
		text = "Type yes to do it, anything else to go back."
	case strings.HasPrefix(where, "dir:"):
		s.sayf("Each is built, boot-tested and signed, and then published to %s. What has not changed is left alone.", where)
	default:
		s.sayf("Each is built, boot-tested and signed, and then published to %s. What has not changed is left alone.", where)
		q.word = "publish"
		text = "Others can pull it from there at once. Type publish to do it, anything else to go back."
	}
	s.say("The same without the console: " + s.batch(sel))
	s.ask(q, text)
}

func (s *session) buildUpTo(stage string) {
	var names []string
	for _, st := range engine.Stages {
		if names = append(names, string(st)); string(st) == stage {
			s.build(st)
			return
		}
	}
	s.sayf("Name the last stage: %s.", strings.Join(names, ", "))
}

func (s *session) whyNotRetry() string {
	if why := s.whyNotAsk(); why != "" {
		return why
	}
	if len(s.failures()) == 0 {
		return "nothing has failed in the last run"
	}
	return ""
}

// failures are the targets of the last run that failed.
func (s *session) failures() (names []string) {
	if s.summary != nil {
		for _, r := range s.summary.Results {
			if r.State == event.Failed {
				names = append(names, r.Target)
			}
		}
	}
	return names
}

// retry asks whether to run what failed again.
func (s *session) retry() {
	names := s.failures()
	s.sayf("%s failed: %s. What was finished is kept: each goes on from the stage that failed.", count(len(names), "target"), strings.Join(names, ", "))
	s.askRun(engine.Selection{Only: names, Until: s.ran.Until, Force: s.ran.Force})
}

// cancelTarget asks whether to end the work on one target.
func (s *session) cancelTarget(name string) {
	if !slices.Contains(s.order, name) {
		s.sayf("Name a target of the run: %s.", strings.Join(s.order, ", "))
		return
	}
	s.ask(question{word: "yes", yes: func() {
		if s.e.Cancel(name, errors.New("cancelled in the console")) {
			s.sayf("Cancelling %s: waiting for its programs to end.", name)
		} else {
			s.sayf("%s is not being worked on.", name)
		}
	}, no: "It goes on."}, "The others go on, and what is finished is kept. Type yes to cancel "+name+", anything else to let it go on.")
}

func (s *session) begin(sel engine.Selection) {
	s.targets, s.order, s.summary, s.ran = map[string]*target{}, nil, nil, sel
	s.say("The run begins.")
	s.messages = append(s.messages, "run started: "+s.batch(sel))
	s.run = s.start(func(ctx context.Context) func() {
		sum, err := s.e.Run(ctx, sel)
		return func() {
			s.run = nil
			if err != nil {
				s.explain("The run did not start", err)
			} else {
				s.summary = &sum
				s.say("The run has ended.")
				s.results()
				if known, err := s.e.Known(); err == nil {
					s.known = known
				}
			}
			s.ready()
		}
	})
}

func (s *session) cancel() {
	s.say("Programs of the run are ended. Finished stages and downloads are kept: the next run goes on where this one stopped.")
	s.ask(question{word: "yes", yes: func() {
		if s.run != nil && !s.run.cancelled {
			s.run.cancelled = true
			s.run.cancel(errors.New("cancelled in the console"))
			s.say("Cancelling: waiting for programs to end.")
		}
	}, no: "The run goes on."}, "Type yes to cancel it, anything else to let it go on.")
}

func (s *session) showRun() {
	if s.summary != nil {
		s.results()
		return
	}
	now := s.o.Now()
	for _, name := range s.order {
		switch t := s.targets[name]; {
		case t.stage == "":
			s.sayf("%s: between two stages, or at its end.", name)
		case t.amount != "":
			s.sayf("%s: %s, %s, for %s.", name, t.stage, t.amount, span(now.Sub(t.began).Seconds()))
		default:
			s.sayf("%s: %s, for %s.", name, t.stage, span(now.Sub(t.began).Seconds()))
		}
	}
}

func (s *session) log(rest string) {
	name, lines := rest, 20
	if i := strings.LastIndexByte(rest, ' '); i > 0 {
		if n, err := strconv.Atoi(rest[i+1:]); err == nil && n > 0 {
			name, lines = rest[:i], n
		}
	}
	if name == "" && len(s.order) == 1 {
		name = s.order[0]
	}
	t := s.targets[name]
	if t == nil {
		s.sayf("Name a target of the run: %s.", strings.Join(s.order, ", "))
		return
	}
	tail := t.log[max(0, len(t.log)-min(lines, keptLogs)):]
	s.sayf("The last %s of %s; the whole logs are in %s.", count(len(tail), "line"), name, s.e.Logs())
	for _, l := range tail {
		s.say(l)
	}
}

func (s *session) readMessages() {
	if len(s.messages) == 0 {
		s.say("There are no messages.")
	}
	for _, m := range s.messages {
		s.say(m)
	}
}
