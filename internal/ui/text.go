package ui

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// clean makes text from outside harmless and one line. Variation selectors go too: terminals disagree on the width of
// what they change.
func clean(s string) string {
	s = event.Clean(strings.ReplaceAll(s, "\n", " "))
	if strings.ContainsRune(s, 0xfe0f) || strings.ContainsRune(s, 0xfe0e) {
		s = strings.NewReplacer("\ufe0f", "", "\ufe0e", "").Replace(s)
	}
	return s
}

// paragraphs cleans a text of several lines.
func paragraphs(s string) []string {
	var out []string
	for line := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
		if line = strings.TrimRight(clean(line), " "); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// plain reports whether every byte of s takes exactly one cell.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// width is how many cells s takes, escape sequences none.
func width(s string) int {
	if plain(s) {
		return len(s)
	}
	return ansi.StringWidth(s)
}

// fit cuts s to w cells; the last of them is "…" where something was cut.
func fit(s string, w int) string {
	if w <= 0 {
		return ""
	}
	if plain(s) {
		if len(s) <= w {
			return s
		}
		return s[:w-1] + "…"
	}
	if len(s) <= w { // no character takes more cells than bytes
		return s
	}
	return ansi.Truncate(s, w, "…")
}

// pad cuts s to w cells or fills it up with spaces.
func pad(s string, w int) string {
	s = fit(s, w)
	return s + spaces(w-width(s))
}

// padLeft is pad with the spaces in front.
func padLeft(s string, w int) string {
	s = fit(s, w)
	return spaces(w-width(s)) + s
}

const blanks = "                                                                                                                                "

func spaces(n int) string {
	if n <= 0 {
		return ""
	}
	if n <= len(blanks) {
		return blanks[:n]
	}
	return strings.Repeat(" ", n)
}

// ends puts left and right at the two ends of a line; left gives way.
func ends(left, right string, w int) string {
	rw := width(right)
	if rw+2 > w {
		return pad(left, w)
	}
	if right == "" {
		return pad(left, w)
	}
	return pad(left, w-rw-1) + " " + right
}

// wrap breaks a sentence into lines of at most w cells: at spaces, and elsewhere only in words that are longer than a
// line. A hyphen is no place to break at: half of a flag or of a file's name could not be copied.
func wrap(s string, w int) (lines []string) {
	if w <= 0 {
		return nil
	}
	if width(s) <= w {
		return []string{s}
	}
	line, cells := "", 0
	for i, word := range strings.Split(s, " ") {
		n := width(word)
		switch {
		case i == 0:
			line, cells = word, n
		case cells+1+n <= w:
			line, cells = line+" "+word, cells+1+n
		default:
			lines = append(lines, strings.TrimRight(line, " "))
			line, cells = word, n
		}
		for cells > w { // a word that no line has the room for
			at := breaks(line, w)
			if len(at) < 2 {
				break
			}
			lines = append(lines, line[:at[1]])
			line = line[at[1]:]
			cells = width(line)
		}
	}
	lines = append(lines, line)
	for i := range lines {
		lines[i] = fit(lines[i], w)
	}
	return lines
}

// breaks is where a log line of more than w cells is broken: the offsets at which its rows begin, 0 first. A row ends after
// a space where there is one in its last third.
func breaks(s string, w int) []int {
	w = max(w, 2) // a wide character has to fit
	if len(s) <= w {
		return []int{0}
	}
	offsets := []int{0}
	if plain(s) {
		for i := w; i < len(s); i += w {
			if k := strings.LastIndexByte(s[i-w/3:i], ' '); k >= 0 {
				i -= w/3 - k - 1
			}
			offsets = append(offsets, i)
		}
		return offsets
	}
	at, cells := 0, 0
	space, after := -1, 0 // the offset after the last space in the row's last third, and the cells up to there
	for at < len(s) {
		cluster, cw := ansi.FirstGraphemeCluster(s[at:], ansi.GraphemeWidth)
		if len(cluster) == 0 {
			break
		}
		if cells+cw > w {
			if space < 0 {
				space, after = at, cells
			}
			offsets = append(offsets, space)
			cells -= after
			space = -1
		}
		at += len(cluster)
		if cells += cw; cluster == " " && cells > w-w/3 {
			space, after = at, cells
		}
	}
	return offsets
}

// from is s without its first n cells.
func from(s string, n int) string {
	if n <= 0 {
		return s
	}
	if plain(s) {
		return s[min(n, len(s)):]
	}
	return ansi.TruncateLeft(s, n, "")
}

// plural is "1 target", "2 targets".
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return number(n) + " " + word + "s"
}

// number is n with separators: 12,345.
func number(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span is a duration as people say it: "3.2 s", "48 s", "2m 05s", "1h 02m".
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm %02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh %02dm", int(d.Hours()), int(d.Minutes())%60)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// size is a number of bytes as people say it.
func size(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1024 {
			if unit == "B" || n >= 100 {
				return fmt.Sprintf("%.0f %s", n, unit)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.1f TiB", n)
}

// quote spells a word for a shell.
func quote(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:,=+@%") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
