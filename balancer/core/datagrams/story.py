"""What is told of a mapping in the access log."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from balancer.core.datagrams.mapping import Mapping


class MappingStory:
    """Of one mapping that is over; ``why`` is a counter's name. Times are monotonic seconds,
    ``wall`` what to add for seconds since 1970."""

    __slots__ = (
        "_backend",
        "_began",
        "_datagrams",
        "_ended",
        "_id",
        "_key",
        "_pool",
        "_seen",
        "_service",
        "_size",
        "_wall",
        "_why",
    )

    def __init__(self, mapping: Mapping, why: str, now: float, wall: float) -> None:
        self._id = mapping.id
        self._key = mapping.key
        self._service = mapping.service.name
        self._pool, self._backend = mapping.target.pool.name, mapping.target.name
        self._began, self._seen, self._ended = mapping.began, mapping.seen, now
        self._datagrams = mapping.datagrams + mapping.fast_datagrams
        self._size = mapping.size + mapping.fast_size
        self._wall = wall
        self._why = why

    def record(self) -> dict[str, Any]:
        """Times of day are seconds since 1970; ``duration`` is seconds from the first datagram to
        the last one, ``bytes`` of IP. ``client`` is without a port where all of its ports share the
        mapping."""
        key = self._key
        port, at = int.from_bytes(key[8:10], "big"), int.from_bytes(key[10:], "big")
        client = str(IPv4Address(key[:4]))
        return {
            "id": self._id,
            "time": round(self._ended + self._wall, 3),
            "started": round(self._began + self._wall, 3),
            "client": f"{client}:{port}" if port else client,
            "address": f"{IPv4Address(key[4:8])}:{at}",
            "protocol": "udp",
            "service": self._service,
            "pool": self._pool,
            "backend": self._backend,
            "datagrams": self._datagrams,
            "bytes": self._size,
            "duration": round(max(self._seen - self._began, 0.0), 3),
            "why": self._why,
        }
