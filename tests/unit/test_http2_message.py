"""HPACK, and what a decoded header section says: literal cases from the RFCs."""

from __future__ import annotations

import time

import pytest

from balancer.core.request.http2.message import MAX_LIST, Message, inspect
from balancer.core.request.line import Request
from balancer.core.request.verdict import Bad, Reason
from tests.unit.http2_heads import GET, START, Pairs, compressed, head, headers, with_fields

LIMIT = 16384


def read(block: bytes) -> Message | Reason:
    data = START + headers(block)
    answer = inspect(data, LIMIT)
    if isinstance(answer, Bad):
        return answer.reason
    assert isinstance(answer, Message)
    assert answer.request.end == len(data)
    return answer


def reason(pairs: Pairs) -> Reason:
    answer = read(compressed(pairs))
    assert isinstance(answer, Reason)
    return answer


def request(pairs: Pairs) -> Request:
    answer = read(compressed(pairs))
    assert isinstance(answer, Message)
    return answer.request


# RFC 7541 appendix C.3.1 and C.4.1: the same request without and with Huffman coding; and with an
# authority that is not indexed, and that never is (section 6.2.2 and 6.2.3).
EXAMPLES = [
    "828684410f" + b"www.example.com".hex(),
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684010f" + b"www.example.com".hex(),
    "828684110f" + b"www.example.com".hex(),
]


@pytest.mark.parametrize("block", EXAMPLES)
def test_the_examples_of_the_rfc(block: str) -> None:
    answer = read(bytes.fromhex(block))
    assert isinstance(answer, Message)
    assert answer.request[:3] == (b"GET", b"/", b"/")
    assert (answer.scheme, answer.authority) == (b"http", b"www.example.com")
    assert answer.fields == []


def test_the_dynamic_table() -> None:
    """What a field was added with is there for the fields behind it, the newest first (62)."""
    added = bytes.fromhex("828684") + b"\x40\x03abc\x02de" + b"\x40\x01x\x01y"
    answer = read(added + b"\xbf\xbe\x7f\x00\x01z")  # 63, 62, and the name of 63 with "z"
    assert isinstance(answer, Message)
    expected = [(b"abc", b"de"), (b"x", b"y"), (b"abc", b"de"), (b"x", b"y"), (b"abc", b"z")]
    assert answer.fields == expected


def test_an_entry_that_the_table_has_no_room_for_any_more() -> None:
    """RFC 7541 section 4.4: 4,096 bytes, 32 of them an entry's own."""
    large = b"\x40\x01x\x7f\xd1\x1e" + b"y" * 4048  # 4,081 of them
    assert read(bytes.fromhex("828684") + b"\x40\x01a\x01b" + large + b"\xbf") is (
        Reason.HTTP2_BAD_HPACK
    )
    assert isinstance(read(bytes.fromhex("828684") + large + b"\xbe"), Message)


@pytest.mark.parametrize("size", [0, 30, 4096])
def test_a_smaller_table_at_the_beginning(size: int) -> None:
    """RFC 7541 section 6.3: at most what the other side's SETTINGS allow, which has said none."""
    update = bytes([0x20 | size]) if size < 31 else b"\x3f\xe1\x1f"
    assert isinstance(read(update + compressed(GET)), Message)


def test_two_updates_of_the_table_s_size() -> None:
    """RFC 7541 section 4.2: the smallest size in between, and the one in the end."""
    assert isinstance(read(b"\x20\x3f\xe1\x1f" + compressed(GET)), Message)


