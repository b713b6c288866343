"""What `packetbridge doctor` looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

from common.adapters import checks, routes
from common.program import examination, kernel_path, own_rules
from common.program.examination import Line, Prerequisite, Verdict
from packetbridge.core.config import Config
from packetbridge.core.rules import rules
from packetbridge.program import passing, startup
from packetbridge.program.fast_path import OBJECT, KernelPath

BALANCERS_WORD = (
    "the DSCP that arrives, and the clocks: `balancer doctor` on the balancer's host says"
)


def examine(config: Config) -> Iterator[Line]:
    root = not checks.privileges("packetbridge")
    queues = (config.queue,)
    local = routes.local_addresses()
    prerequisites = [
        *examination.program("packetbridge", config.key_file, queues),
        *startup.prerequisites(config),
        *_kernel_path(config, local),
        *own_rules.prerequisites(
            "packetbridge", *rules(config, local), queues, startup.interfaces(config)
        ),
        examination.other_rules(partial(passing.eaten_packets, config)),
    ]
    yield from examination.examine(prerequisites, root)
    yield Line(Verdict.NOT_JUDGED, "way from balancers", BALANCERS_WORD)


def _kernel_path(config: Config, local: dict[str, str]) -> Iterator[Prerequisite]:
    yield from kernel_path.prerequisites(
        config.datapath, OBJECT, lambda: KernelPath(config.limits.flows, Counter())
    )
    if config.datapath != "nfqueue" and any(b.server_address in local for b in config.backends):
        yield Prerequisite(
            "xt_bpf",
            "a rule asks an eBPF program which packets are Python's",
            partial(checks.firewall, ['-m bpf --bytecode "1,6 0 0 0" -j ACCEPT'], []),
            root=True,
        )
