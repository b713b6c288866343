# shellcheck shell=bash disable=SC2154 # topology.sh assigns them
# The lab's programs: what each is started with, and when it counts as started.

ready_timeout_seconds=${LAB_READY_TIMEOUT:-20}

write_configuration() {
    local host
    mkdir -p "$lab/etc" "$lab/run" "$lab/log"
    echo "$topology" >"$lab/etc/topology"
    "$root/.venv/bin/balancer" keygen "$lab/etc/key" >/dev/null
    CONTROL_SOCKET=$lab/run/balancer.sock "$root/provisioning/config.sh" balancer "$vip" "$lab/etc/key" \
        "backend1=$(bridge_address backend1)" "backend2=$(bridge_address backend2)" \
        >"$lab/etc/balancer.toml"
    for host in backend1 backend2; do
        CONTROL_SOCKET=$lab/run/$host.sock "$root/provisioning/config.sh" packetbridge "$vip" "$lab/etc/key" \
            "$(bridge_address "$host")" "$(server_address "$host"):80" \
            >"$lab/etc/packetbridge-$host.toml"
        # root: the checkout may lie where nobody else can read, under /root for instance. Its PID file is
        # not the lab's: nginx empties it a moment before it writes to it.
        "$root/provisioning/nginx.sh" "$host" "$(server_address "$host")" root \
            "$lab/www" "$lab/log" "$lab/run/$host-nginx.pid" "$lab/etc/tls-$host" \
            >"$lab/etc/nginx-$host.conf"
    done
}

# Whether a program has ended; what it had beside it ends a moment later, where it was killed.
is_over() { # PROGRAM
    local pids tries own
    own=$(cat "$(pid_file_of "$1")" 2>/dev/null || true)
    for ((tries = 0; tries < 40; tries++)); do
        mapfile -t pids < <(pids_of_program "$1")
        ((${#pids[@]})) || return 0
        [[ " ${pids[*]} " != *" ${own:-none} "* ]] || return 1
        sleep 0.05
    done
    return 1
}

start_program() { # PROGRAM
    local program=$1 host log_end=0
    host=$(host_of "$program")
    [[ -e /run/netns/$lab_name-$host ]] || die "is not up (no namespace $lab_name-$host)"
    is_over "$program" || die "$program is running already"
    [[ ! -f $(log_of "$program") ]] || log_end=$(stat -c %s "$(log_of "$program")")

    case $program in
    nginx-*) start_process "$program" nginx -c "$lab/etc/$program.conf" -g 'daemon off;' ;;
    balancer) start_process "$program" "$root/.venv/bin/balancer" --config "$lab/etc/balancer.toml" ;;
    *) start_process "$program" "$root/.venv/bin/packetbridge" --config "$lab/etc/packetbridge-$program.toml" ;;
    esac
    wait_until_ready "$program" "$log_end"
}

stop_program() { # PROGRAM
    local pids
    mapfile -t pids < <(pids_of_program "$1")
    # A balancer or bridge that is sent SIGTERM may leave its connections to the kernel.
    case $1 in
    nginx-*) end_processes TERM "${pids[@]}" ;;
    *) end_processes INT "${pids[@]}" ;;
    esac
    rm -f "$(pid_file_of "$1")"
}

is_ready() { # PROGRAM LOG_END
    case $1 in
    # Asked by the second client: the first one's addresses belong to connections through the VIP.
    nginx-*) on client2 curl -fs -o /dev/null --max-time 1 "http://$(server_address "$(host_of "$1")")/" ;;
    *) tail -c "+$(($2 + 1))" "$(log_of "$1")" | grep -qw ready ;;
    esac
}

wait_until_ready() { # PROGRAM LOG_END
    local deadline=$((SECONDS + ready_timeout_seconds))
    until is_ready "$@"; do
        # by its PID: at first its stdout is not yet the log
        start_time_of "$(<"$(pid_file_of "$1")")" >/dev/null || give_up "$1" "has ended"
        ((SECONDS < deadline)) || give_up "$1" "is not ready after $ready_timeout_seconds s"
        sleep 0.05
    done
}

give_up() { # PROGRAM WHY
    show_log "$(log_of "$1")"
    die "$1 $2"
}

show_log() { # FILE
    echo "--- ${1#"$root"/} ---" >&2
    tail -n 30 "$1" >&2
}
