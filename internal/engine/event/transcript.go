package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// Bounds of a Transcript: lines whose place is kept in memory, and what one call reads.
const (
	tailRecords = 4096
	readLines   = 8192
	readBytes   = 8 << 20
	readRun     = 256 << 10 // bytes that are read from a raw log at once, but for longer lines
	readLine    = 1 << 20   // bytes of a line that are looked at
	recordSize  = 24
)

// Transcript is the whole log of a target in this process: every line that its stages reported, in the order of the
// events, whatever a subscription keeps of it. The texts stay in the raw logs of the stages; where each line is there, and
// when it came, stands in an index of 24 bytes a line, in a file without a name beside them. Memory is bounded. It is
// safe for concurrent use.
type Transcript struct {
	dir string

	mu     sync.Mutex
	stages []*rawLog
	index  *os.File
	first  int      // number of the first line whose place is known: 0 as long as the index can be written
	stored int      // lines whose place is in the file
	tail   []record // of the lines from stored on; without a file the newest ones
	broken error    // why there is no index
	ended  bool
}

// rawLog is the raw log of a stage.
type rawLog struct {
	stage, path string
	file        *os.File // open while somebody writes
	end         int64    // bytes in it
	err         error    // why it cannot be written any more
}

// record is where a line is.
type record struct {
	at    int64 // Unix milliseconds
	off   int64 // in the raw log; negative: it is not there
	size  uint32
	stage uint32
}

// TranscriptLine is a line that was read back.
type TranscriptLine struct {
	N     int // its number, from 0
	Time  time.Time
	Stage string
	Text  string // as the event had it
	Err   error  // why there is no text
}

// Transcript is the whole log of a target; nil when none of its stages has a raw log.
func (b *Bus) Transcript(target string) *Transcript {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.transcripts[target]
}

// transcript makes the transcript of a target where there is none.
func (b *Bus) transcript(target, dir string) *Transcript {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.transcripts[target]
	if t == nil {
		t = &Transcript{dir: dir}
		b.transcripts[target] = t
	}
	return t
}

// Len is how many lines there are.
func (t *Transcript) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.len()
}

func (t *Transcript) len() int { return t.stored + len(t.tail) }

// stage returns the number of the raw log.
func (t *Transcript) stage(name, path string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.IndexFunc(t.stages, func(r *rawLog) bool { return r.path == path }); i >= 0 {
		return i
	}
	t.stages = append(t.stages, &rawLog{stage: name, path: path})
	return len(t.stages) - 1
}

// closeStage closes the raw log until the next line.
func (t *Transcript) closeStage(stage int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.stages[stage]; r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}

// close gives the index back.
func (t *Transcript) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.lose(errors.New("the log was closed"))
}

// add writes whole lines to the raw log and hands their events to publish, in the same order. It reports whether they are
// in the raw log; the error, which is told once, is why they are not from now on.
func (t *Transcript) add(stage int, now time.Time, raw []byte, sizes []int, publish func(first int)) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.stages[stage]
	known := r.err
	off := r.write(raw)
	at := now.UnixMilli()
	first := t.len()
	for _, n := range sizes {
		rec := record{at: at, off: off, size: uint32(n), stage: uint32(stage)}
		if off >= 0 {
			off += int64(n) + 1
		}
		t.tail = append(t.tail, rec)
	}
	if len(t.tail) >= tailRecords {
		t.store()
	}
	publish(first)
	if known != nil {
		return false, nil
	}
	return r.err == nil, r.err
}

// write appends to the raw log and returns where; negative if it cannot.
func (r *rawLog) write(raw []byte) int64 {
	if r.err != nil {
		return -1
	}
	if r.file == nil {
		f, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			var info os.FileInfo
			if info, err = f.Stat(); err == nil {
				r.end = info.Size()
			}
		}
		if err != nil {
			r.err = err // a log that cannot be written (a full disk, say) never stops a build
			return -1
		}
		r.file = f
	}
	off := r.end
	n, err := r.file.Write(raw)
	r.end += int64(n)
	if err != nil {
		r.err = err
		return -1
	}
	return off
}

