"""How long things take, as the bridge sees them."""

from __future__ import annotations

from common.core.histogram import Histogram


class Times:
    """In seconds. ``handshake``: from the SYN to the server to its SYN-ACK; ``handoff``: from a
    connection's handoff until it stands with the server."""

    __slots__ = ("handoff", "handshake")

    def __init__(self) -> None:
        self.handoff = Histogram()
        self.handshake = Histogram()
