"""A connection's name in logs and commands, the same at the balancer and at the bridge."""

from __future__ import annotations

from common.core.siphash import siphash24

_KEY = b"l3dsr.flow.id..."  # no secret: the name hides nothing


def flow_id(incarnation: bytes) -> str:
    """16 hexadecimal digits for the 20 bytes that name a connection: the key of the client's
    packets as the client sends them (client, VIP, both ports), and the initial sequence numbers of
    client and balancer, all in network byte order."""
    return f"{siphash24(_KEY, incarnation):016x}"
