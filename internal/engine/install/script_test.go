package install

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestKeystrokes(t *testing.T) {
	for send, want := range map[string]string{
		"":                              "",
		"y<enter>":                      "y\r",
		"<tab><space><esc><backspace>":  "\t \x1b\x7f",
		"<up><down><left><right>":       "\x1b[A\x1b[B\x1b[D\x1b[C",
		"<ctrl-c><ctrl-z>":              "\x03\x1a",
		"a <lt>ssh> ü<enter>":           "a <ssh> ü\r",
		"a > b":                         "a > b",
		"a < b":                         `!"<" is no key`,
		"<Enter>":                       `!"<Enter>" is no key`,
		"<ctrl-C>":                      "!is no key",
		"<<enter>":                      `!"<" is no key`,
		"line\n":                        "!a control character",
		"<" + strings.Repeat("x", 1000): "!is no key",
	} {
		got, _, err := keystrokes(send)
		if wrong, ok := strings.CutPrefix(want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), wrong) || len(err.Error()) > 400 {
				t.Errorf("%.40q: %v", send, err)
			}
		} else if err != nil || got != want {
			t.Errorf("%q: %q, %v", send, got, err)
		}
	}
	if _, texts, err := keystrokes("ab<lt>c<enter>de<tab>"); err != nil || !slices.Equal(texts, []string{"ab<c", "de"}) {
		t.Errorf("%q, %v", texts, err)
	}
}

func FuzzKeystrokes(f *testing.F) {
	for _, s := range []string{"y<enter>", "<lt>a<ctrl-x>", "<", "<<>>", "\x00<tab>", "{{a}}<enter>"} {
		f.Add(s, "va<l>ue")
	}
	f.Fuzz(func(t *testing.T, send, value string) {
		typed, texts, err := keystrokes(send)
		if err == nil && strings.Join(texts, "") == send && typed != send {
			t.Fatalf("%q: %q", send, typed)
		}
		// A value is typed as it is, whatever is in it.
		s, err := Script{Boot: []Boot{{Dialogue: []Step{{Send: "{{v}}", Expect: "{{v}}"}}}}}.filled(map[string]string{"v": value})
		if err != nil {
			t.Fatal(err)
		}
		if typed, _, err := keystrokes(s.Boot[0].Dialogue[0].Send); err == nil && typed != value {
			t.Fatalf("%q is typed as %q", value, typed)
		}
	})
}

func TestFilled(t *testing.T) {
	s := Script{
		Serve: Serve{HTTP: map[string]File{"/{{v}}/a": {Text: "x {{v}} { {single} ${shell} }"}, "/b": {From: "base{{short}}.tgz"}, "/c": {Tar: map[string]string{"f{{short}}": "{{v}}"}}},
			TFTP: map[string]File{"{{v}}": {Text: "t"}}, Drive: &Drive{Format: "fat", Files: map[string]File{"x": {Text: "{{v}}"}}}},
		Fail: []string{"{{v}}!"},
		Boot: []Boot{{Media: Media{Kind: "kernel", Kernel: "k{{v}}", Initrd: "i", Append: "v={{v}}"}, Dialogue: []Step{{Expect: "a{{v}}b{2}", Send: "{{v}}<enter>"}}, End: End{Kind: "text", Text: "{{v}}$"}}},
	}
	f, err := s.filled(map[string]string{"v": "7.9", "short": "79"})
	if err != nil {
		t.Fatal(err)
	}
	if f.Serve.HTTP["/7.9/a"].Text != "x 7.9 { {single} ${shell} }" || f.Serve.HTTP["/b"].From != "base79.tgz" || f.Serve.HTTP["/c"].Tar["f79"] != "7.9" || f.Serve.TFTP["7.9"].Text != "t" || f.Serve.Drive.Files["x"].Text != "7.9" ||
		f.Fail[0] != `7\.9!` || f.Boot[0].Media.Kernel != "k7.9" || f.Boot[0].Media.Append != "v=7.9" || f.Boot[0].Dialogue[0] != (Step{Expect: `a7\.9b{2}`, Send: "7.9<enter>"}) || f.Boot[0].End.Text != `7\.9$` {
		t.Errorf("%+v", f)
	}
	if s.Boot[0].Dialogue[0].Send != "{{v}}<enter>" || s.Fail[0] != "{{v}}!" || s.Serve.Drive.Files["x"].Text != "{{v}}" {
		t.Error("the script itself was changed")
	}
	if _, err := s.filled(map[string]string{"v": "1"}); err == nil || !strings.Contains(err.Error(), "{{short}}: there is no value of this name: write one of v") {
		t.Errorf("%v", err)
	}
}

