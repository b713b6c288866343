"""The fast path: connections that the kernel steers by itself, as the core sees it.

Once a bridge has a connection, the balancer's part is the same few changes to each packet. Where
the kernel can make them, a record per connection tells it which; what the record does not cover
comes up as if there were none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from balancer.core.flow import Flow
from common.core.ledger import Occurrence


class Fast(Occurrence):
    """Of the kernel's path."""

    PACKETS = "fast_packets"
    BYTES = "fast_bytes"  # in these, of IP
    UNROUTED = "fast_unrouted"  # of these, left to the stack to forward
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


class FastPath(Protocol):
    """Keeps the kernel's records in step with the flow table."""

    def steer(self, flow: Flow, at_once: bool = False) -> None:
        """Let the kernel steer the flow, as it then is, once all is settled, or ``at_once``; called
        again when the flow changes. A full table leaves it to Python."""

    def expect(self, flow: Flow, b: int) -> None:
        """A SYN of a live flow's addresses was answered with the initial sequence number ``b``:
        what acknowledges that from now on is a new incarnation's, and for Python."""

    def settle(self) -> None:
        """Give the kernel what it is to have."""

    def recall(self, flow: Flow) -> None:
        """Bring ``flow.seen`` up to what the kernel has seen."""

    def forget(self, flow: Flow) -> None:
        """The flow is over: remove its record."""

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

    def drop(self, key: bytes) -> None:
        pass

    def former(self, key: bytes) -> Former | None:
        return None

    def formers(self, most: int) -> list[Former] | None:
        return None

    def gauges(self) -> dict[str, int]:
        return {}
