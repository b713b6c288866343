"""What becomes of a packet's addresses and ports, in either direction.

Where the server sees the client's own address and port, that is the same for all flows of an entry,
and one object serves them all: a hundred thousand flows share it instead of holding their own.
"""

from __future__ import annotations


class Addressing:
    """Up (to the server): source ``up_source``, or as it is where None; destination ``up_target``.
    Down (to the client) likewise. ``up_ports`` and ``down_ports`` are added to the 32 bits of
    source and destination port. The four ``_ip`` and ``_tcp`` numbers are what all that adds to the
    checksums, modulo 0xFFFF; ``up_hop`` and ``down_hop`` are taken off the TTL. ``seq_up`` and
    ``stamp_up`` are what sequence numbers and timestamps grow by going up: 0 but where the server
    sees the bridge's own address, and there every flow has an object of its own."""

    __slots__ = (
        "down_hop",
        "down_ip",
        "down_ports",
        "down_source",
        "down_target",
        "down_tcp",
        "seq_up",
        "stamp_up",
        "up_hop",
        "up_ip",
        "up_ports",
        "up_source",
        "up_target",
        "up_tcp",
    )

    def __init__(self, vip: bytes, hops: tuple[int, int], inbound: bytes, outbound: bytes) -> None:
        """``inbound`` and ``outbound`` are the keys of the client's and the server's packets;
        ``hops`` what is taken off the TTL, up and down."""
        self.seq_up = self.stamp_up = 0
        server = outbound[:4]
        client, own = inbound[:4], outbound[4:8]
        self.up_source = None if own == client else own
        self.up_target = server
        self.down_source = vip
        self.down_target = None if own == client else client
        swapped_in = inbound[10:12] + inbound[8:10]
        swapped_out = outbound[10:12] + outbound[8:10]
        self.up_ports = _number(swapped_out) - _number(inbound[8:])
        self.down_ports = _number(swapped_in) - _number(outbound[8:])
        self.up_hop, self.down_hop = hops
        up = _number(own + server) - _number(inbound[:8])
        down = _number(vip + client) - _number(outbound[:8])
        self.up_ip, self.up_tcp = up % 0xFFFF, (up + self.up_ports) % 0xFFFF
        self.down_ip, self.down_tcp = down % 0xFFFF, (down + self.down_ports) % 0xFFFF

    def up(self, inbound: bytes) -> bytes:
        """The 12 bytes of addresses and ports of a packet that had ``inbound``."""
        return _changed(inbound, self.up_source, self.up_target, self.up_ports)

    def down(self, outbound: bytes) -> bytes:
        """The 12 bytes of addresses and ports of a packet that had ``outbound``."""
        return _changed(outbound, self.down_source, self.down_target, self.down_ports)


def _changed(key: bytes, source: bytes | None, target: bytes | None, ports: int) -> bytes:
    new_ports = (_number(key[8:]) + ports).to_bytes(4, "big")
    return (source or key[:4]) + (target or key[4:8]) + new_ports


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
