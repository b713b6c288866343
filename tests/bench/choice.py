"""What a choice costs, how evenly each policy spreads, and which keys move when a backend leaves.

    python -m tests.bench.choice [--quick]

Prints the Markdown tables of docs/choice.md. Without --quick it takes some five minutes, most of
them for rendezvous, which hashes a key with every backend's name.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from balancer.core import config
from balancer.core.choice.hashed import Table
from balancer.core.choice.maglev import finish, key_hash
from balancer.core.choice.member import Member
from balancer.core.choice.pool import Pool
from balancer.core.choice.ring import Ring
from balancer.core.choice.tables import Layout, building
from tests.bench import machine

HASHED = ("maglev", "ring", "rendezvous")
BOUND = 1.25
POLICIES = (
    *((policy, bound) for bound in (0.0, BOUND) for policy in HASHED),
    ("round-robin", 0.0),
    ("least-pending", 0.0),
    ("source", 0.0),
)
SLOTS = 65537
"""Of a Maglev table, and of the comparison in the Maglev paper."""

TIMES = 3

KEYLESS = ("round-robin", "least-pending")
Flow = tuple[bytes, bytes]
"""A key, and the address of the client that asks for it."""


@dataclass(frozen=True)
class Sizes:
    keys: int
    choices: int
    counts: tuple[int, ...] = (2, 10, 100)  # backends
    timed: tuple[int, ...] = (2, 10, 100, 1000)


FULL = Sizes(keys=100_000, choices=20_000)
QUICK = Sizes(keys=1_000, choices=500, counts=(2, 10), timed=(2, 10))


def configured(
    policy: str, bound: float, count: int, without: int | None = None, **others: int
) -> config.Pool:
    backends = tuple(
        config.Backend(f"backend{number}", f"10.0.{number // 250}.{number % 250 + 1}")
        for number in range(count)
        if number != without
    )
    return config.Pool("pool", backends, policy=policy, bounded_load=bound, **others)


def built(pool: Pool) -> Pool:
    for _ in pool.building():
        pass
    return pool


def name_of(policy: str, bound: float) -> str:
    return f"{policy}, c = {bound:g}" if bound else policy


def flows(count: int) -> list[Flow]:
    return [(b"/objects/%d" % n, (0x0A000000 + n).to_bytes(4, "big")) for n in range(count)]


def opened(pool: Pool, flow: Flow) -> Member:
    member = pool.choose(key_hash(flow[0]), flow[1], 0.0)
    assert member is not None
    pool.opened(member, flow[1], 0.0)
    return member


# --- the cost of a choice ---


def microseconds(policy: str, bound: float, count: int, choices: int) -> float:
    """To choose a backend, to open a flow there and to close it, ten of each being in progress:
    of processor time, the best of a few times."""
    pool = built(Pool(configured(policy, bound, count)))
    asked = flows(choices)
    for flow in asked[: 10 * count]:
        opened(pool, flow)
    spent = []
    for _ in range(TIMES):
        started = time.process_time()
        for flow in asked:
            pool.closed(opened(pool, flow), flow[1], 0.0)
        spent.append(time.process_time() - started)
    return min(spent) / choices * 1e6


def costs(sizes: Sizes) -> Iterator[list[str]]:
    yield ["µs", *(f"N = {count}" for count in sizes.timed)]
    for policy, bound in POLICIES:
        row = [name_of(policy, bound)]
        for count in sizes.timed:
            slow = max(1, count // 20) if policy == "rendezvous" else 1
            row.append(f"{microseconds(policy, bound, count, sizes.choices // slow):.1f}")
        yield row


def building_costs(sizes: Sizes) -> Iterator[list[str]]:
    """Of a table, and of its longest step."""
    yield ["ms (longest step)", *(f"N = {count}" for count in sizes.timed)]
    for policy in HASHED:
        row = [policy]
        for count in sizes.timed:
            whole, longest = min(_steps(policy, count) for _ in range(TIMES))
            row.append(f"{whole * 1e3:.1f} ({longest * 1e3:.1f})")
        yield row


def _steps(policy: str, count: int) -> tuple[float, float]:
    """Seconds of processor time that building takes, and that its longest step does."""
    pool, steps = Pool(configured(policy, 0.0, count)), []
    began = time.process_time()
    for _ in pool.building():
        steps.append(time.process_time() - began)
        began = time.process_time()
    return sum(steps), max(steps)


def reloading() -> Iterator[list[str]]:
    """1,000 backends in 100 pools, each of them with one backend less than before."""
    yield ["policy", "ms in all", "ms of the longest step"]
    for policy in HASHED:
        before = [built(Pool(configured(policy, 0.0, 11))) for _ in range(100)]
        after = configured(policy, 0.0, 10)
        steps = []
        for pool in before:
            began = time.process_time()
            new = pool.reconfigured(after, 0.0)
            for _ in new.building():
                steps.append(time.process_time() - began)
                began = time.process_time()
            new.take_over(0.0)
            steps.append(time.process_time() - began)
        yield [policy, f"{sum(steps) * 1e3:.0f}", f"{max(steps) * 1e3:.1f}"]


# --- balance, and who moves ---


def placed(pool: Pool, asked: Sequence[Flow]) -> list[str]:
    """Who has each of the flows, all of them being in progress at the end; then they are closed."""
    members = [opened(pool, flow) for flow in asked]
    for member, flow in zip(members, asked, strict=True):
        pool.closed(member, flow[1], 0.0)
    return [member.name for member in members]


@dataclass(frozen=True)
class Found:
    """Parts of all keys: who is elsewhere while one backend is down, when it is up again, and in a
    pool that never had it."""

    peak: float  # of the mean
    down: float
    back: float
    removed: float


def found(policy: str, bound: float, count: int, asked: Sequence[Flow]) -> Found:
    pool = built(Pool(configured(policy, bound, count)))
    before = placed(pool, asked)
    leaver = count // 2
    member = pool.find(f"backend{leaver}")
    assert member is not None
    pool.mark_down(member, "benchmark", 0.0)
    during = placed(pool, asked)
    pool.mark_up(member, 0.0)
    after = placed(pool, asked)
    without = during
    if policy in HASHED:
        without = placed(built(Pool(configured(policy, bound, count, leaver))), asked)
    return Found(
        max(Counter(before).values()) / (len(asked) / count),
        _moved(before, during),
        _moved(before, after),
        _moved(before, without),
    )


def _moved(one: Sequence[str], other: Sequence[str]) -> float:
    return sum(a != b for a, b in zip(one, other, strict=True)) / len(one)


def spreading(sizes: Sizes) -> Iterator[list[str]]:
    """A row for each policy: peak / mean, then what moves, for each number of backends."""
    yield [
        "policy",
        *(f"peak/mean, N = {count}" for count in sizes.counts),
        *(f"{what}, N = {n}" for n in sizes.counts for what in ("down", "removed", "after return")),
    ]
    asked = flows(sizes.keys)
    for policy, bound in POLICIES:
        results = [found(policy, bound, count, asked) for count in sizes.counts]
        row = [name_of(policy, bound), *(f"{one.peak:.3f}" for one in results)]
        for one in results:
            parts = (one.down, one.removed, one.back)
            row += ["-"] * 3 if policy in KEYLESS else [f"{part:.1%}" for part in parts]
        yield row


def skewed(sizes: Sizes) -> Iterator[list[str]]:
    """Peak / mean where the n-th key is asked for 1/n as often as the first (Zipf)."""
    yield ["policy", *(f"N = {count}" for count in sizes.counts)]
    every = flows(sizes.keys)
    frequency = [1 / rank for rank in range(1, sizes.keys + 1)]
    asked = random.Random(1).choices(every, frequency, k=sizes.keys)
    for policy, bound in POLICIES:
        if policy not in HASHED:
            continue
        row = [name_of(policy, bound)]
        for count in sizes.counts:
            had = Counter(placed(built(Pool(configured(policy, bound, count))), asked))
            row.append(f"{max(had.values()) / (len(asked) / count):.3f}")
        yield row


# --- of the tables themselves ---


def peak(policy: str, count: int) -> float:
    """The largest part of all hashes that a backend has, in parts of the mean: exactly."""
    table = _table(policy, count)
    parts: Counter[int] = Counter()
    if isinstance(table, Ring):
        points = [(point >> 16, point & 0xFFFF) for point in table.points]
        for (before, _), (place, member) in zip([points[-1], *points[:-1]], points, strict=True):
            parts[member] += (place - before) % 2**48
    else:
        parts.update(table.lookup(slot) for slot in range(SLOTS))
    return max(parts.values()) / (parts.total() / count)


def _table(policy: str, count: int) -> Table:
    layout = Layout.of(
        configured(policy, 0.0, count, table_size=SLOTS), {f"backend{n}": 1 for n in range(count)}
    )
    assert layout is not None
    return finish(building(layout))


def tables(sizes: Sizes) -> Iterator[list[str]]:
    yield ["policy", *(f"N = {count}" for count in sizes.timed)]
    for policy, name in (("maglev", "maglev, 65,537 slots"), ("ring", "ring, 160 points each")):
        yield [name, *(f"{peak(policy, count):.3f}" for count in sizes.timed)]


def as_in_the_paper() -> Iterator[list[str]]:
    """Section 5.3 of the Maglev paper: as many entries, 1000 backends, each method filling them."""
    yield ["method", "most entries, of the mean", "in the paper"]
    for policy, paper in (("maglev", "almost 1"), ("ring", "1.297"), ("rendezvous", "1.495")):
        table = _table(policy, 1000)
        entries: Counter[int] = Counter()
        for slot in range(SLOTS):
            entries[table.lookup(slot if policy == "maglev" else slot * 2**64 // SLOTS)] += 1
        yield [policy, f"{max(entries.values()) / (SLOTS / 1000):.3f}", paper]


def show(title: str, rows: Iterator[list[str]]) -> None:
    """A table in Markdown, line by line as it is measured."""
    click.echo(f"\n{title}\n")
    for number, row in enumerate(rows):
        click.echo("| " + " | ".join(row) + " |")
        if not number:
            click.echo("| --- |" + " ---: |" * (len(row) - 1))


@click.command()
@click.option("--quick", is_flag=True, help="Less of everything: some seconds, and rougher.")
def main(quick: bool) -> None:
    """Measure the policies of choice by themselves: no packets, no other program."""
    sizes = QUICK if quick else FULL
    about = machine.description()
    click.echo(f"{about['processors']}, Python {about['Python']}; {sizes.keys:,} keys")
    show("A choice, with a flow opened and closed", costs(sizes))
    show("Building a table", building_costs(sizes))
    show("A reload of 100 pools of 10 backends, every table anew", reloading())
    show("Balance, and which keys are elsewhere", spreading(sizes))
    show("Balance where some keys are asked for more than others", skewed(sizes))
    show("Largest part of all hashes, of the mean", tables(sizes))
    if not quick:
        show(f"{SLOTS:,} entries, 1,000 backends", as_in_the_paper())


if __name__ == "__main__":
    main()
