"""Heads that come slowly, as scripts: acknowledged, owned, and confirmed by the bridge."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import models
from tests.unit.balancer_stage import BRIDGES, DSCP, REQUEST, VIP, Client, Stage
from tests.unit.scapy_oracle import fields


def position(client: Client, packet: dict[str, Any]) -> int:
    at: int = (packet["seq"] - client.c - 1) % 2**32
    return at


def slow(stage: Stage, piece: bytes = b"GET /slow", **client: Any) -> Client:
    """A client whose beginning was acknowledged after a silence."""
    guest = Client(stage, **client).connect()
    assert guest.send(piece) is None
    stage.at(0.05)
    assert stage.reply()["ack"] == (guest.c + 1 + len(piece)) % 2**32
    return guest


def handed(stage: Stage) -> Client:
    """A slow client whose request is whole; its owned bytes have been sent once."""
    client = slow(stage)
    assert client.send(REQUEST[6:], 9) is None
    return client


# --- acknowledging ---


def test_an_incomplete_head_is_acknowledged_40_ms_after_its_last_segment() -> None:
    stage = Stage()
    client = Client(stage).connect()
    client.send(b"GET ")
    stage.at(0.03)
    client.send(b"/sl", 4)
    stage.at(0.06)
    assert not stage.sent(), "the silence begins anew with each segment"
    stage.at(0.08)
    answer = stage.reply()
    assert (answer["flags"], answer["payload"]) == ("A", b"")
    assert answer["seq"] == (client.b + 1) % 2**32
    assert answer["ack"] == (client.c + 8) % 2**32
    assert dict(answer["options"])["Timestamp"] == (client.echo, client.value)
    assert stage.count("heads_owned") == 1
    stage.at(5)
    assert not stage.sent(), "once"


def test_its_tsval_is_never_above_what_the_client_echoed() -> None:
    """The bridge goes on from there."""
    stage = Stage()
    client = Client(stage).connect()
    for number in range(6):
        client.value += 1000
        client.send(b"x", number)
        stage.at(number + 1)
        stamps = dict(stage.reply()["options"])["Timestamp"]
        assert stamps == (client.echo, client.value)


def test_without_timestamps_the_acknowledgment_has_none() -> None:
    stage = Stage()
    client = Client(stage, stamps=False).connect()
    client.send(b"GET ")
    stage.at(1)
    assert stage.reply()["options"] == []


@pytest.mark.parametrize(("scale", "shift"), [(8, 7), (None, 0)])
def test_the_window_leaves_the_right_edge_where_it_was(scale: int | None, shift: int) -> None:
    stage = Stage(max_head=5000)
    client = Client(stage, scale=scale).connect()
    client.send(b"GET /" + b"x" * 995)
    stage.at(1)
    window = stage.reply()["window"] << shift
    assert 4000 <= window < 4000 + (1 << shift)


def test_the_initial_window_is_acknowledged_before_it_is_full() -> None:
    stage = Stage()
    client = Client(stage).connect()
    for number in range(7):
        client.send(b"GET /abcdefgh"[number : number + 1], number)
        assert not stage.sent()
    client.send(b"x", 7)
    assert stage.reply()["ack"] == (client.c + 1 + 8) % 2**32


def test_many_bytes_are_acknowledged_at_once() -> None:
    stage = Stage()
    client = Client(stage).connect()
    for number in range(7):
        assert not stage.sent()
        client.send(b"GET /" + b"x" * 1427 if not number else b"x" * 1432, 1432 * number)
    assert stage.reply()["ack"] == (client.c + 1 + 7 * 1432) % 2**32


def test_a_keep_alive_probe_before_the_request_is_answered() -> None:
    stage = Stage()
    client = Client(stage).connect()
    stage.at(20)
    for payload in (b"", b"\0"):
        client.value += 500
        assert client.send(payload, -1) is None
        answer = stage.reply()
        assert (answer["flags"], answer["ack"]) == ("A", (client.c + 1) % 2**32)
        assert answer["seq"] == (client.b + 1) % 2**32
        assert dict(answer["options"])["Timestamp"] == (client.echo, client.value)


def test_a_keep_alive_probe_is_told_what_is_owned() -> None:
    stage = Stage()
    client = slow(stage)
    client.value += 500
    client.send(b"", 9)
    assert not stage.sent(), "not below what the client owns: a mere acknowledgment"
    client.send(b"", 8)
    answer = stage.reply()
    assert answer["ack"] == (client.c + 10) % 2**32
    assert dict(answer["options"])["Timestamp"] == (client.echo, client.value)
    client.send(b"w", 8)
    stage.at(1)
    assert stage.reply()["ack"] == (client.c + 10) % 2**32


def test_an_acknowledgment_of_nothing_we_sent_is_dropped_by_name() -> None:
    stage = Stage()
    client = Client(stage).connect()
    for acked in (-1, 1, 1000):
        assert client.send(REQUEST, acked=acked) is None
    assert client.send(REQUEST, flags="P") is None
    assert stage.count("bad_ack") == 4
    assert not stage.sent()


def test_far_beyond_the_window_nothing_is_kept() -> None:
    stage = Stage(max_head=1024)
    client = Client(stage).connect()
    assert client.send(b"x", 5000) is None
    assert stage.core.gauges()["buffered_bytes"] == 0
    assert stage.reply()["ack"] == (client.c + 1) % 2**32


# --- owned bytes ---


def test_owned_bytes_are_sent_in_one_piece_with_confirm() -> None:
    stage = Stage()
    client = Client(stage).connect()
    for number, byte in enumerate(REQUEST[:15]):
        client.send(bytes([byte]), number)
        stage.at(number + 1)
    assert len(stage.sent()) == 15
    client.value += 99
    assert client.send(REQUEST[15:], 15, window=77) is None
    packet = stage.reply()
    assert packet["payload"] == REQUEST
    assert (packet["src"], packet["sport"]) == client.address
    assert (packet["dport"], packet["dscp"]) == (VIP[1], DSCP)
    assert packet["dst"] in BRIDGES
    assert (position(client, packet), packet["ack"]) == (0, (client.b + 1) % 2**32)
    assert (packet["flags"], packet["window"]) == ("PA", 77)
    assert packet["raw_options"][:16] == client.option(models.CONFIRM, seq=client.c + 1)
    assert packet["raw_options"][16:] == models.stamps(client.value, client.echo)


def test_what_lies_behind_a_gap_follows_the_owned_bytes() -> None:
    """The client still owns it, but would send it again only after a time-out."""
    stage = Stage()
    client = slow(stage)
    assert client.send(b"third\r\n", 39) is None
    assert client.send(b"second\r\n", 31) is None
    assert client.send(b"fifth\r\n", 50, flags="FA") is None
    assert client.send(b" HTTP/1.1\r\n", 9) is None
    owned, *others = [fields(packet) for packet in stage.sent()]
    assert owned["payload"] == b"GET /slow HTTP/1.1\r\n"
    assert [(position(client, p), p["payload"], p["flags"]) for p in others] == [
        (31, b"second\r\n", "A"),
        (39, b"third\r\n", "A"),
        (50, b"fifth\r\n", "FA"),
    ]
    assert {(p["dst"], p["dscp"], p["raw_options"]) for p in others} == {
        (owned["dst"], DSCP, models.stamps(client.value, client.echo))
    }


def test_owned_bytes_beyond_a_segment_are_cut_to_the_paths_size() -> None:
    stage = Stage(mtu=1400)
    client = slow(stage)
    rest = (b"/" + b"x" * 3000) + b" HTTP/1.1\r\n"
    for at in range(0, len(rest), 1000):
        client.send(rest[at : at + 1000], 9 + at)
    packets = [fields(packet) for packet in stage.sent()]
    assert b"".join(p["payload"] for p in packets) == b"GET /slow" + rest
    assert [p["length"] for p in packets[:-1]] == [1400] * (len(packets) - 1)
    for packet in packets:
        seq = packet["seq"]
        assert packet["raw_options"][:16] == client.option(models.CONFIRM, seq=seq)
    at = [position(client, packet) for packet in packets]
    assert at == [sum(len(p["payload"]) for p in packets[:n]) for n in range(len(packets))]


def test_it_is_repeated_doubling_five_times_then_given_up() -> None:
    """Where there is no other backend."""
    stage = Stage(bridges=BRIDGES[:1])
    client = slow(stage)
    begun = 0.05
    client.send(REQUEST[6:], 9)
    (first,) = stage.sent()
    for number in range(5):
        due = begun + 0.2 * (2 ** (number + 1) - 1)
        stage.at(due - 0.001)
        assert not stage.sent()
        stage.at(due + 0.001)
        (again,) = stage.sent()
        assert fields(again)["payload"] == fields(first)["payload"]
        assert fields(again)["dst"] == fields(first)["dst"]
    assert stage.count("handoffs_repeated") == 5
    stage.at(begun + 0.2 * 63 + 0.001)
    reset, forget = map(fields, stage.sent())
    assert (reset["flags"], reset["dst"]) == ("R", client.address[0])
    assert reset["seq"] == (client.b + 1) % 2**32
    assert forget["dst"] == fields(first)["dst"]
    assert forget["raw_options"] == client.option(models.FORGET, seq=client.c + 1)
    assert stage.count("handoff_unconfirmed") == 1
    assert stage.sizes() == {}


def test_accepted_ends_the_repetition() -> None:
    stage = Stage()
    client = handed(stage)
    assert len(stage.sent()) == 1
    stage.at(0.1)
    assert stage.packet(client.answer(models.ACCEPTED, 9 + len(REQUEST[6:]))) is None
    stage.at(30)
    assert not stage.sent()
    assert stage.sizes() == {"flows": 1}


def test_accepted_in_part_is_repeated_from_there() -> None:
    stage = Stage()
    client = handed(stage)
    stage.sent()
    stage.packet(client.answer(models.ACCEPTED, 4))
    stage.packet(client.answer(models.ACCEPTED, 2))
    stage.at(0.3)
    packet = stage.reply()
    assert position(client, packet) == 4
    assert packet["payload"] == (b"GET /slow" + REQUEST[6:])[4:]
    assert packet["raw_options"][:16] == client.option(models.CONFIRM, seq=client.c + 5)


def test_accepted_beyond_what_is_owned_is_enough() -> None:
    """The client still owns what it sent last, and sends it again itself."""
    stage = Stage()
    client = handed(stage)
    stage.sent()
    stage.packet(client.answer(models.ACCEPTED, 9))
    stage.at(30)
    assert not stage.sent()


def test_what_the_client_sends_meanwhile_is_steered() -> None:
    stage = Stage()
    client = handed(stage)
    bridge = stage.reply()["dst"]
    verdict = client.send(b"more", 9 + len(REQUEST[6:]))
    assert verdict is not None
    assert fields(verdict)["dst"] == bridge


def test_what_the_client_repeats_is_left_to_the_balancers_own_repetition() -> None:
    """A bridge that has no handoff yet would take it for a lost connection's, and reset that."""
    stage = Stage()
    client = handed(stage)
    bridge = stage.reply()["dst"]
    for _ in range(3):
        assert client.send(REQUEST[6:], 9) is None
    assert stage.count("handoff_on_its_way") == 3
    stage.packet(client.answer(models.ACCEPTED, 9))
    verdict = client.send(REQUEST[6:], 9)
    assert verdict is not None
    assert fields(verdict)["dst"] == bridge


