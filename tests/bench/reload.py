"""What a reload costs, and whether packets wait for it: the running balancer, in the lab.

    python -m tests.bench.reload [--pools 100] [--backends 10] [--times 3]

Each reload replaces every pool, policy, weight, backend and bridge by others. Meanwhile a client
asks again and again: on a standing connection, all of whose packets pass the balancer's program,
and by new ones. What the slowest of them took is the longest pause of packets, and whatever else
the machine did; what it took without a reload is shown beside it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from tests.e2e import web
from tests.e2e.conftest import brought_up
from tests.e2e.controlled import client
from tests.e2e.lab import BRIDGE1, VIP, Lab
from tests.e2e.pooled import in_force, pool, service, write

POLICIES = ("maglev", "ring", "rendezvous", "least-pending", "round-robin", "source")
NETWORK = "10.9"  # of bridges that answer pings, and nothing else
QUIET_SECONDS = 1.0
PAUSE = 0.002  # seconds: the machine is to have time for the reload


@dataclass(frozen=True)
class Measured:
    """In seconds: a reload, from the command to its answer; and what the slowest request of those
    that were made meanwhile took, and without a reload."""

    whole: float
    slowest: float
    slowest_before: float
    requests: int


def configuration(generation: int, pools: int, backends: int) -> str:
    """Pools of which two generations have nothing in common, with a route to each; what no route
    takes is the lab's own servers'."""
    parts = [service("own"), pool("own")]
    for number in range(pools):
        name = f"g{generation}-{number}"
        members = ", ".join(
            f'{{ name = "{name}-{each}", weight = {1 + (each + generation) % 3}, '
            f'bridge = "{_bridge(generation, number * backends + each)}" }}'
            for each in range(backends)
        )
        policy = POLICIES[(number + generation) % len(POLICIES)]
        parts.append(f'\n[[routes]]\nhost = "{name}.test"\npath_prefix = "/{number}/"\n')
        parts.append(f'pool = "{name}"\n')
        parts.append(pool(name, members, f'policy = "{policy}"'))
    return "".join(parts)


def _bridge(generation: int, number: int) -> str:
    return f"{NETWORK}.{generation % 4 * 64 + number // 250}.{number % 250 + 1}"


@contextmanager
def bridges(lab: Lab) -> Iterator[None]:
    """All of NETWORK is the first bridge's host."""
    whole = f"{NETWORK}.0.0/16"
    lab.run("backend1", "ip", "address", "add", whole, "dev", "lo")
    lab.run("balancer", "ip", "route", "add", whole, "via", BRIDGE1)
    try:
        yield
    finally:
        lab.run("balancer", "ip", "route", "delete", whole)
        lab.run("backend1", "ip", "address", "delete", whole, "dev", "lo")


class Asking:
    """A client that asks once in some milliseconds, in a thread; ``taken`` are the seconds of each
    answer, and of each new connection."""

    def __init__(self, lab: Lab) -> None:
        self.taken: list[float] = []
        self._over = False
        self._thread = threading.Thread(target=lab.inside, args=["client", self._run], daemon=True)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join(20)

    def during(self, seconds: float) -> float:
        """The slowest answer of so many seconds."""
        before = len(self.taken)
        time.sleep(seconds)
        return max(self.taken[before:])

    def _run(self) -> None:
        ask = web.request("/1k")
        with socket.create_connection((VIP, 80), 10) as standing:
            while not self._over:
                began = time.monotonic()
                standing.sendall(ask)
                web.response(standing)
                asked = time.monotonic()
                with socket.create_connection((VIP, 80), 10):
                    self.taken += [asked - began, time.monotonic() - asked]
                time.sleep(PAUSE)


def measure(lab: Lab, pools: int, backends: int, times: int) -> Iterator[Measured]:
    """Reloads that change everything, one after the other."""
    with bridges(lab), in_force(lab, configuration(0, pools, backends)), Asking(lab) as asking:
        for generation in range(1, times + 1):
            before = asking.during(QUIET_SECONDS)
            write(lab, configuration(generation, pools, backends))
            done = len(asking.taken)
            began = time.monotonic()
            with client(lab) as commands:
                mistakes = commands.ask("reload")["mistakes"]
            whole = time.monotonic() - began
            assert not mistakes, mistakes
            asking.during(QUIET_SECONDS)  # the agent hears of it, and what was goes
            meanwhile = asking.taken[done:]
            yield Measured(whole, max(meanwhile), before, len(meanwhile))


@click.command()
@click.option("--pools", default=100, show_default=True)
@click.option("--backends", default=10, show_default=True, help="In each pool.")
@click.option("--times", default=5, show_default=True, help="So many reloads.")
def main(pools: int, backends: int, times: int) -> None:
    """Measure reloads of the running balancer; as root."""
    datapath = os.environ.get("LAB_DATAPATH", "nfqueue")
    click.echo(f"{pools * backends:,} backends in {pools} pools, all of them replaced; {datapath}")
    with brought_up(Lab(datapath)) as lab:
        for each in measure(lab, pools, backends, times):
            click.echo(
                f"reload {each.whole * 1e3:4.0f} ms, slowest of {each.requests:,} answers "
                f"meanwhile {each.slowest * 1e3:.1f} ms, {each.slowest_before * 1e3:.1f} ms before"
            )


if __name__ == "__main__":
    main()
