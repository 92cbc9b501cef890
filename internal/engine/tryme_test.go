package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	kubevirt "kubevirt.io/api/core/v1"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
)

// parsed is a manifest read by KubeVirt's own types. lost are its fields that they do not have: their decoding of parts is
// their own and lenient, and field names are read in any case, so what comes out again is compared with what went in.
func parsed(t *testing.T, text string) (vm *kubevirt.VirtualMachine, lost []string) {
	t.Helper()
	var in, out any
	if err := yaml.Unmarshal([]byte(text), &in); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	vm = &kubevirt.VirtualMachine{}
	if err := json.Unmarshal(data, vm); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if data, err = json.Marshal(vm); err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return vm, missing("", in, out)
}

// missing are the paths of what is in a document and not, or otherwise, in another one.
func missing(path string, in, out any) (list []string) {
	switch v := in.(type) {
	case map[string]any:
		o, ok := out.(map[string]any)
		if !ok {
			return []string{path}
		}
		for k, value := range v {
			if _, ok := o[k]; !ok {
				list = append(list, path+"."+k)
				continue
			}
			list = append(list, missing(path+"."+k, value, o[k])...)
		}
	case []any:
		o, ok := out.([]any)
		if !ok || len(o) != len(v) {
			return []string{path}
		}
		for i := range v {
			list = append(list, missing(fmt.Sprintf("%s[%d]", path, i), v[i], o[i])...)
		}
	default:
		if fmt.Sprint(in) != fmt.Sprint(out) {
			list = append(list, path)
		}
	}
	return list
}

