package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
)

// Known is what was found out about a target by earlier plans, looks and runs with this destination.
type Known struct {
	Plan   Plan                 `json:"plan"`             // the last that was made; after a run that published, what is published now
	Seen   time.Time            `json:"seen"`             // when
	Stages map[Stage]StageKnown `json:"stages,omitempty"` // how each stage ended last
}

// StageKnown is how a stage of a target ended last. A stage that had nothing to do takes the place of a failure, but not
// of the success that it refers to. A stage that was cancelled is not in it.
type StageKnown struct {
	State   event.Kind `json:"state"` // finished, skipped or failed
	Reason  string     `json:"reason,omitempty"`
	Error   string     `json:"error,omitempty"`
	At      time.Time  `json:"at"` // when it ended
	Seconds float64    `json:"seconds,omitempty"`
}

const (
	knownFormat  = 1
	knownMost    = 16 << 20 // bytes of the file; there is about 1 KiB a target in it
	knownPlaces  = 8        // destinations that are remembered
	knownPatient = 5 * time.Second
)

// knownFile is the file in the cache: what is known of each target, by where it is published.
type knownFile struct {
	Version      int                   `json:"version"`
	Destinations map[string]knownPlace `json:"destinations"`
}

type knownPlace struct {
	Updated time.Time        `json:"updated"`
	Targets map[string]Known `json:"targets"`
}

// knownPath is where what is known is kept.
func (e *Engine) knownPath() string { return e.cache.Path("records", "known.json") }

// place is the destination as the file names it: a folder by its whole path.
func (e *Engine) place() string {
	if dir, ok := strings.CutPrefix(e.cfg.Registry, "dir:"); ok {
		if abs, err := filepath.Abs(dir); err == nil {
			return "dir:" + abs
		}
	}
	return e.cfg.Registry
}

// Known is what earlier plans, looks and runs found out, by target ("debian:12/x86_64"; of a flavor without releases, by
// its ID). It asks nobody and is there at once. What cannot be read counts as not known, and the error says why; the map is
// never nil.
func (e *Engine) Known() (map[string]Known, error) {
	e.knownMu.Lock()
	defer e.knownMu.Unlock()
	f, err := e.loadKnown()
	known := f.Destinations[e.place()].Targets
	if known == nil {
		known = map[string]Known{}
	}
	return known, err
}

// errNewer is the error of a file that a newer program wrote: it is left alone.
var errNewer = errors.New("written by a newer kmi-tui")

func (e *Engine) loadKnown() (knownFile, error) {
	empty := knownFile{Version: knownFormat, Destinations: map[string]knownPlace{}}
	path := e.knownPath()
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, fetch.Explain(err, e.cache.Dir())
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, knownMost+1))
	if err != nil {
		return empty, err
	}
	var f knownFile
	switch err := json.Unmarshal(data, &f); {
	case len(data) > knownMost:
		return empty, event.WithRemedy(fmt.Errorf("%s: larger than %s: what is known of targets is not read from it", path, fetch.Size(knownMost)), "remove the file: the next look writes it anew")
	case err != nil:
		return empty, event.WithRemedy(fmt.Errorf("%s is damaged, what was known of targets is lost: %w", path, err), "the next look writes it anew")
	case f.Version > knownFormat:
		return empty, event.WithRemedy(fmt.Errorf("%s: format %d, this program reads %d: %w", path, f.Version, knownFormat, errNewer), "use that program, or remove the file")
	case f.Version != knownFormat || f.Destinations == nil:
		return empty, event.WithRemedy(fmt.Errorf("%s is damaged, what was known of targets is lost: format %d, expected %d", path, f.Version, knownFormat), "the next look writes it anew")
	}
	return f, nil
}

