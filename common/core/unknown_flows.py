"""Packets of connections nobody knows: dropped at first, reset if they insist or remain unknown.

A packet may overtake the handoff it belongs to, and a keep-alive probe may arrive while a
restarted program still learns: a RST at once would kill a good connection. A connection that is
really gone is retransmitted, and is told so then; or told of our own accord, as whoever has long
sent in vain waits twice as long again before the next time.
"""

from __future__ import annotations

from collections import OrderedDict

from common.core.segment import Segment

# Seconds: sooner is a burst or reordering; the last retransmissions of a TCP come up to 120 seconds
# apart (RFC 6298 section 2.5).
AGAIN_AFTER, AGAIN_BEFORE = 0.2, 130.0
# Seconds until a flow that is still unknown is given up. What has no payload answers the server's
# bytes, which come only where a handoff has worked, so it can only be early by what packets
# overtake each other. What has some may wait for the beginning to be sent again, after 0.2, 0.6,
# 1.4, 3 and 6.2 seconds.
PATIENCE, PATIENCE_WITH_DATA = 1.0, 8.0


class TokenBucket:
    """At most ``rate`` a second on average, ``burst`` at once."""

    __slots__ = ("_burst", "_rate", "_then", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._then = burst, 0.0

    def take(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class UnknownFlows:
    """Remembers up to ``limit`` flow keys, the oldest forgotten first. A flow insists when it is
    seen for the ``sightings``-th time."""

    __slots__ = ("_limit", "_seen", "_sightings", "resets")

    def __init__(
        self, sightings: int = 2, limit: int = 32768, resets_per_second: float = 1000.0
    ) -> None:
        self._seen: OrderedDict[bytes, tuple[float, int]] = OrderedDict()  # first time, how often
        self._sightings = sightings
        self._limit = limit
        self.resets = TokenBucket(resets_per_second, resets_per_second)

    def insists(self, key: bytes, now: float) -> bool:
        """Whether a packet of the unknown flow ``key`` is to be answered with a RST."""
        if not self.known(key, now):
            self.remember(key, now)
            return False
        first, times = self._seen[key]
        if now - first < AGAIN_AFTER:
            return False
        self._seen[key] = first, times + 1
        return times + 1 >= self._sightings and self.resets.take(now)

    def remember(self, key: bytes, now: float) -> None:
        self._seen[key] = now, 1
        self._seen.move_to_end(key)
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)

    def known(self, key: bytes, now: float) -> bool:
        """Whether ``key`` was remembered no longer than AGAIN_BEFORE ago."""
        seen = self._seen.get(key)
        return seen is not None and now - seen[0] <= AGAIN_BEFORE


class Overdue:
    """Up to ``limit`` unknown flows that are to be given up soon, and where each stands."""

    __slots__ = ("_latest", "_limit")

    def __init__(self, limit: int = 32768) -> None:
        self._latest: dict[bytes, tuple[int, int, bool]] = {}
        self._limit = limit

    def note(self, segment: Segment) -> float | None:
        """Keep the numbers of an unknown flow's latest segment; for its first one gives the
        seconds after which the flow is to be taken out."""
        known = segment.key in self._latest
        if not known and len(self._latest) >= self._limit:
            return None
        self._latest[segment.key] = segment.seq, segment.ack, segment.span > 0
        if known:
            return None
        return PATIENCE_WITH_DATA if segment.span else PATIENCE

    def take(self, key: bytes) -> tuple[int, int, bool]:
        """Sequence and acknowledgment number of the flow's latest segment, and whether it is for
        the server to acknowledge; the flow is kept no longer."""
        return self._latest.pop(key)
