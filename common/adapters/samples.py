"""Packets of the kinds that our programs send and take, to try a host's firewall with."""

from __future__ import annotations

from ipaddress import IPv4Address

from common.core import datagram as udp
from common.core import icmp
from common.core.checksum import internet_checksum
from common.core.segment import ACK, DEFAULT_TTL, ICMP, IP_HEADER, build

CLIENT = "192.0.2.1"  # of no network (RFC 5737)
PORT = 50000


def segment(src: str, sport: int, dst: str, dport: int, dscp: int = 0) -> bytes:
    """One of an established connection."""
    return build(_packed(src), _packed(dst), sport, dport, seq=1, ack=1, flags=ACK, tos=dscp << 2)


def datagram(src: str, sport: int, dst: str, dport: int, dscp: int = 0) -> bytes:
    """One without payload."""
    return udp.build(_packed(src), _packed(dst), sport, dport, tos=dscp << 2)


def fragmentation_needed(dst: str, about: bytes, dscp: int = 0) -> bytes:
    """A router's word to ``dst`` that the packet ``about`` was too large (RFC 1191)."""
    quoted = about[: IP_HEADER.size + icmp.QUOTED_BYTES]
    head = bytes(icmp.FRAGMENTATION_NEEDED)
    tail = (1400).to_bytes(4, "big") + quoted
    message = head + internet_checksum(head + bytes(2) + tail).to_bytes(2, "big") + tail
    total = IP_HEADER.size + len(message)
    ends = _packed(CLIENT), _packed(dst)
    ip = IP_HEADER.pack(0x45, dscp << 2, total, 0, 0, DEFAULT_TTL, ICMP, 0, *ends)
    summed = internet_checksum(ip)
    ip = IP_HEADER.pack(0x45, dscp << 2, total, 0, 0, DEFAULT_TTL, ICMP, summed, *ends)
    return ip + message


def _packed(address: str) -> bytes:
    return IPv4Address(address).packed
