package ui

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// names are the rows that the chart shows, in its order.
func names(m *model) (list []string) {
	for _, l := range m.chart.lines {
		if l.flavor() {
			list = append(list, l.row.id)
		}
	}
	return list
}

func screenOf(m *model) string { return ansi.Strip(m.View()) }

// atNoon stops the console's clock.
func atNoon(o *Options) { o.Now = func() time.Time { return noon } }

// Words and terms leave the rows, and below them the targets, that fit all of them.
func TestFilterTerms(t *testing.T) {
	m := inWeeks(Appearance{}, 120, 40)
	for _, c := range []struct{ filter, want, wrong string }{
		{"debian", "debian", ""},
		{"level:planned open", "openbsd openwrt opensuse", ""},
		{"is:stale", "debian", ""},
		{"is:failed", "ubuntu", ""},
		{"is:broken arch:arm64", "", ""},
		{"is:unsigned", "ubuntu", ""},
		{"is:undecided", "amazonlinux vyos", ""},
		{"is:unp", "", ""},
		{"is:published", "debian ubuntu", ""},
		{"arch:arm64 release:26.04", "ubuntu", ""},
		{"level:preview -arch:arm64 -is:undecided", "arch centos debian coreos ubuntu", ""},
		{"debian:13", "debian", ""},
		{"is:nonsense", "", "is:nonsense fits nothing: write is:stale, broken"},
		{"level:best", "", "write level:planned, preview, proposed, stable"},
	} {
		press(m, "esc", "/", c.filter)
		got := strings.Join(names(m), " ")
		if strings.Contains(c.filter, "-arch") {
			if slices.Contains(names(m), "vyos") || !slices.Contains(names(m), "debian") {
				t.Errorf("%s: %s", c.filter, got)
			}
		} else if got != c.want {
			t.Errorf("%s: %q, want %q", c.filter, got, c.want)
		}
		press(m, "enter")
		if c.wrong != "" && !strings.Contains(screenOf(m), c.wrong) {
			t.Errorf("%s: nothing says %q:\n%s", c.filter, c.wrong, screenOf(m))
		}
	}
	// What is selected by a filter is what it shows.
	press(m, "esc", "/", "release:12", "enter", "a")
	if got := m.chart.selection(); len(got) != 1 || got[0].id != "debian:12/x86_64" {
		t.Errorf("selected %d", len(got))
	}
}

// Each order is another one, and says so; the cursor stays on its row.
func TestSorting(t *testing.T) {
	m := inWeeks(Appearance{}, 120, 40)
	press(m, "n")
	l, _ := m.chart.on()
	for _, c := range []struct{ said, first string }{{"sorted by trouble", "ubuntu"}, {"sorted by level", "almalinux"}, {"sorted by name", "almalinux"}, {"sorted by age", "ubuntu"}, {"sorted as in the catalogue", "almalinux"}} {
		press(m, "s")
		if !strings.Contains(screenOf(m), c.said) || names(m)[0] != c.first {
			t.Errorf("%s, first is %s:\n%s", c.said, names(m)[0], screenOf(m))
		}
		if on, _ := m.chart.on(); on.row != l.row {
			t.Errorf("%s: the cursor went to %s", c.said, on.row.id)
		}
	}
	press(m, ":", "sort by trouble", "enter")
	if s := screenOf(m); !strings.Contains(s, "── licence undecided ─") || !strings.Contains(s, "sorted by trouble") {
		t.Errorf("no groups:\n%s", s)
	}
	for range 100 { // the cursor is never on a heading
		press(m, "j")
		if _, ok := m.chart.on(); !ok {
			t.Fatal("the cursor is on a heading")
		}
	}
	press(m, "g")
	if l, ok := m.chart.on(); !ok || l.row.id != "ubuntu" || !strings.Contains(screenOf(m), "── broken ─") {
		t.Errorf("%+v", l)
	}
}

