"""Datagrams read, built and rewritten, with scapy as the judge of bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from common.core.datagram import Datagram, build, updated
from common.core.errors import Malformed, MalformedError
from tests.unit.scapy_oracle import checksums_ok, tcp_packet, udp_packet

PORT, U8 = st.integers(1, 65535), st.integers(0, 255)
ADDRESS = st.binary(min_size=4, max_size=4)
REASONS = {
    Malformed.TRUNCATED,
    Malformed.NOT_IPV4,
    Malformed.BAD_IP_HEADER,
    Malformed.BAD_UDP_LENGTH,
    Malformed.ZERO_PORT,
    Malformed.FRAGMENT,
    Malformed.OTHER_PROTOCOL,
}


def dotted(address: bytes) -> str:
    return ".".join(map(str, address))


@st.composite
def scapy_datagrams(draw: st.DrawFn) -> bytes:
    return udp_packet(
        (dotted(draw(ADDRESS)), draw(PORT)),
        (dotted(draw(ADDRESS)), draw(PORT)),
        draw(st.binary(max_size=50)),
        tos=draw(U8),
        ttl=draw(U8),
        no_checksum=draw(st.booleans()),
        ip_options=draw(st.sampled_from([b"", b"\1\1\1\0", b"\7\4\1\0" * 10])),
    )


@given(scapy_datagrams())
def test_a_datagrams_fields_are_scapys(packet: bytes) -> None:
    datagram, seen = Datagram(packet), IP(packet)
    assert (datagram.sport, datagram.dport) == (seen[UDP].sport, seen[UDP].dport)
    assert (dotted(datagram.src), dotted(datagram.dst)) == (seen.src, seen.dst)
    assert (datagram.tos, datagram.ttl) == (seen.tos, seen.ttl)
    assert datagram.payload == bytes(seen[UDP].payload)
    assert datagram.key[:8] == datagram.src + datagram.dst
    assert datagram.key[8:10] == datagram.sport.to_bytes(2, "big")
    assert datagram.key[10:] == datagram.dport.to_bytes(2, "big")
    datagram.check_checksum()


PLAIN = udp_packet(("1.2.3.4", 5), ("6.7.8.9", 10), b"payload")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Malformed.TRUNCATED),
        (PLAIN[:-1], Malformed.TRUNCATED),
        (PLAIN[:2] + b"\0\x1b" + PLAIN[4:27], Malformed.TRUNCATED),
        (b"\x65" + PLAIN[1:], Malformed.NOT_IPV4),
        (b"\x44" + PLAIN[1:], Malformed.BAD_IP_HEADER),
        (PLAIN[:6] + b"\x20\x00" + PLAIN[8:], Malformed.FRAGMENT),
        (PLAIN[:6] + b"\x00\x01" + PLAIN[8:], Malformed.FRAGMENT),
        (tcp_packet(("1.2.3.4", 5), ("6.7.8.9", 10)), Malformed.OTHER_PROTOCOL),
        (PLAIN[:24] + b"\0\x0e" + PLAIN[26:], Malformed.BAD_UDP_LENGTH),
        (PLAIN[:24] + b"\0\x10" + PLAIN[26:], Malformed.BAD_UDP_LENGTH),
        (PLAIN[:24] + b"\0\0" + PLAIN[26:], Malformed.BAD_UDP_LENGTH),
        (PLAIN[:20] + b"\0\0" + PLAIN[22:], Malformed.ZERO_PORT),
        (PLAIN[:22] + b"\0\0" + PLAIN[24:], Malformed.ZERO_PORT),
    ],
)
def test_reasons(data: bytes, reason: Malformed) -> None:
    with pytest.raises(MalformedError) as raised:
        Datagram(data)
    assert raised.value.reason is reason


@given(scapy_datagrams(), st.lists(st.tuples(st.integers(0, 59), U8), max_size=4))
def test_a_mutated_packet_gives_a_datagram_or_a_reason(
    packet: bytes, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(packet)
    for at, byte in changes:
        data[at % len(data)] = byte
    try:
        datagram = Datagram(bytes(data))
    except MalformedError as error:
        assert error.reason in REASONS
        return
    try:
        datagram.check_checksum()
    except MalformedError as error:
        assert error.reason is Malformed.BAD_UDP_CHECKSUM
        assert not checksums_ok(bytes(data))


def test_a_damaged_byte_is_found() -> None:
    for at in [*range(20, 24), *range(26, len(PLAIN))]:
        data = PLAIN[:at] + bytes([PLAIN[at] ^ 4]) + PLAIN[at + 1 :]
        with pytest.raises(MalformedError, match="bad_udp_checksum"):
            Datagram(data).check_checksum()


@given(ADDRESS, ADDRESS, PORT, PORT, st.binary(max_size=60), U8, st.booleans())
def test_built_is_scapys(
    src: bytes, dst: bytes, sport: int, dport: int, payload: bytes, tos: int, checked: bool
) -> None:
    expected = udp_packet(
        (dotted(src), sport), (dotted(dst), dport), payload, tos=tos, ident=0, flags="",
        no_checksum=not checked,
    )  # fmt: skip
    assert build(src, dst, sport, dport, payload, tos=tos, checked=checked) == expected


CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "src": ADDRESS, "dst": ADDRESS, "sport": PORT, "dport": PORT, "tos": U8, "ttl": U8,
}  # fmt: skip


@given(scapy_datagrams(), st.fixed_dictionaries({}, optional=CHANGES))
def test_rewritten_is_as_if_scapy_had_built_it_so(packet: bytes, changes: dict[str, Any]) -> None:
    scapy = IP(packet)
    for name, value in changes.items():
        layer = scapy[UDP] if name in ("sport", "dport") else scapy
        setattr(layer, name, dotted(value) if name in ("src", "dst") else value)
    del scapy.chksum
    if scapy[UDP].chksum:
        del scapy[UDP].chksum
    assert Datagram(packet).rewritten(**changes) == bytes(scapy)


def sum_of(packet: bytes) -> int:
    return int.from_bytes(packet[26:28], "big")


def test_a_checksum_that_comes_out_as_zero_is_all_ones_and_none_stays_none() -> None:
    source, there = ("1.2.3.4", 1), ("6.7.8.9", 10)
    first = udp_packet(source, there, b"\0\0")
    # payload that makes the words add up to zero: RFC 768 sends that as all ones
    ones = udp_packet(source, there, sum_of(first).to_bytes(2, "big"))
    assert sum_of(ones) == 0xFFFF
    src, dst = bytes([1, 2, 3, 4]), bytes([6, 7, 8, 9])
    assert build(src, dst, 1, 10, sum_of(first).to_bytes(2, "big"))[20:] == ones[20:]
    moved = Datagram(ones).rewritten(sport=2)
    assert checksums_ok(moved)
    assert Datagram(moved).rewritten(sport=1) == ones
    none = udp_packet(source, there, b"x", no_checksum=True)
    assert sum_of(Datagram(none).rewritten(dst=b"\x09\x09\x09\x09", sport=77)) == 0


@given(st.integers(1, 0xFFFF), st.integers(-(2**40), 2**40))
def test_an_updated_sum_is_never_none(udp_sum: int, difference: int) -> None:
    assert 0 < updated(udp_sum, difference) <= 0xFFFF
    assert updated(0, difference) == 0
    assert (updated(udp_sum, difference) - udp_sum + difference) % 0xFFFF == 0
