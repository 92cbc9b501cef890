package engine

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/publish"
	"github.com/ContainerCraft/kmi-tui/internal/engine/readme"
)

// TryMe is how somebody tries an image on their cluster.
type TryMe struct {
	Flavor   string         `json:"flavor"`
	Release  string         `json:"release"`
	Image    string         `json:"image"`    // by digest, or by tag while it is not published
	Pinned   bool           `json:"pinned"`   // by digest
	Name     string         `json:"name"`     // of the virtual machine
	Secret   string         `json:"secret"`   // of the ssh keys
	User     string         `json:"user"`     // "" where nobody can log in like that
	Machines []catalog.Arch `json:"machines"` // the architectures that Manifests are for, in their order
	YAML     []string       `json:"yaml"`     // a VirtualMachine each
	Create   []string       `json:"create"`   // the same as one command each
	Keep     []string       `json:"keep"`     // and with a disk that stays
	KeepYAML []string       `json:"keepYaml"` // a VirtualMachine with such a disk each
	Markdown string         `json:"markdown"` // all of it, as README.md has it
	file     *edit
	lock     func(context.Context) (func(), error)
}

// TryMe makes it for a release: FLAVOR is its newest, FLAVOR:RELEASE that one. The registry is asked what is published.
// Errors are *NotStarted, or those of the registry.
func (e *Engine) TryMe(ctx context.Context, text string) (*TryMe, error) {
	s, err := parseSelector(text)
	if err != nil {
		return nil, &NotStarted{err}
	}
	i := slices.IndexFunc(e.cfg.Catalog.Flavors, func(f catalog.Flavor) bool { return f.ID == s.flavor })
	if i < 0 {
		_, _, err := e.chosen(Selection{Only: []string{text}}, true)
		if err == nil {
			err = notStarted("%q: name one flavor", text)
		}
		return nil, err
	}
	f := &e.cfg.Catalog.Flavors[i]
	targets, others := e.targets(e.lineup(ctx, nil, f, Resolve), nil)
	targets = slices.DeleteFunc(targets, func(t Target) bool {
		return !match(s.arch, string(t.Arch)) || s.release == "*" && !t.Newest || !match(s.release, t.Release.Version)
	})
	if len(targets) == 0 {
		why := "no release of it is known: look at upstreams first (kmi-tui --batch --plan --only " + f.ID + ")"
		if len(others) > 0 {
			why = others[0].Reason
		}
		return nil, notStarted("%s: %s", text, why)
	}
	release := targets[0].Release.Version
	targets = slices.DeleteFunc(targets, func(t Target) bool { return t.Release.Version != release })
	repo, err := e.registry.Repository(f.ID)
	if err != nil {
		return nil, err
	}
	t := &TryMe{Flavor: f.ID, Release: release, User: f.User, Name: label(f.ID + "-" + release)}
	t.Secret = t.Name + "-key"
	state, err := publish.Current(ctx, repo, release, targets[0].Arch)
	if err != nil {
		return nil, err
	}
	public := e.cfg.Catalog.Project.Public + "/" + f.ID
	t.Image = public + ":" + release
	if !strings.HasPrefix(e.cfg.Registry, "dir:") {
		public = repo.String()
		t.Image = public + ":" + release
	}
	if state != nil {
		t.Image, t.Pinned = public+"@"+state.Index.Digest.String(), true
	}
	r := targets[0].Release
	machine := func(a catalog.Arch) [2]string {
		instancetype, preference := f.Machine(r, a)
		return [2]string{instancetype, preference}
	}
	for _, target := range targets {
		if a := target.Arch; len(t.Machines) == 0 || machine(a) != machine(t.Machines[0]) { // else it is the same machine
			t.Machines = append(t.Machines, a)
		}
	}
	for _, a := range t.Machines {
		for list, disk := range map[*[]string]string{&t.YAML: "", &t.KeepYAML: size(e.cfg.Catalog.Project.DiskSize)} {
			manifest, err := t.manifest(f, r, a, disk)
			if err != nil {
				return nil, err
			}
			*list = append(*list, manifest)
		}
		t.Create, t.Keep = append(t.Create, t.command(f, r, a, "--volume-containerdisk=src:"+t.Image)), append(t.Keep, t.command(f, r, a, "--volume-import=type:registry,url:docker://"+t.Image+",size:"+size(e.cfg.Catalog.Project.DiskSize)))
	}
	t.Markdown = t.markdown(f)
	t.lock = e.editing
	if t.file, err = openEdit(filepath.Join(filepath.Dir(e.cfg.Catalog.Path), "README.md")); err != nil {
		t.file = nil
	}
	return t, nil
}

