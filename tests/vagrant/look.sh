# shellcheck shell=bash disable=SC2154 # settings.sh assigns them
# Using the boxes as their user does, and looking into them.

# Vagrant on the user's machine, with none of the real user's settings or boxes.
vagrant_there() {
    on host env VAGRANT_HOME="$lab/vagrant/home" VAGRANT_DOTFILE_PATH="$lab/vagrant/state" \
        VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_DEFAULT_PROVIDER=namespaces \
        BOXES_SSH_KEY="$lab/ssh_key" timeout 1500 vagrant "$@"
}

# Shows the steps; all that is said goes to the log.
vagrant_shown() {
    local status=0
    echo "  vagrant $* ..."
    vagrant_there "$@" >"$lab/log/vagrant-step.log" 2>&1 </dev/null || status=$?
    cat "$lab/log/vagrant-step.log" >>"$lab/log/vagrant.log"
    ((status == 0)) || tail -n 40 "$lab/log/vagrant-step.log" >&2
    return "$status"
}

address_of() { # BOX: in the network of management
    local i
    for i in "${!boxes[@]}"; do
        [[ ${boxes[i]} != "$1" ]] || echo "$management.$((11 + i))"
    done
}

in_box() { # BOX COMMAND: as root
    on host ssh -q -n -i "$lab/ssh_key" -o BatchMode=yes -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile=/dev/null -o ConnectTimeout=10 "vagrant@$(address_of "$1")" \
        "sudo bash -c $(printf %q "$2")"
}

says() { # EXPECTED COMMAND...
    local said
    said=$("${@:2}") || true
    [[ $said == "$1" ]] || { echo "       '$said' instead of '$1'"; return 1; }
}

# What provisioning leaves in a box. Of what is compiled and installed there, the names.
state_of_box() { # BOX
    in_box "$1" 'cd / && find etc usr/local srv opt/l3dsr -type l -printf "%p %l\n"
        find etc usr/local srv -type f -exec sha256sum {} +; find opt/l3dsr' | sort
}

is_as() { # FILE BOX: what state_of_box wrote there before
    diff "$1" <(state_of_box "$2")
}

fetch() { # URL [CURL_OPTION...]: prints "STATUS BACKEND"
    on host curl -s -o /dev/null --max-time 20 -D "$lab/log/answer" -w '%{http_code}' "${@:2}" "$1" || true
    sed -n 's/^X-Backend: \([a-z0-9]*\).*/ \1/p' "$lab/log/answer" | tr -d '\n'
}

# shellcheck disable=SC2016 # awk's own $1
bytes_at_balancer() { on balancer awk '$1 == "eth1:" { print $2 }' /proc/net/dev; }
