"""Deadlines and the idle wheel: nothing early, nothing lost, work bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.core.timing import Deadlines, IdleWheel

TIMES = st.floats(0, 1000)


@given(st.lists(TIMES), TIMES)
def test_deadlines_come_in_order_and_not_early(times: list[float], now: float) -> None:
    deadlines: Deadlines[int] = Deadlines()
    for index, when in enumerate(times):
        deadlines.add(when, index)
    assert deadlines.next() == min(times, default=None)
    popped = []
    while (item := deadlines.pop_due(now)) is not None:
        popped.append(item)
    assert popped == sorted(
        (index for index, when in enumerate(times) if when <= now), key=lambda index: times[index]
    )
    assert len(deadlines) == len(times) - len(popped)
    assert deadlines.next() == min((when for when in times if when > now), default=None)


def test_equal_times_keep_their_order() -> None:
    """Items need no order of their own."""
    deadlines: Deadlines[object] = Deadlines()
    items = [object() for _ in range(5)]
    for item in items:
        deadlines.add(1.0, item)
    assert [deadlines.pop_due(1.0) for _ in items] == items
    assert deadlines.pop_due(1.0) is None
    assert deadlines.next() is None


@given(st.lists(TIMES, max_size=20), st.lists(st.floats(0.01, 50), max_size=60), st.integers(1, 4))
def test_each_item_is_asked_in_time_and_not_early(
    times: list[float], steps: list[float], most: int
) -> None:
    wheel: IdleWheel[int] = IdleWheel(0.0)
    for index, when in enumerate(times):
        wheel.add(when, index)
    asked: dict[int, float] = {}
    now = 0.0
    for step in steps:
        now += step
        batch: list[int] = []
        while (count := wheel.advance(now, batch.append, most)) == most:
            pass
        assert count < most
        assert not asked.keys() & set(batch)
        asked |= dict.fromkeys(batch, now)
        for index, when in enumerate(times):
            assert (index in asked) or when + 2 > now
            assert index not in asked or asked[index] >= when


def test_work_is_bounded_and_goes_on_where_it_stopped() -> None:
    wheel: IdleWheel[int] = IdleWheel(0.0)
    for item in range(10):
        wheel.add(1.0, item)
    asked: list[int] = []
    assert wheel.advance(5.0, asked.append, 4) == 4
    assert wheel.advance(5.0, asked.append, 4) == 4
    assert wheel.advance(5.0, asked.append, 4) == 2
    assert sorted(asked) == list(range(10))


def test_an_item_that_lives_on_is_asked_again_at_its_time() -> None:
    wheel: IdleWheel[str] = IdleWheel(0.0)
    wheel.add(1.0, "a")
    seen: list[float] = []
    for now in range(40):

        def verdict(_: str, now: float = now) -> float | None:
            seen.append(now)
            return now + 10.0 if len(seen) < 3 else None

        wheel.advance(float(now), verdict, 100)
    assert seen == [2, 13, 24]


def test_a_time_that_is_past_is_asked_next() -> None:
    wheel: IdleWheel[str] = IdleWheel(100.0)
    wheel.add(3.0, "late")
    asked: list[str] = []
    wheel.advance(100.5, asked.append, 10)
    assert asked == []
    wheel.advance(101.0, asked.append, 10)
    assert asked == ["late"]


def test_the_items_of_a_wheel_are_given_while_it_turns() -> None:
    wheel: IdleWheel[int] = IdleWheel(0.0)
    for number in range(1000):
        wheel.add(number % 7, number)
    found = []
    for count, item in enumerate(wheel.items()):
        found.append(item)
        if count == 300:  # some end, some are put off, and there are others
            wheel.advance(2.0, lambda item: None if item % 2 else 20.0, 100)
            wheel.add(3.0, 5000)
    assert len(set(found) - {5000}) >= 900
    assert set(wheel.items()) <= set(range(1000)) | {5000}
