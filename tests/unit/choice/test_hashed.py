"""What maglev, ring and rendezvous share: who moves, bounded load, slow start."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.core.choice.maglev import key_hash
from balancer.core.choice.member import Member
from balancer.core.choice.pool import Pool
from tests.unit.choice.pools import (
    CLIENT,
    HASHED,
    keys,
    named,
    names,
    owners,
    place,
    pool,
)
from tests.unit.models import siphash

KEYS = keys(400)
every_policy = pytest.mark.parametrize("policy", HASHED)
weights_by_name = st.dictionaries(
    st.sampled_from("abcdefgh"), st.integers(1, 5), min_size=1, max_size=8
)


# --- order, and who moves ---


@every_policy
@given(weights=weights_by_name, data=st.data())
@settings(max_examples=40)
def test_order_is_a_permutation_and_choose_goes_along_it(
    policy: str, weights: dict[str, int], data: st.DataObject
) -> None:
    """Whatever is in progress and whoever is away: each choice is the first of the order, and after
    those tried comes the next."""
    bound = data.draw(st.sampled_from([0, 1.1, 2]))
    among = pool(weights, policy, bounded_load=bound)
    for number in range(data.draw(st.integers(0, 20))):
        place(among, b"%d" % number)
    for name in data.draw(st.sets(st.sampled_from(sorted(weights)))):
        among.mark_down(among.find(name), "", 0.0)
    key = data.draw(st.binary(max_size=30))
    order = among.order(key_hash(key), CLIENT, 0.0)
    assert set(order) == {member for member in among.members if member.up}
    assert len(set(order)) == len(order)
    for length in range(len(order) + 1):
        chosen = among.choose(key_hash(key), CLIENT, 0.0, tuple(order[:length]))
        assert chosen is (order[length] if length < len(order) else None)


@every_policy
def test_ranking_names_everybody_whatever_their_state(policy: str) -> None:
    among = pool("abcde", policy)
    before = among.ranking(key_hash(b"/x"))
    assert before == []  # not built yet
    order = among.order(key_hash(b"/x"), CLIENT, 0.0)
    among.mark_down(order[0], "no answer", 0.0)
    assert among.ranking(key_hash(b"/x")) == order
    assert among.order(key_hash(b"/x"), CLIENT, 0.0) == order[1:]


@every_policy
@pytest.mark.parametrize("how", ["down", "drain"])
def test_only_the_keys_of_who_is_away_move_and_come_back_exactly(policy: str, how: str) -> None:
    among = pool("abcdefgh", policy)
    before = owners(among, KEYS)
    (gone,) = named(among, "c")
    among.mark_down(gone, "", 0.0) if how == "down" else among.drain(gone)
    during = owners(among, KEYS)
    assert all((old == new) == (old != "c") for old, new in zip(before, during, strict=True))
    moved = {new for old, new in zip(before, during, strict=True) if old == "c"}
    assert len(moved) > 4, "to many others, not to a neighbour"
    among.mark_up(gone, 0.0) if how == "down" else among.ready(gone, 0.0)
    assert owners(among, KEYS) == before


@pytest.mark.parametrize("policy", ["ring", "rendezvous"])
@given(weights=weights_by_name, more=st.integers(1, 5))
@settings(max_examples=25)
def test_a_new_member_takes_keys_and_no_other_moves(
    policy: str, weights: dict[str, int], more: int
) -> None:
    """The ring and rendezvous as their papers promise; and the other way round, when it leaves."""
    smaller, larger = pool(weights, policy), pool({**weights, "new": more}, policy)
    for old, new in zip(owners(smaller, KEYS), owners(larger, KEYS), strict=True):
        assert new in (old, "new")


@every_policy
def test_two_balancers_agree(policy: str) -> None:
    """Whatever order the backends are written in, and whatever happened before."""
    one, other = pool("abcdefgh", policy), pool("hgfedcba", policy)
    for name in "ah":
        (member,) = named(other, name)
        other.mark_down(member, "", 0.0)
        owners(other, KEYS[:9])
        other.mark_up(member, 0.0)
    assert owners(one, KEYS) == owners(other, KEYS)


@every_policy
def test_a_choice_is_by_key_only(policy: str) -> None:
    among = pool("abc", policy)
    for key in KEYS[:50]:
        clients = (bytes([n, 1, 1, 1]) for n in range(5))
        assert len({among.choose(key_hash(key), client, 0.0) for client in clients}) == 1


def test_maglev_chooses_by_the_table_s_slot() -> None:
    """Two backends of whom one has no weight: every slot is the other's; and literal slots."""
    assert set(owners(pool({"a": 0, "b": 1}), KEYS)) == {"b"}
    among = pool("ab")
    chosen = owners(among, KEYS[:50])
    table = among._table
    slots = [siphash(b"l3dsr.maglev.key", key) % 4099 for key in KEYS[:50]]
    assert chosen == ["ab"[table.entries[slot]] for slot in slots]


