"""A host's own firewall, strict and stateful, as a careful administrator would write it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.e2e.lab import Lab

STATEFUL = """
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
-A OUTPUT -m conntrack --ctstate INVALID -j DROP
-A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
"""
ICMP_ERRORS = ("destination-unreachable", "time-exceeded", "parameter-problem")


def web_rules(vip: str, backends: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """By host, what docs/hosts.md says must pass beside the above; ``backends`` are the bridge's
    and the server's address on each of their hosts."""
    bridges = ",".join(bridge for bridge, _ in backends.values())
    rules = {
        "balancer": [
            f"FORWARD -d {bridges} -p tcp --dport 80",
            f"OUTPUT -s {vip} -p tcp --sport 80",
            f"OUTPUT -d {bridges} -p tcp --dport 80",
            *(f"FORWARD -d {bridges} -p icmp --icmp-type {kind}" for kind in ICMP_ERRORS),
            *(f"INPUT -d {vip} -p icmp --icmp-type {kind}" for kind in ICMP_ERRORS),
        ]
    }
    for host, (_, server) in backends.items():
        rules[host] = [
            f"INPUT -d {server} -p tcp --dport 80",
            f"OUTPUT -s {vip},{server} -p tcp --sport 80",
            f"OUTPUT -d {vip} -p tcp --dport 80",
            *(f"INPUT -d {server} -p icmp --icmp-type {kind}" for kind in ICMP_ERRORS),
        ]
    return {
        host: "".join(f"-A {rule} -j ACCEPT\n" for rule in accepted)
        for host, accepted in rules.items()
    }


@contextmanager
def firewall(lab: Lab, host: str, accepted: str) -> Iterator[None]:
    """The host's filter table with policy DROP and those rules; open again afterwards."""

    def restore(policy: str, rules: str) -> None:
        chains = "".join(f":{chain} {policy}\n" for chain in ("INPUT", "FORWARD", "OUTPUT"))
        table = f"*filter\n{chains}{rules.strip()}\nCOMMIT\n"
        command = lab.command(host, "iptables-restore", "-w", "-T", "filter")
        subprocess.run(command, input=table, text=True, check=True, timeout=20)

    try:
        restore("DROP", STATEFUL + accepted)
        yield
    finally:
        restore("ACCEPT", "")


def invalid(lab: Lab, host: str) -> int:
    """Packets that the host's firewall has dropped as invalid."""
    lines = lab.run(host, "iptables-save", "-c", "-t", "filter").splitlines()
    found = [line for line in lines if "INVALID" in line]
    assert len(found) == 3
    return sum(int(line[1:].partition(":")[0]) for line in found)
