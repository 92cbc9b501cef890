package catalog

import (
	"slices"
	"strings"
)

// manager checks a package manager.
func (v *validator) manager(p place, name string) {
	m := v.Managers[name]
	p.form(name, idForm, "lower-case letters, digits and single hyphens as its name")
	for _, key := range sortedKeys(m.Env) {
		one := p.in("env").in(key)
		one.form(key, environmentForm, "the name of an environment variable")
		one.text(m.Env[key])
	}
	p.in("refresh").commands(m.Refresh)
	p.in("update").commands(m.Update)
	p.in("clean").commands(m.Clean)
	p.in("licences").globs(m.Licences)
	for _, line := range []struct{ key, text, holds, write string }{
		{"install", m.Install, "{packages}", "a line of shell that installs {packages}"},
		{"offers", m.Offers, "{package}", "a line of shell that succeeds if the archive has {package}"},
		{"list", m.List, "", "a line of shell that prints a line of NAME VERSION ARCH BYTES for each installed package"},
	} {
		one := p.in(line.key)
		switch {
		case line.text == "":
			one.say("is missing: write %s", line.write)
		case !strings.Contains(line.text, line.holds):
			one.say("%s: write %s", quote(line.text), line.write)
		default:
			one.text(line.text)
		}
	}
}

// customise checks what is done to the disk of an image origin.
func (v *validator) customise(p place, f *Flavor) {
	o := f.Origin
	v.translations(p.in("packages"), o.Packages, true)
	p.in("run").commands(o.Run)
	p.in("licences").globs(o.Licences)
	v.files(p.in("file"), o.Files)
	for _, a := range sortedKeys(o.Boot) {
		if one := p.in("boot").in(string(a)); one.arch(a) {
			one.tried(o.Boot[a])
		}
	}
	if p = p.in("customise"); o.Customise == nil {
		return
	}
	c := o.Customise
	for _, part := range sortedKeys(c.Without) {
		one := p.in("without").in(part)
		if !slices.Contains(Parts, part) {
			one.say("is no part of customising: write one of %s", strings.Join(Parts, ", "))
		}
		if one.text(c.Without[part]); strings.TrimSpace(c.Without[part]) == "" {
			one.say("gives no reason: write why it is left out, in a few words")
		}
	}
	p.in("prepare").commands(c.Prepare)
	if c.Agent != "" {
		p.in("agent").form(c.Agent, serviceForm, "the name of a service, such as qemu-ga")
	}
	p.in("trusted").text(c.Trusted)
	if c.Root < 0 || c.Root > 128 {
		p.in("root").say("%d: write the number of a partition, or leave it out", c.Root)
	}
	if c.Manager != "" {
		if _, ok := v.Managers[c.Manager]; !ok {
			p.in("manager").say("%s is not described: write one of %s, or add a table [manager.%s]", quote(c.Manager), strings.Join(sortedKeys(v.Managers), ", "), c.Manager)
		}
	} else {
		for _, part := range []string{PartUpdate, PartPackages} {
			if c.Without[part] == "" {
				p.in("manager").say("is missing: write the name of a [manager.…], or say in without why there is no %s", part)
			}
		}
	}
	seen := map[string]bool{}
	for i, way := range c.Ways {
		switch item := p.in("ways").item(i, ""); {
		case !slices.Contains(Ways, way):
			item.say("%s is no way of customising: write some of %s", quote(way), strings.Join(Ways, ", "))
		case seen[way]:
			item.say("%s is there twice: write it once", quote(way))
		}
		seen[way] = true
	}
	switch {
	case len(c.Ways) == 0 && !c.Untouched(o):
		p.in("ways").say("is missing: write some of %s, or say in without why each part is left out", strings.Join(Ways, ", "))
	case len(c.Ways) > 0 && c.Untouched(o):
		p.in("ways").say("every part is left out, so there is nothing to do: leave ways out, too")
	}
	if c.Seed != "" && c.Seed != "cloud-init" {
		p.in("seed").say(`%s is not supported yet: write "cloud-init", or leave it out`, quote(c.Seed))
	}
	if seen[SelfBoot] && c.Seed == "" {
		p.in("seed").say(`is missing: write what the guest reads at its first boot, "cloud-init"`)
	}
}

// Untouched says that nothing is done inside of the guest: its disk only gets its size and form.
func (c *Customise) Untouched(o *Origin) bool {
	return len(c.Without) == len(Parts) && len(c.Prepare)+len(o.Run)+len(o.Files) == 0
}

// Untouched says why nothing is done inside of a release's disk; "" if something is.
func (o *Origin) Untouched(r *Release) string {
	switch c := o.Customise; {
	case r.Untouched != "":
		return r.Untouched
	case c.Untouched(o):
		return c.Without[PartUpdate]
	}
	return ""
}

// tried checks what the boot test of a disk uses that upstream made.
func (p place) tried(b Boot) {
	if len(b.Firmware) == 0 {
		p.in("firmware").say(`is missing: write a list of "uefi", "bios"`)
	}
	for i, f := range b.Firmware {
		switch item := p.in("firmware").item(i, ""); {
		case f != "uefi" && f != "bios":
			item.say(`%s: write "uefi" or "bios"`, quote(f))
		case slices.Contains(b.Firmware[:i], f):
			item.say("%s is there twice: write it once", quote(f))
		}
	}
	if b.Memory < 64 || b.Memory > 65536 {
		p.in("memory").say("%d: write the MiB of the test machine, from 64 to 65536", b.Memory)
	}
}
