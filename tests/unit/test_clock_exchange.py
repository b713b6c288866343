"""The question for a bridge's time, and its answer: authentic, no larger, and not too often."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.clock_exchange import Question
from common.core.errors import MalformedError
from common.core.keys import derive
from packetbridge.core.clock import ANSWERS
from tests.unit import models
from tests.unit.bridge_stage import ADDRESS, VIPS, Stage
from tests.unit.scapy_oracle import fields

KEYS = derive(models.SHARED_KEY)
DAYS = 24 * 3600.0


def question(dscp: int = 5, vip: str = VIPS[5], c: int = 7, b: int = 0xFFFFFFFF) -> Question:
    bridge = IPv4Address(ADDRESS[0]).packed
    return Question(IPv4Address(vip).packed, 40123, bridge, ADDRESS[1], dscp, c, b)


def answered(stage: Stage, asked: bytes) -> bytes:
    """The only packet sent in answer."""
    assert stage.packet(asked) is None
    ((mark, packet),) = stage.core.out
    stage.core.out.clear()
    assert mark == stage.entries[0].mark
    return packet


@pytest.mark.parametrize("seconds", [0, 0.5, -7, 9, -64, 128, 3600, -3600, -20 * DAYS, 20 * DAYS])
def test_a_bridge_tells_its_time_to_a_balancer_of_any(seconds: float) -> None:
    """``seconds`` is by how much the bridge is ahead."""
    stage = Stage()
    here = stage.wall - seconds
    asked = question()
    answer = answered(stage, asked.packet(KEYS, here))
    assert asked.ahead(KEYS, answer, here) == pytest.approx(seconds, abs=0.002)
    assert stage.count("clock_told") == 1
    assert len(stage.core.table) == 0


def test_the_answer_is_a_shorter_packet_to_the_vip_that_nobody_answers() -> None:
    stage = Stage()
    asked = question().packet(KEYS, stage.wall)
    answer = answered(stage, asked)
    assert len(answer) < len(asked)
    seen = fields(answer)
    assert (seen["src"], seen["sport"]) == (ADDRESS[0], 40123)
    assert (seen["dst"], seen["dport"]) == (VIPS[5], ADDRESS[1])
    assert "R" in str(seen["flags"])


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        (question(), derive(bytes(16))),
        (question(vip=VIPS[6]), KEYS),
        (question(vip="198.51.100.7"), KEYS),
    ],
    ids=["another key", "another VIP for this DSCP", "a client"],
)
def test_others_are_not_answered(asked: Question, keys: object) -> None:
    stage = Stage()
    assert stage.packet(asked.packet(keys, stage.wall)) is None  # type: ignore[arg-type]
    assert stage.core.out == []
    assert stage.count("bad_handoff_mac") == 1


@given(st.integers(20 * 8, 68 * 8 - 1))
def test_a_changed_question_is_not_answered(bit: int) -> None:
    """Any bit behind the IP header, checksums included."""
    stage = Stage()
    asked = bytearray(question().packet(KEYS, stage.wall))
    asked[bit // 8] ^= 1 << bit % 8
    assert stage.packet(bytes(asked)) is None
    assert stage.core.out == []


def test_whoever_repeats_a_question_is_answered_so_often() -> None:
    stage = Stage()
    asked = question().packet(KEYS, stage.wall)
    for _ in range(100):
        assert stage.packet(asked) is None
    assert len(stage.core.out) == stage.count("clock_told") == ANSWERS
    assert stage.count("clock_asked_too_often") == 100 - ANSWERS
    stage.at(1)
    stage.core.out.clear()
    answered(stage, asked)


def test_an_answer_to_another_question_is_none() -> None:
    stage = Stage()
    answer = answered(stage, question(c=8).packet(KEYS, stage.wall))
    assert question().ahead(KEYS, answer, stage.wall) is None
    assert question(c=8, b=1).ahead(KEYS, answer, stage.wall) is None
    assert question(c=8).ahead(derive(bytes(16)), answer, stage.wall) is None
    assert question(c=8).ahead(KEYS, answer, stage.wall) is not None


@given(st.sampled_from([*range(12 * 8, 28 * 8), *range(40 * 8, 56 * 8)]))
def test_a_changed_answer_is_none(bit: int) -> None:
    """Any bit of addresses, ports, the time and the option."""
    stage, asked = Stage(), question()
    answer = bytearray(answered(stage, asked.packet(KEYS, stage.wall)))
    answer[bit // 8] ^= 1 << bit % 8
    with suppress(MalformedError):
        assert asked.ahead(KEYS, bytes(answer), stage.wall) is None
