"""What takes longer than packets may wait: done in parts, a part at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Part = Callable[[float], bool]
"""Does the next part, given the time; says whether there is more."""


class Chores:
    """Worked off in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[Part] = deque()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting)

    def add(self, chore: Part) -> None:
        self._waiting.append(chore)

    def step(self, now: float) -> None:
        """Do one part of the first. One that raises is given up."""
        if not self._waiting:
            return
        chore = self._waiting.popleft()
        if chore(now):
            self._waiting.appendleft(chore)
