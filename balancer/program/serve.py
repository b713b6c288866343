"""Running the balancer: host facts and configuration into the core, rules in place, the loop."""

from __future__ import annotations

import logging
import time

from balancer.core.config import Config
from balancer.core.engine import Balancer
from balancer.core.rules import rules
from balancer.core.service import Service
from common.adapters import keyfile, routes
from common.adapters.aside import aside
from common.adapters.firewall import Firewall
from common.core.keys import derive
from common.core.ledger import Ledger
from common.program.datapath import choose_datapath
from common.program.loop import run, wall_offset

log = logging.getLogger(__name__)


def serve(config: Config) -> None:
    """Run until a signal ends it; removes all it set up, also when it fails to start.

    Raises OSError, FirewallError or KeyFileError where something cannot be had.
    """
    choose_datapath(config.datapath)
    keys = derive(keyfile.load(config.key_file))
    verbose = log.isEnabledFor(logging.DEBUG)
    now = time.monotonic()
    core = Balancer(
        _services(config), config.limits, config.timeouts, keys, Ledger(verbose), now, wall_offset()
    )
    ready = [
        f"{service.vip} port {service.port} -> "
        + ", ".join(f"{backend.name} ({backend.bridge})" for backend in service.backends)
        for service in config.services
    ]
    run(core, config.queue, Firewall("balancer", *rules(config)), ready)


def _services(config: Config) -> list[Service]:
    return [
        Service(configured, path_mtus, client_mtu)
        for configured, (path_mtus, client_mtu) in zip(
            config.services, aside(_mtus, config), strict=True
        )
    ]


def _mtus(config: Config) -> list[tuple[list[int], int]]:
    """For each service the MTUs of the paths to its bridges, and that towards its clients."""
    found = []
    addresses = routes.local_addresses()
    for service in config.services:
        path_mtus = [routes.route_to(backend.bridge).mtu for backend in service.backends]
        name = config.interface or addresses.get(service.vip)
        found.append((path_mtus, routes.interface_mtu(name) if name else min(path_mtus)))
    return found
