// Package catalog is the release chart as data: distros.toml, the only place that knows a distribution's name.
package catalog

// Level is a column of the release chart.
type Level string

const (
	Planned  Level = "planned"
	Preview  Level = "preview"
	Proposed Level = "proposed"
	Stable   Level = "stable"
)

// Levels lists the levels from the first to the last.
var Levels = []Level{Planned, Preview, Proposed, Stable}

// Arch is an architecture as the chart spells it.
type Arch string

const (
	X86_64 Arch = "x86_64"
	ARM64  Arch = "arm64"
)

// Arches lists the architectures in the order of the chart's columns.
var Arches = []Arch{X86_64, ARM64}

// OCI is the architecture as container images spell it: "amd64", "arm64".
func (a Arch) OCI() string {
	if a == X86_64 {
		return "amd64"
	}
	return string(a)
}

// Catalog is a valid distros.toml.
type Catalog struct {
	Path    string   `toml:"-"` // the file it was read from
	Project Project  `toml:"project"`
	Base    Base     `toml:"base"`
	Flavors []Flavor `toml:"flavor"` // in the order of the chart

	lines map[string]int // where each flavor begins, by its id
}

// Project holds what is the same for every flavor.
type Project struct {
	Name     string   `toml:"name"`
	Source   string   `toml:"source"`    // URL of the repository that builds the images
	Registry string   `toml:"registry"`  // where a run publishes when nobody says otherwise: HOST/PATH or dir:PATH
	Public   string   `toml:"public"`    // HOST/PATH that users pull from; signatures name it
	Packages []string `toml:"packages"`  // the criteria's default packages, by the names that flavors translate
	DiskSize string   `toml:"disk_size"` // virtual size of the root disk: "10GiB"
}

// Base is the container image that the disk is put into.
type Base struct {
	Image string    `toml:"image"` // reference of the image
	Built BuiltBase `toml:"built"`
}

// BuiltBase describes a base image made from a package archive, for where Image cannot be reached (`--base built`).
type BuiltBase struct {
	Flavor   string            `toml:"flavor"`   // whose archive and keys are used
	Release  string            `toml:"release"`  // version of the flavor
	Packages []string          `toml:"packages"` // unpacked without their dependencies or scripts
	Links    map[string]string `toml:"links"`    // path in the image → what the symbolic link there points to
}

// Flavor is one row of the release chart.
type Flavor struct {
	ID       string `toml:"id"`
	Name     string `toml:"name"`
	Home     string `toml:"home"`
	Level    Level  `toml:"level"`
	Arch     []Arch `toml:"arch"`
	Docs     string `toml:"docs"`     // URL of upstream's documentation
	Download string `toml:"download"` // URL where upstream offers its downloads
	Licence  string `toml:"licence"`  // URL of the distribution's licence or EULA
	User     string `toml:"user"`     // the login that the guest's provisioning makes

	// Instancetype and Preference are names of KubeVirt's common-instancetypes, by architecture.
	Instancetype map[Arch]string `toml:"instancetype"`
	Preference   map[Arch]string `toml:"preference"`

	Origin   *Origin   `toml:"origin"`  // nil: the description of the upstream is not there yet
	Releases []Release `toml:"release"` // the newest first
}

// Release is a version of a flavor.
type Release struct {
	Version  string            `toml:"version"`
	Codename string            `toml:"codename"`
	SignedBy []string          `toml:"signed_by"` // fingerprints of the keys whose signature is accepted
	Packages map[string]string `toml:"packages"`  // translations that hold for this release only
}

// Origin says how the disk is obtained.
type Origin struct {
	Kind string `toml:"kind"` // "packages"

	// Packages origin.
	Format    string            `toml:"format"`     // "deb"
	Archives  []string          `toml:"archives"`   // "URL SUITE COMPONENT…"; {codename} stands for the release's
	ArchNames map[Arch]string   `toml:"arch_names"` // how the archive spells architectures
	Packages  map[string]string `toml:"packages"`   // translations of the project's default packages; "" leaves one out
	System    []string          `toml:"system"`     // what the guest is made of besides them; {arch} is the archive's spelling
	Sources   []string          `toml:"sources"`    // lines of the guest's own list of package sources
	Cmdline   string            `toml:"cmdline"`    // kernel arguments besides root=
	Run       []string          `toml:"run"`        // shell commands run inside the finished tree, without network
	Licences  []string          `toml:"licences"`   // globs of the guest's licence files, copied into the container
	Files     []File            `toml:"file"`       // put into the guest
	Boot      map[Arch]Boot     `toml:"boot"`
}

// File is one text file in a guest.
type File struct {
	Path string `toml:"path"`
	Mode string `toml:"mode"` // octal; "" means 0644
	Text string `toml:"text"`
}

// Boot describes a boot loader and what the boot test starts.
type Boot struct {
	Packages []string          `toml:"packages"` // besides Origin.System
	BIOS     string            `toml:"bios"`     // GRUB platform embedded for BIOS: "i386-pc"; "" for none
	EFI      map[string]string `toml:"efi"`      // path on the EFI system partition → file of the guest
	EFIGrub  string            `toml:"efi_grub"` // path on the EFI system partition of the configuration that the loader reads
	Kernel   string            `toml:"kernel"`   // path in the guest
	Initrd   string            `toml:"initrd"`
	Firmware []string          `toml:"firmware"` // what the boot test uses, the full baseline with the first: "uefi", "bios"
	Memory   int               `toml:"memory"`   // MiB of the test machine
}
