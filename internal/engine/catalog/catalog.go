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
	Path       string     `toml:"-"` // the file it was read from
	Project    Project    `toml:"project"`
	Base       Base       `toml:"base"`
	Registries []Registry `toml:"registry"` // what is known of some; the first that fits a host counts
	Flavors    []Flavor   `toml:"flavor"`   // in the order of the chart

	Managers map[string]Manager `toml:"manager"` // package managers by name

	lines map[string]int // where each flavor begins, by its id
}

// Project holds what is the same for every flavor.
type Project struct {
	Name     string   `toml:"name"`
	Source   string   `toml:"source"`    // URL of the repository that builds the images
	Registry string   `toml:"registry"`  // where a run publishes when nobody says otherwise: HOST/PATH or dir:PATH
	Public   string   `toml:"public"`    // HOST/PATH that users pull from; signatures name it
	Private  []string `toml:"private"`   // HOST/PATH of registries that only the project's own people can read
	Packages []string `toml:"packages"`  // the criteria's default packages, by the names that flavors translate
	DiskSize string   `toml:"disk_size"` // virtual size of the root disk: "10GiB"
	Mirrors  []Mirror `toml:"mirror"`    // rewrites of URL prefixes

	Compression string `toml:"disk_compression"` // of a disk's clusters: "zlib", the default, or "zstd", which older hypervisors cannot open
	Layer       string `toml:"layer"`            // how the disk's layer of an image is compressed: "none", the default, "gzip" or "zstd"
	Keep        int    `toml:"keep"`             // how many publications of a version a retention keeps; 0: all
}

// Zstd says whether disks' clusters are compressed by zstd.
func (p *Project) Zstd() bool { return p.Compression == "zstd" }

// Mirror rewrites the prefix From of upstreams' URLs to To.
type Mirror struct {
	From string `toml:"from"`
	To   string `toml:"to"`
}

// Registry says what a registry takes.
type Registry struct {
	Host   string `toml:"host"`   // HOST or HOST:PORT in lower case; * is any text, and without PORT any port is meant
	Layer  string `toml:"layer"`  // size of the largest layer, "10GB": see ParseLimit
	Source string `toml:"source"` // where that is told: an address, or a few words
}

// Redistribution says whether a flavor's image may be passed on.
type Redistribution string

const (
	Free       Redistribution = "free"       // to anybody
	Unclear    Redistribution = "unclear"    // not before a maintainer has decided
	Restricted Redistribution = "restricted" // to nobody outside of the project
)

// Redistributions lists the values.
var Redistributions = []Redistribution{Free, Unclear, Restricted}

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

	Redistribution Redistribution `toml:"redistribution"`
	Because        string         `toml:"because"`  // why it is unclear or restricted, in a few words
	Decision       string         `toml:"decision"` // what maintainers decided where it is unclear; "" for nothing yet

	// Instancetype and Preference are names of KubeVirt's common-instancetypes, by architecture.
	Instancetype map[Arch]string `toml:"instancetype"`
	Preference   map[Arch]string `toml:"preference"`

	Versions *Versions `toml:"versions"` // how its releases are found; nil: they are those in Releases
	Origin   *Origin   `toml:"origin"`   // nil: the description of the upstream is not there yet
	Releases []Release `toml:"release"`  // without Versions: the newest first; with it: what is to be known of some

	Provision  string      `toml:"provision"` // what configures the guest at its first boot: "cloud-init", the default, "ignition", or "none"
	Promotions []Promotion `toml:"promotion"` // changes of its level, the oldest first
}

// Step finds something on an upstream's server. One of Listing, JSON, Redirect and Sums is its URL. In that, and in
// Match, {NAME} stands for a value that is known already (see Scope), in Query $NAME does.
type Step struct {
	Listing  string `toml:"listing"`  // of a folder: a page with links to what it holds, or S3's XML
	JSON     string `toml:"json"`     // of a JSON document
	Redirect string `toml:"redirect"` // that leads elsewhere: where to
	Sums     string `toml:"sums"`     // of a checksum file: the names in it

	Match string `toml:"match"` // regular expression (RE2) for a whole name or address; its named groups become known
	Query string `toml:"jq"`    // of JSON: a jq program that yields objects; their fields become known
	Order string `toml:"order"` // what is newest: "natural" (of the group build, or else the name), the default, or "date"
}

