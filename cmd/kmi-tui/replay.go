package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/ui"
	"github.com/ContainerCraft/kmi-tui/internal/ui/headless"
	"github.com/ContainerCraft/kmi-tui/internal/ui/linear"
)

// replayCommand shows a recorded run again.
func (o *options) replayCommand() *cobra.Command {
	var speed string
	cmd := &cobra.Command{
		Use: "replay FILE", Short: "Show a recorded run again, at any speed", Args: cobra.ExactArgs(1),
		Long: `Every run is recorded in the folder runs of the cache. replay shows such a file in the console, at any speed, without
touching anything: ? lists the keys. FILE may be last, for the newest run, or - for standard input; what
--batch --output json printed is a recording, too. --batch prints it as --batch did, at once; --output json prints it as
--batch --output json did.

The exit code says whether the recording could be shown, not how the run ended.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.form("text", "json"); err != nil {
				return err
			}
			times, err := engine.ParseSpeed(speed)
			if err != nil {
				return err
			}
			path := args[0]
			if path == "last" {
				if path, err = o.lastRecording(); err != nil {
					return err
				}
			}
			r, err := engine.OpenReplay(path)
			if err != nil {
				return err
			}
			defer r.Close()
			if o.batch || o.output == "json" {
				return o.replayHeadless(r)
			}
			r.SetSpeed(times)
			return o.replayConsole(cmd, r, path)
		},
	}
	cmd.Flags().StringVar(&speed, "speed", "1", "`N` times as fast as it was, or max")
	cmd.Flags().BoolVar(&o.batch, "batch", false, "print it as --batch did, at once")
	cmd.Flags().BoolVar(&o.linear, "linear", false, "show it in lines, for screen readers")
	return cmd
}

// lastRecording is the newest recording in the cache.
func (o *options) lastRecording() (string, error) {
	dir, err := o.cacheDir()
	if err != nil {
		return "", err
	}
	path, err := engine.LastRecording(dir)
	if err != nil {
		return "", &engine.NotStarted{Err: err}
	}
	return path, nil
}

func (o *options) replayHeadless(r *engine.Replay) error {
	rec := r.Recording()
	for _, p := range rec.Problems {
		os.Stderr.WriteString("the recording: " + p + "\n")
	}
	if o.output == "json" {
		return headless.ReplayJSON(os.Stdout, rec)
	}
	colour := term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("TERM") != "dumb" && os.Getenv("NO_COLOR") == "" && os.Getenv("CI") == ""
	if err := headless.Replay(rec.Events, headless.Options{Progress: os.Stderr, Colour: colour, Verbose: o.verbose}); err != nil {
		return err
	}
	s, cut := r.Summary()
	headless.SummaryText(os.Stdout, s, 0)
	if cut != nil {
		os.Stderr.WriteString(cut.Error() + "\n")
	}
	return nil
}

func (o *options) replayConsole(cmd *cobra.Command, r *engine.Replay, path string) error {
	keys := os.Stdin
	if path == "-" { // the recording came from there
		if tty, err := os.Open("/dev/tty"); err == nil {
			defer tty.Close()
			keys = tty
		}
	}
	if o.inLines() {
		return linear.Run(cmd.Context(), r, linear.Options{In: keys, Out: os.Stdout})
	}
	if !term.IsTerminal(int(keys.Fd())) || !term.IsTerminal(int(os.Stdout.Fd())) {
		return &engine.NotStarted{Err: event.WithRemedy(errors.New("the console needs a terminal"), "without one, use --batch or --output json")}
	}
	look, err := o.appearance()
	if err != nil {
		return err
	}
	defer guard(keys, os.Stdout)()
	return ui.Run(cmd.Context(), r, ui.Options{In: keys, Out: os.Stdout, Appearance: look})
}