// Facts that arrive change cells and nothing else: no row moves, nor the cursor; sorting anew is offered.
func TestFactsMoveNothing(t *testing.T) {
	s := weeks()
	m := modelOf(s)
	m.Update(tea.WindowSizeMsg{Width: 100, Height: 12})
	press(m, "s", "/", "is:unsupported", "enter", "j", "j", "j", "j")
	before := names(m)
	top, cursor := m.chart.top, m.chart.cursor
	lead := strings.Split(screenOf(m), "\n")
	m.knowsNothing()
	l := &looking{plans: make(chan engine.Plan), cancel: func(error) {}}
	m.Update(seenMsg{l, []engine.Plan{{Target: "centos:9-stream/x86_64", Action: engine.Fail, Reason: "no such host"}, s.known["debian:13/x86_64"].Plan, s.known["ubuntu:24.04/x86_64"].Plan}})
	if got := names(m); !slices.Equal(got, before) || m.chart.top != top || m.chart.cursor != cursor {
		t.Errorf("rows %v, top %d, cursor %d; before %v, %d, %d", got, m.chart.top, m.chart.cursor, before, top, cursor)
	}
	for i, line := range strings.Split(screenOf(m), "\n") {
		if i > 1 && i < 8 && ansi.Cut(line, 0, 30) != ansi.Cut(lead[i], 0, 30) {
			t.Errorf("line %d has moved: %q, before %q", i, line, lead[i])
		}
	}
	if !m.chart.dated || !strings.Contains(screenOf(m), "sorted before: S") {
		t.Errorf("sorting anew is not offered:\n%s", screenOf(m))
	}
	press(m, "S")
	if m.chart.dated || slices.Equal(names(m), before) {
		t.Errorf("sorted anew it is %v, before %v", names(m), before)
	}
}

// knowsNothing takes what is known from before out of the chart: tests bring it themselves.
func (m *model) knowsNothing() {
	for _, r := range m.chart.rows {
		for _, t := range r.targets {
			t.stages = nil
		}
	}
}

// What a run of this console came to is known when it has ended, without moving a row.
func TestRunsAreKnown(t *testing.T) {
	s := newScript()
	m := modelOf(s)
	press(m, "s")
	before := names(m)
	m.startRun(engine.Selection{Only: []string{"debian:12/x86_64"}}, []string{"debian:12/x86_64"})
	s.known = weeks().known
	m.ended(runMsg{m.board, engine.Summary{Results: []engine.Result{{Target: "debian:12/x86_64", State: event.Finished, Reason: "published"}}}, nil})
	m.Update(m.refresh()())
	if !slices.Equal(names(m), before) || !m.chart.dated {
		t.Errorf("rows are %v, before %v", names(m), before)
	}
	press(m, "esc", "/", "debian", "enter", "right")
	m.Update(tea.WindowSizeMsg{Width: 120, Height: 40})
	if s := screenOf(m); !strings.Contains(s, "✓ passed 7d     ✓ published") {
		t.Errorf("the test is not known:\n%s", s)
	}
}

// n goes through everything that needs somebody, and around.
func TestWhatNeedsSomebody(t *testing.T) {
	m := inWeeks(Appearance{}, 120, 40)
	if s := screenOf(m); !strings.Contains(s, "✗ 1 broken · ! 1 unsigned · ↑ 1 stale · ◌ 2 licences undecided: n") {
		t.Errorf("the summary:\n%s", s)
	}
	var met []string
	for range 5 {
		press(m, "n")
		l, _ := m.chart.on()
		met = append(met, l.row.id)
	}
	if got := strings.Join(met, " "); got != "amazonlinux debian ubuntu vyos amazonlinux" {
		t.Errorf("n went to %s", got)
	}
	press(m, "N")
	if l, _ := m.chart.on(); l.row.id != "vyos" {
		t.Errorf("N went to %s", l.row.id)
	}
	press(m, ":", "next unsigned", "enter", "l", "n")
	if l, _ := m.chart.on(); l.target == nil || l.target.id != "ubuntu:26.04/x86_64" {
		t.Errorf("in an unfolded row, n goes to its first target with trouble, not to %+v", l)
	}
	press(m, ":", "next mistake", "enter")
	if s := screenOf(m); !strings.Contains(s, "next mistake: there is none") {
		t.Errorf("%s", s)
	}
}

