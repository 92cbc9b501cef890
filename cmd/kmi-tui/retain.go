package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
)

// retainCommand removes old publications.
func (o *options) retainCommand() *cobra.Command {
	var keep int
	var dry, yes bool
	c := &cobra.Command{
		Use: "retain [FLAVOR…]", Short: "Remove old publications: the newest of each version stay",
		Long: `Of each version of each flavor (globs; all without any), the newest publications by their dated tags stay: as many as --keep
or keep in [project] of the catalogue says, and all of the last 7 days. What a moving tag or a tag of an unknown form points
at stays as well. With the others go their indexes, images and signatures. --dry-run says all of it and changes nothing.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.form("text", "json"); err != nil {
				return err
			}
			e, err := o.engine()
			if err != nil {
				return err
			}
			defer e.Close()
			if !cmd.Flags().Changed("keep") {
				keep = e.Catalog().Project.Keep
			}
			all, err := e.Retain(cmd.Context(), args, keep, false)
			if err != nil {
				return err
			}
			going := 0
			for _, r := range all {
				going += len(r.Removed())
			}
			if o.output == "text" {
				retained(os.Stdout, all, o.verbose)
			}
			if !dry && going > 0 {
				if err := o.agree(yes, fmt.Sprintf("remove %d tags from %s", going, e.Destination())); err != nil {
					return err
				}
				if all, err = e.Retain(cmd.Context(), args, keep, true); err != nil {
					return err
				}
			}
			failed := false
			for _, r := range all {
				failed = failed || r.Error != ""
			}
			switch {
			case o.output == "json":
				enc := json.NewEncoder(os.Stdout)
				enc.SetIndent("", "  ")
				if err := enc.Encode(all); err != nil {
					return err
				}
			case going == 0:
				fmt.Println("nothing to remove")
			case dry:
				fmt.Println("nothing was removed: --dry-run")
			default:
				for _, r := range all {
					if r.Error != "" {
						fmt.Printf("FAILED  %s: %s\n", r.Repository, event.Clean(r.Error))
						if r.Remedy != "" {
							fmt.Printf("        what to do: %s\n", event.Clean(r.Remedy))
						}
					} else if r.Done {
						fmt.Printf("removed %d tags of %s\n", len(r.Removed()), r.Repository)
					}
				}
			}
			if failed {
				return errFailed
			}
			return nil
		},
	}
	c.Flags().IntVar(&keep, "keep", 0, "how many publications of each version stay (default: keep of the catalogue)")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// retained tells what goes, with verbose also what stays, and why.
func retained(w io.Writer, all []engine.Retained, verbose bool) {
	for _, r := range all {
		if r.Error != "" {
			fmt.Fprintf(w, "%s\n  FAILED   %s\n", r.Repository, event.Clean(r.Error))
			if r.Remedy != "" {
				fmt.Fprintf(w, "           what to do: %s\n", event.Clean(r.Remedy))
			}
			continue
		}
		if len(r.Fates) == 0 {
			continue
		}
		goes := len(r.Removed())
		fmt.Fprintf(w, "%s: %d of %d tags go", r.Repository, goes, len(r.Fates))
		if goes > 0 {
			fmt.Fprintf(w, ", with %d manifests that tell of %s", r.Manifests, fetch.Size(r.Bytes))
		}
		fmt.Fprintln(w)
		for _, f := range r.Fates {
			word := "removes"
			if !f.Remove {
				if !verbose && strings.HasPrefix(f.Tag, "sha256-") {
					continue
				}
				word = "keeps"
			}
			fmt.Fprintf(w, "  %-8s %-32s %.19s  %s\n", word, event.Clean(f.Tag), f.Digest, event.Clean(f.Why))
		}
	}
}
