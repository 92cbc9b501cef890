package catalog

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What ends up in registry paths, tags, file names, a table or arguments of programs has to fit these. None of them fits
// a text with "..", a space, a control character, or a dash at its beginning.
var (
	idForm           = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	versionForm      = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)
	guestPackageForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9+._-]*[A-Za-z0-9+])?$`)
	environmentForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	serviceForm      = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9@._-]*[A-Za-z0-9])?$`)
	packageForm      = regexp.MustCompile(`^[a-z0-9]([a-z0-9+.-]*[a-z0-9+])?$`) // with a dash at its end apt would remove it
	archNameForm     = regexp.MustCompile(`^[a-z0-9]+([_-][a-z0-9]+)*$`)
	fingerprintForm  = regexp.MustCompile(`^([0-9A-F]{16}|[0-9A-F]{40}|[0-9A-F]{64})$`) // of minisign and signify, of OpenPGP, of RSA
	userForm         = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	modeForm         = regexp.MustCompile(`^0[0-7]{3}$`)
	platformForm     = regexp.MustCompile(`^[a-z0-9]+-[a-z0-9]+$`)
	pathForm         = regexp.MustCompile(`^(/[A-Za-z0-9_+.@:~-]+)+$`)
	globForm         = regexp.MustCompile(`^(/[A-Za-z0-9_+.@:~*?-]+)+$`)
	targetForm       = regexp.MustCompile(`^/?[A-Za-z0-9_+.@:~-]+(/[A-Za-z0-9_+.@:~-]+)*$`)
	partitionForm    = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(/[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)*$`)
	wordForm         = regexp.MustCompile(`^[A-Za-z0-9]+([._/-][A-Za-z0-9]+)*$`) // a suite or component of an archive
	addressForm      = regexp.MustCompile(`^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?([/?#][A-Za-z0-9_/.~&+,=:@?#%-]*)?$`)
	repositoryForm   = regexp.MustCompile(`^(localhost|[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)+|[a-zA-Z0-9.-]+:[0-9]{1,5})((/[a-z0-9]+([._-]+[a-z0-9]+)*)*)$`)
	imageForm        = regexp.MustCompile(`^([a-zA-Z0-9.-]+(:[0-9]{1,5})?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$`)
	sourceForm       = regexp.MustCompile(`^deb(-src)? (\[ ?((arch|signed-by)=[A-Za-z0-9/._,-]+ ?)+\] )?(\S.*)$`)
	plain            = regexp.MustCompile(`^[A-Za-z0-9/._+-]+$`)
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
}

func (v *validator) report(p Problem) {
	if len(v.problems) < maxProblems {
		v.problems = append(v.problems, p)
	}
}

// form checks a text that is needed.
func (p place) form(s string, form *regexp.Regexp, write string) bool {
	switch {
	case s == "":
		p.say("is missing: write %s", write)
	case !form.MatchString(s) || strings.Contains(s, ".."):
		p.say("%s: write %s", quote(s), write)
	default:
		return true
	}
	return false
}

// label checks a text that people see, in a table among other places.
func (p place) label(s string) {
	switch {
	case strings.TrimSpace(s) == "":
		p.say("is missing: write a name")
	case utf8.RuneCountInString(s) > maxName:
		p.say("%s: write at most %d characters", quote(s), maxName)
	case strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(" .+-_/&'!()", r)
	}):
		p.say("%s has characters that a table cannot hold: write letters, digits, spaces and . + - _ / & ' ! ( )", quote(s))
	case strings.Join(strings.Fields(s), " ") != s:
		p.say("%s: write single spaces, and none at the ends", quote(s))
	}
}

func (p place) address(s string, required bool) {
	if s == "" {
		if required {
			p.say("is missing: write the address of a page, beginning with https://")
		}
		return
	}
	u, err := url.Parse(s)
	if err != nil || !addressForm.MatchString(s) || strings.ContainsFunc(u.Path, unicode.IsControl) || slices.Contains(strings.Split(u.Path, "/"), "..") {
		p.say("%s is not an address: write one that begins with https:// or http://, other characters percent-encoded, without ..", quote(s))
	}
}

// text checks what becomes the content of a file or a line of a shell.
func (p place) text(s string) {
	if i := strings.IndexFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && (unicode.IsControl(r) || invisible(r)) }); i >= 0 {
		r := []rune(s[i:])[0]
		p.say("has the invisible character %U: leave it out", r)
	}
}

