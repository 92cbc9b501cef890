package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/creachadair/tomledit"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Promotion is one change of a flavor's level, as its row keeps it.
type Promotion struct {
	From   Level             `toml:"from"`
	To     Level             `toml:"to"`
	Date   string            `toml:"date"`   // YYYY-MM-DD
	By     string            `toml:"by"`     // who decided, if they say so
	Reason string            `toml:"reason"` // why; of a step down it has to be there
	Stated map[string]string `toml:"stated"` // criteria that somebody vouches for, by their ids
	Waived map[string]string `toml:"waived"` // criteria that are waived, each with its reason
}

var (
	criterionForm = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	// levelLine is a line that sets the level: up to its value, the value, the rest.
	levelLine = regexp.MustCompile(`^(\s*level\s*=\s*)("[^"]*"|'[^']*')(.*)$`)
)

// maxWords is how long a reason or a statement may be, characters.
const maxWords = 500

// Rank is a level's place: 0 for planned.
func (l Level) Rank() int { return slices.Index(Levels, l) }

// promotions checks the changes of a flavor's level: the last one led to the level that it has.
func (p place) promotions(f *Flavor) {
	for i, c := range f.Promotions {
		one := p.item(i, fmt.Sprintf("promotion %d", i+1))
		for key, l := range map[string]Level{"from": c.From, "to": c.To} {
			if !slices.Contains(Levels, l) {
				one.in(key).say("%s is not a level: write one of planned, preview, proposed, stable", quote(string(l)))
			}
		}
		if _, err := time.Parse(time.DateOnly, c.Date); err != nil {
			one.in("date").say("%s is not a day: write YYYY-MM-DD", quote(c.Date))
		}
		if c.To.Rank() < c.From.Rank() && strings.TrimSpace(c.Reason) == "" {
			one.in("reason").say("is missing: a step down has a reason")
		}
		for key, text := range map[string]string{"by": c.By, "reason": c.Reason} {
			one.in(key).oneLine(text)
		}
		for key, texts := range map[string]map[string]string{"stated": c.Stated, "waived": c.Waived} {
			for _, id := range sortedKeys(texts) {
				at := one.in(key).in(id)
				if !criterionForm.MatchString(id) {
					at.say("%s is no criterion: see kmi-tui promote", quote(id))
				}
				if strings.TrimSpace(texts[id]) == "" {
					at.say("is empty: write what is vouched for, or why it is waived")
				}
				at.oneLine(texts[id])
			}
		}
		if i > 0 && f.Promotions[i-1].To != c.From {
			one.in("from").say("%s follows a change to %s: write what the level was", quote(string(c.From)), f.Promotions[i-1].To)
		}
	}
	if n := len(f.Promotions); n > 0 && f.Promotions[n-1].To != f.Level {
		p.item(n-1, fmt.Sprintf("promotion %d", n)).in("to").say("is %s, and the row's level is %s: change both, with kmi-tui promote", f.Promotions[n-1].To, f.Level)
	}
}

func (p place) oneLine(text string) {
	if len([]rune(text)) > maxWords || strings.ContainsFunc(text, unicode.IsControl) {
		p.say("write one line of up to %d characters", maxWords)
	}
}

