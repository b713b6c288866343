"""What the bridge knows of one connection; see common.program.control.one_flow."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import islice
from typing import Any

from common.adapters.control.server import Command
from common.core.flow_id import flow_id
from common.program.control import one_flow
from common.program.control.one_flow import MOST
from common.program.loop import PacketLoop
from packetbridge.core.engine import Bridge
from packetbridge.core.entry import Entry
from packetbridge.core.flow import ANSWERED, IN_KERNEL, UNANSWERED, Flow
from packetbridge.core.states import State


def commands(loop: PacketLoop, core: Bridge) -> dict[str, Command]:
    def told(client: bytes, service: bytes) -> dict[str, Any]:
        of_tcp = (each for each in core.entries if each.protocol == "tcp")
        ways = [each for each in of_tcp if _endpoint(each) == service]
        flow = _find(core, ways, client)
        return {
            "ways": [_way(each) for each in islice(ways, MOST)],
            "flow": None if flow is None else _flow(core, flow),
        }

    return one_flow.commands(loop, told)


def _endpoint(entry: Entry) -> bytes:
    """6 bytes: the VIP and the port."""
    return entry.vip + entry.port.to_bytes(2, "big")


def _find(core: Bridge, ways: list[Entry], client: bytes) -> Flow | None:
    for way in ways:
        key = client[:4] + way.address + client[4:] + way.port.to_bytes(2, "big")
        flow = core.table.inbound[way.dscp].get(key)
        if flow is not None and flow.state is not State.GONE:
            return flow
    return None


def _way(entry: Entry) -> dict[str, Any]:
    figures = entry.figures
    return {
        "address": str(IPv4Address(entry.address)),
        "dscp": entry.dscp,
        "server": entry.server_name,
        "source": "bridge" if entry.own_source else "client",
        "up": entry.up and not entry.draining,
        "reason": "draining" if entry.draining else entry.reason,
        "opened": figures.opened,
        "refused": figures.refused,
        "silent": figures.silent,
        "reset": figures.resets,
    }


def _flow(core: Bridge, flow: Flow) -> dict[str, Any]:
    """``answered``: the server's first byte has passed."""
    core.fast.recall(flow)
    return {
        "id": flow_id(flow.incarnation),
        "state": State.SYN_SENT.value if flow.marked(UNANSWERED) else flow.state.value,
        "path": "kernel" if flow.marked(IN_KERNEL) else "python",
        "server": flow.entry.server_name,
        "answered": flow.marked(ANSWERED),
    }
