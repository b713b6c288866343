"""How the balancer's flows end, are replaced, and stay within bounds; and that nothing raises."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core import cookie
from balancer.core.fast_path import Former, NoFastPath
from tests.unit import models
from tests.unit.balancer_stage import BRIDGES, REQUEST, VIP, Client, Stage, handoff_of
from tests.unit.scapy_oracle import fields, icmp_error, tcp_packet


def handed(stage: Stage, port: int = 40000, request: bytes = REQUEST) -> Client:
    client = Client(stage, ("198.51.100.7", port)).connect()
    handoff_of(client.send(request, flags="PA"))
    return client


def sizes(stage: Stage) -> tuple[int, int, int]:
    gauges = stage.core.gauges()
    return gauges["flows"], gauges["waiting"], gauges["buffered_bytes"]


# --- a new connection of the same addresses and ports ---


def test_a_syn_during_a_live_flow_does_it_no_harm() -> None:
    stage = Stage()
    client = handed(stage)
    other = Client(stage, client.address, c=99)
    assert other.syn() is None
    assert stage.reply()["flags"] == "SA"
    for seconds in (0, 1, 20):
        stage.at(seconds)
        verdict = client.send(b"more", len(REQUEST))
        assert verdict is not None
        assert fields(verdict)["payload"] == b"more"
    assert sizes(stage) == (1, 0, 0)


def test_syns_during_a_live_flow_do_not_make_each_packet_cost_a_mac(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage()
    client = handed(stage)
    checked: list[int] = []
    monkeypatch.setattr(cookie, "check", lambda *rest: checked.append(1))
    for number in range(10):
        Client(stage, client.address, c=number << 24).syn()
        assert client.send(at=len(REQUEST), acked=1000 * number) is not None
    assert len(checked) == 1
    assert client.send(at=len(REQUEST), acked=1 << 21) is not None
    assert len(checked) == 2, "too far on to be taken for the same without a look"


def test_a_verified_cookie_replaces_the_flow_and_tells_its_bridge() -> None:
    stage = Stage()
    old = handed(stage)
    new = Client(stage, old.address, c=99).shake()
    stage.sent()
    assert new.send() is None
    forget = stage.reply()
    assert forget["raw_options"] == old.option(models.FORGET, seq=old.c + 1)
    assert (forget["seq"], forget["ack"]) == ((old.c + 1) % 2**32, (old.b + 1) % 2**32)
    assert stage.count("flows_replaced") == 1
    assert sizes(stage) == (0, 1, 0)
    verdict = new.send(REQUEST)
    assert handoff_of(verdict) == new.option(models.HANDOFF, seq=new.c + 1)
    assert sizes(stage) == (1, 0, 0)


def test_a_lost_acknowledgment_does_not_hinder_the_replacement() -> None:
    stage = Stage()
    old = handed(stage)
    new = Client(stage, old.address, c=99).shake()
    stage.at(1)
    verdict = new.send(REQUEST)
    assert handoff_of(verdict) == new.option(models.HANDOFF, seq=new.c + 1, rtt_code=15)
    assert stage.reply()["raw_options"] == old.option(models.FORGET, seq=old.c + 1)


def test_a_waiting_flow_is_replaced_too() -> None:
    stage = Stage()
    old = Client(stage).connect()
    old.send(b"GET /")
    new = Client(stage, c=99).shake()
    new.send()
    assert sizes(stage) == (0, 1, 0)
    handoff_of(new.send(REQUEST))
    stage.at(1)
    assert not stage.sent(), "the old head is not acknowledged any more"


def test_without_a_cookie_nothing_is_replaced() -> None:
    stage = Stage()
    old = handed(stage)
    new = Client(stage, old.address, c=99)
    new.syn()
    stage.sent()
    for changes in ({"seq": 100, "ack": 7}, {"seq": 100, "ack": 7, "flags": "R"}):
        assert new.send(**changes) is not None, "steered: the bridge knows its window"
    assert sizes(stage) == (1, 0, 0)
    assert stage.count("flows_replaced") == 0


# --- replays ---


@pytest.mark.parametrize("seconds", [0, 60])
def test_a_closed_flows_request_opens_nothing(seconds: float) -> None:
    stage = Stage()
    client = handed(stage)
    (flow,) = stage.core.table.handed.values()
    stage.core.kill(flow, stage.now)
    stage.at(1)
    stage.sent()
    stage.at(1 + seconds)
    assert client.send(REQUEST) is None
    assert not stage.sent()
    assert stage.count("closed_flow_again") == 1
    assert sizes(stage) == (0, 0, 0)


def test_a_closed_flow_is_remembered_as_long_as_its_cookie_is_good() -> None:
    stage = Stage(timeouts={"idle": 30.0, "closing": 30.0, "request": 30.0})
    client = handed(stage)
    stage.at(50)
    assert sizes(stage) == (0, 0, 0)
    for seconds in range(51, 124, 4):
        stage.at(seconds)
        assert client.send(REQUEST) is None
    assert stage.count("closed_flow_again") == len(range(51, 124, 4))
    stage.at(126)
    client.send(REQUEST)
    assert stage.count("unknown_flow") == 1


# --- bounds ---


def test_the_oldest_waiting_makes_room() -> None:
    stage = Stage(limits={"waiting": 3})
    clients = [Client(stage, ("198.51.100.7", port)).connect() for port in range(1, 5)]
    assert stage.count("waiting_evicted") == 1
    assert sizes(stage) == (0, 3, 0)
    for client in clients[1:]:
        handoff_of(client.send(REQUEST))


def test_an_evicted_client_that_comes_back_in_time_is_served() -> None:
    """Its cookie still tells everything, and nothing was executed."""
    stage = Stage(limits={"waiting": 1})
    first = Client(stage, ("198.51.100.7", 1)).connect()
    first.send(b"GET /")
    Client(stage, ("198.51.100.7", 2)).connect()
    assert sizes(stage) == (0, 1, 0)
    handoff_of(first.send(REQUEST))


def test_a_full_table_resets_by_name() -> None:
    stage = Stage(limits={"flows": 2})
    for port in (1, 2):
        handed(stage, port)
    client = Client(stage, ("198.51.100.7", 3)).connect()
    assert client.send(REQUEST) is None
    assert stage.reply()["flags"] == "R"
    assert stage.count("flow_table_full") == 1
    assert sizes(stage) == (2, 0, 0)


def test_buffered_bytes_are_bounded() -> None:
    stage = Stage(limits={"buffered_bytes": 65536})
    clients = [Client(stage, ("198.51.100.7", port)).connect() for port in range(1, 100)]
    for client in clients:
        client.send(b"GET /" + b"x" * 1000)
        assert sizes(stage)[2] <= 65536
    assert stage.count("head_crowded_out") > 20
    resets = stage.sent()
    assert len(resets) == stage.count("head_crowded_out"), "those who lost theirs are told"
    assert fields(resets[0])["dport"] == 1, "the oldest first"
    stage.at(0.1)
    stage.sent()
    stage.at(400)
    assert sizes(stage) == (0, 0, 0)


def test_beginnings_that_fill_the_buffers_keep_nobody_out() -> None:
    stage = Stage(limits={"buffered_bytes": 65536})
    for port in range(1, 100):
        client = Client(stage, ("198.51.100.7", port)).connect()
        client.send(b"GET /" + b"x" * 1000)
        stage.sent()
    victim = Client(stage, ("198.51.100.8", 1)).connect()
    assert victim.send(REQUEST) is not None, "handed over at once"
    slow = Client(stage, ("198.51.100.9", 1)).connect()
    assert slow.send(REQUEST[:5]) is None
    assert slow.send(REQUEST[5:], 5) is None
    assert [fields(packet)["payload"] for packet in stage.sent()[-2:]] == [REQUEST[:5], REQUEST[5:]]
    assert stage.count("handoffs") == 2


def test_segments_of_one_head_are_bounded() -> None:
    stage = Stage()
    client = Client(stage).connect()
    for number in range(100):
        client.send(b"x", 2 + 2 * number)
    assert stage.count("head_in_too_many_pieces") > 30
    assert client.send(b"GE", 0) is None
    (flow,) = stage.core.table.waiting.values()
    assert flow.head is not None
    assert flow.head.data.startswith(b"GEx"), "what closes the gap is always taken"
    stage.sent()
    stage.at(400)
    assert sizes(stage) == (0, 0, 0)


def test_what_is_counted_is_what_is_kept() -> None:
    """A client that repeats bytes under ever shorter headers must not shift the account."""
    stage = Stage()
    client = Client(stage).connect()
    for length in (40, 0, 40, 20, 0):
        client.send(b"GET /", options=b"\x01" * length)
        client.send(b"more", 10, options=b"\x01" * length)
    assert stage.count("head_in_too_many_pieces") == 0
    (flow,) = stage.core.table.waiting.values()
    assert flow.head is not None
    assert sizes(stage)[2] == flow.head.kept_bytes
    stage.at(400)
    assert sizes(stage) == (0, 0, 0)


# --- idle time-outs ---


def test_a_waiting_connection_is_reset_when_its_request_does_not_come() -> None:
    stage = Stage(timeouts={"request": 30.0})
    client = Client(stage).connect()
    stage.at(29)
    assert sizes(stage) == (0, 1, 0)
    stage.at(62)
    answer = stage.reply()
    assert (answer["flags"], answer["seq"]) == ("R", (client.b + 1) % 2**32)
    assert stage.count("request_timeout") == 1
    assert sizes(stage) == (0, 0, 0)


def test_a_handed_flow_expires_in_silence_only() -> None:
    stage = Stage(timeouts={"idle": 100.0})
    client = handed(stage)
    for seconds in (90, 180, 270):
        stage.at(seconds)
        assert client.send() is not None
    stage.at(365)
    assert sizes(stage) == (1, 0, 0)
    stage.at(390)
    assert sizes(stage) == (0, 0, 0)
    assert stage.count("flows_expired") == 1
    assert not stage.sent()


@pytest.mark.parametrize("flags", ["FA", "R", "RA"])
def test_a_fin_or_rst_is_steered_and_ends_nothing_here(flags: str) -> None:
    """Anyone may send one; the bridge knows whether it counts."""
    stage = Stage(timeouts={"idle": 900.0, "closing": 20.0})
    client = handed(stage)
    assert client.send(b"", 12345, flags=flags) is not None
    stage.at(800)
    assert sizes(stage) == (1, 0, 0)


def test_what_the_bridge_says_has_ended_expires_soon() -> None:
    stage = Stage(timeouts={"idle": 900.0, "closing": 20.0})
    client = handed(stage)
    assert stage.packet(client.answer(models.ENDED, 0)) is None
    assert client.send(b"", len(REQUEST)) is not None, "late packets are steered"
    stage.at(15)
    assert sizes(stage) == (1, 0, 0)
    stage.at(60)
    assert sizes(stage) == (0, 0, 0)


def test_one_answer_ends_many_connections() -> None:
    """Of those that it names, those that are the ones we know."""
    stage = Stage(timeouts={"idle": 900.0, "closing": 20.0})
    clients = [handed(stage, port) for port in (1, 2, 3)]
    first, _, third = clients
    isns = [number.to_bytes(4, "big") for c in clients for number in (c.c, c.b)]
    rest = socket.inet_aton("198.51.100.7") + b"\0\2" + isns[2] + isns[3]
    rest += socket.inet_aton("198.51.100.7") + b"\0\3" + isns[4] + b"\0\0\0\0"
    assert stage.packet(first.answer(models.ENDED, 0, rest=rest)) is None
    assert stage.count("answer_ended") == 1
    stage.at(60)
    assert list(stage.core.table.handed) == [models.flow_bytes(third.address, VIP)]


class Remembering(NoFastPath):
    """A kernel with connections of an earlier run, in an order that they are not looked at in."""

    def __init__(self) -> None:
        self.kept: dict[bytes, Former] = {}

    def former(self, key: bytes) -> Former | None:
        return self.kept.get(key)

    def formers(self, most: int) -> list[Former] | None:
        return []


def test_an_answer_ends_connections_that_the_kernel_alone_remembers() -> None:
    """Soon after a restart: what is not looked at now would be kept as if it went on."""
    kernel = Remembering()
    stage = Stage(timeouts={"idle": 900.0, "closing": 20.0}, fast=kernel)
    clients = [Client(stage, ("198.51.100.7", port)) for port in (1, 2)]
    bridge = socket.inet_aton(BRIDGES[0])
    for client in clients:
        key = models.flow_bytes(client.address, VIP)
        first = (client.c + 1) % 2**32
        kernel.kept[key] = Former(key, bridge, first, client.b, 0, stage.now, suspect=False)
    second = clients[1]
    rest = socket.inet_aton(second.address[0]) + second.address[1].to_bytes(2, "big")
    rest += second.c.to_bytes(4, "big") + second.b.to_bytes(4, "big")
    assert stage.packet(clients[0].answer(models.ENDED, 0, rest=rest)) is None
    assert stage.count("answer_ended") == 1
    assert all(flow.closing for flow in stage.core.table.handed.values())
    assert stage.count("flows_adopted") == 2


def test_an_answer_whose_payload_was_changed_is_not_believed() -> None:
    stage = Stage()
    client = handed(stage)
    packet = client.answer(models.ENDED, 0, rest=bytes(14))
    assert stage.packet(packet[:-1] + b"\1") is None
    assert stage.count("bad_answer_mac") == 1
    assert stage.packet(client.answer(models.ENDED, 0, rest=bytes(13))) is None
    assert stage.count("bad_handoff_option") == 1


def test_a_closed_connection_expires_without_another_word() -> None:
    stage = Stage(timeouts={"closing": 20.0})
    client = Client(stage).connect()
    client.send(b"", 0, flags="FA")
    stage.sent()
    stage.at(60)
    assert sizes(stage) == (0, 0, 0)
    assert not stage.sent()
    assert stage.count("request_timeout") == 0


# --- nothing that comes may raise ---


def crowded() -> tuple[Stage, list[Client]]:
    """A flow in each state: waiting, with a part of a head, owned, closed, handed, unconfirmed."""
    stage = Stage(max_head=2048)
    clients = [Client(stage, ("198.51.100.7", port)).connect() for port in range(1, 7)]
    clients[1].send(b"GET /")
    clients[2].send(b"GET /")
    clients[5].send(b"GET /")
    stage.at(0.05)
    clients[3].send(b"", 0, flags="FA")
    clients[4].send(REQUEST)
    clients[5].send(REQUEST[5:], 5)
    return stage, clients


@given(st.lists(st.binary(max_size=120), max_size=5))
def test_any_bytes_give_a_verdict(packets: list[bytes]) -> None:
    stage = Stage()
    for packet in packets:
        assert stage.packet(packet) is None
    stage.at(3)


@given(data=st.data())
def test_mutated_packets_give_a_verdict(data: st.DataObject) -> None:
    stage, clients = crowded()
    for _ in range(data.draw(st.integers(1, 4))):
        client = data.draw(st.sampled_from(clients))
        kind = data.draw(st.sampled_from(["segment", "answer", "icmp"]))
        if kind == "answer":
            packet = client.answer(
                data.draw(st.sampled_from([4, 5])), data.draw(st.integers(-2, 9))
            )
        elif kind == "icmp":
            packet = icmp_error("198.51.100.1", VIP[0], tcp_packet(VIP, client.address))
        else:
            options = data.draw(st.sampled_from([b"", models.stamps(5, 6), b"\x05\x0a" * 6]))
            flags = data.draw(st.sampled_from(["A", "PA", "FA", "S", "R", "SA", "FPA", "U"]))
            at = data.draw(st.sampled_from([-1, 0, 1, 3, 5, 300, 5000]))
            payload = data.draw(st.sampled_from([b"", b"x", REQUEST, b"\x16\x03\x01", bytes(500)]))
            packet = client.segment(payload, at, flags=flags, options=options)
        mutated = bytearray(packet)
        for _ in range(data.draw(st.integers(0, 3))):
            mutated[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
        stage.packet(bytes(mutated))
        stage.at(stage.now - 5000 + data.draw(st.sampled_from([0.0, 0.05, 0.3, 9.0])))
    stage.at(1000)
    assert sizes(stage) == (0, 0, 0)


def test_a_services_own_time_outs_hold_in_place_of_the_common_ones() -> None:
    times = {"idle": 600.0, "closing": 15.0, "request": 300.0}
    stage = Stage(timeouts=times, request_timeout=10.0, idle_timeout=40.0)
    handed(stage)
    Client(stage, ("198.51.100.8", 1)).connect()
    stage.at(9)
    assert sizes(stage)[:2] == (1, 1)
    stage.at(26)
    assert sizes(stage)[:2] == (1, 0)
    assert stage.count("request_timeout") == 1
    stage.at(60)
    assert sizes(stage)[:2] == (0, 0)
    assert stage.count("flows_expired") == 1
