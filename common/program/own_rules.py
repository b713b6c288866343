"""The program's rules among those that the host has besides, and its filters at tc."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from functools import partial

from common.adapters import firewall_checks
from common.adapters.alone import runs
from common.adapters.bpf import attachment
from common.adapters.checks import Problem
from common.program.datapath import pin_directory
from common.program.examination import Prerequisite


def prerequisites(
    program: str,
    prerouting: Sequence[str],
    output: Sequence[str],
    queues: Container[int],
    interfaces: Sequence[str],
) -> Iterator[Prerequisite]:
    """``interfaces`` are those that the program's packets take."""
    if runs(program) is not None:
        look = partial(firewall_checks.in_place, program, prerouting, output)
        yield Prerequisite("rules in place", "and first in the raw table", look, root=True)
        if pin_directory(program).is_dir():
            where = ", ".join(interfaces)
            filters = partial(_filters, program, interfaces)
            yield Prerequisite("filters in place", f"at tc of {where}", filters, root=True)
    yield Prerequisite(
        "our queues",
        "no other rule sends anything there",
        partial(firewall_checks.queue_intruders, queues),
        root=True,
    )


def _filters(program: str, interfaces: Sequence[str]) -> list[Problem]:
    gone = attachment.without(f"l3dsr-{program}", interfaces)
    what = f"tc of {', '.join(gone)} has lost the filters of datapath ebpf, or has not had them"
    return [Problem(what, f"systemctl restart {program}")] if gone else []
