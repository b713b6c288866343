#!/bin/bash
# Starts the lab with a service over UDP, shows what the balancer does with it, stops the lab. Exit
# code 0 only if all that is shown is so.
set -euo pipefail

demo=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
here=$(dirname "$demo")
export LAB_TOPOLOGY=switched
source "$here/lab/topology.sh"
source "$here/lab/processes.sh"
source "$here/lab/programs.sh"
source "$here/lab/verdicts.sh"
((EUID == 0)) || die "must run as root"

python=$root/.venv/bin/python
port=5300
network=10.33.0.0/24 # of the clients: all of it is the client's host
clients=10.33.0.1-10.33.0.12
count=12
second_address=192.168.33.22 # of the first bridge, for its second server
declare -A servers=(
    [hello-backend1]="one=$(server_address backend1):5301 two=$(server_address backend1):5302"
    [hello-backend2]="three=$(server_address backend2):5303"
)

service_up() {
    local host program pid waiting=()
    on client ip route add local "$network" dev lo
    for host in balancer backend1 backend2; do
        on "$host" ip route add "$network" via "${addresses[client]}"
    done
    on backend1 ip address add "$second_address/24" dev eth0
    for program in balancer packetbridge-backend1 packetbridge-backend2; do
        cat "$demo/$program.toml" >>"$lab/etc/$program.toml"
    done
    for program in hello-backend1 hello-backend2; do
        server_up "$program" &
        waiting+=($!)
    done
    for program in backend1 backend2 balancer; do
        { stop_program "$program" && start_program "$program"; } &
        waiting+=($!)
    done
    for pid in "${waiting[@]}"; do
        wait "$pid"
    done
    soon "all backends are up" states_are "one up two up three up"
}

server_up() { # PROGRAM
    local log_end=0
    [[ ! -f $(log_of "$1") ]] || log_end=$(stat -c %s "$(log_of "$1")")
    # shellcheck disable=SC2086 # several servers
    start_process "$1" "$python" "$demo/service.py" ${servers[$1]}
    wait_until_ready "$1" "$log_end"
}

balancer_says() { # COMMAND...: as JSON
    "$root/.venv/bin/balancer" "$@" --json --socket "$lab/run/balancer.sock"
}

# Prints "NAME STATE" of each backend, in one line.
states() {
    balancer_says backends | "$python" -c '
import json, sys
rows = [row for row in json.load(sys.stdin) if row["pool"] == "hello"]
print(*(word for row in rows for word in (row["name"], row["state"])))'
}

states_are() { [[ $(states) == "$1" ]]; }

# Prints the addresses of the clients that the balancer has a backend for.
remembered() {
    balancer_says flows --service hello | "$python" -c '
import json, sys
print(*sorted({row["client"].partition(":")[0] for row in json.load(sys.stdin)}))'
}

remembered_are() { [[ $(remembered) == "$1" ]]; }

soon() { # WHAT COMMAND...: waits until it succeeds
    local deadline=$((SECONDS + 10))
    until "${@:2}"; do
        if ((SECONDS >= deadline)); then
            verdict "$1" false
            return
        fi
        sleep 0.1
    done
}

# Sends as the clients, and leaves in an array who answered each: "one", where it was always one.
# shellcheck disable=SC2034 # they are given by their names
declare -A met while_down after
speak() { # ARRAY DATAGRAMS TEXT
    local -n found=$1
    local address names said status=0
    said=$(on client "$python" "$demo/generator.py" --source "$clients" --to "$vip:$port" \
        --datagrams "$2" --text "$3" 2>&1) || status=$?
    found=()
    while read -r address names; do
        if [[ $address =~ ^[0-9.]+$ ]]; then
            found[$address]=$(tr ' ' '\n' <<<"$names" | uniq | paste -s -d ' ')
        else
            echo "  $address $names"
        fi
    done <<<"$said"
    verdict "all were answered, with $vip:$port as the source" test "$status" = 0
}

sorted_clients() { printf '%s\n' "${!met[@]}" | sort -V; }

show_table() { # HEADING ARRAY...
    local address array
    printf '  %-12s' client
    for array in "$@"; do printf ' %-8s' "${array//_/ }"; done
    echo
    while read -r address; do
        printf '  %-12s' "$address"
        for array in "$@"; do
            local -n column=$array
            printf ' %-8s' "${column[$address]:--}"
        done
        echo
    done < <(sorted_clients)
}

# Are these clients' backends the same in both arrays?
same_for() { # ARRAY ARRAY CLIENT...
    local -n one=$1 other=$2
    local address
    for address in "${@:3}"; do
        [[ ${one[$address]:--} == "${other[$address]:-+}" ]] || return 1
    done
}