var notLabel = regexp.MustCompile(`[^a-z0-9-]+`)

// label is a name of Kubernetes' (RFC 1123, a DNS label).
func label(text string) string {
	l := strings.Trim(notLabel.ReplaceAllString(strings.ToLower(text), "-"), "-")
	return strings.Trim(l[:min(len(l), 50)], "-")
}

// size is a size as Kubernetes writes it: "10GiB" is "10Gi".
func size(text string) string { return strings.TrimSuffix(text, "B") }

// The parts of a VirtualMachine that are used (KubeVirt's API, kubevirt.io/v1).
type (
	reference struct {
		Name string `yaml:"name"`
	}
	diskDevice struct {
		Name string            `yaml:"name"`
		Disk map[string]string `yaml:"disk"`
	}
	nic struct {
		Name       string   `yaml:"name"`
		Masquerade struct{} `yaml:"masquerade"` // stateless NAT; without it KubeVirt bridges
	}
	network struct {
		Name string   `yaml:"name"`
		Pod  struct{} `yaml:"pod"`
	}
	userData struct {
		UserData string `yaml:"userData"`
	}
	volume struct {
		Name          string            `yaml:"name"`
		ContainerDisk map[string]string `yaml:"containerDisk,omitempty"`
		DataVolume    *reference        `yaml:"dataVolume,omitempty"`
		NoCloud       *userData         `yaml:"cloudInitNoCloud,omitempty"`
		ConfigDrive   *userData         `yaml:"cloudInitConfigDrive,omitempty"`
	}
	credential struct {
		SSH struct {
			Source struct {
				Secret struct {
					SecretName string `yaml:"secretName"`
				} `yaml:"secret"`
			} `yaml:"source"`
			Propagation struct {
				Agent struct {
					Users []string `yaml:"users"`
				} `yaml:"qemuGuestAgent"`
			} `yaml:"propagationMethod"`
		} `yaml:"sshPublicKey"`
	}
	// A DataVolume, which the Containerized Data Importer fills (cdi.kubevirt.io/v1beta1).
	dataVolume struct {
		Metadata reference `yaml:"metadata"`
		Spec     struct {
			Source struct {
				Registry struct {
					URL string `yaml:"url"`
				} `yaml:"registry"`
			} `yaml:"source"`
			Storage struct {
				Resources struct {
					Requests map[string]string `yaml:"requests"`
				} `yaml:"resources"`
			} `yaml:"storage"`
		} `yaml:"spec"`
	}
	virtualMachine struct {
		APIVersion string    `yaml:"apiVersion"`
		Kind       string    `yaml:"kind"`
		Metadata   reference `yaml:"metadata"`
		Spec       struct {
			RunStrategy  string       `yaml:"runStrategy"`
			Instancetype *reference   `yaml:"instancetype,omitempty"`
			Preference   *reference   `yaml:"preference,omitempty"`
			DataVolumes  []dataVolume `yaml:"dataVolumeTemplates,omitempty"`
			Template     struct {
				Spec struct {
					Architecture string `yaml:"architecture,omitempty"`
					Domain       struct {
						Memory  map[string]string `yaml:"memory,omitempty"` // guest: where no instancetype has it
						Devices struct {
							Disks      []diskDevice `yaml:"disks"`
							Interfaces []nic        `yaml:"interfaces"`
							RNG        struct{}     `yaml:"rng"`
						} `yaml:"devices"`
					} `yaml:"domain"`
					Networks    []network    `yaml:"networks"`
					Credentials []credential `yaml:"accessCredentials,omitempty"`
					Volumes     []volume     `yaml:"volumes"`
				} `yaml:"spec"`
			} `yaml:"template"`
		} `yaml:"spec"`
	}
)

