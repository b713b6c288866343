"""Kernels that have told the cores something, right or wrong: who arrived, what ended."""

from __future__ import annotations

import random
from itertools import islice

from balancer.core.engine import Balancer
from balancer.core.fast_path import Arrival
from balancer.core.fast_path import NoFastPath as NoSteering
from packetbridge.core.engine import Bridge
from packetbridge.core.fast_path import Ending
from packetbridge.core.fast_path import NoFastPath as NoSplicing

OFTEN = 0.1  # how often there is anything
AMONG = 50  # connections, the oldest


class Shaking(NoSteering):
    """Reports clients that are known, others, and newer ones of the same ports."""

    answers = True

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.core: Balancer | None = None

    def arrivals(self) -> list[Arrival]:
        rng, core = self._rng, self.core
        if core is None or rng.random() > OFTEN:
            return []
        table = rng.choice((core.table.waiting, core.table.handed))
        now = core._context.wall - core._wall_offset
        found = []
        for flow in rng.sample(list(islice(table.values(), AMONG)), min(len(table), AMONG, 2)):
            key, b = flow.key, flow.b ^ rng.choice((0, 0, 0, 0x100))
            if rng.random() < 0.3:
                key = rng.randbytes(4) + key[4:8] + rng.randbytes(2) + rng.choice((key[10:], b"??"))
            found.append(Arrival(key, flow.c, b, rng.choice((0, 30, 59_999)), now))
        return found


class Reporting(NoSplicing):
    """Reports connections as ended that are, that are not, and that were."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.core: Bridge | None = None

    def endings(self) -> list[Ending]:
        rng, core = self._rng, self.core
        if core is None or rng.random() > OFTEN or not len(core.table):
            return []
        flow = rng.choice(list(islice(core.table.outbound.values(), AMONG)))
        isns = rng.choice((flow.isns, flow.isns, bytes(8)))
        inbound = rng.choice((flow.inbound, flow.inbound, flow.outbound))
        return [Ending(flow.entry.dscp, inbound, isns, flow.seen)]
