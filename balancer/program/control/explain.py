"""`explain`: where a request would go, and why; by the very functions of the packets' way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from balancer.core.choice.maglev import key_hash
from balancer.core.choice.pool import Pool
from balancer.core.reading import Unread
from balancer.core.request.keys import shown
from balancer.core.request.selector import Selected, Selector
from balancer.core.request.synthetic import UnsendableError, request_bytes
from balancer.core.request.verdict import Bad, NeedMore
from balancer.core.uninspected import source_key
from balancer.program.control.backends import state
from common.adapters.control.server import Command, CommandError
from common.program.control.table import command

SYN = "SYN"  # in place of a method, where nothing is read


class Service(Protocol):
    """What is asked of a service of the core's."""

    name: str
    vip: bytes
    port: int
    max_head: int
    source_hash_bad: bool
    default_pool: str | None
    pools: Mapping[str, Pool]

    @property
    def selector(self) -> Selector: ...

    @property
    def uninspected(self) -> bool: ...


class Serving(Protocol):
    """What is asked of the core."""

    @property
    def services(self) -> Sequence[Service]: ...


def commands(core: Serving) -> dict[str, Command]:
    def explain(
        method: str,
        url: str,
        headers: list[str] | None = None,
        source: str = "0.0.0.0",
        service: str | None = None,
    ) -> dict[str, Any]:
        client, port = _source(source)
        if method.upper() == SYN:
            asked = _service(core.services, service, urlsplit(url))
            if not asked.uninspected:
                what = f"service '{asked.name}' reads what its clients send"
                raise CommandError(f"{what}; right would be a method such as GET in place of SYN")
            return {"service": asked.name, "source": source, **_unread(asked, client, port)}
        try:
            head = request_bytes(method, url, headers or [])
        except UnsendableError as error:
            raise CommandError(str(error)) from None
        asked = _service(core.services, service, urlsplit(url))
        if asked.uninspected:
            right = f"right would be SYN in place of {method}"
            raise CommandError(f"service '{asked.name}' reads nothing; {right}")
        found = asked.selector.inspect(head, asked.max_head, client)
        return {"service": asked.name, "source": source, **_words(asked, found, client)}

    return {"explain": command(explain)}


def _source(text: str) -> tuple[bytes, int]:
    """A client's address, 4 bytes, and its port, 0 where none is said."""
    address, colon, port = text.partition(":")
    try:
        if colon and not 0 < int(port) < 65536:
            raise ValueError
        return IPv4Address(address).packed, int(port or 0)
    except (AddressValueError, ValueError):
        right = "right would be a client's IPv4 address, with :PORT or without"
        raise CommandError(f"source: {text!r} is wrong; {right}") from None


def _unread(service: Service, client: bytes, port: int) -> dict[str, Any]:
    """Of a connection that is chosen for by its source."""
    assert service.default_pool is not None, "there are no routes without inspection"
    pool = service.pools[service.default_pool]
    packets = client + service.vip + port.to_bytes(2, "big") + service.port.to_bytes(2, "big")
    key, part = source_key(pool, packets)
    words = shown(client, ("source",)) + (f":{port}" if part == "source-port" else "")
    return {"route": "", "key": words, "missing": [], **_choice(pool, key, client)}


def _service(services: Sequence[Service], name: str | None, url: SplitResult) -> Service:
    """The one of that name, or else that the URL's host and port are of, or the only one."""
    names = ", ".join(f"'{each.name}'" for each in services)
    if name is not None:
        for each in services:
            if each.name == name:
                return each
        raise CommandError(f"there is no service {name!r}; right would be one of {names}")
    try:
        port = url.port or 80
    except ValueError:
        raise CommandError(f"URL: the port of {url.netloc!r} is wrong") from None
    at_port = [each for each in services if not url.netloc or each.port == port]
    exact = [each for each in at_port if str(IPv4Address(each.vip)) == url.hostname]
    for found in (exact, at_port, services):
        if len(found) == 1:
            return found[0]
    raise CommandError(f"which service is meant? --service with one of {names}")


def _words(service: Service, found: Selected | Bad | NeedMore, source: bytes) -> dict[str, Any]:
    if isinstance(found, Selected):
        return {
            "route": found.route,
            "key": shown(found.key, found.parts),
            "missing": list(found.missing),
            **_choice(service.pools[found.pool], found.key, source),
        }
    # As balancer.core.reading has it of a request that ends there.
    bad = found.reason.value if isinstance(found, Bad) else Unread.HEAD_CUT_SHORT.value
    if not service.source_hash_bad or service.default_pool is None:
        return {"bad": bad}
    pool = service.pools[service.default_pool]
    key = shown(source, ("source",))
    return {"bad": bad, "key": key, "missing": [], "route": "", **_choice(pool, source, source)}


def _choice(pool: Pool, key: bytes, source: bytes) -> dict[str, Any]:
    hash64 = key_hash(key)
    order = pool.order(hash64, source, time.monotonic())
    return {
        "pool": pool.name,
        "policy": pool.configured.policy,
        "hash": f"{hash64:016x}",
        "backend": order[0].name if order else None,
        "order": [member.name for member in order],
        "passed_over": {
            member.name: member.reason or state(member)
            for member in pool.members
            if not member.taking
        },
    }
