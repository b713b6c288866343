"""Beginnings of connections: requests of every kind, whole, in parts, and none at all."""

from __future__ import annotations

import random

from tests.fuzz import http2

_HEADERS = b"Host: h\r\nUser-Agent: fuzz\r\nAccept: */*\r\n"

HTTP2 = 0.15  # of what clients say


def request(rng: random.Random) -> bytes:
    """What a client says first."""
    path = b"/" + rng.randbytes(4).hex().encode()
    if rng.random() < HTTP2:
        return http2.beginning(rng, path)
    return rng.choice(_KINDS) % {b"path": path, b"cookies": b"c" * rng.choice((10, 3000, 9000))}


def pieces(rng: random.Random, data: bytes) -> list[tuple[int, bytes]]:
    """(offset, bytes) as a client cuts them: mostly whole segments, sometimes dribbled, out of
    order, overlapping, or sent again."""
    size = rng.choice((1440, 1440, 1440, 536, 100, 7, 1))
    cut = [(at, data[at : at + size]) for at in range(0, len(data), size)][:80]
    if rng.random() < 0.2:
        rng.shuffle(cut)
    if rng.random() < 0.2:
        at = rng.randrange(len(data))
        cut.insert(rng.randint(0, len(cut)), (at, data[at : at + rng.choice((1, 1440))]))
    return cut


_KINDS = (
    b"GET %(path)s HTTP/1.1\r\n" + _HEADERS + b"\r\n",
    b"GET %(path)s HTTP/1.1\r\n" + _HEADERS + b"\r\n",
    b"GET %(path)s?q=1 HTTP/1.0\n\n",
    b"GET %(path)s HTTP/1.1\r\nCookie: %(cookies)s\r\n\r\n",
    b"GET %(path)s/%(cookies)s HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST %(path)s HTTP/1.1\r\nContent-Length: 9\r\n\r\n123456789",
    b"\r\n\r\nGET %(path)s HTTP/1.1\r\n\r\n",
    b"GET http://h%(path)s HTTP/1.1\r\n\r\n",
    b"GET http://h HTTP/1.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n\r\n",
    b"CONNECT h:443 HTTP/1.1\r\n\r\n",
    b"GET %(path)s?q=1&sid=%(path)s HTTP/1.1\nhost:\th.example:80 \nCookie: a; sid=%(path)s\n\n",
    b"GET %(path)s HTTP/1.1\r\nHost: a.h\r\nX-Tenant: %(path)s\r\nX-Tenant: b\r\n\r\n",
    b"GET http://a.h:80%(path)s HTTP/1.1\r\nHost: b\r\nCookie: sid=%(cookies)s\r\n\r\n",
    b"GET %(path)s HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET %(path)s HTTP/1.1\r\nHost : a\r\nX-Tenant: a\r\n b\r\nCookie: \0\r\r\n\r\n",
    b"GET %(path)s HTTP/1.1\r\nHost: a/%(cookies)s\r\n\r\n",
    b"GET %(path)s HTTP/1.1\r\n" + b"Cookie:\n" * 300,
    b"GET %(path)s HTTP/1.1\r\n" * 2,
    b"GET %(path)s",
    b"GET %(path)s\r\n",
    b"GET %(path)s HTTP/9.1\r\n\r\n",
    b"GET %(path)s HTTP/1.x\r\n\r\n",
    b"GET %(path)s HTTP/1.1 \r\n\r\n",
    b"GET h HTTP/1.1\r\n\r\n",
    b"GET \x80 HTTP/1.1\r\n\r\n",
    b"G@T / HTTP/1.1\r\n\r\n",
    b"GGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGG / HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x00\xc8\x01",
    b"\x16\x02",
    b"\x16",
    b"\x00\xff\x80garbage",
    b"\r\n" * 50,
    b"\r",
    b"%(cookies)s%(cookies)s",
)
