"""A pool at run time: its members, who of them takes new flows, and the policy that chooses."""

from __future__ import annotations

from collections.abc import Collection, Generator

from balancer.core import config
from balancer.core.choice import slow_start
from balancer.core.choice.hashed import Hashed, Table
from balancer.core.choice.least_pending import LeastPending
from balancer.core.choice.member import Member
from balancer.core.choice.policy import NONE, Policy
from balancer.core.choice.round_robin import RoundRobin
from balancer.core.choice.source import Source
from balancer.core.choice.tables import Layout, building
from balancer.core.config.pools import MOST_BACKENDS

HEAVIEST = 1000
"""The highest weight, as in the configuration."""

POLICIES: dict[str, type[Policy]] = {
    "maglev": Hashed,
    "ring": Hashed,
    "rendezvous": Hashed,
    "round-robin": RoundRobin,
    "least-pending": LeastPending,
    "source": Source,
}


class Pool:
    """Made from its configuration; `reconfigured` makes its successor.

    A member takes new flows while it is up, not draining and of a weight over 0. Where none does,
    nobody is chosen: as with HAProxy, who drains gets no new flow even if all others are down.

    The tables of the policies by hash are built in steps of some milliseconds. A pool without one
    builds it before it chooses, at once, unless `building` was gone through before. Later, after
    `set_weight`, `add` or `remove`, each choice makes a step, and until the last one the table
    before is in use.
    """

    __slots__ = (
        "_attention",
        "_changed",
        "_configured_weights",
        "_departed",
        "_layout",
        "_members",
        "_next_ramp",
        "_policy",
        "_predecessor",
        "_ramping",
        "_steps",
        "_successor",
        "_table",
        "_weights",
        "configured",
        "name",
    )

    def __init__(self, configured: config.Pool) -> None:
        self.configured = configured
        self.name = configured.name
        self._members = {backend.name: Member(backend) for backend in configured.backends}
        self._departed: list[Member] = []  # not in the pool any more, maybe with flows in progress
        self._configured_weights = {each.name: each.weight for each in configured.backends}
        self._weights = dict(self._configured_weights)
        self._policy = POLICIES[configured.policy]()
        self._predecessor: Pool | None = None  # until this pool has taken over
        self._successor: Pool | None = None  # that has taken over from it
        self._layout: Layout | None = None  # what the table was built for
        self._table: Table | None = None
        self._steps: Generator[None, None, None] | None = None
        self._ramping = False  # some member is in its slow start
        self._next_ramp = 0.0
        self._changed = True  # who takes new flows, or how much
        self._attention = True  # something is to be done before a member is chosen
        self._settle_in()
        self._plan()

    # --- choosing, and what became of it ---

    def choose(
        self, hash64: int, source: bytes, now: float, tried: Collection[Member] = NONE
    ) -> Member | None:
        """The member for a flow of that key (by `maglev.key_hash`) and client address; None where
        nobody can take it.

        Nobody of ``tried`` is chosen. To choose changes nothing: call `opened` for a flow that is
        placed, before the next one is.
        """
        if self._attention:
            self._attend(now)
        return self._policy.choose(hash64, source, now, tried)

    def order(self, hash64: int, source: bytes, now: float) -> list[Member]:
        """Who is chosen now, and who would be after each had been tried in vain."""
        if self._attention:
            self._attend(now)
        return self._policy.order(hash64, source, now)

    def opened(self, member: Member, source: bytes, now: float) -> None:
        """A flow of that client address was given to the member; counts until it is `closed`.

        This and `closed` may be told to any pool that the member is or was in.
        """
        member.pending += 1
        member.given += 1
        if member.books is not None:
            member.books.opened(member, source, now)

    def closed(self, member: Member, source: bytes, now: float) -> None:
        """A flow that was `opened` is over, however it ended."""
        member.pending -= 1
        if member.books is not None:
            member.books.closed(member, source, now)

    # --- looking ---

    @property
    def members(self) -> tuple[Member, ...]:
        """In the configuration's order, those added later at the end."""
        return tuple(self._members.values())

    @property
    def departed(self) -> tuple[Member, ...]:
        """Members that were removed and still have flows in progress."""
        return tuple(member for member in self._departed if member.pending)

    def find(self, name: str) -> Member | None:
        return self._members.get(name)

    def ranking(self, hash64: int) -> list[Member]:
        """The order of all members, also of those that take no new flows, for a key of that hash
        (`maglev.key_hash`); empty where the policy does not go by hashes."""
        return self._policy.ranking(hash64) if isinstance(self._policy, Hashed) else []

    # --- a member's state ---

    def mark_down(self, member: Member, reason: str, now: float) -> None:
        """No new flows; those in progress are the caller's affair."""
        member.up, member.reason = False, reason
        self._change(member)

    def mark_up(self, member: Member, now: float) -> None:
        if not member.up:
            member.up, member.reason = True, ""
            self._start_slowly(member, now)

    def drain(self, member: Member) -> None:
        """No new flows; those in progress go on."""
        member.draining = True
        self._change(member)

    def ready(self, member: Member, now: float) -> None:
        """The end of a drain."""
        if member.draining:
            member.draining = False
            self._start_slowly(member, now)

    # --- weights and membership while running ---

    def set_weight(self, member: Member, weight: int) -> None:
        """0 takes nothing new. Raises ValueError for a weight that a configuration cannot have."""
        if not 0 <= weight <= HEAVIEST:
            raise ValueError(f"{weight} is wrong; right would be a weight from 0 to {HEAVIEST}")
        self._weights[member.name] = member.weight = weight
        self._change(member)
        self._plan()

    def add(self, backend: config.Backend, now: float) -> Member:
        """Take a new member in. Raises ValueError where its name or its bridge is taken."""
        for member in self._members.values():
            if member.name == backend.name or member.bridge == backend.bridge:
                raise ValueError(f"{self.name} has {member.name} at {member.bridge} already")
        if len(self._members) >= MOST_BACKENDS:
            raise ValueError(f"{self.name} is full: {MOST_BACKENDS} backends")
        member = self._returning(backend) or Member(backend)
        self._departed = [each for each in self._departed if each is not member]
        member.draining = False
        self._members[member.name] = member
        self._configured_weights[member.name] = backend.weight
        self._weights[member.name] = member.weight = backend.weight
        member.books = self._policy
        self._start_slowly(member, now)
        self._plan()
        return member

    def remove(self, member: Member) -> None:
        """It leaves the pool; its flows go on, and count until they are closed."""
        del self._members[member.name]
        del self._weights[member.name]
        del self._configured_weights[member.name]
        self._depart([member])
        self._changed = self._attention = True
        self._plan()

    # --- another configuration ---

    def reconfigured(self, configured: config.Pool, now: float) -> Pool:
        """The pool that follows this one, which goes on until the new one has taken over.

        Members of the same name and bridge stay the same objects. A weight that was set while
        running stays, too, unless the configuration's has changed; members that the new one does
        not name depart. Tables that would be the same are kept.
        """
        self.take_over(now)
        new = Pool(configured)
        new._predecessor = self
        for backend in configured.backends:
            known = self._members.get(backend.name) or self._returning(backend)
            if known is None or known.bridge != backend.bridge:
                continue
            new._members[backend.name] = known
            if self._configured_weights.get(backend.name) == backend.weight:
                new._weights[backend.name] = known.weight
        new._layout, new._table = self._layout, self._table
        new._plan()
        if new._steps is not None:
            new._layout = new._table = None
        return new

    def building(self) -> Generator[None, None, None]:
        """What is still to be built, in steps of some milliseconds; to be gone through to the
        end, with packets in between, before a pool takes over."""
        while self._steps is not None:
            self._step()
            yield

    def take_over(self, now: float) -> None:
        """Follow the pool that this one was reconfigured from, which is not to be used from now on.
        The first choice does it where nobody has before."""
        before, self._predecessor = self._predecessor, None
        if before is None:
            return
        before._successor = self
        if type(before._policy) is type(self._policy):
            self._policy = before._policy  # with all that it remembers
        ours, theirs = set(self.members), set(before.members)
        for member in self.members:
            member.weight = self._weights[member.name]
            if member in theirs:
                self._change(member)
            else:
                member.draining = False
                self._start_slowly(member, now)
        self._departed = [member for member in before._departed if member not in ours]
        self._depart([member for member in before.members if member not in ours])
        self._settle_in()

    @property
    def latest(self) -> Pool:
        """This pool, or the last of those that have taken over, one from the other."""
        pool = self
        while pool._successor is not None:
            pool = pool._successor
        return pool

    def retire(self) -> None:
        """No flow is placed in it any more, except anew. Members and policy know each other, and
        the packets' loop does without the collector of such cycles."""
        for member in (*self.members, *self._departed):
            member.books = None

    # --- inside ---

    def _attend(self, now: float) -> None:
        """Whatever is to be done before a member is chosen."""
        if self._predecessor is not None:
            self.take_over(now)
        if self._steps is not None:
            self._step()
            while self._steps is not None and self._table is None:
                self._step()
        if self._changed or (self._ramping and now >= self._next_ramp):
            takers = [member for member in self._members.values() if member.taking]
            duration = self.configured.slow_start
            self._ramping = slow_start.ramp(takers, duration, now)
            self._next_ramp = now + duration / slow_start.STEPS
            self._policy.settle(takers)
            self._changed = False
        self._attention = self._ramping or self._steps is not None

    def _settle_in(self) -> None:
        self._policy.configure(self.configured)
        self._install()
        for member in (*self.members, *self._departed):
            member.books = self._policy
        self._changed = self._attention = True

    def _change(self, member: Member) -> None:
        member.settle()
        self._changed = self._attention = True

    def _start_slowly(self, member: Member, now: float) -> None:
        member.starting = now
        self._change(member)

    def _depart(self, members: list[Member]) -> None:
        self._departed = [member for member in self._departed if member.pending] + members
        for member in members:
            member.draining = True
            member.settle()

    def _returning(self, backend: config.Backend) -> Member | None:
        """Of those that have departed, the one that the backend is."""
        for member in self._departed:
            if (member.name, member.bridge) == (backend.name, backend.bridge):
                return member
        return None

    def _plan(self) -> None:
        """Have the table built that the members' weights ask for, unless it is there."""
        wanted = Layout.of(self.configured, self._weights)
        self._steps = None
        if wanted != self._layout:
            self._steps = self._build(wanted)
            self._attention = True

    def _build(self, wanted: Layout | None) -> Generator[None, None, None]:
        table = (yield from building(wanted)) if wanted else None
        self._layout, self._table = wanted, table
        if self._predecessor is None:
            self._install()

    def _step(self) -> None:
        assert self._steps is not None
        try:
            next(self._steps)
        except StopIteration:
            self._steps = None

    def _install(self) -> None:
        """Give the policy its table, in whose numbers the members follow by name."""
        if isinstance(self._policy, Hashed) and self._layout is not None:
            members = [self._members[name] for name in self._layout.names]
            self._policy.install(self._table, members)
