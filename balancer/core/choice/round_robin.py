"""Policy round-robin: by turns, in proportion to the weights, and smoothly.

As nginx's upstream module is known to do it: with each choice every taker's credit grows by its
weight, the one with the highest is chosen (of equals, the first), and pays the sum of all weights.
Weights 5, 1, 1 give a a b a c a a.

After k choices a credit is k * weight + v, where v changes only for whoever is chosen. So members
of one weight stay in the order of their v: a heap for each weight, and a choice looks at the tops.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from balancer.core.choice.member import Member
from balancer.core.choice.policy import NONE, Policy


class RoundRobin(Policy):
    def __init__(self) -> None:
        self._takers: Sequence[Member] = ()
        self._numbers: dict[Member, int] = {}
        self._weights: list[int] = []  # by the takers' numbers, as are:
        self._values: list[int] = []
        self._total = 0
        self._round = 0
        self._groups: list[tuple[int, list[tuple[int, int]]]] = []  # weight, heap of (-v, number)

    def settle(self, takers: Sequence[Member]) -> None:
        """The credits go on, in the new weights' scale, and newcomers begin with none."""
        total = sum(member.effective for member in takers)
        credits = {
            member: self._credit(number) * total // self._total
            for member, number in self._numbers.items()
        }
        self._takers = takers
        self._numbers = {member: number for number, member in enumerate(takers)}
        self._weights = [member.effective for member in takers]
        self._values = [credits.get(member, 0) for member in takers]
        self._total, self._round = total, 0
        heaps: dict[int, list[tuple[int, int]]] = {weight: [] for weight in self._weights}
        for number, weight in enumerate(self._weights):
            heaps[weight].append((-self._values[number], number))
        for heap in heaps.values():
            heapq.heapify(heap)
        self._groups = list(heaps.items())

    def choose(
        self, hash64: int, source: bytes, now: float, tried: Collection[Member] = NONE
    ) -> Member | None:
        if tried:
            left = (number for number, m in enumerate(self._takers) if m not in tried)
            number = min(left, key=self._rank, default=-1)
        else:
            tops = [
                (self._top(heap) - self._round * weight - weight, heap[0][1])
                for weight, heap in self._groups
            ]
            number = min(tops, default=(0, -1))[1]
        return self._takers[number] if number >= 0 else None

    def order(self, hash64: int, source: bytes, now: float) -> list[Member]:
        numbers = sorted(range(len(self._takers)), key=self._rank)
        return [self._takers[number] for number in numbers]

    def opened(self, member: Member, source: bytes, now: float) -> None:
        number = self._numbers.get(member)
        if number is not None:
            self._round += 1
            self._values[number] -= self._total

    def _rank(self, number: int) -> tuple[int, int]:
        """The lowest is next."""
        return -self._credit(number) - self._weights[number], number

    def _credit(self, number: int) -> int:
        return self._round * self._weights[number] + self._values[number]

    def _top(self, heap: list[tuple[int, int]]) -> int:
        """-v of a heap's first, once who was chosen since has gone down in it."""
        while True:
            entry, number = heap[0]
            value = -self._values[number]
            if value == entry:
                return value
            heapq.heapreplace(heap, (value, number))
