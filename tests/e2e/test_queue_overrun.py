"""More packets than a program takes, or a program that stands still: the kernel drops what has no
room, and says how many; then all goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.inet import IP, TCP

from tests.e2e.lab import BRIDGE1, CLIENT, VIP, Lab, until
from tests.e2e.load import download, load
from tests.e2e.raw import FIRST_PORT, LAST_PORT, RawSender, raw_sender
from tests.soak import Amount

pytestmark = pytest.mark.root

QUEUE = 16384  # packets that it holds
FLOODS = {  # what comes to a host, of connections that nobody knows
    "balancer": {"dst": VIP, "flags": "A"},
    "backend1": {"dst": BRIDGE1, "flags": "A", "tos": 1 << 2},
}


@contextmanager
def stopped(lab: Lab, program: str) -> Iterator[None]:
    """The program stands still for a while, as on a host that is out of memory or processors."""
    os.kill(lab.pid(program), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(lab.pid(program), signal.SIGCONT)


def flood(sender: RawSender, host: str, count: int) -> None:
    """Packets that are queued there, as fast as they can be sent."""
    fields = dict(FLOODS[host])
    ip = IP(src=CLIENT, dst=fields.pop("dst"), tos=fields.pop("tos", 0))
    packets = [
        bytes(ip / TCP(sport=port, dport=80, **fields)) for port in range(FIRST_PORT, LAST_PORT)
    ]
    for number in range(count):
        sender.send(packets[number % len(packets)], host)


@pytest.mark.parametrize("program", FLOODS)
def test_a_queue_that_is_full(
    lab: Lab, program: str, amount: Amount, report: Callable[[str], None]
) -> None:
    """Nothing fails for it: what was dropped is sent again."""
    rounds, packets = amount(1, 5), QUEUE + amount(4000, 40_000)
    counted, start, before = lab.growth(program), lab.log_end(program), lab.lost(program)
    size, rate = amount(("20m", "5M"), ("100m", "1M"))
    path = size if program == "balancer" else lab.path_for(size, program)
    with (
        raw_sender(lab) as sender,
        download(lab, path, rate) as whole,
        load(lab, 4, 20) as requests,
    ):
        for number in range(rounds):
            requests.goes_on(10)
            whole.goes_on(100_000)
            lost = lab.lost(program)
            with stopped(lab, program):
                flood(sender, program, packets)
                until(lambda: lab.lost(program) > lost, 5, "the queue overruns")  # noqa: B023
            requests.goes_on(20, 20)
            whole.goes_on(100_000, 20)
            amount.progress(number + 1, rounds)
        whole.arrives(150)
    lost = lab.lost(program) - before
    assert requests.tally.failures == []
    assert counted("kernel_queue_lost") + counted("kernel_syn_queue_lost") == lost > 0
    assert " WARNING kernel_queue_lost: " in lab.log(program, start)
    report(
        f"{program}: {rounds * packets:,} packets while it stood, {lost:,} dropped; "
        f"{len(requests.tally.seconds)} requests, slowest {requests.tally.slowest:.1f} s"
    )
