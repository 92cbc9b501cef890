package catalog

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"
)

// What ends up in registry paths, tags, file names or arguments of programs has to fit these.
var (
	idForm          = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	versionForm     = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)
	packageForm     = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*$`)
	fingerprintForm = regexp.MustCompile(`^[0-9A-F]{40}$`)
	userForm        = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	modeForm        = regexp.MustCompile(`^0[0-7]{3}$`)
	wordForm        = regexp.MustCompile(`^[A-Za-z0-9./_-]+$`)
	platformForm    = regexp.MustCompile(`^[a-z0-9]+-[a-z0-9]+$`)
	registryForm    = regexp.MustCompile(`^[a-zA-Z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)
)

const (
	maxName  = 64
	tagLimit = 60 // of a version: the tag formed from it, with its date, has at most 128 characters
)

// validator collects mistakes.
type validator struct {
	*Catalog
	file     string
	problems Problems
	unknown  []unknown
}

func (v *validator) sorted() Problems {
	for _, u := range v.unknown {
		v.problems = append(v.problems, Problem{v.file, u.line, v.where(u.parent) + u.message})
	}
	v.unknown = nil
	sort.SliceStable(v.problems, func(i, j int) bool { return v.problems[i].Line < v.problems[j].Line })
	return v.problems
}

// at returns the line of a key, or of the nearest table around it.
func (v *validator) at(path string) int {
	for {
		if line, ok := v.lines[path]; ok {
			return line
		}
		i := strings.LastIndexByte(path, '\x00')
		if i < 0 {
			return 0
		}
		path = path[:i]
	}
}

// where spells a path for people: `flavor "debian": origin: `.
func (v *validator) where(path string) string {
	if path == "" {
		return ""
	}
	var words []string
	for _, part := range strings.Split(path, "\x00") {
		name, index, indexed := strings.Cut(part, "[")
		if n, err := strconv.Atoi(strings.TrimSuffix(index, "]")); indexed && err == nil {
			name = fmt.Sprintf("%s %d", name, n+1)
			if strings.HasPrefix(part, "flavor[") && n < len(v.Flavors) && v.Flavors[n].ID != "" {
				name = fmt.Sprintf("flavor %q", v.Flavors[n].ID)
			}
		}
		words = append(words, name)
	}
	return strings.Join(words, ": ") + ": "
}

func (v *validator) say(path, format string, args ...any) {
	v.problems = append(v.problems, Problem{v.file, v.at(path), v.where(path) + fmt.Sprintf(format, args...)})
}

// text checks a text that people see: something, not too long, nothing that would break a table or a terminal.
func (v *validator) text(path, s string) {
	switch {
	case strings.TrimSpace(s) == "":
		v.say(path, "is missing: write a name")
	case len(s) > maxName:
		v.say(path, "has %d bytes: write at most %d", len(s), maxName)
	case strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar || strings.ContainsRune("|[]`<>\\", r)
	}):
		v.say(path, "%q has characters that a table cannot hold: leave out | [ ] ` < > \\ and invisible ones", s)
	}
}

func (v *validator) url(path, s string, required bool) {
	if s == "" {
		if required {
			v.say(path, "is missing: write the address of a page, beginning with https://")
		}
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("|[]()`<>\\\"", r)
	}) {
		v.say(path, "%q is not an address: write one that begins with https:// (other characters percent-encoded)", s)
	}
}

func (v *validator) form(path, s string, form *regexp.Regexp, write string) bool {
	if s == "" {
		v.say(path, "is missing: write %s", write)
		return false
	}
	if !form.MatchString(s) {
		v.say(path, "%q: write %s", s, write)
		return false
	}
	return true
}

