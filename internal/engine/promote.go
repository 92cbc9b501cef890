package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/pmezard/go-difflib/difflib"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	"github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
	"github.com/ContainerCraft/kmi-tui/internal/engine/readme"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
)

// CriterionState is what is known of a criterion.
type CriterionState string

const (
	Proven   CriterionState = "proven"   // this program has just seen it
	Unproven CriterionState = "unproven" // it cannot tell: somebody has to vouch for it
	Against  CriterionState = "failed"   // it has seen that it does not hold
	Stated   CriterionState = "stated"   // somebody vouches for it
	Waived   CriterionState = "waived"   // it need not hold
)

// Criterion is one demand of the image criteria on a flavor.
type Criterion struct {
	ID       string         `json:"id"`
	Text     string         `json:"text"`
	Waivable bool           `json:"waivable"`
	State    CriterionState `json:"state"`
	Evidence string         `json:"evidence"` // what was seen, or what somebody says
}

// Promotion is a change of a flavor's level, with what it is based on. Nothing is written before Write.
type Promotion struct {
	Flavor   string        `json:"flavor"`
	From     catalog.Level `json:"from"`
	To       catalog.Level `json:"to"`
	Criteria []Criterion   `json:"criteria"` // of a step down: none
	Diff     string        `json:"diff"`     // unified, of the catalogue and of README.md

	reason string
	files  []edit
	lock   func(context.Context) (func(), error)
}

// Ask says what a promotion is to be.
type Ask struct {
	Flavor string
	To     catalog.Level
	Reason string            // of a step down it has to be there
	By     string            // who decides, if they want it to be kept
	Stated map[string]string // by criterion: what somebody vouches for
	Waived map[string]string // by criterion: why it need not hold
}

// criterion is one of the criteria, and how it is proven.
type criterion struct {
	id       string
	from     catalog.Level // from which on it is demanded
	text     string
	waivable bool
	prove    func(*evidence) (CriterionState, string) // nil: this program cannot
}

// criteria are the image criteria of README.md, in its order.
var criteria = []criterion{
	{"described", catalog.Preview, "the catalogue says how its image is made, for every architecture of the chart", false, (*evidence).described},
	{"redistribution", catalog.Preview, "its licence lets others have it", false, (*evidence).redistribution},
	{"published", catalog.Proposed, "the newest release is published for every architecture of the chart", false, (*evidence).published},
	{"signature", catalog.Proposed, "index and images are signed by our key (cosign)", false, (*evidence).signed},
	{"tested", catalog.Proposed, "every image has passed the boot test's baseline", false, (*evidence).tested},
	{"additions", catalog.Proposed, "additional packages, sources, files and commands were scrutinised", false, (*evidence).additions},
	{"reliable", catalog.Proposed, "the last four weeks' runs went well", false, (*evidence).reliable},
	{"source", catalog.Stable, "metadata: source of the image, and the repository's commit", false, fields("source", "commit")},
	{"pulled", catalog.Stable, "metadata: date pulled from upstream", false, fields("pulled")},
	{"checksums", catalog.Stable, "metadata: checksums that were validated during the build", false, fields("checksum")},
	{"documentation", catalog.Stable, "metadata: URLs of upstream's documentation and download", false, fields("documentation", "download")},
	{"licence", catalog.Stable, "metadata: the distribution's licence, and the guest's licence files", false, fields("licence", "licence-files")},
	{"entrypoint", catalog.Stable, "entrypoint.sh prints any or all of it", false, (*evidence).entrypoint},
	{"size", catalog.Stable, "within the registry's size limits", false, (*evidence).size},
	{"qcow", catalog.Stable, "qcow2, sparse and compressed", false, (*evidence).qcow},
	{"packages", catalog.Stable, "git, vim, tmux, net-tools, screenfetch and qemu-guest-agent, where applicable", true, (*evidence).packages},
	{"agent", catalog.Stable, "the guest agent provisions ssh keys from a Kubernetes secret", false, (*evidence).tested},
	{"base", catalog.Stable, "in the approved minimal base container", false, (*evidence).base},
	{"kubevirt", catalog.Stable, "boots on KubeVirt by the standard baseline", false, nil},
	{"hardening", catalog.Stable, "SELinux, AppArmor and firewall as the distribution's best practices have them", false, nil},
	{"cloud-init", catalog.Stable, "cloud-init configures guest and users", true, (*evidence).cloudInit},
	{"basics", catalog.Stable, "storage, network and the system's functions behave as expected", false, (*evidence).tested},
	{"try-me", catalog.Stable, "README.md has its Try Me", false, (*evidence).tryMe},
	{"uses", catalog.Stable, "a living document of common uses and applications", false, (*evidence).uses},
	{"enhancements", catalog.Stable, "major enhancements that were planned are finished", false, nil},
	{"upstream", catalog.Stable, "ready for kubevirt/containerdisks", true, nil},
}

