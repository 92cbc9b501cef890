package ui

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/hinshun/vt10x"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/boot"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// weeks is a project in the middle of its life: what is known of it, its runs and its images.
func weeks() *script {
	s := newScript()
	day := func(n int) time.Time { return noon.AddDate(0, 0, -n) }
	up := func(build string, n int) *engine.Upstream {
		return &engine.Upstream{URL: "https://mirror.example/" + build + "/disk.qcow2", Size: 312 << 20, Date: day(n), Build: build, Checksum: "sha256:" + strings.Repeat("ab", 32),
			Signature: "verified 4D64FEC119C2029067D6E791F8D2585B8783D481", Trust: "checksum signed (openpgp)"}
	}
	pub := func(build, signature string, n int) *engine.Published {
		return &engine.Published{Digest: "sha256:" + strings.Repeat("cd", 32), Tags: []string{"13", "13-20261116"}, Date: day(n), ContentKey: "sha256:0123456789ab", Build: build, Signature: signature}
	}
	stages := func(n int, ends ...string) map[engine.Stage]engine.StageKnown {
		m := map[engine.Stage]engine.StageKnown{}
		for i, e := range ends {
			k := engine.StageKnown{State: event.Finished, At: day(n), Seconds: float64(10 * (i + 1))}
			switch {
			case e == "":
				continue
			case e == "none":
				k.State, k.Reason = event.Skipped, "its disk is published"
			case e != "done":
				k.State, k.Error = event.Failed, e
			}
			m[engine.Stages[i]] = k
		}
		return m
	}
	all := []string{"done", "done", "done", "done", "done", "done", "done"}
	s.known = map[string]engine.Known{
		"debian:13/x86_64": {Seen: day(1), Stages: stages(7, all...), Plan: engine.Plan{Target: "debian:13/x86_64", Action: engine.Build, Reason: "the guest has changed: published is content 0123456789ab, newest is ba9876543210",
			Upstream: up("13.8-20261120", 3), Published: pub("13.8-20261116", "", 7), Licence: &engine.Licence{Redistribution: "free"}}},
		"debian:12/x86_64": {Seen: day(1), Stages: stages(7, all...), Plan: engine.Plan{Target: "debian:12/x86_64", Action: engine.None, Reason: "content 0123456789ab is published",
			Upstream: up("12.15-20261101", 22), Published: pub("12.15-20261101", "verified 0123456789abcdef", 22)}},
		"ubuntu:26.04/x86_64": {Seen: day(1), Stages: stages(2, "done", "done", "done", "done", "the guest agent did not answer within 300 s"), Plan: engine.Plan{Target: "ubuntu:26.04/x86_64", Action: engine.Build,
			Reason: "not published yet", Upstream: up("20261118", 5)}},
		"ubuntu:24.04/x86_64": {Seen: day(1), Stages: stages(9, "done", "done", "none", "none", "none", "none", "none"), Plan: engine.Plan{Target: "ubuntu:24.04/x86_64", Action: engine.Build,
			Reason: "published, but sha256:cdcd is signed by another key", Upstream: up("20261001", 53), Published: pub("20261001", "bad: sha256:cdcd is signed by another key", 53)}},
	}
	result := func(target string, n int, ends ...string) engine.Result {
		r := engine.Result{Target: target, State: event.Finished, Reason: "published", Stages: []engine.StageTime{}}
		for i, e := range ends {
			t := engine.StageTime{Stage: engine.Stages[i], State: event.Finished, Seconds: float64(10 * (i + 1)), Log: fmt.Sprintf("/cache/logs/%d/%s.log", n, engine.Stages[i])}
			if e != "done" {
				t.State, r.State, r.Reason = event.Failed, event.Failed, ""
				r.Error, r.Remedy = string(engine.Stages[i])+": "+e, "look at the guest's console in the log"
			}
			r.Stages = append(r.Stages, t)
		}
		return r
	}
	s.past = []engine.PastRun{
		{ID: "c", File: "/cache/runs/c.ndjson", Destination: s.destination, Began: day(2), Results: []engine.Result{result("ubuntu:26.04/x86_64", 2, "done", "done", "done", "done", "the guest agent did not answer within 300 s")}},
		{ID: "b", File: "/cache/runs/b.ndjson", Destination: s.destination, Began: day(7), Results: []engine.Result{result("debian:13/x86_64", 7, all...), result("debian:12/x86_64", 7, all...), result("ubuntu:26.04/x86_64", 7, "done", "no route to host")}},
		{ID: "a", File: "/cache/runs/a.ndjson", Destination: s.destination, Began: day(14), Results: []engine.Result{result("debian:13/x86_64", 14, all...)}},
		{ID: "x", File: "/cache/runs/x.ndjson", Destination: "elsewhere.example/kmi", Began: day(3), Results: []engine.Result{result("debian:13/x86_64", 3, "no")}},
	}
	s.images = map[string]engine.Image{"debian:13/x86_64": {
		Reference: "dir:images/debian@sha256:" + strings.Repeat("cd", 32), Index: "sha256:" + strings.Repeat("ef", 32), Tags: []string{"13", "13-20261116", "13-13.8-20261116"},
		Labels: map[string]string{"io.kmi.level": "preview", "io.kmi.tested": "uefi bios baseline 2"},
		Layers: []engine.Layer{{Digest: "sha256:" + strings.Repeat("11", 32), Type: "application/vnd.oci.image.layer.v1.tar+gzip", Size: 2 << 20, What: "kmi-tui: base"}, {Digest: "sha256:" + strings.Repeat("22", 32), Type: "application/vnd.oci.image.layer.v1.tar", Size: 300 << 20, What: "kmi-tui: disk"}},
		Disk:   strings.Repeat("33", 32), Size: 300 << 20, Virtual: 10 << 30, Local: "/cache/disks/33/disk.qcow2",
		Tested: day(7), Boots: []boot.Result{{Firmware: "uefi", Accel: "kvm", Seconds: 41, Checks: []boot.Check{{Name: "guest agent", OK: true, Detail: "answers, version 9.2", Seconds: 14}, {Name: "root grows", OK: true, Detail: "11.8 GiB of 12.0 GiB", Seconds: 30}}}},
		Changes: &engine.PackageChanges{Old: "2026-11-09", New: "2026-11-16", Changed: []engine.PackageChange{{Name: "bash", From: "5.2-1", To: "5.2-2"}}, Added: []engine.PackageChange{{Name: "zstd", To: "1.5"}}},
	}}
	for i := range s.catalog.Flavors {
		f := &s.catalog.Flavors[i]
		f.Redistribution = catalog.Free
		if f.ID == "vyos" || f.ID == "amazonlinux" {
			f.Redistribution, f.Because = catalog.Unclear, "its EULA does not say who may pass images on"
		}
	}
	return s
}

