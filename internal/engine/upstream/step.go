package upstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/maruel/natural"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
)

// values is what is known of something: what {NAME} and $NAME stand for.
type values map[string]string

// with returns the values and more, which win.
func (v values) with(more values) values {
	all := maps.Clone(v)
	if all == nil {
		all = values{}
	}
	maps.Copy(all, more)
	return all
}

// match is one thing that a step found.
type match struct {
	values
	date time.Time
}

// Limits of what a jq program may do.
const (
	maxAnswers  = 10000
	maxValue    = 2048 // bytes of a value
	maxMistakes = 5    // names shown of those that do not fit
)

// run returns everything that a step finds, the newest first. Nothing is an error.
func run(ctx context.Context, s *Session, step catalog.Step, known values) ([]match, error) {
	template := step.Listing + step.JSON + step.Redirect + step.Sums
	address, err := expandURL(template, known)
	if err != nil {
		return nil, err
	}
	var found []match
	switch {
	case step.Redirect != "":
		doc, err := s.Redirect(ctx, address)
		if err != nil {
			return nil, err
		}
		found, err = pick(step, known, []Entry{{Name: doc.Location}})
		if err != nil || len(found) == 0 {
			return nil, cmp.Or(err, fmt.Errorf("%s leads to %s, which does not fit %s", address, doc.Location, step.Match))
		}
		return found, nil
	case step.JSON != "":
		doc, err := s.Get(ctx, address)
		if err != nil {
			return nil, err
		}
		if found, err = answers(ctx, doc, step.Query, known); err != nil {
			return nil, event.WithRemedy(fmt.Errorf("%s: %w", address, err), "compare the document with jq of its description in distros.toml")
		}
		if len(found) == 0 {
			return nil, event.WithRemedy(fmt.Errorf("%s: the jq program finds nothing in it%s", address, about(known)), "compare the document with jq of its description in distros.toml")
		}
	default:
		doc, err := s.Get(ctx, address)
		if err != nil {
			return nil, err
		}
		var list []Entry
		if step.Sums != "" {
			// Whether the file is signed as it should be is found when the checksum is taken from it.
			table, err := integrity.ParseTable(doc.Body)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", address, err)
			}
			for _, name := range table.Names() {
				list = append(list, Entry{Name: name})
			}
		} else if list, err = entries(doc); err != nil {
			return nil, err
		}
		if found, err = pick(step, known, list); err != nil {
			return nil, err
		}
		if len(found) == 0 {
			var names []string
			for _, e := range list[:min(len(list), maxMistakes)] {
				names = append(names, event.Clean(e.Name))
			}
			return nil, event.WithRemedy(fmt.Errorf("%s: none of its %d names fits %s%s (it holds %s …)", address, len(list), step.Match, about(known), strings.Join(names, ", ")),
				"look at %s and compare with match of its description in distros.toml", address)
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return -older(a, b, step.Order) })
	return found, nil
}

// about says for what something was looked for.
func about(known values) string {
	if known["version"] == "" {
		return ""
	}
	return strings.TrimSuffix(" for "+known["version"]+" "+known["arch"], " ")
}

// older compares two finds: negative if a is older.
func older(a, b match, order string) int {
	if order == "date" {
		return a.when().Compare(b.when())
	}
	x, y := cmp.Or(a.values["build"], a.values["name"]), cmp.Or(b.values["build"], b.values["name"])
	return natural.Compare(x, y)
}

func (m match) when() time.Time {
	if t := parseDate(m.values["date"]); !t.IsZero() {
		return t
	}
	return m.date
}

// parseDate reads the forms in which upstreams write dates; zero if it is none.
func parseDate(s string) time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", time.DateOnly, "20060102", "200601021504", http1123} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

const http1123 = "Mon, 02 Jan 2006 15:04:05 GMT"

// pick returns the entries whose whole name fits, with what the groups name.
func pick(step catalog.Step, known values, list []Entry) ([]match, error) {
	re, err := catalog.Pattern(step.Match, known)
	if err != nil {
		return nil, err
	}
	var found []match
	for _, e := range list {
		if m := re.FindStringSubmatch(e.Name); m != nil {
			found = append(found, match{known.with(groups(re, m)).with(values{"name": e.Name}), e.Date})
		}
	}
	return found, nil
}

