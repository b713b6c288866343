"""Changes to IPv4 packets by one who knows their fields; checksums without the project's code."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

OPTIONS = (  # what stacks send, and what none should
    b"\x01\x01\x08\x0a" + bytes(8),
    b"\x02\x04\x05\xb4",
    b"\x02\x04\x00\x00",
    b"\x01\x03\x03\x0f",
    b"\x03\x03\xff\x00",
    b"\x04\x02\x01\x01",
    b"\x01\x01\x05\x0a" + bytes(range(8)),
    b"\x01\x01\x05\x1a" + bytes(range(24)),
    b"\x01\x01\x05\x06" + bytes(4),
    b"\x13\x12" + bytes(16) + b"\x01\x01",
    b"\xfd\x10\x4c\x33" + bytes(12),
    b"\xfd\x10\x4c\x33" + bytes(3) + b"\x07" + bytes(8),
    b"\xfd\x0c\x4c\x33" + bytes(8),
    b"\x22\x02\x01\x01",
    b"\x08\x02\x01\x01",
    b"\x08\x00\x01\x01",
    b"\x05\xff\x00\x00",
    b"\x00\x00\x00\x00",
    b"\x02",
)
FLAGS = (0, 1, 2, 3, 4, 5, 6, 16, 17, 18, 19, 20, 24, 25, 41, 48, 63, 194, 255)
STEPS = (1, 2, 3, 100, 1000, 1460, 20_000, 65_535, 1 << 30, 1 << 31)


def ones_sum(data: bytes) -> int:
    """Sum of 16-bit words modulo 0xFFFF."""
    return int.from_bytes(data + b"\0" if len(data) & 1 else data, "big") % 0xFFFF


def valid(packet: bytes) -> bool:
    """Whether lengths and checksums of a packet are right, as far as its protocol has any."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return False
    at = (packet[0] & 15) * 4
    if not 20 <= at <= len(packet) or len(packet) != int.from_bytes(packet[2:4], "big"):
        return False
    if ones_sum(packet[:at]):
        return False
    if packet[9] == 17:
        return udp_valid(packet)
    return tcp_valid(packet) if packet[9] == 6 else packet[9] != 1 or not ones_sum(packet[at:])


def tcp_valid(packet: bytes) -> bool:
    """Whether the checksum of a TCP segment is right. Of what was changed on its way that of the
    IP header is as right as it came: the kernel lets no other in."""
    body = packet[(packet[0] & 15) * 4 :]
    return len(body) >= 20 and not (ones_sum(body) + _pseudo(packet, len(body))) % 0xFFFF


def udp_valid(packet: bytes) -> bool:
    """Likewise of a datagram, which may have none."""
    body = packet[(packet[0] & 15) * 4 :]
    if len(body) < 8 or int.from_bytes(body[4:6], "big") != len(body):
        return False
    return body[6:8] == b"\0\0" or not (ones_sum(body) + _pseudo(packet, len(body))) % 0xFFFF


def repair(packet: bytes) -> bytes:
    """The packet with right lengths and checksums, where it has a header to hold them."""
    at = (packet[0] & 15) * 4 if packet else 0
    if len(packet) < 20 or not 20 <= at <= len(packet):
        return packet
    fixed = bytearray(packet)
    fixed[2:4] = len(packet).to_bytes(2, "big")
    fixed[10:12] = b"\0\0"
    fixed[10:12] = _field(ones_sum(bytes(fixed[:at])))
    place = {6: 16, 1: 2, 17: 6}.get(fixed[9])
    if place is not None and len(fixed) >= at + place + 2:
        if fixed[9] == 17:
            fixed[at + 4 : at + 6] = (len(fixed) - at).to_bytes(2, "big")
        fixed[at + place : at + place + 2] = b"\0\0"
        body = bytes(fixed[at:])
        total = ones_sum(body) + (_pseudo(packet, len(body)) if fixed[9] != 1 else 0)
        fixed[at + place : at + place + 2] = _field(total)
    return bytes(fixed)


def _pseudo(packet: bytes, length: int) -> int:
    return ones_sum(packet[12:20]) + packet[9] + length


def _field(total: int) -> bytes:
    return ((0xFFFF - total % 0xFFFF) % 0xFFFF).to_bytes(2, "big")


