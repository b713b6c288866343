"""A pool's members: who takes flows, how they change while running, and what a reload keeps."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from itertools import count

import pytest

from balancer.core.choice.maglev import key_hash
from balancer.core.choice.pool import Pool
from balancer.core.choice.ring import Ring
from tests.unit.choice.pools import (
    CLIENT,
    HASHED,
    POLICIES,
    backend,
    configuration,
    keys,
    named,
    names,
    owners,
    place,
    pool,
)

KEYS = keys(200)
every_policy = pytest.mark.parametrize("policy", POLICIES)


new_clients = (number.to_bytes(4, "big") for number in count(1))


def everybody(of: Pool) -> set[str]:
    """Who is given one of many flows, each of a client of its own."""
    flows = []
    for key in KEYS:
        client = next(new_clients)
        flows.append((place(of, key, client), client))
    for member, client in flows:
        of.closed(member, client, 0.0)
    return {member.name for member, _ in flows}


# --- who takes flows ---


def test_who_comes_back_a_little_later_than_now_is_there() -> None:
    """A check's time may be later than that of the packet or the timer at hand."""
    among = pool("ab")
    first, _ = among.members
    among.mark_down(first, "x", 1.0)
    among.mark_up(first, 2.0)
    assert set(owners(among, KEYS, 1.9)) == {"a", "b"}


@every_policy
def test_one_member_has_everything(policy: str) -> None:
    alone = pool("a", policy)
    assert everybody(alone) == {"a"}
    assert names(alone.order(key_hash(b"/"), CLIENT, 0.0)) == ["a"]
    assert alone.choose(key_hash(b"/"), CLIENT, 0.0, alone.members) is None


@every_policy
@pytest.mark.parametrize("how", ["down", "drain", "weight 0"])
def test_where_nobody_takes_flows_nobody_is_chosen(policy: str, how: str) -> None:
    """As with HAProxy, also where all drain; and all is as before when they are back."""
    all_out = pool("abc", policy)
    for member in all_out.members:
        match how:
            case "down":
                all_out.mark_down(member, "no answer", 0.0)
            case "drain":
                all_out.drain(member)
            case _:
                all_out.set_weight(member, 0)
    assert all_out.choose(key_hash(b"/"), CLIENT, 0.0) is None
    assert all_out.order(key_hash(b"/"), CLIENT, 0.0) == []
    for member in all_out.members:
        all_out.mark_up(member, 0.0)
        all_out.ready(member, 0.0)
        all_out.set_weight(member, 1)
    assert everybody(all_out) == set("abc")


@every_policy
def test_a_pool_whose_backends_all_have_weight_0(policy: str) -> None:
    nobody = pool({"a": 0, "b": 0}, policy)
    assert nobody.choose(key_hash(b"/"), CLIENT, 0.0) is None
    nobody.set_weight(nobody.members[1], 3)
    assert everybody(nobody) == {"b"}


@every_policy
def test_down_draining_and_weight_0_are_apart(policy: str) -> None:
    """Each of them keeps flows away until it is over itself."""
    apart = pool("ab", policy)
    (a,) = named(apart, "a")
    apart.mark_down(a, "3 checks failed", 0.0)
    apart.drain(a)
    apart.set_weight(a, 0)
    assert (a.up, a.reason, a.draining, a.weight) == (False, "3 checks failed", True, 0)
    for step in (
        lambda: apart.mark_up(a, 0.0),
        lambda: apart.ready(a, 0.0),
        lambda: apart.set_weight(a, 1),
    ):
        assert everybody(apart) == {"b"}
        step()
    assert everybody(apart) == {"a", "b"}
    assert (a.up, a.reason, a.draining, a.weight) == (True, "", False, 1)


@every_policy
def test_counts_come_back_to_zero(policy: str) -> None:
    """Of flows that were given before and after their member drained, fell out or was removed."""
    among = pool("abcd", policy, bounded_load=1.25 if policy in HASHED else 0)
    a, b, c, _ = among.members
    flows = []
    for number, key in enumerate(KEYS):
        match number:
            case 50:
                among.drain(a)
            case 80:
                among.mark_down(b, "", 0.0)
            case 110:
                among.mark_up(b, 0.0)
            case 140:
                among.remove(c)
        flows.append((place(among, key, CLIENT), CLIENT))
    assert among.departed == (c,)
    for member, client in flows:
        among.closed(member, client, 0.0)
    assert [member.pending for member in (a, b, c, *among.members)] == [0] * 6
    assert sum(member.given for member in {a, b, c, *among.members}) == len(KEYS)
    assert among.departed == ()


