"""Values counted by their size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.core.histogram import TIMES, Histogram


def test_a_value_on_a_bound_is_below_it() -> None:
    histogram = Histogram([0.1, 1.0])
    for value in (0.05, 0.1, 0.100001, 1.0, 1.5, 100.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2]
    assert histogram.count == 6
    assert abs(histogram.sum - 102.750001) < 1e-9


@given(st.lists(st.floats(0, 100)))
def test_each_value_is_counted_once_where_it_belongs(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    for index, bound in enumerate(TIMES):
        assert sum(histogram.counts[: index + 1]) == sum(value <= bound for value in values)
    assert histogram.count == len(values)
