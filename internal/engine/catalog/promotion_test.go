package catalog

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const promoted = `
[[flavor]]
id             = "a"     # the first
name           = "A"
home           = "https://a.example.org"
  level        = 'preview'   # for now
arch           = ["x86_64"]
redistribution = "free"
docs           = """
many
lines"""

[[flavor.release]]
version = "1"

[flavor.origin]
kind   = "none"
reason = "nothing"   # really

# About b.
[[flavor]]
id = "b"
name = "B"
home = "https://b.example.org"
level = "planned"
arch = ["x86_64"]
redistribution = "free"`

func step(from, to Level) Promotion { return Promotion{From: from, To: to, Date: "2026-11-23"} }

// A promotion changes the level and adds what was decided; everything else stays as it is, byte for byte.
func TestPromote(t *testing.T) {
	for name, ending := range map[string]string{"unix": "\n", "dos": "\r\n"} {
		data := []byte(strings.ReplaceAll(head+strings.ReplaceAll(promoted, "docs           = \"\"\"\nmany\nlines\"\"\"\n", ""), "\n", ending))
		change := step(Preview, Proposed)
		change.By, change.Stated, change.Waived = `someone "careful"`, map[string]string{"kubevirt": "booted on 1.9\\"}, map[string]string{"cloud-init": "it has none"}
		edited, err := Promote("distros.toml", data, "a", change)
		if err != nil {
			t.Fatal(name, err)
		}
		want := strings.Replace(string(data), "  level        = 'preview'   # for now", `  level        = "proposed"   # for now`, 1)
		added := "\n[[flavor.promotion]]\nfrom = \"preview\"\nto = \"proposed\"\ndate = \"2026-11-23\"\nby = \"someone \\\"careful\\\"\"\nstated.kubevirt = \"booted on 1.9\\\\\"\nwaived.cloud-init = \"it has none\"\n"
		marker := strings.ReplaceAll("reason = \"nothing\"   # really\n", "\n", ending)
		want = strings.Replace(want, marker, marker+strings.ReplaceAll(added, "\n", ending), 1)
		if string(edited) != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, edited, want)
		}
		// And again, down, at the end of the file, which does not end its last line.
		down := step(Proposed, Preview)
		down.Reason = "it broke"
		if edited, err = Promote("distros.toml", edited, "a", down); err != nil {
			t.Fatal(err)
		}
		edited, err = Promote("distros.toml", edited, "b", step(Planned, Preview))
		if err != nil {
			t.Fatal(err)
		}
		c, err := Parse("distros.toml", edited)
		if err != nil || len(c.Flavors[0].Promotions) != 2 || c.Flavors[0].Level != Preview || c.Flavors[1].Level != Preview || c.Flavors[1].Promotions[0].To != Preview {
			t.Errorf("%v, %+v", err, c)
		}
		if !bytes.Contains(edited, []byte("# About b."+ending+"[[flavor]]"+ending+`id = "b"`)) {
			t.Errorf("the comment lost its row:\n%s", edited)
		}
	}
	for what, c := range map[string]struct {
		flavor string
		change Promotion
		says   string
	}{
		"nobody":      {"c", step(Planned, Preview), `has no flavor "c"`},
		"other level": {"b", step(Preview, Proposed), "the level of b is planned, not preview"},
		"no level":    {"b", step(Planned, "beta"), `"beta" is not a level`},
		"no reason":   {"a", step(Preview, Planned), "a step down has a reason"},
		"criterion":   {"b", Promotion{From: Planned, To: Preview, Date: "2026-11-23", Stated: map[string]string{"X": "y"}}, "is no criterion"},
	} {
		if _, err := Promote("distros.toml", []byte(strings.ReplaceAll(head+promoted, "docs           = \"\"\"\nmany\nlines\"\"\"\n", "")), c.flavor, c.change); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Every row of the real catalogue can be promoted, and only the lines meant change.
func TestEveryRowCanBePromoted(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "distros.toml"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("distros.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	before := strings.Split(string(data), "\n")
	for _, f := range c.Flavors {
		if at := c.Line(f.ID); at < 1 || before[at-1] != "[[flavor]]" || !strings.Contains(before[at], `"`+f.ID+`"`) {
			t.Errorf("%s begins in line %d: %q", f.ID, at, before[max(0, at-1)])
		}
		if f.Level == Stable {
			continue
		}
		edited, err := Promote("distros.toml", data, f.ID, step(f.Level, Levels[f.Level.Rank()+1]))
		if err != nil {
			t.Errorf("%s: %v", f.ID, err)
			continue
		}
		after := strings.Split(string(edited), "\n")
		if len(after) != len(before)+5 {
			t.Errorf("%s: %d lines became %d", f.ID, len(before), len(after))
		}
		same := 0
		for _, l := range before {
			if slices.Contains(after, l) {
				same++
			}
		}
		if same < len(before)-1 {
			t.Errorf("%s: %d of %d lines are the same", f.ID, same, len(before))
		}
	}
}

// Whatever a catalogue looks like: an edit is refused, or changes just what it should (Promote looks itself).
func FuzzPromote(f *testing.F) {
	f.Add(head + promoted)
	f.Add(strings.ReplaceAll(head+promoted, "\n", "\r\n"))
	f.Add(head + "\n[[flavor]]\nid=\"a\"\nname=\"A\"\nhome=\"https://a.example.org\"\n\"level\"=\"preview\"\narch=[\"x86_64\"]\nredistribution=\"free\"\n[manager.x]\nlist = \"l\"\n")
	f.Add(head + "\nflavor = [{id=\"a\",name=\"A\",home=\"https://a.example.org\",level=\"preview\",arch=[\"x86_64\"],redistribution=\"free\"}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		edited, err := Promote("d.toml", []byte(text), "a", step(Preview, Proposed))
		if err != nil {
			return
		}
		if len(edited) <= len(text) {
			t.Errorf("nothing was added")
		}
		back, err := Parse("d.toml", edited)
		if err != nil || !slices.ContainsFunc(back.Flavors, func(f Flavor) bool { return f.ID == "a" && f.Level == Proposed && len(f.Promotions) > 0 }) {
			t.Errorf("%v", err)
		}
	})
}
