// Command kmi-tui is the maintainer's console of the KubeVirt Machine Images project. Without words it opens the
// console; --batch does the same work headless. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// version is set by the Makefile.
var version = "dev"

// Exit codes.
const (
	exitDone       = 0 // all done, or nothing to do
	exitFailed     = 1 // at least one target failed; the others went on
	exitNotStarted = 2 // wrong usage, catalogue or environment: nothing was started
)

// errFailed ends the program with exitFailed after everything was said.
var errFailed = errors.New("failed")

func main() { os.Exit(run()) }

func run() int {
	syscall.Umask(0o022) // what is built does not depend on who builds it
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s := <-signals
		cancel(fmt.Errorf("interrupted (%s)", s))
		<-signals // somebody is impatient: children die with this process
		os.Exit(exitFailed)
	}()
	err := command().ExecuteContext(ctx)
	var not *engine.NotStarted
	var remedied *event.Remedied
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errFailed):
		return exitFailed
	case errors.As(err, &not), ctx.Err() == nil:
		fmt.Fprintln(os.Stderr, "kmi-tui: "+err.Error())
		if errors.As(err, &remedied) {
			fmt.Fprintln(os.Stderr, "what to do: "+remedied.Remedy)
		}
		return exitNotStarted
	default:
		fmt.Fprintln(os.Stderr, "kmi-tui: "+err.Error())
		return exitFailed
	}
}

// programVersion is the version with the commit that Go recorded, where it did.
func programVersion() string {
	v := version
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v += " (" + s.Value + ")"
			}
		}
	}
	return v
}
