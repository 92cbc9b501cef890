package install

import (
	"errors"
	"fmt"
	"os"

	"github.com/BurntSushi/toml"
)

// Load reads a script from a TOML file. The error has every mistake of it.
func Load(file string) (Script, error) {
	info, err := os.Stat(file)
	if err != nil {
		return Script{}, err
	}
	if info.Size() > 1<<20 {
		return Script{}, fmt.Errorf("%s: it has %d bytes, which no script needs", file, info.Size())
	}
	var s Script
	meta, err := toml.DecodeFile(file, &s)
	if err != nil {
		return Script{}, fmt.Errorf("%s: %w", file, err)
	}
	var wrong []error
	for _, key := range meta.Undecoded() {
		wrong = append(wrong, fmt.Errorf("%s: unknown key %s", file, key))
	}
	for _, err := range s.Check() {
		wrong = append(wrong, fmt.Errorf("%s: %w", file, err))
	}
	return s, errors.Join(wrong...)
}
