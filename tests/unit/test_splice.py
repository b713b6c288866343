"""Translation against packets that scapy builds from an independently written table of rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.errors import MalformedError
from common.core.segment import Segment
from packetbridge.core import splice
from packetbridge.core.config import Backend
from packetbridge.core.entry import Entry
from packetbridge.core.flow import Flow
from packetbridge.core.states import Event
from tests.unit.scapy_oracle import checksums_ok, tcp_packet

BRIDGE, SERVER, VIP = ("203.0.113.20", 80), ("10.9.8.7", 8080), ("192.0.2.10", 80)
M = 2**32
ANY_U32 = st.integers(0, M - 1)
U32 = st.one_of(st.sampled_from([0, 1, M // 2, M - 1]), st.integers(0, M - 1))


# --- the model ---


@dataclass(frozen=True)
class Shifts:
    """What a flow adds going up and down; window exponents; whether hops are counted."""

    seq_up: int
    seq_down: int
    stamp_up: int
    stamp_down: int
    up_window: int
    down_window: int
    local: bool
    client: tuple[str, int]
    source: tuple[str, int]  # what the server sees as the client


@dataclass(frozen=True)
class Packet:
    """A segment's fields, its options as (kind, value) items, each laid out as `encode` says."""

    seq: int
    ack: int
    flags: str
    window: int
    options: tuple[tuple[str, Any], ...]
    payload: bytes
    tos: int
    ttl: int
    ident: int
    urgent: int
    reserved: int
    ip_options: bytes

    def between(self, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return tcp_packet(source, destination, **values | {"options": encode(self.options)})


def encode(items: tuple[tuple[str, Any], ...]) -> bytes:
    raw = b""
    for kind, value in items:
        if kind == "stamps":
            raw += b"\x08\x0a" + b"".join(number.to_bytes(4, "big") for number in value)
        elif kind == "sack":
            raw += bytes([5, 2 + 4 * len(value)])
            raw += b"".join(edge.to_bytes(4, "big") for edge in value)
        else:
            raw += value
    return raw + b"\0" * (-len(raw) % 4)


def translated(
    packet: Packet,
    *,
    seq: int,
    ack: int,
    value: int,
    echo: int,
    sack: int,
    window: int,
    hop: bool,
) -> Packet:
    """The table of rules, row by row; the numbers are what is added to each field."""
    has_ack = "A" in packet.flags

    def item(kind: str, content: Any) -> tuple[str, Any]:
        if kind == "stamps":
            return kind, ((content[0] + value) % M, (content[1] + echo * has_ack) % M)
        if kind == "sack":
            return kind, tuple((edge + sack) % M for edge in content)
        if kind == "ours":
            return kind, b"\x01" * 16
        return kind, content

    return replace(
        packet,
        seq=(packet.seq + seq) % M,
        ack=(packet.ack + ack * has_ack) % M,
        options=tuple(item(kind, content) for kind, content in packet.options),
        window=min(65535, int(packet.window * 2.0**window)),
        tos=packet.tos % 4,
        ttl=max(packet.ttl - hop, 0),
    )


def model_up(shifts: Shifts, packet: Packet) -> bytes:
    expected = translated(
        packet,
        seq=shifts.seq_up,
        ack=-shifts.seq_down,
        value=shifts.stamp_up,
        echo=-shifts.stamp_down,
        sack=-shifts.seq_down,
        window=shifts.up_window,
        hop=shifts.local,
    )
    return expected.between(shifts.source, SERVER)


def model_down(shifts: Shifts, packet: Packet) -> bytes:
    expected = translated(
        packet,
        seq=shifts.seq_down,
        ack=-shifts.seq_up,
        value=shifts.stamp_down,
        echo=-shifts.stamp_up,
        sack=-shifts.seq_up,
        window=shifts.down_window,
        hop=shifts.local,
    )
    return expected.between(VIP, shifts.client)


# --- what is drawn ---


def packed(address: tuple[str, int]) -> bytes:
    return bytes(map(int, address[0].split("."))) + address[1].to_bytes(2, "big")


def flow_of(shifts: Shifts) -> Flow:
    """The record that translates as ``shifts`` says."""
    backend = Backend(*BRIDGE, *SERVER)
    entry = Entry(backend, 5, VIP[0], 0x4C330000, shifts.local, False)
    client, bridge, source = map(packed, (shifts.client, BRIDGE, shifts.source))
    flow = Flow(entry, client[:4] + bridge[:4] + client[4:] + bridge[4:], 1, 2, 0.0)
    flow.address(source)
    flow.addressing.seq_up, flow.seq_down = shifts.seq_up, shifts.seq_down
    flow.addressing.stamp_up, flow.stamp_down = shifts.stamp_up, shifts.stamp_down
    flow.up_window, flow.down_window = shifts.up_window, shifts.down_window
    flow.apply(Event.SYN_OUT)
    flow.apply(Event.CONNECTED)
    return flow


ADDRESSES = st.tuples(
    st.tuples(*[st.integers(1, 254)] * 4).map(lambda octets: ".".join(map(str, octets))),
    st.integers(1, 65535),
)


@st.composite
def shifts_of(draw: st.DrawFn) -> Shifts:
    client = draw(ADDRESSES)
    own = draw(st.booleans())
    return Shifts(
        seq_up=draw(ANY_U32) if own else 0,
        seq_down=draw(ANY_U32),
        stamp_up=draw(ANY_U32) if own else 0,
        stamp_down=draw(ANY_U32),
        up_window=draw(st.sampled_from([0, 0, 7, 14])),
        down_window=draw(st.sampled_from([0, 2, 14, -1, -7, -14])),
        local=draw(st.booleans()),
        client=client,
        source=(BRIDGE[0], draw(st.integers(1, 65535))) if own else client,
    )


NOPS = st.integers(0, 3).map(lambda count: ("raw", b"\x01" * count))
STAMPS = st.tuples(st.just("stamps"), st.tuples(U32, U32))
SACK, SHORT_SACK = (
    st.integers(1, most).flatmap(
        lambda blocks: st.tuples(st.just("sack"), st.tuples(*[U32] * (2 * blocks)))
    )
    for most in (4, 3)
)
OURS = st.binary(min_size=12, max_size=12).map(lambda raw: ("ours", b"\xfd\x10\x4c\x33" + raw))
UNKNOWN = st.tuples(st.integers(30, 252), st.binary(max_size=9)).map(
    lambda pair: ("raw", bytes([pair[0], 2 + len(pair[1])]) + pair[1])
)
OTHER_EXPERIMENT = st.binary(min_size=2, max_size=2).map(
    lambda raw: ("raw", b"\xfd\x06\x4c\x34" + raw)
)
ENDED = st.just(("raw", b"\x00\x08\x0a\x01"))  # nothing behind the end is an option
ONE, TWO = st.just(("raw", b"\x01")), st.just(("raw", b"\x01\x01"))
USUAL = st.tuples(TWO, STAMPS)
OFTEN = st.one_of(
    st.tuples(TWO, STAMPS, TWO, SHORT_SACK),
    st.tuples(TWO, SACK),
    st.tuples(ONE, STAMPS, ONE, SHORT_SACK),  # odd offsets: the trap of incremental checksums
    st.tuples(ONE, SACK, ONE),
    st.tuples(OURS, TWO, STAMPS),
)
ANY_OPTIONS = (
    st.lists(st.one_of(NOPS, STAMPS, SACK, OURS, UNKNOWN, OTHER_EXPERIMENT, ENDED), max_size=4)
    .map(tuple)
    .filter(lambda items: len(encode(items)) <= 40)
    .filter(lambda items: all(item[1][:1] != b"\0" for item in items[:-1]))
)


@st.composite
def packets(draw: st.DrawFn, short: bool = False) -> Packet:
    """Any segment; with ``short`` one of those that the short way takes."""
    flags = ["A", "PA", "UA", "EA", "CPA"]
    options = st.one_of(st.just(()), USUAL)
    return Packet(
        seq=draw(U32),
        ack=draw(U32),
        flags=draw(st.sampled_from(flags if short else [*flags, "FA", "R", "RA", "P", "U", "F"])),
        window=draw(st.integers(0, 65535)),
        options=draw(options if short else st.one_of(options, OFTEN, ANY_OPTIONS)),
        payload=draw(st.binary(max_size=40)),
        tos=draw(st.integers(0, 255)),
        ttl=draw(st.integers(1, 255)),
        ident=draw(st.integers(0, 65535)),
        urgent=draw(st.integers(0, 65535)),
        reserved=0 if short else draw(st.integers(0, 7)),
        ip_options=b"" if short else draw(st.sampled_from([b"", b"\1\1\1\0", b"\x94\4\0\0"])),
    )


# --- against the model ---


@given(shifts_of(), packets())
def test_up_any(shifts: Shifts, packet: Packet) -> None:
    result = splice.up_any(flow_of(shifts), Segment(packet.between(shifts.client, BRIDGE)))
    assert result == model_up(shifts, packet)
    assert checksums_ok(result)


@given(shifts_of(), packets())
def test_down_any(shifts: Shifts, packet: Packet) -> None:
    result = splice.down_any(flow_of(shifts), Segment(packet.between(SERVER, shifts.source)), 0.0)
    assert result == model_down(shifts, packet)
    assert checksums_ok(result)


@given(shifts_of(), packets(short=True))
def test_up(shifts: Shifts, packet: Packet) -> None:
    flow = flow_of(shifts)
    assert splice.up(flow, packet.between(shifts.client, BRIDGE)) == model_up(shifts, packet)
    assert flow.client_ack == packet.ack


@given(shifts_of(), packets(short=True))
def test_down(shifts: Shifts, packet: Packet) -> None:
    flow = flow_of(shifts)
    assert splice.down(flow, packet.between(SERVER, shifts.source)) == model_down(shifts, packet)
    assert flow.server_ack == packet.ack


# --- the short way is the general way ---


def damaged(data: bytes, damage: list[tuple[int, int]]) -> bytes:
    """With bytes of the checksums, the payload or the TCP header changed (not their layout)."""
    packet = bytearray(data)
    for at, change in damage:
        place = at % len(packet)
        if place in (10, 11) or (place >= 20 and place not in (32, 33, *range(40, 44))):
            packet[place] ^= change
    return bytes(packet)


DAMAGE = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3)


