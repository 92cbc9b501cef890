package publish

import (
	"context"
	"errors"
	"net/http"
	"os"
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

// Writable makes the layout, if it is not there, and a file in it that does not stay.
func (l *laidOut) Writable(ctx context.Context) error {
	if err := l.create(ctx); err != nil {
		return err
	}
	f, err := os.CreateTemp(l.dir, parts+"*")
	if err != nil {
		return l.explain(err)
	}
	return l.explain(errors.Join(f.Close(), os.Remove(f.Name())))
}
