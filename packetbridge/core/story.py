"""What is told of a connection in the access log."""

from __future__ import annotations

import copy
from enum import StrEnum
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from common.core.flow_id import flow_id

if TYPE_CHECKING:
    from packetbridge.core.entry import Entry


class End(StrEnum):
    """How a connection ended; one that was given back ends with REFUSED and the reason."""

    CLIENT_FIN = "client_fin"  # both sides have ended, the client first
    SERVER_FIN = "server_fin"
    CLIENT_RESET = "client_reset"
    SERVER_RESET = "server_reset"
    UNACKNOWLEDGED = "server_lost"  # it took the connection, and then no request
    IDLE = "idle"
    EVICTED = "evicted"  # the longest idle, for a newer one
    REPLACED = "replaced"  # by a newer one of the same addresses
    FORGOTTEN = "forgotten"  # the balancer's word
    KILLED = "killed"  # the operator's
    DOWN = "down"  # its server was found down
    STOPPED = "stopped"
    REFUSED = "refused"


class Story:
    """Of one connection: ``incarnation`` is what flow_id takes. Times are monotonic seconds, and
    ``wall`` what to add for seconds since 1970.

    ``kernel`` is what the kernel carried, bytes up and down, as last read of its records; what it
    has carried by records that are gone is in ``up_bytes`` and ``down_bytes`` with all else.
    """

    __slots__ = (
        "began",
        "connected",
        "down_bytes",
        "end",
        "ended",
        "entry",
        "first_byte",
        "incarnation",
        "kernel",
        "up_bytes",
        "wall",
    )

    def __init__(self, entry: Entry, incarnation: bytes, began: float | None, wall: float) -> None:
        """``began`` is None of a connection of an earlier run, of which that is not known."""
        self.entry = entry
        self.incarnation = incarnation
        self.began, self.wall = began, wall
        self.connected: float | None = None
        self.first_byte: float | None = None
        self.up_bytes = self.down_bytes = 0
        self.kernel = (0, 0)
        self.ended = 0.0
        self.end = ""  # not yet

    def record(self) -> dict[str, Any]:
        """Times of day are seconds since 1970, others seconds from the handoff's arrival; bytes are
        of IP, as they came: the client's, and the server's."""
        entry, key = self.entry, self.incarnation
        began = self.began
        up, down = self.kernel
        return {
            "id": flow_id(key),
            "time": round(self.ended + self.wall, 3),
            "started": None if began is None else round(began + self.wall, 3),
            "client": _at(key[:4], key[8:10]),
            "service": _at(key[4:8], key[10:12]),
            "bridge": str(IPv4Address(entry.address)),
            "server": _at(entry.server, entry.server_port.to_bytes(2, "big")),
            "connect": _since(began, self.connected),
            "first_byte": _since(began, self.first_byte),
            "duration": _since(began, self.ended),
            "bytes_up": self.up_bytes + up,
            "bytes_down": self.down_bytes + down,
            "end": self.end,
        }

    def resumed(self) -> Story:
        """That of a connection which goes on after all."""
        again = copy.copy(self)
        again.end = ""
        return again


def _since(began: float | None, when: float | None) -> float | None:
    return None if began is None or when is None else round(when - began, 6)


def _at(address: bytes, port: bytes) -> str:
    return f"{IPv4Address(address)}:{int.from_bytes(port, 'big')}"
