"""WebSocket (RFC 6455) through the VIP: an upgraded connection, both ways, after long silences."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from tests.e2e.capture import RST, Packet, capture
from tests.e2e.lab import SERVER1, VIP, Lab
from tests.e2e.scripted import PORT
from tests.soak import Amount

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("scripted")]

LARGE = bytes(range(256)) * 4000  # bytes: several windows


@pytest.mark.parametrize("speaks_first", ["client", "server"])
def test_traffic_both_ways_after_silence(lab: Lab, amount: Amount, speaks_first: str) -> None:
    """A minute, and more than the 75 seconds for which servers commonly keep a connection."""
    spoken: list[ServerConnection] = []

    def echo(connection: ServerConnection) -> None:
        spoken.append(connection)
        for message in connection:
            connection.send(message)

    with _serving(lab, echo), capture(lab, "client") as packets, _client(lab) as client:
        port = client.local_address[1]

        def own() -> list[Packet]:
            return [packet for packet in packets.packets if port in packet.ports]

        _exchange(client)
        for silence in amount((3.0,), (60.0, 90.0)):
            time.sleep(0.5)  # what belongs to the last exchange has been captured
            before = len(own())
            amount.wait(silence)
            assert len(own()) == before, "nobody has said anything"
            if speaks_first == "server":
                spoken[0].send("news")
                assert client.recv(timeout=5) == "news"
            _exchange(client)
        assert not any(packet.flags & RST for packet in own())


def _exchange(client: ClientConnection) -> None:
    for message in ("hello", LARGE):
        client.send(message)
        assert client.recv(timeout=10) == message


@contextmanager
def _serving(lab: Lab, handler: Callable[[ServerConnection], None]) -> Iterator[None]:
    listener = lab.socket("backend1")
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((SERVER1, PORT))
    listener.listen()
    server = serve(handler, sock=listener, ping_interval=None)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(timeout=10)


@contextmanager
def _client(lab: Lab) -> Iterator[ClientConnection]:
    tcp = lab.connect(to=(VIP, PORT))
    tcp.settimeout(None)
    with connect(f"ws://{VIP}:{PORT}/chat", sock=tcp, ping_interval=None) as client:
        yield client
