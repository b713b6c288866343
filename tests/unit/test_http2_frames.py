"""HTTP/2's framing up to the first header section, made by hand: what is read, and what is not."""

from __future__ import annotations

import pytest

from balancer.core.request.http2.frames import MAX_FRAME, MAX_FRAMES
from balancer.core.request.http2.message import Message, inspect
from balancer.core.request.line import Request
from balancer.core.request.verdict import Bad, NeedMore, Reason
from tests.unit.http2_heads import (
    GET,
    PING,
    PREFACE,
    PRIORITIES,
    SETTINGS,
    START,
    WINDOW_UPDATE,
    compressed,
    continuation,
    frame,
    headers,
)

LIMIT = 16384
BLOCK = compressed(GET)
HALVES = BLOCK[:9], BLOCK[9:]
LONG = compressed([*GET, (b"x-long", b"~" * 30_000)], huffman=False)
TAILS = [b"", b"\0", bytes(9), SETTINGS, headers(BLOCK, 3), b"\xff" * 30, b"\r\n\r\n"]

GOOD = {
    "HEADERS": START + headers(BLOCK),
    "an empty SETTINGS": PREFACE + frame(4) + headers(BLOCK),
    "frames before": START + WINDOW_UPDATE + PRIORITIES + PING + headers(BLOCK, 13),
    "SETTINGS again": START + SETTINGS + headers(BLOCK),
    "a table's size in SETTINGS": PREFACE + frame(4, payload=b"\0\1\0\1\0\0") + headers(BLOCK),
    "unknown frames (section 4.1)": START + frame(0xEE, 0xFF, 8, b"?") + headers(BLOCK),
    "PRIORITY_UPDATE (RFC 9218)": START + frame(16, 0, 0, b"\0\0\0\1u=1") + headers(BLOCK),
    "padded": START + headers(BLOCK, pad_length=7),
    "padded with 0": START + headers(BLOCK, pad_length=0),
    "padded with 255": START + headers(BLOCK, pad_length=255),
    "priority": START + headers(BLOCK, depends_on=0, stream_weight=15, exclusive=True),
    "both": START + headers(BLOCK, pad_length=9, depends_on=3, stream_weight=1),
    "a late stream": START + headers(BLOCK, 0x7FFFFFFF),
    "the reserved bit": START + frame(1, 4, 0x80000001, BLOCK),
    "unknown flags": START + frame(1, 0xD6 & ~0x28, 1, BLOCK),
    "CONTINUATION": START + headers(HALVES[0], end=False) + continuation(HALVES[1]),
    "CONTINUATION byte by byte": START
    + headers(b"", end=False, pad_length=3)
    + b"".join(continuation(BLOCK[n : n + 1], end=False) for n in range(len(BLOCK)))
    + continuation(b""),
    "CONTINUATION with HEADERS' flags": START
    + headers(HALVES[0], end=False)
    + frame(9, 0x2C, 1, HALVES[1]),
}

