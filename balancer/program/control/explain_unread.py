"""`explain tcp ADDRESS:PORT`: where a connection would go that nobody reads, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any, Protocol, TypeVar

from balancer.core.choice.pool import Pool
from balancer.core.uninspected import source_key
from balancer.program.control.choice import choice
from common.adapters.control.server import CommandError
from common.program.control.flows import client


class Service(Protocol):
    """What is asked of a service of the core's."""

    name: str
    vip: bytes
    port: int
    default_pool: str | None
    pools: Mapping[str, Pool]

    @property
    def inspect(self) -> str: ...


S = TypeVar("S", bound=Service)


def explained(
    services: Sequence[Service], at: str, source: str, name: str | None
) -> dict[str, Any]:
    """``at`` is ADDRESS:PORT of the service, ``source`` ADDRESS or ADDRESS:PORT of the client."""
    sender = client(source)
    service = _service(unread(services), at.removeprefix("tcp://"), name)
    assert service.default_pool is not None, "there are no routes without inspection"
    pool = service.pools[service.default_pool]
    ports = sender.port.to_bytes(2, "big") + service.port.to_bytes(2, "big")
    key, part = source_key(pool, sender.address + service.vip + ports)
    if part == "source-port" and not sender.port:
        raise CommandError("each port is chosen for; --source with ADDRESS:PORT")
    port = f" port={sender.port}" if part == "source-port" else ""
    return {
        "service": service.name,
        "source": source,
        "route": "",
        "key": f"source={IPv4Address(sender.address)}{port}",
        "missing": [],
        **choice(pool, key, sender.address),
    }


def unread(services: Sequence[S]) -> list[S]:
    return [each for each in services if each.inspect == "none"]


def _service(services: Sequence[S], at: str, name: str | None) -> S:
    """The one of that name, or else at that address and port."""
    for each in services:
        if name == each.name or (name is None and at == f"{IPv4Address(each.vip)}:{each.port}"):
            return each
    names = ", ".join(f"{IPv4Address(one.vip)}:{one.port} ('{one.name}')" for one in services)
    what = at if name is None else repr(name)
    raise CommandError(
        f"there is no service {what} with inspect = 'none'; right would be {names or 'a request'}"
    )