func (p place) absolute(s string) {
	switch {
	case s == "":
		p.say("is missing: write an absolute path")
	case !pathForm.MatchString(s) || path.Clean(s) != s:
		p.say("%s: write an absolute path of letters, digits and _ + . @ : ~ -, without ..", quote(s))
	}
}

func (p place) arch(a Arch) bool {
	if slices.Contains(Arches, a) {
		return true
	}
	write := "write x86_64 or arm64"
	switch strings.ToLower(string(a)) {
	case "amd64", "x64", "x86-64":
		write = "write x86_64"
	case "aarch64", "armv8":
		write = "write arm64"
	}
	p.say("%s is not an architecture of the chart: %s", quote(string(a)), write)
	return false
}

// each checks every entry of a list, and that none is there twice.
func (p place) each(list []string, form *regexp.Regexp, write string) {
	seen := map[string]bool{}
	for i, s := range list {
		item := p.item(i, "")
		if s == "" {
			item.say("holds an empty text: write %s", write)
		} else if item.form(strings.ReplaceAll(s, "{arch}", "x"), form, write) && seen[s] {
			item.say("%s is there twice: write it once", quote(s))
		}
		seen[s] = true
	}
}

func (v *validator) check(root place) {
	v.project(root.in("project"))
	for _, name := range sortedKeys(v.Managers) {
		v.manager(root.in("manager").in(name), name)
	}
	flavors := root.in("flavor")
	if len(v.Flavors) == 0 {
		flavors.say("there is none: write at least one table [[flavor]]")
	}
	ids, names := map[string]place{}, map[string]place{}
	for i := range v.Flavors {
		f := &v.Flavors[i]
		name := fmt.Sprintf("flavor %d", i+1)
		if f.ID != "" {
			name = "flavor " + quote(f.ID)
		}
		p := flavors.item(i, name)
		v.flavor(p, f)
		if other, ok := ids[f.ID]; ok {
			p.in("id").say("is there already, in line %d: choose another, or make one flavor of the two", other.at())
		} else if f.ID != "" {
			ids[f.ID] = p.in("id")
			v.lines[f.ID] = p.at()
		}
		// Markdown finds a link's name whatever its case.
		folded := strings.ToLower(f.Name)
		if other, ok := names[folded]; ok {
			p.in("name").say("%s is there already, in line %d: the chart's links need one name a row", quote(f.Name), other.at())
		} else if folded != "" {
			names[folded] = p.in("name")
		}
	}
	v.base(root.in("base"))
	v.registries(root.in("registry"))
}

func (v *validator) project(p place) {
	p.in("name").label(v.Project.Name)
	p.in("source").address(v.Project.Source, true)
	registry := p.in("registry")
	if v.Project.Registry == "" {
		registry.say("is missing: write HOST/PATH, or dir:PATH for a folder")
	} else if err := CheckRegistry(v.Project.Registry); err != nil {
		registry.say("%v", err)
	}
	public := p.in("public")
	if public.form(v.Project.Public, repositoryForm, "HOST/PATH, such as quay.io/project") && !strings.Contains(v.Project.Public, "/") {
		public.say("%s has no path: write HOST/PATH, such as quay.io/project", quote(v.Project.Public))
	}
	p.in("packages").each(v.Project.Packages, packageForm, packageRule)
	for i, registry := range v.Project.Private {
		if item := p.in("private").item(i, ""); item.form(registry, repositoryForm, "HOST or HOST/PATH, such as registry.example.org/private") && v.Project.Public == registry {
			item.say("%s is where users pull from: name registries that only the project's own people can read", quote(registry))
		}
	}
	for i, m := range v.Project.Mirrors {
		item := p.in("mirror").item(i, fmt.Sprintf("mirror %d", i+1))
		item.in("from").prefix(m.From)
		item.in("to").prefix(m.To)
	}
	if c := v.Project.Compression; c != "" && c != "zlib" && c != "zstd" {
		p.in("disk_compression").say(`%s: write "zlib", or "zstd", which is smaller and which QEMU before 5.1 cannot open`, quote(c))
	}
	if k := v.Project.Keep; k < 0 || k > 1000 {
		p.in("keep").say("%d is no number of publications: write 0 to keep all, or how many of a version stay, up to 1000", k)
	}
	if l := v.Project.Layer; l != "" && l != "none" && l != "gzip" && l != "zstd" {
		p.in("layer").say(`%s: write "none", "gzip" or "zstd"`, quote(l))
	}
	size := p.in("disk_size")
	if v.Project.DiskSize == "" {
		size.say("is missing: write the size of the root disk, such as 10GiB")
	} else if n, err := ParseSize(v.Project.DiskSize); err != nil {
		size.say("%v", err)
	} else if n < 1<<30 || n > 1<<40 {
		size.say("%s: write a size from 1GiB to 1TiB", v.Project.DiskSize)
	}
}

