package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// server answers with handlers by path, and counts.
type server struct {
	*httptest.Server
	mu   sync.Mutex
	hits map[string]int
}

func serve(t testing.TB, handlers map[string]http.HandlerFunc) *server {
	s := &server{hits: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.hits[r.Method+" "+r.URL.Path]++
		s.mu.Unlock()
		if h := handlers[r.URL.Path]; h != nil {
			h(w, r)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) count(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits[key]
}

// web reads from the server as if it were https://a.example.org.
func (s *server) web(dir string) *Web {
	return &Web{Client: &http.Client{CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return fmt.Errorf("more than 10 redirects")
		}
		return nil
	}, Transport: Through([]Mirror{{"https://a.example.org/", s.URL + "/"}, {"https://eol.example.org/a.json", s.URL + "/eol.json"}}, http.DefaultTransport)}, Dir: dir, Backoff: time.Millisecond, Silence: 200 * time.Millisecond}
}

const a = "https://a.example.org/"

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Unix(1700000000, 0), strings.NewReader(body))
	}
}

// What was read is read once a session, and asked for conditionally in the next.
func TestDocumentsAreReadOnce(t *testing.T) {
	s := serve(t, map[string]http.HandlerFunc{"/x": text("hello")})
	dir := t.TempDir()
	for run := range 3 {
		w := s.web(dir)
		session := w.Session()
		var wg sync.WaitGroup
		for range 20 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				doc, err := session.Get(context.Background(), a+"x")
				if err != nil || string(doc.Body) != "hello" || doc.URL != a+"x" || doc.From != a+"x" || doc.Modified.Unix() != 1700000000 {
					t.Errorf("%+v, %v", doc, err)
				}
			}()
		}
		wg.Wait()
		if head, err := session.Head(context.Background(), a+"x"); err != nil || head.Size != 5 || head.Body != nil {
			t.Errorf("%+v, %v", head, err)
		}
		if w.Requests.Load() != 2 {
			t.Errorf("run %d: %d requests", run, w.Requests.Load())
		}
		if want := int64(1 - min(run, 1)); w.Bodies.Load() != want || w.Bytes.Load() != 5*want {
			t.Errorf("run %d: %d bodies, %d bytes", run, w.Bodies.Load(), w.Bytes.Load())
		}
	}
}

func TestServersThatMisbehave(t *testing.T) {
	var n atomic.Int32
	first := func(bad http.HandlerFunc) http.HandlerFunc { // only the first time
		return func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) == 1 {
				bad(w, r)
				return
			}
			text("hello")(w, r)
		}
	}
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
		}
	}
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, "hel")
	}
	stall := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hel")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    string // part of the error; "" for none
		tries   int
	}{
		{"503 once", first(status(503)), "", 2},
		{"503 for ever", status(503), "the server answered 503", maxTries},
		{"429 with a wait", first(status(429, "Retry-After", "0")), "", 2},
		{"429 with a date", first(status(429, "Retry-After", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))), "", 2},
		{"404", status(404), "the server answered 404", 1},
		{"403", status(403), "the server answered 403", 1},
		{"cut short once", first(cut), "", 2},
		{"cut short for ever", cut, "unexpected EOF", maxTries},
		{"silent once", first(stall), "", 2},
		{"silent for ever", stall, "no byte came for 200ms", maxTries},
		{"too large", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, io.LimitReader(zeros{}, maxDocument+2))
		}, "more than 16 MiB", 1},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }, "more than 10 redirects", maxTries * 10},
		{"304 for nothing", status(304), "the server answered 304", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.Store(0)
			s := serve(t, map[string]http.HandlerFunc{"/x": c.handler})
			doc, err := s.web(t.TempDir()).Session().Get(context.Background(), a+"x")
			if c.want == "" && (err != nil || string(doc.Body) != "hello") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%+v, %v", doc, err)
			}
			if got := s.count("GET /x"); got != c.tries {
				t.Errorf("asked %d times, want %d", got, c.tries)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		s := serve(t, nil)
		s.Close()
		if _, err := s.web("").Session().Get(context.Background(), a+"x"); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Error(err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		s := serve(t, map[string]http.HandlerFunc{"/x": stall})
		ctx, cancel := context.WithCancelCause(context.Background())
		cause := fmt.Errorf("enough")
		session := s.web("").Session()
		go func() {
			for s.count("GET /x") == 0 {
			}
			cancel(cause)
		}()
		if _, err := session.Get(ctx, a+"x"); err != cause {
			t.Error(err)
		}
		// Whoever asks later is not told of that.
		if _, err := session.Get(context.Background(), a+"x"); err == cause {
			t.Error(err)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestRedirects(t *testing.T) {
	s := serve(t, map[string]http.HandlerFunc{
		"/latest/": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://a.example.org/2023.1/", http.StatusMovedPermanently)
		},
		"/plain": text("x"),
	})
	session := s.web("").Session()
	if doc, err := session.Redirect(context.Background(), a+"latest/"); err != nil || doc.Location != a+"2023.1/" {
		t.Errorf("%+v, %v", doc, err)
	}
	if _, err := session.Redirect(context.Background(), a+"plain"); err == nil || !strings.Contains(err.Error(), "does not") {
		t.Error(err)
	}
	if _, err := session.Redirect(context.Background(), a+"nothing"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
}

// answering answers with texts by path.
func answering(bodies map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := bodies[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		text(body)(w, r)
	})
}