clients_of() { # ARRAY BACKEND
    local -n of=$1
    local address
    while read -r address; do
        [[ ${of[$address]} != "$2" ]] || echo "$address"
    done < <(sorted_clients)
}

show_affinity() {
    local name used=''
    title "$count clients send 3 datagrams each to $vip:$port, each from a port of its own"
    recording_begins
    speak met 3 hello
    recording_ends
    show_table met
    for name in one two three; do
        [[ -z $(clients_of met "$name") ]] || used+="$name "
    done
    verdict "each client has one backend for all of its datagrams" \
        test "$(printf '%s\n' "${met[@]}" | grep -c ' ')" = 0
    verdict "all three backends were used" test "$used" = "one two three "

    local asked answers
    title "What passed the balancer meanwhile"
    asked=$(packets "dst $vip and dst port $port")
    answers=$(packets "src port $port or src portrange 5301-5303")
    printf '  %-24s %3d\n  %-24s %3d\n' "datagrams to the VIP" "$asked" answers "$answers"
    verdict "all questions, and none of the answers" test "$asked $answers" = "$((3 * count)) 0"

    title "What the servers say"
    grep -h "'hello 3'" "$(log_of hello-backend1)" "$(log_of hello-backend2)" | head -n 4 | sed 's/^/  /'
    verdict "they saw the clients' own addresses" test "$(addresses_seen)" = "$count"
}

addresses_seen() {
    cat "$(log_of hello-backend1)" "$(log_of hello-backend2)" |
        grep -o 'from 10\.33\.0\.[0-9]*' | sort -u | wc -l
}

recording_begins() {
    rm -f "$lab/run/demo.pcap"
    start_process tcpdump-balancer tcpdump -i eth0 -U --immediate-mode -w "$lab/run/demo.pcap" udp
    soon "tcpdump listens" grep -q 'listening on' "$(log_of tcpdump-balancer)"
}

recording_ends() {
    local pids
    mapfile -t pids < <(pids_of_program tcpdump-balancer)
    end_processes INT "${pids[@]}"
}

packets() { # FILTER
    tcpdump -n -r "$lab/run/demo.pcap" "$1" 2>/dev/null | wc -l
}

show_down_and_up() {
    local moved stayed pids
    mapfile -t moved < <(clients_of met three)
    mapfile -t stayed < <(clients_of met one; clients_of met two)
    title "The program of backend three ends: its bridge's probe gets no answer"
    mapfile -t pids < <(pids_of_program hello-backend2)
    end_processes TERM "${pids[@]}"
    soon "three is found down" states_are "one up two up three down"
    echo "  backends: $(states)"
    speak while_down 1 "three is down"
    title "It runs again"
    server_up hello-backend2
    soon "three is up again" states_are "one up two up three up"
    echo "  backends: $(states)"
    speak after 1 "three is back"
    show_table met while_down after
    verdict "the ${#moved[@]} clients of three moved, and three answered nobody" \
        test "${#moved[@]} $(clients_of while_down three | wc -l)" = "${#moved[@]} 0"
    verdict "the ${#stayed[@]} others stayed" same_for met while_down "${stayed[@]}"
    verdict "when it is back, everybody keeps who they have" same_for while_down after "${!met[@]}"
}

show_forgetting() {
    local talker=10.33.0.1 pids
    local -A anew
    local silent
    mapfile -t silent < <(sorted_clients | grep -vx "$talker")
    title "A client who is silent for 4 seconds is forgotten, one who speaks is not"
    verdict "all $count are remembered" test "$(remembered | wc -w)" = "$count"
    start_process talker-client "$python" "$demo/generator.py" --source "$talker" --to "$vip:$port" \
        --datagrams 100 --pause 0.3
    soon "only $talker is remembered" remembered_are "$talker"
    printf '  remembered: %s\n' "$(remembered)"
    verdict "only the one who went on is remembered" remembered_are "$talker"
    mapfile -t pids < <(pids_of_program talker-client)
    end_processes TERM "${pids[@]}"
    speak anew 1 "here again"
    show_table met anew
    verdict "$talker keeps who it had, ${while_down[$talker]}" \
        test "${anew[$talker]}" = "${while_down[$talker]}"
    verdict "the others are placed anew, by their addresses where they were at first" \
        same_for met anew "${silent[@]}"
}

"$here/config.sh" # before anything is taken down
trap '"$here/lab.sh" down' EXIT
"$here/lab.sh" up
service_up
show_affinity
show_down_and_up
show_forgetting
echo
((failures == 0))
