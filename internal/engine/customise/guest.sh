# What the parts of customising are made of. POSIX sh, run by root inside the guest, with set -eu. Programs that a small
# system lacks (awk, find) are not used.

# Calls that KubeVirt makes (and those that a snapshot and a password need).
calls='guest-sync guest-sync-delimited guest-ping guest-info guest-get-time guest-shutdown guest-network-get-interfaces
guest-get-fsinfo guest-get-host-name guest-get-users guest-get-timezone guest-get-osinfo guest-fsfreeze-status
guest-fsfreeze-freeze guest-fsfreeze-thaw guest-set-user-password guest-ssh-get-authorized-keys
guest-ssh-add-authorized-keys guest-ssh-remove-authorized-keys'

# services_off, services_on: packages of dpkg's family start nothing meanwhile (policy-rc.d(8)).
services_off() {
    if [ -d /var/lib/dpkg ] && [ -d /usr/sbin ] && [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\n# of the build\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
    fi
}
services_on() {
    if [ -f /usr/sbin/policy-rc.d ] && grep -q '^# of the build' /usr/sbin/policy-rc.d; then rm /usr/sbin/policy-rc.d; fi
}

# allowed LIST: the list with every call that is needed; denied LIST: the list without any of them.
allowed() {
    list=$1
    for call in $calls; do
        case ,$list, in *,$call,*) ;; *) list=${list:+$list,}$call ;; esac
    done
    printf %s "$list"
}
denied() {
    rest=$1, list=
    while [ -n "$rest" ]; do
        call=${rest%%,*} rest=${rest#*,}
        for need in $calls; do [ "$call" != "$need" ] || call=; done
        list=$list${call:+${list:+,}$call}
    done
    printf %s "$list"
}

# listed LINE MARK FUNCTION: the line with the list that follows the mark rewritten.
listed() {
    head=${1%%"$2"*}$2 rest=${1#*"$2"} quoted=
    case $rest in '"'*) quoted='"' rest=${rest#?} ;; esac
    list=${rest%%[!a-z0-9,-]*}
    printf '%s%s%s%s\n' "$head" "$quoted" "$($3 "$list")" "${rest#"$list"}"
}

# agent_calls: opens what the agent's configuration keeps closed, no more than is needed: allow lists (Red Hat 9 and
# later, openSUSE) and deny lists (Red Hat 8, the agent's own file).
agent_calls() {
    for file in /etc/sysconfig/qemu-ga /etc/qemu/qemu-ga.conf /etc/default/qemu-guest-agent /etc/conf.d/qemu-guest-agent; do
        [ -f "$file" ] || continue
        while IFS= read -r line || [ -n "$line" ]; do
            case $line in
            '#'*) printf '%s\n' "$line" ;;
            *--allow-rpcs=*) listed "$line" --allow-rpcs= allowed ;;
            *--block-rpcs=*) listed "$line" --block-rpcs= denied ;;
            *--blacklist=*) listed "$line" --blacklist= denied ;;
            allow-rpcs=*) listed "$line" allow-rpcs= allowed ;;
            block-rpcs=*) listed "$line" block-rpcs= denied ;;
            blacklist=*) listed "$line" blacklist= denied ;;
            BLACKLIST_RPC=* | BLOCK_RPCS=*) listed "$line" "${line%%=*}=" denied ;;
            *) printf '%s\n' "$line" ;;
            esac
        done <"$file" >"$work/conf"
        cat "$work/conf" >"$file"
    done
}

# agent_on SERVICE: started at every boot.
agent_on() {
    if [ -d /etc/systemd/system ] && command -v systemctl >/dev/null; then
        systemctl -q enable "$1.service" >/dev/null 2>&1 || :
        state=$(systemctl is-enabled "$1.service" 2>/dev/null || :)
        case $state in
        enabled | static | indirect | alias | generated) ;; # static: a udev rule starts it when the port is there
        *) echo "the service $1 is not enabled: ${state:-there is none}"; return 1 ;;
        esac
    elif command -v rc-update >/dev/null; then
        rc-update -q add "$1" default
    elif command -v sysrc >/dev/null; then
        sysrc "$(printf %s "$1" | tr - _)_enable=YES"
    elif [ -x "/etc/init.d/$1" ]; then
        "/etc/init.d/$1" enable
    else
        echo "no service manager that is known: write commands in run, and agent into without"
        return 1
    fi
}

