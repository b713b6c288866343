"""What `balancer doctor` looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

from balancer.core.config import Config
from balancer.core.rules import rules
from balancer.program import passing, startup, way_to_bridges
from balancer.program.fast_path import OBJECT, KernelPath
from common.adapters import checks
from common.program import examination, kernel_path, own_rules
from common.program.examination import Line


def examine(config: Config) -> Iterator[Line]:
    root = not checks.privileges("balancer")
    queues = tuple(config.queues.values())
    prerequisites = [
        *examination.program("balancer", config.key_file, queues),
        *startup.prerequisites(config),
        *kernel_path.prerequisites(
            config.datapath, OBJECT, lambda: KernelPath(config.limits.flows, Counter())
        ),
        *own_rules.prerequisites("balancer", *rules(config), queues, startup.interfaces(config)),
        examination.other_rules(partial(passing.eaten_packets, config)),
    ]
    yield from examination.examine(prerequisites, root)
    yield from way_to_bridges.examine(config, root)
