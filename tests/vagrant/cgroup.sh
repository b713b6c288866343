# shellcheck shell=bash disable=SC2154 # settings.sh assigns them
# A cgroup for each box, so that its systemd manages nothing but the box, and all of it can be ended at
# once. Version 2 is mounted at the one place or, beside version 1, at the other; systemd-nspawn
# then wants to keep its processes together in version 1's "systemd" as well.

cgroup_mounts=(/sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd)

enter_cgroup() { # BOX
    local mount
    for mount in "${cgroup_mounts[@]}"; do
        [[ -e $mount/cgroup.procs ]] || continue
        mkdir -p "$mount/$lab_name-$1"
        echo "$BASHPID" >"$mount/$lab_name-$1/cgroup.procs"
    done
}

remove_cgroup() { # BOX
    local mount cgroup
    for mount in "${cgroup_mounts[@]}"; do
        cgroup=$mount/$lab_name-$1
        [[ -e $cgroup ]] || continue
        [[ ! -e $cgroup/cgroup.kill ]] || echo 1 >"$cgroup/cgroup.kill"
        await 10 remove_tree "$cgroup" || die "cannot remove $cgroup"
    done
}

remove_tree() { # CGROUP
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
}
