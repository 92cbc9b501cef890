package integrity

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Limits of a checksum file; the largest in use have some 10,000 lines.
const (
	maxTable   = 4 << 20 // bytes
	maxLine    = 4096    // bytes
	maxEntries = 100_000
)

// Table is what a checksum file says.
type Table struct {
	names []string
	files map[string]*entry
	sizes map[string]int64
	bare  []found
}

// entry is what the file says of one name.
type entry struct {
	sums []Sum
	weak []string // "MD5", …
	bad  error    // why no line about the name can be believed
}

// found is one hash without an algorithm in front.
type found struct {
	digits string
	line   int
}

var (
	// GNU coreutils: HEX, a space, a space (text) or an asterisk (binary), the name. Some write one space only.
	gnuLine = regexp.MustCompile(`^([0-9A-Fa-f]{16,})[ \t]+\*?(.+)$`)
	// BSD, and coreutils' --tag: ALGORITHM (name) = HEX; openssl dgst leaves out the spaces.
	bsdLine = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9/-]{1,15}) ?\((.+)\) ?= ?(\S*)$`)
	// A comment that tells a size in bytes.
	sizeLine = regexp.MustCompile(`^# ?(.+): ([0-9]{1,18}) bytes$`)
)

// ParseTable reads a checksum file: lines as coreutils' md5sum family and the BSDs' digest tools print them, in any mix,
// or one bare hash. Sizes in comments ("# NAME: 123 bytes") are kept. Whatever else stands in it is skipped; that nothing
// usable is left is an error, as is a file past the limits of 4 MiB, 4096 bytes a line and 100,000 hashes. Of a
// clear-signed text pass what Ring.Open returned.
//
// Names are what the file says and never a path to write to: a leading "./" is taken off, the escapes of coreutils
// (a backslash in front of the line) are undone, and nothing else is changed.
func ParseTable(data []byte) (*Table, error) {
	if len(data) > maxTable {
		return nil, event.WithRemedy(fmt.Errorf("the checksum file has %d bytes; none in use is longer than %d", len(data), maxTable), "check that its address is right")
	}
	t := &Table{files: map[string]*entry{}, sizes: map[string]int64{}}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	hashes := 0
	for n, raw := range bytes.Split(data, []byte("\n")) {
		if len(raw) > maxLine {
			return nil, event.WithRemedy(fmt.Errorf("line %d of the checksum file has %d bytes: this is no checksum file", n+1, len(raw)), "check that its address is right")
		}
		line := strings.Trim(string(raw), " \t\r")
		if m := sizeLine.FindStringSubmatch(line); m != nil {
			if v, err := strconv.ParseInt(m[2], 10, 64); err == nil {
				name := trimName(m[1])
				if old, ok := t.sizes[name]; ok && old != v {
					v = -1 // two sizes are none
				}
				t.sizes[name] = v
			}
			continue
		}
		if t.add(line, n+1) {
			if hashes++; hashes > maxEntries {
				return nil, fmt.Errorf("the checksum file has more than %d hashes", maxEntries)
			}
		}
	}
	if hashes == 0 {
		first, _, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
		return nil, event.WithRemedy(fmt.Errorf("there is no checksum in it; it begins %.60q", strings.TrimSpace(first)), "check that the address of the checksum file is right")
	}
	return t, nil
}

// trimName takes off what stands in front of a name and is not part of it.
func trimName(name string) string {
	for strings.HasPrefix(name, "./") && len(name) > 2 {
		name = strings.TrimLeft(name[2:], "/")
	}
	return name
}

