# shellcheck shell=bash disable=SC2154 # topology.sh assigns them
# The lab's hosts (network namespaces) and the switch between them, itself in a namespace, so that
# nothing is added to the machine's own network. Each LAN is a bridge of the switch's.

network_up() {
    local host lan sysctl
    for host in switch "${hosts[@]}" "${routers[@]}"; do
        host_up "$host"
    done
    for lan in "${lans[@]}"; do
        lan_up "$lan"
    done

    for host in "${hosts[@]}"; do
        # shellcheck disable=SC2086 # a backend has two addresses
        attach "$host" "${lan_of[$host]}" eth0 ${addresses[$host]}
        case $host in
        balancer) sysctl=balancer ;;
        backend*) sysctl=bridge ;;
        *) continue ;;
        esac
        on "$host" sysctl -q -p "$root/provisioning/sysctl/$sysctl.conf"
    done
    routing_up
    # client2, for direct measurements, stays as it is; so does the client where packets stay whole.
    [[ ${LAB_DATAPATH:-auto} == ebpf ]] || merging_card client
}

host_up() { # HOST
    ip netns add "$lab_name-$1"
    ip -n "$lab_name-$1" link set lo up
    on "$1" sysctl -q -p "$root/provisioning/sysctl/lab.conf"
}

lan_up() { # LAN
    ip -n "$lab_name-switch" link add name "$1" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip -n "$lab_name-switch" link set "$1" up
}

# Connects a host to a LAN. The switch's port is named HOST, a router's ports ROUTER-INTERFACE.
attach() { # HOST LAN INTERFACE ADDRESS...
    local host=$1 lan=$2 interface=$3 port=$1-$3 address
    port=${port%-eth0}
    ip -n "$lab_name-switch" link add name "$port" mtu 1500 type veth \
        peer name "$interface" mtu 1500 netns "$lab_name-$host"
    ip -n "$lab_name-switch" link set "$port" master "$lan" up
    ip -n "$lab_name-$host" link set "$interface" up
    for address in "${@:4}"; do
        ip -n "$lab_name-$host" address add "$address/24" dev "$interface"
    done
}

# A client's network card: it merges the segments that arrive within 50 microseconds (GRO), as real
# ones do, and the client acknowledges what was merged as one. A veth merges nothing by itself: what
# the sending host did not cut arrives whole, and what was cut, as by the nfqueue path, stays cut and
# is acknowledged two by two, which no client on a real network would do at such a rate. The veth is
# made to do it by its peer's segmentation offload being off.
merging_card() {
    local host=$1
    on switch ethtool -K "$host" tso off >/dev/null
    on "$host" ethtool -K eth0 gro on >/dev/null
    # shellcheck disable=SC2016 # expanded by the inner shell; ip netns gives it the host's own /sys
    ip netns exec "$lab_name-$host" sh -c '
        echo 50000 >/sys/class/net/eth0/gro_flush_timeout
        echo 1 >/sys/class/net/eth0/napi_defer_hard_irqs
    '
}

network_down() {
    local host
    for host in "${all_hosts[@]}"; do
        [[ ! -e /run/netns/$lab_name-$host ]] || ip netns delete "$lab_name-$host"
    done
}

network_exists() {
    local host
    for host in "${all_hosts[@]}"; do
        [[ ! -e /run/netns/$lab_name-$host ]] || return 0
    done
    return 1
}
