"""TLS by the letter of its RFCs, sharing no code with the project: what a hello is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SNI, ALPN, KEY_SHARE, ECH = 0, 16, 51, 0xFE0D
X25519MLKEM768 = 4588  # a share of 1216 bytes: 1184 of ML-KEM-768, 32 of X25519
GREASE = [high << 12 | 0x0A00 | high << 4 | 0x0A for high in range(16)]


def vector(size: int, *content: bytes) -> bytes:
    whole = b"".join(content)
    return len(whole).to_bytes(size, "big") + whole


def extension(kind: int, *content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, *content)


def sni(*names: bytes, kind: int = 0) -> bytes:
    return extension(SNI, vector(2, *(bytes([kind]) + vector(2, name) for name in names)))


def alpn(*protocols: bytes) -> bytes:
    return extension(ALPN, vector(2, *(vector(1, protocol) for protocol in protocols)))


@dataclass(frozen=True)
class Hello:
    """A ClientHello; ``extensions`` of None: it has not even a place for them."""

    extensions: Sequence[bytes] | None = field(default_factory=lambda: (sni(b"a.example"),))
    version: bytes = b"\3\3"
    random: bytes = bytes(range(32))
    session: bytes = bytes(32)
    suites: bytes = b"\x0a\x0a\x13\x01\x13\x02"
    compression: bytes = b"\0"

    def message(self) -> bytes:
        body = self.version + self.random + vector(1, self.session)
        body += vector(2, self.suites) + vector(1, self.compression)
        if self.extensions is not None:
            body += vector(2, *self.extensions)
        return b"\1" + vector(3, body)

    def __bytes__(self) -> bytes:
        return records(self.message())


def record(content: bytes, kind: int = 22, version: bytes = b"\3\1") -> bytes:
    return bytes([kind]) + version + vector(2, content)


def records(message: bytes, cuts: Iterable[int] = ()) -> bytes:
    """In as many records as there are pieces between the cuts."""
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(message)}), len(message)]
    return b"".join(record(message[a:b]) for a, b in pairwise(places))


def contents(data: bytes) -> bytes:
    """The other way round: what whole records hold."""
    found = b""
    while data:
        end = 5 + int.from_bytes(data[3:5], "big")
        found, data = found + data[5:end], data[end:]
    return found


def extensions(message: bytes) -> dict[int, bytes]:
    """Those of a sound ClientHello, by their type."""
    rest = message[4 + 2 + 32 :]
    for size in (1, 2, 1):
        rest = rest[size + int.from_bytes(rest[:size], "big") :]
    rest, found = rest[2:], {}
    while rest:
        end = 4 + int.from_bytes(rest[2:4], "big")
        found[int.from_bytes(rest[:2], "big")] = rest[4:end]
        rest = rest[end:]
    return found