// Every flavor's manifests, for every architecture, are what KubeVirt's API takes, and mean what a Try Me has to mean.
func TestManifestsAreVirtualMachines(t *testing.T) {
	c, err := catalog.Load(theCatalogue)
	if err != nil {
		t.Fatal(err)
	}
	const image = "quay.io/containercraft/kmi/x@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	count := 0
	for i := range c.Flavors {
		f := &c.Flavors[i]
		for _, a := range f.Arch {
			for _, disk := range []string{"", "10Gi"} {
				count++
				m := &TryMe{Name: label(f.ID + "-1.2"), User: f.User, Image: image, Machines: f.Arch}
				m.Secret = m.Name + "-key"
				text, err := m.manifest(f, nil, a, disk)
				if err != nil {
					t.Fatal(err)
				}
				vm, lost := parsed(t, text)
				if len(lost) > 0 {
					t.Errorf("%s: KubeVirt has no %v", f.ID, lost)
				}
				s := vm.Spec
				pod := s.Template.Spec
				if vm.APIVersion != kubevirt.GroupVersion.String() || vm.Kind != "VirtualMachine" || vm.Name != m.Name {
					t.Errorf("%s: it is a %s %s %q", f.ID, vm.APIVersion, vm.Kind, vm.Name)
				}
				if s.RunStrategy == nil || *s.RunStrategy != kubevirt.RunStrategyAlways || s.Running != nil {
					t.Errorf("%s: run strategy %v", f.ID, s.RunStrategy)
				}
				// Stateless NAT on the pod's network.
				nets, cards := pod.Networks, pod.Domain.Devices.Interfaces
				if len(nets) != 1 || nets[0].Pod == nil || nets[0].Multus != nil || len(cards) != 1 || cards[0].Name != nets[0].Name || cards[0].Masquerade == nil || cards[0].Bridge != nil {
					t.Errorf("%s: networks %+v, interfaces %+v", f.ID, nets, cards)
				}
				// Machine types come from the cluster by name, and are not contradicted here.
				if (s.Instancetype == nil) != (f.Instancetype[a] == "") || s.Instancetype != nil && (s.Instancetype.Name != f.Instancetype[a] || pod.Domain.CPU != nil || pod.Domain.Memory != nil || len(pod.Domain.Resources.Requests) > 0) {
					t.Errorf("%s: instancetype %+v", f.ID, s.Instancetype)
				}
				if guest := pod.Domain.Memory; s.Instancetype == nil && (guest == nil || guest.Guest == nil || guest.Guest.Value() < 256<<20 || !strings.Contains(m.command(f, nil, a, ""), " --memory="+guest.Guest.String()+" ")) {
					t.Errorf("%s: neither an instancetype nor memory: %+v, %s", f.ID, guest, m.command(f, nil, a, ""))
				}
				if (s.Preference == nil) != (f.Preference[a] == "") || s.Preference != nil && s.Preference.Name != f.Preference[a] {
					t.Errorf("%s: preference %+v", f.ID, s.Preference)
				}
				if len(f.Arch) > 1 && pod.Architecture != a.OCI() {
					t.Errorf("%s: architecture %q", f.ID, pod.Architecture)
				}
				// Each volume has its disk; the first one is the image.
				if len(pod.Volumes) != len(pod.Domain.Devices.Disks) || len(pod.Volumes) == 0 {
					t.Fatalf("%s: %d volumes, %d disks", f.ID, len(pod.Volumes), len(pod.Domain.Devices.Disks))
				}
				for i, d := range pod.Domain.Devices.Disks {
					if d.Name != pod.Volumes[i].Name || d.Disk == nil || d.Disk.Bus != kubevirt.DiskBusVirtio {
						t.Errorf("%s: disk %+v of volume %s", f.ID, d, pod.Volumes[i].Name)
					}
				}
				root := pod.Volumes[0]
				if disk == "" {
					if root.ContainerDisk == nil || root.ContainerDisk.Image != image || len(s.DataVolumeTemplates) > 0 {
						t.Errorf("%s: root %+v", f.ID, root)
					}
				} else if root.DataVolume == nil || root.ContainerDisk != nil || len(s.DataVolumeTemplates) != 1 {
					t.Errorf("%s: root %+v", f.ID, root)
				} else {
					v := s.DataVolumeTemplates[0]
					if v.Name != root.DataVolume.Name || v.Spec.Source == nil || v.Spec.Source.Registry == nil || v.Spec.Source.Registry.URL == nil || *v.Spec.Source.Registry.URL != "docker://"+image || v.Spec.Storage == nil || v.Spec.Storage.Resources.Requests.Storage().String() != disk {
						t.Errorf("%s: %+v", f.ID, v)
					}
				}
				for _, v := range pod.Volumes[1:] {
					switch {
					case f.Provision == "ignition" && v.CloudInitConfigDrive != nil && strings.HasPrefix(v.CloudInitConfigDrive.UserData, "{"):
					case f.Provision != "ignition" && v.CloudInitNoCloud != nil && strings.HasPrefix(v.CloudInitNoCloud.UserData, "#cloud-config\n"):
					default:
						t.Errorf("%s: volume %+v", f.ID, v)
					}
				}
				// Keys come from the secret, by the guest agent, to the image's user.
				if f.User == "" {
					if len(pod.AccessCredentials) > 0 {
						t.Errorf("%s: %+v", f.ID, pod.AccessCredentials)
					}
					continue
				}
				if len(pod.AccessCredentials) != 1 || pod.AccessCredentials[0].SSHPublicKey == nil {
					t.Fatalf("%s: %+v", f.ID, pod.AccessCredentials)
				}
				key := pod.AccessCredentials[0].SSHPublicKey
				if key.Source.Secret == nil || key.Source.Secret.SecretName != m.Secret || key.PropagationMethod.QemuGuestAgent == nil || !slices.Equal(key.PropagationMethod.QemuGuestAgent.Users, []string{f.User}) {
					t.Errorf("%s: %+v", f.ID, key)
				}
			}
		}
	}
	t.Logf("%d manifests", count)
	_, lost := parsed(t, `{spec: {instanceType: {name: u1.medium}, template: {spec: {domain: {devices: {interfaces: [{name: a, masquerades: {}}]}}}}}}`)
	if slices.Sort(lost); !slices.Equal(lost, []string{".spec.instanceType", ".spec.template.spec.domain.devices.interfaces[0].masquerades"}) {
		t.Errorf("wrong fields: %v", lost)
	}
}

// What a release has of its own is in its machine, and nothing of it in another's.
func TestMachinesOfAReleaseItsOwn(t *testing.T) {
	c, err := catalog.Load(theCatalogue)
	if err != nil {
		t.Fatal(err)
	}
	own := 0
	for i := range c.Flavors {
		f := &c.Flavors[i]
		for _, r := range f.Releases {
			for a, want := range r.Preference {
				own++
				m := &TryMe{Name: "x", User: f.User, Image: "x", Machines: f.Arch}
				text, err := m.manifest(f, &r, a, "")
				if err != nil {
					t.Fatal(err)
				}
				if vm, _ := parsed(t, text); vm.Spec.Preference == nil || vm.Spec.Preference.Name != want || want == f.Preference[a] {
					t.Errorf("%s:%s/%s: %+v, want %s, unlike the flavor's %s", f.ID, r.Version, a, vm.Spec.Preference, want, f.Preference[a])
				}
				if line := m.command(f, &r, a, ""); !strings.Contains(line, " --preference="+want+" ") || !strings.Contains(line, " --instancetype="+f.Instancetype[a]+" ") {
					t.Errorf("%s:%s/%s: %s", f.ID, r.Version, a, line)
				}
			}
		}
	}
	if own == 0 {
		t.Error("no release of the catalogue has a preference of its own")
	}
}
