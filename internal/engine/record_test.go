package engine

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// fetching is an engine that can fetch "a:2/x86_64", and cannot "b:2/x86_64".
func fetching(t testing.TB) *Engine {
	t.Helper()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(bytes.Repeat([]byte("disk"), 100000))
	_ = z.Close()
	e, m := planner(t, func(c *catalog.Catalog) {
		c.Flavors = nil
		for _, id := range []string{"a", "b"} {
			c.Flavors = append(c.Flavors, catalog.Flavor{ID: id, Name: strings.ToUpper(id), Level: catalog.Preview, Arch: []catalog.Arch{catalog.X86_64}, Redistribution: catalog.Free, Releases: []catalog.Release{{Version: "2"}},
				Origin: &catalog.Origin{Kind: "image", Format: "raw", Pack: "gz", ArchNames: map[catalog.Arch]string{catalog.X86_64: "amd64"}, URL: "https://" + id + ".example.org/{version}.raw.gz",
					Checksum: &catalog.Checksum{URL: "{url}.sha256"}, Signature: &catalog.Signature{Kind: "openpgp", Of: "file", URL: "{url}.sig"}}})
		}
	})
	var sig bytes.Buffer
	if err := openpgp.DetachSign(&sig, m.pgp, bytes.NewReader(packed.Bytes()), signing); err != nil {
		t.Fatal(err)
	}
	m.extra = map[string][]byte{}
	for _, id := range []string{"a", "b"} {
		name := id + ".example.org/2.raw.gz"
		m.extra[name], m.extra[name+".sig"] = packed.Bytes(), sig.Bytes()
		m.extra[name+".sha256"] = fmt.Appendf(nil, "%x  2.raw.gz\n", sha256.Sum256([]byte(id)))
		if id == "a" {
			m.extra[name+".sha256"] = fmt.Appendf(nil, "%x  2.raw.gz\n", sha256.Sum256(packed.Bytes()))
		}
	}
	return e
}

// read reads what a subscription that is closed has got.
func read(t testing.TB, sub *Subscription) (list []Event) {
	t.Helper()
	for events, ok := sub.Next(t.Context()); ok; events, ok = sub.Next(t.Context()) {
		list = append(list, events...)
	}
	return list
}

func fetchRun(t testing.TB, e *Engine, only ...string) (Summary, []Event) {
	t.Helper()
	sub := e.Subscribe()
	s, err := e.Run(t.Context(), Selection{Only: only, Until: Fetch})
	if err != nil {
		t.Fatal(err)
	}
	sub.Close()
	return s, read(t, sub)
}