// Promote returns a catalogue's file with a change of a flavor's level: its level is set, and the change is added to the
// end of its row. Every other byte is as it was, which is made sure by reading the result. name is that of the file.
func Promote(name string, data []byte, flavor string, change Promotion) ([]byte, error) {
	old, err := Parse(name, data)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(old.Flavors, func(f Flavor) bool { return f.ID == flavor })
	if i < 0 {
		return nil, fmt.Errorf("%s has no flavor %q", name, flavor)
	}
	if old.Flavors[i].Level != change.From {
		return nil, event.WithRemedy(fmt.Errorf("%s: the level of %s is %s, not %s", name, flavor, old.Flavors[i].Level, change.From), "look again: somebody has changed it")
	}
	doc, err := document(data)
	if err != nil {
		return nil, err
	}
	const remedy = "change the level and add the [[flavor.promotion]] by hand, or write the row as the others are"
	lines := bytes.SplitAfter(data, []byte("\n"))
	at, end := rowOf(doc, i, len(lines))
	if at == 0 {
		return nil, event.WithRemedy(fmt.Errorf("%s: the row of %s cannot be edited: it is not a [[flavor]] table with a level", name, flavor), remedy)
	}
	line := lines[at-1]
	ending := line[len(bytes.TrimRight(line, "\r\n")):]
	m := levelLine.FindSubmatch(line[:len(line)-len(ending)])
	if m == nil {
		return nil, event.WithRemedy(fmt.Errorf("%s:%d: the level cannot be edited", name, at), remedy)
	}
	lineEnd := "\n"
	if bytes.Equal(ending, []byte("\r\n")) {
		lineEnd = "\r\n"
	}
	// The change goes below the row's last line, above comments and empty lines that belong to what follows.
	for end > at && len(bytes.TrimSpace(lines[end-1])) == 0 || end > at && bytes.HasPrefix(bytes.TrimSpace(lines[end-1]), []byte("#")) && end < len(lines) {
		end--
	}
	var out bytes.Buffer
	for n, l := range lines {
		switch {
		case n == at-1:
			fmt.Fprintf(&out, "%s%s%s%s", m[1], text(string(change.To)), m[3], ending)
		default:
			out.Write(l)
		}
		if n == end-1 {
			if !bytes.HasSuffix(l, []byte("\n")) {
				out.WriteString(lineEnd)
			}
			out.WriteString(strings.ReplaceAll("\n"+change.table(), "\n", lineEnd))
		}
	}
	edited := out.Bytes()
	changed, err := Parse(name, edited)
	if err != nil {
		return nil, event.WithRemedy(fmt.Errorf("%s: the row of %s cannot be edited: %w", name, flavor, err), remedy)
	}
	want := *old
	want.lines = changed.lines
	want.Flavors = slices.Clone(old.Flavors)
	want.Flavors[i].Level = change.To
	want.Flavors[i].Promotions = append(slices.Clone(old.Flavors[i].Promotions), change)
	if !reflect.DeepEqual(&want, changed) {
		return nil, event.WithRemedy(errors.New(name+": editing the row of "+flavor+" would change something else"), remedy)
	}
	return edited, nil
}

// rowOf finds the line of the level of the i-th flavor and the line after which its row ends, both 1-based; 0 if the row
// is not written as a table.
func rowOf(doc *tomledit.Document, i, lines int) (level, end int) {
	n := -1
	end = lines
	for _, s := range doc.Sections {
		top := len(s.Name) > 0 && s.Name[0] == "flavor"
		if top && len(s.Name) == 1 && s.IsArray {
			n++
			if n == i {
				level = index(&tomledit.Document{Sections: []*tomledit.Section{s}}).keys["flavor"].items[0].keys["level"].at()
			}
			if n == i+1 {
				return level, s.Line - 1
			}
		} else if !top && n == i {
			return level, s.Line - 1
		}
	}
	if n < i {
		return 0, 0
	}
	return level, end
}

func (s *spot) at() int {
	if s == nil {
		return 0
	}
	return s.line
}

// table is the change as TOML.
func (c Promotion) table() string {
	var b strings.Builder
	b.WriteString("[[flavor.promotion]]\n")
	for _, kv := range [][2]string{{"from", string(c.From)}, {"to", string(c.To)}, {"date", c.Date}, {"by", c.By}, {"reason", c.Reason}} {
		if kv[1] != "" {
			fmt.Fprintf(&b, "%s = %s\n", kv[0], text(kv[1]))
		}
	}
	for _, kv := range []struct {
		name  string
		texts map[string]string
	}{{"stated", c.Stated}, {"waived", c.Waived}} {
		for _, id := range sortedKeys(kv.texts) {
			fmt.Fprintf(&b, "%s.%s = %s\n", kv.name, id, text(kv.texts[id]))
		}
	}
	return b.String()
}

// text is a basic string of TOML.
func text(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case unicode.IsControl(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
