package upstream

import (
	"context"
	"io/fs"
	"net/url"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// Whatever a server answers as a listing, names are single parts of a path.
func FuzzListings(f *testing.F) {
	_ = fs.WalkDir(os.DirFS("testdata/true"), ".", func(name string, d fs.DirEntry, err error) error {
		if base := path.Base(name); err == nil && strings.HasPrefix(base, "index.") {
			if data, err := os.ReadFile("testdata/true/" + name); err == nil {
				f.Add(data)
			}
		}
		return nil
	})
	f.Fuzz(func(t *testing.T, body []byte) {
		list, err := entries(&Document{URL: a + "pub/", From: a + "pub/", Body: body})
		if err != nil {
			return
		}
		for _, e := range list {
			if e.Name == "" || e.Name == ".." || e.Name == "." || strings.ContainsRune(e.Name, '/') || len(e.Name) > maxEntry {
				t.Fatalf("%q got in", e.Name)
			}
		}
	})
}

// Whatever upstream says, an address stays on its host and in its folder.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{"1.0", "../x", "a@b", "//evil.example.org", "x?y#z", "%2e%2e/x", "\\x", "a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		address, err := expandURL("https://a.example.org/pub/{x}/f", values{"x": value})
		if err != nil {
			return
		}
		u, err := url.Parse(address)
		if err != nil || u.Host != "a.example.org" || u.User != nil || !strings.HasPrefix(path.Clean(u.Path), "/pub") {
			t.Fatalf("%q leads to %s", value, address)
		}
	})
}

// Documents and programs by strangers end, and what they tell is short and plain.
func FuzzQueries(f *testing.F) {
	old := queryTime
	queryTime = 100 * time.Millisecond
	f.Cleanup(func() { queryTime = old })
	f.Add([]byte(`[{"a":1,"b":"x"}]`), ".[] | {a, b}")
	f.Add([]byte(`{"a":{"b":[1,2]}}`), `.a.b[] | {n: .}`)
	f.Add([]byte(`"x"`), `{version: (. * 3)}`)
	f.Fuzz(func(t *testing.T, body []byte, program string) {
		if len(program) > 200 || strings.Contains(program, "range") || strings.Contains(program, "repeat") || strings.Contains(program, "limit") || strings.Contains(program, "*") || strings.Contains(program, "def") {
			return // these can make anything large within their time
		}
		found, err := answers(context.Background(), &Document{Body: body}, program, values{"version": "1"})
		if err != nil {
			return
		}
		for _, m := range found {
			for k, v := range m.values {
				if !wordForm.MatchString(k) || len(v) > maxValue || strings.ContainsAny(v, "\x00\n\x1b") {
					t.Fatalf("%q: %q got in", k, v)
				}
			}
		}
	})
}

// Templates and expressions of a catalogue never panic.
func FuzzTemplates(f *testing.F) {
	f.Add(`a-{version}-(?P<build>\d+)`, "1.0")
	f.Fuzz(func(t *testing.T, template, value string) {
		known := map[string]string{"version": value}
		_, _ = catalog.Expand(template, known)
		if re, err := catalog.Pattern(template, known); err == nil {
			re.MatchString(value)
		}
		parseDate(value)
		dateIn(value)
	})
}
