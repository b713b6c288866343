"""`flows` and `kill`: the bridge's connections, and the mappings of UDP clients beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from common.adapters.control.server import Command, Pages
from common.core.flow_id import flow_id
from common.core.segment import reverse
from common.program.control.flows import (
    MOST,
    at,
    check_protocol,
    check_state,
    client,
    first,
    killing,
    those,
)
from common.program.control.pages import paged
from common.program.control.table import command
from packetbridge.core.datagrams.mapping import Mapping
from packetbridge.core.engine import Bridge
from packetbridge.core.flow import IN_KERNEL, Flow
from packetbridge.core.states import State

STATES = (
    *(state.value for state in State if state not in (State.HANDOFF, State.GONE)),
    "mapped",
)

Known = Flow | Mapping


def commands(core: Bridge) -> dict[str, Command]:
    known = Flows(core)

    def flows(
        client: str | None = None,
        backend: str | None = None,
        state: str | None = None,
        protocol: str | None = None,
        limit: int = MOST,
    ) -> Pages:
        wanted = _wanted(client, backend, state, protocol)
        now = time.monotonic()
        rows = (None if flow is None else _row(core, flow, now) for flow in known.those(wanted))
        return paged(first(rows, limit))

    return {"flows": command(flows), "kill": killing(known, core.end)}


class Flows:
    """What is the program's own of them; see common.program.control.flows."""

    def __init__(self, core: Bridge) -> None:
        self._core = core

    def those(self, wanted: Callable[[Known], bool]) -> Iterator[Known | None]:
        flows = those(self._core.table.every(), _is_gone, wanted)
        mappings = self._core.datagrams.every(time.monotonic())  # made for this, one after another
        return chain(flows, (each if wanted(each) else None for each in mappings))

    def key(self, flow: Known) -> bytes:
        return flow.client_key

    def identity(self, flow: Known) -> str:
        return _identity(flow)

    def withhold(self, wanted: Callable[[Known], bool] | None) -> None:
        self._core.fast.withhold(wanted)
        self._core.datagrams.mappings.withhold(wanted)

    def renew(self, flow: Known) -> None:
        if isinstance(flow, Mapping):
            self._core.datagrams.mappings.renew(flow)
        else:
            self._core.fast.renew(flow)

    def other_side(self, key: bytes) -> bytes | None:
        """The server knows the client by another address, or another port."""
        core = self._core
        for each in (key, reverse(key)):
            flow = core.table.outbound.get(each) or core.datagrams.of_server(each, time.monotonic())
            if flow is not None:
                return flow.client_key
        return None


def _identity(flow: Known) -> str:
    return flow.identity if isinstance(flow, Mapping) else flow_id(flow.incarnation)


def _is_gone(flow: Flow) -> bool:
    return flow.state is State.GONE


def _wanted(
    client_: str | None, backend: str | None, state: str | None, protocol: str | None
) -> Callable[[Known], bool]:
    check_state(state, STATES)
    check_protocol(protocol)
    whose = None if client_ is None else client(client_)

    def wanted(flow: Known) -> bool:
        return (
            (whose is None or whose.is_of(flow.inbound))
            and (backend is None or _backend(flow) == backend)
            and (state is None or _state(flow) == state)
            and (protocol is None or flow.entry.protocol == protocol)
        )

    return wanted


def _backend(flow: Known) -> str:
    """By the address and port that the balancers know it by."""
    return at(flow.entry.address, flow.entry.port)


def _state(flow: Known) -> str:
    return "mapped" if isinstance(flow, Mapping) else flow.state.value


def _row(core: Bridge, flow: Known, now: float) -> dict[str, Any]:
    """``age`` is seconds in its state; of a mapping, since its first datagram."""
    if isinstance(flow, Mapping):
        fast, since = core.datagrams.in_kernel and not flow.slow, flow.began
    else:
        core.fast.recall(flow)
        fast, since = flow.marked(IN_KERNEL), flow.placed
    return {
        "id": _identity(flow),
        "client": at(flow.inbound[:4], flow.inbound[8:10]),
        "protocol": flow.entry.protocol,
        "vip": at(flow.entry.vip, flow.entry.port),
        "backend": _backend(flow),
        "server": at(flow.entry.server, flow.entry.server_port),
        "state": _state(flow),
        "path": "kernel" if fast else "python",
        "age": round(max(now - since, 0.0), 3),
        "idle": round(max(now - flow.seen, 0.0), 3),
    }
