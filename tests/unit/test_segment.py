"""Segments read, built and rewritten, with scapy as the judge of bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.errors import Malformed, MalformedError
from common.core.segment import Segment, before, build
from tests.unit.scapy_oracle import checksums_ok, fields, tcp_packet

U32, U16, U8 = st.integers(0, 2**32 - 1), st.integers(0, 65535), st.integers(0, 255)
ADDRESS = st.binary(min_size=4, max_size=4)
TCP_OPTIONS = st.integers(0, 10).flatmap(
    lambda words: st.binary(min_size=4 * words, max_size=4 * words)
)
REASONS = {
    Malformed.TRUNCATED,
    Malformed.NOT_IPV4,
    Malformed.BAD_IP_HEADER,
    Malformed.BAD_TCP_HEADER,
    Malformed.FRAGMENT,
    Malformed.OTHER_PROTOCOL,
}


def dotted(address: bytes) -> str:
    return ".".join(map(str, address))


@st.composite
def scapy_packets(draw: st.DrawFn) -> bytes:
    return tcp_packet(
        (dotted(draw(ADDRESS)), draw(U16)),
        (dotted(draw(ADDRESS)), draw(U16)),
        seq=draw(U32),
        ack=draw(U32),
        flags=draw(st.sampled_from(["A", "S", "FPA", "R", "U", "SEC"])),
        window=draw(U16),
        options=draw(TCP_OPTIONS),
        payload=draw(st.binary(max_size=50)),
        tos=draw(U8),
        ttl=draw(U8),
        urgent=draw(U16),
        reserved=draw(st.integers(0, 7)),
        ip_options=draw(st.sampled_from([b"", b"\1\1\1\0", b"\7\4\1\0" * 10])),
    )


# --- reading ---


@given(scapy_packets())
def test_a_segments_fields_are_scapys(packet: bytes) -> None:
    segment, seen = Segment(packet), fields(packet)
    for name in ("sport", "dport", "seq", "ack", "window", "tos", "ttl", "payload"):
        assert getattr(segment, name) == seen[name]
    assert (dotted(segment.src), dotted(segment.dst)) == (seen["src"], seen["dst"])
    assert segment.options == seen["raw_options"]
    assert segment.key[:8] == segment.src + segment.dst
    assert segment.key[8:] == segment.sport.to_bytes(2, "big") + segment.dport.to_bytes(2, "big")
    segment.check_checksum()


@pytest.mark.parametrize(
    ("flags", "payload", "span"),
    [("A", b"", 0), ("S", b"", 1), ("FA", b"", 1), ("FPA", b"abc", 4), ("S", b"abc", 4)],
)
def test_span_and_end(flags: str, payload: bytes, span: int) -> None:
    packet = tcp_packet(
        ("1.2.3.4", 5), ("6.7.8.9", 10), seq=2**32 - 1, flags=flags, payload=payload
    )
    assert Segment(packet).span == span
    assert Segment(packet).end == (2**32 - 1 + span) % 2**32


@given(st.binary(max_size=100))
def test_any_bytes_give_a_segment_or_a_reason(data: bytes) -> None:
    try:
        segment = Segment(data)
    except MalformedError as error:
        assert error.reason in REASONS
        assert str(error) == error.reason.value
    else:
        assert len(segment.payload) <= len(data) - 40


@given(scapy_packets(), st.lists(st.tuples(st.integers(0, 59), U8), min_size=1, max_size=4))
def test_a_mutated_packet_gives_a_segment_or_a_reason(
    packet: bytes, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(packet)
    for at, byte in changes:
        data[at % len(data)] = byte
    try:
        segment = Segment(bytes(data))
    except MalformedError as error:
        assert error.reason in REASONS
        return
    try:
        segment.check_checksum()
    except MalformedError as error:
        assert error.reason is Malformed.BAD_TCP_CHECKSUM
        assert not checksums_ok(bytes(data))


PLAIN = tcp_packet(("1.2.3.4", 5), ("6.7.8.9", 10), flags="A", payload=b"payload")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Malformed.TRUNCATED),
        (PLAIN[:19], Malformed.TRUNCATED),
        (PLAIN[:-1], Malformed.TRUNCATED),
        (PLAIN + b"\0", Malformed.TRUNCATED),
        (b"\x65" + PLAIN[1:], Malformed.NOT_IPV4),
        (b"\x44" + PLAIN[1:], Malformed.BAD_IP_HEADER),
        (PLAIN[:6] + b"\x20\x00" + PLAIN[8:], Malformed.FRAGMENT),
        (PLAIN[:6] + b"\x00\x01" + PLAIN[8:], Malformed.FRAGMENT),
        (PLAIN[:9] + b"\x11" + PLAIN[10:], Malformed.OTHER_PROTOCOL),
        (PLAIN[:32] + b"\x40" + PLAIN[33:], Malformed.BAD_TCP_HEADER),
        (PLAIN[:32] + b"\xf0" + PLAIN[33:], Malformed.BAD_TCP_HEADER),
    ],
)
def test_reasons(data: bytes, reason: Malformed) -> None:
    with pytest.raises(MalformedError) as raised:
        Segment(data)
    assert raised.value.reason is reason


def test_a_damaged_byte_is_found() -> None:
    for at in range(20, len(PLAIN)):
        if at in (32, 33):
            continue
        data = PLAIN[:at] + bytes([PLAIN[at] ^ 4]) + PLAIN[at + 1 :]
        with pytest.raises(MalformedError, match="bad_tcp_checksum"):
            Segment(data).check_checksum()


# --- building ---


@given(
    ADDRESS,
    ADDRESS,
    st.tuples(U16, U16),
    st.tuples(U32, U32, U8, U16, U8),
    TCP_OPTIONS,
    st.binary(max_size=50),
)
def test_what_is_built_is_what_scapy_builds(
    src: bytes,
    dst: bytes,
    ports: tuple[int, int],
    numbers: tuple[int, int, int, int, int],
    options: bytes,
    payload: bytes,
) -> None:
    seq, ack, flags, window, tos = numbers
    packet = build(
        src,
        dst,
        *ports,
        seq=seq,
        ack=ack,
        flags=flags,
        window=window,
        options=options,
        payload=payload,
        tos=tos,
    )
    names = "".join(name for bit, name in enumerate("FSRPAUEC") if flags >> bit & 1)
    assert packet == tcp_packet(
        (dotted(src), ports[0]),
        (dotted(dst), ports[1]),
        seq=seq,
        ack=ack,
        flags=names,
        window=window,
        options=options,
        payload=payload,
        tos=tos,
        ident=0,
    )


# --- rewriting ---

CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "src": ADDRESS,
        "dst": ADDRESS,
        "sport": U16,
        "dport": U16,
        "seq": U32,
        "ack": U32,
        "window": U16,
        "options": TCP_OPTIONS,
        "tos": U8,
        "ttl": U8,
    },
)


def expected(before_it: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    seen = before_it | changes
    seen |= {name: dotted(changes[name]) for name in ("src", "dst") if name in changes}
    seen["raw_options"] = seen.pop("options") if "options" in changes else seen["raw_options"]
    seen["dscp"], seen["ecn"] = seen["tos"] >> 2, seen["tos"] & 3
    seen["length"] += len(seen["raw_options"]) - len(before_it["raw_options"])
    seen.pop("options", None)
    return seen


@given(scapy_packets(), CHANGES)
def test_rewriting_changes_the_named_fields_only(packet: bytes, changes: dict[str, Any]) -> None:
    result = Segment(packet).rewritten(**changes)
    seen = fields(result)
    seen.pop("options")
    assert seen == expected(fields(packet), changes)
    assert checksums_ok(result)
    ip_bytes = (packet[0] & 15) * 4
    assert result[20:ip_bytes] == packet[20:ip_bytes], "IP options stay"


@given(scapy_packets(), CHANGES, st.integers(1, 0xFFFE), st.sampled_from(["ip", "tcp"]))
def test_a_wrong_checksum_stays_wrong_by_as_much(
    packet: bytes, changes: dict[str, Any], wrong: int, which: str
) -> None:
    ip_bytes = (packet[0] & 15) * 4
    at = 10 if which == "ip" else ip_bytes + 16
    right = int.from_bytes(packet[at : at + 2], "big")
    damaged = packet[:at] + ((right + wrong) % 0xFFFF).to_bytes(2, "big") + packet[at + 2 :]
    healthy, result = Segment(packet).rewritten(**changes), Segment(damaged).rewritten(**changes)
    assert checksums_ok(healthy)
    assert not checksums_ok(result)
    good = int.from_bytes(healthy[at : at + 2], "big")
    assert int.from_bytes(result[at : at + 2], "big") == (good + wrong) % 0xFFFF
    assert result[:at] + healthy[at : at + 2] + result[at + 2 :] == healthy


# --- order ---


@given(U32, st.integers(1, 2**31 - 1))
def test_before(a: int, distance: int) -> None:
    b = (a + distance) % 2**32
    assert before(a, b)
    assert not before(b, a)
    assert not before(a, a)
