"""The memory of what has been: long enough, not for ever, and within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.remembered import Remembered

MEMBERS = st.sampled_from([b"a", b"b", b"c"])


@given(st.lists(st.tuples(st.floats(0.01, 30), MEMBERS), max_size=30), MEMBERS)
def test_members_last_at_least_the_time_and_at_most_twice(
    steps: list[tuple[float, bytes]], sought: bytes
) -> None:
    memory = Remembered(10.0, 100)
    now, last = 1000.0, None
    for step, member in steps:
        now += step
        holds = memory.holds(sought, now)
        if last is None or now - last >= 20.0:
            assert not holds
        elif now - last < 10.0:
            assert holds
        memory.add(member, now)
        last = now if member == sought else last


@pytest.mark.parametrize("count", [1, 10, 11, 100, 1000])
def test_at_most_twice_the_limit_are_kept(count: int) -> None:
    memory = Remembered(10.0, 10)
    for number in range(count):
        memory.add(number.to_bytes(2, "big"), 5.0)
    assert len(memory) <= 20
    assert memory.holds((count - 1).to_bytes(2, "big"), 5.0)
    assert memory.overruns == (count - 1) // 10


def test_an_early_generation_lasts_from_its_end() -> None:
    memory = Remembered(10.0, 1)
    memory.add(b"a", 100.0)
    memory.add(b"b", 109.0)
    assert memory.holds(b"a", 118.0)
    assert not memory.holds(b"a", 129.5)


def test_a_long_silence_forgets_all() -> None:
    memory = Remembered(10.0, 10)
    memory.add(b"a", 100.0)
    assert not memory.holds(b"a", 500.0)
    assert len(memory) == 0
