"""Servers that lack what the client was promised: timestamps, SACK, window scaling."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import models
from tests.unit.bridge_stage import REQUEST, Connection, Stage
from tests.unit.scapy_oracle import fields


def options_of(packet: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in packet["options"] if key != "NOP"}


def stamps_of(packet: dict[str, Any]) -> tuple[int, int]:
    pair: tuple[int, int] = options_of(packet)["Timestamp"]
    return pair


def test_a_server_without_timestamps_is_asked_again_for_smaller_segments() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.syn_ack(stamps=False)
    reset, syn = stage.sent()
    assert (reset["flags"], reset["seq"]) == ("R", (connection.c + 1) % 2**32)
    assert options_of(syn) == {"MSS": 1448, "SAckOK": b"", "WScale": 8}
    connection.syn_ack(stamps=False)
    held = stage.reply()
    assert held["options"] == []
    assert held["payload"] == REQUEST
    second = Connection(stage, ("198.51.100.7", 2)).asked()
    assert options_of(second)["MSS"] == 1448, "it is known from now on"
    assert "Timestamp" not in options_of(second)


def test_timestamps_are_added_in_such_a_servers_name() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.syn_ack(stamps=False)
    connection.syn_ack(stamps=False)
    stage.sent()
    stage.at(2.5)
    connection.value += 99
    up = connection.forwarded(b"", len(REQUEST))
    assert fields(up)["raw_options"] == b"\x01" * 12, "the client's are not for the server"
    sack = b"\x01\x01\x05\x0a" + (1).to_bytes(4, "big") + (9).to_bytes(4, "big")
    down = connection.from_server(b"data", options=sack, acked=len(REQUEST))
    assert down is not None
    raw = fields(down)["raw_options"]
    assert raw == models.stamps(connection.echo + 2500, connection.value) + sack


def test_added_timestamps_leave_whole_sack_blocks() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.syn_ack(stamps=False)
    connection.syn_ack(stamps=False)
    stage.sent()
    blocks = b"".join(n.to_bytes(4, "big") for n in range(100, 108))
    down = connection.from_server(b"", options=b"\x01\x01\x05\x22" + blocks)
    assert down is not None
    raw = fields(down)["raw_options"]
    assert raw[:12] == models.stamps(connection.echo, connection.value)
    assert raw[12:] == b"\x01\x01\x05\x1a" + blocks[:24]


def test_a_server_without_sack_does_not_matter() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.asked()
    connection.syn_ack(sack=False)
    assert stage.reply()["payload"] == REQUEST
    assert fields(connection.forwarded(b"", len(REQUEST), acked=100))["flags"] == "A"


@pytest.mark.parametrize(
    ("promised", "server", "up", "down"),
    [
        (7, 9, (501, 501), (1000, 4000)),
        (7, 9, (501, 501), (40000, 65535)),
        (7, 7, (501, 501), (1000, 1000)),
        (7, 3, (501, 501), (1007, 62)),
        (7, None, (255, 65280), (1000, 7)),
        (7, None, (501, 65535), (127, 0)),
        (7, 0, (501, 501), (1000, 7)),
    ],
)
def test_windows_change_scale(
    promised: int, server: int | None, up: tuple[int, int], down: tuple[int, int]
) -> None:
    stage = Stage()
    connection = Connection(stage, scales=(8, promised))
    connection.asked()
    connection.syn_ack(scale=server)
    stage.sent()
    sent = connection.forwarded(b"", len(REQUEST), window=up[0])
    assert fields(sent)["window"] == up[1]
    for options in (b"", b"\x01" * 4):
        back = connection.from_server(b"", window=down[0], options=options)
        assert back is not None
        assert fields(back)["window"] == down[1]


def test_without_scales_windows_stay() -> None:
    stage = Stage()
    connection = Connection(stage, scales=(15, 15))
    connection.asked()
    connection.syn_ack(scale=None)
    assert stage.reply()["window"] == 501
    back = connection.from_server(b"", window=31234)
    assert back is not None
    assert fields(back)["window"] == 31234


def test_what_is_learned_of_a_server_meanwhile_changes_no_flow_under_way() -> None:
    """One whose SYN offered timestamps has asked for segments too large to add any to."""
    stage = Stage()
    first, second = (Connection(stage, ("198.51.100.7", port)) for port in (1, 2))
    first.asked()
    second.asked()
    first.syn_ack(stamps=False)  # learned: a RST, and a SYN for smaller segments
    assert [packet["flags"] for packet in stage.sent()] == ["R", "S"]
    second.syn_ack(stamps=False)
    reset, syn = stage.sent()
    assert (reset["flags"], syn["flags"]) == ("R", "S")
    assert options_of(syn)["MSS"] == 1460 - 12


def test_a_handoff_that_says_nothing_of_the_mss_is_opened_with_the_least() -> None:
    """No balancer says less than that; what another one's key vouches for must still not be an
    error here, whose cause would be looked for in vain."""
    stage = Stage()
    Connection(stage, mss=1460).asked()
    for entry in stage.entries:
        entry.no_timestamps_until = float("inf")
    syn = Connection(stage, ("198.51.100.7", 2), mss=0).asked()
    assert options_of(syn)["MSS"] == 536 - 12
