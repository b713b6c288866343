"""How the head of a request comes: in which parts, in which order, how slowly."""

from __future__ import annotations

import hashlib
import random
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.e2e import web
from tests.e2e.capture import RST
from tests.e2e.kernel_clients import small_mss
from tests.e2e.lab import CLIENT, VIP, Lab
from tests.e2e.raw import RawSender, raw_sender
from tests.e2e.scripted import PORT, echo_head, head_of, respond, serving

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scripted")]

SCRIPTED = (VIP, PORT)
SEGMENT = 1432  # bytes of a full one: the VIP offers an MSS of 1444, and timestamps take twelve


@pytest.fixture
def sender(lab: Lab) -> Iterator[RawSender]:
    with raw_sender(lab) as sender:
        yield sender


def test_head_of_16_kb(lab: Lab) -> None:
    """Beyond a client's initial window of ten segments: the last two wait for the server's ACK."""
    _expect_echo(lab, [_large_head("/large-head")])


def test_head_byte_by_byte(lab: Lab) -> None:
    head = web.request("/byte-by-byte", "User-Agent: slow")
    _expect_echo(lab, [head[at : at + 1] for at in range(len(head))])


def test_head_byte_by_byte_with_pauses(lab: Lab) -> None:
    """Slower than the balancer waits before it acknowledges: each byte is acknowledged."""
    head = web.request("/slow", "User-Agent: slow")
    _expect_echo(lab, [head[at : at + 1] for at in range(len(head))], pause=0.05)


def test_head_in_parts_of_a_patient_client(lab: Lab) -> None:
    """With Nagle's algorithm the second part waits until the first is acknowledged."""
    head = web.request("/nagle", "User-Agent: patient")
    started = time.monotonic()
    with serving(lab, echo_head), lab.connect(to=SCRIPTED) as tcp:
        for part in (head[:5], head[5:9], head[9:]):
            tcp.sendall(part)
        assert web.response(tcp).body == head
    assert time.monotonic() - started < 0.18


def test_path_of_5_kb_in_tiny_segments(lab: Lab) -> None:
    """Ten segments fill the client's first window, of which the balancer has to take over some."""
    head = web.request("/" + "path/" * 1000)
    _expect_echo(lab, [head[at : at + 16] for at in range(0, len(head), 16)])


def test_path_of_5_kb_in_several_segments(lab: Lab) -> None:
    _expect_echo(lab, [web.request("/" + "path/" * 1000)])


def test_path_of_12_kb(lab: Lab) -> None:
    """Beyond the initial window of a client whose segments are small."""
    head = web.request("/" + "path/" * 2400)
    with serving(lab, echo_head), small_mss(lab, SCRIPTED) as tcp:
        tcp.sendall(head)
        assert web.response(tcp).body == head


def test_request_line_then_headers_later(lab: Lab) -> None:
    """Handed over with the request line; the rest finds its way after a pause."""
    head = web.request("/two-parts", "X-More: " + "m" * 3000)
    line, rest = head[:30], head[30:]
    assert b"\r\n" in line
    _expect_echo(lab, [line, rest], pause=0.3)


def test_body_right_behind_the_head(lab: Lab) -> None:
    body = bytes(range(256)) * 200

    def receive(tcp: socket.socket) -> None:
        head_of(tcp)
        received = b""
        while len(received) < len(body):
            received += tcp.recv(65536)
        respond(tcp, received)

    head = web.request("/body", f"Content-Length: {len(body)}", method="POST")
    with serving(lab, receive), lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(head + body)
        assert web.response(tcp).body == body


def test_server_sees_the_clients_own_address_and_port(lab: Lab) -> None:
    with serving(lab, echo_head) as server, lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        web.response(tcp)
        assert server.peers == [(CLIENT, tcp.getsockname()[1])]


def test_pipelined_requests_cut_anywhere(lab: Lab) -> None:
    """Five requests in segments that end within heads; the first three reach the balancer."""
    heads = [web.request(f"/pipelined/{number}", "X-More: " + "m" * 50) for number in range(5)]
    sent = b"".join(heads)
    with serving(lab, echo_head), lab.connect(to=SCRIPTED) as tcp:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(sent), 37):
            tcp.sendall(sent[at : at + 37])
        tcp.shutdown(socket.SHUT_WR)
        assert _bodies(web.rest(tcp)) == heads


# --- in an order that only a network makes: a client without a kernel ---


@pytest.mark.parametrize("order", ["reversed", "first one last", "shuffled", "odd ones first"])
@pytest.mark.parametrize("path", ["/short", "/" + "path/" * 1000], ids=["short path", "5 kB path"])
def test_segments_out_of_order(lab: Lab, sender: RawSender, order: str, path: str) -> None:
    head = _large_head(path)
    parts = [(at, head[at : at + SEGMENT]) for at in range(0, len(head), SEGMENT)]
    assert len(parts) == 12
    _expect_digest(lab, sender, head, _ordered(parts, order))


