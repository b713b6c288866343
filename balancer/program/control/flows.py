"""`flows` and `kill`: the balancer's connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from balancer.core.engine import Balancer
from balancer.core.flow import Flow, State
from common.adapters.control.server import Command, CommandError, Pages
from common.core.flow_id import flow_id
from common.program.control.flows import Client, at, client, first, which
from common.program.control.pages import paged
from common.program.control.table import command

STATES = ("waiting", "closed", "handed", "closing")
MOST = 1 << 26  # of [limits] flows


def commands(core: Balancer) -> dict[str, Command]:
    def flows(
        client: str | None = None,
        service: str | None = None,
        backend: str | None = None,
        state: str | None = None,
        limit: int = MOST,
    ) -> Pages:
        wanted = _wanted(client, service, backend, state)
        now = time.monotonic()
        rows = (None if flow is None else _row(core, flow, now) for flow in _those(core, wanted))
        return paged(first(rows, limit))

    def kill(flow: str) -> Pages:
        wanted = _named(which(flow))
        killed = []
        for page in paged(_those(core, wanted)):
            for each in page:
                core.kill(each, time.monotonic())
                killed.append(flow_id(each.incarnation))
            yield []
        if not killed:
            raise CommandError(f"there is no flow {flow}")
        return {"killed": killed}

    return {"flows": command(flows), "kill": command(kill)}


class Flows:
    """For tracing; see common.program.control.tracing."""

    def __init__(self, core: Balancer) -> None:
        self._core = core
        self.withhold, self.renew = core.fast.withhold, core.fast.renew

    def those(self, wanted: Callable[[Flow], bool]) -> Iterator[Flow | None]:
        return _those(self._core, wanted)

    def key(self, flow: Flow) -> bytes:
        return flow.key

    def identity(self, flow: Flow) -> str:
        return flow_id(flow.incarnation)

    def other_side(self, key: bytes) -> bytes | None:
        return None


def _those(core: Balancer, wanted: Callable[[Flow], bool]) -> Iterator[Flow | None]:
    """Every flow that is wanted, as it is when its turn comes; None for each of the others, as they
    take their time, too."""
    known: set[int] = set()
    for flow in core.table.every():
        wants = flow.state is not State.GONE and id(flow) not in known and wanted(flow)
        known.add(id(flow))
        yield flow if wants else None


def _wanted(
    client_: str | None, service: str | None, backend: str | None, state: str | None
) -> Callable[[Flow], bool]:
    if state is not None and state not in STATES:
        raise CommandError(f"state: {state!r} is wrong; right would be one of {', '.join(STATES)}")
    whose = None if client_ is None else client(client_)

    def wanted(flow: Flow) -> bool:
        return (
            (whose is None or whose.is_of(flow.key))
            and (service is None or flow.service.name == service)
            and (backend is None or _is_at(flow, backend))
            and (state is None or _state(flow) == state)
        )

    return wanted


def _is_at(flow: Flow, backend: str) -> bool:
    return flow.target is not None and flow.target.name == backend


def _named(flow: str | Client) -> Callable[[Flow], bool]:
    if isinstance(flow, Client):
        return lambda each: flow.is_of(each.key)
    return lambda each: flow_id(each.incarnation) == flow


def _state(flow: Flow) -> str:
    return "closing" if flow.closing else State(flow.state).name.lower()


def _row(core: Balancer, flow: Flow, now: float) -> dict[str, Any]:
    core.recall(flow)
    target = flow.target
    return {
        "id": flow_id(flow.incarnation),
        "client": at(flow.key[:4], flow.key[8:10]),
        "service": flow.service.name,
        "backend": None if target is None else target.name,
        "state": _state(flow),
        "path": "kernel" if flow.fast else "python",
        "age": round(now - flow.placed, 3),
        "idle": round(max(now - flow.seen, 0.0), 3),
        "round_trip_ms": flow.rtt,
    }
