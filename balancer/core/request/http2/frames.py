"""HTTP/2's frames from a client's preface to the end of its first header section.

Source: RFC 9113, sections 3.4, 4 and 6. Only what the way to that section depends on is judged;
what other frames say, and whether it makes sense, is for the backend.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from balancer.core.request.verdict import NEED_MORE, Bad, NeedMore, Reason

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""RFC 9113 section 3.4."""

MAX_FRAME: Final = 16384
"""Bytes of a frame's payload. Section 4.2: more only where the peer's SETTINGS have allowed it."""

MAX_FRAMES: Final = 100
"""Up to the end of the header section. Clients send one SETTINGS, a few WINDOW_UPDATE and PRIORITY
(nghttp five), HEADERS, and a CONTINUATION for each further 16 kB. Whoever cuts a section into
countless small or empty ones (CVE-2024-27316 and others) gets no further."""

_HEADER = 9  # bytes of a frame's header; section 4.1: length (3), type, flags, stream (4)
_PRIORITY_FIELDS = 5  # bytes that the flag PRIORITY puts before HEADERS' fragment; section 6.2


class Kind(IntEnum):
    """Frame types (section 6) that matter here; others are ignored, unknown ones as section 4.1
    demands."""

    DATA = 0x00
    HEADERS = 0x01
    RST_STREAM = 0x03
    SETTINGS = 0x04
    PUSH_PROMISE = 0x05
    CONTINUATION = 0x09


END_HEADERS, PADDED, PRIORITY = 0x04, 0x08, 0x20  # flags; section 6.2

# Section 5.1: on an idle stream nothing but HEADERS and PRIORITY; 8.4: a client cannot push.
_IMPOSSIBLE = frozenset({Kind.DATA, Kind.RST_STREAM, Kind.PUSH_PROMISE, Kind.CONTINUATION})


class Section(NamedTuple):
    """The first header section as it is compressed. What it takes ends before offset ``end``."""

    block: bytes
    end: int


class _Frame(NamedTuple):
    """A frame's header; the payload is between the offsets ``begin`` and ``end``."""

    kind: int
    flags: int
    stream: int
    begin: int
    end: int


def first_section(data: bytes, limit: int) -> Section | NeedMore | Bad:
    """The first header section of a connection that begins with ``data``. Where it is certain not
    to end within ``limit`` bytes, that is bad. Never raises."""
    if not data.startswith(PREFACE):
        return NEED_MORE if PREFACE.startswith(data) else Bad(Reason.HTTP2_PREFACE)
    at, head = len(PREFACE), None
    fragments: list[bytes] = []
    for number in range(MAX_FRAMES):
        if fault := _fault(data[at : at + _HEADER], head, first=number == 0):
            return Bad(fault)
        frame = _frame(data, at)
        if frame is None:
            return NEED_MORE
        if frame.end > limit:
            return Bad(Reason.HEAD_TOO_LONG)
        if head is not None or frame.kind == Kind.HEADERS:
            head = head or frame
            fragment = _fragment(data, frame)
            if isinstance(fragment, Bad):
                return fragment
            fragments.append(fragment)
        if frame.end > len(data):  # and what could be wrong with its padding is known
            return NeedMore(frame.end) if frame.begin < len(data) else NEED_MORE
        if head is not None and frame.flags & END_HEADERS:
            return Section(b"".join(fragments), frame.end)
        at = frame.end
    return Bad(Reason.HTTP2_TOO_MANY_FRAMES)


def _frame(data: bytes, at: int) -> _Frame | None:
    """The frame at an offset, None while its header is not whole."""
    header = data[at : at + _HEADER]
    if len(header) < _HEADER:
        return None
    begin = at + _HEADER
    # Section 4.1: the first bit of the stream's number is reserved, and ignored.
    stream = int.from_bytes(header[5:], "big") & 0x7FFFFFFF
    return _Frame(header[3], header[4], stream, begin, begin + int.from_bytes(header[:3], "big"))


def _fault(header: bytes, head: _Frame | None, *, first: bool) -> Reason | None:
    """What is wrong with a frame whose header begins so, as soon as it shows; ``head`` is the
    HEADERS frame whose section is not over."""
    if len(header) >= 3 and int.from_bytes(header[:3], "big") > MAX_FRAME:
        return Reason.HTTP2_FRAME_TOO_LONG
    if len(header) < 4:
        return None
    kind, whole = header[3], len(header) == _HEADER
    stream = int.from_bytes(header[5:], "big") & 0x7FFFFFFF
    if first:
        # Section 3.4: the preface "MUST be followed by a SETTINGS frame"; 6.5: on stream 0.
        right = kind == Kind.SETTINGS and not (whole and stream)
        return None if right else Reason.HTTP2_NO_SETTINGS
    if head is not None:
        # Section 4.3: "with no interleaved frames of any other type or from any other stream".
        if kind != Kind.CONTINUATION:
            return Reason.HTTP2_BAD_FRAME
        return Reason.HTTP2_BAD_STREAM if whole and stream != head.stream else None
    if kind in _IMPOSSIBLE:
        return Reason.HTTP2_BAD_FRAME
    # Section 5.1.1: "Streams initiated by a client MUST use odd-numbered stream identifiers".
    odd = kind != Kind.HEADERS or not whole or stream & 1
    return None if odd else Reason.HTTP2_BAD_STREAM


def _fragment(data: bytes, frame: _Frame) -> bytes | Bad:
    """The part of a section that a frame holds, as far as it is there."""
    begin, end = frame.begin, frame.end
    if frame.kind == Kind.CONTINUATION:
        return data[begin:end]
    if frame.flags & PADDED:
        # Section 6.2: the first byte counts those at the end, and too many are an error.
        end -= data[begin] if begin < len(data) else 0
        begin += 1
    if frame.flags & PRIORITY:
        begin += _PRIORITY_FIELDS
    return data[begin:end] if begin <= end else Bad(Reason.HTTP2_BAD_PADDING)
