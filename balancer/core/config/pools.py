"""Pools: the servers of one kind of request, and how one of them is chosen."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from balancer.core.choice.maglev import is_prime
from common.core import settings
from common.core.config import BRIDGE_PORT
from common.core.settings import IPV4, NAME, PORT, Settings, seconds, whole

LARGEST_TABLE = 16_777_213  # the largest prime below 2^24: 32 MiB of table
MOST_BACKENDS = 65535  # of one pool

# RFC 9110 section 5.6.2: the names of fields are tokens; those of cookies (RFC 6265) likewise. A
# query's name is whatever the application makes of it: what a query can hold but "&" and "=".
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}"
_PLAIN_KEYS = "path|uri|host|source|source-port|sni|alpn"
_KEY = re.compile(rf"{_PLAIN_KEYS}|query:[!-%'-<>-~]{{1,64}}|(?:header|cookie):{_TOKEN}")


def _prime(value: Any) -> int:
    size: int = whole(0, LARGEST_TABLE)(value)
    if size and not is_prime(size):
        raise ValueError
    return size


def _natural_or_key(value: Any) -> tuple[str, ...]:
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise TypeError
    if not all(isinstance(part, str) and _KEY.fullmatch(part) for part in parts):
        raise ValueError
    return tuple(parts)


def _key(value: Any) -> tuple[str, ...]:
    parts = _natural_or_key(value)
    if not parts:
        raise ValueError
    return parts


def _bound(value: Any) -> float:
    factor: float = settings.number(0, 1000)(value)
    if factor and factor <= 1:
        raise ValueError
    return factor


PRIME = settings.Check(
    f"a prime number up to {LARGEST_TABLE}, such as 65537, or 0 for one that fits", _prime
)
_KEYS = "path, uri, host, source, query:NAME, header:NAME, cookie:NAME, source-port, sni or alpn"
KEY = settings.Check(f"{_KEYS}, or a list of them", _key)
NATURAL_OR_KEY = settings.Check(f"{_KEYS}, or a list of them", _natural_or_key)
BOUND = settings.Check("a number over 1, such as 1.25, or 0 for none", _bound)


@dataclass(frozen=True, slots=True)
class Backend(Settings):
    """A target: a packetbridge's address, and its share of the connections."""

    name: Annotated[str, NAME]
    bridge: Annotated[str, IPV4]
    weight: Annotated[int, whole(0, 1000)] = 1

    @classmethod
    def implied(cls, table: Any) -> dict[str, object]:
        return {"name": str(table.get("bridge", "?"))}


@dataclass(frozen=True, slots=True)
class Check(Settings):
    """How the bridges are asked whether their servers are well: each ``interval`` seconds, give or
    take ``jitter`` of it, by HTTP at ``port``; an answer takes at most ``timeout``. ``fall`` bad
    ones in a row take a backend out, ``rise`` good ones bring it back."""

    port: Annotated[int, PORT] = BRIDGE_PORT
    interval: Annotated[float, seconds(0.05, 3600)] = 2.0
    timeout: Annotated[float, seconds(0.05, 60)] = 1.0
    jitter: Annotated[float, settings.number(0, 1)] = 0.1
    rise: Annotated[int, whole(1, 100)] = 2
    fall: Annotated[int, whole(1, 100)] = 3


@dataclass(frozen=True, slots=True)
class RateLimit(Settings):
    """A token bucket for each client address, or each key: ``rate`` connections a second, ``burst``
    at once. ``tracked`` bounds how many are remembered."""

    rate: Annotated[float, settings.number(0.001, 1e6)]
    burst: Annotated[int, whole(1, 1_000_000)] = 10
    per: Literal["source", "key"] = "source"
    over: Literal["reset", "429"] = "429"
    tracked: Annotated[int, whole(1, 1 << 24)] = 65536


@dataclass(frozen=True, slots=True)
class Pool(Settings):
    """Backends, and the policy that chooses among them.

    ``key`` is what the request is known by (empty: what is natural where it comes from, see
    Service.natural_key), ``missing`` what is used where it has none;
    ``bounded_load`` the most that a backend may have of the average; ``points`` those of a backend
    of weight 1 on the ring; ``remember`` the seconds after which a client's place is forgotten
    (policy source); ``slow_start`` those in which a backend that comes back gets its full share;
    ``silence`` those without an answer after which a bridge is passed over, and ``retries`` how
    many further backends are tried for one connection.
    """

    name: Annotated[str, NAME]
    backends: tuple[Backend, ...]
    policy: Literal["maglev", "ring", "rendezvous", "round-robin", "least-pending", "source"] = (
        "maglev"
    )
    key: Annotated[tuple[str, ...], NATURAL_OR_KEY] = ()
    missing: Annotated[tuple[str, ...], KEY] = ("source",)
    bounded_load: Annotated[float, BOUND] = 0.0
    table_size: Annotated[int, PRIME] = 0
    points: Annotated[int, whole(1, 10000)] = 160
    remember: Annotated[float, seconds(1, 604800)] = 600.0
    slow_start: Annotated[float, seconds(0, 86400)] = 0.0
    on_down: Literal["keep", "reset"] = "keep"
    retries: Annotated[int, whole(0, 100)] = 3
    silence: Annotated[float, seconds(0.25, 12)] = 1.0
    check: Check | None = None
    limit: RateLimit | None = None

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if not self.backends:
            yield "backends", "is empty; right would be at least one [[pools.backends]]"
        if self.table_size and self.table_size < len(self.backends):
            count = len(self.backends)
            yield "table_size", f"{self.table_size} is wrong; right would be a prime over {count}"
        if self.bounded_load and self.policy not in ("maglev", "ring", "rendezvous"):
            what = f"{self.bounded_load:g} is wrong with policy '{self.policy}'"
            yield "bounded_load", f"{what}; right would be 0, or maglev, ring or rendezvous"
        for key in ("name", "bridge"):
            yield from settings.repeated("backends", self.backends, key)
