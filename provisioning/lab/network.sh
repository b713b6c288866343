# shellcheck shell=bash disable=SC2154 # topology.sh assigns them
# The lab's hosts (network namespaces) and the switch between them, itself in a namespace, so that
# nothing is added to the machine's own network.

network_up() {
    local host address sysctl
    for host in switch "${hosts[@]}"; do
        ip netns add "l3dsr-$host"
        ip -n "l3dsr-$host" link set lo up
        on "$host" sysctl -q -p "$root/provisioning/sysctl/lab.conf"
    done
    ip -n l3dsr-switch link add name switch type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip -n l3dsr-switch link set switch up

    for host in "${hosts[@]}"; do
        ip -n l3dsr-switch link add name "$host" mtu 1500 type veth \
            peer name eth0 mtu 1500 netns "l3dsr-$host"
        ip -n l3dsr-switch link set "$host" master switch up
        ip -n "l3dsr-$host" link set eth0 up
        for address in ${addresses[$host]}; do
            ip -n "l3dsr-$host" address add "$address/24" dev eth0
        done
        case $host in
        balancer) sysctl=balancer ;;
        backend*) sysctl=bridge ;;
        *) continue ;;
        esac
        on "$host" sysctl -q -p "$root/provisioning/sysctl/$sysctl.conf"
    done
}

network_down() {
    local host
    for host in "${hosts[@]}" switch; do
        [[ ! -e /run/netns/l3dsr-$host ]] || ip netns delete "l3dsr-$host"
    done
}

network_exists() {
    local host
    for host in "${hosts[@]}" switch; do
        [[ ! -e /run/netns/l3dsr-$host ]] || return 0
    done
    return 1
}