@given(shifts_of(), packets(), DAMAGE)
def test_up_is_up_any(shifts: Shifts, packet: Packet, damage: list[tuple[int, int]]) -> None:
    """For all that it takes, right or wrong; and it takes the usual."""
    data = damaged(packet.between(shifts.client, BRIDGE), damage)
    short, general = flow_of(shifts), flow_of(shifts)
    result = splice.up(short, data)
    if result is not None:
        assert result == splice.up_any(general, Segment(data))
        assert (short.client_ack, short.server_ack) == (general.client_ack, general.server_ack)
    else:
        assert short.client_ack == 3


@given(shifts_of(), packets(), DAMAGE)
def test_down_is_down_any(shifts: Shifts, packet: Packet, damage: list[tuple[int, int]]) -> None:
    data = damaged(packet.between(SERVER, shifts.source), damage)
    short, general = flow_of(shifts), flow_of(shifts)
    result = splice.down(short, data)
    if result is not None:
        assert result == splice.down_any(general, Segment(data), 0.0)
        assert (short.client_ack, short.server_ack) == (general.client_ack, general.server_ack)


@given(shifts_of(), st.binary(max_size=80))
def test_the_short_way_takes_no_nonsense(shifts: Shifts, data: bytes) -> None:
    flow = flow_of(shifts)
    for way in (splice.up, splice.down):
        if way(flow, data) is not None:
            Segment(data)


