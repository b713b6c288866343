"""Segments in the name of a client whose connection with the VIP is live, by who does not see it.

Their numbers are random, or lie beside the right ones (RFC 5961). Data and FINs with a sequence
number in the window get an acknowledgment number that is none: with both right they would be the
client's own for any TCP.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from common.core.segment import ACK, FIN, MASK, PSH, RST, SYN, build
from tests.e2e import web
from tests.e2e.capture import Packet, capture
from tests.e2e.lab import BRIDGE1, CLIENT, VIP, Lab, until

OPTION = b"\xfd\x10\x4c\x33"  # ours, without its fields and its MAC


@dataclass(frozen=True)
class Target:
    """Where segments are injected: a host, the address and the type of service they have there."""

    host: str
    address: str
    tos: int


TARGETS = {"balancer": Target("balancer", VIP, 0), "bridge": Target("backend1", BRIDGE1, 1 << 2)}


@dataclass
class Live:
    """A connection: the client's port, its next sequence number, what it acknowledges."""

    port: int
    seq: int
    ack: int

    def segment(
        self,
        target: Target,
        flags: int,
        seq: int,
        ack: int,
        payload: bytes = b"",
        options: bytes = b"",
    ) -> bytes:
        return build(
            socket.inet_aton(CLIENT),
            socket.inet_aton(target.address),
            self.port,
            80,
            seq=seq & MASK,
            ack=ack & MASK,
            flags=flags,
            window=512,
            options=options,
            payload=payload,
            tos=target.tos,
        )


def live(lab: Lab, tcp: socket.socket, request: bytes, whole: bool = True) -> Live:
    """Send a request; the connection once the response, or only its beginning, has come."""
    port = tcp.getsockname()[1]
    with capture(lab, "client") as packets:
        tcp.sendall(request)
        if whole:
            web.response(tcp)
        else:
            tcp.recv(1000)

        def last() -> Packet | None:
            ours = [p for p in packets.packets if p.outgoing and port in p.ports and not p.payload]
            return ours[-1] if ours else None

        packet = until(last, 5, "the client acknowledges the response")
    return Live(port, packet.seq, packet.ack)


def resets(of: Live, target: Target) -> Iterator[bytes]:
    """Random, beside the exact number, and elsewhere in the window."""
    seqs = [seq for seq, _ in _randoms(10)]
    seqs += [of.seq + by for by in (-1000, -1, 1, 2, 1000, 30_000)]
    for seq in seqs:
        yield of.segment(target, RST, seq, 0)
        yield of.segment(target, RST | ACK, seq, of.ack)


def syns(of: Live, target: Target) -> Iterator[bytes]:
    """Random, in the window, and the exact number."""
    seqs = [seq for seq, _ in _randoms(10)] + [of.seq + by for by in (-1000, -1, 0, 1, 1000)]
    for seq in seqs:
        yield of.segment(target, SYN, seq, 0)
        yield of.segment(target, SYN | ACK, seq, of.ack)


def data(of: Live, target: Target) -> Iterator[bytes]:
    yield of.segment(target, ACK | PSH, of.seq - 8, of.ack, b"injected")  # bytes that are there
    yield from _unacceptable(of, target, ACK | PSH, b"injected")


def fins(of: Live, target: Target) -> Iterator[bytes]:
    return _unacceptable(of, target, ACK | FIN, b"")


def forged(of: Live, target: Target) -> Iterator[bytes]:
    """With our option, every kind of message, all numbers exact: only the MAC is not."""
    dice = random.Random(6994)
    request = b"GET /injected HTTP/1.1\r\n\r\n"
    for kind in range(8):
        for flags, payload in ((ACK | PSH, request), (RST, b""), (SYN, b""), (ACK | FIN, b"")):
            fields = dice.randbytes(3) + bytes([dice.getrandbits(4) << 4 | kind])
            options = OPTION + fields + dice.randbytes(8)
            yield of.segment(target, flags, of.seq, of.ack, payload, options)


KINDS: dict[str, Callable[[Live, Target], Iterator[bytes]]] = {
    "RST": resets,
    "SYN": syns,
    "data": data,
    "FIN": fins,
    "bad MAC": forged,
}


def _unacceptable(of: Live, target: Target, flags: int, payload: bytes) -> Iterator[bytes]:
    """Random numbers, and sequence numbers in the window with an acknowledgment that is none."""
    for seq, ack in _randoms(10):
        yield of.segment(target, flags, seq, ack, payload)
    for by in (0, 1, 1000, 30_000):
        for ahead in (1 << 30, 0x7FFF_FFFF, -(1 << 30)):
            yield of.segment(target, flags, of.seq + by, of.ack + ahead, payload)


def _randoms(count: int) -> Iterator[tuple[int, int]]:
    dice = random.Random(5961)
    for _ in range(count):
        yield dice.getrandbits(32), dice.getrandbits(32)
