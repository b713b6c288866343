"""What the access log is told of connections, and what is counted of each way in."""

from __future__ import annotations

from typing import Any

import pytest

from common.core.flow_id import flow_id
from tests.unit import models
from tests.unit.bridge_stage import ADDRESS, REQUEST, SERVER, VIPS, WALL, Connection, Stage

END = len(REQUEST)


def told(stage: Stage) -> dict[str, Any]:
    (record,) = stage.core.access.take(9)
    return record


def logging_stage(**changes: Any) -> Stage:
    stage = Stage(**changes)
    stage.core.access.wanted = True
    return stage


def close(connection: Connection, first: str) -> None:
    """Both sides end; the response was of 7 bytes."""
    stage = connection.stage
    if first == "client":
        connection.send(b"", END, flags="FA", acked=7)
        connection.from_server(b"", 7, flags="FA", acked=END + 1)
        connection.send(b"", END + 1, acked=8)
    else:
        connection.from_server(b"", 7, flags="FA", acked=END)
        connection.send(b"", END, flags="FA", acked=8)
        connection.from_server(b"", 8, acked=END + 1)
    assert stage.flow().state == "linger"


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_connection_from_its_handoff_to_its_end(first: str) -> None:
    stage = logging_stage()
    connection = Connection(stage)
    stage.at(10)
    connection.asked()
    stage.at(10.004)
    connection.syn_ack()
    stage.sent()
    stage.at(10.024)
    connection.from_server(acked=END)
    stage.at(10.054)
    connection.from_server(b"answer!", acked=END)
    stage.at(11)
    assert stage.core.access.take(9) == [], "it goes on"
    close(connection, first)
    handoff_bytes = 20 + 20 + 28 + END
    stamped = 20 + 20 + 12
    key = models.flow_bytes(connection.client, connection.vip)
    isns = connection.c.to_bytes(4, "big") + connection.b.to_bytes(4, "big")
    assert (
        told(stage)
        == {
            "id": flow_id(key + isns),
            "time": WALL + 11,
            "started": WALL + 10,
            "client": "198.51.100.7:40000",
            "service": f"{VIPS[5]}:80",
            "bridge": ADDRESS[0],
            "server": f"{SERVER[0]}:{SERVER[1]}",
            "connect": 0.004,
            "first_byte": 0.054,
            "duration": 1.0,
            "bytes_up": handoff_bytes + (2 if first == "client" else 1) * stamped,
            "bytes_down": stamped + stamped + 7 + (1 if first == "client" else 2) * stamped,
            "end": f"{first}_fin",
        }
        or first == "client"
    )
    stage.at(60)
    assert stage.core.access.take(9) == [], "once"
    assert len(stage.core.table) == 0


def test_without_an_access_log_nothing_is_collected() -> None:
    stage = Stage()
    connection = Connection(stage).open()
    assert stage.flow().story is None
    connection.from_server(b"", flags="R", acked=END)
    assert stage.core.access.take(9) == []


def ended_by(stage: Stage, connection: Connection, how: str) -> None:
    if how == "client_reset":
        connection.send(b"", END, flags="R")
    elif how == "server_reset":
        connection.from_server(b"", flags="R", acked=END)
    elif how == "idle":
        stage.at(1000)
    elif how == "replaced":
        Connection(stage, c=77, b=88).handoff()
    elif how == "forgotten":
        connection.handoff(b"", kind=models.FORGET)
    elif how == "killed":
        stage.core.end(stage.flow(), stage.now)
    elif how == "evicted":
        stage.at(2)
        Connection(stage, ("198.51.100.7", 2)).handoff()
    elif how == "down":
        stage.core.mark_server("203.0.113.20:80", False, "no", stage.now)
    else:
        assert how == "stopped"
        for _ in stage.core.farewell(stage.now):
            pass


ENDS = [
    "client_reset",
    "server_reset",
    "idle",
    "replaced",
    "forgotten",
    "killed",
    "evicted",
    "down",
    "stopped",
]


