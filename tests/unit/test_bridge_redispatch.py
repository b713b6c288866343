"""Connections that the bridge gives back, or is told to forget, as the balancer takes them to
another: what may still happen here, and what may not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import models
from tests.unit.bridge_stage import REQUEST, SERVER, VIPS, Connection, Stage
from tests.unit.scapy_oracle import fields, tcp_packet

END = len(REQUEST)


def given_back(stage: Stage, **changes: Any) -> Connection:
    """A connection that the server has refused."""
    connection = Connection(stage, **changes)
    connection.asked()
    connection.from_server(b"", flags="RA", seq=0, options=b"")
    assert kinds(stage) == [models.REFUSED]
    return connection


def kinds(stage: Stage) -> list[int | str]:
    """What was sent: kinds of answers to the balancer, flags of what went to the server."""
    return [
        packet["raw_options"][7] & 7 if packet["dst"] in VIPS.values() else packet["flags"]
        for packet in stage.sent()
    ]


# --- what was given back ---


@pytest.mark.parametrize("kind", [models.HANDOFF, models.CONFIRM])
@pytest.mark.parametrize("seconds", [0.0, 2.0, 12.0, 14.0])
def test_the_same_attempt_is_given_back_again(kind: int, seconds: float) -> None:
    """The refusal was lost, or crossed the repetition; or somebody has recorded the handoff, and
    another bridge may have executed the request by now."""
    stage = Stage()
    connection = given_back(stage)
    stage.at(seconds)
    connection.handoff(kind=kind, option={"wall": stage.wall - seconds})
    assert kinds(stage) == ([models.REFUSED] if seconds < 13 else [])
    assert len(stage.core.table) == 0


@pytest.mark.parametrize("kind", [models.HANDOFF, models.CONFIRM])
def test_the_next_attempt_is_new(kind: int) -> None:
    """The balancer says under the MAC that it has come back on purpose."""
    stage = Stage()
    connection = given_back(stage)
    for attempt in (1, 2, 3):
        connection.handoff(kind=kind, option={"attempt": attempt})
        assert kinds(stage) == ["S"]
        connection.from_server(b"", flags="RA", seq=0, options=b"")
        answer = stage.reply()
        refused = connection.answer(models.REFUSED, REQUEST, attempt=attempt)
        assert answer["raw_options"][:16] == refused
        connection.handoff(kind=kind, option={"attempt": attempt - 1})
        assert kinds(stage) == [models.REFUSED], "the one before is over, all the same"
    connection.handoff(kind=kind, option={"attempt": 4})
    assert not stage.sent()
    assert stage.count("bad_handoff_mac") == 1


def test_the_next_attempt_may_succeed_and_then_none_is_new() -> None:
    stage = Stage(timeouts={"linger": 1.0})
    connection = given_back(stage)
    connection.open(option={"attempt": 1})
    connection.from_server(b"", flags="R", acked=END)
    stage.at(4)
    stage.sent()
    assert len(stage.core.table) == 0
    for attempt in range(4):
        connection.handoff(option={"attempt": attempt})
        assert "S" not in kinds(stage), "the server has had the request"


def test_a_late_syn_ack_is_reset() -> None:
    """Of the first port as well as of the other one."""
    stage = Stage()
    connection = Connection(stage)
    first = connection.asked()
    stage.at(0.5)
    syns = [first, *stage.sent()]
    stage.at(1.1)
    assert kinds(stage) == [models.REFUSED]
    for syn in syns:
        connection.source = syn["src"], syn["sport"]
        connection.syn_ack()
        reset = stage.reply()
        assert (reset["dst"], reset["flags"]) == (SERVER[0], "R")
        assert (reset["sport"], reset["seq"]) == (syn["sport"], (connection.c + 1) % 2**32)
    assert len({syn["sport"] for syn in syns}) == 2


def test_a_server_that_has_answered_is_reset_with_the_refusal() -> None:
    """While its handshake is held for the client's round trip, the flow is ended."""
    stage = Stage(hold_handshake="on")
    connection = Connection(stage, rtt_code=15)
    connection.asked()
    connection.syn_ack()
    for _ in stage.core.farewell(stage.now):
        pass
    refused, reset = stage.sent()
    assert refused["raw_options"][:16] == connection.answer(models.REFUSED, REQUEST)
    assert (reset["dst"], reset["flags"]) == (SERVER[0], "R")
    assert reset["seq"] == (connection.c + 1) % 2**32


