# shellcheck shell=bash disable=SC2154 # topology.sh assigns them
# /sys/fs/bpf, where the eBPF data path pins its maps. Containers often lack it.

bpffs=/sys/fs/bpf

bpffs_up() {
    # The name tells this mount from the machine's own. Where it is not allowed, the programs say
    # what they do instead.
    [[ $(stat -f -c %T "$bpffs" 2>/dev/null) == bpf_fs ]] ||
        mount -t bpf l3dsr-lab "$bpffs" 2>/dev/null || true
    mkdir -p "$bpffs/$lab_name-lab" 2>/dev/null || true # so that no other lab unmounts it
}

# Before the namespaces go: a program's directory is named after the one it ran in.
bpffs_down() {
    local host
    for host in "${hosts[@]}"; do
        [[ ! -e /run/netns/$lab_name-$host ]] ||
            rm -rf "$bpffs/l3dsr/"*"-$(stat -c %i "/run/netns/$lab_name-$host")"
    done
    rmdir "$bpffs/$lab_name-lab" 2>/dev/null || true
    rmdir --ignore-fail-on-non-empty "$bpffs/l3dsr" 2>/dev/null || true
    grep -q "^l3dsr-lab $bpffs " /proc/mounts || return 0
    # Unless somebody else has pinned something; *.debug are the kernel's own.
    if [[ -z $(find "$bpffs" -mindepth 1 ! -name '*.debug') ]]; then
        umount "$bpffs"
    fi
}
