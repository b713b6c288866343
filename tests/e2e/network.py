"""A bad network: packets dropped where they arrive at a host, or held where they leave one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.e2e.lab import BRIDGE1, BRIDGE2, ROOT, VIP, Lab

CHAIN = "LOSS"
HANDOFF = "--tcp-option 253"
LEGS = {  # where the packets of a way are dropped, and which they are
    "client to balancer": [("balancer", f"-d {VIP}")],
    "balancer to bridge": [
        ("backend1", f"-d {BRIDGE1} -m dscp --dscp 1"),
        ("backend2", f"-d {BRIDGE2} -m dscp --dscp 1"),
    ],
    "to the client": [("client", f"-s {VIP}")],
}


@dataclass(frozen=True)
class Dropped:
    """Packets lost so far on each leg, and how many of them carried the handoff option."""

    packets: dict[str, int]
    handoffs: int


class Loss:
    """Loss rules in force; ``dropped`` counts what they took."""

    def __init__(self, lab: Lab, legs: dict[str, list[tuple[str, str]]]) -> None:
        self._lab = lab
        self._legs = legs

    def dropped(self) -> Dropped:
        packets, handoffs = dict.fromkeys(self._legs, 0), 0
        for leg, places in self._legs.items():
            for host, _ in places:
                for count, rule in self._rules(host):
                    packets[leg] += count
                    handoffs += count if "tcp-option 253" in rule else 0
        return Dropped(packets, handoffs)

    def _rules(self, host: str) -> Iterator[tuple[int, str]]:
        for line in self._lab.run(host, "iptables-save", "-c", "-t", "raw").splitlines():
            if f"-A {CHAIN} " in line and "-j DROP" in line:
                yield int(line[1:].partition(":")[0]), line


@contextmanager
def loss(lab: Lab, probability: float, *legs: str) -> Iterator[Loss]:
    """Drop TCP packets of the named legs with a probability, one by one (no offloads meanwhile)."""
    chosen = {leg: LEGS[leg] for leg in legs}
    chance = f"-m statistic --mode random --probability {probability} -j DROP"
    with lab.no_offloads(), ExitStack() as stack:
        for places in chosen.values():
            for host, match in places:
                # a handoff meets only the first rule, so that lost ones are counted apart
                rules = [
                    f"-p tcp {match} {HANDOFF} {chance}",
                    f"-p tcp {match} {HANDOFF} -j RETURN",
                    f"-p tcp {match} {chance}",
                ]
                stack.enter_context(_rules(lab, host, rules))
        yield Loss(lab, chosen)


@contextmanager
def _rules(lab: Lab, host: str, rules: list[str]) -> Iterator[None]:
    """Rules in a chain of their own, before all others of the raw table."""
    raw = ("iptables", "-w", "-t", "raw")
    lab.run(host, *raw, "-N", CHAIN)
    try:
        for rule in rules:
            lab.run(host, *raw, "-A", CHAIN, *rule.split())
        lab.run(host, *raw, "-I", "PREROUTING", "1", "-j", CHAIN)
        yield
    finally:
        lab.run(host, *raw, "-D", "PREROUTING", "-j", CHAIN, check=False)
        lab.run(host, *raw, "-F", CHAIN)
        lab.run(host, *raw, "-X", CHAIN)


@contextmanager
def delay(lab: Lab, host: str, match: str, seconds: float) -> Iterator[None]:
    """Hold TCP packets that leave a host, in order; ``match`` says which."""
    queue = "4711"
    holder = lab.command(host, sys.executable, "-m", "tests.e2e.holding", queue, str(seconds))
    rule = ["POSTROUTING", "-p", "tcp", *match.split(), "-j", "NFQUEUE", "--queue-num", queue]
    mangle = ("iptables", "-w", "-t", "mangle")
    with subprocess.Popen(holder, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            lab.run(host, *mangle, "-A", *rule)
            try:
                yield
            finally:
                lab.run(host, *mangle, "-D", *rule)
        finally:
            process.terminate()