def test_a_tried_member_of_another_pool_says_nothing() -> None:
    among, other = pool("ab"), pool("ab")
    assert among.choose(key_hash(b"/"), CLIENT, 0.0, other.members) is not None


# --- weights and membership while running ---


@pytest.mark.parametrize("policy", HASHED)
def test_a_new_weight_gives_the_table_of_that_weight(policy: str) -> None:
    changed, wanted = pool("abc", policy), pool({"a": 1, "b": 4, "c": 1}, policy)
    owners(changed, KEYS)
    changed.set_weight(changed.members[1], 4)
    for _ in changed.building():
        pass
    assert owners(changed, KEYS) == owners(wanted, KEYS)


@pytest.mark.parametrize("weight", [-1, 1001])
def test_a_weight_that_cannot_be(weight: int) -> None:
    among = pool("ab")
    with pytest.raises(ValueError, match=f"{weight} is wrong; right would be a weight from 0 to 1"):
        among.set_weight(among.members[0], weight)


@every_policy
def test_who_is_added_takes_flows_and_who_is_removed_takes_none(policy: str) -> None:
    among = pool("ab", policy)
    everybody(among)
    c = among.add(backend("c"), 0.0)
    for _ in among.building():
        pass
    assert names(among.members) == ["a", "b", "c"]
    assert "c" in everybody(among)
    (a,) = named(among, "a")
    among.opened(a, CLIENT, 0.0)
    among.remove(a)
    assert everybody(among) == {"b", "c"}
    assert among.find("a") is None
    assert among.departed == (a,)
    assert among.add(backend("a"), 0.0) is a, "who comes back while its flows last is the same"
    assert among.departed == ()
    assert c in among.members
    for _ in among.building():
        pass
    assert everybody(among) == {"a", "b", "c"}


@pytest.mark.parametrize("policy", HASHED)
def test_after_adding_and_removing_the_table_is_as_if_it_had_been_so(policy: str) -> None:
    changed, wanted = pool("abcd", policy), pool("bcde", policy)
    owners(changed, KEYS)
    changed.add(backend("e"), 0.0)
    changed.remove(named(changed, "a")[0])
    for _ in changed.building():
        pass
    assert owners(changed, KEYS) == owners(wanted, KEYS)


def test_who_is_added_must_be_new() -> None:
    among = pool("ab")
    taken = backend("a")
    for other in (taken, type(taken)("a", "10.1.1.1"), type(taken)("c", taken.bridge)):
        with pytest.raises(ValueError, match=f"pool has a at {taken.bridge} already"):
            among.add(other, 0.0)


def test_the_last_one_can_be_removed() -> None:
    among = pool("a")
    among.remove(among.members[0])
    assert among.choose(key_hash(b"/"), CLIENT, 0.0) is None
    among.add(backend("b"), 0.0)
    assert everybody(among) == {"b"}


def test_a_large_table_is_built_step_by_step_between_choices() -> None:
    """Nobody waits for it: until it is there, the one before is used, and who left passed over."""
    among = pool("abcd", table_size=655373)
    for _ in among.building():
        pass
    before = owners(among, KEYS)
    (gone,) = named(among, "a")
    among.remove(gone)
    start = time.process_time()
    assert "a" not in owners(among, KEYS[:5])
    assert (time.process_time() - start) / 5 < 0.05
    during = owners(among, KEYS[:1])
    assert during[0] == before[0] or before[0] == "a"
    assert among._steps is not None
    for _ in among.building():
        pass
    assert owners(among, KEYS) == owners(pool("bcd", table_size=655373), KEYS)


# --- another configuration ---


