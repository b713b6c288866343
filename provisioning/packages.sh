#!/bin/bash
# packages.sh [--programs] [PACKAGE...]: installs the Debian packages that the programs, the lab and
# the tests need (with --programs: the programs alone), and those that are named. Does nothing,
# quickly, when all are there. The installation, the namespace lab and the Vagrant boxes share this
# list.
set -euo pipefail

packages=(
    # the programs: Python, and a compiler for the NetfilterQueue extension
    python3 python3-venv python3-dev gcc libc6-dev libnetfilter-queue-dev libnfnetlink-dev
    iptables iproute2 procps
    # their fast path: a compiler for eBPF, its headers, and the library that loads it
    clang libbpf-dev libbpf1 linux-libc-dev
)
others=(
    # the lab and the tests
    nginx openssl curl nghttp2-client wrk tcpdump ethtool openssh-server openssh-client nftables
    # a DNS server, and what asks it: the services over UDP
    knot bind9-dnsutils dnsperf
    # the tests of the units and of the installation
    systemd man-db mandoc zsh
    # promtool, which judges the example of alerts
    prometheus
    # the benchmark's peer
    haproxy
)
if [[ ${1:-} == --programs ]]; then
    packages+=("${@:2}")
else
    packages+=("${others[@]}" "$@")
fi

installed() {
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done
((${#missing[@]})) || exit 0

if ((EUID != 0)); then
    echo "packages.sh: must run as root to install: ${missing[*]}" >&2
    exit 1
fi

# The lab starts nginx and sshd itself, the benchmark HAProxy, the tests knotd. A package's own service must start
# neither now (in a container it could not, and the installation would fail) nor at the next boot.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends "${missing[@]}"

# A box that had one of them before, sshd above all, keeps its service.
for service in nginx:nginx openssh-server:ssh haproxy:haproxy prometheus:prometheus knot:knot; do
    if [[ " ${missing[*]} " == *" ${service%:*} "* ]]; then
        update-rc.d "${service#*:}" disable
    fi
done
