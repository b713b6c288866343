"""The fast path: connections that the kernel translates by itself, as the core sees it.

A spliced connection's packets are all translated by the same few numbers. Where the kernel can do
that, a record for each direction tells it which; what the records do not cover comes up as if there
were none, and while a flow is not `fast` its records stand still.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from common.core.ledger import Occurrence
from packetbridge.core.flow import Flow


class Fast(Occurrence):
    """Of the kernel's path."""

    UP = "fast_packets_up"
    DOWN = "fast_packets_down"
    UP_BYTES = "fast_bytes_up"  # in these, of IP
    DOWN_BYTES = "fast_bytes_down"
    DATAGRAMS_UP = "fast_datagrams_up"
    DATAGRAMS_DOWN = "fast_datagrams_down"
    DATAGRAMS_UP_BYTES = "fast_datagram_bytes_up"
    DATAGRAMS_DOWN_BYTES = "fast_datagram_bytes_down"
    TABLE_FULL = "fast_table_full"  # connections left to Python
    ADOPTED = "flows_adopted"  # of an earlier run
    NOT_ADOPTED = "flows_not_adopted"


@dataclass(frozen=True, slots=True)
class Former:
    """What the kernel still knows of a connection of an earlier run: the flow's fields of these
    names; `slow`, that it was left to Python; `source` is what the server sees as the client's
    address and port, `server` its own, 6 bytes each."""

    dscp: int
    inbound: bytes
    source: bytes
    server: bytes
    c: int
    b: int
    seq_up: int
    seq_down: int
    stamp_up: int
    stamp_down: int
    up_window: int
    down_window: int
    client_ack: int
    server_ack: int
    fins: int
    client_first: bool
    client_fin: int | None
    slow: bool
    seen: float


class Ending(NamedTuple):
    """Both sides have ended a connection, each to the other's knowledge: its ``dscp``, 12-byte key
    and ``isns`` (see Flow), and when, in monotonic seconds."""

    dscp: int
    inbound: bytes
    isns: bytes
    seen: float


class FastPath(Protocol):
    """Keeps the kernel's records in step with the flows. ``reports``: it may see them end."""

    reports: bool

    def endings(self) -> list[Ending]:
        """What has ended since this was last asked."""

    def follow(self, flow: Flow) -> None:
        """``flow.fast`` or what its records say may have changed."""

    def begin(self, flow: Flow) -> bool:
        """Give the kernel a flow before the first packet of what it is to translate; False where
        Python is to do it, for now at least."""

    def settle(self) -> None:
        """Give the kernel what it is to have."""

    def recall(self, flow: Flow) -> None:
        """Bring ``seen``, ``client_ack``, ``server_ack``, ``fins`` and ``client_fin`` up to what
        the kernel has seen, and tell it what it has carried."""

    def forget(self, flow: Flow) -> None:
        """The flow is over: remove its records, and tell it what they have carried."""

    def withhold(self, wanted: Callable[[Flow], bool] | None) -> None:
        """Leave to Python each flow that is ``wanted`` when its records are about to be written;
        None: no more."""

    def renew(self, flow: Flow) -> None:
        """Have a flow's records, if it has any, written anew, for what ``withhold`` said since."""

    def former(self, tuple_: bytes, dscp: int | None) -> Former | None:
        """What an earlier run left of a packet's flow, until ``formers`` has given all;
        ``tuple_`` is the packet's 12-byte key, ``dscp`` None for a server's."""

    def formers(self, most: int) -> list[Former] | None:
        """Flows of an earlier run, from at most so many records, others at each call; None left:
        none given."""

    def drop(self, former: Former) -> None:
        """Remove the records of a flow that the table does not have."""

    def gauges(self) -> dict[str, int]:
        """What the kernel has counted, by name."""


class NoFastPath:
    """Every packet takes the way through Python."""

    reports = False

    def endings(self) -> list[Ending]:
        return []

    def follow(self, flow: Flow) -> None:
        pass

    def begin(self, flow: Flow) -> bool:
        return False

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

    def former(self, tuple_: bytes, dscp: int | None) -> Former | None:
        return None

    def formers(self, most: int) -> list[Former] | None:
        return None

    def drop(self, former: Former) -> None:
        pass

    def gauges(self) -> dict[str, int]:
        return {}
