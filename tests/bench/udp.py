"""A DNS server behind the VIP, beside the same server asked directly and behind a kernel's DNAT.

    python -m tests.bench.udp [--rounds 5] [--seconds 3] [--way "kernel DNAT"] [--check]

Needs root. dnsperf asks as fast as it is answered, each way for some seconds in turn, round by
round: what disturbs the machine disturbs them alike, and ratios are taken within a round.
"""

from __future__ import annotations

import json
import resource
import statistics
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.bench import machine
from tests.bench.hosts import LABS, Hosts
from tests.bench.meters import process
from tests.e2e import datagrams
from tests.e2e.lab import SERVER1, VIP, Lab
from tests.e2e.nameservers import PORT, Load, dnsperf, nameservers
from tests.e2e.pooled import FIRST

PEERS = Path(__file__).parent / "peers"
DIRECT, DNAT, OURS, SLOW = "direct", "kernel DNAT", "ours (ebpf)", "ours (nfqueue)"
SOCKETS = 8  # of dnsperf's, each with a port of its own
GOAL = 0.8  # of direct, on the kernel's path


@dataclass(frozen=True)
class Way:
    """How a client reaches the server, from which host."""

    name: str
    lab: Hosts
    host: str
    address: str

    def asks(self, seconds: float) -> Round:
        options = ("-l", f"{seconds}", "-c", f"{SOCKETS}", "-t", "1", "-T", "2")
        spent = processor_time(self.lab)
        load = dnsperf(self.lab, *options, at=self.address, host=self.host, seconds=seconds)
        return Round(load, spent() / load.sent)


@dataclass(frozen=True)
class Round:
    """``cost`` is processor seconds for a query, of dnsperf, of the server and of the kernel's
    threads. All hops of a datagram are in it, as the kernel makes them in the sender's time; what
    else the machine does is not."""

    load: Load
    cost: float


def processor_time(lab: Lab) -> Callable[[], float]:
    """Gives the seconds that were spent since this was called."""
    comms = {path.parent.name: path for path in Path("/proc").glob("[0-9]*/comm")}
    kernel = [int(pid) for pid, path in comms.items() if _name(path).startswith("ksoftirqd")]
    pids = kernel + [pid for pid in lab.pids("backend1") if _name(comms[f"{pid}"]) == "knotd"]
    before = sum(map(process, pids)) + _children()
    return lambda: sum(map(process, pids)) + _children() - before


def _name(comm: Path) -> str:
    try:
        return comm.read_text().strip()
    except OSError:
        return ""  # it has ended


def _children() -> float:
    """Of those that have ended: dnsperf."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# By name: the lab, from which host, and which address is asked. The second client asks the server
# itself, as in all tests: the first one's addresses belong to the VIP's.
WAYS = {
    DIRECT: ("peers", "client2", SERVER1),
    DNAT: ("peers", "client", VIP),
    OURS: ("ebpf", "client", VIP),
    SLOW: ("nfqueue", "client", VIP),
}


@contextmanager
def ways(names: Collection[str]) -> Iterator[list[Way]]:
    """These, to the server of the first backend, each ready while the others are idle."""
    with ExitStack() as stack:
        needed = dict.fromkeys(WAYS[name][0] for name in names)
        labs = {name: stack.enter_context(Hosts(name, LABS[name])) for name in needed}
        for name, lab in labs.items():
            stack.enter_context(nameservers(lab))
            if name == "peers":
                _dnat(lab)
            else:
                stack.enter_context(datagrams.ready(lab, lab.datapath, PORT))
                stack.enter_context(datagrams.balanced(lab, backends=FIRST, port=PORT))
        yield [Way(name, labs[WAYS[name][0]], *WAYS[name][1:]) for name in names]


def _dnat(lab: Hosts) -> None:
    """The rules go with the host."""
    text = (PEERS / "dnat-udp.rules").read_text().replace("@VIP@", VIP)
    for line in text.replace("@SERVER1@", SERVER1).splitlines():
        if line.startswith("-"):
            lab.run("balancer", "iptables", *line.split())


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds: answers a second, their part of the direct way's in the same round,
    latency in ms, processor time for a query in microseconds; and of all rounds together the
    queries that got no answer."""

    rate: float
    least: float
    most: float
    to_direct: float
    latency: float
    cost: float
    sent: int
    lost: int


