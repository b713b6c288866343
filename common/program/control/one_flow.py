"""`agent-flow`: what a program knows of one connection, for GET /flow; both programs have it.

It takes ``client`` and ``service``, each ADDRESS:PORT as the client's packets have them, and the
``protocol``, tcp or udp, of which a service may have both at one port. It gives ``{"counters":
{NAME: COUNT}, "flow": {…} or None, …}`` with what else the program has to say of the service; of
UDP the flow is a mapping. It looks in tables only, and so takes no longer with many connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.adapters.control.server import Command, CommandError
from common.program.control.flows import client as endpoint
from common.program.control.table import command
from common.program.loop import PacketLoop

COMMAND = "agent-flow"
MOST = 128  # backends, or ways in, that are told of
TCP, UDP = "tcp", "udp"

Told = Callable[[bytes, bytes], dict[str, Any]]
"""Is given the client and the service, 6 bytes each, and says what the program knows."""


def commands(loop: PacketLoop, of_tcp: Told, of_udp: Told) -> dict[str, Command]:
    by_protocol = {TCP: of_tcp, UDP: of_udp}

    def one_flow(client: str, service: str, protocol: str = TCP) -> dict[str, Any]:
        told = by_protocol.get(protocol)
        if told is None:
            raise CommandError(f"protocol: {protocol!r} is wrong; right would be tcp or udp")
        counters = {str(name): count for name, count in loop.counts().items()}
        return {**told(_bytes(client), _bytes(service)), "counters": counters}

    return {COMMAND: command(one_flow, agent_only=True)}


def _bytes(text: str) -> bytes:
    """6 bytes of ADDRESS:PORT; raises CommandError."""
    found = endpoint(text)
    if not found.port:
        raise CommandError(f"{text!r} has no port; right would be ADDRESS:PORT")
    return found.address + found.port.to_bytes(2, "big")
