"""Segments that somebody else injects into a live connection, at the balancer and at the bridge.

Who does not see a connection's packets must guess their numbers (RFC 5961). What is injected here
has random numbers, or such as lie beside the right ones. Data and FINs with a sequence number in
the window are given an acknowledgment number that is none: with both right they would be the
client's own for any TCP.
"""

from __future__ import annotations

import random
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from common.core.segment import ACK, FIN, MASK, PSH, RST, SYN, build
from tests.e2e import web
from tests.e2e.capture import Packet, capture
from tests.e2e.flooding import flooding
from tests.e2e.lab import BRIDGE1, CLIENT, LAB, VIP, Lab, until
from tests.e2e.raw import RawSender, raw_sender
from tests.soak import Amount

pytestmark = pytest.mark.root

Report = Callable[[str], None]

TARGETS = {"balancer": ("balancer", VIP, 0), "bridge": ("backend1", BRIDGE1, 1 << 2)}
OPTION = b"\xfd\x10\x4c\x33"  # ours, without its fields and its MAC
RATE = 100  # injected packets a second
SHARE = 0.9  # of the speed that a download has without them


@dataclass
class Live:
    """A connection to backend1: the client's port, its next sequence number, what it acknowledges."""

    tcp: socket.socket
    port: int
    seq: int
    ack: int

    def segment(
        self,
        target: str,
        flags: int,
        seq: int,
        ack: int,
        payload: bytes = b"",
        options: bytes = b"",
    ) -> bytes:
        """A segment in the client's name."""
        _, address, tos = TARGETS[target]
        return build(
            socket.inet_aton(CLIENT),
            socket.inet_aton(address),
            self.port,
            80,
            seq=seq & MASK,
            ack=ack & MASK,
            flags=flags,
            window=512,
            options=options,
            payload=payload,
            tos=tos,
        )


@pytest.fixture
def sender(lab: Lab) -> Iterator[RawSender]:
    with raw_sender(lab) as sender:
        yield sender


