"""Hostile packets by the thousand at the real programs, from the wire, beside a download.

A core of the same kind, with the lab's key, addresses and clock, takes part in the conversations
that are fuzzed, so that cookies and handoffs are good at the real program as well. What reaches the
program is counted by the kernel: that is what the program's outcomes have to add up to.
"""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.adapters import keyfile
from common.core.keys import derive
from tests.e2e.lab import BRIDGE1, BRIDGE2, LAB, SERVER1, VIP, Lab, until
from tests.e2e.raw import FIRST_PORT, LAST_PORT, silent_ports
from tests.fuzz.balancer_side import BalancerSide
from tests.fuzz.bridge_side import BridgeSide
from tests.fuzz.place import Place
from tests.fuzz.world import World
from tests.soak import Amount
from tests.unit.accounting import OUTCOMES

pytestmark = pytest.mark.root

SEED = 77
RATE = 5000  # packets a second: the programs are to be fuzzed, not flooded
MTU = 1500
PARTS = 20  # in which memory is looked at
TABLES = 60 << 20  # bytes that the bounded tables of a program may take in all
REACHED = {"balancer": "connections", "packetbridge": "handoff_taken"}
LEVEL = 8 << 20  # and bytes that memory may differ between the last quarter and the one before


@dataclass(frozen=True)
class Target:
    """One of the programs: where it runs, and who is on the wire before it."""

    program: str
    host: str
    kind: str
    sender: str
    address: str


TARGETS = [
    Target("balancer", "balancer", "balancer", "client", VIP),
    Target("backend1", "backend1", "packetbridge", "balancer", BRIDGE1),
]


class Wire:
    """Puts packets on a host's interface, for a target."""

    def __init__(self, lab: Lab, target: Target) -> None:
        self._socket = lab.socket(target.sender, socket.AF_PACKET, socket.SOCK_DGRAM)
        self._to = ("eth0", 0x0800, 0, 0, lab.link_address(target.host))
        self._address = socket.inet_aton(target.address)
        self._began = time.monotonic()
        self.sent = 0

    def send(self, packet: bytes) -> None:
        """Send what is for the target and fits the link; a server's own packets are not sent in
        its name."""
        if packet[16:20] == self._address and len(packet) <= MTU:
            self._socket.sendto(packet, self._to)
            self.sent += 1
            ahead = self._began + self.sent / RATE - time.monotonic()
            if ahead > 0.01:
                time.sleep(ahead)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def downloads(lab: Lab, name: str) -> Iterator[list[int]]:
    """Download a file again and again; gives the statuses. Ends with the download at hand."""
    expected, over, done = (LAB / "www" / name).read_bytes(), threading.Event(), []

    path = lab.path_for(name, "backend1")

    def fetch() -> None:
        while not over.is_set():
            answer = lab.curl(path)
            done.append(answer.status if answer.body == expected else 0)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join(timeout=90)
        assert not thread.is_alive()


def queued(lab: Lab, host: str) -> tuple[int, int, int]:
    """By the kernel: packets that the program's rules queued, that were given to the program, and
    that were lost before it. All since the program started."""
    rules = lab.run(host, "iptables-save", "-c", "-t", "raw")
    by_rules = sum(int(n) for n in re.findall(r"^\[(\d+):\d+\] -A L3DSR-.* NFQUEUE", rules, re.M))
    lines = lab.run(host, "cat", "/proc/net/netfilter/nfnetlink_queue").splitlines()
    # queue, port id, waiting, copy mode, range, dropped, dropped at the socket, last packet's id
    queues = [[int(field) for field in line.split()] for line in lines]
    given = sum(fields[7] - fields[6] for fields in queues)
    return by_rules, given, sum(fields[5] + fields[6] for fields in queues)


def resident(pid: int) -> int:
    """Bytes of memory that a process occupies."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_all_that_reaches_a_program_has_an_outcome(
    lab: Lab, amount: Amount, report: Callable[[str], None], target: Target
) -> None:
    packets, file = amount((8_000, "1m"), (1_000_000, "20m"))
    place = Place(
        vips={1: VIP},
        bridges=(BRIDGE1, BRIDGE2),
        server=(SERVER1, 80),
        clients="192.168.33",
        hosts=range(1, 2),
        ports=range(FIRST_PORT, LAST_PORT + 1),
        keys=derive(keyfile.load(str(LAB / "etc" / "key"))[0]),
        now=time.monotonic(),
        wall_offset=time.time() - time.monotonic(),
    )
    rng, pid = random.Random(SEED), lab.pid(target.program)
    side = (BalancerSide if target.kind == "balancer" else BridgeSide)(rng, 0, place)
    wire, memory = Wire(lab, target), [resident(pid)]
    with lab.no_offloads():  # or what a client sends passes the rules together, too
        before, counted_before = settled(lab, target)
        try:
            with silent_ports(lab), downloads(lab, file) as done:
                world = World(side, rng, wire.send)
                for part in range(PARTS):
                    while wire.sent < packets * (part + 1) // PARTS:
                        world.run(50)
                    memory.append(resident(pid))
                    amount.progress(part + 1, PARTS)
                until(lambda: done, 60, "a download ends")
        finally:
            wire.close()
            for host in ("backend1", "backend2"):  # ICMP errors among them have narrowed the paths
                lab.run(host, "ip", "route", "flush", "cache")
        assert lab.curl("/1k").status == 200, "a request right after it"
        after, counted = settled(lab, target)
    assert set(done) == {200}
    rules, given, lost = (now - then for now, then in zip(after, before, strict=True))
    name = REACHED[target.kind]
    reached = counted[name] - counted_before.get(name, 0) - len(done)
    report(
        f"{wire.sent:,} packets sent; {given + lost:,} queued with those of {len(done)} downloads "
        f"beside, {lost} lost by the kernel; {reached:,} {REACHED[target.kind]}; memory "
        f"{memory[0] / 1e6:.0f} to {memory[-1] / 1e6:.0f} MB"
    )
    assert reached > packets / 100
    outcomes = sum(counted.get(name, 0) for name in OUTCOMES[target.kind])
    assert outcomes == counted["packets"] == after[1]
    # a local server's segments pass the rules together, and are queued one by one
    assert rules == given + lost or (target.kind == "packetbridge" and rules < given + lost)
    assert rules > packets / 2
    assert counted.get("internal_error", 0) == counted.get("timer_error", 0) == 0
    assert lab.pid(target.program) == pid
    assert memory[-1] - memory[0] < TABLES, memory
    quarter = PARTS // 4
    level = max(memory[-quarter:]) - max(memory[-2 * quarter : -quarter])
    assert level < LEVEL, memory


def settled(lab: Lab, target: Target) -> tuple[tuple[int, int, int], dict[str, int]]:
    """What `queued` gives, and the program's counters, at one moment: nothing came meanwhile."""

    def still() -> tuple[tuple[int, int, int], dict[str, int]] | None:
        before = queued(lab, target.host)
        counted = lab.counters(target.program)
        return (before, counted) if queued(lab, target.host) == before else None

    return until(still, 60, f"no more packets at {target.host}")
