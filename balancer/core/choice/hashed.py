"""The policies that go by the key's hash: what they share, whichever table they look it up in.

A key has an order of all members, which depends on the key and on the members' names and weights
alone. Whoever of them does not take new flows is passed over, so that its keys go to the next in
their own order and come back exactly when it does; no other key moves and no table is built anew.
Several balancers agree on all of that without talking.

Bounded load: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads" (SODA 2018,
arXiv 1608.01350). A member takes a flow only if it then has at most ceil(c * m * w / W) of them, m
being the flows in progress and this one, w / W its part of the takers' weights. As c > 1, somebody
always has room. Flows that are in progress stay where they are when others close.

Slow start: a member at f of its full share takes a key only if a hash of key and member is below f.
As f grows, keys come to it and none leaves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from fractions import Fraction
from typing import Protocol

from balancer.core import config
from balancer.core.choice.member import WHOLE, Member
from balancer.core.choice.policy import NONE, Policy
from common.core.siphash import siphash24

START_KEY = b"l3dsr.slow-start"


class Table(Protocol):
    """Where a hash is looked up: in numbers of members, those of weight 0 left out."""

    def lookup(self, hash64: int) -> int: ...

    def order(self, hash64: int) -> Iterator[int]: ...


def begins(hash64: int, member: Member) -> bool:
    """Whether a member that is not yet at its full share takes the key of that hash."""
    hashed = siphash24(START_KEY, hash64.to_bytes(8, "little") + member.name.encode())
    return (hashed * WHOLE) >> 64 < member.share


class Among:
    """The takers of whom a flow gets one: how many, with how many flows in progress and what
    weight together. Bounds are those among them."""

    __slots__ = ("count", "in_progress", "weight")

    def __init__(self, takers: Sequence[Member]) -> None:
        self.count = len(takers)
        self.in_progress = sum(member.pending for member in takers)
        self.weight = sum(member.effective for member in takers)

    def leave_out(self, member: Member) -> None:
        self.count -= 1
        self.in_progress -= member.pending
        self.weight -= member.effective


class Hashed(Policy):
    """By a table, which `install` brings; until then nobody is chosen."""

    def __init__(self) -> None:
        self._numerator, self._denominator = 0, 1  # of c; 0: there is no bound
        self._table: Table | None = None
        self._members: Sequence[Member] = ()
        self._takers: Sequence[Member] = ()
        self._among = Among(())

    def configure(self, configured: config.Pool) -> None:
        # 1.1 means eleven tenths, not the float nearest to it
        bound = Fraction(str(configured.bounded_load))
        self._numerator, self._denominator = bound.numerator, bound.denominator

    def install(self, table: Table | None, members: Sequence[Member]) -> None:
        """``members`` in the table's numbers."""
        self._table, self._members = table, members

    def settle(self, takers: Sequence[Member]) -> None:
        self._takers = takers
        self._among = Among(takers)

    def opened(self, member: Member, source: bytes, now: float) -> None:
        if member.taking:
            self._among.in_progress += 1

    def closed(self, member: Member, source: bytes, now: float) -> None:
        if member.taking:
            self._among.in_progress -= 1

    def choose(
        self, hash64: int, source: bytes, now: float, tried: Collection[Member] = NONE
    ) -> Member | None:
        table = self._table
        if table is None:
            return None
        member = self._members[table.lookup(hash64)]
        if (
            member.full
            and member not in tried
            and (not self._numerator or self._has_room(member, self._among))
        ):
            return member
        among = self._among
        if tried:
            among = copy(among)
            for member in set(tried):
                if member.taking and member.books is self:
                    among.leave_out(member)
        ranking = map(self._members.__getitem__, table.order(hash64))
        return self._first(ranking, hash64, tried, among)

    def order(self, hash64: int, source: bytes, now: float) -> list[Member]:
        rest = [member for member in self.ranking(hash64) if member.taking]
        among = Among(self._takers)
        chosen: list[Member] = []
        while (member := self._first(rest, hash64, NONE, among)) is not None:
            chosen.append(member)
            rest.remove(member)
            among.leave_out(member)
        return chosen

    def ranking(self, hash64: int) -> list[Member]:
        """A hash's order of all members, whoever takes flows or not."""
        if self._table is None:
            return []
        return [self._members[index] for index in self._table.order(hash64)]

    def _has_room(self, member: Member, among: Among) -> bool:
        """pending < ceil(c * (in_progress + 1) * effective / weight), in integers."""
        return (
            member.pending * among.weight * self._denominator
            < self._numerator * (among.in_progress + 1) * member.effective
        )

    def _first(
        self, ranking: Iterable[Member], hash64: int, tried: Collection[Member], among: Among
    ) -> Member | None:
        """The first that takes the key, of the takers that have not been tried (``among``)."""
        beginner: Member | None = None  # has room, but should not have this key yet
        last_resort: Member | None = None
        left = among.count
        if not left:
            return None
        for member in ranking:
            if not member.taking or member in tried:
                continue
            last_resort = last_resort or member
            if not self._numerator or self._has_room(member, among):
                if member.full or begins(hash64, member):
                    return member
                beginner = beginner or member
            left -= 1
            if not left:
                break
        return beginner or last_resort
