// Package install runs an operating system's own installer under QEMU, unattended: what the machine is given and what
// is typed on its serial line is data (Script), so that no distribution has code of its own. Whatever the console and
// the guest's network say is hostile: it is bounded in size and time, cleaned before it is shown, and reaches nothing.
package install

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Script says how to install: what the machine is given and what is said on its serial line. It comes from the
// catalogue. In texts, paths, file names, appended words, expressions and what is sent, {{name}} stands for a value of
// Spec.Values; two braces, because configuration files and shell scripts are full of single ones.
type Script struct {
	Memory     int      `toml:"memory"`     // MiB
	Processors int      `toml:"processors"` // 0: one where they are emulated, two with KVM
	Disk       int      `toml:"disk"`       // the new disk's virtual size, MiB
	Firmware   string   `toml:"firmware"`   // "bios" or "uefi"
	Network    bool     `toml:"network"`    // TCP and names of other networks can be reached; otherwise only what Serve has
	Serve      Serve    `toml:"serve"`
	Fail       []string `toml:"fail"` // regular expressions (RE2): a line of the console with one of them ends it at once
	Boot       []Boot   `toml:"boot"` // power-ons of the machine, one after the other, on the same disk
}

// Serve is what the guest can get at. The machine's only interface is a network of its own, 10.0.2.0/24: by DHCP it is
// 10.0.2.15, and 10.0.2.2 is the router, the name server, the next-server and the server of these files.
type Serve struct {
	HTTP  map[string]File `toml:"http"`  // by path, "/install.conf", on port 80
	TFTP  map[string]File `toml:"tftp"`  // by name, "pxeboot"
	Drive *Drive          `toml:"drive"` // a small drive with files
}

// File is a served file: a text, one of Spec.Files, or an archive of texts.
type File struct {
	Text string            `toml:"text"`
	From string            `toml:"from"`
	Tar  map[string]string `toml:"tar"` // texts by path, which become executable files in a tar archive, gzipped
}

// Drive is a small read-only drive, a virtio disk.
type Drive struct {
	Format string          `toml:"format"` // "fat": one FAT partition in an MBR; "iso9660": with Joliet and Rock Ridge names
	Label  string          `toml:"label"`  // of the file system, "" for none
	Files  map[string]File `toml:"files"`  // by path, "conf/config.xml"
}

// Boot is one power-on.
type Boot struct {
	Media    Media  `toml:"media"`
	Dialogue []Step `toml:"dialogue"`
	End      End    `toml:"end"`
}

// Media is what the machine starts from.
type Media struct {
	// Kind is "cdrom" (an image on a CD drive), "usb" (a raw image on a USB stick, which the guest may write to: on a
	// copy), "kernel" (QEMU loads a Linux kernel), "netboot" (the firmware asks DHCP and TFTP), "image" (a raw image
	// becomes the new disk, and grows to Script.Disk; first boot only), or "disk", which is the new disk as it is.
	Kind   string `toml:"kind"`
	File   string `toml:"file"`   // cdrom, usb, image: a name in Spec.Files; netboot: a name in Serve.TFTP
	Kernel string `toml:"kernel"` // kernel: names in Spec.Files
	Initrd string `toml:"initrd"`
	Append string `toml:"append"` // kernel: its command line
}

// Step is one turn of the dialogue: what the console prints, and what is typed then.
type Step struct {
	// Expect is a regular expression (RE2). It is looked for in what the console has printed since what the step before
	// was about, without control sequences: a carriage return, and a jump of the cursor, are line ends. Its $ is the end
	// of what was printed so far. A match that reaches to there counts once the console has been silent for a moment:
	// "Name: $" is not met by the beginning of "Name: of the disk? ".
	Expect string `toml:"expect"`
	// Send is what is typed, with keys in angle brackets: <enter> <tab> <space> <esc> <backspace> <up> <down> <left>
	// <right> <ctrl-c>; <lt> is the character itself. Nothing is added.
	Send string `toml:"send"`
	// Within is the time limit, in seconds, of a machine with KVM, from the step before; 0 means 60. Where the machine
	// is emulated, everything may take Slower times as long.
	Within int `toml:"within"`
	// Optional steps are passed over when a later one is met before them, or their time is up.
	Optional bool `toml:"optional"`
	// Secret keeps what is sent out of every log.
	Secret bool `toml:"secret"`
}

