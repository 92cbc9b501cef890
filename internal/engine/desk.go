package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Desk is what a console needs of the machine that it is shown on: files for what it saves, and the clipboard.
type Desk struct{}

// Saved is a file that was saved.
type Saved struct {
	Path  string // absolute
	Lines int
	Bytes int64
}

// Save writes lines to a file, each with a line end. A file that is there stays as it is and the error is an
// fs.ErrExist, unless overwrite says otherwise; the new one takes its place only when all lines are written. What starts
// with "~/" is in the user's home. An error among the lines ends it.
func (Desk) Save(path string, overwrite bool, lines iter.Seq2[string, error]) (s Saved, err error) {
	if s.Path, err = savePath(path, overwrite); err != nil {
		return Saved{}, err
	}
	f, err := os.CreateTemp(filepath.Dir(s.Path), ".kmi-tui-*")
	if err != nil {
		return Saved{}, event.WithRemedy(err, "name a file in a folder that exists and that this user may write to")
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	for line, lerr := range lines {
		if lerr != nil {
			return Saved{}, lerr
		}
		_, _ = w.WriteString(line)
		if err := w.WriteByte('\n'); err != nil {
			return Saved{}, explainSave(err)
		}
		s.Lines++
		s.Bytes += int64(len(line)) + 1
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		return Saved{}, explainSave(err)
	}
	if overwrite {
		err = os.Rename(f.Name(), s.Path)
	} else if err = os.Link(f.Name(), s.Path); err != nil && !errors.Is(err, fs.ErrExist) {
		// A file system without links. The name is taken first, so that nobody's file is replaced.
		var taken *os.File
		if taken, err = os.OpenFile(s.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
			_ = taken.Close()
			err = os.Rename(f.Name(), s.Path)
		}
	}
	if err != nil {
		return Saved{}, explainSave(err)
	}
	return s, nil
}

func explainSave(err error) error {
	return event.WithRemedy(err, "nothing was saved; free space there, or name a file elsewhere")
}

// savePath is where a file is to be saved.
func savePath(path string, overwrite bool) (string, error) {
	if strings.TrimSpace(path) == "" {
		return "", errors.New("a file needs a name")
	}
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		path = filepath.Join(home, rest)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if overwrite {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real // a link stays one
		}
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path, nil
	case err != nil:
		return "", err
	case info.IsDir():
		return "", event.WithRemedy(fmt.Errorf("%s is a folder", path), "name a file in it")
	case overwrite && !info.Mode().IsRegular():
		return "", event.WithRemedy(fmt.Errorf("%s is no ordinary file", path), "name another one")
	case !overwrite:
		return "", &fs.PathError{Op: "save", Path: path, Err: fs.ErrExist}
	}
	return path, nil
}

// clipboards are the programs that give a text to a desktop's clipboard, and the variable that tells that the desktop is
// there.
var clipboards = []struct {
	system, variable string
	words            []string
}{
	{"linux", "WAYLAND_DISPLAY", []string{"wl-copy", "--type", "text/plain;charset=utf-8"}},
	{"linux", "DISPLAY", []string{"xclip", "-selection", "clipboard", "-in"}},
	{"linux", "DISPLAY", []string{"xsel", "--clipboard", "--input"}},
	{"darwin", "", []string{"pbcopy"}},
}

// Clipboard gives a text to the clipboard of the desktop that this process belongs to, and says by which program: "" when
// there is no desktop here or none of its programs. Over SSH there is none: it would be the wrong one.
func (Desk) Clipboard(ctx context.Context, text string) (program string, err error) {
	if os.Getenv("SSH_CONNECTION") != "" || os.Getenv("SSH_TTY") != "" {
		return "", nil
	}
	for _, c := range clipboards {
		if c.system != runtime.GOOS || c.variable != "" && os.Getenv(c.variable) == "" {
			continue
		}
		if _, err := command.Look(c.words[0]); err != nil {
			continue
		}
		nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		defer nowhere.Close()
		words := c.words
		if c.variable != "" {
			// These programs stay to hold the text until somebody else copies: in a session of their own, so that they
			// outlive this call.
			words = append([]string{"setsid", "--wait"}, words...)
		}
		var env []string
		for _, name := range []string{"WAYLAND_DISPLAY", "DISPLAY", "XDG_RUNTIME_DIR", "XAUTHORITY"} {
			if v, ok := os.LookupEnv(name); ok {
				env = append(env, name+"="+v)
			}
		}
		return c.words[0], command.Run(ctx, command.Command{Name: words[0], Args: words[1:], Env: env, Stdin: strings.NewReader(text), Stdout: nowhere, Stderr: nowhere, MaxTime: 5 * time.Second, Grace: time.Second / 2}, nil)
	}
	return "", nil
}