@every_policy
def test_a_reload_keeps_members_with_their_counts_and_state(policy: str) -> None:
    before = pool("abcd", policy)
    a, b, c, d = before.members
    for key in KEYS:
        place(before, key)
    before.mark_down(a, "no answer", 0.0)
    before.drain(b)
    counts = [(member.pending, member.given) for member in before.members]
    after = before.reconfigured(configuration("edcba", policy), 0.0)
    after.take_over(0.0)
    assert names(after.members) == list("edcba")
    assert [after.find(name) for name in "abcd"] == [a, b, c, d]
    assert [(member.pending, member.given) for member in (a, b, c, d)] == counts
    assert (a.up, a.reason, b.draining) == (False, "no answer", True)
    for member in (a, b, c, d):
        for _ in range(member.pending):
            before.closed(member, CLIENT, 0.0)  # a flow may still know the pool before
    assert everybody(after) == set("cde")


def test_a_name_with_another_bridge_is_another_member() -> None:
    before = pool("ab")
    (a,) = named(before, "a")
    place(before, b"/"), before.opened(a, CLIENT, 0.0)
    moved = type(backend("a"))("a", "10.1.2.3")
    after = before.reconfigured(type(before.configured)("pool", (moved, backend("b"))), 0.0)
    assert after.find("a") is not a
    assert after.find("b") is before.find("b")
    after.take_over(0.0)
    assert a in after.departed
    assert not a.taking


@every_policy
def test_the_pool_before_goes_on_until_the_new_one_takes_over(policy: str) -> None:
    before = pool("abc", policy)
    everybody(before)
    after = before.reconfigured(configuration({"b": 5, "c": 1, "d": 1}, policy), 0.0)
    (a,), (b,) = named(before, "a"), named(before, "b")
    assert (a.taking, b.weight) == (True, 1)
    assert everybody(before) == set("abc")
    flow = place(before, b"/last")
    assert everybody(after) == set("bcd")
    assert (a.taking, b.weight) == (False, 5)
    after.closed(flow, CLIENT, 0.0)


@pytest.mark.parametrize("policy", ["maglev", "ring"])
def test_only_tables_that_change_are_built_anew(policy: str) -> None:
    before = pool({"a": 1, "b": 2}, policy)
    owners(before, KEYS)
    same = before.reconfigured(configuration({"b": 2, "a": 1}, policy, retries=1), 0.0)
    assert list(same.building()) == []
    owners(same, KEYS)
    assert same._table is before._table
    for weights, others in (({"a": 1, "b": 3}, {}), ({"a": 1, "b": 2, "c": 1}, {})):
        new = same.reconfigured(configuration(weights, policy, **others), 0.0)
        assert len(list(new.building())) > 0
        assert owners(new, KEYS) == owners(pool(weights, policy), KEYS)
        same = pool({"a": 1, "b": 2}, policy)
        owners(same, KEYS)


@pytest.mark.parametrize("changed", [{"table_size": 101}, {"points": 7}])
def test_another_size_is_another_table(changed: dict[str, int]) -> None:
    policy = "maglev" if "table_size" in changed else "ring"
    before = pool("abc", policy)
    owners(before, KEYS)
    after = before.reconfigured(configuration("abc", policy, **changed), 0.0)
    assert owners(after, KEYS) == owners(pool("abc", policy, **changed), KEYS)
    if policy == "ring":
        assert isinstance(after._table, Ring)
        assert len(after._table.points) == 21


@pytest.mark.parametrize("first", POLICIES)
@pytest.mark.parametrize("second", POLICIES)
def test_the_policy_can_change(first: str, second: str) -> None:
    before = pool("abc", first)
    flows = [place(before, key, next(new_clients)) for key in KEYS]
    after = before.reconfigured(configuration("abc", second), 0.0)
    assert everybody(after) == set("abc")
    for member in flows:
        after.closed(member, CLIENT, 0.0)
    assert [member.pending for member in after.members] == [0, 0, 0]


def test_a_weight_set_while_running_stays_unless_the_file_has_another() -> None:
    before = pool({"a": 1, "b": 2, "c": 3})
    for member in before.members:
        before.set_weight(member, 7)
    after = before.reconfigured(configuration({"a": 1, "b": 5, "c": 3}), 0.0)
    after.take_over(0.0)
    assert [member.weight for member in after.members] == [7, 5, 7]
    wanted = pool({"a": 7, "b": 5, "c": 7})
    assert owners(after, KEYS) == owners(wanted, KEYS)


