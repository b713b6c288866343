"""Running the balancer: host facts and configuration into the core, rules in place, the loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from balancer.core.config import Config
from balancer.core.engine import Balancer
from balancer.core.rules import rules
from balancer.core.service import Service
from balancer.program import fast_path
from balancer.program.control.commands import commands
from balancer.program.fast_path import KernelPath
from common.adapters import routes
from common.adapters.alone import alone
from common.adapters.aside import aside
from common.adapters.bpf.libbpf import BpfError
from common.adapters.firewall import Firewall
from common.adapters.path_probe import path_mtus
from common.core.keys import Keyring
from common.core.ledger import Ledger
from common.program.control.basics import Reloading
from common.program.control.beside import control
from common.program.datapath import choose_datapath
from common.program.keys import read_keys
from common.program.loop import PacketLoop, run, wall_offset

log = logging.getLogger(__name__)


@alone("balancer")
def serve(config: Config) -> None:
    """Run until a signal ends it; removes all it set up, also when it fails to start.

    Raises OSError, FirewallError or KeyFileError where something cannot be had.
    """
    ledger = Ledger(log.isEnabledFor(logging.DEBUG))
    keys = Keyring(read_keys(config.key_file, "balancer"))
    log.info("keys: %s", keys)
    services = _services(config)
    fast = choose_datapath(config.datapath, lambda: _load(config, ledger))
    if fast is None:
        fast_path.clear()
    now = time.monotonic()
    core = Balancer(
        services,
        config.limits,
        config.timeouts,
        keys,
        ledger,
        now,
        wall_offset(),
        fast,
    )
    ready = [
        f"{service.vip} port {service.port} -> "
        + ", ".join(f"{backend.name} ({backend.bridge})" for backend in service.backends)
        for service in config.services
    ]
    firewall = Firewall("balancer", *rules(config))
    reread = partial(read_keys, config.key_file)
    drain = config.timeouts.drain
    beside = partial(_beside, core, config, "nfqueue" if fast is None else "ebpf")
    run(core, config.queue, firewall, ready, reread, config.syn_queue, fast, drain, beside)


@contextmanager
def _beside(core: Balancer, config: Config, datapath: str, loop: PacketLoop) -> Iterator[None]:
    """What the loop does besides packets."""
    known = commands(loop, core, config, datapath, Reloading())
    with control(loop, config.control, known):
        yield


def _load(config: Config, ledger: Ledger) -> KernelPath:
    """The kernel's path, in place; raises BpfError where the kernel refuses it."""
    directory, services = fast_path.directory(), len(config.services)
    fast = KernelPath(config.limits.flows, ledger.counts, directory, services)
    try:
        fast.attach()
    except BpfError:
        fast.detach()
        raise
    return fast


def _services(config: Config) -> list[Service]:
    mtus = aside(_mtus, config)
    for configured, (paths, client_mtu) in zip(config.services, mtus, strict=True):
        for backend, mtu in zip(configured.backends, paths, strict=True):
            if mtu < client_mtu:
                way = f"the way to {backend.name} ({backend.bridge})"
                log.info("service %s: %s takes %s bytes", configured.name, way, mtu)
    return [
        Service(configured, paths, client_mtu)
        for configured, (paths, client_mtu) in zip(config.services, mtus, strict=True)
    ]


def _mtus(config: Config) -> list[tuple[list[int], int]]:
    """For each service the MTUs of the paths to its bridges, and that towards its clients."""
    found = []
    addresses = routes.local_addresses()
    bridges = {backend.bridge for service in config.services for backend in service.backends}
    by_bridge = path_mtus({bridge: routes.route_to(bridge).mtu for bridge in bridges})
    for service in config.services:
        paths = [by_bridge[backend.bridge] for backend in service.backends]
        name = config.interface or addresses.get(service.vip)
        found.append((paths, routes.interface_mtu(name) if name else min(paths)))
    return found
