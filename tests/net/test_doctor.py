"""`doctor` on a host that lacks much at once: all is named, and the printed commands mend it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.adapters import offloads
from tests.net.namespace import ROOT, Namespace
from tests.net.test_startup_checks import BIND_QUEUE

pytestmark = pytest.mark.root

READY = (
    "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.tcp_fwmark_accept=1"
    " net.ipv4.tcp_congestion_control=reno net.ipv4.ip_local_reserved_ports=20000-29999"
    + "".join(
        f" net.ipv4.conf.{name}.{setting}=0"
        for name in ("all", "eth0", "eth1")
        for setting in ("send_redirects", "rp_filter")
    )
    + " && ip address add 192.168.33.20/24 dev eth0"
    " && ip route replace local 192.168.33.20 dev lo table local"
)
BALANCER = """
interface = "eth1"
datapath = "nfqueue"
key_file = "{key}"
[[services]]
vip = "192.168.33.10"
port = 80
dscp = 1
backends = [{{ bridge = "192.168.33.77" }}]
"""
BRIDGE = """
datapath = "nfqueue"
key_file = "{key}"
[[balancers]]
vip = "192.168.33.99"
dscp = 1
[[backends]]
address = "192.168.33.20"
port = 80
server = "192.168.33.10:80"
source = "bridge"
hold_handshake = "off"
[[backends]]
address = "192.168.33.20"
port = 81
server = "192.168.33.77:80"
"""
# By the subject that names it.
BREAK_EITHER = {
    "key": "chmod 640 {key}",
    "MTU": "ip link set dev eth0 mtu 9000",
    "reverse path": "sysctl -qw net.ipv4.conf.all.rp_filter=1",
    "forwarding": "sysctl -qw net.ipv4.ip_forward=0",
    "other rules": "iptables -P FORWARD DROP && iptables -t mangle -A OUTPUT -j TOS --set-tos 0x40",
}
BREAK_BALANCER = BREAK_EITHER | {
    "VIP 192.168.33.10": "ip address delete 192.168.33.10/24 dev eth0",
    "bridge 192.168.33.77": "true",  # its route goes with the address
    "redirects": "sysctl -qw net.ipv4.conf.all.send_redirects=1",
    "interface eth1": "ip link set eth1 down",
    "our queues": "iptables -A INPUT -p udp -j NFQUEUE --queue-num 3311",
}
BREAK_BRIDGE = BREAK_EITHER | {
    "bridge 192.168.33.20": "ip address delete 192.168.33.20/24 dev eth0",
    "server 192.168.33.77": "ip route delete 192.168.33.0/24",
    "tcp_fwmark_accept": "sysctl -qw net.ipv4.tcp_fwmark_accept=0",
    "local routes": "ip route replace local 192.168.33.20 dev eth0 table local",
    "source ports": "sysctl -qw net.ipv4.ip_local_reserved_ports=''",
    "congestion control": "ip route add 10.8.0.0/16 dev eth0 congctl bbr",
    "our queues": "iptables -A INPUT -p udp -j NFQUEUE --queue-num 3320",
}
MOST_ROUNDS = 4  # one thing may hide another


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    created = Namespace("doctor")
    created.shell(READY)
    yield created
    created.delete()


class Doctor:
    """A program's doctor in a namespace."""

    def __init__(self, namespace: Namespace, program: str, configuration: Path) -> None:
        self._namespace, self._program = namespace, program
        self._configuration = configuration

    def run(self, *before: str) -> tuple[int, list[dict[str, str]]]:
        """Exit code and lines; ``before`` is a command to run it by."""
        code = f"from {self._program}.program.cli import main; main()"
        done = subprocess.run(
            [
                *self._namespace.enter(),
                *before,
                *(sys.executable, "-c", code, "doctor", "--json"),
                *("--config", str(self._configuration)),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    def ailing(self) -> dict[str, dict[str, str]]:
        """What is not ok, by subject; without who is to answer, which nobody does here."""
        code, lines = self.run()
        found = [line for line in lines if line["verdict"] in ("not ok", "warning")]
        assert code == any(line["verdict"] == "not ok" for line in lines)
        return {
            f"{line['subject']} {number}": line
            for number, line in enumerate(found)
            if not line["found"].startswith(("no answer", "this host does not send"))
        }

    def mend(self) -> set[str]:
        """Run what it prints until nothing ails; gives the subjects that were named on the way."""
        named = set()
        for _ in range(MOST_ROUNDS):
            ailing = self.ailing()
            if not ailing:
                return named
            named |= {line["subject"] for line in ailing.values()}
            for line in ailing.values():
                if "could not be tried" not in line["found"]:
                    self._namespace.shell(line["mend"])
        raise AssertionError(f"still ailing: {ailing}")


def doctor(namespace: Namespace, program: str, text: str, key: Path) -> Doctor:
    configuration = key.with_name("configuration.toml")
    configuration.write_text(text.format(key=key))
    return Doctor(namespace, program, configuration)


@pytest.mark.parametrize(
    ("program", "text", "breaking"),
    [("balancer", BALANCER, BREAK_BALANCER), ("packetbridge", BRIDGE, BREAK_BRIDGE)],
)
def test_each_line_is_named_and_mended(
    namespace: Namespace, key: Path, program: str, text: str, breaking: dict[str, str]
) -> None:
    asked = doctor(namespace, program, text, key)
    if program == "balancer":
        namespace.shell("ip link set eth1 up")
    assert asked.ailing() == {}
    number = 3310 if program == "balancer" else 3320
    holder = namespace.start(BIND_QUEUE.format(number=number))
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "bound\n"
        for command in breaking.values():
            namespace.shell(command.format(key=key))
        assert asked.mend() == {*breaking, f"queue {number}"}
        holder.wait(timeout=10)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.mark.parametrize(("program", "text"), [("balancer", BALANCER), ("packetbridge", BRIDGE)])
def test_without_root_it_says_what_it_could_not_judge(
    namespace: Namespace, key: Path, program: str, text: str
) -> None:
    asked = doctor(namespace, program, text, key)
    code, lines = asked.run("setpriv", "--bounding-set", "-net_raw,-net_admin")
    verdicts = {line["subject"]: line["verdict"] for line in lines}
    assert code == 1
    assert verdicts["privileges"] == "not ok"
    assert lines[0]["mend"] == f"sudo {program} doctor"
    unjudged = {"key", "firewall rules", "our queues", "other rules"}
    assert {verdicts[subject] for subject in unjudged} == {"not judged"}
    assert verdicts["MTU"] == verdicts["forwarding"] == "ok"


def test_offloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """No interface of a virtual machine's makes LRO: what the kernel would say is said here."""
    assert offloads.merged_by_the_card(["lo", "none"]) == []
    monkeypatch.setattr(offloads, "flags", {"eth0": 0x8000, "eth1": 0x4000}.__getitem__)
    (problem,) = offloads.merged_by_the_card(["eth0", "eth1"])
    assert problem.mend == "ethtool -K eth0 lro off"