// The values of the details can be copied, one by one; the target can be changed; what is wrong with the registry is said.
func TestDetails(t *testing.T) {
	s := weeks()
	s.imageErr = errors.New("the registry is asleep")
	x := open(t, s, 120, 40, atNoon)
	x.wait("↑ 1 stale")
	x.press(append(toDebian, "i")...)
	x.wait("details of debian:13/x86_64", "image of debian:13/x86_64: the registry is asleep", "state          ↑ debian:13/x86_64: stale: the guest has changed", "35 below")
	x.press("G")
	x.wait("io.kmi.tested", "uefi bios baseline 2")
	x.press("y")
	x.wait("sent to the terminal's clipboard (OSC 52): uefi bios baseline 2")
	x.press("tab")
	x.wait("details of debian:13/arm64")
	x.press("shift+tab", "shift+tab")
	x.wait("details of debian:12/arm64")
	x.press("esc")
	x.wait("release chart")
}

// From the chart to a cell of the matrix: how it ended, what to do, and where its log is.
func TestMatrix(t *testing.T) {
	x := open(t, weeks(), 120, 40, atNoon)
	x.wait("✗ 1 broken")
	x.press("/", "ubuntu", "enter", "v")
	x.wait("targets and stages", "✗ fail", "✓ done", "– none", "· never", "3 runs (1 to other places left out)")
	x.press("l", "l", "l", "l")
	x.wait("ubuntu:26.04/x86_64 test: ✗ failed 1 d ago in 50 s: the guest agent did not answer", "runs: ✗ fail 2d")
	x.press("enter")
	x.wait("test of ubuntu:26.04/x86_64", "what to do", "look at the guest's console in the log", "/cache/logs/2/test.log", "/cache/runs/c.ndjson")
	x.press("j", "j", "j", "j", "y")
	x.wait("(OSC 52): the guest agent did not answer within 300 s")
	x.press("esc", "esc")
	x.wait("release chart")
}

// Every theme shows the same words; without Unicode the screen is ASCII, cell by cell the same.
func TestThemesAndASCII(t *testing.T) {
	for _, v := range views {
		m := modelOf(newScript())
		v.to(m)
		m.dress(Appearance{})
		m.dirty = true
		want := screenOf(m)
		for _, name := range Themes() {
			m.dress(Appearance{Theme: name, Colours: 1 << 24})
			m.dirty = true
			if got := screenOf(m); got != want {
				t.Errorf("%s: %s says something else:\n%s", v.name, name, got)
			}
		}
		m.dress(Appearance{ASCII: true})
		m.dirty = true
		plain := strings.Split(screenOf(m), "\n")
		for i, line := range strings.Split(want, "\n") {
			if ansi.StringWidth(plain[i]) != ansi.StringWidth(line) || strings.ContainsFunc(plain[i], func(r rune) bool { return r > 0x7e }) {
				t.Errorf("%s: %q is %q", v.name, line, plain[i])
			}
		}
	}
	m := modelOf(newScript())
	m.Update(tea.KeyMsg{Type: tea.KeyCtrlT})
	if s := screenOf(m); !strings.Contains(s, "theme light: --theme light or KMI_THEME keeps it") {
		t.Error(s)
	}
	press(m, ":", "theme mono", "enter")
	if m.dressed.Theme != "mono" || strings.Contains(m.View(), "\x1b[3") {
		t.Errorf("%+v", m.dressed)
	}
	m.dress(Appearance{NoColor: true})
	m.Update(tea.KeyMsg{Type: tea.KeyCtrlT})
	if s := screenOf(m); !strings.Contains(s, "theme: NO_COLOR is set") {
		t.Error(s)
	}
}