@pytest.mark.parametrize("order", ["reversed", "first one last", "shuffled", "odd ones first"])
def test_tiny_segments_out_of_order(lab: Lab, sender: RawSender, order: str) -> None:
    """Twice as many as an initial window has, each of two bytes."""
    head = web.request("/tiny")
    parts = [(at, head[at : at + 2]) for at in range(0, len(head), 2)]
    assert len(parts) > 20
    _expect_digest(lab, sender, head, _ordered(parts, order))


@pytest.mark.parametrize("seed", range(4))
def test_overlapping_retransmissions(lab: Lab, sender: RawSender, seed: int) -> None:
    """Segments and their repetitions are cut at different places, and arrive in any order."""
    dice = random.Random(seed)
    head = _large_head("/" + "path/" * dice.choice([1, 500, 1000]))
    parts = [(at, head[at : at + SEGMENT]) for at in range(0, len(head), SEGMENT)]
    for _ in range(16):
        at = dice.randrange(len(head))
        parts.append((at, head[at : at + dice.randrange(1, SEGMENT)]))
    dice.shuffle(parts)
    _expect_digest(lab, sender, head, parts)


def test_a_head_sent_twice_is_one_request(lab: Lab, sender: RawSender) -> None:
    """A client whose acknowledgment was lost sends all again, first in other segments."""
    head = _large_head("/twice")
    parts = [
        (at, head[at : at + size])
        for size in (1000, SEGMENT, SEGMENT)
        for at in range(0, len(head), size)
    ]
    _expect_digest(lab, sender, head, parts)


def test_pipelined_requests_out_of_order(lab: Lab, sender: RawSender) -> None:
    heads = [web.request(f"/pipelined/{number}") for number in range(5)]
    sent = b"".join(heads)
    parts = [(at, sent[at : at + 41]) for at in range(0, len(sent), 41)]
    with serving(lab, echo_head):
        connection = sender.open(service=PORT)
        connection.send()
        for at, part in _ordered(parts, "shuffled"):
            connection.send(part, "PA", seq=connection.isn + 1 + at)
        connection.seq += len(sent)
        received = connection.read(
            lambda data: data.count(b"200 OK") == 5 and data.endswith(heads[4])
        )
        connection.end()
    assert _bodies(received) == heads


def _bodies(received: bytes) -> list[bytes]:
    """The bodies of some responses of `respond`."""
    before, *bodies = re.split(rb"HTTP/1.1 200 OK\r\nContent-Length: \d+\r\n\r\n", received)
    assert before == b""
    return bodies


def _large_head(path: str) -> bytes:
    """A head of 16 kB, nearly all of it cookies (in 12 segments)."""
    size = 16_000 - len(path)
    cookie = "; ".join(f"c{number}={'v' * 100}" for number in range(size // 107))
    head = web.request(path, f"Cookie: {cookie:<{size}}!")
    assert 16_000 < len(head) <= 16_384
    return head


def _ordered(parts: list[tuple[int, bytes]], order: str) -> list[tuple[int, bytes]]:
    match order:
        case "reversed":
            return parts[::-1]
        case "first one last":
            return parts[1:] + parts[:1]
        case "odd ones first":
            return parts[1::2] + parts[::2]
    return random.Random(1).sample(parts, len(parts))


def _expect_digest(
    lab: Lab, sender: RawSender, head: bytes, parts: list[tuple[int, bytes]]
) -> None:
    """A head sent in these parts, each with its offset and none again, reaches the server whole and
    once."""
    digest = hashlib.sha256(head).hexdigest().encode()

    def digest_heads(tcp: socket.socket) -> None:
        respond(tcp, hashlib.sha256(head_of(tcp)).hexdigest().encode())
        assert tcp.recv(1) == b""

    with serving(lab, digest_heads) as server:
        connection = sender.open(service=PORT)
        connection.send()
        for at, part in parts:
            connection.send(part, seq=connection.isn + 1 + at)
        connection.seq += len(head)
        response = connection.read(lambda data: data.endswith(digest))
        assert response.count(b"200 OK") == 1
        assert not any(packet.flags & RST for packet in connection.answers())
        connection.end()
    assert len(server.peers) == 1


def _expect_echo(lab: Lab, parts: list[bytes], pause: float = 0) -> None:
    """A head sent in these parts, a segment each, reaches the server as it is, once."""
    head = b"".join(parts)
    with serving(lab, echo_head), lab.connect(to=SCRIPTED) as tcp:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            tcp.sendall(part)
            if pause:
                time.sleep(pause)
        assert web.response(tcp).body == head
        tcp.sendall(head)  # and the connection goes on
        assert web.response(tcp).body == head