# The shortest bytes that show it.
BAD = {
    "no preface": (Reason.HTTP2_PREFACE, b"PRI * HTTP/2.1"),
    "another end": (Reason.HTTP2_PREFACE, PREFACE[:-1] + b"\r"),
    "no SETTINGS": (Reason.HTTP2_NO_SETTINGS, PREFACE + headers(BLOCK)[:4]),
    "WINDOW_UPDATE first": (Reason.HTTP2_NO_SETTINGS, PREFACE + WINDOW_UPDATE[:4]),
    "an unknown frame first": (Reason.HTTP2_NO_SETTINGS, PREFACE + frame(0xEE)[:4]),
    "SETTINGS of a stream": (Reason.HTTP2_NO_SETTINGS, PREFACE + frame(4, stream=1)),
    "SETTINGS too long": (Reason.HTTP2_FRAME_TOO_LONG, PREFACE + b"\0\x40\1"),
    "a frame too long": (Reason.HTTP2_FRAME_TOO_LONG, START + b"\xff\xff\xff"),
    "HTTP/1 behind it": (Reason.HTTP2_FRAME_TOO_LONG, PREFACE + b"GET"),
    "DATA": (Reason.HTTP2_BAD_FRAME, START + frame(0)[:4]),
    "RST_STREAM": (Reason.HTTP2_BAD_FRAME, START + frame(3)[:4]),
    "PUSH_PROMISE": (Reason.HTTP2_BAD_FRAME, START + frame(5)[:4]),
    "CONTINUATION of nothing": (Reason.HTTP2_BAD_FRAME, START + frame(9)[:4]),
    "HEADERS on 0": (Reason.HTTP2_BAD_STREAM, START + frame(1, 4, 0)),
    "HEADERS on 2": (Reason.HTTP2_BAD_STREAM, START + frame(1, 4, 2)),
    "more padding than there is": (
        Reason.HTTP2_BAD_PADDING,
        START + frame(1, 0xC, 1, b"\x05" + bytes(4))[:10],
    ),
    "no room for the padding's length": (Reason.HTTP2_BAD_PADDING, START + frame(1, 0xC, 1)),
    "no room for the priority": (
        Reason.HTTP2_BAD_PADDING,
        START + frame(1, 0x24, 1, bytes(4))[:9],
    ),
    "padding where the priority is": (
        Reason.HTTP2_BAD_PADDING,
        START + frame(1, 0x2C, 1, b"\x03" + bytes(7))[:10],
    ),
    "another frame within the section": (
        Reason.HTTP2_BAD_FRAME,
        START + headers(BLOCK, end=False) + WINDOW_UPDATE[:4],
    ),
    "an unknown frame within it": (
        Reason.HTTP2_BAD_FRAME,
        START + headers(BLOCK, end=False) + frame(0xEE)[:4],
    ),
    "CONTINUATION of another": (
        Reason.HTTP2_BAD_STREAM,
        START + headers(BLOCK, end=False) + frame(9, 4, 3),
    ),
    "a flood of CONTINUATION": (
        Reason.HTTP2_TOO_MANY_FRAMES,
        START + headers(BLOCK, end=False) + frame(9, 0, 1) * (MAX_FRAMES - 2),
    ),
    "a flood of SETTINGS": (Reason.HTTP2_TOO_MANY_FRAMES, PREFACE + frame(4) * MAX_FRAMES),
    "beyond the limit": (
        Reason.HEAD_TOO_LONG,
        START + headers(LONG[:MAX_FRAME], end=False)[:9],
    ),
    "hpack": (Reason.HTTP2_BAD_HPACK, START + headers(b"\x80")),
    "a request without a path": (
        Reason.HTTP2_PSEUDO_MISSING,
        START + headers(compressed(GET[:3])),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_head_byte_by_byte(name: str) -> None:
    data = GOOD[name]
    for end in range(len(data)):
        assert isinstance(inspect(data[:end], LIMIT), NeedMore)
    request = Request(b"GET", b"/a?b", b"/a", len(data))
    for tail in TAILS:
        assert inspect(data + tail, LIMIT) == Message(request, b"http", b"www.example", GET[4:])


@pytest.mark.parametrize("name", BAD)
def test_bad_at_the_first_byte_that_shows_it(name: str) -> None:
    reason, data = BAD[name]
    for end in range(len(data)):
        assert isinstance(inspect(data[:end], LIMIT), NeedMore)
    for tail in TAILS:
        assert inspect(data + tail, LIMIT) == Bad(reason)


@pytest.mark.parametrize("name", GOOD)
def test_the_limit_counts_every_byte_of_the_head(name: str) -> None:
    data = GOOD[name]
    assert isinstance(inspect(data, len(data)), Message)
    for limit in range(-1, len(data)):
        for answer in (inspect(data, limit), inspect(data[: max(limit, 0)], limit)):
            assert answer == Bad(Reason.HEAD_TOO_LONG)


def test_as_many_frames_as_are_allowed() -> None:
    start = PREFACE + frame(4) * (MAX_FRAMES - 1)
    assert isinstance(inspect(start + headers(BLOCK), LIMIT), Message)


def test_a_section_of_several_full_frames() -> None:
    """With a service that allows it."""
    parts = [LONG[at : at + MAX_FRAME] for at in range(0, len(LONG), MAX_FRAME)]
    data = START + headers(parts[0], end=False) + continuation(parts[1])
    answer = inspect(data, 65535)
    assert isinstance(answer, Message)
    assert answer.fields[-1] == (b"x-long", b"~" * 30_000)
    assert answer.request.end == len(data)