// inWeeks is a console on them that has read what is known.
func inWeeks(look Appearance, w, h int) *model {
	s := weeks()
	m := modelOf(s)
	m.dress(look)
	m.knows(knownMsg{known: s.known})
	m.Update(tea.WindowSizeMsg{Width: w, Height: h})
	return m
}

// shown puts a frame on an emulated terminal and reads it from there; with colours, each line is followed by what of it
// is painted.
func shown(m *model, colours bool) string {
	vt := vt10x.New(vt10x.WithSize(max(1, m.w), max(1, m.h)))
	_, _ = vt.Write([]byte(strings.ReplaceAll(m.View(), "\n", "\r\n")))
	var b strings.Builder
	for y, l := range strings.Split(vt.String(), "\n") {
		if y == m.h-1 && m.h >= 4 {
			break // the keys: every new one would change every file
		}
		b.WriteString(strings.TrimRight(l, " ") + "\n")
		if !colours || y >= m.h {
			continue
		}
		from, last := 0, vt10x.DefaultFG
		for x := 0; x <= m.w; x++ {
			now := vt10x.DefaultFG
			if x < m.w {
				if c := vt.Cell(x, y); c.Char != ' ' {
					now = c.FG
				} else if last != vt10x.DefaultFG {
					now = last
				}
			}
			if now == last {
				continue
			}
			if last != vt10x.DefaultFG {
				fmt.Fprintf(&b, "    %d–%d: %06x\n", from, x-1, uint32(last))
			}
			from, last = x, now
		}
	}
	return b.String()
}

