package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Usual is how long a stage of a target usually takes: the median of the last runs in which it had something to do and
// did it.
type Usual struct {
	Time time.Duration
	Runs int // that it was taken from: 1 to 5
}

// usualRuns is how many runs count: what a stage took months ago says little.
const usualRuns = 5

// UsualTimes are how long the stages of each target ("debian:13/x86_64") usually take, by runs of the same target, the
// newest first, as History lists them. Sign and publish are judged by runs to the same destination only. A stage that
// never ended well in them is not in it.
func UsualTimes(past []PastRun, destination string) map[string]map[Stage]Usual {
	took := map[string]map[Stage][]float64{}
	for _, run := range past {
		for _, r := range run.Results {
			for _, s := range r.Stages {
				if s.State != event.Finished || s.Seconds <= 0 || (s.Stage == Sign || s.Stage == Publish) && run.Destination != destination {
					continue
				}
				if took[r.Target] == nil {
					took[r.Target] = map[Stage][]float64{}
				}
				if list := took[r.Target][s.Stage]; len(list) < usualRuns {
					took[r.Target][s.Stage] = append(list, s.Seconds)
				}
			}
		}
	}
	usual := map[string]map[Stage]Usual{}
	for target, stages := range took {
		usual[target] = map[Stage]Usual{}
		for stage, list := range stages {
			slices.SortFunc(list, cmp.Compare[float64])
			n := len(list)
			usual[target][stage] = Usual{time.Duration((list[(n-1)/2] + list[n/2]) / 2 * float64(time.Second)), n}
		}
	}
	return usual
}
