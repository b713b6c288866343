"""SYN cookies against the model, their two epochs, and what they keep of the SYN."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core import cookie
from balancer.core.cookie import Promise
from tests.unit import models

CLIENT, VIP = ("198.51.100.7", 40000), ("192.0.2.10", 80)
KEY = models.derived_key(models.SHARED_KEY, "cookie")
FLOW = models.flow_bytes(CLIENT, VIP)
STEPS = (536, 1220, 1400, 1460)
U32 = st.integers(0, 2**32 - 1)
WALLS = st.floats(0, 2**33)


@given(U32, st.integers(0, 3), st.booleans(), st.integers(0, 15), WALLS)
def test_the_number_is_the_models_and_is_read_back(
    c: int, index: int, sack: bool, scale: int, wall: float
) -> None:
    promise = Promise(STEPS[index], sack, scale)
    b = cookie.make(KEY, FLOW, c, promise, wall)
    model = models.cookie(CLIENT, VIP, c, wall=wall, mss_index=index, sack=sack, scale=scale)
    assert b == model
    assert cookie.check(KEY, FLOW, c, b, wall) == promise


@pytest.mark.parametrize(
    ("mss", "kept"),
    [
        (0, 536),
        (535, 536),
        (536, 536),
        (1219, 536),
        (1220, 1220),
        (1399, 1220),
        (1459, 1400),
        (1460, 1460),
        (65535, 1460),
    ],
)
def test_the_mss_is_rounded_down_to_a_step(mss: int, kept: int) -> None:
    b = cookie.make(KEY, FLOW, 1, Promise(mss, True, 7), 0.0)
    assert cookie.check(KEY, FLOW, 1, b, 0.0) == Promise(kept, True, 7)


@given(U32, WALLS, st.floats(0, 300))
def test_a_cookie_is_good_in_its_epoch_and_the_next(c: int, made: float, age: float) -> None:
    b = cookie.make(KEY, FLOW, c, Promise(1460, True, 7), made)
    epochs = int((made + age) // 64) - int(made // 64)
    good = cookie.check(KEY, FLOW, c, b, made + age) is not None
    assert good == (epochs <= 1)


def test_a_cookie_of_the_next_epoch_is_not_good_yet() -> None:
    b = cookie.make(KEY, FLOW, 1, Promise(1460, True, 7), 128.0)
    assert cookie.check(KEY, FLOW, 1, b, 127.0) is None


@given(U32, U32)
def test_a_guess_is_wrong(c: int, b: int) -> None:
    assert cookie.check(KEY, FLOW, c, b, 1000.0) is None


@given(st.integers(0, 31))
def test_every_bit_counts(bit: int) -> None:
    b = cookie.make(KEY, FLOW, 77, Promise(1400, False, 15), 1000.0)
    assert cookie.check(KEY, FLOW, 77, b ^ 1 << bit, 1000.0) is None
    assert cookie.check(KEY, FLOW, 77 ^ 1 << bit, b, 1000.0) is None


@given(st.integers(0, 95))
def test_every_bit_of_the_addresses_counts(bit: int) -> None:
    b = cookie.make(KEY, FLOW, 77, Promise(1400, False, 15), 1000.0)
    other = (int.from_bytes(FLOW, "big") ^ 1 << bit).to_bytes(12, "big")
    assert cookie.check(KEY, other, 77, b, 1000.0) is None
