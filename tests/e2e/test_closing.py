"""How connections end: who ends first, one side only, both at once, by reset."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from tests.e2e import controlled, web
from tests.e2e.capture import FIN, RST, Packet, capture
from tests.e2e.kernel_clients import begun
from tests.e2e.lab import CLIENT, LAB, VIP, Lab, until
from tests.e2e.network import misbehaving
from tests.e2e.scripted import PORT, abort, head_of, respond, serving
from tests.e2e.wire import Faults

pytestmark = pytest.mark.root

SCRIPTED = (VIP, PORT)
HELD = 0.1  # seconds: less than a FIN waits before it is sent again


def test_client_closes_first(lab: Lab, scripted: None) -> None:
    ended: list[bytes] = []

    def serve(tcp: socket.socket) -> None:
        respond(tcp, head_of(tcp))
        ended.append(tcp.recv(1))

    with serving(lab, serve):
        tcp = lab.connect(to=SCRIPTED)
        tcp.sendall(web.request("/"))
        web.response(tcp)
        tcp.close()
        until(lambda: ended, 5, "the server learns of the end")
    assert ended == [b""]


def test_server_closes_first(lab: Lab) -> None:
    with lab.connect() as tcp:
        tcp.sendall(web.request("/1k", close=True))
        assert web.rest(tcp).endswith((LAB / "www" / "1k").read_bytes())


def test_server_resets(lab: Lab, scripted: None) -> None:
    def serve(tcp: socket.socket) -> None:
        head_of(tcp)
        abort(tcp)

    with serving(lab, serve), lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        with pytest.raises(ConnectionResetError):
            tcp.recv(1)


def test_server_resets_in_mid_download(lab: Lab, scripted: None) -> None:
    def serve(tcp: socket.socket) -> None:
        head_of(tcp)
        tcp.sendall(bytes(100_000))
        assert tcp.recv(1) == b"!"  # the client has got some of it
        abort(tcp)

    with serving(lab, serve), lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        assert tcp.recv(1000)
        tcp.sendall(b"!")
        with pytest.raises(ConnectionResetError):
            web.rest(tcp)


def test_nobody_listens(lab: Lab, scripted: None) -> None:
    """The server's host answers with RST, and so the balancer the client, after some attempts."""
    with lab.connect(to=SCRIPTED) as tcp:
        started = time.monotonic()
        tcp.sendall(web.request("/"))
        assert web.response(tcp).status == 503
        assert time.monotonic() - started < 5


def test_client_half_closes(lab: Lab, scripted: None) -> None:
    """The server answers at length although the client has ended its side. (nginx would not.)"""
    body = (LAB / "www" / "20m").read_bytes()

    def serve(tcp: socket.socket) -> None:
        head_of(tcp)
        assert tcp.recv(1) == b""
        respond(tcp, body)

    with serving(lab, serve), lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        tcp.shutdown(socket.SHUT_WR)
        assert web.rest(tcp).endswith(body)


def test_request_and_fin_in_one_segment(lab: Lab, scripted: None) -> None:
    """TCP_CORK holds the request back until the end comes with it."""

    def serve(tcp: socket.socket) -> None:
        head = head_of(tcp)
        assert tcp.recv(1) == b""
        respond(tcp, head)

    head = web.request("/")
    with serving(lab, serve), capture(lab, "client") as packets, lab.connect(to=SCRIPTED) as tcp:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        tcp.sendall(head)
        tcp.shutdown(socket.SHUT_WR)
        assert web.rest(tcp).endswith(head)
    assert any(
        packet.outgoing and packet.flags & FIN and packet.payload for packet in packets.packets
    )


def test_fin_before_any_data(lab: Lab) -> None:
    with lab.connect() as tcp:
        tcp.shutdown(socket.SHUT_WR)
        assert tcp.recv(1) == b""


def test_unused_connection_closes_cleanly(lab: Lab) -> None:
    """As a browser's preconnect. Neither side resets, and the balancer keeps nothing of it."""
    with capture(lab, "client") as packets:
        tcp = lab.connect()
        port = tcp.getsockname()[1]
        tcp.close()
        until(lambda: lab.closed(port), 5, "the client's side is closed")
    assert not any(packet.flags & RST for packet in begun(packets))
    assert not controlled.seen(lab, "balancer", "flows", "--client", f"{CLIENT}:{port}")


def test_server_half_closes(lab: Lab, scripted: None) -> None:
    """What the client still has to say reaches a server that has ended its side."""
    heard: list[bytes] = []

    def serve(tcp: socket.socket) -> None:
        respond(tcp, head_of(tcp))
        tcp.shutdown(socket.SHUT_WR)
        heard.append(web.rest(tcp))

    with serving(lab, serve), lab.connect(to=SCRIPTED) as tcp:
        tcp.sendall(web.request("/"))
        web.rest(tcp)
        tcp.sendall(b"thanks" * 1000)
        tcp.close()
        until(lambda: heard, 5, "the server has heard all")
    assert heard == [b"thanks" * 1000]


@pytest.mark.parametrize("held", ["client to balancer", "bridge to client"])
def test_both_close_at_once(lab: Lab, scripted: None, held: str) -> None:
    """Each side's FIN leaves before the other's has come: one of them is held on its way. Both
    kernels go through CLOSING, and nobody resets."""
    closing, ended = threading.Event(), threading.Event()

    def serve(tcp: socket.socket) -> None:
        respond(tcp, head_of(tcp))
        closing.wait(5)
        tcp.shutdown(socket.SHUT_WR)
        assert tcp.recv(1) == b""
        ended.set()

    with serving(lab, serve), capture(lab, "client") as packets, lab.connect(to=SCRIPTED) as tcp:
        port = tcp.getsockname()[1]
        tcp.sendall(web.request("/"))
        web.response(tcp)
        match = f"-m multiport --ports {port} --tcp-flags FIN FIN"
        with misbehaving(lab, held, Faults(hold=1, late=HELD), match):
            if held == "client to balancer":
                tcp.shutdown(socket.SHUT_WR)
                closing.set()
            else:
                closing.set()
                until(lambda: "FIN-WAIT-1" in lab.states("backend1", port), 2, "the server ends")
                tcp.shutdown(socket.SHUT_WR)
            assert tcp.recv(1) == b""
            assert ended.wait(5), "the server learns of the end"
        until(lambda: lab.states("client", port, PORT) == ["TIME-WAIT"], 2, "the client waits")
        until(lambda: lab.states("backend1", port, PORT) == ["TIME-WAIT"], 2, "the server waits")
    seen = begun(packets)
    assert not any(packet.flags & RST for packet in seen)
    client_fin, server_fin = (_first_fin(seen, outgoing) for outgoing in (True, False))
    assert _ends_before(client_fin, server_fin) and _ends_before(server_fin, client_fin)


def _first_fin(packets: list[Packet], outgoing: bool) -> Packet:
    return next(p for p in packets if p.outgoing == outgoing and p.flags & FIN)


def _ends_before(fin: Packet, other: Packet) -> bool:
    """Whether a side had not seen the other's FIN when it sent its own."""
    return (other.seq + len(other.payload) - fin.ack) % 2**32 < 2**31
