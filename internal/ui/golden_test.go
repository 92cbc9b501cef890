package ui

import (
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

// The console's screens, on terminals of usual sizes and in every theme. -update rewrites the files.
func TestFrames(t *testing.T) {
	sizes := map[string][2]int{"40x12": {40, 12}, "80x24": {80, 24}, "120x40": {120, 40}, "200x60": {200, 60}}
	type frame struct {
		name, size string
		look       Appearance
		to         func(m *model)
		colours    bool
	}
	still := func(*model) {}
	matrix := func(m *model) {
		press(m, "j", "j", "j", "j", "j", "v")
		m.Update(historyMsg{m.engine.(*script).past, nil})
	}
	details := func(m *model) {
		press(m, "/", "debian", "enter", "i")
		m.Update(imageMsg{"debian:13/x86_64", m.engine.(*script).images["debian:13/x86_64"], nil})
		press(m, "G", "k", "k")
	}
	var frames []frame
	for size := range sizes {
		frames = append(frames, frame{"chart", size, Appearance{}, still, false}, frame{"matrix", size, Appearance{}, matrix, false}, frame{"details", size, Appearance{}, details, false})
	}
	for _, name := range Themes() {
		frames = append(frames, frame{"theme-" + name, "80x24", Appearance{Theme: name, Colours: 1 << 24}, func(m *model) { press(m, "n", "n") }, true})
	}
	frames = append(frames,
		frame{"ascii", "80x24", Appearance{ASCII: true}, func(m *model) { press(m, "/", "debian", "enter", "right", "v") }, false},
		frame{"trouble", "80x24", Appearance{}, func(m *model) { press(m, "s", "n", "right") }, false},
		frame{"cell", "80x24", Appearance{}, func(m *model) {
			press(m, "/", "ubuntu", "enter")
			matrix(m)
			press(m, "l", "l", "l", "l", "enter")
		}, false},
	)
	for _, f := range frames {
		m := inWeeks(f.look, sizes[f.size][0], sizes[f.size][1])
		f.to(m)
		fits(t, m, f.name+" "+f.size)
		got := shown(m, f.colours)
		file := filepath.Join("testdata", "frames", f.name+"-"+f.size+".txt")
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs (-update rewrites it):\n%s\nwant:\n%s", file, got, want)
		}
	}
}
