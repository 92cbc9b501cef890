package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/fetch"
)

// cacheDir is the cache's folder: the flag's, or the user's.
func (o *options) cacheDir() (string, error) {
	if o.cache != "" {
		return o.cache, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", &engine.NotStarted{Err: event.WithRemedy(err, "name a folder with --cache DIR")}
	}
	return filepath.Join(dir, "kmi-tui"), nil
}

// openCache opens the cache for a look; it makes none.
func (o *options) openCache() (*fetch.Cache, error) {
	if err := o.form("text", "json"); err != nil {
		return nil, err
	}
	dir, err := o.cacheDir()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, &engine.NotStarted{Err: event.WithRemedy(fmt.Errorf("there is no cache: %w", err), "the first run makes it; name another folder with --cache DIR")}
	}
	c, err := fetch.OpenCache(dir)
	if err != nil {
		return nil, &engine.NotStarted{Err: err}
	}
	return c, nil
}

// cacheCommand lists what the cache holds; below it, prune.
func (o *options) cacheCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "cache", Short: "List what the cache holds", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := o.openCache()
			if err != nil {
				return err
			}
			entries, err := c.List()
			if err != nil {
				return err
			}
			if o.output == "json" {
				return cacheJSON(os.Stdout, c.Dir(), "entries", entries, false)
			}
			fmt.Printf("%s\n", c.Dir())
			return cacheText(os.Stdout, entries, time.Now())
		},
	}
	var older, keep string
	var dry bool
	prune := &cobra.Command{
		Use: "prune", Short: "Remove what was not used for a while and no running process uses", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limits := fetch.Limits{DryRun: dry}
			var err error
			if limits.Older, err = age(older); err != nil {
				return &engine.NotStarted{Err: err}
			}
			if keep != "" {
				if limits.Keep, err = catalog.ParseSize(keep); err != nil {
					return &engine.NotStarted{Err: fmt.Errorf("--keep: %w", err)}
				}
			}
			c, err := o.openCache()
			if err != nil {
				return err
			}
			removed, err := c.Prune(cmd.Context(), limits)
			if err != nil {
				return err
			}
			if o.output == "json" {
				return cacheJSON(os.Stdout, c.Dir(), "removed", removed, dry)
			}
			if len(removed) == 0 {
				fmt.Println("nothing to remove")
				return nil
			}
			if err := cacheText(os.Stdout, removed, time.Now()); err != nil {
				return err
			}
			if dry {
				fmt.Println("nothing was removed: --dry-run")
			} else {
				fmt.Println("removed")
			}
			return nil
		},
	}
	prune.Flags().StringVar(&older, "older", "30d", "remove what was not used for `AGE`: 12h, 30d, 8w; 0 removes all that is not in use")
	prune.Flags().StringVar(&keep, "keep", "", "remove more, least recently used first, until no more than `SIZE` is left: 20GiB")
	prune.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	list.AddCommand(prune)
	return list
}

// age reads a duration in hours, days or weeks.
func age(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	if len(s) > 1 {
		unit := map[byte]time.Duration{'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[s[len(s)-1]]
		if n, err := strconv.ParseUint(s[:len(s)-1], 10, 16); err == nil && unit > 0 {
			return time.Duration(n) * unit, nil
		}
	}
	return 0, fmt.Errorf("--older %s: write hours, days or weeks: 12h, 30d, 8w", s)
}

// cacheJSON prints the entries as one object: the cache's folder, the entries under name, and their bytes.
func cacheJSON(w io.Writer, dir, name string, entries []fetch.Entry, dry bool) error {
	if entries == nil {
		entries = []fetch.Entry{}
	}
	result := map[string]any{"cache": dir, name: entries, "total": total(entries)}
	if name == "removed" {
		result["dry_run"] = dry
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(result)
}

// cacheText prints a line for each entry, and one for all blobs of a kind of which the cache does not know what they are
// of: the packages that a disk is built from are hundreds.
func cacheText(w io.Writer, entries []fetch.Entry, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KIND\tSIZE\tLAST USED\tOF")
	var plain []fetch.Entry
	for i, e := range entries {
		if e.Kind == fetch.KindBlob && e.Of == "" {
			plain = append(plain, e)
		} else {
			of := e.Of
			if of == "" {
				of = e.Path
			}
			line(t, e.Kind, e.Size, e.Used, now, of, e.Busy)
		}
		if len(plain) > 0 && (i+1 == len(entries) || entries[i+1].Kind != fetch.KindBlob) {
			last, busy := plain[0].Used, 0
			for _, p := range plain {
				if p.Used.After(last) {
					last = p.Used
				}
				if p.Busy {
					busy++
				}
			}
			line(t, fetch.KindBlob, total(plain), last, now, fmt.Sprintf("%d files that disks are built from", len(plain)), busy > 0)
			plain = nil
		}
	}
	fmt.Fprintf(t, "total\t%s\t\t\n", fetch.Size(total(entries)))
	return t.Flush()
}

func line(w io.Writer, kind string, size int64, used, now time.Time, of string, busy bool) {
	of = event.Clean(strings.ReplaceAll(of, "\t", " "))
	if busy {
		of += " (in use)"
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", kind, fetch.Size(size), ago(now.Sub(used)), of)
}

func total(entries []fetch.Entry) (n int64) {
	for _, e := range entries {
		n += e.Size
	}
	return n
}

// ago spells how long ago something was.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	}
	return fmt.Sprintf("%d days ago", d/(24*time.Hour))
}
