package upstream

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

func TestListings(t *testing.T) {
	apache := `<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN"><html><head><title>Index of /pub</title></head><body><h1>Index of /pub</h1>
<table><tr><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr>
<tr><td><img src="/icons/back.gif"></td><td><a href="/">Parent Directory</a></td><td>&nbsp;</td></tr>
<tr><td><a href="9/"><img src="/icons/folder.gif"></a></td><td><a href="9/">9/</a></td><td align="right">2026-05-26 10:01  </td><td>  - </td></tr>
<tr><td></td><td><a href="/pub/10/">10/</a></td><td align="right">2026-06-26 10:01  </td></tr>
<tr><td></td><td><a href="a%2Bb.img">a+b.img</a></td><td align="right">2026-06-27 10:01  </td></tr>
<tr><td></td><td><a href="../secret">x</a><a href="https://evil.example.org/pub/evil/">x</a><a href="deep/er">x</a><a href="javascript:x">x</a><a href="mailto:a@example.org">m</a></td></tr></table></body></html>`
	nginx := "<html><head><title>Index of /pub/</title></head><body><h1>Index of /pub/</h1><hr><pre><a href=\"../\">../</a>\n" +
		"<a href=\"v20260701.1/\">v20260701.1/</a>                                       01-Jul-2026 02:03                   -\n" +
		"<a href=\"v20260715.22/\">v20260715.22/</a>                                      15-Jul-2026 02:03                   -\n</pre><hr></body></html>"
	s3 := `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix></Prefix><IsTruncated>false</IsTruncated>
<Contents><Key>index.html</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>12</Size></Contents>
<CommonPrefixes><Prefix>nixos-25.11/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>nixos-26.05/</Prefix></CommonPrefixes></ListBucketResult>`
	for _, c := range []struct{ name, body, want string }{
		{"apache", apache, "9 2026-05-26,10 2026-06-26,a+b.img 2026-06-27"},
		{"nginx", nginx, "v20260701.1 2026-07-01,v20260715.22 2026-07-15"},
		{"s3", s3, "nixos-25.11 0001-01-01,nixos-26.05 0001-01-01,index.html 2026-01-02"},
		{"nothing", "hello", ""},
		{"cut bucket", strings.Replace(s3, "false", "true", 1), "error cut"},
		{"broken bucket", s3[:200], "error XML"},
	} {
		list, err := entries(&Document{URL: a + "pub/", From: a + "pub/", Body: []byte(c.body)})
		var got []string
		for _, e := range list {
			got = append(got, e.Name+" "+e.Date.Format(time.DateOnly))
		}
		if want, ok := strings.CutPrefix(c.want, "error "); ok {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		slices.Sort(got)
		wants := strings.Split(c.want, ",")
		slices.Sort(wants)
		if err != nil || strings.Join(got, ",") != strings.Join(wants, ",") {
			t.Errorf("%s: %v, %q", c.name, err, got)
		}
	}
}

func TestQueries(t *testing.T) {
	doc := &Document{URL: a + "x", Body: []byte(`{"list":[{"v":"1.0","n":5,"big":12345678901,"ok":true,"no":null,"in":{}},{"v":"2.0"}]}`)}
	for program, want := range map[string]string{
		`.list[] | {version: .v}`:                 "[map[version:1.0] map[version:2.0]]",
		`.list[0] | {v, n, big, ok, no}`:          "[map[big:12345678901 n:5 ok:true v:1.0]]",
		`.list[0] | {in}`:                         "error neither a text",
		`.list[].v`:                               "error no object",
		`{"A-B": 1}`:                              "error lower-case letters",
		`{x: ("a" * 3000)}`:                       "error 3000 bytes",
		`{x: "a\nb"}`:                             "error control characters",
		`error("no")`:                             "error no",
		`[range(1e12)] | {n: length}`:             "error stopped after",
		`def f: f; f`:                             "error stopped after",
		`range(20000) | {n: .}`:                   "error more than 10000",
		`{e: (env | length), i: ($ENV | length)}`: "[map[e:0 i:0]]",
		`input`:               "error",
		`{version: $arch}`:    "[map[version:x86_64]]",
		`{version: $nobody}`:  "error variable not defined",
		`import "a" as a; {}`: "error",
		`.list[] | select(.v == $version) | {version: .v, n}`: "[map[version:2.0]]",
	} {
		queryTime = 30 * time.Second
		if strings.HasSuffix(want, "stopped after") {
			queryTime = 200 * time.Millisecond
		}
		found, err := answers(context.Background(), doc, program, values{"arch": "x86_64", "version": "2.0"})
		if want, ok := strings.CutPrefix(want, "error"); ok {
			if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
				t.Errorf("%s: %v", program, err)
			}
			continue
		}
		var got []string
		for _, m := range found {
			if m.values["arch"] == "x86_64" && !strings.Contains(program, "arch") {
				delete(m.values, "arch")
			}
			if !strings.Contains(program, "version") {
				delete(m.values, "version")
			}
			delete(m.values, "arch")
			got = append(got, fmt.Sprint(map[string]string(m.values)))
		}
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v, want %s", program, err, got, want)
		}
	}
	if _, err := answers(context.Background(), &Document{Body: []byte("<html>")}, ".", nil); err == nil || !strings.Contains(err.Error(), "not JSON") {
		t.Error(err)
	}
}

