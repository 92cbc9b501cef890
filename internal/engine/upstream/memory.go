package upstream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/gob"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// memory is the answer to a question of the last time, with the signed indexes that it follows from. As long as the
// archive's indexes are the very same bytes, which were verified then, and not past their time, so is the answer.
type memory struct {
	State    string // folder
	Question string // hash of everything that was asked
	Indexes  []index
	Until    time.Time // the earliest Valid-Until; zero: none
	Answer   *Snapshot

	sums []string // of the indexes that were just verified
}

// index is a signed index and how its server marks this version of it.
type index struct {
	URL, SHA256, ETag, Modified string
}

// maxIndex is the size in bytes of the largest signed index that is compared.
const maxIndex = 8 << 20

func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = io.WriteString(h, p)
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (m *memory) file() string { return filepath.Join(m.State, "memory-"+m.Question[:16]) }

// recall asks for the indexes, all at once and conditionally, and returns the last answer if they have not changed. Any
// doubt returns nil: the long way tells what is wrong.
func (m *memory) recall(ctx context.Context, q Query) *Snapshot {
	data, err := os.ReadFile(m.file())
	if err != nil {
		return nil
	}
	var old memory
	if gob.NewDecoder(bytes.NewReader(data)).Decode(&old) != nil || old.Question != m.Question || len(old.Indexes) != len(m.Indexes) || old.Answer == nil {
		return nil
	}
	now := time.Now
	if q.Now != nil {
		now = q.Now
	}
	if !old.Until.IsZero() && now().After(old.Until) {
		return nil
	}
	client := q.Client
	if client == nil {
		client = http.DefaultClient
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	same := make([]bool, len(old.Indexes))
	var wg sync.WaitGroup
	for i := range old.Indexes {
		if old.Indexes[i].URL != m.Indexes[i].URL {
			return nil
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			same[i] = old.Indexes[i].same(ctx, client)
		}()
	}
	wg.Wait()
	if slices.Contains(same, false) {
		return nil
	}
	_ = old.write() // the servers' marks may be new
	return old.Answer
}

// same asks whether the index is the one of the last time.
func (x *index) same(ctx context.Context, client *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, x.URL, nil)
	if err != nil {
		return false
	}
	if x.ETag != "" {
		req.Header.Set("If-None-Match", x.ETag)
	}
	if x.Modified != "" {
		req.Header.Set("If-Modified-Since", x.Modified)
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return true
	}
	if resp.StatusCode != http.StatusOK {
		return false
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxIndex))
	if err != nil || hash(string(body)) != x.SHA256 {
		return false
	}
	x.ETag, x.Modified = resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	return true
}

// keep remembers the answer.
func (m *memory) keep(s *Snapshot) error {
	if len(m.sums) != len(m.Indexes) {
		return nil // not to be told apart next time: the long way then
	}
	// Which of the verified files is whose, their names tell.
	m.Answer = s
	for i := range m.Indexes {
		name := listName(m.Indexes[i].URL)
		data, err := os.ReadFile(filepath.Join(m.State, "lists", name))
		if err != nil || !slices.Contains(m.sums, hash(string(data))) {
			return nil
		}
		m.Indexes[i].SHA256 = hash(string(data))
		// apt gives the file the time of the server's.
		if info, err := os.Stat(filepath.Join(m.State, "lists", name)); err == nil {
			m.Indexes[i].Modified = info.ModTime().UTC().Format(http.TimeFormat)
		}
	}
	return m.write()
}

func (m *memory) write() error {
	var buf bytes.Buffer
	if err := gob.NewEncoder(&buf).Encode(m); err != nil {
		return err
	}
	if old, err := os.ReadFile(m.file()); err == nil && bytes.Equal(old, buf.Bytes()) {
		return nil
	}
	return replace(m.file(), buf.Bytes())
}

// replace writes a file under another name and renames it.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// listName is the name that apt gives the file of an address in its lists folder (apt's URItoFileName: the scheme left
// out, "/" as "_").
func listName(address string) string {
	_, rest, _ := bytes.Cut([]byte(address), []byte("://"))
	out := make([]byte, 0, len(rest))
	for _, c := range rest {
		switch {
		case c == '/':
			out = append(out, '_')
		case c == '_':
			out = append(out, "%5f"...)
		default:
			out = append(out, c)
		}
	}
	return string(out)
}
