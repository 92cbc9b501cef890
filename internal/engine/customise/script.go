package customise

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

//go:embed guest.sh
var functions string

// mark begins the lines by which the script tells where it is.
const mark = "kmi-part: "

// boolean lets the guest agent write ssh keys under SELinux.
const boolean = "virt_qemu_ga_manage_ssh"

// Names in the archive that a guest leaves behind.
const (
	packagesFile = "packages.txt" // NAME VERSION ARCH [BYTES], a line each
	chosenFile   = "chosen.txt"   // DEFAULT PACKAGE, a line each: the names that the project's packages have here
	licencesFile = "licenses.tar"
)

// script is what root runs inside the guest, the same in every way. It ends in an archive at the path that its first
// argument names.
func (r *run) script() string {
	o, c := r.Origin, r.Origin.Customise
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	part := func(name string, commands ...string) {
		line("echo %s", quote(mark+name))
		for _, command := range commands {
			line("%s", command)
		}
	}
	with := func(name string) bool { _, out := c.Without[name]; return !out }

	line("set -eu\numask 022\nexport LC_ALL=C HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	line("out=$1 work=/tmp/.kmi\nmkdir -p $work && chmod 700 $work")
	for _, key := range sorted(r.Manager.Env) {
		line("export %s=%s", key, quote(r.Manager.Env[key]))
	}
	line("%s", functions)
	if r.proxy != "" {
		line("export http_proxy=%[1]s https_proxy=%[1]s HTTP_PROXY=%[1]s HTTPS_PROXY=%[1]s", r.proxy)
	}
	part("prepare", append([]string{"services_off"}, c.Prepare...)...)
	if with(catalog.PartUpdate) || with(catalog.PartPackages) {
		part("refresh the package indexes", r.Manager.Refresh...)
	}
	if with(catalog.PartUpdate) {
		part("install the updates", append([]string{"kernel_arguments"}, r.Manager.Update...)...)
	}
	if with(catalog.PartPackages) {
		part("install the default packages")
		line("offered() { %s; }", strings.ReplaceAll(r.Manager.Offers, "{package}", `"$1"`))
		line(`pick() { # DEFAULT REQUIRED NAME…: the first that is offered
    name=$1 required=$2
    shift 2
    for one in "$@"; do
        if offered "$one" >/dev/null 2>&1; then
            echo "$name $one" >>$work/%[1]s
            list="${list:-} $one"
            return
        fi
    done
    if [ "$required" = yes ]; then echo "the archive offers no $*"; return 1; fi
    echo "left out: $name: the archive offers no $*"
    echo "$name -" >>$work/%[1]s
}
list=`, chosenFile)
		for _, p := range r.Packages {
			name, required := p, "yes"
			if t, ok := r.translation(p); ok {
				name = t
			}
			if name == "" {
				line("echo %s >>$work/%s", quote(p+" -"), chosenFile)
				continue
			}
			if strings.HasSuffix(name, "|") {
				required = "no"
			}
			line("pick %s %s %s", p, required, strings.ReplaceAll(strings.TrimSuffix(name, "|"), "|", " "))
		}
		line(`if [ -n "$list" ]; then`)
		line("%s", strings.ReplaceAll(r.Manager.Install, "{packages}", "$list"))
		line("fi")
	}
	line("services_on\nunset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY")
	if len(o.Files) > 0 {
		part("write the catalogue's files")
		for i, f := range o.Files {
			end := fmt.Sprintf("kmi-end-%d", i)
			for strings.Contains(f.Text, end) {
				end += "-"
			}
			mode := f.Mode
			if mode == "" {
				mode = "0644"
			}
			text := r.expand(f.Text)
			if text != "" && !strings.HasSuffix(text, "\n") {
				text += "\n"
			}
			line("mkdir -p %s\ncat >%s <<'%s'\n%s%s\nchmod %s %s", quote(f.Path[:strings.LastIndexByte(f.Path, '/')+1]), quote(f.Path), end, text, end, mode, quote(f.Path))
		}
	}
	if with(catalog.PartAgent) {
		service := c.Agent
		if service == "" {
			service = "qemu-guest-agent"
		}
		part("enable the guest agent", "agent_calls", "agent_on "+quote(service))
	}
	if with(catalog.PartSELinux) {
		part("let the agent write ssh keys under SELinux", "selinux_on "+boolean)
	}
	if with(catalog.PartConsole) {
		device := "ttyS0"
		if r.Arch == catalog.ARM64 {
			device = "ttyAMA0"
		}
		part("serial console", "console_on "+device)
	}
	if len(o.Run) > 0 {
		part("run the catalogue's commands")
		for _, command := range o.Run {
			line("%s", r.expand(command))
		}
	}
	part("list what is inside")
	if c.Manager != "" {
		line("{ %s; } >$work/%s", r.Manager.List, packagesFile)
	}
	if globs := append(slices.Clone(r.Manager.Licences), o.Licences...); len(globs) > 0 {
		line("(cd / && tar -chf $work/%s $(ls -d %s 2>/dev/null) 2>/dev/null) || :", licencesFile, strings.Join(trimmed(globs), " "))
	}
	line("cd $work && tar -cf \"$out\" $(ls) && cd /")
	if with(catalog.PartClean) {
		part("clean up", r.Manager.Clean...)
		line("clean")
	}
	line("rm -rf $work\nsync\necho %s", quote(mark+"done"))
	return b.String()
}

// trimmed takes the slashes at the beginning away: tar complains of them.
func trimmed(globs []string) []string {
	list := make([]string, len(globs))
	for i, g := range globs {
		list[i] = strings.TrimPrefix(g, "/")
	}
	return list
}

// quote makes a text one word of shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
