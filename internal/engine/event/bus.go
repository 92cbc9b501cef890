package event

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// pendingLogs is how many log lines a subscription keeps for a consumer that does not read; older ones give way, and
// the consumer is told how many.
const pendingLogs = 20000

// Bus hands every event to every subscription. Publishing never blocks.
type Bus struct {
	now  func() time.Time
	mu   sync.Mutex
	subs map[*Subscription]bool
	done bool

	transcripts map[string]*Transcript // by target
}

// NewBus makes a bus whose events carry the time that now tells; nil means time.Now.
func NewBus(now func() time.Time) *Bus {
	if now == nil {
		now = time.Now
	}
	return &Bus{now: now, subs: map[*Subscription]bool{}, transcripts: map[string]*Transcript{}}
}

// Now is the bus's clock.
func (b *Bus) Now() time.Time { return b.now() }

// Publish stamps the event and queues it for every subscription. Lines and reasons are cleaned here, once, so that no
// consumer has to.
func (b *Bus) Publish(e Event) {
	if e.Time.IsZero() {
		e.Time = b.now()
	}
	e.Line, e.Reason, e.Error, e.Remedy = Clean(e.Line), Clean(e.Reason), clean(e.Error), Clean(e.Remedy)
	if e.Kind != Log && e.Kind != Progress && e.Target != "" {
		if t := b.Transcript(e.Target); t != nil {
			e.Row = t.Len() + 1
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.mu.Lock()
		s.put(e)
		s.signal()
		s.mu.Unlock()
	}
}

// lines publishes an event for each line of a text; Row, where there is one, counts on.
func (b *Bus) lines(e Event, text string) {
	var few [64]string
	list := few[:0]
	for line := range strings.SplitSeq(text, "\n") {
		list = append(list, Clean(line))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.mu.Lock()
		for i, line := range list {
			one := e
			if one.Line = line; e.Row > 0 {
				one.Row += i
			}
			s.put(one)
		}
		s.signal()
		s.mu.Unlock()
	}
}

// Close ends every subscription once it has read what is queued.
func (b *Bus) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = true
	for s := range b.subs {
		s.close()
	}
	for _, t := range b.transcripts {
		t.close()
	}
}

// Subscribe returns a subscription that sees every event published from now on.
func (b *Bus) Subscribe() *Subscription {
	s := &Subscription{bus: b, wake: make(chan struct{}, 1), progress: map[[2]string]int{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		s.close()
		return s
	}
	b.subs[s] = true
	return s
}

// Subscription is one consumer's queue. Events come in order; progress that was not read yet is replaced by newer
// progress of the same stage; log lines beyond a bound give way to newer ones, which a line in their place says. Nothing
// else is ever dropped.
type Subscription struct {
	bus *Bus

	mu       sync.Mutex
	queue    []Event
	progress map[[2]string]int // where in the queue the unread progress of a stage stands
	logs     int               // log lines in the queue
	dropped  int               // log lines that gave way since the last read
	lost     bool              // some of them are in no transcript
	closed   bool
	wake     chan struct{}
}

// put queues an event; the caller holds mu and signals.
func (s *Subscription) put(e Event) {
	if s.closed {
		return
	}
	key := [2]string{e.Target, e.Stage}
	switch {
	case e.Kind == Progress:
		if i, ok := s.progress[key]; ok {
			s.queue[i] = e
			return // whoever was to be woken was woken for the one replaced
		}
		s.progress[key] = len(s.queue)
	case e.Kind == Log:
		if s.logs >= 2*pendingLogs {
			s.thin()
		}
		s.logs++
	case e.Kind.Ends():
		delete(s.progress, key) // later progress must not move in front of the end
	}
	s.queue = append(s.queue, e)
}

// thin drops the older half of the queued log lines. Amortised over as many lines it costs a constant each.
func (s *Subscription) thin() {
	drop := s.logs - pendingLogs
	s.logs -= drop
	s.dropped += drop
	kept := s.queue[:0]
	for _, e := range s.queue {
		if e.Kind == Log && drop > 0 {
			drop--
			if e.Row == 0 {
				s.lost = true
			}
			continue
		}
		kept = append(kept, e)
	}
	clear(s.queue[len(kept):])
	s.queue = kept
	clear(s.progress)
	for i, e := range s.queue {
		key := [2]string{e.Target, e.Stage}
		if e.Kind == Progress {
			s.progress[key] = i
		} else if e.Kind.Ends() {
			delete(s.progress, key)
		}
	}
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Subscription) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.signal()
}

// Close ends the subscription; what is queued can still be read.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	delete(s.bus.subs, s)
	s.bus.mu.Unlock()
	s.close()
}

// Next waits until there is something to read and returns all of it, in order. It returns false when the subscription
// is closed and empty, or ctx is done.
func (s *Subscription) Next(ctx context.Context) ([]Event, bool) {
	for {
		if events, open := s.Poll(); len(events) > 0 {
			return events, true
		} else if !open {
			return nil, false
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// Poll returns what is queued without waiting, and whether more can come.
func (s *Subscription) Poll() (events []Event, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events = s.queue
	if s.dropped > 0 {
		notice := Event{Time: s.bus.now(), Kind: Log, Line: fmt.Sprintf(
			"… %d log lines came faster than they could be shown and are left out here; the log files have all of them", s.dropped)}
		if !s.lost {
			notice.Missed = s.dropped
		}
		events = append([]Event{notice}, events...)
	}
	var queue []Event
	if n := min(len(s.queue), 2*pendingLogs); n > 16 {
		queue = make([]Event, 0, n) // as many are likely to come again
	}
	s.queue, s.logs, s.dropped, s.lost = queue, 0, 0, false
	clear(s.progress)
	if s.closed {
		s.signal() // the next Next must not wait
	}
	return events, !s.closed
}
