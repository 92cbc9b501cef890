package install

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/machine"
)

const (
	maxWindow     = 32 << 10 // bytes of text in which an answer is looked for
	maxTranscript = 32 << 20 // bytes of a console that are kept
	maxLine       = 2048     // bytes of a line; a longer one goes on in the next
	lastLines     = 12       // lines that an error repeats
	maxLastLine   = 200      // bytes of each of them
)

// transcript keeps what the consoles of all power-ons have said and what was typed, in a file and in the log.
type transcript struct {
	path    string
	file    *os.File
	w       *bufio.Writer
	scope   *event.Scope
	size    int64
	secrets []string // the longest first
	tail    []string // the last lines
}

func newTranscript(path string, scope *event.Scope) (*transcript, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &transcript{path: path, file: f, w: bufio.NewWriter(f), scope: scope}, nil
}

// conceal keeps texts out of the transcript from now on.
func (t *transcript) conceal(secrets []string) {
	t.secrets = append(t.secrets, secrets...)
	slices.SortFunc(t.secrets, func(a, b string) int { return len(b) - len(a) })
}

func (t *transcript) redact(text string) string {
	for _, s := range t.secrets {
		text = strings.ReplaceAll(text, s, "[redacted]")
	}
	return text
}

// add keeps a line of the console.
func (t *transcript) add(line string) {
	line = event.Clean(t.redact(line))
	if strings.TrimSpace(line) != "" {
		if t.tail = append(t.tail, machine.Clip(line, maxLastLine)); len(t.tail) > lastLines {
			t.tail = slices.Delete(t.tail, 0, 1)
		}
	}
	before := t.size
	t.size += int64(len(line)) + 1
	switch {
	case t.size <= maxTranscript:
		t.put(line)
	case before <= maxTranscript:
		t.put(fmt.Sprintf("… the console has printed %d MiB: what follows is left out here", maxTranscript>>20))
	}
}

// note keeps a line of ours, after the console's own bound, too.
func (t *transcript) note(format string, args ...any) {
	t.put("── " + event.Clean(t.redact(fmt.Sprintf(format, args...))))
}

func (t *transcript) put(line string) {
	_, _ = t.w.WriteString(line + "\n") // a full disk never ends an installation: the disk's own error says more
	t.scope.Log(line)
}

// last are the console's last lines, in one.
func (t *transcript) last() string { return strings.Join(t.tail, " | ") }

func (t *transcript) close() {
	if t.size > maxTranscript {
		t.note("%d bytes of the console were left out", t.size-maxTranscript)
	}
	_ = t.w.Flush()
	_ = t.file.Close()
}

// screen is the text of one power-on's console: in a window that a dialogue looks at, and line by line.
type screen struct {
	cleaner
	window []byte // what came since the last match, at most maxWindow
	line   []byte // what came since the last line end
	kept   *transcript
	fail   []*regexp.Regexp
}

// feed takes what the console has printed. The result is not empty when a whole line of it matches one of the expressions
// that end everything: that line, and the expression.
func (s *screen) feed(p []byte) (line string, why *regexp.Regexp) {
	text := s.cleaner.feed(p)
	for rest := text; rest != ""; {
		i := strings.IndexAny(rest, "\n\b")
		part := rest
		if i >= 0 {
			part = rest[:i]
		}
		for len(part) > 0 {
			n := min(len(part), maxLine-len(s.line))
			for n > 0 && n < len(part) && !utf8.RuneStart(part[n]) {
				n--
			}
			s.line = append(s.line, part[:n]...)
			if part = part[n:]; len(part) > 0 {
				if why == nil {
					line, why = s.look()
				}
				s.endLine()
			}
		}
		if i < 0 {
			break
		}
		if rest[i] == '\b' {
			s.line = shorten(s.line)
		} else {
			if why == nil {
				line, why = s.look()
			}
			s.endLine()
		}
		rest = rest[i+1:]
	}
	s.show(text)
	return line, why
}

// shorten takes the last character off.
func shorten(line []byte) []byte {
	_, n := utf8.DecodeLastRune(line)
	return line[:len(line)-n]
}

// look looks for an end in the line under way.
func (s *screen) look() (string, *regexp.Regexp) {
	if len(s.line) == 0 {
		return "", nil
	}
	for _, f := range s.fail {
		if f.Match(s.line) {
			return machine.Clip(event.Clean(string(s.line)), maxLastLine), f
		}
	}
	return "", nil
}

func (s *screen) endLine() {
	s.kept.add(string(s.line))
	s.line = s.line[:0]
}

// show puts a text into the window. Of what is too much, the oldest goes.
func (s *screen) show(text string) {
	for text != "" {
		i := strings.IndexByte(text, '\b')
		part := text
		if i >= 0 {
			part = text[:i]
		}
		s.window = append(s.window, part...)
		if i < 0 {
			break
		}
		if n := len(s.window); n > 0 && s.window[n-1] != '\n' {
			s.window = shorten(s.window)
		}
		text = text[i+1:]
	}
	if over := len(s.window) - maxWindow; over > 0 {
		for over < len(s.window) && !utf8.RuneStart(s.window[over]) {
			over++
		}
		s.window = append(s.window[:0], s.window[over:]...)
	}
}

// met finds, among expressions, the one that the window matches first; of two at the same place, the one with the
// longer match. It takes away the window up to the match's end. A match that reaches to the end of what was printed
// counts only when the console is silent; tentative says that there is one.
func (s *screen) met(list []*regexp.Regexp, silent bool) (which int, tentative bool) {
	which = -1
	var at []int
	for i, re := range list {
		m := re.FindIndex(s.window)
		if m != nil && (at == nil || m[0] < at[0] || m[0] == at[0] && m[1] > at[1]) {
			which, at = i, m
		}
	}
	if at == nil {
		return -1, false
	}
	if at[1] == len(s.window) && !silent {
		return -1, true
	}
	s.window = append(s.window[:0], s.window[at[1]:]...)
	return which, false
}

// close keeps a last line without an end.
func (s *screen) close() {
	if len(s.line) > 0 {
		s.endLine()
	}
}

func newScreen(fail []string, kept *transcript) (*screen, error) {
	s := &screen{kept: kept}
	for i, f := range fail {
		re, err := regexp.Compile(f)
		if err != nil {
			return nil, fmt.Errorf("fail %d: %w", i+1, err)
		}
		s.fail = append(s.fail, re)
	}
	return s, nil
}
