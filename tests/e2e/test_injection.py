"""Segments that somebody else injects into a live connection, at the balancer and at the bridge."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import pytest

from common.core.segment import RST
from tests.e2e import web
from tests.e2e.flooding import flooding
from tests.e2e.forging import KINDS, TARGETS, live
from tests.e2e.lab import LAB, Lab, until
from tests.e2e.raw import RawSender
from tests.soak import Amount

pytestmark = pytest.mark.root

Report = Callable[[str], None]

RATE = 100  # injected packets a second
NONE = 1e-6
SHARE = 0.9  # of the speed that a download has without them


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
        assert lab.states("backend1", of.port, to=80) == ["ESTAB"]


@pytest.mark.parametrize("target", TARGETS)
def test_reset_with_the_exact_number_ends_the_connection(
    lab: Lab, sender: RawSender, target: str
) -> None:
    """It cannot be told from the client's own."""
    with lab.connect() as tcp:
        of = live(lab, tcp, web.request(lab.path_for("1k", "backend1")))
        assert lab.states("backend1", of.port, to=80) == ["ESTAB"]
        sender.send(of.segment(TARGETS[target], RST, of.seq, 0), TARGETS[target].host)
        until(lambda: not lab.states("backend1", of.port, to=80), 2, "the server's side is reset")


def test_speed_of_a_download_under_injection(lab: Lab, amount: Amount, report: Report) -> None:
    """Measured in turn without and at either place, each on a connection of its own; more often, up
    to a bound, where a busy machine leaves the medians in doubt."""
    fewest, most = amount((5, 15), (30, 60))
    path = lab.path_for("20m", "backend1")
    cases = [("nowhere", "bridge", NONE), *((target, target, RATE) for target in TARGETS)]
    speeds: dict[str, list[float]] = {name: [] for name, _, _ in cases}
    shares = dict.fromkeys(TARGETS, 0.0)
    for turn in range(most):
        for name, target, rate in cases[turn % 3 :] + cases[: turn % 3]:
            speeds[name].append(_download(lab, path, target, rate))
        free = statistics.median(speeds["nowhere"])
        shares = {target: statistics.median(speeds[target]) / free for target in TARGETS}
        amount.progress(turn, fewest)
        if turn + 1 >= fewest and min(shares.values()) > SHARE:
            break
    for target, share in shares.items():
        report(
            f"{RATE} a second injected at the {target}: {share:.2f} of the speed without, which is "
            f"{free / 1e6:.0f} MB/s (medians of {len(speeds[target])})"
        )
    assert min(shares.values()) > SHARE


def _download(lab: Lab, path: str, target: str, rate: float) -> float:
    """Bytes per second of a download, but for its beginning, with segments injected into it."""
    at = TARGETS[target]
    with lab.connect() as tcp:
        of = live(lab, tcp, web.request(path, close=True), whole=False)
        packets = [packet for kind in KINDS.values() for packet in kind(of, at)]
        random.Random(1).shuffle(packets)
        with flooding(lab, packets, rate, 60, at.host):
            started = time.monotonic()
            received = len(web.rest(tcp))
            seconds = time.monotonic() - started
    assert received > 10e6
    return received / seconds