// add takes one line in and says whether it has a hash.
func (t *Table) add(line string, number int) bool {
	if isHex(line) && len(line) >= 16 {
		t.bare = append(t.bare, found{strings.ToLower(line), number})
		return true
	}
	text, escaped := strings.CutPrefix(line, `\`)
	var algorithm, poor, digits, name string
	if m := bsdLine.FindStringSubmatch(text); m != nil {
		if algorithm, poor = labelled(m[1]); algorithm == "" && poor == "" {
			return false
		}
		name, digits = m[2], m[3]
	} else if m := gnuLine.FindStringSubmatch(text); m != nil {
		digits, name = m[1], m[2]
		algorithm, poor = byDigits(len(digits))
	} else {
		return false
	}
	if escaped {
		name = unescape(name)
	}
	name = trimName(name)
	e := t.files[name]
	if e == nil {
		e = &entry{}
		t.files[name] = e
		t.names = append(t.names, name)
	}
	e.add(algorithm, poor, digits, number)
	return true
}

// add takes in one hash; neither algorithm nor poor means that its length is that of no checksum.
func (e *entry) add(algorithm, poor, digits string, line int) {
	if poor != "" {
		if !slices.Contains(e.weak, poor) {
			e.weak = append(e.weak, poor)
		}
		return
	}
	if algorithm == "" {
		e.bad = fmt.Errorf("line %d has a hash of %d hexadecimal digits, which no checksum has", line, len(digits))
		return
	}
	sum, err := newSum(algorithm, digits)
	if err != nil {
		e.bad = fmt.Errorf("line %d: %w", line, err)
		return
	}
	for _, other := range e.sums {
		if other.Algorithm != algorithm {
			continue
		}
		if other != sum && e.bad == nil {
			e.bad = fmt.Errorf("it gives two different %s checksums, %s and %s", algorithm, other.Hex, sum.Hex)
		}
		return
	}
	e.sums = append(e.sums, sum)
}

// labelled is the algorithm that a BSD line names, as Sum spells it, or the name of a weak one.
func labelled(label string) (algorithm, poor string) {
	switch l := strings.ToLower(strings.ReplaceAll(label, "-", "")); l {
	case "sha256", "sha384", "sha512", "blake2b":
		return l, ""
	case "sha2256", "sha2384", "sha2512": // openssl 3: SHA2-256
		return "sha" + l[4:], ""
	case "blake2b512":
		return "blake2b", ""
	case "md5", "sha1":
		return "", map[string]string{"md5": "MD5", "sha1": "SHA-1"}[l]
	case "sha224", "sha2224":
		return "", "SHA-224"
	}
	return "", ""
}

// byDigits is the algorithm whose hash has n hexadecimal digits, or the name of a weak one.
func byDigits(n int) (algorithm, poor string) {
	if n%2 != 0 {
		return "", ""
	}
	return bySize(n / 2), weak[n/2]
}

// unescape undoes what coreutils does to names with a line break or a backslash.
func unescape(name string) string {
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(name)
}

// Names are the names that the file has a hash for, in the file's order, each once.
func (t *Table) Names() []string { return slices.Clone(t.names) }

// Size is what a comment says of the file's length in bytes.
func (t *Table) Size(name string) (int64, bool) {
	n, ok := t.sizes[name]
	return n, ok && n >= 0
}

// Sum is the strongest checksum of exactly that name; no part of a name matches, and neither does a file of the same
// name in another folder. It is an error if the name is absent, has two different hashes of one kind, a hash of the wrong
// length, or weak ones (MD5, SHA-1) only.
func (t *Table) Sum(name string) (Sum, error) {
	e := t.files[name]
	switch {
	case e == nil && len(t.names) == 0:
		return Sum{}, fmt.Errorf("the checksum file names no file, so it does not say whether its hash is of %s", name)
	case e == nil:
		return Sum{}, event.WithRemedy(fmt.Errorf("the checksum file does not name %s, but %s", name, some(t.names)), "check that both addresses belong together; upstream may have renamed its files")
	case e.bad != nil:
		return Sum{}, event.WithRemedy(fmt.Errorf("the checksum file is not usable for %s: %w", name, e.bad), "fetch it again; if it stays so, tell upstream")
	case len(e.sums) == 0:
		return Sum{}, event.WithRemedy(fmt.Errorf("the checksum file has only %s for %s, which is too weak", strings.Join(e.weak, " and "), name), "%s", betterSum)
	}
	for _, a := range algorithms {
		for _, s := range e.sums {
			if s.Algorithm == a.name {
				return s, nil
			}
		}
	}
	return Sum{}, errors.New("the checksum file has no known checksum for " + name) // cannot be: every sum has a known algorithm
}

// some names the first few.
func some(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}

// Only is the name and the checksum of a file that tells of one name alone, whatever that name is. Some upstreams serve
// an alias whose checksum file names the dated original.
func (t *Table) Only() (name string, sum Sum, err error) {
	if len(t.names) != 1 || len(t.bare) > 0 {
		return "", Sum{}, fmt.Errorf("the checksum file was expected to tell of one file, but has %d names", len(t.names))
	}
	sum, err = t.Sum(t.names[0])
	return t.names[0], sum, err
}

// Bare is the hash of a file that is one hash without a name; its length tells the kind.
func (t *Table) Bare() (Sum, error) {
	if len(t.names) > 0 {
		return Sum{}, fmt.Errorf("the checksum file was expected to be one bare hash, but names %s", some(t.names))
	}
	var first found
	for i, b := range t.bare {
		if i == 0 {
			first = b
		}
		if b.digits != first.digits {
			return Sum{}, fmt.Errorf("the checksum file was expected to be one bare hash, but has others on lines %d and %d", first.line, b.line)
		}
	}
	algorithm, poor := byDigits(len(first.digits))
	if poor != "" {
		return Sum{}, event.WithRemedy(fmt.Errorf("the checksum file has only %s, which is too weak", poor), "%s", betterSum)
	}
	if algorithm == "" {
		return Sum{}, fmt.Errorf("the checksum file has a hash of %d hexadecimal digits, which no checksum has", len(first.digits))
	}
	return Sum{algorithm, first.digits}, nil
}