const packageRule = "a package name of lower-case letters, digits and + . - in between"

func (v *validator) base(p place) {
	b := &v.Base
	switch image := p.in("image"); {
	case b.Image == "scratch":
	case strings.HasPrefix(b.Image, "dir:"):
		if err := CheckRegistry(b.Image); err != nil {
			image.say("%v", err)
		}
	default:
		image.form(b.Image, imageForm, "the reference of an image, such as quay.io/project/base:1")
	}
	if p = p.in("built"); p.spot == nil {
		return
	}
	f, _, err := v.Release(b.Built.Flavor, b.Built.Release)
	if err != nil {
		p.say("%v", err)
	} else if f.Origin == nil {
		p.say("%s has no origin to take packages from: write a flavor that has a [flavor.origin]", show(f.ID))
	}
	if len(b.Built.Packages) == 0 {
		p.in("packages").say("is missing: write a list of packages")
	}
	p.in("packages").each(b.Built.Packages, packageForm, packageRule)
	for _, link := range sortedKeys(b.Built.Links) {
		l := p.in("links").in(link)
		l.absolute(link)
		l.form(b.Built.Links[link], targetForm, "what the link points to, without ..")
	}
}

func (v *validator) flavor(p place, f *Flavor) {
	if p.in("id").form(f.ID, idForm, "lower-case letters, digits and single hyphens, such as my-system") && len(f.ID) > maxName {
		p.in("id").say("has %d characters: write at most %d", len(f.ID), maxName)
	}
	p.in("name").label(f.Name)
	p.in("home").address(f.Home, true)
	p.in("docs").address(f.Docs, false)
	p.in("download").address(f.Download, false)
	p.in("licence").address(f.Licence, false)
	const levels = "write one of planned, preview, proposed, stable"
	if f.Level == "" {
		p.in("level").say("is missing: %s", levels)
	} else if !slices.Contains(Levels, f.Level) {
		p.in("level").say("%s is not a level: %s", quote(string(f.Level)), levels)
	}
	if len(f.Arch) == 0 {
		p.in("arch").say("is missing: write a list of x86_64, arm64")
	}
	for i, a := range f.Arch {
		item := p.in("arch").item(i, "")
		if item.arch(a) && slices.Contains(f.Arch[:i], a) {
			item.say("%s is there twice: write it once", quote(string(a)))
		}
	}
	p.machines(f, nil, f.Instancetype, f.Preference)
	if f.User != "" {
		p.in("user").form(f.User, userForm, "a login name of lower-case letters, digits, _ and -")
	}
	v.redistribution(p, f)
	if f.Provision != "" && f.Provision != "cloud-init" && f.Provision != "ignition" && f.Provision != "none" {
		p.in("provision").say(`%s: write "cloud-init", "ignition" or "none"`, quote(f.Provision))
	}
	p.in("promotion").promotions(f)
	v.releases(p.in("release"), f)
	found := scope{}
	if f.Versions != nil {
		found = p.in("versions").versions(f.Versions)
	}
	if f.Origin != nil {
		v.origin(p.in("origin"), f, found)
		if len(f.Releases) == 0 && f.Versions == nil && f.Origin.Kind != "none" {
			p.in("origin").say("there is no release to build: write a table [flavor.versions] that finds them, or at least one [[flavor.release]]")
		}
	}
}

// names checks names of KubeVirt's common-instancetypes.
func (p place) names(m map[Arch]string, example string) {
	for _, a := range sortedKeys(m) {
		if one := p.in(string(a)); one.arch(a) {
			one.form(m[a], versionForm, "a name of KubeVirt's common-instancetypes, such as "+example)
		}
	}
}

// release is the place of a flavor's release.
func release(list place, f *Flavor, i int) place {
	name := fmt.Sprintf("release %d", i+1)
	if version := f.Releases[i].Version; version != "" {
		name = "release " + quote(version)
	}
	return list.item(i, name)
}