# --- bounded load ---


def capacity(bound: str, among: Pool, member: Member) -> int:
    """ceil(c * (in progress + 1) * weight share), of those who take flows."""
    takers = [m for m in among.members if m.up and not m.draining and m.weight]
    in_progress = sum(m.pending for m in takers)
    share = Fraction(member.weight, sum(m.weight for m in takers))
    return ceil(Fraction(bound) * (in_progress + 1) * share)


@every_policy
@given(
    weights=weights_by_name,
    bound=st.sampled_from(["1.01", "1.1", "1.25", "2", "3.7"]),
    events=st.lists(st.integers(0, 999), max_size=60),
)
@settings(max_examples=40)
def test_a_bound_is_never_exceeded(
    policy: str, weights: dict[str, int], bound: str, events: list[int]
) -> None:
    """And who takes the key is the first of its order that has room. Everything that can happen in
    between does: closing, falling out, coming back, draining, a new weight."""
    among = pool(weights, policy, bounded_load=float(bound))
    flows: list[Member] = []
    for event in events:
        member = among.members[event % len(among.members)]
        match event % 10:
            case 0 if flows:
                among.closed(flows.pop(event % len(flows)), CLIENT, 0.0)
            case 1:
                among.mark_down(member, "", 0.0)
            case 2 | 3:
                among.mark_up(member, 0.0)
                among.ready(member, 0.0)
            case 4:
                among.drain(member)
            case 5:
                among.set_weight(member, event % 4)
            case _:
                key = b"one key" if event % 2 else b"%d" % event
                for _ in among.building():
                    pass
                room = {m: capacity(bound, among, m) for m in among.members if m.taking}
                fits = [m for m in among.ranking(key_hash(key)) if m.pending < room.get(m, 0)]
                chosen = among.choose(key_hash(key), CLIENT, 0.0)
                assert chosen is (fits[0] if fits else None)
                if chosen is None:
                    assert not room
                    continue
                among.opened(chosen, CLIENT, 0.0)
                flows.append(chosen)
                assert chosen.pending <= room[chosen]
    for member in flows:
        among.closed(member, CLIENT, 0.0)
    assert {member.pending for member in among.members} == {0}


@every_policy
def test_one_key_spreads_as_its_bound_says(policy: str) -> None:
    """100 flows of one key, four members, c = 1.25: never more than ceil(1.25 * 100 / 4) = 32 on
    one, so that four are in use and the last has the rest; without a bound one has all."""
    among = pool("abcd", policy, bounded_load=1.25)
    order = among.order(key_hash(b"/hot"), CLIENT, 0.0)
    for _ in range(100):
        place(among, b"/hot")
    assert [member.pending for member in order] == [32, 31, 31, 6]
    unbounded = pool("abcd", policy)
    assert {place(unbounded, b"/hot").name for _ in range(100)} == {order[0].name}


def test_a_bound_is_the_decimal_that_is_written() -> None:
    """c = 1.1, ten members, a hundred flows: ceil(1.1 * 100 / 10) = 11 for each, where the float
    nearest to 1.1, a little more, gives 12."""
    among = pool("abcdefghij", bounded_load=1.1)
    for _ in range(100):
        place(among, b"/hot")
    assert max(member.pending for member in among.members) == 11


@every_policy
def test_a_bound_is_among_those_not_tried(policy: str) -> None:
    """Where all that have room were tried in vain, the client is not turned away."""
    among = pool("abc", policy, bounded_load=1.01)
    order = among.order(key_hash(b"/x"), CLIENT, 0.0)
    for _ in range(30):
        place(among, b"/x")
    for length in (1, 2):
        assert among.choose(key_hash(b"/x"), CLIENT, 0.0, tuple(order[:length])) not in (
            None,
            *order[:length],
        )


@every_policy
def test_flows_of_who_drains_do_not_count_for_the_others(policy: str) -> None:
    """Neither while they are in progress nor as they close."""
    among, without = (pool("abc", policy, bounded_load=1.25) for _ in range(2))
    for one in (among, without):
        (a,) = named(one, "a")
        if one is among:
            for _ in range(20):
                one.opened(a, CLIENT, 0.0)
        one.drain(a)
    (a,) = named(among, "a")
    for _ in range(20):
        assert place(among, b"/x").name == place(without, b"/x").name
        among.closed(a, CLIENT, 0.0)
    assert a.pending == 0


# --- slow start ---


def share_of(among: Pool, name: str, now: float) -> float:
    return owners(among, KEYS, now).count(name) / len(KEYS)


