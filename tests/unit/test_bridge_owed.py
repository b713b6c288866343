"""Bytes that the balancer owns, and that nothing raises: scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import models
from tests.unit.bridge_stage import ADDRESS, MARK, REQUEST, SERVER, Connection, Stage
from tests.unit.scapy_oracle import icmp_error, tcp_packet

END = len(REQUEST)


def accepted(connection: Connection, at: int) -> bytes:
    """By the model: the answer that names ``at`` as the next byte that the bridge lacks."""
    return connection.answer(models.ACCEPTED, at=at)


def owed(stage: Stage) -> Connection:
    """A connection opened with CONFIRM; the server has not acknowledged the request yet."""
    connection = Connection(stage)
    connection.asked(kind=models.CONFIRM)
    connection.syn_ack()
    held, answer = stage.sent()
    assert held["payload"] == REQUEST
    assert answer["raw_options"] == accepted(connection, END)
    return connection


# --- CONFIRM ---


def test_accepted_goes_to_the_vip_as_from_the_client() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked(kind=models.CONFIRM)
    assert not stage.sent(), "not before the server answers"
    connection.syn_ack()
    _, answer = stage.sent()
    assert (answer["src"], answer["sport"]) == connection.client
    assert (answer["dst"], answer["dport"]) == connection.vip
    assert answer["seq"] == (connection.c + 1 + END) % 2**32
    assert answer["flags"] == "A"
    assert answer["payload"] == b""


def test_a_plain_handoff_is_not_answered() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.syn_ack()
    assert stage.reply()["dst"] == SERVER[0]


def test_owed_bytes_are_sent_until_the_server_acknowledges() -> None:
    stage = Stage()
    connection = owed(stage)
    for due in (0.2, 0.6, 1.4):
        stage.at(due - 0.001)
        assert not stage.sent()
        stage.at(due + 0.001)
        assert stage.reply()["payload"] == REQUEST
    connection.from_server(acked=END - 1)
    stage.at(3.001)
    assert stage.reply()["payload"] == REQUEST
    connection.from_server(acked=END)
    stage.at(20)
    assert not stage.sent()
    assert stage.core.gauges() == {"flows": 1, "held_bytes": 0, "mappings": 0}


def test_owed_bytes_that_are_never_acknowledged_end_the_connection() -> None:
    stage = Stage()
    connection = owed(stage)
    stage.at(0.2 * 127 - 0.1)
    assert len(stage.sent()) == 6
    stage.at(0.2 * 127 + 0.1)
    client, server, ended = stage.sent()
    assert (client["flags"], client["seq"]) == ("R", (connection.b + 1) % 2**32)
    assert (ended["dst"], ended["raw_options"][7] & 7) == (connection.vip[0], models.ENDED)
    assert (server["flags"], server["seq"]) == ("R", (connection.c + 1) % 2**32)
    assert stage.count("owed_bytes_unacknowledged") == 1
    assert stage.core.gauges() == {"flows": 0, "held_bytes": 0, "mappings": 0}


def test_a_repeated_confirm_is_answered_again() -> None:
    stage = Stage()
    connection = owed(stage)
    connection.handoff(kind=models.CONFIRM)
    answer, again = stage.sent()
    assert answer["raw_options"] == accepted(connection, END)
    assert again["payload"] == REQUEST
    connection.from_server(acked=END)
    connection.handoff(kind=models.CONFIRM)
    assert stage.reply()["raw_options"] == accepted(connection, END)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_owed_parts_are_gathered_and_the_gap_is_named(order: tuple[int, ...]) -> None:
    stage = Stage()
    connection = Connection(stage)
    parts = [(0, b"GET /"), (5, b"abc"), (8, b" HTTP/1.1\r\n\r\n")]
    at, payload = parts[0]
    connection.asked(payload=payload, at=at, kind=models.CONFIRM)
    for turn in order[1:]:
        connection.handoff(parts[turn][1], parts[turn][0], kind=models.CONFIRM)
    assert not stage.sent()
    connection.syn_ack()
    *held, answer = stage.sent()
    assert [packet["payload"] for packet in held] == [payload for _, payload in parts]
    assert answer["raw_options"] == accepted(connection, 21)


def test_a_missing_part_is_what_is_lacking() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked(payload=b"GET /", kind=models.CONFIRM)
    connection.handoff(b" HTTP/1.1\r\n\r\n", 8, kind=models.CONFIRM)
    connection.syn_ack()
    *_, answer = stage.sent()
    assert answer["raw_options"] == accepted(connection, 5)
    connection.handoff(b"abc", 5, kind=models.CONFIRM)
    answer, missing = stage.sent()
    assert answer["raw_options"] == accepted(connection, 21)
    assert missing["payload"] == b"abc"
    assert connection.from_server(acked=8) is not None
    stage.at(0.21)
    assert [packet["payload"] for packet in stage.sent()] == [b" HTTP/1.1\r\n\r\n"]


def test_a_later_part_before_the_first_opens_nothing() -> None:
    stage = Stage()
    connection = Connection(stage)
    assert connection.handoff(b"abc", 5, kind=models.CONFIRM) is None
    assert not stage.sent()
    assert stage.count("bad_handoff_mac") == 1


# --- what is not whole ---


def test_malformed_packets_are_dropped_by_name() -> None:
    stage = Stage()
    connection = Connection(stage).open()
    whole = connection.segment(b"more", END)
    assert stage.packet(whole[:-1]) is None
    assert stage.count("truncated") == 1
    assert connection.send(b"more", END, fragment="MF") is None
    assert stage.count("fragment") == 1
    for send in (connection.send, connection.from_server):
        assert send(b"more", END, options=b"\x08\x01\x01\x01") is None
    assert stage.count("bad_tcp_options") == 2
    assert stage.packet(whole[:9] + b"\x2f" + whole[10:]) is None
    assert stage.count("other_protocol") == 1
    assert connection.send(b"x", END, options=b"\xfd\x08\x4c\x33" + bytes(4)) is None
    assert stage.count("bad_handoff_option") == 1


# --- nothing that comes may raise ---


@given(st.lists(st.tuples(st.binary(max_size=120), st.sampled_from([0, MARK | 5])), max_size=5))
def test_any_bytes_give_a_verdict(packets: list[tuple[bytes, int]]) -> None:
    stage = Stage()
    for packet, mark in packets:
        assert stage.packet(packet, mark) is None
    stage.at(3)


def crowded(source: str, stamps: bool) -> tuple[Stage, list[Connection]]:
    """A flow in each state, and one that is only known to its client."""
    stage = Stage(source=source)
    guests = [Connection(stage, ("198.51.100.7", n), stamps=stamps) for n in range(1, 8)]
    guests[0].asked()
    guests[1].asked(kind=models.CONFIRM)
    guests[1].syn_ack(stamps=stamps)
    stage.sent()
    guests[2].open()
    guests[3].open().send(b"", END, flags="FA")
    guests[4].open().send(b"", END, flags="R")
    guests[5].asked()
    guests[5].syn_ack(stamps=False)
    guests[5].syn_ack(stamps=False)
    stage.entries[0].no_timestamps_until = 0.0
    stage.sent()
    return stage, guests


FLAGS = st.sampled_from(["A", "PA", "FA", "S", "R", "SA", "RA", "U", ""])
OPTIONS = st.sampled_from(
    [
        b"",
        models.stamps(5, 6),
        b"\x05\x0a" + bytes(8) + b"\1\1",
        b"\1" + models.stamps(1, 2)[2:] + b"\1",
    ]
)


@given(data=st.data())
def test_mutated_packets_give_a_verdict(data: st.DataObject) -> None:
    stage, guests = crowded(
        data.draw(st.sampled_from(["client", "bridge"])), data.draw(st.booleans())
    )
    for _ in range(data.draw(st.integers(1, 4))):
        guest = data.draw(st.sampled_from(guests))
        at = data.draw(st.sampled_from([-1, 0, 5, END, 5000]))
        payload = data.draw(st.sampled_from([b"", b"x", REQUEST]))
        values = {"flags": data.draw(FLAGS), "options": data.draw(OPTIONS)}
        way = data.draw(st.sampled_from(["client", "handoff", "server", "icmp"]))
        mark = 0
        if way == "client":
            packet = guest.segment(payload, at, **values)
        elif way == "handoff":
            option = guest.option(data.draw(st.integers(0, 7)), at)
            packet = guest.segment(payload, at, **values | {"options": option})
        elif way == "server":
            seq = guest.r + 1 + at
            mark = MARK | 5
            packet = tcp_packet(SERVER, guest.source, seq=seq, payload=payload, **values)
        else:
            quoted = tcp_packet(guest.vip, guest.client, **values)
            packet = icmp_error("198.51.100.1", ADDRESS[0], quoted)
        mutated = bytearray(packet)
        for _ in range(data.draw(st.integers(0, 3))):
            mutated[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
        stage.packet(bytes(mutated), mark)
        stage.at(stage.now - 5000 + data.draw(st.sampled_from([0.0, 0.05, 0.3, 9.0])))
    stage.at(2000)
    assert stage.core.gauges() == {"flows": 0, "held_bytes": 0, "mappings": 0}
