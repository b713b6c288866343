"""Maglev against the paper's worked example, a naive model, and the properties the paper claims."""

import random
import time
from collections import Counter
from fractions import Fraction
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.core.choice.maglev import (
    LADDER,
    LOOKUP_KEY,
    OFFSET_KEY,
    SKIP_KEY,
    Table,
    fitting,
    is_prime,
    key_hash,
    populate,
    turns,
)
from common.core.siphash import siphash24
from tests.unit.models import siphash as model_siphash

# --- independent models ---------------------------------------------------------------------------


def model_table(names: list[bytes], weights: list[int], size: int) -> list[bytes]:
    """The paper's pseudo-code over explicit permutations, with credits kept as fractions."""
    names_sorted = sorted(names)
    weight = dict(zip(names, weights, strict=True))
    permutation = {}
    for name in names:
        offset = model_siphash(b"l3dsr.maglev.off", name) % size
        skip = model_siphash(b"l3dsr.maglev.skp", name) % (size - 1) + 1
        permutation[name] = [(offset + j * skip) % size for j in range(size)]
    following = dict.fromkeys(names, 0)
    credit = dict.fromkeys(names, Fraction(0))
    entry: list[bytes | None] = [None] * size
    filled = 0
    while True:
        for name in names_sorted:
            credit[name] += Fraction(weight[name], max(weights))
            if credit[name] < 1:
                continue
            credit[name] -= 1
            slot = permutation[name][following[name]]
            while entry[slot] is not None:
                following[name] += 1
                slot = permutation[name][following[name]]
            entry[slot] = name
            following[name] += 1
            filled += 1
            if filled == size:
                return [owner for owner in entry if owner is not None]


def names_of(count: int) -> list[bytes]:
    return [b"192.168.33.%d" % number for number in range(count)]


def owners(table: Table, names: list[bytes]) -> list[bytes]:
    return [names[table.lookup(slot)] for slot in range(table.size)]


# --- SipHash --------------------------------------------------------------------------------------


def test_siphash_test_vector_of_the_paper() -> None:
    """Appendix A: key 00..0f, message 00..0e."""
    assert siphash24(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5
    assert model_siphash(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=100))
def test_siphash_equals_the_model(key: bytes, message: bytes) -> None:
    assert siphash24(key, message) == model_siphash(key, message)


@pytest.mark.parametrize("length", [0, 15, 17])
def test_siphash_key_of_another_length(length: int) -> None:
    with pytest.raises(ValueError, match=f"16 bytes, not {length}"):
        siphash24(bytes(length), b"")


def test_key_hash_is_the_unsigned_number() -> None:
    hashes = [key_hash(b"/%d" % number) for number in range(64)]
    assert hashes == [model_siphash(b"l3dsr.maglev.key", b"/%d" % n) for n in range(64)]
    assert max(hashes) >= 2**63  # a signed reading would have made it negative


def test_fixed_keys_are_three_different_keys() -> None:
    keys = {OFFSET_KEY, SKIP_KEY, LOOKUP_KEY}
    assert len(keys) == 3
    assert {len(key) for key in keys} == {16}


# --- the paper's example --------------------------------------------------------------------------

# Table 1: M = 7; as (offset, skip) of the permutations
B0 = (3, 4)  # 3 0 4 1 5 2 6
B1 = (0, 2)  # 0 2 4 6 1 3 5
B2 = (3, 1)  # 3 4 5 6 0 1 2


def test_paper_example() -> None:
    assert list(populate([B0, B1, B2], [1, 1, 1], 7)) == [1, 0, 1, 0, 2, 2, 0]


def test_paper_example_after_b1_is_removed() -> None:
    """B0 B0 B0 B0 B2 B2 B2 (here B2 is number 1)."""
    assert list(populate([B0, B2], [1, 1], 7)) == [0, 0, 0, 0, 1, 1, 1]


def test_paper_example_with_a_double_weight() -> None:
    """By hand, B1 twice as heavy: turns 1 | 0 1 2 | 1 | 0 1, so slots 0 | 3 2 4 | 6 | 1 5."""
    assert list(populate([B0, B1, B2], [1, 2, 1], 7)) == [1, 0, 1, 0, 2, 1, 1]


# --- turns ----------------------------------------------------------------------------------------


