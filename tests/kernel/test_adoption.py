"""After a restart: all that the kernel has is taken over, and what is configured no more is let go.

The records are those that an earlier run would have left."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from balancer.core.flow import State
from balancer.program.fast_path import KernelPath as SteeringPath
from common.core.keys import Keyring, derive
from common.core.ledger import Ledger
from packetbridge.core import config
from packetbridge.core.engine import Bridge
from packetbridge.core.flow_table import FlowTable
from packetbridge.core.sources import Sources
from packetbridge.program.fast_path import KernelPath as SplicingPath
from tests.kernel.flows import DSCP, handed, service, spliced
from tests.kernel.packets import Packets
from tests.unit import balancer_stage, models

pytestmark = pytest.mark.root

FLOWS = 2000
KEPT_HERE = ("doors", "guises", "mappings", "ways")
GONE = bytes((203, 0, 113, 99))  # a bridge that is not configured


def test_of_the_balancer() -> None:
    path, services = SteeringPath(FLOWS, Counter()), (service(GONE), service())
    for number in range(FLOWS):
        flow = handed(number, Packets(number), services[number % 2])
        flow.state = State.HANDED
        path.steer(flow)
    path.settle()
    core = balancer_stage.Stage(fast=path).core
    while core.next_deadline() == 0:
        core.timers(balancer_stage.T0, 0)
    counts = core.counts()
    assert (counts["flows_adopted"], counts["flows_not_adopted"]) == (FLOWS // 2, FLOWS // 2)
    assert len(core.table.handed) == len(list(path.records.keys())) == FLOWS // 2


def test_of_the_bridge() -> None:
    path = SplicingPath(FLOWS, Counter())
    flows = [spliced(n, Packets(n), DSCP if n % 2 else DSCP + 1) for n in range(FLOWS)]
    for flow in flows:
        path.follow(flow)
    path.settle()
    core = Bridge(
        [flows[1].entry],
        config.Limits(),
        config.Timeouts(),
        Keyring([derive(models.SHARED_KEY)]),
        Ledger(),
        0,
        0,
        path,
    )
    while core.next_deadline() == 0:
        core.timers(0, 0)
    counts = core.counts()
    assert (counts["flows_adopted"], counts["flows_not_adopted"]) == (FLOWS // 2, FLOWS // 2)
    assert len(core.table) == len(list(path.records.keys())) // 2 == FLOWS // 2


def test_a_table_of_another_size_costs_the_others_nothing(directory: Path) -> None:
    """As when a bridge that is started again has its first server of datagrams."""
    first, flow = SplicingPath(2, Counter(), directory, 4096), spliced(0, Packets(0))
    first.follow(flow)
    first.settle()
    second = SplicingPath(2, Counter(), directory, 8192)
    assert len(list(second.records.keys())) == 2
    third = SplicingPath(4, Counter(), directory, 8192)
    assert not list(third.records.keys())
    assert sorted(each.name.split("-")[0] for each in directory.iterdir()) == sorted(KEPT_HERE)


def test_a_source_that_the_kernel_goes_on_with_is_not_given_to_another() -> None:
    """Its connection, not taken over yet, would be ended at the server, and its record replaced."""
    path, flow = SplicingPath(2, Counter()), spliced(0, Packets(0))
    path.follow(flow)
    path.settle()
    table = FlowTable(config.Limits(), config.Timeouts(), Ledger(), path, 0)
    assert flow.outbound in table
    source = Sources().source(flow.entry, flow.inbound[:4], 1024, table)
    assert source is not None
    assert source[4:] != flow.inbound[8:10]
