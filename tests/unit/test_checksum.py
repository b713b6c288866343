"""The checksum against scapy's and the RFCs' examples."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import checksum as scapy_checksum

from common.core import checksum

WORDS = st.binary(min_size=2, max_size=60).filter(lambda data: len(data) % 2 == 0)


def test_rfc_1071_section_3() -> None:
    """The worked example: the sum is DDF2."""
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert checksum.word_sum(data) == 0xDDF2
    assert checksum.internet_checksum(data) == 0xFFFF ^ 0xDDF2


def test_rfc_1624_section_4() -> None:
    """The example in which equation 2 goes wrong: the new checksum is 0000, not FFFF."""
    assert checksum.updated(0xDD2F, 0x3285 - 0x5555) == 0x0000


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    """Of zeros alone it differs by convention: no packet consists of them."""
    if any(data):
        assert checksum.internet_checksum(data) == scapy_checksum(data)


@given(st.binary(min_size=20, max_size=60))
def test_bytes_with_their_checksum_add_up_to_nothing(data: bytes) -> None:
    even = data + bytes(len(data) % 2)
    whole = even + checksum.internet_checksum(even).to_bytes(2, "big")
    assert checksum.internet_checksum(whole) == 0


@given(WORDS, WORDS, st.integers(0, 20))
def test_updated_is_computed_anew(data: bytes, fresh: bytes, at: int) -> None:
    head = b"\x45\x00"
    place = at * 2 % len(data)
    changed = (data[:place] + fresh + data[place + len(fresh) :])[: len(data)]
    old, new = head + data, head + changed
    difference = checksum.word_sum(new) - checksum.word_sum(old)
    assert checksum.updated(scapy_checksum(old), difference) == scapy_checksum(new)


@given(WORDS, WORDS, st.integers(1, 0xFFFE))
def test_a_wrong_checksum_stays_wrong_by_as_much(old: bytes, new: bytes, wrong: int) -> None:
    old, new = b"\x45\x00" + old, b"\x45\x00" + new
    difference = checksum.word_sum(new) - checksum.word_sum(old)
    start = (scapy_checksum(old) + wrong) % 0xFFFF
    assert checksum.updated(start, difference) == (scapy_checksum(new) + wrong) % 0xFFFF


def test_pseudo_header() -> None:
    """10.0.0.1 to 10.0.0.2, TCP, 20 bytes."""
    total = checksum.pseudo_header_sum(b"\x0a\0\0\1", b"\x0a\0\0\2", 6, 20)
    assert total % 0xFFFF == 0x0A00 + 1 + 0x0A00 + 2 + 6 + 20
