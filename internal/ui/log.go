package ui

import (
	"fmt"
	"strings"
	"time"
)

// maxLines is how many lines of a log are kept in memory; all of them are on disk.
const maxLines = 100_000

// line is one line of a log.
type line struct {
	time  time.Time
	stage string
	text  string
}

// log is a window on the last lines of a target's log. Drawing costs what is seen, not what is there.
type log struct {
	lines   []line // a ring once it is full
	first   int    // index of the oldest
	older   int    // lines that are on disk only
	back    int    // how many lines the window's end is above the newest; 0 follows
	wrapped bool
	times   bool
	search  string
}

func (l *log) add(x line) {
	if len(l.lines) < maxLines {
		l.lines = append(l.lines, x)
	} else {
		l.lines[l.first] = x
		l.first = (l.first + 1) % maxLines
		l.older++
	}
	if l.back > 0 { // what is looked at stays where it is
		l.back = min(l.back+1, len(l.lines)-1)
	}
}

func (l *log) len() int { return len(l.lines) }

// at is the i-th line, the oldest first.
func (l *log) at(i int) line { return l.lines[(l.first+i)%len(l.lines)] }

// scroll moves the window up (positive) or down.
func (l *log) scroll(n int) { l.back = max(0, min(l.back+n, max(0, l.len()-1))) }

// find moves the window to the next line above (dir 1) or below (-1) that has the searched text, the one at its end
// only if here is set, and reports whether there is one.
func (l *log) find(dir int, here bool) bool {
	if l.search == "" || l.len() == 0 {
		return false
	}
	want := strings.ToLower(l.search)
	i := l.len() - 1 - l.back
	if !here {
		i -= dir
	}
	for ; i >= 0 && i < l.len(); i -= dir {
		if strings.Contains(strings.ToLower(l.at(i).text), want) {
			l.back = l.len() - 1 - i
			return true
		}
	}
	return false
}

// view draws the window: exactly height lines of at most width columns.
func (l *log) view(s styles, width, height int) []string {
	if height <= 0 {
		return nil
	}
	var rows []string
	for i := l.len() - 1 - l.back; i >= 0 && len(rows) < height; i-- {
		x := l.at(i)
		head := ""
		if l.times {
			head = x.time.Format("15:04:05 ")
		}
		parts := []string{cut(head+x.text, width)}
		if l.wrapped {
			parts = wrap(head+x.text, width)
		}
		for k := len(parts) - 1; k >= 0 && len(rows) < height; k-- {
			rows = append(rows, l.mark(s, parts[k]))
		}
	}
	for i, j := 0, len(rows)-1; i < j; i, j = i+1, j-1 {
		rows[i], rows[j] = rows[j], rows[i]
	}
	for len(rows) < height {
		rows = append(rows, "")
	}
	return rows
}

// mark shows where the searched text is.
func (l *log) mark(s styles, text string) string {
	if l.search == "" {
		return text
	}
	lower, want := strings.ToLower(text), strings.ToLower(l.search)
	if len(lower) != len(text) { // letters whose lower case has another length
		return text
	}
	var b strings.Builder
	for {
		i := strings.Index(lower, want)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:i])
		b.WriteString(s.match.Render(text[i : i+len(want)]))
		text, lower = text[i+len(want):], lower[i+len(want):]
	}
}

// hidden says what of the log is not seen.
func (l *log) hidden(height int) string {
	var words []string
	if l.older > 0 {
		words = append(words, fmt.Sprintf("%d older lines on disk", l.older))
	}
	if above := l.len() - l.back - height; above > 0 {
		words = append(words, fmt.Sprintf("%d above", above))
	}
	if l.back > 0 {
		words = append(words, fmt.Sprintf("%d below: G follows again", l.back))
	}
	return strings.Join(words, ", ")
}
