"""Scapy as the independent judge of bytes: packets built and read without the project's code.

A packet is `bytes` from the first byte of the IPv4 header on, without a link-layer header.
Numbers in arguments and results are Python integers (host order); addresses are dotted strings.
"""

from collections.abc import Sequence
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, in4_chksum
from scapy.packet import Raw
from scapy.utils import checksum

Address = tuple[str, int]


def raw_options(options: Sequence[tuple[str, Any]]) -> bytes:
    """TCP options in scapy's notation, e.g. [("MSS", 1460), ("SAckOK", b"")], to padded bytes."""
    return bytes(TCP(options=list(options)))[20:]


def tcp_packet(
    source: Address,
    destination: Address,
    *,
    seq: int = 0,
    ack: int = 0,
    flags: str = "A",
    window: int = 8192,
    options: bytes | Sequence[tuple[str, Any]] = b"",
    payload: bytes = b"",
    tos: int = 0,
    ttl: int = 64,
    ident: int = 1,
    urgent: int = 0,
    reserved: int = 0,
    fragment: str = "DF",
    ip_options: bytes = b"",
) -> bytes:
    """An IPv4/TCP packet with right lengths and checksums.

    `options` are raw bytes, used as they are (a multiple of 4, at most 40; so malformed ones can
    be made too), or scapy's list. `ip_options` are raw bytes likewise. `tos` is the whole byte:
    DSCP in its upper six bits, ECN in its lower two.
    """
    raw = options if isinstance(options, bytes) else raw_options(options)
    if len(raw) % 4 or len(raw) > 40:
        raise ValueError(f"TCP options take a multiple of 4 bytes up to 40, not {len(raw)}")
    # Scapy would re-encode options given to it; behind a header of the right length they are only
    # bytes to it, and its checksum covers them all the same.
    tcp = TCP(
        sport=source[1],
        dport=destination[1],
        seq=seq % 2**32,
        ack=ack % 2**32,
        dataofs=5 + len(raw) // 4,
        reserved=reserved,
        flags=flags,
        window=window,
        urgptr=urgent,
    )
    header = IP(src=source[0], dst=destination[0], tos=tos, ttl=ttl, id=ident, flags=fragment)
    packet = bytes(header / tcp / Raw(raw + payload))
    return _with_ip_options(packet, ip_options) if ip_options else packet


def udp_packet(
    source: Address,
    destination: Address,
    payload: bytes = b"",
    *,
    tos: int = 0,
    ttl: int = 64,
    ident: int = 1,
    flags: str = "DF",
    no_checksum: bool = False,
    ip_options: bytes = b"",
) -> bytes:
    """An IPv4/UDP packet; `no_checksum` sends the 0 that RFC 768 allows for "none computed"."""
    udp = UDP(sport=source[1], dport=destination[1])
    if no_checksum:
        udp.chksum = 0
    header = IP(src=source[0], dst=destination[0], tos=tos, ttl=ttl, id=ident, flags=flags)
    packet = bytes(header / udp / Raw(payload))
    return _with_ip_options(packet, ip_options) if ip_options else packet


def icmp_error(
    source: str,
    destination: str,
    quoted: bytes,
    *,
    kind: int = 3,
    code: int = 4,
    mtu: int = 0,
    ttl: int = 64,
) -> bytes:
    """An ICMP error about `quoted`, cut by the caller; "fragmentation needed" unless told."""
    icmp = ICMP(type=kind, code=code)
    if (kind, code) == (3, 4):
        icmp.nexthopmtu = mtu
    header = IP(src=source, dst=destination, ttl=ttl, proto=1)
    return bytes(header / icmp / Raw(quoted))


def checksums_ok(packet: bytes) -> bool:
    """True if the IPv4 header checksum and that of the TCP, UDP or ICMP part are right.

    Also False if the lengths do not agree with the bytes. An ICMP error's checksum covers what it
    quotes; the quoted headers' own checksums are not looked at (use `ip_checksum_ok` on them).
    """
    if not ip_checksum_ok(packet):
        return False
    header = IP(packet)
    if header.len != len(packet):
        return False
    body = packet[header.ihl * 4 :]
    if header.proto == 1:
        return len(body) >= 8 and checksum(body) == 0
    if header.proto == 6:
        long_enough = len(body) >= 20 and 20 <= (body[12] >> 4) * 4 <= len(body)
        return long_enough and in4_chksum(6, header, body) == 0
    if header.proto == 17:
        long_enough = len(body) >= 8 and int.from_bytes(body[4:6], "big") == len(body)
        return long_enough and (body[6:8] == b"\0\0" or in4_chksum(17, header, body) == 0)
    raise ValueError(f"no checksum known for IP protocol {header.proto}")


def ip_checksum_ok(packet: bytes) -> bool:
    """True if the bytes start with a whole IPv4 header whose checksum is right."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return False
    length = (packet[0] & 15) * 4
    return 20 <= length <= len(packet) and checksum(packet[:length]) == 0


def fields(packet: bytes) -> dict[str, Any]:
    """The fields of an IPv4/TCP packet as scapy reads them.

    `flags` is scapy's string ("SA"), `options` its list of (name or kind, value), `raw_options` the
    same as bytes, `payload` what follows the TCP header up to the IP total length.
    """
    header = IP(packet)
    if TCP not in header:
        raise ValueError(f"no TCP header in {packet[:40].hex()}")
    tcp = header[TCP]
    start = header.ihl * 4
    data = start + tcp.dataofs * 4
    return {
        "src": header.src,
        "dst": header.dst,
        "sport": tcp.sport,
        "dport": tcp.dport,
        "tos": header.tos,
        "dscp": header.tos >> 2,
        "ecn": header.tos & 3,
        "ttl": header.ttl,
        "ident": header.id,
        "fragment": str(header.flags),
        "length": header.len,
        "seq": tcp.seq,
        "ack": tcp.ack,
        "flags": str(tcp.flags),
        "reserved": tcp.reserved,
        "window": tcp.window,
        "urgent": tcp.urgptr,
        "options": list(tcp.options),
        "raw_options": packet[start + 20 : data],
        "payload": packet[data : header.len],
    }


def option(packet: bytes, name: str | int) -> Any:
    """The value of one TCP option by scapy's name ("MSS", "SAck", 253) or None if it is absent."""
    found = [value for key, value in fields(packet)["options"] if key == name]
    return found[0] if found else None


def _with_ip_options(packet: bytes, ip_options: bytes) -> bytes:
    """Insert raw IPv4 options (a multiple of 4 bytes); mend the header's lengths and checksum."""
    if len(ip_options) % 4 or len(ip_options) > 40:
        raise ValueError(f"IPv4 options take a multiple of 4 bytes up to 40, not {len(ip_options)}")
    header = bytearray(packet[:20] + ip_options)
    header[0] = 0x40 | len(header) // 4
    header[2:4] = (len(packet) + len(ip_options)).to_bytes(2, "big")
    header[10:12] = b"\0\0"
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + packet[20:]
