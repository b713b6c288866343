"""What a program tells its agent to do: whom to check, where to answer, where to write.

It travels as JSON, from `encode` to `decode`; both ends are of one version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from common.core.health import Rhythm
from common.core.metrics import Family
from common.core.metrics import decode as decode_families

EntryName = tuple[int, int, str]  # port, DSCP and protocol, "tcp" or "udp"
MOST_BODY = 65536  # bytes of a server's answer that are looked through


@dataclass(frozen=True, slots=True)
class Member:
    """A backend of a pool, as its bridge knows it. ``target`` is what the results are about, in the
    words of whoever asked; ``entries`` are what its bridge must lead somewhere, and those of them
    that are ``unread`` must begin without a handoff, as always with UDP."""

    target: tuple[Any, ...]
    bridge: str
    entries: tuple[EntryName, ...]
    unread: tuple[EntryName, ...] = ()


@dataclass(frozen=True, slots=True)
class BridgeCheck:
    """Ask a bridge by HTTP how its servers are, for all ``members`` at once."""

    address: str
    port: int
    rhythm: Rhythm
    timeout: float
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class ServerCheck:
    """Connect to a server, and where ``kind`` is http, GET ``path`` of ``host``: the status must be
    in one of the ranges (first, last), and ``body``, if any, in the answer's first MOST_BODY bytes.
    Where it is udp, send ``send``, hexadecimal: the answer must begin with ``expect``, likewise,
    and the regular expression ``match`` be found in it.
    """

    target: tuple[Any, ...]
    kind: Literal["tcp", "http", "udp"]
    address: str
    port: int
    rhythm: Rhythm
    timeout: float
    path: str = "/"
    host: str = ""
    status: tuple[tuple[int, int], ...] = ((200, 399),)
    body: str = ""
    send: str = ""
    expect: str = ""
    match: str = ""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """``generation`` changes with every change of them. ``queues`` are the netfilter queues by
    number, with the name that each is shown by; ``families`` what the command `metrics` gives."""

    program: str
    generation: int
    log_level: str = "info"
    listen: tuple[tuple[str, int], ...] = ()
    access_log: str = ""
    access_format: Literal["json", "text"] = "json"
    queues: tuple[tuple[int, str], ...] = ()
    bridges: tuple[BridgeCheck, ...] = ()
    servers: tuple[ServerCheck, ...] = ()
    families: tuple[Family, ...] = ()


def encode(settings: AgentSettings) -> Iterator[list[Any]]:
    """Items for JSON, ``[kind, fields]``; there may be thousands."""
    general = {name: getattr(settings, name) for name in _GENERAL}
    yield ["general", general]
    for family in settings.families:
        yield ["family", family.encode()]
    for bridge in settings.bridges:
        rhythm, members = bridge.rhythm, bridge.members
        way = [bridge.address, bridge.port, rhythm.interval, rhythm.jitter, bridge.timeout]
        told = [[one.target, one.bridge, one.entries, one.unread] for one in members]
        yield ["bridge", [*way, told]]
    for server in settings.servers:
        fields = {name: getattr(server, name) for name in _SERVER}
        yield ["server", {**fields, "rhythm": [server.rhythm.interval, server.rhythm.jitter]}]


def decode(items: Iterable[list[Any]]) -> AgentSettings:
    """The settings again, from what JSON has made of them."""
    found: dict[str, list[Any]] = {"general": [], "family": [], "bridge": [], "server": []}
    for kind, fields in items:
        found[kind].append(fields)
    return AgentSettings(
        **{name: _frozen(value) for name, value in found["general"][0].items()},
        families=decode_families(found["family"]),
        bridges=tuple(_bridge(*fields) for fields in found["bridge"]),
        servers=tuple(_server(fields) for fields in found["server"]),
    )


_GENERAL = (
    "program",
    "generation",
    "log_level",
    "listen",
    "access_log",
    "access_format",
    "queues",
)
_SERVER = (
    "target", "kind", "address", "port", "timeout", "path", "host", "status", "body", "send",
    "expect", "match",
)  # fmt: skip


def _bridge(
    address: str, port: int, interval: float, jitter: float, timeout: float, members: list[Any]
) -> BridgeCheck:
    known = tuple(Member(*_frozen(member)) for member in members)
    return BridgeCheck(address, port, Rhythm(interval, jitter), timeout, known)


def _server(fields: Mapping[str, Any]) -> ServerCheck:
    frozen = {name: _frozen(value) for name, value in fields.items()}
    return ServerCheck(**{**frozen, "rhythm": Rhythm(*fields["rhythm"])})


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down: whoever compares and hashes them needs it."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
