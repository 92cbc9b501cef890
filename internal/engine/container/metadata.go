package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Field is one piece of metadata: entrypoint.sh prints it by its name, /kmi/fields/NAME holds its text, and
// /kmi/metadata.json its value.
type Field struct {
	Name  string // lower-case letters, digits and hyphens; none of the words of entrypoint.sh
	Value any    // string, []string (one a line), int64 or time.Time; what is empty is left out
}

// Metadata is what the image criteria want an image to say of itself. Its JSON form is that of /kmi/metadata.json. All of
// it is part of the image's digest: the times are upstream's, and the day on which it was pulled.
type Metadata struct {
	Title         string    `json:"name"`                   // the distribution and its release, in words
	Flavor        string    `json:"flavor"`                 // id in the catalogue
	Release       string    `json:"release"`                // version
	Codename      string    `json:"codename,omitzero"`      //
	Arch          string    `json:"architecture"`           // as the release chart spells it
	Level         string    `json:"level,omitzero"`         // of the release chart, when the image was built
	User          string    `json:"user,omitzero"`          // the login that the guest's provisioning makes
	Project       string    `json:"project,omitzero"`       // whose images these are
	Source        string    `json:"source"`                 // URL of the repository that builds the images
	Commit        string    `json:"commit"`                 // that repository's commit, hex
	Builder       string    `json:"builder,omitzero"`       // the program that built the image, with its version
	How           string    `json:"how,omitzero"`           // how the disk was obtained, in words
	Upstream      string    `json:"upstream"`               // URL of what was taken from upstream
	UpstreamBuild string    `json:"upstream-build"`         // upstream's name for it
	UpstreamDate  time.Time `json:"upstream-date,omitzero"` // when upstream published it
	Pulled        string    `json:"pulled"`                 // when it was pulled from upstream: YYYY-MM-DD
	Checksums     []string  `json:"checksum"`               // what was validated: "sha256:HEX NAME"
	ChecksumOf    string    `json:"checksum-of,omitzero"`   // what it is of, in words
	Signature     string    `json:"signature"`              // "verified FINGERPRINT", or why there is none to verify
	Trust         string    `json:"trust,omitzero"`         // what vouches for it: "checksum signed (openpgp)"
	Documentation string    `json:"documentation"`          // URL of the distribution's documentation
	Download      string    `json:"download"`               // URL where it offers its downloads
	Home          string    `json:"home,omitzero"`          // URL of the distribution
	Licence       string    `json:"licence"`                // URL of its licence or EULA; the texts are in /kmi/licenses
	PassingOn     string    `json:"redistribution"`         // "free", "unclear", "restricted"
	Disk          string    `json:"disk"`                   // path in the image; Build sets it
	DiskFormat    string    `json:"disk-format"`            // "qcow2"; Build sets it
	DiskSHA256    string    `json:"disk-sha256"`            // of the file, hex; Build sets it
	DiskSize      int64     `json:"disk-size"`              // of the file, bytes; Build sets it
	VirtualSize   int64     `json:"disk-virtual-size"`      // of the root disk, bytes; Build sets it
	ContentKey    string    `json:"content-key"`            // of all that the guest is made of: "sha256:HEX"
	Recipe        string    `json:"recipe,omitzero"`        // what is known of that before the disk is made: "sha256:HEX"
	LeftOut       string    `json:"left-out,omitzero"`      // what was not done to upstream's disk, and why
	PackageList   string    `json:"package-list"`           // path in the image and its SHA-256; Build sets it
	LicenceFiles  string    `json:"licence-files,omitzero"` // path in the image; Build sets it
	Tested        string    `json:"tested,omitzero"`        // what the boot test proved before publication; "no"
	Base          string    `json:"base"`                   // the base image, by digest
	Verify        []string  `json:"verify"`                 // commands that check who made the image
}

// byBuild are the fields that Build sets where they are missing.
var byBuild = []string{"disk", "disk-format", "disk-sha256", "disk-size", "disk-virtual-size", "package-list", "licence-files"}

// Fields are the metadata's fields that are not empty, in their order.
func (m Metadata) Fields() (all []Field) {
	v := reflect.ValueOf(m)
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if f := (Field{name, v.Field(i).Interface()}); f.text() != "" {
			all = append(all, f)
		}
	}
	return all
}

