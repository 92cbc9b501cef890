package publish

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
)

func hashOf(n int) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%064x", n)} }

// today is long after every tag of these tests.
var today = time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)

func TestRetentionDecides(t *testing.T) {
	l := listing{
		tags: map[string]v1.Hash{
			"12": hashOf(4), "latest": hashOf(4),
			"12-20270101": hashOf(1), "12-20270102": hashOf(2), "12-20270102.1": hashOf(3), "12-20270201": hashOf(4), "12-20270525": hashOf(7),
			"12-1.2": hashOf(1), "12-1.2.1": hashOf(2), "12-1.3": hashOf(4), "12-rc1": hashOf(2),
			"13-20260101": hashOf(5), "13": hashOf(5),
			"mine": hashOf(6), "12-99999999": hashOf(1),
			"sha256-" + hashOf(1).Hex + ".sig": hashOf(101), "sha256-" + hashOf(11).Hex + ".att": hashOf(111), "sha256-" + hashOf(12).Hex: hashOf(112),
			"sha256-" + hashOf(50).Hex + ".sig": hashOf(150), "sha256-" + hashOf(51).Hex + ".sig": hashOf(151),
		},
		listed: map[v1.Hash][]v1.Hash{hashOf(1): {hashOf(11), hashOf(12)}, hashOf(2): {hashOf(12)}, hashOf(3): {hashOf(13)}, hashOf(4): {hashOf(14)}, hashOf(5): {hashOf(15)}, hashOf(7): {hashOf(17)}},
		builds: map[v1.Hash][]string{hashOf(1): {"1.2"}, hashOf(2): {"1.2"}, hashOf(4): {"1.3"}},
		absent: map[v1.Hash]bool{hashOf(50): true, hashOf(51): false},
	}
	fates, manifests := Retention{Keep: 1, Young: 7 * 24 * time.Hour, Now: today}.decide(l)
	var gone []string
	for _, f := range fates {
		if f.Remove {
			gone = append(gone, f.Tag)
		}
		if f.Why == "" {
			t.Errorf("%s: no reason", f.Tag)
		}
	}
	// 12-99999999 is no day: it holds what it points at, as 12-rc1 does.
	if want := []string{"12-20270102.1", "sha256-" + hashOf(50).Hex + ".sig"}; !slices.Equal(gone, want) {
		t.Errorf("%v, want %v", gone, want)
	}
	if want := []v1.Hash{hashOf(3), hashOf(13), hashOf(150)}; !slices.Equal(manifests, want) {
		t.Errorf("%v", manifests)
	}
	delete(l.tags, "12-99999999")
	delete(l.tags, "12-rc1")
	fates, manifests = Retention{Keep: 2, Now: today}.decide(l)
	gone = nil
	for _, f := range fates {
		if f.Remove {
			gone = append(gone, f.Tag)
		}
	}
	want := []string{"12-1.2", "12-1.2.1", "12-20270101", "12-20270102", "12-20270102.1", "sha256-" + hashOf(1).Hex + ".sig", "sha256-" + hashOf(11).Hex + ".att", "sha256-" + hashOf(12).Hex, "sha256-" + hashOf(50).Hex + ".sig"}
	slices.Sort(gone)
	slices.Sort(want)
	if !slices.Equal(gone, want) {
		t.Errorf("%v, want %v", gone, want)
	}
	if len(manifests) != 10 { // three indexes, three images, three attachments, one orphan
		t.Errorf("%v", manifests)
	}
}

