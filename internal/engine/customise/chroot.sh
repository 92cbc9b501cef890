# Runs as root in namespaces of its own: chroot.sh PHASE. What is mounted here goes with them.
# mounts has a line "DEVICE FILE-SYSTEM OPTIONS POINT" for each of the guest's file systems, the outer ones first.
phase=$1
mkdir -p guest

# inside ARGUMENT…: the guest's own programs see the guest's files, a small /dev, and of the host nothing else. They keep
# the rights that package managers need and no others: with CAP_DAC_READ_SEARCH a file that is bound into the guest would
# open all of the host's (open_by_handle_at); seccomp refuses that call, too. (bwrap takes /proc/sys for read-only when its
# folder is; its files are not.)
inside() {
    bwrap --bind guest / --dev /dev $devices --proc /proc --ro-bind /proc/sys /proc/sys --ro-bind /sys /sys --tmpfs /run --dir /run/lock --perms 1777 --tmpfs /tmp \
        --ro-bind script /run/kmi/script --bind guest.tar /run/kmi/out.tar \
        --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try --hostname localhost --die-with-parent --new-session --clearenv --setenv PATH /usr/sbin:/usr/bin:/sbin:/bin \
        --cap-drop ALL --cap-add CAP_CHOWN --cap-add CAP_DAC_OVERRIDE --cap-add CAP_FOWNER --cap-add CAP_FSETID --cap-add CAP_KILL --cap-add CAP_SETGID --cap-add CAP_SETUID \
        --cap-add CAP_SETPCAP --cap-add CAP_SETFCAP --cap-add CAP_SYS_CHROOT --cap-add CAP_AUDIT_WRITE --cap-add CAP_MKNOD \
        --seccomp 9 --chdir / "$@" </dev/null 9<seccomp
}

: >guest.tar
options=rw
[ "$phase" != look ] || options=ro
points=
while read -r next type more point; do
    device=$next kind=$type # the last ones are needed after the loop
    # A link on the way would lead out of the guest.
    path=guest
    for name in $(echo "$point" | tr / ' '); do
        path=$path/$name
        if [ -L "$path" ] || { [ -e "$path" ] && [ ! -d "$path" ]; }; then echo "the guest's $point is no folder" >&2; exit 1; fi
        [ -d "$path" ] || mkdir "$path"
    done
    [ "$more" = - ] && more= || more=,$more
    # Online, ext4 grows for those only who may pass over limits (CAP_SYS_RESOURCE), which builders in containers may not.
    if [ "$path" = guest ] && [ "$phase" != look ] && [ -s grow ] && [ "$kind" = ext4 ]; then
        e2fsck -fp "$device" || [ $? -lt 4 ]
        resize2fs "$device"
    fi
    if ! mount -t "$kind" -o "$options,nodev,nosuid$more" "$device" "$path"; then
        [ "$kind" = vfat ] && ! grep -q "[[:space:]]vfat$" /proc/filesystems || exit 1
        # The boot loaders' own partition can stay as it is.
        echo "this host's kernel has no vfat: $point stays as upstream made it"
        continue
    fi
    points="$path $points"
    if [ "$path" = guest ] && [ "$phase" != look ] && [ -s grow ]; then
        case $kind in
        xfs) xfs_growfs guest >/dev/null ;;
        btrfs) btrfs -q filesystem resize max guest ;;
        esac
    fi
done <mounts
devices=$(cat devices)

if [ "$phase" = look ]; then
    # The root can be one of btrfs's subvolumes, which nothing but the boot loader knows of.
    if [ ! -e guest/etc ]; then
        for path in guest/*; do
            case ${path#guest/} in *[!A-Za-z0-9_@.-]*) continue ;; esac # a comma would be another option
            [ ! -L "$path" ] && [ -d "$path/etc" ] && [ -d "$path/usr" ] || continue
            umount guest
            mount -t "$kind" -o "ro,nodev,nosuid,subvol=${path#guest/}" "$device" guest
            echo "${path#guest/}" >look.subvolume
            break
        done
    fi
    for file in etc/os-release usr/lib/os-release etc/fstab etc/selinux/config; do
        # Read as the guest sees it: its links stay in it.
        inside /bin/sh -c 'exec 2>/dev/null; [ -f "$1" ] && cat "$1"' sh "/$file" | head -c 65536 >"$(echo "look.$file" | tr / _)" || :
    done
    exit
fi

inside /bin/sh /run/kmi/script /run/kmi/out.tar

if [ -s relabel ]; then
    echo "kmi-part: label the files"
    # The host's program reads copies: the guest's own could be links to what is the host's, or compiled for it to run.
    rm -rf contexts
    mkdir contexts
    for file in file_contexts file_contexts.local file_contexts.homedirs file_contexts.subs file_contexts.subs_dist; do
        inside /bin/sh -c 'exec 2>/dev/null; [ ! -f "$1" ] || cat "$1"' sh "/etc/selinux/$(cat relabel)/contexts/files/$file" | head -c 16777216 >"contexts/$file"
        [ -s "contexts/$file" ] || rm "contexts/$file"
    done
    setfiles -m -F -r guest contexts/file_contexts guest
fi
echo "kmi-part: discard free space"
for path in $points; do
    fstrim "$path" || [ "$path" != guest ] || exit 1 # not every file system can
done
for path in $points; do
    umount "$path"
done
echo "kmi-part: done"