func (v *validator) releases(list place, f *Flavor) {
	seen := map[string]place{} // versions and code names: either may name a tag
	once := func(p place, name string) {
		if other, ok := seen[name]; ok {
			p.say("%s is there twice, first in line %d: write each release once", quote(name), other.at())
		} else {
			seen[name] = p
		}
	}
	for i, r := range f.Releases {
		p := release(list, f, i)
		if version := p.in("version"); version.form(r.Version, versionForm, "lower-case letters, digits and single . _ - between them, such as 24.04") {
			switch {
			case len(r.Version) > tagLimit:
				version.say("has %d characters: write at most %d", len(r.Version), tagLimit)
			case r.Version == "latest":
				version.say(`"latest" is a tag that moves: write what upstream calls the release, or "rolling"`)
			}
			once(version, r.Version)
		}
		if code := p.in("codename"); r.Codename != "" && code.form(r.Codename, versionForm, "lower-case letters and digits") {
			if len(r.Codename) > tagLimit {
				code.say("has %d characters: write at most %d", len(r.Codename), tagLimit)
			}
			if r.Codename != r.Version {
				once(code, r.Codename)
			}
		}
		p.in("signed_by").fingerprints(r.SignedBy)
		if r.EOL != "" {
			p.in("eol").day(r.EOL)
		}
		if r.Skip != "" {
			p.in("skip").text(r.Skip)
			if r.Pin {
				p.in("pin").say("it cannot be pinned and skipped: leave one of them out")
			}
		}
		p.in("untouched").text(r.Untouched)
		p.machines(f, &r, r.Instancetype, r.Preference)
		p.in("words").words(r.Words, nil)
		v.translations(p.in("packages"), r.Packages, f.Origin != nil && f.Origin.Kind == "image")
		if o := f.Origin; o != nil && o.Kind == "packages" {
			if len(r.SignedBy) == 0 {
				p.in("signed_by").say("is missing: write the fingerprints of the keys that sign the archive")
			}
			if r.Codename == "" && strings.Contains(strings.Join(append(slices.Clone(o.Archives), o.Sources...), " "), "{codename}") {
				p.in("codename").say("is missing: write it, the archives are named by it")
			}
		}
	}
}

// fingerprints checks a list of keys' fingerprints.
func (p place) fingerprints(list []string) {
	for j, fp := range list {
		item := p.item(j, "")
		bare := strings.ToUpper(strings.TrimPrefix(strings.Join(strings.Fields(fp), ""), "0x"))
		switch {
		case fingerprintForm.MatchString(fp):
			if slices.Contains(list[:j], fp) {
				item.say("%s is there twice: write it once", quote(fp))
			}
		case fingerprintForm.MatchString(bare):
			item.say("%s: write %s", quote(fp), bare)
		default:
			item.say("%s: write a key's full fingerprint, 40 upper-case hexadecimal digits (minisign and signify: the 16 of its number)", quote(fp))
		}
	}
}

// translations checks the names that the project's packages have elsewhere. With choice, a name can be several, of which
// the first that is offered counts, and nothing at the end: "fastfetch|screenfetch|".
func (v *validator) translations(p place, m map[string]string, choice bool) {
	for _, from := range sortedKeys(m) {
		one := p.in(from)
		if !slices.Contains(v.Project.Packages, from) {
			one.say("is none of the project's packages: write one of %s", strings.Join(v.Project.Packages, ", "))
		}
		switch {
		case m[from] == "":
		case choice:
			for _, name := range strings.Split(strings.TrimSuffix(m[from], "|"), "|") {
				one.form(name, guestPackageForm, packageRule+`, several with | between them of which the first that is offered counts, a | at the end if there may be none, or "" to leave it out`)
			}
		default:
			one.form(m[from], packageForm, packageRule+`, or "" to leave it out`)
		}
	}
}

func (v *validator) origin(p place, f *Flavor, found scope) {
	o := f.Origin
	const kinds = `write "image" for a disk to download, "packages" for one built from a package archive, "installer", or "none" where upstream publishes nothing`
	if o.Kind != "none" && o.Kind != "" {
		v.archNames(p.in("arch_names"), f)
	}
	switch o.Kind {
	case "packages":
		v.packages(p, f)
	case "image", "installer":
		p.described(f, found)
		v.customise(p, f)
	case "none":
		if p.in("reason").text(o.Reason); o.Reason == "" {
			p.in("reason").say("is missing: write why there is nothing to take, in a few words")
		}
	case "":
		p.in("kind").say("is missing: %s", kinds)
	default:
		p.in("kind").say("%s is not a kind of origin: %s", quote(o.Kind), kinds)
	}
}

