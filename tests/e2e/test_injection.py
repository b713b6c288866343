"""Segments that somebody else injects into a live connection, at the balancer and at the bridge."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from common.core.segment import RST
from tests.e2e import web
from tests.e2e.flooding import flooding
from tests.e2e.forging import KINDS, TARGETS, live
from tests.e2e.lab import LAB, Lab, until
from tests.e2e.raw import RawSender, raw_sender
from tests.soak import Amount

pytestmark = pytest.mark.root

Report = Callable[[str], None]

RATE = 100  # injected packets a second
SHARE = 0.9  # of the speed that a download has without them


@pytest.fixture
def sender(lab: Lab) -> Iterator[RawSender]:
    with raw_sender(lab) as sender:
        yield sender


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_injected_segments_do_nothing(
    lab: Lab, sender: RawSender, amount: Amount, target: str, kind: str
) -> None:
    body, injected_at = (LAB / "www" / "1k").read_bytes(), TARGETS[target]
    path = lab.path_for("1k", "backend1")
    with lab.connect() as tcp:
        for _ in range(amount(2, 50)):
            of = live(lab, tcp, web.request(path))
            for packet in KINDS[kind](of, injected_at):
                sender.send(packet, injected_at.host)
            for _ in range(3):
                tcp.sendall(web.request(path))
                assert web.response(tcp).body == body
        assert lab.states("backend1", of.port) == ["ESTAB"]


@pytest.mark.parametrize("target", TARGETS)
def test_reset_with_the_exact_number_ends_the_connection(
    lab: Lab, sender: RawSender, target: str
) -> None:
    """It cannot be told from the client's own."""
    with lab.connect() as tcp:
        of = live(lab, tcp, web.request(lab.path_for("1k", "backend1")))
        assert lab.states("backend1", of.port) == ["ESTAB"]
        sender.send(of.segment(TARGETS[target], RST, of.seq, 0), TARGETS[target].host)
        until(lambda: not lab.states("backend1", of.port), 2, "the server's side is reset")


@pytest.mark.parametrize("target", TARGETS)
def test_speed_of_a_download_under_injection(
    lab: Lab, amount: Amount, report: Report, target: str
) -> None:
    """Measured in turn with and without, each on a connection of its own."""
    rounds = amount(7, 40)
    path = lab.path_for("20m", "backend1")
    without, under = [], []
    for number in range(rounds):
        without.append(_download(lab, path, None))
        under.append(_download(lab, path, target))
        amount.progress(number, rounds)
    free, disturbed = statistics.median(without), statistics.median(under)
    report(
        f"{RATE} a second injected at the {target}: {disturbed / 1e6:.0f} MB/s, without "
        f"{free / 1e6:.0f} MB/s: {disturbed / free:.2f} (medians of {rounds})"
    )
    assert disturbed > SHARE * free


def _download(lab: Lab, path: str, target: str | None) -> float:
    """Bytes per second of a download, all but its beginning; injected into where said."""
    with lab.connect() as tcp, ExitStack() as stack:
        of = live(lab, tcp, web.request(path, close=True), whole=False)
        if target is not None:
            at = TARGETS[target]
            packets = [packet for kind in KINDS.values() for packet in kind(of, at)]
            random.Random(1).shuffle(packets)
            stack.enter_context(flooding(lab, packets, RATE, 60, at.host))
        started = time.monotonic()
        received = len(web.rest(tcp))
        seconds = time.monotonic() - started
    assert received > 10e6
    return received / seconds