@given(shifts_of(), packets(), st.integers(20, 70), st.integers(0, 255))
def test_a_wrong_checksum_is_not_healed(
    shifts: Shifts, packet: Packet, at: int, change: int
) -> None:
    """Bytes that no rule touches are damaged: the receiver must find it. Payload only."""
    data = bytearray(replace(packet, payload=b"payload").between(shifts.client, BRIDGE))
    place = len(data) - 1 - at % 7
    data[place] ^= change or 1
    result = bytearray(splice.up_any(flow_of(shifts), Segment(bytes(data))))
    assert not checksums_ok(bytes(result))
    result[len(result) - 1 - at % 7] ^= change or 1
    assert checksums_ok(bytes(result))


# --- options that are not what they say ---


@given(shifts_of(), st.binary(max_size=40).filter(lambda raw: len(raw) % 4 == 0))
def test_any_options_give_a_packet_or_an_error(shifts: Shifts, raw: bytes) -> None:
    data = tcp_packet(shifts.client, BRIDGE, flags="A", options=raw, payload=b"x")
    try:
        result = splice.up_any(flow_of(shifts), Segment(data))
    except MalformedError as error:
        assert error.reason == "bad_tcp_options"
    else:
        assert checksums_ok(result)
        assert len(result) == len(data)


@pytest.mark.parametrize(
    ("window", "by", "expected"),
    [(1, 0, 1), (1, 7, 128), (65535, 1, 65535), (600, 7, 65535), (127, -7, 0), (255, -7, 1)],
)
def test_windows_are_never_rounded_up_and_at_most_65535(
    window: int, by: int, expected: int
) -> None:
    assert splice.shifted(window, by) == expected
