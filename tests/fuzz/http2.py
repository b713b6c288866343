"""Beginnings of HTTP/2 connections: sound ones in any framing, with a flaw, and broken ones."""

from __future__ import annotations

import random

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, CONTINUATION = 1, 4, 9
END_HEADERS, PADDED, PRIORITY = 0x04, 0x08, 0x20
_BEFORE = ((8, 0, b"\0\0\xff\xff"), (2, 3, bytes(5)), (4, 0, b""), (6, 0, bytes(8)), (0xEE, 7, b""))
_FLAWS = (  # pseudo-header fields to go, and pairs to come
    ((b":path",), ()),
    ((b":method",), ()),
    ((), ((b":path", b"/2"),)),
    ((), ((b":status", b"200"),)),
    ((b":path",), ((b"x", b"y"), (b":path", b"/"))),
    ((b":path",), ((b":path", b"http://h/"),)),
    ((b":path",), ((b":path", b"/\x80"),)),
    ((b":method",), ((b":method", b"G T"),)),
    ((b":method",), ((b":method", b"CONNECT"),)),
    ((), ((b"Host", b"h"),)),
    ((), ((b"host", b"another"),)),
    ((), ((b"host", b"a/b"),)),
    ((b":authority",), ((b"host", b"a"), (b"host", b"b"))),
    ((), ((b"cookie", b"\r\n"), (b"x-tenant", b"\0"))),
    ((), ((b"x-tenant", b"y" * 3000),) * 25),  # grows from 1.9 kB
    ((b":scheme", b":path", b":method"), ((b":method", b"CONNECT"),)),
)


def beginning(rng: random.Random, path: bytes) -> bytes:
    """What a client says first that asks for ``path``, or does not quite."""
    pairs = [(b":method", rng.choice((b"GET", b"POST"))), (b":scheme", b"http")]
    pairs += [(b":authority", rng.choice((b"h", b"a.h:80", b"H.example."))), (b":path", path)]
    pairs += [(b"x-tenant", b"b"), (b"cookie", b"sid=" + path), (b"cookie", b"a=b")]
    if rng.random() < 0.3:
        gone, added = rng.choice(_FLAWS)
        pairs = [pair for pair in pairs if pair[0] not in gone] + list(added)
    block = Encoder().encode(pairs, huffman=rng.random() < 0.5)
    if rng.random() < 0.15:
        block = rng.choice((b"\x80", b"\x20\x20\x20", b"\xff" * 30, b"\x40\x01x")) + block
    data = bytearray(PREFACE + _frame(SETTINGS, 0, 0, bytes(6) * rng.choice((0, 1, 3))))
    for kind, stream, payload in rng.choices(_BEFORE, k=rng.choice((0, 0, 0, 1, 1, 3, 3, 120))):
        data += _frame(kind, 0, stream, payload)
    data += _section(rng, block)
    if rng.random() < 0.3:
        for _ in range(rng.choice((1, 1, 3))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _section(rng: random.Random, block: bytes) -> bytes:
    """HEADERS, and CONTINUATION for what it leaves."""
    stream, flags = rng.choice((1, 1, 1, 1, 1, 1, 13, 15, 2, 0)), 0
    cuts = sorted(rng.choices(range(len(block)), k=rng.choice((0, 0, 0, 1, 1, 3, 3, 110))))
    cuts += range(cuts[-1] if cuts else 0, len(block), 16384)[1:]
    parts = [block[a:b] for a, b in zip([0, *cuts], [*cuts, len(block)], strict=True)]
    first = parts[0]
    if rng.random() < 0.3:
        flags, first = flags | PRIORITY, bytes(5) + first
    if rng.random() < 0.3:
        flags, size = flags | PADDED, rng.choice((0, 1, 255))
        first = bytes([size]) + first + bytes(rng.choice((size, size, size, size, 0)))
    data = _frame(HEADERS, flags | END_HEADERS * (len(parts) == 1), stream, first)
    for number, part in enumerate(parts[1:], 2):
        kind, on = (CONTINUATION, stream) if rng.random() < 0.98 else rng.choice(((8, 0), (9, 5)))
        data += _frame(kind, END_HEADERS * (number == len(parts)), on, part)
    return data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = (len(payload) & 0xFFFFFF).to_bytes(3, "big")
    return length + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