def test_equal_weights_take_turns_in_order() -> None:
    assert list(islice(turns([5, 5, 5]), 7)) == [0, 1, 2, 0, 1, 2, 0]


def test_weights_are_spread_smoothly() -> None:
    """Credits of weights 3, 1, 2 by hand: round 1: 0; round 2: 0 2; round 3: 0 1 2."""
    assert list(islice(turns([3, 1, 2]), 12)) == [0, 0, 2, 0, 1, 2] * 2


def test_turns_planned_later_follow_the_same_pattern() -> None:
    """A cycle of weights 3, 1, 2 has six turns, whatever was planned in one go."""
    many = list(islice(turns([3, 1, 2]), 60_000))
    assert many == [0, 0, 2, 0, 1, 2] * 10_000


def test_a_weight_of_zero_takes_no_turn() -> None:
    assert list(islice(turns([0, 1]), 3)) == [1, 1, 1]


# --- against the naive model ----------------------------------------------------------------------

sizes = st.sampled_from([7, 11, 13, 101, 251])
backend_sets = st.dictionaries(st.binary(max_size=20), st.integers(0, 9), min_size=1, max_size=7)


@given(backend_sets.filter(lambda backends: any(backends.values())), sizes, st.randoms())
def test_table_equals_the_model_in_any_order(
    backends: dict[bytes, int], size: int, shuffler: random.Random
) -> None:
    names = list(backends)
    shuffler.shuffle(names)
    weights = [backends[name] for name in names]
    assert owners(Table(names, weights, size), names) == model_table(names, weights, size)


def test_default_table_equals_the_model() -> None:
    """The whole default size once, with three backends of the lab's kind."""
    names, weights = [b"192.168.33.20", b"192.168.33.21", b"192.168.33.22"], [2, 3, 1]
    assert owners(Table(names, weights), names) == model_table(names, weights, 65537)


def test_a_name_as_text_is_the_name_as_utf8() -> None:
    assert (
        Table(["é", "b"], [1, 1], 101).entries == Table(["é".encode(), b"b"], [1, 1], 101).entries
    )


# --- balance, disruption --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 10, 100])
def test_equal_weights_get_equal_shares(count: int) -> None:
    """While everyone takes turns, the slots of two backends differ by one at most."""
    share = Table(names_of(count), [1] * count).share()
    assert sum(share) == 65537
    assert max(share) - min(share) <= 1


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30))
@settings(max_examples=20)
def test_share_follows_weight(weights: list[int]) -> None:
    """Within the credits that have not bought a turn yet: less than one for each backend."""
    share = Table(names_of(len(weights)), weights).share()
    for weight, slots in zip(weights, share, strict=True):
        assert abs(slots - 65537 * weight / sum(weights)) <= len(weights) + 1


