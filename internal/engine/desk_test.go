package engine

import (
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func linesOf(text string, err error) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for l := range strings.SplitSeq(text, "\n") {
			if !yield(l, nil) {
				return
			}
		}
		if err != nil {
			yield("", err)
		}
	}
}

// A file that is there is never touched without being told to, and only by a whole one.
func TestSave(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	file := filepath.Join(dir, "my log")
	holds := func(want string) {
		t.Helper()
		if got, _ := os.ReadFile(file); string(got) != want {
			t.Errorf("it holds %q, want %q", got, want)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".kmi-tui-*")); left != nil {
			t.Errorf("%v is left", left)
		}
	}
	s, err := Desk{}.Save("~/my log", false, linesOf("one\ntwo", nil))
	if err != nil || s != (Saved{file, 2, 8}) {
		t.Fatalf("%+v, %v", s, err)
	}
	holds("one\ntwo\n")
	if _, err := (Desk{}).Save(file, false, linesOf("three", nil)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
	holds("one\ntwo\n")
	if _, err := (Desk{}).Save(file, true, linesOf("three", errors.New("gone"))); err == nil {
		t.Error("no error")
	}
	holds("one\ntwo\n")
	link := filepath.Join(dir, "link")
	if err := os.Symlink("my log", link); err != nil {
		t.Fatal(err)
	}
	if _, err := (Desk{}).Save(link, false, linesOf("four", nil)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
	if _, err := (Desk{}).Save(link, true, linesOf("four", nil)); err != nil {
		t.Error(err)
	}
	holds("four\n")
	for _, path := range []string{"", " ", dir, filepath.Join(dir, "no", "folder"), "/dev/null"} {
		if _, err := (Desk{}).Save(path, true, linesOf("x", nil)); err == nil {
			t.Errorf("%q was saved", path)
		}
	}
}

// The desktop's program gets the text; without a desktop, or over SSH, there is none.
func TestClipboard(t *testing.T) {
	dir := t.TempDir()
	got := filepath.Join(dir, "got")
	for _, name := range []string{"wl-copy", "xclip"} {
		script := "#!/bin/sh\n[ -n \"$WAYLAND_DISPLAY$DISPLAY\" ] && cat > " + got + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for _, name := range []string{"SSH_CONNECTION", "SSH_TTY", "WAYLAND_DISPLAY", "DISPLAY"} {
		t.Setenv(name, "")
	}
	copied := func(want string) {
		t.Helper()
		_ = os.Remove(got)
		program, err := Desk{}.Clipboard(t.Context(), "text of "+want)
		text, _ := os.ReadFile(got)
		if err != nil || program != want || want != "" && string(text) != "text of "+want || want == "" && text != nil {
			t.Errorf("%q got %q, %v; want %q", program, text, err, want)
		}
	}
	copied("")
	t.Setenv("DISPLAY", ":0")
	copied("xclip")
	t.Setenv("WAYLAND_DISPLAY", "wayland-0")
	copied("wl-copy")
	t.Setenv("SSH_CONNECTION", "1 2 3 4")
	copied("")
	t.Setenv("SSH_CONNECTION", "")
	if err := os.WriteFile(filepath.Join(dir, "wl-copy"), []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if program, err := (Desk{}).Clipboard(t.Context(), "x"); program != "wl-copy" || err == nil {
		t.Errorf("%q, %v", program, err)
	}
}
