"""TCP options: one bounds-checked walk, one record of what a SYN offers, and their encodings.

RFC 9293 section 3.1 (kinds 0 to 2), RFC 7323 (window scale, timestamps), RFC 2018 (SACK),
RFC 6994 (experimental kinds), RFC 2385 (MD5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from common.core.errors import Malformed, MalformedError

END, NOP, MSS, WINDOW_SCALE, SACK_PERMITTED, SACK, TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8
MD5_SIGNATURE, AUTHENTICATION, EXPERIMENT = 19, 29, 253

MAX_BYTES = 40  # a header of 15 words less the 20 fixed bytes
MAX_WINDOW_SCALE = 14  # RFC 7323 section 2.3
NO_SCALE = 15  # our mark for "no window scale option", where four bits hold the shift count

# NOP NOP kind length: the layout of RFC 7323 appendix A, which nearly every stack sends
TIMESTAMPS_PREFIX = b"\x01\x01\x08\x0a"
SACK_AND_STAMPS = b"\x04\x02\x08\x0a"  # in a SYN, SACK-permitted where the two NOPs are
_TIMESTAMPS = struct.Struct("!4sII")
_MSS = struct.Struct("!BBH")
_PAIR = struct.Struct("!II")
_U32 = struct.Struct("!I")
# What Linux offers, in its order: MSS, SACK permitted, timestamps, NOP, window scale; each of them
# with the two bytes of kind and length before it, or NOP, kind and length.
_LINUX = struct.Struct("!HHHHII3sB")
_LINUX_KINDS = (0x0204, 0x0402, 0x080A, b"\x01\x03\x03")


def walk(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, offset of the option's first byte, its length) up to END or the last byte.

    Raises MalformedError(BAD_TCP_OPTIONS) where a length is below 2 or runs past the header.
    """
    at, end = 0, len(raw)
    while at < end:
        kind = raw[at]
        if kind == END:
            return
        if kind == NOP:
            at += 1
            continue
        if at + 1 >= end:
            raise MalformedError(Malformed.BAD_TCP_OPTIONS)
        length = raw[at + 1]
        if length < 2 or at + length > end:
            raise MalformedError(Malformed.BAD_TCP_OPTIONS)
        yield kind, at, length
        at += length


def find(raw: bytes, kind: int) -> bytes | None:
    """The whole of the first option of ``kind``, or None; malformed options raise as in walk."""
    for found, at, length in walk(raw):
        if found == kind:
            return raw[at : at + length]
    return None


def timestamps(raw: bytes) -> tuple[int, int] | None:
    """(TSval, TSecr) of a segment's options, or None."""
    if len(raw) >= 12 and raw[:4] == TIMESTAMPS_PREFIX:
        return _PAIR.unpack_from(raw, 4)
    for kind, at, length in walk(raw):
        if kind == TIMESTAMPS and length == 10:
            return _PAIR.unpack_from(raw, at + 2)
    return None


class Offer(NamedTuple):
    """What a SYN or SYN-ACK offers. ``scale`` is 0..14 or NO_SCALE; timestamps (TSval, TSecr)."""

    mss: int
    scale: int
    sack: bool
    timestamps: tuple[int, int] | None
    signed: bool


DEFAULT_MSS = 536  # RFC 9293 section 3.7.1: what a SYN without the option means


def offer(raw: bytes) -> Offer:
    """Read the options of a SYN. Raises MalformedError as walk does."""
    if len(raw) == _LINUX.size:
        mss_is, mss, sack_is, stamps_is, value, echo, scale_is, scale = _LINUX.unpack(raw)
        if (mss_is, sack_is, stamps_is, scale_is) == _LINUX_KINDS:
            return Offer(mss, min(scale, MAX_WINDOW_SCALE), True, (value, echo), signed=False)
    mss, scale, sack, stamps, signed = DEFAULT_MSS, NO_SCALE, False, None, False
    for kind, at, length in walk(raw):
        if kind == MSS and length == 4:
            mss = int.from_bytes(raw[at + 2 : at + 4], "big")
        elif kind == WINDOW_SCALE and length == 3:
            scale = min(raw[at + 2], MAX_WINDOW_SCALE)  # RFC 7323 section 2.3: above 14 means 14
        elif kind == SACK_PERMITTED and length == 2:
            sack = True
        elif kind == TIMESTAMPS and length == 10:
            stamps = _PAIR.unpack_from(raw, at + 2)
        elif kind in (MD5_SIGNATURE, AUTHENTICATION):
            signed = True
    return Offer(mss, scale, sack, stamps, signed)


def encode_timestamps(value: int, echo: int) -> bytes:
    """12 bytes: the option in the layout of RFC 7323 appendix A."""
    return _TIMESTAMPS.pack(TIMESTAMPS_PREFIX, value, echo)


def encode_offer(mss: int, scale: int, sack: bool, stamps: tuple[int, int] | None) -> bytes:
    """The options of a SYN or SYN-ACK, padded to whole words: as many bytes as most stacks use, so
    that the kernel's path can write a SYN-ACK in a SYN's place."""
    raw = _MSS.pack(MSS, 4, mss)
    if stamps is not None:
        raw += _TIMESTAMPS.pack(SACK_AND_STAMPS if sack else TIMESTAMPS_PREFIX, *stamps)
    elif sack:
        raw += b"\x01\x01\x04\x02"
    if scale != NO_SCALE:
        raw += bytes((NOP, WINDOW_SCALE, 3, scale))
    return raw


def shift_sack(raw: bytearray, at: int, length: int, by: int) -> None:
    """Add ``by`` modulo 2**32 to every edge of the SACK option at ``at``; a torn last one stays."""
    for edge in range(at + 2, at + length - 3, 4):
        (value,) = _U32.unpack_from(raw, edge)
        _U32.pack_into(raw, edge, (value + by) & 0xFFFFFFFF)


def shift_timestamps(raw: bytearray, at: int, value_by: int, echo_by: int) -> None:
    """Add to TSval and TSecr of the timestamps option at ``at``, modulo 2**32."""
    value, echo = _PAIR.unpack_from(raw, at + 2)
    _PAIR.pack_into(raw, at + 2, (value + value_by) & 0xFFFFFFFF, (echo + echo_by) & 0xFFFFFFFF)
