"""What a packet and a connection cost with few and with very many connections.

    python -m tests.bench.growth [FLOWS...]

Each core is filled with connections by the packets that make them in life, with the kernel's
records beside; then packets of connections drawn at random go through the kernel's program and
through Python's. Needs root, and about 2 kB of memory for each connection.
"""

from __future__ import annotations

import random
import re
import statistics
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from balancer.core.engine import Balancer
from balancer.program.fast_path import KernelPath as SteeringPath
from common.core.keys import derive
from common.core.ledger import Occurrence, Outcome
from common.core.segment import ACK, build
from packetbridge.core.engine import Bridge
from packetbridge.program.fast_path import KernelPath as SplicingPath
from tests.resources import idle_balancer, idle_flows, idle_packetbridge
from tests.resources.idle_flows import BRIDGE, STAMPS, VIP

FLOWS = (1_000, 100_000, 1_000_000)
PACKETS = 20_000
ETHERNET = bytes(12) + b"\x08\x00"


@dataclass(frozen=True)
class Costs:
    """Nanoseconds of a packet, in the kernel's program and in Python; bytes of a flow in each."""

    program: str
    flows: int
    kernel_nanoseconds: float
    python_nanoseconds: float
    kernel_bytes: float
    python_bytes: float


def measure(program: str, flows: int) -> Costs:
    """In a process of its own: its memory is measured."""
    counts: Counter[Outcome | Occurrence] = Counter()
    keys = derive(bytes(32))
    path: SteeringPath | SplicingPath
    core: Balancer | Bridge
    if program == "balancer":
        path = SteeringPath(flows, counts)
        before = idle_flows.resident()
        core = idle_balancer.fill(flows, flows, keys, lambda _: None, path)
        entry, to, tos, translated = "steer", VIP, 0, "fast_packets"
    else:
        path = SplicingPath(flows, counts)
        before = idle_flows.resident()
        core = idle_packetbridge.fill(flows, flows, keys, lambda _: None, path)
        entry, to, tos, translated = "incoming", BRIDGE, 1 << 2, "fast_packets_up"
    after = idle_flows.resident()
    drawn = random.Random(1)
    packets = [_packet(drawn.randrange(flows), to, tos) for _ in range(PACKETS)]
    spent = [path.run(entry, ETHERNET + packet).nanoseconds for packet in packets]
    assert path.gauges()[translated] == PACKETS, f"all in the kernel: {path.gauges()}"
    now, started = idle_flows.NOW + flows / idle_flows.ARRIVALS, time.perf_counter()
    for packet in packets:
        core.packet(packet, now)
        core.out.clear()
    python = (time.perf_counter() - started) / PACKETS
    return Costs(
        program,
        flows,
        statistics.median(spent),
        python * 1e9,
        _map_bytes(path) / flows,
        (after - before) / flows,
    )


def _packet(number: int, to: bytes, tos: int) -> bytes:
    """An acknowledgment of a client's that its core has seen before."""
    address, port = idle_flows.client(number)
    seq, ack = 50_000, 60_000
    return build(address, to, port, 80, seq=seq, ack=ack, flags=ACK, options=STAMPS, tos=tos)


def _map_bytes(path: SteeringPath | SplicingPath) -> int:
    """What the kernel says that the records occupy."""
    about = Path(f"/proc/self/fdinfo/{path.records.fd}").read_text(encoding="ascii")
    found = re.search(r"^memlock:\s*(\d+)", about, re.MULTILINE)
    assert found, about
    return int(found[1])


@click.command()
@click.argument("flows", type=int, nargs=-1)
def main(flows: tuple[int, ...]) -> None:
    table = Table(title="Cost of a packet (median) and of a connection")
    columns = (
        "program",
        "flows",
        "kernel ns",
        "Python ns",
        "kernel bytes/flow",
        "Python bytes/flow",
    )
    for column in columns:
        table.add_column(column, justify="right")
    console = Console()
    for program in ("balancer", "packetbridge"):
        for count in flows or FLOWS:
            console.print(f"{program}: {count:,} flows ...")
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                costs = pool.submit(measure, program, count).result()
            table.add_row(
                program,
                f"{costs.flows:,}",
                f"{costs.kernel_nanoseconds:,.0f}",
                f"{costs.python_nanoseconds:,.0f}",
                f"{costs.kernel_bytes:,.0f}",
                f"{costs.python_bytes:,.0f}",
            )
    console.print(table)


if __name__ == "__main__":
    main()
