"""What holds of a core's books and tables at any time, whatever has come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain

from balancer.core import flow as balancers
from balancer.core.choice.hashed import Hashed
from balancer.core.choice.member import Member
from balancer.core.choice.pool import Pool
from balancer.core.engine import Balancer
from packetbridge.core.engine import Bridge
from packetbridge.core.entry import IN_PROGRESS, Entry
from packetbridge.core.states import State


def balancer_adds_up(core: Balancer, known: Iterable[Member]) -> None:
    """Each member's flows in progress, and the bytes kept of requests; ``known`` are members that
    have been in some pool, besides those that are."""
    table = core.table
    holding: Counter[Member] = Counter()
    kept = 0
    for flow in table.handed.values():
        assert flow.state is balancers.State.HANDED
        assert flow.target is not None
        assert flow.holds is not flow.closing, "a place is held until the connection is over"
        holding[flow.target.member] += flow.holds
        kept += 0 if flow.head is None else flow.head.kept_bytes
    for flow in table.waiting.values():
        assert flow.state in (balancers.State.WAITING, balancers.State.CLOSED)
        assert not flow.holds
        kept += 0 if flow.head is None else flow.head.kept_bytes
    for flow in table.opening.values():
        assert flow.state is balancers.State.OPENING
        assert flow.target is not None
        assert flow.holds is not flow.closing
        holding[flow.target.member] += flow.holds
    assert table.buffered_bytes == kept
    for key, mapping in core.datagrams.table.mappings.items():
        assert mapping.key == key
        assert not mapping.gone
        holding[mapping.target.member] += 1
    pools = core.pools.values()
    there = chain.from_iterable((*pool.members, *pool.departed) for pool in pools)
    for member in {*holding, *known, *there}:
        assert member.pending == holding[member], member
    for pool in pools:
        policy = pool._policy
        if isinstance(policy, Hashed) and not pool._changed and pool._predecessor is None:
            among = policy._among
            assert among.in_progress == sum(each.pending for each in policy._takers)


def chosen_alike(pool: Pool, hash64: int, source: bytes, now: float) -> None:
    """Who is chosen is the first of the order that is told; and only who takes new flows. Each look
    may be the one that brings a new table, so that is built before."""
    for _ in pool.building():
        pass
    order = pool.order(hash64, source, now)
    chosen = pool.choose(hash64, source, now)
    assert chosen is (order[0] if order else None)
    takers = [member for member in pool.members if member.taking]
    assert set(order) == set(takers)
    assert len(order) == len(takers)
    for tried in range(1, len(order) + 1):
        after = pool.choose(hash64, source, now, order[:tried])
        assert (after is None) == (tried == len(order)), pool.configured.policy
        assert after not in order[:tried]


def bridge_adds_up(core: Bridge, known: Iterable[Entry]) -> None:
    """Each way's flows, and the bytes held; ``known`` are ways besides those that there are."""
    table = core.table
    flows: Counter[Entry] = Counter()
    asking: Counter[Entry] = Counter()
    held = 0
    for flow in table.outbound.values():
        assert table.inbound[flow.entry.dscp].get(flow.inbound) is flow
        flows[flow.entry] += flow.state in IN_PROGRESS
        if flow.state is State.SYN_SENT:
            asking[flow.entry] += 1
            assert flow in flow.entry.asking
        held += 0 if flow.opening is None else flow.opening.held_bytes
    for mapping in core.datagrams.mappings._outbound.values():
        assert core.datagrams.mappings._inbound[mapping.entry, mapping.inbound] is mapping
        flows[mapping.entry] += 1
    assert table.half_open.keys() <= table.outbound.keys()
    assert sum(map(len, table.inbound)) == len(table.outbound)
    assert table.held_bytes == held
    for entry in {*flows, *known, *core.entries}:
        assert entry.figures.flows == flows[entry]
        assert len(entry.asking) == asking[entry]