func (v *validator) check() {
	v.project()
	ids, names := map[string]int{}, map[string]int{}
	if len(v.Flavors) == 0 {
		v.say("", "there is no flavor: write at least one [[flavor]]")
	}
	for i := range v.Flavors {
		f, p := &v.Flavors[i], fmt.Sprintf("flavor[%d]", i)
		if v.form(child(p, "id"), f.ID, idForm, "lower-case letters, digits and single hyphens, such as fedora-coreos") {
			if len(f.ID) > maxName {
				v.say(child(p, "id"), "has %d characters: write at most %d", len(f.ID), maxName)
			}
			if other, ok := ids[f.ID]; ok {
				v.say(child(p, "id"), "is there already, in line %d: choose another, or make one flavor of the two", v.at(fmt.Sprintf("flavor[%d]\x00id", other)))
			} else {
				ids[f.ID] = i
			}
		}
		v.text(child(p, "name"), f.Name)
		if other, ok := names[f.Name]; ok && f.Name != "" {
			v.say(child(p, "name"), "%q is there already, in line %d: the chart's links need one name a row", f.Name, v.at(fmt.Sprintf("flavor[%d]\x00name", other)))
		}
		names[f.Name] = i
		v.url(child(p, "home"), f.Home, true)
		v.url(child(p, "docs"), f.Docs, false)
		v.url(child(p, "download"), f.Download, false)
		v.url(child(p, "licence"), f.Licence, false)
		if !slices.Contains(Levels, f.Level) {
			if f.Level == "" {
				v.say(child(p, "level"), "is missing: write one of planned, preview, proposed, stable")
			} else {
				v.say(child(p, "level"), "%q is not a level: write one of planned, preview, proposed, stable", f.Level)
			}
		}
		if len(f.Arch) == 0 {
			v.say(child(p, "arch"), "is missing: write a list of x86_64, arm64")
		}
		for j, a := range f.Arch {
			v.arch(child(p, "arch"), a)
			if slices.Contains(f.Arch[:j], a) {
				v.say(child(p, "arch"), "%q is there twice: write it once", a)
			}
		}
		for _, m := range []struct {
			key    string
			values map[Arch]string
		}{{"instancetype", f.Instancetype}, {"preference", f.Preference}} {
			for _, a := range sortedKeys(m.values) {
				v.arch(child(child(p, m.key), string(a)), a)
				v.form(child(child(p, m.key), string(a)), m.values[a], versionForm, "a name of KubeVirt's common-instancetypes, such as u1.medium")
			}
		}
		if f.User != "" {
			v.form(child(p, "user"), f.User, userForm, "a login name, such as "+f.ID)
		}
		v.releases(p, f)
		if f.Origin != nil {
			v.origin(child(p, "origin"), f)
		}
	}
	v.base()
}

func (v *validator) arch(path string, a Arch) {
	if !slices.Contains(Arches, a) {
		v.say(path, "%q is not an architecture: write x86_64 or arm64", a)
	}
}

func (v *validator) project() {
	p := &v.Project
	v.text("project\x00name", p.Name)
	v.url("project\x00source", p.Source, true)
	if err := CheckRegistry(p.Registry); err != nil {
		v.say("project\x00registry", "%v", err)
	}
	v.form("project\x00public", p.Public, registryForm, "HOST/PATH, such as quay.io/project")
	for _, name := range p.Packages {
		v.form("project\x00packages", name, packageForm, "package names of lower-case letters, digits and + - .")
	}
	if n, err := ParseSize(p.DiskSize); err != nil {
		v.say("project\x00disk_size", "%v", err)
	} else if n < 1<<30 || n > 1<<40 {
		v.say("project\x00disk_size", "%s: write a size from 1GiB to 1TiB", p.DiskSize)
	}
}

func (v *validator) base() {
	b := &v.Base
	if b.Image == "" || strings.ContainsFunc(b.Image, func(r rune) bool { return r <= ' ' || r > '~' }) {
		v.say("base\x00image", "%q: write the reference of an image", b.Image)
	}
	if b.Built.Flavor == "" && b.Built.Release == "" && len(b.Built.Packages) == 0 {
		return
	}
	_, _, err := v.Release(b.Built.Flavor, b.Built.Release)
	if err != nil {
		v.say("base\x00built", "%v", err)
	}
	for _, name := range b.Built.Packages {
		v.form("base\x00built\x00packages", name, packageForm, "package names")
	}
	for _, link := range sortedKeys(b.Built.Links) {
		v.absolute("base\x00built\x00links\x00"+link, link)
		v.form("base\x00built\x00links\x00"+link, b.Built.Links[link], wordForm, "what the link points to")
	}
}

