"""Servers found down, ways in that drain, and another configuration while it runs."""

from __future__ import annotations

from typing import Any

import pytest

from packetbridge.core import config
from packetbridge.core.entry import Entry
from packetbridge.core.parting import ENDED
from tests.unit import models
from tests.unit.bridge_stage import ADDRESS, MARK, REQUEST, SERVER, VIPS, Connection, Stage
from tests.unit.test_bridge_redispatch import kinds

END = len(REQUEST)
NAME = "203.0.113.20:80"
LIMITS, TIMES = config.Limits(), config.Timeouts()


def entries(server: tuple[str, int] = SERVER, **changes: Any) -> list[Entry]:
    backend = config.Backend(*ADDRESS, *server, **changes)
    return [Entry(backend, dscp, vip, MARK, True, False) for dscp, vip in VIPS.items()]


# --- up and down ---


def test_a_server_that_is_down_gets_no_new_connection() -> None:
    stage = Stage()
    standing = Connection(stage, ("198.51.100.7", 1)).open()
    stage.core.mark_server(NAME, False, "connection refused", stage.now)
    assert [(e.up, e.reason) for e in stage.core.entries] == [(False, "connection refused")] * 2
    connection = Connection(stage)
    connection.handoff()
    assert kinds(stage) == [models.REFUSED]
    assert stage.count("backend_down") == 1
    assert standing.send(b"more", END) is not None, "by default others go on"
    stage.core.mark_server(NAME, True, "", stage.now)
    connection.handoff(option={"attempt": 1})
    assert kinds(stage) == ["S"]


def test_what_waits_for_a_server_goes_back_when_it_is_found_down() -> None:
    stage = Stage()
    waiting = [Connection(stage, ("198.51.100.7", port)) for port in range(1, 4)]
    for connection in waiting:
        connection.asked()
    other = Connection(stage, ("198.51.100.7", 9), dscp=6)
    other.asked()
    stage.core.mark_server(f"{NAME}/5", False, "no answer", stage.now)
    assert kinds(stage) == [models.REFUSED] * 3
    assert len(stage.core.table) == 1
    assert [entry.up for entry in stage.core.entries] == [False, True]


def test_its_connections_are_reset_where_that_is_configured() -> None:
    stage = Stage(on_down="reset")
    Connection(stage, dscp=5).open()
    Connection(stage, dscp=6).open()
    stage.core.mark_server(f"{NAME}/6", False, "no answer", stage.now)
    client, server, ended = stage.sent()
    assert (client["src"], client["flags"]) == (VIPS[6], "R")
    assert (server["dst"], server["flags"]) == (SERVER[0], "R")
    assert ended["raw_options"][7] & 7 == models.ENDED
    assert stage.flow().entry.dscp == 5


def test_many_are_reset_in_parts() -> None:
    stage = Stage(on_down="reset")
    many = 3 * ENDED + 1
    for port in range(many):
        Connection(stage, ("198.51.100.7", 2000 + port)).open()
    stage.core.mark_server(NAME, False, "no answer", stage.now)
    assert len(stage.core.table) == many - ENDED
    stage.at(0.1)
    assert len(stage.core.table) == 0


def test_what_came_back_meanwhile_is_not_given_back_again() -> None:
    """One that was given back by the first part, and has ended otherwise before the second."""
    stage = Stage(connect=60.0)
    many = ENDED + 1
    for port in range(many):
        Connection(stage, ("198.51.100.7", 2000 + port)).asked()
    stage.core.mark_server(NAME, False, "no answer", stage.now)
    stage.sent()
    (left,) = stage.core.table.outbound.values()
    connection = Connection(stage, ("198.51.100.7", int.from_bytes(left.inbound[8:10], "big")))
    connection.handoff(b"", kind=models.FORGET)
    stage.at(0.1)
    assert not stage.sent()


def test_down_twice_is_down_once() -> None:
    stage = Stage(on_down="reset")
    stage.core.mark_server(NAME, False, "one", stage.now)
    stage.core.mark_server(NAME, False, "another", stage.now)
    assert stage.core.entries[0].reason == "another"


@pytest.mark.parametrize("name", ["203.0.113.20:81", "203.0.113.20", "", "203.0.113.20:80/7"])
def test_a_name_that_is_none(name: str) -> None:
    stage = Stage()
    with pytest.raises(KeyError):
        stage.core.drain_entry(name, True)


def test_a_way_that_drains_is_closed_to_new_connections_alone() -> None:
    stage = Stage()
    standing = Connection(stage, ("198.51.100.7", 1)).open()
    stage.core.drain_entry(NAME, True)
    connection = Connection(stage)
    connection.handoff()
    assert kinds(stage) == [models.REFUSED]
    assert stage.count("backend_draining") == 1
    (flows, _) = (entry.figures.flows for entry in stage.core.entries)
    assert flows == 1
    standing.from_server(b"", flags="FA", acked=END)
    standing.send(b"", END, flags="FA", acked=1)
    standing.from_server(b"", 1, acked=END + 1)
    assert stage.core.entries[0].figures.flows == 0
    stage.core.drain_entry(NAME, False)
    connection.handoff(option={"attempt": 1})
    assert "S" in kinds(stage)


