package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/upstream"
	"github.com/ContainerCraft/kmi-tui/internal/ui"
	"github.com/ContainerCraft/kmi-tui/internal/ui/headless"
	"github.com/ContainerCraft/kmi-tui/internal/ui/linear"
)

// options are the flags.
type options struct {
	batch, plan, force, verbose, insecure bool
	linear                                bool
	only, level, mirror                   []string
	until, registry, key, base, layer     string
	cache, catalog, output, theme         string
	jobs                                  int
}

// command builds the command line.
func command() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "kmi-tui",
		Short: "The maintainer's console of the KubeVirt Machine Images project",
		Long: `kmi-tui takes every operating system of the release chart from its upstream to a signed, tested and published image
that KubeVirt boots. Without flags it opens the console; with --batch it does the same headless.

Exit codes: 0 all done or nothing to do; 1 at least one target failed, the others went on; 2 wrong usage, catalogue or
environment: nothing was started.`,
		Version:       programVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q; see kmi-tui --help", args[0])
			}
			return nil
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd.Flags()) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.batch || o.plan {
				return o.runBatch(cmd.Context())
			}
			return o.runConsole(cmd)
		},
	}
	root.SetVersionTemplate("kmi-tui {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w; see kmi-tui --help", err) })
	f := root.Flags()
	f.BoolVar(&o.batch, "batch", false, "the release, headless")
	f.BoolVar(&o.linear, "linear", false, "the console in lines, for screen readers; also where TERM is dumb")
	f.BoolVar(&o.plan, "plan", false, "say what would be done and why; change nothing")
	f.StringSliceVar(&o.only, "only", nil, "`SELECTOR`,…: globs over FLAVOR, FLAVOR:RELEASE or FLAVOR:RELEASE/ARCH")
	f.StringSliceVar(&o.level, "level", nil, "`LEVEL`,…: planned, preview, proposed, stable (default: all but planned)")
	f.StringVar(&o.until, "until", "", "last `STAGE` to run: resolve, fetch, customise, pack, test, sign, publish")
	f.BoolVar(&o.force, "force", false, "do it even where nothing has changed")
	p := root.PersistentFlags()
	p.StringVar(&o.catalog, "catalog", "", "the catalogue `FILE` (default: distros.toml here or in a folder above)")
	p.StringVar(&o.registry, "registry", "", "where images are published: `HOST/PATH`, or dir:PATH for an OCI layout on disk")
	p.StringVar(&o.key, "key", "", "`FILE` of the cosign key that signs, or its public key for verify (default: a pair in the user's configuration folder)")
	p.StringVar(&o.base, "base", "", "base image: `REF`, dir:PATH, scratch, or built (made from a package archive)")
	p.StringVar(&o.layer, "layer", "", "compress the disk's layer: `FORM` none, gzip or zstd (default: the catalogue's)")
	p.StringArrayVar(&o.mirror, "mirror", nil, "`FROM=TO`: rewrite a prefix of upstream URLs (may be repeated)")
	p.StringVar(&o.cache, "cache", "", "the cache `DIR` (default: kmi-tui in the user's cache folder)")
	p.BoolVarP(&o.verbose, "verbose", "v", false, "print every log line")
	p.IntVar(&o.jobs, "jobs", 0, "targets worked on at once (default: half the processors)")
	p.BoolVar(&o.insecure, "insecure", false, "allow plain http to a registry that is not on loopback")
	p.StringVar(&o.theme, "theme", "", "colours of the console: `NAME` "+strings.Join(ui.Themes(), ", "))
	p.StringVarP(&o.output, "output", "o", "text", "`FORM` of results: text, json (chart: also markdown)")
	root.AddCommand(o.chartCommand(), o.checkCommand(), o.doctorCommand(), o.verifyCommand(), o.promoteCommand(), o.tryMeCommand(), o.retainCommand(), o.cacheCommand(), o.replayCommand())
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

// fromEnvironment sets flags that were not given from KMI_NAME.
func fromEnvironment(flags *pflag.FlagSet) (err error) {
	flags.VisitAll(func(f *pflag.Flag) {
		name := "KMI_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := os.LookupEnv(name); ok && !f.Changed && v != "" && err == nil {
			if serr := flags.Set(f.Name, v); serr != nil {
				err = fmt.Errorf("%s: %w", name, serr)
			}
		}
	})
	return err
}

