"""A bad network: the switch loses packets of chosen legs, holds them, or lets them come twice.

It happens between the hosts, so that it is the same for every data path.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.e2e.lab import ROOT, Lab
from tests.e2e.wire import Faults

LEGS = {  # the hosts that each leads from and to
    "client to balancer": [("client", "balancer")],
    "balancer to client": [("balancer", "client")],
    "balancer to bridge": [("balancer", "backend1"), ("balancer", "backend2")],
    "bridge to balancer": [("backend1", "balancer"), ("backend2", "balancer")],
    "bridge to client": [("backend1", "client"), ("backend2", "client")],
}
REMOTE_LEGS = {  # of a bridge on the first backend host whose server is on the second
    "bridge to server": [("backend1", "backend2")],
    "server to bridge": [("backend2", "backend1")],
}
ALL_LEGS = LEGS | REMOTE_LEGS
HANDOFF = "--tcp-option 253"  # and the bridges' answers
CHAIN = "LOSS"
QUEUE = 4711


@dataclass(frozen=True)
class Count:
    """Packets, and how many of them carried the handoff option."""

    packets: int
    handoffs: int

    def __str__(self) -> str:
        return f"{self.packets}" + (f" ({self.handoffs} handoffs)" if self.handoffs else "")


# --- loss, by the kernel alone ---


class Loss:
    """Loss rules in force; ``dropped`` counts what they took on each leg."""

    def __init__(self, lab: Lab, legs: list[str]) -> None:
        self._lab = lab
        self._legs = legs  # of the dropping rules, in their order: each leg's handoffs come first

    def dropped(self) -> dict[str, Count]:
        found = dict.fromkeys(self._legs, Count(0, 0))
        lines = self._lab.run("switch", "iptables-save", "-c", "-t", "mangle").splitlines()
        drops = [line for line in lines if f"-A {CHAIN} " in line and "-j DROP" in line]
        for leg, line in zip(self._legs, drops, strict=True):
            count = int(line[1:].partition(":")[0])
            handoffs = count if "tcp-option 253" in line else 0
            found[leg] = Count(found[leg].packets + count, found[leg].handoffs + handoffs)
        return found


@contextmanager
def loss(lab: Lab, probability: float, *legs: str) -> Iterator[Loss]:
    """Drop TCP packets of the named legs with a probability, one by one (no offloads meanwhile)."""
    chance = f"-m statistic --mode random --probability {probability} -j DROP"
    rules, dropping = [], []
    for leg in legs:
        for way in ALL_LEGS[leg]:
            match = _between(*way)
            # a handoff meets only the first rule, so that lost ones are counted apart
            rules += [
                f"{match} {HANDOFF} {chance}",
                f"{match} {HANDOFF} -j RETURN",
                f"{match} {chance}",
            ]
            dropping += [leg, leg]
    with lab.no_offloads(), _chain(lab, rules):
        yield Loss(lab, dropping)


@contextmanager
def _chain(lab: Lab, rules: list[str]) -> Iterator[None]:
    """Rules for what the switch forwards, in a chain of their own."""
    mangle = ("iptables", "-w", "-t", "mangle")
    _filtering(lab)
    lab.run("switch", *mangle, "-N", CHAIN)
    try:
        for rule in rules:
            lab.run("switch", *mangle, "-A", CHAIN, *rule.split())
        lab.run("switch", *mangle, "-I", "FORWARD", "1", "-j", CHAIN)
        yield
    finally:
        lab.run("switch", *mangle, "-D", "FORWARD", "-j", CHAIN, check=False)
        lab.run("switch", *mangle, "-F", CHAIN)
        lab.run("switch", *mangle, "-X", CHAIN)


# --- loss of certain packets, reordering, duplication, delay: by a program (see wire.py) ---


class Deeds:
    """What a misbehaving wire has done: known once it behaves again."""

    def __init__(self) -> None:
        self.counts: dict[str, Count] = {}

    def __getitem__(self, deed: str) -> Count:
        return self.counts[deed]

    def __str__(self) -> str:
        return ", ".join(f"{deed} {count}" for deed, count in self.counts.items() if count.packets)


@contextmanager
def misbehaving(lab: Lab, leg: str, faults: Faults, match: str = "") -> Iterator[Deeds]:
    """A leg with faults; ``match`` says which of its TCP packets meet them."""
    rules = [f"FORWARD {_between(*way)} {match}" for way in ALL_LEGS[leg]]
    queue = QUEUE + 1 + list(ALL_LEGS).index(leg)
    ports = {}
    for _, receiver in ALL_LEGS[leg]:
        ports.update(_ports(lab, receiver))
    _filtering(lab)
    with lab.no_offloads(), wire(lab, "switch", rules, replace(faults, ports=ports), queue) as done:
        yield done


@contextmanager
def delay(lab: Lab, host: str, match: str, seconds: float) -> Iterator[None]:
    """Hold TCP packets that leave a host, in order; ``match`` says which."""
    with wire(lab, host, [f"POSTROUTING -p tcp {match}"], Faults(hold=1, late=seconds)):
        yield


@contextmanager
def wire(
    lab: Lab, host: str, rules: list[str], faults: Faults, queue: int = QUEUE
) -> Iterator[Deeds]:
    """Faults for the packets that a host's rules (chain of the mangle table, and match) select."""
    program = [sys.executable, "-m", "tests.e2e.wire", f"{queue}", json.dumps(asdict(faults))]
    mangle, target = ("iptables", "-w", "-t", "mangle"), f"-j NFQUEUE --queue-num {queue}"
    deeds = Deeds()
    with subprocess.Popen(
        lab.command(host, *program), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with ExitStack() as stack:
                for rule in rules:
                    arguments = f"{rule} {target}".split()
                    lab.run(host, *mangle, "-A", *arguments)
                    stack.callback(lab.run, host, *mangle, "-D", *arguments)
                yield deeds
        finally:
            process.terminate()
            said = process.stdout.read() if process.stdout is not None else ""
    assert said, "the wire died"
    deeds.counts = {deed: Count(*counts) for deed, counts in json.loads(said).items()}


def _between(sender: str, receiver: str) -> str:
    """What the switch forwards from one host to another: its ports are named after them."""
    return f"-p tcp -m physdev --physdev-in {sender} --physdev-out {receiver}"


def _filtering(lab: Lab) -> None:
    """What the switch forwards passes its iptables."""
    if not Path("/proc/sys/net/bridge").exists():
        subprocess.run(["modprobe", "br_netfilter"], check=True)
    lab.run("switch", "sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=1")


def _ports(lab: Lab, host: str) -> dict[str, tuple[str, str]]:
    """By each address of a host: the switch's port to it, and its link address."""
    (link,) = json.loads(lab.run(host, "ip", "-j", "address", "show", "eth0"))
    mac = re.sub(":", "", link["address"])
    return {entry["local"]: (host, mac) for entry in link["addr_info"] if "local" in entry}
