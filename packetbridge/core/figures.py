"""What is counted of one way in: see Entry."""

from __future__ import annotations

from common.core.histogram import Histogram


class Figures:
    """Since the start, except ``flows``: connections in progress, from their handoff until both
    sides have ended or one has reset it.

    ``handoffs`` were taken; ``opened`` are those whose server took the connection, ``refused`` and
    ``silent`` those whose server reset or did not answer in time, ``resets`` those that it reset
    before the first byte of a response. Bytes are of IP, to the server and to the client; those
    that the kernel carried are added when their connection is over.

    ``connect``: seconds from the handoff to the server's SYN-ACK, ``first_byte`` to its first byte.
    """

    __slots__ = (
        "connect",
        "down_bytes",
        "first_byte",
        "flows",
        "handoffs",
        "opened",
        "refused",
        "resets",
        "silent",
        "up_bytes",
    )

    def __init__(self) -> None:
        self.flows = self.handoffs = self.opened = 0
        self.refused = self.silent = self.resets = 0
        self.up_bytes = self.down_bytes = 0
        self.connect = Histogram()
        self.first_byte = Histogram()