// loadCatalog finds and reads the catalogue.
func (o *options) loadCatalog() (*catalog.Catalog, error) {
	path, err := o.catalogPath()
	if err != nil {
		return nil, err
	}
	return catalog.Load(path)
}

// catalogPath finds the catalogue's file.
func (o *options) catalogPath() (string, error) {
	path := o.catalog
	if path == "" {
		dir, err := os.Getwd()
		if err != nil {
			return "", err
		}
		for path = filepath.Join(dir, "distros.toml"); ; path = filepath.Join(dir, "distros.toml") {
			if _, err := os.Stat(path); err == nil {
				break
			}
			up := filepath.Dir(dir)
			if up == dir {
				return "", event.WithRemedy(errors.New("there is no distros.toml here or in a folder above"), "name the catalogue with --catalog FILE")
			}
			dir = up
		}
		if here, err := os.Getwd(); err == nil {
			if rel, err := filepath.Rel(here, path); err == nil {
				path = rel
			}
		}
	}
	return path, nil
}

// engine makes the engine that the flags describe.
func (o *options) engine() (*engine.Engine, error) {
	c, err := o.loadCatalog()
	if err != nil {
		return nil, &engine.NotStarted{Err: err}
	}
	cfg, err := o.config()
	if err != nil {
		return nil, err
	}
	cfg.Catalog = c
	return engine.New(cfg)
}

// config is what the flags and the environment say, without the catalogue.
func (o *options) config() (cfg engine.Config, err error) {
	cfg = engine.Config{Cache: o.cache, Registry: o.registry, Base: o.base, Layer: o.layer, Jobs: o.jobs, Key: o.key, Insecure: o.insecure, Version: programVersion(),
		KeyPEM: []byte(os.Getenv("COSIGN_PRIVATE_KEY")), Password: []byte(os.Getenv("COSIGN_PASSWORD"))}
	if o.key != "" {
		cfg.KeyPEM = nil // the flag wins over the environment
	}
	if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds <= 0 {
			return cfg, &engine.NotStarted{Err: fmt.Errorf("SOURCE_DATE_EPOCH is %q: write seconds since 1970", text)}
		}
		cfg.SourceDate = time.Unix(seconds, 0)
	}
	if cfg.Cache, err = o.cacheDir(); err != nil {
		return cfg, err
	}
	dir, err := os.UserConfigDir()
	if err == nil {
		cfg.KeyDir = filepath.Join(dir, "kmi-tui")
	} else if o.key == "" && len(cfg.KeyPEM) == 0 {
		return cfg, &engine.NotStarted{Err: event.WithRemedy(err, "name a signing key with --key FILE")}
	}
	if cfg.Mirrors, err = o.mirrors(); err != nil {
		return cfg, err
	}
	return cfg, nil
}

// mirrors are those of the flags.
func (o *options) mirrors() (list []upstream.Mirror, err error) {
	for _, m := range o.mirror {
		mirror, err := upstream.ParseMirror(m)
		if err != nil {
			return nil, &engine.NotStarted{Err: err}
		}
		list = append(list, mirror)
	}
	return list, nil
}

// selection is what the flags select.
func (o *options) selection() engine.Selection {
	sel := engine.Selection{Only: o.only, Until: engine.Stage(o.until), Force: o.force}
	for _, l := range o.level {
		sel.Levels = append(sel.Levels, catalog.Level(l))
	}
	return sel
}

// forms checks --output.
func (o *options) form(valid ...string) error {
	for _, v := range valid {
		if o.output == v {
			return nil
		}
	}
	return &engine.NotStarted{Err: fmt.Errorf("--output %s: write one of %s", o.output, strings.Join(valid, ", "))}
}

func (o *options) runBatch(ctx context.Context) error {
	if err := o.form("text", "json"); err != nil {
		return err
	}
	e, err := o.engine()
	if err != nil {
		return err
	}
	sel := o.selection()
	sub := e.Subscribe()
	shown := make(chan error, 1)
	go func() { shown <- o.show(context.WithoutCancel(ctx), sub, e) }()
	if o.plan {
		plans, err := e.Plan(ctx, sel)
		e.Close()
		if serr := <-shown; err == nil {
			err = serr
		}
		if err != nil {
			return err
		}
		if o.output == "json" {
			err = headless.PlanJSON(os.Stdout, plans)
		} else {
			headless.PlanText(os.Stdout, plans)
		}
		for _, p := range plans {
			if p.Action == engine.Fail && err == nil {
				err = errFailed
			}
		}
		return err
	}
	summary, err := e.Run(ctx, sel)
	e.Close()
	if serr := <-shown; err == nil {
		err = serr
	}
	if err != nil {
		return err
	}
	if o.output == "json" {
		err = headless.SummaryJSON(os.Stdout, summary, e.Now())
	} else {
		headless.SummaryText(os.Stdout, summary, 0)
	}
	if err == nil && summary.Failed() > 0 {
		err = errFailed
	}
	return err
}

