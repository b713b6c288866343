"""`flows` and `kill`: the balancer's connections, and the mappings of UDP clients beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from balancer.core.datagrams.mapping import Mapping
from balancer.core.engine import Balancer
from balancer.core.flow import Flow, State
from common.adapters.control.server import Command, Pages
from common.core.flow_id import flow_id
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

STATES = ("waiting", "opening", "closed", "handed", "closing", "mapped")

Known = Flow | Mapping


def commands(core: Balancer) -> dict[str, Command]:
    known = Flows(core)

    def flows(
        client: str | None = None,
        service: str | None = None,
        backend: str | None = None,
        state: str | None = None,
        protocol: str | None = None,
        limit: int = MOST,
    ) -> Pages:
        wanted = _wanted(client, service, backend, state, protocol)
        now = time.monotonic()
        rows = (None if flow is None else _row(core, flow, now) for flow in known.those(wanted))
        return paged(first(rows, limit))

    return {"flows": command(flows), "kill": killing(known, core.kill)}


class Flows:
    """What is the program's own of them; see common.program.control.flows."""

    def __init__(self, core: Balancer) -> None:
        self._core = core

    def those(self, wanted: Callable[[Known], bool]) -> Iterator[Known | None]:
        every: Iterator[Known]
        every = chain(self._core.table.every(), self._core.datagrams.table.every())
        return those(every, _is_gone, wanted)

    def key(self, flow: Known) -> bytes:
        return flow.key

    def identity(self, flow: Known) -> str:
        return _identity(flow)

    def withhold(self, wanted: Callable[[Known], bool] | None) -> None:
        self._core.fast.withhold(wanted)
        self._core.fast.mappings.withhold(wanted)

    def renew(self, flow: Known) -> None:
        if isinstance(flow, Mapping):
            self._core.fast.mappings.renew(flow)
        else:
            self._core.fast.renew(flow)

    def other_side(self, key: bytes) -> bytes | None:
        return None


def _identity(flow: Known) -> str:
    return flow.id if isinstance(flow, Mapping) else flow_id(flow.incarnation)


def _is_gone(flow: Known) -> bool:
    return flow.gone if isinstance(flow, Mapping) else flow.state is State.GONE


def _wanted(
    client_: str | None,
    service: str | None,
    backend: str | None,
    state: str | None,
    protocol: str | None,
) -> Callable[[Known], bool]:
    check_state(state, STATES)
    check_protocol(protocol)
    whose = None if client_ is None else client(client_)

    def wanted(flow: Known) -> bool:
        return (
            (whose is None or whose.is_of(flow.key))
            and (service is None or flow.service.name == service)
            and (backend is None or _is_at(flow, backend))
            and (state is None or _state(flow) == state)
            and (protocol is None or _protocol(flow) == protocol)
        )

    return wanted


def _is_at(flow: Known, backend: str) -> bool:
    return flow.target is not None and flow.target.name == backend


def _protocol(flow: Known) -> str:
    return "udp" if isinstance(flow, Mapping) else "tcp"


def _state(flow: Known) -> str:
    if isinstance(flow, Mapping):
        return "mapped"
    return "closing" if flow.closing else State(flow.state).name.lower()


def _row(core: Balancer, flow: Known, now: float) -> dict[str, Any]:
    """``age`` is seconds in its state; of a mapping, whose client may have no port, since its first
    datagram. Only mappings tell ``datagrams`` and ``bytes``."""
    core.recall(flow)
    row = _common(flow, now)
    if isinstance(flow, Mapping):
        row["age"] = round(now - flow.began, 3)
        row["client"] = at(flow.key[:4], flow.key[8:10]).removesuffix(":0")
        row["datagrams"] = flow.datagrams + flow.fast_datagrams
        row["bytes"] = flow.size + flow.fast_size
    else:
        row["round_trip_ms"] = flow.rtt
    return row


def _common(flow: Known, now: float) -> dict[str, Any]:
    target = flow.target
    return {
        "id": _identity(flow),
        "client": at(flow.key[:4], flow.key[8:10]),
        "protocol": _protocol(flow),
        "service": flow.service.name,
        "backend": None if target is None else target.name,
        "state": _state(flow),
        "path": "kernel" if flow.fast else "python",
        "age": round(now - flow.placed, 3),
        "idle": round(max(now - flow.seen, 0.0), 3),
    }
