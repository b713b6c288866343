"""Running the bridge: host facts and configuration into the core, rules in place, the loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from common.adapters import checks
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
from packetbridge.core.rules import Kernel, rules
from packetbridge.program import agent, fast_path, ways
from packetbridge.program.control.commands import commands
from packetbridge.program.fast_path import KernelPath
from packetbridge.program.reload import Configured
from packetbridge.program.ways import Host

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
    host = Host(aside(ways.local, config), aside(checks.uses_bbr))
    loaded = choose_datapath(config.datapath, lambda: _load(config, host, ledger))
    if loaded is None:
        fast_path.clear()
    fast, kernel = (None, None) if loaded is None else loaded
    core = Bridge(
        ways.entries(config, host),
        config.limits,
        config.timeouts,
        keys,
        ledger,
        now,
        wall_offset(),
        fast,
        None if fast is None else fast.mappings,
    )
    ready = [
        f"{backend.address} {_port(backend)} -> {backend.server_address}:{backend.server_port}, "
        f"source {backend.source}"
        for backend in config.backends
    ]
    firewall = Firewall("packetbridge", *rules(config, host.local, kernel))
    reread = partial(read_keys, config.key_file)
    drain = config.timeouts.drain
    datapath = "nfqueue" if fast is None else "ebpf"

    @contextmanager
    def besides(loop: PacketLoop) -> Iterator[None]:
        """What the loop does besides packets."""
        configured = Configured(loop, core, config, host, kernel, again)
        reloading = Reloading(configured.read_again)
        loop.reload = reloading.signalled
        known = commands(loop, core, datapath, reloading)
        program = agent.of(loop, core, lambda: configured.config, datapath)
        with beside(loop, config.control, known, program, core.access):
            try:
                yield
            finally:
                configured.meanwhile.close()

    run(core, config.queue, firewall, ready, reread, kernel=fast, drain=drain, beside=besides)


def _port(backend: Backend) -> str:
    return f"{'UDP ' * (backend.protocol == 'udp')}port {backend.port}"


def _load(config: Config, host: Host, ledger: Ledger) -> tuple[KernelPath, Kernel]:
    """The kernel's path, in place; raises BpfError where the kernel refuses a part of it."""
    fast = KernelPath(
        config.limits.flows, ledger.counts, fast_path.directory(), fast_path.room(config)
    )
    try:
        kernel = Kernel(fast_path.unusual(), fast.attach())
        Firewall("check", *rules(config, host.local, kernel)).probe()
    except FirewallError as error:
        fast.detach()
        raise BpfError(str(error)) from None
    except BpfError:
        fast.detach()
        raise
    return fast, kernel