// archNames checks that each architecture of the chart has upstream's name.
func (v *validator) archNames(p place, f *Flavor) {
	names := f.Origin.ArchNames
	for _, a := range f.Arch {
		if name, there := names[a]; slices.Contains(Arches, a) && (name != "" || !there) {
			p.in(string(a)).form(name, archNameForm, `how upstream spells the architecture, or "" where it offers nothing for it`)
		}
	}
	for _, a := range sortedKeys(names) {
		if one := p.in(string(a)); one.arch(a) && !slices.Contains(f.Arch, a) && names[a] != "" {
			one.form(names[a], archNameForm, "how upstream spells the architecture")
		}
	}
}

// packages checks an origin that builds from a package archive.
func (v *validator) packages(p place, f *Flavor) {
	o := f.Origin
	if o.Format == "" {
		p.in("format").say(`is missing: write "deb"`)
		return
	} else if o.Format != "deb" {
		p.in("format").say(`%s is not supported yet: write "deb", or leave [flavor.origin] out for now`, quote(o.Format))
		return
	}
	archives := p.in("archives")
	if len(o.Archives) == 0 {
		archives.say(`is missing: write a list of "URL SUITE COMPONENT…"`)
	}
	for i, a := range o.Archives {
		archives.item(i, "").archive(a, a, `"URL SUITE COMPONENT…"`)
	}
	v.translations(p.in("packages"), o.Packages, false)
	p.in("system").each(o.System, packageForm, packageRule+"; {arch} stands for the archive's spelling")
	for i, s := range o.Sources {
		item := p.in("sources").item(i, "")
		const write = `"deb URL SUITE COMPONENT…", with no other options than [arch=…] and [signed-by=…]`
		if m := sourceForm.FindStringSubmatch(s); m == nil || strings.Contains(s, "..") {
			item.say("%s: write %s", quote(s), write)
		} else {
			item.archive(m[len(m)-1], s, write)
		}
	}
	p.in("cmdline").cmdline(o.Cmdline)
	p.in("run").commands(o.Run)
	p.in("licences").globs(o.Licences)
	v.files(p.in("file"), o.Files)
	for _, a := range sortedKeys(o.Boot) {
		if one := p.in("boot").in(string(a)); one.arch(a) {
			v.boot(one, o.Boot[a])
		}
	}
}

// cmdline checks arguments of a kernel.
func (p place) cmdline(s string) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune("\"'`$\\;|&<>{}#", r) }) {
		p.say("%s: write kernel arguments without quotes or characters that a shell reads", quote(s))
	}
}

// commands checks lines of shell.
func (p place) commands(list []string) {
	for i, line := range list {
		p.item(i, "").command(line)
	}
}

func (p place) command(line string) {
	if strings.TrimSpace(line) == "" {
		p.say("holds an empty command: write a line of shell, or leave it out")
	} else {
		p.text(line)
	}
}

func (p place) globs(list []string) {
	for i, g := range list {
		p.item(i, "").form(g, globForm, "an absolute path, with * where any name fits, without ..")
	}
}

// archive checks an archive in the one-line style of sources.list(5); whole is what messages show.
func (p place) archive(s, whole, write string) {
	words := strings.Fields(strings.ReplaceAll(s, "{codename}", "x"))
	ok := len(words) >= 3 && !strings.Contains(s, "..")
	for i, w := range words {
		ok = ok && (i == 0 || wordForm.MatchString(w))
	}
	if !ok || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		p.say("%s: write %s; {codename} stands for the release's", quote(whole), write)
		return
	}
	if strings.ContainsAny(words[0], "?#") {
		p.say("%s: write the address of a folder, without ? and #", quote(words[0]))
		return
	}
	p.address(words[0], true)
}

func (v *validator) files(list place, files []File) {
	seen := map[string]place{}
	for i, file := range files {
		name := fmt.Sprintf("file %d", i+1)
		if file.Path != "" {
			name = "file " + quote(file.Path)
		}
		p := list.item(i, name)
		p.in("path").absolute(file.Path)
		if other, ok := seen[file.Path]; ok {
			p.in("path").say("is there twice, first in line %d: write each file once", other.at())
		} else {
			seen[file.Path] = p.in("path")
		}
		if file.Mode != "" {
			p.in("mode").form(file.Mode, modeForm, "four octal digits that begin with 0, such as 0644")
		}
		p.in("text").text(file.Text)
	}
	for i, file := range files {
		for dir := path.Dir(file.Path); dir != "/" && dir != "."; dir = path.Dir(dir) {
			if other, ok := seen[dir]; ok {
				list.item(i, "file "+quote(file.Path)).in("path").say("is below %s, which is a file in line %d: choose another path", quote(dir), other.at())
			}
		}
	}
}

