package install

import (
	"path/filepath"
	"testing"

	"github.com/BurntSushi/toml"
)

// load reads a script; every key of it has to be one of Script's.
func load(t *testing.T, name string) Script {
	t.Helper()
	var s Script
	meta, err := toml.DecodeFile(filepath.Join("testdata", "scripts", name), &s)
	if err != nil {
		t.Fatal(err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		t.Errorf("%s: unknown keys %q", name, unknown)
	}
	for _, err := range s.Check() {
		t.Errorf("%s: %v", name, err)
	}
	return s
}