func TestAppearanceOf(t *testing.T) {
	for _, c := range []struct {
		theme, env string
		want       Appearance
		bad        bool
	}{
		{"", "TERM=xterm LANG=en_US.UTF-8", Appearance{Theme: "dark", Colours: 16}, false},
		{"Light", "TERM=xterm-256color LANG=de_DE.utf8", Appearance{Theme: "light", Colours: 256}, false},
		{"colourblind", "TERM=xterm-256color COLORTERM=truecolor", Appearance{Theme: "colour-blind", Colours: 1 << 24}, false},
		{"mono", "LANG=C", Appearance{Theme: "mono", Colours: 16, ASCII: true}, false},
		{"", "LANG=en_US.UTF-8 LC_ALL=POSIX NO_COLOR=1", Appearance{Theme: "dark", Colours: 16, ASCII: true, NoColor: true}, false},
		{"", "LANG=C LC_CTYPE=C.UTF-8", Appearance{Theme: "dark", Colours: 16}, false},
		{"", "TERM=linux LANG=C.UTF-8", Appearance{Theme: "dark", Colours: 16, ASCII: true}, false},
		{"pink", "", Appearance{}, true},
	} {
		env := map[string]string{}
		for _, e := range strings.Fields(c.env) {
			k, v, _ := strings.Cut(e, "=")
			env[k] = v
		}
		got, err := AppearanceOf(c.theme, func(k string) string { return env[k] })
		if (err != nil) != c.bad || err == nil && got != c.want {
			t.Errorf("%q, %s: %+v, %v", c.theme, c.env, got, err)
		}
		if c.bad && !strings.Contains(err.Error(), "dark, light, colour-blind, mono") {
			t.Error(err)
		}
	}
}

// edited is an engine whose catalogue is being edited, in a real file.
type edited struct {
	*script
	live *engine.Live
}

func (e *edited) Catalog() *catalog.Catalog                 { return e.live.Catalog() }
func (e *edited) Draft() *catalog.Draft                     { return e.live.Draft() }
func (e *edited) Changed(ctx context.Context) (bool, error) { return e.live.Changed(ctx) }
func (e *edited) Targets(engine.Selection) ([]engine.Target, error) {
	return e.live.Targets(engine.Selection{Only: []string{"*"}})
}

// Whoever writes a row sees what is wrong with it where it stands, as soon as it is saved.
func TestRowsAreEdited(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "distros.toml"))
	if err != nil {
		t.Fatal(err)
	}
	good := strings.TrimRight(string(data), "\n") + "\n"
	file := filepath.Join(t.TempDir(), "distros.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+"~", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+"~", file); err != nil { // as editors do
			t.Fatal(err)
		}
	}
	write(good)
	live, err := engine.OpenLive(engine.Config{Cache: t.TempDir(), Registry: "dir:" + t.TempDir(), KeyDir: t.TempDir()}, file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(live.Close)
	s := newScript()
	x := open(t, &edited{s, live}, 120, 40)
	x.wait("release chart", "VyOS")
	row := "\n[[flavor]]\nid = \"tiny\"\nname = \"Tiny Linux\"\nhome = \"https://tiny.example\"\nlevel = \"beta\"\narch = [\"x86_64\"]\nredistribution = \"free\"\n"
	write(good + row)
	x.wait("distros.toml was saved: edited Tiny Linux; 1 mistake", "✗ 1 mistake", "Tiny Linux ✎", "beta")
	x.press(":", "next mistake", "enter")
	x.wait("mistake 1", `"beta" is not a level: write one of planned, preview, proposed, stable`)
	x.press("b")
	x.wait("build: distros.toml has 1 mistake: n goes there")
	// Not even TOML: the row is still there, the others too.
	write(good + strings.Replace(row, "level = ", "level ", 1))
	x.wait("is not TOML here", "Tiny Linux ✎", "VyOS")
	// Something besides rows.
	write(strings.Replace(good, "[project]", "[project]\ncolour = 1", 1) + row)
	x.wait("distros.toml", "✗ line 13: project: unknown ke", "✗ 2 mistakes")
	// Mended: the cursor is on the row all the time.
	write(good + strings.Replace(row, "beta", "planned", 1))
	x.wait("distros.toml was saved: edited Tiny Linux; no mistakes", "▌      Tiny Linux ✎", "planned")
	x.press("/", "is:edited", "enter")
	x.wait("1 of 21 rows")
}
