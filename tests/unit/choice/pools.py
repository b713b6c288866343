"""Pools to test: named members at addresses of their own, with a key and a client for each flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from balancer.core import config
from balancer.core.choice.maglev import key_hash
from balancer.core.choice.member import Member
from balancer.core.choice.pool import Pool

HASHED = ("maglev", "ring", "rendezvous")
POLICIES = (*HASHED, "round-robin", "least-pending", "source")
CLIENT = b"\x0a\x09\x08\x07"


def backends(weights: Mapping[str, int]) -> tuple[config.Backend, ...]:
    return tuple(backend(name, weight) for name, weight in weights.items())


def backend(name: str, weight: int = 1) -> config.Backend:
    """At an address that only its name says."""
    low = crc32(name.encode())
    return config.Backend(name, f"10.{low >> 16 & 255}.{low >> 8 & 255}.{low & 127 | 1}", weight)


def configuration(
    weights: Mapping[str, int] | Sequence[str], policy: str = "maglev", **others: Any
) -> config.Pool:
    if not isinstance(weights, Mapping):
        weights = dict.fromkeys(weights, 1)
    return config.Pool("pool", backends(weights), policy=policy, **others)


def pool(weights: Mapping[str, int] | Sequence[str], policy: str = "maglev", **others: Any) -> Pool:
    return Pool(configuration(weights, policy, **others))


def keys(count: int) -> list[bytes]:
    return [b"/objects/%d" % number for number in range(count)]


def place(
    into: Pool,
    key: bytes = b"/",
    source: bytes = CLIENT,
    now: float = 0.0,
    tried: tuple[Member, ...] = (),
) -> Member:
    """Choose a member for a flow that somebody must take, and open it there."""
    member = into.choose(key_hash(key), source, now, tried)
    assert member is not None
    into.opened(member, source, now)
    return member


def owners(of: Pool, of_keys: Sequence[bytes], now: float = 0.0) -> list[str]:
    chosen = [of.choose(key_hash(key), CLIENT, now) for key in of_keys]
    return [member.name if member else "" for member in chosen]


def named(of: Pool, *names: str) -> list[Member]:
    return [member for name in names if (member := of.find(name)) is not None]


def names(members: Sequence[Member]) -> list[str]:
    return [member.name for member in members]