def test_what_else_the_client_sent_gets_no_answer_and_goes_nowhere() -> None:
    """It was steered here before the balancer knew, or is what the client repeats."""
    stage = Stage()
    connection = given_back(stage)
    for seconds in (0.0, 0.3, 0.6, 1.2, 2.5, 5.0, 9.0):
        stage.at(seconds)
        assert connection.send(b"more", END) is None
        assert connection.send(b"", END) is None
        assert connection.send(b"", END, flags="R") is None
    stage.at(12)
    assert not stage.sent()
    assert stage.count("late_packet") == 21


def test_segments_that_overtook_a_refused_handoff_do_not_reset_the_client() -> None:
    stage = Stage()
    stage.core.drain(stage.now)
    connection = Connection(stage)
    connection.send(b"more", END)
    connection.handoff()
    assert kinds(stage) == [models.REFUSED]
    stage.at(10)
    assert not stage.sent()


def test_a_newer_connection_of_the_same_addresses_is_served() -> None:
    stage = Stage()
    given_back(stage)
    newer = Connection(stage, c=77, b=88).open()
    assert newer.send(b"", END, acked=5) is not None


@pytest.mark.parametrize("why", ["draining", "flow_table_full"])
def test_what_was_refused_at_once_is_not_opened_later(why: str) -> None:
    """A copy of the handoff that comes when there is room again: another bridge has it."""
    stage = Stage(limits={"flows": 1}, timeouts={"linger": 0.0})
    if why == "draining":
        stage.core.drain(stage.now)
    else:
        first = Connection(stage, ("198.51.100.7", 1)).open()
    connection = Connection(stage)
    connection.handoff()
    assert kinds(stage) == [models.REFUSED]
    assert stage.count(why) == 1
    if why == "flow_table_full":
        first.from_server(b"", flags="R", acked=END)
        stage.at(3)
        assert len(stage.core.table) == 0
        stage.sent()
    connection.handoff()
    assert kinds(stage) == [models.REFUSED]
    connection.handoff(option={"attempt": 1})
    assert kinds(stage) == ([models.REFUSED] if why == "draining" else ["S"])


def test_the_longest_idle_is_given_back_if_it_waits_for_its_server() -> None:
    stage = Stage(limits={"flows": 1}, connect=60.0)
    first = Connection(stage)
    first.asked()
    stage.at(2)
    stage.sent()
    Connection(stage, ("198.51.100.7", 2)).handoff()
    assert kinds(stage) == [models.REFUSED, "S"]
    first.handoff(option={"attempt": 0})
    assert kinds(stage) == [models.REFUSED]


# --- what is to be forgotten ---


def test_a_forgotten_opening_opens_again_by_a_new_attempt_alone() -> None:
    """The balancer has passed over a server that was silent for too long."""
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.handoff(b"", kind=models.FORGET)
    assert not stage.sent()
    assert stage.core.gauges() == {"flows": 0, "held_bytes": 0, "mappings": 0}
    connection.handoff()
    assert not stage.sent(), "late, or replayed"
    assert stage.count("handoff_again") == 1
    connection.syn_ack()
    assert kinds(stage) == ["R"]
    stage.at(5)
    assert not stage.sent(), "no refusal of what is elsewhere"
    connection.handoff(option={"attempt": 1})
    assert kinds(stage) == ["S"]


def test_forget_may_overtake_its_handoff() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.handoff(b"", kind=models.FORGET)
    connection.handoff()
    assert not stage.sent()
    assert len(stage.core.table) == 0


