"""How long things take, as the balancer sees them."""

from __future__ import annotations

from common.core.histogram import Histogram


class Times:
    """In seconds. ``handshake``: from a SYN-ACK to its acknowledgment, the client's round trip;
    ``handoff``: from then until its request was handed to a bridge for the first time."""

    __slots__ = ("handoff", "handshake")

    def __init__(self) -> None:
        self.handshake = Histogram()
        self.handoff = Histogram()