BROKEN = {
    "index 0": "80",
    "an index that is not there": "828684be",
    "an index far away": "ffffffff7f",
    "an integer without end": "ff" * 40,
    "a string cut short": "8286844105616263",
    "no value": "82868441",
    "Huffman: the end-of-string symbol": "828684" + "4184ffffffff",
    "Huffman: eight bits of padding": "828684" + "4183f8ffff",
    "Huffman: padding of zeros": "828684" + "418100",
    "a larger table": "3fe21f828684",
    "a table's size behind a field": "8220",
    "a table's size three times": "203fe11f20828684",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_hpack(name: str) -> None:
    assert read(bytes.fromhex(BROKEN[name])) is Reason.HTTP2_BAD_HPACK


def test_a_section_that_grows_too_large() -> None:
    """4,000 bytes in the table, each referred to by a byte."""
    block = bytes.fromhex("828684") + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000
    few = MAX_LIST // 4033 - 2
    assert isinstance(read(block + b"\xbe" * few), Message)
    assert read(block + b"\xbe" * (few + 2)) is Reason.HTTP2_FIELDS_TOO_LARGE


@pytest.mark.parametrize(
    "block",
    [
        b"\xff" * 16000,
        b"\x82" * 16000,
        b"\x40\x01a\x00" * 4000,
        b"\x00\x00\x00" * 5000,
        b"\x82\x86\x84\x40\x01x\xff\x81\x7c" + b"\x1f" * 16000,  # Huffman: many short codes
        b"\x20" * 16000,
    ],
    ids=["integers", "indices", "entries", "empty", "huffman", "sizes"],
)
def test_no_section_takes_long(block: bytes) -> None:
    """As long as a head may be; on a busy machine, too."""
    started = time.process_time()
    read(block[: LIMIT - 100])
    assert time.process_time() - started < 0.1


# --- pseudo-header fields (RFC 9113 section 8.3) ---


@pytest.mark.parametrize(
    ("pairs", "method", "target", "path"),
    [
        (GET, b"GET", b"/a?b", b"/a"),
        (list(reversed(GET[:4])), b"GET", b"/a?b", b"/a"),
        (with_fields(authority=None), b"GET", b"/a?b", b"/a"),
        (with_fields(method=b"POST", scheme=b"https"), b"POST", b"/a?b", b"/a"),
        (with_fields(method=b"OPTIONS", path=b"*"), b"OPTIONS", b"*", b"*"),
        (with_fields(path=b"//x/../y#z?"), b"GET", b"//x/../y#z?", b"//x/../y"),
        (with_fields(method=b"M" * 32), b"M" * 32, b"/a?b", b"/a"),
        # section 8.5
        (
            with_fields(method=b"CONNECT", scheme=None, path=None, authority=b"h:443"),
            b"CONNECT",
            b"h:443",
            b"h:443",
        ),
    ],
)
def test_a_request(pairs: Pairs, method: bytes, target: bytes, path: bytes) -> None:
    assert request(pairs)[:3] == (method, target, path)


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([], Reason.HTTP2_PSEUDO_MISSING),
        (with_fields(method=None), Reason.HTTP2_PSEUDO_MISSING),
        (with_fields(scheme=None), Reason.HTTP2_PSEUDO_MISSING),
        (with_fields(path=None), Reason.HTTP2_PSEUDO_MISSING),
        # section 8.3.1: "This pseudo-header field MUST NOT be empty"
        (with_fields(path=b""), Reason.HTTP2_PSEUDO_MISSING),
        (with_fields(method=b"CONNECT", scheme=None, path=None, authority=None),
         Reason.HTTP2_PSEUDO_MISSING),
        (with_fields(method=b"CONNECT"), Reason.BAD_TARGET),
        (with_fields(method=b"CONNECT", path=None), Reason.BAD_TARGET),
        (with_fields(method=b"CONNECT", scheme=None, path=None, authority=b"h h"),
         Reason.BAD_TARGET),
        ([*GET[:4], GET[3]], Reason.HTTP2_PSEUDO_REPEATED),
        ([*GET[:4], (b":path", b"/b")], Reason.HTTP2_PSEUDO_REPEATED),
        ([*GET[:2], (b":method", b"PUT")], Reason.HTTP2_PSEUDO_REPEATED),
        ([*GET[:4], (b":status", b"200")], Reason.HTTP2_PSEUDO_UNKNOWN),
        ([*GET[:4], (b":", b"")], Reason.HTTP2_PSEUDO_UNKNOWN),
        # RFC 8441 section 3: not before the server has offered it
        ([*GET[:4], (b":protocol", b"websocket")], Reason.HTTP2_PSEUDO_UNKNOWN),
        ([(b":Path", b"/"), *GET[:3]], Reason.HTTP2_PSEUDO_UNKNOWN),
        ([*GET[:3], *GET[4:], GET[3]], Reason.HTTP2_PSEUDO_LATE),
        ([*GET, (b":path", b"/b")], Reason.HTTP2_PSEUDO_LATE),
        (with_fields(path=b"a"), Reason.BAD_TARGET),
        (with_fields(path=b"http://h/a"), Reason.BAD_TARGET),
        (with_fields(path=b"*x"), Reason.BAD_TARGET),
        (with_fields(path=b"/a b"), Reason.BAD_TARGET),
        (with_fields(path=b"/\xc3\xa4"), Reason.BAD_TARGET),
        (with_fields(path=b"/a\r\nHost: x"), Reason.BAD_TARGET),
        (with_fields(path=b"/\0"), Reason.BAD_TARGET),
        (with_fields(method=b"G T"), Reason.BAD_METHOD),
        (with_fields(method=b"M" * 33), Reason.BAD_METHOD),
        (with_fields(method=b"\xc3"), Reason.BAD_METHOD),
    ],
)  # fmt: skip
def test_what_cannot_be_placed(pairs: Pairs, why: Reason) -> None:
    assert reason(pairs) is why


@pytest.mark.parametrize(
    "name", [b"Host", b"x-A", b"x y", b"x\0", b"x\xe4", b"", b"a:b", b"x\x7f", b"x\r"]
)
def test_a_field_s_name(name: bytes) -> None:
    """Section 8.2.1; whether or not anybody asks for the field."""
    assert reason([*GET, (name, b"x")]) is Reason.HTTP2_BAD_FIELD_NAME


def test_other_fields_are_for_the_backend_to_judge() -> None:
    """Those of a connection (section 8.2.2), and values as they may not be."""
    odd = [(b"connection", b"close"), (b"te", b"gzip"), (b"x", b" \0\r\n\xff"), (b"!#", b"")]
    answer = inspect(head(GET + odd), LIMIT)
    assert isinstance(answer, Message)
    assert answer.fields == GET[4:] + odd
