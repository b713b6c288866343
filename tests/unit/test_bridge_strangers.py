"""Packets of flows that the bridge does not know: whom they are told to, and when."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.bridge_stage import ADDRESS, MARK, REQUEST, SERVER, VIPS, Connection, Stage
from tests.unit.scapy_oracle import tcp_packet

END = len(REQUEST)


def test_a_packet_for_no_entry_is_dropped_by_name() -> None:
    stage = Stage()
    connection = Connection(stage)
    for changes in ({"tos": 9 << 2}, {"tos": 0}):
        assert connection.send(b"x", **changes) is None
    assert stage.packet(tcp_packet(("198.51.100.7", 5), (ADDRESS[0], 81), tos=5 << 2)) is None
    assert stage.count("no_entry") == 3


@pytest.mark.parametrize(("again", "resets"), [(0.19, 0), (0.21, 1), (7.99, 1)])
def test_an_unknown_client_is_reset_if_it_insists(again: float, resets: int) -> None:
    """For the third time, that is: the second may be a tail loss probe behind a lost handoff."""
    stage = Stage()
    connection = Connection(stage)
    assert connection.send(b"x") is None
    stage.at(min(again, 0.205))
    assert connection.send(b"x") is None
    stage.at(again)
    assert connection.send(b"x") is None
    assert len(resetting(stage.sent(), connection)) == resets
    assert stage.count("unknown_flow") == 3 - resets
    assert stage.count("unknown_flow_reset") == resets


def resetting(packets: list[dict[str, Any]], connection: Connection) -> list[dict[str, Any]]:
    """The RSTs to a client of a lost flow. With each comes a keep-alive probe to the server, that
    it may say which number it expects."""
    resets, probes = packets[::2], packets[1::2]
    for reset in resets:
        assert (reset["src"], reset["dst"]) == (VIPS[5], connection.client[0])
        assert (reset["flags"], reset["seq"]) == ("R", (connection.b + 1) % 2**32)
    for probe in probes:
        assert ((probe["src"], probe["sport"]), probe["dst"]) == (connection.client, SERVER[0])
        assert (probe["flags"], probe["seq"]) == ("A", connection.c)
    assert len(probes) == len(resets)
    return resets


def test_an_unknown_client_is_reset_in_the_end() -> None:
    stage = Stage()
    connection = Connection(stage)
    assert connection.send(b"x") is None
    stage.at(7.99)
    assert not stage.sent()
    stage.at(8)
    assert len(resetting(stage.sent(), connection)) == 1
    assert stage.count("unknown_flow_overdue") == 1
    assert connection.send(b"x", 500) is None
    assert stage.reply()["flags"] == "R", "from now on at once"


def test_an_unknown_client_that_only_acknowledges_is_reset_sooner() -> None:
    stage = Stage()
    connection = Connection(stage)
    for acked in (100, 200):
        assert connection.send(b"", 50, acked=acked) is None
    stage.at(1)
    reset, probe = stage.sent()
    assert (reset["flags"], reset["seq"]) == ("R", (connection.b + 201) % 2**32)
    assert (probe["flags"], probe["seq"]) == ("A", (connection.c + 50) % 2**32)


def test_a_client_whose_handoff_comes_late_is_not_reset() -> None:
    stage = Stage()
    connection = Connection(stage)
    assert connection.send(b"x", len(REQUEST)) is None
    stage.at(7)
    connection.open()
    stage.at(10)
    assert not stage.sent()


def test_an_unknown_reset_is_dropped_by_name() -> None:
    stage = Stage()
    connection = Connection(stage)
    for seconds in (0, 1):
        stage.at(seconds)
        assert connection.send(b"", flags="R") is None
        assert connection.send(b"x", flags="P") is None
    assert not stage.sent()
    assert stage.count("unknown_flow") == 4


def direct(seq: int = 1, flags: str = "A") -> bytes:
    return tcp_packet(SERVER, ("198.51.100.7", 40000), seq=seq, ack=1234, flags=flags)


@pytest.mark.parametrize("mark", [0, MARK, MARK | 9, 5])
def test_a_direct_connections_packet_goes_on_as_it_is(mark: int) -> None:
    stage = Stage()
    data = direct()
    assert stage.packet(data, mark) is data
    assert not stage.sent()


def asked(stage: Stage, seq: int) -> None:
    """The client was sent a SYN, and nothing else was sent."""
    client = stage.reply()
    assert (client["src"], client["sport"]) == (VIPS[5], ADDRESS[1])
    assert (client["flags"], client["seq"]) == ("S", seq)


def test_a_marked_packet_of_a_lost_flow_ends_it_on_both_sides() -> None:
    """First the client's, by its challenge ACK, and then the server's, once the client is gone."""
    stage = Stage()
    assert stage.packet(direct(seq=777), MARK | 5) is None
    asked(stage, 777)
    assert stage.count("orphaned_backend_packet") == 1
    connection = Connection(stage)
    assert connection.send(b"", acked=999) is None, "the challenge ACK, at once"
    reset = stage.reply()
    assert (reset["flags"], reset["seq"]) == ("R", (connection.b + 1000) % 2**32)
    assert reset["src"] == VIPS[5]
    assert stage.count("unknown_flow_reset") == 1
    stage.at(1)
    asked(stage, 777)
    assert connection.send(b"", flags="RA", seq=0, ack=778) is None
    server = stage.reply()
    assert (server["src"], server["sport"]) == connection.client
    assert (server["dst"], server["dport"]) == SERVER
    assert (server["flags"], server["seq"]) == ("R", 1234)
    stage.at(60)
    assert not stage.sent()


def test_a_client_that_does_not_answer_is_asked_again_when_the_server_sends_again() -> None:
    stage = Stage()
    stage.packet(direct(seq=777), MARK | 5)
    asked(stage, 777)
    stage.packet(direct(seq=777), MARK | 5)
    assert not stage.sent(), "it is being asked"
    for seconds in (1, 3):
        stage.at(seconds)
        asked(stage, 777)
    stage.at(30)
    assert not stage.sent()
    stage.packet(direct(seq=888), MARK | 5)
    asked(stage, 888)


def test_a_lost_flow_whose_client_has_gone_on_is_reset_at_once() -> None:
    """The server's connection is of another port of the bridge's choice, its client's port of one
    that is known."""
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    stage.at(0.5)
    stage.sent()
    assert stage.packet(direct(), MARK | 5) is None
    reset = stage.reply()
    assert (reset["flags"], reset["seq"], reset["sport"]) == ("R", 1234, connection.client[1])


def test_a_lost_flows_reset_is_not_answered() -> None:
    stage = Stage()
    assert stage.packet(direct(flags="R"), MARK | 5) is None
    assert not stage.sent()
    assert stage.count("orphaned_backend_packet") == 1


def test_orphans_are_answered_at_a_bounded_rate() -> None:
    stage = Stage()
    for port in range(1, 1101):
        packet = tcp_packet(SERVER, ("198.51.100.7", port), seq=1, ack=1234, flags="A")
        stage.packet(packet, MARK | 5)
    assert len(stage.sent()) == 1000


def test_a_late_packet_of_an_ended_flow_is_dropped_by_name() -> None:
    stage = Stage(timeouts={"linger": 1.0})
    connection = Connection(stage).open()
    connection.send(b"", END, flags="R")
    stage.at(5)
    stage.sent()
    assert connection.from_server(b"late", acked=END) is None
    assert not stage.sent()
    assert stage.count("late_packet") == 1
