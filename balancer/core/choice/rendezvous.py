"""Policy rendezvous: each member has a score for each key, and the best one has the key.

Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (1998); weights by
the logarithmic method of Schindelhauer and Schomaker, "Weighted Distributed Hash Tables" (SPAA
2005): with h the hash of key and member as a fraction from 0 to 1, the lowest -ln(1 - h) / weight
wins. There is no table, and nothing moves but what must; a choice costs a hash for each member.

Machines differ in a logarithm's last bits. Scores that are as near as that are compared exactly, in
integers, so that every balancer comes to the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cmp_to_key
from itertools import pairwise
from math import log, log1p

from common.core.siphash import siphash24

NAME_KEY = b"l3dsr.rendezv.nm"
SCORE_KEY = b"l3dsr.rendezv.sc"

NEAR = 1e-12
"""Relative difference below which scores are compared exactly; logarithms are right to 1e-15."""

LARGEST = 1 << 64


class Rendezvous:
    """Members are numbers in the order of ``names``, sorted: of two equal ones the first wins."""

    __slots__ = ("_even", "_seeds", "_weights")

    def __init__(self, names: Sequence[str], weights: Sequence[int]) -> None:
        self._seeds = [siphash24(NAME_KEY, name.encode()).to_bytes(8, "little") for name in names]
        self._weights = weights
        self._even = min(weights) == max(weights)

    def lookup(self, hash64: int) -> int:
        hashes = self._hashes(hash64)
        if self._even:
            return hashes.index(min(hashes))
        scores = self._scores(hashes)
        best = min(scores)
        near = [index for index, score in enumerate(scores) if score <= best * (1 + NEAR)]
        return near[0] if len(near) == 1 else self._sorted(near, hashes)[0]

    def order(self, hash64: int) -> Iterator[int]:
        """All members, each once, the best first."""
        hashes = self._hashes(hash64)
        scores = self._scores(hashes)
        order = sorted(range(len(scores)), key=scores.__getitem__)
        ranked = [scores[index] for index in order]
        if any(b <= a * (1 + NEAR) for a, b in pairwise(ranked)):
            order = self._sorted(order, hashes)
        return iter(order)

    def _hashes(self, hash64: int) -> list[int]:
        """Of the key and each member: unsigned, 64 bits."""
        key = hash64.to_bytes(8, "little")
        return [siphash24(SCORE_KEY, key + seed) for seed in self._seeds]

    def _scores(self, hashes: list[int]) -> list[float]:
        return [score(hashed, w) for hashed, w in zip(hashes, self._weights, strict=True)]

    def _sorted(self, indices: list[int], hashes: list[int]) -> list[int]:
        def difference(one: int, other: int) -> int:
            weights = self._weights
            return compare(hashes[one], weights[one], hashes[other], weights[other]) or one - other

        return sorted(indices, key=cmp_to_key(difference))


def score(hashed: int, weight: int) -> float:
    """-ln(1 - hashed / 2^64) / weight, to some 1e-15 of its value, wherever the hash is."""
    if hashed < LARGEST // 2:
        return -log1p(-hashed / LARGEST) / weight
    return -log((LARGEST - hashed) / LARGEST) / weight


def compare(hash_a: int, weight_a: int, hash_b: int, weight_b: int) -> int:
    """Below 0 where a's score is the lower one, above where b's is: exactly.

    ln(1 - a) / weight_a > ln(1 - b) / weight_b, as powers: (1 - a)^weight_b > (1 - b)^weight_a.
    """
    a, b = score(hash_a, weight_a), score(hash_b, weight_b)
    if abs(a - b) > NEAR * max(a, b):
        return -1 if a < b else 1
    power_a: int = (LARGEST - hash_a) ** weight_b << (64 * weight_a)
    power_b: int = (LARGEST - hash_b) ** weight_a << (64 * weight_b)
    return (power_a < power_b) - (power_a > power_b)
