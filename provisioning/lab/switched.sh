# shellcheck shell=bash disable=SC2034,SC2154
# The ordinary topology: all hosts on one switch, in one subnet.

declare -A addresses=(
    [client]="192.168.33.1"
    [client2]="192.168.33.2"
    [balancer]="$vip"
    [backend1]="192.168.33.20 192.168.33.30" # the bridge's, nginx's
    [backend2]="192.168.33.21 192.168.33.31"
)
declare -A lan_of=([client]=lan [client2]=lan [balancer]=lan [backend1]=lan [backend2]=lan)
lans=(lan)
routers=()

routing_up() { :; }
