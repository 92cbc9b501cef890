package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
)

// Retained is what a retention does with one repository; its JSON form is the output of `kmi-tui retain --output json`.
type Retained = publish.Retained

// RetainYoung is how long what was published stays, however much came after it.
const RetainYoung = 7 * 24 * time.Hour

// Retain removes old publications from the repositories of flavors (globs; empty: all): of each version the newest keep
// stay, and everything of the last RetainYoung. Without carryOut it only says what it would do. What fails in one
// repository is in its entry, and the others go on; the error is a *NotStarted.
func (e *Engine) Retain(ctx context.Context, flavors []string, keep int, carryOut bool) ([]Retained, error) {
	if keep < 1 {
		return nil, &NotStarted{event.WithRemedy(errors.New("nothing says how many publications of a version stay"), "write --keep N, or keep = N in [project] of %s", e.cfg.Catalog.Path)}
	}
	chosen, _, err := e.chosen(Selection{Only: flavors}, true)
	if err != nil {
		return nil, err
	}
	all := make([]Retained, len(chosen))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, f := range chosen {
		wg.Add(1)
		go func() {
			defer wg.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			repo, err := e.registry.Repository(f.ID)
			if err != nil {
				all[i] = Retained{Repository: f.ID, Error: err.Error()}
				return
			}
			done, err := publish.Retain(ctx, repo, publish.Retention{Keep: keep, Young: RetainYoung, Now: e.cfg.Now()}, carryOut)
			if err != nil {
				all[i] = Retained{Repository: repo.String()}
				all[i].Error, all[i].Remedy = explain(err)
				return
			}
			all[i] = *done
		}()
	}
	wg.Wait()
	return all, nil
}
