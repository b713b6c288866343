#!/bin/bash
# Boxes without a hypervisor: a root of its own, in namespaces of its own, booting systemd. For
# provider.rb, by which Vagrant uses them.
#   box.sh boot NAME NUMBER PRIVATE_INTERFACES | running NAME | halt NAME | destroy NAME
# shellcheck disable=SC1091,SC2154
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
source "$here/cgroup.sh"

boot() { # NAME NUMBER PRIVATE_INTERFACES
    local name=$1 number=$2 interfaces=$3 tree options=() i
    tree=$(root_of "$name")
    if [[ ! -e $tree ]]; then
        mkdir -p "$lab/roots"
        cp -a "$base" "$tree.part"
        management_interface "$number" >"$tree.part/etc/network/interfaces"
        mv "$tree.part" "$tree"
    fi

    host_up "$name"
    attach "$name" management eth0
    for ((i = 1; i <= interfaces; i++)); do
        attach "$name" private "eth$i"
    done

    # Where systemd does not run on this machine, there is nobody to give the box a cgroup.
    [[ -d /run/systemd/system ]] || options+=(--keep-unit)
    mkdir -p "$lab/archives"
    (
        enter_cgroup "$name"
        export UNIFIED_CGROUP_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
        start_outside "$name" systemd-nspawn --quiet --register=no "${options[@]}" --boot \
            --directory="$tree" --machine="$name" --console=pipe --resolv-conf=off \
            --bind="$lab/archives:/var/cache/apt/archives" \
            --network-namespace-path="/run/netns/$lab_name-$name" --capability=all --system-call-filter=bpf
    )
}

management_interface() { # NUMBER
    cat <<END
source /etc/network/interfaces.d/*
auto lo
iface lo inet loopback
auto eth0
iface eth0 inet static
    address $management.$((10 + $1))/24
    gateway $management.1
END
}

running() { [[ -n $(pids_of_program "$1") ]]; }

stopped() { ! running "$1"; }

halt() {
    local pids
    mapfile -t pids < <(pids_of_program "$1")
    ((${#pids[@]} == 0)) || kill -s TERM "${pids[@]}" # an orderly shutdown, to systemd-nspawn
    await 30 stopped "$1" || echo "$1 does not shut down and is killed" >&2
    remove_cgroup "$1"
    [[ ! -e /run/netns/$lab_name-$1 ]] || ip netns delete "$lab_name-$1"
}

destroy() {
    halt "$1"
    rm -rf "$(root_of "$1")"
}

"$@"