// learn changes what is known. It never fails a run: what goes wrong is said.
func (e *Engine) learn(change func(map[string]Known)) {
	e.knownMu.Lock()
	defer e.knownMu.Unlock()
	say := func(err error) {
		e.bus.Scope("", "", "").Log("what was found out is not remembered: " + err.Error())
	}
	ctx, cancel := context.WithTimeout(context.Background(), knownPatient)
	defer cancel()
	unlock, err := e.cache.Lock(ctx, "known", nil)
	if err != nil {
		say(err)
		return
	}
	defer unlock()
	f, err := e.loadKnown()
	if errors.Is(err, errNewer) {
		say(err)
		return
	} else if err != nil {
		e.bus.Scope("", "", "").Log(err.Error())
	}
	now := e.cfg.Now().UTC()
	p := f.Destinations[e.place()]
	if p.Targets == nil {
		p.Targets = map[string]Known{}
	}
	change(p.Targets)
	p.Updated = now
	f.Destinations[e.place()] = p
	for len(f.Destinations) > knownPlaces {
		oldest := ""
		for name, d := range f.Destinations {
			if name != e.place() && (oldest == "" || d.Updated.Before(f.Destinations[oldest].Updated)) {
				oldest = name
			}
		}
		delete(f.Destinations, oldest)
	}
	data, err := json.Marshal(f)
	if err == nil && len(data) > knownMost {
		err = fmt.Errorf("it would take %s, more than %s", fetch.Size(int64(len(data))), fetch.Size(knownMost))
	}
	if err == nil {
		err = fetch.WriteFile(e.knownPath(), append(data, '\n'), 0o644)
	}
	if err != nil {
		say(err)
	}
}

// add puts how stages ended to what was known of them.
func (k *Known) add(ends map[Stage]StageKnown) {
	if len(ends) == 0 {
		return
	}
	stages := maps.Clone(k.Stages)
	if stages == nil {
		stages = map[Stage]StageKnown{}
	}
	for s, end := range ends {
		if old, ok := stages[s]; ok && end.State == event.Skipped && old.State == event.Finished {
			continue
		}
		stages[s] = end
	}
	k.Stages = stages
}

// notes collects the plans of one look.
type notes struct {
	e     *Engine
	all   bool // it is about everything
	plain bool // what it finds holds for the next look, too
	list  []noted
}

type noted struct {
	plan Plan
	ends map[Stage]StageKnown
	at   time.Time
}

// notes begins them for a selection. Plans of an unusual question (up to a stage, or by force) are no news of the target.
func (e *Engine) notes(sel Selection) *notes {
	return &notes{e: e, all: len(sel.Only) == 0 && len(sel.Levels) == 0, plain: sel.Until == "" && !sel.Force}
}

// plan notes one; the caller sees to it that one comes at a time.
func (n *notes) plan(p Plan, ends map[Stage]StageKnown) {
	n.list = append(n.list, noted{p, ends, n.e.cfg.Now().UTC()})
}

// keep remembers them. What a whole look about everything has not met exists no more, but for the targets of flavors whose
// releases could not be found.
func (n *notes) keep(whole bool) {
	if !n.plain || len(n.list) == 0 {
		return
	}
	n.e.learn(func(known map[string]Known) {
		met, unknown := map[string]bool{}, map[string]bool{}
		for _, p := range n.list {
			met[p.plan.Target] = true
			unknown[p.plan.Target] = p.plan.Action == Fail
			k := known[p.plan.Target]
			k.Plan, k.Seen = p.plan, p.at
			k.add(p.ends)
			known[p.plan.Target] = k
		}
		if whole && n.all {
			maps.DeleteFunc(known, func(name string, _ Known) bool {
				flavor, _, _ := strings.Cut(name, ":")
				return !met[name] && !unknown[flavor]
			})
		}
	})
}

// learned keeps what a job of a run came to.
func (j *job) learned() {
	if len(j.ends) == 0 {
		return
	}
	now := j.e.cfg.Now().UTC()
	p := j.plan
	end, resolved := j.ends[Resolve]
	published, done := j.ends[Publish]
	switch {
	case !resolved:
	case end.State == event.Failed:
		p.Action, p.Reason, p.Remedy = Fail, j.result.Error, j.result.Remedy
	case done && published.State == event.Finished:
		p.Action, p.Reason = None, fmt.Sprintf("content %s is published", short(j.content))
		if j.retag && p.Published != nil { // only its tags are new
			now := *p.Published
			now.Tags = j.result.Tags
			p.Published = &now
			break
		}
		p.Published = &Published{Digest: j.digest.String(), Tags: j.result.Tags, Date: j.pulled.UTC().Truncate(24 * time.Hour), ContentKey: "sha256:" + j.content, Build: j.snapshot.Build, Signature: "verified " + j.signedBy}
	case j.force:
		resolved = false // it had been built anyway: that is no news of the target
	}
	j.e.learn(func(known map[string]Known) {
		k := known[j.target.String()]
		if resolved {
			k.Plan, k.Seen = p, now
		} else if k.Seen.IsZero() {
			k.Plan, k.Seen = j.plan, now
		}
		k.add(j.ends)
		known[j.target.String()] = k
	})
}
