"""What the bridge knows of one connection, or of a client's datagrams; see
common.program.control.one_flow."""

from __future__ import annotations

import time
from ipaddress import IPv4Address
from itertools import islice
from typing import Any

from common.adapters.control.server import Command
from common.core.flow_id import flow_id
from common.program.control import one_flow
from common.program.control.one_flow import MOST, TCP, UDP
from common.program.loop import PacketLoop
from packetbridge.core.datagrams.mapping import Mapping
from packetbridge.core.engine import Bridge
from packetbridge.core.entry import Entry
from packetbridge.core.flow import ANSWERED, IN_KERNEL, UNANSWERED, Flow
from packetbridge.core.states import State


def commands(loop: PacketLoop, core: Bridge) -> dict[str, Command]:
    def of_tcp(client: bytes, service: bytes) -> dict[str, Any]:
        ways = _ways(core, TCP, service)
        flow = _find(core, ways, client)
        return {
            "ways": [_way(each) for each in islice(ways, MOST)],
            "flow": None if flow is None else _flow(core, flow),
        }

    def of_udp(client: bytes, service: bytes) -> dict[str, Any]:
        ways = _ways(core, UDP, service)
        mapping = _find_mapping(core, ways, client, time.monotonic())
        return {
            "ways": [_way(each) for each in islice(ways, MOST)],
            "flow": None if mapping is None else _mapping(core, mapping),
        }

    return one_flow.commands(loop, of_tcp, of_udp)


def _ways(core: Bridge, protocol: str, service: bytes) -> list[Entry]:
    return [e for e in core.entries if e.protocol == protocol and _endpoint(e) == service]


def _endpoint(entry: Entry) -> bytes:
    """6 bytes: the VIP and the port."""
    return entry.vip + entry.port.to_bytes(2, "big")


def _find(core: Bridge, ways: list[Entry], client: bytes) -> Flow | None:
    for way in ways:
        flow = core.table.inbound[way.dscp].get(_inbound(way, client))
        if flow is not None and flow.state is not State.GONE:
            return flow
    return None


def _find_mapping(core: Bridge, ways: list[Entry], client: bytes, now: float) -> Mapping | None:
    found = (core.datagrams.mappings.of_client(way, _inbound(way, client), now) for way in ways)
    return next((mapping for mapping in found if mapping is not None), None)


def _inbound(way: Entry, client: bytes) -> bytes:
    """The 12-byte key of a client's packets as they come by that way."""
    return client[:4] + way.address + client[4:] + way.port.to_bytes(2, "big")


def _way(entry: Entry) -> dict[str, Any]:
    figures = entry.figures
    return {
        "address": str(IPv4Address(entry.address)),
        "dscp": entry.dscp,
        "server": entry.server_name,
        "handoff": entry.handoff,
        "source": "bridge" if entry.own_source else "client",
        "up": entry.up and not entry.draining,
        "reason": "draining" if entry.draining else entry.reason,
        "opened": figures.opened,
        "refused": figures.refused,
        "silent": figures.silent,
        "reset": figures.resets,
    }


def _flow(core: Bridge, flow: Flow) -> dict[str, Any]:
    """``answered``: the server's first byte has passed. Also where the handshake is the client's
    and the server's the state is syn_sent until the server has answered."""
    core.fast.recall(flow)
    return {
        "id": flow_id(flow.incarnation),
        "state": (State.SYN_SENT if flow.marked(UNANSWERED) else flow.state).value,
        "path": "kernel" if flow.marked(IN_KERNEL) else "python",
        "server": flow.entry.server_name,
        "answered": flow.marked(ANSWERED),
    }


def _mapping(core: Bridge, mapping: Mapping) -> dict[str, Any]:
    """``answered``: the client has sent one datagram and no more, and another has passed, which is
    the server's then."""
    return {
        "id": mapping.identity,
        "state": "mapped",
        "path": "python" if mapping.slow or not core.datagrams.in_kernel else "kernel",
        "server": mapping.entry.server_name,
        "answered": mapping.seen > mapping.began,
    }
