"""Policy ring: consistent hashing, a key belonging to the next point on a circle of points.

Source: Karger et al., "Consistent Hashing and Random Trees" (STOC 1997); so many points for each
weight as in ketama (last.fm, 2007). A point is 48 bits of SipHash-2-4 of name and number, a key's
place 48 bits of its hash, and the key's order that of the members met on the way round.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from itertools import chain

from common.core.siphash import siphash24

POINT_KEY = b"l3dsr.ring.point"

MOST_POINTS = 262144
"""Of one ring; where weights ask for more, every member gets proportionally fewer."""

POINTS_AT_ONCE = 4096
"""Points that are made in one step of a ring's building."""

BUCKETS = 256
"""Parts of the circle, each sorted by itself, so that sorting can be done in steps, too."""


def counts(weights: Sequence[int], points: int) -> list[int]:
    """Points of each member."""
    total = points * sum(weights)
    if total <= MOST_POINTS:
        return [points * weight for weight in weights]
    return [max(1, points * weight * MOST_POINTS // total) for weight in weights]


def point(name: bytes, number: int) -> int:
    """A point's place on the circle: unsigned, 48 bits."""
    return siphash24(POINT_KEY, number.to_bytes(4, "little") + name) >> 16


class Ring:
    """Points of members, which are numbers in the order of ``names``: sorted, so that of two
    members at one place the first by name has it."""

    __slots__ = ("_count", "points")

    def __init__(self, points: array[int], count: int) -> None:
        self.points = points  # ascending; place << 16 | member
        self._count = count

    @classmethod
    def building(
        cls, names: Sequence[str], weights: Sequence[int], points: int
    ) -> Generator[None, None, Ring]:
        """The ring in steps of a few milliseconds each, returned at the end."""
        buckets: list[list[int]] = [[] for _ in range(BUCKETS)]
        made = 0
        for member, count in enumerate(counts(weights, points)):
            name = names[member].encode()
            for number in range(count):
                entry = point(name, number) << 16 | member
                buckets[entry >> 56].append(entry)
                made += 1
                if made % POINTS_AT_ONCE == 0:
                    yield
        ring = array("Q")
        for number, bucket in enumerate(buckets):
            ring.extend(sorted(bucket))
            if number * made // BUCKETS % POINTS_AT_ONCE < made // BUCKETS:
                yield
        return cls(ring, len(names))

    def lookup(self, hash64: int) -> int:
        """The member of the first point at the hash's place or after it."""
        return self.points[self._first(hash64)] & 0xFFFF

    def order(self, hash64: int) -> Iterator[int]:
        """All members, each once, as they are met on the way round."""
        first = self._first(hash64)
        met: set[int] = set()
        for at in chain(range(first, len(self.points)), range(first)):
            member = self.points[at] & 0xFFFF
            if member not in met:
                met.add(member)
                yield member
                if len(met) == self._count:
                    return

    def _first(self, hash64: int) -> int:
        at = bisect_left(self.points, hash64 >> 16 << 16)
        return at if at < len(self.points) else 0
