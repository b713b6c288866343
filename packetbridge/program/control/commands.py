"""All commands to a running bridge."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from common.adapters.control.server import Command
from common.program.control import basics
from common.program.control.basics import Reloading
from common.program.control.flows import at
from common.program.control.tracing import Tracing
from common.program.loop import PacketLoop
from packetbridge.core.engine import Bridge
from packetbridge.program.control import backends, flows, one_flow


def commands(
    loop: PacketLoop, core: Bridge, datapath: str, reloading: Reloading
) -> dict[str, Command]:
    """By their names; ``datapath`` is the one in use."""

    def facts() -> dict[str, Any]:
        return {
            "datapath": datapath,
            "services": [
                {
                    "name": entry.name,
                    "server": at(entry.server, entry.server_port),
                    "source": "bridge" if entry.own_source else "client",
                    "vip": str(IPv4Address(entry.vip)),
                }
                for entry in core.entries
            ],
        }

    return {
        **basics.commands(loop, "packetbridge", facts, reloading),
        **flows.commands(core),
        **backends.commands(core),
        **Tracing(loop, flows.Flows(core)).commands(),
        **one_flow.commands(loop, core),
    }
