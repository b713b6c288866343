"""`flows` and `kill`: the bridge's connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from common.adapters.control.server import Command, Pages
from common.core.flow_id import flow_id
from common.program.control.flows import MOST, at, check_state, client, first, killing, those
from common.program.control.pages import paged
from common.program.control.table import command
from packetbridge.core.engine import Bridge
from packetbridge.core.flow import IN_KERNEL, Flow
from packetbridge.core.states import State

STATES = tuple(state.value for state in State if state not in (State.HANDOFF, State.GONE))


def commands(core: Bridge) -> dict[str, Command]:
    known = Flows(core)

    def flows(
        client: str | None = None,
        backend: str | None = None,
        state: str | None = None,
        limit: int = MOST,
    ) -> Pages:
        wanted = _wanted(client, backend, state)
        now = time.monotonic()
        rows = (None if flow is None else _row(core, flow, now) for flow in known.those(wanted))
        return paged(first(rows, limit))

    return {"flows": command(flows), "kill": killing(known, core.end)}


class Flows:
    """What is the program's own of them; see common.program.control.flows."""

    def __init__(self, core: Bridge) -> None:
        self._core = core
        self.withhold, self.renew = core.fast.withhold, core.fast.renew

    def those(self, wanted: Callable[[Flow], bool]) -> Iterator[Flow | None]:
        return those(self._core.table.every(), _is_gone, wanted)

    def key(self, flow: Flow) -> bytes:
        return flow.client_key

    def identity(self, flow: Flow) -> str:
        return flow_id(flow.incarnation)

    def other_side(self, key: bytes) -> bytes | None:
        """The server knows the client by another address, or another port."""
        outbound = self._core.table.outbound
        flow = outbound.get(key) or outbound.get(key[4:8] + key[:4] + key[10:] + key[8:10])
        return None if flow is None else flow.client_key


def _is_gone(flow: Flow) -> bool:
    return flow.state is State.GONE


def _wanted(client_: str | None, backend: str | None, state: str | None) -> Callable[[Flow], bool]:
    check_state(state, STATES)
    whose = None if client_ is None else client(client_)

    def wanted(flow: Flow) -> bool:
        return (
            (whose is None or whose.is_of(flow.inbound))
            and (backend is None or _backend(flow) == backend)
            and (state is None or flow.state.value == state)
        )

    return wanted


def _backend(flow: Flow) -> str:
    """By the address and port that the balancers know it by."""
    return at(flow.entry.address, flow.entry.port)


def _row(core: Bridge, flow: Flow, now: float) -> dict[str, Any]:
    core.fast.recall(flow)
    return {
        "id": flow_id(flow.incarnation),
        "client": at(flow.inbound[:4], flow.inbound[8:10]),
        "vip": at(flow.entry.vip, flow.entry.port),
        "backend": _backend(flow),
        "server": at(flow.entry.server, flow.entry.server_port),
        "state": flow.state.value,
        "path": "kernel" if flow.marked(IN_KERNEL) else "python",
        "age": round(now - flow.placed, 3),
        "idle": round(max(now - flow.seen, 0.0), 3),
    }