def mutated(rng: random.Random, packet: bytes, other: bytes) -> bytes:
    """``packet`` changed in one to three ways; ``other`` is what it may be merged with."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if len(packet) < 40:
            return _bits(rng, bytearray(packet), other)
        packet = rng.choice(_WAYS)(rng, bytearray(packet), other)
    return packet[:4016]  # no queue gives more of a packet


def _bits(rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8))):
        if packet:
            packet[rng.randrange(min(len(packet), 80))] ^= 1 << rng.randrange(8)
    return bytes(packet)


def _octets(rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    for _ in range(rng.choice((1, 2, 4))):
        packet[rng.randrange(min(len(packet), 80))] = rng.choice((0, 1, 127, 128, 255, 69, 80))
    return bytes(packet)


def _flags(rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    packet[_tcp(packet) + 13] = rng.choice(FLAGS)
    return bytes(packet)


def _numbers(rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    at = _tcp(packet) + rng.choice((4, 8))
    (number,) = struct.unpack_from("!I", packet, at)
    struct.pack_into(
        "!I", packet, at, number + rng.choice(STEPS) * rng.choice((1, -1)) & 0xFFFFFFFF
    )
    return bytes(packet)


def _words(rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    """Window, urgent pointer, offset and reserved bits, a port."""
    at = _tcp(packet) + rng.choice((0, 2, 12, 14, 18))
    struct.pack_into("!H", packet, at, rng.choice((0, 1, 80, 0x4FFF, 0xF010, 0xFFFF, 0x5010)))
    return bytes(packet)


def _ip_fields(rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    at, values = rng.choice(
        (
            (0, (0x44, 0x46, 0x4F, 0x65, 0x05)),
            (1, tuple(range(0, 256, 4))),
            (6, (0x20, 0x1F, 0x00, 0xC0)),
            (7, (1, 8)),
            (8, (0, 1, 255)),
            (9, (1, 6, 17, 50)),
        )
    )
    packet[at] = rng.choice(values)
    return bytes(packet)


def _options(rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    """Others in place of the TCP options, or before them."""
    at = _tcp(packet)
    end = min(at + max(packet[at + 12] >> 4, 5) * 4, len(packet))
    raw = b"".join(rng.choices(OPTIONS, k=rng.choice((1, 1, 2, 3))))
    if rng.random() < 0.5:
        raw += bytes(packet[at + 20 : end])
    raw = raw[:40]
    raw += bytes(-len(raw) % 4)
    packet[at + 12] = (20 + len(raw)) // 4 << 4 | packet[at + 12] & 15
    return bytes(packet[: at + 20]) + raw + bytes(packet[end:])


def _ip_options(rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    size = rng.choice((4, 8, 40))
    if packet[0] != 0x45:
        return bytes(packet)
    packet[0] = 0x45 + size // 4
    return bytes(packet[:20]) + bytes((1,)) * size + bytes(packet[20:])


def _truncated(rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    return bytes(packet[: rng.randrange(len(packet))])


def _longer(rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    return bytes(packet) + rng.randbytes(rng.choice((1, 4, 100, 1460)))


def _shorter(rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    """Less payload."""
    return bytes(packet[: rng.randint(40, len(packet))])


def _merged(_rng: random.Random, packet: bytearray, other: bytes) -> bytes:
    return bytes(packet) + other[52:]


def _spliced(rng: random.Random, packet: bytearray, other: bytes) -> bytes:
    """The head of one packet, the rest of another."""
    at = rng.choice((12, 16, 20, 24, 28, 32, 40))
    return bytes(packet[:at]) + other[at:]


def _turned(_rng: random.Random, packet: bytearray, _other: bytes) -> bytes:
    """Source and destination exchanged."""
    packet[12:16], packet[16:20] = packet[16:20], packet[12:16]
    packet[20:22], packet[22:24] = packet[22:24], packet[20:22]
    return bytes(packet)


def _tcp(packet: bytearray) -> int:
    return min(max((packet[0] & 15) * 4, 20), len(packet) - 20)


_WAYS: tuple[Callable[[random.Random, bytearray, bytes], bytes], ...] = (
    _bits, _octets, _flags, _flags, _numbers, _numbers, _numbers, _words, _ip_fields, _options,
    _options, _ip_options, _truncated, _longer, _shorter, _merged, _spliced, _turned,
)  # fmt: skip