// evidence is what is looked at for a promotion.
type evidence struct {
	e       *Engine
	flavor  *catalog.Flavor
	targets []Target // of the newest release
	others  []Plan   // what is no target, and why
	images  []seenImage
	readme  []byte
	known   map[string]Known
	past    []PastRun
}

// seenImage is what the registry has of one target.
type seenImage struct {
	target Target
	err    error // it could not be looked at (a *notSeen), or is not there
	state  *publish.State
	signed error             // why it is not signed as it should be; nil: it is
	fields map[string]any    // of /kmi/metadata.json
	files  map[string][]byte // others of its metadata
	layers []v1.Descriptor
}

// notSeen is the error of what could not be looked at: that proves nothing, neither for nor against.
type notSeen struct{ error }

func (n *notSeen) Unwrap() error { return n.error }

// unseen makes the error of a registry or a folder that could not be asked a *notSeen. What an image holds, or does not
// hold, is not one: only errors of asking come with a remedy.
func unseen(err error) error {
	var remedied *event.Remedied
	var file *fs.PathError
	if (errors.As(err, &remedied) || errors.As(err, &file)) && !errors.Is(err, publish.ErrNotFound) && !errors.Is(err, publish.ErrContent) {
		return &notSeen{err}
	}
	return err
}

// Promotion looks at what a flavor's images prove, and makes the change of its level by one step. Nothing is written. Its
// error is a *NotStarted: no such flavor or step, a criterion that nobody knows, files that cannot be edited.
func (e *Engine) Promotion(ctx context.Context, ask Ask) (*Promotion, error) {
	i := slices.IndexFunc(e.cfg.Catalog.Flavors, func(f catalog.Flavor) bool { return f.ID == ask.Flavor })
	if i < 0 {
		_, _, err := e.chosen(Selection{Only: []string{ask.Flavor}}, true)
		return nil, cmp.Or(err, error(notStarted("%q is a pattern: name one flavor", ask.Flavor)))
	}
	f := &e.cfg.Catalog.Flavors[i]
	if !slices.Contains(catalog.Levels, ask.To) {
		return nil, notStarted("level %q: write one of planned, preview, proposed, stable", ask.To)
	}
	steps := ask.To.Rank() - f.Level.Rank()
	switch {
	case steps == 0:
		return nil, notStarted("%s is %s already", f.ID, f.Level)
	case steps > 1 || steps < -1:
		return nil, notStarted("%s is %s: levels change one step at a time, next is %s", f.ID, f.Level, catalog.Levels[f.Level.Rank()+sign(steps)])
	case steps < 0 && strings.TrimSpace(ask.Reason) == "":
		return nil, &NotStarted{event.WithRemedy(errors.New("a step down has a reason"), "write --reason TEXT")}
	}
	for _, given := range []map[string]string{ask.Stated, ask.Waived} {
		for id := range given {
			if !slices.ContainsFunc(criteria, func(c criterion) bool { return c.id == id }) {
				return nil, notStarted("%q is no criterion; they are: %s", id, strings.Join(criterionIDs(), ", "))
			}
		}
	}
	p := &Promotion{Flavor: f.ID, From: f.Level, To: ask.To, reason: ask.Reason, Criteria: []Criterion{}}
	change := catalog.Promotion{From: f.Level, To: ask.To, Date: e.cfg.Now().UTC().Format(time.DateOnly), By: ask.By, Reason: ask.Reason}
	if steps > 0 {
		ev := e.evidence(ctx, f)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		for _, c := range criteria {
			if c.from.Rank() > ask.To.Rank() {
				continue
			}
			one := c.judge(ev, ask)
			switch one.State {
			case Stated:
				put(&change.Stated, c.id, one.Evidence)
			case Waived:
				put(&change.Waived, c.id, one.Evidence)
			}
			p.Criteria = append(p.Criteria, one)
		}
	}
	return p, p.edits(e, change)
}

