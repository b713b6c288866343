# shellcheck shell=bash disable=SC2154 # settings.sh assigns them
# What is done with the boxes, in this order, and what is expected of them.

files_are_valid() {
    local count
    mkdir -p "$lab/vagrant/"{home,hypervisor}
    # All that Vagrant wants of VirtualBox to look at a Vagrantfile is its version.
    printf '#!/bin/sh\necho 7.0.20r163906\n' >"$lab/vagrant/hypervisor/VBoxManage"
    chmod 755 "$lab/vagrant/hypervisor/VBoxManage"
    verdict "ruby -c" ruby_syntax_is_right
    for count in 1 2; do
        verdict "vagrant validate, libvirt, BACKENDS=$count" validates libvirt "$count"
        verdict "vagrant validate, VirtualBox, BACKENDS=$count" validates virtualbox "$count"
    done
}

ruby_syntax_is_right() {
    ruby -c "$root/Vagrantfile" "$root"/provisioning/*.rb "$here"/*.rb >/dev/null
}

validates() { # PROVIDER BACKENDS
    (cd "$root" && env PATH="$lab/vagrant/hypervisor:$PATH" VAGRANT_HOME="$lab/vagrant/home" \
        VAGRANT_DOTFILE_PATH="$lab/vagrant/validated" VAGRANT_CHECKPOINT_DISABLE=1 \
        VAGRANT_DEFAULT_PROVIDER="$1" BACKENDS="$2" timeout 60 vagrant validate >/dev/null)
}

come_up() {
    verdict "vagrant up" vagrant_shown up
    ((failures == 0)) || die "there are no boxes to go on with; logs: $lab/log"
    verdict "backend: an interface for the bridge, one for nginx" says 'eth1 192.168.33.20/24
eth2 192.168.33.30/24' in_box backend 'ip -4 -o address show to 192.168.33.0/24 | cut -d" " -f2,7'
    verdict "both have the same key, for root only" \
        says "$(in_box balancer 'stat -c "%a %U" /etc/l3dsr/key; sha256sum /etc/l3dsr/key')" \
        in_box backend 'stat -c "%a %U" /etc/l3dsr/key; sha256sum /etc/l3dsr/key'
    verdict "nginx answers by itself" says '200 backend' fetch http://192.168.33.30/
    answers_arp_with_one_address
}

# Each of the two addresses is one interface's only, though both lie in one subnet.
answers_arp_with_one_address() {
    local interface address mac
    for interface in eth1 eth2; do
        address=$([[ $interface == eth1 ]] && echo 192.168.33.20 || echo 192.168.33.30)
        mac=$(on backend ip -br link show dev "$interface" | awk '{ print $3 }')
        verdict "backend: only $interface answers ARP for $address" says "$mac" arp_answers "$address"
    done
}

arp_answers() { # ADDRESS: prints the hardware addresses that claim it, asked three times
    local capture asked
    : >"$lab/log/arp.err"
    nsenter --net="/run/netns/$lab_name-host" tcpdump -lnni eth1 --immediate-mode \
        "arp and src host $1" >"$lab/log/arp" 2>"$lab/log/arp.err" &
    capture=$!
    await 10 grep -q 'listening on' "$lab/log/arp.err" || echo "no capture"
    for asked in 1 2 3; do
        on host ip neigh flush dev eth1
        on host curl -s -o /dev/null --max-time 2 "http://$1/" || true # whatever it says
        await 5 has_lines "$asked" "$lab/log/arp" || echo "no answer"
    done
    kill "$capture"
    wait "$capture" || true
    sed -n "s/.* $1 is-at \([0-9a-f:]*\).*/\1/p" "$lab/log/arp" | sort -u
}

has_lines() { # COUNT FILE
    (($(grep -c is-at "$2") >= $1))
}

serve_by_hand() {
    title "By hand"
    by_hand backend packetbridge
    by_hand balancer balancer
    serves_directly backend
    stop_by_hand balancer balancer
    stop_by_hand backend packetbridge
    verdict "afterwards nothing answers" says '000' fetch "http://$vip/" --connect-timeout 2
}

by_hand() { # BOX PROGRAM
    : >"$lab/log/$2"
    start_by_hand "$@"
    verdict "vagrant ssh $1 -c 'sudo $2' is ready" await 60 grep -qw ready "$lab/log/$2"
}