def test_so_it_is_with_what_needed_several_segments() -> None:
    stage = Stage()
    client = slow(stage)
    client.send(b"x" * 1400, 9)
    client.send(b" HTTP/1.1\r\n" + b"y" * 1000, 1409)
    assert len(stage.sent()) == 2
    assert client.send(b"y" * 10, 1500) is None
    assert stage.count("handoff_on_its_way") == 1
    stage.packet(client.answer(models.ACCEPTED, 2420))
    assert client.send(b"y" * 10, 1500) is not None


def test_refused_owned_bytes_end_the_connection() -> None:
    """By the only backend."""
    stage = Stage(bridges=BRIDGES[:1], pool={"retries": 0})
    client = handed(stage)
    stage.sent()
    stage.packet(client.answer(models.REFUSED))
    assert stage.reply()["payload"].startswith(b"HTTP/1.1 503 ")
    stage.at(30)
    assert not stage.sent()
    assert stage.sizes() == {}


def test_a_fin_behind_owned_bytes_is_handed_over() -> None:
    stage = Stage()
    client = slow(stage)
    client.send(REQUEST[6:], 9, flags="FPA")
    packet = stage.reply()
    assert packet["flags"] == "FPA"
    assert packet["payload"] == b"GET /slow" + REQUEST[6:]