// Whatever the tags are: moving tags and what they point at stay, so does every tag of an unknown form, the newest stay,
// and no manifest goes that a tag which stays needs.
func FuzzRetention(f *testing.F) {
	f.Add(uint64(1), 3)
	f.Fuzz(func(t *testing.T, seed uint64, keep int) {
		r := rand.New(rand.NewPCG(seed, 0))
		l := listing{tags: map[string]v1.Hash{}, listed: map[v1.Hash][]v1.Hash{}, builds: map[v1.Hash][]string{}, absent: map[v1.Hash]bool{}}
		for n := range 8 {
			l.listed[hashOf(n)] = []v1.Hash{hashOf(20 + r.IntN(6)), hashOf(20 + r.IntN(6))}
			l.builds[hashOf(n)] = []string{fmt.Sprint("b", r.IntN(3))}
		}
		forms := []func() string{
			func() string { return []string{"1", "1-2", "latest"}[r.IntN(3)] },
			func() string {
				return fmt.Sprintf("%s-2026%02d%02d", []string{"1", "1-2"}[r.IntN(2)], 1+r.IntN(13), 1+r.IntN(32))
			},
			func() string { return fmt.Sprintf("1-20260101.%d", r.IntN(4)) },
			func() string { return fmt.Sprintf("1-b%d", r.IntN(3)) },
			func() string { return fmt.Sprintf("1-b%d.%d", r.IntN(3), r.IntN(3)) },
			func() string { return []string{"mine", "1-rc", "sha256-x", "v1"}[r.IntN(4)] },
			func() string { return trust.Tag(hashOf(r.IntN(26))) },
		}
		for range 5 + r.IntN(30) {
			l.tags[forms[r.IntN(len(forms))]()] = hashOf(r.IntN(9))
		}
		was := maps.Clone(l.tags)
		fates, manifests := Retention{Keep: keep, Now: today}.decide(l)
		if len(fates) != len(was) {
			t.Fatalf("%d fates of %d tags", len(fates), len(was))
		}
		kept := map[string]map[string]bool{}
		needed := map[v1.Hash]bool{}
		for _, f := range fates {
			if f.Remove && !datedTag.MatchString(f.Tag) && !attached.MatchString(f.Tag) && !strings.HasPrefix(f.Tag, "1-b") {
				t.Errorf("%s goes", f.Tag)
			}
			if f.Remove {
				continue
			}
			needed[was[f.Tag]] = true
			for _, i := range l.listed[was[f.Tag]] {
				needed[i] = true
			}
			if m := datedTag.FindStringSubmatch(f.Tag); m != nil {
				if kept[m[1]] == nil {
					kept[m[1]] = map[string]bool{}
				}
				kept[m[1]][f.Digest] = true
			}
		}
		for _, f := range fates {
			if m := datedTag.FindStringSubmatch(f.Tag); f.Remove && m != nil && len(kept[m[1]]) < min(max(1, keep), 1) {
				t.Errorf("%s goes, and %d publications of %s stay", f.Tag, len(kept[m[1]]), m[1])
			}
		}
		for _, h := range manifests {
			if needed[h] {
				t.Errorf("%s goes and is needed", h)
			}
		}
	})
}

// old publications of a version, the last one last.
func publications(t *testing.T, r Repository, days ...string) (digests []v1.Hash) {
	t.Helper()
	for i, day := range days {
		digests = append(digests, publishAll(t, r, "1-"+day, makeImage(t, catalog.X86_64, fmt.Sprint("v", i), int64(2000+i), "yes")))
	}
	return digests
}