# selinux_on BOOLEAN: switches the boolean on in the policy that the guest loads at boot, where there is one.
selinux_on() {
    mode= type=
    [ ! -f /etc/selinux/config ] || while IFS='=' read -r name value; do
        case $name in SELINUX) mode=$value ;; SELINUXTYPE) type=$value ;; esac
    done </etc/selinux/config
    case $mode in enforcing | permissive) ;; *) echo "SELinux is not on"; return 0 ;; esac
    if ! grep -q "$1" "/etc/selinux/$type/policy/"policy.*; then
        echo "the policy $type has no boolean $1: nothing confines the agent by it"
        return 0
    fi
    if command -v selinuxenabled >/dev/null && selinuxenabled; then
        setsebool -P "$1" on
        return
    fi
    # Without a kernel that has SELinux: into the store, and the policy made anew from it.
    store=/var/lib/selinux/$type/active
    [ -d "$store" ] || store=/etc/selinux/$type/active
    [ -d "$store" ] || { echo "the policy's store is missing"; return 1; }
    if [ ! -f "$store/booleans.local" ] || ! grep -q "^$1=1" "$store/booleans.local"; then
        echo "$1=1" >>"$store/booleans.local"
    fi
    semodule -s "$type" -n -B
    grep -q "^$1=1" "$store/booleans.local"
    echo "SELinux stays $mode; $1 is on"
}

# console_on DEVICE: every way into the kernel names the serial console, last but for a screen's.
console_on() {
    found=
    for file in /boot/loader/entries/*.conf /efi/loader/entries/*.conf /boot/efi/loader/entries/*.conf /boot/grub/grub.cfg /boot/grub2/grub.cfg \
        /etc/kernel/cmdline /boot/extlinux.conf /boot/extlinux/extlinux.conf /boot/syslinux/syslinux.cfg /etc/update-extlinux.conf; do
        [ -f "$file" ] || continue
        case $file in
        */cmdline) sed -i -E "/console=$1/!s/\$/ console=tty0 console=$1,115200n8/" "$file" ;;
        */update-extlinux.conf) sed -i -E "/^default_kernel_opts=/{/console=$1/!s/\"\$/ console=$1,115200n8\"/;}" "$file" ;;
        *) sed -i -E "/^[[:space:]]*(linux|linux16|linuxefi|options|append|APPEND)[[:space:]]/{/console=$1/!{/[\$]kernelopts/!s/\$/ console=tty0 console=$1,115200n8/;};}" "$file" ;;
        esac
        ! grep -q "console=$1" "$file" || found=1
    done
    for file in /boot/grub2/grubenv /boot/grub/grubenv; do # blocks of 1024 bytes: grub's own program writes them
        [ ! -f "$file" ] || ! grep -q "console=$1" "$file" || found=1
    done
    # And so after the next update of the kernel.
    if [ -f /etc/default/grub ] && ! cat /etc/default/grub /etc/default/grub.d/*.cfg 2>/dev/null | grep -q "console=$1"; then
        sed -i -E "s/^(GRUB_CMDLINE_LINUX=\")(.*\")/\1console=tty0 console=$1,115200n8 \2/" /etc/default/grub
    fi
    [ -n "$found" ] || { echo "no boot loader's configuration that is known names the kernel's arguments: write commands in run, and console into without"; return 1; }
}

# kernel_arguments: programs that install kernels ask the running system for its arguments, which here is not the guest.
kernel_arguments() {
    [ ! -f /etc/kernel/cmdline ] && [ ! -f /usr/lib/kernel/cmdline ] || return 0
    for file in /boot/loader/entries/*.conf; do
        [ -f "$file" ] || continue
        while read -r name value; do
            case $name:$value in options:*'$'*) ;; options:*) mkdir -p /etc/kernel; printf '%s\n' "$value" >/etc/kernel/cmdline ;; esac
        done <"$file"
    done
}

# clean: what must not be the same on two machines, what tells of the build, and what a first boot would have to remove.
clean() {
    rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/misc/random-seed \
        /etc/udev/rules.d/70-persistent-net.rules /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid- \
        /root/.bash_history /root/.ash_history /root/.viminfo /root/.lesshst /var/cache/ldconfig/aux-cache
    if [ -e /etc/machine-id ] || [ -d /run/systemd ] || [ -d /etc/systemd ]; then
        echo uninitialized >/etc/machine-id
    fi
    rm -rf /var/lib/cloud /var/log/cloud-init*.log /var/log/journal/* /var/tmp/* /var/lib/NetworkManager/*.lease /var/lib/NetworkManager/secret_key /var/lib/NetworkManager/seen-bssids /var/lib/dhcp/* \
        /var/lib/dhclient/* /var/lib/dhcpcd/* /var/lib/systemd/coredump/* /var/spool/mail/* /var/crash/* /root/.ssh /root/.cache /root/.gnupg
    logs=/var/log
    while [ -n "$logs" ]; do # a list of folders, one after the other
        rest=
        for folder in $logs; do
            for file in "$folder"/*; do
                case $file in *' '*) continue ;; esac
                if [ -L "$file" ]; then
                    :
                elif [ -d "$file" ]; then
                    rest="$rest $file"
                elif [ -f "$file" ]; then
                    case $file in *.gz | *.xz | *.[0-9] | *.old) rm -f "$file" ;; *) : >"$file" ;; esac
                fi
            done
        done
        logs=$rest
    done
}
