"""A server of the test's own behind the balancer: what it does with a connection is a function."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.e2e.lab import BRIDGE1, SERVER1, VIP, Lab

PORT = 8081

Handler = Callable[[socket.socket], None]

SERVICE = f"""
[[services]]
name = "scripted"
vip = "{VIP}"
port = {PORT}
dscp = 1

[[services.backends]]
name = "backend1"
bridge = "{BRIDGE1}"
"""
ENTRY = f"""
[[backends]]
address = "{BRIDGE1}"
port = {PORT}
server = "{SERVER1}:{PORT}"
"""


class Server:
    """Accepts connections on a host until closed, and runs the handler on each in its own thread.

    ``peers`` are the addresses and ports that the connections came from, ``errors`` what handlers
    raised.
    """

    def __init__(self, lab: Lab, handler: Handler, host: str, address: tuple[str, int]) -> None:
        self.peers: list[tuple[str, int]] = []
        self.errors: list[Exception] = []
        self._handler = handler
        self._listener = lab.socket(host)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(address)
        self._listener.listen(128)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop, once the handlers of all connections have returned."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        for thread in self._threads:
            thread.join(timeout=15)
            assert not thread.is_alive(), "a handler does not return"
        self._listener.close()
        assert not self.errors, self.errors

    def _accept(self) -> None:
        while True:
            try:
                tcp, peer = self._listener.accept()
            except OSError:
                return
            self.peers.append(peer)
            tcp.settimeout(10)
            thread = threading.Thread(target=self._serve, args=[tcp], daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, tcp: socket.socket) -> None:
        with tcp:
            try:
                self._handler(tcp)
            except Exception as error:
                self.errors.append(error)


@contextmanager
def scripted_service(lab: Lab) -> Iterator[None]:
    """VIP port 8081, served by whatever `serving` starts; both programs restart for it."""

    def more(addition: str) -> Callable[[str], str]:
        return lambda text: text + addition

    with lab.configured(balancer=more(SERVICE), backend1=more(ENTRY)):
        yield


@contextmanager
def serving(
    lab: Lab,
    handler: Handler,
    host: str = "backend1",
    address: tuple[str, int] = (SERVER1, PORT),
) -> Iterator[Server]:
    server = Server(lab, handler, host, address)
    try:
        yield server
    finally:
        server.close()


def head_of(tcp: socket.socket) -> bytes:
    """Read a request's head, up to and with its empty line, and no further."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = tcp.recv(1)
        if not byte:
            raise EOFError(f"the connection ended after {data!r}")
        data += byte
    return data


def respond(tcp: socket.socket, body: bytes) -> None:
    """Answer with 200 and a body."""
    tcp.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def echo_head(tcp: socket.socket) -> None:
    """Answer each request with its own head, until the client ends."""
    while True:
        try:
            head = head_of(tcp)
        except EOFError:
            return
        respond(tcp, head)


def abort(tcp: socket.socket) -> None:
    """Close a connection by RST."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.close()
