package disk

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Package is one of a guest's packages, as the guest's own database tells of it: untrusted text, made harmless.
type Package struct {
	Name      string
	Version   string
	Arch      string
	Installed int64 // bytes that it takes in the guest, as its maintainer says; 0: not known
}

// Limits of a list of packages.
const (
	maxPackages    = 100_000
	maxPackageLine = 512 // bytes
)

// ParsePackages reads the list of a guest's packages (Disk.Packages): lines of NAME VERSION ARCH INSTALLED, one space
// between them, INSTALLED a number of bytes. Lists of older disks lack the fourth field. The error names the line.
func ParsePackages(data []byte) ([]Package, error) {
	var list []Package
	for n := 1; len(data) > 0; n++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte("\n"))
		p, err := parsePackage(line)
		if n > maxPackages {
			err = fmt.Errorf("more than %d packages", maxPackages)
		}
		if err != nil {
			return nil, fmt.Errorf("list of packages, line %d: %w", n, err)
		}
		list = append(list, p)
	}
	return list, nil
}

func parsePackage(line []byte) (p Package, err error) {
	if len(line) > maxPackageLine {
		return p, fmt.Errorf("%d bytes: no package is told of with more than %d", len(line), maxPackageLine)
	}
	if !utf8.Valid(line) {
		return p, errors.New("it is not UTF-8")
	}
	text := string(line)
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		r, _ := utf8.DecodeRuneInString(text[i:])
		return p, fmt.Errorf("it has the character %U", r)
	}
	fields := strings.Split(text, " ")
	if len(fields) < 3 || len(fields) > 4 || slices.Contains(fields, "") {
		return p, fmt.Errorf("%q is not NAME VERSION ARCH INSTALLED", text)
	}
	p = Package{Name: fields[0], Version: fields[1], Arch: fields[2]}
	if len(fields) == 4 {
		if strings.Trim(fields[3], "0123456789") == "" {
			p.Installed, err = strconv.ParseInt(fields[3], 10, 64)
		} else {
			err = errors.New("no number")
		}
		if err != nil {
			return p, fmt.Errorf("%q is not a number of bytes", fields[3])
		}
	}
	return p, nil
}

// Largest returns the n packages of a list that take the most room, the largest first; those whose size is not known
// are left out.
func Largest(list []Package, n int) []Package {
	known := slices.DeleteFunc(slices.Clone(list), func(p Package) bool { return p.Installed <= 0 })
	slices.SortStableFunc(known, func(a, b Package) int {
		return cmp.Or(cmp.Compare(b.Installed, a.Installed), cmp.Compare(a.Name, b.Name))
	})
	return known[:max(0, min(n, len(known)))]
}
