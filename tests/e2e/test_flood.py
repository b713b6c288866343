"""SYN floods from spoofed sources: no memory is spent on them, and honest clients are served."""

from __future__ import annotations

import random
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.core.segment import SYN, build
from common.core.tcp_options import encode_offer
from tests.e2e import web
from tests.e2e.flooding import flooding, spoofed_sources_routed
from tests.e2e.lab import LAB, VIP, Lab
from tests.soak import Amount

pytestmark = pytest.mark.root

Report = Callable[[str], None]

SOURCES, RATE = 10_000, 20_000
FASTEST = 0  # the rate that means: without a pause
PATIENCE = 60  # seconds: a SYN lost in the flood is repeated after 1, 3, 7, 15 and 31
BYTES_PER_SYN = 16  # of memory, at most: less than whatever kept one could do with
BYTES_PER_FLOW = 1000  # of the honest ones, which are kept for a while after their end


@pytest.mark.parametrize("rate", [RATE, FASTEST], ids=["20000", "fastest"])
def test_honest_client_in_a_flood(lab: Lab, amount: Amount, report: Report, rate: int) -> None:
    """All of its requests are answered, in spite of SYNs that were lost among the others."""
    seconds = amount(4 if rate else 2, 30)
    body = (LAB / "www" / "1k").read_bytes()
    quiet = web.at_once(lab, 200, 4, "/1k", body)
    before, grown, lost = _resident(lab), lab.growth("balancer"), lab.lost("balancer")
    honest = web.Tally()
    with spoofed_sources_routed(lab, "balancer"), flooding(lab, _syns(), rate, seconds) as flood:
        started = time.monotonic()
        while (passed := time.monotonic() - started) < seconds:
            amount.progress(passed, seconds)
            _add(honest, web.at_once(lab, 40, 4, "/1k", body, patience=PATIENCE))
    answered = grown("syn") + grown("fast_syns") - grown("connections")
    more = _resident(lab) - before
    report(
        f"{flood.rate:,.0f} SYNs/s for {flood.seconds:.1f} s, {answered:,} of {flood.sent:,} "
        f"answered, {lab.lost('balancer') - lost:,} lost in the kernel's queue; "
        f"{more / 1024:+,.0f} kB resident"
    )
    report(f"{_figures(honest)}; without flood {_figures(quiet)}")
    assert quiet.failures == honest.failures == []
    assert flood.rate > rate / 2, "the generator hardly ran"
    assert more < BYTES_PER_SYN * flood.sent + BYTES_PER_FLOW * len(honest.seconds)


def test_established_connection_in_a_flood(lab: Lab, amount: Amount, report: Report) -> None:
    """What a known client sends does not wait behind SYNs, however many there are."""
    with lab.connect() as tcp:
        quiet = _requests(tcp, 2)
        grown = lab.growth("balancer")
        with spoofed_sources_routed(lab, "balancer"):
            seconds = amount(2, 20)
            with flooding(lab, _syns(), FASTEST, seconds + 10) as flood:
                flooded = _requests(tcp, seconds)
    report(f"{flood.rate:,.0f} SYNs/s: {_figures(flooded)}; without flood {_figures(quiet)}")
    by_kernel = grown("fast_syns")
    assert grown("kernel_syn_queue_lost") > 0 or by_kernel > 0.9 * flood.sent, "no more than usual"
    assert grown("kernel_queue_lost") == 0
    assert _quantile(flooded, 0.5) < 0.1  # behind a full queue: as long as that takes to judge


def _syns() -> list[bytes]:
    """Five of each source."""
    dice, vip = random.Random(20_000), socket.inet_aton(VIP)
    options = encode_offer(1460, 7, True, (1, 0))
    return [
        build(
            (0x0A00_0001 + number % SOURCES).to_bytes(4, "big"),
            vip,
            dice.randrange(1024, 65536),
            80,
            seq=dice.getrandbits(32),
            flags=SYN,
            window=64240,
            options=options,
        )
        for number in range(5 * SOURCES)
    ]


def _requests(tcp: socket.socket, seconds: float) -> web.Tally:
    """One after another on one connection, with a little pause: as many as fit into the time."""
    tally, deadline = web.Tally(), time.monotonic() + seconds
    while (started := time.monotonic()) < deadline:
        tcp.sendall(web.request("/1k"))
        assert web.response(tcp).status == 200
        tally.seconds.append(time.monotonic() - started)
        time.sleep(0.005)
    return tally


def _add(tally: web.Tally, more: web.Tally) -> None:
    tally.seconds += more.seconds
    tally.failures += more.failures


def _quantile(tally: web.Tally, part: float) -> float:
    return sorted(tally.seconds)[int(part * (len(tally.seconds) - 1))]


def _figures(tally: web.Tally) -> str:
    median, late = (1000 * _quantile(tally, part) for part in (0.5, 0.99))
    count = len(tally.seconds)
    return f"{count:,} requests, p50 {median:.1f} ms, p99 {late:.1f} ms"


def _resident(lab: Lab) -> int:
    """Bytes of memory that the balancer occupies."""
    status = Path(f"/proc/{lab.pid('balancer')}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
