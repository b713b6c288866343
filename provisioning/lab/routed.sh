# shellcheck shell=bash disable=SC2034,SC2154 # topology.sh and others assign and read them
# The routed topology: clients, balancer and backends each in a subnet of their own.
#
#   clients 192.168.31.0/24 ───┐
#                           router ─── front 192.168.33.0/24 (balancer)
#                            │   └──── servers 192.168.35.0/24 (backends)
#     transit 192.168.37.0/24,             │
#     MTU 1400               └─────────── exit
#
# Requests go by the router alone; what the backends send anywhere leaves by the exit and crosses the
# narrow transit, so that only responses need path-MTU discovery.

declare -A addresses=(
    [client]="192.168.31.1"
    [client2]="192.168.31.2"
    [balancer]="$vip"
    [backend1]="192.168.35.20 192.168.35.30" # the bridge's, nginx's
    [backend2]="192.168.35.21 192.168.35.31"
)
declare -A lan_of=(
    [client]=clients
    [client2]=clients
    [balancer]=front
    [backend1]=servers
    [backend2]=servers
)
declare -A gateway_of=(
    [client]=192.168.31.254
    [client2]=192.168.31.254
    [balancer]=192.168.33.254
    [backend1]=192.168.35.253 # the exit
    [backend2]=192.168.35.253
)
lans=(clients front servers transit)
routers=(router exit)
transit_mtu=1400

routing_up() {
    local host router
    for host in "${hosts[@]}"; do
        ip -n "$lab_name-$host" route add default via "${gateway_of[$host]}"
        # Strict: a host with one interface gets everything, of any source, where it would answer.
        on "$host" sysctl -q -w net.ipv4.conf.all.rp_filter=1
    done
    for router in "${routers[@]}"; do
        on "$router" sysctl -q -p "$root/provisioning/sysctl/router.conf"
    done
    attach router clients clients 192.168.31.254
    attach router front front 192.168.33.254
    attach router servers servers 192.168.35.254
    attach router transit transit 192.168.37.1
    attach exit servers servers 192.168.35.253
    attach exit transit transit 192.168.37.2
    ip -n "$lab_name-router" link set transit mtu "$transit_mtu"
    ip -n "$lab_name-exit" link set transit mtu "$transit_mtu"
    ip -n "$lab_name-exit" route add default via 192.168.37.1
    # Strict where the clients are. Nowhere else can it be: what the balancer steers has a client's
    # address as its source and comes from the front, a response has the VIP's and comes from the
    # servers, and neither address lies there.
    on router sysctl -q -w net.ipv4.conf.clients.rp_filter=1
}
