"""What a measurement costs: processor time, bytes through the balancer, requests by server."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contestants import Contestant

TICKS = os.sysconf("SC_CLK_TCK")  # a second has so many


@dataclass(frozen=True)
class Cost:
    """``machine`` and ``balancer`` are processor seconds: of all there was, and of the processes on
    the balancer's host. What the kernel does for packets is in the first alone, as it does so in
    whichever process runs. ``carried`` are bytes through the balancer's interface, in and out."""

    machine: float
    balancer: float
    carried: int
    requests: list[int]


def costs(contestant: Contestant) -> Callable[[], Cost]:
    """Gives what has been spent since this was called. Asking takes processor time itself, so the
    clocks are read last before a measurement, and first after it."""
    lab = contestant.lab
    requests, carried = lab.requests(), sum(lab.bytes_at("balancer"))
    pids = lab.pids("balancer")
    balancer, machine = sum(map(process, pids)), _machine()

    def spent() -> Cost:
        busy, own = _machine() - machine, sum(map(process, pids)) - balancer
        through = sum(lab.bytes_at("balancer")) - carried
        asked = [last - first - 1 for first, last in zip(requests, lab.requests(), strict=True)]
        return Cost(busy, own, through, asked)

    return spent


def _machine() -> float:
    """Seconds in which a processor of this machine was busy: user, nice, system, irq, softirq."""
    first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    _, user, nice, system, _, _, irq, softirq, *_ = first.split()
    return sum(map(int, (user, nice, system, irq, softirq))) / TICKS


def process(pid: int) -> float:
    """Processor seconds of one, so far."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0
    fields = stat.rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS  # utime, stime
