"""What a balancer makes of a bridge's answers at /health."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.agent_settings import BridgeCheck, Member
from common.core.bridge_health import AnswerError, BridgeView, Entry, decode, encode
from common.core.health import Rhythm

BRIDGE = "192.0.2.20"
MEMBER = Member(("pool", "b"), BRIDGE, ((80, 1, "tcp"), (443, 1, "tcp")))
PLAIN = Entry(BRIDGE, 80, (1, 2), "192.0.2.30:80")
SECURE = Entry(BRIDGE, 443, (1,), "192.0.2.30:443")


def view(*members: Member) -> BridgeView:
    return BridgeView(BridgeCheck(BRIDGE, 9320, Rhythm(1.0, 0.0), 1.0, members))


def trouble(*answers: list[Entry]) -> str:
    """What the last of these answers says of MEMBER."""
    seen = view(MEMBER)
    for answer in answers:
        ((target, well, reason),) = seen.answered(answer)
    assert target == ("pool", "b")
    assert well == (not reason)
    return reason


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([PLAIN, SECURE], ""),
        ([PLAIN], "the bridge has no backend for port 443 with DSCP 1"),
        (
            [PLAIN, replace(SECURE, dscps=(2,))],
            "the bridge has no backend for port 443 with DSCP 1",
        ),
        ([PLAIN, replace(SECURE, address="192.0.2.21")], "the bridge has no backend for port 443"),
        ([replace(PLAIN, up=False, reason="status 503"), SECURE], "192.0.2.30:80: status 503"),
        ([PLAIN, replace(SECURE, up=False)], "server 192.0.2.30:443: down"),
    ],
)
def test_all_that_the_pools_services_need_must_be_there(entries: list[Entry], reason: str) -> None:
    assert reason in trouble(entries)
    assert bool(reason) == bool(trouble(entries))


@pytest.mark.parametrize(
    ("unread", "handoff", "reason"),
    [
        (True, False, ""),
        (False, True, ""),
        (True, None, ""),  # a bridge that does not say
        (False, None, ""),
        (True, True, "the bridge awaits handoffs at port 22; right would be handoff = false"),
        (False, False, "the bridge takes no handoffs at port 22; right would be handoff = true"),
    ],
)
def test_a_connection_must_begin_as_the_bridge_has_it(
    unread: bool, handoff: bool | None, reason: str
) -> None:
    name = (22, 1, "tcp")
    seen = view(Member(("pool", "b"), BRIDGE, (name,), (name,) if unread else ()))
    entry = Entry(BRIDGE, 22, (1,), "192.0.2.30:22", handoff=handoff)
    answer = decode(json.dumps(encode([entry])).encode())
    assert seen.answered(answer) == [(("pool", "b"), not reason, reason)]


@pytest.mark.parametrize(
    ("later", "bad"),
    [
        ({"opened": 0}, False),  # nobody has tried
        ({"opened": 9}, False),
        ({"refused": 1}, True),
        ({"silent": 2}, True),
        ({"opened": 3, "reset": 3}, True),  # taken, and reset: no better
        ({"opened": 1, "refused": 1}, True),
        ({"opened": 3, "refused": 1, "silent": 1}, False),
        ({"opened": 10_000, "refused": 1, "reset": 2}, False),  # of many some go wrong
    ],
)
def test_what_connections_meet_counts_when_it_is_half_of_them(
    later: dict[str, int], bad: bool
) -> None:
    before = replace(PLAIN, opened=100, refused=7, silent=5, reset=50)
    after = replace(before, **{key: getattr(before, key) + n for key, n in later.items()})
    assert bool(trouble([before, SECURE], [after, SECURE])) == bad
    assert not trouble([before, SECURE], [after, SECURE], [after, SECURE])  # and only once


def test_the_protocol_is_part_of_a_ways_name() -> None:
    seen = view(Member(("p", "b"), BRIDGE, ((53, 1, "udp"),)))
    tcp = Entry(BRIDGE, 53, (1,), "192.0.2.30:53")
    (result,) = seen.answered([tcp])
    assert result[1:] == (False, "the bridge has no backend for UDP port 53 with DSCP 1")
    (result,) = seen.answered([tcp, replace(tcp, protocol="udp")])
    assert result[1:] == (True, "")


def test_a_bridge_that_began_anew_is_not_blamed_for_what_was_before() -> None:
    before = replace(PLAIN, opened=100, refused=50)
    assert not trouble([before, SECURE], [replace(PLAIN, refused=3), SECURE])


def test_without_an_answer_all_members_are_in_trouble() -> None:
    other = Member(("pool", "c"), BRIDGE, ((80, 1, "tcp"),))
    assert view(MEMBER, other).failed("refused") == [
        (("pool", "b"), False, "refused"),
        (("pool", "c"), False, "refused"),
    ]


def test_an_answer_is_read_as_it_was_written() -> None:
    entries = [replace(PLAIN, opened=3, reset=1, up=False, reason="a"), SECURE]
    assert decode(json.dumps(encode(entries)).encode()) == entries


def test_what_a_later_bridge_says_besides_is_passed_over() -> None:
    answer = encode([PLAIN])
    answer["later"] = {}
    answer["backends"][0]["later"] = [1]
    del answer["backends"][0]["opened"]  # and what an earlier one did not
    assert decode(json.dumps(answer).encode()) == [PLAIN]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["backends", "address", "port", "dscps", "up"]), inner)
    ),
)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_anything_else_is_refused_with_a_reason(answer: bytes) -> None:
    try:
        assert all(isinstance(entry, Entry) for entry in decode(answer))
    except AnswerError as error:
        assert str(error)


@pytest.mark.parametrize("value", [None, "1", 1.5, True, -1, [1]])
@pytest.mark.parametrize("key", ["port", "dscps", "refused"])
def test_a_number_is_a_number(key: str, value: Any) -> None:
    answer = encode([PLAIN])
    answer["backends"][0][key] = value
    if (key, value) == ("dscps", [1]):
        return
    with pytest.raises(AnswerError):
        decode(json.dumps(answer).encode())