def test_forget_of_an_earlier_attempt_is_late() -> None:
    stage = Stage()
    connection = given_back(stage)
    connection.asked(option={"attempt": 1})
    connection.handoff(b"", kind=models.FORGET)
    assert not stage.sent()
    connection.syn_ack()
    assert stage.reply()["payload"] == REQUEST
    connection.handoff(b"", kind=models.FORGET, option={"attempt": 1})
    assert kinds(stage) == ["R"]
    assert len(stage.core.table) == 0


def test_a_forgotten_connection_is_not_reset_for_what_the_client_had_on_its_way() -> None:
    stage = Stage()
    connection = Connection(stage).open()
    connection.handoff(b"", kind=models.FORGET)
    stage.sent()
    for seconds in (0.1, 0.4, 0.8, 1.5, 3.0):
        stage.at(seconds)
        assert connection.send(b"", END, acked=9) is None
    stage.at(20)
    assert not stage.sent()


def test_a_lost_forget_does_not_matter_to_the_next_attempt() -> None:
    """The bridge has the flow still: it goes on, under the new number."""
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.handoff(option={"attempt": 1})
    assert not stage.sent()
    connection.handoff(b"", kind=models.FORGET)
    connection.from_server(b"", flags="RA", seq=0, options=b"")
    answer = stage.reply()
    assert answer["raw_options"][:16] == connection.answer(models.REFUSED, REQUEST, attempt=1)


# --- a handoff repeated as a question: are you there? ---


def test_a_question_is_answered_in_every_state_once_the_server_has_the_request() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.handoff(kind=models.CONFIRM)
    assert not stage.sent(), "what may yet be refused is not accepted"
    connection.syn_ack()
    assert kinds(stage) == ["A", models.ACCEPTED]
    for acked in (0, END):
        connection.from_server(acked=acked)
        verdict = connection.handoff(kind=models.CONFIRM)
        accepted, *repeated = stage.sent()
        assert accepted["raw_options"] == connection.answer(models.ACCEPTED, at=END)
        repeated += [fields(verdict)] if verdict is not None else []
        assert [(p["dst"], p["payload"]) for p in repeated] == [(SERVER[0], REQUEST)]
    connection.from_server(b"", flags="FA", acked=END)
    connection.send(b"", END, flags="FA", acked=1)
    connection.from_server(b"", 1, acked=END + 1)
    assert stage.flow().state == "linger"
    assert kinds(stage) == [models.ENDED]
    connection.handoff(kind=models.CONFIRM)
    accepted = stage.sent()[0]
    assert accepted["raw_options"] == connection.answer(models.ACCEPTED, at=END + 1)
    stage.at(20)
    stage.sent()
    assert len(stage.core.table) == 0
    connection.handoff(kind=models.CONFIRM, option={"wall": stage.wall - 8})
    assert kinds(stage) == [models.ENDED], "it was here: no other bridge is to have it"


def test_a_question_does_not_make_the_client_s_bytes_the_bridge_s() -> None:
    """They are not acknowledged to the client, and are sent once: it has them, should the server
    not."""
    stage = Stage()
    connection = Connection(stage).open()
    for _ in range(3):
        connection.handoff(kind=models.CONFIRM)
    stage.sent()
    stage.at(30)
    assert not stage.sent()
    assert stage.core.gauges() == {"flows": 1, "held_bytes": 0, "mappings": 0}


def test_a_refusal_of_an_attempt_that_is_over_is_told_from_one_under_way() -> None:
    """By the bridge's address and the attempt's number, which are under the MAC."""
    stage = Stage()
    connection = Connection(stage)
    said = {
        connection.answer(models.REFUSED, REQUEST, attempt=attempt, bridge=bridge)
        for attempt in range(4)
        for bridge in ("203.0.113.20", "203.0.113.21")
    }
    assert len(said) == 8


def test_a_direct_connection_is_not_touched_by_late_resets() -> None:
    """A SYN-ACK without the bridge's mark is a direct connection's, whatever its ports."""
    stage = Stage()
    connection = given_back(stage)
    packet = tcp_packet(SERVER, ("198.51.100.7", 50000), flags="SA", seq=1, ack=2)
    assert stage.packet(packet) == packet
    assert not stage.sent()
    assert connection.send(b"", END) is None
