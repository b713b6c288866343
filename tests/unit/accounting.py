"""The books of a program: the names that it counts by, and whether its packets add up."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import balancer.program.serve  # noqa: F401
import packetbridge.program.serve  # noqa: F401  with these, every name is known
from common.core.ledger import Occurrence, Outcome


class Counting(Protocol):
    def counts(self) -> Counter[str]: ...


def names(kind: type[Outcome] | type[Occurrence], program: str) -> set[str]:
    """The names that ``program`` ("balancer", "packetbridge") counts outcomes or occurrences by."""
    return {
        str(name)
        for listed in kind.__subclasses__()
        if listed.__module__.partition(".")[0] in (program, "common")
        for name in listed
    }


OUTCOMES = {program: names(Outcome, program) for program in ("balancer", "packetbridge")}


def accounted(core: Counting) -> int:
    """Packets that have an outcome."""
    program = type(core).__module__.partition(".")[0]
    counts = core.counts()
    return sum(counts[name] for name in OUTCOMES[program] if name in counts)
