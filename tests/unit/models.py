"""Models of the project's formats that share no code with it: SipHash, keys, cookie, handoff.

Addresses are dotted strings, numbers host integers; what a model gives is bytes as on the wire.
"""

from __future__ import annotations

import hashlib
import socket

SHARED_KEY = bytes(range(32))
RTT_STEPS = (0, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 250, 300, 400, 600, 1000)
HANDOFF, CONFIRM, FORGET, ACCEPTED, REFUSED, ENDED = 0, 1, 2, 4, 5, 6


def siphash(key: bytes, message: bytes, c_rounds: int = 2, d_rounds: int = 4) -> int:
    """SipHash straight from section 2 of the paper (Aumasson, Bernstein 2012)."""
    mask = 2**64 - 1

    def rotl(x: int, n: int) -> int:
        return ((x << n) | (x >> (64 - n))) & mask

    def sip_round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
        v0, v2 = (v0 + v1) & mask, (v2 + v3) & mask
        v1, v3 = rotl(v1, 13) ^ v0, rotl(v3, 16) ^ v2
        v0 = rotl(v0, 32)
        v2, v0 = (v2 + v1) & mask, (v0 + v3) & mask
        v1, v3 = rotl(v1, 17) ^ v2, rotl(v3, 21) ^ v0
        v2 = rotl(v2, 32)
        return v0, v1, v2, v3

    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = (
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    )
    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) % 256])
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        v = (v[0], v[1], v[2], v[3] ^ word)
        for _ in range(c_rounds):
            v = sip_round(*v)
        v = (v[0] ^ word, v[1], v[2], v[3])
    v = (v[0], v[1], v[2] ^ 0xFF, v[3])
    for _ in range(d_rounds):
        v = sip_round(*v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def derived_key(shared: bytes, purpose: str) -> bytes:
    person = ("l3dsr-" + purpose).encode()
    return hashlib.blake2b(b"", key=shared, digest_size=16, person=person).digest()


def flow_bytes(client: tuple[str, int], vip: tuple[str, int]) -> bytes:
    addresses = socket.inet_aton(client[0]) + socket.inet_aton(vip[0])
    return addresses + client[1].to_bytes(2, "big") + vip[1].to_bytes(2, "big")


def cookie(
    client: tuple[str, int],
    vip: tuple[str, int],
    c: int,
    *,
    wall: float,
    mss_index: int,
    sack: bool,
    scale: int,
    shared: bytes = SHARED_KEY,
) -> int:
    """The balancer's initial sequence number; ``wall`` when the SYN-ACK was sent."""
    epoch = int(wall // 64)
    low = (epoch % 2) * 128 + mss_index * 32 + sack * 16 + scale
    message = flow_bytes(client, vip) + c.to_bytes(4, "big") + epoch.to_bytes(4, "big")
    number = siphash(derived_key(shared, "cookie"), message + bytes([low]))
    return (number >> 40) * 256 + low


def handoff_option(
    kind: int,
    client: tuple[str, int],
    vip: tuple[str, int],
    *,
    c: int,
    b: int,
    seq: int,
    wall: float,
    mss: int = 0,
    rtt_code: int = 0,
    scales: tuple[int, int] = (15, 15),
    sack: bool = False,
    shared: bytes = SHARED_KEY,
    rest: bytes = b"",
    bridge: str = "",
    attempt: int = 0,
) -> bytes:
    """The 16 bytes; ``scales`` the client's and that promised to it, ``rest`` an answer's payload,
    ``bridge`` whose ACCEPTED or REFUSED it is."""
    fields = (mss // 4 * 16 + rtt_code).to_bytes(2, "big")
    fields += bytes([scales[0] * 16 + scales[1], int(wall // 8) % 16 * 16 + sack * 8 + kind])
    numbers = b"".join((n % 2**32).to_bytes(4, "big") for n in (c, b, seq))
    key = derived_key(shared, "handoff" if kind < ACCEPTED else "answer")
    epoch = int(wall // 8).to_bytes(8, "big")[4:]
    about = socket.inet_aton(bridge) if bridge else b""
    about += bytes([attempt]) if bridge or attempt else b""
    number = siphash(key, fields + epoch + flow_bytes(client, vip) + numbers + about + rest)
    return bytes([253, 16, 0x4C, 0x33]) + fields + number.to_bytes(8, "little")


def stamps(value: int, echo: int) -> bytes:
    """The timestamps option in the layout of RFC 7323, appendix A."""
    numbers = (value % 2**32).to_bytes(4, "big") + (echo % 2**32).to_bytes(4, "big")
    return b"\x01\x01\x08\x0a" + numbers
