package catalog

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode"
)

// hostForm is a host and perhaps a port, with * where any text fits.
var hostForm = regexp.MustCompile(`^[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?(:([0-9]{1,5}|\*))?$`)

// maxHost is the length of the longest name of a host (RFC 1035, 2.3.4); maxSource is that of what fits into a message.
const maxHost, maxSource = 255, 200

// httpsPort is where a registry answers whose port nobody names.
const httpsPort = "443"

// Fits says whether a registry, HOST or HOST:PORT as images name it, is the one that r tells of. A name without a port
// means https's.
func (r Registry) Fits(host string) bool {
	if _, _, ok := strings.Cut(host, ":"); !ok {
		host += ":" + httpsPort
	}
	fits, err := path.Match(r.pattern(), strings.ToLower(host))
	return err == nil && fits
}

// pattern is Host with a port, or any.
func (r Registry) pattern() string {
	if strings.Contains(r.Host, ":") {
		return r.Host
	}
	return r.Host + ":*"
}

// RegistryOf finds what is known of the registry that a reference names, HOST[:PORT][/PATH]; nil if that is nothing, and
// for a folder, dir:PATH.
func (c *Catalog) RegistryOf(ref string) *Registry {
	if strings.HasPrefix(ref, "dir:") {
		return nil
	}
	host, _, _ := strings.Cut(ref, "/")
	for i := range c.Registries {
		if c.Registries[i].Fits(host) {
			return &c.Registries[i]
		}
	}
	return nil
}

func (v *validator) registries(list place) {
	for i, r := range v.Registries {
		name := fmt.Sprintf("registry %d", i+1)
		if r.Host != "" {
			name = "registry " + quote(r.Host)
		}
		p := list.item(i, name)
		const write = "HOST or HOST:PORT in lower case, with * where any text fits, such as quay.io or *.example.org:5000"
		if host := p.in("host"); host.form(r.Host, hostForm, write) {
			if len(r.Host) > maxHost {
				host.say("has %d characters: write at most %d", len(r.Host), maxHost)
			}
			v.shadow(list, host, i)
		}
		layer := p.in("layer")
		if r.Layer == "" {
			layer.say("is missing: write the size of the largest layer that the registry takes, such as 10GB or 52000MiB")
		} else if n, err := ParseLimit(r.Layer); err != nil {
			layer.say("%v", err)
		} else if n == 0 {
			layer.say("%s: write a size of at least 1MB, or leave the table out where there is no limit", r.Layer)
		}
		source := p.in("source")
		switch {
		case strings.TrimSpace(r.Source) == "":
			source.say("is missing: write where the limit is told, an address or a few words")
		case len(r.Source) > maxSource:
			source.say("has %d bytes: write at most %d", len(r.Source), maxSource)
		case strings.ContainsFunc(r.Source, func(r rune) bool { return unicode.IsControl(r) || invisible(r) }):
			source.say("has characters that do not show: write one line")
		}
	}
}

// shadow looks for an earlier entry that fits whatever this one fits. As both are made of text and *, it is one that fits
// this one's own text.
func (v *validator) shadow(list, host place, i int) {
	for k, earlier := range v.Registries[:i] {
		if !hostForm.MatchString(earlier.Host) {
			continue
		}
		line := list.item(k, "").in("host").at()
		if earlier.pattern() == v.Registries[i].pattern() {
			host.say("is there already, in line %d: write each registry once", line)
			return
		}
		if covers, err := path.Match(earlier.pattern(), v.Registries[i].pattern()); err == nil && covers {
			host.say("%s in line %d fits it already, and the first that fits counts: write this table before that one", quote(earlier.Host), line)
			return
		}
	}
}
