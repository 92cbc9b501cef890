# Runs as root of the tree, in namespaces of its own, without network: finish.sh ROOT OUT GRUB-PLATFORM EPOCH
root=$1 out=$2 platform=$3 epoch=$4

# The catalogue's files, owned by root, with their modes.
# Unpacked from inside: links of the tree lead nowhere else.
tar -C overlay --owner=0 --group=0 -cf - . | chroot "$root" tar -xf - -C / --no-overwrite-dir --keep-directory-symlink
while read -r mode path; do chroot "$root" chmod "$mode" "$path"; done <modes

# The catalogue's commands.
cp commands "$root/tmp/.commands"
chroot "$root" /bin/sh /tmp/.commands </dev/null
rm "$root/tmp/.commands"

# What the boot loaders are made of.
mkdir -p "$out/efi"
while read -r from to; do
    mkdir -p "$out/efi/$(dirname "$to")"
    chroot "$root" cat "$from" >"$out/efi/$to"
done <efi
if [ -n "$platform" ]; then
    cp early.cfg "$root/tmp/early.cfg"
    chroot "$root" grub-mkimage -O "$platform" -o /tmp/core.img -c /tmp/early.cfg -p /boot/grub \
        biosdisk part_gpt ext2 search search_fs_uuid normal linux configfile echo test
    chroot "$root" cat /tmp/core.img >"$out/core.img"
    chroot "$root" cat "/usr/lib/grub/$platform/boot.img" >"$out/boot.img"
    rm "$root/tmp/core.img" "$root/tmp/early.cfg"
fi

# What is inside, and its licences.
chroot "$root" dpkg-query -W -f '${binary:Package} ${Version} ${Architecture} ${Installed-Size}\n' >"$out/packages"
# Sizes are told in KiB, or not at all, by whoever made the package.
awk '{ printf "%s %s %s %.0f\n", $1, $2, $3, $4 ~ /^[0-9]+$/ && length($4) <= 12 ? $4 * 1024 : 0 }' "$out/packages" >"$out/packages.txt"
mkdir -p "$out/licenses"
while read -r glob; do
    [ -n "$glob" ] || continue
    chroot "$root" /bin/sh -c 'cd / && tar -chf - --ignore-failed-read $1 2>/dev/null' sh "${glob#/}" | tar -xf - -C "$out/licenses"
done <licences

# What must not be the same on two machines, and what a first boot would have to clean up.
rm -f "$root"/etc/ssh/ssh_host_* "$root"/var/lib/dbus/machine-id "$root"/var/lib/systemd/random-seed "$root"/etc/hostname \
    "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$root"/etc/apt/apt.conf.d/99mmdebstrap
echo uninitialized >"$root/etc/machine-id"
rm -rf "$root"/var/lib/cloud/* "$root"/tmp/* "$root"/tmp/.[!.]* "$root"/var/tmp/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old \
    "$root"/var/lib/apt/lists/* "$root"/var/lib/dpkg/*-old "$root"/run/* "$root"/root/.bash_history "$root"/var/cache/ldconfig/aux-cache
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
# The kernel fills /dev; what a build can make there depends on who builds.
find "$root/dev" -mindepth 1 -delete
find "$root/var/log" -type f -exec truncate -s 0 {} +

# Nothing is newer than its upstream.
find "$root" -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +
