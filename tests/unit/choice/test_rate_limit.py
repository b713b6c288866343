"""Token buckets: by hand, against exact ones, and under a flood of keys."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core import config
from balancer.core.choice.rate_limit import RateLimit


def limit(rate: float, burst: int, tracked: int = 65536) -> RateLimit:
    return RateLimit(config.RateLimit(rate=rate, burst=burst, tracked=tracked))


def test_a_bucket_by_hand() -> None:
    """Two a second, three at once: three, then one each half second."""
    bucket = limit(2.0, 3)
    assert [bucket.take(b"a", 10.0) for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    assert bucket.take(b"a", 10.25) == 0.25
    assert [bucket.take(b"a", 10.5), bucket.take(b"a", 10.5)] == [0, 0.5]
    assert [bucket.take(b"a", 12.0) for _ in range(4)] == [0, 0, 0, 0.5], "full again, not fuller"


def test_each_key_has_its_own() -> None:
    bucket = limit(1.0, 1)
    assert [bucket.take(key, 0.0) for key in (b"a", b"b", b"a", b"b")] == [0, 0, 1, 1]


def test_to_be_refused_costs_nothing() -> None:
    bucket = limit(1.0, 1)
    for number in range(1000):
        bucket.take(b"a", number / 1000)
    assert bucket.take(b"a", 1.0) == 0


@given(
    st.integers(1, 50),
    st.integers(1, 8),
    st.lists(st.integers(0, 64), max_size=60),
)
def test_any_sequence_is_the_exact_bucket_s(rate: int, burst: int, pauses: list[int]) -> None:
    """Tokens as fractions, times in 64ths of a second."""
    bucket, tokens, now = limit(rate, burst), Fraction(burst), Fraction(0)
    for pause in pauses:
        now += Fraction(pause, 64)
        tokens = min(Fraction(burst), tokens + Fraction(pause, 64) * rate)
        wait = bucket.take(b"key", float(now))
        if tokens >= 1:
            assert wait == 0
            tokens -= 1
        else:
            assert wait == pytest.approx(float((1 - tokens) / rate), abs=1e-8)
            assert wait > 0


@given(st.floats(0.01, 1000), st.floats(0, 1e6))
def test_who_waits_as_long_as_told_is_let_in(rate: float, now: float) -> None:
    bucket = limit(rate, 1)
    assert bucket.take(b"a", now) == 0
    assert bucket.take(b"a", now + bucket.take(b"a", now)) == 0


# --- memory ---


def test_full_buckets_are_forgotten_by_themselves() -> None:
    bucket = limit(1.0, 2)
    for number in range(100):
        bucket.take(b"%d" % number, 0.0)
    for number in range(80):
        bucket.take(b"again", 10.0 + number)
    assert len(bucket) == 1
    assert len(bucket._levels) == len(bucket._order) <= 2


def test_buckets_are_bounded_and_the_fullest_makes_room() -> None:
    bucket = limit(1.0, 10, tracked=3)
    for key, times in ((b"drained", 10), (b"half", 5), (b"full", 1), (b"new", 2)):
        for _ in range(times):
            assert bucket.take(key, 0.0) == 0
    assert set(bucket._full_at) == {b"drained", b"half", b"new"}


def test_a_flood_of_new_keys_does_not_free_an_offender() -> None:
    """20,000 keys a second through 100 places: the offender gets what its bucket gives, 10 at once
    and one a second, and each of the others gets in."""
    bucket = limit(1.0, 10, tracked=100)
    let_in = 0
    for number in range(100_000):
        now = number / 20_000
        assert bucket.take(b"flood %d" % number, now) == 0
        let_in += bucket.take(b"offender", now) == 0
    assert let_in == 10 + 4
    assert len(bucket) == 100


def test_levels_are_bounded_with_a_large_burst() -> None:
    bucket = limit(1000.0, 1_000_000, tracked=50)
    for number in range(30_000):
        bucket.take(b"%d" % (number % 70), number / 1000)
    assert len(bucket._levels) <= 1100
    assert len(bucket) == 50