KINDS = {
    "RST": lambda live, target: _resets(live, target),
    "SYN": lambda live, target: _syns(live, target),
    "data": lambda live, target: _unacceptable(live, target, ACK | PSH, b"injected"),
    "FIN": lambda live, target: _unacceptable(live, target, ACK | FIN, b""),
    "bad MAC": lambda live, target: _forged(live, target),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_injected_segments_do_nothing(
    lab: Lab, sender: RawSender, amount: Amount, target: str, kind: str
) -> None:
    body = (LAB / "www" / "1k").read_bytes()
    path = lab.path_for("1k", "backend1")
    with lab.connect() as tcp:
        for _ in range(amount(2, 50)):
            live = _live(lab, tcp, web.request(path))
            for packet in KINDS[kind](live, target):
                sender.send(packet, TARGETS[target][0])
            for _ in range(3):
                tcp.sendall(web.request(path))
                assert web.response(tcp).body == body


@pytest.mark.parametrize("target", TARGETS)
def test_a_reset_with_the_exact_number_ends_the_connection(
    lab: Lab, sender: RawSender, target: str
) -> None:
    """It cannot be told from the client's own: the server ends its side."""
    with lab.connect() as tcp:
        live = _live(lab, tcp, web.request(lab.path_for("1k", "backend1")))
        assert "ESTAB" in lab.states("backend1", live.port)
        packet = live.segment(target, RST, live.seq, 0)
        sender.send(packet, TARGETS[target][0])
        until(lambda: not lab.states("backend1", live.port), 2, "the server's side is reset")


@pytest.mark.parametrize("target", TARGETS)
def test_speed_of_a_download_under_injection(
    lab: Lab, amount: Amount, report: Report, target: str
) -> None:
    """Measured in turn with and without, each on a connection of its own."""
    rounds = amount(7, 40)
    path = lab.path_for("20m", "backend1")
    without, under = [], []
    for number in range(rounds):
        without.append(_download(lab, path, None))
        under.append(_download(lab, path, target))
        amount.progress(number, rounds)
    free, disturbed = statistics.median(without), statistics.median(under)
    report(
        f"{RATE} a second injected at the {target}: {disturbed / 1e6:.0f} MB/s, without "
        f"{free / 1e6:.0f} MB/s: {disturbed / free:.2f} (medians of {rounds})"
    )
    assert disturbed > SHARE * free


def _download(lab: Lab, path: str, target: str | None) -> float:
    """Bytes per second of a download, the beginning apart; injected into from then on."""
    with lab.connect() as tcp:
        live = _live(lab, tcp, web.request(path, close=True), whole=False)
        if target is None:
            injected = nullcontext()
        else:
            packets = [packet for kind in KINDS.values() for packet in kind(live, target)]
            random.Random(1).shuffle(packets)
            injected = flooding(lab, packets, RATE, 60, TARGETS[target][0])
        with injected:
            started = time.monotonic()
            received = len(web.rest(tcp))
            seconds = time.monotonic() - started
    assert received > 15e6
    return received / seconds


def _live(lab: Lab, tcp: socket.socket, request: bytes, whole: bool = True) -> Live:
    """Send a request; the connection once the response, or only its beginning, has come."""
    port = tcp.getsockname()[1]
    with capture(lab, "client") as packets:
        tcp.sendall(request)
        if whole:
            web.response(tcp)
        else:
            tcp.recv(1000)

        def last() -> Packet | None:
            """The client's last word: it acknowledges something, and its request is out."""
            sent = [
                packet for packet in packets.packets if packet.outgoing and port in packet.ports
            ]
            after = [packet for packet in sent if not packet.payload]
            return after[-1] if after else None

        packet = until(last, 5, "the client acknowledges the response")
    return Live(tcp, port, packet.seq, packet.ack)


def _randoms(count: int) -> Iterator[tuple[int, int]]:
    dice = random.Random(5961)
    for _ in range(count):
        yield dice.getrandbits(32), dice.getrandbits(32)


def _resets(live: Live, target: str) -> Iterator[bytes]:
    """Random, beside the exact number, and elsewhere in the window."""
    seqs = [seq for seq, _ in _randoms(10)]
    seqs += [live.seq + by for by in (-1000, -1, 1, 2, 1000, 30_000)]
    for seq in seqs:
        yield live.segment(target, RST, seq, 0)
        yield live.segment(target, RST | ACK, seq, live.ack)


def _syns(live: Live, target: str) -> Iterator[bytes]:
    seqs = [seq for seq, _ in _randoms(10)] + [live.seq + by for by in (-1000, -1, 0, 1, 1000)]
    for seq in seqs:
        yield live.segment(target, SYN, seq, 0)
        yield live.segment(target, SYN | ACK, seq, live.ack)


def _unacceptable(live: Live, target: str, flags: int, payload: bytes) -> Iterator[bytes]:
    """Random numbers, old bytes, and a right sequence number with an acknowledgment that is none."""
    for seq, ack in _randoms(10):
        yield live.segment(target, flags, seq, ack, payload)
    if payload:
        yield live.segment(target, flags, live.seq - len(payload), live.ack, payload)
    for by in (0, 1, 1000, 30_000):
        for ahead in (1 << 30, 0x7FFF_FFFF, -(1 << 30)):
            yield live.segment(target, flags, live.seq + by, live.ack + ahead, payload)


def _forged(live: Live, target: str) -> Iterator[bytes]:
    """With our option, every kind of message, all numbers exact: only the MAC is not."""
    dice = random.Random(6994)
    for kind in range(8):
        for flags, payload in (
            (ACK | PSH, b"GET /x HTTP/1.1\r\n\r\n"),
            (RST, b""),
            (ACK | FIN, b""),
        ):
            option = OPTION + dice.randbytes(3) + bytes([dice.getrandbits(4) << 4 | kind])
            options = option + dice.randbytes(8)
            yield live.segment(target, flags, live.seq, live.ack, payload, options)
