"""One client of a UDP service, or one of its flows, and the backend that it has: a mapping, as
RFC 4787 has the word."""

from __future__ import annotations

from balancer.core.datagrams.service import ANY_PORT, DatagramService, DatagramTarget
from common.core.flow_id import flow_id

_UDP = b"udp"


class Mapping:
    """``key`` is 12 bytes: client, VIP, client port (0 where all of its ports share the mapping),
    service port. Times are monotonic seconds. ``datagrams`` and ``size``, bytes of IP, are what
    Python has sent on, ``fast_datagrams`` and ``fast_size`` the kernel, when it was last asked.
    """

    __slots__ = (
        "began",
        "datagrams",
        "fast",
        "fast_datagrams",
        "fast_size",
        "gone",
        "key",
        "placed",
        "seen",
        "service",
        "size",
        "target",
    )

    def __init__(
        self, key: bytes, service: DatagramService, target: DatagramTarget, now: float
    ) -> None:
        self.begin(key, service, target, now)

    def begin(
        self, key: bytes, service: DatagramService, target: DatagramTarget, now: float
    ) -> None:
        """Be this mapping from now on: a full table's next one takes the place of one that is gone,
        wherever that is still noted, so that there are never more of them than its bound."""
        self.key = key
        self.service = service
        self.target = target
        self.began = self.seen = self.placed = now
        self.datagrams = self.size = self.fast_datagrams = self.fast_size = 0
        self.fast = False  # the kernel has a record of it
        self.gone = False

    @property
    def id(self) -> str:
        """The same for as long as client and service are."""
        return flow_id(_UDP + self.key)

    @property
    def any_port(self) -> bool:
        return self.key[8:10] == ANY_PORT

    def hold(self, now: float) -> None:
        """Count it among what its backend has in progress."""
        self.target.pool.opened(self.target.member, self.key[:4], now)

    def release(self, now: float) -> None:
        self.target.pool.closed(self.target.member, self.key[:4], now)

    def __str__(self) -> str:
        client = ".".join(str(byte) for byte in self.key[:4])
        port = "" if self.any_port else f":{int.from_bytes(self.key[8:10], 'big')}"
        return f"{client}{port} -> {self.service.name}"
