"""Hosts whose own firewall is strict and stateful, as a careful administrator would write it."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.e2e.lab import LAB, Lab

pytestmark = pytest.mark.root

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
WEB = {  # what the README says must pass, beside the above
    "balancer": """
-A FORWARD -d 192.168.33.20,192.168.33.21 -p tcp --dport 80 -j ACCEPT
-A OUTPUT -s 192.168.33.10 -p tcp --sport 80 -j ACCEPT
-A OUTPUT -d 192.168.33.20,192.168.33.21 -p tcp --dport 80 -j ACCEPT
""",
    "backend1": """
-A INPUT -d 192.168.33.30 -p tcp --dport 80 -j ACCEPT
-A OUTPUT -s 192.168.33.10 -p tcp --sport 80 -j ACCEPT
-A OUTPUT -d 192.168.33.10 -p tcp --dport 80 -j ACCEPT
""",
    "backend2": """
-A INPUT -d 192.168.33.31 -p tcp --dport 80 -j ACCEPT
-A OUTPUT -s 192.168.33.10 -p tcp --sport 80 -j ACCEPT
-A OUTPUT -d 192.168.33.10 -p tcp --dport 80 -j ACCEPT
""",
}


@contextmanager
def firewall(lab: Lab, host: str) -> Iterator[None]:
    """The host's filter table with policy DROP and those rules; open again afterwards."""

    def restore(policy: str, rules: str) -> None:
        chains = "".join(f":{chain} {policy}\n" for chain in ("INPUT", "FORWARD", "OUTPUT"))
        table = f"*filter\n{chains}{rules.strip()}\nCOMMIT\n"
        command = lab.command(host, "iptables-restore", "-w", "-T", "filter")
        subprocess.run(command, input=table, text=True, check=True, timeout=20)

    try:
        restore("DROP", STATEFUL + WEB[host])
        yield
    finally:
        restore("ACCEPT", "")


def dropped(lab: Lab, host: str) -> int:
    """Packets of the VIP's service that the host's firewall has dropped as invalid."""
    lines = lab.run(host, "iptables-save", "-c", "-t", "filter").splitlines()
    invalid = [line for line in lines if "INVALID" in line]
    assert len(invalid) == 3
    return sum(int(line[1:].partition(":")[0]) for line in invalid)


def test_stateful_firewalls_on_all_hosts(lab: Lab) -> None:
    with ExitStack() as stack:
        for host in WEB:
            stack.enter_context(firewall(lab, host))
        for number in range(1, 21):
            assert lab.curl(f"/small/{number}").status == 200
        answer = lab.curl("/20m")
        stored = lab.curl("/upload/behind-firewalls", "-T", str(LAB / "www" / "1m"))
        counts = {host: dropped(lab, host) for host in WEB}
    assert hashlib.sha256(answer.body).digest() == _digest("20m")
    assert stored.status in (201, 204)
    assert _digest("upload/behind-firewalls") == _digest("1m")
    assert counts == dict.fromkeys(WEB, 0)


def _digest(name: str) -> bytes:
    with (LAB / "www" / name).open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()
