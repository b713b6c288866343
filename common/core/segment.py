"""A TCP segment in IPv4: read, build anew, or rewrite with incremental checksums.

Addresses are 4 bytes in network order; ports, sequence numbers and the like are host integers. The
general case lives here; the paths that every packet of a flow takes have their own short forms
(balancer.core.steering, packetbridge.core.splice), tested against this one.
"""

from __future__ import annotations

import struct

from common.core import checksum
from common.core.errors import Malformed, MalformedError

TCP, ICMP = 6, 1
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
MASK = 0xFFFFFFFF
ECN_BITS = 3  # of the type-of-service byte; the six above are the DSCP (RFC 2474, RFC 3168)
FRAGMENT_BITS = 0x3FFF  # more-fragments flag and fragment offset
DONT_FRAGMENT = 0x4000
DEFAULT_TTL = 64

OBJECT_BYTES = 500  # about what a Segment takes besides its packet: fields and parts of it

IP_HEADER = struct.Struct("!BBHHHBBH4s4s")
TCP_HEADER = struct.Struct("!HHIIHHHH")
MIN_PACKET = IP_HEADER.size + TCP_HEADER.size
_FIELDS = struct.Struct("!HHIIHH")  # of the TCP header, as far as they are kept
_LENGTHS = struct.Struct("!BxH2xH")  # version and header length; total length; fragment


def is_first(flags: int) -> bool:
    """Whether these are a connection's first segment's flags: SYN, with ECE and CWR where ECN is
    offered (RFC 3168 section 6.1.1) and PSH where data come along, and no other."""
    return flags & ~(ECE | CWR | PSH) == SYN


class Segment:
    """One segment, read from ``data``. Fields are as on the wire; ``key`` names the flow.

    ``key`` is 12 bytes: source and destination address, source and destination port, which is also
    the order in which they stand in a packet without IP options.
    """

    __slots__ = (
        "ack",
        "data",
        "dport",
        "dst",
        "flags",
        "ip_bytes",
        "key",
        "options",
        "payload",
        "seq",
        "sport",
        "src",
        "tos",
        "ttl",
        "window",
    )
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    window: int

    def __init__(self, data: bytes) -> None:
        """Raises MalformedError; see Malformed for the reasons."""
        ip_bytes = check_ipv4(data)
        if data[9] != TCP:
            raise MalformedError(Malformed.OTHER_PROTOCOL)
        tcp_at = ip_bytes + TCP_HEADER.size
        if len(data) < tcp_at:
            raise MalformedError(Malformed.TRUNCATED)
        self.sport, self.dport, self.seq, self.ack, offset, self.window = _FIELDS.unpack_from(
            data, ip_bytes
        )
        payload_at = ip_bytes + (offset >> 12) * 4
        if payload_at < tcp_at or payload_at > len(data):
            raise MalformedError(Malformed.BAD_TCP_HEADER)
        self.data = data
        self.ip_bytes = ip_bytes
        self.tos, self.ttl = data[1], data[8]
        self.src, self.dst = data[12:16], data[16:20]
        self.key = data[12:24] if ip_bytes == 20 else data[12:20] + data[ip_bytes : ip_bytes + 4]
        self.flags = offset & 0xFF
        self.options = data[tcp_at:payload_at]
        self.payload = data[payload_at:]

    @property
    def cost(self) -> int:
        """Bytes of memory that keeping the segment takes; what bounds on memory count."""
        return len(self.data) + OBJECT_BYTES

    @property
    def span(self) -> int:
        """Sequence numbers that the segment takes: payload, SYN and FIN."""
        return len(self.payload) + (self.flags & FIN) + ((self.flags & SYN) >> 1)

    @property
    def end(self) -> int:
        """The sequence number after the segment."""
        return (self.seq + self.span) & MASK

    def check_checksum(self) -> None:
        """Raise MalformedError(BAD_TCP_CHECKSUM) where the TCP checksum is wrong."""
        tcp = self.data[self.ip_bytes :]
        total = checksum.pseudo_header_sum(self.src, self.dst, TCP, len(tcp))
        if (total + checksum.word_sum(tcp)) % 0xFFFF:
            raise MalformedError(Malformed.BAD_TCP_CHECKSUM)

    def rewritten(
        self,
        *,
        src: bytes | None = None,
        dst: bytes | None = None,
        sport: int | None = None,
        dport: int | None = None,
        seq: int | None = None,
        ack: int | None = None,
        window: int | None = None,
        options: bytes | None = None,
        tos: int | None = None,
        ttl: int | None = None,
    ) -> bytes:
        """The packet with those fields changed, both checksums updated by the difference.

        ``options`` are TCP options of whole words, at most 40 bytes; the payload stays, the IP
        options stay, the lengths follow.
        """
        ip_bytes, old = self.ip_bytes, self.data
        tcp_at = ip_bytes + TCP_HEADER.size
        new_options = self.options if options is None else options
        old_ip, old_tcp = old[:ip_bytes], old[ip_bytes : tcp_at + len(self.options)]
        offset_flags = int.from_bytes(old_tcp[12:14], "big") & 0x0FFF
        tcp = bytearray(
            TCP_HEADER.pack(
                self.sport if sport is None else sport,
                self.dport if dport is None else dport,
                self.seq if seq is None else seq,
                self.ack if ack is None else ack,
                offset_flags | (TCP_HEADER.size + len(new_options)) // 4 << 12,
                self.window if window is None else window,
                int.from_bytes(old_tcp[16:18], "big"),
                int.from_bytes(old_tcp[18:20], "big"),
            )
            + new_options
        )
        ip = bytearray(old_ip)
        grown = len(new_options) - len(self.options)
        ip[1] = self.tos if tos is None else tos
        ip[2:4] = (len(old) + grown).to_bytes(2, "big")
        ip[8] = self.ttl if ttl is None else ttl
        ip[12:20] = (src or self.src) + (dst or self.dst)
        addresses = checksum.word_sum(ip[12:20]) - checksum.word_sum(old_ip[12:20])
        difference = checksum.word_sum(tcp) - checksum.word_sum(old_tcp) + addresses + grown
        old_sum = int.from_bytes(old_tcp[16:18], "big")
        tcp[16:18] = checksum.updated(old_sum, difference).to_bytes(2, "big")
        difference = checksum.word_sum(ip) - checksum.word_sum(old_ip)
        old_sum = int.from_bytes(old_ip[10:12], "big")
        ip[10:12] = checksum.updated(old_sum, difference).to_bytes(2, "big")
        return bytes(ip + tcp) + self.payload