// groups returns what the named groups of an expression hold, the empty ones left out.
func groups(re *regexp.Regexp, m []string) values {
	v := values{}
	for i, name := range re.SubexpNames() {
		if name != "" && m[i] != "" {
			v[name] = m[i]
		}
	}
	return v
}

// queryTime is how long a jq program may take.
var queryTime = 5 * time.Second

var wordForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// answers runs a jq program over a JSON document. It yields objects, whose texts, numbers and truths become known.
func answers(ctx context.Context, doc *Document, program string, known values) ([]match, error) {
	var input any
	if err := json.Unmarshal(doc.Body, &input); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	names := slices.Sorted(maps.Keys(known))
	code, err := catalog.Compile(program, names)
	if err != nil {
		return nil, fmt.Errorf("jq: %s", event.Clean(err.Error()))
	}
	args := make([]any, len(names))
	for i, name := range names {
		args[i] = known[name]
	}
	ctx, cancel := context.WithTimeoutCause(ctx, queryTime, fmt.Errorf("the jq program was stopped after %s", queryTime))
	defer cancel()
	var found []match
	for it := code.RunWithContext(ctx, input, args...); ; {
		v, ok := it.Next()
		if !ok {
			return found, nil
		}
		switch v := v.(type) {
		case error:
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, fmt.Errorf("jq: %s", event.Clean(v.Error()))
		case map[string]any:
			one, err := fieldsOf(v)
			if err != nil {
				return nil, err
			}
			if found = append(found, match{values: known.with(one)}); len(found) > maxAnswers {
				return nil, fmt.Errorf("the jq program yields more than %d objects", maxAnswers)
			}
		default:
			return nil, errors.New("the jq program yields something that is no object: write {NAME: …}")
		}
	}
}

func fieldsOf(object map[string]any) (values, error) {
	v := values{}
	for name, x := range object {
		if !wordForm.MatchString(name) {
			return nil, fmt.Errorf("the jq program names a field %q: write lower-case letters, digits and _", event.Clean(name))
		}
		var text string
		switch x := x.(type) {
		case nil:
			continue
		case string:
			text = x
		case bool:
			text = strconv.FormatBool(x)
		case int:
			text = strconv.Itoa(x)
		case *big.Int:
			text = x.String()
		case float64:
			text = strconv.FormatFloat(x, 'f', -1, 64)
		default:
			return nil, fmt.Errorf("the field %q is neither a text, a number nor a truth", name)
		}
		if len(text) > maxValue || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("the field %q holds %d bytes or control characters, which no description needs", name, len(text))
		}
		v[name] = text
	}
	return v, nil
}

var (
	valueForm   = regexp.MustCompile(`^[A-Za-z0-9._~+:@%/=,&?!()-]*$`)
	addressForm = regexp.MustCompile(`^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~+:@%/=,&?!()#-]*)?$`)
)

// expandURL makes an address of a template. What upstream said stands in it only where it cannot change its host or
// climb out of its folder.
func expandURL(template string, known values) (string, error) {
	for _, name := range catalog.Names(template) {
		if v := known[name]; !valueForm.MatchString(v) || strings.Contains(v, "..") {
			return "", fmt.Errorf("{%s} is %q, which is no part of an address", name, event.Clean(v))
		}
	}
	address, err := catalog.Expand(template, known)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(address)
	if err != nil || !addressForm.MatchString(address) || u.User != nil || u.Hostname() == "" || slices.Contains(strings.Split(u.Path, "/"), "..") {
		return "", fmt.Errorf("%q is no address", event.Clean(address))
	}
	if u.Scheme != "https" && !strings.HasPrefix(template, "http://") {
		return "", fmt.Errorf("%s: refused, it is not https", address)
	}
	return address, nil
}

// baseName is the last part of an address's path.
func baseName(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return path.Base(u.Path)
}
