"""What is told of a connection in the access log."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any, NamedTuple

from balancer.core.flow import Flow
from common.core.flow_id import flow_id


class Asked(NamedTuple):
    """What a request was, as far as one was read: ``http`` is its version, 1 or 2, None of another
    protocol (of TLS ``method`` says so, and ``target`` is the server's name); ``route`` and
    ``pool`` by name, the ``key`` in words. ``began`` is when its client was admitted."""

    began: float
    http: int | None
    method: str | None
    target: str | None
    route: str
    pool: str
    key: str


class Story:
    """Of one connection that is over; ``why`` is a counter's name, or says who ended it. Times are
    monotonic seconds, ``wall`` what to add for seconds since 1970."""

    __slots__ = (
        "_asked",
        "_backend",
        "_began",
        "_ended",
        "_handed",
        "_incarnation",
        "_round_trip",
        "_service",
        "_tried",
        "_wall",
        "_why",
    )

    def __init__(self, flow: Flow, why: str, now: float, wall: float) -> None:
        self._incarnation = flow.incarnation
        self._service = flow.service.name
        self._asked = flow.asked
        self._backend = None if flow.target is None else flow.target.name
        self._tried = [member.name for member in flow.tried]
        self._began = flow.handed_at if flow.asked is None else flow.asked.began
        self._ended = now
        self._handed = flow.handed_at if flow.target is not None else None
        self._round_trip = flow.rtt
        self._wall = wall
        self._why = why

    def record(self) -> dict[str, Any]:
        """Times of day are seconds since 1970, others seconds since the handshake; ``handed`` is
        when the backend got it that it had in the end."""
        key, asked = self._incarnation, self._asked
        handed = self._handed
        return {
            "id": flow_id(key),
            "time": round(self._ended + self._wall, 3),
            "started": round(self._began + self._wall, 3),
            "client": _at(key[:4], key[8:10]),
            "address": _at(key[4:8], key[10:12]),
            "protocol": "tcp",
            "service": self._service,
            "http": None if asked is None else asked.http,
            "method": None if asked is None else asked.method,
            "target": None if asked is None else asked.target,
            "route": None if asked is None else asked.route,
            "pool": None if asked is None else asked.pool,
            "key": None if asked is None else asked.key,
            "backend": self._backend,
            "tried": ",".join(self._tried),
            "round_trip": self._round_trip / 1000,
            "handed": None if handed is None else round(handed - self._began, 6),
            "duration": round(self._ended - self._began, 3),
            "why": self._why,
        }


def _at(address: bytes, port: bytes) -> str:
    return f"{IPv4Address(address)}:{int.from_bytes(port, 'big')}"
