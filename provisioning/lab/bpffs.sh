# shellcheck shell=bash
# /sys/fs/bpf, where the eBPF data path pins its maps. Containers often lack it.

bpffs=/sys/fs/bpf

bpffs_up() {
    [[ $(stat -f -c %T "$bpffs" 2>/dev/null) != bpf_fs ]] || return 0
    # The name tells this mount from the machine's own. Where it is not allowed, the programs say
    # what they do instead.
    mount -t bpf l3dsr-lab "$bpffs" 2>/dev/null || true
}

bpffs_down() {
    rm -rf "$bpffs/l3dsr"
    grep -q "^l3dsr-lab $bpffs " /proc/mounts || return 0
    # Unless somebody else has pinned something by now; *.debug are the kernel's own.
    if [[ -z $(find "$bpffs" -mindepth 1 ! -name '*.debug') ]]; then
        umount "$bpffs"
    fi
}
