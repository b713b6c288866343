# shellcheck shell=bash disable=SC2034
# What the namespace lab consists of, and where its state lies. Read by the other scripts.

# Namespaces are named after it, so that several checkouts can have a lab each at the same time.
lab_name=${LAB_NAME:-l3dsr}
vip=192.168.33.10
hosts=(client client2 balancer backend1 backend2)
declare -A addresses=(
    [client]="192.168.33.1"
    [client2]="192.168.33.2"
    [balancer]="$vip"
    [backend1]="192.168.33.20 192.168.33.30" # the bridge's, nginx's
    [backend2]="192.168.33.21 192.168.33.31"
)

# In the order in which they start: servers, bridges, balancer.
programs=(nginx-backend1 nginx-backend2 backend1 backend2 balancer)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
lab=$root/.lab

bridge_address() { echo "${addresses[$1]% *}"; }
server_address() { echo "${addresses[$1]#* }"; }

# The host on which a program runs: backend1 for nginx-backend1.
host_of() { echo "${1#nginx-}"; }

log_of() {
    case $1 in
    nginx-*) echo "$lab/log/$1.error.log" ;;
    *) echo "$lab/log/$1.log" ;;
    esac
}

pid_file_of() { echo "$lab/run/$1.pid"; }

# "ip netns exec" would hide /sys/fs/bpf, where the programs pin their maps.
on() { # HOST COMMAND...
    nsenter --net="/run/netns/$lab_name-$1" -- "${@:2}"
}

# A proxy of this machine's is no use in the lab.
export no_proxy='*' NO_PROXY='*'

die() {
    echo "lab: $*" >&2
    exit 1
}
