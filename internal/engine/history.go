package engine

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// PastRun is a run that was recorded, from the first and the last line of its recording.
type PastRun struct {
	ID, File, Destination string
	Began                 time.Time
	Seconds               float64
	Results               []Result // nil: it was killed, or is still under way
}

const (
	headMost = 1 << 20  // bytes of a first line
	lineMost = 16 << 20 // bytes of any line: a summary has about 1 KiB a target
)

// recordings are the recordings in the cache, the newest first.
func (e *Engine) recordings() ([]os.DirEntry, error) { return recordingsIn(e.cache.Dir()) }

func recordingsIn(cache string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(filepath.Join(cache, "runs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(d os.DirEntry) bool { return !recordingName.MatchString(d.Name()) || !d.Type().IsRegular() })
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return compareRecordings(b.Name(), a.Name()) })
	return entries, nil
}

// compareRecordings compares by time, then process, then the number of the run in that second.
func compareRecordings(a, b string) int {
	x, y := strings.Split(strings.TrimSuffix(a, ".ndjson"), "-"), strings.Split(strings.TrimSuffix(b, ".ndjson"), "-")
	return slices.CompareFunc(x, y, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
}

// LastRecording is the file of the newest run that is recorded in a cache.
func LastRecording(cache string) (string, error) {
	list, err := recordingsIn(cache)
	dir := filepath.Join(cache, "runs")
	if err == nil && len(list) == 0 {
		err = event.WithRemedy(fmt.Errorf("nothing is recorded in %s", dir), "every run is recorded there; name another cache with --cache, or a file")
	}
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, list[0].Name()), nil
}

// History lists the runs that were recorded in the last weeks (0: all), the newest first. It reads no more than the first
// and last line of each. Recordings that cannot be read are left out and the error says which and why; the list is good
// all the same.
func (e *Engine) History(weeks int) ([]PastRun, error) {
	entries, err := e.recordings()
	if err != nil {
		return nil, err
	}
	if weeks > 0 {
		since := e.cfg.Now().UTC().AddDate(0, 0, -7*weeks).Format("20060102T150405Z")
		entries = slices.DeleteFunc(entries, func(d os.DirEntry) bool { return d.Name() < since })
	}
	runs, errs := make([]PastRun, len(entries)), make([]error, len(entries))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(len(entries), runtime.GOMAXPROCS(0)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				runs[i], errs[i] = pastRun(e.cache.Path("runs", entries[i].Name()))
			}
		}()
	}
	for i := range entries {
		next <- i
	}
	close(next)
	wg.Wait()
	list := make([]PastRun, 0, len(runs))
	for i, r := range runs {
		if errs[i] == nil {
			list = append(list, r)
		}
	}
	return list, errors.Join(errs...)
}

// pastRun reads the ends of a recording.
func pastRun(path string) (PastRun, error) {
	r := PastRun{ID: strings.TrimSuffix(filepath.Base(path), ".ndjson"), File: path}
	f, err := os.Open(path)
	if err != nil {
		return r, err
	}
	defer f.Close()
	head, err := firstLine(f)
	if err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	var h Header
	if err := json.Unmarshal(head, &h); err != nil || h.Kind != recordingKind {
		return r, fmt.Errorf("%s: its first line is no header of a recording", path)
	}
	if h.Format > recordingFormat {
		return r, fmt.Errorf("%s: format %d, this program reads %d", path, h.Format, recordingFormat)
	}
	r.Destination, r.Began = event.Clean(h.Destination), h.Time
	tail, err := lastLine(f)
	if err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	var end summaryLine // of any other kind of line, its time
	if err := json.Unmarshal(tail, &end); err != nil && bytes.Contains(tail[:min(len(tail), 200)], []byte(`"summary"`)) {
		return r, fmt.Errorf("%s: its summary is damaged: %w", path, err)
	}
	if !end.Time.IsZero() {
		r.Seconds = sane(end.Time.Sub(h.Time).Seconds())
	}
	if end.Kind == summaryKind {
		s := cleanSummary(end.Summary)
		r.Seconds, r.Results = s.Seconds, s.Results
	}
	return r, nil
}

// firstLine is the first line of a file.
func firstLine(f *os.File) ([]byte, error) {
	buf := make([]byte, 0, 4<<10)
	for len(buf) < headMost {
		n, err := f.ReadAt(buf[len(buf):cap(buf)], int64(len(buf)))
		at := bytes.IndexByte(buf[len(buf):len(buf)+n], '\n')
		if at >= 0 {
			return buf[:len(buf)+at], nil
		}
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return nil, errors.New("it has no whole line")
		} else if err != nil {
			return nil, err
		}
		buf = slices.Grow(buf, len(buf))
	}
	return nil, errors.New("its first line is too long")
}

// lastLine is the last whole line of a file.
func lastLine(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	end := info.Size()
	for size := int64(128 << 10); ; size *= 4 {
		from := max(0, end-size)
		buf := make([]byte, end-from)
		if _, err := f.ReadAt(buf, from); err != nil && err != io.EOF {
			return nil, err
		}
		if last := bytes.LastIndexByte(buf, '\n'); last >= 0 {
			if first := bytes.LastIndexByte(buf[:last], '\n'); first >= 0 || from == 0 {
				return buf[first+1 : last], nil
			}
		}
		switch {
		case from == 0:
			return nil, errors.New("it has no whole line")
		case size > lineMost:
			return nil, errors.New("its last line is too long")
		}
	}
}

// cleanSummary makes a summary from a file harmless.
func cleanSummary(s Summary) Summary {
	s.Seconds = sane(s.Seconds)
	for i := range s.Results {
		r := &s.Results[i]
		r.Target, r.Image, r.State = event.Clean(r.Target), event.Clean(r.Image), endOf(r.State)
		r.Reason, r.Error, r.Remedy = event.CleanLong(r.Reason), event.CleanText(r.Error), event.CleanLong(r.Remedy)
		r.Seconds = sane(r.Seconds)
		for k := range r.Tags {
			r.Tags[k] = event.Clean(r.Tags[k])
		}
		for k := range r.Stages {
			t := &r.Stages[k]
			t.Stage, t.Reason, t.Log, t.State, t.Seconds = Stage(event.Clean(string(t.Stage))), event.CleanLong(t.Reason), event.Clean(t.Log), endOf(t.State), sane(t.Seconds)
		}
	}
	return s
}

// endOf is a state in which something can have ended; what is none counts as failed.
func endOf(k event.Kind) event.Kind {
	if k.Ends() {
		return k
	}
	return event.Failed
}

// sane is a time span in seconds that can be true: less than ten years.
func sane(seconds float64) float64 {
	if math.IsNaN(seconds) {
		return 0
	}
	return min(max(0, seconds), 10*365*24*3600)
}

// pruneRecordings removes the oldest recordings beyond what is kept. One that is being written stays.
func (e *Engine) pruneRecordings() {
	entries, err := e.recordings()
	if err != nil {
		return
	}
	var total int64
	for i, d := range entries {
		info, err := d.Info()
		if err != nil {
			continue
		}
		total += info.Size()
		if i < keptRecordings && total <= keptRecordingBytes || i == 0 {
			continue
		}
		path := e.cache.Path("runs", d.Name())
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(path)
		}
		_ = f.Close()
	}
}
