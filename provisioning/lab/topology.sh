# shellcheck shell=bash disable=SC2034
# What the namespace lab consists of, and where its state lies. Read by the other scripts.

# Namespaces are named after it, so that several labs can be up at the same time.
lab_name=${LAB_NAME:-l3dsr}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
lab=${LAB_DIR:-$root/.lab} # a lab beside another needs a directory of its own as well
[[ $lab == /* ]] || lab=$PWD/$lab

die() {
    echo "lab: $*" >&2
    exit 1
}

vip=192.168.33.10
hosts=(client client2 balancer backend1 backend2)
# Of any topology, to be taken down whichever it was.
all_hosts=("${hosts[@]}" router exit switch)

# Who brings the lab up chooses; all others find it as that left it.
topology=${LAB_TOPOLOGY:-$(cat "$lab/etc/topology" 2>/dev/null || echo switched)}
[[ $topology == switched || $topology == routed ]] ||
    die "LAB_TOPOLOGY must be switched or routed, not '$topology'"
# shellcheck source=switched.sh
source "$root/provisioning/lab/$topology.sh"

# In the order in which they start: servers, bridges, balancer.
programs=(nginx-backend1 nginx-backend2 backend1 backend2 balancer)

bridge_address() { echo "${addresses[$1]% *}"; }
server_address() { echo "${addresses[$1]#* }"; }

# The host on which a program runs: backend1 for nginx-backend1.
host_of() { echo "${1#*-}"; }

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
