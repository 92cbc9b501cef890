package ui

import (
	"fmt"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// meter is the progress of a stage.
type meter struct {
	done, total int64
	unit        string
	deadline    time.Time // the stage is ended then; zero: nobody does that
	samples     []sample  // of the last leftSpan
}

type sample struct {
	at   time.Time
	done int64
}

const sampleEvery = 250 * time.Millisecond

func (m *meter) add(e *event.Event) {
	unit := clean(e.Unit)
	if e.Done < m.done || unit != m.unit {
		m.samples = m.samples[:0] // another part of the stage begins
	}
	m.done, m.total, m.unit, m.deadline = e.Done, e.Total, unit, e.Deadline
	if n := len(m.samples); n >= 2 && e.Time.Sub(m.samples[n-2].at) < sampleEvery {
		m.samples[n-1] = sample{e.Time, e.Done}
	} else {
		m.samples = append(m.samples, sample{e.Time, e.Done})
	}
	for len(m.samples) > 2 && e.Time.Sub(m.samples[1].at) > leftSpan {
		m.samples = m.samples[1:]
	}
}

func (m *meter) known() bool { return m.unit != "" || m.total > 0 }

func (m *meter) share() float64 {
	if m.total <= 0 {
		return 0
	}
	return min(1, max(0, float64(m.done)/float64(m.total)))
}

// amount is done/total as people say it.
func (m *meter) amount() string {
	if what, ok := event.Bytes(m.unit); ok {
		text := size(float64(m.done))
		if m.total > 0 {
			text += " of " + size(float64(m.total))
		}
		if what != "" {
			text += " " + what
		}
		return text
	}
	if m.total > 0 {
		return fmt.Sprintf("%s of %s %s", number(int(m.done)), number(int(m.total)), m.unit)
	}
	return number(int(m.done)) + " " + m.unit
}

// speed is what was done in a second, in the last span before now; 0 where that says nothing. It goes down while nothing
// comes.
func (m *meter) speed(span time.Duration, now time.Time) float64 {
	n := len(m.samples)
	if n < 2 {
		return 0
	}
	last := m.samples[n-1]
	if quiet := now.Sub(last.at); quiet > 2*time.Second {
		last.at = now
		if quiet > stallAfter {
			return 0
		}
	}
	i := 0
	for i < n-2 && last.at.Sub(m.samples[i+1].at) >= span {
		i++
	}
	first := m.samples[i]
	dt := last.at.Sub(first.at).Seconds()
	if dt < 0.2 || last.done <= first.done {
		return 0
	}
	return float64(last.done-first.done) / dt
}

// rate is what is done in a second; "" where that says nothing.
func (m *meter) rate(now time.Time) string {
	if m.unit == "seconds" {
		return ""
	}
	r := m.speed(rateSpan, now)
	_, bytes := event.Bytes(m.unit)
	switch {
	case r <= 0:
		if n := len(m.samples); bytes && n > 0 && m.done < m.total && now.Sub(m.samples[n-1].at) > stallAfter {
			return "no progress for " + clockSpan(now.Sub(m.samples[n-1].at))
		}
		return ""
	case bytes:
		return size(r) + "/s"
	case r >= 10:
		return fmt.Sprintf("%.0f/s", r)
	case r < 0.1:
		return ""
	}
	return fmt.Sprintf("%.1f/s", r)
}

// left is how long what is measured will take if it goes on like this; bytes only: other units are not all alike.
func (m *meter) left(now time.Time) (time.Duration, bool) {
	if _, ok := event.Bytes(m.unit); !ok || m.total <= 0 || len(m.samples) == 0 {
		return 0, false
	}
	if m.done >= m.total {
		return 0, true
	}
	// The first moments say too little.
	r := m.speed(leftSpan, now)
	if r <= 0 || now.Sub(m.samples[0].at) < 2*time.Second {
		return 0, false
	}
	s := float64(m.total-m.done) / r
	if s > (100 * 24 * time.Hour).Seconds() {
		return 0, false
	}
	return seconds(s), true
}
