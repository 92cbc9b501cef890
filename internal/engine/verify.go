package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
	"github.com/ContainerCraft/kmi-tui/internal/engine/trust"
)

// Report is what verifying an image found.
type Report = publish.Report

// Verification says what to verify and with which key.
type Verification struct {
	Image    string // HOST/PATH/NAME[:TAG|@DIGEST] or dir:PATH/NAME[:TAG|@DIGEST]
	Key      string // the publisher's public key (PEM); "" means the embedded default's in KeyDir
	KeyDir   string
	Insecure bool // plain http to hosts that are not loopback
}

// Verify checks an image as a user would, reading all of it. The error is one of reading, or *NotStarted; what is wrong
// with the image is in the report.
func Verify(ctx context.Context, v Verification, bus *event.Bus) (*Report, error) {
	path := v.Key
	if path == "" {
		path = filepath.Join(v.KeyDir, "cosign.pub")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, &NotStarted{event.WithRemedy(errors.New("there is no public key to verify with"), "name the publisher's with --key cosign.pub")}
		}
	}
	key, err := trust.LoadKey(path)
	if err != nil {
		return nil, &NotStarted{err}
	}
	scope := bus.Scope(strings.TrimPrefix(v.Image, "dir:"), "verify", "")
	scope.Start()
	r, err := publish.Verify(ctx, v.Image, key, publish.Options{Insecure: v.Insecure}, scope)
	if err == nil && !r.OK() {
		err = errors.New("not everything is as it should be")
		scope.End("", err)
		return r, nil
	}
	scope.End("everything is as it should be", err)
	return r, err
}

// NewBus makes a bus for functions that are used without an engine.
func NewBus() *event.Bus { return event.NewBus(nil) }
