"""What a packet loop looks after besides packets: descriptors, and what is to be done at a time."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable

from common.core.timing import Deadlines

Heed = Callable[[int], None]  # with the events of poll(2)


class Watch:
    """Descriptors with what heeds them, and calls that are due at a time (monotonic seconds).

    ``due`` is the earliest of these times. Of the calls that are due ``step`` makes one: whoever
    has much to do, does a part and comes again, so that packets never wait for more than a part.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.due = math.inf
        self._poll = select.poll()
        self._heeds: dict[int, Heed] = {}
        self._calls: Deadlines[Callable[[float], None]] = Deadlines()

    def add(self, descriptor: int, events: int, heed: Heed) -> None:
        """Have ``heed`` called when there are such events, or an error."""
        self._heeds[descriptor] = heed
        self._poll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        self._poll.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Forget a descriptor, before it is closed."""
        del self._heeds[descriptor]
        self._poll.unregister(descriptor)

    def ready(self, seconds: float) -> list[tuple[int, int]]:
        """Descriptors and their events, waited for so long at most."""
        return self._poll.poll(max(seconds, 0) * 1000)

    def heed(self, found: list[tuple[int, int]]) -> None:
        """Have what ``ready`` gave heeded."""
        for descriptor, events in found:
            heed = self._heeds.get(descriptor)  # one may have removed the next
            if heed is not None:
                heed(events)

    def at(self, when: float, call: Callable[[float], None]) -> None:
        """Have ``call(now)`` called once that time has come, after those that were due before."""
        self._calls.add(when, call)
        self.due = min(self.due, when)

    def step(self, now: float) -> None:
        """Make one call that is due, if there is one."""
        call = self._calls.pop_due(now)
        first = self._calls.next()
        self.due = math.inf if first is None else first
        if call is not None:
            call(now)