def test_a_reload_starts_new_members_slowly_and_no_other() -> None:
    before = pool("ab", slow_start=10.0)
    assert everybody(before) == {"a", "b"}
    assert [member.starting for member in before.members] == [None, None], "nor at the start"
    after = before.reconfigured(configuration("abc", slow_start=10.0), 100.0)
    after.take_over(105.0)
    assert [member.starting for member in after.members] == [None, None, 105.0]
    after.choose(key_hash(b""), CLIENT, 110.0)
    assert [member.share for member in after.members] == [64, 64, 32]


def test_who_departed_and_is_configured_again_is_the_same() -> None:
    first = pool("ab")
    (a,) = named(first, "a")
    first.opened(a, CLIENT, 0.0)
    second = first.reconfigured(configuration("b"), 0.0)
    second.take_over(0.0)
    assert second.departed == (a,)
    third = second.reconfigured(configuration("ab"), 0.0)
    assert everybody(third) == {"a", "b"}
    assert third.find("a") is a
    assert third.departed == ()
    assert not a.draining


def test_two_reloads_in_a_row() -> None:
    """Also where nothing was chosen in between."""
    first = pool("abc")
    second = first.reconfigured(configuration("bcd"), 0.0)
    third = second.reconfigured(configuration("cde"), 0.0)
    assert everybody(third) == set("cde")
    assert third.find("c") is first.find("c")


@pytest.mark.parametrize("policy", ["least-pending", "maglev"])
def test_flows_between_reload_and_switch_are_counted(policy: str) -> None:
    bound = 1.01 if policy == "maglev" else 0
    before = pool("ab", policy, bounded_load=bound)
    after = before.reconfigured(configuration("ab", policy, bounded_load=bound), 0.0)
    a, b = before.members
    key = KEYS[owners(before, KEYS).index("a")]
    for _ in range(10):
        before.opened(a, CLIENT, 0.0)
    assert {place(after, key) for _ in range(9)} == {b}
    for _ in range(9):
        before.closed(b, CLIENT, 0.0)
        before.closed(a, CLIENT, 0.0)
    before.closed(a, CLIENT, 0.0)
    assert (a.pending, b.pending) == (0, 0)
    assert place(after, key) is (a if bound else b), "b has been given less"


# --- slow start of the policies that go by counts ---


@pytest.mark.parametrize("policy", ["round-robin", "least-pending", "source"])
def test_a_slow_start_scales_the_weight(policy: str) -> None:
    """At a quarter of its time, c gets 16/64 of what a and b get."""
    among = pool("abc", policy, slow_start=100.0)
    (c,) = named(among, "c")
    among.mark_down(c, "", 0.0)
    among.mark_up(c, 0.0)
    for number in range(900):
        place(among, source=number.to_bytes(4, "big"), now=25.0)
    assert c.pending == pytest.approx(100, abs=2)


# --- speed ---


@pytest.fixture
def uncollected() -> Iterator[None]:
    """As in the packets' process: no garbage collection, which walks all that other tests keep."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_reload_of_a_hundred_pools_is_quick(uncollected: None) -> None:
    """1,000 backends, every pool's weights changed, under a second of processor time."""
    many = [f"b{number}" for number in range(10)]
    before = [pool(many) for _ in range(100)]
    for one in before:
        one.choose(key_hash(b""), CLIENT, 0.0)
    start = time.process_time()
    longest = 0.0
    for one in before:
        began = time.process_time()
        new = one.reconfigured(configuration(dict.fromkeys(many, 2) | {"b3": 1}), 0.0)
        for _ in new.building():
            longest = max(longest, time.process_time() - began)
            began = time.process_time()
        new.take_over(0.0)
        assert new.choose(key_hash(b""), CLIENT, 0.0)
    assert time.process_time() - start < 1
    assert longest < 0.05


def test_the_hash_is_maglev_s_key_hash() -> None:
    among = pool("abc")
    order = among.order(key_hash(b"/x"), CLIENT, 0.0)
    assert among.ranking(key_hash(b"/x")) == order
    assert pool("abc", "round-robin").ranking(1) == []
