#!/bin/bash
# Requests per second with 32 connections: through the VIP, and direct to one server for comparison.
# A lab that is not up is started, and stopped at the end. LOAD_SECONDS (default 5) bounds each measurement.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
source "$here/lab/topology.sh"
((EUID == 0)) || die "must run as root"

seconds=${LOAD_SECONDS:-5}

measure() { # TITLE HOST ADDRESS [WRK_OPTION...]
    local output row
    output=$(on "$2" timeout "$((seconds + 20))" wrk -t 1 -c 32 -d "${seconds}s" --timeout 5s \
        -s "$here/load-test.lua" "${@:4}" "http://$3/")
    row=$(sed -n 's/^row //p' <<<"$output")
    read -r rate median worst errors <<<"$row"
    printf '%-44s %10s %10s %10s %8s\n' "$1" "$rate" "$median" "$worst" "$errors"
}

if ! "$here/lab.sh" status >/dev/null; then
    "$here/config.sh"
    echo "the lab is not up: it is started, and stopped after the measurements"
    trap '"$here/lab.sh" down' EXIT
    "$here/lab.sh" up
fi

printf '%-44s %10s %10s %10s %8s\n' "1 kB responses, 32 connections, $seconds s" requests/s 'median ms' '99 % ms' errors
measure "through the VIP, keep-alive" client "$vip"
measure "through the VIP, new connection each" client "$vip" -H 'Connection: close'
# From the second client: direct connections of the first one could meet its flows' 4-tuples.
direct=$(server_address backend1)
measure "direct to backend1, keep-alive" client2 "$direct"
measure "direct to backend1, new connection each" client2 "$direct" -H 'Connection: close'
