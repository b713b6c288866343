"""A full table: the longest idle goes, whoever is in use stays."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from common.core.eviction import LOOKS, SPARED, longest_idle
from tests.unit import balancer_stage, bridge_stage, models
from tests.unit.balancer_stage import Client, handoff_of
from tests.unit.bridge_stage import Connection

NOW = 1000.0


@dataclass(eq=False)
class Flow:
    seen: float
    placed: float


def flows(*seen: float) -> OrderedDict[bytes, Flow]:
    return OrderedDict((bytes([n]), Flow(when, when)) for n, when in enumerate(seen))


def test_the_first_in_its_place_is_the_longest_idle() -> None:
    table = flows(900.0, 910.0, 920.0)
    assert longest_idle(table, NOW) is table[b"\0"]


def test_who_was_heard_of_goes_to_the_end() -> None:
    table = flows(900.0, 910.0, 920.0)
    table[b"\0"].seen = 950.0
    assert longest_idle(table, NOW) is table[b"\1"]
    del table[b"\1"], table[b"\2"]
    assert longest_idle(table, NOW) is table[b"\0"]


def test_who_was_heard_of_just_now_is_spared() -> None:
    assert longest_idle(flows(NOW - SPARED / 2), NOW) is None
    assert longest_idle(flows(NOW - SPARED), NOW) is not None
    assert longest_idle(flows(), NOW) is None


def test_a_search_is_bounded_and_the_next_goes_on() -> None:
    table = flows(*(900.0 for _ in range(LOOKS + 1)))
    for flow in list(table.values())[:LOOKS]:
        flow.seen = NOW
    assert longest_idle(table, NOW) is None
    assert longest_idle(table, NOW) is table[bytes([LOOKS])]


def test_one_of_those_looked_at_goes_though_all_were_heard_of() -> None:
    table = flows(900.0, 900.0, 900.0)
    for flow, seen in zip(table.values(), (930.0, 910.0, 920.0), strict=True):
        flow.seen = seen
    assert longest_idle(table, NOW) is table[b"\1"]


def test_a_full_balancer_ends_the_longest_idle_and_tells_its_bridge() -> None:
    stage = balancer_stage.Stage(limits={"flows": 2})
    first, second, third = (Client(stage, ("198.51.100.7", port)).connect() for port in (1, 2, 3))
    for client in (first, second):
        handoff_of(client.send(balancer_stage.REQUEST))
    stage.at(5)
    assert first.send(at=len(balancer_stage.REQUEST), acked=100) is not None
    stage.at(10)
    handoff_of(third.send(balancer_stage.REQUEST))
    forget = stage.reply()
    assert forget["dst"] in balancer_stage.BRIDGES
    assert forget["raw_options"] == second.option(models.FORGET, seq=(second.c + 1) % 2**32)
    assert stage.count("flows_evicted") == 1
    assert stage.core.gauges()["flows"] == 2
    assert first.send(at=len(balancer_stage.REQUEST), acked=200) is not None
    assert second.send(at=len(balancer_stage.REQUEST), acked=200) is None


def test_a_full_bridge_ends_the_longest_idle_on_both_sides() -> None:
    stage = bridge_stage.Stage(limits={"flows": 2})
    first, second, third = (Connection(stage, ("198.51.100.7", port)) for port in (1, 2, 3))
    for connection in (first, second):
        connection.open()
    stage.at(5)
    assert first.from_server(b"more", acked=len(bridge_stage.REQUEST)) is not None
    stage.at(10)
    third.handoff()
    to_client, to_server, syn, ended = stage.sent()
    assert (to_client["flags"], to_client["dport"]) == ("R", 2)
    assert (to_server["flags"], to_server["sport"]) == ("R", 2)
    assert ended["raw_options"][:16] == second.option(
        models.ENDED, mss=0, scales=(15, 15), sack=False
    )
    assert (syn["flags"], syn["sport"]) == ("S", 3)
    assert stage.count("flows_evicted") == 1
    assert stage.core.gauges()["flows"] == 2