def check_ipv4(data: bytes) -> int:
    """The bytes of the IPv4 header, whole packet and no fragment made sure of.

    Raises MalformedError: TRUNCATED, NOT_IPV4, BAD_IP_HEADER or FRAGMENT.
    """
    size = len(data)
    if size < IP_HEADER.size:
        raise MalformedError(Malformed.TRUNCATED)
    first, length, fragment = _LENGTHS.unpack_from(data)
    if first >> 4 != 4:
        raise MalformedError(Malformed.NOT_IPV4)
    ip_bytes: int = (first & 15) * 4
    if ip_bytes < IP_HEADER.size:
        raise MalformedError(Malformed.BAD_IP_HEADER)
    if size != length or size < ip_bytes:
        raise MalformedError(Malformed.TRUNCATED)
    if fragment & FRAGMENT_BITS:
        raise MalformedError(Malformed.FRAGMENT)
    return ip_bytes


def build(
    src: bytes,
    dst: bytes,
    sport: int,
    dport: int,
    *,
    seq: int,
    ack: int = 0,
    flags: int,
    window: int = 0,
    options: bytes = b"",
    payload: bytes = b"",
    tos: int = 0,
) -> bytes:
    """A new segment with both checksums; ``options`` of whole words. Don't-fragment is set."""
    offset_flags = (TCP_HEADER.size + len(options)) // 4 << 12 | flags
    rest = options + payload
    length = TCP_HEADER.size + len(rest)
    total = IP_HEADER.size + length
    addresses = checksum.word_sum(src + dst)
    # Numbers of any width may be summed: see checksum.
    fields = sport + dport + seq + ack + offset_flags + window
    tcp_sum = checksum.from_sum(addresses + TCP + length + fields + checksum.word_sum(rest))
    fields = (0x4500 | tos) + total + DONT_FRAGMENT + (DEFAULT_TTL << 8 | TCP)
    ip_sum = checksum.from_sum(addresses + fields)
    ip = IP_HEADER.pack(0x45, tos, total, 0, DONT_FRAGMENT, DEFAULT_TTL, TCP, ip_sum, src, dst)
    tcp = TCP_HEADER.pack(sport, dport, seq, ack, offset_flags, window, tcp_sum, 0)
    return ip + tcp + rest


def build_along(
    key: bytes,
    flags: int,
    *,
    seq: int,
    ack: int = 0,
    window: int = 0,
    options: bytes = b"",
    payload: bytes = b"",
    tos: int = 0,
) -> bytes:
    """A new segment whose addresses and ports are the 12-byte ``key`` (see Segment); ``seq`` and
    ``ack`` are taken modulo 2**32."""
    return build(
        key[:4],
        key[4:8],
        int.from_bytes(key[8:10], "big"),
        int.from_bytes(key[10:], "big"),
        seq=seq & MASK,
        ack=ack & MASK,
        flags=flags,
        window=window,
        options=options,
        payload=payload,
        tos=tos,
    )


def reverse(key: bytes) -> bytes:
    """The 12-byte key of the same flow's packets in the other direction."""
    return key[4:8] + key[:4] + key[10:] + key[8:10]


def before(a: int, b: int) -> bool:
    """Whether sequence number ``a`` comes before ``b`` (RFC 9293 section 3.4, modulo 2**32)."""
    return (b - a - 1) & MASK < 0x7FFFFFFF
