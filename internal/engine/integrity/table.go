package integrity

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Limits of a checksum file.
const (
	maxTable   = 4 << 20 // bytes
	maxLine    = 8192
	maxEntries = 100000
)

// ErrAbsent is the error of a name that a checksum file does not hold.
var ErrAbsent = errors.New("the checksum file does not name it")

// Table is what a checksum file says.
type Table struct {
	names []string
	sums  map[string][]entry
	sizes map[string]int64
	bare  []entry
}

// entry is a checksum, or why it is none.
type entry struct {
	Sum
	err error
}

var (
	gnuLine  = regexp.MustCompile(`^\\?([0-9a-fA-F]{32,128}) [ *]?(\S.*)$`)                                                            // sha256sum(1)
	bsdLine  = regexp.MustCompile(`^(MD5|SHA-?1|SHA-?224|SHA-?256|SHA-?384|SHA-?512|SHA512/256|RMD160) ?\((.+)\) ?= ?([0-9a-fA-F]+)$`) // sha256(1)
	bareLine = regexp.MustCompile(`^[0-9a-fA-F]{32,128}$`)
	sizeLine = regexp.MustCompile(`^# (\S+): (\d{1,15}) bytes$`)
)

// ParseTable reads a checksum file in any form that distributions use: lines of GNU's sha256sum ("HEX  name", with one or
// two spaces or the binary mark "*"), of BSD's sha256 ("SHA256 (name) = HEX"), with "# name: 123 bytes" between them,
// several algorithms in one file, or one bare hash. What is none of these is skipped: such files hold headers, armour and
// at times a program's output. Of a signed file only the signed text may be read: see Ring.Open.
func ParseTable(data []byte) (*Table, error) {
	if len(data) > maxTable {
		return nil, fmt.Errorf("the checksum file has more than %d MiB", maxTable>>20)
	}
	t := &Table{sums: map[string][]entry{}, sizes: map[string]int64{}}
	sc := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
	sc.Buffer(nil, maxTable+1)
	count := 0
	for sc.Scan() {
		line := strings.TrimRight(sc.Text(), " \t\r")
		if len(line) > maxLine {
			continue
		}
		switch {
		case line == "":
		case sizeLine.MatchString(line):
			m := sizeLine.FindStringSubmatch(line)
			t.sizes[plainName(m[1])], _ = strconv.ParseInt(m[2], 10, 64)
		case strings.HasPrefix(line, "#"):
		case bareLine.MatchString(line):
			s, err := sum("", line)
			t.bare = append(t.bare, entry{s, err})
			count++
		default:
			name, e, ok := named(line)
			if !ok {
				continue
			}
			if _, known := t.sums[name]; !known {
				t.names = append(t.names, name)
			}
			t.sums[name] = append(t.sums[name], e)
			count++
		}
		if count > maxEntries {
			return nil, fmt.Errorf("the checksum file has more than %d entries", maxEntries)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("the checksum file: %w", err)
	}
	if count == 0 {
		return nil, errors.New("the file holds no checksum")
	}
	return t, nil
}

// named reads a line that names a file.
func named(line string) (name string, e entry, ok bool) {
	if m := bsdLine.FindStringSubmatch(line); m != nil {
		algorithm := strings.ReplaceAll(strings.ToLower(m[1]), "-", "")
		e.Sum, e.err = sum(algorithm, m[3])
		if (Sum{Algorithm: algorithm}).strength() == 0 {
			e.err = fmt.Errorf("%s vouches for nothing any more", m[1])
		}
		return plainName(m[2]), e, true
	}
	if m := gnuLine.FindStringSubmatch(line); m != nil {
		e.Sum, e.err = sum("", m[1])
		name = m[2]
		if strings.HasPrefix(line, `\`) { // coreutils: the name is escaped
			name = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(name)
		}
		return plainName(name), e, true
	}
	return "", e, false
}

// plainName is a name without "./" before it.
func plainName(name string) string { return strings.TrimPrefix(name, "./") }

// Names lists what the file has checksums of, in its order.
func (t *Table) Names() []string { return t.names }

// Size is the size in bytes that a comment of the file tells of a name.
func (t *Table) Size(name string) (int64, bool) {
	n, ok := t.sizes[name]
	return n, ok
}

// Sum is the strongest checksum of exactly that name. Errors: ErrAbsent; a name with different hashes of one algorithm, or
// with a hash of the wrong length, or with none that counts.
func (t *Table) Sum(name string) (Sum, error) {
	list, ok := t.sums[name]
	if !ok {
		return Sum{}, fmt.Errorf("%s: %w", event.Clean(clip(name)), ErrAbsent)
	}
	s, err := best(list)
	if err != nil {
		return Sum{}, fmt.Errorf("%s: %w", event.Clean(clip(name)), err)
	}
	return s, nil
}

// Bare is the hash of a file that holds nothing but one, without a name.
func (t *Table) Bare() (Sum, error) {
	if len(t.names) > 0 {
		return Sum{}, errors.New("the checksum file names what its checksums are of")
	}
	return best(t.bare)
}

// best chooses the strongest of what is said of one file.
func best(list []entry) (Sum, error) {
	var strongest Sum
	var weak error
	said := map[string]string{}
	for _, e := range list {
		if e.err != nil {
			if e.Algorithm == "" {
				weak = e.err
			}
			continue
		}
		if old, ok := said[e.Algorithm]; ok && old != e.Hex {
			return Sum{}, fmt.Errorf("it is there twice, with %s and with %s", Sum{e.Algorithm, old}, e.Sum)
		}
		said[e.Algorithm] = e.Hex
		if e.strength() > strongest.strength() {
			strongest = e.Sum
		}
	}
	if strongest.Algorithm == "" {
		if weak == nil {
			weak = errors.New("there is no checksum of it")
		}
		return Sum{}, weak
	}
	// A hash of a length that none has, beside a good one, is no weak algorithm: somebody has cut it.
	for _, e := range list {
		if n := len(e.Hex); e.err != nil && n != 0 && n != 32 && n != 40 && n != 56 {
			return Sum{}, e.err
		}
	}
	return strongest, nil
}