# --- one that is killed ---


def test_a_connection_that_is_killed_is_over_for_all() -> None:
    stage = Stage()
    connection = Connection(stage).open()
    connection.from_server(b"12345", acked=END)
    connection.send(b"", END, acked=5)
    stage.core.end(stage.flow(), stage.now)
    client, server, ended = stage.sent()
    assert (client["dst"], client["flags"]) == (connection.client[0], "R")
    assert client["seq"] == (connection.b + 1 + 5) % 2**32
    assert (server["flags"], server["seq"]) == ("R", (connection.c + 1 + END) % 2**32)
    assert ended["raw_options"][7] & 7 == models.ENDED
    assert len(stage.core.table) == 0


def test_one_that_waits_for_its_server_is_not_given_back_but_reset() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    stage.core.end(stage.flow(), stage.now)
    client, ended = stage.sent()
    assert (client["flags"], client["seq"]) == ("R", (connection.b + 1) % 2**32)
    assert ended["raw_options"][7] & 7 == models.ENDED


# --- another configuration ---


def test_new_settings_of_a_way_in_are_heeded_and_its_figures_stay() -> None:
    stage = Stage()
    Connection(stage, ("198.51.100.7", 1)).open()
    before = stage.core.entries
    stage.core.reconfigure(entries(connect=5.0, on_down="reset"), LIMITS, TIMES)
    assert [a is b for a, b in zip(stage.core.entries, before, strict=True)] == [True, True]
    assert before[0].figures.flows == 1
    Connection(stage).asked()
    stage.at(4.9)
    assert stage.count("backend_silent") == 0
    stage.at(5.1)
    assert stage.count("backend_silent") == 1
    stage.core.mark_server(NAME, False, "", stage.now)
    assert len(stage.core.table) == 0


def test_another_server_gets_the_new_connections_and_the_others_go_on() -> None:
    stage = Stage()
    standing = Connection(stage, ("198.51.100.7", 1)).open()
    waiting = Connection(stage, ("198.51.100.7", 2))
    waiting.asked()
    stage.core.reconfigure(entries(("203.0.113.99", 1)), LIMITS, TIMES)
    new = Connection(stage)
    new.handoff()
    syn = stage.reply()
    assert (syn["dst"], syn["dport"]) == ("203.0.113.99", 1)
    waiting.syn_ack()
    assert stage.reply()["payload"] == REQUEST
    assert standing.from_server(b"12345", acked=END) is not None
    assert standing.send(b"", END, acked=5) is not None
    assert [entry.figures.flows for entry in stage.core.former()] == [2]
    for connection in (standing, waiting):
        connection.from_server(b"", 5, flags="R", acked=END)
    assert stage.core.former() == []


def test_a_way_that_is_gone_takes_no_new_connection() -> None:
    stage = Stage()
    standing = Connection(stage, ("198.51.100.7", 1), dscp=6).open()
    stage.core.reconfigure(entries()[:1], LIMITS, TIMES)
    Connection(stage, dscp=6).handoff()
    assert kinds(stage) == [models.REFUSED]
    assert stage.count("backend_draining") == 1
    assert standing.send(b"more", END) is not None
    standing.from_server(b"", flags="R", acked=END + 4)
    assert stage.core.former() == []
    Connection(stage, dscp=6).handoff()
    assert stage.count("no_entry") == 1
    stage.sent()
    Connection(stage, dscp=5).handoff()
    assert kinds(stage) == ["S"]


def test_a_way_that_comes_back_is_what_it_was() -> None:
    stage = Stage()
    Connection(stage, dscp=6).open()
    before = stage.core.entries
    stage.core.reconfigure(entries()[:1], LIMITS, TIMES)
    stage.core.reconfigure(entries(), LIMITS, TIMES)
    assert [a is b for a, b in zip(stage.core.entries, before, strict=True)] == [True, True]
    assert stage.core.former() == []
    Connection(stage, ("198.51.100.7", 2), dscp=6).handoff()
    assert kinds(stage) == ["S"]
    assert before[1].figures.flows == 2


def test_bounds_and_time_outs_change_at_once() -> None:
    stage = Stage()
    Connection(stage).open()
    limits, times = config.Limits(flows=1), config.Timeouts(idle=5.0)
    stage.core.reconfigure(entries(), limits, times)
    Connection(stage, ("198.51.100.7", 2)).handoff()
    assert stage.count("flow_table_full") == 1
    stage.at(25)
    assert len(stage.core.table) == 0
