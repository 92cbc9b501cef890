package catalog

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/BurntSushi/toml"
)

//go:embed instancetypes.toml
var instancetypesText string

// Machine is what one of KubeVirt's common-instancetypes gives, or one of its preferences demands.
type Machine struct {
	CPU    int    `toml:"cpu"`    // processors; 0: nothing is demanded
	Memory string `toml:"memory"` // "512Mi", "1.5Gi"; "": nothing is demanded
	Arch   Arch   `toml:"arch"`   // of a preference: the only architecture that it is for; "": any
	Starts string `toml:"starts"` // of a preference, on x86_64: "uefi" or "secure boot"; "" means bios
}

// Instancetypes are the names of KubeVirt's common-instancetypes of one version of them.
type Instancetypes struct {
	Version      string             `toml:"version"`
	Preference   map[string]Machine `toml:"preference"`
	Instancetype map[string]Machine `toml:"instancetype"`
}

// Common are the common-instancetypes that this program knows.
var Common = sync.OnceValue(func() Instancetypes {
	var all Instancetypes
	if _, err := toml.Decode(instancetypesText, &all); err != nil {
		panic("instancetypes.toml: " + err.Error()) // it is a part of this program, and its test reads it
	}
	return all
})

// memory is a quantity of memory in bytes (Kubernetes, resource quantities: Mi and Gi only); 0 for "".
func memory(text string) int64 {
	for unit, size := range map[string]float64{"Mi": 1 << 20, "Gi": 1 << 30} {
		if n, ok := strings.CutSuffix(text, unit); ok {
			f, _ := strconv.ParseFloat(n, 64)
			return int64(f * size)
		}
	}
	return 0
}

// Firmware is what a machine of the preference starts with on an architecture, as boot tests call it: "bios", "uefi".
func (m Machine) Firmware(a Arch) string {
	if a == X86_64 && m.Starts == "" {
		return "bios"
	}
	return "uefi"
}

// Machine names what KubeVirt runs a release on (nil: any of the flavor that has none of its own) on an architecture:
// common-instancetypes' instancetype and preference, "" for none.
func (f *Flavor) Machine(r *Release, a Arch) (instancetype, preference string) {
	if r != nil {
		instancetype, preference = r.Instancetype[a], r.Preference[a]
	}
	return cmp.Or(instancetype, f.Instancetype[a]), cmp.Or(preference, f.Preference[a])
}

// machines checks the instancetypes and preferences of a flavor, or of a release of it: that they exist, fit the
// architecture and each other, and start with something that the boot test has started with. The place is that of types and
// preferences.
func (p place) machines(f *Flavor, r *Release, types, preferences map[Arch]string) {
	all := Common()
	p.in("instancetype").names(types, "u1.medium")
	p.in("preference").names(preferences, "linux.efi")
	known := func(key string, names map[Arch]string, table map[string]Machine, a Arch) {
		if _, ok := table[names[a]]; !ok && names[a] != "" && versionForm.MatchString(names[a]) {
			p.in(key).in(string(a)).say("%s is not one of KubeVirt's common-instancetypes %s: write one of %s", quote(names[a]), all.Version, near(names[a], table))
		}
	}
	for _, a := range Arches {
		known("instancetype", types, all.Instancetype, a)
		known("preference", preferences, all.Preference, a)
		if types[a] == "" && preferences[a] == "" {
			continue // what the flavor says is looked at there
		}
		instancetype, preference := f.Machine(r, a)
		gives, typed := all.Instancetype[instancetype]
		demands, preferred := all.Preference[preference]
		one := p.in("preference").in(string(a))
		if preferences[a] != "" && demands.Arch != "" && demands.Arch != a {
			one.say("%s is for %s only: KubeVirt would refuse the machine", quote(preference), demands.Arch)
		}
		if preferred && typed && (gives.CPU < demands.CPU || memory(gives.Memory) < memory(demands.Memory)) {
			key := "instancetype"
			if types[a] == "" {
				key = "preference"
			}
			p.in(key).in(string(a)).say("%s has %s, and the preference %s demands %s: KubeVirt would refuse the machine",
				quote(instancetype), gives, quote(preference), demands)
		}
		if preferences[a] != "" && preferred && f.Origin != nil {
			if tested := f.Origin.Boot[a].Firmware; len(tested) > 0 && !slices.Contains(tested, demands.Firmware(a)) {
				one.say("%s starts the machine with %s, and its boot test does not (firmware of [flavor.origin.boot.%s])", quote(preference), demands.Firmware(a), a)
			}
		}
	}
}

func (m Machine) String() string {
	s := "1 processor"
	if m.CPU != 1 {
		s = fmt.Sprintf("%d processors", m.CPU)
	}
	return s + " and " + m.Memory
}

// near lists names of a table that begin like one, or all of them.
func near(name string, table map[string]Machine) string {
	stem, _, _ := strings.Cut(name, ".")
	var like []string
	for _, n := range sortedKeys(table) {
		if strings.HasPrefix(n, stem[:min(2, len(stem))]) {
			like = append(like, n)
		}
	}
	if len(like) == 0 {
		like = sortedKeys(table)
	}
	return strings.Join(like, ", ")
}
