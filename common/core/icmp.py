"""ICMP errors and what they quote (RFC 792: the IP header and at least 8 bytes behind it)."""

from __future__ import annotations

from common.core import checksum
from common.core.datagram import UDP
from common.core.errors import Malformed, MalformedError
from common.core.segment import ICMP, TCP, check_ipv4

UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM = 3, 11, 12
FRAGMENTATION_NEEDED = (UNREACHABLE, 4)
ERRORS = (UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM)
HEADER_BYTES = 8
# Of TCP the ports and the sequence number, of UDP the header: all that is sure to be there.
QUOTED_BYTES = 8


def header_bytes(data: bytes) -> int:
    """Bytes of the outer IP header."""
    return (data[0] & 15) * 4


def quotation(data: bytes) -> tuple[int, int]:
    """Where in ``data`` the quoted IP header begins, and where what was behind it.

    Raises MalformedError(BAD_ICMP) unless it is an error, with a right checksum, that quotes the
    beginning of an IPv4 packet and 8 bytes of what it carried.
    """
    outer = check_ipv4(data)
    inner = outer + HEADER_BYTES
    if data[9] != ICMP or len(data) < inner + 20 or data[outer] not in ERRORS:
        raise MalformedError(Malformed.BAD_ICMP)
    carried = inner + (data[inner] & 15) * 4
    if (
        data[inner] >> 4 != 4
        or carried < inner + 20
        or len(data) < carried + QUOTED_BYTES
        or checksum.internet_checksum(data[outer:])
    ):
        raise MalformedError(Malformed.BAD_ICMP)
    return inner, carried


def quoted_key(data: bytes) -> tuple[int, bytes] | None:
    """The protocol of what is quoted, TCP or UDP, and its 12-byte key: source, destination, source
    port, destination port; None where it is not the beginning of a segment or a datagram. Raises as
    ``quotation`` does."""
    inner, carried = quotation(data)
    first_fragment = not int.from_bytes(data[inner + 6 : inner + 8], "big") & 0x1FFF
    if data[inner + 9] not in (TCP, UDP) or not first_fragment:
        return None
    return data[inner + 9], data[inner + 12 : inner + 20] + data[carried : carried + 4]


def quoted_flow(data: bytes) -> bytes | None:
    """The quoted segment's 12-byte key; None where what is quoted is not the beginning of a TCP
    segment. Raises as ``quotation`` does."""
    quoted = quoted_key(data)
    return None if quoted is None or quoted[0] != TCP else quoted[1]
