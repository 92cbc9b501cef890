package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/spf13/cobra"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// verifyCommand checks an image as a user would.
func (o *options) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "verify IMAGE", Short: "Check an image as a user would: signatures, contents, labels", Args: cobra.ExactArgs(1),
		Long: `Check HOST/PATH/NAME[:TAG|@DIGEST] or dir:PATH/NAME[:TAG|@DIGEST]: the signatures of the index and of every image in it are
by the key, every blob is what its digest says, and each image holds exactly one disk, the one that was tested.
Asked for by a tag, it was signed for that name and version; a digest names itself.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.form("text", "json"); err != nil {
				return err
			}
			v := engine.Verification{Image: args[0], Key: o.key, Insecure: o.insecure}
			if dir, err := os.UserConfigDir(); err == nil {
				v.KeyDir = filepath.Join(dir, "kmi-tui")
			} else if o.key == "" {
				return &engine.NotStarted{Err: event.WithRemedy(err, "name the publisher's public key with --key cosign.pub")}
			}
			bus := engine.NewBus()
			sub := bus.Subscribe()
			shown := make(chan error, 1)
			go func() { shown <- showText(context.WithoutCancel(cmd.Context()), sub, o.verbose, nil) }()
			r, err := engine.Verify(cmd.Context(), v, bus)
			bus.Close()
			if serr := <-shown; err == nil {
				err = serr
			}
			if err != nil {
				return err
			}
			if o.output == "json" {
				enc := json.NewEncoder(os.Stdout)
				enc.SetIndent("", "  ")
				if err := enc.Encode(r); err != nil {
					return err
				}
			} else {
				print(r)
			}
			if !r.OK() {
				return errFailed
			}
			return nil
		},
	}
}

func print(r *engine.Report) {
	for _, c := range r.Checks {
		mark := "ok     "
		if !c.OK {
			mark = "FAILED "
		}
		fmt.Printf("%s %-28s %s\n", mark, c.Name, event.Clean(c.Detail))
	}
	fmt.Printf("image   %s\ndigest  %s\npin it  %s\n", r.Image, r.Digest, r.Pinned)
	names := make([]string, 0, len(r.Labels))
	for name := range r.Labels {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Printf("label   %s = %s\n", event.Clean(name), event.Clean(r.Labels[name]))
	}
}
