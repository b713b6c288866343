# shellcheck shell=bash disable=SC1091,SC2034,SC2154
# What the check of the Vagrant boxes consists of: names, addresses, where its state lies. The
# functions for namespaces and processes are the lab's.

# An absolute path, as Vagrant runs box.sh from elsewhere.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
export LAB_NAME=${BOXES_NAME:=${LAB_NAME:-l3dsr}-boxes} BOXES_NAME
export LAB_DIR=${here%/tests/vagrant}/.vagrant-check LAB_TOPOLOGY=switched

proxies=$(env | grep -iE '^(http|https|ftp|all|no)_proxy=' || true) # before topology.sh
source "$here/../../provisioning/lab/topology.sh"
source "$here/../../provisioning/lab/network.sh"
source "$here/../../provisioning/lab/processes.sh"

# "host" is the user's machine: the client, where Vagrant runs. The boxes reach the registries by it.
boxes=(balancer backend backend2)
all_hosts=(host "${boxes[@]}" switch)
programs=(uplink "${boxes[@]}") # that run outside the namespaces
client=192.168.33.1
management=192.168.121 # .1 is the host

base=$lab/base
root_of() { echo "$lab/roots/$1"; }
log_of() { echo "$lab/log/$1.log"; }

die() {
    echo "vagrant-check: $*" >&2
    exit 1
}

# In the background, for as long as the check lasts; its output is its log.
start_outside() { # PROGRAM COMMAND...
    (
        close_inherited
        exec setsid "${@:2}"
    ) </dev/null >>"$(log_of "$1")" 2>&1 &
}

await() { # SECONDS COMMAND...: until it succeeds
    local deadline=$((SECONDS + $1))
    until "${@:2}"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}
