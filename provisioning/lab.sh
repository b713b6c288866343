#!/bin/bash
# The lab of network namespaces: a client, a balancer and two backends, on one switch or in subnets of
# their own.
#   lab.sh up | down | status
#   lab.sh start | stop | restart  balancer | backend1 | backend2 | nginx-backend1 | nginx-backend2
# start reads .lab/etc as it is, so a configuration can be edited and one program restarted.
# Environment: LAB_DATAPATH=auto|ebpf|nfqueue, LAB_LOG_LEVEL, LAB_READY_TIMEOUT (seconds),
# LAB_NAME (l3dsr; what the namespaces' names begin with), LAB_DIR (.lab; where its state lies), and
# for up LAB_TOPOLOGY=switched|routed.
set -euo pipefail

[[ ${1:-} != up ]] || LAB_TOPOLOGY=${LAB_TOPOLOGY:-switched}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
source "$here/lab/topology.sh"
source "$here/lab/network.sh"
source "$here/lab/processes.sh"
source "$here/lab/programs.sh"
source "$here/lab/bpffs.sh"
source "$here/lab/www.sh"

usage() {
    sed -n '2,/^set/s/^# \?//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

up() {
    local program
    "$here/config.sh" # before anything is taken down
    down >/dev/null # what a crash left behind included
    rm -rf "$lab/log"
    trap clean_up_failure EXIT
    write_configuration
    bpffs_up
    www_up "$lab/www"
    network_up
    for program in "${programs[@]}"; do
        start_program "$program"
    done
    answers_through_vip
    trap - EXIT
    echo "lab is up: http://$vip/ from a shell on the client: nsenter --net=/run/netns/$lab_name-client"
}

answers_through_vip() {
    local status program
    status=$(on client curl -s -o /dev/null --max-time 10 -w '%{http_code}' "http://$vip/") || true
    [[ $status != 200 ]] || return 0
    for program in "${programs[@]}"; do
        show_log "$(log_of "$program")"
    done
    die "no answer through the VIP (status $status)"
}

clean_up_failure() {
    down >/dev/null
    echo "lab: did not come up and was taken down again; logs: $lab/log" >&2
}

down() {
    local pids was_up=no
    mapfile -t pids < <(pids_of_lab | sort -u)
    if ((${#pids[@]})) || network_exists || [[ -e $lab/run || -e $lab/etc ]]; then
        was_up=yes
    fi
    end_processes TERM "${pids[@]}"
    bpffs_down
    network_down
    rm -rf "${lab:?}/run" "${lab:?}/etc" "${lab:?}/www.temp"
    [[ $was_up == no ]] || echo "lab is down"
}

status() {
    local program pids missing=0
    for program in "${programs[@]}"; do
        pids=$(pids_of_program "$program" | paste -s -d ' ')
        printf '%-16s %s\n' "$program" "${pids:+running, pid }${pids:-stopped}"
        [[ -n $pids ]] || missing=1
    done
    return "$missing"
}

((EUID == 0)) || die "must run as root"
cd "$root"
# One at a time: a second "up" would take down what the first is building.
exec 9<"$here"
flock 9

case "${1:-} ${2:-}" in
"up " | "down " | "status ") "$1" ;;
"start "?* | "stop "?* | "restart "?*)
    [[ " ${programs[*]} " == *" $2 "* ]] || usage
    [[ $1 == start ]] || stop_program "$2"
    [[ $1 == stop ]] || start_program "$2"
    ;;
*) usage ;;
esac
