"""Fewest in progress, ties to who has been given less: by hand, and against a plain minimum."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.choice.maglev import key_hash
from balancer.core.choice.member import Member
from tests.unit.choice.pools import CLIENT, backend, named, names, place, pool


def test_flows_by_hand() -> None:
    """Ties to the smaller share of all flows so far, then to the first."""
    few = pool("abc", "least-pending")
    a, b, c = few.members
    assert names([place(few) for _ in range(4)]) == ["a", "b", "c", "a"]
    few.closed(b, CLIENT, 0.0)  # a 2, b 0, c 1 in progress
    assert place(few) is b
    few.closed(a, CLIENT, 0.0)  # 1 each; given: a 2, b 2, c 1
    assert place(few) is c
    few.closed(c, CLIENT, 0.0)  # 1 each; given: 2 each
    assert place(few) is a
    assert [member.given for member in few.members] == [3, 2, 2]


def test_weights_divide() -> None:
    """Weights 3 and 1, nothing closing: a 1/3, b 1; then the ties by what was given."""
    few = pool({"a": 3, "b": 1}, "least-pending")
    assert "".join(place(few).name for _ in range(8)) == "abaaabaa"


def test_weights_divide_where_each_flow_is_alone() -> None:
    """Always a tie of nothing in progress: shares of what was given decide."""
    few = pool({"a": 3, "b": 1}, "least-pending")
    found: Counter[str] = Counter()
    for _ in range(400):
        member = place(few)
        found[member.name] += 1
        few.closed(member, CLIENT, 0.0)
    assert found == {"a": 300, "b": 100}


class Model:
    """By the definition: pending / weight, given / weight, first."""

    def __init__(self, weights: dict[str, int]) -> None:
        self.weights, self.pending, self.given = weights, Counter(), Counter()

    def choose(self, out: str = "") -> str:
        def rank(name: str) -> tuple[Fraction, Fraction]:
            weight = self.weights[name]
            return Fraction(self.pending[name], weight), Fraction(self.given[name], weight)

        return min((name for name in self.weights if name not in out), key=rank)


weights_by_name = st.dictionaries(
    st.sampled_from("abcdefgh"), st.integers(1, 9), min_size=1, max_size=8
)


@given(weights_by_name, st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), max_size=80))
def test_any_sequence_is_the_model_s(
    weights: dict[str, int], events: list[tuple[bool, int]]
) -> None:
    few, model = pool(weights, "least-pending"), Model(weights)
    flows: list[Member] = []
    for opens, which in events:
        if opens or not flows:
            out = next(iter(weights)) if which % 5 == 0 and len(weights) > 1 else ""
            wanted = model.choose(out)
            flows.append(place(few, tried=tuple(named(few, out))))
            assert flows[-1].name == wanted
            model.pending[wanted] += 1
            model.given[wanted] += 1
        else:
            member = flows.pop(which % len(flows))
            few.closed(member, CLIENT, 0.0)
            model.pending[member.name] -= 1
        assert few.order(key_hash(b""), CLIENT, 0.0)[0].name == model.choose()
    for member in flows:
        few.closed(member, CLIENT, 0.0)
    assert [member.pending for member in few.members] == [0] * len(weights)


@pytest.mark.parametrize("crowd", [1, 7, 64])
def test_within_one_of_each_other_under_unequal_response_times(crowd: int) -> None:
    """So many clients, each asking anew when it has its answer, of servers that take 1 to 8
    seconds: flows in progress stay within one, and the quick ones are given more."""
    few = pool("abcd", "least-pending")
    takes = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}
    draw = random.Random(1)
    ends: list[tuple[float, int, Member]] = []
    for number in range(crowd):
        member = place(few)
        heapq.heappush(ends, (takes[member.name] * draw.uniform(0.9, 1.1), number, member))
    for number in range(crowd, 4000):
        now, _, member = heapq.heappop(ends)
        few.closed(member, CLIENT, now)
        member = place(few, now=now)
        pending = [member.pending for member in few.members]
        assert max(pending) - min(pending) <= 1
        heapq.heappush(ends, (now + takes[member.name] * draw.uniform(0.9, 1.1), number, member))
    if crowd == 64:
        given = [member.given for member in few.members]
        assert given == sorted(given, reverse=True)
        assert given[0] / given[3] == pytest.approx(8, rel=0.1)
    for _, _, member in ends:
        few.closed(member, CLIENT, 0.0)
    assert [member.pending for member in few.members] == [0] * 4


def test_a_flow_never_goes_to_who_has_more() -> None:
    """Whatever closes: after an opening, its member has one more than the least at most."""
    few, draw = pool("abcde", "least-pending"), random.Random(2)
    flows: list[Member] = []
    for _ in range(3000):
        if flows and draw.random() < 0.48:
            few.closed(flows.pop(draw.randrange(len(flows))), CLIENT, 0.0)
            continue
        least = min(member.pending for member in few.members)
        flows.append(place(few))
        assert flows[-1].pending == least + 1


@pytest.mark.parametrize("how", ["back", "new"])
def test_who_comes_late_is_not_given_everything(how: str) -> None:
    """Its share begins with that of whoever has been given least."""
    few = pool("abc" if how == "back" else "ab", "least-pending")
    if how == "back":
        few.mark_down(few.members[2], "no answer", 0.0)
    for _ in range(1000):
        few.closed(place(few), CLIENT, 0.0)
    if how == "back":
        few.mark_up(few.members[2], 0.0)
    else:
        few.add(backend("c"), 0.0)
    found: Counter[str] = Counter()
    for _ in range(300):
        member = place(few)
        found[member.name] += 1
        few.closed(member, CLIENT, 0.0)
    assert found == {"a": 100, "b": 100, "c": 100}


def test_who_comes_late_is_beside_who_has_been_given_least() -> None:
    few = pool("abc", "least-pending")
    _, b, c = few.members
    few.mark_down(c, "", 0.0)
    assert names(few.order(key_hash(b""), CLIENT, 0.0)) == ["a", "b"]
    for _ in range(50):
        few.opened(b, CLIENT, 0.0)
        few.closed(b, CLIENT, 0.0)
    few.mark_up(c, 0.0)
    given = ""
    for _ in range(6):
        member = place(few)
        given += member.name
        few.closed(member, CLIENT, 0.0)
    assert given == "acacac"


def test_flows_of_who_takes_no_more_are_still_counted() -> None:
    few = pool("ab", "least-pending")
    a = place(few)
    few.drain(a)
    for _ in range(3):
        assert place(few).name == "b"
    few.closed(a, CLIENT, 0.0)
    assert (a.pending, few.members[1].pending) == (0, 3)
    few.ready(a, 0.0)
    assert names([place(few) for _ in range(3)]) == ["a"] * 3


def test_the_heap_is_bounded() -> None:
    """However many flows close between two choices, and however often."""
    few, draw = pool("abcdefgh", "least-pending"), random.Random(3)
    flows = [place(few) for _ in range(400)]
    for _ in range(5000):
        for _ in range(draw.randrange(4)):
            if flows:
                few.closed(flows.pop(draw.randrange(len(flows))), CLIENT, 0.0)
        flows.append(place(few))
        assert len(few._policy._heap) <= 5 * 8 + 8
