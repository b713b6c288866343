"""One client connection as the balancer knows it."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from balancer.core.choice.member import Member
from balancer.core.request.head import Head
from balancer.core.service import Service, Target

if TYPE_CHECKING:
    from balancer.core.story import Asked
    from common.core.segment import Segment


class State(IntEnum):
    """WAITING -> HANDED -> GONE, or WAITING -> CLOSED -> GONE; and HANDED -> CLOSED where no bridge
    could serve it. OPENING -> HANDED -> GONE where nobody reads: see balancer.core.uninspected."""

    WAITING = 0  # the client's address is proven; its request has not come, or not whole
    CLOSED = 1  # ended by us: the client did before it asked anything, or nobody can serve it
    HANDED = 2  # a bridge has it
    GONE = 3
    OPENING = (
        4  # its SYN, or a packet of what is not known, was steered; no client has proven itself
    )


class Flow:
    """``c`` and ``b`` are the initial sequence numbers of client and balancer; times monotonic
    seconds; ``key`` 12 bytes: client, VIP, client port, service port."""

    __slots__ = (
        "answered",
        "asked",
        "attempt",
        "b",
        "c",
        "client_scale",
        "closing",
        "fast",
        "first",
        "handed_at",
        "handoff_bytes",
        "hash64",
        "head",
        "holds",
        "is_http",
        "judged",
        "key",
        "mss",
        "placed",
        "promised_scale",
        "rtt",
        "sack",
        "said",
        "seen",
        "service",
        "silent_at",
        "state",
        "suspect_until",
        "syn",
        "taken",
        "target",
        "tried",
        "unread",
    )

    def __init__(self, key: bytes, service: Service, c: int, b: int, now: float) -> None:
        self.key = key
        self.service = service
        self.c, self.b = c, b
        self.first = (c + 1) & 0xFFFFFFFF  # sequence number of the request's first byte
        self.state = State.WAITING
        self.unread = b == 0 and service.uninspected  # whatever its service is later
        self.seen = self.placed = now  # see common.core.eviction
        self.asked: Asked | None = None  # for the access log, where there is one
        self.closing = False  # the bridge says that it has ended: a shorter idle time-out
        self.fast = False  # the kernel has a record of it
        self.handed_at = now  # once it is HANDED; until then, when it was admitted
        self.suspect_until = 0.0  # a SYN was seen: a new incarnation may follow until then
        self.judged = (0, 0)  # seq and ack of a segment that was found to be this incarnation's
        self.head: Head | None = None
        self.target: Target | None = None
        self.hash64 = 0  # of the request's key: what the choice was made by
        self.holds = False  # it is among what its backend has in progress
        self.tried: tuple[Member, ...] = ()  # backends that could not serve it
        self.attempt = 0  # at the one that it is handed to, if that has given it back before
        self.answered = False  # its bridge has said that it is there, or a server was heard
        self.silent_at = 0.0  # when a bridge that was asked is taken for silent; 0: not asked
        # whether the client speaks HTTP/1, as far as it was read; None: that was before a restart
        self.is_http: bool | None = service.inspect == "http"
        self.syn: Segment | None = None  # while OPENING: for the next backend
        self.said = b""  # what we have answered ourselves, in place of a backend,
        self.taken = 0  # and so much of what the client sent has been acknowledged for it
        self.handoff_bytes = 0  # of the handoff: what starts in it may have to be repeated
        self.mss = 0
        self.client_scale = self.promised_scale = 15
        self.sack = False
        self.rtt = 0  # milliseconds

    @property
    def incarnation(self) -> bytes:
        """20 bytes that name this connection among all of the same addresses and ports."""
        return incarnation(self.key, self.c, self.b)

    def hold(self, now: float) -> None:
        """Count it among what its backend has in progress."""
        assert self.target is not None, "a handed flow has a target"
        self.target.pool.opened(self.target.member, self.key[:4], now)
        self.holds = True

    def release(self, now: float) -> None:
        """Free its place there, if it has one."""
        if self.holds and self.target is not None:
            self.holds = False
            self.target.pool.closed(self.target.member, self.key[:4], now)

    def __str__(self) -> str:
        client = ".".join(str(byte) for byte in self.key[:4])
        port = int.from_bytes(self.key[8:10], "big")
        return f"{client}:{port} -> {self.service.name}"


def incarnation(key: bytes, c: int, b: int) -> bytes:
    """See Flow.incarnation."""
    return key + c.to_bytes(4, "big") + b.to_bytes(4, "big")
