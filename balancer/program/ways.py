"""How large packets may be, on the way to each bridge and towards clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from balancer.core.config import Config
from balancer.core.service import Paths
from common.adapters import routes
from common.adapters.path_probe import path_mtus


def paths(config: Config, known: Mapping[str, int] = MappingProxyType({})) -> Paths:
    """What the host's routes and the paths say; ``known`` are the ways to bridges that need not be
    tried again. It loads much: see common.adapters.aside."""
    addresses = routes.local_addresses()
    bridges = {b.bridge for service in config.services for b in config.backends_of(service)}
    new = routes.mtus_to(bridge for bridge in bridges if bridge not in known)
    found = path_mtus(new) | {bridge: mtu for bridge, mtu in known.items() if bridge in bridges}
    to_clients = {}
    for service in config.services:
        name = config.interface or addresses.get(service.vip)
        ways = (found[backend.bridge] for backend in config.backends_of(service))
        to_clients[service.vip] = routes.interface_mtu(name) if name else min(ways)
    return Paths(found, to_clients)


def narrow(config: Config, paths: Paths) -> Iterator[str]:
    """A line for each way that takes less than that towards the clients."""
    for service in config.services:
        for backend in config.backends_of(service):
            mtu = paths.to_bridges[backend.bridge]
            if mtu < paths.to_clients[service.vip]:
                way = f"the way to {backend.name} ({backend.bridge})"
                yield f"service {service.name}: {way} takes {mtu} bytes"
