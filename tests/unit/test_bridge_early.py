"""Segments that reach the bridge before the handoff does."""

from __future__ import annotations

from typing import Any

import pytest

from common.core.segment import Segment
from packetbridge.core.early import MAX_EACH, MAX_FLOWS, Early
from tests.unit.bridge_stage import REQUEST, Connection, Stage
from tests.unit.scapy_oracle import tcp_packet


def test_segments_that_overtook_the_handoff_follow_it() -> None:
    stage = Stage()
    connection = Connection(stage)
    end = len(REQUEST)
    assert connection.send(b"two", end + 3) is None
    assert connection.send(b"one", end) is None
    connection.asked()
    assert stage.count("early_segments") == 2
    connection.syn_ack()
    assert [packet["payload"] for packet in stage.sent()] == [REQUEST, b"one", b"two"]
    assert stage.core.gauges()["held_bytes"] > 0
    connection.from_server(acked=end + 6)
    assert stage.core.gauges()["held_bytes"] == 0


@pytest.mark.parametrize("ack", [0, 2])
def test_segments_of_another_connection_do_not_follow(ack: int) -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.send(b"evil", len(REQUEST), ack=(connection.b + ack) % 2**32)
    connection.asked()
    connection.syn_ack()
    assert stage.reply()["payload"] == REQUEST


def test_early_segments_are_kept_for_a_moment_only() -> None:
    stage = Stage()
    connection = Connection(stage)
    connection.send(b"one", len(REQUEST))
    stage.at(1.1)
    connection.asked()
    connection.syn_ack()
    assert stage.reply()["payload"] == REQUEST


def test_early_segments_are_bounded() -> None:
    early, keys = Early(), []
    for port in range(300):
        packet = tcp_packet(("198.51.100.7", port), ("192.0.2.20", 80), payload=b"x")
        keys.append(Segment(packet).key)
        for _ in range(20):
            early.keep(5, Segment(packet), 1.0)
    kept = [len(early.take(5, key, 1.0)) for key in keys]
    assert kept == [0] * (300 - MAX_FLOWS) + [MAX_EACH] * MAX_FLOWS


@pytest.mark.parametrize(
    ("damage", "reason"),
    [({"ack": 1}, "unknown_flow"), ({"damaged": True}, "bad_tcp_checksum")],
    ids=["another acknowledgment", "a wrong checksum"],
)
def test_what_is_not_the_clients_does_not_keep_a_handoff_from_opening(
    damage: dict[str, Any], reason: str
) -> None:
    """Who knows a connection's addresses and ports may send before its handoff comes."""
    stage = Stage()
    connection = Connection(stage)
    damaged = damage.pop("damaged", False)
    early = bytearray(connection.segment(b"x" * 100, 100, **damage))
    early[-1] ^= damaged
    assert stage.packet(bytes(early)) is None
    assert stage.count(reason) == 1
    connection.open()
    assert stage.flow().fast
    assert stage.count(reason) == 1
