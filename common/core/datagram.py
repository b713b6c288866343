"""A UDP datagram in IPv4: read, build anew, or rewrite with incremental checksums (RFC 768).

Addresses are 4 bytes in network order, ports host integers. As with segments (common.core.segment),
the general case lives here, and the paths that every datagram of a mapping takes have short forms
of their own for packets without IP options (`PLAIN`, `updated`), tested against this one.
"""

from __future__ import annotations

import struct

from common.core import checksum
from common.core.errors import Malformed, MalformedError
from common.core.segment import DEFAULT_TTL, IP_HEADER, check_ipv4

UDP = 17
UDP_HEADER = struct.Struct("!HHHH")
MIN_DATAGRAM = IP_HEADER.size + UDP_HEADER.size

# The headers of a datagram without IP options: version and length, type of service, 8 bytes (length
# to protocol), checksum, source, destination, both ports, UDP length, UDP checksum
PLAIN = struct.Struct("!BB8sH4s4sHHHH")


class Datagram:
    """One datagram, read from ``data``. Fields are as on the wire.

    ``key`` is 12 bytes: source and destination address, source and destination port, which is also
    the order in which they stand in a packet without IP options.
    """

    __slots__ = ("data", "dport", "dst", "ip_bytes", "key", "sport", "src", "tos", "ttl")
    sport: int
    dport: int

    def __init__(self, data: bytes) -> None:
        """Raises MalformedError; see Malformed for the reasons.

        A port of 0 is none: nobody could answer to it, or listens there. A length that is not that
        of the IP payload is refused, too: what checks and counts the one would pass on the other.
        """
        ip_bytes = check_ipv4(data)
        if data[9] != UDP:
            raise MalformedError(Malformed.OTHER_PROTOCOL)
        if len(data) < ip_bytes + UDP_HEADER.size:
            raise MalformedError(Malformed.TRUNCATED)
        self.sport, self.dport, length, _ = UDP_HEADER.unpack_from(data, ip_bytes)
        if length != len(data) - ip_bytes:
            raise MalformedError(Malformed.BAD_UDP_LENGTH)
        if not self.sport or not self.dport:
            raise MalformedError(Malformed.ZERO_PORT)
        self.data = data
        self.ip_bytes = ip_bytes
        self.tos, self.ttl = data[1], data[8]
        self.src, self.dst = data[12:16], data[16:20]
        self.key = data[12:20] + data[ip_bytes : ip_bytes + 4]

    @property
    def payload(self) -> bytes:
        return self.data[self.ip_bytes + UDP_HEADER.size :]

    def check_checksum(self) -> None:
        """Raise MalformedError(BAD_UDP_CHECKSUM) where there is a checksum and it is wrong."""
        udp = self.data[self.ip_bytes :]
        total = checksum.pseudo_header_sum(self.src, self.dst, UDP, len(udp))
        if udp[6:8] != b"\0\0" and (total + checksum.word_sum(udp)) % 0xFFFF:
            raise MalformedError(Malformed.BAD_UDP_CHECKSUM)

    def rewritten(
        self,
        *,
        src: bytes | None = None,
        dst: bytes | None = None,
        sport: int | None = None,
        dport: int | None = None,
        tos: int | None = None,
        ttl: int | None = None,
    ) -> bytes:
        """The packet with those fields changed, both checksums updated by the difference. IP
        options and payload stay."""
        udp_at = self.ip_bytes
        old_ip, old_udp = self.data[:udp_at], self.data[udp_at : udp_at + UDP_HEADER.size]
        ip, udp = bytearray(old_ip), bytearray(old_udp)
        ip[1] = self.tos if tos is None else tos
        ip[8] = self.ttl if ttl is None else ttl
        ip[12:20] = (src or self.src) + (dst or self.dst)
        udp[0:2] = (self.sport if sport is None else sport).to_bytes(2, "big")
        udp[2:4] = (self.dport if dport is None else dport).to_bytes(2, "big")
        difference = checksum.word_sum(ip) - checksum.word_sum(old_ip)
        ip_sum = checksum.updated(int.from_bytes(old_ip[10:12], "big"), difference)
        ip[10:12] = ip_sum.to_bytes(2, "big")
        difference = checksum.word_sum(udp) - checksum.word_sum(old_udp)
        difference += checksum.word_sum(ip[12:20]) - checksum.word_sum(old_ip[12:20])
        udp_sum = updated(int.from_bytes(old_udp[6:8], "big"), difference)
        udp[6:8] = udp_sum.to_bytes(2, "big")
        return bytes(ip + udp) + self.data[udp_at + UDP_HEADER.size :]


def updated(udp_sum: int, difference: int) -> int:
    """The UDP checksum after words under it grew by ``difference`` (new minus old, of any size and
    sign): RFC 1624, equation 3, and a wrong one stays wrong by the same amount.

    Zero says that there is none, and stays (RFC 768). A sum that comes out as zero is 0xFFFF, its
    equal in one's complement, so that this never gives zero for anything else.
    """
    return udp_sum and 0xFFFF - ((0xFFFF ^ udp_sum) + difference) % 0xFFFF


def build(
    src: bytes,
    dst: bytes,
    sport: int,
    dport: int,
    payload: bytes = b"",
    *,
    tos: int = 0,
    ttl: int = DEFAULT_TTL,
    checked: bool = True,
) -> bytes:
    """A new datagram; with the UDP checksum zero where not ``checked``. It may be fragmented."""
    length = UDP_HEADER.size + len(payload)
    head = UDP_HEADER.pack(sport, dport, length, 0)
    if checked:
        total = checksum.pseudo_header_sum(src, dst, UDP, length)
        udp_sum = checksum.from_sum(total + checksum.word_sum(head + payload)) or 0xFFFF
        head = UDP_HEADER.pack(sport, dport, length, udp_sum)
    whole = IP_HEADER.size + length
    ip = IP_HEADER.pack(0x45, tos, whole, 0, 0, ttl, UDP, 0, src, dst)
    ip_sum = checksum.internet_checksum(ip)
    ip = IP_HEADER.pack(0x45, tos, whole, 0, 0, ttl, UDP, ip_sum, src, dst)
    return ip + head + payload
