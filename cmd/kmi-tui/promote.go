package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// promoteCommand changes a flavor's level.
func (o *options) promoteCommand() *cobra.Command {
	var to, reason, by string
	var stated, waived []string
	var dry, yes bool
	c := &cobra.Command{
		Use: "promote FLAVOR --to LEVEL", Short: "Move a flavor one level up or down, by the image criteria", Args: cobra.ExactArgs(1),
		Long: `Judge a flavor by the image criteria: each is proven by what this program can see now, in the catalogue, the registry, the
README and the past runs, or is unproven and passed by --state ID=TEXT; some may be waived by --waive ID=REASON. What was
seen to be wrong cannot be stated away. The decision is kept in the flavor's row. The difference to distros.toml and
README.md is shown, and both are written at once; every other byte stays. A step down wants --reason.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.form("text", "json"); err != nil {
				return err
			}
			if to == "" {
				return &engine.NotStarted{Err: event.WithRemedy(errors.New("nothing says to which level"), "write --to planned, preview, proposed or stable")}
			}
			ask := engine.Ask{Flavor: args[0], To: catalog.Level(to), Reason: reason, By: by, Stated: map[string]string{}, Waived: map[string]string{}}
			for flag, list := range map[string][]string{"--state": stated, "--waive": waived} {
				for _, text := range list {
					id, words, ok := strings.Cut(text, "=")
					if !ok || strings.TrimSpace(words) == "" {
						return &engine.NotStarted{Err: fmt.Errorf("%s %q: write ID=TEXT", flag, text)}
					}
					if flag == "--state" {
						ask.Stated[id] = words
					} else {
						ask.Waived[id] = words
					}
				}
			}
			e, err := o.engine()
			if err != nil {
				return err
			}
			defer e.Close()
			p, err := e.Promotion(cmd.Context(), ask)
			if err != nil {
				return err
			}
			if o.output == "json" {
				enc := json.NewEncoder(os.Stdout)
				enc.SetIndent("", "  ")
				if err := enc.Encode(p); err != nil {
					return err
				}
			} else {
				for _, c := range p.Criteria {
					fmt.Printf("%-8s  %-14s  %s\n                          %s\n", c.State, c.ID, c.Text, event.Clean(c.Evidence))
				}
				fmt.Printf("\n%s", shown(p.Diff))
			}
			if err := p.Ready(); err != nil {
				fmt.Fprintf(os.Stderr, "kmi-tui: %v\n", err)
				var r *event.Remedied
				if errors.As(err, &r) {
					fmt.Fprintf(os.Stderr, "what to do: %s\n", r.Remedy)
				}
				return errFailed
			}
			if dry {
				return nil
			}
			if err := o.agree(yes, fmt.Sprintf("write that %s is %s", p.Flavor, p.To)); err != nil {
				return err
			}
			if err := p.Write(cmd.Context()); err != nil {
				return &engine.NotStarted{Err: err}
			}
			fmt.Fprintf(os.Stderr, "%s is %s now; commit what has changed\n", p.Flavor, p.To)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&to, "to", "", "the new `LEVEL`: planned, preview, proposed, stable")
	f.StringArrayVar(&stated, "state", nil, "`ID=TEXT`: vouch for a criterion that this program cannot see (may be repeated)")
	f.StringArrayVar(&waived, "waive", nil, "`ID=REASON`: waive a criterion that may be waived (may be repeated)")
	f.StringVar(&reason, "reason", "", "why, in a `TEXT`; a step down has one")
	f.StringVar(&by, "by", "", "`WHO` decides, if that is to be kept")
	f.BoolVar(&dry, "dry-run", false, "only judge and show the difference")
	f.BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// shown is a difference for people, harmless where it goes to a terminal; everywhere else it is as patch takes it.
func shown(diff string) string {
	if term.IsTerminal(int(os.Stdout.Fd())) {
		return event.CleanText(diff)
	}
	return diff
}

// agree asks before something is written, where nobody has said yes.
func (o *options) agree(yes bool, what string) error {
	if yes {
		return nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return &engine.NotStarted{Err: event.WithRemedy(fmt.Errorf("without a terminal nobody can be asked whether to %s", what), "look with --dry-run, then say --yes")}
	}
	fmt.Fprintf(os.Stderr, "To %s, type yes: ", what)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "yes" {
		return &engine.NotStarted{Err: errors.New("nothing was done")}
	}
	return nil
}

// tryMeCommand makes the snippet with which an image is tried.
func (o *options) tryMeCommand() *cobra.Command {
	var write, dry, yes bool
	var form string
	c := &cobra.Command{
		Use: "tryme FLAVOR[:RELEASE]", Short: "Make the Try Me of a release: a VirtualMachine, its keys and its login", Args: cobra.ExactArgs(1),
		Long: `Print a VirtualMachine (kubevirt.io/v1) that boots the published image by its digest, with stateless NAT, the instancetype and
preference of the catalogue, and ssh keys from a secret; the same with a disk that stays, as commands, or as README.md has it. --write puts it
into README.md between its marks and leaves every other byte alone.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.form("text", "json"); err != nil {
				return err
			}
			e, err := o.engine()
			if err != nil {
				return err
			}
			defer e.Close()
			t, err := e.TryMe(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if write {
				d, err := t.Diff()
				if err != nil {
					return err
				}
				if d == "" {
					fmt.Fprintln(os.Stderr, "README.md has it already")
					return nil
				}
				fmt.Print(shown(d))
				if dry {
					return nil
				}
				if err := o.agree(yes, "write that into README.md"); err != nil {
					return err
				}
				if err := t.Write(cmd.Context()); err != nil {
					return &engine.NotStarted{Err: err}
				}
				return nil
			}
			switch {
			case o.output == "json":
				enc := json.NewEncoder(os.Stdout)
				enc.SetIndent("", "  ")
				enc.SetEscapeHTML(false)
				return enc.Encode(t)
			case form == "yaml" || form == "keep":
				fmt.Print(t.Text(form == "keep"))
			case form == "command":
				fmt.Print(t.Commands())
			case form == "readme":
				fmt.Print(t.Markdown)
			default:
				return &engine.NotStarted{Err: fmt.Errorf("form %q: write yaml, keep, command or readme", form)}
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&form, "form", "yaml", "`FORM`: yaml, keep (yaml with a disk that stays), command, readme")
	f.BoolVar(&write, "write", false, "put it into README.md")
	f.BoolVar(&dry, "dry-run", false, "with --write: only show the difference")
	f.BoolVar(&yes, "yes", false, "do not ask")
	return c
}
