"""Steering: the client's packet with the bridge's address as destination and the VIP's DSCP.

The way that every packet of an established connection takes, so it is one unpack, a few integer
operations and one pack. Sequence numbers, ports, options and payload stay as they are.
"""

from __future__ import annotations

import struct

from common.core.segment import ECN_BITS, IP_HEADER, Segment

# version and length, type of service, 8 bytes, checksum, source, destination, 16 bytes, checksum
_PLAIN = struct.Struct("!BB8sH4s4s16sH")


class Steering:
    """The constants of one way: from one VIP to one bridge.

    ``dscp_bits`` is the type-of-service byte without its two ECN bits.
    """

    __slots__ = ("_difference", "bridge", "dscp_bits")

    def __init__(self, vip: bytes, bridge: bytes, dscp: int) -> None:
        self.bridge = bridge
        self.dscp_bits = dscp << 2
        # of both checksums, as the TCP one covers the addresses too
        self._difference = int.from_bytes(bridge, "big") - int.from_bytes(vip, "big")

    def plain(self, data: bytes) -> bytes:
        """Steer a packet without IP options, at least 40 bytes (not checked here)."""
        first, tos, middle, ip_sum, src, _, tcp, tcp_sum = _PLAIN.unpack_from(data)
        difference = self._difference
        tos_now = self.dscp_bits | tos & ECN_BITS
        ip_sum = (0xFFFF - ((0xFFFF ^ ip_sum) + difference + tos_now - tos) % 0xFFFF) % 0xFFFF
        tcp_sum = (0xFFFF - ((0xFFFF ^ tcp_sum) + difference) % 0xFFFF) % 0xFFFF
        head = _PLAIN.pack(first, tos_now, middle, ip_sum, src, self.bridge, tcp, tcp_sum)
        return head + data[38:]

    def segment(self, segment: Segment, options: bytes | None = None) -> bytes:
        """Steer any segment, with ``options`` in place of its own where given."""
        if options is None and segment.ip_bytes == IP_HEADER.size:
            return self.plain(segment.data)
        return segment.rewritten(dst=self.bridge, tos=self.tos(segment.tos), options=options)

    def along(self, key: bytes) -> bytes:
        """The 12-byte key, on the way to the bridge, of packets that have ``key`` on that to us."""
        return key[:4] + self.bridge + key[8:]

    def tos(self, tos: int) -> int:
        """The type-of-service byte on the way to the bridge."""
        return self.dscp_bits | tos & ECN_BITS
