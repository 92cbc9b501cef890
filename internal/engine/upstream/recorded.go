package upstream

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Recorded answers requests from a folder instead of the network. HOST/PATH is what https://HOST/PATH answered; where a
// path ends in "/" it is the file index.html there; of a query "@" stands for "?" and "%2F" for "/". NAME.redirect holds
// where an address led to, NAME.head the headers of a file that is too large to be kept.
type Recorded struct{ fs.FS }

// ErrNotRecorded is the error of an address that the folder has nothing of.
var ErrNotRecorded = errors.New("it is not recorded")

// recordedName is the name of an address's file.
func recordedName(u *url.URL) string {
	name := u.Hostname() + u.Path
	if strings.HasSuffix(name, "/") || u.Path == "" {
		name = strings.TrimSuffix(name, "/") + "/index.html"
	}
	if u.RawQuery != "" {
		name += "@" + strings.ReplaceAll(u.RawQuery, "/", "%2F")
	}
	return name
}

// RoundTrip answers a request, conditional ones (If-None-Match) too.
func (r Recorded) RoundTrip(req *http.Request) (*http.Response, error) {
	name := recordedName(req.URL)
	resp := &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: req, Body: http.NoBody}
	if to, err := fs.ReadFile(r.FS, name+".redirect"); err == nil {
		resp.StatusCode = http.StatusFound
		resp.Header.Set("Location", strings.TrimSpace(string(to)))
	} else if body, err := fs.ReadFile(r.FS, name); err == nil {
		resp.Header.Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(body))[:18]+`"`)
		resp.ContentLength = int64(len(body))
		switch {
		case req.Header.Get("If-None-Match") == resp.Header.Get("ETag"):
			resp.StatusCode, resp.ContentLength = http.StatusNotModified, 0
		case req.Method == http.MethodGet:
			resp.Body = io.NopCloser(bytes.NewReader(body))
		}
	} else if head, err := fs.ReadFile(r.FS, name+".head"); err == nil && req.Method == http.MethodHead {
		for line := range strings.Lines(string(head)) {
			if k, v, ok := strings.Cut(line, ":"); ok {
				resp.Header.Set(textproto.TrimString(k), textproto.TrimString(v))
			}
		}
		resp.ContentLength, _ = strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64)
		if m := resp.Header.Get("Last-Modified"); m != "" && req.Header.Get("If-Modified-Since") == m {
			resp.StatusCode = http.StatusNotModified
		}
	} else {
		return nil, ErrNotRecorded
	}
	resp.Status = strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)
	return resp, nil
}

// Recorder keeps what upstreams answer in a folder, as Recorded reads it.
type Recorder struct {
	Next http.RoundTripper
	Dir  string
	Most int64 // bytes that an answer may have to be kept
}

// RoundTrip asks and keeps what is answered.
func (r Recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.Next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	name, body := recordedName(req.URL), []byte(nil)
	switch {
	case resp.StatusCode/100 == 3 && resp.Header.Get("Location") != "":
		name, body = name+".redirect", []byte(resp.Header.Get("Location")+"\n")
	case resp.StatusCode != http.StatusOK:
		return resp, nil
	case req.Method == http.MethodHead:
		name += ".head"
		for _, k := range []string{"Content-Length", "Last-Modified"} {
			if v := resp.Header.Get(k); v != "" {
				body = append(body, k+": "+v+"\n"...)
			}
		}
	default:
		body, err = io.ReadAll(io.LimitReader(resp.Body, r.Most+1))
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if int64(len(body)) > r.Most {
			return nil, fmt.Errorf("%s: it has more than %d bytes, too many to be kept", req.URL, r.Most)
		}
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	file := filepath.Join(r.Dir, filepath.FromSlash(path.Clean("/"+name)))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, err
	}
	return resp, os.WriteFile(file, body, 0o644)
}

// RecordedDate is the day of a recording, which its file DATE holds (YYYY-MM-DD); now without one.
func RecordedDate(folder fs.FS, now time.Time) time.Time {
	data, err := fs.ReadFile(folder, "DATE")
	if err != nil {
		return now
	}
	t, err := time.Parse(time.DateOnly, strings.TrimSpace(string(data)))
	if err != nil {
		return now
	}
	return t
}
