"""A client stays with its member: which, for how long, and in what memory."""

from __future__ import annotations

import pytest

from balancer.core.choice import source
from balancer.core.choice.maglev import key_hash
from tests.unit.choice.pools import CLIENT, configuration, names, place, pool


def client(number: int) -> bytes:
    return (0x0A000000 + number).to_bytes(4, "big")


def test_the_same_client_goes_to_the_same_member() -> None:
    """Whatever its key, and however many flows the member has."""
    kept = pool("abc", "source")
    assert {place(kept, b"/%d" % n, CLIENT).name for n in range(20)} == {"a"}


def test_new_clients_go_where_the_fewest_flows_are() -> None:
    kept = pool("abc", "source")
    first = [place(kept, source=client(1)) for _ in range(5)]
    assert names([place(kept, source=client(n)) for n in range(2, 6)]) == ["b", "c", "b", "c"]
    for member in first:
        kept.closed(member, client(1), 0.0)
    assert place(kept, source=client(9)).name == "a"


def test_a_client_without_flows_is_forgotten_after_the_time() -> None:
    kept = pool("ab", "source", remember=100.0)
    a, b = kept.members
    kept.closed(place(kept, now=0.0), CLIENT, 50.0)
    place(kept, source=client(1), now=50.0), place(kept, source=client(2), now=50.0)
    place(kept, source=client(3), now=50.0)  # a has more than b now, and who is new goes to b
    assert [member.pending for member in (a, b)] == [1, 2]
    kept.opened(a, client(4), 50.0), kept.opened(a, client(5), 50.0)
    assert kept.choose(key_hash(b""), CLIENT, 149.9) is a
    assert kept.choose(key_hash(b""), CLIENT, 150.0) is b


def test_a_client_with_a_flow_is_not_forgotten() -> None:
    kept = pool("ab", "source", remember=100.0)
    member = place(kept, now=0.0)
    for number in range(4):
        place(kept, source=client(number), now=10.0 * number)
    assert kept.choose(key_hash(b""), CLIENT, 5000.0) is member
    kept.closed(member, CLIENT, 5000.0)
    assert kept.choose(key_hash(b""), CLIENT, 5099.0) is member


@pytest.mark.parametrize("how", ["down", "drain", "weight 0", "removed"])
def test_a_client_moves_for_good_when_its_member_takes_nothing(how: str) -> None:
    kept = pool("abc", "source")
    a = place(kept)
    match how:
        case "down":
            kept.mark_down(a, "no answer", 0.0)
        case "drain":
            kept.drain(a)
        case "weight 0":
            kept.set_weight(a, 0)
        case _:
            kept.remove(a)
    assert names(kept.order(key_hash(b""), CLIENT, 0.0)) == ["b", "c"]
    b = place(kept)
    assert b.name == "b"
    kept.mark_up(a, 0.0), kept.ready(a, 0.0)
    assert kept.choose(key_hash(b""), CLIENT, 0.0) is b


def test_a_member_tried_in_vain_is_left() -> None:
    kept = pool("ab", "source")
    a = place(kept)
    assert place(kept, tried=(a,)).name == "b"
    assert kept.choose(key_hash(b""), CLIENT, 0.0).name == "b"


def test_order_begins_with_the_client_s_member() -> None:
    kept = pool("abcd", "source")
    for number in range(3):
        place(kept, source=client(number))
    assert names(kept.order(key_hash(b""), client(1), 0.0)) == ["b", "d", "a", "c"]
    assert names(kept.order(key_hash(b""), client(7), 0.0)) == ["d", "a", "b", "c"]


def test_clients_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one whose last flow opened or closed longest ago makes room."""
    monkeypatch.setattr(source, "CLIENTS", 3)
    kept = pool("ab", "source")
    for number in (1, 2, 3, 1, 4):  # 2 is the longest quiet
        kept.closed(place(kept, source=client(number), now=float(number)), client(number), 9.0)
    assert len(kept._policy) == 3
    assert set(kept._policy._clients) == {client(1), client(3), client(4)}
    for number in (3, 1, 5):  # opened only
        place(kept, source=client(number), now=10.0)
    assert set(kept._policy._clients) == {client(1), client(3), client(5)}


def test_what_is_over_is_forgotten_without_being_asked_for() -> None:
    kept = pool("ab", "source", remember=10.0)
    for number in range(100):
        kept.closed(place(kept, source=client(number), now=0.0), client(number), 0.0)
    for number in range(60):
        place(kept, source=client(1000), now=20.0 + number)
    assert len(kept._policy) == 1


def test_clients_with_long_flows_do_not_keep_the_forgotten() -> None:
    """Who has a flow is passed by when the table is gone through."""
    kept = pool("ab", "source", remember=10.0)
    for number in range(10):
        place(kept, source=client(number), now=0.0)
    for number in range(10, 30):
        kept.closed(place(kept, source=client(number), now=1.0), client(number), 1.0)
    for _ in range(60):
        place(kept, source=client(1000), now=20.0)
    assert len(kept._policy) == 11


def test_a_client_forgotten_with_flows_in_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their end does not take from what is counted since."""
    monkeypatch.setattr(source, "CLIENTS", 1)
    kept = pool("ab", "source", remember=10.0)
    a = place(kept)
    place(kept, source=client(1))
    again = place(kept, now=1.0)
    kept.closed(a, CLIENT, 2.0), kept.closed(again, CLIENT, 2.0)
    place(kept, now=3.0)
    assert kept._policy._clients[CLIENT].pending == 1


def test_clients_are_known_after_a_reload() -> None:
    kept = pool("abc", "source")
    for number in range(3):
        place(kept, source=client(number))
    after = kept.reconfigured(configuration("cbad", "source", remember=5.0), 0.0)
    assert [after.choose(key_hash(b""), client(n), 4.0).name for n in range(3)] == ["a", "b", "c"]
