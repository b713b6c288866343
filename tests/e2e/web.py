"""HTTP/1.1 over plain sockets: small enough that the client does not limit what is measured."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field

from tests.e2e.lab import VIP, Lab

TIMEOUT = 20  # seconds for one request; far beyond what any test allows
DRIBBLE_PAUSE = 0.08  # seconds; the balancer acknowledges part of a request line after 0.04


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def backend(self) -> str:
        return self.headers.get("x-backend", "")


@dataclass
class Tally:
    """What many requests came to: seconds of each good one, and what was wrong with the others."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def slowest(self) -> float:
        return max(self.seconds)


def request(path: str, *headers: str, method: str = "GET", close: bool = False) -> bytes:
    """The bytes of a request without content."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {VIP}", *headers]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode()


def response(tcp: socket.socket) -> Response:
    """Read one response with a Content-Length from a connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(tcp)
    head, _, body = data.partition(b"\r\n\r\n")
    status, headers = _parse(head)
    parts, missing = [body], int(headers["content-length"]) - len(body)
    while missing > 0:
        parts.append(_some(tcp))
        missing -= len(parts[-1])
    return Response(status, headers, b"".join(parts))


def rest(tcp: socket.socket) -> bytes:
    """All that comes until the peer ends its side."""
    parts = []
    while part := tcp.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def fetch_and_end(tcp: socket.socket, path: str, body: bytes, first: str) -> None:
    """Get ``body`` and end the connection in both directions, "client" or "server" ``first``."""
    tcp.sendall(request(path, close=first == "server"))
    if first == "server":
        assert rest(tcp).endswith(body)
    else:
        assert response(tcp).body == body
        tcp.shutdown(socket.SHUT_WR)
        assert rest(tcp) == b""


def one_after_another(lab: Lab, count: int, path: str, body: bytes) -> Tally:
    """Requests by the client, each on a connection of its own, closed by the server."""
    return lab.inside("client", _one_after_another, count, path, body)


def at_once(
    lab: Lab,
    count: int,
    connections: int,
    path: str,
    body: bytes,
    dribble: int = 0,
    patience: float = TIMEOUT,
) -> Tally:
    """Requests by the client, each on a connection of its own, so many at a time; with ``dribble``
    each so-manieth in two parts, of which the balancer acknowledges the first before it has the
    other. Each may take ``patience`` seconds."""
    work = _at_once(count, connections, path, body, dribble, patience)
    return lab.inside("client", asyncio.run, work)


def _one_after_another(count: int, path: str, body: bytes) -> Tally:
    tally, ask = Tally(), request(path, close=True)
    for number in range(count):
        started = time.monotonic()
        try:
            with socket.create_connection((VIP, 80), TIMEOUT) as tcp:
                tcp.sendall(ask)
                answer = rest(tcp)
        except OSError as error:
            tally.failures.append(f"{number}: {error!r}")
        else:
            _judge(tally, number, answer, body, time.monotonic() - started)
    return tally


async def _at_once(
    count: int, connections: int, path: str, body: bytes, dribble: int, patience: float
) -> Tally:
    tally, ask, numbers = Tally(), request(path, close=True), iter(range(count))

    async def client() -> None:
        for number in numbers:
            started = time.monotonic()
            try:
                async with asyncio.timeout(patience):
                    reader, writer = await asyncio.open_connection(VIP, 80)
                    if dribble and number % dribble == 0:
                        writer.write(ask[:8])
                        await asyncio.sleep(DRIBBLE_PAUSE)
                        writer.write(ask[8:])
                    else:
                        writer.write(ask)
                    answer = await reader.read(-1)
                    writer.close()
            except OSError as error:
                tally.failures.append(f"{number}: {error!r}")
            else:
                _judge(tally, number, answer, body, time.monotonic() - started)

    await asyncio.gather(*(client() for _ in range(connections)))
    return tally


def _judge(tally: Tally, number: int, answer: bytes, body: bytes, seconds: float) -> None:
    head, _, content = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 200 ") and content == body:
        tally.seconds.append(seconds)
    else:
        tally.failures.append(f"{number}: {len(content)} bytes after {head[:40]!r}")


def _some(tcp: socket.socket) -> bytes:
    data = tcp.recv(1 << 20)
    assert data, "the connection ended within a response"
    return data


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}
