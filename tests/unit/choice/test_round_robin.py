"""Smooth weighted round robin against the algorithm as it is described, credit by credit."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.choice.maglev import key_hash
from tests.unit.choice.pools import CLIENT, named, names, place, pool


def model(weights: dict[str, int], count: int) -> list[str]:
    """Each round all credits grow by the weight; the highest, first of equals, pays the sum."""
    credit = dict.fromkeys(weights, 0)
    chosen = []
    for _ in range(count):
        for name, weight in weights.items():
            credit[name] += weight
        best = max(credit, key=lambda name: credit[name])
        credit[best] -= sum(weights.values())
        chosen.append(best)
    return chosen


def sequence(weights: dict[str, int], count: int) -> str:
    turns = pool(weights, "round-robin")
    return "".join(place(turns).name for _ in range(count))


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ({"a": 5, "b": 1, "c": 1}, "aabacaa" * 2),  # nginx's own example
        ({"a": 1, "b": 1, "c": 1}, "abc" * 3),
        ({"a": 1, "b": 2}, "bab" * 2),
        ({"a": 3, "b": 0, "c": 2}, "acaca" * 2),  # b takes nothing
        ({"a": 7}, "aaaa"),
    ],
)
def test_sequences_by_hand(weights: dict[str, int], wanted: str) -> None:
    assert sequence(weights, len(wanted)) == wanted


weights_by_name = st.dictionaries(
    st.sampled_from("abcdefgh"), st.integers(1, 9), min_size=1, max_size=8
)


@given(weights_by_name)
def test_sequence_is_the_model_s(weights: dict[str, int]) -> None:
    assert list(sequence(weights, 60)) == model(weights, 60)


@given(weights_by_name)
def test_a_whole_cycle_gives_each_its_weight(weights: dict[str, int]) -> None:
    assert Counter(sequence(weights, sum(weights.values()))) == weights


@given(weights_by_name, st.integers(0, 20))
def test_order_is_who_comes_after_each_was_tried(weights: dict[str, int], before: int) -> None:
    turns = pool(weights, "round-robin")
    for _ in range(before):
        place(turns)
    order = turns.order(key_hash(b""), CLIENT, 0.0)
    tried: tuple = ()
    while (member := turns.choose(key_hash(b""), CLIENT, 0.0, tried)) is not None:
        tried += (member,)
    assert names(order) == names(tried)
    assert set(order) == set(turns.members)


def test_to_choose_is_no_turn() -> None:
    turns = pool("abc", "round-robin")
    assert {turns.choose(key_hash(b""), CLIENT, 0.0) for _ in range(5)} == {turns.find("a")}


def test_who_was_chosen_instead_of_another_has_had_a_turn() -> None:
    turns = pool("abc", "round-robin")
    first = place(turns)
    place(turns, tried=(first, *named(turns, "b")))
    assert "".join(place(turns).name for _ in range(4)) == "babc"


def test_who_is_away_loses_its_turns_and_brings_no_rush_when_back() -> None:
    turns = pool("abc", "round-robin")
    for _ in range(4):
        place(turns)
    (gone,) = named(turns, "c")
    turns.mark_down(gone, "no answer", 0.0)
    found = Counter(place(turns).name for _ in range(100))
    assert found == {"a": 50, "b": 50}
    turns.mark_up(gone, 0.0)
    assert Counter(place(turns).name for _ in range(6)) == {"a": 2, "b": 2, "c": 2}


@pytest.mark.parametrize("next_one", ["a", "b", "c"])
def test_many_changes_leave_the_turns_fair(next_one: str) -> None:
    """Credits do not drift, however often somebody goes and comes, and at whatever moment."""
    turns = pool({"a": 3, "b": 2, "c": 2}, "round-robin")
    (gone,) = named(turns, "c")
    for _ in range(500):
        for _ in range(7):
            place(turns)
            if turns.choose(key_hash(b""), CLIENT, 0.0).name == next_one:
                break
        turns.mark_down(gone, "", 0.0)
        place(turns)
        turns.mark_up(gone, 0.0)
    found = Counter(place(turns).name for _ in range(70))
    for name, wanted in {"a": 30, "b": 20, "c": 20}.items():
        assert abs(found[name] - wanted) <= 2


def test_a_new_weight_counts_from_the_next_turn() -> None:
    turns = pool("ab", "round-robin")
    place(turns), place(turns)
    turns.set_weight(named(turns, "a")[0], 3)
    assert "".join(place(turns).name for _ in range(8)) == "aaba" * 2


def test_much_smaller_weights_do_not_leave_a_long_debt() -> None:
    turns = pool({"a": 1000, "b": 1000}, "round-robin")
    place(turns)
    for member in turns.members:
        turns.set_weight(member, 1)
    assert "".join(place(turns).name for _ in range(6)) == "bababa"