func lines(t testing.TB, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// A run leaves a recording: what it is about, everything that happened but for some progress, and how it ended.
func TestRunsAreRecorded(t *testing.T) {
	e := fetching(t)
	first, events := fetchRun(t, e, "*")
	second, _ := fetchRun(t, e, "a")
	if _, err := e.Run(t.Context(), Selection{Only: []string{"zzz"}}); err == nil {
		t.Fatal("there is no zzz")
	}
	past, err := e.History(8)
	if err != nil || len(past) != 2 {
		t.Fatalf("%v, %v", past, err)
	}
	for i, s := range []Summary{second, first} {
		got, want := must(json.Marshal(past[i].Results)), must(json.Marshal(s.Results))
		if !bytes.Equal(got, want) || past[i].Destination != e.Destination() || !past[i].Began.Equal(e.Now()) || past[i].Seconds != s.Seconds {
			t.Errorf("%d: %+v, results should be %s", i, past[i], want)
		}
	}
	if last, err := LastRecording(e.cache.Dir()); err != nil || last != past[0].File || filepath.Base(last) != past[0].ID+".ndjson" {
		t.Errorf("last is %s: %v", last, err)
	}
	all := lines(t, past[1].File)
	var h Header
	if err := json.Unmarshal([]byte(all[0]), &h); err != nil || h.Kind != "recording" || h.Format != 1 || !slices.Equal(h.Targets, []string{"a:2/x86_64", "b:2/x86_64"}) || h.Selection.Until != Fetch ||
		h.Destination != e.Destination() || len(h.Flavors) != 2 || h.Flavors[1].Name != "B" {
		t.Errorf("%v: %s", err, all[0])
	}
	var recorded []string
	for _, l := range all[1 : len(all)-1] {
		var ev Event
		if err := json.Unmarshal([]byte(l), &ev); err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		if ev.Kind != event.Progress {
			recorded = append(recorded, l)
		}
	}
	var happened []string
	for _, ev := range events {
		if ev.Kind != event.Progress {
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			_ = enc.Encode(ev)
			happened = append(happened, strings.TrimSpace(b.String()))
		}
	}
	if !slices.Equal(recorded, happened) {
		t.Errorf("recorded:\n%s\nhappened:\n%s", strings.Join(recorded, "\n"), strings.Join(happened, "\n"))
	}
	known, err := e.Known()
	if err != nil || known["a:2/x86_64"].Stages[Fetch].State != event.Finished || known["b:2/x86_64"].Stages[Fetch].State != event.Failed || !strings.Contains(known["b:2/x86_64"].Stages[Fetch].Error, "expected sha256:") {
		t.Errorf("%+v, %v", known, err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What cannot be recorded is said once, and is no reason for a run to fail.
func TestUnwritableCacheIsSaid(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"a file in the way": func(dir string) error { return os.WriteFile(dir, nil, 0o644) },
		"a full disk": func(dir string) error { // every write to the link's target fails with ENOSPC
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			return nil
		},
	} {
		e := fetching(t)
		if err := spoil(e.cache.Path("runs")); err != nil {
			t.Fatal(err)
		}
		if name == "a full disk" {
			create = func(string) (*os.File, error) { return os.OpenFile("/dev/full", os.O_WRONLY, 0) }
			defer func() { create = createFile }()
		}
		s, events := fetchRun(t, e, "a")
		said := 0
		for _, ev := range events {
			if ev.Target == "" && strings.Contains(ev.Line, "this run is not recorded") {
				said++
			}
		}
		if s.Failed() > 0 || said != 1 {
			t.Errorf("%s: said %d times; %+v", name, said, s)
		}
	}
}

// recordAll writes what a bus tells as a run does.
func recordAll(t testing.TB, e *Engine, tell func()) string {
	t.Helper()
	r := e.recorder()
	r.begin(Selection{}, nil)
	tell()
	r.end(Summary{Results: []Result{}})
	r.close()
	last, err := LastRecording(e.cache.Dir())
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// Progress is thinned, log lines are bounded, and nothing else is left out.
func TestRecordingsAreBounded(t *testing.T) {
	e := fetching(t)
	at := time.Date(2026, 10, 15, 12, 0, 0, 0, time.UTC)
	line := strings.Repeat("x", 4000)
	path := recordAll(t, e, func() {
		for i := range 1000 {
			e.bus.Publish(Event{Time: at.Add(time.Duration(i) * 10 * time.Millisecond), Target: "a:2/x86_64", Stage: "fetch", Kind: event.Progress, Done: int64(i), Total: 999})
			if i%100 == 0 {
				e.bus.Publish(Event{Time: at, Target: "a:2/x86_64", Stage: "pack", Kind: event.Started})
			}
		}
		for range 6000 {
			e.bus.Publish(Event{Time: at, Target: "a:2/x86_64", Stage: "fetch", Kind: event.Log, Line: line})
		}
		e.bus.Publish(Event{Time: at, Target: "a:2/x86_64", Stage: "fetch", Kind: event.Finished})
	})
	count := map[event.Kind]int{}
	bytes, told := 0, 0
	for _, l := range lines(t, path) {
		var ev Event
		if err := json.Unmarshal([]byte(l), &ev); err != nil {
			t.Fatal(err)
		}
		count[ev.Kind]++
		if strings.Contains(ev.Line, "keeps no more log lines") {
			told++
		} else if ev.Kind == event.Log {
			bytes += len(l)
		}
	}
	if count[event.Started] != 10 || count[event.Finished] != 1 || told != 1 || bytes < recordedLogs*9/10 || bytes > recordedLogs*11/10 || count[event.Progress] > 1000*10/300+3 || count[event.Progress] < 1 {
		t.Errorf("%v, %d bytes of log, told %d times", count, bytes, told)
	}
}

// While a run goes on its recording is on disk, up to the last moments.
func TestKilledRunsAreReadable(t *testing.T) {
	e := fetching(t)
	r := e.recorder()
	r.begin(Selection{}, nil)
	defer r.close()
	e.bus.Publish(Event{Target: "a:2/x86_64", Stage: "fetch", Kind: event.Log, Line: "the last words"})
	deadline := time.Now().Add(time.Minute)
	for {
		path, err := LastRecording(e.cache.Dir())
		if err != nil {
			t.Fatal(err)
		}
		if all := lines(t, path); strings.Contains(all[len(all)-1], "the last words") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was written")
		}
		time.Sleep(5 * time.Millisecond)
	}
	past, err := e.History(0)
	if err != nil || len(past) != 1 || past[0].Results != nil || past[0].Seconds != 0 {
		t.Errorf("%+v, %v", past, err)
	}
}

// The newest recordings stay, and whatever is being written; files that are none are left alone.
func TestRecordingsArePruned(t *testing.T) {
	e := fetching(t)
	dir := e.cache.Path("runs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	at := func(i int) string {
		return filepath.Join(dir, time.Date(2026, 1, 1, 0, i, 0, 0, time.UTC).Format("20060102T150405Z")+"-7.ndjson")
	}
	for i := range 70 {
		if err := os.WriteFile(at(i), []byte("x\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mine := filepath.Join(dir, "mine.ndjson")
	if err := os.WriteFile(mine, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	busy, err := os.Open(at(1))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := unix.Flock(int(busy.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	fetchRun(t, e, "a")
	list, err := e.recordings()
	if err != nil || len(list) != keptRecordings+1 || filepath.Base(at(1)) != list[keptRecordings].Name() || filepath.Base(at(11)) != list[keptRecordings-1].Name() {
		t.Errorf("%d are left, the last is %s: %v", len(list), list[len(list)-1].Name(), err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(at(69), keptRecordingBytes); err != nil {
		t.Fatal(err)
	}
	e.pruneRecordings()
	if list, _ := e.recordings(); len(list) != 2 { // the newest, and the one that is written
		t.Errorf("%d are left", len(list))
	}
}

// pastRuns fills the cache with recordings of that many bytes, most of which is a hole.
func pastRuns(t testing.TB, e *Engine, n int, size int64) {
	t.Helper()
	dir := e.cache.Path("runs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var s Summary
	for i := range 45 {
		r := Result{Target: fmt.Sprintf("a:%d/x86_64", i), State: event.Finished, Reason: "published", Image: "registry.example.org/kmi/a@sha256:" + strings.Repeat("ab", 32), Tags: []string{"2", "2-20261015"}, Seconds: 300}
		for _, st := range Stages {
			r.Stages = append(r.Stages, StageTime{Stage: st, State: event.Finished, Reason: "256 packages, 312.2 MiB, every SHA-256 verified", Seconds: 42.5, Log: "/home/somebody/.cache/kmi-tui/logs/20261015T120000-4711/a-2-x86_64/" + string(st) + ".log"})
		}
		s.Results = append(s.Results, r)
	}
	for i := range n {
		at := e.Now().Add(-time.Duration(i+1) * time.Hour)
		f, err := os.Create(filepath.Join(dir, at.Format("20060102T150405Z")+"-7.ndjson"))
		if err != nil {
			t.Fatal(err)
		}
		_ = json.NewEncoder(f).Encode(Header{Time: at, Kind: recordingKind, Format: 1, Destination: "dir:images", Targets: make([]string, 45)})
		if _, err := f.Seek(size, 0); err != nil {
			t.Fatal(err)
		}
		_, _ = f.WriteString("\n")
		_ = json.NewEncoder(f).Encode(summaryLine{at.Add(time.Hour), summaryKind, s})
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The history reads the ends of recordings only: each of these has 4 TiB. What is damaged is left out and said.
func TestHistoryReadsTheEnds(t *testing.T) {
	e := fetching(t)
	pastRuns(t, e, 3, 4<<40)
	dir := e.cache.Path("runs")
	for name, text := range map[string]string{
		"20261015T110000Z-1.ndjson": "", "20261015T110000Z-2.ndjson": "no JSON\n", "20261015T110000Z-3.ndjson": `{"kind":"recording","format":2}` + "\n",
		"20261015T110000Z-4.ndjson": `{"kind":"recording","format":1,"time":"2026-10-15T11:00:00Z","destination":"dir:\u001b[31mx"}` + "\n" + `{"kind":"summary","results":7}` + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	killed := `{"kind":"recording","format":1,"time":"2026-10-15T11:00:00Z","destination":"dir:\u001b[31mx"}` + "\n" + `{"time":"2026-10-15T11:00:07Z","kind":"log","line":"x"}` + "\n" + `{"time":"2026-`
	if err := os.WriteFile(filepath.Join(dir, "20261015T113000Z-5.ndjson"), []byte(killed), 0o644); err != nil {
		t.Fatal(err)
	}
	past, err := e.History(0)
	if len(past) != 4 || past[0].Results != nil || past[0].Seconds != 7 || past[0].Destination != "dir:x" || len(past[1].Results) != 45 || len(past[1].Results[44].Stages) != 7 || past[1].Began.Before(past[2].Began) {
		t.Errorf("%d: %+v", len(past), past)
	}
	for _, want := range []string{"-1.ndjson: it has no whole line", "-2.ndjson: its first line is no header", "-3.ndjson: format 2, this program reads 1", "-4.ndjson: its summary is damaged"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	e.cfg.Now = func() time.Time { return time.Date(2026, 12, 15, 12, 0, 0, 0, time.UTC) }
	if past, _ := e.History(8); len(past) != 0 {
		t.Errorf("%d runs of the last eight weeks", len(past))
	}
}

// 60 recordings of 10 MiB: less than 50 ms is the aim.
func BenchmarkHistory(b *testing.B) {
	e := fetching(b)
	pastRuns(b, e, 60, 10<<20)
	for b.Loop() {
		if past, err := e.History(0); err != nil || len(past) != 60 {
			b.Fatal(len(past), err)
		}
	}
}

// What recording costs a build: pairs of the same lines told with and without it.
func BenchmarkRecording(b *testing.B) {
	for _, recorded := range []bool{false, true} {
		b.Run(fmt.Sprintf("recorded=%t", recorded), func(b *testing.B) {
			e := fetching(b)
			for b.Loop() {
				r := e.recorder()
				if recorded {
					r.begin(Selection{}, nil)
				} else {
					r.sub.Close()
				}
				for i := range 20000 {
					e.bus.Publish(Event{Target: "a:2/x86_64", Stage: "fetch", Kind: event.Log, Line: "unpacking something-1.2-3 over the old one; this line is of some length"})
					if i%10 == 0 {
						e.bus.Publish(Event{Target: "a:2/x86_64", Stage: "fetch", Kind: event.Progress, Done: int64(i), Total: 20000})
					}
				}
				r.close()
			}
		})
	}
}