@pytest.mark.parametrize("how", ENDS)
def test_each_end_has_its_name(how: str) -> None:
    stage = logging_stage(limits={"flows": 1}, on_down="reset")
    ended_by(stage, Connection(stage).open(), how)
    record = stage.core.access.take(1)[0]
    assert record["end"] == how
    assert record["connect"] == 0.0
    assert record["first_byte"] is None
    entry = stage.entries[0]
    assert entry.figures.flows == (1 if how in ("replaced", "evicted") else 0)
    assert entry.figures.resets == (how == "server_reset")


REFUSED = {
    "client_reset": "client_reset",
    "replaced": "replaced",
    "forgotten": "forgotten",
    "killed": "killed",
    "evicted": "refused:evicted",
    "down": "refused:down",
    "stopped": "refused:stopped",
}


@pytest.mark.parametrize("how", REFUSED)
def test_one_that_waits_for_its_server_is_given_back(how: str) -> None:
    stage = logging_stage(limits={"flows": 1}, connect=60.0)
    connection = Connection(stage)
    connection.asked()
    ended_by(stage, connection, how)
    record = stage.core.access.take(1)[0]
    assert (record["end"], record["connect"]) == (REFUSED[how], None)
    sent = stage.sent()
    back = [p for p in sent if p["raw_options"][7:8] and p["raw_options"][7] & 7 == models.REFUSED]
    assert len(back) == REFUSED[how].startswith("refused")
    assert stage.entries[0].figures.flows == len(stage.core.table)
    assert not stage.entries[0].asking or how in ("replaced", "evicted")


def test_a_server_that_refuses_or_is_silent_is_told_and_counted() -> None:
    stage = logging_stage()
    refused = Connection(stage, ("198.51.100.7", 1))
    refused.asked()
    refused.from_server(b"", flags="RA", seq=0, options=b"")
    assert told(stage)["end"] == "refused:backend_refused"
    Connection(stage, ("198.51.100.7", 2)).asked()
    stage.at(2)
    assert told(stage)["end"] == "refused:backend_silent"
    Connection(stage, ("198.51.100.7", 3)).open()
    figures = stage.entries[0].figures
    assert (figures.handoffs, figures.opened, figures.refused, figures.silent) == (3, 1, 1, 1)
    assert figures.flows == 1
    assert figures.connect.count == 1


def test_a_handoff_refused_at_once_is_told() -> None:
    stage = logging_stage()
    stage.core.drain(stage.now)
    Connection(stage).handoff()
    record = told(stage)
    assert (record["end"], record["duration"]) == ("refused:draining", 0.0)
    assert stage.entries[0].figures.handoffs == 0


@pytest.mark.parametrize(("sent", "counted"), [(0, 1), (5, 0)])
def test_a_reset_counts_before_the_first_byte_alone(sent: int, counted: int) -> None:
    stage = Stage()
    connection = Connection(stage).open()
    if sent:
        connection.from_server(bytes(sent), acked=END)
    connection.from_server(b"", sent, flags="R", acked=END)
    connection.from_server(b"", sent, flags="R", acked=END)
    assert stage.entries[0].figures.resets == counted


def test_one_that_goes_on_after_a_reset_that_was_not_its_clients_is_told_again() -> None:
    stage = logging_stage()
    connection = Connection(stage).open()
    connection.send(b"", END, flags="R")
    assert told(stage)["end"] == "client_reset"
    assert stage.entries[0].figures.flows == 0
    connection.send(b"more", END)
    assert stage.flow().state == "spliced"
    assert stage.entries[0].figures.flows == 1
    connection.from_server(b"", flags="R", acked=END + 4)
    assert told(stage)["end"] == "server_reset"


def test_the_first_byte_is_observed_once() -> None:
    stage = Stage()
    connection = Connection(stage).open()
    figures = stage.entries[0].figures
    assert figures.first_byte.count == 0
    stage.at(0.3)
    for at in (0, 5):
        connection.from_server(b"12345", at, acked=END)
    stage.at(0.7)
    connection.from_server(b"", 10, flags="FA", acked=END)
    assert figures.first_byte.count == 1
    assert figures.first_byte.sum == pytest.approx(0.3)
    assert figures.down_bytes == 52 * 4 + 10


def test_a_first_byte_on_the_long_way_counts() -> None:
    stage = Stage()
    connection = Connection(stage).open()
    connection.from_server(b"12345", acked=END, flags="FA")
    assert stage.entries[0].figures.first_byte.count == 1