// store moves the tail to the file.
func (t *Transcript) store() {
	if t.index == nil && t.broken == nil && !t.ended {
		f, err := os.CreateTemp(t.dir, ".lines-*")
		if err != nil {
			t.lose(err)
		} else {
			_ = os.Remove(f.Name())
			t.index = f
		}
	}
	if t.broken == nil {
		buf := make([]byte, 0, len(t.tail)*recordSize)
		for _, r := range t.tail {
			buf = binary.LittleEndian.AppendUint64(buf, uint64(r.at))
			buf = binary.LittleEndian.AppendUint64(buf, uint64(r.off))
			buf = binary.LittleEndian.AppendUint32(buf, r.size)
			buf = binary.LittleEndian.AppendUint32(buf, r.stage)
		}
		if _, err := t.index.WriteAt(buf, int64(t.stored)*recordSize); err != nil {
			t.lose(err)
		} else {
			t.stored += len(t.tail)
			t.tail = t.tail[:0]
			return
		}
	}
	// Without an index the places of the newest lines stay in memory.
	drop := max(0, len(t.tail)-tailRecords/2)
	t.stored += drop
	t.first = t.stored
	t.tail = append(t.tail[:0], t.tail[drop:]...)
}

// lose gives the index up.
func (t *Transcript) lose(err error) {
	if t.index != nil {
		_ = t.index.Close()
		t.index = nil
	}
	t.broken, t.first = err, t.stored
}

// records are the places of the lines from..to-1; what is not known any more has the error.
func (t *Transcript) records(from, to int) (list []record, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to = min(to, t.len())
	if from >= to {
		return nil, nil
	}
	list = make([]record, to-from)
	k := 0 // places that are not in memory
	if from < t.stored {
		k = min(to, t.stored) - from
		buf := make([]byte, k*recordSize)
		err = t.broken
		if err == nil {
			_, err = t.index.ReadAt(buf, int64(from)*recordSize)
		}
		for i := range k {
			if err != nil {
				list[i].off = -1
				continue
			}
			b := buf[i*recordSize:]
			list[i] = record{int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:])), binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint32(b[20:])}
		}
	}
	copy(list[k:], t.tail[max(0, from-t.stored):])
	return list, err
}

// path of a stage's raw log, its name, and why it has no more lines than it has.
func (t *Transcript) raw(stage uint32) (name, path string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.stages[stage]
	return r.stage, r.path, r.err
}

// Read reads lines back, by their numbers in rising order: as many as one call reads, at least one. Where a line cannot
// be read, its Err says why.
func (t *Transcript) Read(numbers []int) []TranscriptLine {
	files := openLogs{t: t}
	defer files.close()
	numbers = numbers[:min(len(numbers), readLines)]
	out := make([]TranscriptLine, 0, len(numbers))
	bytes := 0
	for i := 0; i < len(numbers) && bytes < readBytes; {
		k := i + 1 // the numbers that lie close together
		for k < len(numbers) && numbers[k] > numbers[k-1] && numbers[k]-numbers[i] < 1024 {
			k++
		}
		from := max(0, numbers[i])
		list, err := t.records(from, numbers[k-1]+1)
		for ; i < k && bytes < readBytes; i++ {
			line := TranscriptLine{N: numbers[i]}
			if at := numbers[i] - from; at < 0 || at >= len(list) {
				line.Err = fmt.Errorf("there is no line %d", numbers[i])
			} else if r := list[at]; err != nil && r.at == 0 {
				line.Err = err
			} else {
				line.Time = time.UnixMilli(r.at)
				var raw string
				line.Stage, raw, line.Err = files.line(r)
				line.Text = Clean(raw)
				bytes += len(raw)
			}
			out = append(out, line)
		}
	}
	return out
}

// openLogs are the raw logs that one call reads.
type openLogs struct {
	t     *Transcript
	files map[uint32]*openLog
}

type openLog struct {
	name string
	file *os.File
	err  error // why it cannot be read
	why  error // why it has no more lines
	buf  []byte
	off  int64 // of buf
}

func (o *openLogs) of(stage uint32) *openLog {
	l := o.files[stage]
	if l == nil {
		l = &openLog{}
		var path string
		l.name, path, l.why = o.t.raw(stage)
		l.file, l.err = os.Open(path)
		if o.files == nil {
			o.files = map[uint32]*openLog{}
		}
		o.files[stage] = l
	}
	return l
}

func (o *openLogs) close() {
	for _, l := range o.files {
		if l.file != nil {
			_ = l.file.Close()
		}
	}
}

