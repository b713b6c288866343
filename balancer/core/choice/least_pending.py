"""Policy least-pending: the member with the fewest flows in progress for its weight.

A heap over pending / weight. A flow that opens or closes costs constant time: an open one makes an
entry of the heap too low, which is put right when it comes to the top; a closed one's member is
noted, and gets a new entry at the next choice.

A tie goes to whoever has been given the smaller share of the flows so far, given / weight, then to
the first in the configuration. Who comes back or is new counts as if it had been given as much as
the member with the smallest share: otherwise it would win every tie until it had caught up.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from balancer.core.choice.member import Member
from balancer.core.choice.policy import NONE, Policy

Rank = tuple[float, float, int]
"""(pending / weight, given / weight, number among the takers): the lowest is chosen."""


class LeastPending(Policy):
    def __init__(self) -> None:
        self._takers: Sequence[Member] = ()
        self._accounts: dict[Member, _Account] = {}
        self._heap: list[Rank] = []
        self._fewer: set[Member] = set()  # whose flows have closed: their entries are too high

    def settle(self, takers: Sequence[Member]) -> None:
        shares = {member: account.share() for member, account in self._accounts.items()}
        least = min((shares[member] for member in takers if member in shares), default=0.0)
        self._takers = takers
        self._accounts = {
            member: _Account(member, number, shares.get(member, least))
            for number, member in enumerate(takers)
        }
        self._rebuild()

    def choose(
        self, hash64: int, source: bytes, now: float, tried: Collection[Member] = NONE
    ) -> Member | None:
        if tried:
            left = (member for member in self._takers if member not in tried)
            return min(left, key=self._rank, default=None)
        if not self._takers:
            return None
        if self._fewer:
            self._renew()
        heap, takers = self._heap, self._takers
        while True:
            top = heap[0]
            member = takers[top[2]]
            rank = self._rank(member)
            if rank == top:
                return member
            heapq.heapreplace(heap, rank)

    def order(self, hash64: int, source: bytes, now: float) -> list[Member]:
        return sorted(self._takers, key=self._rank)

    def closed(self, member: Member, source: bytes, now: float) -> None:
        self._fewer.add(member)

    def _rank(self, member: Member) -> Rank:
        account = self._accounts[member]
        return member.pending / member.effective, account.share(), account.number

    def _renew(self) -> None:
        """Entries for whom there are too high ones only. Those stay until they come to the top, or
        are too many."""
        if len(self._heap) > 4 * len(self._takers) + len(self._fewer):
            self._rebuild()
            return
        for member in self._fewer:
            if member in self._accounts:
                heapq.heappush(self._heap, self._rank(member))
        self._fewer.clear()

    def _rebuild(self) -> None:
        self._heap = [self._rank(member) for member in self._takers]
        heapq.heapify(self._heap)
        self._fewer.clear()


class _Account:
    """What a taker has been given for its weight: ``before``, and since the weights are as now."""

    __slots__ = ("before", "given", "member", "number", "weight")

    def __init__(self, member: Member, number: int, before: float) -> None:
        self.member = member
        self.number = number
        self.before = before
        self.given = member.given
        self.weight = member.effective

    def share(self) -> float:
        return self.before + (self.member.given - self.given) / self.weight
