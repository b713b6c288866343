"""All commands to a running balancer."""

from __future__ import annotations

from typing import Any

from balancer.core.config import Config
from balancer.core.engine import Balancer
from balancer.program.control import flows
from common.adapters.control.server import Command
from common.program.control import basics
from common.program.control.basics import Reloading
from common.program.control.tracing import Tracing
from common.program.loop import PacketLoop


def commands(
    loop: PacketLoop, core: Balancer, config: Config, datapath: str, reloading: Reloading
) -> dict[str, Command]:
    """By their names; ``datapath`` is the one in use."""

    def facts() -> dict[str, Any]:
        return {
            "datapath": datapath,
            "services": [
                {
                    "name": service.name,
                    "vip": service.vip,
                    "port": service.port,
                    "dscp": service.dscp,
                    "pools": [pool.name for pool in config.pools_of(service)],
                }
                for service in config.services
            ],
        }

    return {
        **basics.commands(loop, "balancer", facts, reloading),
        **flows.commands(core),
        **Tracing(loop, flows.Flows(core)).commands(),
    }
