"""A bounded memory of what has been seen lately, forgotten by generations."""

from __future__ import annotations


class Remembered:
    """A set whose members last at least ``seconds`` and at most twice that.

    Two generations: forgetting is dropping the older set whole, with no work per member. When a
    generation holds ``limit`` members it is closed early (counted in ``overruns``), so at most
    twice ``limit`` are kept whatever comes.
    """

    __slots__ = ("_current", "_previous", "_seconds", "_turn", "limit", "overruns")

    def __init__(self, seconds: float, limit: int) -> None:
        self._current: set[bytes] = set()
        self._previous: set[bytes] = set()
        self._seconds = seconds
        self.limit = limit
        self._turn = 0.0
        self.overruns = 0

    def __len__(self) -> int:
        return len(self._current) + len(self._previous)

    def add(self, member: bytes, now: float) -> None:
        if now >= self._turn:
            self._forget(now)
        if len(self._current) >= self.limit:
            self.overruns += 1
            self._rotate(now)
        self._current.add(member)

    def holds(self, member: bytes, now: float) -> bool:
        if now >= self._turn:
            self._forget(now)
        return member in self._current or member in self._previous

    def _forget(self, now: float) -> None:
        late = now - self._turn
        if late >= self._seconds:
            self._current = set()
        self._rotate(now - late % self._seconds)  # when it should have been

    def _rotate(self, now: float) -> None:
        self._previous, self._current = self._current, set()
        self._turn = now + self._seconds
