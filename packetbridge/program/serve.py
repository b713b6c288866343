"""Running the bridge: host facts and configuration into the core, rules in place, the loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from common.adapters import checks, routes
from common.adapters.alone import alone
from common.adapters.aside import aside
from common.adapters.bpf.libbpf import BpfError
from common.adapters.firewall import Firewall, FirewallError
from common.core.keys import Keyring
from common.core.ledger import Ledger
from common.program.agent_side import beside
from common.program.control.basics import Reloading
from common.program.datapath import choose_datapath
from common.program.keys import read_keys
from common.program.loop import PacketLoop, run, wall_offset
from packetbridge.core.config import Backend, Config
from packetbridge.core.engine import Bridge
from packetbridge.core.entry import Entry
from packetbridge.core.rules import Kernel, rules
from packetbridge.program import agent, fast_path
from packetbridge.program.control.commands import commands
from packetbridge.program.fast_path import KernelPath

log = logging.getLogger(__name__)


@alone("packetbridge")
def serve(config: Config, again: Callable[[], Config]) -> None:
    """Run until a signal ends it; removes all it set up, also when it fails to start. ``again`` has
    the configuration read again, or raises UsageProblems.

    Raises OSError, FirewallError or KeyFileError where something cannot be had.
    """
    ledger = Ledger(log.isEnabledFor(logging.DEBUG))
    keys = Keyring(read_keys(config.key_file, "packetbridge"))
    log.info("keys: %s", keys)
    now = time.monotonic()
    local = aside(_local, config)
    loaded = choose_datapath(config.datapath, lambda: _load(config, local, ledger))
    if loaded is None:
        fast_path.clear()
    fast, kernel = (None, None) if loaded is None else loaded
    core = Bridge(
        _entries(config, local, bbr=aside(checks.uses_bbr)),
        config.limits,
        config.timeouts,
        keys,
        ledger,
        now,
        wall_offset(),
        fast,
    )
    ready = [
        f"{backend.address} port {backend.port} -> {backend.server_address}:{backend.server_port}, "
        f"source {backend.source}"
        for backend in config.backends
    ]
    firewall = Firewall("packetbridge", *rules(config, local, kernel))
    reread = partial(read_keys, config.key_file)
    drain = config.timeouts.drain
    besides = partial(_besides, core, config, "nfqueue" if fast is None else "ebpf")
    run(core, config.queue, firewall, ready, reread, kernel=fast, drain=drain, beside=besides)


@contextmanager
def _besides(core: Bridge, config: Config, datapath: str, loop: PacketLoop) -> Iterator[None]:
    """What the loop does besides packets."""
    known = commands(loop, core, datapath, Reloading())
    program = agent.of(loop, core, lambda: config, datapath)
    with beside(loop, config.control, known, program, core.access):
        yield


def _load(config: Config, local: set[str], ledger: Ledger) -> tuple[KernelPath, Kernel]:
    """The kernel's path, in place; raises BpfError where the kernel refuses a part of it."""
    fast = KernelPath(config.limits.flows, ledger.counts, fast_path.directory())
    try:
        kernel = Kernel(fast_path.unusual(), fast.attach())
        Firewall("check", *rules(config, local, kernel)).probe()
    except FirewallError as error:
        fast.detach()
        raise BpfError(str(error)) from None
    except BpfError:
        fast.detach()
        raise
    return fast, kernel


def _entries(config: Config, local: set[str], bbr: bool) -> list[Entry]:
    """``bbr``: this host's servers use it; what a remote one uses cannot be seen from here."""
    return [
        _entry(config, backend, dscp, backend.server_address in local, bbr)
        for backend in config.backends
        for dscp in config.dscps(backend)
    ]


def _entry(config: Config, backend: Backend, dscp: int, local: bool, bbr: bool) -> Entry:
    return Entry(backend, dscp, config.vip(dscp), config.mark, local, local and bbr)


def _local(config: Config) -> set[str]:
    """Which of the servers' addresses are this host's own."""
    servers = {backend.server_address for backend in config.backends}
    return {address for address in servers if routes.route_to(address).local}