// Versions says how a flavor's releases are found, and which of them count.
type Versions struct {
	Step

	Version    string `toml:"version"`    // template of the release's name; "" means {version}
	Keep       int    `toml:"keep"`       // how many of the newest count: 2, N and N-1, if it is 0
	Per        string `toml:"per"`        // a known name: of those that agree in it, only the newest counts
	Prerelease string `toml:"prerelease"` // regular expression for versions that are not released yet
	EOL        string `toml:"eol"`        // URL of a JSON document that tells when releases end, as endoflife.date has it
	EOLQuery   string `toml:"eol_jq"`     // yields objects with cycle and eol (date or boolean); "" means .[] | {cycle, eol}
	Cycle      string `toml:"cycle"`      // template of what that document calls the release; "" means {version}
}

// ByArch is a text for every architecture, or one for all, under "".
type ByArch map[Arch]string

// Get returns the text for an architecture.
func (b ByArch) Get(a Arch) (text string, ok bool) {
	if text, ok = b[a]; !ok {
		text, ok = b[""]
	}
	return text, ok
}

// Release is a version of a flavor.
type Release struct {
	Version  string            `toml:"version"`
	Codename string            `toml:"codename"`
	SignedBy []string          `toml:"signed_by"` // fingerprints of the keys whose signature is accepted
	Packages map[string]string `toml:"packages"`  // translations that hold for this release only
	Words    map[string]ByArch `toml:"words"`     // what {NAME} stands for in this release
	EOL      string            `toml:"eol"`       // its last day, YYYY-MM-DD; "" if only Versions.EOL tells
	Pin      bool              `toml:"pin"`       // it counts whatever Versions finds
	Skip     string            `toml:"skip"`      // why it does not count

	Untouched string `toml:"untouched"` // why nothing is changed inside of its disk, unlike other releases'; "" if it is

	// Instancetype and Preference are this release's own, where the flavor's are not.
	Instancetype map[Arch]string `toml:"instancetype"`
	Preference   map[Arch]string `toml:"preference"`

	Known map[string]string `toml:"-"` // what finding it told besides
}

// Origin says how the disk is obtained.
type Origin struct {
	Kind   string `toml:"kind"`   // "packages", "image" (a disk to download), "installer", or "none"
	Reason string `toml:"reason"` // of "none": why there is nothing to take

	// Image and installer: the file. In templates {NAME} stands for what is known: see Scope.
	Words     map[string]ByArch `toml:"words"`
	Find      []Step            `toml:"find"`     // in this order, each with what those before it found
	URL       string            `toml:"url"`      // template of the file's address; "" if a JSON document told it
	Build     string            `toml:"build"`    // template of what upstream calls the build; "" means {build}
	Pack      string            `toml:"pack"`     // how the file is packed: "", "gz", "xz", "bz2", "zst"
	Member    string            `toml:"member"`   // glob of the file wanted of a tar archive; "": it is none
	Checksum  *Checksum         `toml:"checksum"` // nil if a JSON document told it
	Signature *Signature        `toml:"signature"`
	Customise *Customise        `toml:"customise"` // of image: what is done to the disk; nil: not described yet
	Install   string            `toml:"install"`   // file of an unattended installation, below the catalogue's folder; "": none is described
	Unsigned  string            `toml:"unsigned"`  // without Signature: what was looked for, in a few words

	// Packages origin.
	Format    string            `toml:"format"`     // "deb"; of a disk "qcow2" or "raw"; of an installer "iso" or "raw"
	Archives  []string          `toml:"archives"`   // "URL SUITE COMPONENT…"; {codename} stands for the release's
	ArchNames map[Arch]string   `toml:"arch_names"` // how upstream spells architectures: {arch}; "" where it offers nothing
	Packages  map[string]string `toml:"packages"`   // translations of the project's default packages; "" leaves one out
	System    []string          `toml:"system"`     // what the guest is made of besides them; {arch} is the archive's spelling
	Sources   []string          `toml:"sources"`    // lines of the guest's own list of package sources
	Cmdline   string            `toml:"cmdline"`    // kernel arguments besides root=
	Run       []string          `toml:"run"`        // shell commands run inside the finished tree, without network
	Licences  []string          `toml:"licences"`   // globs of the guest's licence files, copied into the container
	Files     []File            `toml:"file"`       // put into the guest
	Boot      map[Arch]Boot     `toml:"boot"`
}

