"""What the balancer knows of one connection, or of a client's datagrams; see
common.program.control.one_flow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from balancer.core.datagrams.mapping import Mapping
from balancer.core.datagrams.service import DatagramService, DatagramTarget
from balancer.core.engine import Balancer
from balancer.core.flow import Flow, State
from balancer.core.service import Service, Target
from balancer.program.control.backends import state
from common.adapters.control.server import Command
from common.core.config import BRIDGE_PORT
from common.core.flow_id import flow_id
from common.program.control import one_flow
from common.program.control.one_flow import MOST
from common.program.loop import PacketLoop


def commands(loop: PacketLoop, core: Balancer) -> dict[str, Command]:
    def of_tcp(client: bytes, service: bytes) -> dict[str, Any]:
        found = next((each for each in core.services if each.endpoint == service), None)
        flow = core.table.find(_key(client, service))
        return {
            "service": None if found is None else _service(found, found.inspect),
            "draining": core.draining,
            "flow": None if flow is None else _flow(core, flow, time.monotonic()),
        }

    def of_udp(client: bytes, service: bytes) -> dict[str, Any]:
        found = next((each for each in core.datagram_services if each.endpoint == service), None)
        mapping = core.datagrams.find(_key(client, service), time.monotonic())
        return {
            "service": None if found is None else _service(found, "none"),
            "draining": core.draining,
            "flow": None if mapping is None else _mapping(core, mapping),
        }

    return one_flow.commands(loop, of_tcp, of_udp)


def _key(client: bytes, service: bytes) -> bytes:
    """Of the client's packets, 12 bytes."""
    return client[:4] + service[:4] + client[4:] + service[4:]


def _service(service: Service | DatagramService, inspect: str) -> dict[str, Any]:
    """The first MOST of its backends are named."""
    targets: Iterator[Target | DatagramTarget] = islice(service.targets, MOST)
    return {
        "name": service.name,
        "dscp": service.dscp,
        "inspect": inspect,
        "backends": [_backend(target) for target in targets],
    }


def _backend(target: Target | DatagramTarget) -> dict[str, Any]:
    member, check = target.member, target.pool.configured.check
    return {
        "pool": target.pool.name,
        "name": member.name,
        "bridge": member.bridge,
        "port": BRIDGE_PORT if check is None else check.port,
        "state": state(member),
        "reason": member.reason,
    }


def _flow(core: Balancer, flow: Flow, now: float) -> dict[str, Any]:
    """``tried`` are the bridges that could not serve it, ``handed`` seconds since it was given to
    the present one, ``said`` the first line of an answer of the balancer's own."""
    core.recall(flow)
    target = flow.target if flow.state in (State.HANDED, State.OPENING) else None
    return {
        "id": flow_id(flow.incarnation),
        "state": "closing" if flow.closing else flow.state.name.lower(),
        "path": "kernel" if flow.fast else "python",
        "pool": None if target is None else target.pool.name,
        "backend": None if target is None else target.name,
        "bridge": None if target is None else target.member.bridge,
        "handed": None if target is None else round(now - flow.handed_at, 3),
        "answered": flow.answered,
        "tried": [member.bridge for member in flow.tried],
        "said": flow.said.partition(b"\r\n")[0].decode("ascii"),
    }


def _mapping(core: Balancer, mapping: Mapping) -> dict[str, Any]:
    """As a flow's; it goes to one backend, and what that makes of it is not heard of here."""
    core.recall(mapping)
    return {
        "id": mapping.id,
        "state": "mapped",
        "path": "kernel" if mapping.fast else "python",
        "pool": mapping.target.pool.name,
        "backend": mapping.target.name,
        "bridge": mapping.target.member.bridge,
        "datagrams": mapping.datagrams + mapping.fast_datagrams,
    }
