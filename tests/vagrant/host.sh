# shellcheck shell=bash disable=SC2154 # settings.sh assigns them
# The user's machine, as a namespace: one link to all boxes, one to their private network, and an
# uplink by slirp4netns, as VirtualBox has it, so that this machine's own network stays as it is.

host_with_uplink_up() {
    local name
    for name in switch host; do
        host_up "$name"
    done
    lan_up management
    lan_up private
    attach host management eth0 "$management.1"
    attach host private eth1 "$client"

    start_outside uplink slirp4netns --configure --mtu=1500 --disable-host-loopback \
        --netns-type=path "/run/netns/$lab_name-host" uplink
    await 10 on host ip -4 route get 10.0.2.3 oif uplink >/dev/null 2>&1 ||
        die "no uplink: $(<"$(log_of uplink)")"
    on host sysctl -q -w net.ipv4.ip_forward=1
    on host iptables -t nat -A POSTROUTING -s "$management.0/24" -o uplink -j MASQUERADE
}

# What a run before this one left, having been killed, included.
everything_down() {
    local box pids
    for box in "${boxes[@]}"; do
        "$here/box.sh" destroy "$box"
    done
    mapfile -t pids < <(pids_of_lab | sort -u)
    end_processes TERM "${pids[@]}"
    network_down
    rm -rf "${lab:?}"/{roots,vagrant,ssh_key,ssh_key.pub,programs}
}
