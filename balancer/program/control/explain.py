"""`explain`: where a request would go, and why; by the very functions of the packets' way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from balancer.core.choice.pool import Pool
from balancer.core.datagrams.engine import Datagrams
from balancer.core.datagrams.service import DatagramService
from balancer.core.reading import Unread
from balancer.core.request.keys import shown
from balancer.core.request.selector import Selected
from balancer.core.request.synthetic import UnsendableError, request_bytes
from balancer.core.request.tls.synthetic import client_hello
from balancer.core.request.verdict import Bad, NeedMore
from balancer.program.control import explain_datagram, explain_uninspected
from balancer.program.control.choice import choice
from common.adapters.control.server import Command, CommandError
from common.program.control.flows import client
from common.program.control.table import command


class Selecting(Protocol):
    """Of what a service speaks."""

    def inspect(self, data: bytes, limit: int, source: bytes) -> NeedMore | Bad | Selected: ...


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
    def inspect(self) -> str: ...

    @property
    def selector(self) -> Selecting: ...


class Serving(Protocol):
    """What is asked of the core."""

    @property
    def services(self) -> Sequence[Service]: ...

    @property
    def datagram_services(self) -> Sequence[DatagramService]: ...

    datagrams: Datagrams


def commands(core: Serving) -> dict[str, Command]:
    def explain(
        method: str = "",
        url: str = "",
        headers: list[str] | None = None,
        source: str = "0.0.0.0",
        service: str | None = None,
        sni: str = "",
        alpn: list[str] | None = None,
    ) -> dict[str, Any]:
        if method.lower() == "udp":
            return explain_datagram.explained(core, url, source, service)
        if method.lower() == "tcp":
            return explain_uninspected.explained(core.services, url, source, service)
        sender, offered = client(source, "source").address, alpn or []
        meant = _speaking(core.services, method, sni, offered)
        others = [each for each in core.services if each not in meant]
        parts = urlsplit(url)
        _must_be_among(meant, (*others, *core.datagram_services), service, parts)
        asked = _service(meant, service, parts)
        try:
            if asked.inspect == "tls":
                head = client_hello(sni, offered)
            else:
                head = request_bytes(method, url, headers or [])
        except UnsendableError as error:
            raise CommandError(str(error)) from None
        found = asked.selector.inspect(head, asked.max_head, sender)
        return {"service": asked.name, "source": source, **_words(asked, found, sender)}

    return {"explain": command(explain)}


def _speaking(
    services: Sequence[Service], method: str, sni: str, alpn: Sequence[str]
) -> Sequence[Service]:
    """Those that can be meant: by HTTP's words, by TLS's, or by none."""
    if method and (sni or alpn):
        raise CommandError("--sni and --alpn are for TLS; right would be they, or METHOD and URL")
    kind = "http" if method else "tls" if sni or alpn else ""
    meant = [each for each in services if kind in ("", each.inspect) and each.inspect != "none"]
    if not meant:
        lacking = f"with inspect = '{kind}'" if kind else "that reads anything"
        raise CommandError(f"there is no service {lacking}")
    return meant


def _must_be_among(
    meant: Sequence[Service],
    others: Sequence[Service | DatagramService],
    name: str | None,
    url: SplitResult,
) -> None:
    """Raises CommandError where one of ``others`` is named, or has the URL's address and port, and
    none of ``meant`` has: the answer would be another service's."""

    def is_asked(service: Service | DatagramService) -> bool:
        at = f"{IPv4Address(service.vip)}:{service.port}"
        return service.name == name if name is not None else at == f"{url.hostname}:{_port(url)}"

    if not any(is_asked(each) for each in meant):
        for other in filter(is_asked, others):
            what = f"nobody asks service {other.name!r} so"
            raise CommandError(f"{what}; right would be explain {_question(other)}")


def _question(service: Service | DatagramService) -> str:
    """How `explain` is asked about it."""
    at = f"{IPv4Address(service.vip)}:{service.port}"
    if isinstance(service, DatagramService):
        return f"udp {at}"
    if service.inspect == "none":
        return f"tcp {at}"
    words = "--sni NAME" if service.inspect == "tls" else "METHOD URL"
    return f"--service {service.name} {words}"


def _port(url: SplitResult) -> int:
    try:
        return url.port or 80
    except ValueError:
        raise CommandError(f"URL: the port of {url.netloc!r} is wrong") from None


def _service(services: Sequence[Service], name: str | None, url: SplitResult) -> Service:
    """The one of that name, or else that the URL's host and port are of, or the only one."""
    names = ", ".join(f"'{each.name}'" for each in services)
    if name is not None:
        for each in services:
            if each.name == name:
                return each
        raise CommandError(f"there is no service {name!r}; right would be one of {names}")
    port = _port(url)
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
            **choice(service.pools[found.pool], found.key, source),
        }
    # As balancer.core.reading has it of a request that ends there.
    bad = found.reason.value if isinstance(found, Bad) else Unread.HEAD_CUT_SHORT.value
    if not service.source_hash_bad or service.default_pool is None:
        return {"bad": bad}
    pool = service.pools[service.default_pool]
    key = shown(source, ("source",))
    return {"bad": bad, "key": key, "missing": [], "route": "", **choice(pool, source, source)}
