"""Connections of every kind that go on while something happens to the lab, and how each fares."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.e2e import web
from tests.e2e.lab import LAB, VIP, Lab, until

PATIENCE = 20.0  # seconds without a byte until a connection counts as hanging
SMALL_BUFFER = 1 << 16  # bytes that a slow reader's kernel takes
SLOW_READ, SLOW_PAUSE = 1 << 14, 0.05  # its reads, and the seconds between them
UPLOAD_PART, UPLOAD_PAUSE = 1 << 16, 0.02
ENDLESS = 1 << 40  # bytes of a body that never ends

WENT_ON, RESET, CLOSED, HUNG, WRONG = "went on", "reset", "closed", "hung", "wrong bytes"

Work = Callable[["Ongoing"], None]


class _WrongBytes(Exception):
    """The response is not the file's content."""


class Ongoing:
    """A connection in a thread of its own, by way of ``backend``. ``fate`` is what has become of it
    so far, ``fate_at`` the monotonic time of its end, ``moved`` the bytes received and sent."""

    def __init__(self, kind: str, backend: str, tcp: socket.socket, work: Work) -> None:
        self.kind, self.backend, self.tcp = kind, backend, tcp
        self.port: int = tcp.getsockname()[1]
        self.fate, self.fate_at = WENT_ON, 0.0
        self.moved = 0
        self.stopping = False
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        tcp.settimeout(PATIENCE)
        self._thread.start()

    def stop(self) -> None:
        """End it, should it go on; its fate stays what it was."""
        self.stopping = True
        with suppress(OSError):
            self.tcp.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=5)
        assert not self._thread.is_alive(), f"{self} does not stop"
        self.tcp.close()

    def send(self, data: bytes) -> None:
        self.tcp.sendall(data)
        self.moved += len(data)

    def receive(self, most: int = 1 << 18) -> bytes:
        """What has come; raises EOFError where the peer has ended."""
        data = self.tcp.recv(most)
        if not data:
            raise EOFError
        self.moved += len(data)
        return data

    def response(self, expected: bytes) -> None:
        """Read a response with that content, compared as it comes."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.receive()
        part, at = data.partition(b"\r\n\r\n")[2], 0
        while True:
            if part != expected[at : at + len(part)]:
                raise _WrongBytes
            at += len(part)
            if at >= len(expected):
                return
            part = self.receive()

    def _run(self) -> None:
        try:
            self._work(self)
            return
        except (ConnectionResetError, BrokenPipeError):
            fate = RESET
        except EOFError:
            fate = CLOSED
        except TimeoutError:
            fate = HUNG
        except _WrongBytes:
            fate = WRONG
        if not self.stopping:
            self.fate_at, self.fate = time.monotonic(), fate

    def __str__(self) -> str:
        return f"{self.kind} by {self.backend}, port {self.port}: {self.fate}"


@contextmanager
def going_on() -> Iterator[list[Ongoing]]:
    """A list for connections, which are stopped in the end."""
    flows: list[Ongoing] = []
    try:
        yield flows
    finally:
        for flow in flows:
            flow.stop()


def fates(flows: list[Ongoing]) -> str:
    """For a table: how many of each kind met which fate."""
    said = [f"{flow.kind} {flow.fate}" for flow in flows]
    return ", ".join(f"{said.count(text)} {text}" for text in dict.fromkeys(said))


def download(lab: Lab, backend: str, path: str) -> Ongoing:
    """The same file again and again, as fast as it comes."""
    body = (LAB / "www" / path.rpartition("/")[2]).read_bytes()

    def work(flow: Ongoing) -> None:
        while not flow.stopping:
            flow.send(web.request(path))
            flow.response(body)

    return Ongoing("download", backend, lab.connect(), work)


def slow_download(lab: Lab, backend: str, path: str) -> Ongoing:
    """A reader whose window is closed most of the time."""

    def work(flow: Ongoing) -> None:
        flow.send(web.request(path))
        while not flow.stopping:
            flow.receive(SLOW_READ)
            time.sleep(SLOW_PAUSE)

    tcp = lab.socket("client")
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    tcp.connect((VIP, 80))
    return Ongoing("slow download", backend, tcp, work)


def upload(lab: Lab, backend: str, path: str) -> Ongoing:
    """A request whose body never ends."""

    def work(flow: Ongoing) -> None:
        flow.send(web.request(path, f"Content-Length: {ENDLESS}", method="PUT"))
        part = bytes(UPLOAD_PART)
        while not flow.stopping:
            flow.send(part)
            time.sleep(UPLOAD_PAUSE)

    return Ongoing("upload", backend, lab.connect(), work)


def idle(lab: Lab, backend: str, path: str, ask_again: threading.Event) -> Ongoing:
    """A connection that has had an answer, and asks again when told to."""
    body = (LAB / "www" / path.rpartition("/")[2]).read_bytes()

    def work(flow: Ongoing) -> None:
        for _ in range(2):
            flow.send(web.request(path))
            flow.response(body)
            ask_again.wait()

    return Ongoing("idle", backend, lab.connect(), work)


def half_closed(lab: Lab, backend: str, to: tuple[str, int]) -> Ongoing:
    """A client that has ended its side and only listens."""

    def work(flow: Ongoing) -> None:
        flow.send(web.request("/"))
        flow.tcp.shutdown(socket.SHUT_WR)
        while not flow.stopping:
            flow.receive()

    return Ongoing("half-closed", backend, lab.connect(to=to), work)


def all_moving(flows: list[Ongoing]) -> None:
    """Wait until each has moved something from now on, or met its end; idle ones since ever."""
    before = {flow: 0 if flow.kind == "idle" else flow.moved for flow in flows}

    def moved() -> bool:
        return all(flow.moved > count or flow.fate != WENT_ON for flow, count in before.items())

    until(moved, PATIENCE, "all connections go on")
