"""Two ways to be reminded: exact deadlines for protocol timers, second buckets for idle time-outs.

Neither looks at a clock. Both are lazy: a packet only writes its flow's time of last use, and what
is due is asked again whether it really is.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """A heap of (time, item). An item is never removed; its owner ignores what no longer holds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, when: float, item: T) -> None:
        heappush(self._heap, (when, next(self._order), item))

    def next(self) -> float | None:
        """The earliest time, or None."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> T | None:
        """The earliest item whose time has come, or None."""
        if self._heap and self._heap[0][0] <= now:
            return heappop(self._heap)[2]
        return None


class IdleWheel(Generic[T]):
    """Items in buckets of a second; each is asked for its fate when its bucket's second has passed.

    Work is bounded per call, so that many expiries at once do not hold up packets.
    """

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, list[T]] = {}
        self._second = int(now)

    def add(self, when: float, item: T) -> None:
        """Ask about ``item`` in the second after ``when``, or the next one if that is past."""
        second = max(int(when) + 1, self._second + 1)
        self._buckets.setdefault(second, []).append(item)

    def advance(self, now: float, verdict: Callable[[T], float | None], most: int) -> int:
        """Ask ``verdict`` about at most ``most`` items whose second has come by ``now``.

        It gives the time at which to ask again, or None for an item that is gone. Returns how many
        were asked; fewer than ``most`` means that nothing more is due.
        """
        asked = 0
        while self._second <= now:
            bucket = self._buckets.get(self._second)
            while bucket:
                if asked == most:
                    return asked
                item = bucket.pop()
                asked += 1
                again = verdict(item)
                if again is not None:
                    self.add(again, item)
            self._buckets.pop(self._second, None)
            self._second += 1
        return asked
