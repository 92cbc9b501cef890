package upstream

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"golang.org/x/net/html"
)

// Entry is one name in a listing.
type Entry struct {
	Name string    // without the slash at the end of a folder's
	Date time.Time // zero if the listing does not tell
}

const (
	maxEntries = 20000
	maxEntry   = 255 // bytes of a name
)

// entries reads a listing: the page of links that web servers make of a folder (Apache's, nginx's and others'), or
// S3's ListBucketResult (https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjects.html).
func entries(doc *Document) ([]Entry, error) {
	var list []Entry
	var err error
	if start := bytes.TrimLeft(doc.Body[:min(len(doc.Body), 512)], "\ufeff \t\r\n"); bytes.HasPrefix(start, []byte("<?xml")) && bytes.Contains(doc.Body[:min(len(doc.Body), 2048)], []byte("ListBucketResult")) {
		list, err = bucket(doc.Body)
	} else {
		list, err = links(doc)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doc.URL, err)
	}
	return list, nil
}

// bucket reads S3's listing.
func bucket(body []byte) ([]Entry, error) {
	var result struct {
		IsTruncated    bool
		Prefix         string
		CommonPrefixes []struct{ Prefix string }
		Contents       []struct {
			Key          string
			LastModified time.Time
		}
	}
	if err := xml.Unmarshal(body, &result); err != nil {
		return nil, fmt.Errorf("the bucket's listing: %w", err)
	}
	if result.IsTruncated {
		return nil, errors.New("the bucket's listing is cut: ask for less, with ?prefix=")
	}
	var list []Entry
	folder := result.Prefix[:strings.LastIndexByte(result.Prefix, '/')+1]
	add := func(name string, date time.Time) {
		if name = strings.TrimSuffix(strings.TrimPrefix(name, folder), "/"); fits(name) {
			list = append(list, Entry{name, date})
		}
	}
	for _, p := range result.CommonPrefixes {
		add(p.Prefix, time.Time{})
	}
	for _, c := range result.Contents {
		add(c.Key, c.LastModified)
	}
	if len(list) > maxEntries {
		return nil, fmt.Errorf("the bucket's listing has more than %d entries", maxEntries)
	}
	return list, nil
}

func fits(name string) bool {
	return name != "" && len(name) <= maxEntry && name != "." && name != ".." && !strings.Contains(name, "/")
}

// links reads a page's links to what is directly below it, each with the date that stands behind it.
func links(doc *Document) ([]Entry, error) {
	base, err := url.Parse(doc.From)
	if err != nil {
		return nil, err
	}
	var list []Entry
	at := map[string]int{}
	last := -1
	z := html.NewTokenizer(bytes.NewReader(doc.Body))
	z.SetMaxBuf(1 << 20)
	for {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("the listing: %w", err)
			}
			return list, nil
		case html.StartTagToken:
			name, more := z.TagName()
			if string(name) != "a" {
				continue
			}
			for more {
				var key, value []byte
				if key, value, more = z.TagAttr(); string(key) != "href" {
					continue
				}
				entry := below(base, string(value))
				if entry == "" {
					continue
				}
				if i, ok := at[entry]; ok { // an icon and a name, both with the link
					last = i
					continue
				}
				if len(list) >= maxEntries {
					return nil, fmt.Errorf("the listing has more than %d entries", maxEntries)
				}
				last = len(list)
				at[entry] = last
				list = append(list, Entry{Name: entry})
			}
		case html.TextToken:
			if last >= 0 && list[last].Date.IsZero() {
				list[last].Date = dateIn(string(z.Text()))
			}
		}
	}
}

// folder is the path of an address up to its last slash.
func folder(u *url.URL) string { return u.Path[:strings.LastIndexByte(u.Path, '/')+1] }

// below is the name of what a link leads to, if that is directly below the page's folder.
func below(base *url.URL, href string) string {
	ref, err := url.Parse(strings.TrimSpace(href))
	if err != nil || ref.Path == "" || ref.RawQuery != "" {
		return ""
	}
	u := base.ResolveReference(ref)
	rest, ok := strings.CutPrefix(u.Path, folder(base))
	if name := strings.TrimSuffix(rest, "/"); ok && u.Host == base.Host && fits(name) && path.Clean(name) == name {
		return name
	}
	return ""
}

var dates = []struct {
	form   *regexp.Regexp
	layout string
}{
	{regexp.MustCompile(`\b\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}\b`), "2006-01-02 15:04"},       // Apache, lighttpd's ISO form
	{regexp.MustCompile(`\b\d{2}-[A-Z][a-z]{2}-\d{4} \d{2}:\d{2}\b`), "02-Jan-2006 15:04"}, // nginx
	{regexp.MustCompile(`\b\d{4}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}\b`), "2006-Jan-02 15:04"}, // lighttpd
}

// dateIn finds a date in the text behind a link.
func dateIn(text string) time.Time {
	for _, d := range dates {
		if m := d.form.FindString(text); m != "" {
			if t, err := time.Parse(d.layout, strings.Replace(m, "T", " ", 1)); err == nil {
				return t.UTC()
			}
		}
	}
	return time.Time{}
}