func (v *validator) releases(p string, f *Flavor) {
	if f.Origin != nil && len(f.Releases) == 0 {
		v.say(child(p, "origin"), "there is no release to build: write at least one [[flavor.release]]")
	}
	seen := map[string]bool{}
	for i, r := range f.Releases {
		rp := child(p, fmt.Sprintf("release[%d]", i))
		if v.form(child(rp, "version"), r.Version, versionForm, "lower-case letters, digits and single . _ - between them, such as 24.04") {
			if len(r.Version) > tagLimit {
				v.say(child(rp, "version"), "has %d characters: write at most %d", len(r.Version), tagLimit)
			}
			if seen[r.Version] {
				v.say(child(rp, "version"), "%q is there twice: write each release once", r.Version)
			}
			seen[r.Version] = true
		}
		if r.Codename != "" {
			v.form(child(rp, "codename"), r.Codename, versionForm, "lower-case letters and digits, such as trixie")
		}
		for _, fp := range r.SignedBy {
			v.form(child(rp, "signed_by"), fp, fingerprintForm, "full fingerprints of 40 upper-case hexadecimal digits")
		}
		v.translations(child(rp, "packages"), r.Packages)
	}
}

func (v *validator) translations(path string, m map[string]string) {
	for _, from := range sortedKeys(m) {
		p := child(path, from)
		if !slices.Contains(v.Project.Packages, from) {
			v.say(p, "is none of the project's packages: write one of %s", strings.Join(v.Project.Packages, ", "))
		}
		if m[from] != "" {
			v.form(p, m[from], packageForm, `a package name, or "" to leave it out`)
		}
	}
}

func (v *validator) absolute(path_, p string) {
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" || !wordForm.MatchString(p) {
		v.say(path_, "%q: write an absolute path of letters, digits and . _ -, without ..", p)
	}
}

func (v *validator) relative(path_, p string) {
	if path.IsAbs(p) || path.Clean(p) != p || strings.HasPrefix(p, "..") || p == "." || !wordForm.MatchString(p) {
		v.say(path_, "%q: write a path inside the partition, without a leading / and without ..", p)
	}
}

func (v *validator) origin(p string, f *Flavor) {
	o := f.Origin
	switch {
	case o.Kind == "":
		v.say(child(p, "kind"), `is missing: write "packages"`)
		return
	case o.Kind == "image" || o.Kind == "installer":
		v.say(child(p, "kind"), `%q is not supported yet: leave the origin out for now`, o.Kind)
		return
	case o.Kind != "packages":
		v.say(child(p, "kind"), `%q is not a kind of origin: write "packages"`, o.Kind)
		return
	case o.Format != "deb":
		v.say(child(p, "format"), `%q is not supported: write "deb"`, o.Format)
		return
	}
	if len(o.Archives) == 0 {
		v.say(child(p, "archives"), `is missing: write a list of "URL SUITE COMPONENT…"`)
	}
	for _, a := range o.Archives {
		words := strings.Fields(a)
		ok := len(words) >= 3
		for i, w := range words {
			if i > 0 {
				ok = ok && wordForm.MatchString(strings.ReplaceAll(w, "{codename}", "x"))
			}
		}
		if !ok {
			v.say(child(p, "archives"), `%q: write "URL SUITE COMPONENT…"; {codename} stands for the release's`, a)
			continue
		}
		v.url(child(p, "archives"), words[0], true)
	}
	for _, a := range f.Arch {
		if !packageForm.MatchString(o.ArchNames[a]) {
			v.say(child(p, "arch_names"), "has no spelling for %s: write how the archive spells it", a)
		}
	}
	for _, a := range sortedKeys(o.ArchNames) {
		v.arch(child(p, "arch_names"), a)
	}
	v.translations(child(p, "packages"), o.Packages)
	v.names(child(p, "system"), o.System)
	for i, s := range o.Sources {
		if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) }) {
			v.say(child(p, "sources"), "line %d has control characters: leave them out", i+1)
		}
	}
	if strings.ContainsFunc(o.Cmdline, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune("\"'`$\\;|&<>{}", r) }) {
		v.say(child(p, "cmdline"), "%q: write kernel arguments without quotes or shell characters", o.Cmdline)
	}
	for _, g := range o.Licences {
		if !path.IsAbs(g) || strings.Contains(g, "..") || !wordForm.MatchString(strings.ReplaceAll(g, "*", "x")) {
			v.say(child(p, "licences"), "%q: write absolute paths, with * where any name fits", g)
		}
	}
	files := map[string]bool{}
	for i, file := range o.Files {
		fp := child(p, fmt.Sprintf("file[%d]", i))
		v.absolute(child(fp, "path"), file.Path)
		if files[file.Path] {
			v.say(child(fp, "path"), "%q is there twice: write each file once", file.Path)
		}
		files[file.Path] = true
		if file.Mode != "" {
			v.form(child(fp, "mode"), file.Mode, modeForm, "four octal digits, such as 0644")
		}
	}
	for _, a := range sortedKeys(o.Boot) {
		v.boot(child(child(p, "boot"), string(a)), a, o.Boot[a])
	}
	for i := range f.Releases {
		rp := strings.TrimSuffix(p, "\x00origin") + fmt.Sprintf("\x00release[%d]", i)
		if len(f.Releases[i].SignedBy) == 0 {
			v.say(child(rp, "signed_by"), "is missing: write the fingerprints of the keys that sign the archive")
		}
		if f.Releases[i].Codename == "" && strings.Contains(strings.Join(o.Archives, " "), "{codename}") {
			v.say(child(rp, "codename"), "is missing: the archives are named by it")
		}
	}
}

