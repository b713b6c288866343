"""Packets of flows that the balancer does not know: whom they are told to, and when."""

from __future__ import annotations

import pytest

from tests.unit.balancer_stage import BRIDGES, DSCP, REQUEST, VIP, Client, Stage, handoff_of
from tests.unit.scapy_oracle import fields, tcp_packet


def stranger(stage: Stage, port: int = 40000, flags: str = "A") -> bytes | None:
    return stage.packet(tcp_packet(("198.51.100.7", port), VIP, seq=5, ack=0x12345678, flags=flags))


@pytest.mark.parametrize(("again", "resets"), [(0.19, 0), (0.21, 1), (0.99, 1)])
def test_an_unknown_flow_is_reset_if_it_insists(again: float, resets: int) -> None:
    stage = Stage()
    assert stranger(stage) is None
    assert not stage.sent()
    stage.at(again)
    assert stranger(stage) is None
    packets = [fields(packet) for packet in stage.sent()]
    assert [(p["flags"], p["seq"], p["src"]) for p in packets] == [
        ("R", 0x12345678, VIP[0])
    ] * resets
    assert stage.count("unknown_flow") == 2 - resets
    assert stage.count("unknown_flow_reset") == resets


@pytest.mark.parametrize(("payload", "patience"), [(b"", 1), (b"x", 8)])
def test_a_flow_that_remains_unknown_is_reset_in_the_end(payload: bytes, patience: float) -> None:
    """With the numbers of its latest segment; where the client waits for the server to have its
    bytes, the server's end comes with it, by whichever bridge has the flow."""
    stage = Stage()
    client = Client(stage)
    client.b = 0x1000_0000
    for at in (0, 100):
        assert client.send(payload, 5000 + at, acked=at) is None
        stage.at(0.1)
    stage.at(patience - 0.01)
    assert not stage.sent()
    stage.at(patience)
    reset, *ends = [fields(packet) for packet in stage.sent()]
    assert (reset["flags"], reset["src"], reset["seq"]) == ("R", VIP[0], client.b + 101)
    assert {end["dst"] for end in ends} == (set(BRIDGES) if payload else set())
    for end in ends:
        assert (end["flags"], end["dscp"], end["seq"]) == ("R", DSCP, (client.c + 5101) % 2**32)
        assert (end["src"], end["sport"]) == client.address
    assert stage.count("unknown_flow_overdue") == 1
    stage.at(60)
    assert not stage.sent()


def test_a_flow_that_becomes_known_is_not_reset() -> None:
    """Its second segment came first, and the beginning only by a retransmission."""
    stage = Stage()
    client = Client(stage).shake()
    assert client.send(REQUEST[10:], 10) is None
    stage.at(7.5)
    handoff_of(client.send(REQUEST))
    stage.at(60)
    assert not stage.sent()


def test_a_keep_alive_probe_of_an_unused_connection_is_no_reason_to_reset_it() -> None:
    stage = Stage()
    client = Client(stage).shake()
    assert client.send(b"", -1) is None
    stage.at(30)
    assert not stage.sent()
    handoff_of(client.send(REQUEST))


def test_a_clients_reset_for_an_unknown_flow_goes_to_every_bridge_once() -> None:
    stage = Stage()
    client = Client(stage)
    for _ in range(5):
        assert client.send(flags="R", seq=777) is None
    ends = [fields(packet) for packet in stage.sent()]
    assert sorted(end["dst"] for end in ends) == sorted(BRIDGES)
    assert {(end["flags"], end["seq"]) for end in ends} == {("R", 777)}
    assert stage.count("unknown_flow") == 5
    stage.at(3)
    client.send(flags="R", seq=777)
    assert len(stage.sent()) == len(BRIDGES)


def test_ends_for_the_bridges_are_rate_limited() -> None:
    stage = Stage()
    for port in range(1, 2001):
        stranger(stage, port, "R")
    assert len(stage.sent()) == 1000


def test_resets_are_rate_limited() -> None:
    stage = Stage()
    for _ in range(2):
        for port in range(3000):
            stranger(stage, port)
        stage.at(0.5)
    assert len(stage.sent()) == 1000
    assert stage.count("unknown_flow_reset") == 1000


def test_a_stranger_without_ack_or_with_rst_gets_no_answer() -> None:
    stage = Stage()
    for seconds in (0, 1):
        stage.at(seconds)
        assert stranger(stage, flags="R") is None
        assert stranger(stage, flags="RA") is None
        assert stranger(stage, flags="P") is None
    assert not [packet for packet in stage.sent() if fields(packet)["dst"] not in BRIDGES]
    assert stage.count("unknown_flow") == 4
    assert stage.count("no_ack_flag") == 2
