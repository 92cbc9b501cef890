package publish

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Writable asks the registry whether we may write here: an upload is begun and given up.
func (r *served) Writable(ctx context.Context) error {
	s, err := r.sender(ctx, nil)
	if err != nil {
		return err
	}
	return r.try(ctx, true, func() error {
		resp, err := s.ask(ctx, http.MethodPost, s.address("uploads/", nil), http.StatusAccepted)
		if err != nil {
			return err
		}
		if at, err := s.follow(resp); err == nil { // a registry that keeps it loses nothing but the place of an empty file
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			_, _ = s.ask(ctx, http.MethodDelete, at, http.StatusNoContent, http.StatusOK, http.StatusAccepted)
		}
		return nil
	})
}

// Writable makes a file where the layout is, or in the folder in which it would be made, that does not stay.
func (l *laidOut) Writable(context.Context) error {
	dir := l.dir
	for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	f, err := os.CreateTemp(dir, parts+"*")
	if err != nil {
		return l.explain(err)
	}
	return l.explain(errors.Join(f.Close(), os.Remove(f.Name())))
}