func (v *validator) names(p string, list []string) {
	for _, name := range list {
		v.form(p, strings.ReplaceAll(name, "{arch}", "x"), packageForm, "package names; {arch} stands for the archive's spelling")
	}
}

func (v *validator) boot(p string, a Arch, b Boot) {
	v.arch(p, a)
	v.names(child(p, "packages"), b.Packages)
	if b.BIOS != "" {
		v.form(child(p, "bios"), b.BIOS, platformForm, "a GRUB platform, such as i386-pc")
	}
	for _, to := range sortedKeys(b.EFI) {
		v.relative(child(child(p, "efi"), to), to)
		v.absolute(child(child(p, "efi"), to), b.EFI[to])
	}
	if len(b.EFI) > 0 {
		v.relative(child(p, "efi_grub"), b.EFIGrub)
	}
	v.absolute(child(p, "kernel"), b.Kernel)
	v.absolute(child(p, "initrd"), b.Initrd)
	if len(b.Firmware) == 0 {
		v.say(child(p, "firmware"), `is missing: write a list of "uefi", "bios"`)
	}
	for _, f := range b.Firmware {
		switch {
		case f != "uefi" && f != "bios":
			v.say(child(p, "firmware"), `%q: write "uefi" or "bios"`, f)
		case f == "bios" && b.BIOS == "", f == "uefi" && len(b.EFI) == 0:
			v.say(child(p, "firmware"), "%q: no boot loader is described for it", f)
		}
	}
	if b.Memory < 64 || b.Memory > 65536 {
		v.say(child(p, "memory"), "%d: write the MiB of the test machine, 64 to 65536", b.Memory)
	}
}

// Release finds a release by its flavor's id and its version.
func (c *Catalog) Release(id, version string) (*Flavor, *Release, error) {
	for i := range c.Flavors {
		if f := &c.Flavors[i]; f.ID == id {
			for j := range f.Releases {
				if f.Releases[j].Version == version {
					return f, &f.Releases[j], nil
				}
			}
		}
	}
	return nil, nil, fmt.Errorf("there is no release %s:%s: write a flavor and a release of this catalogue", id, version)
}

// ParseSize reads a size in bytes: a whole number and MiB, GiB or TiB.
func ParseSize(s string) (int64, error) {
	for unit, bytes := range map[string]int64{"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40} {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseInt(digits, 10, 32)
			if err == nil && n > 0 {
				return n * bytes, nil
			}
		}
	}
	return 0, fmt.Errorf("%q is not a size: write a number and a unit, such as 10GiB", s)
}

// CheckRegistry says whether a text can name where images are published: HOST[:PORT]/PATH or dir:PATH.
func CheckRegistry(s string) error {
	if dir, ok := strings.CutPrefix(s, "dir:"); ok {
		if dir == "" || strings.ContainsFunc(dir, unicode.IsControl) {
			return fmt.Errorf("%q: write dir: and the path of a folder", s)
		}
		return nil
	}
	if !registryForm.MatchString(s) || !strings.Contains(s, "/") && !strings.ContainsAny(s, ".:") {
		return fmt.Errorf("%q: write HOST/PATH, such as quay.io/project, or dir:PATH for a folder", s)
	}
	return nil
}

func sortedKeys[K ~string, T any](m map[K]T) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
