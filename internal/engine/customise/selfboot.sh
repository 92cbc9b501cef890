# Runs inside a guest that customises itself, as root: run END. What it says goes to the port org.kmi.log; the last line is
# END and the exit status.
end=$1
log=/dev/console out=
for port in /sys/class/virtio-ports/*; do
    if [ "$(cat "$port/name" 2>/dev/null)" = org.kmi.log ]; then log=/dev/${port##*/}; fi
done
for disk in /sys/block/vd*; do
    if [ "$(cat "$disk/serial" 2>/dev/null)" = kmi-out ]; then out=/dev/${disk##*/}; fi
done
exec >"$log" 2>&1 </dev/null

# The partition has been made larger already.
grow() {
    while read -r device point kind rest; do
        [ "$point" = / ] || continue
        case $kind in
        ext4) resize2fs "$device" ;;
        xfs) xfs_growfs / ;;
        btrfs) btrfs filesystem resize max / ;;
        esac
    done </proc/mounts
}
grow >/dev/null 2>&1 || : # cloud-init has done it, as a rule

# Nothing else may change the guest meanwhile, or write down what it was called.
for unit in apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service unattended-upgrades.service packagekit.service dnf-makecache.timer rsyslog.service; do
    systemctl stop "$unit" >/dev/null 2>&1 || :
done

code=0
sh /run/kmi/script "$out" || code=$?

# What this boot has made.
journalctl --relinquish-var >/dev/null 2>&1 || :
systemctl stop systemd-journal-flush.service systemd-timesyncd.service chronyd.service chrony.service >/dev/null 2>&1 || :
if command -v cloud-init >/dev/null; then cloud-init clean --logs --seed >/dev/null 2>&1 || :; fi
rm -rf /var/lib/cloud/* /var/log/journal/* /var/log/cloud-init*.log /etc/netplan/50-cloud-init.yaml /etc/systemd/network/10-cloud-init-* /etc/network/interfaces.d/50-cloud-init \
    /etc/NetworkManager/system-connections/cloud-init-* /etc/NetworkManager/conf.d/*cloud-init* /etc/sysconfig/network-scripts/ifcfg-eth0 /etc/sudoers.d/90-cloud-init-users \
    /etc/.updated /var/.updated /var/lib/systemd/timesync/clock /var/lib/systemd/random-seed /var/lib/systemd/timers/stamp-* /var/lib/dhcp/* /var/lib/dhcpcd/* /var/lib/systemd/network/* \
    /var/lib/private/systemd/* /run/log/journal/*
rm -rf /tmp/* /tmp/.[!.]* /var/tmp/systemd-private-* /var/cache/apparmor/*
rmdir /var/lib/cloud /var/lib/systemd/linger /var/lib/systemd/timers /var/lib/systemd/timesync 2>/dev/null || :
for file in /var/log/wtmp /var/log/btmp /var/log/lastlog /var/log/syslog /var/log/messages /var/log/kern.log /var/log/auth.log /var/log/daemon.log; do
    if [ -f "$file" ]; then : >"$file"; fi
done
[ ! -f /etc/machine-id ] || { umount /etc/machine-id 2>/dev/null || :; echo uninitialized >/etc/machine-id; }
echo "kmi-part: discard free space"
sync
fstrim / || fstrim -v /
fstrim -a 2>/dev/null || :
echo "$end $code"
# Read-only, then off: nobody says goodbye to a disk that is finished.
sync
echo s >/proc/sysrq-trigger
echo u >/proc/sysrq-trigger
sync
poweroff -f -f || poweroff -f || echo o >/proc/sysrq-trigger
sleep 60
echo o >/proc/sysrq-trigger
