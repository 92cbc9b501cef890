package install

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// load reads a script; every key of it has to be one of Script's.
func load(t *testing.T, name string) Script {
	t.Helper()
	file := filepath.Join("../../../deploy/installers", name)
	if _, err := os.Stat(file); err != nil {
		file = filepath.Join("testdata/scripts", name)
	}
	s, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A console file is what an installer prints and gets: a line begins with one of
//
//	<  a line that is printed
//	?  a prompt: printed, and no line end after it
//	>  keys that have to come then, as in Step.Send
//	=  the machine's end, as in End.Kind; another power-on may follow
//	#  a comment
//
// What is printed may hold Go's escapes (\x1b).
type cue struct {
	kind byte
	text string
	line int
}

func cues(t *testing.T, name string) (boots [][]cue) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "scripts", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	boots = [][]cue{nil}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		kind, text, _ := strings.Cut(lines.Text(), " ")
		if kind == "#" || lines.Text() == "" {
			continue
		}
		if len(kind) != 1 || !strings.Contains("<?>=", kind) {
			t.Fatalf("%s:%d: %q", name, n, lines.Text())
		}
		if kind == "<" || kind == "?" {
			if text, err = strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`); err != nil {
				t.Fatalf("%s:%d: %v", name, n, err)
			}
		}
		last := len(boots) - 1
		boots[last] = append(boots[last], cue{kind[0], text, n})
		if kind == "=" {
			boots = append(boots, nil)
		}
	}
	return boots[:len(boots)-1]
}

// play plays a power-on of a console file.
func play(list []cue, size int, complain func(string)) func(net.Conn) {
	return func(con net.Conn) {
		for _, c := range list {
			switch c.kind {
			case '<':
				say(con, c.text+"\r\n", size)
			case '?':
				say(con, c.text, size)
			case '>':
				want, _, err := keystrokes(c.text)
				if err != nil {
					complain(fmt.Sprintf("line %d: %v", c.line, err))
				}
				if got := hear(con, len(want)); got != want {
					complain(fmt.Sprintf("line %d: %q was typed, want %q", c.line, got, want))
					return
				}
			case '=':
				if c.text == "text" {
					_, _ = io.Copy(io.Discard, con)
				}
			}
		}
	}
}

// values are what the scripts' placeholders stand for here.
var values = map[string]string{"release": "7.9", "short": "79", "password": password, "mirror": "mirror.example.org", "folder": "/debian", "codename": "bookworm", "version": "12"}

// The dialogues meet the consoles that were typed from the documentation of installers which cannot be run here.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("../../../deploy/installers/*.toml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%q, %v", files, err)
	}
	files = append(files, "testdata/scripts/debian.toml")
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".toml")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := load(t, name+".toml").filled(values)
			if err != nil {
				t.Fatal(err)
			}
			if text, _ := os.ReadFile(file); !strings.Contains(string(text), "\n# NOT YET RUN ") {
				t.Error("it does not say that it was not run against the real installer")
			}
			for _, size := range []int{0, 1} {
				boots := cues(t, name+".console")
				if len(boots) != len(s.Boot) {
					t.Fatalf("%d power-ons are played, the script has %d", len(boots), len(s.Boot))
				}
				for i, list := range boots {
					if end := list[len(list)-1]; end.kind != '=' || end.text != s.Boot[i].End.Kind {
						t.Errorf("boot %d ends by %+v, the script expects %s", i+1, end, s.Boot[i].End.Kind)
					}
					transcript, err := talk(t, s.Boot[i], s.Fail, play(list, size, func(what string) { t.Errorf("%s.console: %s", name, what) }))
					var e *ended
					if err != nil && (!errors.As(err, &e) || e.missing != "") {
						t.Errorf("boot %d, in pieces of %d: %v\n%s", i+1, size, err, transcript)
					}
				}
			}
		})
	}
}

// The files that a netbooted installer of this kind asks for are there, and its answers are those that are known to work.
func TestServedToANetbootedInstaller(t *testing.T) {
	s, err := load(t, "openbsd.toml").filled(values)
	if err != nil {
		t.Fatal(err)
	}
	sets := []string{"SHA256.sig", "base79.tgz", "bsd", "bsd.mp", "bsd.rd", "comp79.tgz", "man79.tgz", "site79.tgz"}
	index := s.Serve.HTTP["/pub/OpenBSD/7.9/amd64/index.txt"].Text
	for _, set := range sets {
		if _, ok := s.Serve.HTTP["/pub/OpenBSD/7.9/amd64/"+set]; !ok || !strings.Contains(index, " "+set+"\n") {
			t.Errorf("%s is not served, or not in the index", set)
		}
	}
	conf := s.Serve.HTTP["/install.conf"].Text
	for _, answer := range []string{"System hostname = ", "Password for root = *************\n", "Change the default console to com0 = yes\n", "Which speed should com0 use = 115200\n", "Setup a user = no\n",
		"URL to autopartitioning template for disklabel = http://10.0.2.2/disklabel\n", "Location of sets = http\n", "HTTP Server = 10.0.2.2\n", "Set name(s) = -game* -x* site79.tgz\n",
		"Unverified sets: site79.tgz. Continue without verification = yes\n"} {
		if !strings.Contains(conf, answer) {
			t.Errorf("install.conf has no %q", answer)
		}
	}
	if names := slices.Sorted(maps.Keys(s.Serve.TFTP)); !slices.Equal(names, []string{"auto_install", "bsd.rd", "etc/boot.conf"}) || s.Boot[0].Media.File != "auto_install" {
		t.Errorf("%q", names)
	}
	if script := s.Serve.HTTP["/pub/OpenBSD/7.9/amd64/site79.tgz"].Tar["install.site"]; !strings.HasPrefix(script, "#!/bin/ksh\n") {
		t.Errorf("install.site is %.40q", script)
	}
}
