"""Steering of datagrams, as of segments: the bridge's address as destination, the VIP's DSCP.

The way that every datagram of a mapping takes, so it is one unpack, a few integer operations and
one pack. Ports, length and payload stay as they are.
"""

from __future__ import annotations

from balancer.core.steering import Steering
from common.core.datagram import PLAIN, Datagram, updated
from common.core.segment import ECN_BITS, IP_HEADER


class DatagramSteering(Steering):
    """The constants of one way: from one VIP to one bridge."""

    __slots__ = ()

    def plain(self, data: bytes) -> bytes:
        """Steer a packet without IP options, at least 28 bytes (not checked here)."""
        first, tos, middle, ip_sum, src, _, sport, dport, length, udp_sum = PLAIN.unpack_from(data)
        difference = self._difference
        tos_now = self.dscp_bits | tos & ECN_BITS
        ip_sum = (0xFFFF - ((0xFFFF ^ ip_sum) + difference + tos_now - tos) % 0xFFFF) % 0xFFFF
        udp_sum = updated(udp_sum, difference)
        bridge = self.bridge
        head = PLAIN.pack(
            first, tos_now, middle, ip_sum, src, bridge, sport, dport, length, udp_sum
        )
        return head + data[28:]

    def datagram(self, datagram: Datagram) -> bytes:
        """Steer any datagram."""
        if datagram.ip_bytes == IP_HEADER.size:
            return self.plain(datagram.data)
        return datagram.rewritten(dst=self.bridge, tos=self.tos(datagram.tos))
