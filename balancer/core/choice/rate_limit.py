"""A rate limit for each client address, or each key: token buckets in bounded memory.

A bucket holds ``burst`` tokens and gets ``rate`` a second; a connection takes one. What is kept is
one number, the time when the bucket will be full again, as in the generic cell rate algorithm
(ITU-T I.371): a bucket that is full is the same as none.

Where ``tracked`` buckets are kept, a new one first takes the place of one that is full again, of
which nothing is lost, and otherwise that of the fullest one. So a flood of new keys pushes out
itself: a bucket that is drained stays until all others are emptier, and each token that somebody
gains by that costs ``tracked`` connections of others. The newcomer gets a full bucket: to refuse
whom nothing is known of would let a flood shut out everybody.
"""

from __future__ import annotations

import heapq

from balancer.core import config

LEVELS = 1024
"""How finely buckets are told apart by how full they are, at most."""

LOOKS = 2
"""Buckets that are forgotten with each connection, as they are full again."""

TOLERANCE = 1e-9
"""Seconds: what rounding may add to a wait that was told before."""


class RateLimit:
    def __init__(self, configured: config.RateLimit) -> None:
        self._interval = 1 / configured.rate  # seconds that a token takes to come
        self._ahead = (configured.burst - 1) * self._interval
        self._tracked = configured.tracked
        self._full_at: dict[bytes, float] = {}  # by key
        # Keys by that time in units of `_grain`; the units in a heap, each once.
        self._grain = max(self._interval / 2, configured.burst * self._interval / LEVELS)
        self._levels: dict[int, dict[bytes, None]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        """Buckets that are kept."""
        return len(self._full_at)

    def take(self, key: bytes, now: float) -> float:
        """0.0: allowed, a token is taken; else the seconds until there will be one."""
        for _ in range(LOOKS):
            level = self._fullest()
            if level is None or (level + 1) * self._grain > now:
                break
            self._forget(level)
        full_at = self._full_at.get(key)
        if full_at is None:
            if len(self._full_at) >= self._tracked and (level := self._fullest()) is not None:
                self._forget(level)
            full_at = now
        else:
            wait = full_at - self._ahead - now
            if wait > TOLERANCE:
                return wait
            del self._levels[int(full_at // self._grain)][key]
        self._keep(key, max(full_at, now) + self._interval)
        return 0.0

    def _keep(self, key: bytes, full_at: float) -> None:
        self._full_at[key] = full_at
        level = int(full_at // self._grain)
        if level not in self._levels:
            self._levels[level] = {}
            heapq.heappush(self._order, level)
        self._levels[level][key] = None

    def _fullest(self) -> int | None:
        """The level of the fullest buckets; levels that hold none are dropped on the way."""
        while self._order and not self._levels[self._order[0]]:
            del self._levels[heapq.heappop(self._order)]
        return self._order[0] if self._order else None

    def _forget(self, level: int) -> None:
        """The one that has been at that level longest."""
        key = next(iter(self._levels[level]))
        del self._levels[level][key], self._full_at[key]
