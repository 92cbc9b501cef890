package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Now is the engine's clock.
func (e *Engine) Now() time.Time { return e.cfg.Now() }

// Plan says what a run would do with every target of the selection, and why: also with those whose way ends before they
// are published, with releases that are left out and with flavors that have none. Without Only and Levels it is about
// every level. It changes nothing but the cache: upstreams' answers, and what is Known. Errors: *NotStarted; what cannot
// be decided is in the plan, as Fail.
func (e *Engine) Plan(ctx context.Context, sel Selection) ([]Plan, error) {
	return e.plans(ctx, sel, e.bus, func(Plan) {})
}

// Look plans everything and tells each plan as soon as it is made, one at a time. It publishes no events.
func (e *Engine) Look(ctx context.Context, each func(Plan)) error {
	_, err := e.plans(ctx, Selection{}, event.NewBus(e.cfg.Now), each)
	return err
}

func (e *Engine) plans(ctx context.Context, sel Selection, bus *event.Bus, each func(Plan)) (list []Plan, err error) {
	flavors, selectors, err := e.chosen(sel, true)
	if err != nil {
		return nil, err
	}
	seen := e.notes(sel)
	defer func() { seen.keep(err == nil && ctx.Err() == nil) }()
	var mu sync.Mutex
	told := func(p Plan, ends map[Stage]StageKnown) Plan {
		mu.Lock()
		defer mu.Unlock()
		if p.Action != Fail || ctx.Err() == nil { // what was broken off is no answer
			seen.plan(p, ends)
		}
		each(p)
		return p
	}
	a := e.ask(bus)
	plans := make([][]Plan, len(flavors))
	err = e.each(ctx, a, flavors, selectors, Resolve, func(i int, targets []Target, others []Plan) {
		list := make([]Plan, len(targets))
		var wg sync.WaitGroup
		for k, t := range targets {
			wg.Add(1)
			go func() {
				defer wg.Done()
				list[k] = told(e.plan(ctx, a, t, sel))
			}()
		}
		for _, o := range others {
			told(o, nil)
		}
		wg.Wait()
		plans[i] = append(list, others...)
	})
	if err == nil {
		err = ctx.Err()
	}
	return slices.Concat(plans...), err
}

// plan decides about one target, and says how that ended.
func (e *Engine) plan(ctx context.Context, a *asking, t Target, sel Selection) (Plan, map[Stage]StageKnown) {
	j := e.job(t, sel, a)
	j.step(ctx, 0)
	p := &j.plan
	switch {
	case j.result.State == event.Failed:
		p.Action, p.Reason, p.Remedy = Fail, j.result.Error, j.result.Remedy
	case p.Action == Build && t.Unsupported != "" && slices.Index(Stages, cmp.Or(sel.Until, Publish)) > slices.Index(Stages, t.Last):
		p.Action, p.Reason = None, t.Unsupported
	case p.Action == Build && len(sel.Only) == 0 && len(sel.Levels) == 0 && t.Flavor.Level == catalog.Planned:
		p.Action, p.Reason = None, "planned: built when it is named with --only, or with --level planned"
	}
	return *p, j.ends
}

