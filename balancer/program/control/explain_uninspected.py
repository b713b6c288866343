"""`explain tcp ADDRESS:PORT`: where a connection would go of which nothing is read, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any, Protocol, TypeVar

from balancer.core.choice.pool import Pool
from balancer.core.uninspected import source_key
from balancer.program.control.choice import choice
from common.adapters.control.server import CommandError
from common.program.control.flows import client


class Named(Protocol):
    """What a service is known by."""

    name: str
    vip: bytes
    port: int


class Service(Named, Protocol):
    """What is asked of a service of the core's."""

    default_pool: str | None
    pools: Mapping[str, Pool]

    @property
    def inspect(self) -> str: ...


N = TypeVar("N", bound=Named)


def explained(
    services: Sequence[Service], at: str, source: str, name: str | None
) -> dict[str, Any]:
    """``at`` is ADDRESS:PORT of the service, ``source`` ADDRESS or ADDRESS:PORT of the client."""
    sender = client(source, "source")
    unread = [each for each in services if each.inspect == "none"]
    service = at_place(unread, at.removeprefix("tcp://"), name, "service {} with inspect = 'none'")
    assert service.default_pool is not None, "there are no routes without inspection"
    pool = service.pools[service.default_pool]
    ports = sender.port.to_bytes(2, "big") + service.port.to_bytes(2, "big")
    key, part = source_key(pool, sender.address + service.vip + ports)
    if part == "source-port" and not sender.port:
        raise CommandError("each port has a backend of its own; --source with ADDRESS:PORT")
    words = f"source={IPv4Address(sender.address)}"
    words += f" port={sender.port}" if part == "source-port" else ""
    found = choice(pool, key, sender.address)
    return {
        "service": service.name,
        "source": source,
        "route": "",
        "key": words,
        "missing": [],
        **found,
    }


def at_place(services: Sequence[N], at: str, name: str | None, what: str) -> N:
    """The one of that name, or else at that address and port; raises CommandError, which has
    ``what`` with that in place of `{}`."""
    for each in services:
        if name == each.name or (name is None and at == f"{IPv4Address(each.vip)}:{each.port}"):
            return each
    names = ", ".join(f"{IPv4Address(one.vip)}:{one.port} ('{one.name}')" for one in services)
    asked = at if name is None else repr(name)
    raise CommandError(f"there is no {what.format(asked)}; right would be {names or 'another'}")
