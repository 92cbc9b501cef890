package main

import (
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// watcher puts a terminal right after a console that could not do it itself. It reads what that says at its end: "over", or
// what Go prints when a program crashes, or nothing. A shell that has the terminal already keeps the modes it has set.
const watcher = `trap '' HUP INT QUIT TERM TSTP TTIN TTOU
said=$(cat <&3)
[ "$said" != over ] || exit 0
case $(stty -a) in *-isig*) stty "$1" ;; esac
printf '\033[?1006l\033[?1000l\033[?2004l\033[?25h\033[?1049l\033[0m'
printf '%s\n' "${said:-kmi-tui was killed.} What was finished is kept: the next run goes on from there."`

// guard has the terminal put right if this process is killed or crashes while the console has it. The caller says when
// that is over. Without a shell, or where in or out is no terminal, there is no guard.
func guard(in, out *os.File) (over func()) {
	none := func() {}
	if !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) {
		return none
	}
	modes := exec.Command("stty", "-g")
	modes.Stdin = in
	was, err := modes.Output()
	if err != nil {
		return none
	}
	r, w, err := os.Pipe()
	if err != nil {
		return none
	}
	defer r.Close()
	c := exec.Command("sh", "-c", watcher, "sh", strings.TrimSpace(string(was)))
	c.Stdin, c.Stdout, c.ExtraFiles = in, out, []*os.File{r}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what the terminal's keys tell the console is not for it
	if err := c.Start(); err != nil {
		_ = w.Close()
		return none
	}
	_ = debug.SetCrashOutput(w, debug.CrashOptions{})
	return func() {
		_ = debug.SetCrashOutput(nil, debug.CrashOptions{})
		_, _ = w.WriteString("over")
		_ = w.Close()
		_ = c.Wait()
	}
}
