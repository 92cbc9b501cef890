package ui

import (
	"slices"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine"
)

// What a pane in a grid needs at least; what it needs for a log that can be read, with lines of 76 cells and more; and the
// height from which nobody has to make room for others.
const (
	leastW, leastH = 54, 8
	goodW, goodH   = 80, 9
	easyH          = 12
)

// grid arranges n panes on w×h cells: how many side by side and one above the other, and how many of them fit. As many as
// can be are shown, then long lines count, then how much of the logs is seen.
func grid(n, w, h int) (cols, rows, fit int) {
	if n <= 0 {
		return 1, 1, 0
	}
	good, seen := false, -1
	for c := 1; c <= max(1, min(n, w/leastW)); c++ {
		r := min(max(1, h/leastH), (n+c-1)/c)
		f := min(n, c*r)
		g := w/c >= goodW && h/r >= goodH
		s := min(w/c-4, goodW) * (h/r - 4)
		if f > fit || f == fit && (g && !good || g == good && s > seen) {
			cols, rows, fit, good, seen = c, r, f, g, s
		}
	}
	return cols, rows, fit
}

// places are the panes that are seen. A pane stays where it is: one that begins to work takes the place of one that does
// not, and the others do not move. Places are added when more is worked on than there are, and taken away when less is,
// but not while somebody reads.
type places struct {
	shown  []*pane
	turned *pane     // had the focus when this was drawn last
	idle   time.Time // since when there are more places than work; zero: there are not
}

// settled is how long nobody has to have touched anything, and how long a place has to be of no use, before it goes.
const settled = 8 * time.Second

// entryWidth is the width of a pane in the list of those that have no room.
func entryWidth(w int) int {
	n := max(1, (w-1)/46)
	return max(1, (w-1)/n)
}

// listed is how many lines a list of n panes takes.
func listed(n, w, h int) int {
	if n <= 0 || h < 3 {
		return 0
	}
	per := max(1, (w-1)/entryWidth(w))
	return min((n+per-1)/per, max(1, h/5))
}

// most is how many panes fit beside the list of the others.
func most(n, w, h int) int {
	_, _, k := grid(n, w, h)
	for ; k > 1; k-- {
		if _, _, f := grid(k, w, h-listed(n-k, w, h)); f >= k {
			return k
		}
	}
	return 1
}

// arrange decides which panes are seen. It returns how many of them stand side by side, and how many lines the list of the
// others has. touched is when somebody did something here last.
func (b *board) arrange(w, h int, now, touched time.Time) (cols, list int) {
	n, pl := len(b.panes), &b.places
	defer func() { pl.turned = b.panes[b.focus] }()
	if c, r, f := grid(n, w, h); f == n && (n == 1 || w/c >= goodW && h/r >= easyH) {
		if len(pl.shown) != n || !slices.Equal(pl.shown, b.panes) {
			pl.shown = slices.Clone(b.panes)
		}
		pl.idle = time.Time{}
		return c, 0
	}
	focus, most := b.panes[b.focus], most(n, w, h)
	// All are resolved at once, in a moment: that is no reason to change places.
	busy := func(p *pane) bool {
		s := p.working()
		return s != nil && s.name != string(engine.Resolve)
	}
	// free reports whether another one may have a pane's place.
	free := func(p *pane) bool { return !busy(p) && p != focus && !p.log.read() }
	for len(pl.shown) > most { // the terminal is smaller
		i := slices.IndexFunc(pl.shown, free)
		if i < 0 {
			i = slices.IndexFunc(pl.shown, func(p *pane) bool { return p != focus })
		}
		pl.shown = slices.Delete(pl.shown, i, i+1)
	}
	past := now.Sub(touched) // a replay's clock goes back
	reads, fresh := past >= 0 && past < settled, len(pl.shown) == 0
	work := 0
	for _, p := range b.panes {
		if !busy(p) {
			continue
		}
		work++
		if slices.Contains(pl.shown, p) {
			continue
		}
		if i := slices.IndexFunc(pl.shown, free); i >= 0 {
			pl.shown[i] = p
		} else if len(pl.shown) < most && !slices.ContainsFunc(pl.shown, func(p *pane) bool { return p.log.read() }) {
			pl.shown = append(pl.shown, p)
		}
	}
	if work == 0 && !reads || fresh { // as many as there is room for
		for _, p := range b.panes {
			if len(pl.shown) < most && !slices.Contains(pl.shown, p) {
				pl.shown = append(pl.shown, p)
			}
		}
	}
	if !slices.Contains(pl.shown, focus) {
		i := slices.IndexFunc(pl.shown, free)
		if i < 0 {
			i = slices.Index(pl.shown, pl.turned)
		}
		if i < 0 {
			i = len(pl.shown) - 1
		}
		pl.shown[i] = focus
	}
	if work == 0 || len(pl.shown) <= work || !slices.ContainsFunc(pl.shown, free) {
		pl.idle = time.Time{}
	} else if pl.idle.IsZero() {
		pl.idle = now
	} else if now.Sub(pl.idle) >= settled && !reads {
		pl.shown = slices.DeleteFunc(pl.shown, free)
		pl.idle = time.Time{}
	}
	list = listed(n-len(pl.shown), w, h)
	cols, _, _ = grid(len(pl.shown), w, h-list)
	return cols, list
}