@pytest.mark.parametrize(("count", "bound"), [(2, 0.0), (3, 0.005), (10, 0.01), (100, 0.02)])
@pytest.mark.parametrize("heavy", [1, 4])
def test_removing_a_backend_moves_few_other_keys(count: int, bound: float, heavy: int) -> None:
    """The paper's figure 12: with a table much larger than N, about a per cent of the slots."""
    names, weights = names_of(count), [heavy] + [1] * (count - 1)
    before = owners(Table(names, weights), names)
    for gone in {0, count // 2, count - 1}:
        left = names[:gone] + names[gone + 1 :]
        after = owners(Table(left, weights[:gone] + weights[gone + 1 :]), left)
        moved = sum(old not in (new, names[gone]) for old, new in zip(before, after, strict=True))
        assert moved / 65537 <= bound


@pytest.mark.parametrize("count", [2, 10, 100])
def test_hashed_keys_are_balanced(count: int) -> None:
    """20,000 paths: the fullest backend has less than five standard deviations above its part."""
    table = Table(names_of(count), [1] * count)
    keys = Counter(table.lookup(key_hash(b"/objects/%d" % number)) for number in range(20_000))
    expected = 20_000 / count
    assert max(keys.values()) < expected + 5 * expected**0.5


# --- the order after the first ---


def model_order(owner: list[bytes], names: list[bytes], hash64: int) -> list[bytes]:
    """Look-ups by the hash and 31 hashes of it, then the names from a place on."""
    found = [owner[hash64 % len(owner)]]
    for again in range(1, 32):
        message = hash64.to_bytes(8, "little") + bytes([again, 0, 0, 0])
        found.append(owner[model_siphash(b"l3dsr.maglev.agn", message) % len(owner)])
    start = hash64 % len(names)
    return list(dict.fromkeys(found + sorted(names)[start:] + sorted(names)[:start]))


@given(
    backend_sets.filter(lambda backends: any(backends.values())),
    st.integers(0, 2**64 - 1),
    st.sampled_from([7, 101]),
)
def test_order_equals_the_model_and_is_a_permutation(
    backends: dict[bytes, int], hash64: int, size: int
) -> None:
    names = list(backends)
    table = Table(names, list(backends.values()), size)
    order = [names[index] for index in table.order(hash64)]
    assert order == model_order(owners(table, names), names, hash64)
    assert sorted(order) == sorted(names)
    assert order[0] == names[table.lookup(hash64)]


def test_order_of_more_backends_than_look_ups() -> None:
    names = names_of(500)
    table = Table(names, [1] * 500, 4099)
    order = [names[index] for index in table.order(2**63 + 12345)]
    assert order == model_order(owners(table, names), names, 2**63 + 12345)
    assert sorted(order) == sorted(names)


def test_keys_of_one_backend_go_to_all_others() -> None:
    """Of 10,000 keys of one of ten, a ninth to each other: within five standard deviations."""
    table, second = Table(names_of(10), [1] * 10, 4099), Counter()
    hashes = (key_hash(b"/%d" % number) for number in range(100_000))
    for hash64 in hashes:
        if table.lookup(hash64) == 3:
            second[next(islice(table.order(hash64), 1, None))] += 1
    expected = second.total() / 9
    assert len(second) == 9
    assert max(abs(count - expected) for count in second.values()) < 5 * expected**0.5


# --- sizes, and building in steps ---


@pytest.mark.parametrize(
    ("backends", "size"),
    [(1, 4099), (40, 4099), (41, 65537), (655, 65537), (6553, 65537), (6554, 655373)],
)
def test_the_size_that_fits(backends: int, size: int) -> None:
    assert fitting(backends) == size


def test_every_size_of_the_ladder_is_a_prime() -> None:
    assert all(map(is_prime, LADDER))


@pytest.mark.parametrize("count", [10, 1000])
def test_building_is_done_in_short_steps(count: int) -> None:
    """The same table, and no step that would hold packets up."""
    steps = Table.building(names_of(count), [1] * count, 65537)
    spent, table = [], None
    while table is None:
        start = time.process_time()
        try:
            next(steps)
        except StopIteration as done:
            table = done.value
        spent.append(time.process_time() - start)
    assert table.entries == Table(names_of(count), [1] * count, 65537).entries
    assert len(spent) > 20
    assert sorted(spent)[-2] < 0.02


# --- errors and speed -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [-7, 0, 1, 4, 9, 65536, 65537 * 3])
def test_a_size_that_is_no_prime(size: int) -> None:
    with pytest.raises(ValueError, match=f"must be a prime, {size} is none"):
        Table(["a"], [1], size)


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        ([], [], "no backend has a weight above 0"),
        (["a"], [0], "no backend has a weight above 0"),
        (["a", "b"], [1, -1], "must not be negative: -1"),
        (["a", "b"], [1], "2 backends, but 1 weights"),
        (["a", b"a"], [1, 1], "same name"),
        (list("abcd"), [1] * 4, "4 backends are too many for a table of 3 slots"),
    ],
)
def test_backends_that_make_no_table(
    names: list[bytes | str], weights: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Table(names, weights, 3)


def test_is_prime() -> None:
    assert [number for number in range(30) if is_prime(number)] == [
        2,
        3,
        5,
        7,
        11,
        13,
        17,
        19,
        23,
        29,
    ]
    assert is_prime(65537)


@pytest.mark.parametrize(
    ("count", "heaviest", "seconds"), [(2, 1, 0.3), (100, 1, 2.0), (100, 1000, 2.0)]
)
def test_population_is_quick(count: int, heaviest: int, seconds: float) -> None:
    weights = [heaviest] + [1] * (count - 1)
    start = time.process_time()
    Table(names_of(count), weights)
    assert time.process_time() - start < seconds