// Run takes the selected targets along the way of an image, and records it. A target that fails does not stop the others.
// The summary has every target; the error is a *NotStarted, or nil.
func (e *Engine) Run(ctx context.Context, sel Selection) (Summary, error) {
	began := e.cfg.Now()
	rec := e.recorder()
	defer rec.close()
	last := cmp.Or(sel.Until, Publish)
	flavors, _, err := e.chosen(sel, false)
	if err != nil {
		return Summary{}, err
	}
	var origins []string
	for _, f := range flavors {
		if f.Origin != nil && (f.Origin.Kind == "packages" || f.Origin.Customise != nil) {
			origins = append(origins, f.Origin.Kind)
		}
	}
	if len(origins) > 0 {
		if err := e.preflight(ctx, last, origins); err != nil {
			return Summary{}, err
		}
	}
	// Upstreams are asked only of what can go the way to its end.
	a := e.ask(e.bus)
	targets, others, err := e.selected(ctx, a, sel, last)
	if err != nil {
		return Summary{}, err
	}
	able := 0
	for _, t := range targets {
		if t.able(last) {
			able++
		}
	}
	if able == 0 && len(sel.Only) > 0 && !slices.ContainsFunc(others, func(p Plan) bool { return p.Action == Fail }) {
		var why string
		if len(targets) > 0 {
			why = targets[0].String() + ": " + targets[0].Unsupported
		} else {
			why = others[0].Target + ": " + others[0].Reason
		}
		return Summary{}, notStarted("none of the selected targets can be built: %s", why)
	}
	// A wrong passphrase is found now, not after the build. A key that is there or was named is loaded; the embedded
	// default is made when something is signed.
	if slices.Index(Stages, last) >= slices.Index(Stages, Sign) {
		if _, err := e.key(ctx, false); err != nil {
			return Summary{}, err
		}
	}
	e.pruneLogs()
	rec.begin(sel, targets)
	results := make([]Result, len(targets))
	jobs := make([]*job, len(targets))
	publications := map[string]*publication{}
	for i, t := range targets {
		jobs[i] = e.job(t, sel, a)
		if !t.able(last) {
			continue
		}
		release := t.Flavor.ID + ":" + t.Release.Version
		if publications[release] == nil {
			publications[release] = newPublication(e)
			publications[release].run = ctx
		}
		jobs[i].publication = publications[release]
		jobs[i].publication.join()
	}
	work := make(chan struct{}, e.cfg.Jobs)
	var wg sync.WaitGroup
	for i, t := range targets {
		j := jobs[i]
		if j.publication == nil {
			j.result.State, j.result.Reason = event.Skipped, t.Unsupported
			results[i] = j.result
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx, ended := e.cancellable(ctx, t.String())
			defer ended()
			began := e.cfg.Now()
			e.bus.Publish(event.Event{Target: t.String(), Kind: event.Started})
			more := j.step(ctx, 0)
			if more && j.nothing == nil && last != Resolve { // else it takes no time: it need not wait for its turn
				select {
				case work <- struct{}{}:
					more = j.upTo(ctx, Test, last)
					<-work
				case <-ctx.Done():
					more = false
					j.fail(context.Cause(ctx))
				}
			}
			if more {
				j.upTo(ctx, Publish, last) // waits for others, and does not keep them waiting
			}
			j.finish(last)
			j.result.Seconds = e.cfg.Now().Sub(began).Seconds()
			e.bus.Publish(event.Event{Target: t.String(), Kind: j.result.State, Reason: j.result.Reason, Error: j.result.Error, Remedy: j.result.Remedy, Seconds: j.result.Seconds})
			results[i] = j.result
			j.learned()
		}()
	}
	wg.Wait()
	for _, p := range others {
		r := Result{Target: p.Target, State: event.Skipped, Reason: p.Reason, Stages: []StageTime{}}
		if p.Action == Fail {
			r.State, r.Reason, r.Error, r.Remedy = event.Failed, "", p.Reason, p.Remedy
			e.bus.Publish(event.Event{Target: r.Target, Kind: r.State, Error: r.Error, Remedy: r.Remedy})
		}
		results = append(results, r)
	}
	s := Summary{Results: results, Seconds: e.cfg.Now().Sub(began).Seconds()}
	end := event.Event{Kind: event.Finished, Seconds: s.Seconds, Reason: fmt.Sprintf("%d targets", len(s.Results))}
	if n := s.Failed(); n > 0 {
		end.Kind, end.Reason, end.Error = event.Failed, "", fmt.Sprintf("%d of %d targets failed", n, len(s.Results))
	}
	e.bus.Publish(end)
	rec.end(s)
	return s, nil
}

