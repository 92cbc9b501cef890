package customise

import (
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// cloud-init reads the seed as YAML, and runs the script as it was meant before anything else changes the guest.
func TestSeed(t *testing.T) {
	const text = "echo 'a: b' # {%s}\n\t$x \"ü\"\n"
	files := seedFiles("one", "kmi123", text, true)
	var user struct{ Bootcmd []string }
	if err := yaml.Unmarshal([]byte(files["user-data"]), &user); err != nil || !strings.HasPrefix(files["user-data"], "#cloud-config\n") || len(user.Bootcmd) != 1 {
		t.Fatalf("%v\n%s", err, files["user-data"])
	}
	head := strings.Split(strings.TrimSuffix(user.Bootcmd[0], selfbootScript), "\n")[0]
	if head != "end=kmi123 address=10.0.2.15/24 grow=yes" || !strings.HasSuffix(user.Bootcmd[0], selfbootScript) {
		t.Errorf("%q", user.Bootcmd[0])
	}
	shell := exec.Command("sh", "-c", strings.TrimSuffix(user.Bootcmd[0], selfbootScript)+`printf %s "$script"`)
	if out, err := shell.Output(); err != nil || string(out) != text {
		t.Errorf("%q, %v", out, err)
	}
	var meta map[string]string
	if err := yaml.Unmarshal([]byte(files["meta-data"]), &meta); err != nil || meta["instance-id"] != "one" || meta["dsmode"] != "local" {
		t.Errorf("%v, %v", meta, err)
	}
}

// What a guest says does not end the run unless it knows the word.
func TestListen(t *testing.T) {
	for _, x := range []struct{ said, want, last string }{
		{"a\nb\nkmi9 0\nlater\n", "0", "a | b"},
		{"kmi8 0\nkmi9 x\nkmi9 300\nkmi9 7\n", "7", "kmi8 0 | kmi9 x | kmi9 300"},
		{"kmi-part: one\n1\n2\n3\n4\n\x1b[31m5", "", "1 | 2 | 3 | 4 | "},
		{"", "", ""},
	} {
		r, said, spoken := &run{Spec: Spec{Origin: &catalog.Origin{Customise: &catalog.Customise{}}, Release: &catalog.Release{}}, scope: newLog(t).Scope}, &lastLines{}, 0
		if got := r.listen(strings.NewReader(x.said), "kmi9", said, func() { spoken++ }); got != x.want || !strings.HasPrefix(said.String(), x.last) || strings.Contains(said.String(), "\x1b") {
			t.Errorf("%q: %q, %q", x.said, got, said)
		}
		if (spoken > 0) != (x.said != "") {
			t.Errorf("%q: spoken %d times", x.said, spoken)
		}
	}
	// A line without an end is given up.
	r := &run{scope: newLog(t).Scope}
	done := make(chan string, 1)
	from, to := io.Pipe()
	go func() { done <- r.listen(from, "kmi9", &lastLines{}, func() {}) }()
	go func() {
		block := []byte(strings.Repeat("x", 1<<20))
		for {
			if _, err := to.Write(block); err != nil {
				return
			}
		}
	}()
	select {
	case got := <-done:
		_ = from.Close()
		if got != "" {
			t.Errorf("%q", got)
		}
	case <-time.After(time.Minute):
		t.Error("it reads for ever")
	}
}
