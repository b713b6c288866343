"""The handoff option against a model of its own, field by field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core import handoff
from common.core.errors import Malformed, MalformedError
from common.core.handoff import RTT_STEPS, Binding, Handoff, Kind
from common.core.keys import derive
from common.core.segment import Segment
from tests.unit import models
from tests.unit.scapy_oracle import tcp_packet

KEYS = derive(models.SHARED_KEY)
CLIENT, VIP = ("198.51.100.7", 40000), ("192.0.2.10", 80)
BINDING = Binding(models.flow_bytes(CLIENT, VIP), c=0xFFFFFFFF, b=0x01020304, seq=0)
MESSAGE = Handoff(Kind.HANDOFF, 1460, 50, 8, 7, sack=True)
WALL = 1_700_000_003.0
EPOCH = 212_500_000  # eights of seconds
U32 = st.integers(0, 2**32 - 1)
NIBBLE = st.integers(0, 15)
KINDS = st.sampled_from(Kind)


def test_a_literal_option() -> None:
    """MSS 1460 = 365 units, round trip 50 ms = code 6, scales 8 and 7, epoch 212500000 mod 16 = 0,
    SACK; the hash from the model."""
    option = handoff.encode(KEYS, MESSAGE, BINDING, EPOCH)
    assert option[:8] == bytes.fromhex("fd10 4c33 16d6 87 08".replace(" ", ""))
    data = option[4:8] + bytes.fromhex("0caa7e20c6336407c000020a9c400050ffffffff0102030400000000")
    expected = models.siphash(models.derived_key(models.SHARED_KEY, "handoff"), data)
    assert option[8:] == expected.to_bytes(8, "little")


@given(
    KINDS,
    st.integers(0, 16380),
    NIBBLE,
    NIBBLE,
    NIBBLE,
    st.booleans(),
    U32,
    U32,
    U32,
    st.floats(0, 2**33),
)
def test_the_bytes_are_the_models_and_are_read_back(
    kind: Kind,
    mss: int,
    rtt: int,
    client_scale: int,
    promised_scale: int,
    sack: bool,
    c: int,
    b: int,
    seq: int,
    wall: float,
) -> None:
    message = Handoff(kind, mss, RTT_STEPS[rtt], client_scale, promised_scale, sack)
    binding = BINDING._replace(c=c, b=b, seq=seq)
    option = handoff.encode(KEYS, message, binding, handoff.epoch_at(wall))
    assert option == models.handoff_option(
        kind,
        CLIENT,
        VIP,
        c=c,
        b=b,
        seq=seq,
        wall=wall,
        mss=mss,
        rtt_code=rtt,
        scales=(client_scale, promised_scale),
        sack=sack,
    )
    assert handoff.decode(option) == message._replace(mss=mss // 4 * 4)
    assert handoff.authentic(KEYS, option, binding, wall)
    assert handoff.timely(option, wall)


def test_an_mss_beyond_the_field_is_cut() -> None:
    option = handoff.encode(KEYS, MESSAGE._replace(mss=65535), BINDING, EPOCH)
    assert handoff.decode(option).mss == 16380


@pytest.mark.parametrize(
    ("milliseconds", "step"),
    [(0, 0), (1.9, 0), (2, 2), (74, 50), (75, 75), (999, 600), (1000, 1000), (60000, 1000)],
)
def test_the_round_trip_is_a_step_not_above(milliseconds: float, step: int) -> None:
    assert RTT_STEPS[handoff.rtt_code(milliseconds)] == step
    assert handoff.RTT_STEPS == models.RTT_STEPS


# --- what the hash binds ---


@given(st.integers(4 * 8, 16 * 8 - 1))
def test_every_bit_of_the_option_counts(bit: int) -> None:
    option = handoff.encode(KEYS, MESSAGE, BINDING, EPOCH)
    changed = bytearray(option)
    changed[bit // 8] ^= 1 << bit % 8
    assert not handoff.authentic(KEYS, bytes(changed), BINDING, WALL)


@given(st.sampled_from(["c", "b", "seq"]), st.integers(0, 31))
def test_every_bit_of_the_numbers_counts(name: str, bit: int) -> None:
    option = handoff.encode(KEYS, MESSAGE, BINDING, EPOCH)
    other = BINDING._replace(**{name: getattr(BINDING, name) ^ 1 << bit})
    assert not handoff.authentic(KEYS, option, other, WALL)


@given(st.integers(0, 95))
def test_every_bit_of_the_addresses_counts(bit: int) -> None:
    option = handoff.encode(KEYS, MESSAGE, BINDING, EPOCH)
    flow = (int.from_bytes(BINDING.flow, "big") ^ 1 << bit).to_bytes(12, "big")
    assert not handoff.authentic(KEYS, option, BINDING._replace(flow=flow), WALL)


@given(
    st.sampled_from([{"attempt": 1}, {"bridge": bytes(4)}, {"rest": b"x"}, {"rest": b"GET /b"}]),
)
def test_whose_answer_it_is_and_all_that_it_returns_count(change: dict[str, Any]) -> None:
    """Else an answer of one bridge were another's, or a request could be put into it on the way."""
    message = MESSAGE._replace(kind=Kind.REFUSED)
    said = BINDING._replace(rest=b"GET /a", bridge=bytes((10, 0, 0, 1)), attempt=2)
    option = handoff.encode(KEYS, message, said, EPOCH)
    assert handoff.authentic(KEYS, option, said, WALL)
    assert not handoff.authentic(KEYS, option, said._replace(**change), WALL)
    assert option == models.handoff_option(
        models.REFUSED,
        CLIENT,
        VIP,
        c=said.c,
        b=said.b,
        seq=said.seq,
        wall=WALL,
        mss=1460,
        rtt_code=6,
        scales=(8, 7),
        sack=True,
        rest=said.rest,
        bridge="10.0.0.1",
        attempt=2,
    )


