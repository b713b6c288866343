"""A connection's name in logs and commands, the same at both programs."""

from __future__ import annotations

from common.core.siphash import siphash24

_KEY = b"l3dsr.flow.id..."  # no secret: the number is to be the same everywhere


def flow_id(incarnation: bytes) -> str:
    """16 hexadecimal digits for 20 bytes: the client's packets' key as the client sees it (its
    address, the VIP, its port, the service's), and both initial sequence numbers, the client's
    first, in network order. SipHash-2-4 under a fixed key."""
    return f"{siphash24(_KEY, incarnation):016x}"
