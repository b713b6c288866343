"""Keys for each purpose, derived from the one key that the hosts share.

Separate keys mean that a value made for one purpose (a cookie that a client can read off its
SYN-ACK) is worth nothing for another (a handoff).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

KEY_BYTES = 16  # a SipHash-2-4 key


@dataclass(frozen=True, slots=True)
class Keys:
    """16 bytes each: SYN cookies, balancer to bridge, bridge to balancer."""

    cookie: bytes
    handoff: bytes
    answer: bytes


def derive(shared: bytes) -> Keys:
    """Keys from ``shared`` (any length from 16 to 64 bytes) by keyed BLAKE2b (RFC 7693)."""
    return Keys(*(_derive(shared, purpose) for purpose in (b"cookie", b"handoff", b"answer")))


def _derive(shared: bytes, purpose: bytes) -> bytes:
    return blake2b(key=shared, digest_size=KEY_BYTES, person=b"l3dsr-" + purpose).digest()
