"""Records of connections that are over, until they are fetched to be written."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

MOST = 65536  # that wait: some 50 MB

Record = Mapping[str, Any]


class AccessRecords:
    """A bounded queue. ``lost`` counts records for which there was no room: whoever writes them is
    away, or slow. Without ``wanted`` none is kept: callers ask before they make one."""

    def __init__(self, wanted: bool = False, most: int = MOST) -> None:
        self.wanted = wanted
        self.lost = 0
        self._most = most
        self._waiting: deque[Record] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, record: Record) -> None:
        """Keep a record: what JSON can say, keys in the order in which they are to be shown."""
        if not self.wanted:
            return
        if len(self._waiting) >= self._most:
            self.lost += 1
            return
        self._waiting.append(record)

    def take(self, most: int) -> list[Record]:
        """The oldest, at most so many, which are the caller's from then on."""
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