func sign(n int) int {
	if n < 0 {
		return -1
	}
	return 1
}

func put(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

func criterionIDs() (ids []string) {
	for _, c := range criteria {
		ids = append(ids, c.id)
	}
	return ids
}

// judge says what is known of a criterion. What was seen to be wrong cannot be stated away.
func (c criterion) judge(ev *evidence, ask Ask) Criterion {
	one := Criterion{ID: c.id, Text: c.text, Waivable: c.waivable, State: Unproven, Evidence: "this program cannot see it"}
	if c.prove != nil {
		one.State, one.Evidence = c.prove(ev)
	}
	one.Evidence = event.Clean(one.Evidence)
	if words := strings.TrimSpace(ask.Stated[c.id]); words != "" && one.State == Unproven {
		one.State, one.Evidence = Stated, words
	}
	if words := strings.TrimSpace(ask.Waived[c.id]); words != "" && c.waivable && one.State != Proven {
		one.State, one.Evidence = Waived, words
	}
	return one
}

// Ready says whether every criterion is passed; the error names those that are not, and what to do about each.
func (p *Promotion) Ready() error {
	var open, remedies []string
	for _, c := range p.Criteria {
		switch {
		case c.State == Unproven:
			open = append(open, c.ID+" is unproven")
			remedy := fmt.Sprintf("--state %s=TEXT", c.ID)
			if c.Waivable {
				remedy += fmt.Sprintf(" (or --waive %s=REASON)", c.ID)
			}
			remedies = append(remedies, remedy)
		case c.State == Against && c.Waivable:
			open = append(open, c.ID+" is not met: "+c.Evidence)
			remedies = append(remedies, fmt.Sprintf("--waive %s=REASON", c.ID))
		case c.State == Against:
			open = append(open, c.ID+" is not met: "+c.Evidence)
		}
	}
	if len(open) == 0 {
		return nil
	}
	err := fmt.Errorf("%s cannot be %s yet: %s", p.Flavor, p.To, strings.Join(open, "; "))
	if len(remedies) > 0 {
		err = event.WithRemedy(err, "if it holds all the same, say so: %s", strings.Join(remedies, " "))
	}
	return err
}

// edit is one file's change.
type edit struct {
	path     string // without symbolic links
	old, new []byte
	mode     fs.FileMode
}

// edits makes the change of both files, and their difference.
func (p *Promotion) edits(e *Engine, change catalog.Promotion) error {
	file := e.cfg.Catalog.Path
	catalogue, err := openEdit(file)
	if err != nil {
		return &NotStarted{err}
	}
	if catalogue.new, err = catalog.Promote(file, catalogue.old, p.Flavor, change); err != nil {
		return &NotStarted{err}
	}
	p.files = []edit{*catalogue}
	text, err := openEdit(filepath.Join(filepath.Dir(file), "README.md"))
	if err == nil {
		changed, perr := catalog.Parse(file, catalogue.new)
		if perr != nil {
			return &NotStarted{perr}
		}
		if text.new, err = readme.SetRow(text.old, changed, p.Flavor); err != nil {
			return &NotStarted{fmt.Errorf("%s: %w", text.path, err)}
		}
		p.files = append(p.files, *text)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return &NotStarted{err}
	}
	p.Diff = diff(p.files)
	p.lock = e.editing
	return nil
}

// editing keeps other runs of this program out of the files.
func (e *Engine) editing(ctx context.Context) (func(), error) {
	return e.cache.Lock(ctx, "edit-"+hexOf(e.cfg.Catalog.Path), e.bus.Scope("", "", ""))
}

// Write writes both files or none. A promotion that is not Ready, or files that have changed since they were read, are
// errors.
func (p *Promotion) Write(ctx context.Context) error {
	if err := p.Ready(); err != nil {
		return err
	}
	return writeEdits(ctx, p.lock, p.files)
}

func openEdit(name string) (*edit, error) {
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(real)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(real)
	return &edit{path: real, old: data, mode: info.Mode().Perm()}, err
}

// diff is the unified difference of files, as patch takes it.
func diff(files []edit) string {
	var b strings.Builder
	for _, f := range files {
		name := path.Base(filepath.ToSlash(f.path))
		text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: difflib.SplitLines(string(f.old)), B: difflib.SplitLines(string(f.new)),
			FromFile: "a/" + name, ToFile: "b/" + name, Context: 3})
		if err == nil && !bytes.Equal(f.old, f.new) {
			b.WriteString(text)
		}
	}
	return b.String()
}

