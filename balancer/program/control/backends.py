"""`backends`, `drain`, `ready`, `weight`, `add`, `remove`: the members of the balancer's pools.

What is changed here holds until the program ends, or a reload says otherwise of the same backend.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from balancer.core.choice.member import Member
from balancer.core.choice.pool import Pool
from balancer.core.config import Backend
from common.adapters.control.server import Command, CommandError, Pages
from common.core.settings import SettingsError
from common.program.control.pages import paged
from common.program.control.table import command

log = logging.getLogger(__name__)


class Choosing(Protocol):
    """What the core has of pools. ``add`` and ``remove`` change a pool's members, and all else that
    a backend takes: they raise ValueError where that cannot be."""

    @property
    def pools(self) -> Mapping[str, Pool]: ...

    def add(self, pool: Pool, backend: Backend, now: float) -> None: ...

    def remove(self, pool: Pool, member: Member, now: float) -> None: ...


def commands(core: Choosing) -> dict[str, Command]:
    def backends(pool: str | None = None) -> Pages:
        if pool is not None and pool not in core.pools:
            raise CommandError(f"there is no pool {pool!r}")
        chosen = [each for name, each in core.pools.items() if pool in (None, name)]
        return paged(row(each, member) for each in chosen for member in _all(each))

    def drain(backend: str) -> str:
        pool, member = _find(core, backend)
        pool.drain(member)
        return _said(f"{backend}: takes no new connections; {member.pending} go on")

    def ready(backend: str) -> str:
        pool, member = _find(core, backend)
        pool.ready(member, time.monotonic())
        return _said(f"{backend}: {state(member)}" + f" ({member.reason})" * bool(member.reason))

    def weight(backend: str, weight: int) -> str:
        pool, member = _find(core, backend)
        before = member.weight
        with _refusals():
            pool.set_weight(member, weight)
        return _said(f"{backend}: weight {weight}, was {before}")

    def add(backend: str, bridge: str, weight: int = 1) -> str:
        pool, name = _place(core, backend)
        with _refusals():
            core.add(pool, Backend(name, bridge, weight), time.monotonic())
        return _said(f"{backend}: added, bridge {bridge}, weight {weight}")

    def remove(backend: str) -> str:
        pool, member = _find(core, backend)
        with _refusals():
            core.remove(pool, member, time.monotonic())
        return _said(f"{backend}: removed; {member.pending} connections go on")

    functions = (backends, drain, ready, weight, add, remove)
    return {each.__name__: command(each) for each in functions}


def state(member: Member) -> str:
    """In a word: why it gets no new connections, or that it does."""
    if not member.up:
        return "down"
    if member.draining:
        return "draining"
    if not member.weight:
        return "unused"
    return "up" if member.full else "starting"


def row(pool: Pool, member: Member) -> dict[str, Any]:
    return {
        "pool": pool.name,
        "name": member.name,
        "bridge": member.bridge,
        "weight": member.weight,
        "state": state(member),
        "reason": member.reason,
        "pending": member.pending,
        "given": member.given,
    }


def _all(pool: Pool) -> tuple[Member, ...]:
    return pool.members + pool.departed


def _find(core: Choosing, text: str) -> tuple[Pool, Member]:
    """The backend that POOL/BACKEND names; either name may hold a '/'. Raises CommandError."""
    for pool in core.pools.values():
        if text.startswith(f"{pool.name}/"):
            member = pool.find(text[len(pool.name) + 1 :])
            if member is not None:
                return pool, member
    raise CommandError(f"there is no backend {text!r}; right would be POOL/BACKEND")


def _place(core: Choosing, text: str) -> tuple[Pool, str]:
    """The pool, and a new backend's name."""
    found = [pool for pool in core.pools.values() if text.startswith(f"{pool.name}/")]
    if not found:
        raise CommandError(f"{text!r} names no pool; right would be POOL/BACKEND")
    pool = max(found, key=lambda each: len(each.name))
    return pool, text[len(pool.name) + 1 :]


@contextmanager
def _refusals() -> Iterator[None]:
    """ValueError and SettingsError are the asker's mistakes."""
    try:
        yield
    except SettingsError as error:
        raise CommandError("; ".join(error.problems)) from None
    except ValueError as error:
        raise CommandError(str(error)) from None


def _said(text: str) -> str:
    """What was done, in the log as well."""
    log.info("control: %s", text)
    return text