// emptyIgnition is a configuration that changes nothing (coreos.github.io/ignition, version 3.4.0).
const emptyIgnition = `{"ignition": {"version": "3.4.0"}}`

// manifest is a VirtualMachine for an architecture: its disk stays, with a size, or it is made anew at each start: "".
func (t *TryMe) manifest(f *catalog.Flavor, r *catalog.Release, a catalog.Arch, disk string) (string, error) {
	vm := virtualMachine{APIVersion: "kubevirt.io/v1", Kind: "VirtualMachine", Metadata: reference{t.Name}}
	vm.Spec.RunStrategy = "Always"
	instancetype, preference := f.Machine(r, a)
	if instancetype != "" {
		vm.Spec.Instancetype = &reference{instancetype}
	}
	if preference != "" {
		vm.Spec.Preference = &reference{preference}
	}
	spec := &vm.Spec.Template.Spec
	if len(t.Machines) > 1 {
		spec.Architecture = a.OCI()
	}
	if vm.Spec.Instancetype == nil {
		spec.Domain.Memory = map[string]string{"guest": memory(f, a)}
	}
	virtio := map[string]string{"bus": "virtio"}
	spec.Domain.Devices.Disks = []diskDevice{{"root", virtio}}
	spec.Domain.Devices.Interfaces = []nic{{Name: "default"}}
	spec.Networks = []network{{Name: "default"}}
	spec.Volumes = []volume{{Name: "root", ContainerDisk: map[string]string{"image": t.Image}}}
	if disk != "" {
		v := dataVolume{Metadata: reference{t.Name + "-root"}}
		v.Spec.Source.Registry.URL = "docker://" + t.Image
		v.Spec.Storage.Resources.Requests = map[string]string{"storage": disk}
		vm.Spec.DataVolumes = []dataVolume{v}
		spec.Volumes[0] = volume{Name: "root", DataVolume: &v.Metadata}
	}
	switch f.Provision {
	case "", "cloud-init":
		spec.Volumes = append(spec.Volumes, volume{Name: "config", NoCloud: &userData{"#cloud-config\n{}\n"}})
	case "ignition":
		spec.Volumes = append(spec.Volumes, volume{Name: "config", ConfigDrive: &userData{emptyIgnition}})
	}
	if len(spec.Volumes) > 1 {
		spec.Domain.Devices.Disks = append(spec.Domain.Devices.Disks, diskDevice{"config", virtio})
	}
	if t.User != "" {
		var c credential
		c.SSH.Source.Secret.SecretName = t.Secret
		c.SSH.Propagation.Agent.Users = []string{t.User}
		spec.Credentials = []credential{c}
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(vm); err != nil {
		return "", err
	}
	return b.String(), enc.Close()
}

// memory is that of a machine for which the row names no instancetype, and which KubeVirt would refuse without: what the boot
// test gives it, or else what u1.small has.
func memory(f *catalog.Flavor, a catalog.Arch) string {
	if f.Origin != nil && f.Origin.Boot[a].Memory > 0 {
		return fmt.Sprintf("%dMi", f.Origin.Boot[a].Memory)
	}
	return "2Gi"
}

// command makes the machine by virtctl.
func (t *TryMe) command(f *catalog.Flavor, r *catalog.Release, a catalog.Arch, volume string) string {
	words := []string{"virtctl create vm", "--name=" + t.Name}
	instancetype, preference := f.Machine(r, a)
	if instancetype != "" {
		words = append(words, "--instancetype="+instancetype)
	} else {
		words = append(words, "--memory="+memory(f, a))
	}
	if preference != "" {
		words = append(words, "--preference="+preference)
	}
	words = append(words, volume)
	if t.User != "" {
		words = append(words, "--user="+t.User, "--access-cred=src:"+t.Secret)
	}
	return strings.Join(words, " ") + " | kubectl create -f -"
}

// key and login are the commands around it.
func (t *TryMe) key() string {
	return "kubectl create secret generic " + t.Secret + " --from-file=key1=$HOME/.ssh/id_ed25519.pub"
}

func (t *TryMe) login() string { return "virtctl ssh " + t.User + "@vm/" + t.Name }

func (t *TryMe) markdown(f *catalog.Flavor) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s %s\n\n", f.Name, t.Release)
	if !t.Pinned {
		b.WriteString("Not published yet: this names the tag it will have.\n\n")
	}
	block := func(kind, text string) { fmt.Fprintf(&b, "```%s\n%s\n```\n\n", kind, strings.TrimRight(text, "\n")) }
	if t.User != "" {
		block("sh", t.key())
	}
	for i, a := range t.Machines {
		if len(t.Machines) > 1 {
			fmt.Fprintf(&b, "On %s:\n\n", a)
		}
		block("sh", t.Create[i])
		b.WriteString("The same as a manifest; the network is NAT, and the disk forgets what was written to it when the machine stops:\n\n")
		block("yaml", t.YAML[i])
		b.WriteString("With a disk that stays:\n\n")
		block("sh", t.Keep[i])
	}
	if t.User != "" {
		block("sh", t.login())
	}
	return b.String()
}