def figures(rounds: dict[str, list[Round]]) -> dict[str, Figures]:
    direct = [each.load.rate for each in rounds[DIRECT]]
    found = {}
    for name, measured in rounds.items():
        loads = [each.load for each in measured]
        rates = [load.rate for load in loads]
        ratios = [rate / of for rate, of in zip(rates, direct, strict=True)]
        found[name] = Figures(
            statistics.median(rates),
            min(rates),
            max(rates),
            statistics.median(ratios),
            statistics.median(load.latency for load in loads) * 1e3,
            statistics.median(each.cost for each in measured) * 1e6,
            sum(load.sent for load in loads),
            sum(load.lost for load in loads),
        )
    return found


def measure(
    console: Console, names: Collection[str], rounds: int, seconds: float
) -> dict[str, list[Round]]:
    console.print("starting the labs ...")
    found: dict[str, list[Round]] = {}
    with ways(names) as all_of_them:
        for way in all_of_them:
            way.asks(0.5)  # neighbours are known, and code is compiled
        for number in range(1, rounds + 1):
            for way in all_of_them:
                measured = way.asks(seconds)
                found.setdefault(way.name, []).append(measured)
                rate = measured.load.rate
                console.print(f"round {number}: {way.name:16} {rate:9,.0f} answers/s")
    return found


def show(console: Console, found: dict[str, Figures]) -> None:
    columns = ("median", "least to most", "/ direct", "latency ms", "CPU µs", "queries", "lost")
    table = Table(title="DNS by UDP, answers a second", title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, one in found.items():
        table.add_row(
            name,
            f"{one.rate:,.0f}",
            f"{one.least:,.0f} to {one.most:,.0f}",
            f"{one.to_direct:.2f}",
            f"{one.latency:.2f}",
            f"{one.cost:.1f}",
            f"{one.sent:,}",
            f"{one.lost:,}",
        )
    console.print(table)


@click.command()
@click.option("--way", "chosen", multiple=True, type=click.Choice([*WAYS]), help="Only this.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=3.0, show_default=True, help="Of each measurement.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".bench"),
    show_default=True,
    help="Where udp.json is written.",
)
@click.option("--check", is_flag=True, help="Exit with 1 where the goal is missed.")
def main(chosen: tuple[str, ...], rounds: int, seconds: float, output: Path, check: bool) -> None:
    """Measure DNS by UDP: direct, behind a kernel's DNAT, and on both of our data paths."""
    console = Console(width=None if Console().is_terminal else 120)
    names = [name for name in WAYS if not chosen or name in {DIRECT, *chosen}]
    measured = measure(console, names, rounds, seconds)
    found = figures(measured)
    show(console, found)
    about = machine.description()
    for name, value in about.items():
        console.print(f"{name}: {value}", highlight=False, markup=False)
    output.mkdir(parents=True, exist_ok=True)
    written = {
        "machine": about,
        "figures": {name: asdict(one) for name, one in found.items()},
        "rounds": {name: [each.load.rate for each in all_] for name, all_ in measured.items()},
    }
    (output / "udp.json").write_text(json.dumps(written, indent=1) + "\n")
    if OURS not in found:
        return
    reached = found[OURS].to_direct >= GOAL
    said = f"{found[OURS].to_direct:.2f} of direct on the kernel's path, the goal is {GOAL}"
    console.print(said if reached else f"[red]missed[/red] {said}", highlight=False)
    if check and not reached:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
