"""The Internet checksum, whole and incremental.

Python's integers make one's-complement arithmetic short: 2**16 is congruent to 1 modulo 0xFFFF, so
an integer of any width is congruent to the sum of its 16-bit words. A field, a header or a payload
is summed by one modulo operation, whatever its size, and a difference of two headers needs no loop
over words (and no care for odd offsets inside them).

Sources: RFC 1071 (the sum), RFC 1624 section 3, equation 3 (the update). All values are host
integers of network-order words.
"""

from __future__ import annotations

import struct

_U16 = struct.Struct("!H")


def word_sum(data: bytes | bytearray) -> int:
    """Sum of the 16-bit words of ``data`` modulo 0xFFFF; an odd last byte is padded with zero."""
    if len(data) & 1:
        data = bytes(data) + b"\0"
    return int.from_bytes(data, "big") % 0xFFFF


def from_sum(total: int) -> int:
    """The checksum field (0..0xFFFE) for words that add up to ``total``, an integer of any size.

    0xFFFF is never given: the sum of a packet that holds any non-zero byte is not zero in one's
    complement, only congruent to it (RFC 1624 section 3).
    """
    return (0xFFFF - total % 0xFFFF) % 0xFFFF


def internet_checksum(data: bytes) -> int:
    """The checksum over ``data`` (RFC 1071); 0 where ``data`` holds its own right checksum."""
    return from_sum(word_sum(data))


def pseudo_header_sum(src: bytes, dst: bytes, protocol: int, length: int) -> int:
    """Sum of the IPv4 pseudo-header (RFC 9293 section 3.1): 4-byte addresses, bytes of segment."""
    return int.from_bytes(src, "big") + int.from_bytes(dst, "big") + protocol + length


def updated(checksum: int, difference: int) -> int:
    """``checksum`` after words under it grew by ``difference`` in all: RFC 1624, equation 3.

    ``difference`` is new minus old, of any size and sign. A wrong checksum stays wrong by the same
    amount, so that an error made elsewhere is found by the receiver and not sealed in here.
    """
    return (0xFFFF - ((0xFFFF ^ checksum) + difference) % 0xFFFF) % 0xFFFF


def patch(packet: bytearray, at: int, difference: int) -> None:
    """Bring the checksum field at an offset up to date: see ``updated``."""
    (old,) = _U16.unpack_from(packet, at)
    _U16.pack_into(packet, at, updated(old, difference))