// Checksum says where a file's checksum is found.
type Checksum struct {
	URL  string `toml:"url"`  // template; {url} is the file's
	Name string `toml:"name"` // regular expression for the name it has there; "" means the last part of the file's address
}

// Signature says how a file or its checksum is signed.
type Signature struct {
	Kind string   `toml:"kind"` // "openpgp", "minisign", "signify", "rsa"
	URL  string   `toml:"url"`  // template; {url} is the file's, {checksum} the checksum's; "": the checksum file holds it
	Of   string   `toml:"of"`   // what is signed: "checksum", "file" (as it is downloaded), "disk" (unpacked)
	Keys []string `toml:"keys"` // fingerprints of those accepted, for releases without signed_by
}

// Manager says how a package manager is used inside a guest: as lines of shell that root runs there, with set -eu.
type Manager struct {
	Env      map[string]string `toml:"env"`      // set for everything that is run
	Refresh  []string          `toml:"refresh"`  // make the archive's indexes known
	Update   []string          `toml:"update"`   // install every update
	Install  string            `toml:"install"`  // install {packages}
	Offers   string            `toml:"offers"`   // succeed if the archive has {package}
	List     string            `toml:"list"`     // print what is installed: lines of NAME VERSION ARCH, and bytes where it knows them
	Clean    []string          `toml:"clean"`    // remove downloads and indexes
	Licences []string          `toml:"licences"` // globs of the licence files
}

// Ways of customising a disk.
const (
	Chroot   = "chroot"  // mounted on the host, the guest's own programs confined: fast; for disks that are trusted
	Guestfs  = "guestfs" // inside libguestfs' appliance
	SelfBoot = "boot"    // by the guest itself, booted with a seed
)

// Ways lists the ways of customising, the fastest first.
var Ways = []string{Chroot, Guestfs, SelfBoot}

// Parts of customising, in their order. A flavor can be without some of them.
const (
	PartUpdate   = "update"   // every update
	PartPackages = "packages" // the project's default packages
	PartAgent    = "agent"    // the guest agent enabled, and allowed what KubeVirt asks of it
	PartSELinux  = "selinux"  // the agent may write ssh keys; files are labelled
	PartConsole  = "console"  // the kernel speaks on the serial port
	PartClean    = "clean"    // what must not be the same on two machines removed
)

// Parts lists the parts in their order.
var Parts = []string{PartUpdate, PartPackages, PartAgent, PartSELinux, PartConsole, PartClean}

// Customise says what is done to a disk that upstream made. Origin's Packages, Files, Run and Licences belong to it, too.
type Customise struct {
	Manager string            `toml:"manager"` // a name of [manager.…]; "" where there is none
	Ways    []string          `toml:"ways"`    // those that the guest can be customised in; empty where every part is left out
	Root    int               `toml:"root"`    // number of the root file system's partition; 0: the largest with a Linux file system
	Trusted string            `toml:"trusted"` // why the host may mount the disk though nobody has signed it; "" if it may not
	Prepare []string          `toml:"prepare"` // shell commands before everything else, with the network
	Agent   string            `toml:"agent"`   // the guest agent's service; "" means qemu-guest-agent
	Seed    string            `toml:"seed"`    // what the guest reads at its first boot, for the way boot: "cloud-init"
	Without map[string]string `toml:"without"` // parts left out, each with its reason
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
	Cmdline  string            `toml:"cmdline" json:",omitempty"` // kernel arguments instead of Origin.Cmdline
	Firmware []string          `toml:"firmware"`                  // what the boot test uses, the full baseline with the first: "uefi", "bios"
	Memory   int               `toml:"memory"`                    // MiB of the test machine
}
