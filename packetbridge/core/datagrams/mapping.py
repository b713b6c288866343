"""One client's way to a server and back, for datagrams."""

from __future__ import annotations

from common.core.flow_id import flow_id
from packetbridge.core.entry import Entry


class Mapping:
    """``inbound`` is the 12-byte key of the client's datagrams as they come to this bridge,
    ``outbound`` that of the server's; ``began`` and ``seen`` are when the first and the last of
    either came. ``slow``: Python translates it also where the kernel could.

    The server sees the client by its own address and port, unless the bridge gives it another, as
    configured, or as another VIP's mapping has it already.
    """

    __slots__ = ("addressing", "began", "entry", "inbound", "outbound", "seen", "slow")

    def __init__(self, entry: Entry, inbound: bytes, outbound: bytes, now: float) -> None:
        self.entry = entry
        self.inbound = inbound
        self.outbound = outbound
        self.addressing = entry.addressing(inbound, outbound)
        self.began = self.seen = now
        self.slow = False

    @property
    def client_key(self) -> bytes:
        """The 12-byte key of its datagrams as the client sends them: to the VIP."""
        return self.inbound[:4] + self.entry.vip + self.inbound[8:]

    @property
    def is_plain(self) -> bool:
        """Whether the server sees the client's own address and port."""
        return self.outbound == outbound(self.entry, self.inbound[:4] + self.inbound[8:10])

    @property
    def identity(self) -> str:
        """See common.core.flow_id; datagrams have no sequence numbers."""
        return flow_id(self.client_key + bytes(8))

    def __str__(self) -> str:
        client = ".".join(str(byte) for byte in self.inbound[:4])
        port = int.from_bytes(self.inbound[8:10], "big")
        return f"{client}:{port} -> {self.entry.server_name}"


def outbound(entry: Entry, source: bytes) -> bytes:
    """The key of the server's datagrams to a client that it sees as ``source``, 6 bytes."""
    server = entry.server_key
    return server[:4] + source[:4] + server[4:] + source[4:]
