"""The tables of the policies by hash: what one is built for, and the building of it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

from balancer.core import config
from balancer.core.choice import maglev
from balancer.core.choice.hashed import Table
from balancer.core.choice.rendezvous import Rendezvous
from balancer.core.choice.ring import Ring


@dataclass(frozen=True, slots=True)
class Layout:
    """All that a table depends on. Equal ones have equal tables."""

    policy: str
    names: tuple[str, ...]  # of weight over 0, sorted
    weights: tuple[int, ...]
    size: int  # maglev: slots; ring: points of a weight

    @classmethod
    def of(cls, configured: config.Pool, weights: Mapping[str, int]) -> Layout | None:
        """None where there is nothing to build: another policy, or all weights 0."""
        names = tuple(sorted(name for name, weight in weights.items() if weight))
        if not names:
            return None
        by_name = tuple(weights[name] for name in names)
        match configured.policy:
            case "maglev":
                size = configured.table_size or maglev.fitting(len(weights))
            case "ring":
                size = configured.points
            case "rendezvous":
                size = 0
            case _:
                return None
        return cls(configured.policy, names, by_name, size)


def building(layout: Layout) -> Generator[None, None, Table]:
    """A layout's table, in steps of some milliseconds."""
    if layout.policy == "maglev":
        return (yield from maglev.Table.building(layout.names, layout.weights, layout.size))
    if layout.policy == "ring":
        return (yield from Ring.building(layout.names, layout.weights, layout.size))
    return Rendezvous(layout.names, layout.weights)
