"""`explain udp ADDRESS:PORT`: where a client's datagram would go, and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any, Protocol

from balancer.core.datagrams.engine import Datagrams
from balancer.core.datagrams.service import DatagramService
from balancer.program.control.choice import choice
from balancer.program.control.explain_uninspected import at_place
from common.adapters.control.server import CommandError
from common.program.control.flows import Client, client


class Serving(Protocol):
    """What is asked of the core."""

    datagrams: Datagrams

    @property
    def datagram_services(self) -> Sequence[DatagramService]: ...


def explained(core: Serving, at: str, source: str, name: str | None) -> dict[str, Any]:
    """``at`` is ADDRESS:PORT of the service, ``source`` ADDRESS or ADDRESS:PORT of the client. A
    client that has a mapping goes where that says, whatever would be chosen now."""
    sender = client(source, "source")
    service = at_place(core.datagram_services, at.removeprefix("udp://"), name, "UDP service {}")
    key = _key(sender, service)
    known = core.datagrams.find(key, time.monotonic())
    port = f" port={sender.port}" if service.per_flow else ""
    found = choice(service.pool, service.chosen_by(key), sender.address)
    if known is not None:
        has = known.target.name
        found |= {"backend": has, "order": [has, *(one for one in found["order"] if one != has)]}
    return {
        "service": service.name,
        "source": source,
        "route": "",
        "key": f"source={IPv4Address(sender.address)}{port}",
        "missing": [],
        **found,
        "mapped": known is not None,
    }


def _key(sender: Client, service: DatagramService) -> bytes:
    """Of the client's datagrams, 12 bytes."""
    if service.per_flow and not sender.port:
        raise CommandError("each port has a backend of its own; --source with ADDRESS:PORT")
    endpoint = service.endpoint
    return sender.address + endpoint[:4] + sender.port.to_bytes(2, "big") + endpoint[4:]
