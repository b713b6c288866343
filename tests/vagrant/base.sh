# shellcheck shell=bash disable=SC2154 # settings.sh assigns them
# The root that every box is a copy of: Debian 12 by debootstrap, and what a box from the registry has
# besides. Made once, by this version of the file. What this machine needs to reach its registries is taken over each time.

base_up() {
    [[ $(cat "$base/made_by" 2>/dev/null) == $(sha256sum <"$here/base.sh") ]] || make_base
    take_over_registries
    install -D -m 644 "$lab/ssh_key.pub" "$base/home/vagrant/.ssh/authorized_keys"
    chroot "$base" chown -R vagrant: /home/vagrant
}

make_base() {
    local mirror
    # shellcheck disable=SC2016 # apt's own variables
    mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "bookworm" && !found++ { print $2 }')
    [[ $mirror ]] || die "this machine has no apt source of Debian 12"
    echo "debootstrap: Debian 12, once ..."
    rm -rf "$base"
    debootstrap --include=sudo,openssh-server,dbus,rsync,ca-certificates \
        bookworm "$base" "$mirror" >"$lab/log/debootstrap.log" || die "see $lab/log/debootstrap.log"

    chroot "$base" useradd --create-home --shell /bin/bash vagrant
    echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$base/etc/sudoers.d/vagrant"
    # On a virtual machine systemd mounts it by itself; systemd-nspawn lacks the very directory.
    cat >"$base/etc/systemd/system/bpffs.service" <<'END'
[Unit]
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=sh -ec 'mount -o remount,rw /sys; mount -m -t bpf -o mode=700 bpf /sys/fs/bpf; mount -o remount,ro /sys'

[Install]
WantedBy=sysinit.target
END
    systemctl --quiet --root="$base" enable bpffs.service
    # Without udev, which a container lacks, there are no device units to wait for.
    sed '/sys-subsystem-net-devices/d' "$base/lib/systemd/system/ifup@.service" \
        >"$base/etc/systemd/system/ifup@.service"
    sha256sum <"$here/base.sh" >"$base/made_by"
}

take_over_registries() {
    local file
    rm -rf "$base"/etc/apt/sources.list "$base"/etc/apt/sources.list.d
    for file in /etc/apt/{sources.list,sources.list.d,preferences.d,keyrings,trusted.gpg.d} \
        /etc/pip.conf /etc/xdg/pip /root/.config/pip /root/.pip /etc/ssl/certs/ca-certificates.crt; do
        [[ ! -e $file ]] || (mkdir -p "$base${file%/*}" && cp -rLT "$file" "$base$file")
    done
    apt-config dump Acquire >"$base/etc/apt/apt.conf.d/90acquire"
    {
        printf '%s\n' "$proxies"
        # What can be found here only is no use there.
        env | grep -E '^(PIP_|SSL_CERT_FILE=)' | grep -v '^PIP_FIND_LINKS=/' || true
    } >"$base/etc/environment"
    echo 'nameserver 10.0.2.3' >"$base/etc/resolv.conf" # the uplink's
}
