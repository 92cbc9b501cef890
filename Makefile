# kmi-tui. Two commands do all the set-up on Debian 12 with Go: `make quickstart` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
GO ?= go
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# What a build and a boot test need of the host, and what the tests need besides.
HOST := mmdebstrap apt gpgv util-linux uidmap e2fsprogs dosfstools mtools qemu-utils qemu-system-x86 ovmf seabios ipxe-qemu xorriso bubblewrap fdisk
TEST := $(HOST) docker-registry busybox-static tmux git ca-certificates xfsprogs btrfs-progs libguestfs-tools linux-image-cloud-amd64 supermin podman runc
GUEST := $(TEST) policycoreutils attr
FOREIGN := $(TEST) qemu-system-arm qemu-efi-aarch64 qemu-user-static binfmt-support arch-test
BENCH := $(TEST) guestfs-tools curl xz-utils
# QEMU's other firmwares, sounds and desktops are recommendations that nothing here uses.
# dpkg-query fails as soon as one package is unknown to it, which on a new machine is the rule: then it is to be installed.
install = missing=$$({ dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $(1) 2>/dev/null || true; } | awk '$$2 == "installed" {print $$1}' | sort | comm -13 - <(printf '%s\n' $(1) | sort)); \
	if [ -n "$$missing" ]; then echo "installing:" $$missing; $(SUDO) apt-get -qq update; \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; fi

.PHONY: pictures all build host quickstart test short install-test plain guest-test emulated-test real job bench clean
all: build

build: ## build ./kmi-tui
	$(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o kmi-tui ./cmd/kmi-tui

host: ## install the host tools that a release needs
	@$(call install,$(HOST))

quickstart: host build ## the main job on debian:12, into an OCI layout in ./images
	@echo "The base image is built here from Debian's archive (busybox), so that no registry is needed; a release uses the one of distros.toml."
	./kmi-tui --batch --only debian:12 --registry dir:images --base built
	./kmi-tui verify dir:images/debian:12
	@echo
	@echo "Look at it:"
	@echo "  ./kmi-tui                                   the console"
	@echo "  ./kmi-tui verify dir:images/debian:12       what a user checks"
	@echo "  podman run --rm oci:images/debian:12 json   the image's metadata"
	@echo "  cat images/debian/index.json                the OCI layout"

test: ## everything: unit tests, the console, and the real job (build, boot, sign, publish, verify)
	@$(call install,$(TEST))
	$(GO) vet ./...
	$(GO) test -timeout 20m ./internal/...
	@echo "Now the program as its users call it, and the real job: some minutes without KVM."
	$(MAKE) plain
	$(REAL) -timeout 40m ./cmd/...
	@echo "Now an upstream's disk in every way of customising, compared file by file."
	$(REAL) -timeout 40m -run TestWaysAgree ./internal/engine/customise

short: ## unit tests only
	$(GO) test -short ./...

install-test: ## a real unattended installation, up to an hour without KVM: make install-test KMI_TEST_MIRROR=http://HOST/FOLDER
	@$(call install,$(TEST))
	KMI_TEST_INSTALL=1 $(GO) test -v -timeout 4h -run 'TestARealInstallation|TestMedia' ./internal/engine/install

# A Debian disk without the default packages, as a distribution would publish it.
PLAIN ?= debian:12/x86_64
DISK = dist/$(subst /,-,$(subst :,-,$(PLAIN))).qcow2
REAL = KMI_TEST_TARGET=$(PLAIN) KMI_TEST_DISK=$(CURDIR)/$(DISK) $(GO) test -v
plain: build
	@mkdir -p dist && awk 'BEGIN {RS = "\n\\[\\[flavor\\]\\]\n"} NR == 1 {sub(/packages += [^\n]*/, "packages = []"); print} /^id += "debian"/ {print "[[flavor]]\n" $$0}' distros.toml >dist/plain.toml
	./kmi-tui --batch --only $(PLAIN) --until customise --catalog dist/plain.toml --cache $(basename $(DISK))
	ln -sf $$(ls -t $(basename $(DISK))/disks/*/disk.qcow2 | head -1 | cut -d/ -f2-) $(DISK)

guest-test: ## package managers, SELinux and cancelling on real guests, both releases in every way, half an hour: for who changes how disks are customised
	@$(call install,$(GUEST))
	$(MAKE) real TESTS='TestSELinux|TestPackageManagers|TestWaysAgree|TestCancelTheSlowWays'
	$(MAKE) real PLAIN=debian:13/x86_64 TESTS=TestWaysAgree

emulated-test: ## a disk of another architecture, made, customised in two ways, booted and published by emulation: an hour or two, most of it to make the disk
	@$(call install,$(FOREIGN))
	@[ -e /proc/sys/fs/binfmt_misc/register ] || $(SUDO) mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	@[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || $(SUDO) update-binfmts --enable qemu-aarch64
	$(MAKE) real job PLAIN=debian:12/arm64 TESTS=TestWaysAgree

real: plain
	$(REAL) -timeout 6h -run '$(TESTS)' ./internal/engine/customise
job: plain
	$(REAL) -timeout 6h -run TestAnUpstreamDisk ./cmd/kmi-tui

bench: ## every way of customising beside the chain of libguestfs' tools, pushing, pulling, the console, and the other benchmarks; half an hour without KVM
	@$(call install,$(BENCH))
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./internal/engine
	$(GO) test -run '^$$' -bench . -benchtime 2x -timeout 30m ./internal/engine/disk ./internal/engine/fetch
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 30m ./internal/engine/publish
	$(GO) test -run '^$$' -bench . -timeout 30m ./internal/engine/event ./internal/ui
	KMI_TEST_FLOOD_SECONDS=30 $(GO) test -run 'TestSixPanes|FirstFrame' -v ./internal/ui

pictures: build ## the pictures of README.md, made anew
	@$(call install,tmux)
	GO=$(GO) docs/pictures/make.sh

clean:
	rm -rf kmi-tui dist
