#!/bin/bash
# Starts the lab, shows what the balancer does, stops the lab. Exit code 0 only if it did all that.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
export LAB_TOPOLOGY=${LAB_TOPOLOGY:-switched}
source "$here/lab/topology.sh"
source "$here/lab/verdicts.sh"
((EUID == 0)) || die "must run as root"

# Of a download's bytes, at most this much may pass the balancer.
limit_percent=${DEMO_LIMIT_PERCENT:-1}
big_file=20m

# Prints "STATUS BACKEND CLIENT_PORT BYTES" for one request of the client's, each a connection.
fetch() { # PATH
    local headers answer status port bytes backend
    headers=$(mktemp)
    answer=$(on client curl -s -o /dev/null -D "$headers" --max-time 60 \
        -w '%{http_code} %{local_port} %{size_download}' "http://$vip$1") || true
    backend=$(sed -n 's/^X-Backend: \([a-z0-9]*\).*/\1/p' "$headers")
    rm -f "$headers"
    read -r status port bytes <<<"$answer"
    echo "$status ${backend:--} $port $bytes"
}

# Prints "RECEIVED SENT": bytes at the balancer's only interface.
balancer_bytes() {
    # shellcheck disable=SC2016 # awk's own $1
    on balancer awk '$1 == "eth0:" { print $2, $10 }' /proc/net/dev
}

show_choice_by_path() {
    local number path status backend port bytes all_ok=yes
    local -A used=()
    title "Each path is hashed to a backend (curl on the client, http://$vip)"
    printf '  %-24s %-10s %s\n' path backend status
    for number in {1..12}; do
        path=/demo/page-$number.html
        read -r status backend port bytes < <(fetch "$path")
        printf '  %-24s %-10s %s\n' "$path" "$backend" "$status"
        [[ $status == 200 ]] || all_ok=no
        used[$backend]=yes
    done
    verdict "all answered" test "$all_ok" = yes
    verdict "both backends were used" test "${used[backend1]:-no} ${used[backend2]:-no}" = "yes yes"
}

show_same_path_again() {
    local number status backend port bytes first_backend='' same=yes
    title "The same path from other client ports"
    printf '  %-24s %-10s %s\n' path backend "client port"
    for number in 1 2 3; do
        read -r status backend port bytes < <(fetch /demo/page-1.html)
        printf '  %-24s %-10s %s\n' /demo/page-1.html "$backend" "$port"
        [[ $status == 200 && $backend == "${first_backend:=$backend}" ]] || same=no
    done
    verdict "always the same backend" test "$same" = yes
}

show_direct_return() {
    local status backend port bytes in_before out_before in_after out_after received sent percent
    title "A download goes from the backend straight to the client"
    read -r in_before out_before < <(balancer_bytes)
    read -r status backend port bytes < <(fetch "/$big_file")
    read -r in_after out_after < <(balancer_bytes)
    received=$((in_after - in_before))
    sent=$((out_after - out_before))
    percent=$(awk -v part="$received" -v whole="$bytes" 'BEGIN { printf "%.2f", whole ? 100 * part / whole : 100 }')
    printf '  %-48s %10d\n' "bytes of the response, from $backend" "$bytes"
    printf '  %-48s %10d  (%s %%)\n' "bytes that reached the balancer: request, ACKs" "$received" "$percent"
    printf '  %-48s %10d\n' "bytes it sent on to the bridge" "$sent"
    verdict "the whole file arrived" test "$status $bytes" = "200 $(stat -c %s "$lab/www/$big_file")"
    verdict "less than $limit_percent % of it passed the balancer" \
        awk -v percent="$percent" -v limit="$limit_percent" 'BEGIN { exit !(percent < limit) }'
}

show_client_address() {
    local host client=${addresses[client]} seen_by=''
    title "Both servers, unmodified nginx, log the client's own address"
    for host in backend1 backend2; do
        printf '  %s  %s\n' "$host" "$(grep '/demo/' "$lab/log/nginx-$host.access.log" | head -n 1)"
        if grep -q "^$client .*/demo/" "$lab/log/nginx-$host.access.log"; then
            seen_by+="$host "
        fi
    done
    verdict "both saw $client" test "$seen_by" = "backend1 backend2 "
}

"$here/config.sh" # before anything is taken down
trap '"$here/lab.sh" down' EXIT
"$here/lab.sh" up
show_choice_by_path
show_same_path_again
show_direct_return
show_client_address
echo
((failures == 0))