start_by_hand() { # BOX PROGRAM
    (
        close_inherited
        vagrant_there ssh "$1" -c "sudo $2"
    ) </dev/null >>"$lab/log/$2" 2>&1 &
}

stop_by_hand() { # BOX PROGRAM
    in_box "$1" "pkill -INT -x $2" || true
    verdict "$2 ends, and so do its rules" await 20 \
        in_box "$1" "! pgrep -x $2 && ! iptables-save | grep -i l3dsr"
}

# Through the VIP, with the client's own address at the server, and past the balancer on the way back.
serves_directly() { # BACKEND
    local before after
    verdict "curl http://$vip/" says "200 $1" fetch "http://$vip/"
    before=$(bytes_at_balancer)
    verdict "curl http://$vip/20m" says "200 $1" fetch "http://$vip/20m"
    after=$(bytes_at_balancer)
    verdict "of its 20 MB, $((after - before)) bytes passed the balancer" \
        test "$((after - before))" -lt "$((20 * 1048576 / 100))"
    verdict "$1: nginx knows the client by its own address" says "$client" in_box "$1" \
        "awk '\$7 == \"/20m\" { print \$1 }' /var/log/nginx/nginx-$1.access.log | sort -u"
}

are_the_same_again() {
    local box
    title "Provisioned a second time"
    for box in balancer backend; do
        state_of_box "$box" >"$lab/log/state-$box"
    done
    verdict "vagrant provision" vagrant_shown provision
    for box in balancer backend; do
        verdict "$box: is as it was" is_as "$lab/log/state-$box" "$box"
    done
}

serve_as_services() {
    title "As services"
    export SERVICES=1
    verdict "SERVICES=1 vagrant provision" vagrant_shown provision
    run_as_services
    serves_directly backend
    runs_without_ebpf balancer balancer
    runs_without_ebpf backend packetbridge
}

# The same service on a kernel that refuses it.
runs_without_ebpf() { # BOX UNIT
    in_box "$1" "mkdir -p /run/systemd/system/$2.service.d
        printf '[Service]\nSystemCallFilter=~bpf\n' >/run/systemd/system/$2.service.d/no-bpf.conf
        systemctl daemon-reload; systemctl restart $2" || true
    verdict "$1: $2 runs without eBPF too" says "active restarts=0 datapath nfqueue" in_box "$1" \
        "echo \$(systemctl is-active $2) restarts=\$(systemctl show -P NRestarts $2) \
        \$(journalctl -b -u $2 | grep -o 'datapath [a-z]*' | tail -n 1)"
    in_box "$1" "rm -r /run/systemd/system/$2.service.d; systemctl daemon-reload; systemctl restart $2"
}

run_as_services() {
    runs_from_unit balancer balancer
    runs_from_unit backend packetbridge
}

runs_from_unit() { # BOX UNIT
    verdict "$1: $2 runs from its unit, as l3dsr, on the kernel's path" \
        says "active enabled restarts=0 l3dsr datapath ebpf" in_box "$1" \
        "echo \$(systemctl is-active $2) \$(systemctl is-enabled $2) \
        restarts=\$(systemctl show -P NRestarts $2) \
        \$(ps -o user= -p \$(systemctl show -P MainPID $2)) \
        \$(journalctl -b -u $2 | grep -o 'datapath [a-z]*' | tail -n 1)"
    in_box "$1" "journalctl -b -u $2 -o cat" >"$lab/log/$2.journal"
}

serve_after_reboot() {
    local box
    title "After a reboot"
    unset SERVICES
    verdict "vagrant reload" vagrant_shown reload
    for box in balancer backend; do
        verdict "$box: systemd runs, and nothing has failed" says running in_box "$box" \
            'timeout 60 systemctl is-system-running --wait; systemctl --failed --legend=no'
    done
    run_as_services
    serves_directly backend
    answers_arp_with_one_address
}

serve_with_second_backend() {
    local number answers
    title "A second backend box"
    verdict "BACKENDS=2 SERVICES=1 vagrant up --provision" \
        env_of_second_backend vagrant_shown up --provision
    answers=$(for number in {1..12}; do
        fetch "http://$vip/demo/page-$number.html"
        echo
    done | sort -u)
    verdict "all paths are answered, by both" says $'200 backend\n200 backend2' echo "$answers"
    verdict "vagrant knows it without BACKENDS" grep -q '^backend2 ' <(vagrant_there status)
}

env_of_second_backend() { BACKENDS=2 SERVICES=1 "$@"; }