func (v *validator) boot(p place, b Boot) {
	p.in("packages").each(b.Packages, packageForm, packageRule)
	if b.BIOS != "" {
		p.in("bios").form(b.BIOS, platformForm, "a GRUB platform, such as i386-pc")
	}
	const inside = "a path inside the partition, without a leading / and without .."
	seen := map[string]bool{}
	for _, to := range sortedKeys(b.EFI) {
		one := p.in("efi").in(to)
		if one.form(to, partitionForm, inside) && seen[strings.ToLower(to)] {
			one.say("is there twice, but for its case, which the partition does not tell apart: write it once")
		}
		seen[strings.ToLower(to)] = true
		one.absolute(b.EFI[to])
	}
	if len(b.EFI) > 0 && p.in("efi_grub").form(b.EFIGrub, partitionForm, inside) && seen[strings.ToLower(b.EFIGrub)] {
		p.in("efi_grub").say("%s is one of efi's files: choose another path", quote(b.EFIGrub))
	}
	p.in("cmdline").cmdline(b.Cmdline)
	p.in("kernel").absolute(b.Kernel)
	p.in("initrd").absolute(b.Initrd)
	if len(b.Firmware) == 0 {
		p.in("firmware").say(`is missing: write a list of "uefi", "bios"`)
	}
	for i, f := range b.Firmware {
		item := p.in("firmware").item(i, "")
		switch {
		case f != "uefi" && f != "bios":
			item.say(`%s: write "uefi" or "bios"`, quote(f))
		case slices.Contains(b.Firmware[:i], f):
			item.say("%s is there twice: write it once", quote(f))
		case f == "bios" && b.BIOS == "":
			item.say(`"bios": no boot loader is described for it: write bios = "i386-pc", or leave it out here`)
		case f == "uefi" && len(b.EFI) == 0:
			item.say(`"uefi": no boot loader is described for it: write efi = { … }, or leave it out here`)
		}
	}
	if b.Memory < 64 || b.Memory > 65536 {
		p.in("memory").say("%d: write the MiB of the test machine, from 64 to 65536", b.Memory)
	}
}

// unit is what a size is counted in.
type unit struct {
	name  string
	bytes int64
}

var (
	binaryUnits  = []unit{{"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}
	decimalUnits = []unit{{"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}}
)

// ParseSize reads a size in bytes: a whole number and MiB, GiB or TiB, "10GiB".
func ParseSize(s string) (int64, error) {
	return parseSize(s, binaryUnits, "disk", "MiB, GiB or TiB, such as 10GiB")
}

// ParseLimit reads a limit in bytes, as whoever sets it counts: a whole number and MB, GB or TB (powers of 1000), or MiB,
// GiB or TiB (powers of 1024).
func ParseLimit(s string) (int64, error) {
	return parseSize(s, slices.Concat(binaryUnits, decimalUnits), "layer", "MB, GB, TB, MiB, GiB or TiB, such as 10GB")
}

func parseSize(s string, units []unit, holder, write string) (int64, error) {
	for _, unit := range units {
		digits, ok := strings.CutSuffix(s, unit.name)
		if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > math.MaxInt64/unit.bytes {
			return 0, fmt.Errorf("%s is more than any %s holds: write a size such as %s", quote(s), holder, write[strings.LastIndexByte(write, ' ')+1:])
		}
		return n * unit.bytes, nil
	}
	return 0, fmt.Errorf("%s is not a size: write a whole number and %s", quote(s), write)
}

// CheckRegistry says whether a text can name where images are published: HOST[:PORT][/PATH] or dir:PATH.
func CheckRegistry(s string) error {
	if dir, ok := strings.CutPrefix(s, "dir:"); ok {
		switch {
		case dir == "":
			return errors.New(`"dir:" names no folder: write dir: and the path of one`)
		case strings.ContainsFunc(dir, func(r rune) bool { return unicode.IsControl(r) || invisible(r) }):
			return fmt.Errorf("%s: write dir: and the path of a folder, without control characters", quote(s))
		}
		return nil
	}
	if !repositoryForm.MatchString(s) || strings.Contains(s, "..") {
		return fmt.Errorf("%s: write HOST/PATH, such as quay.io/project, or dir:PATH for a folder", quote(s))
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