// What upstreams say becomes part of an address only where it cannot change where that leads.
func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		template string
		known    values
		want     string
	}{
		{"https://a.example.org/{x}/f", values{"x": "1.0"}, "https://a.example.org/1.0/f"},
		{"{url}.asc", values{"url": "https://a.example.org/f"}, "https://a.example.org/f.asc"},
		{"https://a.example.org/{x}", values{"x": "../../etc"}, ""},
		{"https://a.example.org/{x}", values{"x": "a b"}, ""},
		{"https://a.example.org/{x}", values{"x": "a\"b"}, ""},
		{"https://a.example.org/{x}", values{}, ""},
		{"https://{x}/f", values{"x": "user@evil.example.org"}, ""},
		{"{url}", values{"url": "http://a.example.org/f"}, ""},
		{"{url}", values{"url": "file:///etc/passwd"}, ""},
		{"{url}", values{"url": "/etc/passwd"}, ""},
		{"{url}", values{"url": "https://"}, ""},
	} {
		if got, err := expandURL(c.template, c.known); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s %v: %q, %v", c.template, c.known, got, err)
		}
	}
}

func TestPolicy(t *testing.T) {
	now := time.Date(2026, 10, 15, 0, 0, 0, 0, time.UTC)
	eol := `[{"cycle":"16","eol":false},{"cycle":"15.1","eol":"2027-01-01"},{"cycle":"15.0","eol":"2026-09-30"},{"cycle":"14.4","eol":"2027-01-01"},{"cycle":"14.3","eol":"2026-01-01"},{"cycle":"13","eol":true},{"cycle":"12","eol":"2026-10-15"}]`
	for _, c := range []struct {
		name, list string // versions that upstream lists
		v          catalog.Versions
		facts      []catalog.Release
		want       string // versions that count; those left out, with why
	}{
		{"N and N-1", "14.4 15.1 9.0", catalog.Versions{}, nil, "15.1 14.4"},
		{"natural order", "9.0 10.0 8.0", catalog.Versions{}, nil, "10.0 9.0"},
		{"one", "15.1 14.4", catalog.Versions{Keep: 1}, nil, "15.1"},
		{"newest of each branch", "15.1 15.0 14.3 14.4", catalog.Versions{Per: "major"}, nil, "15.1 14.4"},
		{"N-1 is dead", "16 15.0 14.4", catalog.Versions{EOL: "x"}, nil, "16 | 15.0: end of life since 2026-09-30"},
		{"dead for good", "16 13", catalog.Versions{EOL: "x"}, nil, "16 | 13: end of life"},
		{"its last day", "16 12", catalog.Versions{EOL: "x"}, nil, "16 12"},
		{"not out yet", "17 16 15.1 3.0", catalog.Versions{EOL: "x"}, nil, "16 15.1 | 17: not released: https://eol.example.org/a.json does not know it"},
		{"pre-release", "17-beta 16 15.1", catalog.Versions{Prerelease: `.*-beta`}, nil, "16 15.1 | 17-beta: a pre-release"},
		{"pinned", "16 15.1 14.3", catalog.Versions{EOL: "x"}, []catalog.Release{{Version: "14.3", Pin: true}}, "16 15.1 14.3"},
		{"pinned and not listed", "16 15.1", catalog.Versions{EOL: "x"}, []catalog.Release{{Version: "rolling", Pin: true}}, "16 15.1 rolling"},
		{"skipped", "16 15.1 14.4", catalog.Versions{EOL: "x"}, []catalog.Release{{Version: "16", Skip: "broken"}}, "15.1 | 16: broken"},
		{"end in the catalogue", "16 15.1", catalog.Versions{}, []catalog.Release{{Version: "15.1", EOL: "2026-10-01"}}, "16 | 15.1: end of life since 2026-10-01"},
		{"none is left", "13", catalog.Versions{EOL: "x"}, nil, "error no release counts: 13: end of life"},
		{"renamed", "16 15.1", catalog.Versions{Version: "leap-{version}", Cycle: "{number}", EOL: "x"}, nil, "leap-16 leap-15.1"},
		{"no tag", "16_", catalog.Versions{}, nil, "error cannot be a tag"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			for _, v := range strings.Fields(c.list) {
				fmt.Fprintf(&b, "<a href=%q>%s</a>\n", v+"/", v)
			}
			s := serve(t, nil)
			handlers := map[string]string{"/pub/": b.String(), "/eol.json": eol}
			s.Config.Handler = answering(handlers)
			c.v.Listing, c.v.Match = a+"pub/", `(?P<version>(?P<number>(?P<major>\d+)[._]?\S*))`
			web := s.web("")
			if c.v.EOL != "" {
				c.v.EOL = "https://eol.example.org/a.json"
			}
			count, left, err := Releases(context.Background(), web.Session(), &catalog.Flavor{ID: "a", Versions: &c.v, Releases: c.facts}, now, func(text string) { t.Log(text) })
			if want, ok := strings.CutPrefix(c.want, "error "); ok {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Error(err)
				}
				return
			}
			var words []string
			for _, r := range count {
				words = append(words, r.Version)
			}
			got := strings.Join(words, " ")
			for _, l := range left {
				got += " | " + l.Version + ": " + l.Reason
			}
			if err != nil || got != c.want {
				t.Errorf("%v, %s, want %s", err, got, c.want)
			}
		})
	}
}
