"""What an operator changes or asks of all connections, as chores: see common.core.chores."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import islice
from socket import inet_ntoa

from balancer.core.catalogue import Catalogue, build
from balancer.core.config import Config
from balancer.core.context import Context
from balancer.core.flow import Flow, State
from balancer.core.flow_table import FlowTable
from balancer.core.service import Paths
from common.core.chores import Part
from common.core.ledger import Occurrence

LOOKED_AT = 4096  # connections in one go: a millisecond


class Operated(Occurrence):
    """What was changed while running."""

    RECONFIGURED = "reconfigured"


def reconfiguring(
    context: Context,
    config: Config,
    paths: Paths,
    now: float,
    switch: Callable[[Catalogue, float], None],
    done: Callable[[str], None],
) -> Part:
    """The chore that builds another configuration's catalogue and has ``switch`` put it in force;
    then it calls ``done``, with "" or with the error that came of it."""

    def steps() -> Generator[None, None, Catalogue]:
        # begun when its turn has come: one asked for before may have taken its place by then
        return (yield from build(config, paths, now, context.catalogue))

    building = steps()

    def part(now: float) -> bool:
        try:
            next(building)
        except StopIteration as built:
            switch(built.value, now)
            done("")
            return False
        except Exception as error:  # of ours: whoever waits is not to wait for ever
            done(f"internal error: {error!r}")
            raise
        return True

    return part


def switch(context: Context, catalogue: Catalogue, config: Config, now: float) -> None:
    """Have another catalogue in force."""
    former, context.catalogue = context.catalogue, catalogue
    for pool in catalogue.pools.values():
        pool.take_over(now)
    for name in former.pools.keys() - catalogue.pools.keys():
        former.pools[name].retire()
    context.health.follow(catalogue.pools, now)
    context.table.configure(config.limits, config.timeouts)
    context.ledger.counts[Operated.RECONFIGURED] += 1


def finding_busy(table: FlowTable, told: Callable[[set[tuple[str, int]]], None]) -> Part:
    """The chore that looks at all connections and then calls ``told`` with VIP and port of each
    service that has one."""
    found: set[tuple[bytes, int]] = set()
    flows: Iterator[Flow] | None = None

    def part(_now: float) -> bool:
        nonlocal flows
        if flows is None:
            flows = table.every()
        some = list(islice(flows, LOOKED_AT))
        going_on = (flow for flow in some if not flow.closing and flow.state is not State.GONE)
        found.update((flow.key[4:8], flow.service.port) for flow in going_on)
        if not some:
            told({(inet_ntoa(vip), port) for vip, port in found})
        return bool(some)

    return part