// Text is all of it for a terminal: manifests with disks that stay, or with ones that are made anew at each start.
func (t *TryMe) Text(keep bool) string {
	manifests, commands := t.YAML, t.Create
	if keep {
		manifests, commands = t.KeepYAML, t.Keep
	}
	var b strings.Builder
	if !t.Pinned {
		fmt.Fprintf(&b, "# %s is not published yet: this names the tag it will have\n", t.Flavor)
	}
	if t.User != "" {
		fmt.Fprintf(&b, "# keys:  %s\n# login: %s\n", t.key(), t.login())
	}
	for i := range t.Machines {
		fmt.Fprintf(&b, "# %s, in one line: %s\n---\n%s", t.Machines[i], commands[i], manifests[i])
	}
	return b.String()
}

// Commands are the same for a shell: the key, a machine by architecture, with a disk that is made anew at each start and with
// one that stays, and the login.
func (t *TryMe) Commands() string {
	var b strings.Builder
	if t.User != "" {
		fmt.Fprintf(&b, "# the ssh key that may log in\n%s\n", t.key())
	}
	for i, a := range t.Machines {
		fmt.Fprintf(&b, "# %s, with a disk that forgets what was written to it when the machine stops\n%s\n# %s, with a disk that stays\n%s\n", a, t.Create[i], a, t.Keep[i])
	}
	if t.User != "" {
		fmt.Fprintf(&b, "# log in\n%s\n", t.login())
	}
	return b.String()
}

// Diff is what Write would change in README.md, unified.
func (t *TryMe) Diff() (string, error) {
	if t.file == nil {
		return "", &NotStarted{event.WithRemedy(fmt.Errorf("there is no README.md beside the catalogue"), "write one, or take the text without --write")}
	}
	var err error
	if t.file.new, err = readme.SetBlock(t.file.old, t.Flavor, t.Markdown); err != nil {
		return "", &NotStarted{fmt.Errorf("%s: %w", t.file.path, err)}
	}
	return diff([]edit{*t.file}), nil
}

// Write puts it into README.md, between the flavor's marks, and leaves every other byte alone. It is refused if the file
// has changed since it was read.
func (t *TryMe) Write(ctx context.Context) error {
	if _, err := t.Diff(); err != nil {
		return err
	}
	return writeEdits(ctx, t.lock, []edit{*t.file})
}
