"""Rendezvous against the definition, in decimal numbers of fifty digits."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal, localcontext

from hypothesis import example, given, settings
from hypothesis import strategies as st

from balancer.core.choice.maglev import key_hash
from balancer.core.choice.rendezvous import Rendezvous, compare, score
from tests.unit.choice.pools import keys
from tests.unit.models import siphash

hashes = st.integers(0, 2**64 - 1)
weights = st.integers(1, 1000)


def exact(hashed: int, weight: int) -> Decimal:
    """-ln(1 - h) / weight."""
    with localcontext() as context:
        context.prec = 60
        return -(1 - Decimal(hashed) / 2**64).ln() / weight


def model_order(names: list[str], by_name: list[int], hash64: int) -> list[int]:
    def rank(index: int) -> tuple[Decimal, int]:
        seed = siphash(b"l3dsr.rendezv.nm", names[index].encode())
        message = hash64.to_bytes(8, "little") + seed.to_bytes(8, "little")
        return exact(siphash(b"l3dsr.rendezv.sc", message), by_name[index]), index

    return sorted(range(len(names)), key=rank)


weights_by_name = st.dictionaries(st.text(min_size=1, max_size=8), weights, min_size=1, max_size=8)


@given(weights_by_name, hashes)
@settings(max_examples=60)
def test_order_is_that_of_the_scores(by_name: dict[str, int], hash64: int) -> None:
    names = sorted(by_name)
    table = Rendezvous(names, [by_name[name] for name in names])
    order = model_order(names, [by_name[name] for name in names], hash64)
    assert list(table.order(hash64)) == order
    assert table.lookup(hash64) == order[0]


@given(hashes, weights)
@example(0, 1)
@example(1, 1)
@example(2**63 - 1, 1)
@example(2**63, 1)
@example(2**64 - 1, 1)
def test_a_score_is_right_to_a_few_units_in_the_last_place(hashed: int, weight: int) -> None:
    """Far within what is compared exactly, also next to 0 and to 1."""
    right = exact(hashed, weight)
    assert abs(Decimal(score(hashed, weight)) - right) <= right * Decimal("1e-14")


@given(hashes, weights, weights, st.integers(-3, 3))
def test_scores_that_floats_cannot_tell_apart_are_compared_exactly(
    hash_a: int, weight_a: int, weight_b: int, aside: int
) -> None:
    """The hash that with another weight scores the same, and its neighbours."""
    with localcontext() as context:
        context.prec = 60
        kept = (1 - Decimal(hash_a) / 2**64) ** (Decimal(weight_b) / weight_a)
        hash_b = min(max(int((1 - kept) * 2**64) + aside, 0), 2**64 - 1)
        a, b = exact(hash_a, weight_a), exact(hash_b, weight_b)
        difference = int((a > b) - (a < b)) if abs(a - b) > Decimal("1e-50") else 0
    assert compare(hash_a, weight_a, hash_b, weight_b) == difference
    assert compare(hash_b, weight_b, hash_a, weight_a) == -difference


def test_equal_scores() -> None:
    """1 - 1/2 and, of twice the weight, 1 - 1/4: both ln 2."""
    assert compare(2**63, 1, 3 * 2**62, 2) == 0
    assert compare(2**63, 1, 3 * 2**62 + 1, 2) < 0
    assert compare(2**63, 1, 3 * 2**62 - 1, 2) > 0


def test_shares_follow_the_weights() -> None:
    """Of 20,000 keys 1 : 2 : 7, within four standard deviations."""
    table = Rendezvous(["a", "b", "c"], [1, 2, 7])
    found = Counter(table.lookup(key_hash(key)) for key in keys(20_000))
    for index, weight in enumerate((1, 2, 7)):
        expected = 20_000 * weight / 10
        assert abs(found[index] - expected) < 4 * (expected * (1 - weight / 10)) ** 0.5
