"""Two ways to be reminded: exact deadlines for protocol timers, second buckets for idle time-outs;
and the schedule that runs both.

None looks at a clock. All are lazy: a packet only writes its flow's time of last use, and what
is due is asked again whether it really is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Any, Generic, TypeVar

T = TypeVar("T")

ASK_AGAIN = 15.0  # seconds at most between two looks at an idle item: how late its end can be
ENDS_AT_ONCE = 500  # items looked at in one go, so that packets are not held up
LOOK_EVERY = 1.0  # seconds between two goes
TAKEN_AT_ONCE = 256  # items


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

    def items(self) -> Iterator[T]:
        """All items, taken little by little: what is added or asked meanwhile may come twice, or
        not at all. No copy of them all is made, which would hold up packets where there are many.
        """
        for second in sorted(self._buckets):
            bucket = self._buckets.get(second, [])
            for at in count(0, TAKEN_AT_ONCE):  # it grows, or loses its last ones
                some = bucket[at : at + TAKEN_AT_ONCE]
                if not some:
                    break
                yield from some

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

    def ended(
        self, now: float, deadline: Callable[[T], float | None], ask_again: float
    ) -> tuple[list[T], bool]:
        """Items whose ``deadline`` has passed, taken out; and whether there may be more at once.

        ``deadline`` gives None for an item that is gone. It is asked again after ``ask_again``
        seconds at the latest, as an item's deadline may come nearer meanwhile.
        """
        found: list[T] = []

        def verdict(item: T) -> float | None:
            when = deadline(item)
            if when is None:
                return None
            if when > now:
                return min(when, now + ask_again)
            found.append(item)
            return None

        return found, self.advance(now, verdict, ENDS_AT_ONCE) == ENDS_AT_ONCE


class Schedule:
    """What a core has to do without a packet: timers of its items, and a look at the idle ones."""

    def __init__(self, now: float) -> None:
        self._timers: Deadlines[tuple[Callable[[Any, float], None], Any]] = Deadlines()
        self._next_look = now + LOOK_EVERY

    def add(self, when: float, act: Callable[[T, float], None], item: T) -> None:
        """Call ``act(item, now)`` once ``when`` has come; there is no taking it back."""
        self._timers.add(when, (act, item))

    def next(self) -> float:
        """When ``run`` is to be called, at the latest."""
        first = self._timers.next()
        return self._next_look if first is None else min(first, self._next_look)

    def run(self, now: float, look: Callable[[float], bool]) -> None:
        """Do what is due; ``look`` ends what is idle and says whether there may be more at once."""
        while (timer := self._timers.pop_due(now)) is not None:
            act, item = timer
            act(item, now)
        if now >= self._next_look:
            self._next_look = now if look(now) else now + LOOK_EVERY
