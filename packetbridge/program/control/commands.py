"""All commands to a running bridge."""

from __future__ import annotations

from typing import Any

from common.adapters.control.server import Command
from common.program.control import basics
from common.program.control.basics import Reloading
from common.program.control.tracing import Tracing
from common.program.loop import PacketLoop
from packetbridge.core.config import Config
from packetbridge.core.engine import Bridge
from packetbridge.program.control import flows


def commands(
    loop: PacketLoop, core: Bridge, config: Config, datapath: str, reloading: Reloading
) -> dict[str, Command]:
    """By their names; ``datapath`` is the one in use."""

    def facts() -> dict[str, Any]:
        return {
            "datapath": datapath,
            "services": [
                {
                    "name": f"{backend.address}:{backend.port}",
                    "server": f"{backend.server_address}:{backend.server_port}",
                    "source": backend.source,
                    "vips": [config.vip(dscp) for dscp in config.dscps(backend)],
                }
                for backend in config.backends
            ],
        }

    return {
        **basics.commands(loop, "packetbridge", facts, reloading),
        **flows.commands(core),
        **Tracing(loop, flows.Flows(core)).commands(),
    }
