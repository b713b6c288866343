"""Floods of datagrams from forged addresses take what is theirs, and nothing of connections'."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

import pytest

from common.core.datagram import build
from tests.e2e import web
from tests.e2e.datagrams import PORT, service
from tests.e2e.flooding import flooding
from tests.e2e.lab import LAB, VIP, Lab, until
from tests.e2e.pooled import FIRST, extended, pool
from tests.soak import Amount

pytestmark = pytest.mark.root

FASTEST = 0  # the rate that means: without a pause
MAPPINGS = 1000
SOURCES = 50_000


def test_connections_do_not_wait_behind_datagrams(
    lab: Lab, amount: Amount, report: Callable[[str], None]
) -> None:
    """A flood of new clients' fills a queue of its own, and a table of bounded size."""
    body = (LAB / "www" / "1k").read_bytes()
    more = service(PORT) + pool(backends=FIRST) + f"[limits]\nmappings = {MAPPINGS}\n"
    with extended(lab, "balancer", more):
        grown = lab.growth("balancer")
        seconds = amount(2, 20)
        with flooding(lab, _datagrams(), FASTEST, seconds) as flood:
            until(lambda: grown("mappings_evicted") > 0, 5, "the table is full")
            served = web.at_once(lab, 100, 4, "/1k", body)
        mappings = grown("mappings_made") - sum(
            grown(f"mappings_{why}") for why in ("evicted", "expired", "moved")
        )
    report(
        f"{flood.rate:,.0f} datagrams/s, {grown('mappings_made'):,} clients, "
        f"{grown('kernel_datagram_queue_lost'):,} lost in the kernel's queue; of 100 requests the "
        f"slowest took {max(served.seconds):.3f} s"
    )
    assert served.failures == []
    assert grown("kernel_queue_lost") == grown("kernel_syn_queue_lost") == 0
    assert mappings <= MAPPINGS
    assert sorted(served.seconds)[50] < 0.5  # behind a full queue: as long as that takes to judge


def _datagrams() -> list[bytes]:
    """One of each source."""
    dice, vip = random.Random(7), socket.inet_aton(VIP)
    return [
        build(b"\x0a" + dice.randbytes(3), vip, dice.randrange(1024, 65536), PORT, b"question")
        for _ in range(SOURCES)
    ]