def test_another_key_is_not_authentic() -> None:
    option = handoff.encode(derive(bytes(32)), MESSAGE, BINDING, EPOCH)
    assert not handoff.authentic(KEYS, option, BINDING, WALL)


@given(KINDS, KINDS)
def test_one_message_is_not_another(kind: Kind, other: Kind) -> None:
    """An answer turned round is no handoff, whatever its fields are made to say."""
    option = bytearray(handoff.encode(KEYS, MESSAGE._replace(kind=kind), BINDING, EPOCH))
    option[7] = option[7] & 0xF8 | other
    assert handoff.authentic(KEYS, bytes(option), BINDING, WALL) == (kind == other)


# --- the epoch ---


@pytest.mark.parametrize("epoch", range(16))
@pytest.mark.parametrize("off", [-2, -1, 0, 1, 2, 7, 8])
def test_one_epoch_off_is_timely(epoch: int, off: int) -> None:
    option = handoff.encode(KEYS, MESSAGE, BINDING, 16 + epoch)
    assert handoff.timely(option, 8 * (16 + epoch + off) + 7.9) == (abs(off) <= 1)


@pytest.mark.parametrize("rounds", [1, 2, 100])
def test_the_same_four_bits_come_round_but_not_the_epoch(rounds: int) -> None:
    option = handoff.encode(KEYS, MESSAGE, BINDING, EPOCH)
    later = WALL + rounds * 16 * 8
    assert handoff.timely(option, later)
    assert handoff.authentic(KEYS, option, BINDING, WALL)
    assert not handoff.authentic(KEYS, option, BINDING, later)


# --- reading what comes ---


@given(st.binary(max_size=40))
def test_any_options_give_ours_or_none_or_a_reason(raw: bytes) -> None:
    try:
        option = handoff.find(raw)
    except MalformedError as error:
        assert error.reason in (Malformed.BAD_TCP_OPTIONS, Malformed.BAD_HANDOFF_OPTION)
        return
    assert option is None or (len(option) == 16 and option[:4] == b"\xfd\x10\x4c\x33")


@given(st.binary(min_size=12, max_size=12))
def test_any_content_is_read_or_refused(content: bytes) -> None:
    option = handoff.PREFIX + content
    if content[3] & 7 == 7:
        with pytest.raises(MalformedError, match="bad_handoff_option"):
            handoff.decode(option)
    else:
        assert handoff.decode(option).kind == content[3] & 7
    assert not handoff.authentic(KEYS, option, BINDING, WALL)


@given(st.integers(0, 3), st.integers(2, 38).filter(lambda n: n != 16))
def test_ours_in_another_length_is_refused(nops: int, length: int) -> None:
    raw = b"\x01" * nops + bytes([253, length]) + (b"\x4c\x33" + bytes(40))[: length - 2]
    if length < 4:
        assert handoff.find(raw + b"\x01" * 2) is None
    elif len(raw) <= 40:
        with pytest.raises(MalformedError, match="bad_handoff_option"):
            handoff.find(raw)


def test_another_experiment_is_not_ours() -> None:
    assert handoff.find(b"\xfd\x10\x4c\x34" + bytes(12)) is None


@pytest.mark.parametrize("ahead", [b"", b"\x01\x01", models.stamps(1, 2)])
def test_ours_is_found_wherever_it_stands(ahead: bytes) -> None:
    option = handoff.encode(KEYS, MESSAGE, BINDING, EPOCH)
    assert handoff.find(ahead + option + b"\x01") == option


@pytest.mark.parametrize("stamps", [b"", models.stamps(3, 4)])
def test_a_handoff_carries_the_timestamps_and_nothing_else(stamps: bytes) -> None:
    option = handoff.encode(KEYS, MESSAGE, BINDING, EPOCH)
    sack = b"\x01\x01\x05\x0a" + bytes(8)
    segment = Segment(tcp_packet(CLIENT, VIP, flags="A", options=stamps + sack))
    assert handoff.segment_options(segment, option) == option + stamps
