"""Before a stop: nothing new is taken, and what there is goes on to its end."""

from __future__ import annotations

from tests.unit import balancer_stage, bridge_stage, models
from tests.unit.balancer_stage import REQUEST, VIP, Client, handoff_of
from tests.unit.bridge_stage import Connection
from tests.unit.scapy_oracle import tcp_packet


def test_the_balancer_refuses_new_clients_at_once() -> None:
    """As a host without a listener does, by RFC 9293 section 3.10.7.1."""
    stage = balancer_stage.Stage()
    stage.core.drain(stage.now)
    syn = tcp_packet(("198.51.100.7", 40000), VIP, seq=0xFFFFFFFF, flags="S")
    assert stage.packet(syn) is None
    reset = stage.reply()
    assert (reset["flags"], reset["seq"], reset["ack"]) == ("RA", 0, 0)
    assert (reset["src"], reset["dport"]) == (VIP[0], 40000)
    assert stage.count("draining") == 1


def test_the_balancer_serves_those_it_has_answered() -> None:
    """Also who has not asked yet, and who has not even acknowledged the SYN-ACK."""
    stage = balancer_stage.Stage()
    waiting = Client(stage).connect()
    answered = Client(stage, ("198.51.100.7", 40001)).shake()
    assert stage.core.remaining() == 1
    stage.core.drain(stage.now)
    for client in (waiting, answered):
        handoff_of(client.send(REQUEST))
    assert stage.core.remaining() == 2


def test_the_balancer_does_not_wait_for_what_is_over() -> None:
    """The bridge says so of one connection, a client that has not asked of the other."""
    stage = balancer_stage.Stage()
    handed = Client(stage).connect()
    handoff_of(handed.send(REQUEST))
    waiting = Client(stage, ("198.51.100.7", 40001)).connect()
    assert stage.core.remaining() == 2
    assert stage.packet(handed.answer(models.ENDED)) is None
    assert stage.core.remaining() == 1
    waiting.send(flags="FA")
    assert stage.core.remaining() == 0


def test_a_syn_for_a_live_connection_does_not_disturb_it() -> None:
    stage = balancer_stage.Stage()
    client = Client(stage).connect()
    handoff_of(client.send(REQUEST))
    stage.core.drain(stage.now)
    client.syn()
    stage.sent()
    assert client.send(acked=1000, at=len(REQUEST)) is not None
    assert stage.core.remaining() == 1


def test_the_bridge_gives_new_connections_back() -> None:
    stage = bridge_stage.Stage()
    old = Connection(stage).open()
    stage.core.drain(stage.now)
    new = Connection(stage, ("198.51.100.7", 40001))
    assert new.handoff() is None
    refused = stage.reply()
    assert (refused["dst"], refused["payload"]) == (new.vip[0], bridge_stage.REQUEST)
    assert refused["raw_options"][:4] == b"\xfd\x10\x4c\x33"
    assert stage.count("draining") == 1
    assert old.send(b"more", len(bridge_stage.REQUEST)) is not None
    assert stage.core.remaining() == 1


def test_the_bridge_does_not_wait_for_what_is_over() -> None:
    stage = bridge_stage.Stage()
    connection = Connection(stage).open()
    assert stage.core.remaining() == 1
    connection.from_server(flags="R")
    assert stage.core.remaining() == 0