// show shows the engine's events until they end.
func (o *options) show(ctx context.Context, sub *engine.Subscription, e *engine.Engine) error {
	if o.output == "json" && !o.plan {
		return headless.JSON(ctx, sub, os.Stdout)
	}
	return showText(ctx, sub, o.verbose, e.Catalog())
}

// showText shows events on standard error: live where that is a terminal, plain elsewhere.
func showText(ctx context.Context, sub *engine.Subscription, verbose bool, c *catalog.Catalog) error {
	fd := int(os.Stderr.Fd())
	live := term.IsTerminal(fd) && os.Getenv("TERM") != "dumb" && os.Getenv("CI") == ""
	options := headless.Options{Progress: os.Stderr, Live: live, Colour: live && os.Getenv("NO_COLOR") == "", Verbose: verbose,
		Width: func() int {
			if w, _, err := term.GetSize(fd); err == nil && w > 0 {
				return w
			}
			return 80
		}}
	if c != nil {
		options.Actions, options.Catalog, options.Line = os.Getenv("GITHUB_ACTIONS") == "true", c.Path, c.Line
	}
	return headless.Text(ctx, sub, options)
}

// inLines says whether the console is the linear one: where it is asked for, and on a terminal that can do nothing.
func (o *options) inLines() bool {
	return o.linear || os.Getenv("TERM") == "dumb" && term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
}

// appearance is how the console looks on this terminal.
func (o *options) appearance() (ui.Appearance, error) {
	look, err := ui.AppearanceOf(o.theme, os.Getenv)
	if err != nil {
		return look, &engine.NotStarted{Err: fmt.Errorf("--theme: %w", err)}
	}
	return look, nil
}

func (o *options) runConsole(cmd *cobra.Command) error {
	if !o.inLines() && (!term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stdout.Fd()))) {
		return &engine.NotStarted{Err: event.WithRemedy(errors.New("the console needs a terminal"), "without one, use --batch, or --batch --plan to look first")}
	}
	look, err := o.appearance()
	if err != nil {
		return err
	}
	for _, name := range []string{"until", "force"} {
		if cmd.Flags().Changed(name) {
			return &engine.NotStarted{Err: event.WithRemedy(fmt.Errorf("--%s says nothing to the console", name), "add --batch, or open the console without it: B runs up to a stage")}
		}
	}
	var sel engine.Selection
	if len(o.only)+len(o.level) > 0 {
		sel = o.selection()
	}
	var flags []string
	cmd.Root().PersistentFlags().VisitAll(func(f *pflag.Flag) {
		switch values, many := f.Value.(pflag.SliceValue); {
		case !f.Changed, f.Name == "registry", f.Name == "linear", f.Name == "theme":
		case many:
			for _, v := range values.GetSlice() {
				flags = append(flags, "--"+f.Name, v)
			}
		case f.Value.Type() == "bool":
			flags = append(flags, "--"+f.Name)
		default:
			flags = append(flags, "--"+f.Name, f.Value.String())
		}
	})
	if o.inLines() {
		e, err := o.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		return linear.Run(cmd.Context(), e, linear.Options{In: os.Stdin, Out: os.Stdout, Flags: flags, Select: sel})
	}
	// A catalogue with mistakes is shown with them; what fits can be looked at.
	path, err := o.catalogPath()
	if err != nil {
		return &engine.NotStarted{Err: err}
	}
	cfg, err := o.config()
	if err != nil {
		return err
	}
	live, err := engine.OpenLive(cfg, path)
	if err != nil {
		return err
	}
	defer live.Close()
	defer guard(os.Stdin, os.Stdout)()
	return ui.Run(cmd.Context(), live, ui.Options{In: os.Stdin, Out: os.Stdout, Appearance: look, Look: true, Flags: flags, Select: sel})
}