// cancellable is the context of a target's work, which Cancel ends. ended forgets it.
func (e *Engine) cancellable(ctx context.Context, target string) (_ context.Context, ended func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	e.cancelMu.Lock()
	defer e.cancelMu.Unlock()
	e.cancels[target] = cancel
	return ctx, func() {
		e.cancelMu.Lock()
		delete(e.cancels, target)
		e.cancelMu.Unlock()
		cancel(nil)
	}
}

// Cancel ends the work on one target of the run that is under way; the others go on. What is finished of it is kept: a
// later run goes on from there. It returns whether the target was being worked on.
func (e *Engine) Cancel(target string, cause error) bool {
	e.cancelMu.Lock()
	defer e.cancelMu.Unlock()
	cancel, ok := e.cancels[target]
	if ok {
		cancel(cause)
	}
	return ok
}

// able says whether the target's way goes as far as a stage.
func (t Target) able(last Stage) bool {
	return t.Unsupported == "" || slices.Index(Stages, last) <= slices.Index(Stages, t.Last)
}

func (e *Engine) job(t Target, sel Selection, a *asking) *job {
	return &job{e: e, target: t, force: sel.Force, last: cmp.Or(sel.Until, Publish), asking: a, plan: Plan{Target: t.String(), Action: Fail, Licence: licence(t.Flavor), Origin: origin(t.Flavor)}, result: Result{Target: t.String(), Stages: []StageTime{}}, ends: map[Stage]StageKnown{}}
}

// upTo runs the stages after the one that was reached, up to one or to the last one. It returns whether the next may
// follow.
func (j *job) upTo(ctx context.Context, stage, last Stage) bool {
	end := min(slices.Index(Stages, stage), slices.Index(Stages, last))
	for i := slices.Index(Stages, j.reached) + 1; i <= end; i++ {
		if !j.step(ctx, i) {
			return false
		}
	}
	return true
}

// step runs one stage and reports it. It returns whether the next may follow.
func (j *job) step(ctx context.Context, i int) bool {
	w := way[i]
	scope := j.e.scope(j.asking.bus, j.target.String(), w.stage)
	scope.Start()
	var reason string
	var err error
	if why, ok := j.nothing[w.stage]; ok {
		err = &event.Skip{Reason: why}
	} else if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else {
		reason, err = w.run(j, ctx, scope)
	}
	e := scope.End(reason, err)
	j.result.Stages = append(j.result.Stages, StageTime{Stage: w.stage, State: e.Kind, Reason: e.Reason, Seconds: e.Seconds, Log: e.LogFile})
	j.reached = w.stage
	if e.Kind != event.Failed || ctx.Err() == nil { // what was cancelled says nothing about the target
		j.ends[w.stage] = StageKnown{State: e.Kind, Reason: e.Reason, Error: e.Error, At: j.e.cfg.Now().UTC(), Seconds: e.Seconds}
	}
	if e.Kind == event.Failed {
		j.result.State, j.result.Error, j.result.Remedy = event.Failed, string(w.stage)+": "+e.Error, e.Remedy
	}
	if e.Kind == event.Failed || w.stage == Publish {
		j.release()
	}
	return e.Kind != event.Failed
}

// release lets go of what the job holds.
func (j *job) release() {
	if j.unlock != nil {
		j.unlock()
		j.unlock = nil
	}
	if j.packed != nil {
		j.packed()
		j.packed = nil
	}
}

func (j *job) fail(err error) {
	j.result.State, j.result.Error = event.Failed, err.Error()
}

// finish says what the target came to.
func (j *job) finish(last Stage) {
	j.release()
	j.publication.leave()
	switch {
	case j.result.State == event.Failed:
	case j.retag && last == Publish:
		j.result.State, j.result.Reason = event.Finished, "published before; its tags are complete now"
	case j.nothing != nil:
		j.result.State, j.result.Reason = event.Skipped, "nothing to do: "+j.plan.Reason
	case last != Publish:
		j.result.State, j.result.Reason = event.Finished, fmt.Sprintf("done up to %s, as asked", last)
	default:
		j.result.State, j.result.Reason = event.Finished, "published"
	}
}
