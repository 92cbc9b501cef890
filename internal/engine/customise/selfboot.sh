# Run by cloud-init, as root, in the guest's own boot, before there is any network or service: see selfboot.go. Before
# this come: end (the word that only the host and this know), address (the guest's own), grow ("yes" if the root has to
# fill its partition) and script (the text to run). POSIX sh; with busybox, too.
cd /
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec </dev/null

# until_true COMMAND…: for a minute, every second.
until_true() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || return 1
        sleep 1
    done
}

# finish CODE: the host ends the machine then.
finish() {
    echo "$end $1"
    while :; do sleep 60; done
}

# log_port: everything that is said from here on goes to the host by a port of its own.
log_port() {
    for file in /sys/class/virtio-ports/*/name; do
        [ -f "$file" ] && [ "$(cat "$file")" = org.kmi.log ] || continue
        file=${file%/name} port=/dev/${file##*/}
        [ -c "$port" ] && return
    done
    return 1
}
out_disk() {
    for file in /sys/block/*/serial; do
        [ -f "$file" ] && [ "$(cat "$file")" = kmi-out ] || continue
        file=${file%/serial} out=/dev/${file##*/}
        [ -b "$out" ] && return
    done
    return 1
}
udevadm settle --timeout=60 2>/dev/null
modprobe -q virtio_console 2>/dev/null
until_true log_port || {
    echo "the port org.kmi.log is missing" >/dev/console
    poweroff -ff || poweroff -f
}
exec >"$port" 2>&1
until_true out_disk || { echo "the disk for the results is missing"; finish 1; }

# The guest's file systems, all of them.
mounted() { systemctl -q is-active local-fs.target; }
[ ! -d /run/systemd/system ] || until_true mounted || echo "its file systems are not all mounted after a minute"
[ ! -f /etc/fstab ] || mount -a || :
# systemd puts the identity of a first boot over the file of an unborn one.
umount /etc/machine-id 2>/dev/null
# The journal stays in memory.
journalctl --relinquish-var 2>/dev/null

# filled: the root's file system fills its partition.
filled() {
    while read -r _ _ number _ point rest; do
        [ "$point" = / ] || continue
        rest=${rest#* - } device=$(readlink "/sys/dev/block/$number")
        kind=${rest%% *} device=/dev/${device##*/}
    done </proc/self/mountinfo
    case $kind in
    ext*) resize2fs "$device" ;;
    xfs) xfs_growfs / >/dev/null ;;
    btrfs) btrfs filesystem resize max / ;;
    esac
}
[ "$grow" != yes ] || filled || { sleep 5; filled; } || { echo "its root file system does not grow"; finish 1; }

# Nobody else has configured the network, and nothing of it stays: this is the kernel's only.
connected() {
    for card in /sys/class/net/*; do
        [ -e "$card/device" ] || continue
        card=${card##*/}
        if command -v ip >/dev/null; then
            ip link set dev "$card" up
            ip address add "$address" dev "$card" || ip address show dev "$card" | grep -q "${address%/*}"
        else
            ifconfig "$card" "${address%/*}" netmask 255.255.255.0 up
        fi
        return
    done
    return 1
}
until_true connected || { echo "its network card is missing"; finish 1; }

# Services are not started: systemctl does what it does in a folder that is not the running system, and does not wait
# for a boot that waits for this.
mkdir -p /run/kmi && printf %s "$script" >/run/kmi/script
(export SYSTEMD_OFFLINE=1 && exec sh /run/kmi/script "$out")
code=$?
[ $code = 0 ] || finish $code

# What this boot has started and written, which a disk that was never booted has not.
if [ -d /run/systemd/system ]; then
    running=
    for unit in $(systemctl list-units --type=service --state=running --no-legend --plain | cut -d ' ' -f 1); do
        case $unit in systemd-journald.service | cloud-init*) ;; *.service) running="$running $unit" ;; esac
    done
    [ -z "$running" ] || timeout 60 systemctl stop $running || :
fi
journalctl --relinquish-var 2>/dev/null
if command -v selinuxenabled >/dev/null && selinuxenabled; then restorecon -R /etc /root /boot /var; fi
if [ -f /etc/resolv.conf ] && [ ! -L /etc/resolv.conf ] && grep -q "${address%.*}" /etc/resolv.conf; then : >/etc/resolv.conf; fi
while read -r name value; do
    [ "$name" != btime ] || { touch -d "@$value" /run/kmi/boot; booted=$value; }
done </proc/stat
for file in /var/cache/apparmor/*; do
    [ ! "$file" -nt /run/kmi/boot ] || rm -rf "$file"
done
for file in /etc/.updated /var/.updated; do # systemd-update-done gives them the time of /usr
    [ ! -f "$file" ] || [ "$(stat -c %Z "$file")" -lt "$booted" ] || rm -f "$file"
done
# cloud-init has its logs open, and a file that is removed while it is open is not gone. Under systemd it ends here,
# when this is no longer one of the processes that end with it, and what waits for it is not started.
leave() {
    [ -d /run/systemd/system ] || return 1
    for group in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/systemd/cgroup.procs; do
        [ ! -f "$group" ] || echo $$ >"$group"
    done
    ! grep -q cloud /proc/self/cgroup && systemctl cancel && kill -9 $PPID
}
unheld() { ! ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q ' /var/log/cloud-init'; }
if leave && until_true unheld; then
    rm -f /var/log/cloud-init*.log
else
    for file in /var/log/cloud-init*.log; do
        [ ! -f "$file" ] || : >"$file"
    done
fi
rm -rf /var/lib/cloud /var/log/journal/* /var/lib/systemd/random-seed /var/lib/systemd/timesync /var/lib/private/systemd/timesync \
    /var/lib/systemd/timers/stamp-* /tmp/* /tmp/.[!.]*

echo "kmi-part: discard free space"
sync
while read -r device point rest; do
    case $device in /dev/*) fstrim "$point" 2>&1 || [ "$point" != / ] || echo "free space is not discarded" ;; esac
done </proc/mounts

# Read-only at once, and never up again: nobody writes after this.
sync
readonly_now() {
    busy=
    while read -r device point kind options rest; do
        case $device:$options in
        /dev/*:ro | /dev/*:ro,*) ;;
        /dev/*) busy=1 ;;
        esac
    done </proc/mounts
    [ -z "$busy" ]
}
if [ -e /proc/sysrq-trigger ]; then
    echo u >/proc/sysrq-trigger
else
    mount -a -o remount,ro
fi
until_true readonly_now || { echo "its file systems do not become read-only"; finish 1; }
echo "kmi-part: done"
finish 0
