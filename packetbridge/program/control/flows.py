"""`flows` and `kill`: the bridge's connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from common.adapters.control.server import Command, CommandError, Pages
from common.core.flow_id import flow_id
from common.program.control.flows import Client, at, client, first, which
from common.program.control.pages import paged
from common.program.control.table import command
from packetbridge.core.engine import Bridge
from packetbridge.core.flow import IN_KERNEL, Flow
from packetbridge.core.states import State

STATES = tuple(state.value for state in State if state not in (State.HANDOFF, State.GONE))
MOST = 1 << 26  # of [limits] flows


def commands(core: Bridge) -> dict[str, Command]:
    def flows(
        client: str | None = None,
        backend: str | None = None,
        state: str | None = None,
        limit: int = MOST,
    ) -> Pages:
        wanted = _wanted(client, backend, state)
        now = time.monotonic()
        rows = (None if flow is None else _row(core, flow, now) for flow in _those(core, wanted))
        return paged(first(rows, limit))

    def kill(flow: str) -> Pages:
        wanted = _named(which(flow))
        killed = []
        for page in paged(_those(core, wanted)):
            for each in page:
                core.end(each, time.monotonic())
                killed.append(identity(each))
            yield []
        if not killed:
            raise CommandError(f"there is no flow {flow}")
        return {"killed": killed}

    return {"flows": command(flows), "kill": command(kill)}


class Flows:
    """For tracing; see common.program.control.tracing."""

    def __init__(self, core: Bridge) -> None:
        self._core = core
        self.withhold, self.renew = core.fast.withhold, core.fast.renew

    def those(self, wanted: Callable[[Flow], bool]) -> Iterator[Flow | None]:
        return _those(self._core, wanted)

    def key(self, flow: Flow) -> bytes:
        return client_key(flow)

    def identity(self, flow: Flow) -> str:
        return identity(flow)

    def other_side(self, key: bytes) -> bytes | None:
        """The server knows the client by another address, or another port."""
        outbound = self._core.table.outbound
        flow = outbound.get(key) or outbound.get(key[4:8] + key[:4] + key[10:] + key[8:10])
        return None if flow is None else client_key(flow)


def client_key(flow: Flow) -> bytes:
    """Of its packets as the client sends them: to the VIP."""
    return flow.inbound[:4] + flow.entry.vip + flow.inbound[8:]


def identity(flow: Flow) -> str:
    return flow_id(client_key(flow) + flow.isns)


def _those(core: Bridge, wanted: Callable[[Flow], bool]) -> Iterator[Flow | None]:
    """Every flow that is wanted, as it is when its turn comes; None for each of the others, as they
    take their time, too."""
    known: set[int] = set()
    for flow in core.table.every():
        wants = flow.state is not State.GONE and id(flow) not in known and wanted(flow)
        known.add(id(flow))
        yield flow if wants else None


def _wanted(client_: str | None, backend: str | None, state: str | None) -> Callable[[Flow], bool]:
    if state is not None and state not in STATES:
        raise CommandError(f"state: {state!r} is wrong; right would be one of {', '.join(STATES)}")
    whose = None if client_ is None else client(client_)

    def wanted(flow: Flow) -> bool:
        return (
            (whose is None or whose.is_of(flow.inbound))
            and (backend is None or _backend(flow) == backend)
            and (state is None or flow.state.value == state)
        )

    return wanted


def _named(flow: str | Client) -> Callable[[Flow], bool]:
    if isinstance(flow, Client):
        return lambda each: flow.is_of(each.inbound)
    return lambda each: identity(each) == flow


def _backend(flow: Flow) -> str:
    """By the address and port that the balancers know it by."""
    return at(flow.entry.address, flow.entry.port)


def _row(core: Bridge, flow: Flow, now: float) -> dict[str, Any]:
    core.fast.recall(flow)
    return {
        "id": identity(flow),
        "client": at(flow.inbound[:4], flow.inbound[8:10]),
        "vip": at(flow.entry.vip, flow.entry.port),
        "backend": _backend(flow),
        "server": at(flow.entry.server, flow.entry.server_port),
        "state": flow.state.value,
        "path": "kernel" if flow.marked(IN_KERNEL) else "python",
        "age": round(now - flow.placed, 3),
        "idle": round(max(now - flow.seen, 0.0), 3),
    }
