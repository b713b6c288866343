"""SYN cookies: the balancer's initial sequence number carries what a half-open entry would.

After FreeBSD's scheme (sys/netinet/tcp_syncache.c; the idea is D. J. Bernstein's, 1996). The low 8
bits hold, from the highest: 1 bit of time parity, 2 bits of MSS index, 1 bit of SACK-permitted, 4
bits of the client's window scale (15 = none). The upper 24 bits are those of SipHash-2-4 over the
addresses and ports, the client's initial sequence number, the 64-second epoch and the low bits.

A SYN costs no memory, and a forged acknowledgment is taken for real once in 2**24 tries (for each
key in force: there are more than one only while keys rotate).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from common.core.siphash import siphash24

EPOCH_SECONDS = 64
LIFETIME = 2 * EPOCH_SECONDS  # seconds after which no cookie is valid any more

# What clients say: 1460 (Ethernet), 1400 (tunnels), 1220 (IPv6's least MTU), 536 (the default of
# RFC 9293 section 3.7.1, and the floor of what is told to anyone).
MSS_STEPS = (536, 1220, 1400, 1460)

_INPUT = struct.Struct("!12sIIB")


class Promise(NamedTuple):
    """What a cookie remembers of the client's SYN; ``mss`` rounded down to a step."""

    mss: int
    sack: bool
    scale: int


def make(key: bytes, flow: bytes, c: int, promise: Promise, wall: float) -> int:
    """The balancer's initial sequence number for the SYN with sequence number ``c``.

    ``flow`` is the 12-byte key client, VIP, ports; ``wall`` seconds since 1970.
    """
    epoch = int(wall) // EPOCH_SECONDS
    low = (epoch & 1) << 7 | _mss_index(promise.mss) << 5 | promise.sack << 4 | promise.scale
    return _mac(key, flow, c, epoch, low) << 8 | low


def check(key: bytes, flow: bytes, c: int, b: int, wall: float) -> Promise | None:
    """What the cookie ``b`` promised to the client that began with ``c``; None if it is no cookie
    of ours from this epoch or the one before."""
    low = b & 0xFF
    epoch = int(wall) // EPOCH_SECONDS
    if (epoch & 1) != low >> 7:
        epoch -= 1
    return promise(b) if _mac(key, flow, c, epoch, low) == b >> 8 else None


def promise(b: int) -> Promise:
    """What the cookie ``b``, which is known to be one of ours, promised."""
    return Promise(mss=MSS_STEPS[b >> 5 & 3], sack=bool(b & 16), scale=b & 15)


def _mss_index(mss: int) -> int:
    return max(sum(step <= mss for step in MSS_STEPS) - 1, 0)


def _mac(key: bytes, flow: bytes, c: int, epoch: int, low: int) -> int:
    return siphash24(key, _INPUT.pack(flow, c, epoch & 0xFFFFFFFF, low)) >> 40
