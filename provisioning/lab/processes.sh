# shellcheck shell=bash disable=SC2154 # topology.sh assigns them
# Starting programs on the lab's hosts and ending them. A process is the lab's if it runs in one of
# the lab's namespaces or its stdout is one of the lab's logs: unlike a PID from a file, neither can
# come to mean a stranger's process, and both also find children whose parent was killed.

start_process() { # PROGRAM COMMAND...
    local log
    log=$(log_of "$1")
    : >>"$log" # there at once, for whoever waits for a line in it
    (
        close_inherited
        exec setsid nsenter --net="/run/netns/$lab_name-$(host_of "$1")" -- "${@:2}"
    ) </dev/null >>"$log" 2>&1 &
    echo $! >"$(pid_file_of "$1")"
}

# A lock or a pipe, the lab's own or the caller's, must not stay open for as long as a program runs.
close_inherited() {
    local fd
    for fd in "/proc/$BASHPID/fd/"*; do
        fd=${fd##*/}
        ((fd <= 2)) || exec {fd}>&-
    done
}

# Prints the PIDs of the processes whose stdout is this program's log.
pids_of_program() { # PROGRAM
    local log link target pid
    log=$(log_of "$1")
    while read -r link target; do
        if [[ $target == "$log" || $target == "$log (deleted)" ]]; then
            pid=${link#/proc/}
            echo "${pid%%/*}"
        fi
    done < <(find /proc/[0-9]*/fd/1 -maxdepth 0 -printf '%p %l\n' 2>/dev/null)
}

pids_of_lab() {
    local host program
    for host in "${all_hosts[@]}"; do
        ip netns pids "$lab_name-$host" 2>/dev/null || true
    done
    for program in "${programs[@]}"; do
        pids_of_program "$program"
    done
}

# Prints "STATE START": together with the PID, the start time identifies a process for good.
stat_of() { # PID
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    read -ra stat <<<"${stat##*) }" # the name before ")" may contain spaces
    ((${#stat[@]} > 19)) || return 1 # it ended meanwhile
    echo "${stat[0]} ${stat[19]}"
}

start_time_of() { # PID
    local state start
    read -r state start < <(stat_of "$1") || return 1
    [[ $state != [ZX] ]] || return 1 # a zombie only waits for its parent
    echo "$start"
}

# Whoever takes the lab down from inside it (a shell on the client, say) shall live to see it.
is_own_ancestor() { # PID
    local pid=$$
    while ((pid > 1)); do
        ((pid != $1)) || return 0
        pid=$(sed -n 's/^PPid:\t//p' "/proc/$pid/status")
    done
    return 1
}

# The signal, five seconds of grace, SIGKILL.
end_processes() { # SIGNAL PID...
    local first=$1 pid start signal tries
    local -A alive=()
    shift
    for pid in "$@"; do
        is_own_ancestor "$pid" || ! start=$(start_time_of "$pid") || alive[$pid]=$start
    done
    for signal in "$first" KILL; do
        for pid in "${!alive[@]}"; do
            kill -s "$signal" "$pid" 2>/dev/null || true
        done
        for ((tries = 0; tries < 100 && ${#alive[@]}; tries++)); do
            for pid in "${!alive[@]}"; do
                [[ $(start_time_of "$pid") == "${alive[$pid]}" ]] || unset "alive[$pid]"
            done
            ((${#alive[@]} == 0)) || sleep 0.05
        done
    done
    ((${#alive[@]} == 0)) || die "cannot end process ${!alive[*]}"
}
