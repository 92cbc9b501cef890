package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/readme"
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

// checkCommand says whether the catalogue and the README are right.
func (o *options) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Say every mistake of the catalogue, and where README.md differs from it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.form("text", "json"); err != nil {
				return err
			}
			var problems catalog.Problems
			c, err := o.loadCatalog()
			if err != nil && !errors.As(err, &problems) {
				return err
			}
			var differs error
			if err == nil {
				differs = readme.CheckChart(filepath.Join(filepath.Dir(c.Path), "README.md"), c)
			}
			if o.output == "json" {
				result := struct {
					OK       bool             `json:"ok"`
					Problems catalog.Problems `json:"problems"`
					README   string           `json:"readme,omitempty"`
				}{err == nil && differs == nil, problems, ""}
				if differs != nil {
					result.README = differs.Error()
				}
				if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
					return err
				}
			}
			if err != nil {
				return &engine.NotStarted{Err: err}
			}
			if differs != nil {
				return &engine.NotStarted{Err: differs}
			}
			if o.output == "text" {
				fmt.Printf("%s: %d flavors, no mistakes; README.md holds the same chart\n", c.Path, len(c.Flavors))
			}
			return nil
		},
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
