# shellcheck shell=bash disable=SC2154 # settings.sh assigns them
# What the README and docs say of the services, done in the balancer's box, word for word
# (tests/readme/elsewhere.py looks for it here).

operate_as_the_pages_say() {
    local before
    title "Operated as the pages say"
    in_balancer 'systemctl kill -s USR2 balancer'
    verdict "it writes its counters" await 5 in_box balancer \
        'journalctl -u balancer -g counters -n 1 -o cat | grep -q " packets="'
    in_balancer 'systemctl reload balancer'
    verdict "it has read its key again" await 5 in_box balancer \
        'journalctl -u balancer -n 20 | grep -q "SIGHUP: keys: "'

    before=$(in_box balancer 'systemctl show -P MainPID balancer')
    on host curl -s -o "$lab/log/download" --limit-rate 4M --max-time 60 "http://$vip/20m" &
    await 5 test -s "$lab/log/download"
    in_balancer 'systemctl restart balancer'
    verdict "that is another process" \
        test "$before" != "$(in_box balancer 'systemctl show -P MainPID balancer')"
    verdict "a download has gone on over it" wait "$!"
    verdict "and is whole" test "$(stat -c %s "$lab/log/download")" = $((20 << 20))
    rm -f "$lab/log/download"

    in_balancer 'systemctl stop balancer'
    verdict "what the kernel has is left" in_box balancer 'iptables-save | grep -qi l3dsr'
    in_balancer 'balancer flush'
    verdict "and is not left" in_box balancer '! iptables-save | grep -qi l3dsr'
    in_balancer 'systemctl enable --now balancer'
    verdict "curl http://$vip/" says "200 backend" fetch "http://$vip/"
    in_balancer 'systemctl kill -s INT balancer'
    verdict "it ends, and leaves nothing" await 20 in_box balancer \
        '! systemctl is-active -q balancer && ! iptables-save | grep -qi l3dsr'
    in_balancer 'systemctl enable --now balancer'
}

in_balancer() { # COMMAND: in the balancer's box
    verdict "$1" in_box balancer "$1"
}