// bytes returns n bytes at off, read in larger pieces; they are good until the next call.
func (l *openLog) bytes(off int64, n, ahead int) ([]byte, error) {
	if l.err != nil {
		return nil, l.err
	}
	if off < l.off || off+int64(n) > l.off+int64(len(l.buf)) {
		size := max(n, ahead)
		if cap(l.buf) < size {
			l.buf = make([]byte, size)
		}
		got, err := l.file.ReadAt(l.buf[:size], off)
		l.off, l.buf = off, l.buf[:got]
		if got < n {
			return nil, fmt.Errorf("%s is shorter than it was: %w", l.file.Name(), err)
		}
	}
	return l.buf[off-l.off:][:n], nil
}

// line reads one line.
func (o *openLogs) line(r record) (stage, raw string, err error) {
	l := o.of(r.stage)
	if r.off < 0 {
		if l.why == nil {
			return l.name, "", errors.New("it was not written")
		}
		return l.name, "", l.why
	}
	b, err := l.bytes(r.off, min(int(r.size), readLine), 16<<10)
	return l.name, string(b), err
}

// Sift says which lines are meant.
type Sift struct {
	Stage string   // of this stage only; "": of all
	Words []*Query // which all have to match
}

// Match reports whether a line that was made harmless is meant.
func (s Sift) Match(stage, text string) bool {
	if s.Stage != "" && s.Stage != stage {
		return false
	}
	for _, q := range s.Words {
		if !q.Match(text) {
			return false
		}
	}
	return true
}

// Search finds the lines that are meant, from the line with this number on, in a part of the log: up to most bytes of raw
// logs are read (0: 16 MiB). The numbers are in rising order; next is the first line that was not looked at, the length
// of the log if there was none. The error says why some lines could not be looked at; the others were.
func (t *Transcript) Search(s Sift, from int, most int) (found []int, next int, err error) {
	if most <= 0 {
		most = 16 << 20
	}
	files := openLogs{t: t}
	defer files.close()
	end := t.Len()
	next = max(0, from)
	looked := 0
	for next < end && looked < most {
		list, rerr := t.records(next, min(end, next+readLines))
		if rerr != nil {
			err = rerr
		}
		for i := 0; i < len(list); {
			// What stands together in one file is read together.
			k, size := i+1, int(min(list[i].size, readLine))+1
			for k < len(list) && list[k].stage == list[i].stage && list[i].off >= 0 && list[i].size <= MaxLine && list[k].size <= MaxLine && list[k].off == list[k-1].off+int64(list[k-1].size)+1 && size+int(list[k].size)+1 <= readRun {
				size += int(list[k].size) + 1
				k++
			}
			run := list[i:k]
			l := files.of(run[0].stage)
			switch {
			case s.Stage != "" && s.Stage != l.name:
			case len(s.Words) == 0:
				for j := range run {
					found = append(found, next+i+j)
				}
			case run[0].off < 0:
				if err == nil && l.why != nil {
					err = l.why
				}
			default:
				raw, rerr := l.bytes(run[0].off, size-1, 0)
				if rerr != nil {
					err = rerr
					break
				}
				looked += size
				found = s.search(found, next+i, string(raw), plainText(raw) && run[0].size <= MaxLine, run)
			}
			i = k
		}
		next += len(list)
		if len(list) == 0 {
			break
		}
	}
	return found, next, err
}

// search adds the numbers of the lines of a piece of a raw log that match; of a plain one only lines with a hit are looked
// at.
func (s Sift) search(found []int, number int, raw string, plain bool, run []record) []int {
	at, ok := s.Words[0].bulk(raw)
	if plain && ok {
		sure := len(s.Words) == 1 && s.Words[0].re == nil // what is found matches
		j, begin := 0, 0
		for hit := at(0); hit >= 0 && j < len(run); hit = at(begin) {
			for begin+int(run[j].size) < hit {
				begin += int(run[j].size) + 1
				j++
			}
			line := raw[begin : begin+int(run[j].size)]
			if sure || s.Match(s.Stage, Clean(line)) {
				found = append(found, number+j)
			}
			begin += len(line) + 1
			j++
		}
		return found
	}
	begin := 0
	for j := range run {
		end := min(len(raw), begin+int(run[j].size))
		if line := Clean(raw[begin:end]); s.Match(s.Stage, line) {
			found = append(found, number+j)
		}
		begin = end + 1
	}
	return found
}
