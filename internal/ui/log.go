package ui

import (
	"sort"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Bounds of one log in memory. Of a log that can be read back memory keeps the newest lines and those that were read; of
// others (messages, replays) it is all there is.
const (
	maxLines, maxBytes   = 100_000, 12 << 20
	tailLines, tailBytes = 8192, 1 << 20
	oldLines, oldBytes   = 4096, 1 << 20 // of each of two generations that were read back
	chunk                = 256           // lines that are let go of at once
)

// tone says how a log line looks.
type tone uint8

const (
	said  tone = iota // output
	step              // a stage began
	good              // a stage ended well, or had nothing to do
	bad               // a stage failed
	aside             // said by the console itself
)

type logLine struct {
	at    int64 // Unix milliseconds
	tone  tone
	stage uint8 // index in the log's stages; 0: none
	text  string
}

// logBuffer is a log: lines of output, and marks between them that the console makes of other events. Both are numbered
// together from 0 in the order in which they came; numbers stay. The newest are in memory. Where there is a transcript,
// older ones are read back from it, one call at a time and never by the buffer itself.
type logBuffer struct {
	target string
	stages []string // that have lines, after ""

	chunks [][]logLine // all but the last are full
	sizes  []int       // bytes of text in each
	spare  []logLine   // a chunk to be used again
	base   int         // number of the first line in chunks
	count  int         // lines in chunks
	bytes  int

	numbered bool // lines have rows in a transcript
	start    int  // row in it at which this log begins
	lines    int  // lines of output so far, if numbered
	marks    []mark
	disk     *event.Transcript // nil: not known yet, or there is none

	old, older map[int]*logLine // lines that were read back
	oldSize    int
}

// mark is what stands between lines of output and is in memory only.
type mark struct {
	n int // its number
	logLine
}

func newLogBuffer() *logBuffer { return &logBuffer{stages: []string{""}} }

// push adds a line that has no place in a transcript.
func (b *logBuffer) push(at time.Time, t tone, text string) {
	b.mark(&event.Event{Time: at}, t, text)
}

// line adds a line of output. One that was overtaken by others is left to the transcript.
func (b *logBuffer) line(e *event.Event, text string) {
	if e.Row == 0 {
		b.mark(e, said, text)
		return
	}
	if !b.meet(e) {
		return
	}
	b.lines++
	b.keep(logLine{e.Time.UnixMilli(), said, b.stage(e.Stage), text})
}

// mark adds a line of the console's own.
func (b *logBuffer) mark(e *event.Event, t tone, text string) {
	l := logLine{e.Time.UnixMilli(), t, b.stage(e.Stage), text}
	if e.Row > 0 {
		b.meet(e)
	}
	if b.numbered {
		b.marks = append(b.marks, mark{b.end(), l})
	}
	b.keep(l)
}

// meet brings the log to where an event stands in the transcript: what is left out in between can be read back. It
// reports whether the event is not older than that.
func (b *logBuffer) meet(e *event.Event) bool {
	if !b.numbered {
		b.numbered, b.start = true, e.Row-1
		for i := range b.count { // what came before cannot be read back
			n := b.base + i
			b.marks = append(b.marks, mark{i, *b.at(n)})
		}
		b.base = 0
	}
	row := e.Row - 1 - b.start
	if row > b.lines {
		b.lines = row
		b.chunks, b.sizes, b.base, b.count, b.bytes = nil, nil, b.lines+len(b.marks), 0, 0
	}
	return row == b.lines
}

// stage is the index of a stage.
func (b *logBuffer) stage(name string) uint8 {
	if name == "" {
		return 0
	}
	for i := len(b.stages) - 1; i > 0; i-- {
		if b.stages[i] == name {
			return uint8(i)
		}
	}
	if len(b.stages) == 256 {
		return 0
	}
	b.stages = append(b.stages, name)
	return uint8(len(b.stages) - 1)
}

// keep takes a line into memory.
func (b *logBuffer) keep(l logLine) {
	last := len(b.chunks) - 1
	if last < 0 || len(b.chunks[last]) == chunk {
		fresh := b.spare
		if b.spare = nil; fresh == nil {
			fresh = make([]logLine, 0, chunk)
		}
		b.chunks = append(b.chunks, fresh)
		b.sizes = append(b.sizes, 0)
		last++
	}
	b.chunks[last] = append(b.chunks[last], l)
	b.sizes[last] += len(l.text)
	b.bytes += len(l.text)
	b.count++
	most, bytes := maxLines, maxBytes
	if b.numbered {
		most, bytes = tailLines, tailBytes
	}
	for len(b.chunks) > 1 && (b.count > most || b.bytes > bytes) {
		b.base += chunk
		b.count -= chunk
		b.bytes -= b.sizes[0]
		clear(b.chunks[0])
		b.spare = b.chunks[0][:0]
		b.chunks[0] = nil
		b.chunks, b.sizes = b.chunks[1:], b.sizes[1:]
	}
}

// end is the number after that of the last line.
func (b *logBuffer) end() int {
	if b.numbered {
		return b.lines + len(b.marks)
	}
	return b.base + b.count
}

// first is the number of the first line that can be shown.
func (b *logBuffer) first() int {
	if b.numbered && b.disk != nil {
		return 0
	}
	return b.base
}

// at is a line of those in chunks.
func (b *logBuffer) at(n int) *logLine {
	n -= b.base
	return &b.chunks[n/chunk][n%chunk]
}

// marksBefore is how many marks have numbers below n.
func (b *logBuffer) marksBefore(n int) int {
	return sort.Search(len(b.marks), func(i int) bool { return b.marks[i].n >= n })
}

// markAt is the mark with this number; nil if it is a line's.
func (b *logBuffer) markAt(n int) *logLine {
	if i := b.marksBefore(n); i < len(b.marks) && b.marks[i].n == n {
		return &b.marks[i].logLine
	}
	return nil
}

// row is the transcript's number of a line, from 0.
func (b *logBuffer) row(n int) int { return b.start + n - b.marksBefore(n) }

// number is the log's number of a row of the transcript.
func (b *logBuffer) number(row int) int {
	row -= b.start
	return row + sort.Search(len(b.marks), func(i int) bool { return b.marks[i].n-i > row })
}

// get is a line if it is in memory.
func (b *logBuffer) get(n int) *logLine {
	if n >= b.base {
		return b.at(n)
	}
	if l := b.markAt(n); l != nil {
		return l
	}
	if l := b.old[n]; l != nil {
		return l
	}
	if l := b.older[n]; l != nil {
		b.remember(n, l)
		return l
	}
	return nil
}

// remember keeps a line that was read back, until many others were.
func (b *logBuffer) remember(n int, l *logLine) {
	if b.old == nil || len(b.old) >= oldLines || b.oldSize > oldBytes {
		b.older, b.old, b.oldSize = b.old, map[int]*logLine{}, 0
	}
	b.old[n] = l
	b.oldSize += len(l.text)
}

// readBack takes in lines that were read.
func (b *logBuffer) readBack(lines []event.TranscriptLine) {
	for _, l := range lines {
		got := &logLine{stage: b.stage(l.Stage), text: clean(l.Text)}
		if !l.Time.IsZero() {
			got.at = l.Time.UnixMilli()
		}
		if l.Err != nil {
			got.tone, got.text = aside, "… this line cannot be read back: "+clean(l.Err.Error())
		}
		if n := b.number(l.N); n < b.base {
			b.remember(n, got)
		}
	}
}

// siftMost is how many lines a sift lists.
const siftMost = 4_000_000

// sift is a list of the lines that are meant, in a log that grows. What is in memory is looked at as it comes, the rest is
// searched on disk part by part.
type sift struct {
	event.Sift
	list   []uint32 // their numbers, rising
	upto   int      // everything below was looked at
	busy   bool     // a part is being searched
	err    error    // why not everything could be looked at
	begun  bool
	capped bool
}

func (s *sift) add(n int) {
	if len(s.list) == siftMost {
		s.capped = true
		return
	}
	s.list = append(s.list, uint32(n))
}

// grow looks at what is in memory.
func (s *sift) grow(b *logBuffer) {
	if !s.begun {
		s.begun, s.upto = true, b.first()
	}
	s.upto = max(s.upto, b.first())
	for end := b.end(); s.upto < end; s.upto++ {
		var l *logLine
		if s.upto >= b.base {
			l = b.at(s.upto)
		} else if l = b.markAt(s.upto); l == nil {
			return
		}
		if s.Match(b.stages[l.stage], l.text) {
			s.add(s.upto)
		}
	}
}

// take adds what was found on disk from the row that upto stands for, up to the row next.
func (s *sift) take(b *logBuffer, found []int, next int) {
	mark := b.marksBefore(s.upto)
	marks := func(row int) { // those that stand before a row
		for ; mark < len(b.marks) && b.start+b.marks[mark].n-mark <= row; mark++ {
			if m := &b.marks[mark]; s.Match(b.stages[m.stage], m.text) {
				s.add(m.n)
			}
		}
	}
	next = min(next, b.start+b.lines) // the events of what came since are still on their way
	for _, row := range found {
		if row >= next {
			break
		}
		marks(row)
		s.add(row - b.start + mark)
	}
	marks(next - 1)
	s.upto = next - b.start + mark
}

// done reports whether everything was looked at.
func (s *sift) done(b *logBuffer) bool { return s.begun && s.upto >= b.end() }

// ord is how many of the lines have numbers below n.
func (s *sift) ord(n int) int {
	return sort.Search(len(s.list), func(i int) bool { return int(s.list[i]) >= n })
}
