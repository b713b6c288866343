"""The fast path: what the kernel does by itself, as the core sees it.

Once a bridge has a connection, the balancer's part is the same few changes to each packet. Where
the kernel can make them, a record per connection tells it which; what the record does not cover
comes up as if there were none. And a SYN is answered from nothing but a cookie: so it is there,
and the core hears of a client once it has proven its address.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from balancer.core.datagrams.fast_path import FastMappings, NoFastMappings
from balancer.core.flow import Flow
from balancer.core.service import Service
from common.core.ledger import Occurrence


class Fast(Occurrence):
    """Of the kernel's path."""

    PACKETS = "fast_packets"
    BYTES = "fast_bytes"  # in these, of IP
    UNROUTED = "fast_unrouted"  # of these, left to the stack to forward
    ANSWERED = "fast_syns"  # SYNs that the kernel answered
    ARRIVED = "fast_arrivals"  # clients that proved their address to it
    TABLE_FULL = "fast_table_full"  # connections left to Python
    ADOPTED = "flows_adopted"  # of an earlier run
    NOT_ADOPTED = "flows_not_adopted"


@dataclass(frozen=True, slots=True)
class Former:
    """What the kernel still knows of a connection of an earlier run: its 12-byte ``key``, the
    bridge's address, and the flow's fields of these names; ``suspect``: a SYN was seen."""

    key: bytes
    bridge: bytes
    first: int
    b: int
    handoff_bytes: int
    seen: float
    suspect: bool


class Arrival(NamedTuple):
    """A client that has acknowledged a cookie: its 12-byte ``key``, both initial sequence numbers,
    the milliseconds that this took (0: unknown), and when it was seen, in monotonic seconds."""

    key: bytes
    c: int
    b: int
    round_trip: int
    seen: float


class FastPath(Protocol):
    """Keeps the kernel's records in step with the flow table. ``answers``: it may do the clients'
    handshakes, and a SYN that begins a connection anew be seen by nobody else. ``mappings`` are
    what it does for datagrams."""

    answers: bool
    mappings: FastMappings

    def answer(
        self, services: Sequence[Service], key: bytes, until: float, wall_offset: float
    ) -> None:
        """Let the kernel answer SYNs ``until`` then with cookies under the 16-byte ``key``."""

    def arrivals(self) -> list[Arrival]:
        """Who has arrived since this was last asked, in this order."""

    def steer(self, flow: Flow, at_once: bool = False) -> None:
        """Let the kernel steer the flow, as it then is, once all is settled, or ``at_once``; called
        again when the flow changes. A full table leaves it to Python."""

    def expect(self, flow: Flow, b: int) -> None:
        """A SYN of a live flow's addresses was answered with the initial sequence number ``b``:
        what acknowledges that from now on is a new incarnation's, and for Python."""

    def settle(self) -> None:
        """Give the kernel what it is to have."""

    def recall(self, flow: Flow) -> None:
        """Bring ``flow.seen`` and ``flow.answered`` up to what the kernel has seen."""

    def forget(self, flow: Flow) -> None:
        """The flow is over: remove its record."""

    def withhold(self, wanted: Callable[[Flow], bool] | None) -> None:
        """Leave to Python each flow that is ``wanted`` when its record is about to be written;
        None: no more."""

    def renew(self, flow: Flow) -> None:
        """Have a handed flow's record written anew, for what ``withhold`` said since."""

    def drop(self, key: bytes) -> None:
        """Remove the record of a flow that the table does not have."""

    def former(self, key: bytes) -> Former | None:
        """What is known of a flow that the table does not know (any more)."""

    def formers(self, most: int) -> list[Former] | None:
        """At most so many flows of an earlier run, others at each call; none left: none given."""

    def gauges(self) -> dict[str, int]:
        """What the kernel has counted, by name."""


class NoFastPath:
    """Every packet takes the way through Python."""

    answers = False
    mappings: FastMappings = NoFastMappings()

    def answer(
        self, services: Sequence[Service], key: bytes, until: float, wall_offset: float
    ) -> None:
        pass

    def arrivals(self) -> list[Arrival]:
        return []

    def steer(self, flow: Flow, at_once: bool = False) -> None:
        pass

    def expect(self, flow: Flow, b: int) -> None:
        pass

    def settle(self) -> None:
        pass

    def recall(self, flow: Flow) -> None:
        pass

    def forget(self, flow: Flow) -> None:
        pass

    def withhold(self, wanted: Callable[[Flow], bool] | None) -> None:
        pass

    def renew(self, flow: Flow) -> None:
        pass

    def drop(self, key: bytes) -> None:
        pass

    def former(self, key: bytes) -> Former | None:
        return None

    def formers(self, most: int) -> list[Former] | None:
        return None

    def gauges(self) -> dict[str, int]:
        return {}
