"""Policy source: a client stays with its member, whatever its port.

A client that is new, or whose member takes no new flows, is placed as by least-pending, and then
belongs to that member, also when the former one is back. It is forgotten when it has had no flow in
progress for the time that the configuration says, or when CLIENTS others came after its last flow
opened or closed. Draining means no new flows, here too: other than a proxy's stickiness, this one
does not hold a backend that is to be emptied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from balancer.core import config
from balancer.core.choice.least_pending import LeastPending
from balancer.core.choice.member import Member
from balancer.core.choice.policy import NONE

CLIENTS = 65536
"""Clients that a pool remembers: some 12 MB at most."""

LOOKS = 2
"""Clients that are looked at, whether to forget them, with each flow."""


class Source(LeastPending):
    def __init__(self) -> None:
        super().__init__()
        self._clients: OrderedDict[bytes, _Client] = OrderedDict()  # longest quiet first
        self._remember = 0.0  # seconds

    def __len__(self) -> int:
        """Clients that are remembered."""
        return len(self._clients)

    def configure(self, configured: config.Pool) -> None:
        self._remember = configured.remember

    def choose(
        self, hash64: int, source: bytes, now: float, tried: Collection[Member] = NONE
    ) -> Member | None:
        member = self._known(source, now)
        if member is not None and member not in tried:
            return member
        return super().choose(hash64, source, now, tried)

    def order(self, hash64: int, source: bytes, now: float) -> list[Member]:
        order = super().order(hash64, source, now)
        member = self._known(source, now)
        if member is not None:
            order.remove(member)
            order.insert(0, member)
        return order

    def opened(self, member: Member, source: bytes, now: float) -> None:
        super().opened(member, source, now)
        client = self._clients.get(source)
        if client is None:
            client = self._clients[source] = _Client(member)
            if len(self._clients) > CLIENTS:
                self._clients.popitem(last=False)
        client.member = member
        client.pending += 1
        client.seen = now
        self._clients.move_to_end(source)
        self._forget(now)

    def closed(self, member: Member, source: bytes, now: float) -> None:
        super().closed(member, source, now)
        client = self._clients.get(source)
        if client is not None:
            client.pending = max(0, client.pending - 1)  # 0: forgotten and remembered in between
            client.seen = now
            self._clients.move_to_end(source)

    def _known(self, source: bytes, now: float) -> Member | None:
        """The member of a client that is remembered, if it takes new flows."""
        client = self._clients.get(source)
        if client is None or self._over(client, now) or client.member not in self._accounts:
            return None
        return client.member

    def _over(self, client: _Client, now: float) -> bool:
        return not client.pending and now - client.seen >= self._remember

    def _forget(self, now: float) -> None:
        for _ in range(LOOKS):
            source, client = next(iter(self._clients.items()))
            if self._over(client, now):
                del self._clients[source]
            elif client.pending and now - client.seen >= self._remember:
                client.seen = now  # has a flow still: makes way for those behind it
                self._clients.move_to_end(source)


class _Client:
    __slots__ = ("member", "pending", "seen")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.pending = 0  # flows in progress
        self.seen = 0.0  # when its last one opened or closed