func TestCheck(t *testing.T) {
	if errs := tinyScript("normal").Check(); len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, c := range []struct {
		change func(*Script)
		want   string
	}{
		{func(s *Script) { s.Memory = 0 }, "memory: 0: write the machine's memory in MiB, 32 to 1048576"},
		{func(s *Script) { s.Disk = -1 }, "disk: -1: write the new disk's virtual size in MiB"},
		{func(s *Script) { s.Processors = 100 }, "processors: 100: write how many the machine has, 1 to 64"},
		{func(s *Script) { s.Firmware = "efi" }, `firmware: "efi": write one of bios, uefi`},
		{func(s *Script) { s.Fail = []string{"("} }, `fail 1: "(": write a regular expression (RE2): missing closing )`},
		{func(s *Script) { s.Fail = []string{"x*"} }, `write a regular expression that does not match an empty text`},
		{func(s *Script) { s.Fail = []string{strings.Repeat("x", 1001)} }, "of 1 to 1000 bytes"},
		{func(s *Script) { s.Fail = []string{"(a{1000}){1000}"} }, "write a regular expression (RE2): invalid repeat count"},
		{func(s *Script) { s.Serve.HTTP = map[string]File{"a": {Text: "x"}} }, `serve: http: "a": write an absolute path`},
		{func(s *Script) { s.Serve.HTTP = map[string]File{"/../a": {Text: "x"}} }, "without .."},
		{func(s *Script) { s.Serve.HTTP = map[string]File{"/a": {}} }, `serve: http: /a: write one of text = "…", from =`},
		{func(s *Script) { s.Serve.HTTP = map[string]File{"/a": {Text: "x", From: "y"}} }, "write one of"},
		{func(s *Script) { s.Serve.HTTP = map[string]File{"/a": {From: "../y"}} }, `serve: http: /a: from: "../y": write the name of a file that was fetched`},
		{func(s *Script) { s.Serve.HTTP = map[string]File{"/a": {Text: strings.Repeat("x", maxText+1)}} }, "bytes: write at most 1048576"},
		{func(s *Script) { s.Serve.HTTP = map[string]File{"/a": {Tar: map[string]string{"/etc/x": "y"}}} }, `tar: "/etc/x": write a relative path`},
		{func(s *Script) { s.Serve.TFTP = map[string]File{"/a": {Text: "x"}} }, `serve: tftp: "/a": write a relative path`},
		{func(s *Script) { s.Serve.Drive = &Drive{Format: "ext4", Label: "täg"} }, "serve: drive: format: \"ext4\": write one of fat, iso9660|serve: drive: label: \"täg\": write at most 11|serve: drive: files: write at least one"},
		{func(s *Script) { s.Boot = nil }, "boot: write at least one [[boot]]"},
		{func(s *Script) { s.Boot[0].Media.Kind = "floppy" }, `boot 1: media: kind: "floppy": write one of cdrom, usb, kernel, netboot, image, disk|leave them out, or write kind = "kernel"`},
		{func(s *Script) { s.Boot[0].Media = Media{Kind: "cdrom"} }, `boot 1: media: file: "": write the name of a file that was fetched`},
		{func(s *Script) { s.Boot[0].Media = Media{Kind: "netboot", File: "x"} }, `boot 1: media: file: "x": write the name of a file in serve.tftp`},
		{func(s *Script) { s.Boot[0].Media = Media{Kind: "disk"} }, "the new disk is still empty"},
		{func(s *Script) {
			s.Boot = append(s.Boot, Boot{Media: Media{Kind: "image", File: "x"}, End: s.Boot[0].End})
		}, `boot 2: media: kind: "image": write image in the first boot only`},
		{func(s *Script) { s.Boot[0].Media.File = "x" }, "leave it out: kernel has none"},
		{func(s *Script) { s.Boot[0].Dialogue[1].Expect = "" }, `boot 1: dialogue 2: expect: "": write a regular expression`},
		{func(s *Script) { s.Boot[0].Dialogue[1].Within = -5 }, "boot 1: dialogue 2: within: -5: write seconds, 1 to 14400"},
		{func(s *Script) { s.Boot[0].Dialogue[1].Send = "<return>" }, `boot 1: dialogue 2: send: "<return>" is no key: write one of <backspace>`},
		{func(s *Script) { s.Boot[0].Dialogue[1].Send = strings.Repeat("x", maxSend+1) }, "serve what is longer as a file"},
		{func(s *Script) { s.Boot[0].Dialogue[0].Secret = true }, "boot 1: dialogue 1: secret: write what to send, or leave it out"},
		{func(s *Script) { s.Boot[0].End = End{Kind: "halt"} }, `boot 1: end: kind: "halt": write one of poweroff, reboot, text`},
		{func(s *Script) { s.Boot[0].End = End{Kind: "text"} }, `boot 1: end: text: "": write a regular expression`},
		{func(s *Script) { s.Boot[0].End.Text = "x" }, `boot 1: end: text: "x": leave it out, or write kind = "text"`},
		{func(s *Script) { s.Boot[0].End.Within = maxWithin + 1 }, "boot 1: end: within: 14401: write seconds"},
	} {
		s := tinyScript("normal")
		s.Serve.HTTP = maps.Clone(s.Serve.HTTP)
		c.change(&s)
		err := errors.Join(s.Check()...)
		for _, want := range strings.Split(c.want, "|") {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
	short := Boot{Dialogue: []Step{{Expect: "x", Send: "abc<enter>", Secret: true}}}
	if _, err := prepare(short, 1, &transcript{}); err == nil || !strings.Contains(err.Error(), "cannot be kept out of a log") {
		t.Errorf("%v", err)
	}
}
