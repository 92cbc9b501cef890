package machine

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

const (
	maxConsole     = 32 << 20 // bytes of a console that are kept in the stage's log
	maxConsoleLine = 2048     // bytes of a line that are looked at
	lastLines      = 12       // lines that an error repeats
	maxLastLine    = 200      // bytes of each of them
)

// Console takes what a guest prints on its serial port: into the log, up to a bound, and looks at it.
type Console struct {
	Kernel chan string // the words with which a kernel begins, once

	scope *event.Scope
	lines *event.LineWriter
	panic func(line string)

	mu    sync.Mutex
	total int64
	line  []byte // what came since the last line end, at most maxConsoleLine
	tail  []string
}

// NewConsole makes a console. panic is told the line with which firmware, boot loader or kernel say that they are over.
func NewConsole(scope *event.Scope, panic func(line string)) *Console {
	return &Console{Kernel: make(chan string, 1), scope: scope, lines: scope.Lines(nil), panic: panic}
}

var (
	// panics are what a firmware, a boot loader or a kernel says when it is over.
	panics = regexp.MustCompile(`Kernel panic - not syncing|end Kernel panic|You are in emergency mode|Entering emergency mode|No bootable device|No bootable option or device`)
	// prompts are what they say, without a line end, to somebody who is not there.
	prompts = []string{"(initramfs)", "grub>", "grub rescue>", "Shell>"}
	// kernels are a kernel's first words.
	kernels = regexp.MustCompile(`Linux version \S+`)
)

// Write never fails.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := maxConsole - c.total; room > 0 {
		_, _ = c.lines.Write(p[:min(int64(len(p)), room)])
		if int64(len(p)) >= room {
			_ = c.lines.Close()
			c.scope.Logf("… the console has printed %d MiB: what follows is left out here", maxConsole>>20)
		}
	}
	c.total += int64(len(p))
	for rest := p; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte("\n"))
		c.line = append(c.line, part[:min(len(part), maxConsoleLine-len(c.line))]...)
		if ended {
			c.look(event.Clean(string(c.line)))
			c.line = c.line[:0]
		}
		rest = after
	}
	if len(c.line) < maxLastLine {
		line := strings.TrimSpace(event.Clean(string(c.line)))
		if slices.Contains(prompts, line) {
			c.look(line)
			c.line = c.line[:0]
		}
	}
	return len(p), nil
}

// look sees every line.
func (c *Console) look(line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	line = Clip(line, maxLastLine)
	if c.tail = append(c.tail, line); len(c.tail) > lastLines {
		c.tail = c.tail[1:]
	}
	if k := kernels.FindString(line); k != "" {
		select {
		case c.Kernel <- k:
		default:
		}
	}
	prompt := func(p string) bool { return strings.HasPrefix(line, p) }
	if panics.MatchString(line) || slices.ContainsFunc(prompts, prompt) {
		c.panic(line)
	}
}

// Last are the console's last lines, in one.
func (c *Console) Last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.tail, " | ")
}

// Close ends the log, with a line without an end and a word on what was left out.
func (c *Console) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total <= maxConsole {
		_ = c.lines.Close()
	} else {
		c.scope.Logf("… %d bytes of the console were left out", c.total-maxConsole)
	}
}