func TestRetain(t *testing.T) {
	ctx := context.Background()
	where := map[string]func(t *testing.T) string{"folder": func(t *testing.T) string { return "dir:" + t.TempDir() }}
	if !testing.Short() {
		where["docker-registry"] = func(t *testing.T) string {
			return realRegistry(t, t.TempDir(), "  delete: {enabled: true}") + "/kmi"
		}
	}
	for name, at := range where {
		t.Run(name, func(t *testing.T) {
			ref := at(t)
			r := open(t, ref, Options{Tries: 1})
			digests := publications(t, r, "20260101", "20260108", "20260115", "20260122")
			before, err := r.Tags(ctx)
			if err != nil {
				t.Fatal(err)
			}
			policy := Retention{Keep: 2, Young: 24 * time.Hour, Now: today}
			said, err := Retain(ctx, r, policy, false)
			if err != nil || said.Done {
				t.Fatal(err)
			}
			if after, _ := r.Tags(ctx); !slices.Equal(before, after) {
				t.Errorf("saying it changed something: %v, %v", before, after)
			}
			all := 0
			if l, ok := r.(*laidOut); ok { // what is young may be needed by somebody who publishes
				all = age(t, l, 2*grace)
			}
			done, err := Retain(ctx, r, policy, true)
			if err != nil || !done.Done || !slices.Equal(done.Removed(), said.Removed()) {
				t.Fatalf("%+v, %v", done, err)
			}
			after, err := r.Tags(ctx)
			if err != nil {
				t.Fatal(err)
			}
			want := slices.DeleteFunc(slices.Clone(before), func(tag string) bool { return slices.Contains(said.Removed(), tag) })
			if !slices.Equal(after, want) || !slices.Contains(after, "1-20260115") || slices.Contains(after, "1-20260108") || !slices.Contains(after, "latest") {
				t.Errorf("%v, want %v", after, want)
			}
			for i, d := range digests {
				_, err := r.Get(ctx, d.String())
				if gone := err != nil; gone != (i < 2) {
					t.Errorf("index %d: %v", i, err)
				}
				if i < 2 {
					continue
				}
				rep, err := Verify(ctx, ref+"/example@"+d.String(), &signers()[0].Key, Options{}, nil)
				if err != nil || !rep.OK() {
					t.Errorf("what stays: %+v, %v", rep, err)
				}
			}
			again, err := Retain(ctx, r, policy, true)
			if err != nil || len(again.Removed()) > 0 {
				t.Errorf("%+v, %v", again, err)
			}
			if l, ok := r.(*laidOut); ok {
				blobs, _ := os.ReadDir(filepath.Join(l.dir, "blobs/sha256"))
				if len(blobs) != all/2 {
					t.Errorf("%d of %d blobs stay", len(blobs), all)
				}
			}
			// Publishing goes on.
			publications(t, r, "20260129")
		})
	}
}

// age makes a folder's blobs older, and counts them.
func age(t *testing.T, l *laidOut, by time.Duration) (n int) {
	t.Helper()
	blobs, err := os.ReadDir(filepath.Join(l.dir, "blobs/sha256"))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-by)
	for _, b := range blobs {
		if err := os.Chtimes(filepath.Join(l.dir, "blobs/sha256", b.Name()), at, at); err != nil {
			t.Fatal(err)
		}
	}
	return len(blobs)
}

// A registry that does not delete says so; who may not, is told; and nothing is removed that somebody else touched.
func TestRetainRefuses(t *testing.T) {
	ctx := context.Background()
	policy := Retention{Keep: 1, Now: today}
	if !testing.Short() {
		r := open(t, realRegistry(t, t.TempDir(), "")+"/kmi", Options{Tries: 1})
		publications(t, r, "20260101", "20260108")
		before, _ := r.Tags(ctx)
		_, err := Retain(ctx, r, policy, true)
		tells(t, err, "does not remove anything (405", "REGISTRY_STORAGE_DELETE_ENABLED=true")
		if after, _ := r.Tags(ctx); !slices.Equal(before, after) {
			t.Errorf("%v, %v", before, after)
		}
	}
	f := newFaulty(t)
	r := open(t, f.host+"/kmi", Options{Tries: 1})
	publications(t, r, "20260101", "20260108")
	before, _ := r.Tags(ctx)
	f.set(answer(403, `{"errors":[{"code":"DENIED","message":"pull only"}]}`, method("DELETE", "")))
	_, err := Retain(ctx, r, policy, true)
	tells(t, err, "does not let us in (403", "log in")
	if after, _ := r.Tags(ctx); !slices.Equal(before, after) {
		t.Errorf("%v, %v", before, after)
	}
	// Somebody publishes between the look and the deed.
	overtaken := false
	f.set(func(w http.ResponseWriter, q *http.Request, next http.Handler) {
		if strings.HasSuffix(q.URL.Path, "/tags/list") && !overtaken {
			overtaken = true
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, q)
			f.set(nil)
			publishAll(t, open(t, f.host+"/kmi", Options{Tries: 1}), "1-20260201", makeImage(t, catalog.X86_64, "other", 900, "yes"))
			maps.Copy(w.Header(), rec.Header())
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
			return
		}
		next.ServeHTTP(w, q)
	})
	if _, err := Retain(ctx, r, policy, true); !errors.Is(err, ErrOvertaken) {
		t.Errorf("%v", err)
	}
	if after, _ := r.Tags(ctx); len(after) <= len(before) {
		t.Errorf("%v, %v", before, after)
	}
}