// End is how a power-on ends, after the last step.
type End struct {
	Kind   string `toml:"kind"`   // "poweroff" or "reboot" by the guest, or "text": the machine is switched off
	Text   string `toml:"text"`   // text: a regular expression, as in Step
	Within int    `toml:"within"` // seconds, as in Step; 0 means 60
}

const (
	// Slower is the factor between the time limits of a script and those of an emulated machine.
	Slower = 8

	defaultWithin = 60
	maxWithin     = 4 * 3600
	maxExpression = 1000    // bytes
	maxText       = 1 << 20 // bytes of a served text
	maxSend       = 8 << 10 // bytes
	maxSteps      = 500
	maxFiles      = 200
)

var (
	placeholder = regexp.MustCompile(`\{\{([^{}]*)\}\}`)
	valueName   = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	fileName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+~-]*$`)
	filePath    = regexp.MustCompile(`^[A-Za-z0-9_.+~/-]+$`)
	driveLabel  = regexp.MustCompile(`^[A-Za-z0-9_-]{0,11}$`)
)

// Check says what is wrong with a script, each error what to write instead. Placeholders count as a word.
func (s Script) Check() []error {
	c := &checker{}
	c.between("memory", s.Memory, 32, 1<<20, "the machine's memory in MiB")
	c.between("disk", s.Disk, 1, 16<<20, "the new disk's virtual size in MiB")
	if s.Processors != 0 {
		c.between("processors", s.Processors, 1, 64, "how many the machine has")
	}
	c.oneOf("firmware", s.Firmware, "bios", "uefi")
	for i, e := range s.Fail {
		c.expression(fmt.Sprintf("fail %d", i+1), e)
	}
	for _, p := range slices.Sorted(maps.Keys(s.Serve.HTTP)) {
		if !strings.HasPrefix(p, "/") || !clean(strings.TrimPrefix(p, "/")) {
			c.say("serve: http", p, "write an absolute path of letters, digits and _ . + ~ -, without ..")
		}
		c.file("serve: http: "+p, s.Serve.HTTP[p])
	}
	for _, p := range slices.Sorted(maps.Keys(s.Serve.TFTP)) {
		if !clean(p) {
			c.say("serve: tftp", p, "write a relative path of letters, digits and _ . + ~ -, without ..")
		}
		c.file("serve: tftp: "+p, s.Serve.TFTP[p])
	}
	if d := s.Serve.Drive; d != nil {
		c.oneOf("serve: drive: format", d.Format, "fat", "iso9660")
		if !driveLabel.MatchString(d.Label) {
			c.say("serve: drive: label", d.Label, "write at most 11 letters, digits and _ -")
		}
		if len(d.Files) == 0 {
			c.add("serve: drive: files: write at least one, such as { \"config.xml\" = { text = \"…\" } }")
		}
		for _, p := range slices.Sorted(maps.Keys(d.Files)) {
			if !clean(p) {
				c.say("serve: drive: files", p, "write a relative path of letters, digits and _ . + ~ -, without ..")
			}
			c.file("serve: drive: files: "+p, d.Files[p])
		}
	}
	if n := len(s.Serve.HTTP) + len(s.Serve.TFTP); n > maxFiles {
		c.add("serve: %d files: write at most %d", n, maxFiles)
	}
	if len(s.Boot) == 0 {
		c.add("boot: write at least one [[boot]]")
	}
	for i, b := range s.Boot {
		c.boot(fmt.Sprintf("boot %d: ", i+1), i, b, s.Serve.TFTP)
	}
	return c.errs
}

// clean reports whether a relative path is one that every file system and protocol here takes as it is.
func clean(p string) bool {
	p = placeholder.ReplaceAllString(p, "x")
	return filePath.MatchString(p) && path.Clean(p) == p && filepath.IsLocal(p)
}

type checker struct{ errs []error }

func (c *checker) add(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

func (c *checker) say(where, value, write string) { c.add("%s: %.200q: %s", where, value, write) }

func (c *checker) between(where string, n, least, most int, what string) {
	if n < least || n > most {
		c.add("%s: %d: write %s, %d to %d", where, n, what, least, most)
	}
}

func (c *checker) oneOf(where, value string, of ...string) {
	if !slices.Contains(of, value) {
		c.say(where, value, "write one of "+strings.Join(of, ", "))
	}
}

func (c *checker) expression(where, e string) {
	if e == "" || len(e) > maxExpression {
		c.say(where, e, fmt.Sprintf("write a regular expression of 1 to %d bytes", maxExpression))
		return
	}
	re, err := regexp.Compile(placeholder.ReplaceAllString(e, "x"))
	if err != nil {
		c.say(where, e, "write a regular expression (RE2): "+strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	} else if re.MatchString("") {
		c.say(where, e, "write a regular expression that does not match an empty text")
	}
}

func (c *checker) file(where string, f File) {
	switch {
	case (f.Text == "") && (f.From == "") && len(f.Tar) == 0 || f.Text != "" && f.From != "" || f.Text+f.From != "" && len(f.Tar) > 0:
		c.add("%s: write one of text = \"…\", from = \"the name of a file that was fetched\", tar = { \"path\" = \"…\" }", where)
	case len(f.Text) > maxText:
		c.add("%s: text: %d bytes: write at most %d", where, len(f.Text), maxText)
	case f.From != "":
		c.name(where+": from", f.From)
	}
	for _, p := range slices.Sorted(maps.Keys(f.Tar)) {
		if !clean(p) {
			c.say(where+": tar", p, "write a relative path of letters, digits and _ . + ~ -, without ..")
		}
		if len(f.Tar[p]) > maxText {
			c.add("%s: tar: %s: %d bytes: write at most %d", where, p, len(f.Tar[p]), maxText)
		}
	}
}

// name is the name of a file that the caller has.
func (c *checker) name(where, name string) {
	if !fileName.MatchString(placeholder.ReplaceAllString(name, "x")) {
		c.say(where, name, "write the name of a file that was fetched, without a folder")
	}
}

func (c *checker) within(where string, seconds int) {
	if seconds != 0 {
		c.between(where+"within", seconds, 1, maxWithin, "seconds")
	}
}

func (c *checker) boot(where string, i int, b Boot, tftp map[string]File) {
	m := b.Media
	c.oneOf(where+"media: kind", m.Kind, "cdrom", "usb", "kernel", "netboot", "image", "disk")
	switch m.Kind {
	case "cdrom", "usb", "image":
		c.name(where+"media: file", m.File)
	case "netboot":
		if _, ok := tftp[m.File]; !ok {
			c.say(where+"media: file", m.File, "write the name of a file in serve.tftp")
		}
	case "kernel":
		c.name(where+"media: kernel", m.Kernel)
		if m.Initrd != "" {
			c.name(where+"media: initrd", m.Initrd)
		}
	}
	if m.Kind == "kernel" && m.File != "" || m.Kind == "disk" && m.File != "" {
		c.say(where+"media: file", m.File, "leave it out: "+m.Kind+" has none")
	}
	if m.Kind != "kernel" && m.Kernel+m.Initrd+m.Append != "" {
		c.say(where+"media: kernel, initrd, append", m.Kernel+m.Initrd+m.Append, `leave them out, or write kind = "kernel"`)
	}
	if m.Kind == "image" && i > 0 {
		c.say(where+"media: kind", m.Kind, "write image in the first boot only")
	}
	if m.Kind == "disk" && i == 0 {
		c.say(where+"media: kind", m.Kind, "write what the installer is started from: the new disk is still empty")
	}
	if len(b.Dialogue) > maxSteps {
		c.add("%sdialogue: %d steps: write at most %d", where, len(b.Dialogue), maxSteps)
	}
	for j, s := range b.Dialogue {
		where := fmt.Sprintf("%sdialogue %d: ", where, j+1)
		c.expression(where+"expect", s.Expect)
		c.within(where, s.Within)
		if len(s.Send) > maxSend {
			c.add("%ssend: %d bytes: write at most %d; serve what is longer as a file", where, len(s.Send), maxSend)
		} else if _, _, err := keystrokes(s.Send); err != nil {
			c.add("%ssend: %w", where, err)
		}
		if s.Secret && s.Send == "" {
			c.add("%ssecret: write what to send, or leave it out", where)
		}
	}
	c.oneOf(where+"end: kind", b.End.Kind, "poweroff", "reboot", "text")
	if b.End.Kind == "text" {
		c.expression(where+"end: text", b.End.Text)
	} else if b.End.Text != "" {
		c.say(where+"end: text", b.End.Text, `leave it out, or write kind = "text"`)
	}
	c.within(where+"end: ", b.End.Within)
}

// keys are what a VT100 sends.
var keys = map[string]string{
	"enter": "\r", "tab": "\t", "space": " ", "esc": "\x1b", "backspace": "\x7f", "lt": "<",
	"up": "\x1b[A", "down": "\x1b[B", "right": "\x1b[C", "left": "\x1b[D",
}

var key = regexp.MustCompile(`<[^<>]*>|<`)

// keystrokes turns what a step sends into bytes, and returns the texts between the keys, too.
func keystrokes(send string) (typed string, texts []string, err error) {
	var b, text strings.Builder
	at := 0
	flush := func() {
		if text.Len() > 0 {
			texts = append(texts, text.String())
			text.Reset()
		}
	}
	for _, m := range append(key.FindAllStringIndex(send, -1), []int{len(send), len(send)}) {
		b.WriteString(send[at:m[0]])
		text.WriteString(send[at:m[0]])
		if at = m[1]; m[0] == m[1] {
			break
		}
		name := strings.Trim(send[m[0]:m[1]], "<>")
		if letter, ok := strings.CutPrefix(name, "ctrl-"); ok && len(letter) == 1 && letter >= "a" && letter <= "z" {
			flush()
			b.WriteByte(letter[0] - 'a' + 1)
		} else if bytes, ok := keys[name]; ok {
			if b.WriteString(bytes); name == "lt" {
				text.WriteString(bytes)
			} else {
				flush()
			}
		} else {
			return "", nil, fmt.Errorf("%.40q is no key: write one of <%s> <ctrl-a>…<ctrl-z>, and <lt> for the character itself", send[m[0]:m[1]], strings.Join(slices.Sorted(maps.Keys(keys)), "> <"))
		}
	}
	flush()
	for _, r := range strings.Join(texts, "") {
		if r < ' ' || r == 0x7f {
			return "", nil, errors.New("a control character: write keys in angle brackets, <enter> at a line's end")
		}
	}
	return b.String(), texts, nil
}

// fill puts values in the place of {{name}}, through quote where that is not nil.
func fill(text string, values map[string]string, quote func(string) string) (string, error) {
	var err error
	text = placeholder.ReplaceAllStringFunc(text, func(m string) string {
		name := m[2 : len(m)-2]
		v, ok := values[name]
		if !valueName.MatchString(name) || !ok {
			err = fmt.Errorf("%s: there is no value of this name: write one of %s", m, strings.Join(slices.Sorted(maps.Keys(values)), ", "))
		}
		if quote != nil {
			v = quote(v)
		}
		return v
	})
	return text, err
}

// filled returns the script with values in the place of every {{name}}.
func (s Script) filled(values map[string]string) (Script, error) {
	var errs []error
	plain := func(text string) string {
		out, err := fill(text, values, nil)
		errs = append(errs, err)
		return out
	}
	expression := func(text string) string {
		out, err := fill(text, values, regexp.QuoteMeta)
		errs = append(errs, err)
		return out
	}
	typed := func(text string) string {
		out, err := fill(text, values, func(v string) string { return strings.ReplaceAll(v, "<", "<lt>") })
		errs = append(errs, err)
		return out
	}
	files := func(in map[string]File) map[string]File {
		out := map[string]File{}
		for p, f := range in {
			filled := File{Text: plain(f.Text), From: plain(f.From)}
			for name, text := range f.Tar {
				if filled.Tar == nil {
					filled.Tar = map[string]string{}
				}
				filled.Tar[plain(name)] = plain(text)
			}
			out[plain(p)] = filled
		}
		return out
	}
	s.Serve.HTTP, s.Serve.TFTP = files(s.Serve.HTTP), files(s.Serve.TFTP)
	if d := s.Serve.Drive; d != nil {
		s.Serve.Drive = &Drive{Format: d.Format, Label: d.Label, Files: files(d.Files)}
	}
	s.Fail = slices.Clone(s.Fail)
	for i := range s.Fail {
		s.Fail[i] = expression(s.Fail[i])
	}
	s.Boot = slices.Clone(s.Boot)
	for i := range s.Boot {
		b := &s.Boot[i]
		m := &b.Media
		m.File, m.Kernel, m.Initrd, m.Append = plain(m.File), plain(m.Kernel), plain(m.Initrd), plain(m.Append)
		b.Dialogue = slices.Clone(b.Dialogue)
		for j := range b.Dialogue {
			d := &b.Dialogue[j]
			d.Expect, d.Send = expression(d.Expect), typed(d.Send)
		}
		b.End.Text = expression(b.End.Text)
	}
	return s, errors.Join(errs...)
}
