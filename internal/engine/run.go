package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// resolving is how many targets are resolved at once.
const resolving = 8

// Now is the engine's clock.
func (e *Engine) Now() time.Time { return e.cfg.Now() }

// Plan says what a run would do with every target of the selection, and why. It changes nothing but the cache of
// upstreams' indexes. Errors: *NotStarted; a target that cannot be decided is in the plan, as Fail.
func (e *Engine) Plan(ctx context.Context, sel Selection) ([]Plan, error) {
	targets, bare, err := e.selected(sel)
	if err != nil {
		return nil, err
	}
	if err := e.preflight(ctx, Resolve); err != nil {
		return nil, err
	}
	plans := make([]Plan, len(targets))
	limit := make(chan struct{}, resolving)
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Add(1)
		go func() {
			defer wg.Done()
			limit <- struct{}{}
			defer func() { <-limit }()
			j := e.job(t, sel)
			if t.Unsupported != "" {
				j.plan.Action, j.plan.Reason = None, t.Unsupported
			} else {
				j.step(ctx, 0)
				if j.result.State == event.Failed {
					j.plan.Action, j.plan.Reason = Fail, j.result.Error
				}
			}
			plans[i] = j.plan
		}()
	}
	wg.Wait()
	for _, f := range bare {
		plans = append(plans, Plan{Target: f.ID, Action: None, Reason: e.bare()})
	}
	return plans, ctx.Err()
}

// bare says why a flavor without releases has nothing to build.
func (e *Engine) bare() string {
	return "not supported yet: its upstream is not described in the catalogue"
}

// Run takes the selected targets along the way of an image. A target that fails does not stop the others. The summary
// has every target; the error is a *NotStarted, or nil.
func (e *Engine) Run(ctx context.Context, sel Selection) (Summary, error) {
	began := e.cfg.Now()
	targets, bare, err := e.selected(sel)
	if err != nil {
		return Summary{}, err
	}
	last := sel.Until
	if last == "" {
		last = Publish
	}
	able := 0
	for _, t := range targets {
		if t.Unsupported == "" {
			able++
		}
	}
	if able == 0 && len(sel.Only) > 0 {
		why := e.bare()
		if len(targets) > 0 {
			why = targets[0].String() + ": " + targets[0].Unsupported
		} else {
			why = bare[0].ID + ": " + why
		}
		return Summary{}, notStarted("none of the selected targets can be built: %s", why)
	}
	if err := e.preflight(ctx, last); err != nil {
		return Summary{}, err
	}
	// A wrong passphrase is found now, not after the build. A key that is there or was named is loaded; the embedded
	// default is made when something is signed.
	if slices.Index(Stages, last) >= slices.Index(Stages, Sign) {
		if _, err := e.key(ctx, false); err != nil {
			return Summary{}, err
		}
	}
	e.pruneLogs()
	results := make([]Result, len(targets))
	resolve, work := make(chan struct{}, resolving), make(chan struct{}, e.cfg.Jobs)
	var wg sync.WaitGroup
	for i, t := range targets {
		j := e.job(t, sel)
		if t.Unsupported != "" {
			j.result.State, j.result.Reason = event.Skipped, t.Unsupported
			results[i] = j.result
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			began := e.cfg.Now()
			e.bus.Publish(event.Event{Target: t.String(), Kind: event.Started})
			resolve <- struct{}{}
			more := j.step(ctx, 0)
			<-resolve
			if more && (j.nothing != nil || last == Resolve) {
				j.rest(ctx, last) // takes no time: it need not wait for its turn
			} else if more {
				select {
				case work <- struct{}{}:
					j.rest(ctx, last)
					<-work
				case <-ctx.Done():
					j.fail(context.Cause(ctx))
				}
			}
			j.finish(last)
			j.result.Seconds = e.cfg.Now().Sub(began).Seconds()
			e.bus.Publish(event.Event{Target: t.String(), Kind: j.result.State, Reason: j.result.Reason, Error: j.result.Error, Remedy: j.result.Remedy, Seconds: j.result.Seconds})
			results[i] = j.result
		}()
	}
	wg.Wait()
	for _, f := range bare {
		results = append(results, Result{Target: f.ID, State: event.Skipped, Reason: e.bare()})
	}
	s := Summary{Results: results, Seconds: e.cfg.Now().Sub(began).Seconds()}
	end := event.Event{Kind: event.Finished, Seconds: s.Seconds, Reason: fmt.Sprintf("%d targets", len(s.Results))}
	if n := s.Failed(); n > 0 {
		end.Kind, end.Reason, end.Error = event.Failed, "", fmt.Sprintf("%d of %d targets failed", n, len(s.Results))
	}
	e.bus.Publish(end)
	return s, nil
}

func (e *Engine) job(t Target, sel Selection) *job {
	return &job{e: e, target: t, force: sel.Force, plan: Plan{Target: t.String(), Action: Fail}, result: Result{Target: t.String(), Stages: []StageTime{}}}
}

// rest runs the stages after resolve up to the last one.
func (j *job) rest(ctx context.Context, last Stage) {
	for i := 1; i < len(way); i++ {
		if slices.Index(Stages, way[i-1].stage) >= slices.Index(Stages, last) {
			return
		}
		if !j.step(ctx, i) {
			return
		}
	}
}

// step runs one stage and reports it. It returns whether the next may follow.
func (j *job) step(ctx context.Context, i int) bool {
	w := way[i]
	scope := j.e.scope(j.target.String(), w.stage)
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
}

func (j *job) fail(err error) {
	j.result.State, j.result.Error = event.Failed, err.Error()
}

// finish says what the target came to.
func (j *job) finish(last Stage) {
	j.release()
	switch {
	case j.result.State == event.Failed:
	case j.nothing != nil:
		j.result.State, j.result.Reason = event.Skipped, "nothing to do: "+j.plan.Reason
	case last != Publish:
		j.result.State, j.result.Reason = event.Finished, fmt.Sprintf("done up to %s, as asked", last)
	default:
		j.result.State, j.result.Reason = event.Finished, "published"
	}
}
