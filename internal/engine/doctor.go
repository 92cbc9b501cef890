package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/ContainerCraft/kmi-tui/internal/engine/boot"
	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Health is what one check of the host found.
type Health struct {
	Name     string  `json:"name"`
	OK       bool    `json:"ok"`
	Required bool    `json:"required"` // without it the stages in Needed cannot run
	Needed   []Stage `json:"needed"`
	Origin   string  `json:"origin,omitempty"` // of the disks that need it: "packages", "image"; "" for all
	Detail   string  `json:"detail"`
	Remedy   string  `json:"remedy,omitempty"`
}

// programs tells which programs of the field a stage calls.
var programs = []struct {
	name   string
	stages []Stage
	origin string
}{
	{"apt-get", []Stage{Resolve}, "packages"},
	{"apt-cache", []Stage{Resolve}, "packages"},
	{"mmdebstrap", []Stage{Customise}, "packages"},
	{"unshare", []Stage{Customise}, "packages"},
	{"mkfs.ext4", []Stage{Customise}, "packages"},
	{"mkfs.vfat", []Stage{Customise}, "packages"},
	{"mmd", []Stage{Customise}, "packages"},
	{"mcopy", []Stage{Customise}, "packages"},
	{"qemu-img", []Stage{Test}, ""},
	{"xorriso", []Stage{Test}, ""},
}

// hostArch is this machine's architecture as the chart spells it.
func hostArch() catalog.Arch {
	if runtime.GOARCH == "amd64" {
		return catalog.X86_64
	}
	return catalog.Arch(runtime.GOARCH)
}

// Doctor says what this host can do.
func (e *Engine) Doctor(ctx context.Context) []Health {
	var list []Health
	for _, p := range programs {
		h := program(p.name, p.stages)
		h.Origin = p.origin
		list = append(list, h)
	}
	for _, name := range []string{"xz", "bzip2"} {
		h := program(name, []Stage{Fetch})
		if h.Required = false; !h.OK {
			h.Detail += ": what is packed by it is unpacked by a library, several times slower"
		}
		list = append(list, h)
	}
	list = append(list, program(boot.Program(hostArch()), []Stage{Test}))
	for _, firmware := range []string{"bios", "uefi"} {
		h := Health{Name: "firmware " + firmware, Required: true, Needed: []Stage{Test}, OK: true, Detail: "found"}
		if err := boot.Firmware(hostArch(), firmware); err != nil {
			h.OK = false
			h.Detail, h.Remedy = explain(err)
		}
		list = append(list, h)
	}
	accel, why := boot.Accelerator(ctx)
	list = append(list, Health{Name: "accelerator", OK: accel == "kvm", Needed: []Stage{Test}, Detail: accel + ": " + why,
		Remedy: "without KVM the boot test is emulated: correct, but minutes instead of seconds"})
	for _, way := range catalog.Ways {
		h := Health{Name: "way " + way, Needed: []Stage{Customise}, Origin: "image", OK: true, Detail: "upstreams' disks can be customised by it"}
		if err := e.host.Can(ctx, way, hostArch()); err != nil {
			h.OK = false
			h.Detail, h.Remedy = explain(err)
		}
		list = append(list, h)
	}
	root := Health{Name: "rights", Required: true, Needed: []Stage{Customise}, Origin: "packages", OK: true, Detail: "root"}
	if os.Geteuid() != 0 {
		root.Detail = "an ordinary user, with subordinate ids"
		if err := command.Subordinate(); err != nil {
			root.OK = false
			root.Detail, root.Remedy = explain(err)
		}
	}
	return append(list, root)
}

func program(name string, stages []Stage) Health {
	h := Health{Name: name, Required: true, Needed: stages}
	found, err := command.Look(name)
	if h.OK = err == nil; h.OK {
		h.Detail = found
	} else {
		h.Detail, h.Remedy = explain(err)
	}
	return h
}

// explain splits an error into what happened and what to do.
func explain(err error) (what, remedy string) {
	var r *event.Remedied
	if errors.As(err, &r) {
		remedy = r.Remedy
	}
	return err.Error(), remedy
}

// preflight is a *NotStarted when the host lacks what the stages up to the last one need for disks of these origins.
func (e *Engine) preflight(ctx context.Context, last Stage, origins []string) error {
	until := slices.Index(Stages, last)
	var missing, packages []string
	for _, h := range e.Doctor(ctx) {
		needed := slices.ContainsFunc(h.Needed, func(s Stage) bool { return slices.Index(Stages, s) <= until })
		if h.OK || !h.Required || !needed || h.Origin != "" && !slices.Contains(origins, h.Origin) {
			continue
		}
		missing = append(missing, fmt.Sprintf("%s (stage %s): %s", h.Name, join(h.Needed), h.Detail))
		if p, ok := strings.CutPrefix(h.Remedy, "install it: apt-get install --no-install-recommends "); ok {
			if !slices.Contains(packages, p) {
				packages = append(packages, p)
			}
		} else if h.Remedy != "" {
			missing[len(missing)-1] += " — " + h.Remedy
		}
	}
	if len(missing) == 0 {
		return nil
	}
	err := fmt.Errorf("this machine lacks what the run needs: %s", strings.Join(missing, "; "))
	if len(packages) > 0 {
		err = event.WithRemedy(err, "apt-get install --no-install-recommends %s", strings.Join(packages, " "))
	}
	return &NotStarted{err}
}
