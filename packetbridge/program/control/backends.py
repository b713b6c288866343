"""`backends`, `drain`, `ready`: the servers behind this bridge, by the address and port that the
balancers know them by."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from common.adapters.control.server import Command, CommandError, Pages
from common.program.control.flows import at
from common.program.control.pages import paged
from common.program.control.table import command

log = logging.getLogger(__name__)


class Figures(Protocol):
    """What is counted of a way in."""

    flows: int
    handoffs: int
    opened: int
    refused: int
    silent: int
    resets: int


class Way(Protocol):
    """One way in: a bridge's address and port, and the DSCP of a balancer."""

    server: bytes
    server_port: int
    up: bool
    reason: str
    draining: bool

    @property
    def name(self) -> str: ...

    @property
    def figures(self) -> Figures: ...


class Draining(Protocol):
    """What the core has of them; raises KeyError for a name of none."""

    @property
    def entries(self) -> Sequence[Way]: ...

    def drain_entry(self, name: str, draining: bool) -> None: ...


def commands(core: Draining) -> dict[str, Command]:
    def backends() -> Pages:
        return paged(row(each) for each in core.entries)

    def drain(backend: str) -> str:
        _set(core, backend, True)
        flows = sum(each.figures.flows for each in core.entries if _is(each, backend))
        return _said(f"{backend}: takes no new connections; {flows} go on")

    def ready(backend: str) -> str:
        _set(core, backend, False)
        found = next(each for each in core.entries if _is(each, backend))
        return _said(f"{backend}: {state(found)}" + f" ({found.reason})" * bool(found.reason))

    functions = (backends, drain, ready)
    return {each.__name__: command(each) for each in functions}


def state(way: Way) -> str:
    if not way.up:
        return "down"
    return "draining" if way.draining else "up"


def row(way: Way) -> dict[str, Any]:
    counted = way.figures
    return {
        "name": way.name,
        "server": at(way.server, way.server_port),
        "state": state(way),
        "reason": way.reason,
        "pending": counted.flows,
        "given": counted.handoffs,
        "opened": counted.opened,
        "refused": counted.refused,
        "silent": counted.silent,
        "resets": counted.resets,
    }


def _is(way: Way, name: str) -> bool:
    return name in (way.name, way.name.partition("/")[0])


def _set(core: Draining, name: str, draining: bool) -> None:
    try:
        core.drain_entry(name, draining)
    except KeyError:
        names = ", ".join(each.name for each in core.entries)
        raise CommandError(f"there is no backend {name!r}; right would be one of {names}") from None


def _said(text: str) -> str:
    """What was done, in the log as well."""
    log.info("control: %s", text)
    return text
