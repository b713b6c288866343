"""Clients that are quiet for a while: before they ask, between requests, with a full buffer."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from tests.e2e import web
from tests.e2e.capture import ACK, FIN, RST, SYN, Packet, capture
from tests.e2e.kernel_clients import small_buffer
from tests.e2e.lab import LAB, Lab
from tests.e2e.raw import raw_sender
from tests.soak import Amount

pytestmark = pytest.mark.root

PROBES = 3


def test_first_use_after_a_pause(lab: Lab, amount: Amount) -> None:
    """As a browser's preconnect: three minutes, in the long form. Then it is served at once."""
    with lab.connect() as tcp:
        amount.wait(amount(3, 185))
        started = time.monotonic()
        tcp.sendall(web.request("/1k"))
        assert web.response(tcp).body == (LAB / "www" / "1k").read_bytes()
        assert time.monotonic() - started < 0.18


def test_next_request_after_a_pause(lab: Lab, amount: Amount) -> None:
    """Up to nearly nginx's own limit for a connection that is kept, 75 seconds."""
    with lab.connect() as tcp:
        for pause in (0, amount(3, 70)):
            amount.wait(pause)
            tcp.sendall(web.request("/1k"))
            assert web.response(tcp).status == 200


def test_zero_window(lab: Lab, amount: Amount, report: Callable[[str], None]) -> None:
    """A client that stops reading closes its window; the server asks now and then whether it is
    open, and goes on as soon as it is."""
    pause = amount(3.3, 10)  # between two of the server's questions: it must not wait for the next
    body = (LAB / "www" / "1m").read_bytes()
    with capture(lab, "client") as packets, small_buffer(lab) as tcp:
        tcp.sendall(web.request("/1m", close=True))
        begun = tcp.recv(10)
        amount.wait(pause)
        silent = [p for p in packets.packets if not p.flags & (SYN | RST)]
        closed = [at for at, p in enumerate(silent) if p.outgoing and not _window(p)]
        assert closed, "the window closes"
        assert not any(p.payload for p in silent[closed[0] :]), "and nothing is sent into it"
        asked = [p for p in silent[closed[0] :] if not p.outgoing]
        assert len(asked) >= 3, "the server asks whether it is open"
        assert all(not _window(p) for p in silent[closed[0] :] if p.outgoing)
        started = time.monotonic()
        first = tcp.recv(1 << 16)
        while len(first) < 100_000:
            first += tcp.recv(1 << 16)
        resumed = time.monotonic() - started
        assert (begun + first + web.rest(tcp)).endswith(body)
    assert resumed < 1, "the update of the window arrives"
    report(f"window closed for {pause} s, asked {len(asked)} times, resumed in {resumed:.2f} s")


def test_request_with_the_window_closed(lab: Lab) -> None:
    """The server's answer waits until the client says that it has room."""
    body = (LAB / "www" / "1k").read_bytes()
    with raw_sender(lab) as sender:
        connection = sender.open()
        connection.say(web.request("/1k"), window=0)
        time.sleep(0.5)
        assert not any(len(p.payload) > 1 for p in connection.answers())
        connection.send()
        connection.read(lambda data: data.endswith(body))
        connection.end()


def test_keep_alive_probes(lab: Lab, amount: Amount) -> None:
    """Each probe (the number before the next one) is answered, at whatever point the client is
    silent, and all goes on afterwards."""
    ask, body = web.request("/1k"), (LAB / "www" / "1k").read_bytes()
    probes = amount(PROBES, 60)
    with capture(lab, "client") as packets:
        silent = {name: lab.connect() for name in ("fresh", "half a head", "answered")}
        silent["half a head"].sendall(ask[:9])
        silent["answered"].sendall(ask)
        assert web.response(silent["answered"]).body == body
        for tcp in silent.values():
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        amount.wait(probes + 0.5)
        quiet = packets.packets[:]
        for name, tcp in silent.items():
            tcp.sendall(ask[9:] if name == "half a head" else ask)
            assert web.response(tcp).body == body, name
            asked, answered = _probes(quiet, tcp.getsockname()[1])
            assert asked >= probes - 1, name
            assert answered == asked, name
            tcp.close()
    assert not any(packet.flags & RST for packet in packets.packets)


def test_keep_alive_probe_with_a_byte(lab: Lab) -> None:
    """As old systems send it (RFC 1122 section 4.2.3.6): the byte before the next, of any value."""
    body = (LAB / "www" / "1k").read_bytes()
    with raw_sender(lab) as sender:
        connection = sender.open()
        connection.send()
        for ask in (b"", web.request("/1k")):
            if ask:
                connection.say(ask)
                connection.read(lambda data: data.endswith(body))
            seen = len(connection.answers())
            connection.send(b"\0", seq=(connection.seq - 1) % 2**32)
            answer = sender.answer(connection.port, lambda p: bool(p.flags & ACK), after=seen)
            assert (answer.flags & ~8, answer.ack, answer.payload) == (ACK, connection.seq, b"")
        connection.end()


def _probes(packets: list[Packet], port: int) -> tuple[int, int]:
    """Keep-alive probes that left a port of the client's, and how many of them were answered by
    what came next."""
    mine = [p for p in packets if port in p.ports]
    reached, probes, answered = 0, 0, 0
    for packet, following in zip(mine, [*mine[1:], None], strict=True):
        if not packet.outgoing:
            continue
        end = packet.seq + len(packet.payload) + bool(packet.flags & (SYN | FIN))
        if not packet.flags & SYN and not packet.payload and end == reached - 1:
            probes += 1
            answered += (
                following is not None
                and not following.outgoing
                and (following.flags, following.ack) == (ACK, reached)
            )
        reached = max(reached, end)
    return probes, answered


def _window(packet: Packet) -> int:
    return int.from_bytes(packet.tcp[14:16], "big")
