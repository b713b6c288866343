"""Numbers under Prometheus' names: what there is, and how it travels to whoever shows it.

Names follow https://prometheus.io/docs/practices/naming: base units (seconds, bytes), a counter
ends in ``_total``, and a label has few values: never a client's or a connection's.

A row is a sample as JSON takes it: ``[name, [label values], number]``, of a histogram
``[name, [label values], [[counts by interval], sum]]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from common.core.histogram import Histogram

Kind = Literal["counter", "gauge", "histogram"]
Row = list[Any]

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name; ``labels`` are the labels' names, ``bounds`` a histogram's."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not all(_NAME.fullmatch(name) for name in (self.name, *self.labels)):
            raise ValueError(f"{self.name}: no name for a metric or a label")
        if (self.kind == "counter") != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters, and they alone, end in _total")
        if (self.kind == "histogram") != bool(self.bounds):
            raise ValueError(f"{self.name}: histograms, and they alone, have bounds")

    def row(self, number: float, *labels: str) -> Row:
        return [self.name, list(labels), number]

    def times(self, histogram: Histogram, *labels: str) -> Row:
        """The row of a histogram with the family's bounds."""
        return [self.name, list(labels), [list(histogram.counts), histogram.sum]]

    def encode(self) -> list[Any]:
        return [self.name, self.kind, self.help, list(self.labels), list(self.bounds)]


def decode(families: Iterable[list[Any]]) -> tuple[Family, ...]:
    """The families that were encoded one by one."""
    return tuple(
        Family(name, kind, text, tuple(labels), tuple(bounds))
        for name, kind, text, labels, bounds in families
    )
