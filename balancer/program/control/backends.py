"""`backends`, `drain`, `ready`, `weight`, `add`, `remove`: the members of the balancer's pools.

What is changed here holds until the program ends, or a reload brings something else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from balancer.core.choice.member import Member
from balancer.core.choice.pool import Pool
from balancer.core.config import Backend, Config
from common.adapters.control.server import Command, CommandError, Pages
from common.core.settings import SettingsError
from common.program.control.basics import Done, Reloading
from common.program.control.pages import paged
from common.program.control.table import command

log = logging.getLogger(__name__)


class Choosing(Protocol):
    """What the core has of pools."""

    @property
    def pools(self) -> Mapping[str, Pool]: ...


class Configured(Protocol):
    """The configuration in force, and the way to another: what a backend takes, rules and paths, is
    then all looked after. ``apply`` tells what prevented it, as Reloading's jobs do."""

    @property
    def config(self) -> Config: ...

    def apply(self, config: Config, done: Done) -> None: ...


def commands(
    core: Choosing, reloading: Reloading, configured: Configured | None = None
) -> dict[str, Command]:
    """Without ``configured`` pools keep the members that they have."""

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

    def changed(change: Callable[[Config], Config]) -> Pages:
        if configured is None:
            raise CommandError("this program takes other backends at its next start")

        def job(done: Done) -> None:
            try:
                wanted = change(configured.config)
            except SettingsError as error:
                done(error.problems)
            else:
                configured.apply(wanted, done)

        return reloading.change(job)

    def add(backend: str, bridge: str, weight: int = 1) -> Pages:
        pool, name = _place(core, backend)
        with _refusals():
            new = Backend(name, bridge, weight)
        yield from changed(lambda config: with_backends(config, pool.name, lambda b: (*b, new)))
        return _said(f"{backend}: added, bridge {bridge}, weight {weight}")

    def remove(backend: str) -> Pages:
        pool, member = _find(core, backend)
        name = member.name
        yield from changed(
            lambda config: with_backends(
                config, pool.name, lambda b: tuple(each for each in b if each.name != name)
            )
        )
        return _said(f"{backend}: removed; {member.pending} connections go on")

    functions = (backends, drain, ready, weight, add, remove)
    return {each.__name__: command(each) for each in functions}


def with_backends(
    config: Config, pool: str, change: Callable[[tuple[Backend, ...]], tuple[Backend, ...]]
) -> Config:
    """A configuration with other backends in a pool, one that stands alone or a service's own;
    raises SettingsError where that cannot be."""
    return replace(
        config,
        pools=tuple(
            replace(each, backends=change(each.backends)) if each.name == pool else each
            for each in config.pools
        ),
        services=tuple(
            replace(each, backends=change(each.backends))
            if each.backends and each.name == pool
            else each
            for each in config.services
        ),
    )


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
