"""Beginnings of TLS connections: real hellos and others, in any number of records, and spoiled."""

from __future__ import annotations

import random

from tests.hellos.recorded import HELLOS
from tests.unit.tls_model import GREASE, Hello, alpn, contents, extension, record, records, sni

_RECORDED = [contents(data) for data in HELLOS.values()]
_NAMES = (b"h", b"a.h", b"X.Example.", b"x.y.example", b"192.0.2.1", b"a..b", b"a" * 70, b"")
_PROTOCOLS = (b"h2", b"http/1.1", b"x", b"\x0a\x0a", b"")


def hello(rng: random.Random) -> bytes:
    """What a client of TLS says first."""
    message = rng.choice(_RECORDED) if rng.random() < 0.4 else _made(rng).message()
    if rng.random() < 0.2:
        message = _spoiled(rng, message)
    size = rng.choice((0, 0, 0, 1, 7, 100))
    data = records(message, range(size, len(message), size) if size else ())
    draw = rng.random()
    if draw < 0.1:
        return _spoiled(rng, data)
    if draw < 0.2:
        other = rng.choice((record(b"", 22), record(b"\2\x28", 21), record(b"?", 23), b"\x16\4"))
        return data[: rng.choice((0, len(data) // 2))] + other
    if draw < 0.25:
        return rng.choice((b"\x80\x2e\1\3\1" + bytes(41), b"SSH-2.0-x\r\n", b"\x80\x2e\2"))
    return data


def _made(rng: random.Random) -> Hello:
    name, draw = f"{rng.randrange(1000)}.example".encode(), rng.random()
    said = [sni(name)] if draw < 0.6 else [sni(rng.choice(_NAMES))] if draw < 0.8 else []
    if rng.random() < 0.5:
        said.append(alpn(*rng.choices(_PROTOCOLS, (3, 3, 1, 1, 0.2), k=rng.choice((1, 2, 3)))))
    kinds = rng.sample([23, 43, 51, *GREASE], rng.randrange(4))
    said += [extension(kind, rng.randbytes(rng.choice((0, 2, 1200)))) for kind in kinds]
    rng.shuffle(said)
    if rng.random() < 0.05:
        said += said[:1]
    return Hello(
        said if said or rng.random() < 0.5 else None,
        session=bytes(rng.choice((0, 32, 32, 33))),
        suites=bytes(rng.choice((2, 30, 30, 3, 0) if rng.random() < 0.2 else (30,))),
    )


def _spoiled(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(min(len(changed), rng.choice((10, 60, 4000))))
        changed[at] = rng.choice((0, 1, 2, 64, 128, 255, changed[at] ^ 1))
    return bytes(changed[: rng.choice((len(changed), rng.randrange(1, len(changed) + 1)))])
