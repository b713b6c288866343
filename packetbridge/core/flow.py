"""One spliced connection."""

from __future__ import annotations

from packetbridge.core.entry import Entry
from packetbridge.core.opening import Opening
from packetbridge.core.stamper import Stamper
from packetbridge.core.states import Event, State, after


class Flow:
    """The translation's parameters and the flow's state.

    ``inbound`` and ``outbound`` are the 12-byte keys (source, destination, ports) of its packets
    from the client and from the server; ``up_address`` and ``down_address`` what those 12 bytes
    become. Going up (to the server) ``seq_up`` is added to the sequence number; going down
    ``seq_down`` = b - r; likewise the timestamps; acknowledgments and echoes shift back. All modulo
    2**32. ``up_ip``, ``up_tcp`` and so on are what the addresses (and ports) add to the checksums.
    """

    __slots__ = (
        "b",
        "c",
        "client_ack",
        "down_address",
        "down_ip",
        "down_tcp",
        "down_window",
        "entry",
        "fast",
        "fins",
        "inbound",
        "opening",
        "outbound",
        "seen",
        "seq_down",
        "seq_up",
        "server_ack",
        "stamp_down",
        "stamp_up",
        "stamper",
        "state",
        "up_address",
        "up_ip",
        "up_tcp",
        "up_window",
    )

    def __init__(self, entry: Entry, inbound: bytes, c: int, b: int, now: float) -> None:
        self.entry = entry
        self.inbound = inbound
        self.c, self.b = c, b
        self.state = State.HANDOFF
        self.seen = now
        self.fast = False  # SPLICED and nothing special: packets take the short way
        self.fins = 0  # bit 0: the client has ended, bit 1: the server
        self.opening: Opening | None = None
        self.stamper: Stamper | None = None
        self.seq_up = self.seq_down = self.stamp_up = self.stamp_down = 0
        self.up_window = self.down_window = 0  # bits to shift left; right where negative
        self.client_ack = (b + 1) & 0xFFFFFFFF  # the next byte each side expects, as it said
        self.server_ack = 0

    def address(self, source: bytes) -> None:
        """Fix the addresses and ports of the server's side; ``source`` is 6 bytes, what the server
        sees as the client's address and port."""
        entry = self.entry
        client, cport, vport = self.inbound[:4], self.inbound[8:10], self.inbound[10:12]
        server, sport = entry.server, entry.server_port.to_bytes(2, "big")
        self.outbound = server + source[:4] + sport + source[4:]
        self.up_address = source[:4] + server + source[4:] + sport
        self.down_address = entry.vip + client + vport + cport
        if source == client + cport:
            # The same for all flows of the entry: numbers shared, not one each
            if entry.differences is None:
                entry.differences = self._differences()
            differences = entry.differences
        else:
            differences = self._differences()
        self.up_ip, self.up_tcp, self.down_ip, self.down_tcp = differences

    def _differences(self) -> tuple[int, int, int, int]:
        return (
            *_difference(self.inbound, self.up_address),
            *_difference(self.outbound, self.down_address),
        )

    def apply(self, event: Event) -> None:
        """Change state by the table, and with it whether the short way may be taken."""
        self.state = after(self.state, event)
        self.fast = self.state is State.SPLICED and self.opening is None and self.stamper is None

    def settle(self) -> None:
        """The opening is over: nothing held, nothing owed."""
        self.opening = None
        self.fast = self.state is State.SPLICED and self.stamper is None

    def __str__(self) -> str:
        client = ".".join(str(byte) for byte in self.inbound[:4])
        port = int.from_bytes(self.inbound[8:10], "big")
        server = ".".join(str(byte) for byte in self.entry.server)
        return f"{client}:{port} -> {server}:{self.entry.server_port}"


def _difference(old: bytes, new: bytes) -> tuple[int, int]:
    """New minus old of the addresses alone, and of addresses and ports, modulo 0xFFFF."""
    addresses = int.from_bytes(new[:8], "big") - int.from_bytes(old[:8], "big")
    whole = int.from_bytes(new, "big") - int.from_bytes(old, "big")
    return addresses % 0xFFFF, whole % 0xFFFF
