package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/container"
	guest "github.com/ContainerCraft/kmi-tui/internal/engine/disk"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

func TestLimitsOf(t *testing.T) {
	c := &catalog.Catalog{Registries: []catalog.Registry{{Host: "quay.io", Layer: "20GB", Source: "here"}, {Host: "*.dkr.ecr.*.amazonaws.com", Layer: "52000MiB", Source: "there"}, {Host: "127.0.0.1:*", Layer: "1MB", Source: "nowhere"}}}
	for ref, want := range map[string]Limits{
		"quay.io/project":                      {"quay.io", 20_000_000_000, "here"},
		"quay.io:443/project":                  {"quay.io:443", 20_000_000_000, "here"},
		"1.dkr.ecr.eu-west-1.amazonaws.com/a":  {"1.dkr.ecr.eu-west-1.amazonaws.com", 52000 << 20, "there"},
		"127.0.0.1:5000":                       {"127.0.0.1:5000", 1_000_000, "nowhere"},
		"docker.io/project":                    {"docker.io", 0, ""},
		"registry.example.org:5000/quay.io/p":  {"registry.example.org:5000", 0, ""},
		"dir:quay.io/project":                  {},
		"public.ecr.aws.example.org/something": {"public.ecr.aws.example.org", 0, ""},
	} {
		if got, err := LimitsOf(ref, c); err != nil || got != want {
			t.Errorf("%s: %+v, %v", ref, got, err)
		}
	}
	if _, err := LimitsOf("a.b/c", &catalog.Catalog{Registries: []catalog.Registry{{Host: "*", Layer: "much"}}}); err == nil {
		t.Error("a limit that is none was accepted")
	}
}

// sized is an image that says other sizes of itself.
type sized struct {
	v1.Image
	layer, config, manifest int64 // of the last layer; 0 leaves it
}

func (s sized) Manifest() (*v1.Manifest, error) {
	m, err := s.Image.Manifest()
	if err != nil {
		return nil, err
	}
	m = m.DeepCopy()
	if s.layer > 0 {
		m.Layers[len(m.Layers)-1].Size = s.layer
	}
	if s.config > 0 {
		m.Config.Size = s.config
	}
	return m, nil
}

func (s sized) Size() (int64, error) {
	if s.manifest > 0 {
		return s.manifest, nil
	}
	return s.Image.Size()
}

func TestWhatIsTooLargeIsNamed(t *testing.T) {
	img := makeImage(t, catalog.X86_64, "a", 4096, "no").Image
	quay := Limits{Registry: "quay.io", Layer: 20_000_000_000, Source: "its source"}
	hub := Limits{Registry: "docker.io"}
	for _, x := range []struct {
		name         string
		limits       Limits
		what         any
		says, remedy string
	}{
		{"at the limit", quay, sized{Image: img, layer: 20_000_000_000}, "", ""},
		{"a byte above", quay, sized{Image: img, layer: 20_000_000_001},
			"the disk's layer (application/vnd.oci.image.layer.v1.tar) has 20000000001 bytes (18.6 GiB), and quay.io takes layers of at most 20000000000 bytes (18.6 GiB, see its source)",
			"take out packages that the guest can do without, or publish to a registry that takes larger layers (--registry)"},
		{"no limit", hub, sized{Image: img, layer: 1 << 60}, "", ""},
		{"a folder", Limits{}, sized{Image: img, layer: 1 << 60, config: 1 << 60, manifest: 1 << 60}, "", ""},
		{"configuration at the limit", hub, sized{Image: img, config: 4 << 20}, "", ""},
		{"configuration above", hub, sized{Image: img, config: 4<<20 + 1},
			"the configuration of the image (application/vnd.oci.image.config.v1+json) has 4194305 bytes (4.0 MiB), and docker.io takes configurations of at most 4194304 bytes (4.0 MiB, see OCI distribution-spec", "--base"},
		{"manifest at the limit", hub, sized{Image: img, manifest: 4 << 20}, "", ""},
		{"manifest above", hub, sized{Image: img, manifest: 4<<20 + 1},
			"the manifest of the image (application/vnd.oci.image.manifest.v1+json) has 4194305 bytes (4.0 MiB), and docker.io takes manifests of at most 4194304", "labels"},
		{"something else", hub, 5, "a int is neither an image nor an index", ""},
	} {
		err := x.limits.Check(x.what)
		var limit *LimitError
		switch {
		case x.says == "":
			if err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
		case x.remedy == "":
			if err == nil || !strings.Contains(err.Error(), x.says) {
				t.Errorf("%s: %v", x.name, err)
			}
		case !errors.As(err, &limit):
			t.Errorf("%s: %T %v", x.name, err, err)
		default:
			tells(t, err, x.says, x.remedy)
		}
	}
	// A layer below the disk's is the base's.
	if layers, err := img.Layers(); err != nil || len(layers) != 2 {
		t.Fatal(layers, err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	tells(t, Limits{Registry: "r.example.org", Layer: m.Layers[0].Size - 1, Source: "s"}.Check(sized{Image: img, layer: 1}), "layer 1 of 2 of the image (application/vnd.oci.image.layer.v1.tar) has", "take another base image (--base)")
}

func TestIndexesAreLookedAtToTheirEnd(t *testing.T) {
	small, large := makeImage(t, catalog.X86_64, "a", 32768, "no"), makeImage(t, catalog.ARM64, "b", 65536, "no")
	m, err := large.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	exactly := Limits{Registry: "r.example.org", Layer: max(m.Layers[0].Size, m.Layers[1].Size), Source: "s"}
	below := exactly
	below.Layer = m.Layers[1].Size - 1
	if m.Layers[0].Size > below.Layer {
		t.Fatalf("the metadata has %d bytes", m.Layers[0].Size)
	}
	both, err := container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: small, catalog.ARM64: large}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	nested := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: both}, mutate.IndexAddendum{Add: both})
	says := fmt.Sprintf("the disk's layer for linux/arm64 (application/vnd.oci.image.layer.v1.tar) has %d bytes", m.Layers[1].Size)
	for _, index := range []v1.ImageIndex{both, nested} {
		if err := exactly.Check(index); err != nil {
			t.Error(err)
		}
		tells(t, below.Check(index), says, "take out packages")
	}
	// What the registry has already is not sent again.
	list, err := both.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: small}, list.Manifests, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := below.Check(kept); err != nil {
		t.Error(err)
	}
	annotated, err := container.Index(map[catalog.Arch]v1.Image{catalog.X86_64: small}, nil, map[string]string{"x": strings.Repeat("x", 4<<20)})
	if err != nil {
		t.Fatal(err)
	}
	tells(t, Limits{Registry: "r.example.org"}.Check(annotated), "the index ("+string(types.OCIImageIndex)+") has", "labels")
}

