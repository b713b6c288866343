"""Packets that overtake each other, or come twice, on every leg."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.e2e import work
from tests.e2e.lab import Lab
from tests.e2e.network import LEGS, Deeds, misbehaving
from tests.e2e.wire import Faults
from tests.soak import Amount

pytestmark = pytest.mark.root

SHARE = 0.05  # of the packets
LATE = 0.004  # seconds: dozens of packets of a transfer, no retransmission time-out
SINGLE = ("balancer to client", "bridge to balancer")  # packets that nothing of theirs follows
WITH_HANDOFFS = ("balancer to bridge", "bridge to balancer")


@pytest.mark.parametrize("leg", LEGS)
def test_reordering(lab: Lab, leg: str, amount: Amount, report: Callable[[str], None]) -> None:
    requests = amount(240, 500)
    deeds = _disorderly(lab, [leg], Faults(hold=SHARE, late=LATE), amount, requests, report)
    assert deeds[leg]["held"].packets >= requests * SHARE / 5
    assert deeds[leg]["held"].handoffs or leg not in WITH_HANDOFFS
    assert deeds[leg]["overtaken"].packets or leg in SINGLE


@pytest.mark.parametrize("leg", LEGS)
def test_duplication(lab: Lab, leg: str, amount: Amount, report: Callable[[str], None]) -> None:
    requests = amount(240, 500)
    deeds = _disorderly(lab, [leg], Faults(double=SHARE), amount, requests, report)
    assert deeds[leg]["doubled"].packets >= requests * SHARE / 5
    assert deeds[leg]["doubled"].handoffs or leg not in WITH_HANDOFFS


def test_everything_at_once(lab: Lab, amount: Amount, report: Callable[[str], None]) -> None:
    """Late packets and late second copies on all legs."""
    faults = Faults(hold=SHARE, double=SHARE, late=LATE)
    deeds = _disorderly(lab, [*LEGS], faults, amount, 500, report)
    for leg in LEGS:
        assert deeds[leg]["doubled"].packets
        assert deeds[leg]["held"].packets
        assert deeds[leg]["held"].handoffs or leg not in WITH_HANDOFFS


def _disorderly(
    lab: Lab,
    legs: list[str],
    faults: Faults,
    amount: Amount,
    requests: int,
    report: Callable[[str], None],
) -> dict[str, Deeds]:
    with work.some(amount(2 << 20, 50 << 20), requests) as some, ExitStack() as stack:
        deeds = {leg: stack.enter_context(misbehaving(lab, leg, faults)) for leg in legs}
        done = work.do(lab, some, timeout=120)
    for leg in legs:
        report(f"{leg}: {deeds[leg]}")
    report(f"{done}")
    return deeds
