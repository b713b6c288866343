"""All commands to a running balancer."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from balancer.core.datagrams.service import DatagramService
from balancer.core.engine import Balancer
from balancer.core.service import Service
from balancer.program.control import backends, explain, flows, one_flow
from balancer.program.control.backends import Configured
from common.adapters.control.server import Command
from common.program.control import basics
from common.program.control.basics import Reloading
from common.program.control.tracing import Tracing
from common.program.loop import PacketLoop


def commands(
    loop: PacketLoop,
    core: Balancer,
    datapath: str,
    reloading: Reloading,
    configured: Configured | None = None,
) -> dict[str, Command]:
    """By their names; ``datapath`` is the one in use, ``configured`` where the configuration in
    force can be changed."""

    def facts() -> dict[str, Any]:
        return {
            "datapath": datapath,
            "services": [
                *(_service(service, "tcp", list(service.pools)) for service in core.services),
                *(_service(each, "udp", [each.pool.name]) for each in core.datagram_services),
            ],
        }

    return {
        **basics.commands(loop, "balancer", facts, reloading),
        **flows.commands(core),
        **backends.commands(core, reloading, configured),
        **explain.commands(core),
        **Tracing(loop, flows.Flows(core)).commands(),
        **one_flow.commands(loop, core),
    }


def _service(service: Service | DatagramService, protocol: str, pools: list[str]) -> dict[str, Any]:
    return {
        "name": service.name,
        "vip": str(IPv4Address(service.vip)),
        "port": service.port,
        "protocol": protocol,
        "inspect": "none" if isinstance(service, DatagramService) else service.inspect,
        "dscp": service.dscp,
        "pools": pools,
    }