@every_policy
def test_a_slow_start_takes_more_keys_with_time_and_gives_none_back(policy: str) -> None:
    among = pool("abcd", policy, slow_start=100.0)
    before = owners(among, KEYS)
    (back,) = named(among, "c")
    among.mark_down(back, "no answer", 0.0)
    without = owners(among, KEYS)
    among.mark_up(back, 1000.0)
    had: set[int] = set()
    shares = []
    for now in range(1000, 1101, 2):
        chosen = owners(among, KEYS, float(now))
        has = {number for number, name in enumerate(chosen) if name == "c"}
        assert had <= has
        assert all(name in ("c", other) for name, other in zip(chosen, without, strict=True)), (
            "who does not come back to it stays where it was"
        )
        had = has
        shares.append(len(has) / before.count("c"))
    assert chosen == before
    assert shares[0] < 0.1
    assert shares[25] == pytest.approx(0.5, abs=0.15)


def test_whether_a_key_comes_is_a_hash_of_key_and_member() -> None:
    """At half of its share c has exactly those of its keys whose hash with its name is lower."""
    among = pool("abcd", slow_start=100.0)
    mine = [key for key, name in zip(KEYS, owners(among, KEYS), strict=True) if name == "c"]
    (back,) = named(among, "c")
    among.mark_down(back, "", 0.0)
    among.mark_up(back, 0.0)
    for key in mine:
        hashed = siphash(b"l3dsr.maglev.key", key).to_bytes(8, "little")
        low = siphash(b"l3dsr.slow-start", hashed + b"c") < 2**63
        assert (among.choose(key_hash(key), CLIENT, 50.0) is back) == low


@every_policy
def test_where_all_start_slowly_nobody_is_turned_away(policy: str) -> None:
    among = pool("abc", policy, slow_start=100.0)
    before = owners(among, KEYS)
    for member in among.members:
        among.mark_down(member, "", 0.0)
    assert set(owners(among, KEYS)) == {""}
    for member in among.members:
        among.mark_up(member, 10.0)
    assert owners(among, KEYS, 10.0) == before, "all are equally far"


def test_shares_are_measured_against_who_is_furthest() -> None:
    """a is back at 0, b at 50: at 50 a has all, at 75 b a third of its share, at 100 half."""
    among = pool("ab", slow_start=100.0)
    a, b = among.members
    for member in (a, b):
        among.mark_down(member, "", 0.0)
    among.mark_up(a, 0.0)
    assert share_of(among, "a", 25.0) == 1
    among.mark_up(b, 50.0)
    assert share_of(among, "b", 50.0) < 0.05
    among.choose(key_hash(b""), CLIENT, 75.0)
    assert (a.share, b.share) == (64, 64 // 3)
    among.choose(key_hash(b""), CLIENT, 100.0)
    assert (a.share, b.share) == (64, 32)
    among.choose(key_hash(b""), CLIENT, 150.0)
    assert (a.share, b.share, b.starting) == (64, 64, None)


@every_policy
def test_a_slow_start_with_a_bound_leaves_others_their_room(policy: str) -> None:
    """While b has next to nothing of its share, its part is not counted against a's room."""
    among = pool("ab", policy, slow_start=100.0, bounded_load=1.25)
    (b,) = named(among, "b")
    among.mark_down(b, "", 0.0)
    among.mark_up(b, 0.0)
    found = Counter(place(among, key, now=0.0).name for key in KEYS)
    assert found["b"] < 20


@every_policy
def test_a_bound_counts_more_than_a_slow_start(policy: str) -> None:
    """a has ten flows, over ceil(1.01 * 11 * 64/96) = 8: b, at half of its share, takes each key,
    also those that it would not have yet."""
    among = pool("ab", policy, slow_start=100.0, bounded_load=1.01)
    a, b = among.members
    among.mark_down(b, "", 0.0)
    among.mark_up(b, 0.0)
    for _ in range(10):
        among.opened(a, CLIENT, 50.0)
    assert set(owners(among, KEYS[:50], 50.0)) == {"b"}


@every_policy
def test_a_slow_start_is_ignored_where_only_the_slow_are_left(policy: str) -> None:
    among = pool("ab", policy, slow_start=100.0)
    a, b = among.members
    among.mark_down(b, "", 0.0)
    among.mark_up(b, 0.0)
    assert all(among.choose(key_hash(key), CLIENT, 0.0, (a,)) is b for key in KEYS)


def test_random_states_never_leave_a_taker_unused() -> None:
    """Whoever takes flows and was not tried is found, in any state of everything."""
    draw = random.Random(4)
    for policy in HASHED:
        among = pool("abcdefgh", policy, slow_start=10.0, bounded_load=1.05)
        for now in range(300):
            member = draw.choice(among.members)
            among.mark_down(member, "", now) if draw.random() < 0.5 else among.mark_up(member, now)
            takers = [m for m in among.members if m.up]
            tried = tuple(draw.sample(among.members, draw.randrange(9)))
            chosen = among.choose(key_hash(b"%d" % now), CLIENT, float(now), tried)
            assert (chosen is None) == (not set(takers) - set(tried))
            if chosen:
                assert chosen in takers and chosen not in tried
                among.opened(chosen, CLIENT, now)
    assert names(among.order(key_hash(b""), CLIENT, 0.0))
