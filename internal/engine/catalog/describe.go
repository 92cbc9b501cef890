package catalog

import (
	"fmt"
	"maps"
	"regexp"
	resyntax "regexp/syntax"
	"slices"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// scope is what is known at a place of an upstream's description: what {NAME} may stand for there.
type scope struct {
	names map[string]bool
	open  bool // a JSON document may have told any name
}

func (s scope) with(names ...string) scope {
	all := maps.Clone(s.names)
	if all == nil {
		all = map[string]bool{}
	}
	for _, n := range names {
		all[n] = true
	}
	return scope{all, s.open}
}

func (s scope) list() string { return strings.Join(slices.Sorted(maps.Keys(s.names)), ", ") }

var (
	wordName   = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	partForm   = regexp.MustCompile(`^[A-Za-z0-9._~+/-]*$`) // what a word may stand for: a part of an address
	dayForm    = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}$`)
	prefixForm = regexp.MustCompile(`^https?://[A-Za-z0-9_/.~&+,=:@%\[\]-]*$`)
	memberForm = regexp.MustCompile(`^[A-Za-z0-9._*?/-]+$`)
)

// Limits of a description: nothing that is matched or asked costs more than it is worth.
const (
	maxPattern = 500 // characters of a regular expression
	maxProgram = 2000
	maxSteps   = 8
)

// redistribution checks what a row says of its licence.
func (v *validator) redistribution(p place, f *Flavor) {
	const values = `write "free" if anybody may pass the image on, "restricted" if its licence forbids that, "unclear" if neither is certain`
	r := p.in("redistribution")
	switch {
	case f.Redistribution == "":
		r.say("is missing: %s", values)
	case !slices.Contains(Redistributions, f.Redistribution):
		r.say("%s is none of its values: %s", quote(string(f.Redistribution)), values)
	case f.Redistribution != Free:
		if f.Licence == "" {
			p.in("licence").say("is missing: write the address of the document that makes redistribution %s", f.Redistribution)
		}
		if f.Because == "" {
			p.in("because").say("is missing: write in a few words why redistribution is %s", f.Redistribution)
		}
	}
	p.in("because").text(f.Because)
	p.in("decision").text(f.Decision)
	if f.Decision != "" && f.Redistribution != Unclear {
		p.in("decision").say(`is for rows with redistribution = "unclear": leave it out`)
	}
}

func (p place) day(s string) {
	if _, err := time.Parse(time.DateOnly, s); err != nil || !dayForm.MatchString(s) {
		p.say("%s is not a day: write YYYY-MM-DD", quote(s))
	}
}

func (p place) prefix(s string) {
	if !prefixForm.MatchString(s) {
		p.say("%s: write the beginning of addresses, with https:// or http://", quote(s))
	}
}

// template checks a text with {NAME}s.
func (p place) template(s string, known scope) {
	names := Names(s)
	for i, name := range names {
		if !known.names[name] && !known.open && !slices.Contains(names[:i], name) {
			p.say("{%s} is not known here: write one of %s", name, known.list())
		}
	}
}

// templateURL checks a template of an address.
func (p place) templateURL(s string, known scope) {
	p.template(s, known)
	bare := nameForm.ReplaceAllString(s, "x")
	if strings.HasPrefix(s, "{") {
		bare = "https://" + bare // {url}.sig
	}
	if !strings.Contains(strings.TrimPrefix(bare, "https://"), "/") && strings.HasPrefix(s, "{") {
		bare += "/"
	}
	p.address(bare, true)
	if strings.HasPrefix(s, "http://") {
		p.say("%s: write https://: over http anybody on the way could answer", quote(s))
	}
}

// match checks a regular expression and returns its groups' names.
func (p place) match(s string, known scope) (groups []string, ok bool) {
	if len(s) > maxPattern {
		p.say("has %d characters: write at most %d", len(s), maxPattern)
		return nil, false
	}
	p.template(s, known)
	sample := map[string]string{}
	for _, name := range Names(s) {
		sample[name] = "x"
	}
	re, err := Pattern(s, sample)
	if err != nil {
		p.say("%v: write a regular expression in RE2's form, in single quotes", err)
		return nil, false
	}
	for _, g := range re.SubexpNames() {
		if g == "" {
			continue
		}
		if !wordName.MatchString(g) {
			p.say("the group %s: write its name in lower-case letters, digits and _", quote(g))
		}
		groups = append(groups, g)
	}
	return groups, true
}

