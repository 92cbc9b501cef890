package publish

import (
	"context"
	"errors"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Writable asks the registry whether we may write here: an upload is begun and given up.
func (r *served) Writable(ctx context.Context) error {
	return r.try(ctx, true, func() error {
		return remote.CheckPushPermission(r.repo.Tag("check"), r.o.Keychain, during(func(q *http.Request) (*http.Response, error) {
			return r.transport.RoundTrip(q.WithContext(ctx)) // the library has no context here
		}))
	})
}

// during is a transport that is a function.
type during func(*http.Request) (*http.Response, error)

func (d during) RoundTrip(r *http.Request) (*http.Response, error) { return d(r) }

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
