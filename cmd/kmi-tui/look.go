package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
	"github.com/ContainerCraft/kmi-tui/internal/engine/readme"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
)

// chartCommand prints the release chart.
func (o *options) chartCommand() *cobra.Command {
	return &cobra.Command{
		Use: "chart", Short: "Print the release chart (--output text, markdown or json)", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := o.form("text", "markdown", "json"); err != nil {
				return err
			}
			c, err := o.loadCatalog()
			if err != nil {
				return err
			}
			text := readme.Text(c)
			switch o.output {
			case "markdown":
				text = readme.Chart(c)
			case "json":
				data, err := readme.JSON(c)
				if err != nil {
					return err
				}
				text = string(data)
			}
			_, err = fmt.Print(text)
			return err
		},
	}
}

// recordings is where a repository keeps what upstreams answered, beside its catalogue.
const recordings = "internal/engine/upstream/testdata/recorded"

// checkCommand says whether the catalogue and the README are right.
func (o *options) checkCommand() *cobra.Command {
	var recorded string
	var record bool
	cmd := &cobra.Command{
		Use: "check [FLAVOR…]", Short: "Say every mistake of the catalogue, and where README.md differs from it",
		Long: `check reads distros.toml and says every mistake with its line and what to write instead, and where README.md differs.
It runs the descriptions of upstreams, or those of the flavors that are named, against recorded answers, where there are
any; with --record it asks upstreams, and records what they answer.`,
		RunE: func(cmd *cobra.Command, only []string) error {
			if err := o.form("text", "json"); err != nil {
				return err
			}
			var result struct {
				OK       bool             `json:"ok"`
				Problems catalog.Problems `json:"problems"`
				README   string           `json:"readme,omitempty"`
				Tried    []engine.Tried   `json:"upstreams,omitempty"`
			}
			c, err := o.loadCatalog()
			if err != nil && !errors.As(err, &result.Problems) {
				return err
			}
			var wrong []error
			if err != nil {
				wrong = append(wrong, err)
			} else {
				if differs := readme.CheckChart(filepath.Join(filepath.Dir(c.Path), "README.md"), c); differs != nil {
					result.README = differs.Error()
					wrong = append(wrong, differs)
				}
				wrong = append(wrong, engine.CheckInstallers(c)...)
				if result.Tried, err = o.tryUpstreams(cmd.Context(), c, only, recorded, record); err != nil {
					return err
				}
				for _, t := range result.Tried {
					if t.Problem == "" || !t.Recorded {
						continue
					}
					err := fmt.Errorf("%s:%d: flavor %q: its description does not fit: %s", c.Path, t.Line, t.Flavor, t.Problem)
					if t.Remedy != "" {
						err = event.WithRemedy(err, "%s", t.Remedy)
					}
					wrong = append(wrong, err)
				}
			}
			result.OK = len(wrong) == 0
			if o.output == "json" {
				if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
					return err
				}
			} else {
				o.printTried(result.Tried)
			}
			if len(wrong) > 0 {
				return &engine.NotStarted{Err: errors.Join(wrong...)}
			}
			if o.output == "text" {
				fmt.Printf("%s: %d flavors, no mistakes; README.md holds the same chart\n", c.Path, len(c.Flavors))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&recorded, "recorded", "", "`DIR` of recorded upstream answers (default: "+recordings+" beside the catalogue)")
	cmd.Flags().BoolVar(&record, "record", false, "ask upstreams, and record what they answer in that folder")
	return cmd
}

// tryUpstreams runs the descriptions of upstreams against what is recorded, or asks them and records it.
func (o *options) tryUpstreams(ctx context.Context, c *catalog.Catalog, only []string, dir string, record bool) ([]engine.Tried, error) {
	for _, id := range only {
		if !slices.ContainsFunc(c.Flavors, func(f catalog.Flavor) bool { return f.ID == id }) {
			return nil, &engine.NotStarted{Err: fmt.Errorf("%s has no flavor %q", c.Path, id)}
		}
	}
	named := dir != ""
	if !named {
		dir = filepath.Join(filepath.Dir(c.Path), recordings)
	}
	if record {
		mirrors, err := o.mirrors()
		if err != nil {
			return nil, err
		}
		next := upstream.Through(mirrors, fetch.NewClient().Transport)
		tried := engine.Try(ctx, c, only, upstream.Recorder{Next: next, Dir: dir, Most: 1 << 20}, time.Now())
		day := filepath.Join(dir, "DATE")
		if _, err := os.Stat(day); err == nil && len(only) > 0 {
			return tried, nil // the others are still those of then
		}
		return tried, fetch.WriteFile(day, []byte(time.Now().UTC().Format(time.DateOnly)+"\n"), 0o644)
	}
	if _, err := os.Stat(dir); err != nil {
		if named {
			return nil, err
		}
		return nil, nil
	}
	return engine.TryRecorded(ctx, c, only, os.DirFS(dir)), nil
}

// printTried says what the descriptions found: in short, or with --verbose every file.
func (o *options) printTried(tried []engine.Tried) {
	fits := 0
	for _, t := range tried {
		switch {
		case !t.Recorded:
			fmt.Printf("%s: not tried: %s\n", t.Flavor, event.Clean(t.Problem))
		case t.Problem == "":
			fits++
		}
		if o.verbose {
			for _, f := range t.Found {
				fmt.Printf("%s: %s, %s\n", f.Target, event.Clean(f.Build), f.URL)
			}
			for _, l := range t.Left {
				fmt.Printf("%s:%s\n", t.Flavor, event.Clean(l))
			}
		}
	}
	if len(tried) > 0 {
		fmt.Printf("%d of %d descriptions of upstreams fit what is recorded\n", fits, len(tried))
	}
}

// doctorCommand says what the host can do.
func (o *options) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Say what this machine can do, and what to install", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.form("text", "json"); err != nil {
				return err
			}
			e, err := o.engine()
			if err != nil {
				return err
			}
			defer e.Close()
			list := e.Doctor(cmd.Context())
			if o.output == "json" {
				enc := json.NewEncoder(os.Stdout)
				enc.SetIndent("", "  ")
				if err := enc.Encode(list); err != nil {
					return err
				}
			}
			bad := false
			for _, h := range list {
				mark := "ok      "
				switch {
				case h.OK:
				case h.Required:
					mark, bad = "MISSING ", true
				default:
					mark = "note    "
				}
				if o.output == "text" {
					fmt.Printf("%s %-22s %s\n", mark, h.Name, h.Detail)
					if !h.OK && h.Remedy != "" {
						fmt.Printf("         %-22s → %s\n", "", h.Remedy)
					}
				}
			}
			if bad {
				return &engine.NotStarted{Err: errors.New("this machine cannot run every stage")}
			}
			return nil
		},
	}
}
