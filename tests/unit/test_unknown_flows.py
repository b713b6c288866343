"""Flows nobody knows: who insists, at what rate, and how many are remembered."""

from __future__ import annotations

import pytest

from common.core.unknown_flows import TokenBucket, UnknownFlows


@pytest.mark.parametrize(
    ("again", "insists"),
    [(0.0, False), (0.125, False), (0.25, True), (5.0, True), (130.125, False)],
)
def test_another_try_insists(again: float, insists: bool) -> None:
    flows = UnknownFlows()
    assert not flows.insists(b"flow", 64.0)
    assert flows.insists(b"flow", 64.0 + again) == insists


def test_a_burst_does_not_move_the_first_time() -> None:
    flows = UnknownFlows()
    for tick in range(4):
        assert not flows.insists(b"flow", 64.0 + tick / 16)
    assert flows.insists(b"flow", 64.25)


def test_too_late_begins_anew() -> None:
    flows = UnknownFlows()
    flows.insists(b"flow", 64.0)
    assert not flows.insists(b"flow", 200.0)
    assert flows.insists(b"flow", 201.0)


def test_one_flow_does_not_insist_for_another() -> None:
    flows = UnknownFlows()
    flows.insists(b"flow", 64.0)
    assert not flows.insists(b"other", 65.0)


def test_the_oldest_is_forgotten_first() -> None:
    flows = UnknownFlows(limit=2)
    for key in (b"a", b"b", b"a", b"c"):
        flows.remember(key, 64.0)
    assert [flows.known(key, 64.0) for key in (b"a", b"b", b"c")] == [True, False, True]


def test_resets_are_rate_limited() -> None:
    flows = UnknownFlows(resets_per_second=3.0)
    for key in range(20):
        flows.insists(bytes([key]), 64.0)
    assert sum(flows.insists(bytes([key]), 65.0) for key in range(20)) == 3
    assert sum(flows.insists(bytes([key]), 65.5) for key in range(20)) == 1
    assert sum(flows.insists(bytes([key]), 67.5) for key in range(20)) == 3


def test_tokens() -> None:
    bucket = TokenBucket(rate=2.0, burst=4.0)
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert [bucket.take(100.5), bucket.take(100.5)] == [True, False]
    assert [bucket.take(1000.0) for _ in range(5)] == [True] * 4 + [False]
