"""Running the balancer: host facts and configuration into the core, rules in place, the loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from balancer.core.catalogue import built
from balancer.core.config import Config
from balancer.core.engine import Balancer
from balancer.core.rules import rules
from balancer.program import agent, fast_path, ways
from balancer.program.control.commands import commands
from balancer.program.fast_path import KernelPath
from balancer.program.reload import Configured
from common.adapters.alone import alone
from common.adapters.aside import aside
from common.adapters.bpf.libbpf import BpfError
from common.adapters.firewall import Firewall
from common.core.keys import Keyring
from common.core.ledger import Ledger
from common.program.agent_side import beside
from common.program.control.basics import Reloading
from common.program.datapath import choose_datapath
from common.program.keys import read_keys
from common.program.loop import PacketLoop, run, wall_offset

log = logging.getLogger(__name__)


@alone("balancer")
def serve(config: Config, again: Callable[[], Config]) -> None:
    """Run until a signal ends it; removes all it set up, also when it fails to start. ``again`` has
    the configuration read again, or raises UsageProblems.

    Raises OSError, FirewallError or KeyFileError where something cannot be had.
    """
    ledger = Ledger(log.isEnabledFor(logging.DEBUG))
    keys = Keyring(read_keys(config.key_file, "balancer"))
    log.info("keys: %s", keys)
    paths = aside(ways.paths, config)
    for line in ways.narrow(config, paths):
        log.info(line)
    fast = choose_datapath(config.datapath, lambda: _load(config, ledger))
    if fast is None:
        fast_path.clear()
    now = time.monotonic()
    core = Balancer(
        built(config, paths, now),
        config.limits,
        config.timeouts,
        keys,
        ledger,
        now,
        wall_offset(),
        fast,
    )
    ready = [
        f"{service.vip} {'UDP ' * (service.protocol == 'udp')}port {service.port} -> "
        + ", ".join(f"{backend.name} ({backend.bridge})" for backend in config.backends_of(service))
        for service in config.services
    ]
    firewall = Firewall("balancer", *rules(config))
    reread = partial(read_keys, config.key_file)
    drain = config.timeouts.drain
    datapath = "nfqueue" if fast is None else "ebpf"

    @contextmanager
    def besides(loop: PacketLoop) -> Iterator[None]:
        """What the loop does besides packets."""
        configured = Configured(loop, core, config, paths, again)
        reloading = Reloading(configured.read_again)
        loop.reload = reloading.signalled
        known = commands(loop, core, datapath, reloading, configured)
        program = agent.of(loop, core, lambda: configured.config, datapath)
        with beside(loop, config.control, known, program, core.access):
            try:
                yield
            finally:
                configured.meanwhile.close()

    syns, datagrams = config.syn_queue, config.datagram_queue
    run(core, config.queue, firewall, ready, reread, syns, fast, drain, besides, datagrams)


def _load(config: Config, ledger: Ledger) -> KernelPath:
    """The kernel's path, in place; raises BpfError where the kernel refuses it."""
    limits = config.limits
    fast = KernelPath(limits.flows, ledger.counts, fast_path.directory(), limits.mappings)
    try:
        fast.attach()
    except BpfError:
        fast.detach()
        raise
    return fast
