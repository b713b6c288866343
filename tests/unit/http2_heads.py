"""Beginnings of HTTP/2 connections made by hand, frame by frame, by hyperframe and hpack."""

from __future__ import annotations

from typing import Any

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = bytes.fromhex("505249202a20485454502f322e300d0a0d0a534d0d0a0d0a")  # RFC 9113 section 3.4
Pairs = list[tuple[bytes, bytes]]

GET: Pairs = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"www.example"),
    (b":path", b"/a?b"),
    (b"user-agent", b"test"),
]
SETTINGS = SettingsFrame(0, settings={3: 100, 4: 65535}).serialize()
WINDOW_UPDATE = WindowUpdateFrame(0, window_increment=1 << 20).serialize()
PING = PingFrame(0, opaque_data=b"12345678").serialize()
PRIORITIES = b"".join(
    PriorityFrame(stream, depends_on=0, stream_weight=9).serialize() for stream in (3, 5, 7, 9, 11)
)
START = PREFACE + SETTINGS


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """RFC 9113 section 4.1, whatever the values."""
    length = len(payload).to_bytes(3, "big")
    return length + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def compressed(pairs: Pairs, *, huffman: bool = True) -> bytes:
    block: bytes = Encoder().encode(pairs, huffman=huffman)
    return block


def headers(block: bytes, stream: int = 1, *, end: bool = True, **fields: Any) -> bytes:
    """HEADERS; ``fields`` are hyperframe's: pad_length, and depends_on with stream_weight."""
    flags = ["END_STREAM"] + ["END_HEADERS"] * end
    flags += ["PADDED"] * ("pad_length" in fields) + ["PRIORITY"] * ("depends_on" in fields)
    return _serialized(HeadersFrame(stream, block, flags=flags, **fields))


def continuation(block: bytes, stream: int = 1, *, end: bool = True) -> bytes:
    return _serialized(ContinuationFrame(stream, block, flags=["END_HEADERS"] * end))


def head(pairs: Pairs) -> bytes:
    """The simplest beginning that asks for this."""
    return START + headers(compressed(pairs))


def with_fields(*pairs: tuple[bytes, bytes], **pseudo: bytes | None) -> Pairs:
    """GET with other or without some pseudo-header fields (None), and with these fields."""
    changed = {b":" + name.encode(): value for name, value in pseudo.items()}
    first = [(name, changed.get(name, value)) for name, value in GET[:4]]
    return [(name, value) for name, value in first if value is not None] + list(pairs)


def _serialized(made: Frame) -> bytes:
    data: bytes = made.serialize()
    return data
