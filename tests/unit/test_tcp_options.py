"""TCP options: the walk, what a SYN offers, and the encodings, with scapy as the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core import handoff, tcp_options
from common.core.errors import Malformed, MalformedError
from common.core.tcp_options import NO_SCALE
from tests.unit.scapy_oracle import fields, raw_options, tcp_packet

U32 = st.integers(0, 2**32 - 1)
SCALES = st.one_of(st.none(), st.integers(0, 14))
STAMPS = st.one_of(st.none(), st.tuples(U32, U32))


def seen_by_scapy(raw: bytes) -> list[tuple[Any, Any]]:
    packet = tcp_packet(("1.2.3.4", 5), ("6.7.8.9", 10), options=raw)
    options: list[tuple[Any, Any]] = fields(packet)["options"]
    return options


@given(st.integers(0, 65535), SCALES, st.booleans(), STAMPS)
def test_an_offer_is_read_back_and_scapy_agrees(
    mss: int, scale: int | None, sack: bool, stamps: tuple[int, int] | None
) -> None:
    held = NO_SCALE if scale is None else scale
    raw = tcp_options.encode_offer(mss, held, sack, stamps)
    assert len(raw) % 4 == 0
    assert tcp_options.offer(raw) == tcp_options.Offer(mss, held, sack, stamps, signed=False)
    assert tcp_options.timestamps(raw) == stamps
    expected: dict[str, Any] = {"MSS": mss}
    expected |= {"SAckOK": b""} if sack else {}
    expected |= {"Timestamp": stamps} if stamps else {}
    expected |= {"WScale": scale} if scale is not None else {}
    seen = seen_by_scapy(raw)
    assert {key: value for key, value in seen if key != "NOP"} == expected


@given(st.integers(0, 65535), SCALES, st.booleans(), STAMPS, st.randoms())
def test_scapys_offers_are_read_in_any_order(
    mss: int, scale: int | None, sack: bool, stamps: tuple[int, int] | None, random: Any
) -> None:
    options: list[tuple[str, Any]] = [("MSS", mss)]
    options += [("SAckOK", b"")] if sack else []
    options += [("Timestamp", stamps)] if stamps else []
    options += [("WScale", scale)] if scale is not None else []
    options += [("NOP", None)]
    random.shuffle(options)
    offer = tcp_options.offer(raw_options(options))
    held = NO_SCALE if scale is None else scale
    assert offer == tcp_options.Offer(mss, held, sack, stamps, signed=False)


def test_no_options_mean_the_default() -> None:
    """RFC 9293 section 3.7.1."""
    assert tcp_options.offer(b"") == tcp_options.Offer(536, NO_SCALE, False, None, False)


@pytest.mark.parametrize("shift", [15, 255])
def test_a_scale_above_14_means_14(shift: int) -> None:
    """RFC 7323 section 2.3."""
    assert tcp_options.offer(bytes([3, 3, shift, 0])).scale == 14


@pytest.mark.parametrize("kind", [19, 29])
def test_signed_offers(kind: int) -> None:
    assert tcp_options.offer(bytes([kind, 18]) + bytes(16)).signed


@pytest.mark.parametrize(
    "raw", [b"\x02\x03\x05\0", b"\x03\x04\x05\0", b"\x04\x03\0\0", b"\x08\x04\0\0"]
)
def test_a_known_kind_in_a_wrong_length_offers_nothing(raw: bytes) -> None:
    assert tcp_options.offer(raw) == tcp_options.Offer(536, NO_SCALE, False, None, False)


USUAL = (
    tcp_options.encode_offer(1460, 7, True, (1, 2)),
    tcp_options.encode_timestamps(1, 2),
    handoff.PREFIX + bytes(12),
    handoff.PREFIX + bytes(12) + tcp_options.encode_timestamps(1, 2),
)


@pytest.mark.parametrize("reader", [tcp_options.offer, tcp_options.timestamps, handoff.find])
@given(st.sampled_from(USUAL), st.data())
def test_what_is_usual_is_read_as_the_walk_would(
    reader: Callable[[bytes], object], usual: bytes, data: st.DataObject
) -> None:
    """With NOPs before it, nothing is usual; a byte changed, it may be anything."""
    raw = bytearray(usual)
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert _read(reader, bytes(raw)) == _read(reader, b"\x01" * 3 + raw)


def _read(reader: Callable[[bytes], object], raw: bytes) -> object:
    try:
        return reader(raw)
    except MalformedError as error:
        return error.reason


@given(st.binary(max_size=40))
def test_any_bytes_are_walked_within_bounds_or_a_reason_given(raw: bytes) -> None:
    readers = (
        lambda: list(tcp_options.walk(raw)),
        lambda: tcp_options.offer(raw),
        lambda: tcp_options.timestamps(raw),
        lambda: tcp_options.find(raw, 5),
    )
    for reader in readers:
        try:
            result = reader()
        except MalformedError as error:
            assert error.reason is Malformed.BAD_TCP_OPTIONS
        else:
            if isinstance(result, list):
                reached = 0
                for kind, at, length in result:
                    assert reached <= at <= at + length <= len(raw)
                    assert raw[at] == kind > 1
                    assert length >= 2
                    reached = at + length


@pytest.mark.parametrize("raw", [b"\x05", b"\x05\x01\x01\x01", b"\x05\x00", b"\x01\x01\x01\x08"])
def test_lengths_that_cannot_be(raw: bytes) -> None:
    with pytest.raises(MalformedError, match="bad_tcp_options"):
        list(tcp_options.walk(raw))


def test_nothing_behind_the_end_is_read() -> None:
    assert list(tcp_options.walk(b"\x01\x00\x05\x01")) == []


@given(U32, U32, st.integers(0, 5))
def test_timestamps_are_found_wherever_they_stand(value: int, echo: int, nops: int) -> None:
    raw = b"\x01" * nops + b"\x08\x0a" + value.to_bytes(4, "big") + echo.to_bytes(4, "big")
    assert tcp_options.timestamps(raw) == (value, echo)
    assert tcp_options.find(raw, tcp_options.TIMESTAMPS) == raw[nops:]
    assert tcp_options.encode_timestamps(value, echo) == b"\x01\x01" + raw[nops:]


@given(st.lists(st.tuples(U32, U32), min_size=1, max_size=4), U32, st.booleans(), st.integers(0, 3))
def test_shifted_sack_edges_are_scapys(
    blocks: list[tuple[int, int]], by: int, down: bool, nops: int
) -> None:
    edges = [edge for block in blocks for edge in block]
    head = bytes([1] * nops + [5, 2 + 8 * len(blocks)])
    raw = bytearray(head + b"".join(edge.to_bytes(4, "big") for edge in edges))
    tcp_options.shift_sack(raw, nops, 2 + 8 * len(blocks), -by if down else by)
    padded = bytes(raw) + b"\0" * (-len(raw) % 4)
    if len(padded) > 40:
        return
    seen = dict(seen_by_scapy(padded))["SAck"]
    assert list(seen) == [(edge + (-by if down else by)) % 2**32 for edge in edges]


@given(U32, U32, U32, U32, st.integers(0, 3))
def test_shifted_timestamps(value: int, echo: int, value_by: int, echo_by: int, nops: int) -> None:
    raw = bytearray(b"\x01" * nops + b"\x08\x0a")
    raw += value.to_bytes(4, "big") + echo.to_bytes(4, "big")
    tcp_options.shift_timestamps(raw, nops, value_by, -echo_by)
    assert tcp_options.timestamps(bytes(raw)) == (
        (value + value_by) % 2**32,
        (echo - echo_by) % 2**32,
    )