// golden compares frames of one screen, by what they differ in, with the screen's file; -update rewrites it.
func golden(t *testing.T, screen string, frames ...[2]string) {
	t.Helper()
	var b strings.Builder
	for _, f := range frames {
		fmt.Fprintf(&b, "== %s\n%s", f[0], f[1])
	}
	file := filepath.Join("testdata", "frames", screen+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() == string(want) {
		return
	}
	old := map[string]string{}
	for _, part := range strings.Split("\n"+string(want), "\n== ")[1:] {
		what, frame, _ := strings.Cut(part, "\n")
		old[what] = strings.TrimSuffix(frame, "\n")
	}
	for _, f := range frames {
		if was := old[f[0]]; was != strings.TrimSuffix(f[1], "\n") {
			t.Errorf("%s at %s (-update rewrites it):\n%s\nwant:\n%s", screen, f[0], f[1], was)
		}
	}
	if !t.Failed() {
		t.Errorf("%s: other frames than there are (-update rewrites it)", file)
	}
}

// busy is a run of three targets that has come some way: one is done, one has failed, one is being tested.
func busy(m *model) {
	names := []string{"debian:13/x86_64", "ubuntu:26.04/x86_64", "debian:12/x86_64"}
	m.Update(historyMsg{m.engine.(*script).past, nil})
	m.startRun(engine.Selection{Only: names}, names)
	begun := noon.Add(-4 * time.Minute)
	m.board.began = begun
	var events eventsMsg
	for i, name := range names {
		events = append(events, event.Event{Time: begun, Target: name, Kind: event.Started})
		for n, s := range engine.Stages {
			at := begun.Add(time.Duration(n*30) * time.Second)
			e := event.Event{Time: at, Target: name, Stage: string(s), Kind: event.Started}
			if s == engine.Sign && i != 0 {
				break
			}
			events = append(events, e)
			for k := range 40 {
				e.Kind, e.Line = event.Log, fmt.Sprintf("%s step %d: Setting up libsomething%d:amd64 (1.2.%d-1+deb13u1) ...", s, k, k, i)
				events = append(events, e)
			}
			e.Line, e.Time = "", at.Add(25*time.Second)
			switch {
			case s == engine.Test && i == 1:
				e.Kind, e.Error, e.Remedy, e.Seconds = event.Failed, "the guest agent did not answer within 300 s", "look at the guest's console in the log", 25
				events = append(events, e, event.Event{Time: e.Time, Target: name, Kind: event.Failed, Error: "test: " + e.Error, Remedy: e.Remedy, Seconds: 145})
			case s == engine.Test && i == 2:
				e.Kind, e.Done, e.Total, e.Unit = event.Progress, 3, 12, "checks"
				events = append(events, e)
			default:
				e.Kind, e.Seconds = event.Finished, 25
				events = append(events, e)
			}
		}
		if i == 0 {
			events = append(events, event.Event{Time: begun.Add(200 * time.Second), Target: name, Kind: event.Finished, Reason: "published", Seconds: 200})
		}
	}
	m.Update(events)
}

// over is the same run, ended.
func over(m *model) {
	busy(m)
	var sum engine.Summary
	for i, p := range m.board.panes {
		r := engine.Result{Target: p.target, State: event.Finished, Reason: "published", Seconds: 200, Image: "dir:images/debian@sha256:" + strings.Repeat("cd", 32), Tags: []string{"13", "13-20261123"}}
		for n, s := range engine.Stages {
			r.Stages = append(r.Stages, engine.StageTime{Stage: s, State: event.Finished, Seconds: 25, Log: "/cache/logs/20261123T100000-1/" + string(s) + ".log"})
			if i == 1 && s == engine.Test {
				r.State, r.Error, r.Remedy, r.Reason, r.Image, r.Tags = event.Failed, "test: the guest agent did not answer within 300 s", "look at the guest's console in the log", "", "", nil
				r.Stages[n].State = event.Failed
				break
			}
		}
		if i == 2 {
			r.State, r.Reason, r.Image = event.Skipped, "content 0123456789ab is published", ""
		}
		sum.Results = append(sum.Results, r)
	}
	m.Update(runMsg{m.board, sum, nil})
}

// plannedFor answers the plan that was asked for with what is known.
func plannedFor(m *model, selected ...string) {
	var plans []engine.Plan
	for _, s := range selected {
		plans = append(plans, m.engine.(*script).known[s].Plan)
	}
	m.Update(planMsg{m.plan, plans, nil, time.Now()})
}

var bothDebians = []string{"debian:13/x86_64", "debian:12/x86_64"}

// promoted is a promotion of which not all is proven.
func promoted(m *model) {
	press(m, "/", "debian", "enter", "L")
	f := m.form
	f.asking = nil
	p := &engine.Promotion{Flavor: "debian", From: catalog.Preview, To: catalog.Proposed, Criteria: []engine.Criterion{
		{ID: "source", Text: "the upstream image or packages are verified", State: engine.Proven, Evidence: "13/x86_64: packages, signed by 4D64FEC119C2029067D6E791F8D2585B8783D481"},
		{ID: "boots", Text: "the image boots on every architecture of its row, and what is demanded of a guest holds", State: engine.Against, Waivable: true, Evidence: "13/arm64 was never tested"},
		{ID: "documented", Text: "its documentation says how it is used", State: engine.Unproven, Evidence: "nobody can see that from here"},
		{ID: "maintained", Text: "somebody looks after it", State: engine.Stated, Evidence: "the cloud team does"},
	}, Diff: "--- distros.toml\n+++ distros.toml\n@@ -41,7 +41,7 @@\n id             = \"debian\"\n name           = \"Debian\"\n-level          = \"preview\"\n+level          = \"proposed\"\n home           = \"https://www.debian.org\"\n"}
	m.Update(formMsg{f, func(*model) tea.Cmd { f.judged(p); return nil }, nil})
}

// The console's screens, on terminals of usual sizes and in every theme. -update rewrites the files.
func TestFrames(t *testing.T) {
	sizes := [][2]int{{40, 12}, {80, 24}, {120, 40}, {200, 60}}
	matrix := func(m *model) {
		press(m, "j", "j", "j", "j", "j", "v")
		m.Update(historyMsg{m.engine.(*script).past, nil})
	}
	screens := []struct {
		name   string
		to     func(m *model)
		themes bool // it is seen in every theme, too
	}{
		{"chart", func(m *model) { press(m, "n", "n") }, true},
		{"trouble", func(m *model) { press(m, "s", "n", "right") }, false},
		{"matrix", matrix, true},
		{"cell", func(m *model) {
			press(m, "/", "ubuntu", "enter")
			matrix(m)
			press(m, "l", "l", "l", "l", "enter")
		}, false},
		{"details", func(m *model) {
			press(m, "/", "debian", "enter", "i")
			m.Update(imageMsg{"debian:13/x86_64", m.engine.(*script).images["debian:13/x86_64"], nil})
			press(m, "G", "k", "k")
		}, false},
		{"plan", func(m *model) { press(m, "/", "debian", "enter", "space", "p"); plannedFor(m, bothDebians...) }, true},
		{"question", func(m *model) { press(m, "/", "debian", "enter", "space", "b"); plannedFor(m, bothDebians...) }, true},
		{"question-public", func(m *model) {
			m.engine.(*script).destination = "quay.example/containercraft"
			press(m, "/", "debian", "enter", "space", "b")
			plannedFor(m, bothDebians...)
		}, false},
		{"run", busy, true},
		{"log", func(m *model) { busy(m); press(m, "tab", "z", "/", "step 3:", "enter", "w", "t") }, true},
		{"cancel", func(m *model) { busy(m); press(m, "x") }, false},
		{"summary", over, true},
		{"retry", func(m *model) { over(m); press(m, "A") }, false},
		{"not-started", func(m *model) {
			busy(m)
			m.Update(runMsg{m.board, engine.Summary{}, event.WithRemedy(errors.New("another run of this cache is under way (process 4711)"), "wait for it, or name another --cache")})
		}, false},
		{"promotion-question", func(m *model) { press(m, "/", "debian", "enter", "L") }, false},
		{"promotion", promoted, true},
		{"help", func(m *model) { press(m, "?") }, false},
		{"palette", func(m *model) { press(m, ":", "stage") }, true},
		{"messages", func(m *model) {
			m.Update(eventsMsg{{Time: noon, Kind: event.Log, Line: "a signing key pair was generated for you: /home/me/.config/kmi-tui/cosign.key signs"}})
			m.say(bad, "the registry cannot be asked: no route to quay.example")
			over(m)
			press(m, "m")
		}, false},
	}
	for _, screen := range screens {
		var frames [][2]string
		add := func(what string, look Appearance, size [2]int) {
			m := inWeeks(look, size[0], size[1])
			screen.to(m)
			fits(t, m, screen.name+" "+what)
			frames = append(frames, [2]string{what, shown(m, look.Colours > 0)})
		}
		for _, size := range sizes {
			add(fmt.Sprintf("%d×%d", size[0], size[1]), Appearance{}, size)
		}
		add("80×24, ASCII", Appearance{ASCII: true}, [2]int{80, 24})
		for _, name := range Themes() {
			if screen.themes {
				add("80×24, "+name, Appearance{Theme: name, Colours: 1 << 24}, [2]int{80, 24})
			}
		}
		golden(t, screen.name, frames...)
	}
}
