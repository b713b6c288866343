"""Times, counted by how long they were: what a histogram of Prometheus is made of."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

# Seconds. A handshake takes the client's round trip, a handoff the way to the server and back.
TIMES = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


class Histogram:
    """``counts`` of values up to each of ``bounds``, and beyond the last; ``sum`` of all values.
    A count is of its own interval alone: whoever shows them adds them up."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = TIMES) -> None:
        """``bounds`` ascend."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value, such as seconds; one on a bound belongs below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)