// step checks one step and returns what is known after it. need is a name that it has to find, or "".
func (p place) step(s Step, known scope) scope {
	count := 0
	for key, url := range map[string]string{"listing": s.Listing, "json": s.JSON, "redirect": s.Redirect, "sums": s.Sums} {
		if url != "" {
			count++
			p.in(key).templateURL(url, known)
		}
	}
	if count != 1 {
		p.say("has %d addresses: write one of listing (a folder), json (a document), redirect (what leads elsewhere), sums (a checksum file)", count)
	}
	if s.Order != "" && s.Order != "natural" && s.Order != "date" {
		p.in("order").say(`%s: write "natural" or "date"`, quote(s.Order))
	}
	if s.JSON != "" {
		if s.Match != "" {
			p.in("match").say("is for names, not for a JSON document: write jq")
		}
		if s.Query == "" {
			p.in("jq").say("is missing: write a jq program that yields objects, such as .[] | {version: .cycle}")
		} else {
			p.in("jq").query(s.Query, known)
		}
		known = known.with()
		known.open = true
		return known
	}
	if s.Query != "" {
		p.in("jq").say("is for a JSON document: write match")
	}
	if s.Match == "" {
		p.in("match").say("is missing: write a regular expression for the whole name, with (?P<NAME>…) around what is to be known")
		known.open = true
		return known
	}
	groups, ok := p.in("match").match(s.Match, known)
	if !ok { // what would be known after it is anybody's guess
		known.open = true
		return known
	}
	for _, g := range groups {
		if g == "arch" || g == "codename" && known.names[g] {
			p.in("match").say("the group %q has the name of something that is known already: choose another", g)
		}
	}
	return known.with(append(groups, "name")...)
}

func (p place) query(program string, known scope) {
	if len(program) > maxProgram {
		p.say("has %d characters: write at most %d", len(program), maxProgram)
		return
	}
	names := slices.Collect(maps.Keys(known.names))
	if known.open {
		names = append(names, variables(program)...)
	}
	if _, err := Compile(program, names); err != nil {
		p.say("%s: write a jq program; known is %s", event.Clean(err.Error()), known.list())
	}
}

// versions checks how releases are found and returns what is known of one then.
func (p place) versions(v *Versions) scope {
	known := p.step(v.Step, scope{})
	version := v.Version
	if version == "" {
		version = "{version}"
	}
	p.in("version").template(version, known)
	known = known.with("version")
	if v.Keep < 0 || v.Keep > 10 {
		p.in("keep").say("%d: write how many of the newest releases count, from 1 to 10", v.Keep)
	}
	if v.Per != "" && !known.names[v.Per] && !known.open {
		p.in("per").say("%s is not known: write one of %s", quote(v.Per), known.list())
	}
	if v.Prerelease != "" {
		p.in("prerelease").match(v.Prerelease, scope{})
	}
	if v.EOL != "" {
		p.in("eol").templateURL(v.EOL, scope{})
		p.in("cycle").template(v.Cycle, known)
		if v.EOLQuery != "" {
			p.in("eol_jq").query(v.EOLQuery, scope{})
		}
	} else if v.EOLQuery != "" || v.Cycle != "" {
		p.in("eol").say("is missing: write the address of the document that eol_jq and cycle are for")
	}
	return known
}

// words checks what {NAME}s stand for.
func (p place) words(m map[string]ByArch, f *Flavor) {
	for _, name := range sortedKeys(m) {
		one := p.in(name)
		switch {
		case !wordName.MatchString(name):
			one.say("is no name for a word: write lower-case letters, digits and _")
		case reserved[name]:
			one.say("is what the program calls something itself: choose another name")
		}
		for _, a := range sortedKeys(m[name]) {
			text := one
			if a != "" {
				if text = one.in(string(a)); !text.arch(a) {
					continue
				}
			}
			if s := nameForm.ReplaceAllString(m[name][a], "x"); !partForm.MatchString(s) || strings.Contains(s, "..") {
				text.say("%s: write a part of an address: letters, digits and . _ ~ + / -, without ..; {NAME} stands for what the release is known by", quote(m[name][a]))
			}
		}
		if f == nil {
			continue
		}
		for _, a := range f.Arch {
			if _, ok := m[name].Get(a); !ok && f.Origin.ArchNames[a] != "" {
				one.say("says nothing for %s: write a text for each architecture, or one for all", a)
			}
		}
	}
}

// reserved are names that are always known, or that a resolution ends in.
var reserved = map[string]bool{"version": true, "codename": true, "arch": true, "name": true, "url": true, "checksum": true}

