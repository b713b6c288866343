"""All variants of one program's world, taken in turn."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from tests.fuzz import balancer_side, bridge_side
from tests.fuzz.place import Place
from tests.fuzz.world import World

TURN = 500  # packets before the next variant has its turn
LAST = 100  # packets that come while a program stops


class Fuzzed:
    """``fed`` packets so far, all variants together."""

    def __init__(self, program: str, rng: random.Random) -> None:
        self.worlds = []
        module = balancer_side if program == "balancer" else bridge_side
        make = balancer_side.BalancerSide if program == "balancer" else bridge_side.BridgeSide
        for variant in range(len(module.VARIANTS)):
            own = random.Random(rng.getrandbits(64))
            self.worlds.append(World(make(own, variant, Place()), own))
        self._turn = 0

    @property
    def fed(self) -> int:
        return sum(world.fed for world in self.worlds)

    def run(self, packets: int) -> None:
        until = self.fed + packets
        while self.fed < until:
            world = self.worlds[self._turn % len(self.worlds)]
            self._turn += 1
            world.run(min(TURN, until - self.fed))

    def finish(self) -> dict[str, object]:
        """Stop the programs, and say what was counted."""
        counts: Counter[str] = Counter()
        for number, world in enumerate(self.worlds):
            if number % 2 == 0:
                world.expire()
            world.stop(LAST)
            world.expire()
            counts.update(world.counts())
        return {
            "fed": self.fed,
            "sound": sum(world.sound for world in self.worlds),
            "slowest": max(world.slowest for world in self.worlds),
            "counts": dict(counts.most_common()),
        }


def resident() -> int:
    """Bytes of memory that this process occupies."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS in /proc/self/status")