# --- ends before the request ---


def test_a_fin_before_any_data_is_answered_in_kind() -> None:
    stage = Stage()
    client = Client(stage).connect()
    for _ in range(2):
        assert client.send(b"", 0, flags="FA") is None
        answer = stage.reply()
        assert answer["flags"] == "FA"
        assert answer["seq"] == (client.b + 1) % 2**32
        assert answer["ack"] == (client.c + 2) % 2**32
    assert stage.count("client_closed") == 1
    assert client.send(b"", 1, acked=1) is None
    assert not stage.sent()
    assert stage.core.gauges()["waiting"] == 0


def test_a_fin_after_a_part_of_the_head_is_reset_by_name() -> None:
    stage = Stage()
    client = Client(stage).connect()
    client.send(b"GET /")
    assert client.send(b"", 5, flags="FA") is None
    assert stage.reply()["flags"] == "R"
    assert stage.count("head_cut_short") == 1
    assert stage.sizes() == {}


def test_a_fin_before_the_bytes_it_follows_waits_for_them() -> None:
    stage = Stage()
    client = Client(stage).connect()
    assert client.send(b"", len(REQUEST), flags="FA") is None
    assert not stage.sent()
    assert client.send(REQUEST) is None
    packets = [fields(packet) for packet in stage.sent()]
    assert [p["flags"] for p in packets] == ["A", "FA"]
    assert [p["payload"] for p in packets] == [REQUEST, b""]


@pytest.mark.parametrize(("at", "ends"), [(9, True), (8, False), (0, False), (10, False)])
def test_only_the_exact_reset_ends_a_waiting_connection(at: int, ends: bool) -> None:
    stage = Stage()
    client = slow(stage)
    assert client.send(b"", at, flags="R") is None
    assert stage.core.gauges()["waiting"] == (not ends)
    assert stage.count("client_reset") == ends
    assert stage.count("head_out_of_window") == (not ends)
    assert not stage.sent()