// Missing names the fields that the image criteria demand, that are empty, and that Build does not set.
func (m Metadata) Missing() (names []string) {
	have := m.Fields()
	v := reflect.ValueOf(m)
	for i := range v.NumField() {
		name, optional, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if optional == "" && !slices.Contains(byBuild, name) && !slices.ContainsFunc(have, func(f Field) bool { return f.Name == name }) {
			names = append(names, name)
		}
	}
	return names
}

// Labels are the image's labels that follow from its metadata, without the empty ones.
func (m Metadata) Labels() map[string]string {
	base, digest, pinned := strings.Cut(m.Base, "@")
	if !pinned {
		base = ""
	}
	description := ""
	if m.Title != "" {
		description = m.Title + " for " + m.Arch + ", a disk for KubeVirt (containerDisk)"
	}
	all := map[string]string{
		"org.opencontainers.image.title":         m.Title,
		"org.opencontainers.image.description":   description,
		"org.opencontainers.image.version":       m.Release,
		"org.opencontainers.image.url":           m.Home,
		"org.opencontainers.image.documentation": m.Documentation,
		"org.opencontainers.image.source":        m.Source,
		"org.opencontainers.image.revision":      m.Commit,
		"org.opencontainers.image.vendor":        m.Project,
		"org.opencontainers.image.base.name":     base,
		"org.opencontainers.image.base.digest":   digest,
		LabelFlavor:                              m.Flavor,
		LabelLevel:                               m.Level,
		LabelTested:                              m.Tested,
		LabelContentKey:                          m.ContentKey,
		LabelRecipe:                              m.Recipe,
		LabelTrust:                               m.Trust,
		LabelPassingOn:                           m.PassingOn,
		LabelUpstream:                            m.UpstreamBuild,
		LabelUser:                                m.User,
		LabelLicence:                             m.Licence,
	}
	for name, value := range all {
		if value == "" {
			delete(all, name)
		}
	}
	return all
}

// text is the field's value as lines; "" for nothing.
func (f Field) text() string {
	switch v := f.Value.(type) {
	case string:
		return v
	case []string:
		return strings.Join(v, "\n")
	case int64:
		if v != 0 {
			return strconv.FormatInt(v, 10)
		}
	case time.Time:
		if v.IsZero() {
			return ""
		}
		return v.UTC().Truncate(time.Second).Format(time.RFC3339)
	}
	return ""
}

// words are what entrypoint.sh understands besides names of fields.
var words = []string{"all", "json", "packages", "licenses", "licences", "list", "help"}

// check refuses what would reach into the terminal that it is printed on.
func (f Field) check() error {
	lines := []string{f.text()}
	if v, ok := f.Value.([]string); ok {
		lines = v
	}
	for _, line := range lines {
		if strings.ContainsFunc(line, func(r rune) bool {
			return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) || r == unicode.ReplacementChar
		}) {
			return fmt.Errorf("metadata field %s: %q holds characters that do not belong into a line of text", f.Name, line)
		}
	}
	return nil
}

// complete adds to the fields what Build knows, where it is missing, and leaves empty ones out. A field that says
// something else than what Build found is an error.
func complete(fields []Field, known []Field) (all []Field, err error) {
	seen := map[string]string{}
	for _, f := range fields {
		if err := f.check(); err != nil {
			return nil, err
		}
		seen[f.Name] = f.text()
		all = append(all, f)
	}
	for _, f := range known {
		switch said := seen[f.Name]; said {
		case f.text():
		case "":
			all = append(all, f)
		default:
			return nil, fmt.Errorf("metadata field %s: expected %s, found %s", f.Name, f.text(), said)
		}
	}
	return all, nil
}

// document is metadata.json: one object, its fields in their order.
func document(fields []Field) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	b.WriteString("{")
	for i, f := range fields {
		if i > 0 {
			b.WriteString(",")
		}
		value := f.Value
		if t, ok := value.(time.Time); ok {
			value = t.UTC().Truncate(time.Second)
		}
		if err := errors.Join(e.Encode(f.Name), b.WriteByte(':'), e.Encode(value)); err != nil {
			return nil, fmt.Errorf("metadata field %s: %w", f.Name, err)
		}
	}
	b.WriteString("}")
	var out bytes.Buffer
	if err := json.Indent(&out, b.Bytes(), "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
