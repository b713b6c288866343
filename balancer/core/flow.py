"""One client connection as the balancer knows it."""

from __future__ import annotations

from enum import IntEnum

from balancer.core.request.head import Head
from balancer.core.service import Service, Target


class State(IntEnum):
    """WAITING -> HANDED -> GONE, or WAITING -> CLOSED -> GONE."""

    WAITING = 0  # the client's address is proven; its request has not come, or not whole
    CLOSED = 1  # the client ended before it asked anything, and was answered
    HANDED = 2  # a bridge has it
    GONE = 3


class Flow:
    """``c`` and ``b`` are the initial sequence numbers of client and balancer; times monotonic
    seconds; ``key`` 12 bytes: client, VIP, client port, service port."""

    __slots__ = (
        "b",
        "c",
        "client_scale",
        "closing",
        "fast",
        "first",
        "handed_at",
        "handoff_bytes",
        "head",
        "judged",
        "key",
        "mss",
        "placed",
        "promised_scale",
        "rtt",
        "sack",
        "seen",
        "service",
        "state",
        "suspect_until",
        "target",
    )

    def __init__(self, key: bytes, service: Service, c: int, b: int, now: float) -> None:
        self.key = key
        self.service = service
        self.c, self.b = c, b
        self.first = (c + 1) & 0xFFFFFFFF  # sequence number of the request's first byte
        self.state = State.WAITING
        self.seen = self.placed = now  # see common.core.eviction
        self.closing = False  # the bridge says that it has ended: a shorter idle time-out
        self.fast = False  # the kernel has a record of it
        self.handed_at = now  # once it is HANDED
        self.suspect_until = 0.0  # a SYN was seen: a new incarnation may follow until then
        self.judged = (0, 0)  # seq and ack of a segment that was found to be this incarnation's
        self.head: Head | None = None
        self.target: Target | None = None
        self.handoff_bytes = 0  # of the handoff: what starts in it may have to be repeated
        self.mss = 0
        self.client_scale = self.promised_scale = 15
        self.sack = False
        self.rtt = 0  # milliseconds

    @property
    def incarnation(self) -> bytes:
        """20 bytes that name this connection among all of the same addresses and ports."""
        return incarnation(self.key, self.c, self.b)

    def __str__(self) -> str:
        client = ".".join(str(byte) for byte in self.key[:4])
        port = int.from_bytes(self.key[8:10], "big")
        return f"{client}:{port} -> {self.service.name}"


def incarnation(key: bytes, c: int, b: int) -> bytes:
    """See Flow.incarnation."""
    return key + c.to_bytes(4, "big") + b.to_bytes(4, "big")
