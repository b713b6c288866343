"""ICMP errors that quote a TCP segment (RFC 792: the quoted IP header and at least 8 bytes)."""

from __future__ import annotations

from common.core import checksum
from common.core.errors import Malformed, MalformedError
from common.core.segment import ICMP, TCP, check_ipv4

UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM = 3, 11, 12
FRAGMENTATION_NEEDED = (UNREACHABLE, 4)
ERRORS = (UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM)
HEADER_BYTES = 8
QUOTED_TCP_BYTES = 8  # ports and sequence number: all that is promised to be there


def header_bytes(data: bytes) -> int:
    """Bytes of the outer IP header."""
    return (data[0] & 15) * 4


def quotation(data: bytes) -> tuple[int, int]:
    """Where in ``data`` the quoted IP header begins, and where the quoted TCP header.

    Raises MalformedError(BAD_ICMP) unless it is an error, with a right checksum, that quotes the
    beginning of a TCP segment.
    """
    outer = check_ipv4(data)
    inner = outer + HEADER_BYTES
    if data[9] != ICMP or len(data) < inner + 20 or data[outer] not in ERRORS:
        raise MalformedError(Malformed.BAD_ICMP)
    tcp = inner + (data[inner] & 15) * 4
    first_fragment = not int.from_bytes(data[inner + 6 : inner + 8], "big") & 0x1FFF
    if (
        data[inner] >> 4 != 4
        or tcp < inner + 20
        or data[inner + 9] != TCP
        or not first_fragment
        or len(data) < tcp + QUOTED_TCP_BYTES
        or checksum.internet_checksum(data[outer:])
    ):
        raise MalformedError(Malformed.BAD_ICMP)
    return inner, tcp


def quoted_flow(data: bytes) -> bytes:
    """The quoted segment's 12-byte key: source, destination, source port, destination port."""
    inner, tcp = quotation(data)
    return data[inner + 12 : inner + 20] + data[tcp : tcp + 4]