// described checks the description of a file to download.
func (p place) described(f *Flavor, found scope) {
	o := f.Origin
	known := found.with("version", "arch")
	for _, r := range f.Releases {
		if r.Codename != "" {
			known = known.with("codename")
		}
		for name := range r.Words {
			known = known.with(name)
		}
	}
	p.in("words").words(o.Words, f)
	for name := range o.Words {
		known = known.with(name)
	}
	if len(o.Find) > maxSteps {
		p.in("find").say("has %d steps: write at most %d", len(o.Find), maxSteps)
	}
	for i, s := range o.Find {
		known = p.in("find").item(i, fmt.Sprintf("find %d", i+1)).step(s, known)
	}
	switch {
	case o.URL != "":
		p.in("url").templateURL(o.URL, known)
	case !known.open:
		p.in("url").say("is missing: write the address of the file, with {NAME}s for what is known: %s", known.list())
	}
	formats := []string{"qcow2", "raw"}
	if o.Kind == "installer" {
		formats = []string{"iso", "raw"}
	}
	if !slices.Contains(formats, o.Format) {
		p.in("format").say(`%s: write what the file is once it is unpacked: "%s"`, quote(o.Format), strings.Join(formats, `" or "`))
	}
	if !slices.Contains([]string{"", "gz", "xz", "bz2", "zst"}, o.Pack) {
		p.in("pack").say(`%s: write "gz", "xz", "bz2" or "zst", or leave it out`, quote(o.Pack))
	}
	if o.Member != "" {
		p.in("member").form(o.Member, memberForm, "the path of one file in the archive, with * where any name fits")
	}
	if o.Install != "" {
		p.in("install").form(o.Install, partitionForm, "the path of a file below this one's folder, such as deploy/installers/a.toml")
	}
	known = known.with("url")
	if c := o.Checksum; c != nil {
		p.in("checksum").in("url").templateURL(c.URL, known)
		if c.Name != "" {
			groups, _ := p.in("checksum").in("name").match(c.Name, known)
			known = known.with(groups...)
		}
		known = known.with("checksum")
		p.in("build").template(o.Build, known)
	} else if !known.open {
		p.in("checksum").say("is missing: write a table [flavor.origin.checksum] with the url of the file's checksum; without a checksum there is no image")
	}
	sig := p.in("signature")
	if o.Signature == nil {
		if o.Unsigned == "" {
			sig.say("is missing: write a table [flavor.origin.signature], or unsigned = \"what was looked for\" if upstream signs nothing")
		}
		p.in("unsigned").text(o.Unsigned)
		return
	}
	if o.Unsigned != "" {
		p.in("unsigned").say("there is a signature: leave one of them out")
	}
	s := o.Signature
	if !slices.Contains([]string{"openpgp", "minisign", "signify", "rsa"}, s.Kind) {
		sig.in("kind").say(`%s: write "openpgp", "minisign", "signify" or "rsa"`, quote(s.Kind))
	}
	if !slices.Contains([]string{"", "checksum", "file", "disk"}, s.Of) {
		sig.in("of").say(`%s: write "checksum", "file" (as it is downloaded) or "disk" (unpacked)`, quote(s.Of))
	}
	switch {
	case s.URL != "":
		sig.in("url").templateURL(s.URL, known)
	case s.Of == "file" || s.Of == "disk":
		sig.in("url").say("is missing: write the address of the signature")
	case s.Kind == "minisign" || s.Kind == "rsa":
		sig.in("url").say("is missing: a checksum file cannot hold a signature of this kind itself")
	}
	if o.Checksum == nil && (s.Of == "" || s.Of == "checksum") {
		sig.in("of").say(`there is no checksum file that could be signed: write "file" or "disk"`)
	}
	sig.in("keys").fingerprints(s.Keys)
	if len(s.Keys) == 0 && !slices.ContainsFunc(f.Releases, func(r Release) bool { return len(r.SignedBy) > 0 }) {
		sig.in("keys").say("is missing: write the fingerprints of the keys whose signature is accepted")
	}
}

// heavy tells of a regular expression whose program would be large.
func heavy(re string) error {
	parsed, err := resyntax.Parse(re, resyntax.Perl)
	if err != nil {
		return err
	}
	prog, err := resyntax.Compile(parsed.Simplify())
	if err != nil {
		return err
	}
	if len(prog.Inst) > 5000 {
		return fmt.Errorf("the expression becomes a program of %d steps", len(prog.Inst))
	}
	return nil
}
