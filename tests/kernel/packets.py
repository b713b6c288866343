"""Packets at random, as close to the edges as can be: every layout of options, numbers about to
wrap, headers cut short. The same sequence for the same seed."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from common.core import checksum

EDGES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
PLAIN_STAMPS = b"\x01\x01\x08\x0a"
ACK = 0x10


@dataclass(frozen=True)
class Ends:
    """Addresses (4 bytes) and ports of a packet."""

    src: bytes
    dst: bytes
    sport: int
    dport: int


class Packets:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def number(self) -> int:
        return self._either(self._random.choice(EDGES), self._random.getrandbits(32))

    def packet(self, ends: Ends, tos: int) -> bytes:
        """An IPv4 packet; nearly always of TCP, well-formed more often than not."""
        pick, any_bits = self._random.random, self._random.getrandbits
        ip_options = b""
        if pick() < 0.1:
            ip_options = self._random.randbytes(4 * self._random.randint(0, 10))
        options = self._options()
        payload = self._random.randbytes(self._random.choice((0, 0, 1, 7, 64)))
        flags = ACK | any_bits(8) & 0xE8 if pick() < 0.7 else any_bits(8)
        offset = 5 + len(options) // 4 if pick() < 0.97 else self._random.randint(0, 15)
        tcp = struct.pack(
            "!HHIIHHHH",
            ends.sport,
            ends.dport,
            self.number(),
            self.number(),
            offset << 12 | self._random.getrandbits(4) << 8 & 0xE00 | flags,
            self._either(self._random.choice((0, 1, 0xFFFF)), self._random.getrandbits(16)),
            0,
            self._random.getrandbits(16),
        )
        tcp += options + payload
        pseudo = checksum.pseudo_header_sum(ends.src, ends.dst, 6, len(tcp))
        tcp_sum = checksum.updated(0xFFFF, pseudo + checksum.word_sum(tcp))
        if pick() < 0.05:
            tcp_sum = self._random.getrandbits(16)  # damage stays visible
        tcp = tcp[:16] + tcp_sum.to_bytes(2, "big") + tcp[18:]
        words = 5 + len(ip_options) // 4
        first = 0x40 | words if pick() < 0.98 else self._random.getrandbits(8)
        head = struct.pack(
            "!BBHHHBBH4s4s",
            first,
            tos,
            4 * words + len(tcp),
            self._random.getrandbits(16),
            0x4000 if pick() < 0.97 else self._random.getrandbits(16),
            self._random.choice((0, 1, 2, 64, 255)),
            6 if pick() < 0.98 else self._random.getrandbits(8),
            0,
            ends.src,
            ends.dst,
        )
        head += ip_options
        ip_sum = checksum.updated(0xFFFF, checksum.word_sum(head))
        packet = head[:10] + ip_sum.to_bytes(2, "big") + head[12:] + tcp
        return packet if pick() < 0.97 else packet[: self._random.randint(20, len(packet))]

    def _options(self) -> bytes:
        """At most 40 bytes, in whole words."""
        kind = self._random.random()
        if kind < 0.2:
            return b""
        if kind < 0.4:
            return PLAIN_STAMPS + self._word() + self._word()
        raw = b""
        while len(raw) < 40 and self._random.random() < 0.8:
            raw += self._option()
        raw = raw[:40]  # the last one may be torn
        end = self._random.choice((b"\0", b"\1"))
        return raw + end * (-len(raw) % 4)

    def _option(self) -> bytes:
        which = self._random.randrange(10)
        if which < 3:
            return b"\1" * self._random.randint(1, 3)
        if which < 5:
            return b"\x08\x0a" + self._word() + self._word()
        if which < 7:
            blocks = self._random.randint(1, 4)
            return bytes((5, 2 + 8 * blocks)) + b"".join(self._word() for _ in range(2 * blocks))
        if which == 7:  # of no use, or a known one of a wrong length
            size = self._random.randint(0, 9)
            kind = self._random.choice((5, 8, 2, 3, 4, 30, 254))
            return bytes((kind, 2 + size)) + self._random.randbytes(size)
        if which == 8:  # malformed, most likely
            return bytes((self._random.choice((5, 8, 30)), self._random.getrandbits(8)))
        return self._random.choice((b"\0", b"\xfd\x10\x4c\x33" + self._random.randbytes(12)))

    def _word(self) -> bytes:
        return self.number().to_bytes(4, "big")

    def _either(self, one: int, other: int) -> int:
        return one if self._random.random() < 0.4 else other
