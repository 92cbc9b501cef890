package event

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLine is the length in bytes from which Clean cuts a line.
const MaxLine = 4096

// manyMarks is how many combining marks of one character are let through: more of them paint over other lines.
const manyMarks = 6

// unseen reports whether nothing is seen of a character where it stands, or not what it is: bidirectional controls, zero
// width, line ends, fillers. Variation selectors are left alone: emoji have them.
func unseen(r rune) bool {
	return unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) ||
		unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) || unicode.Is(unicode.Variation_Selector, r) && (r < 0xfe00 || r > 0xfe0f)
}

// Clean makes one line of untrusted output (a guest's console, an upstream's file, a tool's message) harmless for every
// consumer: escape sequences are dropped, other control, formatting and invalid characters are spelled out, tabs become
// spaces, CI workflow commands lose their meaning, and what is too long is cut with a word that says so. Of a line that
// a terminal would overwrite (carriage returns) the last version stays.
func Clean(line string) string {
	if plain(line) {
		return line
	}
	line = strings.TrimRight(line, "\r\n")
	if i := strings.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:]
	}
	cut := 0
	if len(line) > MaxLine {
		cut = len(line) - MaxLine
		line = line[:MaxLine]
	}
	var b strings.Builder
	b.Grow(len(line))
	marks := 0
	for i := 0; i < len(line); {
		c := line[i]
		if c >= 0x20 && c < 0x7f { // what comes most comes at once
			begin := i
			for i++; i < len(line) && line[i] >= 0x20 && line[i] < 0x7f; i++ {
			}
			b.WriteString(line[begin:i])
			marks = 0
			continue
		}
		if c == 0x1b {
			i += escape(line[i:])
			continue
		}
		r, n := utf8.DecodeRuneInString(line[i:])
		switch {
		case r >= 0x3041 && r <= 0x9fff && r != 0x3164 && r != 0x3099 && r != 0x309a, r >= 0xa1 && r < 0x300 && r != 0xad: // kana and ideographs; Latin
			b.WriteString(line[i : i+n])
		case r == utf8.RuneError && n <= 1:
			fmt.Fprintf(&b, `\x%02x`, c)
		case r == '\t':
			b.WriteString("    ")
		case r == 0x9b || r == 0x9d || r == 0x90: // the one-character forms of CSI, OSC and DCS
			fmt.Fprintf(&b, `\u%04x`, r)
		case r == '\b':
		case unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case r >= 0x80 && unseen(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		case r >= 0x300 && unicode.In(r, unicode.Mn, unicode.Me):
			if marks++; marks > manyMarks {
				fmt.Fprintf(&b, `\u%04x`, r)
			} else {
				b.WriteRune(r)
			}
			i += n
			continue
		default:
			b.WriteRune(r)
		}
		marks = 0
		i += n
	}
	s := b.String()
	if t := strings.TrimLeftFunc(s, unicode.IsSpace); strings.HasPrefix(t, "::") {
		s = s[:len(s)-len(t)] + ": :" + t[2:]
	}
	s = strings.ReplaceAll(s, "##[", "## [")
	if cut > 0 {
		s += fmt.Sprintf(" … (%d bytes more)", cut)
	}
	return s
}

// plain reports whether a line is harmless as it is, as most are: printable ASCII without the beginnings of commands.
func plain(line string) bool {
	if len(line) > MaxLine {
		return false
	}
	for i := 0; i < len(line); i++ {
		if c := line[i]; c < 0x20 || c > 0x7e || c == ':' && i+1 < len(line) && line[i+1] == ':' || c == '#' && i+2 < len(line) && line[i+1] == '#' && line[i+2] == '[' {
			return false
		}
	}
	return true
}

// Clean returns the event with all its texts made harmless: for events that come from outside, such as a file.
func (e Event) Clean() Event {
	e.Target, e.Stage, e.Unit, e.LogFile = Clean(e.Target), Clean(e.Stage), Clean(e.Unit), Clean(e.LogFile)
	e.Line, e.Reason, e.Error, e.Remedy = CleanLong(e.Line), CleanLong(e.Reason), CleanText(e.Error), CleanLong(e.Remedy)
	return e
}

// CleanLong cleans a line that may have been cleaned before: such a line is longer than MaxLine where its characters were
// spelled out or it was cut with a word that says so. A harmless line up to eight times MaxLine stays as it is.
func CleanLong(line string) string {
	if len(line) <= MaxLine || len(line) > 8*MaxLine {
		return Clean(line)
	}
	var b strings.Builder
	for len(line) > MaxLine {
		n := MaxLine
		for n > MaxLine-utf8.UTFMax && !utf8.RuneStart(line[n]) {
			n--
		}
		b.WriteString(Clean(line[:n]))
		line = line[n:]
	}
	b.WriteString(Clean(line))
	return b.String()
}

// CleanText cleans a text of several lines.
func CleanText(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = CleanLong(lines[i])
	}
	return strings.Join(lines, "\n")
}

// escape returns the length of the escape sequence that s begins with: CSI up to its final byte, the string forms (OSC,
// DCS, APC, PM, SOS) up to BEL or ST, anything else two or three characters (ECMA-48).
func escape(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
			if s[i] < 0x20 || s[i] > 0x3f {
				return i // broken: what follows is looked at by itself
			}
		}
		return len(s)
	case ']', 'P', '_', '^', 'X':
		for i := 2; i < len(s); i++ {
			if s[i] == 0x07 {
				return i + 1
			}
			if s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
		}
		return len(s)
	default:
		i := 1
		for i < len(s) && s[i] >= 0x20 && s[i] <= 0x2f {
			i++
		}
		if i < len(s) && s[i] >= 0x30 && s[i] <= 0x7e {
			i++
		}
		return i
	}
}
