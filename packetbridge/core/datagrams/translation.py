"""What becomes of a datagram: addresses and ports, DSCP 0 with the ECN bits kept, one off the TTL
where the kernel does not count the hop, and both checksums by the difference (RFC 1624): a zero UDP
checksum stays zero, and damage stays visible to the receiver.
"""

from __future__ import annotations

import struct

from common.core.datagram import UDP, Datagram
from common.core.segment import ECN_BITS, FRAGMENT_BITS
from packetbridge.core.addressing import Addressing

# version and header length, type of service, length, identification, fragment, TTL, protocol,
# checksum, addresses, both ports, UDP length, UDP checksum
_PLAIN = struct.Struct("!BBHHHBBH4s4sIHH")


def up(to: Addressing, data: bytes) -> bytes | None:
    """The client's datagram for the server; None where the short way does not fit it: it has IP
    options, or is not sound."""
    return _short(data, to.up_source, to.up_target, to.up_ports, to.up_ip, to.up_tcp, to.up_hop)


def down(to: Addressing, data: bytes) -> bytes | None:
    """The server's datagram for the client; None as in up."""
    return _short(
        data, to.down_source, to.down_target, to.down_ports, to.down_ip, to.down_tcp, to.down_hop
    )


def up_any(to: Addressing, datagram: Datagram) -> bytes:
    """The same for any sound datagram."""
    return _any(datagram, to.up(datagram.key), to.up_hop)


def down_any(to: Addressing, datagram: Datagram) -> bytes:
    """The same for any sound datagram."""
    return _any(datagram, to.down(datagram.key), to.down_hop)


def _short(
    data: bytes,
    new_src: bytes | None,
    new_dst: bytes | None,
    ports_by: int,
    ip_by: int,
    udp_by: int,
    hop: int,
) -> bytes | None:
    """``udp_by``: as a TCP checksum's, since both cover the same addresses and ports."""
    if len(data) < _PLAIN.size:
        return None
    (first, tos, length, ident, fragment, ttl, protocol, ip_sum, src, dst, ports, size, udp_sum,
     ) = _PLAIN.unpack_from(data)  # fmt: skip
    if (
        first != 0x45
        or length != len(data)
        or fragment & FRAGMENT_BITS
        or protocol != UDP
        or size != length - 20
        or not ports & 0xFFFF
        or not ports >> 16
        or ttl < hop
    ):
        return None
    new_tos = tos & ECN_BITS
    if udp_sum:  # see common.core.datagram.updated
        udp_sum = 0xFFFF - ((0xFFFF ^ udp_sum) + udp_by) % 0xFFFF
    grown = ip_by + new_tos - tos - (hop << 8)
    ip_sum = (0xFFFF - ((0xFFFF ^ ip_sum) + grown) % 0xFFFF) % 0xFFFF
    return _PLAIN.pack(
        first, new_tos, length, ident, fragment, ttl - hop, protocol, ip_sum, new_src or src,
        new_dst or dst, ports + ports_by, size, udp_sum,
    ) + data[28:]  # fmt: skip


def _any(datagram: Datagram, address: bytes, hop: int) -> bytes:
    return datagram.rewritten(
        src=address[:4],
        dst=address[4:8],
        sport=int.from_bytes(address[8:10], "big"),
        dport=int.from_bytes(address[10:], "big"),
        tos=datagram.tos & ECN_BITS,
        ttl=max(datagram.ttl - hop, 0),
    )
