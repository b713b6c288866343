"""`flows` and `kill`: the balancer's connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from balancer.core.engine import Balancer
from balancer.core.flow import Flow, State
from common.adapters.control.server import Command, Pages
from common.core.flow_id import flow_id
from common.program.control.flows import MOST, at, check_state, client, first, killing, those
from common.program.control.pages import paged
from common.program.control.table import command

STATES = ("waiting", "opening", "closed", "handed", "closing")


def commands(core: Balancer) -> dict[str, Command]:
    known = Flows(core)

    def flows(
        client: str | None = None,
        service: str | None = None,
        backend: str | None = None,
        state: str | None = None,
        limit: int = MOST,
    ) -> Pages:
        wanted = _wanted(client, service, backend, state)
        now = time.monotonic()
        rows = (None if flow is None else _row(core, flow, now) for flow in known.those(wanted))
        return paged(first(rows, limit))

    return {"flows": command(flows), "kill": killing(known, core.kill)}


class Flows:
    """What is the program's own of them; see common.program.control.flows."""

    def __init__(self, core: Balancer) -> None:
        self._core = core
        self.withhold, self.renew = core.fast.withhold, core.fast.renew

    def those(self, wanted: Callable[[Flow], bool]) -> Iterator[Flow | None]:
        return those(self._core.table.every(), _is_gone, wanted)

    def key(self, flow: Flow) -> bytes:
        return flow.key

    def identity(self, flow: Flow) -> str:
        return flow_id(flow.incarnation)

    def other_side(self, key: bytes) -> bytes | None:
        return None


def _is_gone(flow: Flow) -> bool:
    return flow.state is State.GONE


def _wanted(
    client_: str | None, service: str | None, backend: str | None, state: str | None
) -> Callable[[Flow], bool]:
    check_state(state, STATES)
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
