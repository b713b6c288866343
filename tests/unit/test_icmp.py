"""ICMP errors' quotations: what is found, and what is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.packet import Raw

from common.core import icmp
from common.core.errors import MalformedError
from tests.unit.scapy_oracle import icmp_error, tcp_packet, udp_packet

A, B = ("192.0.2.10", 80), ("198.51.100.7", 40000)
QUOTED = tcp_packet(A, B, seq=5, payload=b"x" * 30)
KEY = bytes([192, 0, 2, 10, 198, 51, 100, 7]) + (80).to_bytes(2, "big") + (40000).to_bytes(2, "big")
REASONS = {"truncated", "not_ipv4", "bad_ip_header", "fragment", "bad_icmp"}


@pytest.mark.parametrize("kind", [3, 11, 12])
@pytest.mark.parametrize("cut", [28, 29, 40, len(QUOTED)])
def test_eight_bytes_of_tcp_are_enough(kind: int, cut: int) -> None:
    data = icmp_error("10.0.0.1", A[0], QUOTED[:cut], kind=kind, code=0)
    assert icmp.quotation(data) == (28, 48)
    assert icmp.quoted_flow(data) == KEY
    assert icmp.header_bytes(data) == 20


def test_a_quoted_headers_options_are_skipped() -> None:
    quoted = tcp_packet(A, B, ip_options=b"\1\1\1\0")
    data = icmp_error("10.0.0.1", A[0], quoted[:32])
    assert icmp.quotation(data) == (28, 52)
    assert icmp.quoted_flow(data) == KEY


def test_an_outer_headers_options_are_skipped() -> None:
    inner = icmp_error("10.0.0.1", A[0], QUOTED)[20:]
    data = bytes(IP(src="10.0.0.1", dst=A[0], proto=1, options=b"\1\1\1\0") / Raw(inner))
    assert icmp.header_bytes(data) == 24
    assert icmp.quotation(data) == (32, 52)


@pytest.mark.parametrize(
    "data",
    [
        icmp_error("10.0.0.1", A[0], QUOTED[:27]),
        icmp_error("10.0.0.1", A[0], b""),
        icmp_error("10.0.0.1", A[0], b"\x65" + QUOTED[1:]),
        icmp_error("10.0.0.1", A[0], b"\x44" + QUOTED[1:]),
        icmp_error("10.0.0.1", A[0], QUOTED, kind=5, code=0),
        bytes(IP(src="10.0.0.1", dst=A[0]) / ICMP(type=8) / Raw(QUOTED)),
        icmp_error("10.0.0.1", A[0], QUOTED)[:-1] + b"y",
        QUOTED,
    ],
    ids=["27 bytes", "none", "ipv6", "short header", "redirect", "echo", "checksum", "tcp"],
)
def test_what_is_no_error_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError, match="bad_icmp"):
        icmp.quotation(data)


def test_a_quoted_datagram_has_a_key_and_no_flow() -> None:
    data = icmp_error("10.0.0.1", A[0], udp_packet(A, B, b"x")[:28])
    assert icmp.quoted_key(data) == (17, KEY)
    assert icmp.quoted_key(icmp_error("10.0.0.1", A[0], QUOTED)) == (6, KEY)
    assert icmp.quoted_flow(data) is None


@pytest.mark.parametrize(
    "quoted", [udp_packet(A, B), QUOTED[:6] + b"\0\1" + QUOTED[8:]], ids=["udp", "later fragment"]
)
def test_what_is_not_about_the_beginning_of_a_segment_has_no_flow(quoted: bytes) -> None:
    assert icmp.quoted_flow(icmp_error("10.0.0.1", A[0], quoted)) is None


def test_a_first_fragment_is_quoted_too() -> None:
    quoted = QUOTED[:6] + b"\x20\0" + QUOTED[8:]
    assert icmp.quoted_flow(icmp_error("10.0.0.1", A[0], quoted)) == KEY


@given(st.binary(max_size=100))
def test_any_bytes_give_a_quotation_or_a_reason(data: bytes) -> None:
    try:
        inner, tcp = icmp.quotation(data)
    except MalformedError as error:
        assert error.reason in REASONS
    else:
        assert 28 <= inner <= tcp - 20 <= len(data) - 28


@given(st.binary(max_size=80))
def test_any_quotation_gives_a_flow_or_a_reason(quoted: bytes) -> None:
    try:
        flow = icmp.quoted_flow(icmp_error("10.0.0.1", A[0], quoted))
        assert flow is None or len(flow) == 12
    except MalformedError as error:
        assert error.reason == "bad_icmp"
