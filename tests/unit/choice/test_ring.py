"""The ring against a model that goes round it point by point."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.core.choice import ring
from balancer.core.choice.maglev import finish, key_hash
from balancer.core.choice.ring import Ring, counts
from tests.unit.choice.pools import keys
from tests.unit.models import siphash


def built(names: list[str], weights: list[int], points: int) -> Ring:
    return finish(Ring.building(names, weights, points))


def model_order(names: list[str], weights: list[int], points: int, hash64: int) -> list[str]:
    """By the distance from the key's place to each member's nearest point, clockwise."""
    place = hash64 // 2**16
    distance = {}
    for name, weight in zip(names, weights, strict=True):
        at = [
            siphash(b"l3dsr.ring.point", bytes([n % 256, n // 256, 0, 0]) + name.encode()) // 2**16
            for n in range(points * weight)
        ]
        distance[name] = min((point - place) % 2**48 for point in at)
    return sorted(names, key=lambda name: (distance[name], name))


weights_by_name = st.dictionaries(
    st.text(min_size=1, max_size=8), st.integers(1, 4), min_size=1, max_size=5
)


@given(weights_by_name, st.integers(1, 5), st.integers(0, 2**64 - 1))
@settings(max_examples=60)
def test_order_is_the_way_round(weights: dict[str, int], points: int, hash64: int) -> None:
    names = sorted(weights)
    table = built(names, [weights[name] for name in names], points)
    order = [names[index] for index in table.order(hash64)]
    assert order == model_order(names, [weights[name] for name in names], points, hash64)
    assert table.lookup(hash64) == names.index(order[0])


def test_three_points_by_hand() -> None:
    """Points at 10, 20 and 30 of the members 1, 0 and 1, where a key's place is its upper 48 bits:
    a point at the place itself counts, and past the last comes the first."""
    points = ring.array("Q", [10 << 16 | 1, 20 << 16 | 0, 30 << 16 | 1])
    table = Ring(points, 2)
    at = {place: table.lookup(place << 16 | 0xFFFF) for place in (0, 10, 11, 20, 21, 30, 31)}
    assert at == {0: 1, 10: 1, 11: 0, 20: 0, 21: 1, 30: 1, 31: 1}
    assert list(table.order(11 << 16)) == [0, 1]
    assert list(table.order(31 << 16)) == [1, 0]


def test_of_two_points_at_one_place_the_first_name_has_it() -> None:
    table = Ring(ring.array("Q", [10 << 16 | 0, 10 << 16 | 1]), 2)
    assert table.lookup(10 << 16) == 0


def test_a_point_of_the_model() -> None:
    """Number 258, little-endian, then the name."""
    assert ring.point(b"b", 258) == siphash(b"l3dsr.ring.point", b"\x02\x01\x00\x00b") >> 16


def test_points_follow_the_weights() -> None:
    assert counts([1, 3, 2], 160) == [160, 480, 320]


def test_points_are_bounded() -> None:
    """1,000,000 asked for in all, 262,144 had: everybody gets as much less."""
    found = counts([1000, 500, 500], 500)
    assert found == [131072, 65536, 65536]
    assert counts([1000] * 1000 + [1], 10_000)[-1] == 1, "nobody is left without"
    ring_of_many = built([f"b{n:04}" for n in range(2)], [1000, 1], 10_000)
    assert len(ring_of_many.points) <= ring.MOST_POINTS + 2


def test_points_are_sorted_over_all_buckets() -> None:
    found = built([f"b{n:02}" for n in range(40)], [1] * 40, 160).points
    assert len(found) == 6400
    assert list(found) == sorted(found)


@pytest.mark.parametrize("count", [2, 10])
def test_160_points_balance_within_a_quarter(count: int) -> None:
    """A share's standard deviation is about 1 / sqrt(points), 8 %: three of them."""
    table = built([f"b{n}" for n in range(count)], [1] * count, 160)
    found = Counter(table.lookup(key_hash(key)) for key in keys(20_000))
    assert max(found.values()) / (20_000 / count) < 1.25
