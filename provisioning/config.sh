#!/bin/bash
# Writes a program's configuration to stdout; the namespace lab and the Vagrant boxes share it.
#   config.sh balancer VIP KEY_FILE NAME=BRIDGE...
#   config.sh packetbridge VIP KEY_FILE BRIDGE SERVER:PORT
# LAB_DATAPATH (auto, ebpf or nfqueue) and LAB_LOG_LEVEL (debug, info, warning or error) go into both,
# CONTROL_SOCKET (a path) where it is there; without arguments it only looks whether they are right.
set -euo pipefail

case ${LAB_DATAPATH:=auto} in
auto | ebpf | nfqueue) ;;
*)
    echo "LAB_DATAPATH must be auto, ebpf or nfqueue, not '$LAB_DATAPATH'" >&2
    exit 1
    ;;
esac
case ${LAB_LOG_LEVEL:=info} in
debug | info | warning | error) ;;
*)
    echo "LAB_LOG_LEVEL must be debug, info, warning or error, not '$LAB_LOG_LEVEL'" >&2
    exit 1
    ;;
esac

common() { # QUEUE KEY_FILE
    cat <<END
datapath = "$LAB_DATAPATH"
log_level = "$LAB_LOG_LEVEL"
key_file = "$2"
queue = $1
END
    [[ -z ${CONTROL_SOCKET:-} ]] || printf '\n[control]\nsocket = "%s"\n' "$CONTROL_SOCKET"
}

balancer() { # VIP KEY_FILE NAME=BRIDGE...
    common 3310 "$2"
    cat <<END

[[services]]
name = "web"
vip = "$1"
port = 80
dscp = 1
END
    local backend
    for backend in "${@:3}"; do
        cat <<END

[[services.backends]]
name = "${backend%%=*}"
bridge = "${backend#*=}"
weight = 1
END
    done
    # For `balancer probe`, which asks there; the bridges' answer by default.
    printf '\n[http]\nlisten = ["%s:9310"]\n' "$1"
}

packetbridge() { # VIP KEY_FILE BRIDGE SERVER:PORT
    common 3320 "$2"
    cat <<END

[[balancers]]
dscp = 1
vip = "$1"

[[backends]]
address = "$3"
port = 80
server = "$4"
source = "client"
END
}

"$@"