// writeEdits writes all of the files or none: each under a temporary name, then all of them under their own. One that
// somebody has changed meanwhile is refused.
func writeEdits(ctx context.Context, lock func(context.Context) (func(), error), files []edit) error {
	return writeEditsWith(ctx, lock, files, os.Rename)
}

func writeEditsWith(ctx context.Context, lock func(context.Context) (func(), error), files []edit, rename func(from, to string) error) (err error) {
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var names []string
	defer func() {
		for _, n := range names {
			_ = os.Remove(n)
		}
	}()
	for _, f := range files {
		name, err := beside(f)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	for _, f := range files { // at the last moment: writing takes its time, and editors keep to no lock
		if err := f.unchanged(); err != nil {
			return err
		}
	}
	for i, f := range files {
		if err := rename(names[i], f.path); err != nil {
			for _, done := range files[:i] { // back to what it was
				name, berr := beside(edit{done.path, nil, done.old, done.mode})
				if berr == nil {
					names = append(names, name) // gone once it is renamed
					berr = rename(name, done.path)
				}
				if berr != nil {
					err = fmt.Errorf("%w; and %s could not be put back: %w", err, done.path, berr)
				}
			}
			return err
		}
	}
	for _, f := range files { // so that a power cut does not undo a part of it
		if d, err := os.Open(filepath.Dir(f.path)); err == nil {
			_ = d.Sync()
			_ = d.Close()
		}
	}
	return nil
}

// unchanged makes sure that the file has still the content that the edit was made of.
func (f *edit) unchanged() error {
	now, err := os.ReadFile(f.path)
	if err == nil && !bytes.Equal(now, f.old) {
		err = event.WithRemedy(fmt.Errorf("%s has changed since it was read: nothing was written", f.path), "look again")
	}
	return err
}

// beside writes a file's new content under a temporary name in its folder.
func beside(f edit) (name string, err error) {
	t, err := os.CreateTemp(filepath.Dir(f.path), ".kmi-tui-*")
	if err != nil {
		return "", err
	}
	_, err = t.Write(f.new)
	if err = errors.Join(err, t.Chmod(f.mode), t.Sync(), t.Close()); err != nil {
		_ = os.Remove(t.Name())
	}
	return t.Name(), err
}

// evidence looks at everything that criteria are judged by.
func (e *Engine) evidence(ctx context.Context, f *catalog.Flavor) *evidence {
	ev := &evidence{e: e, flavor: f}
	targets, others := e.targets(e.lineup(ctx, nil, f, Resolve), nil)
	for _, t := range targets {
		if t.Newest {
			ev.targets = append(ev.targets, t)
		}
	}
	ev.others = others
	ev.readme, _ = os.ReadFile(filepath.Join(filepath.Dir(e.cfg.Catalog.Path), "README.md"))
	ev.known, _ = e.Known()
	ev.past, _ = e.History(4)
	for _, t := range ev.targets {
		ev.images = append(ev.images, e.see(ctx, t))
	}
	return ev
}

// see looks at what is published of a target.
func (e *Engine) see(ctx context.Context, t Target) (s seenImage) {
	s.target = t
	fail := func(err error) seenImage { s.err = unseen(err); return s }
	repo, err := e.registry.Repository(t.Flavor.ID)
	if err != nil {
		return fail(err)
	}
	if s.state, err = publish.Current(ctx, repo, t.Release.Version, t.Arch); err != nil {
		return fail(err)
	}
	if s.state == nil || s.state.Entry == nil {
		return fail(fmt.Errorf("it is not published at %s", e.cfg.Registry))
	}
	key, err := e.verifier(ctx)
	if err == nil && key == nil {
		err = errors.New("there is no key to verify with: name one with --key")
	}
	if err != nil {
		err = &notSeen{err}
	}
	for _, digest := range []v1.Hash{s.state.Index.Digest, s.state.Entry.Digest} {
		if err != nil {
			break
		}
		var sigs v1.Image
		if sigs, err = publish.Signatures(ctx, repo, digest); err != nil {
			err = unseen(err)
		} else {
			err = trust.Verify(ctx, key, digest, sigs)
		}
	}
	if s.signed = err; err != nil {
		return s // its words are nobody's
	}
	img, err := repo.Image(ctx, s.state.Entry.Digest.String())
	if err != nil {
		return fail(err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return fail(err)
	}
	s.layers = manifest.Layers
	if s.files, err = publish.Metadata(img, "kmi/metadata.json", "kmi/packages.txt", container.Script); err != nil {
		return fail(err)
	}
	if err := json.Unmarshal(s.files["kmi/metadata.json"], &s.fields); err != nil {
		return fail(fmt.Errorf("/kmi/metadata.json: %w", err))
	}
	return s
}

// described asks the catalogue only: whoever judges need not be able to build here.
func (ev *evidence) described() (CriterionState, string) {
	var can, cannot []string
	for _, t := range ev.targets {
		if _, why := undescribed(t); why != "" {
			cannot = append(cannot, t.String()+": "+why)
		} else {
			can = append(can, t.String())
		}
	}
	for _, o := range ev.others {
		if strings.Contains(o.Reason, "left out") {
			continue
		}
		cannot = append(cannot, o.Target+": "+o.Reason)
	}
	if len(cannot) > 0 || len(can) == 0 {
		return Against, strings.Join(append(cannot, "no release is known: look at upstreams first")[:max(1, len(cannot))], "; ")
	}
	return Proven, strings.Join(can, ", ")
}

func (ev *evidence) redistribution() (CriterionState, string) {
	switch f := ev.flavor; {
	case f.Redistribution == catalog.Free:
		return Proven, "free"
	case f.Redistribution == catalog.Unclear && f.Decision != "":
		return Proven, f.Decision
	default:
		return Against, fmt.Sprintf("%s: %s", f.Redistribution, f.Because)
	}
}

// each judges every image of the newest release. What was seen to be wrong with one of them counts against all; what could
// not be looked at leaves it open.
func (ev *evidence) each(good func(s seenImage) (string, error)) (CriterionState, string) {
	if len(ev.images) == 0 {
		return Unproven, "no release is known whose images could be looked at: look at upstreams first"
	}
	var seen, wrong, dark []string
	for _, s := range ev.images {
		err := cmp.Or(s.err, s.signed)
		text := ""
		if err == nil {
			text, err = good(s)
		}
		var not *notSeen
		if errors.As(err, &not) {
			dark = append(dark, s.target.String()+": "+err.Error())
		} else if err != nil {
			wrong = append(wrong, s.target.String()+": "+err.Error())
		} else if !slices.Contains(seen, text) {
			seen = append(seen, text)
		}
	}
	switch {
	case len(wrong) > 0:
		return Against, strings.Join(append(wrong, dark...), "; ")
	case len(dark) > 0:
		return Unproven, strings.Join(dark, "; ")
	}
	return Proven, strings.Join(seen, "; ")
}

func (ev *evidence) published() (CriterionState, string) {
	if n := len(ev.targets); n > 0 && n < len(ev.flavor.Arch) {
		return Against, fmt.Sprintf("%d of the chart's %d architectures are offered by upstream's newest release", len(ev.targets), len(ev.flavor.Arch))
	}
	for i := range ev.images { // that it is there needs no key
		if s := ev.images[i]; s.err == nil && s.signed != nil {
			ev.images[i].signed = nil
			defer func() { ev.images[i].signed = s.signed }()
		}
	}
	return ev.each(func(s seenImage) (string, error) { return s.state.Index.Digest.String(), nil })
}

func (ev *evidence) signed() (CriterionState, string) {
	return ev.each(func(s seenImage) (string, error) { return "verified just now: " + s.state.Entry.Digest.String(), nil })
}

func (ev *evidence) tested() (CriterionState, string) {
	return ev.each(func(s seenImage) (string, error) {
		word := s.state.Labels()[container.LabelTested]
		if word == "" || word == "no" {
			return "", errors.New("it was not tested")
		}
		return string(s.target.Arch) + ": " + word, nil
	})
}

// additions lists what the row puts into the guest besides the distribution and the project's default packages. Only
// people can scrutinise it; where there is none, there is nothing to scrutinise.
func (ev *evidence) additions() (CriterionState, string) {
	o := ev.flavor.Origin
	if o == nil {
		return Unproven, "the row does not say what its image is made of"
	}
	var list []string
	add := func(what string, texts ...string) {
		if len(texts) > 0 {
			list = append(list, what+": "+strings.Join(texts, ", "))
		}
	}
	add("sources", o.Sources...)
	var files []string
	for _, f := range o.Files {
		files = append(files, f.Path)
	}
	add("files", files...)
	if o.Customise != nil {
		add("commands before everything else", o.Customise.Prepare...)
	}
	add("commands", o.Run...)
	if len(list) == 0 {
		return Proven, "nothing besides the distribution and the project's default packages"
	}
	return Unproven, strings.Join(list, "; ")
}

// reliable looks at the runs of the last weeks: at least four that took in the flavor, none that failed.
func (ev *evidence) reliable() (CriterionState, string) {
	went, failed := 0, []string{}
	for _, run := range ev.past {
		bad, took := "", false
		for _, r := range run.Results {
			if id, _, _ := strings.Cut(r.Target, ":"); id != ev.flavor.ID {
				continue
			}
			took = true
			if r.State == event.Failed {
				bad = r.Target + ": " + r.Error
			}
		}
		if took && bad != "" {
			failed = append(failed, run.Began.Format(time.DateOnly)+" "+bad)
		} else if took {
			went++
		}
	}
	switch {
	case len(failed) > 0:
		return Unproven, fmt.Sprintf("%d runs went well and %d failed in four weeks, the last one: %s", went, len(failed), failed[0])
	case went < 4:
		return Unproven, fmt.Sprintf("%d of four runs that went well in the last four weeks are known here", went)
	}
	return Proven, fmt.Sprintf("%d runs in four weeks, none failed", went)
}

// fields asks for metadata that is not empty.
func fields(names ...string) func(*evidence) (CriterionState, string) {
	return func(ev *evidence) (CriterionState, string) {
		return ev.each(func(s seenImage) (string, error) {
			var seen []string
			for _, n := range names {
				text := ""
				switch v := s.fields[n].(type) {
				case string:
					text = v
				case []any:
					text = strings.Trim(fmt.Sprint(v...), "[]")
				}
				if text == "" || text == "unknown" {
					return "", fmt.Errorf("its metadata has no %s", n)
				}
				seen = append(seen, text)
			}
			return strings.Join(seen, ", "), nil
		})
	}
}

func (ev *evidence) entrypoint() (CriterionState, string) {
	return ev.each(func(s seenImage) (string, error) {
		if !bytes.HasPrefix(s.files[container.Script], []byte("#!/bin/sh")) {
			return "", fmt.Errorf("it has no /%s", container.Script)
		}
		return fmt.Sprintf("/%s, %d bytes", container.Script, len(s.files[container.Script])), nil
	})
}

func (ev *evidence) size() (CriterionState, string) {
	return ev.each(func(s seenImage) (string, error) {
		for _, l := range s.layers {
			if ev.e.limits.Layer > 0 && l.Size > ev.e.limits.Layer {
				return "", fmt.Errorf("a layer has %d bytes, and %s takes %d", l.Size, ev.e.limits.Registry, ev.e.limits.Layer)
			}
		}
		if len(s.layers) == 0 {
			return "", errors.New("it has no layers")
		}
		return fmt.Sprintf("%d MiB", s.layers[len(s.layers)-1].Size>>20), nil
	})
}

func (ev *evidence) qcow() (CriterionState, string) {
	return ev.each(func(s seenImage) (string, error) {
		size, _ := strconv.ParseInt(s.state.Labels()[container.LabelDiskSize], 10, 64)
		virtual, _ := strconv.ParseInt(s.state.Labels()[container.LabelVirtualSize], 10, 64)
		if s.fields["disk-format"] != "qcow2" || size <= 0 || virtual <= size {
			return "", fmt.Errorf("its disk is a %v of %d bytes for %d virtual ones", s.fields["disk-format"], size, virtual)
		}
		return fmt.Sprintf("qcow2, %d MiB of %d", size>>20, virtual>>20), nil
	})
}

func (ev *evidence) packages() (CriterionState, string) {
	return ev.each(func(s seenImage) (string, error) {
		list, err := disk.ParsePackages(s.files["kmi/packages.txt"])
		if err != nil {
			return "", err
		}
		have := map[string]bool{}
		for _, p := range list {
			have[p.Name] = true
		}
		var found, missing []string
		for _, want := range ev.e.cfg.Catalog.Project.Packages {
			names := want
			for _, m := range []map[string]string{ev.flavor.Origin.Packages, s.target.Release.Packages} {
				if v, ok := m[want]; ok {
					names = v
				}
			}
			if names == "" { // left out by the catalogue, which is reviewed
				continue
			}
			choice := strings.FieldsFunc(names, func(r rune) bool { return r == '|' || r == ' ' })
			if i := slices.IndexFunc(choice, func(n string) bool { return have[n] }); i >= 0 {
				found = append(found, choice[i])
			} else {
				missing = append(missing, want)
			}
		}
		if len(missing) > 0 {
			return "", fmt.Errorf("not among its %d packages: %s", len(list), strings.Join(missing, ", "))
		}
		return strings.Join(found, ", "), nil
	})
}

func (ev *evidence) base() (CriterionState, string) {
	approved, _, _ := strings.Cut(ev.e.cfg.Catalog.Base.Image, "@")
	approved, _, _ = strings.Cut(approved, ":")
	return ev.each(func(s seenImage) (string, error) {
		name, _ := s.fields["base"].(string)
		if approved == "" || !strings.HasPrefix(name, approved+"@") && !strings.HasPrefix(name, approved+":") {
			return "", fmt.Errorf("its base is %s, and the catalogue's is %s", name, approved)
		}
		return name, nil
	})
}

// cloudInit is a part of the boot test's baseline where cloud-init configures the guest.
func (ev *evidence) cloudInit() (CriterionState, string) {
	if p := ev.flavor.Provision; p != "" && p != "cloud-init" {
		return Against, "it is configured by " + p
	}
	return ev.tested()
}

func (ev *evidence) tryMe() (CriterionState, string) {
	if _, _, ok := readme.Block(ev.readme, ev.flavor.ID); !ok {
		return Against, "README.md has no Try Me of " + ev.flavor.ID + ": kmi-tui tryme " + ev.flavor.ID + " --write"
	}
	return Proven, "README.md has one"
}

func (ev *evidence) uses() (CriterionState, string) {
	file := filepath.Join(filepath.Dir(ev.e.cfg.Catalog.Path), "docs", "images", ev.flavor.ID+".md")
	if info, err := os.Stat(file); err == nil && info.Size() > 0 {
		return Proven, "docs/images/" + ev.flavor.ID + ".md"
	}
	return Unproven, "there is no docs/images/" + ev.flavor.ID + ".md"
}