func TestTheLargestPackagesAreNamed(t *testing.T) {
	const want = "; the largest packages by their installed size: p12 (12.0 MiB), p11 (11.0 MiB), p10 (10.0 MiB), p9 (9.0 MiB), p8 (8.0 MiB), p7 (7.0 MiB), p6 (6.0 MiB), p5 (5.0 MiB), p4 (4.0 MiB), p3 (3.0 MiB)"
	var text strings.Builder
	for i := range 13 {
		fmt.Fprintf(&text, "p%d 1 amd64 %d\n", i, i<<20)
	}
	list, err := guest.ParsePackages([]byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	l := Limits{Registry: "r.example.org:5000", Layer: 1 << 20, Source: "s"}
	if err := l.CheckDisk(1<<20, list); err != nil {
		t.Error(err)
	}
	tells(t, l.CheckDisk(1<<20+1, list), "the disk has 1048577 bytes (1.0 MiB), and r.example.org:5000 takes layers of at most 1048576 bytes (1.0 MiB, see s)", "(--registry)"+want)
	for _, unlimited := range []Limits{{}, {Registry: "docker.io"}} {
		if err := unlimited.CheckDisk(1<<60, nil); err != nil {
			t.Error(err)
		}
	}
	// The image brings its own list. One without sizes, or that nobody should read, names nothing.
	path, _ := qcow2(t, "p", 1<<20)
	for content, end := range map[string]string{text.String(): "(--registry)" + want, "p1 1 amd64\n": "(--registry)", "p\x1b[31m 1 amd64 5\n": "(--registry)", "": "(--registry)"} {
		img, err := container.Build(container.Spec{Arch: catalog.X86_64, DiskPath: path, Packages: []byte(content)})
		if err != nil {
			t.Fatal(err)
		}
		err = l.Check(img)
		tells(t, err, "the disk's layer (application/vnd.oci.image.layer.v1.tar) has 1050624 bytes", end)
		var r *event.Remedied
		if !errors.As(err, &r) || !strings.HasSuffix(r.Remedy, end) {
			t.Errorf("%+v", r)
		}
	}
	// Names are the guest's: what they hold stays text.
	if s := smaller([]guest.Package{{Name: "##[group]\x1b[2J\u202e", Installed: 5}}); strings.Contains(s, "##[") || strings.ContainsAny(s, "\x1b\u202e") {
		t.Errorf("%q", s)
	}
}

// What a registry does not take is refused before anything is sent to it; a folder takes everything.
func TestNothingIsSentThatIsTooLarge(t *testing.T) {
	f := newFaulty(t)
	img := makeImage(t, catalog.X86_64, "a", 1<<20, "no")
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	size := m.Layers[len(m.Layers)-1].Size
	publish := func(ref string, layer int64) error {
		t.Helper()
		r := open(t, ref, Options{Limits: Limits{Registry: f.host, Layer: layer, Source: "the test"}})
		rel, err := prepare(context.Background(), r, signers()[0], img)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Publish(context.Background(), r, rel, nil)
		return err
	}
	err = publish(f.host+"/kmi", size-1)
	tells(t, err, fmt.Sprintf("has %d bytes (1.0 MiB), and %s takes layers of at most %d bytes", size, f.host, size-1), "take out packages")
	for _, request := range f.requests() {
		if !strings.HasPrefix(request, "GET ") && !strings.HasPrefix(request, "HEAD ") {
			t.Errorf("%s", request)
		}
	}
	if err := publish("dir:"+t.TempDir(), 1); err != nil {
		t.Error(err)
	}
	if err := publish(f.host+"/kmi", size); err != nil {
		t.Error(err)
	}
	if requests := f.requests(); !slices.ContainsFunc(requests, func(s string) bool { return strings.HasPrefix(s, "PUT ") }) {
		t.Errorf("nothing was sent: %v", requests)
	}
}
