"""Connections that are over, on their way to the access log."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Protocol

from common.core.ledger import Occurrence, Outcome

MOST = 32768  # that wait: some seconds' worth of a busy host's, of about 500 bytes each


class Access(Occurrence):
    """Of the access log."""

    LOST = "access_records_lost"  # nobody fetched those before


class Recorded(Protocol):
    """What is known of a connection that is over; what its record is made of once it is fetched."""

    def record(self) -> dict[str, Any]: ...


class AccessRecords:
    """The records wait here until the agent fetches them. ``wanted``: there is an access log; who
    collects them looks at it first."""

    def __init__(self, counts: Counter[Outcome | Occurrence], most: int = MOST) -> None:
        self.wanted = False
        self._counts = counts
        self._most = most
        self._waiting: deque[Recorded] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ended: Recorded) -> None:
        """Keep it, or, where too many wait already, count it as lost."""
        if len(self._waiting) < self._most:
            self._waiting.append(ended)
        else:
            self._counts[Access.LOST] += 1

    def take(self, most: int) -> list[dict[str, Any]]:
        """At most so many records, the oldest first, which wait no longer."""
        waiting = self._waiting
        return [waiting.popleft().record() for _ in range(min(most, len(waiting)))]
