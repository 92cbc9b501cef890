package ui

import (
	"context"
	"io"

	"github.com/containercraft/kmi-tui/internal/engine"
)

type Options struct {
	In, Out interface{}
	NoColor bool
}

func Run(ctx context.Context, e *engine.Engine, o Options) error { _ = io.EOF; return nil }
